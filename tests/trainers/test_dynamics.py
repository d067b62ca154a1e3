"""The callback records what logits by hand say, once a sample and epoch, over resumes, processes and any trainer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from transformers import BertForSequenceClassification, Trainer, TrainerCallback

from hf_noise.audit import read_dynamics
from hf_noise.noise import LabelFlips
from hf_noise.objectives import GCE
from hf_noise.trainers import CausalLMTrainer, ClassifierTrainer, DynamicsCallback, NoiseScaleCallback
from hf_noise.trainers.dynamics import row_dynamics
from hf_noise.trainers.dynamics_files import SCHEMA, Part, check_whole, first_copies, parts_in, write_part

SCRIPT = Path(__file__).with_name("dynamics_processes.py")
SPEC = importlib.util.spec_from_file_location("dynamics_processes", SCRIPT)
processes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(processes)

C = 4
NOISE = LabelFlips.symmetric(error_rate=0.5, num_classes=C, seed=3)


@pytest.fixture
def network(tiny_bert):
    return lambda **config: tiny_bert(cls=BertForSequenceClassification, num_labels=C, **config)


@pytest.fixture
def make(network, arguments, tmp_path):
    """`make(rows, cls=ClassifierTrainer, **settings)`: a trainer of two epochs that records into `tmp_path/record`."""

    def trainer(rows, cls=ClassifierTrainer, model=None, callbacks=None, **settings):
        own = {k: settings.pop(k) for k in ("noise", "loss", "eval_dataset") if k in settings}
        usual = {"max_steps": -1, "num_train_epochs": 2, "learning_rate": 0.01, "optim": "sgd"}
        callbacks = [DynamicsCallback(tmp_path / "record")] if callbacks is None else callbacks
        args = arguments(**(usual | settings))
        return cls(model or network(), args, train_dataset=rows, callbacks=callbacks, **own)

    return trainer


def by_hand(model, rows, labels) -> np.ndarray:
    """Loss, margin and p of labels [N], float64 [3, N], from logits of one row at a time."""
    found = []
    with torch.no_grad():
        for row, label in zip(rows, labels):
            logits = model.eval()(input_ids=torch.tensor(row["input_ids"])[None]).logits[0].double().numpy()
            others = np.delete(logits, label).max()
            p = np.exp(logits[label]) / np.exp(logits).sum()
            found.append((-np.log(p), logits[label] - others, p))
    return np.array(found).T


def values(found, epoch=0) -> np.ndarray:
    return np.stack([found.loss[epoch], found.margin[epoch], found.p_given[epoch]])


def stock_rows(rows, **columns) -> Dataset:
    return Dataset.from_list([{**row, **{name: one[i] for name, one in columns.items()}} for i, row in enumerate(rows)])


# ---- values


OF_RUNS = ({}, {"gradient_accumulation_steps": 2}, {"loss": GCE(0.7)}, {"loss": "corrected"})


@pytest.mark.parametrize("settings", OF_RUNS)
def test_values_are_those_of_frozen_logits_by_hand_and_of_noisy_labels(make, text_rows, network, tmp_path, settings):
    rows = text_rows(18)
    make(rows, noise=NOISE, learning_rate=0.0, **settings).train()
    found, ids = read_dynamics(tmp_path / "record"), np.array([row["sample_id"] for row in rows])
    clean = np.array([row["labels"] for row in rows])
    assert found.sample_ids.tolist() == ids.tolist() and found.epochs.tolist() == [0, 1]
    for epoch in (0, 1):
        noisy = NOISE(clean, ids, epoch)[0]
        assert found.labels[epoch].tolist() == noisy.tolist() and (noisy != clean).any()
        np.testing.assert_allclose(values(found, epoch), by_hand(network(), rows, noisy), rtol=2e-5, atol=1e-6)
    assert found.loss.dtype == np.float32 and not len(found.never_seen)


def test_a_hand_value():
    loss, margin, p = row_dynamics(torch.tensor([[0.0, np.log(3.0)], [2.0, 2.0]]), torch.tensor([0, 1]))
    assert loss.tolist() == pytest.approx([np.log(4), np.log(2)]) and p.tolist() == pytest.approx([0.25, 0.5])
    assert margin.tolist() == pytest.approx([-np.log(3), 0.0])


def test_logits_of_bfloat16_are_looked_at_in_float32():
    logits, labels = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).bfloat16(), torch.arange(64) % 5
    found = row_dynamics(logits, labels)
    assert found.dtype == torch.float32 and torch.equal(found, row_dynamics(logits.float(), labels))


def test_under_autocast(make, text_rows, network, tmp_path):
    rows = text_rows(8)
    make(rows, learning_rate=0.0, bf16=True, max_steps=1, per_device_train_batch_size=8).train()
    expected = by_hand(network(), rows, [row["labels"] for row in rows])
    np.testing.assert_allclose(values(read_dynamics(tmp_path / "record")), expected, rtol=0.1, atol=0.05)


def test_a_run_is_the_same_with_it_and_without(make, text_rows, tmp_path):
    weights, logs = [], []
    for callbacks in ([], None):
        torch.manual_seed(1)
        trainer = make(text_rows(18), noise=NOISE, callbacks=callbacks)
        trainer.train()
        weights.append(trainer.model.state_dict())
        logs.append([{k: v for k, v in one.items() if "runtime" not in k and "per_second" not in k}
                     for one in trainer.state.log_history])  # fmt: skip
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items()) and logs[0] == logs[1]
    assert not trainer.model._forward_hooks and not trainer.model._forward_pre_hooks


def test_passes_that_are_looked_at_twice_are_recorded_once(make, text_rows, tmp_path):
    callbacks = [NoiseScaleCallback(every=1), DynamicsCallback(tmp_path / "record")]
    make(text_rows(16), noise=NOISE, callbacks=callbacks).train()
    rows = sum(pq.read_metadata(path).num_rows for path in (tmp_path / "record").glob("*.parquet"))
    assert rows == 32 and not np.isnan(read_dynamics(tmp_path / "record").loss).any()


def test_evaluation_is_not_recorded(make, text_rows, tmp_path):
    make(text_rows(16), eval_strategy="steps", eval_steps=1, eval_dataset=text_rows(5, seed=1)).train()
    assert len(read_dynamics(tmp_path / "record").sample_ids) == 16


def test_many_passes_wait_and_then_go_together(make, text_rows, tmp_path, monkeypatch):
    from hf_noise.trainers import dynamics

    made = []
    monkeypatch.setattr(dynamics, "row_dynamics", lambda *given: made.append(len(given[0])) or row_dynamics(*given))
    make(text_rows(80), per_device_train_batch_size=1, num_train_epochs=1).train()
    assert made == [64, 16] and len(read_dynamics(tmp_path / "record").sample_ids) == 80


# ---- folders


class Killed(Exception):
    pass


class Stop(TrainerCallback):
    """Kills a run after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def everything(folder) -> list[dict]:
    """All rows of a record by step and id, as they are in its files."""
    tables = [pq.read_table(path, partitioning=None).to_pylist() for path in sorted(Path(folder).glob("*.parquet"))]
    return sorted((row for table in tables for row in table), key=lambda row: (row["step"], row["sample_id"]))


@pytest.mark.parametrize("cls", [ClassifierTrainer, Trainer])
@pytest.mark.parametrize(("save", "kill"), [(3, 5), (2, 7), (5, 9), (4, 3)])
def test_a_resumed_run_has_each_row_once(make, text_rows, tmp_path, cls, save, kill):
    """Six steps an epoch, the last one short; killed within an epoch and behind its end, before a checkpoint too."""
    rows = text_rows(22) if cls is ClassifierTrainer else stock_rows(text_rows(22))
    settings = {"save_strategy": "steps", "save_steps": save, "remove_unused_columns": False, "seed": 1}
    own = {"noise": NOISE} if cls is ClassifierTrainer else {}
    make(rows, cls, callbacks=[DynamicsCallback(tmp_path / "whole")], **settings, **own).train()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(Killed):
        make(rows, cls, callbacks=[DynamicsCallback(tmp_path / "record"), Stop(kill)], **settings, **own).train()
    again = make(rows, cls, **settings, **own)
    again.train(resume_from_checkpoint=True if save < kill else None)
    found, expected = everything(tmp_path / "record"), everything(tmp_path / "whole")
    assert len(found) == 44 and found == expected


def test_a_run_that_goes_on_from_an_earlier_checkpoint_drops_what_was_later(make, text_rows, tmp_path, caplog):
    settings = {"save_strategy": "steps", "save_steps": 2}
    make(text_rows(22), **settings).train()
    before = everything(tmp_path / "record")
    shutil.rmtree(tmp_path / "run" / "checkpoint-12")
    make(text_rows(22), **settings).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert everything(tmp_path / "record") == before and "are dropped, as the run goes on from step 4" in caplog.text


def test_a_part_that_reaches_beyond_a_checkpoint_is_cut(make, text_rows, tmp_path):
    """As where something else than the run's settings asked for the checkpoint."""
    from hf_noise.trainers.dynamics_files import keep_until

    make(text_rows(22)).train()
    before = everything(tmp_path / "record")
    assert [part.end for part in parts_in(tmp_path / "record")] == [6, 12]
    assert keep_until(tmp_path / "record", 4) == 44 - 16
    assert everything(tmp_path / "record") == [row for row in before if row["step"] < 4]
    assert [path.name for path in (tmp_path / "record").glob("*.parquet")] == [Part(0, 0, 4, 0, 1).name]


def test_files_are_plain_parquet(make, text_rows, tmp_path):
    make(text_rows(8), num_train_epochs=1).train()
    (file,) = (tmp_path / "record").glob("*.parquet")
    assert Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache")).column_names == SCHEMA.names
    assert {path.name for path in (tmp_path / "record").iterdir()} == {file.name, "run.json"}


def test_started_anew_with_the_same_settings_it_begins_anew_with_others_it_is_refused(make, text_rows, tmp_path):
    make(text_rows(8)).train()
    make(text_rows(8), num_train_epochs=1).train()
    assert read_dynamics(tmp_path / "record").epochs.tolist() == [0]
    for other, named in (({"seed": 7}, "seed"), ({"noise": NOISE}, "of_noise"), ({"learning_rate": 0.1}, "learning")):
        with pytest.raises(FileExistsError, match=named):
            make(text_rows(8), **other).train()
    with pytest.raises(FileExistsError, match="rows"):
        make(text_rows(12)).train()
    assert len(read_dynamics(tmp_path / "record").sample_ids) == 8


def test_a_resumed_run_without_what_was_before_is_refused(make, text_rows, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2}
    make(text_rows(8), callbacks=[], **settings).train()
    with pytest.raises(ValueError, match="holds nothing of the steps 0 to 3"):
        make(text_rows(8), num_train_epochs=3, **settings).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="ignore_data_skip"):
        make(text_rows(8), num_train_epochs=3, ignore_data_skip=True).train(resume_from_checkpoint=True)


# ---- any trainer


def test_a_stock_trainer(make, text_rows, network, tmp_path):
    """Ids are hidden from the model, in evaluation too; the values are those of ours."""
    rows = text_rows(18)
    trainer = make(stock_rows(rows), Trainer, learning_rate=0.0, remove_unused_columns=False,
                   gradient_accumulation_steps=2, eval_strategy="epoch",
                   eval_dataset=stock_rows(text_rows(5, seed=1)))  # fmt: skip
    told = []
    trainer.model.bert.register_forward_pre_hook(lambda module, args, kwargs: told.append(kwargs), with_kwargs=True)
    trainer.train()
    found = read_dynamics(tmp_path / "record")
    labels = [row["labels"] for row in rows]
    assert found.given.tolist() == labels and len(told) == 12 and not any("sample_id" in one for one in told)
    for epoch in (0, 1):
        np.testing.assert_allclose(values(found, epoch), by_hand(network(), rows, labels), rtol=2e-5, atol=1e-6)
    assert not trainer.model._forward_hooks and not trainer.model._forward_pre_hooks


def test_rows_of_a_stock_trainer_that_cannot_be_recorded(make, text_rows, arguments, tiny_gpt2, tmp_path):
    rows = stock_rows(text_rows(8))
    with pytest.raises(ValueError, match="sample_id.*remove_unused_columns=False"):
        make(rows, Trainer).train()
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        make(rows, Trainer, remove_unused_columns=False, label_smoothing_factor=0.1).train()
    floats = rows.map(lambda row: {"sample_id": row["sample_id"] + 0.5})
    with pytest.raises(ValueError, match="sample_id must be integers"):
        make(floats, Trainer, remove_unused_columns=False).train()
    tokens = [{"input_ids": torch.arange(8), "labels": torch.arange(8), "sample_id": i} for i in range(8)]
    for cls, given in ((Trainer, tokens), (CausalLMTrainer, tokens)):
        with pytest.raises(ValueError, match="audit_tokens"):
            make(given, cls, model=tiny_gpt2(), remove_unused_columns=False).train()


class Own(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return sum(p.sum() for p in model.parameters())


class Twice(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs).loss + model(**inputs).loss


def test_losses_of_ones_own(make, text_rows):
    rows = stock_rows(text_rows(8))
    with pytest.raises(RuntimeError, match="saw no logits"):
        make(rows, Own, remove_unused_columns=False).train()
    with pytest.raises(ValueError, match="called more than once"):
        make(rows, Twice, remove_unused_columns=False).train()


def test_rows_of_ours_that_cannot_be_recorded(make, text_rows, any_trainer, tmp_path):
    rows = text_rows(8)
    without = [{name: value for name, value in row.items() if name != "sample_id"} for row in rows]
    with pytest.raises(ValueError, match="needs the column sample_id"):
        make(without).train()
    with pytest.raises(ValueError, match="repeats.*1007.*number the rows"):
        make(rows + rows[1:2]).train()
    with pytest.raises(ValueError, match="of integers"):
        make([row | {"sample_id": "a"} for row in rows]).train()
    with pytest.raises(ValueError, match="mixup"):
        any_trainer("image_classifier", mixup=0.2, callbacks=[DynamicsCallback(tmp_path / "record")]).train()
    any_trainer("image_classifier", callbacks=[DynamicsCallback(tmp_path / "images")]).train()
    assert len(read_dynamics(tmp_path / "images").sample_ids) == 16


def test_labels_outside_the_classes_are_named(make, text_rows):
    rows = stock_rows(text_rows(8)).map(lambda row, i: {"labels": -100 if i == 3 else row["labels"]}, with_indices=True)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 4\), got -100 for sample_id 1021"):
        make(rows, Trainer, remove_unused_columns=False).train()


def test_no_path():
    for wrong in (None, 3, "", b"x", ["a"]):
        with pytest.raises(TypeError, match="folder"):
            DynamicsCallback(wrong)


# ---- two processes


def test_two_processes_record_each_sample_once(tmp_path):
    """13 rows in batches of 2 x 2: the last batch is filled by rows of the epoch's begin."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, SCRIPT, tmp_path], env=environment, cwd=tmp_path, capture_output=True, text=True,
                          timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = processes.rows()
    labels = np.array([row["labels"] for row in rows])
    for name in ("ours", "stock"):
        raw, found = everything(tmp_path / name), read_dynamics(tmp_path / name, [row["sample_id"] for row in rows])
        assert {part.process for part in parts_in(tmp_path / name)} == {0, 1}
        assert len(raw) == 2 * 16 and not np.isnan(found.loss).any() and (found.given == labels).all()
        for epoch in (0, 1):
            expected = by_hand(processes.network(), rows, labels)
            np.testing.assert_allclose(values(found, epoch), expected, rtol=2e-5, atol=1e-6)
    # One that was killed and resumed has the rows of one that was not; values of weights that move.
    assert everything(tmp_path / "resumed") == everything(tmp_path / "straight")
    assert (tmp_path / "refused0").read_text().startswith("FileExistsError")
    assert (tmp_path / "refused1").read_text().startswith("RuntimeError: process 0 stopped the run: FileExistsError")


def test_copies_that_fill_the_last_step_count_once_and_others_are_refused():
    ids, steps = np.array([5, 7, 9, 5]), np.array([0, 0, 1, 1])
    assert first_copies(ids, steps, epoch=0, processes=2).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="1 samples .5."):
        first_copies(ids, steps, epoch=0, processes=1)
    with pytest.raises(ValueError, match="epoch 3"):
        first_copies(np.array([5, 5, 9]), np.array([0, 1, 2]), epoch=3, processes=2)
    assert first_copies(np.zeros(0), np.zeros(0), epoch=0, processes=1).tolist() == []


def test_parts_that_do_not_fit_are_named(tmp_path):
    def check(*parts, end=None):
        check_whole(tmp_path, sorted(parts, key=lambda one: (one.first, one.end, one.process)), end)

    check(Part(0, 0, 4, 0, 2), Part(0, 0, 4, 1, 2), Part(0, 4, 6, 0, 1), end=6)
    with pytest.raises(ValueError, match="process 1 of 2 saw in the steps 0 to 3"):
        check(Part(0, 0, 4, 0, 2))
    with pytest.raises(ValueError, match="nothing of the steps 4 to 5"):
        check(Part(0, 0, 4, 0, 1), Part(0, 6, 8, 0, 1))
    with pytest.raises(ValueError, match="nothing of the steps 4 to 8"):
        check(Part(0, 0, 4, 0, 1), end=9)
    with pytest.raises(ValueError, match="steps 0 to 3 twice"):
        check(Part(0, 0, 4, 0, 1), Part(0, 0, 6, 0, 1))
    columns = {name: np.zeros(2) for name in SCHEMA.names}
    name = "epoch00002-steps00000000-00000004-process0of1.parquet"
    assert write_part(tmp_path, Part(2, 0, 4, 0, 1), columns).name == name
