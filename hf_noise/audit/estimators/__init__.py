"""Estimators of label noise from given labels and out-of-fold probabilities: pure functions on arrays.

Each name loads its module when it is first used.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.audit.estimators.anchors import anchor_points as anchor_points
    from hf_noise.audit.estimators.em import em_sharpness as em_sharpness
    from hf_noise.audit.estimators.joint import confident_joint as confident_joint
    from hf_noise.audit.estimators.noise_estimate import NoiseEstimate as NoiseEstimate
    from hf_noise.audit.estimators.sure_rows import agreement as agreement
    from hf_noise.audit.estimators.volume import volume_minimisation as volume_minimisation

_WHERE = {
    "NoiseEstimate": "noise_estimate",
    "agreement": "sure_rows",
    "anchor_points": "anchors",
    "confident_joint": "joint",
    "em_sharpness": "em",
    "volume_minimisation": "volume",
}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
