"""What a teacher writes for the sources of pairs, and how likely it finds the targets that are in them.

Rows are worked on from long to short, so that a batch has little padding and what does not fit is known at once. What a
row becomes does not depend on its batch, up to the rounding of floats; and sampling draws from (seed, sample id).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_noise.data.cache import cache_root
from hf_noise.data.pair_tokens import tokenize_pairs
from hf_noise.data.teacher_decoding import as_written, end_tokens, generate, row_nll
from hf_noise.data.teacher_files import LoadedTeacher, load_teacher
from hf_noise.data.teacher_parts import Parts
from hf_noise.noise.arrays import IGNORE_INDEX, integers
from hf_noise.noise.checks import check_count, check_flag, check_seed
from hf_noise.pair_sizes import longest_pair

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TOKENS_PER_BATCH", "check_pairs_of", "teacher_nll", "unfinished", "write_targets", "written_rows"]

logger = logging.getLogger(__name__)

#: Padded tokens of a batch, source and output together.
TOKENS_PER_BATCH = 16_384
# Raised whenever the same teacher would write other targets for the same rows, or parts keep other columns.
_VERSION = 2


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
    settings = {"cache": cache, "tokens_per_batch": tokens_per_batch, "max_source_tokens": max_source_tokens,
                "truncate": truncate, "seed": seed, "device": device}  # fmt: skip
    return written_rows(dataset, teacher, **settings)["target"][:]


def written_rows(
    dataset: Dataset,
    teacher: LoadedTeacher | str | os.PathLike,
    *,
    cache: str | os.PathLike | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    max_source_tokens: int | None = None,
    truncate: bool = False,
    seed: int = 0,
    device: Any = None,
) -> Dataset:
    """As `write_targets`, with the tokens that the teacher chose: the text alone may have other ones.

    Returns:
        N rows in the order of those given: `target`, the text, and `target_ids` int32, its tokens in the teacher's
        tokenizer as they were chosen, without start token. They end with the end token, or, where the teacher was cut
        at its `max_new_tokens`, without one. `tokenize_pairs` and `teacher_nll` take them in place of the text.
    """
    from datasets import Dataset

    loaded, seed = _on_device(teacher, device), check_seed(seed)
    decoding = loaded.identity.decoding
    budget = check_count("tokens_per_batch", tokens_per_batch, 1, 40)
    longest = _limit(loaded, "max_source_tokens", max_source_tokens)
    limits = {"max_source_tokens": longest, "truncate": check_flag("truncate", truncate)}
    rows, sample = _text_columns(dataset, ["source"]), _ids_of(dataset)
    _check_output(loaded)
    # A teacher has seen no target, so that any will do here.
    tokens = _tokenized(loaded, {**rows, "target": ["."] * len(sample), "sample_id": sample}, limits)
    stated = {"what": "targets", "sources": tokens.sources.digest()}
    if decoding.method == "sample":
        stated |= {"seed": seed, "sample_ids": hashlib.sha256(sample.tobytes()).hexdigest()}
    parts = _parts(loaded, cache, stated)

    def work(part: np.ndarray) -> dict[str, list]:
        ids: list[np.ndarray] = []
        for batch in _batches(tokens.sources.lengths[part] + decoding.max_new_tokens, budget):
            batch = part[batch]
            made = generate(loaded, tokens.sources.padded(batch), sample[batch], seed)
            ids += as_written(loaded, made)
        return {"target": loaded.tokenizer.batch_decode(ids, skip_special_tokens=True), "target_ids": ids}

    order = np.argsort(-tokens.sources.lengths, kind="stable")
    written = parts.run(order, work, _first_part())
    if empty := sum(not text.strip() for text in written["target"].to_pylist()):
        logger.warning("%s wrote nothing for %d of %d sources", loaded.identity.name, empty, len(written))
    if share := unfinished(written["target_ids"], loaded):
        logger.warning("%s came to no end of %.2f%% of its targets, which are cut at max_new_tokens=%d",
                       loaded.identity.name, 100 * share, decoding.max_new_tokens)  # fmt: skip
    return Dataset(written)


def check_pairs_of(
    dataset: Dataset, teacher: LoadedTeacher, *, max_source_tokens: int | None = None,
    max_target_tokens: int | None = None, truncate: bool = False,
) -> None:  # fmt: skip
    """Refuse of pairs what `written_rows` and `teacher_nll` would, before either has worked; arguments as theirs."""
    limits = {"max_source_tokens": _limit(teacher, "max_source_tokens", max_source_tokens),
              "max_target_tokens": _limit(teacher, "max_target_tokens", max_target_tokens),
              "truncate": check_flag("truncate", truncate)}  # fmt: skip
    _check_output(teacher)
    _tokenized(teacher, {**_text_columns(dataset, ["source", "target"]), "sample_id": _ids_of(dataset)}, limits)


def unfinished(target_ids: pa.ChunkedArray, teacher: LoadedTeacher) -> float:
    """The share of the rows, lists of tokens, that do not end with an end token."""
    rows = _Rows.of(target_ids)
    return float(np.mean(~np.isin(rows.values[rows.starts[1:] - 1], end_tokens(teacher))))


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
        dataset: rows with `source` and `target`; `target_ids` where tokens stand for the text of a target, as those
            of `written_rows`, and None in the others; and `is_noisy` where targets that the teacher left empty are
            among them.
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
    rows |= {"sample_id": _ids_of(dataset)}
    others = [name for name in ("target_ids", "is_noisy") if name in dataset.column_names]
    table = dataset.select_columns(others).with_format("arrow")[:] if others else {}
    rows |= {name: table[name] for name in others}
    tokens = _tokenized(loaded, rows, limits)
    stated = {"what": "nll", "sources": tokens.sources.digest(), "targets": tokens.targets.digest()}
    parts = _parts(loaded, cache, stated)

    def work(part: np.ndarray) -> dict[str, Any]:
        lengths = tokens.sources.lengths[part] + tokens.targets.lengths[part]
        found = [
            row_nll(loaded, tokens.sources.padded(batch), tokens.targets.padded(batch))
            for batch in (part[piece] for piece in _batches(lengths, budget))
        ]
        return {"nll": np.concatenate(found)}

    order = np.argsort(-(tokens.sources.lengths + tokens.targets.lengths), kind="stable")
    return parts.run(order, work, _first_part())["nll"].to_numpy().astype(np.float32)


@dataclass(frozen=True)
class _Rows:
    """Lists of tokens that lie one after another, as Arrow has them: values, and where each list starts [N + 1]."""

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> _Rows:
        lengths = pc.list_value_length(column).to_numpy().astype(np.int64)
        return cls(pc.list_flatten(column).to_numpy(), np.concatenate([[0], np.cumsum(lengths)]))

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def digest(self) -> str:
        """64 hexadecimal digits that are equal only where all tokens are."""
        digest = hashlib.sha256(self.starts.astype("<i8").tobytes())
        for start in range(0, len(self.values), 1 << 20):  # not all of them twice in memory
            digest.update(self.values[start : start + (1 << 20)].astype("<i8").tobytes())
        return digest.hexdigest()

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

    rows = tokenize_pairs(Dataset.from_dict(dict(columns)), loaded.tokenizer, **limits).with_format("arrow")[:]
    return _Tokens(_Rows.of(rows["input_ids"]), _Rows.of(rows["labels"]))


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


def _check_output(loaded: LoadedTeacher) -> None:
    most, positions = loaded.identity.decoding.max_new_tokens, longest_pair(loaded.model)[1]
    if positions is not None and most > positions:
        raise ValueError(f"max_new_tokens={most} is more than the {positions} positions of the teacher "
                         f"{loaded.identity.name!r}; lower it: decoding={{'max_new_tokens': {positions}}}")  # fmt: skip


def _limit(loaded: LoadedTeacher, name: str, asked: int | None) -> int | None:
    """The longest source or target that may be; None for any, where positions are relative as those of T5."""
    positions = longest_pair(loaded.model)[name == "max_target_tokens"]
    if asked is not None:
        asked = check_count(name, asked, 2, 31)
    return positions if asked is None else asked if positions is None else min(asked, positions)


def _parts(loaded: LoadedTeacher, cache: str | os.PathLike | None, stated: Mapping[str, Any]) -> Parts:
    number = str(loaded.model.dtype).removeprefix("torch.")  # that of its files, unless it was cast since
    stated = {"version": _VERSION, "teacher": asdict(loaded.identity), "dtype": number, **stated}
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
