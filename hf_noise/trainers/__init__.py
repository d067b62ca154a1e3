"""Trainers that know the noise of their data."""

from hf_noise.trainers.causal_lm import CausalLMTrainer
from hf_noise.trainers.image_classifier import ImageClassifierTrainer

__all__ = ["CausalLMTrainer", "ImageClassifierTrainer"]
