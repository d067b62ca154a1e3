"""What noise is: protocols, rates and compute plans. Nothing here needs torch; tensors are served if torch is there."""

from hf_noise.noise.base import Noise, noise_from_dict, realised_rate
from hf_noise.noise.tokens import UniformTokens

__all__ = ["Noise", "UniformTokens", "noise_from_dict", "realised_rate"]
