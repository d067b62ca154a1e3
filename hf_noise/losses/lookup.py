"""What a table holds for labels, or an error that names the label that it does not have.

The operators look at every label anyway on a CPU, so asking them is free; on a GPU they stop the device.
"""

from __future__ import annotations

from torch import Tensor

from hf_noise.losses.checks import looked_at

__all__ = ["entries", "rows"]


def entries(name: str, table: Tensor, labels: Tensor) -> Tensor:
    """table[..., label] for labels int64 [...] and a table [..., C]; ValueError for a label outside [0, C)."""
    try:
        return table.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    except (IndexError, RuntimeError):
        _refuse(name, labels, table.shape[-1])
        raise


def rows(name: str, table: Tensor, labels: Tensor) -> Tensor:
    """table[label] for labels int64 [N] and a table [C, ...]; ValueError for a label outside [0, C), -1 too."""
    try:
        return table.index_select(0, labels)
    except (IndexError, RuntimeError):
        _refuse(name, labels, len(table))
        raise


def _refuse(name: str, labels: Tensor, num_classes: int) -> None:
    array = looked_at(labels)
    if array is not None and (wrong := (array < 0) | (array >= num_classes)).any():
        raise ValueError(
            f"{name} must lie in [0, {num_classes}), got {array[wrong][0]}; leave out what carries no label (-100), or "
            "use a network with more classes"
        )
