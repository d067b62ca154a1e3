"""Weights that have several names in a model, such as tied embeddings: a file of safetensors holds each once."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["with_aliases", "without_aliases"]


def without_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state on the CPU, each tensor under the first of its names."""
    seen, found = set(), {}
    for name, value in state.items():
        place = _place(value)
        if place is None or place not in seen:
            seen.add(place)
            found[name] = value.detach().cpu()
    return found


def with_aliases(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """A state of `without_aliases` under all names that its tensors have in a module."""
    names: dict[tuple, list[str]] = {}
    for name, value in module.state_dict().items():
        if (place := _place(value)) is not None:
            names.setdefault(place, []).append(name)
    found = dict(state)
    for same in names.values():
        if held := [name for name in same if name in state]:
            found |= {name: state[held[0]] for name in same if name not in state}
    return found


def _place(value: Tensor) -> tuple | None:
    """What tells a tensor from others; None of one without numbers, which has no place."""
    return (value.device, value.data_ptr(), value.dtype, value.shape, value.stride()) if value.numel() else None
