"""Transition matrices T[i, j] = p(noisy = j | clean = i): rows are clean classes, columns noisy ones, rows sum to 1."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.noise.arrays import as_array, check_num_classes, real_numbers
from hf_noise.noise.checks import check_real

__all__ = ["ClassConditional", "check_matrix_size", "check_prior", "check_transition", "posterior", "rates_of"]

# Rows of a float32 softmax over 1000 classes miss 1 by less than this.
_ROW_SUM = 1e-6
# A matrix of 8 GiB in float64.
_MOST_CLASSES = 1 << 15
# Sums closer to 1 than this are rounding of float64; to divide by them would change the last bits again and again.
_ROUNDING = 1e-12


def check_transition(transition: Any) -> np.ndarray:
    """The matrix as float64 [C, C] with rows that sum to 1, or an error.

    Args:
        transition: real numbers [C, C], C >= 2: an array, a tensor or nested sequences. Rows that miss 1 by up to
            1e-6 (float32) are divided by their sum.

    Raises:
        ValueError: another shape, a negative, infinite or missing entry, or a row that misses the sum 1 by more than
            1e-6.
        TypeError: the entries are not real numbers.
    """
    given = as_array("a transition matrix", transition)
    if given.dtype.kind not in "iuf":
        raise TypeError(f"a transition matrix holds real numbers, got {given.dtype}")
    if given.ndim != 2 or given.shape[0] != given.shape[1] or given.shape[0] < 2:
        raise ValueError(f"a transition matrix has the shape [C, C] with C >= 2 classes, got {list(given.shape)}")
    matrix = given.astype(np.float64)
    bad = np.argwhere(~(np.isfinite(matrix) & (matrix >= 0)))
    if bad.size:
        i, j = bad[0]
        raise ValueError(
            f"T[{i}, {j}] = {matrix[i, j]} is no probability ({len(bad)} such entries); T[i, j] = p(noisy = j | clean "
            "= i) must be finite and >= 0"
        )
    sums = matrix.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > _ROW_SUM)
    if wrong.size:
        hint = ""
        if np.all(np.abs(matrix.sum(axis=0) - 1) <= _ROW_SUM):
            hint = "; its columns do, so it may be the transpose of what is meant: rows are clean classes"
        raise ValueError(
            f"row {wrong[0]} of the transition matrix sums to {sums[wrong[0]]:.6g}, not to 1 ({wrong.size} such rows)"
            f"{hint}"
        )
    inexact = np.abs(sums - 1) > _ROUNDING
    matrix[inexact] /= sums[inexact, None]
    return matrix


def check_matrix_size(num_classes: int) -> None:
    """Raise ValueError for more classes than those whose matrix [C, C] fits a machine."""
    if num_classes > _MOST_CLASSES:
        raise ValueError(
            f"the matrix of num_classes={num_classes} would take {8 * num_classes**2 / 2**30:.3g} GiB; it can be had "
            f"for up to {_MOST_CLASSES} classes"
        )


def check_prior(prior: Any, num_classes: int) -> np.ndarray:
    """The prior as float64 [C], uniform for None; ValueError unless it holds C probabilities that sum to 1.

    Raises TypeError unless they are real numbers.
    """
    num_classes = check_num_classes(num_classes, 20)
    if prior is None:
        return np.full(num_classes, 1 / num_classes)
    p = real_numbers("the prior", prior)
    if p.shape != (num_classes,):
        raise ValueError(f"the prior has one probability for each of {num_classes} classes, got shape {list(p.shape)}")
    if not (np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) <= _ROW_SUM):
        raise ValueError(
            f"the prior must be >= 0 and sum to 1, got a sum of {p.sum():.6g} and a smallest entry of {p.min():.6g}; "
            "divide counts by their sum"
        )
    return p


def posterior(transition: np.ndarray, prior: Any = None) -> np.ndarray:
    """S[j, i] = p(clean = i | noisy = j): rows are noisy labels, columns clean ones.

    Bayes' rule, S[j, i] = prior[i] T[i, j] / sum_k prior[k] T[k, j]. For a symmetric T and a uniform prior S = T; in
    general it is neither T nor its transpose.

    Args:
        transition: T, real numbers [C, C].
        prior: p(clean) [C], uniform by default.

    Raises:
        TypeError, ValueError: T is no transition matrix, see `check_transition`, or the prior no distribution over its
            classes.

    Returns:
        float64 [C, C], rows sum to 1; the row of a noisy label that cannot occur is NaN.
    """
    transition = check_transition(transition)
    joint = (check_prior(prior, len(transition))[:, None] * transition).T
    marginal = joint.sum(axis=1, keepdims=True)
    return np.divide(joint, marginal, out=np.full_like(joint, np.nan), where=marginal > 0)


def rates_of(e: float, ratio: float | None, error_rate: float | None) -> tuple[float, float]:
    """(r, e) of noise whose error rate e in [0, 1] follows from its matrix or counts; r is inf for e = 1.

    Raises:
        ValueError: a `ratio` or `error_rate` that was given beside it says something else.
        TypeError: it is no number.
    """
    r = e / (1 - e) if e < 1 else math.inf
    for name, given, known in (("ratio", ratio, r), ("error_rate", error_rate, e)):
        if given is not None and not math.isclose(check_real(name, given), known, rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(f"{name}={given!r} contradicts the matrix, by which it is {known!r}; leave it out")
    return r, e


class ClassConditional:
    """What follows from the matrix of a noise that has `transition`, `num_classes` and `error_rate`."""

    num_classes: int
    if TYPE_CHECKING:

        @property
        def error_rate(self) -> float: ...

        @property
        def transition(self) -> np.ndarray: ...

    def posterior(self, prior: Any = None) -> np.ndarray:
        """S[j, i] = p(clean = i | noisy = j), float64 [C, C]: rows are noisy labels, columns clean ones.

        Args:
            prior: p(clean) [C], uniform by default.

        Returns:
            Rows sum to 1; the row of a noisy label that cannot occur is NaN. `posterior()[j]` is what a label j says
            about the class, before anyone looks at the sample.
        """
        return posterior(self.transition, prior)

    @property
    def error_rates(self) -> np.ndarray:
        """p(noisy != clean | clean = i) for each class i, float64 [C]: 1 - diag T."""
        return 1 - np.diagonal(self.transition)

    def probability(self, clean: Any, noisy: Any) -> np.ndarray:
        """T[clean, noisy] of classes [...] in [0, C), float64 [...]."""
        return self.transition[clean, noisy]

    def overall_error_rate(self, prior: Any = None) -> float:
        """Expected share of wrong labels: `error_rates` averaged over p(clean) [C], by default uniform."""
        return float(check_prior(prior, self.num_classes) @ self.error_rates)

    @cached_property
    def _singular_values(self) -> np.ndarray:
        return np.linalg.svd(self.transition, compute_uv=False)

    @property
    def is_invertible(self) -> bool:
        """Whether T has an inverse: its rank, to the precision of float64, is C."""
        largest, smallest = self._singular_values[[0, -1]]
        return bool(smallest > largest * self.num_classes * np.finfo(np.float64).eps)

    @property
    def condition_number(self) -> float:
        """Largest over smallest singular value of T, how much its inverse magnifies errors; inf if it has none."""
        largest, smallest = self._singular_values[[0, -1]]
        return float(largest / smallest) if self.is_invertible else math.inf

    @property
    def breakdown_point(self) -> float:
        """The `error_rate` up to which every class is labelled as itself more often than as any other one.

        T is taken as one of a family that keeps its pattern of errors and scales their rate (all entries off the
        diagonal by one factor). 1.0 for noise without errors, which has no pattern.
        """
        errors = self.transition
        np.fill_diagonal(errors, 0)
        # T[i, i] = 1 - s sum_j T[i, j] meets s max_j T[i, j] at the factor s = 1 / (sum + max).
        worst = float((errors.sum(axis=1) + errors.max(axis=1)).max())
        return self.error_rate / worst if worst > 0 else 1.0

    @property
    def is_adversarial(self) -> bool:
        """Whether some class is labelled as another one more often than as itself: e is past the breakdown point."""
        return self.error_rate > self.breakdown_point + 1e-12
