"""The corrected likelihood, its gradient, and the correction of a plain model afterwards."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.losses import (
    clean_posterior,
    corrected_nll,
    mixture_posterior,
    posthoc_nll,
    shift_targets,
    transition_nll,
)

RATES = st.floats(1e-6, 0.999)
NLLS = st.floats(0.0, 60.0)
VOCABULARIES = st.integers(1, 60_000)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_logits(seed: int, *shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_shift_targets_aligns_labels_with_the_logits_that_predict_them():
    labels = torch.tensor([[5, 6, 7], [8, -100, 9]])
    assert shift_targets(labels).tolist() == [[6, 7, -100], [-100, 9, -100]]
    with pytest.raises(ValueError, match=r"must be \[B, L\] with L >= 1, got \[2, 0\]"):
        shift_targets(labels[:, :0])


@pytest.mark.parametrize(
    ("p", "e", "vocab_size", "q", "w"),
    [
        (1.0, 0.5, 2, 0.75, 2 / 3),  # 0.5 * 1 + 0.25
        (0.25, 0.5, 4, 0.25, 0.5),  # p = 1 / V: the token says nothing, the posterior is the prior
        (0.01, 0.2, 100, 0.01, 0.8),
        (0.5, 1 / 3, 10, 1 / 3 + 1 / 30, 10 / 11),
    ],
)
def test_values_worked_by_hand(p, e, vocab_size, q, w):
    nll = double(-math.log(p))
    assert corrected_nll(nll, error_rate=e, vocab_size=vocab_size).item() == pytest.approx(-math.log(q), abs=1e-12)
    assert clean_posterior(nll, error_rate=e, vocab_size=vocab_size).item() == pytest.approx(w, abs=1e-12)


@given(nll=NLLS, e=RATES, vocab_size=VOCABULARIES)
@settings(max_examples=100, deadline=None)
def test_gradient_is_the_clean_posterior(nll, e, vocab_size):
    nll = double(nll).requires_grad_()
    corrected_nll(nll, error_rate=e, vocab_size=vocab_size).sum().backward()
    torch.testing.assert_close(
        nll.grad, clean_posterior(nll.detach(), error_rate=e, vocab_size=vocab_size), rtol=1e-9, atol=1e-15
    )


def test_gradients_agree_with_differences_for_nll_and_learned_rate():
    nll, e = double(0.1, 2.0, 7.0, 12.0).requires_grad_(), double(0.3).requires_grad_()

    def loss(nll, e):
        return corrected_nll(nll, error_rate=e, vocab_size=500)

    assert torch.autograd.gradcheck(loss, (nll, e))
    assert torch.autograd.gradcheck(lambda nll: loss(nll, 0.3), (nll,))


def test_rate_as_a_tensor_equals_rate_as_a_number():
    nll = random_logits(0, 50).abs().float()
    for function in (corrected_nll, clean_posterior):
        stated = function(nll, error_rate=0.25, vocab_size=1000)
        learned = function(nll, error_rate=torch.tensor([0.25]), vocab_size=1000)
        assert learned.dtype == nll.dtype
        torch.testing.assert_close(stated, learned)


def test_without_noise_nothing_changes():
    nll = torch.tensor([0.0, 1e-8, 3.0, 200.0])
    assert torch.equal(corrected_nll(nll, error_rate=0.0, vocab_size=10), nll)
    assert torch.equal(clean_posterior(nll, error_rate=0.0, vocab_size=10), torch.ones(4))
    assert torch.equal(mixture_posterior(nll, error_rate=0.0, vocab_size=10), torch.ones(4))


@pytest.mark.parametrize("e", [1e-6, 0.5, 0.999])
def test_extreme_nlls_in_float32_stay_finite_and_right(e):
    nll = torch.tensor([0.0, 1e-8, 50.0, 200.0, 1e4], requires_grad=True)
    loss = corrected_nll(nll, error_rate=e, vocab_size=50257)
    loss.sum().backward()
    expected = -torch.log((1 - e) * torch.exp(-nll.detach().double()) + e / 50257)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(nll.grad).all()
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-6, atol=1e-7)
    # An impossible token teaches nothing, and its loss is the one of a uniform draw.
    assert nll.grad[-1] == 0
    assert loss[-1].item() == pytest.approx(math.log(50257) - math.log(e), rel=1e-6)


@given(a=NLLS, b=NLLS, e=RATES, vocab_size=VOCABULARIES)
@settings(max_examples=100, deadline=None)
def test_loss_rises_and_posterior_falls_with_the_nll(a, b, e, vocab_size):
    nll = double(min(a, b), max(a, b))
    low, high = corrected_nll(nll, error_rate=e, vocab_size=vocab_size)
    assert low <= high
    assert -math.log1p(e / vocab_size - e) - 1e-9 <= low
    assert high <= math.log(vocab_size / e) + 1e-9
    likely, unlikely = clean_posterior(nll, error_rate=e, vocab_size=vocab_size)
    assert 1 >= likely >= unlikely >= 0


@given(seed=st.integers(0, 2**31), e=st.floats(0.0, 0.99), classes=st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_uniform_correction_is_the_transition_matrix_of_uniform_noise(seed, e, classes):
    logits, labels = random_logits(seed, 5, classes), torch.arange(5) % classes
    transition = (1 - e) * torch.eye(classes, dtype=torch.float64) + e / classes
    nll = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(
        transition_nll(logits, labels, transition), corrected_nll(nll, error_rate=e, vocab_size=classes)
    )


def test_transition_reads_rows_as_clean_and_columns_as_noisy():
    transition = double(0.9, 0.1, 0.0, 0.0, 0.8, 0.2, 0.3, 0.0, 0.7).view(3, 3)
    logits = torch.log(double(0.5, 0.3, 0.2)).expand(3, 3)
    q = torch.exp(-transition_nll(logits, torch.arange(3), transition))
    torch.testing.assert_close(q, double(0.5 * 0.9 + 0.2 * 0.3, 0.5 * 0.1 + 0.3 * 0.8, 0.3 * 0.2 + 0.2 * 0.7))


def test_a_label_that_no_class_produces_has_infinite_nll():
    never_1 = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert transition_nll(torch.zeros(1, 2), torch.tensor([1]), never_1).item() == math.inf


@given(seed=st.integers(0, 2**31), e=st.floats(0.01, 0.9), classes=st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_posthoc_inverts_the_mixture(seed, e, classes):
    logits = random_logits(seed, 4, classes)
    mixed = torch.log((1 - e) * logits.softmax(-1) + e / classes)
    targets = torch.arange(4) % classes
    # Float32 carries q to 1e-7; the share e / V that is taken off magnifies this for improbable tokens.
    p = torch.exp(-posthoc_nll(mixed, targets, error_rate=e, floor=2**-24).double())
    expected = torch.exp(-F.cross_entropy(logits, targets, reduction="none"))
    torch.testing.assert_close(p, expected, rtol=1e-4, atol=4e-7 / (1 - e))


def test_posthoc_leaves_ids_alone_that_noise_never_draws():
    clean, e = double(0.1, 0.2, 0.3, 0.4), 0.5
    mixed = (1 - e) * clean + e / 2 * double(1, 1, 0, 0)  # noise draws ids 0 and 1 of four
    p = [
        math.exp(-posthoc_nll(mixed.log()[None], torch.tensor([i]), error_rate=e, vocab_size=2).item())
        for i in range(4)
    ]
    assert p == pytest.approx(clean.tolist(), abs=1e-6)


@pytest.mark.parametrize("e", [0.0, 0.3, 0.9])
def test_posthoc_is_a_distribution_for_any_prediction(e):
    """Also where the model gives far less than e / V, as no mixture would."""
    logits = 8 * random_logits(1, 6, 40)
    assert (logits.softmax(-1) < e / 40).any() or e == 0
    nll = torch.stack([posthoc_nll(logits, torch.full((6,), i), error_rate=e) for i in range(40)])
    assert torch.isfinite(nll).all()
    torch.testing.assert_close(torch.exp(-nll).sum(0), torch.ones(6))
    if e == 0:
        torch.testing.assert_close(nll, -logits.log_softmax(-1).T.float())


@given(seed=st.integers(0, 2**31), e=RATES, vocab_size=st.integers(2, 50_000))
@settings(max_examples=50, deadline=None)
def test_mixture_posterior_is_the_clean_posterior_seen_through_the_mixture(seed, e, vocab_size):
    nll = random_logits(seed, 20).abs()
    q = (1 - e) * torch.exp(-nll) + e / vocab_size
    torch.testing.assert_close(
        mixture_posterior(-torch.log(q), error_rate=e, vocab_size=vocab_size),
        clean_posterior(nll, error_rate=e, vocab_size=vocab_size),
        rtol=1e-6, atol=1e-9,
    )  # fmt: skip


def test_mixture_posterior_is_zero_where_the_model_gives_less_than_the_noise():
    nll = torch.tensor([-math.log(0.5 / 100 / 2)])
    assert mixture_posterior(nll, error_rate=0.5, vocab_size=100).item() == 0


@pytest.mark.parametrize("e", [-0.1, 1.0, math.nan, math.inf])
@pytest.mark.parametrize("function", [corrected_nll, clean_posterior, mixture_posterior])
def test_rates_out_of_range_are_refused(function, e):
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        function(torch.ones(2), error_rate=e, vocab_size=10)


@pytest.mark.parametrize("function", [corrected_nll, clean_posterior, mixture_posterior])
def test_an_empty_vocabulary_is_refused(function):
    with pytest.raises(ValueError, match="vocab_size must be >= 1, got 0"):
        function(torch.ones(2), error_rate=0.5, vocab_size=0)


def test_posthoc_refuses_a_rate_out_of_range():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        posthoc_nll(torch.zeros(1, 3), torch.tensor([0]), error_rate=1.0)


@pytest.mark.parametrize(
    ("transition", "message"),
    [
        (torch.eye(3), r"must be \[2, 2\], got \[3, 3\]"),
        (torch.tensor([[0.5, 0.4], [0.0, 1.0]]), "sum to 1"),
        (torch.tensor([[1.5, -0.5], [0.0, 1.0]]), ">= 0"),
        (torch.tensor([[math.nan, 1.0], [0.0, 1.0]]), "sum to 1"),
    ],
)
def test_transitions_that_are_not_stochastic_are_refused(transition, message):
    with pytest.raises(ValueError, match=message):
        transition_nll(torch.zeros(1, 2), torch.tensor([0]), transition)


def test_a_rate_of_its_own_for_each_row_or_position():
    nll = torch.rand(3, 4, dtype=torch.float64)
    for shape in ((3, 1), (4,), (1, 4)):
        rates = torch.linspace(0.1, 0.6, math.prod(shape), dtype=torch.float64).reshape(shape)
        one_by_one = torch.stack([
            torch.stack([corrected_nll(value, error_rate=float(e), vocab_size=9) for value, e in zip(row, of_row)])
            for row, of_row in zip(nll, rates.expand(3, 4))
        ])  # fmt: skip
        torch.testing.assert_close(corrected_nll(nll, error_rate=rates, vocab_size=9), one_by_one)
    with pytest.raises(ValueError, match=r"error_rate must be one number or spread over \[3, 4\] as nll, .* got \[3\]"):
        corrected_nll(nll, error_rate=torch.full((3,), 0.1), vocab_size=9)
