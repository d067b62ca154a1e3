"""The shape of a transformer that goes by a name."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Size"]


@dataclass(frozen=True)
class Size:
    """Blocks, width and heads; inner layers are four times as wide."""

    layers: int
    width: int
    heads: int
