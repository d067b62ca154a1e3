"""The Frechet distance: by hand, against pytorch-fid, as properties, and where covariances are singular."""

from __future__ import annotations

import doctest
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from hf_noise.metrics import FeatureStatistics, classwise_frechet, frechet, frechet_distance

SEEDS = st.integers(0, 2**32 - 1)


def with_moments(n: int, mean, covariance, seed: int = 0) -> np.ndarray:
    """Rows whose sample mean and covariance are exactly these."""
    draw = np.random.default_rng(seed).normal(size=(n, len(mean)))
    draw -= draw.mean(axis=0)
    white = draw @ np.linalg.inv(np.linalg.cholesky(np.cov(draw, rowvar=False).reshape(len(mean), -1))).T
    return white @ np.linalg.cholesky(np.asarray(covariance)).T + np.asarray(mean)


def some(seed: int, n: int = 40, dim: int = 6) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, dim)) @ draw.normal(size=(dim, dim)) + draw.normal(size=dim)


def test_two_gaussians_by_hand():
    """Covariances that commute: |m|^2 + sum (sqrt(a) - sqrt(b))^2 = 9 + 16 + (1 - 2)^2 + (3 - 1)^2 = 30."""
    a = with_moments(50, [0.0, 0.0], np.diag([1.0, 9.0]))
    b = with_moments(70, [3.0, -4.0], np.diag([4.0, 1.0]), seed=1)
    assert frechet_distance(a, b) == pytest.approx(30, rel=1e-12)
    # Turned against each other by 45 degrees: tr sqrt(S_a S_b) for 2 x 2 is sqrt(tr(S_a S_b) + 2 sqrt(det S_a S_b)).
    turned = np.array([[2.5, 1.5], [1.5, 2.5]])  # eigenvalues 4 and 1
    c = with_moments(60, [0.0, 0.0], turned, seed=2)
    root = np.sqrt(np.trace(np.diag([1.0, 9.0]) @ turned) + 2 * np.sqrt(9.0 * 4.0))
    assert frechet_distance(a, c) == pytest.approx(10 + 5 - 2 * root, rel=1e-12)


def test_the_example_in_the_docstring():
    assert doctest.testmod(frechet).failed == 0 and doctest.testmod(frechet).attempted == 1


@pytest.mark.parametrize("dim", [3, 64, 300])
def test_equal_to_pytorch_fid(dim):
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    a, b = some(dim, 4 * dim, dim), some(dim + 1, 6 * dim, dim)
    moments = [part for side in (a, b) for part in (side.mean(axis=0), np.cov(side, rowvar=False))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls SciPy in a way that goes away
        expected = fid_score.calculate_frechet_distance(*moments)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(FeatureStatistics(a), FeatureStatistics(b)) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(SEEDS, SEEDS, st.floats(0.1, 100), st.floats(-1000, 1000))
def test_a_distance(first, second, scale, shift):
    a, b = some(first), some(second)
    found = frechet_distance(a, b)
    size = max(1.0, np.square(a).sum() / len(a), np.square(b).sum() / len(b))
    assert found == pytest.approx(frechet_distance(b, a), rel=1e-9, abs=1e-12 * size)
    assert 0 <= frechet_distance(a, a.copy()) < 1e-12 * size
    assert frechet_distance(a, np.random.default_rng(0).permutation(a)) < 1e-12 * size
    moved = frechet_distance(scale * a + shift, scale * b + shift)
    assert moved == pytest.approx(scale**2 * found, rel=1e-7, abs=1e-9 * scale**2 * size)
    assert frechet_distance(a, a + shift) == pytest.approx(a.shape[1] * shift**2, rel=1e-9, abs=1e-12 * size)


@pytest.mark.filterwarnings("ignore:Frechet distance of", "ignore:Matrix is singular")
@pytest.mark.parametrize("n", [2, 5, 19, 20, 21, 60])
def test_singular_covariances_stay_real(n):
    """Up to 20 rows the factor is the rows, beyond that eigenvalues; a column that never varies, one that is a copy."""
    draw = np.random.default_rng(n)
    a, b = draw.normal(size=(n, 20)), draw.normal(size=(n + 7, 20))
    for side in (a, b):
        side[:, 3] = 5.0
        side[:, 4] = side[:, 0]
    root = sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))  # may be complex and is rough here
    expected = np.square(a.mean(0) - b.mean(0)).sum() + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum()
    expected -= 2 * np.trace(root).real
    found = frechet_distance(a, b)
    assert type(found) is float and found == pytest.approx(expected, rel=1e-4)
    # Both ways to the factor agree, and rounding does not grow with the null space.
    assert frechet_distance(FeatureStatistics(a), FeatureStatistics(b)) == pytest.approx(found, rel=1e-9)
    assert frechet_distance(FeatureStatistics(a), a) == pytest.approx(0, abs=1e-11)


def test_all_rows_equal():
    ones = np.ones((30, 3))
    assert frechet_distance(ones, ones) == 0
    assert frechet_distance(ones, 3 * ones) == 12
    assert frechet_distance(ones, with_moments(30, [1.0] * 3, 4 * np.eye(3))) == pytest.approx(12)


def test_few_rows_warn_with_their_number():
    a, b = some(0, 6), some(1, 50)
    with pytest.warns(UserWarning, match="Frechet distance of 6 rows of 6 features.*biased upwards") as caught:
        frechet_distance(b, a)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(some(0, 7), b)


def test_classwise_is_the_mean_over_classes():
    """Class 0 apart by 3 in one direction, class 7 not at all; a mixture of all hides it when labels are swapped."""
    left, right = with_moments(30, [0.0, 0.0], np.eye(2)), with_moments(40, [10.0, 0.0], np.eye(2))
    real, labels = np.concatenate([left, right]), np.repeat([0, 7], [30, 40])
    fake = np.concatenate([left + [0, 3], right])
    found = classwise_frechet(real, labels, fake, labels)
    assert found["per_class"] == {0: pytest.approx(9), 7: pytest.approx(0, abs=1e-12)}
    assert found["classwise_frechet"] == pytest.approx(4.5)
    assert (found["n_real"], found["n_fake"], found["n"]) == ({0: 30, 7: 40}, {0: 30, 7: 40}, 70)
    order = np.random.default_rng(0).permutation(70)
    again = classwise_frechet(real, labels, fake[order], labels[order])
    assert again["classwise_frechet"] == pytest.approx(4.5)
    # The right images under the wrong labels: nothing to see but class by class.
    swapped = np.where(labels == 0, 7, 0)
    assert frechet_distance(real, real) < 1e-12
    assert classwise_frechet(real, labels, real, swapped)["classwise_frechet"] == pytest.approx(100)


def test_classwise_warns_once_of_the_smallest_class():
    labels = np.repeat([0, 1, 2], [50, 5, 45])
    with pytest.warns(UserWarning, match="of 5 rows of 6 features in the smallest class") as caught:
        classwise_frechet(some(0, 100), labels, some(1, 100), labels)
    assert len(caught) == 1


def test_what_is_refused():
    a = some(0)
    broken = a.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 40 rows of features_b hold NaN or inf, the first is row 3"):
        frechet_distance(a, broken)
    with pytest.raises(ValueError, match=r"features_a must be features \[N, D\].*got shape \[6\]"):
        frechet_distance(a[0], a)
    with pytest.raises(TypeError, match="must be real numbers, got complex128"):
        frechet_distance(a + 1j, a)
    with pytest.raises(ValueError, match="one side has 6 features, the other 5"):
        frechet_distance(a, a[:, :5])
    with pytest.raises(ValueError, match="features_a has 1 row; a covariance takes at least 2"):
        frechet_distance(a[:1], a)
    with pytest.raises(ValueError, match="at least 2 rows, there are 0"):
        frechet_distance(FeatureStatistics(), a)
    with pytest.raises(ValueError, match="class 1 has 1 real and 20 generated images, at least 2"):
        classwise_frechet(a, np.r_[np.zeros(39, int), 1], a, np.repeat([0, 1], 20))
    with pytest.raises(ValueError, match="39 fake_labels do not belong to 40 rows"):
        classwise_frechet(a, np.zeros(40, int), a, np.zeros(39, int))


def test_tensors_of_any_kind():
    torch = pytest.importorskip("torch")
    a, b = torch.tensor(some(0)).bfloat16(), torch.tensor(some(1)).requires_grad_()
    expected = frechet_distance(a.float().numpy(), b.detach().numpy())
    assert frechet_distance(a, b) == expected
