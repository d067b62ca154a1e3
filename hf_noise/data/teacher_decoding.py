"""How a teacher chooses the tokens that it writes, and how likely it finds tokens: batches of arrays, no files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.noise import counter
from hf_noise.noise.arrays import IGNORE_INDEX
from hf_noise.pair_sizes import special_tokens

if TYPE_CHECKING:
    from hf_noise.data.teacher_files import LoadedTeacher

__all__ = ["as_written", "end_tokens", "generate", "row_nll"]

_STREAM = 6  # of sampled tokens


def generate(loaded: LoadedTeacher, sources: np.ndarray, sample: np.ndarray, seed: int = 0) -> Any:
    """What a teacher writes for a batch of sources, as its decoding says.

    Args:
        sources: int64 [B, L], -100 behind the end of each.
        sample: int64 [B], ids of the rows, from which and the seed sampled tokens are drawn.

    Returns:
        Tokens on the model's device, int64 [B, at most max_new_tokens + 1], the start token first.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    decoding, model = loaded.identity.decoding, loaded.model
    settings = {"pad_token_id": _pad(loaded), "decoder_start_token_id": model.config.decoder_start_token_id}
    settings |= _of_model(loaded)
    settings |= {"do_sample": False, "num_beams": decoding.num_beams, "max_new_tokens": decoding.max_new_tokens}
    before, model.generation_config = model.generation_config, GenerationConfig(**settings)
    inputs, mask = _inputs(loaded, sources)
    processors = LogitsProcessorList()
    if decoding.method == "sample":
        processors.append(_Gumbel(seed, sample, decoding.temperature))
    try:
        with torch.inference_mode():
            return model.generate(inputs, attention_mask=mask, logits_processor=processors)
    finally:
        model.generation_config = before


def _of_model(loaded: LoadedTeacher) -> dict[str, Any]:
    """What the model says of its tokens; all else is what `Decoding` says."""
    found = special_tokens(loaded.model)
    found.setdefault("eos_token_id", loaded.tokenizer.eos_token_id)
    return found


def end_tokens(loaded: LoadedTeacher) -> list[int]:
    """Those at which the teacher stops, one or several."""
    end = _of_model(loaded)["eos_token_id"]
    return [] if end is None else [end] if isinstance(end, int) else list(end)


def as_written(loaded: LoadedTeacher, tokens: Any) -> list[np.ndarray]:
    """The tokens of each row of what `generate` gives, int32 [at most max_new_tokens].

    They begin behind the start token and end with the end token, if the row came to one before it was cut.
    """
    tokens = tokens[:, 1:].cpu().numpy()
    is_end = np.isin(tokens, end_tokens(loaded))
    lengths = np.where(is_end.any(axis=1), is_end.argmax(axis=1) + 1, tokens.shape[1])
    return [row[:length].astype(np.int32) for row, length in zip(tokens, lengths)]


def _inputs(loaded: LoadedTeacher, sources: np.ndarray) -> tuple[Any, Any]:
    """Tokens and their mask on the model's device; the mask is of places, as a source may hold the padding token."""
    import torch

    tokens = torch.from_numpy(sources).to(loaded.model.device)
    mask = tokens != IGNORE_INDEX
    return tokens.masked_fill(~mask, _pad(loaded)), mask.long()


class _Gumbel:
    """Makes the largest score a sample: Gumbel noise from (seed, sample id, place in the output, token)."""

    def __init__(self, seed: int, sample: np.ndarray, temperature: float) -> None:
        self.keys = counter.row_keys(seed, _STREAM, 0, sample)
        self.temperature = temperature

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        place, size = input_ids.shape[1], scores.shape[1]
        drawn = counter.units(self.keys[:, None], counter.weyl(size, place * size))
        drawn = np.maximum(drawn, 2.0**-counter.UNIT_BITS)  # of 0 the logarithm would be infinite; 1 is never drawn
        gumbel = torch.from_numpy(-np.log(-np.log(drawn))).to(scores.device)
        return (scores.double() / self.temperature + gumbel).to(scores.dtype)


def row_nll(loaded: LoadedTeacher, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Nats of each row, float64 [B]; sources int64 [B, L] and targets int64 [B, T], -100 behind their ends."""
    import torch

    model, pad = loaded.model, _pad(loaded)
    with torch.inference_mode():
        (inputs, mask), labels = _inputs(loaded, sources), torch.from_numpy(targets).to(model.device)
        start = labels.new_full((len(labels), 1), model.config.decoder_start_token_id)
        begun = torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE_INDEX, pad)], dim=1)
        logits = model(input_ids=inputs, attention_mask=mask, decoder_input_ids=begun).logits
        scores = (logits.float() / loaded.identity.decoding.temperature).flatten(0, 1)
        nll = torch.nn.functional.cross_entropy(
            scores, labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
        )
        return nll.view_as(labels).double().sum(dim=1).cpu().numpy()


def _pad(loaded: LoadedTeacher) -> int:
    known = (loaded.model.config.pad_token_id, loaded.tokenizer.pad_token_id, loaded.tokenizer.eos_token_id)
    return next(token for token in known if token is not None)
