"""Macro-batch losses against sums written out, against variances that are known, and for any way of reading."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.analysis.stability import INDEPENDENT, Exponent, MacroBatchLosses, macro_batch_losses


def drawn(seed: int, n: int = 20_000) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 0.5, n)


def made(std, num_batches: int = 200, seed: int = 0) -> MacroBatchLosses:
    """Losses whose standard deviations are exactly these, at sizes 1, 2, 4, ..."""
    losses = np.random.default_rng(seed).normal(size=(len(std), num_batches))
    losses = (losses - losses.mean(1, keepdims=True)) / losses.std(1, ddof=1, keepdims=True) * np.c_[list(std)]
    return MacroBatchLosses(2 ** np.arange(len(std)), 5.0 + losses, 1.0, 1, 1, "shuffled")


# ---- what is averaged


def test_by_hand_in_stored_order():
    """Ten macro-batches of 2 rows, then ten of 3, over 8 rows: the stream goes on where the size before stopped."""
    losses = np.arange(8.0)
    found = macro_batch_losses(losses, [2, 3], num_batches=10, order="stored")
    stream = np.resize(losses, 50)
    assert found.losses[0].tolist() == [stream[2 * i : 2 * i + 2].mean() for i in range(10)]
    assert found.losses[1] == pytest.approx([stream[20 + 3 * i : 23 + 3 * i].mean() for i in range(10)], abs=1e-15)
    assert (found.rows_read, found.passes, found.order) == (50, 7, "stored")
    assert found.std[0] == pytest.approx(np.std(found.losses[0], ddof=1)) and found.sizes.tolist() == [2, 3]
    assert found.row_std == pytest.approx(np.std(stream, ddof=1))


def test_units_weigh_as_they_do_in_training():
    """The sum of all losses over the number of all units, no mean of means; rows without a unit count for nothing."""
    sums, units = np.array([6.0, 0.0, 1.0, 9.0]), np.array([2.0, 0.0, 1.0, 3.0])
    found = macro_batch_losses(lambda rows, epoch: (sums[rows], units[rows]), [4], num_rows=4, num_batches=10)
    assert found.losses == pytest.approx(np.full((1, 10), 16 / 6))
    weighed = (sums - 16 / 6 * units) / 1.5
    assert found.row_std == pytest.approx(math.sqrt(10 * (weighed**2).sum() / 39))


@given(st.integers(0, 10**6), st.integers(1, 50), st.sampled_from(["shuffled", "stored"]), st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_how_many_rows_are_read_at_once_changes_no_bit(seed, batch_size, order, num_rows):
    values = drawn(seed, num_rows)
    asked = {"sizes": sorted({1, 2, num_rows}), "num_batches": 11, "order": order, "seed": seed}
    one, other = (macro_batch_losses(values, batch_size=size, **asked) for size in (1, batch_size))
    assert (one.losses == other.losses).all() and one.row_std == other.row_std and one.passes == other.passes


@given(st.integers(0, 1000), st.integers(2, 30), st.integers(1, 7), st.sampled_from(["shuffled", "stored"]))
@settings(max_examples=40, deadline=None)
def test_no_row_stands_twice_in_a_pass_and_each_pass_has_its_epoch(seed, num_rows, batch_size, order):
    seen: dict[int, list[int]] = {}

    def look(rows, epoch):
        assert len(rows) <= batch_size
        seen.setdefault(epoch, []).extend(rows.tolist())
        return np.ones(len(rows))

    found = macro_batch_losses(
        look, [1, 2], num_rows=num_rows, num_batches=13, order=order, seed=seed, epoch=7, batch_size=batch_size
    )
    assert list(seen) == list(range(7, 7 + found.passes)) and sum(map(len, seen.values())) == 39 == found.rows_read
    *whole, last = seen.values()
    assert all(sorted(rows) == list(range(num_rows)) for rows in whole) and len(set(last)) == len(last)
    assert order != "stored" or all(rows == list(range(len(rows))) for rows in seen.values())


def test_orders_differ_by_seed_and_by_pass():
    losses = np.arange(64.0)
    first, again, other = (macro_batch_losses(losses, [32, 64], num_batches=10, seed=s).losses for s in (0, 0, 1))
    assert (first == again).all() and (first[0] != other[0]).any()
    assert len(set(first[0, ::2])) > 1, "every pass in an order of its own"
    assert (first[1] == first[1, 0]).all(), "all rows, whatever their order"


# ---- what it says


def test_independent_rows_fall_as_the_root_of_their_number():
    found = macro_batch_losses(drawn(0, 60_000), [8, 16, 32, 64, 128])
    exponent = found.exponent()
    assert exponent.agrees and abs(exponent.value - INDEPENDENT) < 0.07
    # Of 200 normal losses a standard deviation is off by 5 %.
    assert found.std == pytest.approx(0.5 / np.sqrt(found.sizes), rel=0.2)
    assert found.worth == pytest.approx(found.sizes, rel=0.4)
    assert found.same_mean_p() > 0.01 and found.row_std == pytest.approx(0.5, rel=0.02)


def test_neighbours_that_are_alike_average_out_less():
    """Rows in documents of 10: a macro-batch of stored rows is worth a tenth of its rows, shuffled all of them."""
    documents = np.repeat(drawn(2, 6000), 10)
    stored, shuffled = (macro_batch_losses(documents, [20, 40, 80], order=order) for order in ("stored", "shuffled"))
    assert stored.worth == pytest.approx(stored.sizes / 10, rel=0.4)
    assert shuffled.worth == pytest.approx(shuffled.sizes, rel=0.4)
    short = macro_batch_losses(documents, [1, 2, 4, 8], order="stored").exponent()
    assert short.low > INDEPENDENT and not short.agrees


@given(st.floats(-1.5, 0.5), st.integers(2, 6), st.floats(1e-6, 10))
@settings(max_examples=30, deadline=None)
def test_the_exponent_is_the_slope(slope, sizes, level):
    found = made(level * (2.0 ** np.arange(sizes)) ** slope).exponent(resamples=200)
    assert found.value == pytest.approx(slope, abs=1e-9) and found.low < found.value < found.high


def test_the_interval_covers_as_often_as_it_says():
    draw, covered = np.random.default_rng(3), 0
    for _ in range(200):
        losses = draw.normal(size=(4, 60)) * 0.5 ** np.arange(4)[:, None] ** 0.5
        exact = -0.5 * np.log(2) * np.polyfit(np.log([1, 2, 4, 8]), np.arange(4) ** 0.5 * 2, 1)[0]
        found = MacroBatchLosses(np.array([1, 2, 4, 8]), losses, 1.0, 1, 1, "stored").exponent(resamples=300)
        covered += found.low <= exact <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_interval_widens_with_confidence_and_narrows_with_macro_batches():
    found, more = made([1, 0.7, 0.5]), made([1, 0.7, 0.5], 2000)
    widths = [one.high - one.low for one in (found.exponent(confidence=0.5), found.exponent(), more.exponent())]
    assert widths[0] < widths[1] and widths[2] < 0.5 * widths[1]
    assert Exponent(-0.4, -0.45, -0.35).agrees is False


def test_a_loss_that_hardly_ever_differs_has_an_interval_without_ends():
    losses = np.full((2, 20), 5.0)
    losses[:, 0] = 6.0
    found = replace(made([1, 1]), losses=losses).exponent()
    assert (found.value, found.low, found.high) == (pytest.approx(0), -math.inf, math.inf)


def test_means_that_move_with_the_size_are_seen():
    found = made([1, 0.7, 0.5])
    assert found.same_mean_p() == pytest.approx(1)
    assert replace(found, losses=found.losses + np.c_[[0.0, 0.3, 0.6]]).same_mean_p() < 1e-6
    assert replace(found, losses=np.full((3, 20), 5.0)).same_mean_p() == 1.0


def test_means_that_are_one_are_told_apart_as_often_as_p_says():
    """Also of few macro-batches, whose spread is uncertain: of 2,000 draws 100 +- 39 at 5 % (4 sd)."""
    draw, spread = np.random.default_rng(0), np.array([[1.0], [0.7], [0.5], [0.35]])
    found = made([1, 0.7, 0.5, 0.35])
    told = [replace(found, losses=5 + spread * draw.normal(size=(4, 10))).same_mean_p() < 0.05 for _ in range(2000)]
    assert 61 < sum(told) < 139


def test_welchs_f_is_that_of_scipy():
    from scipy.stats import ttest_ind

    draw = np.random.default_rng(1)
    losses = np.stack([draw.normal(5, 1, 30), draw.normal(5.5, 0.3, 30)])
    p = replace(made([1, 0.7]), losses=losses).same_mean_p()
    assert p == pytest.approx(ttest_ind(*losses, equal_var=False).pvalue, rel=1e-9)


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sizes": [2, 2]}, ValueError, r"sizes must be integers \[S\] that rise"),
        ({"sizes": [4, 2]}, ValueError, "sizes must be integers"), ({"sizes": []}, (TypeError, ValueError), "sizes"),
        ({"sizes": [2, 101]}, ValueError, r"sizes must lie in \[1, 100\], got 101; .* none stands twice"),
        ({"sizes": [0, 2]}, ValueError, "sizes must lie in"), ({"sizes": [2.0]}, TypeError, "sizes must be integers"),
        ({"num_batches": 9}, ValueError, "num_batches must lie in .* 200 are usual"),
        ({"order": "random"}, ValueError, "order must be one of shuffled, stored"),
        ({"batch_size": 0}, ValueError, "batch_size"), ({"seed": -1}, ValueError, "seed"),
        ({"epoch": 1.5}, TypeError, "epoch"), ({"num_rows": 99}, ValueError, "num_rows is 99, and row_losses has 100"),
        ({"row_losses": [[1.0, 2.0]]}, ValueError, r"row_losses must be losses \[N\]"),
        ({"row_losses": ["a", "b"]}, TypeError, "row_losses must be real"),
        ({"row_losses": [1.0, math.nan, 2.0, 3.0]}, ValueError, "row_losses gave nan for 1 units of row 1"),
        ({"row_losses": lambda rows, epoch: rows * 1.0}, ValueError, "num_rows is missing"),
        ({"row_losses": lambda rows, epoch: np.ones(3), "num_rows": 99}, ValueError, r"of 32 rows, got shapes \[3\]"),
        ({"row_losses": lambda rows, epoch: (rows * 1.0, rows * -1.0), "num_rows": 100}, ValueError, "-"),
        ({"row_losses": lambda rows, epoch: (rows * 0.0, rows * 0), "num_rows": 100}, ValueError, "no unit in all"),
    ],
)  # fmt: skip
def test_bad_calls_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        macro_batch_losses(**{"row_losses": drawn(0, 100), "sizes": [2, 4]} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence": 1.0}, "confidence must lie in"), ({"resamples": 99}, "resamples must lie in"),
        ({"seed": -1}, "seed must lie in"),
    ],
)  # fmt: skip
def test_bad_intervals_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made([1, 0.5]).exponent(**changes)


def test_there_is_no_exponent_of_one_size_or_of_equal_losses():
    with pytest.raises(ValueError, match="sizes holds 1 alone"):
        made([1.0]).exponent()
    with pytest.raises(ValueError, match="of 2 rows do not differ"):
        macro_batch_losses(np.full(50, 0.1), [2, 3]).exponent()
