"""Transition-aware weights and the loss they are for: known answers, both routes, a plain loop, and the optimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from hf_noise.losses import LabelTransition, dsm_loss, edm_weight, tdsm_loss, transition_aware_weights

T = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]]  # asymmetric: its transpose gives other weights
SYMMETRIC = [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]]
ALL_LABELS = torch.arange(3)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def rows(posterior):
    """The same posterior for every observed label."""
    return double(posterior).expand(len(posterior), -1)


def random_case(seed, n=6, classes=4, diagonal=0.5):
    """Labels, a well-conditioned T, clean posteriors."""
    generator = torch.Generator().manual_seed(seed)
    rest = torch.rand(classes, classes, generator=generator, dtype=torch.float64)
    transition = diagonal * torch.eye(classes) + (1 - diagonal) * rest / rest.sum(1, keepdim=True)
    logits = 4 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return torch.randint(classes, (n,), generator=generator), transition, logits.softmax(-1)


# ---- the weights


@pytest.mark.parametrize(
    ("transition", "clean", "noisy", "expected"),
    [
        (T, [0.5, 0.3, 0.2], [0.38, 0.40, 0.22],
         [[0.921053, 0.078947, 0.0], [0.25, 0.6, 0.15], [0.227273, 0.136364, 0.636364]]),
        (SYMMETRIC, [0.5, 0.3, 0.2], [0.40, 0.32, 0.28],
         [[0.75, 0.15, 0.10], [0.3125, 0.5625, 0.125], [0.357143, 0.214286, 0.428571]]),
        (SYMMETRIC, [0.97, 0.02, 0.01], [0.588, 0.208, 0.204],
         [[0.989796, 0.006803, 0.003401], [0.932692, 0.057692, 0.009615], [0.95098, 0.019608, 0.029412]]),
    ],
)  # fmt: skip
def test_worked_examples_by_both_routes(transition, clean, noisy, expected):
    by_bayes = transition_aware_weights(ALL_LABELS, transition, clean_posterior=rows(clean))
    by_inverse = transition_aware_weights(ALL_LABELS, transition, noisy_posterior=rows(noisy))
    torch.testing.assert_close(by_bayes, double(expected), rtol=0, atol=1e-6)
    torch.testing.assert_close(by_inverse, double(expected), rtol=0, atol=1e-6)


def test_a_posterior_that_is_no_mixture_is_clamped():
    q = rows([0.05, 0.85, 0.10])
    raw = transition_aware_weights(ALL_LABELS, T, noisy_posterior=q, clamp=False, renormalise=False)
    expected = [[-1.166667, 2.166667, 0.0], [-0.019608, 1.019608, 0.0], [-0.083333, 1.083333, 0.0]]
    torch.testing.assert_close(raw, double(expected), rtol=0, atol=1e-6)
    weights = transition_aware_weights(ALL_LABELS, T, noisy_posterior=q)
    torch.testing.assert_close(weights, double([[0.0, 1.0, 0.0]] * 3), rtol=0, atol=1e-9)


@given(seed=st.integers(0, 2**31), diagonal=st.floats(0.3, 1.0), classes=st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_both_routes_agree(seed, diagonal, classes):
    labels, transition, clean = random_case(seed, classes=classes, diagonal=diagonal)
    assume(torch.linalg.cond(transition) < 1e3)  # else one of the routes is refused
    by_bayes = transition_aware_weights(labels, transition, clean_posterior=clean)
    by_inverse = transition_aware_weights(labels, transition, noisy_posterior=clean @ transition, max_condition=1e3)
    torch.testing.assert_close(by_inverse, by_bayes, rtol=0, atol=1e-6)
    plain = transition.T[labels] * clean
    torch.testing.assert_close(by_bayes, plain / plain.sum(1, keepdim=True), rtol=0, atol=1e-12)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_the_prior_of_the_papers_formula_cancels(seed):
    """S u = q / p(noisy), w = S u p(noisy) / q, with S, u and p(noisy) of any prior."""
    labels, transition, q = random_case(seed)
    prior = double([0.4, 0.3, 0.2, 0.1])
    marginal = prior @ transition
    reverse = prior * transition.T / marginal[:, None]
    u = torch.linalg.solve(reverse, (q / marginal).T).T
    expected = reverse[labels] * u / (q / marginal).gather(1, labels[:, None])
    for given_prior in (None, prior):
        raw = transition_aware_weights(
            labels, transition, noisy_posterior=q, prior=given_prior, clamp=False, renormalise=False
        )
        torch.testing.assert_close(raw, expected, rtol=1e-8, atol=1e-8)


@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 300), route=st.sampled_from(["clean", "noisy"]))
@settings(max_examples=40, deadline=None)
def test_weights_are_probabilities_whatever_the_classifier_says(seed, scale, route):
    labels, transition, _ = random_case(seed)
    logits = scale * torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    for posterior in ({"logits": True, f"{route}_posterior": logits}, {f"{route}_posterior": logits.softmax(-1)}):
        weights = transition_aware_weights(labels, transition, **posterior)
        assert weights.dtype == torch.float32
        assert weights.min() >= 0 and weights.max() <= 1
        torch.testing.assert_close(weights.sum(1), torch.ones(6))
    raw = transition_aware_weights(
        labels, transition, noisy_posterior=(logits / scale).softmax(-1).double(), clamp=False, renormalise=False
    )
    torch.testing.assert_close(raw.sum(1), torch.ones(6, dtype=torch.float64))


@given(seed=st.integers(0, 2**31), route=st.sampled_from(["clean_posterior", "noisy_posterior"]))
@settings(max_examples=25, deadline=None)
def test_renaming_the_classes_renames_the_weights(seed, route):
    labels, transition, posterior = random_case(seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))  # new class c is the old class order[c]
    weights = transition_aware_weights(labels, transition, **{route: posterior})
    renamed = transition_aware_weights(
        order.argsort()[labels], transition[order][:, order], **{route: posterior[:, order]}
    )
    torch.testing.assert_close(renamed, weights[:, order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("route", ["clean_posterior", "noisy_posterior"])
def test_without_noise_the_observed_label_is_certain_even_if_the_classifier_rules_it_out(route):
    posterior = torch.tensor([[0.0, 1.0, 0.0], [1e-45, 1.0, 0.0], [0.2, 0.5, 0.3]])
    weights = transition_aware_weights(ALL_LABELS.roll(1), np.eye(3), **{route: posterior})
    assert torch.equal(weights, torch.eye(3).roll(1, 0))


def test_underflow_gives_the_label_alone_and_logits_do_not_underflow():
    labels, prior = torch.tensor([0]), [0.2, 0.3, 0.5]
    impossible = torch.tensor([[0.0, 0.0, 1.0]])  # class 2 is never labelled 0
    weights = transition_aware_weights(labels, T, clean_posterior=impossible, prior=prior)
    torch.testing.assert_close(weights, torch.tensor([[0.14, 0.03, 0.0]]) / 0.17)
    by_inverse = transition_aware_weights(labels, T, noisy_posterior=torch.tensor([[0.0, 0.3, 0.7]]), prior=prior)
    torch.testing.assert_close(by_inverse, weights)
    logits = torch.tensor([[-500.0, -500.0 + math.log(7.0), 0.0]])  # 0.7 e^-500 of class 0, as much of class 1
    weights = transition_aware_weights(labels, T, clean_posterior=logits, logits=True)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 0.0]]))


def test_a_label_that_the_matrix_makes_impossible_says_nothing_of_the_class():
    never_1 = [[1.0, 0.0], [1.0, 0.0]]
    weights = transition_aware_weights(
        torch.tensor([1]), never_1, clean_posterior=torch.tensor([[0.9, 0.1]]), prior=[0.25, 0.75]
    )
    assert weights.tolist() == [[0.25, 0.75]]


def test_nan_of_a_broken_classifier_is_not_hidden():
    broken = torch.tensor([[math.nan, 0.5, 0.5]])
    assert transition_aware_weights(torch.tensor([1]), T, clean_posterior=broken).isnan().all()
    assert transition_aware_weights(torch.tensor([1]), T, noisy_posterior=broken).isnan().all()


def test_temperature_divides_the_logits():
    logits = double([[1.0, 3.0, -2.0]])
    for route in ("clean_posterior", "noisy_posterior"):
        expected = transition_aware_weights(torch.tensor([1]), T, **{route: (logits / 2.5).softmax(-1)})
        warm = transition_aware_weights(torch.tensor([1]), T, **{route: logits}, logits=True, temperature=2.5)
        torch.testing.assert_close(warm, expected)
        same = transition_aware_weights(torch.tensor([1]), T, **{route: logits.softmax(-1)}, temperature=2.5)
        torch.testing.assert_close(same, expected)


def test_a_checked_transition_gives_the_same_and_follows_the_device():
    labels, transition, clean = random_case(0)
    checked = LabelTransition(transition)
    assert checked.to(torch.device("cpu")) is checked and len(checked) == 4
    for route in ("clean_posterior", "noisy_posterior"):
        assert torch.equal(
            transition_aware_weights(labels, checked, **{route: clean}),
            transition_aware_weights(labels, transition.numpy(), **{route: clean}),
        )
    assert checked.to(torch.device("meta")).log_columns.device.type == "meta"


def test_gradients_stop_at_the_weights():
    logits = torch.zeros(1, 3, requires_grad=True)
    assert not transition_aware_weights(torch.tensor([0]), T, clean_posterior=logits, logits=True).requires_grad


@pytest.mark.parametrize(
    ("e", "condition"), [(0.2, 1.29), (0.4, 1.80), (0.5, 2.25), (0.8, 9.0), (0.89, 90), (0.9, math.inf)]
)
def test_condition_number_of_symmetric_noise(e, condition):
    transition = (1 - e - e / 9) * np.eye(10) + e / 9
    assert LabelTransition(transition).condition_number == pytest.approx(condition, rel=0.01)


@pytest.mark.parametrize(
    ("matrix", "condition"), [([[0.5, 0.5], [0.5, 0.5]], "inf"), ([[0.502, 0.498], [0.498, 0.502]], "250")]
)
def test_the_inverse_of_a_bad_matrix_is_refused_and_bayes_is_not(matrix, condition):
    labels, posterior = torch.tensor([0]), torch.tensor([[0.9, 0.1]])
    with pytest.raises(ValueError, match=rf"condition number {condition}, .*forward correction.* clean_posterior"):
        transition_aware_weights(labels, matrix, noisy_posterior=posterior)
    weights = transition_aware_weights(labels, matrix, clean_posterior=posterior)
    torch.testing.assert_close(weights, posterior, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean_posterior": None}, "give one of clean_posterior"),
        ({"noisy_posterior": torch.ones(2, 3) / 3}, "give one of clean_posterior"),
        ({"clean_posterior": torch.ones(2, 4) / 4}, r"posterior \[2, 3\], got \[2, 4\]"),
        ({"clean_posterior": torch.ones(1, 3) / 3}, r"posterior \[2, 3\], got \[1, 3\]"),
        ({"transition": np.ones((3, 2)) / 2}, r"must be \[C, C\] with C >= 2 classes, got \[3, 2\]"),
        ({"transition": [[1.0]], "clean_posterior": torch.ones(2, 1)}, r"C >= 2 classes, got \[1, 1\]"),
        ({"prior": [0.5, 0.3, 0.2 + 3e-6]}, "prior must be >= 0 and sum to 1"),
        ({"transition": np.array(T).T}, "sum to 1"),
        ({"prior": [0.5, 0.5]}, r"3 classes, got shape \[2\]"),
        ({"prior": [50, 30, 20]}, "divide counts by their sum"),
        ({"prior": [1.5, -0.5, 0.0]}, "prior must be >= 0"),
        ({"transition": LabelTransition(T), "prior": [0.2, 0.3, 0.5]}, "holds its prior"),
        ({"temperature": 0.0}, "temperature must be finite and > 0, got 0.0"),
        ({"temperature": math.inf}, "temperature must be finite and > 0, got inf"),
        ({"noisy_labels": torch.zeros(2)}, "noisy_labels must be integers, got torch.float32"),
    ],
)
def test_weights_refuse_what_does_not_fit(change, message):
    arguments = {"transition": T, "clean_posterior": torch.ones(2, 3) / 3, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        labels = arguments.pop("noisy_labels", torch.tensor([0, 2]))
        transition_aware_weights(labels, arguments.pop("transition"), **arguments)


@pytest.mark.parametrize("label", [-1, 3])
def test_weights_refuse_labels_outside_the_classes(label):
    with pytest.raises(ValueError, match=rf"noisy_labels must lie in \[0, 3\), got {label}"):
        transition_aware_weights(torch.tensor([label]), T, clean_posterior=torch.ones(1, 3) / 3)


# ---- the loss


class Denoiser(nn.Module):
    """Small, nonlinear, told a class, a noise level and an augmentation; counts what it is asked."""

    def __init__(self, classes=10, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.classes = nn.Embedding(classes + 1, 8, dtype=dtype)
        self.into, self.out = nn.Conv2d(2, 8, 3, padding=1, dtype=dtype), nn.Conv2d(8, 2, 3, padding=1, dtype=dtype)
        self.asked = []

    def forward(self, x, sigma, class_labels, augmentation=None):
        self.asked.append((len(x), torch.is_grad_enabled()))
        told = self.classes(class_labels) + sigma.log()[:, None]
        if augmentation is not None:
            told = told + augmentation
        return self.out(torch.tanh(self.into(x) + told[:, :, None, None]))


def random_step(seed=0, n=16, classes=10, dtype=torch.float32):
    """Images, noise levels, noise, labels, weights that range from sure to undecided."""
    generator = torch.Generator().manual_seed(seed)
    images, noise = (torch.randn(n, 2, 5, 5, generator=generator, dtype=dtype) for _ in range(2))
    sigma = torch.exp(torch.randn(n, generator=generator, dtype=dtype) - 1)
    labels = torch.randint(classes, (n,), generator=generator)
    weights = (5 * torch.rand(n, 1, generator=generator) * torch.randn(n, classes, generator=generator)).softmax(-1)
    return images, sigma, noise, labels, weights.to(dtype)


def class_by_class(denoiser, images, sigma, noise, labels, weights, *, tau=0.01, grad_classes="observed"):
    """The same loss, as it reads in the paper: one class after the other, each on all images."""
    x = images + sigma.view(-1, 1, 1, 1) * noise
    mixture = 0
    for i in range(weights.shape[1]):
        denoised = denoiser(x, sigma, torch.full_like(labels, i))
        if grad_classes == "observed":
            denoised = torch.where((labels == i).view(-1, 1, 1, 1), denoised, denoised.detach())
        share = torch.where((weights[:, i] > tau) | (labels == i), weights[:, i], 0)
        mixture = mixture + share.view(-1, 1, 1, 1) * denoised
    return edm_weight(sigma) * (mixture - images).square().mean((1, 2, 3))


def gradient(loss, module):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean(), list(module.parameters()))])


@pytest.mark.parametrize("grad_classes", ["observed", "all"])
@pytest.mark.parametrize("classes", [3, 30])
def test_equals_a_loop_over_classes(grad_classes, classes):
    for seed in range(5):
        denoiser, step = Denoiser(classes), random_step(seed, classes=classes)
        ours = tdsm_loss(denoiser, *step, grad_classes=grad_classes)
        reference = class_by_class(denoiser, *step, grad_classes=grad_classes)
        assert float(((ours - reference).abs().max() / reference.max()).detach()) < 1e-5
        ours, reference = gradient(ours, denoiser), gradient(reference, denoiser)
        assert float((ours - reference).norm() / reference.norm()) < 3e-6


def test_one_hot_weights_are_plain_matching_bit_for_bit():
    denoiser, (images, sigma, noise, labels, _) = Denoiser(), random_step()
    posterior = torch.randn(16, 10, generator=torch.Generator().manual_seed(1)).mul(30).softmax(-1)
    for route in ("clean_posterior", "noisy_posterior"):
        weights = transition_aware_weights(labels, torch.eye(10), **{route: posterior})
        denoiser.asked.clear()
        ours = tdsm_loss(denoiser, images, sigma, noise, labels, weights)
        assert denoiser.asked == [(16, True)]
        plain = dsm_loss(denoiser, images, sigma, noise, labels)
        assert torch.equal(ours, plain)
        assert torch.equal(gradient(ours, denoiser), gradient(plain, denoiser))


@given(seed=st.integers(0, 2**31), chunk=st.integers(1, 200))
@settings(max_examples=15, deadline=None)
def test_the_chunk_changes_nothing_but_the_passes(seed, chunk):
    denoiser, step = Denoiser(dtype=torch.float64), random_step(seed, dtype=torch.float64)
    reference = tdsm_loss(denoiser, *step)
    denoiser.asked.clear()
    ours = tdsm_loss(denoiser, *step, chunk=chunk)
    torch.testing.assert_close(ours, reference, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(ours, denoiser), gradient(reference, denoiser), rtol=1e-10, atol=1e-14)
    labels, weights = step[3:]
    pairs = int((weights > 0.01).scatter(1, labels[:, None], False).sum())
    sizes = [n for n, _ in denoiser.asked[1:]]
    assert denoiser.asked[0] == (16, True) and not any(grad for _, grad in denoiser.asked[1:])
    assert sum(sizes) == pairs and len(sizes) == -(-pairs // chunk)
    assert max(sizes) <= chunk and max(sizes) - min(sizes) <= 1


def test_limits_of_tau():
    denoiser, (images, sigma, noise, labels, weights) = Denoiser(), random_step()
    everything = tdsm_loss(denoiser, images, sigma, noise, labels, weights, tau=0, grad_classes="all")
    reference = class_by_class(denoiser, images, sigma, noise, labels, weights, tau=-1, grad_classes="all")
    torch.testing.assert_close(everything, reference)
    # Above all other weights the observed label is left, and its share of the target; or all of it, renormalised.
    own = weights.gather(1, labels[:, None]).view(-1, 1, 1, 1)
    denoiser.asked.clear()
    alone = tdsm_loss(denoiser, images, sigma, noise, labels, weights, tau=0.999)
    assert denoiser.asked == [(16, True)]
    torch.testing.assert_close(alone, dsm_loss(lambda *a: own * denoiser(*a), images, sigma, noise, labels))
    renormalised = tdsm_loss(denoiser, images, sigma, noise, labels, weights, tau=0.999, renormalise=True)
    torch.testing.assert_close(renormalised, dsm_loss(denoiser, images, sigma, noise, labels))


def test_renormalised_weights_are_those_left_divided_by_their_sum():
    denoiser, (images, sigma, noise, labels, weights) = Denoiser(), random_step()
    kept = torch.where((weights > 0.1).scatter(1, labels[:, None], True), weights, 0)
    assert (kept.sum(1) < 0.9).any()
    ours = tdsm_loss(denoiser, images, sigma, noise, labels, weights, tau=0.1, renormalise=True)
    expected = tdsm_loss(denoiser, images, sigma, noise, labels, kept / kept.sum(1, keepdim=True), tau=0)
    torch.testing.assert_close(ours, expected)


def test_images_without_label_are_matched_plainly():
    denoiser, (images, sigma, noise, labels, weights) = Denoiser(), random_step()
    dropped = torch.arange(16) % 3 == 0
    told = labels.masked_fill(dropped, 10)
    loss = tdsm_loss(denoiser, images, sigma, noise, told, weights)
    torch.testing.assert_close(loss[dropped], dsm_loss(denoiser, images, sigma, noise, told)[dropped])
    kept = tdsm_loss(denoiser, images, sigma, noise, labels, weights)
    torch.testing.assert_close(loss[~dropped], kept[~dropped])


def test_conditioning_follows_its_image():
    denoiser, step = Denoiser(), random_step()
    augmentation = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))
    together = tdsm_loss(denoiser, *step, augmentation=augmentation)
    alone = [
        tdsm_loss(denoiser, *(column[[i]] for column in step), augmentation=augmentation[[i]]) for i in range(16)
    ]
    torch.testing.assert_close(together, torch.cat(alone))
    without = tdsm_loss(denoiser, *step, augmentation=None)
    assert torch.equal(without, tdsm_loss(denoiser, *step)) and not torch.allclose(without, together)


def test_under_autocast_the_gradient_survives_the_passes_without_one():
    denoiser, step = Denoiser(), random_step()
    with torch.autocast("cpu", torch.bfloat16):
        loss = tdsm_loss(denoiser, *step)
    assert len(denoiser.asked) > 1
    reference = gradient(tdsm_loss(denoiser, *step), denoiser)
    assert float((gradient(loss, denoiser) - reference).norm() / reference.norm()) < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noisy_labels": torch.zeros(3, dtype=torch.long)}, r"4 images .* noisy_labels \[3\]"),
        ({"noisy_labels": torch.zeros(4)}, "noisy_labels must be integers, got torch.float32"),
        ({"images": torch.ones(4), "noise": torch.ones(4)}, "an axis of pixels at least"),
        ({"weights": torch.ones(3, 5) / 5}, r"weights \[3, 5\]"),
        ({"weights": torch.ones(4) / 5}, r"weights \[4\]"),
        ({"sigma": torch.ones(3)}, r"sigma \[3\]"),
        ({"tau": 1.0}, r"tau must lie in \[0, 1\), got 1.0"),
        ({"tau": -0.1}, "tau"),
        ({"grad_classes": "some"}, "'observed' or 'all', got 'some'"),
        ({"chunk": 0}, "chunk must be >= 1, got 0"),
    ],
)
def test_the_loss_refuses_what_does_not_fit(change, message):
    names = ("images", "sigma", "noise", "noisy_labels", "weights")
    arguments = {**dict(zip(names, random_step(n=4, classes=5))), **change}
    with pytest.raises((TypeError, ValueError), match=message):
        tdsm_loss(Denoiser(5), **arguments)


def test_a_label_beyond_the_unconditional_class_is_refused():
    images, sigma, noise, labels, weights = random_step(n=2, classes=5)
    with pytest.raises(ValueError, match=r"noisy_labels must lie in \[0, 6\), got 6"):
        tdsm_loss(lambda x, *_: x, images, sigma, noise, labels.fill_(6), weights)


# ---- what it converges to: a mixture of three normal distributions on a line, in closed form

MEANS, VARIANCE, SIGMA = double([-2.0, 0.0, 3.0]), 0.4**2, 0.9
GRID = double([-1.0, 0.5, 2.0])
NOISY_SCORES = double(
    [[-0.773196, 0.619018, 0.006320], [-1.012496, -0.487033, 0.136624], [-2.091150, -0.090220, 0.939284]]
)
CLEAN_POSTERIOR = double([[0.49989, 0.49989, 0.000219], [0.0416, 0.9168, 0.0416], [0.000361, 0.175545, 0.824094]])


def mixture_in_closed_form():
    """Posterior p(clean | x) and clean denoisers E[x0 | x, clean], [grid, C]."""
    total = VARIANCE + SIGMA**2
    posterior = (-((GRID[:, None] - MEANS) ** 2) / (2 * total)).softmax(-1)
    return posterior, MEANS + VARIANCE / total * (GRID[:, None] - MEANS)


def stationary_table(loss_of):
    """The table D[cell, class] at which the gradient of `loss_of(table)` is 0, and the slope of that gradient."""

    def slope_at(table):
        table = table.detach().requires_grad_()
        return torch.autograd.grad(loss_of(table), table)[0].flatten()

    n = GRID.numel() * 3
    at_zero = slope_at(torch.zeros(len(GRID), 3, dtype=torch.float64))  # linear in the table: columns by unit tables
    slope = torch.stack([slope_at(unit.view(-1, 3)) - at_zero for unit in torch.eye(n, dtype=torch.float64)], 1)
    return torch.linalg.solve(slope, -at_zero).view(-1, 3), slope


@pytest.mark.parametrize("grad_classes", ["observed", "all"])
def test_the_optimum_is_the_clean_score_where_plain_matching_finds_the_noisy_one(grad_classes):
    posterior, clean = mixture_in_closed_form()
    torch.testing.assert_close(posterior, CLEAN_POSTERIOR, rtol=0, atol=1e-6)
    transition = double(T)
    # Every point of the grid with every noisy label. The mean of x0 given both stands for all images that end there:
    # their scatter about it adds a constant to the loss.
    cell, labels = (index.flatten() for index in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"))
    joint = posterior[:, None, :] * transition.T  # [cell, noisy, clean]
    target = (joint / joint.sum(-1, keepdim=True) * clean[:, None]).sum(-1).flatten()
    weights = transition_aware_weights(labels, transition, clean_posterior=posterior[cell])
    share = (posterior @ transition).flatten()  # p(noisy | x)
    sigma = torch.full_like(target, SIGMA)
    step = (target[:, None], sigma, ((GRID[cell] - target) / sigma)[:, None], labels)

    def denoiser_of(table):
        return lambda x, sigma, label, cell: table[cell, label][:, None]

    plain, _ = stationary_table(lambda table: (share * dsm_loss(denoiser_of(table), *step, cell=cell)).sum())
    torch.testing.assert_close((plain - GRID[:, None]) / SIGMA**2, NOISY_SCORES, rtol=0, atol=1e-6)

    def tdsm(table):
        loss = tdsm_loss(denoiser_of(table), *step, weights, tau=0, grad_classes=grad_classes, cell=cell)
        return (share * loss).sum()

    ours, slope = stationary_table(tdsm)
    torch.testing.assert_close(ours, clean, rtol=1e-7, atol=1e-7)
    score = (ours - GRID[:, None]) / SIGMA**2
    torch.testing.assert_close(score, -(GRID[:, None] - MEANS) / (VARIANCE + SIGMA**2), rtol=1e-6, atol=1e-6)
    assert float((score - NOISY_SCORES).abs().max()) > 0.5
    # Descent along this gradient gets there: the slope has no direction that leads away.
    assert float(torch.linalg.eigvals(slope).real.min()) > 0
