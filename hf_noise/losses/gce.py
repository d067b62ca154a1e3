"""Generalised cross-entropy: between the likelihood, which trusts every target, and the error rate, which does not."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_noise.losses.checks import check_floats, check_real
from hf_noise.losses.logits import wide

__all__ = ["generalised_cross_entropy"]

#: Below it (1 - p^q) / q is -log p to the precision of float64, and q times a small NLL would underflow in float32.
_IS_NLL = 1e-20


def generalised_cross_entropy(nll: Tensor, q: float) -> Tensor:
    """Generalised cross-entropy (1 - p^q) / q of each target, elementwise from its NLL -log p.

    Its gradient is p^q times that of the NLL: targets that the model finds unlikely teach little. q = 0 is the NLL
    itself, q = 1 the probability of a wrong token, 1 - p.

    Args:
        nll: float tensor of any shape, -log p >= 0 in nats.
        q: in [0, 1].

    Returns:
        Tensor of the same shape and dtype, in [0, 1 / q]; equal to `nll` at q = 0.

    Raises:
        TypeError: nll is not floating-point, or q no number.
        ValueError: q is outside [0, 1].

    Source: Zhang and Sabuncu, "Generalized cross entropy loss for training deep neural networks with noisy labels",
        NeurIPS 2018, equation 6.

    >>> generalised_cross_entropy(torch.tensor([0.0, 0.6931472]), q=1.0)  # p = 1 and 1/2
    tensor([0.0000, 0.5000])
    """
    check_floats("nll", nll)
    q = check_real("q", q, "[0, 1]", "0 is the plain likelihood, 1 the share of wrong tokens")
    if q < _IS_NLL:
        return nll
    return (torch.expm1(-q * wide(nll)) / -q).to(nll.dtype)
