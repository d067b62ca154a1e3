"""Metrics as functions on arrays, and as `evaluate.Metric`.

Each name loads its module when it is first used: `evaluate` imports transformers and torch, the functions need neither.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.metrics.audit import audit_metrics as audit_metrics
    from hf_noise.metrics.calibration import classifier_calibration as classifier_calibration
    from hf_noise.metrics.calibration import classifier_reliability as classifier_reliability
    from hf_noise.metrics.classification import accuracy as accuracy
    from hf_noise.metrics.classification import confusion as confusion
    from hf_noise.metrics.classification import per_class_accuracy as per_class_accuracy
    from hf_noise.metrics.classification import successor_rate as successor_rate
    from hf_noise.metrics.evaluate_generation import DensityCoverage as DensityCoverage
    from hf_noise.metrics.evaluate_generation import FrechetDistance as FrechetDistance
    from hf_noise.metrics.evaluate_generation import LabelConsistency as LabelConsistency
    from hf_noise.metrics.evaluate_metrics import AccuracyWithInterval as AccuracyWithInterval
    from hf_noise.metrics.evaluate_metrics import Calibration as Calibration
    from hf_noise.metrics.evaluate_metrics import MarginalKL as MarginalKL
    from hf_noise.metrics.evaluate_metrics import MarginalTV as MarginalTV
    from hf_noise.metrics.evaluate_metrics import PerClassAccuracy as PerClassAccuracy
    from hf_noise.metrics.evaluate_metrics import SuccessorRate as SuccessorRate
    from hf_noise.metrics.extractors import Extractor as Extractor
    from hf_noise.metrics.extractors import inception_extractor as inception_extractor
    from hf_noise.metrics.extractors import judge_extractor as judge_extractor
    from hf_noise.metrics.extractors import metric_name as metric_name
    from hf_noise.metrics.extractors import weights_hash as weights_hash
    from hf_noise.metrics.features import FeatureStatistics as FeatureStatistics
    from hf_noise.metrics.frechet import classwise_frechet as classwise_frechet
    from hf_noise.metrics.frechet import frechet_distance as frechet_distance
    from hf_noise.metrics.generation import inception_score as inception_score
    from hf_noise.metrics.generation import label_consistency as label_consistency
    from hf_noise.metrics.generation import mixture_reference as mixture_reference
    from hf_noise.metrics.inception_weights import find_inception_weights as find_inception_weights
    from hf_noise.metrics.inception_weights import inception_name as inception_name
    from hf_noise.metrics.intervals import wilson_interval as wilson_interval
    from hf_noise.metrics.marginal import marginal_kl as marginal_kl
    from hf_noise.metrics.marginal import marginal_shift as marginal_shift
    from hf_noise.metrics.marginal import marginal_tv as marginal_tv
    from hf_noise.metrics.marginal import predicted_marginal as predicted_marginal
    from hf_noise.metrics.marginal import sampling_kl as sampling_kl
    from hf_noise.metrics.marginal import sampling_tv as sampling_tv
    from hf_noise.metrics.neighbours import classwise_density_coverage as classwise_density_coverage
    from hf_noise.metrics.neighbours import density_coverage as density_coverage
    from hf_noise.metrics.sequences import sequence_scores as sequence_scores

_WHERE = {
    "AccuracyWithInterval": "evaluate_metrics",
    "Calibration": "evaluate_metrics",
    "DensityCoverage": "evaluate_generation",
    "Extractor": "extractors",
    "FeatureStatistics": "features",
    "FrechetDistance": "evaluate_generation",
    "LabelConsistency": "evaluate_generation",
    "MarginalKL": "evaluate_metrics",
    "MarginalTV": "evaluate_metrics",
    "PerClassAccuracy": "evaluate_metrics",
    "SuccessorRate": "evaluate_metrics",
    "accuracy": "classification",
    "audit_metrics": "audit",
    "classifier_calibration": "calibration",
    "classifier_reliability": "calibration",
    "classwise_density_coverage": "neighbours",
    "classwise_frechet": "frechet",
    "confusion": "classification",
    "density_coverage": "neighbours",
    "find_inception_weights": "inception_weights",
    "frechet_distance": "frechet",
    "inception_extractor": "extractors",
    "inception_name": "inception_weights",
    "inception_score": "generation",
    "judge_extractor": "extractors",
    "label_consistency": "generation",
    "marginal_kl": "marginal",
    "marginal_shift": "marginal",
    "marginal_tv": "marginal",
    "metric_name": "extractors",
    "mixture_reference": "generation",
    "per_class_accuracy": "classification",
    "predicted_marginal": "marginal",
    "sampling_kl": "marginal",
    "sampling_tv": "marginal",
    "sequence_scores": "sequences",
    "successor_rate": "classification",
    "weights_hash": "extractors",
    "wilson_interval": "intervals",
}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
