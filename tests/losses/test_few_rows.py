"""Many linear heads on few rows: the norm from products of rows with rows, held against double backward in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hf_noise.losses import log_columns
from hf_noise.losses.head_gradients import TINY, Targets
from hf_noise.losses.linear_gradient import FewRowsForm, are_few

SEEDS, HEADS, CLASSES = 2, 3, 4
FLIPS = 0.7 * torch.eye(CLASSES).double() + 0.3 * torch.eye(CLASSES).double().roll(1, 1)


def rows(size, width, mean=0.0):
    """Features, noise, weights, biases, labels and weights of rows, float64, each of K batches and M heads."""
    draw = torch.Generator().manual_seed(size)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    features, noise = normal(SEEDS, size, width) + mean, normal(SEEDS, size, width)
    weight = normal(SEEDS, HEADS, CLASSES, width) * width**-0.5
    weight -= weight.mean(-1, keepdim=True)  # so that a mean of features does not saturate the softmax
    shares = torch.rand(SEEDS, size, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (SEEDS, size), generator=draw)
    return features, noise, weight, normal(SEEDS, HEADS, CLASSES), labels, shares / shares.sum(1, keepdim=True)


def by_double_backward(features, noise, weight, bias, labels, shares, gamma, columns, lam):
    """Loss, penalty, and gradients of loss + lam * penalty, of one head."""
    values = [value.clone().requires_grad_() for value in (weight, *([] if bias is None else [bias]))]

    def loss(given):
        log_p = F.linear(given, *values).log_softmax(-1)
        nll = -log_p.gather(1, labels[:, None])[:, 0] if columns is None else -(log_p + columns[labels]).logsumexp(-1)
        return nll.mean() if shares is None else (nll * shares).sum()

    both = [loss(given) for given in (features, features + gamma * noise)]
    clean, moved = (torch.autograd.grad(one, values, create_graph=True) for one in both)
    penalty = (sum((one - other).square().sum() for one, other in zip(clean, moved)) + TINY).sqrt()
    return both[0], penalty, *torch.autograd.grad(both[0] + lam * penalty, values)


@pytest.mark.parametrize("case", ["plain", "weighted", "through T", "no bias"])
@pytest.mark.parametrize("each", [False, True], ids=["one gamma", "a gamma of each"])
@pytest.mark.parametrize("size", [1, 6])
def test_few_rows_are_double_backward(size, each, case):
    features, noise, weight, bias, labels, shares = rows(size, 9)
    bias, shares = None if case == "no bias" else bias, shares if case == "weighted" else None
    columns = log_columns(FLIPS) if case == "through T" else None
    gamma = torch.tensor([[0.1, 0.2, 1e-3], [0.5, 0.0, 0.3]]).double() if each else 0.3
    lam = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]).double()
    targets = Targets(F.one_hot(labels, CLASSES).double(), None if columns is None else columns[labels])
    out = torch.empty(SEEDS, HEADS * CLASSES, 9, dtype=torch.float64)
    form = FewRowsForm(weight, bias, features, noise, targets, gamma, shares, out)
    gradients, _ = form.gradients(1.0, lam)
    assert gradients[0].data_ptr() == out.data_ptr()
    for k in range(SEEDS):
        for m in range(HEADS):
            expected = by_double_backward(
                features[k], noise[k], weight[k, m], None if bias is None else bias[k, m], labels[k],
                None if shares is None else shares[k], gamma[k, m] if each else gamma, columns, lam[k, m],
            )  # fmt: skip
            for found, value in zip([form.loss, form.penalty, *gradients], expected, strict=True):
                torch.testing.assert_close(found[k, m], value.detach(), atol=1e-9, rtol=1e-8)


@pytest.mark.parametrize(("size", "width", "mean"), [(8, 768, 0.0), (8, 768, 10.0), (1, 64, 10.0), (32, 384, 10.0)])
def test_little_noise_is_exact_in_float32(size, width, mean):
    """gamma = 1e-3: what rounding of the residuals leaves, 1e-7 / gamma and a bit, not the square of it."""
    made = [value.float() if value.is_floating_point() else value for value in rows(size, width, mean)]
    found = []
    for dtype in (torch.float32, torch.float64):
        features, noise, weight, bias = (value.to(dtype) for value in made[:4])
        form = FewRowsForm(weight, bias, features, noise, Targets(F.one_hot(made[4], CLASSES).to(dtype)), 1e-3)
        found.append([form.penalty, *form.gradients(0.0, 1.0)[0]])
    for low, exact in zip(*found):
        assert (low.double() - exact).abs().max() <= 4e-3 * exact.abs().max()


def test_no_noise_is_the_cross_entropy_alone():
    features, noise, weight, bias, labels, _ = rows(5, 7)
    form = FewRowsForm(weight, bias, features, noise, Targets(F.one_hot(labels, CLASSES).double()), 0.0)
    assert (form.penalty == TINY**0.5).all()
    found, _ = form.gradients(1.0, 0.5)
    values = weight.requires_grad_(), bias.requires_grad_()
    logits = torch.einsum("kbd,kmcd->kmbc", features, values[0]) + values[1][:, :, None]
    nll = -logits.log_softmax(-1).gather(-1, labels[:, None, :, None].expand(-1, HEADS, -1, 1))
    expected = torch.autograd.grad(nll.mean((2, 3)).sum(), values)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("size", "outputs", "width", "few"),
    [(8, 240, 768, True), (8, 20, 768, True), (19, 20, 768, True), (20, 20, 768, False), (1, 2, 2, True),
     (2, 2, 2, False), (200, 240, 768, False)],
)  # fmt: skip
def test_which_rows_are_few(size, outputs, width, few):
    """4 B O D products are saved, 4 B^2 (O + D) are added."""
    assert are_few(size, outputs, width) is few
