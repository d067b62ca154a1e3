"""The fused head: the same loss and gradients as cross-entropy on logits, without the logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_noise.losses import corrected_nll, nll, token_nll

needs_fused = pytest.mark.skipif(
    not nll.HAS_FUSED, reason=f"torch {torch.__version__} has no fused linear cross-entropy (2.14 has one)"
)

TOKENS, WIDTH, VOCABULARY = 192, 16, 512


class LargestTensor(TorchDispatchMode):
    """Notes the largest floating-point tensor that any operation inside the block puts out."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                self.elements = max(self.elements, leaf.numel())
        return result


def plain(hidden, weight, targets, bias=None):
    logits = F.linear(hidden, weight, bias)
    flat = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=-100, reduction="none")
    return flat.view(targets.shape)


def inputs(dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, TOKENS // 4, WIDTH, generator=draw).to(dtype).requires_grad_()
    weight = (0.3 * torch.randn(VOCABULARY, WIDTH, generator=draw)).to(dtype).requires_grad_()
    targets = torch.randint(VOCABULARY, (4, TOKENS // 4), generator=draw)
    targets[:, -1] = -100
    targets[1, 3:9] = -100
    return hidden, weight, targets


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@needs_fused
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_cross_entropy_and_is_zero_where_there_is_no_target(with_bias):
    hidden, weight, targets = inputs()
    bias = torch.linspace(-1, 1, VOCABULARY) if with_bias else None
    fused = token_nll(hidden, weight, targets, bias)
    assert fused.shape == targets.shape
    assert fused.dtype == torch.float32
    assert (fused[targets == -100] == 0).all()
    torch.testing.assert_close(fused, plain(hidden, weight, targets, bias), rtol=1e-6, atol=2e-6)


@needs_fused
@pytest.mark.parametrize("error_rate", [None, 0.5])
def test_gradients_equal_those_through_the_logits(error_rate):
    """Also under the corrected loss, which weights every token's gradient by its posterior."""
    gradients = []
    for function in (token_nll, plain):
        hidden, weight, targets = inputs()
        loss = function(hidden, weight, targets)
        if error_rate is not None:
            loss = corrected_nll(loss, error_rate=error_rate, vocab_size=VOCABULARY)
        (loss * (targets != -100)).sum().backward()
        gradients.append((hidden.grad, weight.grad))
    for fused, reference in zip(*gradients):
        assert relative(fused, reference) < 5e-7


@needs_fused
def test_no_tensor_holds_all_logits():
    """The same watch sees the logits of the plain path, so it would see them here."""
    largest = {}
    for function in (token_nll, plain):
        hidden, weight, targets = inputs()
        with LargestTensor() as watch:
            loss = corrected_nll(function(hidden, weight, targets), error_rate=0.5, vocab_size=VOCABULARY)
            loss.sum().backward()
        largest[function] = watch.elements
    assert largest[plain] >= TOKENS * VOCABULARY
    assert largest[token_nll] < TOKENS * VOCABULARY / 4


@needs_fused
def test_a_head_in_another_precision_follows_the_hidden_states():
    hidden, weight, targets = inputs()
    low = token_nll(hidden.bfloat16(), weight, targets)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, plain(hidden, weight, targets), rtol=0.02, atol=0.05)


def test_a_torch_without_it_says_so(monkeypatch):
    monkeypatch.setattr(nll, "HAS_FUSED", False)
    with pytest.raises(RuntimeError, match="use torch >= 2.14"):
        token_nll(*inputs())
