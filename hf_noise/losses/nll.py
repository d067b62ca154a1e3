"""Negative log-likelihoods of tokens: plain, corrected for known or learned noise, and corrected afterwards.

Uniform token noise turns a clean conditional p(. | x) into q(. | x) = (1 - e) p(. | x) + e / V. Training p by plain
cross-entropy on the noisy targets fits q; training it by -log q(y | x), the forward-corrected likelihood, fits p.
All NLLs are in nats per token.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_noise.losses.checks import check_count, check_floats, check_integers, check_real, looked_at
from hf_noise.losses.lookup import entries

__all__ = [
    "clean_posterior", "corrected_nll", "mixture_posterior", "posthoc_nll", "shift_targets", "token_nll",
]  # fmt: skip

IGNORE_INDEX = -100

#: torch >= 2.14 computes the loss of a linear head in chunks, without ever holding all logits.
HAS_FUSED = hasattr(torch.nn, "LinearCrossEntropyOptions")


def shift_targets(labels: Tensor) -> Tensor:
    """Targets of a causal model: what stands one position later; the last position has none.

    Args:
        labels: int64 [B, L], -100 where there is no target.

    Returns:
        int64 [B, L], the last column -100. Aligned with logits [B, L, V], so these need not be sliced and copied.

    Raises:
        TypeError: labels are no tensor of integers.
        ValueError: they are not [B, L] with L >= 1.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.layout is not torch.strided:
        labels = check_integers("labels", labels)  # int64: a narrower type may not hold -100
    if labels.ndim != 2 or not labels.shape[1]:
        raise ValueError(f"labels must be [B, L] with L >= 1, got {list(labels.shape)}")
    return F.pad(labels, (-1, 1), value=IGNORE_INDEX)


def token_nll(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """NLL of each target under the softmax of a linear head, without the tokens x vocabulary matrix of logits.

    Args:
        hidden: [..., H] float, the last hidden states.
        weight: [V, H], the head; `bias`: [V] or None.
        targets: int64 [...], -100 for positions without a target.

    Returns:
        float32 [...], 0 at positions without a target.

    Raises:
        TypeError: hidden, weight or bias are not floating-point, or targets no integers.
        ValueError: shapes do not agree, or, on a CPU, a target is outside [0, V).
        RuntimeError: this torch has no fused linear cross-entropy (2.14 has one).
    """
    for name, values in (("hidden", hidden), ("weight", weight), *([] if bias is None else [("bias", bias)])):
        check_floats(name, values)
    targets = check_integers("targets", targets)
    if hidden.ndim < 1 or weight.ndim != 2 or weight.shape[1] != hidden.shape[-1] or targets.shape != hidden.shape[:-1]:
        raise ValueError(
            f"hidden [..., H] needs weight [V, H] and targets [...], got hidden {list(hidden.shape)}, weight "
            f"{list(weight.shape)} and targets {list(targets.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{len(weight)}] as weight has rows, got {list(bias.shape)}")
    array = looked_at(targets)
    if array is not None and (wrong := (array != IGNORE_INDEX) & ((array < 0) | (array >= len(weight)))).any():
        raise ValueError(f"targets must lie in [0, {len(weight)}), rows of weight, or be -100, got {array[wrong][0]}")
    if not HAS_FUSED:
        raise RuntimeError(f"torch {torch.__version__} has no fused linear cross-entropy; use torch >= 2.14")
    flat = hidden.reshape(-1, hidden.shape[-1])
    if torch.is_autocast_enabled(flat.device.type) and torch.is_grad_enabled():
        # Unlike F.linear, the fused function takes no part in autocast. Its result has the precision of its input, so
        # that an evaluation, which is to be exact, stays in float32.
        flat = flat.to(torch.get_autocast_dtype(flat.device.type))
    nll = F.linear_cross_entropy(
        flat,
        weight.to(flat.dtype),
        targets.reshape(-1),
        linear_bias=None if bias is None else bias.to(flat.dtype),
        reduction="none",
        ignore_index=IGNORE_INDEX,
        options=torch.nn.LinearCrossEntropyOptions(),
    )
    # The fused backward multiplies by what comes from above also where there is no target, and that may be infinite.
    return nll.float().view(targets.shape).where(targets != IGNORE_INDEX, 0)


#: The result hardly depends on it between 0.01 and 0.1; without it, a target the model just misses costs 20 nats.
POSTHOC_FLOOR = 1 / 32
_LARGEST_VOCABULARY = 1 << 31


def _log_rates(nll: Tensor, error_rate: float | Tensor, vocab_size: int) -> tuple[float | Tensor, float | Tensor]:
    """(log(1 - e), log(e / V)), once nll, e and V are known to be what they should be."""
    check_floats("nll", nll)
    vocab_size = check_count("vocab_size", vocab_size, 1, _LARGEST_VOCABULARY)
    if isinstance(error_rate, Tensor):
        error_rate = _checked_rates(error_rate, nll)
        return torch.log1p(-error_rate).to(nll), (torch.log(error_rate) - math.log(vocab_size)).to(nll)
    error_rate = check_real("error_rate", error_rate, "[0, 1)", "it is the share of wrong tokens")
    return math.log1p(-error_rate), math.log(error_rate) - math.log(vocab_size) if error_rate else -math.inf


def _spreads_over(small: torch.Size, large: torch.Size) -> bool:
    """Whether values of the one shape are one for each value of the other, by the rules of broadcasting."""
    try:
        return torch.broadcast_shapes(small, large) == large
    except RuntimeError:
        return False


def _checked_rates(error_rate: Tensor, nll: Tensor) -> Tensor:
    """A learned e, or one for each token: its kind and shape, and where nothing has to wait for it its range.

    NaN passes, as it does through the loss: whoever watches that can name the batch.
    """
    check_floats("error_rate", error_rate)
    if error_rate.numel() == 1:
        error_rate = error_rate.reshape(())
    elif not _spreads_over(error_rate.shape, nll.shape):
        raise ValueError(f"error_rate must be one number or spread over {list(nll.shape)} as nll, as [B, 1] does over "
                         f"[B, L], got {list(error_rate.shape)}")  # fmt: skip
    array = looked_at(error_rate)
    if array is None or not array.size:
        return error_rate
    # The usual one number as a Python float: NumPy's operators would cost more than the loss of few tokens.
    ends = (array.item(),) if array.size == 1 else (np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None))
    if wrong := [end for end in ends if end < 0 or end > 1]:
        raise ValueError(f"error_rate must lie in [0, 1], got {wrong[0]}; it is the share of wrong tokens")
    return error_rate


def corrected_nll(nll: Tensor, *, error_rate: float | Tensor, vocab_size: int) -> Tensor:
    """Forward-corrected NLL of noisy targets, -log((1 - e) p(y | x) + e / V), elementwise from -log p(y | x).

    Its gradient with respect to `nll` is `clean_posterior(nll, ...)`: a token that is probably wrong teaches little.

    Args:
        nll: float tensor of any shape, -log p(y | x) >= 0 in nats.
        error_rate: e in [0, 1), a float, or a tensor in (0, 1) that may require grad: one number, or one for each
            token.
        vocab_size: V in [1, 2^31], the number of ids that a wrong token is drawn from.

    Returns:
        Tensor of the same shape and dtype; equal to `nll` at e = 0.

    Raises:
        TypeError: nll or a tensor e are not floating-point, e no number, or V no integer.
        ValueError: e is a float outside [0, 1), a tensor of another shape or, on a CPU, outside [0, 1]; or V is out of
            range.

    >>> corrected_nll(torch.tensor([0.0]), error_rate=0.5, vocab_size=2).exp()  # 1 / (0.5 + 0.25)
    tensor([1.3333])
    """
    log_clean, log_noise = _log_rates(nll, error_rate, vocab_size)
    # On a GPU neither branch makes the host wait: no look into a tensor, a fill instead of a copy.
    if not isinstance(log_noise, Tensor):
        if log_noise == -math.inf:
            return nll
        log_noise = nll.new_full((), log_noise)
    return -torch.logaddexp(log_clean - nll, log_noise)


def clean_posterior(nll: Tensor, *, error_rate: float | Tensor, vocab_size: int) -> Tensor:
    """Posterior probability that a token is clean: w = (1 - e) p(y|x) / ((1 - e) p(y|x) + e / V).

    Arguments and errors as for `corrected_nll`. Returns a tensor of the shape of `nll`, values in [0, 1]; 1 at e = 0.
    """
    log_clean, log_noise = _log_rates(nll, error_rate, vocab_size)
    if not isinstance(log_noise, Tensor) and log_noise == -math.inf:
        return torch.ones_like(nll)  # also of a token that the model holds for impossible
    return torch.sigmoid(log_clean - nll - log_noise)


def mixture_posterior(nll: Tensor, *, error_rate: float, vocab_size: int) -> Tensor:
    """`clean_posterior` for a model that was trained plainly and so predicts q = (1 - e) p + e / V itself.

    w = 1 - (e / V) / q(y | x), at least 0; 1 at e = 0. Arguments and errors as for `corrected_nll`, `nll` = -log q.
    """
    _, log_noise = _log_rates(nll, error_rate, vocab_size)
    if not isinstance(log_noise, Tensor) and log_noise == -math.inf:
        return torch.ones_like(nll)
    return torch.clamp(-torch.expm1(log_noise + nll), min=0.0)


def posthoc_nll(
    logits: Tensor,
    targets: Tensor,
    *,
    error_rate: float,
    vocab_size: int | None = None,
    floor: float = POSTHOC_FLOOR,
) -> Tensor:
    """NLL of a plainly trained model after its predictions q are corrected: p = (q - e / V) / (1 - e).

    A trained model misses the uniform share by a few percent, often from below. There p is clamped to `floor` times
    the share, then renormalised, so that it is a distribution for any q.

    Args:
        logits: float [..., V].
        targets: int64 [...], in [0, V).
        error_rate: e in [0, 1).
        vocab_size: number of ids that noise draws from, the first ones, in [1, V]; V by default.
        floor: smallest p before renormalisation, as a multiple of e / V, in (0, 1].

    Returns:
        float32 [...], -log p(target) in nats.

    Raises:
        TypeError: logits are not floating-point, targets no integers, or a setting no number.
        ValueError: shapes do not agree, a setting is out of its range, or, on a CPU, a target is outside [0, V).
    """
    check_floats("logits", logits)
    if logits.ndim < 1 or not logits.shape[-1]:
        raise ValueError(f"logits must be [..., V], got {list(logits.shape)}")
    targets = check_integers("targets", targets)
    *rows, every = logits.shape
    if list(targets.shape) != rows:
        raise ValueError(f"logits {list(logits.shape)} need targets {rows}, got {list(targets.shape)}")
    vocab_size = every if vocab_size is None else check_count("vocab_size", vocab_size, 1, every)
    error_rate = check_real("error_rate", error_rate, "[0, 1)", "it is the share of wrong tokens")
    floor = check_real("floor", floor, "(0, 1]", "it keeps what the model just misses from costing all it has")
    log_q = F.log_softmax(logits.float(), dim=-1)
    if error_rate == 0:
        return -entries("targets", log_q, targets)
    share = error_rate / vocab_size
    p = log_q.exp()
    p[..., :vocab_size] -= share
    log_p = torch.log(torch.clamp(p, min=share * floor))
    return torch.logsumexp(log_p, -1) - entries("targets", log_p, targets)
