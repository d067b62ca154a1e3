"""Records are read once a sample, scores are those of slow twins, and on digits they find the wrong labels."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import TrainingArguments

from hf_noise.audit import (
    area_under_margin,
    aum_score,
    forgetting_events,
    forgetting_score,
    mean_loss,
    read_dynamics,
    small_loss_score,
)
from hf_noise.data.digits import digits
from hf_noise.models.image import image_classifier
from hf_noise.noise import LabelFlips
from hf_noise.trainers import DynamicsCallback, ImageClassifierTrainer
from hf_noise.trainers.dynamics_files import Part, write_part
from hf_noise.trainers.images import DeviceImages

NAN = math.nan


def write(folder, epoch, first, end, ids, process=0, processes=1, steps=None, margin=None, label=None):
    """A part whose loss is 1 + margin; by default one step, labels 2."""
    margin = np.arange(len(ids)) if margin is None else np.asarray(margin)
    columns = {"sample_id": np.asarray(ids), "step": np.full(len(ids), first) if steps is None else np.asarray(steps),
               "label": np.full(len(ids), 2) if label is None else np.asarray(label), "loss": 1.0 + np.abs(margin),
               "margin": margin, "p_given": np.exp(-1.0 - np.abs(margin))}  # fmt: skip
    return write_part(folder, Part(epoch, first, end, process, processes), columns)


# ---- reading


def test_arrays_of_epochs_and_samples(tmp_path):
    write(tmp_path, 0, 0, 2, [9, 4, 7], margin=[1, 2, 3])
    write(tmp_path, 0, 2, 3, [5], margin=[4])
    write(tmp_path, 1, 3, 5, [4, 9], margin=[-1, -2])
    found = read_dynamics(tmp_path)
    assert found.sample_ids.tolist() == [4, 5, 7, 9] and found.epochs.tolist() == [0, 1]
    np.testing.assert_array_equal(found.margin, np.float32([[2, 4, 3, 1], [-1, NAN, NAN, -2]]))
    assert found.labels.tolist() == [[2, 2, 2, 2], [2, -1, -1, 2]] and found.given.tolist() == [2] * 4
    asked = read_dynamics(tmp_path, np.array([11, 9, 7, 5, 4], dtype=np.uint16))
    assert asked.sample_ids.tolist() == [11, 9, 7, 5, 4] and asked.never_seen.tolist() == [11]
    assert asked.given.tolist() == [-1, 2, 2, 2, 2]
    for scores in asked.scores().values():
        assert np.isnan(scores).tolist() == [True, False, False, False, False]


def test_samples_that_fill_the_last_batch_count_once(tmp_path):
    """As first seen; of one step in the order of processes."""
    write(tmp_path, 0, 0, 2, [1, 2, 5], 0, 2, steps=[0, 0, 1], margin=[10, 20, 50])
    write(tmp_path, 0, 0, 2, [3, 4, 1], 1, 2, steps=[0, 0, 1], margin=[30, 40, -10])
    found = read_dynamics(tmp_path)
    assert found.sample_ids.tolist() == [1, 2, 3, 4, 5] and found.margin[0].tolist() == [10, 20, 30, 40, 50]


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no training dynamics"):
        read_dynamics(tmp_path)
    with pytest.raises(FileNotFoundError, match="no training dynamics"):
        read_dynamics(tmp_path / "none")
    with pytest.raises(TypeError, match="folder"):
        read_dynamics(3)
    path = write(tmp_path, 0, 0, 2, [9, 4])
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", whole[:-4] + b"abcd"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"steps00000000-00000002.* cannot be read.*copy it again"):
            read_dynamics(tmp_path)
    path.write_bytes(whole)
    (tmp_path / f".{path.name}.0123abcd.1.tmp").write_bytes(whole[:20])  # what a killed process left
    (tmp_path / "other.parquet").write_bytes(b"")
    assert read_dynamics(tmp_path).sample_ids.tolist() == [4, 9]
    shutil.copy(path, tmp_path / Part(1, 2, 4, 0, 1).name)
    with pytest.raises(ValueError, match="its name does not say"):
        read_dynamics(tmp_path)
    (tmp_path / Part(1, 2, 4, 0, 1).name).unlink()
    write(tmp_path, 1, 3, 4, [9, 4])
    with pytest.raises(ValueError, match="nothing of the steps 2 to 2"):
        read_dynamics(tmp_path)
    write(tmp_path, 1, 2, 3, [9, 8])
    with pytest.raises(ValueError, match="repeats in epoch 1 for 1 samples .9.*number the rows"):
        read_dynamics(tmp_path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match="has the columns a"):
        read_dynamics(tmp_path)


def test_bad_ids(tmp_path):
    write(tmp_path, 0, 0, 1, [9, 4])
    for wrong, said in (([9], "holds 1 samples that sample_ids lacks .the first is 4"), ([4, 9, 9], "repeat: 1 of 3"),
                        ([4.0, 9.0], "integers"), ([[4, 9]], "integers"),
                        (np.array([2**64 - 1, 4], dtype=np.uint64), "2.63")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            read_dynamics(tmp_path, wrong)


def test_labels_that_are_drawn_anew_are_not_scored_together(tmp_path):
    write(tmp_path, 0, 0, 1, [4, 9], label=[0, 1])
    write(tmp_path, 1, 1, 2, [4, 9], label=[0, 2])
    found = read_dynamics(tmp_path)
    for call in (lambda: found.given, found.scores):
        with pytest.raises(ValueError, match="labels of 1 samples changed.*sample_id 9"):
            call()
    assert set(found.scores([1])) == set(found.scores(slice(1))) == {"aum", "forgetting", "small_loss"}
    np.testing.assert_allclose(found.scores([1])["small_loss"], small_loss_score(found.loss[1:]))


# ---- scores

MARGIN = np.array([
    [2.0, -1.0, 3.0, -1.0, NAN, 1.0, NAN],
    [1.0, 1.0, -2.0, -2.0, NAN, NAN, -3.0],
    [3.0, -2.0, 1.0, -3.0, NAN, -1.0, NAN],
    [2.0, 2.0, -1.0, -1.0, NAN, 1.0, NAN],
])  # fmt: skip


def test_scores_by_hand():
    np.testing.assert_allclose(area_under_margin(MARGIN), [2, 0, 0.25, -1.75, NAN, 1 / 3, -3])
    np.testing.assert_allclose(aum_score(MARGIN)[:4], 1 / (1 + np.exp([2, 0, 0.25, -1.75])))
    np.testing.assert_array_equal(forgetting_events(MARGIN), [0, 1, 2, math.inf, NAN, 1, math.inf])
    np.testing.assert_allclose(forgetting_score(MARGIN), [0, 1 / 2, 2 / 3, 1, NAN, 1 / 2, 1])
    np.testing.assert_array_equal(forgetting_events(MARGIN, slice(0, 2)), [0, 0, 1, math.inf, NAN, 0, math.inf])
    loss = np.abs(MARGIN)
    np.testing.assert_allclose(mean_loss(loss, [0, 2]), [2.5, 1.5, 2, 2, NAN, 1, NAN])
    np.testing.assert_allclose(small_loss_score(loss, [0, 2])[0], 1 - np.exp(-2.5))
    assert forgetting_events(np.array([[0.0]])).tolist() == [math.inf]  # a tie is no prediction
    assert small_loss_score(np.array([[math.inf, 0.0]])).tolist() == [1, 0]


def test_scores_are_those_of_loops_over_samples():
    draw = np.random.default_rng(0)
    margin = draw.normal(size=(7, 200))
    margin[draw.random(margin.shape) < 0.3] = NAN
    margin[:, 0] = NAN
    for j in range(200):
        seen = [float(one) for one in margin[:, j] if one == one]
        found = area_under_margin(margin)[j], forgetting_events(margin)[j]
        if not seen:
            assert np.isnan(found).all() and np.isnan(forgetting_score(margin)[j])
            continue
        events = sum(a > 0 >= b for a, b in zip(seen, seen[1:])) if max(seen) > 0 else math.inf
        assert found == (pytest.approx(sum(seen) / len(seen)), events)
    for score in (aum_score(margin), forgetting_score(margin), small_loss_score(np.abs(margin))):
        assert score.shape == (200,) and np.nanmin(score) >= 0 and np.nanmax(score) <= 1


def test_bad_arrays_and_epochs():
    for call in (area_under_margin, forgetting_events, mean_loss, aum_score, forgetting_score, small_loss_score):
        for wrong in (np.zeros(3), np.zeros((0, 3)), np.zeros((2, 3, 4)), "a", [["a"]], None, np.ones((2, 2), bool)):
            with pytest.raises((ValueError, TypeError), match="margin|loss"):
                call(wrong)
        for wrong in ([], [4], [-1], [0, 0], [0.5], "a", slice(9, 10), slice("a"), [True]):
            with pytest.raises((ValueError, TypeError), match="epochs"):
                call(np.abs(MARGIN), wrong)
    with pytest.raises(ValueError, match="loss must be >= 0"):
        mean_loss(MARGIN)


# ---- on real digits

#: Hidden noise -> the least AUROC of `aum`, `forgetting` and `small_loss`, 0.01 or more below what three seeds gave.
BOUNDS = {
    "symmetric": (lambda: LabelFlips.symmetric(error_rate=0.3, num_classes=10, seed=5), (0.98, 0.88, 0.98)),
    "cyclic": (lambda: LabelFlips.cyclic(error_rate=0.3, num_classes=10, seed=5), (0.92, 0.72, 0.91)),
}


def hidden(noise):
    """Digits with wrong labels that nobody tells of; images, labels, which are wrong."""
    images, clean = digits("train")
    labels, is_noisy = noise(clean, np.arange(len(clean)), 0)[:2]
    columns = {"labels": torch.as_tensor(np.asarray(labels)), "sample_id": torch.arange(len(clean))}
    rows = DeviceImages(torch.as_tensor(images)[:, None], columns, mean=[0.3], std=[0.37])
    return rows, np.asarray(labels) != clean


@pytest.mark.parametrize("kind", BOUNDS)
def test_wrong_digits_are_found(tmp_path, kind):
    make, bounds = BOUNDS[kind]
    rows, is_wrong = hidden(make())
    torch.manual_seed(0)
    model = image_classifier("resnet10-digits", labels=10, image_size=8, num_channels=1)
    args = TrainingArguments(
        output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
        per_device_train_batch_size=64, num_train_epochs=8, learning_rate=2e-3, seed=0, logging_steps=1000,
        dataloader_pin_memory=False,
    )  # fmt: skip
    ImageClassifierTrainer(
        model, args, train_dataset=rows, callbacks=[DynamicsCallback(tmp_path / "record")]
    ).train()
    found = read_dynamics(tmp_path / "record", rows.columns["sample_id"])
    assert found.given.tolist() == rows.columns["labels"].tolist() and len(found.epochs) == 8
    scores = {name: roc_auc_score(is_wrong, score) for name, score in found.scores().items()}
    print(kind, scores)
    assert all(score >= bound for score, bound in zip(scores.values(), bounds)), scores
