"""What noise is: protocols, rates and compute plans. Nothing here needs torch; tensors are served if torch is there."""

from hf_noise.noise.base import Noise, noise_from_dict, realised_rate
from hf_noise.noise.describe import noise_from_description
from hf_noise.noise.documents import GaussianDocuments, RandomDocuments
from hf_noise.noise.human import HumanLabels
from hf_noise.noise.labels import LabelFlips
from hf_noise.noise.masking import Masking
from hf_noise.noise.schedule import FixedBudget, Plan, ScaleBatch, ScaleSteps, Table6, Table7, plan_named
from hf_noise.noise.teacher import Decoding, NoisyTeacher, Teacher
from hf_noise.noise.tokens import UniformTokens

__all__ = [
    "Decoding",
    "FixedBudget",
    "GaussianDocuments",
    "HumanLabels",
    "LabelFlips",
    "Masking",
    "Noise",
    "NoisyTeacher",
    "Plan",
    "RandomDocuments",
    "ScaleBatch",
    "ScaleSteps",
    "Table6",
    "Table7",
    "Teacher",
    "UniformTokens",
    "noise_from_description",
    "noise_from_dict",
    "plan_named",
    "realised_rate",
]
