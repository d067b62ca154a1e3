"""Losses as pure functions on tensors."""

from hf_noise.losses.nll import (
    clean_posterior,
    corrected_nll,
    mixture_posterior,
    posthoc_nll,
    shift_targets,
    token_nll,
    transition_nll,
)

__all__ = [
    "clean_posterior", "corrected_nll", "mixture_posterior", "posthoc_nll", "shift_targets", "token_nll",
    "transition_nll",
]  # fmt: skip
