"""Rows as clean text or documents of noise: the likelihood by hand, and its gradient as the posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hf_noise.losses import document_mixture_nll
from hf_noise.losses.document_mixture import LearnedDocuments, noise_nll, noise_table

EVERY = torch.ones(1, 2, dtype=torch.bool)


def test_one_row_by_hand():
    """Two targets of probability 1/2 and 1/4 as text, 1/4 each as noise: (3/4) / 8 + (1/4) / 16 = 7/64."""
    nll = -torch.log(torch.tensor([[0.5, 0.25]]))
    parts = document_mixture_nll(nll, torch.full((1, 2), math.log(4)), EVERY, 0.25)
    torch.testing.assert_close(parts, torch.full((1, 2), -math.log(7 / 64) / 2))


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.05, 0.9])
def test_its_gradient_is_the_posterior_times_that_of_the_likelihood(alpha):
    draw = torch.Generator().manual_seed(0)
    nll = (5 * torch.rand(4, 6, generator=draw, dtype=torch.float64)).requires_grad_()
    of_noise = 5 * torch.rand(4, 6, generator=draw, dtype=torch.float64)
    is_target = torch.rand(4, 6, generator=draw) < 0.7
    is_target[3] = False
    parts = document_mixture_nll(nll, of_noise, is_target, alpha)
    clean, noise = (-(values * is_target).sum(-1).detach() for values in (nll, of_noise))
    both = (1 - alpha) * clean.exp() + alpha * noise.exp()
    torch.testing.assert_close(parts.sum(-1), -both.log() * is_target.any(-1))
    assert (parts[~is_target] == 0).all()
    (found,) = torch.autograd.grad(parts.sum(), nll)
    torch.testing.assert_close(found, ((1 - alpha) * clean.exp() / both).unsqueeze(-1) * is_target)


def test_long_rows_keep_their_precision():
    """Of thousands of nats, where text and noise differ by one: in float32 their sums would not."""
    nll = torch.full((2, 4096), 3.0, requires_grad=True)
    of_noise = torch.full((2, 4096), 3.0)
    of_noise[0, 0] += 1
    of_noise[1, 0] -= 1
    parts = document_mixture_nll(nll, of_noise, torch.ones(2, 4096, dtype=torch.bool), 0.5)
    (found,) = torch.autograd.grad(parts.sum(), nll)
    expected = torch.sigmoid(torch.tensor([[1.0], [-1.0]])).expand(2, 4096)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("alpha", [0.3, torch.tensor([0.3], requires_grad=True)], ids=["stated", "learned"])
def test_a_token_that_noise_never_draws_makes_a_row_clean(alpha):
    nll = torch.tensor([[2.0, 90.0]], requires_grad=True)
    parts = document_mixture_nll(nll, torch.tensor([[0.1, math.inf]]), EVERY, alpha)
    assert parts.sum().item() == pytest.approx(92 - math.log(0.7))
    learned = [nll, alpha] if isinstance(alpha, torch.Tensor) else [nll]
    found = torch.autograd.grad(parts.sum(), learned)
    assert found[0].tolist() == [[1, 1]]
    assert len(found) == 1 or found[1].item() == pytest.approx(1 / 0.7)


def test_the_share_learns_towards_the_rows_that_are_noise():
    """d/d alpha of -log((1 - a) p + a q) is (p - q) / ((1 - a) p + a q), here of q = e p."""
    alpha = torch.tensor([0.25], requires_grad=True)
    parts = document_mixture_nll(torch.ones(1, 2), torch.full((1, 2), 0.5), EVERY, alpha)
    (found,) = torch.autograd.grad(parts.sum(), alpha)
    assert found.item() == pytest.approx((1 - math.e) / (0.75 + 0.25 * math.e))


def test_the_table_of_a_noise_and_of_a_unigram():
    table = noise_table(np.array([0.25, 0.0, 0.75]), 5)
    assert table.tolist() == pytest.approx([math.log(4), math.inf, math.log(4 / 3), math.inf, math.inf])
    assert noise_nll(table, torch.tensor([[0, -100], [4, 1]])).tolist()[0] == [table[0].item(), 0]
    learned = LearnedDocuments(alpha=True, vocab_size=4)
    torch.testing.assert_close(learned.table().detach(), torch.full((4,), math.log(4)))
    assert learned.alpha().item() == pytest.approx(0.05)
    learned.nothing().backward()
    assert all((values.grad == 0).all() for values in learned.parameters())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: document_mixture_nll(x, x, EVERY, 1.0), ValueError, r"alpha must lie in \[0, 1\), got 1.0"),
        (lambda x: document_mixture_nll(x, x[:, :1], EVERY, 0.5), ValueError, "must be .* of one shape"),
        (lambda x: document_mixture_nll(x, EVERY, EVERY, 0.5), TypeError, "of_noise must be floating-point"),
        (lambda x: document_mixture_nll(x, x, EVERY, x), ValueError, r"alpha must be one number, got .* \[1, 2\]"),
        (lambda x: noise_table(np.ones(3) / 3, 2), ValueError, "the noise draws ids up to 2 .*, the model knows 2"),
        (lambda x: LearnedDocuments(alpha=False, vocab_size=None), ValueError, "there is nothing to learn"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.ones(1, 2))


@pytest.mark.parametrize("logit", [-120.0, 20.0])
def test_a_learned_share_at_its_ends_has_a_gradient(logit):
    learned = LearnedDocuments(alpha=True, vocab_size=None)
    with torch.no_grad():
        learned.alpha.logit.fill_(logit)
    nll, of_noise = torch.full((2, 3), 1.0), torch.tensor([[2.0] * 3, [math.inf] * 3])
    loss = document_mixture_nll(nll, of_noise, torch.ones(2, 3, dtype=torch.bool), learned.share())
    loss.sum().backward()
    assert loss.isfinite().all() and learned.alpha.logit.grad.isfinite().all()
