"""Relative information loss against figure 3 of paper A, entropies counted one by one, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.analysis.information import (
    channel_information_loss,
    conditional_entropy,
    independence_point,
    information_loss_slope,
    mutual_information,
    pac_sample_bound,
    relative_information_loss,
)

CLASSES = [2, 10, 100, 1000, 50257]
#: Figure 3 of paper A, to four digits: a row for each error rate, a column for each number of classes.
FIGURE_3 = {
    0.05: [0.2864, 0.1339, 0.0930, 0.0787, 0.0683], 1 / 11: [0.4395, 0.2191, 0.1569, 0.1350, 0.1191],
    0.2: [0.7219, 0.4082, 0.3082, 0.2724, 0.2462], 3 / 13: [0.7793, 0.4548, 0.3476, 0.3089, 0.2807],
    1 / 3: [0.9183, 0.5945, 0.4708, 0.4254, 0.3921], 0.5: [1.0, 0.7782, 0.6494, 0.6003, 0.5640],
    0.8: [0.7219, 0.9807, 0.9069, 0.8723, 0.8462], 0.9: [0.4690, 1.0, 0.9686, 0.9469, 0.9300],
    1.0: [0.0, 0.9542, 0.9978, 0.9999, 1.0],
}  # fmt: skip

RATES, COUNTS = st.floats(0, 1), st.integers(2, 10**6)


def test_figure_3():
    found = relative_information_loss(np.array(list(FIGURE_3))[:, None], CLASSES)
    assert found == pytest.approx(np.array(list(FIGURE_3.values())), abs=5.1e-5)


def test_the_table_of_the_paper_itself(paper_tables):
    for row in paper_tables["A.fig3"]["rows"]:
        for name, value in row["values"].items():
            # Rates stand there with six digits, which move the loss by up to 5e-7 times its slope.
            assert relative_information_loss(row["p_e"], int(name[1:])) == pytest.approx(value, abs=6e-5)


def test_by_hand():
    """4 classes, half of the labels wrong: 1 bit says whether, and log2(3) bits which of three, half of the time."""
    assert relative_information_loss(0.5, 4) == pytest.approx((1 + 0.5 * math.log2(3)) / 2)
    assert relative_information_loss([0.0, 1.0], 2).tolist() == [0, 0], "always the other of two says it all"


@given(RATES, COUNTS)
@settings(max_examples=100)
def test_the_loss_lies_in_0_1_and_rises_up_to_the_independence_point(p, n):
    point, slope = independence_point(n), information_loss_slope(p, n)
    loss = relative_information_loss(p, n)
    assert 0 <= loss <= 1
    assert relative_information_loss(point, n) == 1 and relative_information_loss(0, n) == 0
    if abs(p - point) > 1e-6:
        assert loss < 1 and np.sign(slope) == np.sign(point - p)
    assert loss >= p - 1e-12 if p <= point else True, "above its limit for many classes, p itself"


@given(st.floats(1e-6, 1 - 1e-6), COUNTS)
def test_the_slope_is_the_derivative(p, n):
    step = 1e-4 * min(p, 1 - p)
    rise = relative_information_loss(p + step, n) - relative_information_loss(p - step, n)
    assert information_loss_slope(p, n) == pytest.approx(rise / (2 * step), rel=1e-5, abs=1e-5)


@given(st.floats(1e-9, 0.499), st.integers(2, 1000))
def test_it_falls_as_classes_are_added(p, n):
    """Below the independence points of both."""
    assert relative_information_loss(p, n + 1) < relative_information_loss(p, n)


def test_limits():
    assert relative_information_loss(0, CLASSES).tolist() == [0.0] * 5
    assert information_loss_slope(0.5, 2) == 0 and information_loss_slope(0.9, 10) == pytest.approx(0, abs=1e-15)
    assert information_loss_slope([0.0, 1.0], 10).tolist() == [math.inf, -math.inf]
    p = np.linspace(0, 1, 11)
    assert relative_information_loss(p, 1 << 53) == pytest.approx(p, abs=0.02), "linear for many classes"
    tiny = relative_information_loss(1e-300, 10)
    assert tiny == pytest.approx(1e-300 * (1 + 300 * math.log(10) + math.log(9)) / math.log(10))
    assert independence_point(CLASSES).tolist() == [0.5, 0.9, 0.99, 0.999, 1 - 1 / 50257]


# ---- any channel


def counted(prior, transition):
    """H(true | observed) / H(true), a term for each pair."""
    lost = 0.0
    for j in range(len(prior)):
        observed = sum(prior[i] * transition[i][j] for i in range(len(prior)))
        for i in range(len(prior)):
            joint = prior[i] * transition[i][j]
            lost -= joint * math.log(joint / observed) if joint else 0.0
    return lost / -sum(p * math.log(p) for p in prior if p)


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=50)
def test_any_channel_against_entropies_that_are_counted(seed, n):
    draw = np.random.default_rng(seed)
    prior, transition = draw.dirichlet(np.ones(n)), draw.dirichlet(np.full(n, 0.3), n)
    found = channel_information_loss(transition, prior)
    assert found == pytest.approx(counted(prior, transition), abs=1e-9) and 0 <= found <= 1
    # What is drawn anew whatever the true label says nothing.
    assert channel_information_loss(np.tile(transition[:1], (n, 1)), prior) == pytest.approx(1)


@given(RATES, st.integers(2, 30))
@settings(max_examples=50)
def test_symmetric_noise_is_the_special_case(p, n):
    transition = np.full((n, n), p / (n - 1))
    np.fill_diagonal(transition, 1 - p)
    assert channel_information_loss(transition) == pytest.approx(relative_information_loss(p, n), abs=1e-12)


@pytest.mark.parametrize("e", [0.0, 0.1, 0.5])
def test_structured_noise_loses_less_at_the_same_rate(e):
    """Of cyclic flips the observed label leaves two classes: H_b(e) / ln n."""
    transition = (1 - e) * np.eye(10) + e * np.roll(np.eye(10), 1, axis=1)
    entropy = -e * math.log(e) - (1 - e) * math.log(1 - e) if e else 0.0
    found = channel_information_loss(transition)
    assert found == pytest.approx(entropy / math.log(10)) and found <= relative_information_loss(e, 10)


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=50)
def test_what_is_lost_and_what_is_kept_make_up_the_entropy(seed, n):
    draw = np.random.default_rng(seed)
    prior, transition = draw.dirichlet(np.ones(n)), draw.dirichlet(np.full(n, 0.3), n)
    entropy = -sum(p * math.log(p) for p in prior)
    lost, kept = conditional_entropy(transition, prior), mutual_information(transition, prior)
    assert lost + kept == pytest.approx(entropy, abs=1e-12) and lost >= 0 and kept >= 0
    assert lost == pytest.approx(channel_information_loss(transition, prior) * entropy, abs=1e-12)
    # What passes through a second channel says no more.
    assert mutual_information(transition @ draw.dirichlet(np.ones(n), n), prior) <= kept + 1e-12


def test_entropies_by_hand_and_at_their_limits():
    flips = [[0.75, 0.25], [0.25, 0.75]]
    h = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert conditional_entropy(flips) == pytest.approx(h)
    assert mutual_information(flips) == pytest.approx(math.log(2) - h)
    for n in (2, 3, 10):
        right, said = np.eye(n), np.full((n, n), 1 / n)
        assert conditional_entropy(right) == 0 and mutual_information(right) == pytest.approx(math.log(n))
        assert conditional_entropy(said) == pytest.approx(math.log(n)) and mutual_information(said) < 1e-15
    assert conditional_entropy(flips, [1.0, 0.0]) == 0 == mutual_information(flips, [1.0, 0.0]), "nothing to say"
    tiny = np.array([[0.5 + 1e-9, 0.5 - 1e-9], [0.5 - 1e-9, 0.5 + 1e-9]])
    assert mutual_information(tiny) == pytest.approx(2e-18, rel=1e-6), "2 delta^2, far below the rounding of entropies"


@given(st.integers(2, 10**6), st.floats(1e-9, 0.2))
def test_beside_the_independence_point_little_is_kept_and_not_nothing(n, share):
    """1 - loss is (delta n)^2 / (2 (n - 1) ln n) for a small step delta = share / n, on either side."""
    point = independence_point(n)
    for side in (-1, 1):
        e = point + side * share / n
        kept = (n * (e - point)) ** 2 / (2 * (n - 1) * math.log(n))
        assert 1 - relative_information_loss(e, n) == pytest.approx(kept, rel=0.3, abs=2e-16)


def test_classes_that_do_not_occur_take_no_part():
    transition = [[0.8, 0.2, 0.0], [0.3, 0.7, 0.0], [0.0, 0.0, 1.0]]
    two = channel_information_loss([[0.8, 0.2], [0.3, 0.7]], [0.6, 0.4])
    assert channel_information_loss(transition, [0.6, 0.4, 0.0]) == pytest.approx(two)


# ---- samples


def test_the_pac_bound_by_hand_and_its_ratios():
    assert pac_sample_bound(math.exp(-1), math.exp(-2), 3) == pytest.approx(math.e * (2 + 3))
    m = pac_sample_bound([0.1, 0.05, 0.1], 0.01, [50, 50, 100], c0=2.0)
    assert (pac_sample_bound(0.1, 0.01, 50, error_rate=[0, 0.5, 0.75], c0=2.0) == m[0] * np.array([1, 2, 4])).all()
    assert m[1] > 2 * m[0] and m[2] - m[0] == pytest.approx(2 * 50 / 0.1 * math.log(10))


# ---- refusals


@pytest.mark.parametrize("function", [relative_information_loss, information_loss_slope])
@pytest.mark.parametrize(
    ("p", "n", "error", "message"),
    [
        (-0.1, 10, ValueError, "error_rate must lie in"), (1.1, 10, ValueError, "error_rate must lie in"),
        (math.nan, 10, ValueError, "error_rate must lie in"), (0.5, 1, ValueError, r"num_classes must lie in \[2, "),
        (0.5, 10.0, TypeError, "num_classes must be integers"), ("0.5", 10, TypeError, "error_rate must be real"),
        ([0.1, 0.2], [2, 3, 4], ValueError, r"error_rate \[2\], num_classes \[3\]"),
    ],
)  # fmt: skip
def test_bad_rates_and_classes_are_refused(function, p, n, error, message):
    with pytest.raises(error, match=message):
        function(p, n)


@pytest.mark.parametrize(
    ("transition", "prior", "message"),
    [
        ([[0.5, 0.6], [0.5, 0.5]], None, "sums to 1.1"), (np.eye(2), [0.5, 0.6], "prior must be >= 0 and sum to 1"),
        (np.eye(2), [0.2, 0.3, 0.5], "one probability for each of 2"),
        (np.eye(2), [1.0, 0.0], "no information to lose"),
    ],
)  # fmt: skip
def test_bad_channels_are_refused(transition, prior, message):
    with pytest.raises(ValueError, match=message):
        channel_information_loss(transition, prior)
    if "no information" not in message:
        for function in (conditional_entropy, mutual_information):
            with pytest.raises(ValueError, match=message):
                function(transition, prior)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("eps", 0), ("eps", 1), ("delta", -1), ("dimension", 0), ("error_rate", 1), ("error_rate", -0.1),
        ("c0", math.nan),
    ],
)
def test_bad_samples_are_refused(name, bad):
    with pytest.raises(ValueError, match=f"^{name} must lie in"):
        pac_sample_bound(**{"eps": 0.1, "delta": 0.1, "dimension": 3} | {name: bad})
