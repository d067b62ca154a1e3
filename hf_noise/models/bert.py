"""BERT by name: the published base and small ones that a processor trains in minutes."""

from __future__ import annotations

from transformers import BertConfig, BertForMaskedLM

from hf_noise.models.checks import check_int, check_name, check_number
from hf_noise.models.sizes import Size

__all__ = ["SIZES", "Size", "bert"]


#: Parameter counts in the comments are with BERT's 30,522 tokens and 512 positions; embeddings and head share weights.
SIZES = {
    "nano": Size(2, 128, 2),  # 4.4 M, BERT-tiny; 0.6 M with 1,025 tokens and 64 positions
    "mini": Size(4, 256, 4),  # 11 M, BERT-mini
    "bert-base": Size(12, 768, 12),  # 110 M, paper B, table 9
    "bert-large": Size(24, 1024, 16),  # 335 M
}


def bert(
    size: str, *, vocab_size: int, block_size: int, pad_token: int | None = None, dropout: float = 0.1
) -> BertForMaskedLM:
    """A freshly initialised BERT with the head of its masked language model; seed torch before the call.

    Which token is the mask token is the business of `hf_noise.noise.Masking`; `Masking.num_tokens` is the `vocab_size`
    that it needs. Sentences are not told apart: all tokens are of the first of the two types, and nothing predicts
    which sentence follows.

    Args:
        size: a name in `SIZES`.
        vocab_size: number of tokens, V, the mask token included.
        block_size: context length in tokens.
        pad_token: id of the token at the end of short rows, in [0, V), whose embedding is not learned; None for rows of
            one length, or padding that is told by `attention_mask` alone.
        dropout: probability in [0, 1), 0.1 as published.

    Raises:
        ValueError: the size is unknown, or a number outside its range.
        TypeError: what should be a number or a name is none.
    """
    check_name("the BERT size", size, SIZES)
    vocab_size = check_int("vocab_size", vocab_size, "[1, 2097152]", "it counts the tokens, the mask token included")
    block_size = check_int("block_size", block_size, "[1, 1048576]", "it is the context length in tokens")
    if pad_token is not None:
        pad_token = check_int("pad_token", pad_token, f"[0, {vocab_size - 1}]", "it is the id of one of the tokens")
    dropout = check_number("dropout", dropout, "[0, 1)")
    shape = SIZES[size]
    config = BertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=block_size,
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=pad_token,
    )
    return BertForMaskedLM(config)
