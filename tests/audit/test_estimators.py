"""The estimators on noise that was drawn: what a perfect classifier shows exactly, a calibrated one nearly."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

from hf_noise.audit import estimators
from hf_noise.audit.difficulty import difficulty_score
from hf_noise.audit.estimators import NoiseEstimate
from hf_noise.audit.estimators.class_conditional import ClassConditional, confusion_start
from hf_noise.audit.estimators.em import fit_em
from hf_noise.audit.estimators.noise_estimate import joint_of
from hf_noise.audit.estimators.rows import Rows, surest

_SPEC = importlib.util.spec_from_file_location("drawn_noise", Path(__file__).with_name("drawn.py"))
noise = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(noise)

ALL = ("agreement", "anchor_points", "confident_joint", "em_sharpness", "volume_minimisation")
OF_ROWS = ("agreement", "em_sharpness", "volume_minimisation")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("protocol", ["symmetric", "cyclic"])
def test_a_perfect_classifier_shows_the_joint(name, protocol):
    noisy, clean, _ = noise.drawn(rate=0.3, protocol=protocol)
    true = noise.joint(clean, noisy, 4)
    if name == "anchor_points":  # it needs a classifier of the given labels
        p = (true / true.sum(axis=1, keepdims=True))[clean]
    else:
        p = np.eye(4)[clean]
    found = getattr(estimators, name)(noisy, p)
    tolerance = 1e-9 if name == "confident_joint" else 0.003
    np.testing.assert_allclose(found.joint, true, atol=tolerance)
    assert found.error_rate == pytest.approx((clean != noisy).mean(), abs=4 * tolerance)
    if name in OF_ROWS:
        wrong = 1 - found.posterior[np.arange(len(clean)), noisy]
        assert np.abs(wrong - (clean != noisy)).mean() < 0.01


@pytest.mark.parametrize("name", OF_ROWS)
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_a_calibrated_classifier_shows_the_rate(name, rate):
    """To within 0.025; agreement, which takes its sure rows for right, of a classifier that is right of 97%."""
    noisy, clean, p = noise.drawn(rate=rate, spread=0.02 if name == "agreement" else 0.15)
    found = getattr(estimators, name)(noisy, p)
    assert found.error_rate == pytest.approx((clean != noisy).mean(), abs=0.025)
    wrong = 1 - found.posterior[np.arange(len(clean)), noisy]
    # Calibrated: of five groups of rows by p_wrong, each is as often wrong as it says.
    for group in np.array_split(np.argsort(wrong), 5):
        assert wrong[group].mean() == pytest.approx((clean != noisy)[group].mean(), abs=0.09)


@pytest.mark.parametrize("name", ALL)
def test_what_an_estimate_holds(name):
    noisy, _, p = noise.drawn(rows=500, rate=0.2)
    found = getattr(estimators, name)(noisy, p)
    assert isinstance(found, NoiseEstimate) and found.method and "," in found.assumption
    assert found.joint.min() >= 0 and found.joint.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.transition.sum(axis=1), 1)
    np.testing.assert_allclose(found.prior[:, None] * found.transition, found.joint, atol=1e-12)
    assert found.range[0] <= found.error_rate + 1e-9 and found.error_rate - 1e-9 <= found.range[1]
    if name in OF_ROWS:
        np.testing.assert_allclose(found.posterior.sum(axis=1), 1)
        assert found.error_rate == pytest.approx(1 - found.posterior[np.arange(500), noisy].mean())
    else:
        assert found.posterior is None


def test_classes_that_are_mistaken_for_each_other_in_every_third_case():
    """Taken alone, the first class of such a classifier is wrong more often than the rate says."""
    noisy, clean, posterior = noise.drawn(rows=4000, rate=0.35, protocol="cyclic")
    true = noise.joint(clean, noisy, 4)
    p = posterior @ (true / true.sum(axis=1, keepdims=True))
    found = estimators.em_sharpness(noisy, p)
    assert found.error_rate == pytest.approx(0.35, abs=0.03)
    assert np.abs(found.transition - true / true.sum(axis=1, keepdims=True)).max() < 0.06


def test_noise_that_grows_with_difficulty_is_noticed_and_read():
    noisy, clean, posterior = noise.harder_are_noisier()
    found, fit = fit_em(noisy, posterior, Rows.sample(noisy, posterior))
    assert difficulty_score(fit, Rows.sample(noisy, posterior)) < -3
    true = (clean != noisy).mean()
    read = estimators.agreement(noisy, posterior)
    assert abs(read.error_rate - true) < abs(found.error_rate - true)


@pytest.mark.parametrize("own_rows", [True, False])
def test_gradient_of_the_likelihood(own_rows):
    noisy, _, p = noise.drawn(rows=60)
    model = ClassConditional(Rows.sample(noisy, p), own_rows=own_rows, volume=0.1)
    x = np.concatenate([[0.7], np.zeros(4), confusion_start(model.rows)])
    x = x + 0.3 * np.random.default_rng(1).normal(size=len(x))
    assert check_grad(lambda x: model.value(x)[0], lambda x: model.value(x)[1], x) < 1e-5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 5), rate=st.floats(0.01, 0.45))
def test_names_of_classes_and_order_of_rows_do_not_matter(seed, classes, rate):
    noisy, _, p = noise.drawn(rows=40 * classes, classes=classes, rate=rate, seed=seed)
    if len(np.unique(noisy)) < classes:
        return
    draw = np.random.default_rng(seed)
    names, order = draw.permutation(classes), draw.permutation(len(noisy))
    for name, tolerance in (("confident_joint", 1e-9), ("em_sharpness", 0.02)):
        found = getattr(estimators, name)(noisy, p)
        other = getattr(estimators, name)(names[noisy][order], p[:, np.argsort(names)][order])
        np.testing.assert_allclose(other.joint[np.ix_(names, names)], found.joint, atol=tolerance)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 5)), min_size=1, max_size=60), st.floats(0.01, 1))
def test_the_surest_of_each_class(rows, share):
    classes, margin = np.array([of for of, _ in rows]), np.array([m for _, m in rows])
    chosen = surest(classes, margin, share)
    for k in np.unique(classes):
        inside = chosen[classes == k]
        assert inside.sum() == np.ceil(share * len(inside))
        assert inside.all() or margin[classes == k][inside].min() >= margin[classes == k][~inside].max()


def test_frequencies_of_clean_classes_follow_from_those_of_labels():
    true = np.array([[0.8, 0.2, 0], [0.1, 0.8, 0.1], [0, 0.3, 0.7]])
    prior = np.array([0.5, 0.2, 0.3])
    np.testing.assert_allclose(joint_of(true, prior @ true), prior[:, None] * true, atol=1e-9)
