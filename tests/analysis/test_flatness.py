"""Proposition 2 of paper B on linear heads: each part of the bound against what it bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from hf_noise.analysis.flatness import (
    flatness_lower,
    flatness_upper,
    gradient_bound,
    head_smoothness,
    perturbation_radius,
)


def head(seed, n=20, d=5, classes=4, scale=1.0):
    draw = np.random.default_rng(seed)
    weight, bias = scale * draw.normal(size=(classes, d)), draw.normal(size=classes)
    return weight, bias, draw.normal(size=(n, d)), draw.integers(0, classes, n)


def loss(weight, bias, features, labels):
    return -log_softmax(features @ weight.T + bias, axis=1)[np.arange(len(labels)), labels]


def gradient(weight, bias, features, labels):
    """Mean gradient in (W, b), one vector."""
    residual = softmax(features @ weight.T + bias, axis=1)
    residual[np.arange(len(labels)), labels] -= 1
    return np.concatenate([(residual.T @ features / len(labels)).ravel(), residual.mean(0)])


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_holds(seed):
    """Proposition 2, with perturbations cut off at rho, as it asks; the lower bound of R_rho alone suffices."""
    draw = np.random.default_rng(100 + seed)
    weight, bias, features, labels = head(seed, scale=10.0 ** draw.uniform(-1, 1))
    gamma = 10.0 ** draw.uniform(-2, 0.5)
    rho = perturbation_radius(gamma, features.shape[1])
    moved = gamma * draw.normal(size=features.shape)
    moved *= np.minimum(1, rho / np.linalg.norm(moved, axis=1, keepdims=True))
    difference = gradient(weight, bias, features, labels) - gradient(weight, bias, features + moved, labels)
    beta, mean = head_smoothness(features, rho), loss(weight, bias, features, labels).mean()
    rises = flatness_lower(weight, bias, features, labels, rho), flatness_upper(weight, rho)
    assert np.linalg.norm(difference) <= gradient_bound(beta, mean, rises[0]) <= gradient_bound(beta, mean, rises[1])
    rise = (loss(weight, bias, features + moved, labels) - loss(weight, bias, features, labels)).mean()
    assert rise <= rises[0] + 1e-9 and rises[0] <= rises[1]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_is_the_largest_rise_in_a_plane(seed):
    """Against 720 directions, of heads over two features; a convex loss is largest at the rim."""
    weight, bias, features, labels = head(seed, n=6, d=2, classes=2)
    angle = np.linspace(0, 2 * math.pi, 720)[:, None, None]
    rim = features + 0.7 * np.concatenate([np.cos(angle), np.sin(angle)], axis=2)
    rises = np.stack([loss(weight, bias, at, labels) for at in rim]) - loss(weight, bias, features, labels)
    found = flatness_lower(weight, bias, features, labels, 0.7)
    assert found == pytest.approx(rises.max(axis=0).mean(), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_smoothness_bounds_how_fast_the_gradient_turns(seed):
    weight, bias, features, labels = head(seed, n=1)
    draw = np.random.default_rng(seed)
    step, shift = 0.1 * draw.normal(size=weight.shape), 0.1 * draw.normal(size=bias.shape)
    turned = gradient(weight + step, bias + shift, features, labels) - gradient(weight, bias, features, labels)
    moved = math.hypot(np.linalg.norm(step), np.linalg.norm(shift))
    assert np.linalg.norm(turned) <= head_smoothness(features) * moved


def test_by_hand():
    """Two classes, logits (t, -t): at t = 0 the loss is ln 2, and at -1 with the label 0 it is ln(1 + e^2)."""
    found = flatness_lower([[1.0], [-1.0]], [0.0, 0.0], [[0.0]], [0], 1.0)
    assert found == pytest.approx(math.log(1 + math.e**2) - math.log(2))
    assert flatness_upper([[1.0], [-1.0]], 1.0) == pytest.approx(2)
    assert head_smoothness([[3.0, 4.0], [0.0, 1.0]]) == 13 and head_smoothness([[3.0, 4.0]], 1.0) == 18.5
    assert head_smoothness([[3.0, 4.0]], has_bias=False) == 12.5
    assert gradient_bound([1, 2], 0.5, 0.25).tolist() == [3.25, 5.25]
    assert perturbation_radius(0.01, 768) == pytest.approx(0.01 * (math.sqrt(768) + 3))


def test_limits():
    weight, bias, features, labels = head(0)
    assert flatness_lower(weight, bias, features, labels, 0.0) == flatness_upper(weight, 0.0) == 0
    assert flatness_lower(0 * weight, bias, features, labels, 1.0) == 0, "no direction to go"


def test_the_radius_holds_nearly_all_gaussian_perturbations():
    """100,000 draws a size, of which less than 3 in 1,000 lie outside: of d = 1, P(|x| > 4) = 6e-5."""
    draw = np.random.default_rng(0)
    for d in (1, 4, 64):
        outside = np.linalg.norm(draw.normal(size=(100_000, d)), axis=1) > perturbation_radius(1.0, d)
        assert outside.mean() < 3e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_bound(-1, 0, 0), "beta must lie in"),
        (lambda: gradient_bound(1, math.nan, 0), "cross_entropy must lie in"),
        (lambda: gradient_bound([1, 2], [1, 2, 3], 0), r"beta \[2\], cross_entropy \[3\]"),
        (lambda: perturbation_radius(-1, 3), "gamma must lie in"),
        (lambda: perturbation_radius(1, 0), "size must lie in"),
        (lambda: head_smoothness([1.0, 2.0]), "features must have two axes"),
        (lambda: head_smoothness([[math.inf]]), "features must lie in"),
        (lambda: flatness_upper([[1.0]], -1), "rho must lie in"),
        (lambda: flatness_upper(np.ones((0, 2)), 1), "not empty"),
        (lambda: flatness_lower([[1.0], [2.0]], [0, 0], [[1.0]], [2], 1.0), r"labels lie in \[0, 2\), got .* 2"),
        (lambda: flatness_lower([[1.0], [2.0]], [0, 0], [[1.0, 2.0]], [1], 1.0), "shapes do not fit together: weight"),
        (lambda: flatness_lower([[1.0]], [math.nan], [[1.0]], [0], 1.0), "bias must be finite"),
        (lambda: flatness_lower([[1.0]], [0], [[1.0]], [0], 1.0, num_steps=0), "num_steps must lie in"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
