"""The metrics as `evaluate.Metric`: same figures as the functions, whatever way the batches came."""

from __future__ import annotations

import json
import threading

import evaluate
import numpy as np
import pytest

from hf_noise import metrics

REFERENCES = np.arange(300) % 10
DRAW = np.random.default_rng(0)
PREDICTIONS = np.where(DRAW.random(300) < 0.6, REFERENCES, DRAW.integers(10, size=300))
LOGITS = DRAW.normal(size=(300, 10)) + 2 * np.eye(10)[REFERENCES]


def shift(*names):
    found = metrics.marginal_shift(PREDICTIONS, REFERENCES, num_classes=10)
    return {name: found[name] for name in (*names, "n")}


def per_class():
    found = metrics.per_class_accuracy(PREDICTIONS, REFERENCES, num_classes=10)
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}


OF_CLASSES = {
    "AccuracyWithInterval": lambda: metrics.accuracy(PREDICTIONS, REFERENCES, num_classes=10),
    "PerClassAccuracy": per_class,
    "SuccessorRate": lambda: metrics.successor_rate(PREDICTIONS, REFERENCES, num_classes=10),
    "MarginalKL": lambda: shift("marginal_kl", "sampling_kl"),
    "MarginalTV": lambda: shift("marginal_tv", "sampling_tv"),
}


@pytest.mark.parametrize("name", OF_CLASSES)
def test_the_figures_of_the_function(name):
    metric = getattr(metrics, name)()
    assert isinstance(metric, evaluate.Metric)
    expected = OF_CLASSES[name]()
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES, num_classes=10) == expected
    for start in range(0, 300, 77):  # the last batch is shorter
        batch = slice(start, start + 77)
        metric.add_batch(predictions=PREDICTIONS[batch], references=REFERENCES[batch])
    found = metric.compute(num_classes=10)
    assert found == expected
    assert json.loads(json.dumps(found)) == found


def test_one_by_one_and_in_memory():
    metric = metrics.MarginalKL(keep_in_memory=True)
    for prediction, reference in zip([0, 0, 0, 1], [0, 1, 1, 0]):
        metric.add(prediction=prediction, reference=reference)
    expected = metrics.marginal_kl([0, 0, 0, 1], [0, 1, 1, 0], num_classes=2)
    assert metric.compute(num_classes=2) == {"marginal_kl": expected, "sampling_kl": 0.125, "n": 4}


def test_calibration_keeps_float64():
    metric = metrics.Calibration()
    for start in (0, 200):
        metric.add_batch(predictions=LOGITS[start : start + 200], references=REFERENCES[start : start + 200])
    assert metric.compute(bins=10) == metrics.classifier_calibration(LOGITS, REFERENCES, bins=10)


def test_tensors_are_served():
    torch = pytest.importorskip("torch")
    found = metrics.AccuracyWithInterval().compute(
        predictions=torch.from_numpy(PREDICTIONS), references=torch.from_numpy(REFERENCES)
    )
    assert found == metrics.accuracy(PREDICTIONS, REFERENCES)
    logits = torch.from_numpy(LOGITS).float()
    found = metrics.Calibration().compute(predictions=logits, references=torch.from_numpy(REFERENCES))
    assert found == metrics.classifier_calibration(logits.numpy(), REFERENCES)


def test_two_processes_are_measured_together(tmp_path):
    """Two ranks, here threads: evaluate joins them through files and locks, and rank 0 alone has the figure."""
    found = {}

    def rank(number):
        metric = metrics.SuccessorRate(
            num_process=2, process_id=number, experiment_id="pair", cache_dir=str(tmp_path), timeout=60
        )
        metric.add_batch(predictions=PREDICTIONS[number::2], references=REFERENCES[number::2])
        found[number] = metric.compute(num_classes=10)

    ranks = [threading.Thread(target=rank, args=(number,), daemon=True) for number in range(2)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(timeout=120)
    assert found == {0: OF_CLASSES["SuccessorRate"](), 1: None}


def test_several_at_once():
    """evaluate puts the name of its metric before what two of them return."""
    both = evaluate.combine([metrics.AccuracyWithInterval(), metrics.MarginalKL(), metrics.MarginalTV()])
    found = both.compute(predictions=PREDICTIONS, references=REFERENCES, num_classes=10)
    assert found["accuracy"] == metrics.accuracy(PREDICTIONS, REFERENCES)["accuracy"]
    assert found["marginal_tv"] == metrics.marginal_tv(PREDICTIONS, REFERENCES, num_classes=10)
    assert found["marginal_kl_n"] == found["accuracy_with_interval_n"] == 300


def test_a_failed_figure_does_not_spoil_the_next():
    metric = metrics.AccuracyWithInterval()
    with pytest.raises(ValueError, match=r"1 of 2 predictions lie outside \[0, 10\), the first is 12 at index 1"):
        metric.compute(predictions=[0, 12], references=[0, 1], num_classes=10)
    assert metric.compute(predictions=[0, 1], references=[0, 1], num_classes=10)["n"] == 2


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([0.0, 0.9], r"1 of 2 predictions are no integers, the first is 0\.9 at index 1; take argmax"),
        ([0, None], "1 of 2 predictions are no integers, the first is nan at index 1"),
        ([[0.1, 0.9], [0.2, 0.8]], "don't match the expected format"),
        ([0], r"Mismatch in the number of predictions \(1\) and references \(2\)"),
    ],
)
def test_what_is_no_class_is_refused(predictions, message):
    with pytest.raises(ValueError, match=message):
        metrics.MarginalKL().compute(predictions=predictions, references=[0, 1], num_classes=10)


def test_no_or_ragged_input_is_refused():
    with pytest.raises(ValueError, match="with n >= 1"):
        metrics.MarginalKL().compute(predictions=[], references=[], num_classes=10)
    with pytest.raises(ValueError, match=r"logits must be \[n, C\], got rows of 1 and of 2 classes"):
        metrics.Calibration().compute(predictions=[[0.0], [0.0, 1.0]], references=[0, 0])


@pytest.mark.parametrize("name", [*OF_CLASSES, "Calibration"])
def test_each_says_what_it_returns(name):
    metric = getattr(metrics, name)()
    assert "hf_noise.metrics." in metric.description and '"n"' in metric.description
    assert set(metric.features) == {"predictions", "references"}
    assert "references: integers" in metric.compute.__doc__


FAKE = DRAW.normal(size=(60, 4))
REAL = DRAW.normal(size=(90, 4)) + 0.5


def test_features_of_another_number_of_real_images():
    """One batch after the other; real features come with compute, as arrays or statistics."""
    metric = metrics.FrechetDistance()
    for start in (0, 40):
        metric.add_batch(predictions=FAKE[start : start + 40])
    expected = {"frechet_distance": metrics.frechet_distance(REAL, FAKE), "n": 60}
    assert metric.compute(real=metrics.FeatureStatistics(REAL)) == expected
    assert metric.compute(predictions=FAKE, real=REAL) == expected
    found = metrics.DensityCoverage().compute(predictions=FAKE, real=REAL, k=3)
    assert found == metrics.density_coverage(REAL, FAKE, 3)
    with pytest.raises(ValueError, match="got rows of 1 and of 2 numbers"):
        metrics.DensityCoverage().compute(predictions=[[0.0], [0.0, 1.0]], real=REAL)


def test_label_consistency_is_plain_json():
    found = metrics.LabelConsistency().compute(predictions=PREDICTIONS, references=REFERENCES, num_classes=10)
    assert json.loads(json.dumps(found)) == found
    expected = metrics.label_consistency(PREDICTIONS, REFERENCES, num_classes=10)
    assert found["label_consistency"] == expected["label_consistency"]
    assert found["per_class"]["n"] == expected["per_class"]["n"].tolist()


@pytest.mark.parametrize("name", ["FrechetDistance", "DensityCoverage", "LabelConsistency"])
def test_each_of_generation_says_what_it_returns(name):
    metric = getattr(metrics, name)()
    assert "hf_noise.metrics." in metric.description and '"n"' in metric.description
