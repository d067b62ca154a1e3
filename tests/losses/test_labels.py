"""Losses of labels: what the correction by T means, its gradient, smoothing, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.losses import label_nll, log_columns


def random_case(seed, n=6, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64) * 3
    labels = torch.randint(classes, (n,), generator=generator)
    transition = torch.rand(classes, classes, generator=generator, dtype=torch.float64)
    return logits, labels, transition / transition.sum(1, keepdim=True)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_corrected_is_the_likelihood_of_the_noisy_label(seed):
    logits, labels, transition = random_case(seed)
    q = F.softmax(logits, -1) @ transition
    expected = -torch.log(q[torch.arange(6), labels])
    torch.testing.assert_close(label_nll(logits, labels, log_columns(transition)), expected)


@given(seed=st.integers(0, 2**31), smoothing=st.floats(0, 0.9))
@settings(max_examples=40, deadline=None)
def test_without_a_matrix_and_with_the_identity_it_is_cross_entropy(seed, smoothing):
    logits, labels, _ = random_case(seed)
    expected = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(label_nll(logits, labels, None, smoothing), expected)
    columns = log_columns(torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(label_nll(logits, labels, columns, smoothing), expected, rtol=1e-6, atol=1e-6)


@given(seed=st.integers(0, 2**31), smoothing=st.sampled_from([0.0, 0.3]))
@settings(max_examples=15, deadline=None)
def test_gradients_agree_with_differences(seed, smoothing):
    logits, labels, transition = random_case(seed)
    columns = log_columns(transition)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: label_nll(x, labels, columns, smoothing), logits)


def test_gradients_stay_finite_where_the_matrix_has_zeros():
    logits = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    cyclic = 0.5 * torch.eye(3) + 0.5 * torch.eye(3).roll(1, 1)
    loss = label_nll(logits, torch.tensor([2]), log_columns(cyclic))
    loss.sum().backward()
    # Label 2 comes of class 1 or 2; at 200 nats below class 0 the loss is 200 + log 2, and its slope -1 and +1.
    assert loss.item() == pytest.approx(200 + math.log(2), rel=1e-6)
    assert torch.allclose(logits.grad, torch.tensor([[1.0, -1.0, 0.0]]), atol=1e-6)


@pytest.mark.parametrize("label", [-1, -100, 4])
@pytest.mark.parametrize("corrected", [False, True])
def test_labels_outside_the_classes_are_refused(label, corrected):
    columns = log_columns(torch.eye(4)) if corrected else None
    with pytest.raises(ValueError, match=rf"labels must lie in \[0, 4\), got {label}"):
        label_nll(torch.zeros(2, 4), torch.tensor([0, label]), columns)


@pytest.mark.parametrize(
    ("transition", "message"),
    [
        (torch.ones(2, 3) / 3, r"must be \[C, C\] with C >= 2 classes, got \[2, 3\]"),
        (torch.ones(1, 1), r"C >= 2 classes, got \[1, 1\]"),
        (torch.tensor([[0.5, 0.5 + 3e-6], [0.0, 1.0]]), "sum to 1"),
        (torch.tensor([[0.5, 0.4], [0.0, 1.0]]), "sum to 1"),
        (torch.tensor([[1.5, -0.5], [0.0, 1.0]]), ">= 0"),
        (torch.tensor([[math.nan, 1.0], [0.0, 1.0]]), "sum to 1"),
    ],
)
def test_what_is_no_transition_matrix_is_refused(transition, message):
    with pytest.raises(ValueError, match=message):
        log_columns(transition)
