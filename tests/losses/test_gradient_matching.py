"""Local Gradient Matching: worked out by hand, by autograd's double backward, and by finite differences."""

from __future__ import annotations

import copy
import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hf_noise.losses import feature_scale, local_gradient_matching, log_columns
from hf_noise.losses import gradient_matching as module
from hf_noise.losses.head_gradients import PENALTIES, LinearForm, Targets, TwoLayerForm

# B.derived.lgm of the tables of the paper: two samples, d = 2, C = 3, gamma = 0.1.
T_FEATURES, T_LABELS = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]).double(), torch.tensor([0, 2])
T_NOISE = torch.tensor([[0.5, -1.0], [1.0, 0.2]]).double()
LINEAR = {"weight": [[0.2, -0.1], [0.0, 0.3], [-0.4, 0.1]], "bias": [0.1, 0.0, -0.1]}
MLP = {"0.weight": [[0.5, -0.3], [0.2, 0.4]], "0.bias": [0.3, -0.2],
       "2.weight": [[0.3, -0.2], [0.1, 0.5], [-0.6, 0.2]], "2.bias": [0.0, 0.0, 0.0]}  # fmt: skip
FLIPS = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]]).double()


class Wrapped(nn.Module):
    """A head that no closed form is known of."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, features):
        return self.inner(features)


def head_of(weights):
    head = nn.Linear(2, 3) if "weight" in weights else mlp(2, 2, 3)
    head.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
    return head.double()


def mlp(features, hidden, classes, bias=True):
    return nn.Sequential(nn.Linear(features, hidden, bias), nn.ReLU(), nn.Linear(hidden, classes, bias))


def rows(seed=0, count=6, width=5):
    draw = torch.Generator().manual_seed(seed)
    features, noise = (torch.randn(count, width, generator=draw, dtype=torch.float64) for _ in range(2))
    return features, torch.randint(0, 3, (count,), generator=draw), noise


def by_double_backward(head, features, labels, noise, gamma, kind="difference", loss=F.cross_entropy):
    """The definition, by torch.autograd.grad with a graph of its own."""
    found = []
    for given_ in (features, features + gamma * noise):
        found.append(torch.autograd.grad(loss(head(given_), labels), list(head.parameters()), create_graph=True))
    clean, noisy = (torch.cat([block.flatten() for block in blocks]) for blocks in found)
    if kind == "cosine":
        return 1 - F.cosine_similarity(clean, noisy, dim=0)
    return torch.linalg.vector_norm(clean - noisy if kind == "difference" else clean)


@pytest.mark.parametrize(
    ("weights", "how", "cross_entropy", "penalty"),
    [(LINEAR, "linear", 1.042808, 0.0689666), (MLP, "mlp", 1.221039, 0.0477408)], ids=["linear", "mlp"],
)  # fmt: skip
def test_the_vectors_of_the_tables(weights, how, cross_entropy, penalty):
    head = head_of(weights)
    for lam in (1.0, 0.15):
        out = local_gradient_matching(head, T_FEATURES, T_LABELS, gamma=0.1, lam=lam, noise=T_NOISE)
        assert out.how == how
        assert out.cross_entropy.item() == pytest.approx(cross_entropy, abs=1e-6)
        assert out.penalty.item() == pytest.approx(penalty, abs=1e-7)
        assert out.loss.item() == pytest.approx(cross_entropy + lam * penalty, abs=1e-6)


def test_the_gradient_of_the_tables():
    """-> G = R' X / B, as the table has it, by the gradient of the cross-entropy alone."""
    head = head_of(LINEAR)
    out = local_gradient_matching(head, T_FEATURES, T_LABELS, gamma=0.1, noise=T_NOISE)
    weight, bias = torch.autograd.grad(out.cross_entropy, (head.weight, head.bias))
    expected = [[-0.474398, -0.636186], [0.079581, 0.581142], [0.394818, 0.055044]]
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    np.testing.assert_allclose(bias, [-0.224310, 0.417165, -0.192856], atol=1e-6)


OPTIONS = {
    "plain": {}, "through T": {"columns": log_columns(FLIPS)}, "squared": {"loss": "squared_error"},
    "weighted": {"sample_weight": torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 3.0]).double()},
    "relative": {"gamma_relative": True},
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("deep", [False, True])
def test_closed_forms_are_autograds_double_backward(deep, bias, kind, options):
    features, labels, noise = rows()
    labels = torch.randn(6, 3, dtype=torch.float64) if "loss" in options else labels
    head = (mlp(5, 4, 3, bias) if deep else nn.Linear(5, 3, bias)).double()
    found = []
    for one in (head, Wrapped(head)):
        given_ = features.clone().requires_grad_()
        out = local_gradient_matching(one, given_, labels, gamma=0.3, lam=0.7, noise=noise, penalty=kind, **options)
        found.append([*out[:3], *torch.autograd.grad(out.loss, [given_, *head.parameters()])])
    assert out.how == "torch.func"
    for closed, general in zip(*found):
        torch.testing.assert_close(closed, general, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("wrap", [lambda head: head, Wrapped], ids=["closed", "torch.func"])
def test_the_definition(wrap, kind):
    features, labels, noise = rows(1)
    head = mlp(5, 4, 3).double()
    out = local_gradient_matching(wrap(head), features, labels, gamma=0.2, noise=noise, penalty=kind)
    torch.testing.assert_close(out.penalty, by_double_backward(head, features, labels, noise, 0.2, kind), rtol=1e-8,
                               atol=1e-9)  # fmt: skip
    torch.testing.assert_close(out.cross_entropy, F.cross_entropy(head(features), labels))


@pytest.mark.parametrize("deep", [False, True])
def test_gradients_by_finite_differences(deep):
    features, labels, noise = rows(2)
    head = (mlp(5, 4, 3) if deep else nn.Linear(5, 3)).double()
    names, values = zip(*head.named_parameters())

    def loss(given_, *weights):
        own = copy.deepcopy(head)
        for name, weight in zip(names, weights):
            layer, _, kind = name.rpartition(".")
            own.get_submodule(layer)._parameters[kind] = weight
        return local_gradient_matching(own, given_, labels, gamma=0.3, lam=0.5, noise=noise).loss

    assert torch.autograd.gradcheck(loss, (features.requires_grad_(), *values), atol=1e-6)


@pytest.mark.parametrize("form", [LinearForm, TwoLayerForm])
@pytest.mark.parametrize("kind", PENALTIES)
def test_stacked_heads_are_each_their_own(form, kind):
    """K = 2 batches, M = 3 heads on each, each with its own gamma: loss, penalty and gradients."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    sizes = [(3, 5)] if form is LinearForm else [(4, 5), (3, 4)]
    weights, biases = [normal(2, 3, *size) for size in sizes], [normal(2, 3, size[0]) for size in sizes]
    features, noise, gamma = normal(2, 6, 5), normal(2, 6, 5), torch.rand(2, 3, generator=draw).double()
    labels = torch.randint(0, 3, (2, 6), generator=draw)
    shares = torch.rand(2, 6, generator=draw).double()
    for of, own_shares in ((gamma, None), (gamma, shares), (0.3, None)):
        targets = Targets(F.one_hot(labels, 3).double())
        together = form(weights, biases, features, noise, targets, of, kind, own_shares)
        on = normal(2, 3), normal(2, 3)
        gradients, on_features = together.gradients(*on, features=True)
        each_features = torch.zeros_like(features)
        for k in range(2):
            for m in range(3):
                at = (slice(k, k + 1), slice(m, m + 1))
                one = form([value[at] for value in weights], [value[at] for value in biases], features[k : k + 1],
                           noise[k : k + 1], Targets(F.one_hot(labels[k : k + 1], 3).double()),
                           of if isinstance(of, float) else of[at], kind,
                           None if own_shares is None else own_shares[k : k + 1])  # fmt: skip
                torch.testing.assert_close(together.loss[at], one.loss)
                torch.testing.assert_close(together.penalty[at], one.penalty)
                own, to_features = one.gradients(on[0][at], on[1][at], features=True)
                each_features[k] += to_features[0]
                for value, expected in zip(gradients, own):
                    torch.testing.assert_close(value[at], expected)
        torch.testing.assert_close(on_features, each_features)


@given(seed=st.integers(0, 1000), deep=st.booleans(), gamma=st.floats(1e-3, 0.5))
@settings(max_examples=25, deadline=None)
def test_properties(seed, deep, gamma):
    torch.manual_seed(seed)
    features, labels, noise = rows(seed)
    head = (mlp(5, 4, 3) if deep else nn.Linear(5, 3)).double()

    def penalty(of=slice(None), **options):
        return local_gradient_matching(head, features[of], labels[of], noise=noise[of], **options).penalty.item()

    assert penalty(gamma=0.0) == 0 and penalty(gamma=0.0, penalty="cosine") == 0
    whole = penalty(gamma=gamma)
    assert whole > 0 and 0 <= penalty(gamma=gamma, penalty="cosine") <= 2
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    assert penalty(order, gamma=gamma) == pytest.approx(whole, rel=1e-9)
    # The norm is taken after averaging: of means, it is at most the mean of norms.
    assert whole <= np.mean([penalty([i], gamma=gamma) for i in range(6)]) + 1e-9
    if not deep:  # smooth, so about linear in a small gamma
        assert penalty(gamma=2e-4) == pytest.approx(2 * penalty(gamma=1e-4), rel=5e-3)
    again = torch.cat([torch.arange(6), torch.arange(6)])
    assert penalty(again, gamma=gamma) == pytest.approx(whole, rel=1e-9), "rows given twice change no mean"


def test_no_noise_has_no_gradient_of_its_own():
    head = nn.Linear(2, 3).double()
    out = local_gradient_matching(head, T_FEATURES, T_LABELS, gamma=0.0)
    found = torch.autograd.grad(out.loss, head.weight)[0]
    plain = torch.autograd.grad(F.cross_entropy(head(T_FEATURES), T_LABELS), head.weight)[0]
    torch.testing.assert_close(found, plain)


def test_noise_is_drawn_from_a_generator():
    head, draw = nn.Linear(2, 3).double(), torch.Generator()
    first, again, other = (
        local_gradient_matching(head, T_FEATURES, T_LABELS, gamma=0.1, noise=draw.manual_seed(seed)).penalty.item()
        for seed in (1, 1, 2)
    )
    assert first == again != other
    expected = torch.randn(2, 2, generator=draw.manual_seed(1), dtype=torch.float64)
    with_it = local_gradient_matching(head, T_FEATURES, T_LABELS, gamma=0.1, noise=expected)
    assert with_it.penalty.item() == first
    torch.manual_seed(1)
    assert local_gradient_matching(head, T_FEATURES, T_LABELS, gamma=0.1).penalty.item() == first


def test_the_scale_of_features():
    features = torch.tensor([[0.0, 0.0], [2.0, 6.0]])
    assert feature_scale(features).item() == pytest.approx((1 + 3) / 2)
    head, noise = nn.Linear(2, 2), torch.randn(2, 2)
    relative = local_gradient_matching(head, features, torch.tensor([0, 1]), gamma=0.1, noise=noise,
                                       gamma_relative=True)  # fmt: skip
    absolute = local_gradient_matching(head, features, torch.tensor([0, 1]), gamma=0.2, noise=noise)
    torch.testing.assert_close(relative.penalty, absolute.penalty)
    # By hand: of 0, 0 and 2 the mean is 2/3 and the variance 8/9.
    weighted = feature_scale(features, torch.tensor([4.0, 2.0]))
    assert weighted.item() == pytest.approx((1 + 3) * (8 / 9) ** 0.5 / 2)
    assert feature_scale(features, torch.ones(2)).item() == pytest.approx(2)
    with pytest.raises(ValueError, match=r"sample_weight must be \[2\]"):
        feature_scale(features, torch.ones(3))


@pytest.mark.parametrize("deep", [False, True])
def test_a_weight_of_two_is_a_row_given_twice_for_a_relative_gamma_too(deep):
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)) if deep else nn.Linear(4, 3)
    features, labels, noise = torch.randn(3, 4), torch.arange(3), torch.randn(3, 4)
    again = torch.tensor([0, 0, 1])
    weighted, twice = (
        local_gradient_matching(head, features[rows], labels[rows], gamma=0.2, noise=noise[rows], gamma_relative=True,
                                sample_weight=weight)
        for rows, weight in ((torch.arange(3), torch.tensor([2.0, 1.0, 0.0])), (again, None))
    )  # fmt: skip
    torch.testing.assert_close(weighted.penalty, twice.penalty)


def test_dropout_drops_the_same_for_both_gradients():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)).double()
    features, labels, noise = rows()
    out = local_gradient_matching(head, features, labels, gamma=1e-6, noise=noise)
    assert out.how == "torch.func" and 0 < out.penalty.item() < 1e-4, "other masks would move the gradient by far more"
    # The state of the generator moves by one pass over the head and one more for its logits' shape.
    again = local_gradient_matching(head, features, labels, gamma=1e-6, noise=noise)
    assert again.cross_entropy.item() != out.cross_entropy.item()


def test_what_is_not_trained_does_not_count():
    features, labels, noise = rows()
    head = nn.Linear(5, 3).double()
    head.bias.requires_grad_(False)
    out = local_gradient_matching(head, features, labels, gamma=0.3, noise=noise)
    without = nn.Linear(5, 3, bias=False).double()
    without.weight.data = head.weight.data
    gradients = []
    for given_ in (features, features + 0.3 * noise):
        loss = F.cross_entropy(head(given_), labels)
        gradients.append(torch.autograd.grad(loss, head.weight)[0])
    assert out.how == "torch.func"
    assert out.penalty.item() == pytest.approx((gradients[0] - gradients[1]).norm().item(), rel=1e-6)
    head.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="head has no parameter that is trained"):
        local_gradient_matching(head, features, labels, gamma=0.3)


def test_other_heads_are_said_once(caplog):
    class Odd(Wrapped):
        pass

    module._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        for _ in range(2):
            local_gradient_matching(Odd(nn.Linear(2, 3)), torch.ones(2, 2), T_LABELS, gamma=0.1)
    assert [record.message for record in caplog.records] == [
        "local_gradient_matching: no closed form is known of a Odd head; its gradients are taken by torch.func and "
        "differentiated twice, which is slower"
    ]


@pytest.mark.parametrize(
    ("head", "how"),
    [
        (nn.Linear(2, 3), "linear"), (mlp(2, 4, 3), "mlp"), (nn.Sequential(nn.Linear(2, 3)), "torch.func"),
        (nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)), "torch.func"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), "torch.func"),
        (nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3, bias=False)), "torch.func"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3).eval()), "torch.func"),
    ],
)  # fmt: skip
def test_which_form_a_head_has(head, how):
    out = local_gradient_matching(head, T_FEATURES.float(), T_LABELS, gamma=0.1)
    assert out.how == how and math.isfinite(out.loss.item())
    out.loss.backward()


def test_half_precision_and_autocast():
    head = nn.Linear(2, 3)
    expected = local_gradient_matching(head, T_FEATURES.float(), T_LABELS, gamma=0.1, noise=T_NOISE.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = local_gradient_matching(head, T_FEATURES.bfloat16(), T_LABELS, gamma=0.1, noise=T_NOISE.float())
    assert found.loss.dtype == torch.float32, "features below the head's precision are taken up to it"
    torch.testing.assert_close(found.penalty, expected.penalty, rtol=1e-2, atol=1e-3)
    found.loss.backward()
    for dtype in (torch.bfloat16, torch.float16):
        low = copy.deepcopy(head).to(dtype)
        low.zero_grad()
        out = local_gradient_matching(low, T_FEATURES.to(dtype), T_LABELS, gamma=1e-4, noise=T_NOISE.to(dtype))
        out.loss.backward()
        assert out.loss.dtype == torch.float32 and low.weight.grad.isfinite().all() and out.penalty.item() > 1e-6
    deep = Wrapped(nn.Linear(2, 3).bfloat16())
    local_gradient_matching(deep, T_FEATURES.float(), T_LABELS, gamma=0.1).loss.backward()


GOOD = {"head": nn.Linear(2, 3), "features": torch.ones(2, 2), "labels": T_LABELS, "gamma": 0.1}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"gamma": -0.1}, ValueError, r"gamma must lie in \[0, inf\), got -0.1; it is the standard deviation"),
        ({"gamma": math.nan}, ValueError, "gamma must"), ({"gamma": 1e300}, ValueError, "gamma must be a number that"),
        ({"lam": -1}, ValueError, "lam must"),
        ({"lam": "1"}, TypeError, "lam must be a real number"),
        ({"features": torch.ones(3, 2)}, ValueError, r"labels must be \[3\], one of each row of features, got \[2\]"),
        ({"features": torch.tensor([[1.0, 2], [math.nan, 1]])}, ValueError, "row 1 holds NaN or infinity"),
        ({"features": torch.ones(2, 4)}, ValueError, r"features are \[2, 4\], and the head takes 2"),
        ({"features": torch.ones(2, 2, dtype=torch.long)}, TypeError, "features must be floating-point"),
        ({"labels": torch.tensor([0, 3])}, ValueError, r"labels must lie in \[0, 3\), .*, got 3"),
        ({"labels": torch.tensor([-1, 0])}, ValueError, r"labels must lie in \[0, 3\), .*, got -1"),
        ({"labels": torch.tensor([0.0, 1.0])}, TypeError, "labels must be integers"),
        ({"loss": "squared_error"}, TypeError, "labels must be floating-point"),
        ({"loss": "squared_error", "labels": torch.ones(2)}, ValueError, r"labels must be \[2, 3\]"),
        ({"loss": "hinge"}, ValueError, "loss must be one of 'cross_entropy', 'squared_error', got 'hinge'"),
        ({"penalty": "angle"}, ValueError, "penalty must be one of 'difference', 'norm', 'cosine'"),
        ({"noise": torch.ones(2, 3)}, ValueError, r"noise must be \[2, 2\]"),
        ({"noise": 3}, TypeError, "noise must be a tensor"),
        ({"columns": torch.zeros(2, 2)}, ValueError, r"columns must be \[3, 3\]"),
        ({"sample_weight": torch.zeros(2)}, ValueError, "sample_weight must be finite, >= 0 and not all 0"),
        ({"sample_weight": torch.tensor([1.0, -1])}, ValueError, "got values from -1"),
        ({"head": nn.ReLU()}, ValueError, "head has no parameter"),
        ({"head": "linear"}, TypeError, "head must be a torch module"),
        ({"head": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))}, ValueError,
         r"head has a BatchNorm1d in training mode \(1\)"),
        ({"head": Wrapped(nn.Linear(3, 3))}, ValueError, r"head cannot take features \[2, 2\] of torch.float32 on cpu"),
        ({"head": Wrapped(nn.Flatten(0))}, ValueError, "head has no parameter"),
        ({"gamma_relative": 1}, TypeError, "gamma_relative must be True or False"),
    ],
)  # fmt: skip
def test_what_is_refused(changed, error, message):
    with pytest.raises(error, match=message):
        local_gradient_matching(**GOOD | changed)
