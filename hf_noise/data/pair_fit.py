"""Whether a model can take the tokens of pairs, told before hours of work and not in the middle of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_noise.pair_sizes import longest_pair, source_tokens, target_tokens

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["check_fit"]


def check_fit(tokens: Dataset, model: Any) -> None:
    """Refuse rows that an encoder-decoder has no positions or no tokens for.

    Args:
        tokens: from `tokenize_pairs`: `input_ids`, `labels` and `sample_id`.
        model: any encoder-decoder of transformers.

    Raises:
        ValueError: a source or target is longer than the model has positions, or holds a token that it does not know;
            such rows are counted, and the first one is named.
    """
    known = zip(("source", "target"), ("input_ids", "labels"), longest_pair(model),
                (source_tokens(model), target_tokens(model)), strict=True)  # fmt: skip
    table = tokens.with_format("arrow")[:]
    ids = table["sample_id"].to_numpy()
    for side, name, positions, size in known:
        column = table[name]
        lengths = pc.list_value_length(column).to_numpy()
        if positions is not None and (long := np.flatnonzero(lengths > positions)).size:
            raise ValueError(
                f"{long.size} of {len(ids)} rows have a {side} of more than the {positions} tokens that the model has "
                f"positions for, the longest {lengths.max()} (sample_id {ids[lengths.argmax()]}); give "
                f"max_{side}_tokens={positions} with truncate=True, leave them out, or take a model with more"
            )
        most = _largest(column)
        if most is not None and most >= size:
            values = pc.list_flatten(column).to_numpy()
            of_row = np.repeat(np.arange(len(ids)), lengths)
            rows = np.unique(of_row[values >= size])
            raise ValueError(
                f"{rows.size} of {len(ids)} rows have a {side} with tokens that the model does not know, such as {most}"
                f" where it knows 0 to {size - 1}, the first is sample_id {ids[rows[0]]}; use the tokenizer of this "
                "model, or resize its embeddings: model.resize_token_embeddings(...)"
            )


def _largest(column: pa.ChunkedArray) -> int | None:
    return pc.max(pc.list_flatten(column)).as_py()
