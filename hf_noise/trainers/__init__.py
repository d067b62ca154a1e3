"""Trainers that know the noise of their data."""

from hf_noise.trainers.causal_lm import CausalLMTrainer

__all__ = ["CausalLMTrainer"]
