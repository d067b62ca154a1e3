"""Documents of noise in a stream of text, before it is cut into rows: between its documents, or after the last."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from hf_noise.data.reading import CorpusError
from hf_noise.noise.mixture import DocumentNoise

__all__ = ["Mixture", "ShardText", "mixed_rows"]

logger = logging.getLogger(__name__)

_TOKENS_AT_ONCE = 1 << 18  # of rows that are drawn together

#: Some tokens of a text, int32 [n], and where documents end among them, integers [k] in (0, n].
Text = tuple[np.ndarray, np.ndarray]
#: Rows of tokens, int32 [n, L], and which of them are noise, bool [n, L].
Block = tuple[np.ndarray, np.ndarray]


@dataclass
class ShardText:
    """The text of a shard: its index, the sample id of its first row, and its tokens in pieces."""

    index: int
    first_id: int
    pieces: Iterable[Text]


class Mixture:
    """A stream of text and of noise, cut into rows of which alpha is exact to one token.

    Documents of noise have the length of a row. The one of number i stands at the end of the first document of text at
    which the share asks for i + 1 such documents and a random part of one more, which belongs to the seed and the
    document's number; so noise never runs ahead of the share. What is missing of it stands at the end, where less than
    a row of text is dropped. Memory holds a row of text that is not yet in the stream, beside what comes in.

    Args:
        noise: its alpha may be 0.
        length: L, tokens of a row.
        number: of the first document of noise; None if all noise is to come last.

    Attributes:
        clean, noisy: tokens in the stream so far.
    """

    def __init__(self, noise: DocumentNoise, length: int, number: int | None = None):
        self.noise, self.length, self.number = noise, length, number
        self.clean = self.noisy = 0
        self._held, self._ends = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
        self._parts, self._waiting = [(self._held, np.empty(0, dtype=bool))], 0  # of the stream, less than a row

    def rows(self, pieces: Iterable[Text]) -> Iterator[Block]:
        """The rows that are sure when these pieces have come; what is noise in them has no tokens yet."""
        for tokens, ends in pieces:
            self._ends = np.concatenate([self._ends, self.clean + self._held.size + ends])
            self._held = np.concatenate([self._held, tokens])
            yield from self._release(self._held.size - self.length)

    def cut(self) -> Iterator[Block]:
        """The last whole row of text; what is left after it is dropped, as another text begins."""
        yield from self._release(self.length - self._waiting)
        self._held, self._ends = self._held[:0], self._ends[:0]

    def finish(self) -> Iterator[Block]:
        """The rows that are left, and all noise that is missing."""
        rows = rows_of(self.noise.alpha, self.length, self.clean + self._held.size)
        noisy = round(self.noise.alpha * rows * self.length)
        yield from self._release(rows * self.length - noisy - self.clean)
        while (missing := noisy - self.noisy) > 0:
            yield from self._add_noise(min(missing, _TOKENS_AT_ONCE))
        yield from self._cut_rows()

    def _release(self, n: int) -> Iterator[Block]:
        """The next n tokens of text go into the stream, and the noise that stands among them."""
        if n <= 0:
            return
        text, self._held = self._held[:n], self._held[n:]
        is_inside = self._ends <= self.clean + n
        ends, self._ends = self._ends[is_inside], self._ends[~is_inside]
        start, first = 0, self.clean
        for end, documents in self._placed(ends):
            yield from self._add(text[start : end - first], is_noise=False)
            start = end - first
            for _ in range(documents):
                yield from self._add_noise(self.length)
        yield from self._add(text[start:], is_noise=False)
        self.clean = first + n
        yield from self._cut_rows()

    def _placed(self, ends: np.ndarray) -> list[tuple[int, int]]:
        """Of these ends of documents, those at which noise stands, and how many documents of it."""
        if self.number is None or not ends.size or not self.noise.alpha:
            return []
        # The last term: what is rounded to a token at the end may be this much less.
        worth = (self.noise.ratio * ends - 1 / (1 - self.noise.alpha)) / self.length
        placed = self.noisy // self.length
        numbers = np.arange(placed, max(placed, int(worth[-1])) + 1)
        upto = placed + np.searchsorted(numbers + 1 + self.noise.jitter(self.number + numbers), worth, side="right")
        documents = np.diff(upto, prepend=placed)
        return [(int(ends[i]), int(documents[i])) for i in np.flatnonzero(documents)]

    def _add_noise(self, n: int) -> Iterator[Block]:
        self.noisy += n
        yield from self._add(np.zeros(n, dtype=np.int32), is_noise=True)

    def _add(self, tokens: np.ndarray, is_noise: bool) -> Iterator[Block]:
        self._parts.append((tokens, np.full(tokens.size, is_noise)))
        self._waiting += tokens.size
        if self._waiting >= _TOKENS_AT_ONCE:
            yield from self._cut_rows()

    def _cut_rows(self) -> Iterator[Block]:
        """The whole rows of what waits in the stream."""
        tokens, mask = map(np.concatenate, zip(*self._parts, strict=True))
        whole = tokens.size // self.length * self.length
        self._parts, self._waiting = [(tokens[whole:], mask[whole:])], tokens.size - whole
        if whole:
            yield tokens[:whole].reshape(-1, self.length), mask[:whole].reshape(-1, self.length)


def rows_of(alpha: float, length: int, n_clean: int) -> int:
    """Rows of a mixture of `n_clean` tokens of text, as many of them as fill rows; of a row is less than all dropped.

    R rows hold round(alpha R L) tokens of noise, and the rest is text.
    """

    def text_of(rows: int) -> int:
        return rows * length - round(alpha * rows * length)

    rows = int(n_clean / (length * (1 - alpha)))
    while text_of(rows) > n_clean:
        rows -= 1
    while text_of(rows + 1) <= n_clean:
        rows += 1
    return rows


def mixed_rows(
    shards: Iterable[ShardText], noise: DocumentNoise, length: int, first_noise_id: int | None, told: str
) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray]]:
    """The rows of some shards with their noise: keys, tokens int32 [n, L], mask bool [n, L] and ids int64 [n].

    What is noise of the row with the id s is the same part of `noise.rows(s, L)`.

    Args:
        first_noise_id: of the rows that hold noise where it comes last; None where each shard has its own share.
        told: what the shards are of, for messages.

    Raises CorpusError: alpha is less than one token of all rows, where it comes last.
    """
    if first_noise_id is None:
        made = _spread(shards, noise, length)
    else:
        made = _appended(shards, noise, length, first_noise_id, told)
    for key, tokens, mask, ids in made:
        at_once = max(1, _TOKENS_AT_ONCE // length)
        for start in range(0, len(ids), at_once):
            some = slice(start, start + at_once)
            yield (*key, start), drawn(tokens[some], mask[some], ids[some], noise), mask[some], ids[some]


def drawn(tokens: np.ndarray, mask: np.ndarray, ids: np.ndarray, noise: DocumentNoise) -> np.ndarray:
    """The tokens [n, L] with those of the noise where the mask says so."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size:
        tokens = tokens.copy()
        tokens[rows] = np.where(mask[rows], noise.rows(ids[rows], tokens.shape[1]), tokens[rows])
    return tokens


def _spread(shards: Iterable[ShardText], noise: DocumentNoise, length: int) -> Iterator[tuple]:
    for shard in shards:
        mixture, numbered = Mixture(noise, length, shard.first_id), _Numbers(shard.first_id, shard.index)
        for block in chain(mixture.rows(shard.pieces), mixture.finish()):
            yield numbered(*block)


def _appended(
    shards: Iterable[ShardText], noise: DocumentNoise, length: int, first_noise_id: int, told: str
) -> Iterator[tuple]:
    mixture, numbered = Mixture(noise, length), None
    index = 0
    for shard in shards:
        index = max(index, shard.index)
        pieces = _with_a_row(shard.pieces, length)
        if pieces is None:
            continue
        if numbered is not None:
            for block in mixture.cut():
                yield numbered(*block)
        numbered = _Numbers(shard.first_id, shard.index)
        for block in mixture.rows(pieces):
            yield numbered(*block)
    of_noise = _Numbers(first_noise_id, index + 1)
    for tokens, mask in mixture.finish():
        n_clean = int((~mask.any(axis=1)).sum())  # they come first
        if n_clean:
            yield numbered(tokens[:n_clean], mask[:n_clean])
        if n_clean < len(tokens):
            yield of_noise(tokens[n_clean:], mask[n_clean:])
    if noise.alpha > 0 and mixture.clean and not mixture.noisy:
        raise CorpusError(less_than_a_token(noise.alpha, mixture.clean, told))


def less_than_a_token(alpha: float, n: int, told: str) -> str:
    """The message that the share of noise is nothing."""
    return f"alpha={alpha} of the {n} tokens of {told} is less than one token of noise; raise alpha=, or give more text"


class _Numbers:
    """Gives blocks their keys and sample ids, which count up."""

    def __init__(self, first_id: int, index: int):
        self.next_id, self.index, self.blocks = first_id, index, -1

    def __call__(self, tokens: np.ndarray, mask: np.ndarray) -> tuple:
        ids = np.arange(self.next_id, self.next_id + len(tokens), dtype=np.int64)
        self.next_id, self.blocks = self.next_id + len(tokens), self.blocks + 1
        return (self.index, self.blocks), tokens, mask, ids


def _with_a_row(pieces: Iterable[Text], length: int) -> Iterator[Text] | None:
    """The same pieces, or None where they do not fill a row of text."""
    first, n, pieces = [], 0, iter(pieces)
    for piece in pieces:
        first.append(piece)
        n += piece[0].size
        if n >= length:
            return chain(first, pieces)
    return None
