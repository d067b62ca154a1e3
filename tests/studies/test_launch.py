"""What a recipe checks before it trains."""

from __future__ import annotations

import os
from collections import namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from hf_noise.studies import launch


@pytest.fixture
def one_process(tmp_path):
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")


def test_one_process_is_a_world_of_one(one_process, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    launch.check_world(one_process)
    launch.check_world(one_process, expected=1)


@pytest.mark.parametrize(("launched", "expected"), [("1", 2), ("2", None), ("2", 2)])
def test_fewer_processes_than_asked_for_stop_the_run(one_process, monkeypatch, launched, expected):
    """Also two that were launched and train alone, as without use_cpu=True on a machine without a GPU."""
    monkeypatch.setenv("WORLD_SIZE", launched)
    with pytest.raises(RuntimeError, match=f"asked for 2 processes, the launcher started {launched}, and 1 train"):
        launch.check_world(one_process, expected)


@pytest.mark.parametrize(("local", "cores", "share"), [("1", 8, 8), ("2", 8, 4), ("3", 8, 2), ("4", 2, 1)])
def test_each_process_takes_its_share_of_the_cores(monkeypatch, local, cores, share):
    before = torch.get_num_threads()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(launch, "available_cores", lambda: cores)
    try:
        assert launch.take_back_cores() == share == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def test_available_cores_are_those_of_this_process():
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system does not tell which cores a process may use")
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert launch.available_cores() == 1
    finally:
        os.sched_setaffinity(0, mine)


def test_a_disk_too_small_for_the_checkpoints_stops_the_run(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(launch.shutil, "disk_usage", lambda folder: usage(2**40, 0, 36 * 10**6))
    launch.check_disk(tmp_path / "not" / "yet", 10**6, 3)  # 3 x 12 bytes x 1 M, exactly
    with pytest.raises(OSError, match=r"3 checkpoints of 2 M weights need 0.1 GiB.*--output"):
        launch.check_disk(tmp_path, 2 * 10**6, 3)


@given(batch=st.integers(1, 3000), world=st.integers(1, 16), micro=st.integers(1, 64))
@settings(max_examples=200, deadline=None)
def test_batches_are_shared_exactly_in_as_few_passes_as_fit(batch, world, micro):
    if batch % world:
        with pytest.raises(ValueError, match="cannot be shared equally"):
            launch.split_batch(batch, world, micro)
        return
    rows, passes = launch.split_batch(batch, world, micro)
    assert rows * passes * world == batch
    assert 1 <= rows <= micro
    assert not any((batch // world) % more == 0 for more in range(rows + 1, min(micro, batch // world) + 1))


def test_the_papers_batch_on_its_eight_gpus():
    assert launch.split_batch(480, 8, 12) == (12, 5)


def test_a_pass_holds_at_least_one_row():
    with pytest.raises(ValueError, match="micro_batch must be >= 1, got 0"):
        launch.split_batch(8, 1, 0)
