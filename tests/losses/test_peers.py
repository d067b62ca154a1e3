"""Losses that others published for noisy targets: worked out by hand, and as their definitions have them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.losses import (
    error_norm_nll,
    error_norms,
    generalised_cross_entropy,
    logits,
    smoothed_nll,
    truncated_nll,
)
from hf_noise.losses.truncated import Dropped, RecentLosses, row_means

TARGETS = torch.tensor([[1, 0, -100], [4, -100, 2]])


@pytest.fixture
def some_logits():
    """`some_logits(dtype)`: [2, 3, 5], the same each time, with a gradient."""

    def make(dtype=torch.float64):
        draw = torch.Generator().manual_seed(0)
        return (3 * torch.randn(2, 3, 5, generator=draw)).to(dtype).requires_grad_()

    return make


def nll_of(z, smoothing=0.0, targets=TARGETS):
    wide = z.flatten(0, 1).to(torch.promote_types(z.dtype, torch.float32))
    return F.cross_entropy(wide, targets.flatten(), reduction="none", label_smoothing=smoothing).view(targets.shape)


def gradient(losses, weights, of):
    return torch.autograd.grad((losses * weights).sum(), of)[0]


WEIGHTS = torch.tensor([[0.5, 2.0, 7.0], [1.0, 7.0, 0.25]])


# ---- generalised cross-entropy


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [(0.5, 1.0, 0.5), (0.25, 0.5, 1.0), (1.0, 0.7, 0.0), (0.0, 0.5, 2.0), (0.125, 0.0, math.log(8)),
     (0.0, 0.0, math.inf)],
)  # fmt: skip
def test_generalised_cross_entropy_by_hand(p, q, expected):
    found = generalised_cross_entropy(-torch.tensor(p, dtype=torch.float64).log(), q)
    assert found.item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("q", [0.0, 1e-30, 1e-19, 1e-6, 0.3, 1.0])
def test_its_gradient_is_p_to_the_q_also_where_q_vanishes_or_p_does(q):
    nll = torch.tensor([0.0, 1e-6, 0.5, 3.0, 80.0, math.inf], requires_grad=True)
    found = generalised_cross_entropy(nll, q)
    expected = nll if q < 1e-7 else (1 - torch.exp(-q * nll.double())) / q
    torch.testing.assert_close(found[:5].double(), expected[:5].double(), rtol=1e-4 if q == 1e-6 else 1e-6, atol=1e-9)
    (slope,) = torch.autograd.grad(found.sum(), nll)
    torch.testing.assert_close(slope[:5], torch.exp(-q * nll[:5].detach()))
    assert not slope.isnan().any()


def test_half_precision_is_computed_in_single():
    nll = torch.tensor([1e-3, 9.0], dtype=torch.bfloat16)
    found = generalised_cross_entropy(nll, 1e-3)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, generalised_cross_entropy(nll.float(), 1e-3).bfloat16())


# ---- label smoothing


def test_smoothing_by_hand():
    z = torch.tensor([0.0, math.log(3.0)])  # p = 1/4 and 3/4
    found = smoothed_nll(torch.tensor(math.log(4.0)), z, torch.tensor(0), 0.5)
    assert found.item() == pytest.approx(0.5 * math.log(4) + 0.25 * (math.log(4) + math.log(4 / 3)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("at_once", [1, 1 << 19])
def test_smoothing_is_torchs_in_value_and_gradient(some_logits, monkeypatch, smoothing, at_once):
    monkeypatch.setattr(logits, "_AT_ONCE_ON_CPU", at_once)
    z = some_logits()
    found, expected = smoothed_nll(nll_of(z), z, TARGETS, smoothing), nll_of(z, smoothing)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(found, WEIGHTS, z), gradient(expected, WEIGHTS, z), rtol=1e-12, atol=1e-12)


def test_smoothing_of_half_precision_and_where_there_is_no_target(some_logits):
    z = some_logits(torch.bfloat16)
    with torch.no_grad():
        z[0, 2] = torch.tensor([-300.0, 300.0, 0.0, 0.0, 300.0])  # exp would overflow
    found, expected = smoothed_nll(nll_of(z), z, TARGETS, 0.1), nll_of(z, 0.1)
    assert found.dtype == torch.float32 and (found[TARGETS < 0] == 0).all()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    ours, torchs = gradient(found, WEIGHTS, z), gradient(expected, WEIGHTS, z)
    assert ours.dtype == torch.bfloat16 and (ours[TARGETS < 0] == 0).all()
    torch.testing.assert_close(ours, torchs, rtol=1e-2, atol=1e-2)


# ---- error norms


@pytest.mark.parametrize(
    ("z", "expected"),
    [([0.0] * 4, math.sqrt(3) / 2), ([0.0, 200.0, 0.0, 0.0], math.sqrt(2)), ([200.0, 0.0, 0.0, 0.0], 0.0),
     ([0.0, math.log(3.0)], math.sqrt(2) * 0.75)],
)  # fmt: skip
def test_error_norms_by_hand(z, expected):
    z = torch.tensor(z)
    assert error_norms(F.cross_entropy(z, torch.tensor(0)), z, torch.tensor(0)).item() == pytest.approx(expected)


@pytest.mark.parametrize("at_once", [1, 7, 1 << 19])
def test_error_norms_are_those_of_the_definition(some_logits, monkeypatch, at_once):
    monkeypatch.setattr(logits, "_AT_ONCE_ON_CPU", at_once)
    z = some_logits()
    norms = error_norms(nll_of(z), z, TARGETS)
    expected = (z.softmax(-1) - F.one_hot(TARGETS.clamp(min=0), 5)).norm(dim=-1).where(TARGETS >= 0, 0)
    torch.testing.assert_close(norms, expected.detach(), rtol=1e-12, atol=1e-12)
    assert not norms.requires_grad
    threshold = norms[TARGETS >= 0].median().item()
    kept = error_norm_nll(nll_of(z), z, TARGETS, threshold)
    is_kept = norms <= threshold
    assert torch.equal(kept, nll_of(z) * is_kept) and 0 < is_kept[TARGETS >= 0].sum() < (TARGETS >= 0).sum()
    ours, plain = gradient(kept, WEIGHTS, z), gradient(nll_of(z), WEIGHTS, z)
    torch.testing.assert_close(ours, plain * is_kept.unsqueeze(-1), rtol=1e-12, atol=1e-12)


def test_error_norms_of_half_precision_and_where_there_is_no_target(some_logits):
    z = some_logits(torch.bfloat16)
    with torch.no_grad():
        z[0, 2] = torch.tensor([-300.0, 300.0, 0.0, 0.0, 300.0])  # exp would overflow
    kept = error_norm_nll(nll_of(z), z, TARGETS, math.sqrt(2))
    assert torch.equal(kept, nll_of(z)) and kept.dtype == torch.float32
    ours = gradient(kept, WEIGHTS, z)
    assert ours.dtype == torch.bfloat16 and (ours[TARGETS < 0] == 0).all()
    torch.testing.assert_close(ours, gradient(nll_of(z), WEIGHTS, z), rtol=2e-2, atol=1e-2)
    with torch.no_grad():
        assert torch.equal(error_norm_nll(nll_of(z), z, TARGETS, math.sqrt(2)), kept)


def test_error_norms_in_half_precision_learn_from_targets_that_are_nearly_certain():
    """At p = 0.998 bfloat16 has no number between p and 1, so p - 1 must not be made of p."""
    z = torch.zeros(1, 4, 1000, dtype=torch.bfloat16)
    z[0, :, 7] = torch.tensor([10.0, 12.0, 13.0, 14.0])
    z.requires_grad_()
    targets = torch.full((1, 4), 7)
    ours = gradient(error_norm_nll(nll_of(z, targets=targets), z, targets, math.sqrt(2)), torch.ones(1, 4), z)
    plain = gradient(nll_of(z, targets=targets), torch.ones(1, 4), z)
    assert (plain[..., 7] < 0).all()
    torch.testing.assert_close(ours[..., 7], plain[..., 7], rtol=2e-2, atol=0)


# ---- truncation


def test_truncation_drops_what_lies_above_and_hides_no_nan():
    nll = torch.tensor([[1.0, 2.0], [3.0, math.nan]], requires_grad=True)
    found = truncated_nll(nll, torch.tensor(2.0))
    assert found.tolist()[0] == [1, 2] and found[1, 0] == 0 and found[1, 1].isnan()
    (slope,) = torch.autograd.grad(found[:, 0].sum(), nll)
    assert slope.tolist() == [[1, 0], [0, 0]]
    assert torch.equal(truncated_nll(nll[0], torch.tensor(math.inf)), nll[0])
    assert truncated_nll(torch.full((3,), math.inf), torch.tensor(1.0)).tolist() == [0, 0, 0]


def test_rows_are_dropped_by_the_mean_of_their_targets():
    nll = torch.tensor([[1.0, 5.0, 9.0], [3.0, 4.0, 9.0], [9.0, 9.0, 9.0]])
    is_target = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    means = row_means(nll, is_target)
    assert means.tolist() == [[3.0], [3.5], [0.0]]
    assert truncated_nll(nll, torch.tensor(3.25), means)[:2].tolist() == [[1, 5, 9], [0, 0, 0]]
    with pytest.raises(ValueError, match=r"by must spread over nll \[3, 3\]"):
        truncated_nll(nll, torch.tensor(1.0), means[:2])


def observed(parts, memory=10):
    """Losses of steps, each a list of micro-batches."""
    recent = RecentLosses(memory)
    for step in parts:
        for losses in map(torch.tensor, step):
            every = torch.ones(len(losses), dtype=torch.bool)
            recent.observe(losses, every, losses > 3, every)
        recent.settle(lambda values: values)
    return recent


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 70, width=32), min_size=1, max_size=60), st.data())
def test_a_quantile_is_that_of_the_losses_and_the_same_for_any_micro_batches(losses, data):
    cut = data.draw(st.integers(0, len(losses)))
    share = data.draw(st.floats(1e-3, 1))
    whole, cut = observed([[losses]]), observed([[losses[:cut], losses[cut:]]])
    assert torch.equal(whole.histogram, cut.histogram) and torch.equal(whole.counts, cut.counts)
    found = whole.quantile(share).item()
    capped = np.minimum(losses, 64)
    for near, side in ((found - 1 / 64 - 1e-4, "below"), (found + 1 / 64 + 1e-4, "above")):
        count = (capped <= near).mean()  # of the exact distribution
        assert count <= share + 1e-6 if side == "below" else count >= share - 1e-6
    assert whole.share == np.mean(np.float32(losses) > 3)


def test_the_past_fades():
    """With a memory of two steps the weights of the last three are 1/4, 1/2 and 1."""
    recent = observed([[[1.0]], [[2.0]], [[3.0]]], memory=2)
    table = recent.histogram / recent.histogram.sum()
    assert table[[64, 128, 192]].tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert recent.quantile(3 / 7).item() == pytest.approx(2.0, abs=1 / 32)
    assert RecentLosses(2).quantile(0.5).item() == math.inf
    odd = observed([[[math.nan, math.inf, 1e30]]])
    assert odd.histogram[[0, -1]].tolist() == [1 << 16, 2 << 16] and odd.quantile(1.0) == 64


def test_sums_stay_in_half_precision_and_what_was_not_finished_is_forgotten():
    recent = observed([[[1.0, 4.0]]])
    before = recent.histogram.clone()
    assert torch.equal(recent.bfloat16().histogram, before) and recent.share == 0.5
    dropped = Dropped()
    dropped.book(torch.tensor([True, False]), torch.tensor([True, True]))
    dropped.begin()
    dropped.settle(lambda values: values)
    assert dropped.share == 0 and dropped.counts.tolist() == [0, 0]


NLL, Z, Y = torch.zeros(2), torch.zeros(2, 5), torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: generalised_cross_entropy(NLL, 1.5), ValueError, r"q must lie in \[0, 1\], got 1.5"),
        (lambda: smoothed_nll(NLL, Z, Y, 1.0), ValueError, r"smoothing must lie in \[0, 1\), got 1.0"),
        (lambda: smoothed_nll(NLL, Z, Y[:1], 0.1), ValueError, r"targets \[...\], got logits \[2, 5\].*targets \[1\]"),
        (lambda: smoothed_nll(NLL, Z, Y + 5, 0.1), ValueError, r"targets must lie in \[0, 5\).*or be -100, got 5"),
        (lambda: smoothed_nll(NLL, Z, NLL, 0.1), TypeError, "targets must be integers"),
        (lambda: error_norm_nll(NLL, Z, Y, 1.5), ValueError, r"threshold must lie in \(0, 1.414.*got 1.5"),
        (lambda: error_norms(NLL, Z.long(), Y), TypeError, "logits must be floating-point"),
        (lambda: truncated_nll(NLL, torch.zeros(2)), ValueError, r"threshold must be a single number \[\], got \[2\]"),
        (lambda: truncated_nll(NLL, 2.0), TypeError, "threshold must be a tensor"),
        (lambda: RecentLosses(0), ValueError, "memory must be >= 1, got 0"),
        (lambda: RecentLosses(2).quantile(0.0), ValueError, r"share must lie in \(0, 1\], got 0.0"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
