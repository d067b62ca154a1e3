"""The study of teacher noise in two processes, and killed while its teacher writes: as if nobody had disturbed it."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from printed import printed_by
from safetensors.numpy import load_file
from seq2seq_small_parts import PART

from hf_noise.data import teacher_parts, teacher_targets
from hf_noise.reports.record import read_records
from hf_noise.studies.seq2seq.study import STUDY

main = functools.partial(printed_by, STUDY.main)
ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("seq2seq_small_parts.py")
WORDS = ["red", "green", "blue", "tall", "small", "house", "river", "stone", "cloud", "garden", "window", "winter"]
ROWS = 91
TARGETS = Path("teacher", "rich-targets", "train")


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> list[str]:
    """Flags of two runs; a pass has half a step, so that two processes share what one does in two passes."""
    folder, draw = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for split, rows in (("train", ROWS), ("test", 31)):
        words = [draw.choice(WORDS, draw.integers(3, 6), replace=False).tolist() for _ in range(rows)]
        Dataset.from_dict({
            "body": [f"{' '.join(one)} {i}" for i, one in enumerate(words)],
            "target": [" ".join(one[:2]) for one in words],
        }).to_parquet(folder / f"{split}.parquet")  # fmt: skip
    return [str(one) for one in (
        "--source", folder / "train.parquet", "--test_source", folder / "test.parquet", "--source_column", "body",
        "--task", "rich", "--seed", 0, "--ratio", 1, "--loss", "nll", "sequence-mixture", "--other", "teacher",
        "--vocab_size", 270, "--layers", 1, "--d_model", 16, "--heads", 2, "--feed_forward", 16, "--steps", 6,
        "--batch_size", 8, "--micro_batch", 4, "--teacher_steps", 6, "--max_source_tokens", 48,
        "--max_target_tokens", 24, "--max_new_tokens", 8, "--logging_steps", 2, "--score_rows", 15, "--generated", 0,
    )]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    """As in the processes that are started here."""
    before, teacher_parts.ROWS_PER_PART = teacher_parts.ROWS_PER_PART, PART
    yield
    teacher_parts.ROWS_PER_PART = before


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory) -> Path:
    """The folder of a run that nobody disturbed, of one process."""
    folder = tmp_path_factory.mktemp("whole")
    main("--output", folder, *asked)
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def parts(folder: Path) -> dict[str, int]:
    """Parts of what the teacher wrote, and when each was written."""
    return {part.name: part.stat().st_mtime_ns for part in sorted((folder / TARGETS).glob("part-*.parquet"))}


def written(folder: Path) -> dict[int, str]:
    tables = [pq.read_table(folder / TARGETS / part) for part in parts(folder)]
    return {row: text for one in tables for row, text in zip(one["row"].to_pylist(), one["target"].to_pylist())}


def test_two_processes_train_teach_and_measure_what_one_does(asked, whole, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", RECIPE]
    done = subprocess.run(
        [*launch, "--output", tmp_path, *asked, "--num_processes", "2"], env=environment(), cwd=tmp_path,
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    ours, there = (load_file(folder / "teacher" / "rich" / "model.safetensors") for folder in (whole, tmp_path))
    for name, weight in ours.items():
        # Scores of attention do not change with the bias of the keys: its gradient is rounding, which Adam makes large.
        np.testing.assert_allclose(there[name], weight, atol=1e-2 if "k_proj.bias" in name else 1e-5, err_msg=name)
    assert written(tmp_path) == written(whole) and len(written(whole)) == ROWS
    one, two = ({record.name: record for record in read_records(folder)} for folder in (whole, tmp_path))
    assert one.keys() == two.keys() == {"rich-r1-nll-seed0", "rich-r1-mixture-teacher-seed0"}
    for name, record in one.items():
        assert (record.budget["processes"], two[name].budget["processes"]) == (1, 2)
        assert two[name].noise["realised"] == record.noise["realised"]
        assert two[name].metrics.keys() == record.metrics.keys()
        for metric, figure in record.metrics.items():
            assert two[name].metrics[metric]["n"] == figure["n"], metric
            assert two[name].metrics[metric]["value"] == pytest.approx(figure["value"], rel=1e-4), metric
    ours, there = (
        pq.read_table(folder / "rich-r1-mixture-teacher-seed0" / "audit.parquet").to_pydict()
        for folder in (whole, tmp_path)
    )
    assert ours["sample_id"] == there["sample_id"] and len(ours["sample_id"]) == ROWS
    for name in ("nll", "other_nll", "log_odds"):
        np.testing.assert_allclose(there[name], ours[name], rtol=1e-3, atol=1e-3, err_msg=name)


def write_slowly(arguments: list[str]) -> None:
    original = teacher_targets.generate
    teacher_targets.generate = lambda *a: time.sleep(0.1) or original(*a)
    main(*arguments)


def test_killed_while_the_teacher_writes_it_goes_on_with_the_next_part(asked, whole, tmp_path, monkeypatch):
    arguments = ["--output", str(tmp_path), *asked, "--loss", "nll"]
    process = multiprocessing.get_context("fork").Process(target=write_slowly, args=(arguments,))
    process.start()
    deadline = time.monotonic() + 120
    while not parts(tmp_path) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the run ended before it was killed"
    teacher = tmp_path / "teacher" / "rich" / "model.safetensors"
    there, trained = parts(tmp_path), teacher.stat().st_mtime_ns
    assert 0 < len(there) < len(parts(whole)) == -(-ROWS // PART)
    done, made, original = set(written(tmp_path)), [], teacher_targets.generate
    monkeypatch.setattr(teacher_targets, "generate", lambda *a: made.append(a[2].tolist()) or original(*a))
    main(*arguments)
    assert written(tmp_path) == written(whole)
    assert parts(tmp_path).items() >= there.items() and teacher.stat().st_mtime_ns == trained
    assert [len(part) for part in made] == [PART] * (ROWS // PART - len(done) // PART) + [ROWS % PART, PART, 31 % PART]
    assert read_records(tmp_path)[0].metrics == read_records(whole / "rich-r1-nll-seed0" / "record.json")[0].metrics
