"""Density and coverage: by hand on a line, against a plain loop, as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from hf_noise.metrics import classwise_density_coverage, density_coverage

SEEDS = st.integers(0, 2**32 - 1)


def line(*points: float) -> np.ndarray:
    return np.array(points, dtype=np.float64)[:, None]


def plain(real, fake, k, ties="count"):
    """The definition, with all distances in memory."""
    own = cdist(real, real)
    np.fill_diagonal(own, np.inf)
    radius = np.sort(own, axis=1)[:, [k - 1]]
    inside = cdist(real, fake) <= radius if ties == "count" else cdist(real, fake) < radius
    return inside.sum() / (k * len(fake)), inside.any(axis=1).mean()


def test_by_hand():
    """Real 0, 1, 3, k = 1: radii 1, 1, 2. Fake 0.5 lies in the balls of 0 and 1, 2 in those of 1 (rim) and 3."""
    found = density_coverage(line(0, 1, 3), line(0.5, 2, 9), k=1)
    assert found == {"density": 4 / 3, "coverage": 1.0, "k": 1, "n_real": 3, "n": 3}
    # k = 2: radii 3, 2, 3. Fake 9 is in none, -1 in those of 0 and 1 (rim).
    assert density_coverage(line(0, 1, 3), line(9, -1), k=2) == {
        "density": 2 / 4, "coverage": 2 / 3, "k": 2, "n_real": 3, "n": 2,
    }  # fmt: skip
    assert density_coverage(line(0, 1, 3), line(100), k=1)["coverage"] == 0


def test_all_fakes_on_one_real_point():
    """Density rewards them, coverage does not."""
    real = line(*range(0, 100, 10))
    found = density_coverage(real, line(50, 50, 50), k=1)
    assert found["density"] == 3 and found["coverage"] == 3 / 10


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 6), st.integers(7, 40), st.integers(1, 50), st.integers(1, 9))
def test_equal_to_the_definition_at_any_chunk(seed, k, n, m, dim):
    draw = np.random.default_rng(seed)
    real, fake = draw.normal(size=(n, dim)) + 100, draw.normal(size=(m, dim)) + 100.3
    found = density_coverage(real, fake, k)
    assert (found["density"], found["coverage"]) == pytest.approx(plain(real, fake, k))
    for chunk in (1, 3, 1000):
        assert density_coverage(real, fake, k, chunk=chunk) == found
    assert density_coverage(draw.permutation(real), draw.permutation(fake), k) == found


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 5), st.sampled_from(["count", "exclude"]))
def test_ties_on_a_grid_are_inside_or_outside(seed, k, ties):
    """Whole numbers: many distances are equal to a radius, and many points to each other."""
    draw = np.random.default_rng(seed)
    real, fake = draw.integers(0, 4, size=(30, 3)), draw.integers(0, 4, size=(25, 3))
    found = density_coverage(real, fake, k, ties=ties)
    assert (found["density"], found["coverage"]) == pytest.approx(plain(real, fake, k, ties))
    # Scaled so that no distance is exact any more: equal ones now differ in their last digits.
    moved = density_coverage(real / 7 + 1, fake / 7 + 1, k, ties=ties)
    assert (moved["density"], moved["coverage"]) == (found["density"], found["coverage"])


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_generator_that_repeats_the_data(chunk, offset):
    """Every real point has itself and its k neighbours in its ball, the last of them on the rim."""
    real = np.random.default_rng(0).normal(size=(200, 64)) + offset
    found = density_coverage(real, real.copy(), k=5, chunk=chunk)
    assert found["density"] == 6 / 5 and found["coverage"] == 1
    as_prdc = density_coverage(real, real.copy(), k=5, chunk=chunk, ties="exclude")
    assert as_prdc["density"] == 1 and as_prdc["coverage"] == 1


def test_equal_distributions_are_near_one():
    """N = M = 2000, k = 5: coverage 1 - 2^-5 = 0.969 in expectation, standard error near 0.004; five of them."""
    draw = np.random.default_rng(0)
    found = density_coverage(draw.normal(size=(2000, 8)), draw.normal(size=(2000, 8)))
    assert found["density"] == pytest.approx(1, abs=0.06)
    assert found["coverage"] == pytest.approx(1 - 2**-5, abs=0.02)


def test_all_points_equal():
    assert density_coverage(np.ones((8, 3)), np.ones((4, 3)), k=2)["density"] == 8 / 2
    assert density_coverage(np.ones((8, 3)), np.zeros((4, 3)), k=2)["coverage"] == 0


def test_classwise_sees_swapped_labels():
    """Two clusters far apart; the right images under the wrong labels."""
    draw = np.random.default_rng(0)
    labels = np.repeat([2, 5], 30)
    real = draw.normal(size=(60, 3)) + 100 * (labels == 5)[:, None]
    fake = real + 1e-3 * draw.normal(size=(60, 3))
    right = classwise_density_coverage(real, labels, fake, labels, k=3)
    assert right["classwise_coverage"] == 1 and set(right["per_class"]) == {2, 5}
    of_two = density_coverage(real[:30], fake[:30], k=3)
    assert right["per_class"][2] == of_two and of_two["n"] == 30
    mean = (of_two["density"] + density_coverage(real[30:], fake[30:], k=3)["density"]) / 2
    assert right["classwise_density"] == pytest.approx(mean)
    assert density_coverage(real, fake, k=3)["coverage"] == 1
    wrong = classwise_density_coverage(real, labels, fake, labels[::-1], k=3)
    assert wrong["classwise_density"] == wrong["classwise_coverage"] == 0


def test_what_is_refused():
    real, fake = np.zeros((6, 2)), np.zeros((3, 2))
    for k in (0, 6):
        with pytest.raises(ValueError, match=rf"k must lie in \[1, 5\], got {k}"):
            density_coverage(real, fake, k)
    with pytest.raises(TypeError, match="k must be an integer"):
        density_coverage(real, fake, 2.0)
    with pytest.raises(ValueError, match="real has 2 features, fake 3"):
        density_coverage(real, np.zeros((3, 3)))
    with pytest.raises(ValueError, match="1 of 3 rows of fake hold NaN or inf, the first is row 0"):
        density_coverage(real, np.array([[0, np.nan], [0, 0], [0, 0]]))
    with pytest.raises(ValueError, match=r"fake must be features \[N, D\]"):
        density_coverage(real, np.zeros((0, 2)))
    with pytest.raises(ValueError, match='ties must be "count" or "exclude"'):
        density_coverage(real, fake, ties=True)
    with pytest.raises(ValueError, match="chunk must be >= 1"):
        density_coverage(real, fake, chunk=0)
    with pytest.raises(ValueError, match="class 1 has 6 real and 0 generated"):
        classwise_density_coverage(np.zeros((12, 2)), np.repeat([0, 1], 6), fake, np.zeros(3, int))
