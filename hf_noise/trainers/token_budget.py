"""Batches of pairs of like length, as many as a budget of tokens holds: the same for any number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from hf_noise.noise.counter import stream_key, words_at
from hf_noise.trainers.parts import is_table, per_row

__all__ = ["TokenBudget", "pair_lengths"]

# Apart from what noises draw from the same seed, whose streams are small numbers.
_STREAM = 1 << 32
_TIES, _ROWS, _ORDER = range(3)
# So many batches that are next to each other by length share their rows anew in every epoch, of `_POOLS` times as many.
_POOL, _POOLS = 8, 16
_CHUNK = 10_000  # rows that are read at once


class TokenBudget(Sampler[list[int]]):
    """Batches of row numbers for a DataLoader's `batch_sampler=`: rows of like length, within a budget of tokens.

    A batch of n pairs has n * (longest source + longest target) tokens, padding included. Rows are sorted by source in
    strips, in these by target, and cut into batches by the budget; a few batches that are next to each other deal out
    their rows anew in each epoch, where that takes no more batches, and those of an epoch come in random order. All of
    it is a pure function of lengths, seed and epoch, and the number of batches is the same in all epochs. It is a
    multiple of those of a step, which have about equal cost: two processes take the steps of one that accumulates two
    passes. Every row comes once in an epoch. Only where each is a batch of its own the last step may be a short one,
    and where they are no multiple of the processes, the shortest come twice, fewer than there are processes.

    Args:
        sources, targets: integers [N], tokens of each row.
        budget: tokens of one process's batch.
        num_processes: that train together; batch k is of process k mod P.
        passes: batches of a process that are accumulated for a step.
        seed: of the order.
        named: of row i for messages, by default its number.

    Raises:
        ValueError: a row alone has more tokens than the budget; there are fewer rows than processes.
    """

    batch_size = None  # by which accelerate knows batches of any size
    drop_last = False

    def __init__(
        self, sources: np.ndarray, targets: np.ndarray, budget: int, *, num_processes: int = 1, passes: int = 1,
        seed: int = 0, named: Any = None,
    ):  # fmt: skip
        self._lengths = np.stack([np.asarray(sources, np.int64), np.asarray(targets, np.int64)], axis=1)
        self.budget, self.num_processes, self.seed, self.epoch = budget, num_processes, seed, 0
        self._per_step = num_processes * passes
        total = self._lengths.sum(1)
        if len(total) < num_processes:
            raise ValueError(f"{len(total)} rows for {num_processes} processes; train on more, or in fewer processes")
        if (over := total > budget).any():
            row = int(total.argmax())
            raise ValueError(
                f"{int(over.sum())} of {len(total)} rows have more tokens than tokens_per_batch={budget}, the most row "
                f"{row if named is None else named(row)} with {total[row]} (source {self._lengths[row, 0]}, target "
                f"{self._lengths[row, 1]}); raise it, or cut or leave out long rows"
            )
        self._order = self._sorted()
        self._pools = self._cut()

    def __len__(self) -> int:
        n = sum(batches for _, _, batches in self._pools)
        return n + -n % self.num_processes

    @property
    def rows_per_step(self) -> float:
        """Rows of an optimiser step of all processes, on average."""
        return len(self._lengths) * self._per_step / len(self)

    def set_epoch(self, epoch: int) -> None:
        """Deal out the batches of this epoch from now on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        batches = []
        for start, stop, number in self._pools:
            rows = self._order[start:stop]
            if number > 1:
                rows = rows[np.argsort(self._words(_ROWS, rows), kind="stable")]
            batches += np.array_split(rows, number)
        cost = self._costs(batches)
        if missing := -len(batches) % self.num_processes:
            batches += [batches[k] for k in np.argsort(cost, kind="stable")[:missing]]
            cost = self._costs(batches)
        alike, whole = np.argsort(cost, kind="stable"), len(batches) - len(batches) % self._per_step
        steps = alike[:whole].reshape(-1, self._per_step)
        shuffled = steps[np.argsort(self._words(_ORDER, np.arange(len(steps))), kind="stable")]
        for k in [*shuffled.reshape(-1), *alike[whole:]]:
            yield batches[k].tolist()

    def padding_share(self) -> float:
        """Share of the tokens of this epoch's batches that are padding."""
        batches = list(iter(self))
        tokens = sum(int(self._lengths[rows].sum()) for rows in batches)
        return 1 - tokens / float(self._costs(batches).sum())

    def _words(self, what: int, position: np.ndarray) -> np.ndarray:
        return words_at(stream_key(self.seed, _STREAM + what, 0 if what == _TIES else self.epoch), position)

    def _costs(self, batches: list[Any]) -> np.ndarray:
        return np.array([len(rows) * self._lengths[rows].max(0).sum() for rows in batches])

    def _sorted(self) -> np.ndarray:
        """Numbers of rows by source in as many strips as each has batches, and in these by target, to and fro."""
        sources, targets = self._lengths.T
        ties = self._words(_TIES, np.arange(len(sources)))
        batches = max(1.0, self._lengths.sum() / self.budget)
        strips = max(1, round(np.sqrt(batches)))
        by_source = np.lexsort((ties, targets, sources))
        strip = np.empty(len(sources), dtype=np.int64)
        # Of about equal tokens, not rows.
        strip[by_source] = np.minimum(
            np.cumsum(sources[by_source] + targets[by_source]) * strips // max(1, self._lengths.sum()), strips - 1
        )
        forth = np.where(strip % 2, -targets, targets)
        return np.lexsort((ties, sources, forth, strip))

    def _cut(self) -> list[list[int]]:
        """Stretches [start, stop) of the sorted rows and the number of batches that each is dealt out to."""
        cuts, lengths = [0], self._lengths[self._order].tolist()
        longest = [0, 0]
        for i, (source, target) in enumerate(lengths):
            longest = [max(longest[0], source), max(longest[1], target)]
            if (i + 1 - cuts[-1]) * sum(longest) > self.budget:
                cuts.append(i)
                longest = [source, target]
        cuts.append(len(lengths))
        size = min(_POOL, max(1, (len(cuts) - 1) // _POOLS))
        edges = [*cuts[:-1:size], cuts[-1]]
        pools = []
        for k, (start, stop) in enumerate(zip(edges, edges[1:])):
            own = cuts[k * size : (k + 1) * size + 1]
            rows = self.budget // int(self._lengths[self._order[start:stop]].max(0).sum())
            dealt = -(-(stop - start) // rows) if rows else len(lengths)
            if dealt <= (len(own) - 1) * (1 + 1 / _POOL):
                pools.append([start, stop, dealt])
            else:  # too different in length: more batches would be needed, or more padding
                pools += [[one, two, 1] for one, two in zip(own, own[1:])]
        for _ in range(-sum(pool[2] for pool in pools) % self._per_step):  # the largest are split once more
            largest = max(pools, key=lambda pool: (pool[1] - pool[0]) / pool[2])
            if largest[1] - largest[0] == largest[2]:  # each row is a batch already
                break
            largest[2] += 1
        return pools


def pair_lengths(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of source and of target of each row, int64 [N] each; tables are asked for lengths alone.

    Raises:
        ValueError: a row lacks `input_ids` or `labels`, or one is no list.
    """
    return tuple(per_row(rows, _lengths).T)


def _lengths(data: Any, index: np.ndarray | None) -> np.ndarray:
    """Tokens of source and target, int64 [N, 2]."""
    names = ("input_ids", "labels")
    if is_table(data) and all(name in data.column_names for name in names):
        import pyarrow.compute as pc

        table = data.with_format("arrow").select_columns(list(names))
        table = table if index is None else table.select(index)
        made = [
            [pc.list_value_length(part[name]).to_numpy() for name in names] for part in table.iter(batch_size=_CHUNK)
        ]
        both = [np.concatenate(one) for one in zip(*made)] if made else [np.empty(0), np.empty(0)]
        return np.stack(both, axis=1).astype(np.int64)
    made = np.empty((len(data) if index is None else len(index), 2), dtype=np.int64)
    for i, number in enumerate(range(len(data)) if index is None else index.tolist()):
        row = data[number]
        for k, name in enumerate(names):
            if not isinstance(row, Mapping) or not hasattr(row.get(name), "__len__"):
                raise ValueError(f"row {number} has no {name}, a list of tokens: {row!r:.80}; "
                                 "hf_noise.tokenize_pairs makes them from texts")  # fmt: skip
            made[i, k] = len(row[name])
    return made
