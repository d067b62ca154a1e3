"""A few hundred calls with odd values: a result that is right, or an error that names the argument."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from bad_calls_diffusion import TARGETS, odd_call, outcome  # noqa: E402  (tests are no package)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_odd_values_end_in_a_right_result_or_in_a_clear_error(target):
    assert outcome(target, target.good) in ("result", "refused")
    draw = np.random.default_rng(0)
    for _ in range(20):
        given = odd_call(target, draw)
        ended = outcome(target, given)
        assert ended in ("result", "refused"), given
