"""Batches by a budget of tokens: every row once, within the budget, the same for a seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Subset

from hf_noise.trainers.seq2seq_batches import noisy_pairs
from hf_noise.trainers.stored import ids_behind
from hf_noise.trainers.token_budget import TokenBudget, pair_lengths

PAIRS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 15)), min_size=4, max_size=300)


def lengths(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """As of summaries: long sources, short targets."""
    draw = np.random.default_rng(seed)
    sources, targets = draw.lognormal(5.5, 0.7, n), draw.lognormal(3.5, 0.5, n)
    return np.clip(sources, 20, 1500).astype(int), np.clip(targets, 5, 150).astype(int)


@settings(max_examples=60, deadline=None)
@given(
    pairs=PAIRS, budget=st.integers(55, 400), processes=st.integers(1, 4), passes=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_each_row_once_within_the_budget(pairs, budget, processes, passes, epoch):
    sources, targets = np.array(pairs).T
    batches = TokenBudget(sources, targets, budget, num_processes=processes, passes=passes, seed=3)
    expected = len(batches)
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == expected == len(batches) and expected % processes == 0
    assert expected % (processes * passes) == 0 or max(map(len, found)) == 1
    rows = sorted(row for batch in found for row in batch)
    if len(rows) > len(pairs):  # each row is a batch of its own, and the last step needs one for each process
        assert max(map(len, found)) == 1 and len(rows) - len(pairs) < processes
    assert sorted(set(rows)) == list(range(len(pairs)))
    for batch in found:
        assert len(batch) * (sources[batch].max() + targets[batch].max()) <= budget and batch


def test_a_pure_function_of_seed_and_epoch():
    made = [TokenBudget(*lengths(3000), 8192, seed=seed) for seed in (1, 1, 2)]
    for batches in made:
        batches.set_epoch(4)
    first, again, other = map(list, made)
    assert first == again and first != other
    made[0].set_epoch(5)
    assert list(made[0]) != first
    made[0].set_epoch(4)  # as a resumed run does
    assert list(made[0]) == first
    as_sets = {frozenset(batch) for batch in first}
    made[0].set_epoch(0)
    same = sum(frozenset(batch) in as_sets for batch in made[0])
    assert same < 0.6 * len(first), "rows of like length are dealt out anew where that costs no more batches"


@pytest.mark.parametrize("budget", [8192, 2000])
def test_a_step_has_the_batches_of_processes_or_of_passes(budget):
    shared = [TokenBudget(*lengths(500), budget, num_processes=p, passes=4 // p, seed=1) for p in (1, 2, 4)]
    one, two, four = map(list, shared)
    assert one == two == four and len(one) % 4 == 0
    short = TokenBudget([9] * 10, [1] * 10, 10, num_processes=2, passes=4)  # 10 batches: of 8 and of 2
    assert sorted(row for batch in short for row in batch) == list(range(10)) and len(short) == 10


def test_padding_is_little_and_processes_have_equal_cost():
    sources, targets = lengths(20_000)
    batches = TokenBudget(sources, targets, 16384, num_processes=4)
    cost = np.array([len(rows) * (sources[rows].max() + targets[rows].max()) for rows in batches]).reshape(-1, 4)
    assert batches.padding_share() == pytest.approx(1 - (sources + targets).sum() / cost.sum())
    assert batches.padding_share() < 0.12
    assert (cost.max(1) / cost.mean(1)).mean() < 1.02
    order = np.random.default_rng(0).permutation(len(sources))[:19_968].reshape(-1, 32)
    plain = 1 - (sources + targets)[order].sum() / (32 * (sources[order].max(1) + targets[order].max(1))).sum()
    assert plain > 0.5


def test_what_cannot_be_a_batch_is_refused():
    with pytest.raises(ValueError, match="1 of 3 rows have more tokens than tokens_per_batch=50, .* row 7 with 61"):
        TokenBudget([10, 60, 5], [1, 1, 1], 50, named=lambda row: 6 + row)
    assert sorted(TokenBudget([40, 30, 20], [1, 1, 1], 50, num_processes=2)) == [[0], [1], [2], [2]]
    with pytest.raises(ValueError, match="2 rows for 3 processes"):
        TokenBudget([1, 1], [1, 1], 50, num_processes=3)
    # One row for each of three processes, though one batch would hold them all.
    assert sorted(TokenBudget([1, 1, 1], [1, 1, 1], 50, num_processes=3)) == [[0], [1], [2]]


def test_what_is_read_of_several_data_sets_stands_in_the_order_of_their_rows():
    """As `random_split` of two data sets takes them, and again of what it gives."""
    rows = [{"input_ids": [1] * (i + 1), "labels": [1] * (i % 3 + 1), "sample_id": 7 * i, "is_noisy": i % 4 == 0}
            for i in range(9)]  # fmt: skip
    both = ConcatDataset([Dataset.from_list(rows[:4]), rows[4:]])
    mixed = Subset(both, [5, 0, 8, 1, 5, -3, 3])
    for data in (both, mixed, Subset(mixed, [6, 1, 0, 0, 2]), ConcatDataset([mixed, both]), Subset(both, [])):
        seen = [data[i] for i in range(len(data))]
        assert [one.tolist() for one in pair_lengths(data)] == [
            [len(row[name]) for row in seen] for name in ("input_ids", "labels")
        ]
        assert ids_behind(data).tolist() == [row["sample_id"] for row in seen]
        assert noisy_pairs(data).tolist() == [row["is_noisy"] for row in seen]


def test_lengths_of_tables_lists_and_parts():
    rows = [{"input_ids": list(range(i + 1)), "labels": [1] * (i % 3 + 1)} for i in range(9)]
    expected = [list(range(1, 10)), [1, 2, 3] * 3]
    table = Dataset.from_list(rows)
    assert [one.tolist() for one in pair_lengths(rows)] == expected
    assert [one.tolist() for one in pair_lengths(table)] == expected
    order = [5, 2, 7]
    chosen = table.select(order)
    for data in (chosen, Subset(table, order), Subset(rows, order), chosen.with_format("torch")):
        assert [one.tolist() for one in pair_lengths(data)] == [[one[i] for i in order] for one in expected]
    with pytest.raises(ValueError, match="row 1 has no labels"):
        pair_lengths([rows[0], {"input_ids": [1]}])
