"""Lists by hand, and what holds of any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_noise.audit import default_list, list_at_fdr

SHARES = st.lists(st.floats(0, 1), max_size=40).map(np.array)


def test_lists_by_hand():
    p = np.array([0.1, 0.9, 0.0, 0.6])
    # Of 1.6 expected wrong rows: k = 1 gives 2 * 0.9 / 2.6 = 0.69, k = 2 gives 3 / 3.6 = 0.83, k = 3 gives 3.2 / 4.6.
    assert default_list(p).tolist() == [False, True, False, True]
    assert list_at_fdr(p, 0.1).tolist() == [False, True, False, False]
    assert list_at_fdr(p, 0.25).tolist() == [False, True, False, True]
    assert list_at_fdr(p, 1).all() and not default_list(np.zeros(3)).any()


@given(SHARES)
def test_no_other_length_has_a_larger_expected_f1(p):
    listed = default_list(p)

    def f1(mask):
        return 2 * p[mask].sum() / (mask.sum() + p.sum()) if p.sum() > 0 else 0.0

    order = np.argsort(-p, kind="stable")
    for k in range(len(p) + 1):
        assert f1(np.isin(np.arange(len(p)), order[:k])) <= f1(listed) + 1e-12


@given(SHARES, st.floats(0, 1), st.floats(0, 1))
def test_a_list_keeps_its_share_and_grows_with_it(p, fdr, other):
    listed, longer = list_at_fdr(p, min(fdr, other)), list_at_fdr(p, max(fdr, other))
    assert (longer | ~listed).all()
    if listed.any():
        assert (1 - p[listed]).mean() <= min(fdr, other) + 1e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: default_list([[0.5]]), r"\[N\], got shape \[1, 1\]"),
        (lambda: default_list([1.5]), "p_wrong must lie in"),
        (lambda: list_at_fdr([0.5], 2), "fdr must lie in"),
    ],
)
def test_what_is_no_list_of_probabilities_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
