"""Whole rows as clean or another writer's: the likelihood by hand and in float64, two normals of a score, writers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hf_noise.losses import document_mixture_nll, sequence_mixture_nll, sequence_posterior
from hf_noise.losses.learned_rate import LearnedErrorRate
from hf_noise.losses.other_writer import EarlyCopy, OtherWriter, Unigram
from hf_noise.losses.row_evidence import Overtaken, RecentScores, normal_posterior, two_normals

EVERY = torch.ones(1, 2, dtype=torch.bool)


def test_one_row_by_hand():
    """Two targets of probability 1/2 and 1/4 here, 1/16 for both elsewhere: (3/4) / 8 + (1/4) / 16 = 7/64."""
    nll = -torch.log(torch.tensor([[0.5, 0.25]]))
    parts = sequence_mixture_nll(nll, torch.tensor([math.log(16)]), EVERY, 0.25)
    torch.testing.assert_close(parts, torch.full((1, 2), -math.log(7 / 64) / 2))
    assert sequence_posterior(nll, torch.tensor([math.log(16)]), EVERY, 0.25).item() == pytest.approx(6 / 7)


@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_and_its_gradients_are_those_of_the_formula(rate, dtype):
    """By autograd of the formula as it stands, in float64; with a row without a target, and one of another's alone."""
    draw = torch.Generator().manual_seed(0)
    exact = (3 * torch.rand(5, 7, generator=draw, dtype=torch.float64)).requires_grad_()
    of_other = (20 * torch.rand(5, generator=draw, dtype=torch.float64)).requires_grad_()
    is_target = torch.rand(5, 7, generator=draw) < 0.7
    is_target[3] = False
    own = (exact * is_target).sum(-1)
    naive = -torch.log((1 - rate) * torch.exp(-own) + rate * torch.exp(-of_other))
    expected = torch.autograd.grad(naive[is_target.any(-1)].sum(), (exact, of_other))
    nll, other = (one.detach().to(dtype).requires_grad_() for one in (exact, of_other))
    parts = sequence_mixture_nll(nll, other, is_target, rate)
    assert parts.dtype == dtype and (parts[~is_target] == 0).all()
    near = {"rtol": 2e-6, "atol": 1e-7} if dtype == torch.float32 else {}
    torch.testing.assert_close(parts.sum(-1).double(), naive * is_target.any(-1), **near)
    found = torch.autograd.grad(parts.sum(), (nll, other))
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours.double(), theirs, **near)
    posterior = sequence_posterior(nll, other, is_target, rate)
    torch.testing.assert_close(found[0].double(), posterior.unsqueeze(-1) * is_target, **near)
    assert posterior[3].item() == pytest.approx((1 - rate) / (1 - rate + rate * math.exp(-of_other[3].item())))


def test_a_document_is_a_row_of_another_writer():
    draw = torch.Generator().manual_seed(1)
    nll, of_noise = torch.rand(4, 6, generator=draw), torch.rand(4, 6, generator=draw)
    is_target = torch.rand(4, 6, generator=draw) < 0.5
    other = of_noise.where(is_target, 0).sum(-1)
    ours = sequence_mixture_nll(nll, other, is_target, 0.3)
    torch.testing.assert_close(ours, document_mixture_nll(nll, of_noise, is_target, 0.3))


def test_long_rows_keep_their_precision():
    """256 tokens of 40 nats, where one nat tells the two apart: sums in float32 would be off by a thousandth."""
    nll = torch.full((2, 256), 40.0, requires_grad=True)
    other = torch.tensor([10241.0, 10239.0])
    parts = sequence_mixture_nll(nll, other, torch.ones(2, 256, dtype=torch.bool), 0.5)
    (found,) = torch.autograd.grad(parts.sum(), nll)
    torch.testing.assert_close(found, torch.sigmoid(torch.tensor([[1.0], [-1.0]])).expand(2, 256), rtol=1e-5, atol=0)


@pytest.mark.parametrize("logit", [-120.0, 20.0])
def test_a_learned_share_at_its_ends_has_a_gradient(logit):
    writer = OtherWriter(rate=LearnedErrorRate(0.3))
    with torch.no_grad():
        writer.rate.logit.fill_(logit)
    other = torch.tensor([2.0, math.inf])
    loss = sequence_mixture_nll(torch.ones(2, 3), other, torch.ones(2, 3, dtype=torch.bool), writer.share())
    loss.sum().backward()
    assert loss.isfinite().all() and writer.rate.logit.grad.isfinite().all()


def two_groups(n=4000, share=0.3, seed=0):
    draw = np.random.default_rng(seed)
    is_upper = draw.random(n) < share
    return torch.from_numpy(np.where(is_upper, 1.0, -1.0) + draw.normal(0, 0.5, n)), is_upper


@pytest.mark.parametrize("share", [None, 0.3])
def test_two_normals_are_found(share):
    scores = two_groups()[0].sort().values
    found = two_normals(torch.ones_like(scores), scores, share)
    assert found.tolist() == pytest.approx([0.3, -1.0, 1.0, 0.5], abs=0.05)
    torch.testing.assert_close(two_normals(torch.full_like(scores, 2.0), scores, share), found)


@pytest.mark.parametrize("outliers", [0, 16])
def test_one_group_is_not_taken_for_the_others(outliers):
    """A fit without a prior makes 16 odd rows one group and 1,600 the other: e = 0.99, and nothing would be learned."""
    draw = np.random.default_rng(0)
    scores = torch.from_numpy(np.sort(np.concatenate([draw.normal(-3, 0.5, 1600), draw.normal(-8, 0.1, outliers)])))
    share, low, high, _ = two_normals(torch.ones_like(scores), scores, None).tolist()
    assert 0.1 < share < 0.55 and low <= high


def test_a_posterior_never_falls_as_scores_rise():
    normals = torch.tensor([0.5, -1.0, 1.0, 0.7])
    found = normal_posterior(torch.linspace(-9, 9, 400), normals)
    assert (found.diff() >= 0).all() and found[0] < 1e-3 and found[-1] > 0.999
    middle = normal_posterior(torch.zeros(1), torch.tensor([0.25, -1.0, 1.0, 1.0]))
    assert middle.item() == pytest.approx(0.25)
    by_hand = 0.25 * math.exp(-0.5 * 0.25) / (0.25 * math.exp(-0.5 * 0.25) + 0.75 * math.exp(-0.5 * 2.25))
    found = normal_posterior(torch.tensor([0.5]), torch.tensor([0.25, -1.0, 1.0, 1.0]))
    assert found.item() == pytest.approx(by_hand)


class OneProcess:
    reduce = staticmethod(lambda values: values)


def test_evidence_of_steps_is_that_of_all_their_rows_and_goes_on_from_a_checkpoint():
    scores, is_upper = two_groups()
    whole, parts = RecentScores(10, 0.3), RecentScores(10, 0.3)
    everyone = torch.ones(len(scores), dtype=torch.bool)
    assert not whole.settled()
    for one, count in ((whole, 1), (parts, 8)):
        one.begin()
        for part in range(count):
            one.add(scores[part::count], everyone[part::count])
        one.settle(OneProcess.reduce)
        assert one.settled()
    assert torch.equal(whole.normals, parts.normals)
    assert whole.normals.tolist() == pytest.approx([0.3, -1.0, 1.0, 0.5], abs=0.05)
    assert ((whole.clean_posterior(scores) < 0.5).numpy() == is_upper).mean() > 0.95
    again = RecentScores(10, 0.3)
    again.load_state_dict(whole.state_dict())
    for one in (whole, again):
        one.fit()
    assert torch.equal(whole.normals, again.normals) and again.has_seen


def test_a_likelihood_waits_until_the_model_has_overtaken_the_other():
    state, every = Overtaken(10), torch.ones(4, dtype=torch.bool)
    for scores, expected in (([0.5, 0.5, 0.5, -0.2], False), ([-1.0, -1, -1, 0], True), ([3.0, 3, 3, 3], True)):
        state.begin()
        state.add(torch.tensor(scores), every)
        state.settle(OneProcess.reduce)
        assert state.settled() and bool(state.has_begun) == expected, scores
    again = Overtaken(10)
    again.load_state_dict(state.state_dict())
    assert again.has_begun


def test_what_another_writes_is_learned_or_copied():
    unigram = Unigram(4)
    targets = torch.tensor([[0, 3, -100], [1, -100, -100]])
    torch.testing.assert_close(unigram(targets).detach(), math.log(4) * torch.tensor([[1.0, 1, 0], [1, 0, 0]]))
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    early = EarlyCopy(model)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    model.add_module("hf_noise_beside", OtherWriter(early=early))
    assert not early.is_there and not torch.equal(early.network[0].weight, model[0].weight)
    early.take(model)
    assert torch.equal(early.network[0].weight, model[0].weight) and not early.network[0].weight.requires_grad
    with torch.no_grad():
        model[0].weight.fill_(4.0)
    again = EarlyCopy(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))
    again.load_state_dict(early.state_dict())
    assert again.is_there and (again.network[0].weight == 3).all()


def test_all_that_is_learned_has_a_gradient_in_a_step_that_does_not_use_it():
    early = EarlyCopy(torch.nn.Linear(2, 2))
    writer = OtherWriter(rate=LearnedErrorRate(0.3), text=Unigram(8), scores=RecentScores(5, None), early=early)
    writer.nothing().backward()
    assert all((values.grad == 0).all() for values in (writer.rate.logit, writer.text.logits))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: sequence_mixture_nll(x, x[:, 0], EVERY, 1.0), ValueError, r"error_rate must lie in .*, got 1.0"),
        (lambda x: sequence_mixture_nll(x, x, EVERY, 0.5), ValueError, r"of_other \[B\], got \[1, 2\]"),
        (lambda x: sequence_mixture_nll(x, EVERY[:, 0], EVERY, 0.5), TypeError, "of_other must be floating-point"),
        (lambda x: sequence_posterior(x, x[:, 0], x, 0.5), TypeError, "is_target must be a mask"),
        (lambda x: two_normals(x, x, None), ValueError, r"must be \[K\], got \[1, 2\]"),
        (lambda x: two_normals(x[0], x[0], 1.0), ValueError, r"share must lie in \(0, 1\), got 1.0"),
        (lambda x: RecentScores(0, None), ValueError, "memory must be >= 1, got 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.ones(1, 2))
