"""Posteriors of time-dependent classifiers for audits: by hand, out of fold, and what in-sample ones are told."""

from __future__ import annotations

import importlib.util
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_noise.audit import audit_labels, cross_fitted_posterior, fit_time_classifier, time_posterior
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips
from hf_noise.noise.normals_torch import normals

SCRIPT = Path(__file__).parents[1] / "trainers" / "time_classifier_processes.py"
SPEC = importlib.util.spec_from_file_location("time_classifier_processes", SCRIPT)
shared = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(shared)
CLASSES, SIZE = shared.CLASSES, shared.SIZE
NOISE = np.eye(CLASSES) * 0.5 + np.roll(np.eye(CLASSES), 1, axis=1) * 0.3 + 0.05  # not symmetric, rows sum to 1


def quadrants(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is the brightest of four quadrants, and these."""
    rows = shared.rows(n, seed)
    return rows.images.numpy(), rows.columns["labels"].numpy()


def network(**options) -> TimeDependentClassifier:
    torch.manual_seed(0)
    return TimeDependentClassifier(CLASSES, SIZE, 1, "cnn-digits", **options)


def test_the_mean_over_levels_and_draws_by_hand():
    images, _ = quadrants(5)
    model, ids, clean = network().eval(), np.array([7, 0, 3, 90, 4]), torch.from_numpy(images).float() / 127.5 - 1
    total = 0
    for draw in range(3):
        noise = normals(11, 180, draw, torch.from_numpy(ids), SIZE**2).view(clean.shape)
        for sigma in (0.1, 0.5):
            with torch.no_grad():
                total = total + model(clean + sigma * noise, torch.full((5,), sigma)).double().softmax(-1)
    found = time_posterior(model, images, trained_on=(), sigmas=(0.1, 0.5), draws=3, sample_ids=ids, seed=11)
    assert found.dtype == np.float64 and found.sum(axis=1) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found, total / 6, rtol=1e-5)


def test_a_row_has_the_same_posterior_beside_any_others():
    images, _ = quadrants(6)
    whole = time_posterior(network(), images, trained_on=[], seed=3)
    part = time_posterior(network(), torch.from_numpy(images[[4, 1]]), trained_on=[], sample_ids=[4, 1], seed=3)
    np.testing.assert_allclose(part, whole[[4, 1]], rtol=1e-5)
    other = time_posterior(network(), images, trained_on=[], seed=4)
    assert np.abs(other - whole).max() > 1e-5


def test_a_folder_does_and_the_classifier_is_left_as_it_was(tmp_path):
    images, _ = quadrants(4)
    model = network().train()
    found = time_posterior(model, images, trained_on=())
    assert model.training
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(time_posterior(tmp_path, images, trained_on=()), found, rtol=1e-6)


def test_through_a_transition_it_says_what_label_to_expect():
    images, _ = quadrants(4)
    clean = time_posterior(network(), images, trained_on=())
    noisy = time_posterior(network(transition=NOISE, transition_source="given"), images, trained_on=())
    np.testing.assert_allclose(noisy, clean @ NOISE, rtol=1e-6)
    assert np.abs(noisy - clean @ NOISE.T).max() > 1e-3


def test_rows_that_it_was_trained_on_are_counted_in_a_warning():
    images, _ = quadrants(6)
    with pytest.warns(UserWarning, match="trained on 2 of the 6 rows .* use cross_fitted_posterior"):
        time_posterior(network(), images, trained_on=np.array([12, 90, 13]), sample_ids=np.arange(10, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        time_posterior(network(), images, trained_on=np.arange(6, 9))


def test_each_row_is_judged_by_a_classifier_that_has_not_seen_it_nor_a_copy():
    images, labels = quadrants(24)[0], np.arange(24) % CLASSES
    images[[6, 18]] = images[2]
    fitted = []

    def fit(rows):
        fitted.append(set(rows.tolist()))
        return network(P_mean=-1.2 + 0.1 * len(fitted))

    found = cross_fitted_posterior(images, labels, fit=fit, folds=3, draws=1, seed=2)
    assert len(fitted) == 3 and all(sum(row in seen for seen in fitted) == 2 for row in range(24))
    assert all(len({2, 6, 18} & seen) in (0, 3) for seen in fitted)
    assert found.sum(axis=1) == pytest.approx(1)
    for seen in fitted:
        judged = np.array(sorted(set(range(24)) - seen))
        alone = time_posterior(network(), images[judged], trained_on=(), sample_ids=judged, draws=1, seed=2)
        np.testing.assert_allclose(found[judged], alone, rtol=1e-5)


def test_an_audit_finds_rate_and_rows_out_of_fold_and_is_misled_in_sample():
    """Wrong labels are learned by heart in 60 epochs, by which every one of them looks right."""
    images, clean = quadrants(160, 3)
    flips = LabelFlips.symmetric(error_rate=0.3, num_classes=CLASSES, seed=1)
    given = flips(clean, sample=np.arange(160), epoch=0)[0]
    wrong = given != clean

    def fit(rows):
        return fit_time_classifier(images[rows], given[rows], epochs=20, batch_size=40, learning_rate=4e-3,
                                   sample_ids=rows)  # fmt: skip

    audit = audit_labels(given, probabilities=cross_fitted_posterior(images, given, fit=fit, folds=2, draws=1))
    assert audit.error_rate.low <= wrong.mean() <= audit.error_rate.high
    assert abs(audit.error_rate.value - wrong.mean()) < 0.08
    assert (audit.flagged() & wrong).sum() >= 0.9 * wrong.sum() and (audit.flagged() & ~wrong).sum() <= 0.1 * 160
    everyone = np.arange(160)
    by_heart = fit_time_classifier(images, given, epochs=60, batch_size=80, learning_rate=5e-3, P_mean=-4.0, P_std=0.7)
    with pytest.warns(UserWarning, match="trained on 160 of the 160 rows"):
        p = time_posterior(by_heart, images, trained_on=everyone, sigmas=(0.02,), draws=1)
    misled = audit_labels(given, probabilities=p)
    assert misled.error_rate.value < 0.5 * wrong.mean()
    assert "one that was trained on the very rows that it judges" in " ".join(misled.warnings)


def test_training_is_the_same_again_and_leaves_the_global_generators_alone():
    images, labels = quadrants(16)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first, second = (fit_time_classifier(images, labels, epochs=1, seed=2) for _ in range(2))
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    for one, other in zip(first.parameters(), second.parameters()):
        assert torch.equal(one, other)
    assert first.predicts == "noisy" and first.config.architecture == "cnn-digits" and not first.training
    assert first.config.num_classes == CLASSES


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"images": np.zeros((4, 1, SIZE, SIZE))}, TypeError, r"images must be uint8 .* got float64 \[4, 1, 6, 6\]"),
        ({"images": np.zeros((4, 1, SIZE, 2), np.uint8)}, ValueError, r"squares, .* got \[4, 1, 6, 2\]"),
        ({"images": np.zeros((4, 1, 8, 8), np.uint8)}, ValueError, "the classifier has image_size = 6, this run 8"),
        ({"trained_on": [[0, 1]]}, ValueError, r"trained_on must be integers \[M\]; \(\) if it saw none, got shape"),
        ({"sample_ids": [0, 1]}, ValueError, r"sample_ids must be integers \[4\], one per image, got shape \[2\]"),
        ({"sigmas": (0.1, 1e-4)}, ValueError, r"sigmas must lie where .*, in \[0.00823, 11\], got 0.0001"),
        ({"sigmas": ()}, TypeError, "sigmas must be a sequence of noise levels"),
        ({"classifier": torch.nn.Linear(2, 2)}, TypeError, "classifier must be a TimeDependentClassifier"),
        ({"draws": 0}, ValueError, r"draws must lie in \[1, 2\^10\], got 0"),
    ],
)  # fmt: skip
def test_what_a_posterior_refuses(changes, error, told):
    usual = {"classifier": network(), "images": quadrants(4)[0], "trained_on": ()} | changes
    with pytest.raises(error, match=told):
        time_posterior(usual.pop("classifier"), usual.pop("images"), **usual)


def test_what_folds_refuse():
    images, labels = quadrants(24)[0], np.arange(24) % CLASSES
    with pytest.raises(ValueError, match=r"labels must be one per image, \[24\], got shape \[23\]"):
        cross_fitted_posterior(images, labels[1:])
    with pytest.raises(ValueError, match="hold every class, got values in"):
        cross_fitted_posterior(images, labels + 1)
    with pytest.raises(TypeError, match="fit must be a function of row numbers"):
        cross_fitted_posterior(images, labels, fit="mine")
    with pytest.raises(ValueError, match="1 distinct rows among 24"):
        cross_fitted_posterior(np.repeat(images[:1], 24, axis=0), np.arange(24) % 4, folds=2)
    with pytest.raises(ValueError, match="fit returned a classifier of 4 classes, and labels have 2"):
        cross_fitted_posterior(images, labels % 2, fit=lambda rows: network(), folds=2)
    with pytest.raises(ValueError, match="each class must be in at least 5 rows"):
        cross_fitted_posterior(images, np.r_[np.zeros(22, int), 1, 1])
    with pytest.raises(ValueError, match="learning_rate must be finite and > 0, got 0"):
        fit_time_classifier(images, labels, learning_rate=0)
