"""What the losses refuse: settings out of range, other dtypes and shapes; and what they take as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_noise.losses import (
    LabelTransition,
    VolumeMinimisation,
    clean_posterior,
    corrected_nll,
    dsm_loss,
    edm_weight,
    label_nll,
    log_columns,
    mixture_posterior,
    posthoc_nll,
    shift_targets,
    tdsm_loss,
    transition_aware_weights,
)

LOGITS, LABELS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
NLL = torch.tensor([0.0, 1.0, math.inf])
T = [[0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]]
RATED = [corrected_nll, clean_posterior, mixture_posterior]


@pytest.mark.parametrize("floor", [-1, 0, 1.5, math.nan, "1", None, True, torch.tensor(0.5)])
def test_the_floor_of_posthoc_predictions_is_a_share(floor):
    with pytest.raises((TypeError, ValueError), match="floor must"):
        posthoc_nll(LOGITS, LABELS, error_rate=0.2, floor=floor)


@pytest.mark.parametrize("smoothing", [1.5, 1.0, -0.1, math.nan, "0", None, True])
def test_smoothing_is_a_share(smoothing):
    with pytest.raises((TypeError, ValueError), match="smoothing must"):
        label_nll(LOGITS, LABELS, smoothing=smoothing)


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1), (), (1, 4)])
@pytest.mark.parametrize("loss", [label_nll, lambda x, y: posthoc_nll(x, y, error_rate=0.1)])
def test_every_row_of_logits_has_its_label(loss, shape):
    with pytest.raises(ValueError, match=r"logits \[4, 3\] need (labels|targets) \[4\], got"):
        loss(LOGITS, torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint64])
def test_labels_of_every_kind_of_integer(dtype):
    narrow = LABELS.to(dtype)
    assert torch.equal(label_nll(LOGITS, narrow), label_nll(LOGITS, LABELS))
    both = [posthoc_nll(LOGITS, labels, error_rate=0.1) for labels in (narrow, LABELS)]
    assert torch.equal(*both)
    assert shift_targets(narrow[None]).tolist() == [[1, 2, 0, -100]], "which uint8 does not hold"
    weights = [transition_aware_weights(y, T, clean_posterior=LOGITS.softmax(-1)) for y in (narrow, LABELS)]
    assert torch.equal(*weights)


@pytest.mark.parametrize("labels", [LABELS.float(), LABELS.bool(), LABELS.tolist(), LABELS.to_sparse(), None])
def test_labels_are_a_tensor_of_integers(labels):
    for loss in (lambda y: label_nll(LOGITS, y), lambda y: transition_aware_weights(y, T, clean_posterior=LOGITS)):
        with pytest.raises(TypeError, match="labels must be"):
            loss(labels)


@pytest.mark.parametrize("loss", RATED)
@pytest.mark.parametrize("rate", [2.0, -0.5, [0.5, 0.5, 1.01]])
def test_a_tensor_of_rates_is_looked_at_on_a_cpu(loss, rate):
    rate = torch.tensor(rate, requires_grad=True)
    with pytest.raises(ValueError, match=r"error_rate must lie in \[0, 1\], got"):
        loss(NLL, error_rate=rate, vocab_size=10)
    with torch.device("meta"):  # as on a GPU, where a look would make the host wait
        assert loss(torch.empty(3), error_rate=torch.empty(rate.shape), vocab_size=10).shape == (3,)


@pytest.mark.parametrize("loss", RATED)
def test_a_learned_rate_may_reach_the_ends_and_nan(loss):
    """A sigmoid in float32 does; whoever watches the loss sees the NaN."""
    for rate in (0.0, 1.0, 0.5):
        assert not loss(NLL[:2], error_rate=torch.tensor([rate]), vocab_size=10).isnan().any()
    assert loss(NLL, error_rate=torch.tensor([math.nan]), vocab_size=10).isnan().all()


@pytest.mark.parametrize("loss", RATED)
@pytest.mark.parametrize("rate", [torch.tensor(1), torch.tensor([0.1, 0.2]), "0.1", True, 1j, None, np.array(0.1)])
def test_a_rate_is_one_number_or_one_for_each_token(loss, rate):
    with pytest.raises((TypeError, ValueError), match="error_rate must be"):
        loss(NLL, error_rate=rate, vocab_size=10)
    for size in (0, 2.0, True, 2**40, None):
        with pytest.raises((TypeError, ValueError), match="vocab_size must be"):
            loss(NLL, error_rate=0.1, vocab_size=size)


def test_without_noise_every_token_is_clean():
    """Also one that the model holds for impossible: 0 / 0 was NaN."""
    for posterior in RATED[1:]:
        assert posterior(NLL, error_rate=0, vocab_size=10).tolist() == [1, 1, 1]
    assert clean_posterior(NLL, error_rate=0.5, vocab_size=10)[2] == 0


def test_the_result_keeps_the_precision_of_the_losses():
    rate = torch.tensor([0.5], dtype=torch.float64)
    assert corrected_nll(NLL, error_rate=rate, vocab_size=10).dtype == NLL.dtype
    smoothed = label_nll(LOGITS.bfloat16(), LABELS, log_columns(torch.tensor(T)), smoothing=0.1)
    exact = label_nll(LOGITS.double(), LABELS, log_columns(torch.tensor(T).double()), smoothing=0.1)
    torch.testing.assert_close(smoothed.double(), exact, rtol=0.03, atol=0.03)


MASKED = np.ma.array(T, mask=np.eye(3))
COMPLEX = torch.tensor(T, dtype=torch.complex64)


@pytest.mark.parametrize(
    "matrix", [MASKED, [T[0], MASKED[1], T[2]], np.array(T) + 0j, COMPLEX, "T", [[1.0], [0.5, 0.5]]]
)
def test_a_matrix_holds_real_numbers(matrix):
    for make in (lambda: LabelTransition(matrix), lambda: LabelTransition(T, matrix)):
        with pytest.raises((TypeError, ValueError), match="(transition|prior) (must be real|is a masked|cannot be)"):
            make()
    with pytest.raises((TypeError, ValueError), match="device"):
        LabelTransition(T, device="nowhere")


@pytest.mark.parametrize("posterior", [LOGITS, LOGITS.softmax(-1) * 3])
def test_a_posterior_is_a_share(posterior):
    """Logits given without saying so were taken as probabilities, whose logarithms are NaN."""
    for form in ("clean_posterior", "noisy_posterior"):
        with pytest.raises(ValueError, match=r"the posterior must lie in \[0, 1\], got .*logits=True"):
            transition_aware_weights(LABELS, T, **{form: posterior})
    with pytest.raises(TypeError, match="logits must be True or False, got 1"):
        transition_aware_weights(LABELS, T, clean_posterior=posterior, logits=1)


@pytest.mark.parametrize(
    "returned", [lambda x: x[:1], lambda x: x.mean(), lambda x: None, lambda x: x + 0j, lambda x: x[None]]
)
def test_what_a_denoiser_returns_may_not_broadcast(returned):
    """One image for all, or one number, gave a loss of the right shape."""
    images, sigma = torch.ones(2, 1, 2, 2), torch.ones(2)
    weights = torch.eye(3)[:2]
    for loss in (
        lambda d: dsm_loss(d, images, sigma, images, None),
        lambda d: tdsm_loss(d, images, sigma, images, LABELS[:2], weights),
    ):
        with pytest.raises(ValueError, match="the denoiser must return floating-point images"):
            loss(lambda x, *_: returned(x))


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_a_noise_level_is_above_0(sigma):
    with pytest.raises(ValueError, match=f"sigma must be > 0, got {sigma}"):
        edm_weight(torch.tensor([1.0, sigma]))
    assert edm_weight(torch.tensor([1.0, math.nan])).isnan().tolist() == [False, True]


def test_nothing_is_looked_at_where_a_device_would_have_to_wait():
    """A tensor on the device "meta" has no values: any look at them raises."""
    with torch.device("meta"):
        images, sigma, logits = torch.empty(2, 1, 4, 4), torch.empty(2), torch.empty(2, 3)
        labels = torch.empty(2).long()
    columns = log_columns(torch.tensor(T)).to("meta")
    losses = [
        label_nll(logits, labels, columns, 0.1), posthoc_nll(logits, labels, error_rate=0.1),
        dsm_loss(lambda x, *_: x, images, sigma, images, labels), edm_weight(sigma),
        VolumeMinimisation(3).to("meta")(logits, labels),
        corrected_nll(sigma, error_rate=sigma[:1], vocab_size=9), shift_targets(labels[None])[0],
    ]  # fmt: skip
    assert all(loss.shape == (2,) and loss.device.type == "meta" for loss in losses)
    for form in ("clean_posterior", "noisy_posterior"):
        weights = transition_aware_weights(labels, LabelTransition(T, device="meta"), **{form: logits})
        assert weights.shape == (2, 3)


def test_no_operator_waits_for_a_value():
    """On a CPU values are looked at, by NumPy: what is counted here a GPU would have to wait for."""

    class Waits(TorchDispatchMode):
        seen = ()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen += (function._schema.name,) if "local_scalar" in function._schema.name else ()
            return function(*args, **(kwargs or {}))

    images, sigma, columns = torch.ones(4, 1, 2, 2), torch.ones(4), log_columns(torch.tensor(T))
    transition = LabelTransition(T)
    with Waits() as waits:
        label_nll(LOGITS, LABELS, columns, 0.1)
        posthoc_nll(LOGITS, LABELS, error_rate=0.1)
        corrected_nll(NLL, error_rate=torch.tensor([0.5]), vocab_size=10)
        transition_aware_weights(LABELS, transition, clean_posterior=LOGITS.softmax(-1))
        dsm_loss(lambda x, *_: x, images, sigma, images, LABELS)
        VolumeMinimisation(3)(LOGITS, LABELS)
    assert not waits.seen


def test_checks_leave_compiled_graphs_and_vmap_whole():
    per_row = torch.func.vmap(torch.func.grad(lambda x, y: label_nll(x, y)))(LOGITS, LABELS)
    assert per_row.shape == LOGITS.shape
    compiled = torch.compile(lambda e: corrected_nll(NLL, error_rate=e, vocab_size=10), backend="eager", fullgraph=True)
    rate = torch.tensor([0.5], requires_grad=True)
    torch.testing.assert_close(compiled(rate), corrected_nll(NLL, error_rate=rate, vocab_size=10))
    columns = log_columns(torch.tensor(T))
    nll = torch.compile(lambda x, y: label_nll(x, y, columns) + label_nll(x, y), backend="eager", fullgraph=True)
    torch.testing.assert_close(nll(LOGITS, LABELS), label_nll(LOGITS, LABELS, columns) + label_nll(LOGITS, LABELS))
    weight = torch.compile(edm_weight, backend="eager", fullgraph=True)
    torch.testing.assert_close(weight(torch.tensor([0.5])), torch.tensor([8.0]))
