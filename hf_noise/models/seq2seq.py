"""The encoder-decoder Transformer of paper A's experiments with sequences, from scratch."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForSeq2SeqLM, GenerationConfig, M2M100Config, M2M100ForConditionalGeneration

from hf_noise.models.checks import check_int, check_number

__all__ = ["check_encoder_decoder", "encoder_decoder"]


def check_encoder_decoder(config: Any, called: str) -> None:
    """Refuse what transformers does not load as an encoder-decoder.

    Args:
        config: of a model of transformers.
        called: what it is and where, for the message.

    Raises:
        ValueError: it is of another kind, which is named.
    """
    if getattr(config, "is_encoder_decoder", False) and type(config) in AutoModelForSeq2SeqLM._model_mapping:
        return
    kind = ", ".join(getattr(config, "architectures", None) or [type(config).__name__])
    raise ValueError(f"{called} is a {config.model_type} ({kind}), which is no encoder-decoder; give one, such as a "
                     "T5, BART or Marian")  # fmt: skip


def encoder_decoder(
    vocab_size: int,
    *,
    pad_token: int,
    eos_token: int,
    layers: int = 6,
    d_model: int = 512,
    heads: int = 8,
    feed_forward: int = 2048,
    dropout: float = 0.1,
    positions: int = 2048,
) -> M2M100ForConditionalGeneration:
    """A freshly initialised encoder-decoder with one table of embeddings for all; seed torch before the call.

    Normalisation stands before each sub-layer and positions are sinusoidal, which of transformers' own models only
    M2M100 has together: Marian normalises behind, BART and T5 learn their positions. Layers are never dropped
    (M2M100's `layerdrop` is 0), and dropout is as in Vaswani et al. (2017, 5.4): on what each sub-layer gives and on
    the embeddings, not inside the attention. Weights start with the deviation 1 / sqrt(d_model), so that embeddings,
    which are multiplied by sqrt(d_model), are as large as the positions that are added to them; with M2M100's own 0.02
    a narrow network hardly tells tokens apart for hundreds of steps. The decoder starts with the end token.

    Args:
        vocab_size: number of tokens, V; 32,000 in paper A (60.5 M weights).
        pad_token, eos_token: ids of the token behind short rows and of that at the end of each sequence, in [0, V).
        layers: of the encoder, and as many of the decoder.
        d_model: width, a multiple of 2 * heads.
        heads: of attention.
        feed_forward: width inside the feed-forward layers.
        dropout: probability in [0, 1).
        positions: tokens of the longest source or target; the positions are no weights.

    Raises:
        ValueError: a number is outside its range, the width no multiple of twice the heads, both tokens are one, or the
            id of padding is beyond the table of positions.
        TypeError: what should be a number is none.
    """
    vocab_size = check_int("vocab_size", vocab_size, "[2, 2097152]", "it counts the tokens")
    tokens = f"[0, {vocab_size - 1}]"
    pad_token = check_int("pad_token", pad_token, tokens, "it is the id of one of vocab_size tokens")
    eos_token = check_int("eos_token", eos_token, tokens, "it is the id of one of vocab_size tokens")
    if pad_token == eos_token:
        raise ValueError(f"pad_token and eos_token are both {eos_token}: padding has no position and no embedding, and "
                         "each target ends with eos_token; use two tokens")  # fmt: skip
    layers = check_int("layers", layers, "[1, 1024]")
    heads = check_int("heads", heads, "[1, 1024]")
    d_model = check_int("d_model", d_model, "[2, 65536]")
    if d_model % (2 * heads) or d_model < 4:
        raise ValueError(f"d_model must be a multiple of 2 * heads and at least 4, got d_model={d_model} and "
                         f"heads={heads}")  # fmt: skip
    feed_forward = check_int("feed_forward", feed_forward, "[1, 1048576]")
    dropout = check_number("dropout", dropout, "[0, 1)")
    positions = check_int("positions", positions, "[1, 1048576]", "it counts the tokens of the longest sequence")
    if pad_token > positions + 1:
        raise ValueError(f"pad_token must be at most positions + 1 = {positions + 1}, as the table of positions has a "
                         f"row for it, got {pad_token}; give padding a smaller id, or more positions")  # fmt: skip
    config = M2M100Config(
        vocab_size=vocab_size,
        max_position_embeddings=positions,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=feed_forward,
        decoder_ffn_dim=feed_forward,
        d_model=d_model,
        dropout=dropout,
        init_std=d_model**-0.5,
        attention_dropout=0.0,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        pad_token_id=pad_token,
        bos_token_id=None,
        eos_token_id=eos_token,
        decoder_start_token_id=eos_token,
    )
    model = M2M100ForConditionalGeneration(config)
    # Left to itself it takes over defaults such as a beginning that this vocabulary may not have.
    model.generation_config = GenerationConfig(
        pad_token_id=pad_token, eos_token_id=eos_token, decoder_start_token_id=eos_token
    )
    return model
