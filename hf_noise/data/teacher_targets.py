"""What a teacher writes for the sources of pairs, and how likely it finds the targets that are in them.

Rows are worked on from long to short, so that a batch has little padding and what does not fit is known at once. What a
row becomes does not depend on its batch, up to the rounding of floats; and sampling draws from (seed, sample id).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.data.cache import cache_root
from hf_noise.data.pair_tokens import tokenize_pairs
from hf_noise.data.teacher_files import LoadedTeacher, load_teacher
from hf_noise.data.teacher_parts import Parts, digest_of_texts
from hf_noise.noise import counter
from hf_noise.noise.arrays import IGNORE_INDEX, integers
from hf_noise.noise.checks import check_count, check_flag, check_seed

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TOKENS_PER_BATCH", "generate", "teacher_nll", "write_targets"]

logger = logging.getLogger(__name__)

#: Padded tokens of a batch, source and output together.
TOKENS_PER_BATCH = 16_384
# Raised whenever the same teacher would write other targets for the same rows.
_VERSION = 1
_STREAM = 6  # of sampled tokens
# What a model's own generation config may bring: ids of tokens. All else is what `Decoding` says.
_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id",
           "forced_eos_token_id", "bad_words_ids")  # fmt: skip


def write_targets(
    dataset: Dataset,
    teacher: LoadedTeacher | str | os.PathLike,
    *,
    cache: str | os.PathLike | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    max_source_tokens: int | None = None,
    truncate: bool = False,
    seed: int = 0,
    device: Any = None,
) -> list[str]:
    """The target that a teacher writes for each source.

    They are kept in parts as they get done: a run that was killed goes on with the next part, and processes that are
    started together (`accelerate launch`) share the parts; each returns all targets.

    Args:
        dataset: rows with `source`, and `sample_id` where targets are sampled (by default the numbers of the rows).
        teacher: from `load_teacher`, which says how it decodes; or its name, for greedy decoding.
        cache: folder of the parts; by default one of this package's own, named by all that the targets depend on.
        tokens_per_batch: rows times the longest source and output together.
        max_source_tokens: the longest source, end token included; by default what the model has positions for.
        truncate: cut sources that are longer, and log their share.
        seed: of sampling.
        device: to work on; by default the GPU of this process, if there is one.

    Returns:
        Texts [N], in the order of the rows.

    Raises:
        ValueError: a source is empty, or too long and not to be cut (counted, the first named); `cache` holds what
            another teacher wrote; or the model has too few positions for the output.
        TypeError: an argument is of another type.
    """
    loaded, seed = _on_device(teacher, device), check_seed(seed)
    decoding = loaded.identity.decoding
    budget = check_count("tokens_per_batch", tokens_per_batch, 1, 40)
    longest = _limit(loaded, "max_source_tokens", max_source_tokens)
    limits = {"max_source_tokens": longest, "truncate": check_flag("truncate", truncate)}
    rows, sample = _text_columns(dataset, ["source"]), _ids_of(dataset)
    if (positions := _positions(loaded)) is not None and decoding.max_new_tokens > positions:
        raise ValueError(f"max_new_tokens={decoding.max_new_tokens} is more than the {positions} positions of the "
                         f"teacher {loaded.identity.name!r}; lower it")  # fmt: skip
    stated = {"what": "targets", **limits, "rows": digest_of_texts(rows["source"])}
    if decoding.method == "sample":
        stated |= {"seed": seed, "sample_ids": hashlib.sha256(sample.tobytes()).hexdigest()}
    parts = _parts(loaded, cache, stated)
    # A teacher has seen no target, so that any will do here.
    tokens = _tokenized(loaded, {**rows, "target": ["."] * len(sample), "sample_id": sample}, limits)

    def work(part: np.ndarray) -> dict[str, list]:
        written: list[str] = []
        for batch in _batches(tokens.sources.lengths[part] + decoding.max_new_tokens, budget):
            batch = part[batch]
            made = generate(loaded, tokens.sources.padded(batch), sample[batch], seed)
            written += loaded.tokenizer.batch_decode(made, skip_special_tokens=True)
        return {"target": written}

    order = np.argsort(-tokens.sources.lengths, kind="stable")
    targets = parts.run(order, work, _first_part())["target"].to_pylist()
    if empty := sum(not text.strip() for text in targets):
        logger.warning("%s wrote nothing for %d of %d sources", loaded.identity.name, empty, len(targets))
    return targets


def teacher_nll(
    dataset: Dataset,
    teacher: LoadedTeacher | str | os.PathLike,
    *,
    cache: str | os.PathLike | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    max_source_tokens: int | None = None,
    max_target_tokens: int | None = None,
    truncate: bool = False,
    device: Any = None,
) -> np.ndarray:
    """-log q(target | source) of each row under a teacher, its end token included.

    It is that of the distribution the teacher writes from: at the temperature of its sampling, else at 1.

    Args:
        dataset: rows with `source` and `target`; and `is_noisy` where targets that the teacher left empty are among
            them.
        others: as for `write_targets`; `max_target_tokens` is the longest target.

    Returns:
        Nats of the whole row, float32 [N].

    Raises:
        ValueError, TypeError: as `write_targets`.
    """
    loaded, budget = _on_device(teacher, device), check_count("tokens_per_batch", tokens_per_batch, 1, 40)
    limits = {
        "max_source_tokens": _limit(loaded, "max_source_tokens", max_source_tokens),
        "max_target_tokens": _limit(loaded, "max_target_tokens", max_target_tokens),
        "truncate": check_flag("truncate", truncate),
    }  # fmt: skip
    rows = _text_columns(dataset, ["source", "target"])
    parts = _parts(loaded, cache, {"what": "nll", **limits, "rows": digest_of_texts(*rows.values())})
    rows |= {"sample_id": _ids_of(dataset)}
    rows |= {"is_noisy": dataset["is_noisy"][:]} if "is_noisy" in dataset.column_names else {}
    tokens = _tokenized(loaded, rows, limits)

    def work(part: np.ndarray) -> dict[str, Any]:
        lengths = tokens.sources.lengths[part] + tokens.targets.lengths[part]
        found = [
            _nll(loaded, tokens.sources.padded(batch), tokens.targets.padded(batch))
            for batch in (part[piece] for piece in _batches(lengths, budget))
        ]
        return {"nll": np.concatenate(found)}

    order = np.argsort(-(tokens.sources.lengths + tokens.targets.lengths), kind="stable")
    return parts.run(order, work, _first_part())["nll"].to_numpy().astype(np.float32)


@dataclass(frozen=True)
class _Rows:
    """Lists of tokens that lie one after another: values int64, and where each list starts [N + 1]."""

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> _Rows:
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        values = np.fromiter((token for row in rows for token in row), np.int64, int(lengths.sum()))
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]))

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def padded(self, rows: np.ndarray) -> np.ndarray:
        """int64 [n, L], with -100 behind the end of each."""
        lengths = self.lengths[rows]
        inside = np.arange(lengths.max()) < lengths[:, None]
        out = np.full(inside.shape, IGNORE_INDEX, dtype=np.int64)
        out[inside] = np.concatenate([self.values[self.starts[row] : self.starts[row + 1]] for row in rows])
        return out


@dataclass(frozen=True)
class _Tokens:
    sources: _Rows
    targets: _Rows


def _tokenized(loaded: LoadedTeacher, columns: Mapping[str, Any], limits: Mapping[str, Any]) -> _Tokens:
    """The rows as tokens of the teacher, as those it was trained on."""
    from datasets import Dataset

    rows = tokenize_pairs(Dataset.from_dict(dict(columns)), loaded.tokenizer, **limits)
    return _Tokens(_Rows.of(rows["input_ids"][:]), _Rows.of(rows["labels"][:]))


def _on_device(teacher: LoadedTeacher | str | os.PathLike, device: Any) -> LoadedTeacher:
    loaded = teacher if isinstance(teacher, LoadedTeacher) else load_teacher(teacher)
    loaded.move_to(device)
    return loaded


def _text_columns(dataset: Dataset, names: list[str]) -> dict[str, list[str]]:
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a datasets.Dataset with {' and '.join(names)}, got {type(dataset).__name__}")
    if missing := [name for name in names if name not in dataset.column_names]:
        raise ValueError(f"dataset has no column {missing[0]}, it has {', '.join(dataset.column_names)}")
    if not len(dataset):
        raise ValueError("dataset has no rows, of which a teacher could write or score targets")
    columns = {name: dataset[name][:] for name in names}
    for name, texts in columns.items():
        if odd := [row for row, text in enumerate(texts) if not isinstance(text, str)]:
            raise TypeError(f"column {name} of dataset must hold texts, {len(odd)} of {len(texts)} are none, the first "
                            f"in row {odd[0]}: {texts[odd[0]]!r:.80}")  # fmt: skip
    return columns


def _ids_of(dataset: Dataset) -> np.ndarray:
    ids = dataset["sample_id"][:] if "sample_id" in dataset.column_names else np.arange(len(dataset))
    return integers("sample_id", ids).astype(np.int64)


def _positions(loaded: LoadedTeacher) -> int | None:
    """How many tokens the model has positions for; None for any number, as those of T5."""
    return getattr(loaded.model.config, "max_position_embeddings", None)


def _limit(loaded: LoadedTeacher, name: str, asked: int | None) -> int | None:
    positions = _positions(loaded)
    if asked is not None:
        asked = check_count(name, asked, 2, 31)
    return positions if asked is None else asked if positions is None else min(asked, positions)


def _pad(loaded: LoadedTeacher) -> int:
    known = (loaded.model.config.pad_token_id, loaded.tokenizer.pad_token_id, loaded.tokenizer.eos_token_id)
    return next(token for token in known if token is not None)


def _parts(loaded: LoadedTeacher, cache: str | os.PathLike | None, stated: Mapping[str, Any]) -> Parts:
    stated = {"version": _VERSION, "teacher": asdict(loaded.identity), **stated}
    if cache is None:
        named = {**stated, "teacher": {**stated["teacher"], "name": ""}}
        key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:24]
        cache = cache_root() / "teacher" / f"{stated['what']}-{key}"
    return Parts(cache, stated)


def _first_part() -> float:
    """Where among all parts this process begins: processes that are started together spread over them."""
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    return rank / max(1, world)


def _batches(lengths: np.ndarray, budget: int) -> Iterator[slice]:
    """Pieces of rows whose number times their largest length is within the budget; one row is, however long."""
    start = 0
    while start < len(lengths):
        longest = np.maximum.accumulate(lengths[start:])
        within = int((longest * np.arange(1, len(longest) + 1) <= budget).sum())
        yield slice(start, start + max(1, within))
        start += max(1, within)


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
    of_model = {name: getattr(model.generation_config, name, None) for name in _TOKENS}
    of_model = {name: value for name, value in of_model.items() if value is not None}
    settings = {"pad_token_id": _pad(loaded), "decoder_start_token_id": model.config.decoder_start_token_id, **of_model}
    settings.setdefault("eos_token_id", loaded.tokenizer.eos_token_id)
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


def _nll(loaded: LoadedTeacher, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
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
