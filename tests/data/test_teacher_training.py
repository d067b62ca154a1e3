"""A teacher is trained once: the same call finds it, another one does not, and nothing half-written takes its name."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from hf_noise.data import teacher_training
from hf_noise.data.teacher_files import load_teacher, told_of
from hf_noise.data.teacher_training import train_teacher

sys.path.insert(0, str(Path(__file__).parent))
from teachers import NETWORK, pairs, tokenizer  # noqa: E402  (tests are no package: the line above makes it importable)

SETTINGS = {"steps": 3, "model": NETWORK, "batch_size": 4, "learning_rate": 0.01}


def test_a_teacher_is_trained_once_on_the_clean_targets(tmp_path, monkeypatch):
    rows = pairs(12)
    place = train_teacher(rows, tokenizer(), **SETTINGS, task="backwards")
    assert train_teacher(rows, tokenizer(), **SETTINGS, task="backwards") == place
    teacher = load_teacher(place, task="backwards")
    assert teacher.identity.steps == 3 and told_of(Path(place))["task"] == "backwards"
    noisy = rows.rename_column("target", "clean_target").add_column("target", ["x"] * 12)
    assert train_teacher(noisy, tokenizer(), **SETTINGS, task="backwards") == place
    again = train_teacher(rows, tokenizer(), **SETTINGS, task="backwards", output=tmp_path / "here")
    assert load_teacher(again).identity == teacher.identity  # to the bit
    with pytest.raises(ValueError, match="holds something else than this teacher"):
        train_teacher(rows, tokenizer(), **SETTINGS, seed=1, output=tmp_path / "here")

    def cut(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(teacher_training, "fsync_folder", cut)
    with pytest.raises(KeyboardInterrupt):
        train_teacher(rows, tokenizer(), **SETTINGS, output=tmp_path / "cut" / "teacher")
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "teacher").exists()
    made = train_teacher(rows, tokenizer(), **SETTINGS, output=tmp_path / "cut" / "teacher")
    assert load_teacher(made).identity.sha256 == teacher.identity.sha256
    assert {one.name for one in (tmp_path / "cut").iterdir()} == {"teacher", ".teacher.lock"}


def _killed_at(step, folder):
    """Train, and be killed behind a step of the optimiser."""
    from transformers import TrainerCallback

    class _Killed(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)

    from transformers import trainer

    trainer.DEFAULT_CALLBACKS.append(_Killed)
    torch.set_num_threads(1)
    train_teacher(pairs(12), tokenizer(), **{**SETTINGS, "steps": 11}, output=folder)


def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch, caplog):
    """Killed at step 8 with a checkpoint of 6 and one of 7 that is cut: dropout, order and weights go on to the bit."""
    monkeypatch.setattr(teacher_training, "_BETWEEN_SAVES", 3)
    caplog.set_level("INFO", "hf_noise")
    settings = {**SETTINGS, "steps": 11}
    whole = train_teacher(pairs(12), tokenizer(), **settings, output=tmp_path / "whole")
    lost = multiprocessing.get_context("fork").Process(target=_killed_at, args=(8, tmp_path / "cut"))
    lost.start()
    lost.join()
    assert lost.exitcode == -signal.SIGKILL
    scratch = tmp_path / ".cut-training"
    assert [one.name for one in scratch.glob("checkpoint-*")] == ["checkpoint-6"] and not (tmp_path / "cut").exists()
    (scratch / "checkpoint-7").mkdir()
    made = train_teacher(pairs(12), tokenizer(), **settings, output=tmp_path / "cut")
    assert "goes on from step 6" in caplog.text and not scratch.exists()
    assert load_teacher(made).identity.sha256 == load_teacher(whole).identity.sha256


def test_what_another_training_left_is_swept(tmp_path, caplog):
    caplog.set_level("INFO", "hf_noise")
    left = tmp_path / ".teacher-training" / "checkpoint-2"
    left.mkdir(parents=True)
    (left / "trainer_state.json").write_text(json.dumps({"global_step": 2}))
    (left.parent / "teacher.json").write_text(json.dumps({"made_of": "another"}))
    train_teacher(pairs(8), tokenizer(), **SETTINGS, output=tmp_path / "teacher")
    assert "goes on from" not in caplog.text and not left.parent.exists()


def _train_beside(folder, log):
    torch.set_num_threads(1)
    original, trained = teacher_training._train, []
    teacher_training._train = lambda *a: time.sleep(0.3) or trained.append(1) or original(*a)
    made = train_teacher(pairs(8), tokenizer(), **SETTINGS, output=folder)
    log.write_text(json.dumps([made, len(trained)]))


def test_two_runs_that_need_a_teacher_train_it_once(tmp_path):
    """The second trained it all again, and ended in an OSError of a folder that is not empty."""
    context = multiprocessing.get_context("fork")
    given = [(tmp_path / "teacher", tmp_path / str(i)) for i in range(2)]
    runs = [context.Process(target=_train_beside, args=one) for one in given]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    found = [json.loads(log.read_text()) for _, log in given]
    assert [made for made, _ in found] == [str(tmp_path / "teacher")] * 2 and sum(n for _, n in found) == 1


def test_the_gradient_is_that_of_the_batch_whatever_the_processes(monkeypatch):
    """Left as it is, transformers multiplies the gradients of encoder-decoders by the number of processes."""
    from transformers import Trainer

    seen = []
    monkeypatch.setattr(Trainer, "train", lambda self: seen.append(self.model_accepts_loss_kwargs) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_teacher(pairs(8), tokenizer(), **SETTINGS)
    assert seen == [False]


def test_a_model_of_transformers_goes_on_from_its_weights(tmp_path):
    from hf_noise.models.seq2seq import encoder_decoder

    tokens = tokenizer()
    made = lambda: encoder_decoder(280, pad_token=0, eos_token=1, **NETWORK)  # noqa: E731
    torch.manual_seed(0)
    one = teacher_training.teacher_place(pairs(8), tokens, made(), {})[0]
    assert teacher_training.teacher_place(pairs(8), tokens, made(), {})[0] != one
    torch.manual_seed(0)
    assert teacher_training.teacher_place(pairs(8), tokens, made(), {})[0] == one


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must lie in"), ({"steps": 1.5}, TypeError, "steps must be an integer"),
        ({"batch_size": 0}, ValueError, "batch_size must lie in"), ({"learning_rate": 0}, ValueError, "learning_rate"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be > 0"),
        ({"seed": -1}, ValueError, "seed must lie in"),
        ({"task": 3}, TypeError, "task must be a name"), ({"model": "t5"}, TypeError, "model must be settings of"),
        ({"truncate": 1}, TypeError, "truncate must be True or False"),
        ({"max_source_tokens": 2}, ValueError, "have a source of more than 2 tokens"),
        ({"pairs": [1]}, TypeError, "pairs must be a datasets.Dataset"),
        ({"pairs": Dataset.from_dict({"source": ["a"]})}, ValueError, "pairs have no column target"),
        ({"pairs": Dataset.from_dict({"source": ["a"], "target": [""]})}, ValueError, "1 of 1 rows have an empty targ"),
    ],
)
def test_bad_settings_are_refused(settings, error, message):
    rows = settings.pop("pairs", None)
    with pytest.raises(error, match=message):
        train_teacher(pairs(8) if rows is None else rows, tokenizer(), **{**SETTINGS, **settings})


def _small(kind, **changed):
    from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

    if kind == "T5":
        sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
        return T5ForConditionalGeneration(T5Config(**{"vocab_size": 280, **sizes, **changed}))
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder")
             for name, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 8))}  # fmt: skip
    return BartForConditionalGeneration(BartConfig(**{"vocab_size": 280, "d_model": 8, **sizes, **changed}))


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("Bart", {"max_position_embeddings": 8}, "rows have a source of more than the 8 tokens that the model has pos"),
        ("Bart", {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "forced_eos_token_id": 1},
         "rows have a source with tokens that the model does not know, such as .* where it knows 0 to 99, the first"),
        ("T5", {"vocab_size": 100}, "rows have a source with tokens that the model does not know"),
    ],
)  # fmt: skip
def test_pairs_that_a_model_has_no_positions_or_tokens_for_are_refused_first(tmp_path, kind, changed, message):
    """BART ended in an IndexError of its embeddings, after the training had begun."""
    settings = {**SETTINGS, "model": _small(kind, **changed), "output": tmp_path / "teacher"}
    with pytest.raises(ValueError, match=message):
        train_teacher(pairs(8), tokenizer(), **settings)
    assert [one.name for one in tmp_path.iterdir()] == [".teacher.lock"]


def test_sinusoids_that_a_model_would_make_more_of_are_refused(tmp_path):
    settings = {**SETTINGS, "model": {**NETWORK, "positions": 8}, "output": tmp_path / "t"}
    with pytest.raises(ValueError, match="rows have a source of more than the 8 tokens .* max_source_tokens=8 with"):
        train_teacher(pairs(8), tokenizer(), **settings)
    train_teacher(pairs(8), tokenizer(), **settings, truncate=True, max_source_tokens=8, max_target_tokens=8)
