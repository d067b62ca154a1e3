"""Which rows two networks keep for each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_noise.losses import small_losses
from hf_noise.losses.coteaching import forgotten_share


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.floats(0, 0.99))
def test_the_smallest_are_kept_and_never_none(losses, rate):
    values = torch.tensor(losses, dtype=torch.float32)
    kept = small_losses(values, rate)
    expected = max(1, math.floor((1 - rate) * len(losses) + 1e-9))
    assert int(kept.sum()) == expected
    smallest = np.argsort(losses, kind="stable")[:expected]
    assert kept.tolist() == np.isin(np.arange(len(losses)), smallest).tolist()


def test_the_share_rises_to_the_rate():
    shares = [forgotten_share(0.4, 0.2, done) for done in (0, 0.05, 0.1, 0.2, 0.9)]
    assert shares == pytest.approx([0, 0.1, 0.2, 0.4, 0.4]) and forgotten_share(0.4, 0.0, 0.0) == 0.4


def test_nan_is_the_largest():
    assert small_losses(torch.tensor([math.nan, 1.0, math.inf]), 0.5).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("losses", "rate", "error", "message"),
    [
        (torch.zeros(2, 2), 0.1, ValueError, r"losses must be \[B\], one of each row, got \[2, 2\]"),
        (torch.zeros(2), 1.0, ValueError, r"forget_rate must lie in \[0, 1\), got 1.0"),
        (torch.zeros(2), "known", TypeError, "forget_rate must be a real number"),
        (torch.tensor([1, 2]), 0.1, TypeError, "losses must be"),
    ],
)
def test_bad_calls(losses, rate, error, message):
    with pytest.raises(error, match=message):
        small_losses(losses, rate)
