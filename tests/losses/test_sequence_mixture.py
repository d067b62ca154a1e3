"""Whole rows as clean or another writer's: the likelihood by hand and in float64, two normals of a score, writers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hf_noise.losses import document_mixture_nll, sequence_mixture_nll, sequence_posterior
from hf_noise.losses.learned_rate import LearnedErrorRate
from hf_noise.losses.other_writer import OtherWriter, SmallWriter, Unigram
from hf_noise.losses.row_evidence import RecentScores, RowEvidence, normal_posterior, two_normals

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
    writer = OtherWriter(rate=LearnedErrorRate(0.3), text=None, scores=None)
    with torch.no_grad():
        writer.rate.logit.fill_(logit)
    other = torch.tensor([2.0, math.inf])
    loss = sequence_mixture_nll(torch.ones(2, 3), other, torch.ones(2, 3, dtype=torch.bool), writer.share())
    loss.sum().backward()
    assert loss.isfinite().all() and writer.rate.logit.grad.isfinite().all()


def two_groups(n=4000, share=0.3, seed=0):
    draw = np.random.default_rng(seed)
    is_upper = draw.random(n) < share
    return torch.from_numpy(draw.normal(np.where(is_upper, 1.0, -1.0), np.where(is_upper, 0.3, 0.6))), is_upper


@pytest.mark.parametrize("share", [None, 0.3])
def test_two_normals_are_found(share):
    scores, _ = two_groups()
    start = torch.tensor([0.5, -2.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    found = two_normals(torch.ones_like(scores), scores, start, 100, share)
    assert found.tolist() == pytest.approx([0.3, -1.0, 1.0, 0.6, 0.3], abs=0.05)
    twice = two_normals(torch.full_like(scores, 2.0), scores, start, 100, share)
    torch.testing.assert_close(twice, found)


def test_a_posterior_never_falls_as_scores_rise():
    """Of the wider normal too, which would take what lies far above both."""
    normals = torch.tensor([0.5, -1.0, 1.0, 2.0, 0.2])
    found = normal_posterior(torch.linspace(-9, 9, 400), normals)
    assert (found.diff() >= 0).all() and found[0] < 1e-3 and found[-1] > 0.9
    middle = normal_posterior(torch.zeros(1), torch.tensor([0.25, -1.0, 1.0, 1.0, 1.0]))
    assert middle.item() == pytest.approx(0.25)


class OneProcess:
    reduce = staticmethod(lambda values: values)


def test_evidence_of_steps_is_that_of_all_their_rows_and_goes_on_from_a_checkpoint():
    scores, is_upper = two_groups()
    whole, parts = RecentScores(10, 0.3), RecentScores(10, 0.3)
    everyone = torch.ones(len(scores), dtype=torch.bool)
    assert not whole.has_seen
    for one, count in ((whole, 1), (parts, 8)):
        one.begin()
        for part in range(count):
            one.add(scores[part::count], everyone[part::count])
        one.settle(OneProcess.reduce)
        one.fit()
    assert torch.equal(whole.normals, parts.normals) and whole.has_seen
    assert whole.normals.tolist() == pytest.approx([0.3, -1.0, 1.0, 0.6, 0.3], abs=0.05)
    p_clean = 1 - normal_posterior(scores, whole.normals.double())
    assert ((p_clean < 0.5).numpy() == is_upper).mean() > 0.97
    again = RecentScores(10, 0.3)
    again.load_state_dict(whole.state_dict())
    for one in (whole, again):
        one.fit()
    assert torch.equal(whole.normals, again.normals) and again.has_seen


@pytest.mark.parametrize("draws", [False, True], ids=["what it finds likely", "at random"])
def test_the_score_that_tells_rows_apart_is_taken(draws):
    """Rows differ in difficulty by 1 nat. The other's are easy for both, or half a nat easier for it alone."""
    draw = torch.Generator().manual_seed(0)
    difficulty = 4 + torch.randn(3000, generator=draw)
    is_others, n = torch.arange(3000) % 3 == 0, torch.full((3000,), 10)
    own = difficulty + 0.1 * torch.randn(3000, generator=draw) - (0 if draws else 10) * is_others
    other = difficulty + 0.5 - (0.5 if draws else 10) * is_others
    evidence = RowEvidence(10, None)
    evidence.begin()
    evidence.add(10 * own, 10 * other, n)
    evidence.settle(OneProcess.reduce)
    evidence.fit()
    assert bool(evidence.uses_ratio) == draws and evidence.share().item() == pytest.approx(1 / 3, abs=0.05)
    assert ((evidence.clean_posterior(10 * own, 10 * other, n) < 0.5) == is_others).float().mean() > 0.97


def test_what_another_writes_is_learned():
    """A unigram's rows by hand; a small model reads the last tokens and the source, and never what is to come."""
    unigram = Unigram(4)
    targets = torch.tensor([[0, 3, -100], [1, -100, -100]])
    torch.testing.assert_close(unigram(targets).detach(), math.log(4) * torch.tensor([[1.0, 1, 0], [1, 0, 0]]))
    torch.manual_seed(0)
    small = SmallWriter(8, 8, width=4, context=2)
    rows, source = torch.randint(0, 8, (2, 6)), torch.randint(0, 8, (2, 5))
    whole = small(rows, source)
    assert whole.shape == (2, 6) and whole.dtype == torch.float32
    changed = rows.clone()
    changed[:, 3] = (rows[:, 3] + 1) % 8
    apart = (small(changed, source) - whole).abs() > 1e-6
    assert apart[:, 3:6].any(0).tolist() == [True, True, True] and not apart[:, :3].any()
    later = F.pad(changed, (0, 1), value=2)
    assert not torch.allclose(small(later, source)[:, 4], whole[:, 4])
    padded, mask = F.pad(source, (0, 3), value=1), F.pad(torch.ones_like(source), (0, 3))
    torch.testing.assert_close(small(rows, padded, mask), whole)
    assert SmallWriter(8, width=4)(rows).shape == (2, 6)
    missing = rows.clone()
    missing[:, 4:] = -100
    torch.testing.assert_close(small(missing, source)[:, :4], whole[:, :4])
    assert (small(missing, source)[:, 4:] == 0).all()


def test_all_that_is_learned_has_a_gradient_in_a_step_that_does_not_use_it():
    writer = OtherWriter(rate=LearnedErrorRate(0.3), text=SmallWriter(8, 8, width=4), scores=RowEvidence(5, None))
    writer.nothing().backward()
    assert all((values.grad == 0).all() for values in writer.parameters())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: sequence_mixture_nll(x, x[:, 0], EVERY, 1.0), ValueError, r"error_rate must lie in .*, got 1.0"),
        (lambda x: sequence_mixture_nll(x, x, EVERY, 0.5), ValueError, r"of_other \[B\], got \[1, 2\]"),
        (lambda x: sequence_mixture_nll(x, EVERY[:, 0], EVERY, 0.5), TypeError, "of_other must be floating-point"),
        (lambda x: sequence_posterior(x, x[:, 0], x, 0.5), TypeError, "is_target must be a mask"),
        (lambda x: two_normals(x[0], x[0], x[0], 1, None), ValueError, r"normals \[5\]"),
        (lambda x: two_normals(x[0], x[0], torch.ones(5), 1, 1.0), ValueError, r"share must lie in \(0, 1\), got 1.0"),
        (lambda x: two_normals(x[0], x[0], torch.ones(5), 0, None), ValueError, "rounds must be >= 1, got 0"),
        (lambda x: RowEvidence(0, None), ValueError, "memory must be >= 1, got 0"),
        (lambda x: SmallWriter(8, 0), ValueError, "source_size must be >= 1, got 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.ones(1, 2))
