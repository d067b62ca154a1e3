"""Correct areas against areas worked out by hand, and the planes they lie in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.analysis.sensitivity import correct_area, slice_directions


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_directions_are_orthonormal_and_go_with_the_sample(size, seed, ids):
    found = slice_directions(ids, size, seed)
    assert found @ found.transpose(0, 2, 1) == pytest.approx(np.broadcast_to(np.eye(2), (len(ids), 2, 2)), abs=1e-12)
    for row, one in enumerate(ids):
        assert (slice_directions([one], size, seed)[0] == found[row]).all()


def test_directions_are_uniform():
    """Of 4,000 samples, each coordinate has mean 0 and mean square 1 / d; 5 standard errors (false alarm: 1e-5)."""
    u = slice_directions(np.arange(4000), 8).reshape(-1, 8)
    assert np.abs(u.mean(0)).max() < 5 * math.sqrt(1 / 8 / len(u))
    # The variance of a squared coordinate of a unit vector is 2 (d - 1) / (d^2 (d + 2)).
    assert np.abs((u**2).mean(0) - 1 / 8).max() < 5 * math.sqrt(2 * 7 / (64 * 10) / len(u))


def test_in_a_plane_the_slice_is_the_plane():
    """d = 2: within reach 1 of the origin, the disc of radius 1/2 is pi / 16 of the square, whatever u and v."""
    found = correct_area(
        lambda t: (np.linalg.norm(t, axis=1) < 0.5).astype(int), np.zeros((6, 2)), np.ones(6, int), reach=1, steps=201
    )
    assert found.area == pytest.approx(math.pi / 16, abs=3e-3)
    assert found.is_correct.all() and found.mean == pytest.approx(found.area.mean())


def test_a_boundary_through_the_sample_halves_the_square():
    features = np.random.default_rng(0).normal(size=(30, 5))
    normal = np.random.default_rng(1).normal(size=5)
    for row, t in enumerate(features):
        found = correct_area(
            lambda moved, t=t: ((moved - t) @ normal > 0).astype(int), t[None], [1], reach=0.3, sample=[row]
        )
        assert found.area[0] == pytest.approx(0.5, abs=0.03)


def test_the_share_grows_with_the_margin():
    """Parallel boundaries further away leave more of every square."""
    areas = [
        correct_area(lambda t, m=m: (t[:, 0] > -m).astype(int), np.zeros((20, 4)), np.ones(20, int), reach=1).area
        for m in (0.0, 0.2, 0.5, 2.5)
    ]
    assert all((a <= b).all() for a, b in zip(areas, areas[1:])) and (areas[-1] == 1).all()


def test_batches_change_nothing(monkeypatch):
    draw = np.random.default_rng(3)
    features, weight, labels = draw.normal(size=(7, 3)), draw.normal(size=(3, 4)), draw.integers(0, 4, 7)

    def look(rows, keep=0):
        return correct_area(lambda t: (t @ weight).argmax(1), features[rows], labels[rows], reach=1, steps=5,
                            sample=np.arange(7)[rows], keep=keep)  # fmt: skip

    whole = look(slice(None), keep=3)
    monkeypatch.setattr("hf_noise.analysis.sensitivity._AT_ONCE", 1)
    again = look(slice(None), keep=3)
    assert (whole.area == again.area).all() and (whole.predicted == again.predicted).all()
    assert whole.predicted.shape == (3, 5, 5) and whole.offsets.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert ((whole.predicted == labels[:3, None, None]).mean((1, 2)) == whole.area[:3]).all()
    assert (look(slice(4, 6)).area == whole.area[4:6]).all()
    assert (whole.is_correct == ((features @ weight).argmax(1) == labels)).all()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"features": [[float("nan"), 1.0]]}, ValueError, "finite"),
        ({"features": [[1.0]]}, ValueError, "d >= 2"),
        ({"labels": [0, 1]}, ValueError, "labels"),
        ({"labels": [0.5]}, TypeError, "labels"),
        ({"reach": 0}, ValueError, "reach"),
        ({"steps": 4}, ValueError, "odd"),
        ({"keep": 2}, ValueError, "keep"),
        ({"sample": [0, 1]}, ValueError, "sample"),
        ({"predict": lambda t: [0]}, ValueError, "predict"),
        ({"predict": 3}, TypeError, "predict"),
    ],
)
def test_refused(change, error, said):
    told = {"predict": lambda t: np.zeros(len(t), int), "features": [[1.0, 2.0]], "labels": [0], "reach": 1} | change
    with pytest.raises(error, match=said):
        correct_area(told.pop("predict"), told.pop("features"), told.pop("labels"), **told)
