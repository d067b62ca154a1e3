"""Losses as pure functions on tensors."""

from hf_noise.losses.dsm import dsm_loss, edm_weight
from hf_noise.losses.labels import label_nll, log_columns, transition_nll
from hf_noise.losses.nll import (
    clean_posterior,
    corrected_nll,
    mixture_posterior,
    posthoc_nll,
    shift_targets,
    token_nll,
)
from hf_noise.losses.tdsm import LabelTransition, tdsm_loss, transition_aware_weights
from hf_noise.losses.volume import VolumeMinimisation

__all__ = [
    "LabelTransition", "VolumeMinimisation", "clean_posterior", "corrected_nll", "dsm_loss", "edm_weight", "label_nll",
    "log_columns", "mixture_posterior", "posthoc_nll", "shift_targets", "tdsm_loss", "token_nll",
    "transition_aware_weights", "transition_nll",
]  # fmt: skip
