"""Volume minimisation on arrays: the transition matrix of the smallest volume that explains the labels."""

from __future__ import annotations

from typing import Any

from hf_noise.audit.checks import check_labels
from hf_noise.audit.estimators.class_conditional import ClassConditional
from hf_noise.audit.estimators.noise_estimate import NoiseEstimate
from hf_noise.audit.estimators.rows import Rows, in_chunks

__all__ = ["volume_minimisation"]

#: VolMinNet's weight of log |det T|.
_WEIGHT = 1e-4
_ASSUMPTION = (
    "labels are wrong by class alone, every class has unmistakable rows and keeps most of its labels, and sharpening "
    "the classifier's probabilities makes them those of the true classes"
)


def volume_minimisation(labels: Any, probabilities: Any) -> NoiseEstimate:
    """Likelihood of the given labels + 1e-4 log |det T|, minimised over T and a head on the log probabilities.

    `hf_noise.losses.VolumeMinimisation` trains a network so; here the head has one sharpness and a bias per class.

    Args, Raises: as `confident_joint`.

    Source: Li et al., "Provably end-to-end label-noise learning without anchor points", ICML 2021.
    """
    y, p = check_labels(labels, probabilities)
    fit = ClassConditional(Rows.sample(y, p), own_rows=False, volume=_WEIGHT).fit()
    posterior, (joint,) = in_chunks(y, p, fit.posterior)
    rate = float(1 - joint.trace())
    return NoiseEstimate(joint, posterior, "volume minimisation", _ASSUMPTION, (rate, rate))
