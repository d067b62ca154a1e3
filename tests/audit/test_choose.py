"""The rule that chooses: who speaks where, whether the interval holds the rate, and what it says of seen labels."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from hf_noise.audit import choose_estimate
from hf_noise.audit.choose import _gain
from hf_noise.audit.estimators.class_conditional import ClassConditional, confusion_start
from hf_noise.audit.estimators.rows import Rows
from hf_noise.audit.estimators.unmixed import Calibrated

_SPEC = importlib.util.spec_from_file_location("drawn_noise", Path(__file__).with_name("drawn.py"))
noise = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(noise)


@pytest.mark.parametrize("protocol", ["symmetric", "cyclic"])
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_drawn_noise_is_in_the_interval(protocol, rate):
    noisy, clean, p = noise.drawn(rate=rate, protocol=protocol)
    found = choose_estimate(noisy, p)
    assert found.error_rate.low <= (clean != noisy).mean() <= found.error_rate.high
    assert found.chosen.method == "EM with a fitted sharpness"
    # Where one class in five is mistaken, 5% of wrong labels are hard to tell from the classifier's own mistakes.
    assert ["the estimators read" in said for said in found.warnings] == [True] * (rate == 0.05)
    assert "mistakes in the labels that the classifier repeats are invisible" in found.error_rate.how
    assert "it assumes that labels are wrong by their true class alone" in found.error_rate.how
    wrong = clean != noisy
    assert found.p_wrong[wrong].mean() > found.p_wrong[~wrong].mean() + 0.5
    suggested = found.suggested[wrong & found.flagged()]
    assert (suggested == clean[wrong & found.flagged()]).mean() > 0.75
    assert (1 - found.p_wrong[found.flagged(0.1)]).mean() <= 0.1


@pytest.mark.parametrize(
    ("protocol", "rate", "classes", "spread"),
    [("cyclic", 0.2, 10, 0.02), ("cyclic", 0.4, 10, 0.1), ("cyclic", 0.05, 10, 0.02), ("symmetric", 0.2, 6, 0.1)],
)
def test_a_calibrated_classifier_of_the_noisy_labels_hides_none_of_them(protocol, rate, classes, spread):
    """No noise at all explains such labels perfectly: the value within 3 points, 80% of the wrong rows flagged."""
    noisy, clean, p = noise.drawn(rate=rate, classes=classes, spread=spread, protocol=protocol, seed=1)
    if protocol == "cyclic":
        wrong_class = np.roll(np.eye(classes), 1, axis=1)
    else:
        wrong_class = (1 - np.eye(classes)) / (classes - 1)
    transition = (1 - rate) * np.eye(classes) + rate * wrong_class
    found, wrong = choose_estimate(noisy, p @ transition), clean != noisy
    assert found.error_rate.value == pytest.approx(wrong.mean(), abs=0.03)
    assert found.error_rate.low <= wrong.mean() <= found.error_rate.high
    assert (found.flagged() & wrong).sum() >= 0.8 * wrong.sum()
    assert (found.flagged() & ~wrong).sum() <= 0.2 * found.flagged().sum()
    assert np.abs(found.transition - transition).max() < 0.15
    assert found.chosen.method == "anchor points, unmixed" and "labels alone do not tell the rate" in found.warnings[0]


def test_a_calibrated_classifier_of_clean_labels_shows_no_noise():
    noisy, _, p = noise.drawn(rate=0.0, classes=10, spread=0.02)
    found = choose_estimate(noisy, p)
    assert found.error_rate.value < 0.01 and found.flagged().sum() < 30


def test_few_rows_of_many_classes_do_not_show_that_any_is_wrong():
    """20 classes, of which the classifier mistakes half, explain 1,200 labels by 380 rates better than by none."""
    noisy, clean, p = noise.drawn(rows=1200, classes=20, rate=0.05, spread=0.12)
    found = choose_estimate(noisy, p)
    assert found.chosen.method == "EM with a fitted sharpness"
    assert found.error_rate.low == 0 < (clean != noisy).mean() <= found.error_rate.high
    assert "verify some rows, or audit more" in found.warnings[0]
    assert (found.transition_high.diagonal() == 1).all()


def test_rows_that_no_fit_has_seen_show_that_labels_are_wrong():
    """With 100 classes there are too many rates for the rows that are fitted, and enough rows that are not."""
    noisy, _, p = noise.drawn(rows=10_000, classes=100, protocol="cyclic", spread=0.002)
    rows, unseen = Rows.sample(noisy, p), Rows.unseen(noisy, p)
    assert len(rows) == len(unseen) == 5000
    assert Rows.unseen(noisy[:9000], p[:9000]) is None
    start = np.concatenate([[1.0], np.zeros(100), confusion_start(rows)])
    fit = ClassConditional(rows, own_rows=True).fit_from(start, sharpest=0.1, softest=1.0, steps=15)
    calibrated = Calibrated(rows)
    assert _gain(fit, calibrated, rows, unseen) > 0.1 > _gain(fit, calibrated, rows, None)


def test_no_posterior_is_kept_but_of_the_one_that_speaks():
    """Each takes as much memory as the probabilities."""
    noisy, _, p = noise.drawn(rows=600)
    harder, _, sure = noise.harder_are_noisier()
    for found in (choose_estimate(noisy, p), choose_estimate(harder, sure)):
        assert found.chosen.posterior is not None and all(other.posterior is None for other in found.others)


def test_shapes_and_that_cells_are_inside_their_intervals():
    noisy, _, p = noise.drawn(rows=400, classes=3)
    found = choose_estimate(noisy, p, confidence=0.8)
    assert found.error_rate.confidence == 0.8 and found.p_wrong.shape == found.suggested.shape == (400,)
    assert found.error_rate.value == pytest.approx(found.p_wrong.mean())
    assert (found.transition_low <= found.transition).all() and (found.transition <= found.transition_high).all()
    assert len(found.others) in (2, 3) and all(other is not found.chosen for other in found.others)
    wider = choose_estimate(noisy, p, confidence=0.99).error_rate
    assert wider.low < found.error_rate.low and wider.high > found.error_rate.high


def test_hard_rows_that_are_wrong_more_often_change_who_speaks():
    noisy, clean, posterior = noise.harder_are_noisier()
    found = choose_estimate(noisy, posterior)
    assert found.difficulty < -3 and found.chosen.method == "agreement"
    assert "hard rows are mislabelled more often" in found.error_rate.how
    assert found.error_rate.low <= (clean != noisy).mean() <= found.error_rate.high


def test_probabilities_that_have_seen_the_labels_leave_nothing_known():
    noisy, _, _ = noise.drawn(rows=300)
    found = choose_estimate(noisy, 0.9 * np.eye(4)[noisy] + 0.025)
    assert (found.error_rate.low, found.error_rate.high) == (0, 1)
    assert (found.transition_low == 0).all() and (found.transition_high == 1).all()
    assert len(found.warnings) == 1 and "cross-validate it" in found.error_rate.how


def test_classes_that_are_labelled_as_each_other_as_often_as_as_themselves_are_named():
    noisy, clean, p = noise.drawn(rate=0.49, protocol="cyclic")
    found = choose_estimate(noisy, p)
    assert found.error_rate.low <= (clean != noisy).mean() <= found.error_rate.high
    assert "do not tell which of the two it is" in found.warnings[0]
    is_told = re.match(r"class (\d) is labelled as itself in \d+% of its rows and as class \d ", found.warnings[0])
    names = ["elk", "fox", "gnu", "hen"]
    told = choose_estimate(noisy, p, class_names=names).warnings[0]
    assert told.startswith(f"'{names[int(is_told[1])]}' is labelled as itself") and "class " not in told
    with pytest.raises(ValueError, match="class_names are 3, and there are 4 columns of probabilities"):
        choose_estimate(noisy, p, class_names=names[:3])


def test_a_classifier_that_knows_nothing_leaves_nothing_known():
    found = choose_estimate(np.arange(300) % 3, np.full((300, 3), 1 / 3))
    assert (found.error_rate.low, found.error_rate.high) == (0, 1)
    assert (found.transition_low == 0).all() and (found.transition_high == 1).all()
    assert "no more often than by chance" in found.warnings[0] and "tell the classes apart" in found.error_rate.how


def test_more_classes_than_can_be_fitted_in_minutes_are_refused():
    with pytest.raises(ValueError, match="probabilities are of 201 classes, and the estimates take at most 200"):
        choose_estimate(np.arange(402) % 201, np.full((402, 201), 1 / 201))
