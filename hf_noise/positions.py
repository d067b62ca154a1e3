"""How many positions of a text a network has learned embeddings of."""

from __future__ import annotations

from typing import Any

__all__ = ["learned_positions"]


def learned_positions(model: Any, stated: int | None) -> int | None:
    """Number of positions that can be used; None if the network knows positions in another way.

    Args:
        model: a network of transformers, from its embeddings on.
        stated: `max_position_embeddings` of its configuration, None if it states none.
    """
    from torch import nn

    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and (name.endswith("wpe") or "position" in name.rsplit(".", 1)[-1])
    ]
    # RoBERTa and MPNet count positions from behind that of padding.
    usable = {one: one.num_embeddings - (0 if one.padding_idx is None else one.padding_idx + 1) for one in found}
    if stated is None:
        return min(usable.values(), default=None)
    # Smaller ones are of other parts, such as one for images; larger ones keep the first few for padding.
    return min((min(stated, n) for one, n in usable.items() if one.num_embeddings >= stated), default=None)
