import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise import rates


@pytest.mark.parametrize(
    ("r", "e"), [(0, 0), (0.1, 1 / 11), (0.3, 3 / 13), (0.5, 1 / 3), (1, 0.5), (3, 0.75), (1e12, 1 - 1e-12)]
)
def test_hand_values(r, e):
    assert rates.error_rate(r) == pytest.approx(e, rel=1e-15)
    assert rates.ratio(e) == pytest.approx(r, rel=1e-3)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1e6))
def test_ratio_and_error_rate_are_inverse(r):
    e = rates.error_rate(r)
    assert 0 <= e < 1
    # e holds 53 bits of a number close to 1, of which 1 / (1 - e) = 1 + r magnifies the rounding.
    assert rates.ratio(e) == pytest.approx(r, rel=1e-15 * (2 + r) * 2, abs=1e-15)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_error_rate_grows_with_the_ratio(a, b):
    low, high = sorted([a, b])
    assert rates.error_rate(low) <= rates.error_rate(high)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, -math.inf])
def test_ratio_out_of_range(bad):
    with pytest.raises(ValueError, match=r"ratio must be finite and >= 0, got .*e = r / \(1 \+ r\)"):
        rates.error_rate(bad)


def test_a_ratio_whose_rate_rounds_to_one_is_refused():
    with pytest.raises(ValueError, match="below 1e15"):
        rates.error_rate(1e300)


@pytest.mark.parametrize("bad", [-1e-9, 1, 1.5, math.nan, math.inf])
@pytest.mark.parametrize(
    ("check", "name"),
    [(rates.check_error_rate, "error_rate"), (rates.check_alpha, "alpha"), (rates.ratio, "error_rate")],
)
def test_rate_out_of_range(check, name, bad):
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\), got"):
        check(bad)


@pytest.mark.parametrize("bad", ["0.5", None, True, [0.5], 1j])
@pytest.mark.parametrize("check", [rates.check_ratio, rates.check_error_rate, rates.check_alpha])
def test_not_a_number(check, bad):
    with pytest.raises(TypeError, match="must be a real number"):
        check(bad)


def test_numpy_numbers_are_numbers():
    assert rates.check_ratio(np.float32(0.5)) == 0.5
    assert type(rates.check_ratio(np.float64(0.5))) is float
    assert rates.check_error_rate(np.int64(0)) == 0.0


def test_resolve_needs_one_rate():
    with pytest.raises(ValueError, match="give the amount of noise"):
        rates.resolve(None, None)


def test_resolve_refuses_contradictions():
    with pytest.raises(ValueError, match="contradict each other"):
        rates.resolve(0.5, 0.5)


def test_resolve_takes_both_if_they_agree():
    assert rates.resolve(0.5, 1 / 3) == (0.5, 1 / 3)
    assert rates.resolve(0.5, 0.3333333333) == (0.5, 1 / 3), "the ratio decides where the rate has few digits"


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.tuples(st.floats(0, 1e6), st.none()), st.tuples(st.none(), st.floats(0, 1, exclude_max=True))))
def test_resolve_changes_nothing_the_second_time(pair):
    # A stored noise holds both rates; reading it back must not move either by a bit (0.05 once lost one).
    try:
        resolved = rates.resolve(*pair)
    except ValueError:  # 1 - e so small that its ratio gives e = 1
        assert pair[1] is not None and pair[1] > 1 - 1e-9
        return
    assert rates.resolve(*resolved) == resolved


def test_resolve_keeps_the_rate_it_was_given():
    assert rates.resolve(None, 0.05)[1] == 0.05
    assert rates.resolve(*rates.resolve(None, 0.05))[1] == 0.05


@pytest.mark.parametrize(
    ("base", "r", "new"),
    [(600_000, 0, 600_000), (600_000, 0.1, 660_000), (600_000, 0.3, 780_000), (300, 0.5, 450), (7, 1, 14)],
)
def test_training_length(base, r, new):
    assert rates.training_length(base, r) == (new, rates.error_rate(r))


@pytest.mark.parametrize("base", [0, -3])
def test_training_length_needs_a_base(base):
    with pytest.raises(ValueError, match="base length must be > 0"):
        rates.training_length(base, 0.5)
