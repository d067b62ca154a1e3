"""A teacher is trained once: the same call finds it, another one does not, and nothing half-written takes its name."""

from __future__ import annotations

import sys
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
    assert not list((tmp_path / "cut").iterdir())


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
