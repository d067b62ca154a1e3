"""Sample ids that a data set brings along: noise belongs to an id, so that two rows of one id would share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from hf_noise.data.reading import CorpusError

__all__ = ["SeenIds", "check_unique", "sample_ids"]

# Ids that are held at once, 128 MiB.
_HELD = 1 << 24
# An odd number whose multiples spread over all 64 bits (2^64 / golden ratio).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def sample_ids(column: pa.ChunkedArray | pa.Array, name: str) -> np.ndarray:
    """Sample ids as int64 [n]; ValueError if some are null."""
    if nulls := column.null_count:
        raise ValueError(
            f"the sample ids in column {name!r} hold {nulls} null(s), and noise belongs to an id; give "
            "each row a stable integer, or drop those rows"
        )
    return column.to_numpy().astype(np.int64, copy=False)


def check_unique(batches: Callable[[], Iterable[np.ndarray]], where: str) -> None:
    """Raise CorpusError if an id comes twice, with the number of such rows; any number of ids in constant memory.

    Args:
        batches: gives all ids anew, int64 [n] at a time. Ids that only grow are read once; others are looked at in as
            many rounds as they need, 16 million at a time.
        where: what the ids are of, for the message.
    """
    rows, last, grows = 0, None, True
    for ids in batches():
        if ids.size:
            grows = grows and (last is None or ids[0] > last) and bool((ids[1:] > ids[:-1]).all())
            rows, last = rows + ids.size, ids[-1]
    if grows:
        return
    rounds = -(-rows // _HELD)
    again, example = 0, None
    for number in range(rounds):
        held = np.empty(0, np.int64)
        for ids in _chunks(batches(), number, rounds):
            held, counts = np.unique(np.concatenate([held, ids]), return_counts=True)
            again += int(counts.sum()) - held.size
            if example is None and counts.max(initial=0) > 1:
                example = int(held[counts.argmax()])
    if again:
        raise repeated(again, rows, example, where)


def _chunks(batches: Iterable[np.ndarray], number: int, rounds: int) -> Iterator[np.ndarray]:
    """The ids of one round, many at a time; equal ids are of the same round."""
    parts, waiting = [], 0
    for ids in batches:
        if rounds > 1:
            ids = ids[(ids.view(np.uint64) * _SPREAD >> np.uint64(32)) % np.uint64(rounds) == number]
        parts.append(ids)
        waiting += ids.size
        if waiting >= _HELD:
            yield np.concatenate(parts)
            parts, waiting = [], 0
    if parts:
        yield np.concatenate(parts)


def repeated(count: int, rows: int, example: int | None, where: str) -> CorpusError:
    """The error that says that ids come again."""
    named = f", such as {example}" if example is not None else ""
    return CorpusError(
        f"{where}: {count} of {rows} rows have a sample id that another row has before them{named}; noise belongs to "
        "an id, so that these rows would share it. Give each row of the data set an integer of its own, in all splits "
        "and files, or remove or rename the column, and rows are numbered"
    )


class SeenIds:
    """The ids that a stream has given so far, the last 16 million of them.

    Args:
        where: what the ids are of, for the message.
    """

    def __init__(self, where: str) -> None:
        self.where, self.rows = where, 0
        self._parts: list[np.ndarray] = []  # each sorted, from large to small
        self._shards: set[int] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return SeenIds, (self.where,)  # another process starts with what it sees itself

    def of_shard(self, shard: int) -> SeenIds:
        """Where the ids of a shard are added: here, or anew if the shard was here before, as in another epoch."""
        seen = SeenIds(self.where) if shard in self._shards else self
        seen._shards.add(shard)
        return seen

    def add(self, ids: np.ndarray) -> None:
        """Raise CorpusError if one of these ids came before, or comes twice in them; int64 [n]."""
        self.rows += ids.size
        new = np.sort(ids)
        again = new[1:][new[1:] == new[:-1]]
        for part in self._parts:
            place = np.minimum(np.searchsorted(part, new), part.size - 1)
            again = np.concatenate([again, new[part[place] == new]])
        if again.size:
            raise repeated(again.size, self.rows, int(again[0]), self.where)
        # Merged as they grow to equal sizes, so that there are few.
        while self._parts and self._parts[-1].size <= new.size:
            new = np.sort(np.concatenate([self._parts.pop(), new]), kind="stable")
        if new.size:
            self._parts.append(new)
        if len(self._parts) > 1 and sum(part.size for part in self._parts) > _HELD:
            self._parts.pop(0)
