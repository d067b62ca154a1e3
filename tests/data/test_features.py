"""Extraction: order, cache, broken shards, a kill, two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import feature_backbones as tiny  # noqa: E402  (tests are no package: the line above makes it importable)
import features_processes as processes  # noqa: E402

from hf_noise.data.backbones import TextBackbone  # noqa: E402
from hf_noise.data.features import extract_features, fingerprint_of  # noqa: E402

EXPECTED = [[len(one), sum(map(ord, one))] for one in processes.CONTENTS]


@pytest.fixture
def shards(tmp_path):
    """A filled cache: three shards of 4, 4 and 3 rows."""
    assert processes.main(tmp_path)["made"] == 11
    return sorted(tmp_path.rglob("*.safetensors"))


def test_features_are_in_the_order_of_the_rows_and_made_once(tmp_path):
    first, again = processes.main(tmp_path), processes.main(tmp_path)
    assert first["features"] == again["features"] == EXPECTED
    assert (first["made"], again["made"], again["seen"]) == (11, 0, [])
    # Batches are of alike length: the longest of a shard come first.
    assert list(map(len, first["seen"][:4])) == sorted(map(len, processes.CONTENTS[:4]), reverse=True)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def _swap(path):
    path.write_bytes(path.with_name("rows-000000000-000000004.safetensors").read_bytes())


def _other(path):
    from safetensors.numpy import save_file

    save_file({"features": np.zeros((4, 2), np.float32)}, path)


@pytest.mark.parametrize("harm", [_cut, _flip, _swap, _other, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_broken_shard_is_made_again(tmp_path, shards, harm):
    harm(shards[2])
    found = processes.main(tmp_path)
    assert found["made"] == 3 and sorted(found["seen"]) == sorted(processes.CONTENTS[8:])
    assert found["features"] == EXPECTED and processes.main(tmp_path)["made"] == 0


def test_a_shard_of_other_rows_is_not_taken(tmp_path, shards):
    """Shards 0 and 1 have one shape: only what is written in them tells them apart."""
    shards[1].write_bytes(shards[0].read_bytes())
    assert processes.main(tmp_path)["features"] == EXPECTED


def test_a_killed_run_goes_on(tmp_path):
    """Killed (SIGKILL) in its second shard, which leaves one shard and nothing half-written that counts."""
    script = Path(processes.__file__)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, script, tmp_path, "6"], env=environment, capture_output=True, timeout=240)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob("rows-*.safetensors"))) == 1
    found = processes.main(tmp_path)
    assert found["features"] == EXPECTED and found["made"] == 7


def test_two_processes_share_the_shards(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, Path(processes.__file__), tmp_path], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["features"] == second["features"] == EXPECTED and first["key"] == second["key"]
    assert (first["made"], second["made"]) == (7, 4)
    assert sorted(first["seen"] + second["seen"]) == sorted(processes.CONTENTS)
    assert processes.main(tmp_path)["made"] == 0  # one process finds what two have made


def test_batches_of_a_real_network_change_rounding_alone(tmp_path):
    backbone = TextBackbone.load(tiny.gpt2(tmp_path / "gpt2"), device="cpu")
    texts = [" ".join("abcdef"[: 1 + i % 6]) + " this movie is" for i in range(13)]
    one, many = (
        extract_features(backbone, texts, batch_size=size, cache=tmp_path / str(size), progress=False).features
        for size in (1, 6)
    )
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)
    assert one.dtype == np.float32 and one.shape == (13, 8)


class Broken(processes.Lengths):
    def __call__(self, contents):
        found, _ = super().__call__(contents)
        return torch.where(torch.tensor([[one == "xx7"] for one in contents]), float("nan"), found), 0


def test_a_feature_that_is_nan_is_named_and_not_kept(tmp_path):
    with pytest.raises(ValueError, match="1 of rows 4 to 7 hold NaN or inf, the first is row 7"):
        extract_features(Broken(), processes.CONTENTS, cache=tmp_path, progress=False)
    assert len(list(tmp_path.rglob("rows-*.safetensors"))) == 1


@settings(max_examples=50)
@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_fingerprints_are_of_the_content(one, other):
    assert (fingerprint_of(one) == fingerprint_of(other)) == (one == other)
    assert not one or fingerprint_of(one) != fingerprint_of([text.encode("utf-8", "replace") for text in one])


@pytest.mark.parametrize(
    ("contents", "options", "error", "said"),
    [
        ([], {}, ValueError, "no rows"),
        (["a"], {"batch_size": 0}, ValueError, "batch_size"),
        (["a"], {"batch_size": 2.5}, TypeError, "batch_size"),
        (["a"], {"progress": 1}, TypeError, "progress"),
    ],
)
def test_refused(tmp_path, contents, options, error, said):
    with pytest.raises(error, match=said):
        extract_features(processes.Lengths(), contents, cache=tmp_path, **options)
