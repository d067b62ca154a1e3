"""Anchor points: rows that are surely of a class show how it is labelled."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_noise.analysis.transition import anchor_transition
from hf_noise.audit.checks import check_labels
from hf_noise.audit.estimators.noise_estimate import NoiseEstimate, joint_of

__all__ = ["anchor_points"]

_ASSUMPTION = (
    "labels are wrong by class alone, some rows of every class are unmistakable, and the probabilities are calibrated "
    "for the given labels; a classifier that is unsure on principle reads as noise"
)


def anchor_points(labels: Any, probabilities: Any) -> NoiseEstimate:
    """T from the row of each class that is nearly the most probable of it: `hf_noise.analysis.anchor_transition`.

    The quantile is 1 - 0.3 / C, and the frequencies of the classes follow from those of the labels.

    Args, Raises: as `confident_joint`.

    Source: Patrini et al., "Making deep neural networks robust to label noise: a loss correction approach", CVPR 2017,
    section 4.3.
    """
    y, p = check_labels(labels, probabilities)
    classes = p.shape[1]
    transition = anchor_transition(p, 1 - 0.3 / classes)
    joint = joint_of(transition, np.bincount(y, minlength=classes) / len(y))
    rate = float(np.clip(1 - np.trace(joint), 0, 1))
    return NoiseEstimate(joint, None, "anchor points", _ASSUMPTION, (rate, rate))
