"""Arguments of `transformers.Trainer` whose work our trainers do themselves: refused by name where they cannot be kept.

All others do what transformers says; the tests list what becomes of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset
from transformers import TrainerCallback, TrainingArguments

__all__ = ["REFUSED_ARGUMENTS", "REFUSED_OPTIONS", "check_arguments"]

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
    if isinstance(value, IterableDataset) or hasattr(value, "column_names"):  # of torch and of datasets
        return True
    is_sequence = hasattr(value, "__getitem__") and hasattr(value, "__len__") and np.ndim(value) != 0
    return is_sequence and not isinstance(value, str | bytes | bytearray | Mapping | np.ma.MaskedArray)


def _is_callbacks(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(one, TrainerCallback) or (isinstance(one, type) and issubclass(one, TrainerCallback))
        for one in value
    )  # fmt: skip


def _is_row_sets(value: Any) -> bool:
    return _is_rows(value) or (isinstance(value, Mapping) and all(map(_is_rows, value.values())))


#: Of Trainer: name -> (whether a value is of the kind, what it has to be). None is for what is not given.
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "train_dataset": (_is_rows, "rows: a data set, or a list of mappings of columns"),
    "eval_dataset": (_is_row_sets, "rows, or a dictionary of rows by name"),
    "data_collator": (callable, "a function from rows to a batch"),
    "compute_metrics": (callable, "a function from predictions to figures by name"),
    "callbacks": (_is_callbacks, "a list of TrainerCallback"),
}


def check_arguments(trainer: str, args: Any, options: Mapping[str, Any], honoured: tuple[str, ...] = ()) -> None:
    """Refuse what this trainer would otherwise ignore.

    Args:
        trainer: its name.
        args: TrainingArguments, or None for transformers' defaults.
        options: further arguments of `transformers.Trainer`.
        honoured: names of those above that this trainer keeps.

    Raises:
        ValueError: one has a value that cannot be honoured; it is named, with what to do instead.
        TypeError: one is of another kind.
    """
    if not isinstance(args, TrainingArguments | None):
        raise TypeError(f"args must be transformers.TrainingArguments, or None for its defaults, got {args!r:.80}")
    for name, (is_right, kind) in _KINDS.items():
        if options.get(name) is not None and not is_right(options[name]):
            raise TypeError(f"{trainer} takes for {name}= {kind}, got {options[name]!r:.80}")
    for name, why in REFUSED_OPTIONS.items():
        if name not in honoured and options.get(name) is not None:
            raise ValueError(f"{trainer} takes no {name}=: {why}")
    for name, (is_refused, why) in REFUSED_ARGUMENTS.items():
        value = getattr(args, name, None)
        if args is not None and name not in honoured and hasattr(args, name) and is_refused(value):
            raise ValueError(f"{trainer} cannot honour {name}={value!r}: {why}")
