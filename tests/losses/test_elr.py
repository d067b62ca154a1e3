"""Early-learning regularisation: the penalty by hand, and a memory that no order of rows changes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.losses import EarlyTargets, early_learning_penalty


class Alone:
    num_processes = 1


def probabilities(*rows):
    return torch.tensor(rows, dtype=torch.float32).log()


def test_the_penalty_by_hand():
    logits = probabilities([0.7, 0.2, 0.1], [0.1, 0.1, 0.8])
    targets = torch.tensor([[0.5, 0.25, 0.0], [0.0, 0.0, 1.0]])
    expected = [math.log(1 - 0.7 * 0.5 - 0.2 * 0.25), math.log(1 - 0.8)]
    assert early_learning_penalty(logits, targets).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_penalty_is_finite_where_a_prediction_is_certain_and_pulls_towards_the_targets():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    penalty = early_learning_penalty(logits, torch.tensor([[1.0, 0.0]]))
    assert penalty.item() == pytest.approx(math.log(1e-4), rel=1e-3)
    logits = torch.zeros(1, 3, requires_grad=True)
    early_learning_penalty(logits, torch.tensor([[0.9, 0.0, 0.1]])).sum().backward()
    assert logits.grad.argmin() == 0 and logits.grad[0, 0] < 0 < logits.grad[0, 1]


def test_the_gradient_is_that_of_the_paper():
    """lam g_i with g_i = p_i / (1 - <p, t>) sum_k (t_k - t_i) p_k, up to its sign (equation 4)."""
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    t = torch.tensor([[0.5, 0.2, 0.1, 0.0], [0.0, 0.9, 0.0, 0.05]])
    early_learning_penalty(logits, t).sum().backward()
    p = logits.detach().softmax(-1)
    g = p / (1 - (p * t).sum(-1, keepdim=True)) * ((t * p).sum(-1, keepdim=True) - t)
    torch.testing.assert_close(logits.grad, g, rtol=1e-4, atol=1e-6)


def test_targets_average_the_visits_of_a_row():
    memory = EarlyTargets(torch.tensor([5, 9]), 2, beta=0.75)
    one, other = (probabilities([p, 1 - p]) for p in (0.8, 0.4))
    first = memory(one, torch.tensor([9]))
    torch.testing.assert_close(first, 0.25 * torch.tensor([[0.8, 0.2]]))
    assert memory.targets.abs().sum() == 0, "within a step all rows are held against what was known before it"
    memory.settle(Alone())
    torch.testing.assert_close(memory(other, torch.tensor([9])), 0.75 * first + 0.25 * torch.tensor([[0.4, 0.6]]))
    memory.begin()
    memory.settle(Alone())  # of the step that was not finished nothing is taken in
    torch.testing.assert_close(memory.targets[1:2], first)
    assert memory.targets[0].tolist() == [0, 0]


def test_an_evaluation_changes_nothing():
    memory = EarlyTargets(torch.tensor([0]), 2, beta=0.5).eval()
    memory(torch.zeros(1, 2), torch.tensor([0]))
    memory.settle(Alone())
    assert memory.targets.abs().sum() == 0


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(7)), st.integers(1, 7), st.integers(0, 99))
def test_neither_order_nor_micro_batches_change_the_memory(order, size, seed):
    ids = torch.tensor([3, 1, 4, 15, 9, 2, 6])
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed))
    whole, parts = (EarlyTargets(ids, 3, beta=0.6) for _ in range(2))
    whole(logits, ids)
    for start in range(0, 7, size):
        chosen = list(order[start : start + size])
        parts(logits[chosen], ids[chosen])
    for memory in (whole, parts):
        memory.settle(Alone())
    torch.testing.assert_close(parts.targets, whole.targets, rtol=0, atol=1e-7)
    assert torch.equal(whole.ids, ids.sort().values)


def test_a_row_that_comes_twice_in_a_step_counts_once_with_its_mean():
    memory = EarlyTargets(torch.tensor([0, 1]), 2, beta=0.5)
    memory(probabilities([0.9, 0.1], [0.5, 0.5], [0.3, 0.7]), torch.tensor([1, 0, 1]))
    memory.settle(Alone())
    torch.testing.assert_close(memory.targets[:2], torch.tensor([[0.25, 0.25], [0.3, 0.2]]))


def test_the_memory_is_in_its_state_and_belongs_to_its_rows():
    memory, again = (EarlyTargets(torch.tensor([2, 7]), 3, beta=0.5) for _ in range(2))
    memory(torch.randn(2, 3), torch.tensor([7, 2]))
    memory.settle(Alone())
    state = {name: value.clone() for name, value in memory.state_dict().items()}
    assert state.keys() == {"ids", "targets"} and not list(memory.buffers()) and not list(memory.parameters())
    again.load_state_dict(state)
    assert torch.equal(again.targets, memory.targets)
    assert again.load_state_dict({}, strict=False).missing_keys == ["ids", "targets"]
    for ids in ([2, 8], [1, 2, 7]):
        with pytest.raises(ValueError, match="the checkpoint remembers targets .2, 3. of its rows, this run has"):
            EarlyTargets(torch.tensor(ids), 3, beta=0.5).load_state_dict(state)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: early_learning_penalty(torch.zeros(2, 3), torch.zeros(2, 2)), ValueError, r"must both be \[B, C\]"),
        (lambda: early_learning_penalty([1.0], torch.zeros(1)), TypeError, "logits must be a"),
        (lambda: EarlyTargets(torch.zeros(2), 2, 0.5), TypeError, "sample_ids must"),
        (lambda: EarlyTargets(torch.zeros(0, dtype=torch.int64), 2, 0.5), ValueError, r"sample_ids must be \[N\]"),
        (lambda: EarlyTargets(torch.tensor([1]), 1, 0.5), ValueError, "num_classes must be >= 2, got 1"),
        (lambda: EarlyTargets(torch.tensor([1]), 2, 1.0), ValueError, r"beta must lie in \[0, 1\), got 1.0"),
        (lambda: EarlyTargets(torch.tensor([1]), 2, 0.5)(torch.zeros(1, 2), torch.tensor([4])), ValueError,
         "sample_id 4 is of no training row that was known"),
    ],
)  # fmt: skip
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()
