"""Kinds and ranges of the values of `transformers.TrainingArguments`, which that class takes as they come."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from transformers import TrainingArguments

__all__ = ["check_values"]

_PLAIN = {bool: "True or False", int: "an integer", float: "a number", str: "a text"}
_COUNT, _NOT_NEGATIVE, _SHARE = (1, sys.maxsize), (0, math.inf), (0, math.nextafter(1, 0))
_SEED = (0, 2**32 - 1)  # NumPy's generators, which transformers seeds too, take no others
#: Ranges, ends included, of what would fail in the middle of a run, or train something else in silence.
RANGES: Mapping[str, tuple[float, float]] = {
    "per_device_train_batch_size": _COUNT, "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT, "eval_accumulation_steps": _COUNT,
    "learning_rate": (0, 1e30), "weight_decay": _NOT_NEGATIVE, "warmup_steps": _NOT_NEGATIVE,
    "max_grad_norm": _NOT_NEGATIVE, "adam_epsilon": _NOT_NEGATIVE, "adam_beta1": _SHARE, "adam_beta2": _SHARE,
    "label_smoothing_factor": _SHARE, "num_train_epochs": _NOT_NEGATIVE, "max_steps": (-1, math.inf),
    "eval_delay": _NOT_NEGATIVE, "dataloader_num_workers": _NOT_NEGATIVE, "save_total_limit": _NOT_NEGATIVE,
    "neftune_noise_alpha": _NOT_NEGATIVE, "logging_steps": _NOT_NEGATIVE, "save_steps": _NOT_NEGATIVE,
    "eval_steps": _NOT_NEGATIVE, "seed": _SEED, "data_seed": _SEED,
}  # fmt: skip
#: A norm of any size is left as it is.
_MAY_BE_INFINITE = ("max_grad_norm",)
#: For scripts, which give these words of their own; a trainer does not look at them.
_UNUSED = ("resume_from_checkpoint",)
#: Said to be a text, and made True by transformers whatever is given.
_MISTYPED = ("fsdp",)


def check_values(args: Any) -> None:
    """Raise TypeError for the first value of another kind than its field has, ValueError for one out of its range.

    Fields that take more than numbers, flags and texts, such as dictionaries, are left to transformers.
    """
    for name, kinds in _plain_fields().items():
        value = getattr(args, name)
        if isinstance(value, np.generic):
            value = value.item()  # a DataLoader and JSON know no other
            setattr(args, name, value)
        if value is None and type(None) in kinds:
            continue
        if not any(_is_of(kind, value) for kind in kinds):
            told = " or ".join(_PLAIN[kind] for kind in kinds if kind in _PLAIN)
            raise TypeError(f"{name} must be {told}, got {_shown(name, value)}; see transformers.TrainingArguments")
        low, high = RANGES.get(name, (-math.inf, math.inf))
        is_finite = not isinstance(value, float) or math.isfinite(value) or (name in _MAY_BE_INFINITE and value > 0)
        if float in kinds and not is_finite or name in RANGES and not low <= value <= high:
            bounds = f"lie in [{low:g}, {high:g}]" if name in RANGES else "be finite"
            raise ValueError(f"{name} must {bounds}, got {_shown(name, value)}")


def _is_of(kind: type, value: Any) -> bool:
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _shown(name: str, value: Any) -> str:
    return "another value" if "token" in name else f"{value!r:.80}"


@functools.cache
def _plain_fields() -> dict[str, tuple[type, ...]]:
    """The fields of transformers' class that hold numbers, flags or texts alone, and which of these."""
    hints, found = get_type_hints(TrainingArguments), {}
    for field in dataclasses.fields(TrainingArguments):
        hint = hints[field.name]
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if field.default is None and type(None) not in kinds:
            kinds = (*kinds, type(None))
        if field.name not in (*_UNUSED, *_MISTYPED) and all(kind in _PLAIN or kind is type(None) for kind in kinds):
            found[field.name] = kinds
    return found
