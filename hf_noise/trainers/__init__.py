"""Trainers that know the noise of their data.

Each name loads its module when it is first used: heads on features need none of transformers.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.trainers.causal_lm import CausalLMTrainer as CausalLMTrainer
    from hf_noise.trainers.classifier import ClassifierTrainer as ClassifierTrainer
    from hf_noise.trainers.dynamics import DynamicsCallback as DynamicsCallback
    from hf_noise.trainers.edm import EDMTrainer as EDMTrainer
    from hf_noise.trainers.heads import FittedHeads as FittedHeads
    from hf_noise.trainers.heads import fit_heads as fit_heads
    from hf_noise.trainers.heads import head_grid as head_grid
    from hf_noise.trainers.heads_plan import HeadPlan as HeadPlan
    from hf_noise.trainers.heads_plan import HeadSetting as HeadSetting
    from hf_noise.trainers.image_classifier import ImageClassifierTrainer as ImageClassifierTrainer
    from hf_noise.trainers.masked_lm import MaskedLMTrainer as MaskedLMTrainer
    from hf_noise.trainers.noise_scale import NoiseScaleCallback as NoiseScaleCallback
    from hf_noise.trainers.seq2seq import Seq2SeqTrainer as Seq2SeqTrainer
    from hf_noise.trainers.time_classifier import TimeClassifierTrainer as TimeClassifierTrainer

_WHERE = {
    "CausalLMTrainer": "causal_lm",
    "ClassifierTrainer": "classifier",
    "DynamicsCallback": "dynamics",
    "EDMTrainer": "edm",
    "FittedHeads": "heads",
    "HeadPlan": "heads_plan",
    "HeadSetting": "heads_plan",
    "ImageClassifierTrainer": "image_classifier",
    "MaskedLMTrainer": "masked_lm",
    "NoiseScaleCallback": "noise_scale",
    "Seq2SeqTrainer": "seq2seq",
    "TimeClassifierTrainer": "time_classifier",
    "fit_heads": "heads",
    "head_grid": "heads",
}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
