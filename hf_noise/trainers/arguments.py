"""Arguments of `transformers.Trainer` whose work our trainers do themselves: refused by name where they cannot be kept.

All others do what transformers says; the tests list what becomes of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import TrainerCallback, TrainingArguments

from hf_noise.noise.checks import check_real
from hf_noise.trainers.training_arguments import check_values

__all__ = [
    "REFUSED_ARGUMENTS", "REFUSED_OPTIONS", "check_arguments", "check_below_one", "check_given", "check_positive",
]  # fmt: skip

_EXACT = "losses and metrics are exact sums over all rows, made at the end of an evaluation"

#: Of TrainingArguments: name -> (whether a value is refused, why and what to do instead).
REFUSED_ARGUMENTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "auto_find_batch_size": (
        bool, "the number of rows in a step is part of what a run claims, and steps that ran out of memory would count "
              "as trained; set per_device_train_batch_size, and gradient_accumulation_steps to keep a batch large",
    ),
    "batch_eval_metrics": (bool, f"{_EXACT}; leave it False, and set eval_accumulation_steps to spare memory"),
    "eval_do_concat_batches": (lambda value: not value, f"{_EXACT}; leave it True"),
    "eval_use_gather_object": (bool, f"{_EXACT}, gathered as tensors; leave it False"),
    "label_names": (
        lambda value: value not in (None, ["labels"]), 'targets stand in "labels"; rename the column and leave it out'
    ),
    "label_smoothing_factor": (bool, "this trainer's loss has no smoothed form; leave it 0"),
}  # fmt: skip

#: Of Trainer itself, refused whenever they are given.
REFUSED_OPTIONS: Mapping[str, str] = {
    "compute_loss_func": "the loss is what loss= names, and is corrected and counted by unit; train another one with "
                         "transformers.Trainer on the same rows",
    "model_init": "it makes a second model when training starts, which knows no noise; pass model=",
    "preprocess_logits_for_metrics": f"{_EXACT}; work on the predictions in compute_metrics= instead",
}  # fmt: skip


def _is_rows(value: Any) -> bool:
    if isinstance(value, Mapping) or hasattr(value, "iloc"):  # splits by name; a table of pandas
        return False
    if isinstance(value, IterableDataset) or hasattr(value, "column_names"):  # of torch and of datasets
        return True
    if isinstance(value, str | bytes | bytearray | Mapping | np.generic | np.ma.MaskedArray):
        return False
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim > 0
    return hasattr(value, "__getitem__") and hasattr(value, "__len__")


def _is_callbacks(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, TrainerCallback) or (isinstance(one, type) and issubclass(one, TrainerCallback))
        for one in value
    )  # fmt: skip


def _is_row_sets(value: Any) -> bool:
    return _is_rows(value) or (isinstance(value, Mapping) and all(map(_is_rows, value.values())))


#: Of Trainer: name -> (whether a value is of the kind, what it has to be). None is for what is not given.
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "train_dataset": (_is_rows, "rows: one data set (a split, Dataset.from_pandas(frame)), or a list of mappings"),
    "eval_dataset": (_is_row_sets, "rows, or a dictionary of rows by name"),
    "data_collator": (callable, "a function from rows to a batch"),
    "compute_metrics": (callable, "a function from predictions to figures by name"),
    "callbacks": (_is_callbacks, "a list of TrainerCallback"),
    "augment": (callable, "a function of images, sample ids and the epoch, such as EDMAugment"),
    "classifier": (lambda value: isinstance(value, nn.Module), "a torch.nn.Module, such as TimeDependentClassifier"),
}


def check_given(model: Any, args: Any, options: Mapping[str, Any]) -> None:
    """Raise TypeError for a model, arguments, rows or functions of another kind; ValueError for what is out of range.

    Args:
        options: further arguments of a trainer, and of `transformers.Trainer`.
    """
    if options.get("model_init") is not None:
        raise ValueError(f"model_init= is not taken: {REFUSED_OPTIONS['model_init']}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {model!r:.80}; make it, or load it by from_pretrained")
    if not hasattr(model, "config"):
        raise TypeError(f"model must have a config, where its noise is stated; {type(model).__name__} has none, a "
                        "PreTrainedModel of transformers or a ModelMixin of diffusers has")  # fmt: skip
    if not isinstance(args, TrainingArguments | None):
        raise TypeError(f"args must be transformers.TrainingArguments, or None for its defaults, got {args!r:.80}")
    if args is not None:
        check_values(args)
    for name, (is_right, kind) in _KINDS.items():
        if options.get(name) is not None and not is_right(options[name]):
            raise TypeError(f"{name} must be {kind}, got {options[name]!r:.80}")


def check_positive(name: str, value: Any) -> float:
    """A finite number > 0, or an error that names it."""
    number = check_real(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")
    return number


def check_below_one(name: str, value: Any) -> float:
    """A number in [0, 1), or an error that names it."""
    number = check_real(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}")
    return number


def check_arguments(trainer: str, args: Any, options: Mapping[str, Any], honoured: tuple[str, ...] = ()) -> None:
    """Refuse what this trainer would otherwise ignore.

    Args:
        trainer: its name.
        args: TrainingArguments, or None for transformers' defaults.
        options: further arguments of `transformers.Trainer`.
        honoured: names of those above that this trainer keeps.

    Raises:
        ValueError: one has a value that cannot be honoured; it is named, with what to do instead.
    """
    for name, why in REFUSED_OPTIONS.items():
        if name not in honoured and options.get(name) is not None:
            raise ValueError(f"{trainer} takes no {name}=: {why}")
    for name, (is_refused, why) in REFUSED_ARGUMENTS.items():
        value = getattr(args, name, None)
        if args is not None and name not in honoured and hasattr(args, name) and is_refused(value):
            raise ValueError(f"{trainer} cannot honour {name}={value!r}: {why}")
