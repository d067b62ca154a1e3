"""Maximum likelihood of class-conditional noise, with the sharpness of the classifier fitted beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_noise.audit.checks import check_labels
from hf_noise.audit.estimators.class_conditional import ClassConditional, Fit
from hf_noise.audit.estimators.noise_estimate import NoiseEstimate
from hf_noise.audit.estimators.rows import Rows, in_chunks

__all__ = ["em_sharpness", "fit_em"]

#: The clean posterior is not exactly a power of the classifier's, so its sharpness is known within this factor, and in
#: as many further steps of it as cost the likelihood less than 2 nats (95% of a chi-square of one degree).
_FACTOR, _MOST_STEPS, _NATS = 2.0, 4, 2.0
#: Nats per row by which a local optimum may be less likely than the best one and still counts as possible: neither
#: form is exact, so that smaller differences say nothing. Those of nearly the same rate are the same one.
_AS_LIKELY, _SAME = 0.01, 0.01
_ASSUMPTION = (
    "labels are wrong by their true class alone, not by how hard the row is, and the classifier's probabilities are "
    "right up to one sharpness and the frequencies of the classes; where hard rows are mislabelled more often, the "
    "rate comes out too low"
)


def em_sharpness(labels: Any, probabilities: Any) -> NoiseEstimate:
    """Fit T, the frequencies of the classes and one sharpness to the given labels; see `class_conditional`.

    The range is that of the rates when the sharpness is off by a factor of two either way, or by more where the
    likelihood hardly tells, and all else is fitted again; from other optima of the likelihood too, where these are
    nearly as high.

    Args, Raises: as `confident_joint`.

    Source: the latent true label and its EM are of Dawid and Skene, Applied Statistics 1979, and for one noisy label
    beside a classifier of Bekker and Goldberger, ICASSP 2016, here with the classifier fixed and its temperature (Guo
    et al., "On calibration of modern neural networks", ICML 2017) fitted; L-BFGS in place of EM steps.
    """
    y, p = check_labels(labels, probabilities)
    return fit_em(y, p, Rows.sample(y, p))[0]


def fit_em(y: np.ndarray, p: np.ndarray, rows: Rows) -> tuple[NoiseEstimate, Fit]:
    """The estimate, and the fit that it stands on, of what `check_labels` returned, fitted to these rows of it."""
    model = ClassConditional(rows, own_rows=True)
    fit, *others = model.optima()
    posterior, (joint,) = in_chunks(y, p, fit.posterior)
    possible, rates = [fit], [_rate(fit, rows)]
    for other in others:
        its_rate = _rate(other, rows)
        if other.value - fit.value < _AS_LIKELY and min(abs(its_rate - rate) for rate in rates) > _SAME:
            possible.append(other)
            rates.append(its_rate)
    rates += [_farthest(model, one, factor) for one in possible for factor in (_FACTOR, 1 / _FACTOR)]
    rate = float(1 - joint.trace())
    found = NoiseEstimate(joint, posterior, "EM with a fitted sharpness", _ASSUMPTION,
                          (min(rate, *rates), max(rate, *rates)))  # fmt: skip
    return found, fit


def _farthest(model: ClassConditional, fit: Fit, factor: float) -> float:
    """The rate at the softness that is farthest in this direction and still possible."""
    rows, other = model.rows, fit
    for _ in range(_MOST_STEPS):
        other = model.refit(other, other.softness * factor)
        if (other.value - fit.value) * len(rows) > _NATS:
            break
    return _rate(other, rows)


def _rate(fit: Fit, rows: Rows) -> float:
    return float(1 - fit.posterior(rows)[rows.given].mean())
