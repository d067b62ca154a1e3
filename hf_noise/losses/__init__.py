"""Losses as pure functions on tensors."""

from hf_noise.losses.coteaching import small_losses
from hf_noise.losses.document_mixture import document_mixture_nll
from hf_noise.losses.dsm import dsm_loss, edm_weight
from hf_noise.losses.elr import EarlyTargets, early_learning_penalty
from hf_noise.losses.error_norm import error_norm_nll, error_norms
from hf_noise.losses.gce import generalised_cross_entropy
from hf_noise.losses.gradient_matching import GradientMatching, feature_scale, local_gradient_matching
from hf_noise.losses.l2_sp import l2_sp
from hf_noise.losses.labels import label_nll, log_columns, transition_nll
from hf_noise.losses.lnsr import lnsr
from hf_noise.losses.nll import (
    clean_posterior,
    corrected_nll,
    mixture_posterior,
    posthoc_nll,
    shift_targets,
    token_nll,
)
from hf_noise.losses.sequence_mixture import sequence_mixture_nll, sequence_posterior
from hf_noise.losses.smart import smart
from hf_noise.losses.smoothed import smoothed_nll
from hf_noise.losses.tdsm import LabelTransition, tdsm_loss, transition_aware_weights
from hf_noise.losses.truncated import truncated_nll
from hf_noise.losses.volume import VolumeMinimisation

__all__ = [
    "EarlyTargets", "GradientMatching", "LabelTransition", "VolumeMinimisation", "clean_posterior", "corrected_nll",
    "document_mixture_nll", "dsm_loss", "early_learning_penalty", "edm_weight", "error_norm_nll", "error_norms",
    "feature_scale", "generalised_cross_entropy", "l2_sp", "label_nll", "lnsr", "local_gradient_matching",
    "log_columns", "mixture_posterior", "posthoc_nll", "sequence_mixture_nll", "sequence_posterior", "shift_targets",
    "small_losses", "smart", "smoothed_nll", "tdsm_loss", "token_nll", "transition_aware_weights", "transition_nll",
    "truncated_nll",
]  # fmt: skip
