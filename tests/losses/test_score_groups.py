"""Two groups of rows by scores that are means over tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from hf_noise.losses.score_groups import ScoreGroups, score_groups


def rows_of(share, n=2000, apart=1.5, seed=0, degrees=5):
    """Scores, lengths and who wrote: means 0 and `apart` with a scale of 1.2 / sqrt(length), the lower with a slope."""
    draw = np.random.default_rng(seed)
    lengths, is_upper = draw.integers(3, 60, n), draw.random(n) < share
    scatter = 1.2 / np.sqrt(lengths) * draw.standard_t(degrees, n)
    return np.where(is_upper, apart, 0.2 * np.log(lengths / 20)) + scatter, lengths, is_upper


@pytest.mark.parametrize("share", [0.03, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("degrees", [5, 100])
def test_share_and_rows_are_found(share, degrees):
    scores, lengths, is_upper = rows_of(share, degrees=degrees)
    found = score_groups(scores, lengths)
    posterior = 1 / (1 + np.exp(-found.log_odds(scores, lengths)))
    assert posterior.mean() == pytest.approx(is_upper.mean(), abs=0.015)
    assert ((posterior > 0.5) == is_upper).mean() > 0.97
    for low, high in ((0, 0.1), (0.1, 0.9), (0.9, 1)):  # what is said to be likely happens as often
        there = (posterior >= low) & (posterior <= high)
        error = 4 * math.sqrt(0.25 / max(1, there.sum()))
        assert is_upper[there].mean() == pytest.approx(posterior[there].mean(), abs=error + 0.02)
    known = score_groups(scores, lengths, share)
    assert known.share == share and known.high == pytest.approx(found.high, abs=0.05)


SHAPES = {
    "t": lambda draw, n: 0.3 * draw.standard_t(5, n), "normal": lambda draw, n: 0.3 * draw.normal(size=n),
    "skewed": lambda draw, n: draw.gamma(4, 0.2, n), "flat": lambda draw, n: draw.uniform(-1, 1, n),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["t", "normal", "skewed"])
def test_one_writer_is_no_two(seed, shape):
    draw = np.random.default_rng(seed)
    scores, lengths = SHAPES[shape](draw, 2000), draw.integers(3, 60, 2000)
    found = score_groups(scores, lengths)
    assert found.doubt and found.share == 1e-9 and found.log_odds(scores, lengths).max() < -9
    assert score_groups(scores, lengths, 0.3).doubt is None, "who says that there are two is believed"


@pytest.mark.parametrize("apart", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_two_writers_that_are_near_are_doubted_or_found(apart, seed):
    """Means 0.4 and 0.9 apart in scales of 1.2 / sqrt(n), 0.26 at 22 tokens: separations of 1.5 and 3.5."""
    scores, lengths, is_upper = rows_of(0.5, apart=apart, seed=seed, n=3000)
    found = score_groups(scores, lengths)
    if apart < 0.5:
        assert "one hill" in found.doubt or "than chance would" in found.doubt
        if apart:
            assert roc_auc_score(is_upper, found.log_odds(scores, lengths)) > 0.7, "rows keep their order"
    else:
        posterior = 1 / (1 + np.exp(-found.log_odds(scores, lengths)))
        assert found.doubt is None and posterior.mean() == pytest.approx(0.5, abs=0.05)


def test_what_a_share_rests_on():
    """Rows of one writer that are of two kinds look like two writers, and flat scores too: as documented."""
    draw, lengths = np.random.default_rng(0), np.random.default_rng(1).integers(3, 60, 3000)
    flat = score_groups(SHAPES["flat"](draw, 3000), lengths)
    assert flat.doubt is None and 0.4 < flat.share < 0.6, "two hills at the ends"
    scores, lengths, is_news = rows_of(0.4, n=3000)
    assert score_groups(scores, lengths).share == pytest.approx(is_news.mean(), abs=0.02), "news among other texts, say"


@pytest.mark.parametrize("n", [1, 3, 20, 49])
@pytest.mark.parametrize("share", [None, 0.5])
def test_few_rows_tell_nothing(n, share):
    scores, lengths, _ = rows_of(0.5, n=n)
    assert score_groups(scores, lengths, share).doubt == f"{n} rows are too few, it takes 50"


def test_a_known_share_of_rows_that_are_the_wrong_way_round():
    """A fifth is said to be the upper group; the lower fifth stands out."""
    draw = np.random.default_rng(0)
    scores = np.where(np.arange(60) < 12, -3.0, 0.0) + 0.1 * draw.normal(size=60)
    found = score_groups(scores, np.full(60, 9), 0.2)
    assert found.doubt == "the rows that should be the other writer's have no higher scores" or found.high > found.low


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0.02, 0.98), factor=st.sampled_from([0.1, 1, 10]))
def test_order_and_units_do_not_matter_and_odds_never_fall(seed, share, factor):
    scores, lengths, _ = rows_of(share, n=300, seed=seed)
    found = score_groups(scores, lengths)
    mixed = np.random.default_rng(seed).permutation(300)
    again = score_groups(scores[mixed] + 2, lengths[mixed])
    assert (again.doubt is None) == (found.doubt is None) and again.share == pytest.approx(found.share, abs=0.02)
    for length in (1, 5, 50, 500):
        rising = found.log_odds(np.linspace(-9, 9, 200), np.full(200, length))
        assert np.isfinite(rising).all() and (np.diff(rising) >= -1e-9).all()


@pytest.mark.parametrize("widths", [(1.2, 0.3), (0.3, 1.2)])
def test_groups_that_are_far_apart_have_scales_of_their_own(widths):
    """One scale for both would leave out 5 % of the wide group, which all stand nearer to their own mean."""
    draw = np.random.default_rng(0)
    lengths, is_upper = draw.integers(3, 60, 3000), draw.random(3000) < 0.5
    scatter = np.where(is_upper, widths[1], widths[0]) / np.sqrt(lengths) * draw.normal(size=3000)
    scores = np.where(is_upper, 2.5, 0.0) + scatter
    found = score_groups(scores, lengths)
    posterior = 1 / (1 + np.exp(-found.log_odds(scores, lengths)))
    ratio = (widths[1] / widths[0]) ** 2
    assert found.valley > 0.9 and found.scales[1] / found.scales[0] == pytest.approx(ratio, rel=0.3)
    assert ((posterior > 0.5) == is_upper).mean() > 0.997
    assert posterior.mean() == pytest.approx(is_upper.mean(), abs=0.004)
    rising = found.log_odds(np.linspace(-9, 9, 400), np.full(400, 20))
    assert (np.diff(rising) >= -1e-9).all(), "though the wide group has more of what is far out on either side"


def test_one_text_again_and_again():
    """A third of the rows are one text of 18 tokens, whose scores are within 0.02 of each other."""
    draw = np.random.default_rng(0)
    is_same = np.arange(3000) % 3 == 0
    lengths = np.where(is_same, 18, draw.integers(3, 60, 3000))
    scores = np.where(is_same, -0.2 + 0.01 * draw.normal(size=3000),
                      -1.4 + 0.3 * np.log(lengths / 18) + 2 / np.sqrt(lengths) * draw.normal(size=3000))  # fmt: skip
    found = score_groups(scores, lengths)
    posterior = 1 / (1 + np.exp(-found.log_odds(scores, lengths)))
    assert found.doubt is None and posterior.mean() == pytest.approx(1 / 3, abs=0.1)
    assert posterior[is_same].min() > 0.5 and abs(found.slopes[1]) < 2


@pytest.mark.parametrize("shape", ["exponential", "lognormal"])
@pytest.mark.parametrize("sign", [1, -1])
def test_heavy_tails_on_one_side_are_no_second_writer(shape, sign):
    draw = np.random.default_rng(0)
    scores = {"exponential": draw.exponential(1, 3000), "lognormal": draw.lognormal(0, 1, 3000)}[shape]
    assert "one hill" in score_groups(sign * scores, draw.integers(3, 60, 3000)).doubt


def test_odds_by_hand():
    """Scale 1 at any length, means -1 and 1: at 0 what the share says, at 1 besides log t(0) - log t(2)."""
    groups = ScoreGroups(0.25, -1.0, 1.0, (0.0, 0.0), 10.0, 1.0, 0.0)
    odds = groups.log_odds(np.array([0.0, 1.0, 90.0]), np.array([3, 300, 3]))
    np.testing.assert_allclose(odds[:2], [math.log(1 / 3), math.log(1 / 3) + 3 * math.log1p(4 / 5)])
    turn = math.sqrt(6)  # where the two densities are furthest apart
    expected = math.log(1 / 3) + 3 * (math.log1p((turn + 1) ** 2 / 5) - math.log1p((turn - 1) ** 2 / 5))
    assert odds[2] == pytest.approx(expected, abs=1e-3) and groups.separation == 2
    assert groups.valley == 0, "a small group so near is a shoulder of the other"
    far = ScoreGroups(0.5, -2.0, 2.0, (0.0, 0.0), 10.0, 1.0, 0.0)
    assert far.valley == pytest.approx(1 - 2 * 1.8**-3 / (1 + 4.2**-3), abs=0.005)


@pytest.mark.parametrize("lengths", [np.full(500, 7), np.ones(500)], ids=["seven", "one"])
def test_rows_of_one_length(lengths):
    draw = np.random.default_rng(0)
    is_upper = np.arange(500) < 150
    scores = np.where(is_upper, 2.0, 0.0) + 0.3 * draw.normal(size=500)
    found = score_groups(scores, lengths)
    assert found.share == pytest.approx(0.3, abs=0.02) and found.slopes == pytest.approx((0, 0), abs=1e-9)
    assert score_groups(np.where(is_upper, 2.0, 0.0), lengths).share == pytest.approx(0.3, abs=0.01)
    assert score_groups(np.zeros(500), lengths).doubt


@pytest.mark.parametrize(
    ("scores", "lengths", "share", "message"),
    [
        ([], [], None, r"\[N\] of at least one row, got \[0\] and \[0\]"),
        ([1.0], [1, 2], None, r"got \[1\] and \[2\]"),
        ([1.0, math.nan], [1, 2], None, "scores must be finite, got nan"),
        ([1.0, 2.0], [1, 0], None, "lengths must be finite and at least 1, got 0"),
        ([1.0, 2.0], [1, 2], 1.0, "share"),
    ],
)
def test_what_cannot_be_fitted_is_refused(scores, lengths, share, message):
    with pytest.raises(ValueError, match=message):
        score_groups(np.array(scores), np.array(lengths), share)
