"""Two real processes train and evaluate as one process with twice the batch does."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")
SPEC = importlib.util.spec_from_file_location("two_processes", SCRIPT)
one_process = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(one_process)

PEERS = importlib.util.spec_from_file_location("classifier_processes", SCRIPT.with_name("classifier_processes.py"))
of_text = importlib.util.module_from_spec(PEERS)
PEERS.loader.exec_module(of_text)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Results of both processes, started once for all tests here."""
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, SCRIPT, folder], env=environment, cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "[rank" in line)
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("loss", list(one_process.LOSSES))
def test_same_figures_noise_and_weights(two, tmp_path, loss):
    folder, ranks = two
    expected, weights = one_process.train(tmp_path, one_process.BATCH, loss)
    for rank in ranks:
        found = rank[loss]
        # Seven rows on two processes in batches of two: the last one is padded by a repeated row, which must not count.
        assert found["evaluation"]["eval_tokens"] == expected["evaluation"]["eval_tokens"]
        assert found["evaluation"]["eval_nll"] == pytest.approx(expected["evaluation"]["eval_nll"], abs=1e-6)
        assert found["realised"] == pytest.approx(expected["realised"], rel=1e-12)
        assert found["learned"] == pytest.approx(expected["learned"], rel=1e-5)
        for ours, one in zip(found["log"], expected["log"], strict=True):
            assert ours == pytest.approx(one, rel=1e-5)
    first, second = (rank[loss]["drawn"] for rank in ranks)
    assert first | second == expected["drawn"]
    assert not first.keys() & second.keys()
    for name, weight in load_file(folder / f"{loss}.safetensors").items():
        torch.testing.assert_close(weight, weights[name].cpu(), rtol=0, atol=1e-5)


RUNS = {"classifier": one_process.train_classifier, "masked": one_process.train_masked,
        "pairs": one_process.train_pairs}  # fmt: skip


@pytest.mark.parametrize("kind", list(RUNS))
def test_other_models_learn_the_same(two, tmp_path, kind):
    folder, ranks = two
    run = RUNS[kind]
    expected, weights = run(tmp_path, one_process.BATCH)
    for found in (rank[kind] for rank in ranks):
        assert found["evaluation"] == pytest.approx(expected["evaluation"], rel=1e-5)
        assert found["realised"] == pytest.approx(expected["realised"], rel=1e-12)
        assert found.get("written") == expected.get("written")
        for ours, one in zip(found["log"], expected["log"], strict=True):
            assert ours == pytest.approx(one, rel=1e-5)
    for name, weight in load_file(folder / f"{kind}.safetensors").items():
        torch.testing.assert_close(weight, weights[name].cpu(), rtol=0, atol=1e-5)


def test_a_budget_gives_each_process_batches_of_equal_cost_and_each_row_once(two):
    first, second = (rank["budget"] for rank in two[1])
    assert len(first) == len(second) > 5
    ids = [one for batch, _ in first + second for one in batch]
    assert sorted(ids) == list(range(100, 161))
    costs = [sorted(cost for _, (cost,) in pair) for pair in zip(first, second)]
    assert all(high <= 60 for _, high in costs) and sum(low for low, _ in costs) > 0.9 * sum(high for _, high in costs)


def test_steps_by_a_budget_are_those_of_one_process_and_of_a_run_that_went_on(two, tmp_path):
    """Two processes of two passes each, stopped in the second epoch, and one process of four passes."""
    folder, ranks = two
    first, second = (rank["steps"] for rank in ranks)
    one, weights = one_process.train_budget(tmp_path, passes=4)
    assert one["batches"] == first["batches"] < 6 * 4, "of an epoch"
    assert one["seen"] == [batch for pair in zip(first["seen"], second["seen"]) for batch in pair]
    for found, passes in ((one, 4), (first, 2), (second, 2)):
        assert found["later"] == found["seen"][6 * passes :] and found["same"]
    for name, weight in load_file(folder / "steps.safetensors").items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-5, msg=name)


def test_a_teacher_learns_from_each_pair_once_an_epoch_whatever_dropout_draws(two):
    first, second = (rank["teacher"] for rank in two[1])
    expected = sorted(f"s {i} " * (i % 5 + 1) for i in range(19))
    assert sorted(first[:11] + second[:8]) == sorted(first[11:] + second[8:]) == expected and first[:11] != first[11:]


@pytest.mark.parametrize("loss", list(of_text.LOSSES))
def test_what_is_learned_beside_a_classifier_is_the_same(two, tmp_path, loss):
    folder, ranks = two
    expected, weights = of_text.train(tmp_path, 8, loss)
    # What one process alone writes holds what both remember.
    state = load_file(folder / loss / "checkpoint-5" / "hf_noise_state.safetensors")
    for rank, results in enumerate(ranks):
        found = results["peers"][loss]
        assert found["evaluation"] == pytest.approx(expected["evaluation"], abs=1e-5)
        assert found["realised"] == expected["realised"]
        for ours, one in zip(found["log"], expected["log"], strict=True):
            assert ours == pytest.approx(one, rel=1e-4, abs=1e-6)
        learned = load_file(folder / f"{loss}-{rank}.safetensors")
        assert learned.keys() == weights.keys()
        for name, value in learned.items():
            for other in (weights[name], *([state[name]] if name.startswith("hf_noise_") else [])):
                torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5, msg=name)


def test_a_smaller_world_than_asked_for_is_an_error(two):
    _, ranks = two
    for rank in ranks:
        assert "asked for 4 processes, the launcher started 2, and 2 train together" in rank["world"]


def test_a_checkpoint_of_two_processes_holds_the_totals_of_both(two):
    folder, ranks = two
    state = load_file(folder / "known" / "checkpoint-5" / "hf_noise_state.safetensors")
    _, clean, _, noisy = state["total"].tolist()
    assert clean + noisy == ranks[0]["known"]["realised"]["n"]


def test_both_go_on_from_the_same_whole_checkpoint_or_both_stop(two):
    first, second = (rank["restart"] for rank in two[1])
    assert first["processes"] == 2 and {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} < set(first["files"])
    assert first["hurt"] == second["hurt"] == "from 2, same: True"
    in_use = "BlockingIOError: .*restart is in use by process 7 on node-3; wait until it has ended"
    assert re.match(in_use, first["in use"])
    assert re.match(f"RuntimeError: process 0 stopped the run: {in_use}", second["in use"])
    for seen, rank in ((first, 0), (second, 1)):
        assert f"rng_state_{rank}.pth" in seen["each"] and f"rng_state_{1 - rank}.pth" not in seen["each"]
        assert "machine1/checkpoint-4 is broken: optimizer.pt has 0 bytes" in seen["hurt on one machine"]
