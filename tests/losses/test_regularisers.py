"""Regularisers of fine-tuning as functions on tensors: by hand, against finite differences, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from hf_noise.losses import l2_sp, lnsr, smart
from hf_noise.losses.l2_sp import low_rank_square

DOUBLE = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# ---- L2-SP


def test_l2_sp_by_hand():
    now, then = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])], [torch.tensor([1.0, 0.0]), torch.tensor([[0.0]])]
    # alpha / 2 (0 + 4 + 9) + beta / 2 (16)
    assert l2_sp(now, then, [torch.tensor([4.0])], alpha=0.2, beta=0.5).item() == pytest.approx(1.3 + 4.0)
    assert l2_sp(now, now, alpha=7.0).item() == 0
    assert l2_sp([], [], [torch.ones(3)], beta=2.0).item() == 3
    assert l2_sp([torch.ones(2, dtype=torch.bfloat16)], [torch.zeros(2)]).dtype == torch.float32


def test_the_gradient_of_l2_sp_is_the_way_gone():
    now, then, head = drawn(3, 2).requires_grad_(), drawn(3, 2, seed=1).requires_grad_(), drawn(4).requires_grad_()
    l2_sp([now], [then], [head], alpha=0.3, beta=0.7).backward()
    assert torch.allclose(now.grad, 0.3 * (now - then)) and torch.allclose(head.grad, 0.7 * head)
    assert then.grad is None, "where it began stays"


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.floats(-3, 3), st.integers(0, 99))
def test_a_product_of_low_rank_need_not_be_made(d, r, k, scale, seed):
    left, right = drawn(d, r, seed=seed), drawn(r, k, seed=seed + 100)
    want = (scale * left @ right).square().sum()
    assert torch.allclose(low_rank_square(left, right, scale), want, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([torch.ones(2)], []), ValueError, "weights and pretrained must go together, got 1 and 0"),
        (([torch.ones(2)], [torch.ones(3)]), ValueError, r"pretrained\[0\] must have the shape of weights\[0\], \[2\]"),
        (([], []), ValueError, "weights and head hold no tensor"),
        ((torch.ones(2), [torch.ones(2)]), TypeError, "weights must be a list of tensors"),
        (([torch.ones(2)], [torch.ones(2).long()]), TypeError, r"pretrained\[0\] must be floating-point"),
    ],
)
def test_l2_sp_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        l2_sp(*arguments)


@pytest.mark.parametrize("name", ["alpha", "beta"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None, True])
def test_strengths_of_l2_sp_are_numbers_from_0_on(name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name} must"):
        l2_sp([torch.ones(1)], [torch.ones(1)], **{name: value})


# ---- SMART


def network(seed=0):
    """float [B, 2, 3] -> logits [B, 4], a smooth function."""
    first, second = drawn(6, 5, seed=seed), drawn(5, 4, seed=seed + 1)
    return lambda x: (x.flatten(1) @ first).tanh() @ second


def test_smart_climbs_to_the_corner_of_a_linear_function():
    """Of a regression f(x) = w x, the worst |d| <= epsilon is epsilon * sign(w) or its opposite: (epsilon |w|_1)^2."""
    w, x = torch.tensor([[2.0], [-1.0], [0.5]], dtype=DOUBLE), drawn(4, 3)
    found = smart(lambda x: x @ w, x, x @ w, drawn(4, 3, seed=1), epsilon=0.1, step_size=10.0, divergence="squared")
    assert torch.allclose(found, torch.full((4,), (0.1 * 3.5) ** 2, dtype=DOUBLE))


def test_smart_of_two_classes_by_hand():
    """p of the logit z, q of z + 2 epsilon: KL both ways is (p - q) (log p/(1-p) - log q/(1-q))."""
    x, w = torch.tensor([[0.3]], dtype=DOUBLE), torch.tensor([[1.0, -1.0]], dtype=DOUBLE)
    found = smart(lambda x: x @ w, x, x @ w, torch.ones(1, 1, dtype=DOUBLE), epsilon=0.2, step_size=1.0).item()
    p, q = (1 / (1 + math.exp(-2 * z)) for z in (0.3, 0.5))
    assert found == pytest.approx((p - q) * (0.6 - 1.0))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(0.01, 1), st.integers(1, 3))
def test_smart_is_no_less_than_at_its_own_start(seed, epsilon, steps):
    f, x, noise = network(seed), drawn(3, 2, 3, seed=seed), drawn(3, 2, 3, seed=seed + 1)
    options = dict(epsilon=epsilon, step_size=1e-3 * epsilon, sigma=1e-2 * epsilon)
    more = smart(f, x, f(x), noise, steps=steps, **options)
    assert (more >= -1e-12).all()
    p, q = f(x).log_softmax(-1), f(x + 1e-2 * epsilon * noise).log_softmax(-1)
    start = ((p.exp() - q.exp()) * (p - q)).sum(-1)
    assert (more >= start * (1 - 1e-6)).all(), "a small step up"


def test_the_gradient_of_smart_goes_through_both_predictions():
    """The ascent moves along one sign pattern, so that d does not change with a small change of the weights."""
    first, x, noise = drawn(6, 4).requires_grad_(), drawn(3, 2, 3), drawn(3, 2, 3, seed=3)

    def loss(first):
        f = lambda x: x.flatten(1) @ first  # noqa: E731
        return smart(f, x, f(x), noise, epsilon=0.1, step_size=1e3, sigma=1e-3).sum()

    assert gradcheck(loss, first)


def test_positions_without_noise_stay_as_they_are():
    x, noise, given_to_f = drawn(2, 3, 2), drawn(2, 3, 2, seed=1), []
    noise[0, 2] = 0
    f = lambda x: given_to_f.append(x.detach()) or x.flatten(1) @ torch.ones(6, 2, dtype=DOUBLE)  # noqa: E731
    smart(f, x, f(x), noise, epsilon=0.1, step_size=1.0, steps=2)
    assert torch.equal(given_to_f[-1][0, 2], x[0, 2]) and len(given_to_f) == 1 + 3
    assert (given_to_f[-1] - x).abs().max() <= 0.1 + 1e-12


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"predict": 3}, TypeError, "predict must be a function"),
        ({"embeddings": torch.ones(2, 3).long()}, TypeError, "embeddings must be floating-point"),
        ({"logits": torch.ones(3, 2)}, ValueError, r"embeddings \[B, ...\] need logits \[B, C\]"),
        ({"noise": torch.ones(2, 4)}, ValueError, "noise must have the shape of embeddings"),
        ({"logits": torch.ones(2, 1)}, ValueError, 'divergence must be "squared"'),
        ({"predict": lambda x: x[:, :1]}, ValueError, r"predict must give logits \[2, 2\], gave \[2, 1\]"),
        ({"epsilon": 0}, ValueError, "epsilon must be finite and > 0, got 0"),
        ({"step_size": "1"}, TypeError, "step_size must be a real number"),
        ({"sigma": 0.0}, ValueError, "sigma must be finite and > 0"),
        ({"steps": 0}, ValueError, "steps must be >= 1"),
        ({"divergence": "js"}, ValueError, "divergence must be one of symmetric_kl, squared, got 'js'"),
    ],
)
def test_smart_refuses(changed, error, message):
    usual = {"predict": lambda x: x[:, :2], "embeddings": torch.ones(2, 3), "logits": torch.ones(2, 2),
             "noise": torch.ones(2, 3)}  # fmt: skip
    with pytest.raises(error, match=message):
        smart(**usual | changed)


# ---- LNSR


def test_lnsr_by_hand():
    """Rows of root mean square 1 and 2; layers 3 x and x + 1, whose distances are those of what they are given."""
    hidden = torch.tensor([[[1.0, 1.0]], [[2.0, -2.0]]])
    noise = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    layers = [lambda x: 3 * x, lambda x: x + 1]
    found = lnsr(layers, hidden, noise, sigma=0.1, weights=[1.0, 0.5])
    assert found.tolist() == pytest.approx([1.5 * 0.3**2 / 2, 1.5 * 0.6**2], rel=1e-5)
    assert lnsr(layers, hidden, noise, sigma=0.0).tolist() == [0, 0]


def test_lnsr_takes_states_that_are_known_and_a_mask():
    w = drawn(3, 3)
    layers, hidden, noise = [torch.tanh, lambda x: x @ w], drawn(2, 4, 3), drawn(2, 4, 3, seed=1)
    states = [torch.tanh(hidden), torch.tanh(hidden) @ w]
    assert torch.equal(lnsr(layers, hidden, noise), lnsr(layers, hidden, noise, states=states))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    short = lnsr(layers, hidden[:1, :2], noise[:1, :2])
    assert torch.allclose(lnsr(layers, hidden, noise, mask=mask)[:1], short), "padding does not count"


def test_the_gradient_of_lnsr_against_finite_differences():
    w, hidden, noise = drawn(3, 3).requires_grad_(), drawn(2, 2, 3), drawn(2, 2, 3, seed=1)
    assert gradcheck(lambda w: lnsr([lambda x: (x @ w).tanh(), lambda x: x @ w], hidden, noise, sigma=0.3).sum(), w)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(1e-3, 1e-2))
def test_lnsr_grows_with_the_square_of_small_noise(seed, sigma):
    w = drawn(3, 3, seed=seed)
    one, two = (
        lnsr([lambda x: (x @ w).tanh()], drawn(2, 4, 3, seed=seed), drawn(2, 4, 3, seed=seed + 1), sigma=s)
        for s in (sigma, sigma / 2)
    )
    assert torch.allclose(one / two, torch.full((2,), 4.0, dtype=DOUBLE), rtol=0.1)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"layers": []}, ValueError, "layers is empty"),
        ({"layers": [3]}, TypeError, "layers must be a list of functions"),
        ({"hidden": torch.ones(2, 3)}, ValueError, r"hidden \[B, L, D\] needs noise of its shape"),
        ({"noise": torch.ones(1, 2, 2)}, ValueError, "needs noise of its shape"),
        ({"layers": [lambda x: x[:, :1]]}, ValueError, r"layers\[0\] must give states \[1, 2, 3\], gave \[1, 1, 3\]"),
        ({"sigma": -1.0}, ValueError, "sigma must lie in"),
        ({"states": []}, ValueError, "states must be those of 1 layers, got 0"),
        ({"weights": [1.0, 1.0]}, ValueError, "weights must be a list of 1 numbers"),
        ({"weights": [-1.0]}, ValueError, r"weights\[0\] must lie in"),
        ({"mask": torch.ones(1, 3)}, ValueError, r"mask must be a tensor \[1, 2\], got \[1, 3\]"),
    ],
)
def test_lnsr_refuses(changed, error, message):
    usual = {"layers": [lambda x: x], "hidden": torch.ones(1, 2, 3), "noise": torch.ones(1, 2, 3)}
    with pytest.raises(error, match=message):
        lnsr(**usual | changed)
