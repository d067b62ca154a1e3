"""How many tokens and positions an encoder-decoder has on either side, and what its special tokens are."""

from __future__ import annotations

from typing import Any

from hf_noise.positions import learned_positions

__all__ = ["longest_pair", "source_tokens", "special_tokens", "target_tokens"]

_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id",
            "forced_eos_token_id", "bad_words_ids")  # fmt: skip


def source_tokens(model: Any) -> int:
    """Number of tokens that the encoder has an embedding of."""
    return _base(model).get_input_embeddings().num_embeddings


def target_tokens(model: Any) -> int:
    """Number of tokens that the decoder's head knows."""
    base = _base(model)
    head = base.get_output_embeddings()
    return base.config.vocab_size if head is None else head.weight.shape[0]


def longest_pair(model: Any) -> tuple[int | None, int | None]:
    """Positions that encoder and decoder have; None where any number will do, as with T5's relative ones."""
    return tuple(_longest(part) for part in (_base(model).get_encoder(), _base(model).get_decoder()))


def special_tokens(model: Any) -> dict[str, Any]:
    """What a model's generation config says of its tokens; of beams, penalties and least lengths nothing."""
    found = {name: getattr(model.generation_config, name, None) for name in _SPECIAL}
    return {name: value for name, value in found.items() if value is not None}


def _longest(part: Any) -> int | None:
    stated = getattr(part.config, "max_position_embeddings", None)
    found = learned_positions(part, stated)
    if found is None and any("Sinusoidal" in type(module).__name__ for module in part.modules()):
        return stated  # M2M100 makes more where they are asked for, which it was never trained on
    return found


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # inside an adapter of peft
