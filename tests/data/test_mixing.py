"""Documents of noise in a stream of text: a share exact to a token, whole text, the same rows for any pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.data.mixing import Mixture, ShardText, mixed_rows, rows_of
from hf_noise.data.reading import CorpusError
from hf_noise.noise import RandomDocuments

V, FIRST = 64, 9 << 40


def noise_of(alpha, placement="interleave", seed=1):
    return RandomDocuments(alpha=alpha, vocab_size=V, placement=placement, seed=seed)


def pieces_of(lengths, at_once=3, start=1):
    """Documents of these lengths, whose tokens count up from `start`, so many of them in a piece."""
    pieces, first = [], start
    for i in range(0, len(lengths), at_once):
        ends = np.cumsum(lengths[i : i + at_once])
        pieces.append((np.arange(first, first + ends[-1], dtype=np.int32), ends))
        first += int(ends[-1])
    return pieces


def made(shards, noise, length, first=None):
    """All tokens, mask and ids of some shards, each the pieces of its text."""
    texts = [ShardText(i, i << 40, pieces) for i, pieces in enumerate(shards)]
    blocks = list(mixed_rows(texts, noise, length, first, "a text"))
    keys = [key for key, *_ in blocks]
    assert len(set(keys)) == len(keys)
    if not blocks:
        return np.empty((0, length), int), np.empty((0, length), bool), np.empty(0, int)
    return tuple(np.concatenate(parts) for parts in list(zip(*blocks))[1:])


def test_four_rows_by_hand():
    """Twelve tokens of text in rows of 4 at alpha = 1/4: one row of noise after three, by one end of a document.

    The first document of noise is due once the text is worth one and a part of a second: not before the end.
    """
    tokens, mask, ids = made([pieces_of([5, 4, 3])], noise_of(0.25), 4)
    assert mask.tolist() == [[False] * 4] * 3 + [[True] * 4] and ids.tolist() == [0, 1, 2, 3]
    assert tokens[:3].reshape(-1).tolist() == list(range(1, 13))
    assert tokens[3].tolist() == noise_of(0.25).rows(3, 4).tolist()


def test_a_row_straddles_by_hand():
    """Ten tokens of text in rows of 4 at alpha = 1/4: three rows, 3 tokens of noise, and one of text is dropped."""
    tokens, mask, ids = made([pieces_of([10])], noise_of(0.25, "append"), 4, FIRST)
    assert mask.astype(int).tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1]]
    assert tokens[:2].reshape(-1).tolist() == list(range(1, 9)) and tokens[2, 0] == 9
    assert ids.tolist() == [0, 1, FIRST] and tokens[2, 1:].tolist() == noise_of(0.25).rows(FIRST, 4)[1:].tolist()


@given(length=st.integers(1, 50), alpha=st.floats(0, 0.99), n=st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_as_many_rows_as_the_text_fills(length, alpha, n):
    rows = rows_of(alpha, length, n)
    needed = [more * length - round(alpha * more * length) for more in (rows, rows + 1)]
    assert rows >= 0 and needed[0] <= n < needed[1]


lengths_of_documents = st.lists(st.integers(1, 40), min_size=1, max_size=40)


@given(
    lengths=lengths_of_documents, length=st.integers(1, 20), alpha=st.floats(0, 0.95), seed=st.integers(0, 9),
    at_once=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_noise_between_documents(lengths, length, alpha, seed, at_once):
    noise = noise_of(alpha, seed=seed)
    tokens, mask, ids = made([pieces_of(lengths, at_once[0])], noise, length)
    for one, other in zip((tokens, mask, ids), made([pieces_of(lengths, at_once[1])], noise, length)):
        assert np.array_equal(one, other)
    assert abs(int(mask.sum()) - alpha * mask.size) <= 0.5 + 1e-6 and (ids == np.arange(len(ids))).all()
    text = tokens[~mask]
    assert text.tolist() == list(range(1, 1 + text.size))  # in order, none left out
    assert sum(lengths) - text.size < max(2, length)
    assert (tokens[mask] == noise.rows(ids, length)[mask]).all()
    # Noise begins where a document ends, but for what is missing at the end.
    flat = mask.reshape(-1)
    begins = np.flatnonzero(flat[1:] & ~flat[:-1]) + 1
    ends = set(np.cumsum(lengths).tolist())
    before = [int((~flat[:begin]).sum()) for begin in begins]
    assert all(n in ends for n in before[:-1]) and (not before or before[-1] in ends or before[-1] == text.size)
    # It never runs ahead of the share, but for the half token that is rounded at the end.
    most = 0.5 / (1 - alpha) + 1e-6
    assert all(flat[:i].sum() <= noise.ratio * (~flat[:i]).sum() + most for i in range(1, flat.size + 1))


@given(
    shards=st.lists(lengths_of_documents, min_size=1, max_size=4), length=st.integers(1, 20),
    alpha=st.floats(0, 0.95), at_once=st.integers(1, 9),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_noise_after_the_text_of_all_shards(shards, length, alpha, at_once):
    noise = noise_of(alpha, "append")
    texts = [pieces_of(lengths, at_once, start=1 + 10_000 * i) for i, lengths in enumerate(shards)]
    try:
        tokens, mask, ids = made(texts, noise, length, FIRST)
    except CorpusError as error:
        assert alpha > 0 and "is less than one token of noise; raise alpha=" in str(error)
        return
    flat, has_noise = mask.reshape(-1), mask.any(axis=1)
    assert abs(int(flat.sum()) - alpha * flat.size) <= 0.5 + 1e-6 and not (flat[:-1] & ~flat[1:]).any()
    assert (has_noise == (ids >= FIRST)).all() and np.unique(ids).size == ids.size
    assert (tokens[mask] == noise.rows(ids, length)[mask]).all()
    # Rows of text are those without noise, but for the last shard's end.
    n = int((~has_noise).sum())
    expected = [np.arange(1 + 10_000 * i, 1 + 10_000 * i + sum(of) // length * length) for i, of in enumerate(shards)]
    whole = np.concatenate(expected)
    assert (tokens[:n].reshape(-1) == whole[: n * length]).all() and whole.size - (~flat).sum() < length


def test_without_noise_the_rows_are_those_of_a_packing():
    tokens, mask, ids = made([pieces_of([3, 9, 2]), pieces_of([1]), pieces_of([9])], noise_of(0.0, "append"), 4, FIRST)
    assert tokens.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert not mask.any() and ids.tolist() == [0, 1, 2, 2 << 40, (2 << 40) + 1]


def test_memory_holds_a_row_of_text():
    """However long the stream: what waits is a row of text, and less than one of the mixture."""
    mixture, noise_at_once = Mixture(noise_of(0.5), 8, 0), 0
    for tokens, _ in mixture.rows(pieces_of([20] * 500, at_once=1)):
        noise_at_once = max(noise_at_once, len(tokens))
        assert mixture._held.size <= 8 + 20 and mixture._waiting < 8 and len(mixture._parts) == 1
    assert noise_at_once <= 8 and mixture.noisy > 4000


def test_a_share_of_nothing_is_refused():
    with pytest.raises(CorpusError, match="alpha=0.001 of the 100 tokens of a text is less than one token of noise"):
        made([pieces_of([100])], noise_of(0.001, "append"), 10, FIRST)
