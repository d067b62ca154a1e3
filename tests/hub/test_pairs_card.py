"""Cards of pairs, and of models trained on them, say which teacher wrote the noisy targets."""

from __future__ import annotations

import dataclasses

from datasets import Features, Value

from hf_noise.hub.card import data_card, model_card
from hf_noise.hub.data_card import describe_columns
from hf_noise.hub.load import load_noise
from hf_noise.noise import NoisyTeacher, Teacher
from hf_noise.reports.record import DataRecord

NOISE = NoisyTeacher(ratio=1.0, teacher=Teacher(name="runs/teacher", sha256="0f" * 32, steps=500), num_rows=8)
STATED = NOISE.to_dict() | {"realised": {"rate": 0.5, "n": 8}}
SAID = "Whole target sequences replaced by those of a teacher of 500 steps (0f0f0f0f), greedy, at most 256 tokens"


def test_a_model_card_names_the_teacher(record, tmp_path):
    card = model_card(dataclasses.replace(record, noise=STATED))
    assert SAID in card.text and f"| its sha256 | {'0f' * 32} |" in card.text and "| its steps | 500 |" in card.text
    assert "`noise.is_noisy(ids)`" in card.text and "noise is drawn from a counter" not in card.text
    card.save(tmp_path / "README.md")
    assert load_noise(tmp_path) == NOISE


def test_a_data_card_says_what_the_columns_of_pairs_hold(tmp_path):
    texts = {name: Value("string") for name in ("source", "target", "clean_target")}
    unit, columns = describe_columns(Features({**texts, "is_noisy": Value("bool"), "sample_id": Value("int64")}))
    assert unit == "sequences" and columns["target"].startswith("what is to be written, NOISY")
    splits = {"train": {"rows": 8, "units": 8, "noisy": True}}
    config = {"config_name": "r1.0", "noise": STATED, "splits": splits, "arguments": None}
    card = data_card(DataRecord(
        name="user/pairs", builder="hf_noise/noisy", source="a/b", unit=unit, data={}, columns=columns,
        configs=[config], command="x", versions={}, git=None,
    ))  # fmt: skip
    assert "with targets of a teacher put in on purpose." in card.text and "what a model wrote" in card.text
    assert "| `r1.0` | noisy_teacher |" in card.text and "`is_noisy` | true where the target is the" in card.text
    card.save(tmp_path / "README.md")
    assert load_noise(tmp_path) == NOISE
