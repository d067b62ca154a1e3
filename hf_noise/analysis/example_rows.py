"""Examples of a batch as rows whose gradients are wanted, each with the loss that it stands for.

The loss of an example is the mean over its targets, so that with as many targets each the sum of all rows is B times
the gradient of the batch's mean loss (paper A, equation 3). Corruption by token splits it in two: the targets that are
clean and those that are not, both over the example's number of targets.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["IGNORED", "Rows", "check_logits", "losses_of", "predicts_next", "rows_of"]

IGNORED = -100
#: Columns of noisy data sets that no model reads.
_OF_DATA = ("labels", "is_noisy", "sample_id")


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of a batch of B examples.

    Attributes:
        inputs: of the model's forward; tensors have the axis B first.
        constants: those without that axis.
        positions: of the logits [B, positions, C]; None of a classifier's, [B, C].
        targets: int64 [B, T], what the logits at the first T positions are to say; T = 1 of a classifier.
        example: int64 [n], of which example a row is.
        weight: [n, T], of each target in the row's loss; 0 where it does not count.
        is_corrupt: bool [n].
    """

    inputs: Mapping[str, Tensor]
    constants: Mapping[str, Any]
    positions: int | None
    targets: Tensor
    example: Tensor
    weight: Tensor
    is_corrupt: np.ndarray

    def __len__(self) -> int:
        return len(self.example)

    @property
    def batch_size(self) -> int:
        return len(self.targets)


def rows_of(model: nn.Module, batch: Any, unit: str, is_causal: bool, where: str) -> Rows:
    """A batch as rows on the model's device.

    Args:
        model: whose forward names the inputs.
        batch: a mapping with `labels` [B] or [B, T], `is_noisy` and inputs.
        unit: of `is_noisy`: "example" [B], or "token" as `labels`.
        is_causal: whether the logits at position t are of the label at t + 1.
        where: the batch, in messages.

    Raises TypeError or ValueError: no such mapping, or columns that do not fit together.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(f"{where} must be a mapping of columns with labels and is_noisy, got {type(batch).__name__}")
    if missing := [name for name in ("labels", "is_noisy") if name not in batch]:
        there = ", ".join(map(str, batch)) or "nothing"
        needed = "the targets" if missing[0] == "labels" else "which of the labels are wrong"
        raise ValueError(f"{where} has no column {missing[0]!r}, {needed}; only {there}")
    first = next(model.parameters())
    labels = _tensor("labels", batch["labels"], where)
    is_noisy = _tensor("is_noisy", batch["is_noisy"], where)
    if labels.dtype.is_floating_point or labels.dtype in (torch.bool, torch.complex64) or not 1 <= labels.ndim <= 2:
        raise ValueError(f"labels of {where} must be integers [B] or [B, T], got {labels.dtype} {list(labels.shape)}")
    if unit == "token" and labels.ndim != 2:
        raise ValueError(f"unit='token' needs labels [B, T], got {list(labels.shape)} in {where}; of a classifier a "
                         "label is an example: unit='example'")  # fmt: skip
    wanted = labels.shape[:1] if unit == "example" else labels.shape
    if is_noisy.dtype != torch.bool or is_noisy.shape != wanted:
        remedy = "; marks of tokens go with unit='token'" if unit == "example" and is_noisy.ndim == 2 else ""
        raise ValueError(f"is_noisy of {where} must be bool {list(wanted)} for unit={unit!r}, got {is_noisy.dtype} "
                         f"{list(is_noisy.shape)}{remedy}")  # fmt: skip
    labels, is_noisy = labels.to(first.device, torch.int64), is_noisy.to(first.device)
    if not len(labels):
        raise ValueError(f"{where} has no example")
    inputs, constants = _inputs(model, batch, len(labels), first.device)
    targets = labels[:, None] if labels.ndim == 1 else labels[:, 1:] if is_causal else labels
    positions = labels.shape[1] if labels.ndim == 2 else None
    if ((targets < 0) & (targets != IGNORED)).any():
        raise ValueError(f"labels of {where} must be >= 0, or {IGNORED} where they do not count, got "
                         f"{int(targets[targets != IGNORED].min())}")  # fmt: skip
    counts = (targets != IGNORED).sum(1)
    if not counts.all():
        row = int((counts == 0).nonzero()[0])
        raise ValueError(f"example {row} of {where} has no target that counts; leave it out of the batch")
    weight = (targets != IGNORED) / counts[:, None].to(first.dtype)
    examples = torch.arange(len(labels), device=first.device)
    if unit == "example":
        return Rows(inputs, constants, positions, targets, examples, weight, is_noisy.cpu().numpy())
    noisy = is_noisy[:, 1:] if is_causal else is_noisy
    parts = torch.cat([weight * ~noisy, weight * noisy])
    is_there = (parts > 0).any(1)
    is_corrupt = torch.arange(len(parts), device=first.device) >= len(labels)
    return Rows(inputs, constants, positions, targets, examples.repeat(2)[is_there], parts[is_there],
                is_corrupt[is_there].cpu().numpy())  # fmt: skip


def check_logits(shape: list[int], rows: Rows) -> None:
    """Raises ValueError unless labels can be held against logits of this shape, [m, C] or [m, positions, C]."""
    if len(shape) != (2 if rows.positions is None else 3):
        raise ValueError(f"logits must be [B, classes] where labels are [B], and [B, T, classes] where they are [B, T]"
                         f", got {shape}")  # fmt: skip
    if rows.positions is not None and shape[1] != rows.positions:
        raise ValueError(f"labels have {rows.positions} positions, logits {shape[1]}; each needs one")
    if int(rows.targets.max()) >= shape[-1]:
        raise ValueError(f"labels must be below {shape[-1]}, the number of logits, got {int(rows.targets.max())}")


def losses_of(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Loss of each row [m]: sum over targets of weight x negative log-likelihood; `logits` [m, C] or [m, >= T, C]."""
    logits = logits[:, None] if logits.ndim == 2 else logits[:, : targets.shape[1]]
    log_p = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -(log_p * weight).sum(1)


def predicts_next(model: nn.Module) -> bool:
    """Whether the logits at position t are for the label at t + 1: of causal language models."""
    from accelerate.utils import extract_model_from_parallel

    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner  # inside an adapter of peft
    config = getattr(inner, "config", None)
    at_place = type(inner).__name__.endswith(("ForMaskedLM", "ForTokenClassification"))
    return not (getattr(config, "is_encoder_decoder", False) or at_place)


def _tensor(name: str, value: Any, where: str) -> Tensor:
    try:
        return value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} of {where} must be an array or tensor, got {value!r:.80}") from None


def _inputs(
    model: nn.Module, batch: Mapping[str, Any], size: int, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What of a batch goes into the model: tensors with an axis B, and the rest."""
    signature = inspect.signature(model.forward).parameters
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.values())
    known = {name for name in batch if isinstance(name, str) and name not in _OF_DATA and not name.startswith("clean_")}
    named = {name: batch[name] for name in batch if name in known and (name in signature or takes_all)}
    inputs = {
        name: _tensor(name, value, "a batch").to(device)
        for name, value in named.items() if isinstance(value, Tensor | np.ndarray | list)
    }  # fmt: skip
    for name, value in inputs.items():
        if value.ndim == 0 or len(value) != size:
            raise ValueError(f"{name} must have as many rows as there are labels, {size}, got {list(value.shape)}")
    if not inputs:
        there = ", ".join(map(str, batch))
        raise ValueError(f"no column of a batch is an input of {type(model).__name__}: it takes "
                         f"{', '.join(signature)}, and there are {there}")  # fmt: skip
    return inputs, {name: value for name, value in named.items() if name not in inputs}
