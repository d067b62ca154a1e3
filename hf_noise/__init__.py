"""hf_noise: what bad training data does to a model, and how to survive it.

Importing it is fast and loads neither torch nor transformers; names load what they need when they are first used.
It also teaches `datasets.load_dataset` the names that begin with "hf_noise/".
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_noise.data.hook import install_on_import

if TYPE_CHECKING:
    from hf_noise.audit.label_audit import LabelAudit as LabelAudit
    from hf_noise.audit.label_audit import audit_labels as audit_labels
    from hf_noise.data.corrupt import corrupt as corrupt
    from hf_noise.data.hook import load_dataset as load_dataset
    from hf_noise.data.pair_tokens import pair_tokenizer as pair_tokenizer
    from hf_noise.data.pair_tokens import tokenize_pairs as tokenize_pairs
    from hf_noise.estimators.lgm import LGMClassifier as LGMClassifier
    from hf_noise.hub.load import load_noise as load_noise
    from hf_noise.models.seq2seq import encoder_decoder as encoder_decoder
    from hf_noise.noise import GaussianDocuments as GaussianDocuments
    from hf_noise.noise import HumanLabels as HumanLabels
    from hf_noise.noise import LabelFlips as LabelFlips
    from hf_noise.noise import Masking as Masking
    from hf_noise.noise import NoisyTeacher as NoisyTeacher
    from hf_noise.noise import RandomDocuments as RandomDocuments
    from hf_noise.noise import UniformTokens as UniformTokens
    from hf_noise.noise import noise_from_dict as noise_from_dict
    from hf_noise.objectives import NLL as NLL
    from hf_noise.objectives import TDSM as TDSM
    from hf_noise.objectives import Corrected as Corrected
    from hf_noise.objectives import CorrectedLabels as CorrectedLabels
    from hf_noise.objectives import SequenceMixture as SequenceMixture
    from hf_noise.objectives import objective_from_dict as objective_from_dict
    from hf_noise.trainers.audit import audit_tokens as audit_tokens
    from hf_noise.trainers.sequence_audit import audit_sequences as audit_sequences

__version__ = "0.1.0"

_FLOORS = (
    "analysis", "audit", "data", "diffusion", "estimators", "hub", "losses", "metrics", "models", "noise", "objectives",
    "reports", "studies", "trainers",
)  # fmt: skip

# Noises and objectives are looked up where they are, so that a new one need not be named here.
_VALUES = ("hf_noise.noise", "hf_noise.objectives")
_WHERE = {
    "LGMClassifier": "hf_noise.estimators.lgm",
    "LabelAudit": "hf_noise.audit.label_audit",
    "audit_labels": "hf_noise.audit.label_audit",
    "audit_sequences": "hf_noise.trainers.sequence_audit",
    "audit_tokens": "hf_noise.trainers.audit",
    "corrupt": "hf_noise.data.corrupt",
    "encoder_decoder": "hf_noise.models.seq2seq",
    "load_dataset": "hf_noise.data.hook",
    "load_noise": "hf_noise.hub.load",
    "pair_tokenizer": "hf_noise.data.pair_tokens",
    "tokenize_pairs": "hf_noise.data.pair_tokens",
}


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _FLOORS:
        return import_module(f"hf_noise.{name}")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    for module in map(import_module, _VALUES):
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE, *(name for module in _VALUES for name in import_module(module).__all__)})


install_on_import()
