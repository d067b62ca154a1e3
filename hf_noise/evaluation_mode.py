"""Networks in evaluation mode, or in training mode, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

__all__ = ["evaluation_mode", "training_mode"]


def evaluation_mode(*networks: Any) -> AbstractContextManager[None]:
    """These networks (None is passed over) in evaluation mode; at the end each module is in the mode it was in.

    `network.train(was)` would set parts, too, that were in another mode than the whole, such as a frozen backbone.
    """
    return _in_mode(False, networks)


def training_mode(*networks: Any) -> AbstractContextManager[None]:
    """These networks as `network.train()` leaves them; at the end each module is in the mode it was in."""
    return _in_mode(True, networks)


@contextmanager
def _in_mode(is_training: bool, networks: tuple[Any, ...]) -> Iterator[None]:
    there = [network for network in networks if network is not None]
    modes = [(module, module.training) for network in there for module in network.modules()]
    try:
        for network in there:
            network.train() if is_training else network.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
