"""The metrics of generated images for `evaluate`, beside those of classifiers in `evaluate_metrics`.

    metric = FrechetDistance()
    metric.add_batch(predictions=features)          # of generated images, [n, D]
    metric.compute(real=real_features)              # or real=FeatureStatistics

evaluate handles about a million numbers per second; call the functions, or add up `FeatureStatistics`, where there are
many more. None of these is called FID: that depends on the features, see `hf_noise.metrics.metric_name`.
"""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value
from numpy.typing import ArrayLike

from hf_noise.metrics.evaluate_metrics import Checked, OfClasses, class_indices_of
from hf_noise.metrics.features import FeatureStatistics, check_features
from hf_noise.metrics.frechet import frechet_distance
from hf_noise.metrics.generation import label_consistency
from hf_noise.metrics.neighbours import Ties, density_coverage

__all__ = ["DensityCoverage", "FrechetDistance", "LabelConsistency"]

_FEATURES = """
    predictions: float [n, D], features of generated images.
    real: features float [N, D] of real images, of the same extractor; given to compute.
"""


class _OfFeatures(Checked):
    """A metric of the features of generated images against real ones, of which there may be another number."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description=_FEATURES,
            features=Features(predictions=Sequence(Value("float64"))),
        )


class FrechetDistance(_OfFeatures):
    """`hf_noise.metrics.frechet_distance`: {"frechet_distance", "n"}; `real` may be `FeatureStatistics`."""

    def _compute(self, predictions: Any, real: ArrayLike | FeatureStatistics) -> dict[str, float | int]:
        fake = _features(predictions)
        real = real if isinstance(real, FeatureStatistics) else check_features("real", real)
        if not isinstance(real, FeatureStatistics) and len(real) < 2:
            raise ValueError(f"real has {len(real)} row; a covariance takes at least 2")
        return {"frechet_distance": frechet_distance(real, fake), "n": len(fake)}


class DensityCoverage(_OfFeatures):
    """`hf_noise.metrics.density_coverage`: {"density", "coverage", "k", "n_real", "n"}."""

    def _compute(self, predictions: Any, real: ArrayLike, k: int = 5, ties: Ties = "count") -> dict[str, float | int]:
        return density_coverage(real, _features(predictions), k, ties=ties)


class LabelConsistency(OfClasses):
    """`hf_noise.metrics.label_consistency`: {"label_consistency", "low", "high", "n", "per_class"}, lists by class."""

    def _compute(self, predictions: Any, references: Any, num_classes: int, confidence: float = 0.95) -> dict[str, Any]:
        found = label_consistency(
            *class_indices_of(predictions, references), num_classes=num_classes, confidence=confidence
        )
        return found | {"per_class": {name: value.tolist() for name, value in found["per_class"].items()}}


def _features(predictions: Any) -> np.ndarray:
    widths = {len(row) if hasattr(row, "__len__") else None for row in predictions}
    if None in widths or len(widths) > 1:
        told = "no numbers" if None in widths else f"{min(widths)} and of {max(widths)} numbers"
        raise ValueError(f"features (predictions) must be [n, D], got rows of {told}")
    return check_features("predictions", predictions)
