"""`UniformTokens` as a value: equality, fingerprints, the form for `datasets.map`, and its errors."""

import dataclasses
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher

from hf_noise.noise import UniformTokens

IGNORED = -100


def test_equal_however_the_rate_is_spelt():
    by_ratio, by_rate = UniformTokens(ratio=0.1, vocab_size=9), UniformTokens(error_rate=0.1 / 1.1, vocab_size=9)
    assert by_ratio == by_rate and hash(by_ratio) == hash(by_rate)
    assert by_ratio != UniformTokens(ratio=0.11, vocab_size=9)


VARIANTS = [
    UniformTokens(ratio=0.5, vocab_size=50257),
    UniformTokens(ratio=0.3, vocab_size=50257),
    UniformTokens(ratio=0.5, vocab_size=50256),
    UniformTokens(ratio=0.5, vocab_size=50257, seed=1),
    UniformTokens(ratio=0.5, vocab_size=50257, exclude_original=True),
    UniformTokens(ratio=0.5, vocab_size=50257, redraw="never"),
]


def test_fingerprint_is_the_same_in_another_process_and_changes_with_each_field(monkeypatch):
    here = [Hasher.hash(noise) for noise in VARIANTS]
    assert len(set(here)) == len(VARIANTS) == len(dataclasses.fields(UniformTokens))
    code = (
        "import pickle, sys; from datasets.fingerprint import Hasher\n"
        "print(*(Hasher.hash(noise) for noise in pickle.load(sys.stdin.buffer)))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(VARIANTS), capture_output=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert there.stdout.decode().split() == here
    monkeypatch.setattr(UniformTokens, "version", 2)
    assert Hasher.hash(VARIANTS[0]) != here[0]


def test_map_over_a_data_set():
    noise = UniformTokens(ratio=1, vocab_size=50, seed=3)
    rows = [[1, 2, 3, IGNORED], [], [4] * 30, [5], [6, 7]]
    dataset = Dataset.from_dict({"labels": rows, "other": list("abcde")})
    mapped = {size: dataset.map(noise, batched=True, with_indices=True, batch_size=size) for size in (1, 2, 5)}
    for result in mapped.values():
        assert result.column_names == ["labels", "other", "clean_labels", "is_noisy", "sample_id"]
        assert result["clean_labels"][:] == rows and result["sample_id"][:] == [0, 1, 2, 3, 4]
        for number, row in enumerate(result):
            noisy, is_noisy = noise(np.array(rows[number], dtype=np.int64), number)
            assert (row["labels"], row["is_noisy"]) == (noisy.tolist(), is_noisy.tolist())
    # A column with sample ids goes before the row numbers, so that shuffling first changes nothing.
    again = dataset.add_column("sample_id", range(5)).shuffle(seed=1).map(noise, batched=True, with_indices=True)
    assert again.sort("sample_id")["labels"][:] == mapped[5]["labels"][:]


def test_targets_come_from_the_inputs_if_there_are_no_labels():
    noise = UniformTokens(ratio=1, vocab_size=50)
    columns = noise({"input_ids": [[1, 2, 3]]}, [7])
    assert columns["labels"][0].tolist() == noise(np.array([1, 2, 3]), 7)[0].tolist()
    assert "input_ids" not in columns


# Errors


def make(**changes):
    return UniformTokens(**{"ratio": 0.5, "vocab_size": 100, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"ratio": -0.2}, ValueError, "ratio must be finite and >= 0, got -0.2"),
        ({"ratio": None}, ValueError, "give the amount of noise"),
        ({"ratio": None, "error_rate": 1.0}, ValueError, r"error_rate must lie in \[0, 1\), got 1.0"),
        ({"ratio": None, "error_rate": 1e-12}, ValueError, "below the finest rate"),
        ({"error_rate": 0.2}, ValueError, "contradict each other"),
        ({"vocab_size": 0}, ValueError, r"vocab_size must lie in \[1, 2\^31\], got 0; pass the largest id"),
        ({"vocab_size": (1 << 31) + 1}, ValueError, r"vocab_size must lie in \[1, 2\^31\]"),
        ({"vocab_size": 1, "exclude_original": True}, ValueError, r"vocab_size must lie in \[2, 2\^31\]"),
        ({"vocab_size": 50.0}, TypeError, "vocab_size must be an integer"),
        ({"vocab_size": True}, TypeError, "vocab_size must be an integer"),
        ({"seed": -1}, ValueError, "seed must lie in"),
        ({"redraw": "always"}, ValueError, 'redraw must be "epoch" or "never"'),
    ],
)
def test_bad_settings(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


def test_settings_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        UniformTokens(0.5, 100)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_bad_tokens(convert):
    noise = make()
    with pytest.raises(ValueError, match=r"token 100 is outside \[0, 100\): vocab_size=100 is smaller"):
        noise(convert([1, 100]), 0)
    with pytest.raises(ValueError, match="token -1 is outside"):
        noise(convert([-1, 5]), 0)
    with pytest.raises(TypeError, match="tokens must be integers"):
        noise(convert([0.5]), 0)
    with pytest.raises(TypeError, match="tokens must be integers"):
        noise(convert([True]), 0)
    with pytest.raises(TypeError, match="sample must be integers"):
        noise(convert([[1]]), convert([0.5]))
    with pytest.raises(ValueError, match=r"one sample id per row: tokens have shape \[2, 1\], sample has \[3\]"):
        noise(convert([[1], [2]]), convert([0, 1, 2]))
    with pytest.raises(ValueError, match="one sample id per row"):
        noise(convert(3), 0)
    with pytest.raises(ValueError, match="int8 cannot hold tokens up to 299"):
        make(vocab_size=300)(convert(np.array([1], dtype=np.int8)), 0)


def test_bad_columns():
    with pytest.raises(ValueError, match="no column 'labels' or 'input_ids' to corrupt, only: text, label"):
        make()({"text": ["a"], "label": [1]}, [0])
    with pytest.raises(TypeError, match="labels must be integers"):
        make()({"labels": [[0.5, 1.5]]}, [0])
    with pytest.raises(ValueError, match="one list of integers per row; pass whole batches, batched=True"):
        make()({"labels": [1, 2, 3]}, 0)
    with pytest.raises(ValueError, match="hold 3 tokens together, but 2 values"):
        make().flat(np.zeros(2, dtype=np.int64), np.array([3]), np.array([0]))


def test_flat_needs_one_sample_id_per_row():
    with pytest.raises(ValueError, match="2 rows need 2 sample ids, got 1"):
        make().flat(np.zeros(4, dtype=np.int64), np.array([2, 2]), np.array([0]))
