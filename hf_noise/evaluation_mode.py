"""Networks in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["evaluation_mode"]


@contextmanager
def evaluation_mode(*networks: Any) -> Iterator[None]:
    """These networks (None is passed over) in evaluation mode; at the end each module is in the mode it was in.

    `network.train(was)` would set parts, too, that were in another mode than the whole, such as a frozen backbone.
    """
    there = [network for network in networks if network is not None]
    modes = [(module, module.training) for network in there for module in network.modules()]
    try:
        for network in there:
            network.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
