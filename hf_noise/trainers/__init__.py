"""Trainers that know the noise of their data."""

from hf_noise.trainers.causal_lm import CausalLMTrainer
from hf_noise.trainers.classifier import ClassifierTrainer
from hf_noise.trainers.edm import EDMTrainer
from hf_noise.trainers.image_classifier import ImageClassifierTrainer
from hf_noise.trainers.masked_lm import MaskedLMTrainer
from hf_noise.trainers.time_classifier import TimeClassifierTrainer

__all__ = [
    "CausalLMTrainer", "ClassifierTrainer", "EDMTrainer", "ImageClassifierTrainer", "MaskedLMTrainer",
    "TimeClassifierTrainer",
]  # fmt: skip
