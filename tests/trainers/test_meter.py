"""Sums over tokens: exact in float64, kept apart for clean and corrupted targets, kept in checkpoints."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from hf_noise.trainers.meter import TokenMeter


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def add(meter, nll, valid, is_noisy):
    meter.add(torch.tensor([nll]), torch.tensor([valid], dtype=torch.bool), torch.tensor([is_noisy], dtype=torch.bool))


def test_means_and_rate_of_a_window(accelerator):
    meter = TokenMeter()
    add(meter, [1.0, 3.0, 100.0], [1, 1, 0], [0, 1, 1])  # the last is no target, though marked as corrupted
    add(meter, [2.0, 0.0, 9.0], [1, 0, 1], [0, 0, 0])
    assert meter.pop(accelerator) == {"nll_clean_targets": 4.0, "nll_corrupted_targets": 3.0, "noise_rate": 0.25}
    assert meter.pop(accelerator) == {}
    add(meter, [5.0], [1], [1])
    assert meter.pop(accelerator) == {"nll_corrupted_targets": 5.0, "noise_rate": 1.0}
    assert meter.realised() == {"rate": 0.4, "n": 5}


def test_many_small_terms_are_summed_in_double_precision(accelerator):
    meter = TokenMeter()
    nll = torch.full((1, 100_000), 0.1)
    for _ in range(20):
        meter.add(nll, torch.ones_like(nll, dtype=torch.bool), torch.zeros_like(nll, dtype=torch.bool))
    assert meter.pop(accelerator)["nll_clean_targets"] == pytest.approx(float(nll[0, 0]), rel=1e-12)


def test_state_holds_totals_and_what_is_not_logged_yet(accelerator):
    meter, copy = TokenMeter(), TokenMeter()
    add(meter, [1.0, 2.0], [1, 1], [1, 0])
    meter.pop(accelerator)
    add(meter, [8.0], [1], [1])
    copy.load(meter.state(accelerator), accelerator)
    add(copy, [4.0], [1], [1])
    assert copy.pop(accelerator) == {"nll_corrupted_targets": 6.0, "noise_rate": 1.0}
    assert copy.realised() == {"rate": 0.75, "n": 4}
    # Looking at the state took nothing away.
    assert meter.pop(accelerator) == {"nll_corrupted_targets": 8.0, "noise_rate": 1.0}


def test_a_state_without_anything_new_logs_nothing(accelerator):
    meter, copy = TokenMeter(), TokenMeter()
    add(meter, [1.0, 2.0], [1, 1], [1, 0])
    meter.pop(accelerator)
    copy.load(meter.state(accelerator), accelerator)
    assert copy.pop(accelerator) == {}
    assert copy.realised() == {"rate": 0.5, "n": 2}


def test_no_step_no_rate():
    with pytest.raises(RuntimeError, match="no training step"):
        TokenMeter().realised()
