"""Statistics in constant memory: parts make the whole, in any order, in any number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.metrics import FeatureStatistics

ROWS = np.random.default_rng(0).normal(size=(97, 5)) * [1, 10, 0.1, 3, 1] + [0, 1e4, -3, 0.5, 1e6]


def same(found: FeatureStatistics, rows: np.ndarray) -> None:
    assert found.n == len(rows)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-14)
    # 1e6 + a number near 1 has ten digits left of the number: its variance as well, not half as many.
    np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False), rtol=1e-8, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 96), max_size=6, unique=True), st.integers(0, 2**32 - 1))
def test_parts_make_the_whole_in_any_order(cuts, seed):
    parts = np.split(ROWS, sorted(cuts))
    np.random.default_rng(seed).shuffle(parts)
    streamed, merged = FeatureStatistics(), FeatureStatistics()
    for part in parts:
        assert streamed.update(part) is streamed
        other = FeatureStatistics(part)
        kept = {name: value.copy() for name, value in other.state().items()}
        assert merged.merge(other).merge(FeatureStatistics()) is merged
        for name, value in other.state().items():
            np.testing.assert_array_equal(value, kept[name])
    same(streamed, ROWS)
    same(merged, ROWS)


def test_rows_one_by_one_and_more_than_fit_at_once():
    one_by_one = FeatureStatistics()
    for row in ROWS:
        one_by_one.update(row[None])
    same(one_by_one, ROWS)
    many = np.random.default_rng(1).normal(size=(10_000, 2)).astype(np.float32)
    same(FeatureStatistics(many), many.astype(np.float64))


def test_far_from_zero_nothing_is_lost():
    """1e9 + (0, 1, 2): with E[x^2] - E[x]^2 the variance of 1 would drown in an error near 1e2."""
    rows = 1e9 + np.array([[0.0], [1.0], [2.0]])
    found = FeatureStatistics()
    for row in rows:
        found.update(row[None])
    assert found.covariance[0, 0] == pytest.approx(1, rel=1e-6)


def test_what_is_merged_does_not_move_along():
    first, second = FeatureStatistics(ROWS[:40]), FeatureStatistics()
    second.merge(first).update(ROWS[40:])
    same(first, ROWS[:40])
    same(second, ROWS)


def test_kept_in_a_file(tmp_path):
    found = FeatureStatistics(ROWS)
    again = FeatureStatistics.load(found.save(tmp_path / "deep" / "real.safetensors"))
    for name, value in found.state().items():
        np.testing.assert_array_equal(again.state()[name], value)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["real.safetensors"]
    same(again.update(ROWS), np.concatenate([ROWS, ROWS]))
    same(found, ROWS)


def test_what_is_refused():
    found = FeatureStatistics(ROWS)
    with pytest.raises(ValueError, match="features have 4 numbers, those seen before 5"):
        found.update(ROWS[:, :4])
    with pytest.raises(ValueError, match="features have 4 numbers"):
        found.merge(FeatureStatistics(ROWS[:, :4]))
    with pytest.raises(ValueError, match="2 of 97 rows of features hold NaN or inf, the first is row 4"):
        found.update(np.where(np.isin(np.arange(97), [4, 9])[:, None], np.inf, ROWS))
    same(found, ROWS)  # nothing of what was refused went in
    with pytest.raises(ValueError, match="no features were added"):
        FeatureStatistics().state()
    with pytest.raises(ValueError, match="no feature statistics: scatter missing"):
        FeatureStatistics.from_state({"n": np.array(1), "mean": np.zeros(2)})
    with pytest.raises(ValueError, match=r"scatter \[3, 3\] are no feature statistics"):
        FeatureStatistics.from_state({"n": np.array(1), "mean": np.zeros(2), "scatter": np.eye(3)})
    with pytest.raises(ValueError, match="NaN"):
        FeatureStatistics.from_state({"n": np.array(1), "mean": np.zeros(1), "scatter": np.full((1, 1), np.nan)})


def test_one_process_reduces_to_itself():
    accelerate = pytest.importorskip("accelerate")
    same(FeatureStatistics(ROWS).reduced(accelerate.Accelerator(cpu=True)), ROWS)
    assert FeatureStatistics().reduced(accelerate.Accelerator(cpu=True)).n == 0


_PROCESS = """
import sys
import numpy as np
from accelerate import Accelerator
from hf_noise.metrics import FeatureStatistics

accelerator = Accelerator(cpu=True)
rank = accelerator.process_index
rows = np.load(sys.argv[1])
parts = [rows[:0], rows[:60], rows[60:]]  # the first of three processes sees no row
own = FeatureStatistics(parts[rank]) if len(parts[rank]) else FeatureStatistics()
own.reduced(accelerator).save(f"{sys.argv[2]}/{rank}.safetensors")
try:
    FeatureStatistics(np.zeros((3, 2 + rank))).reduced(accelerator)
except ValueError as error:
    assert "features of 2 and of 4 numbers" in str(error)
else:
    raise AssertionError("different features were summed")
accelerator.end_training()  # else threads of the process group may end the process as a failure
"""


def test_three_processes_see_the_whole(tmp_path):
    script, rows = tmp_path / "reduce.py", tmp_path / "rows.npy"
    script.write_text(_PROCESS)
    np.save(rows, ROWS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3"]
    command = [*launch, script, rows, tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(3):
        same(FeatureStatistics.load(tmp_path / f"{rank}.safetensors"), ROWS)
