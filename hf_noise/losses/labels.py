"""Negative log-likelihoods of labels: plain, and corrected for a known transition matrix.

Class-conditional noise turns a clean conditional p(. | x) into q(j | x) = sum_i T[i, j] p(i | x). Training p by plain
cross-entropy on noisy labels fits q; training it by -log q(label | x), the forward-corrected loss, fits p (Patrini et
al., "Making deep neural networks robust to label noise", CVPR 2017). All NLLs are in nats.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_noise.losses.checks import check_floats, check_integers, check_real
from hf_noise.losses.lookup import entries, rows

__all__ = ["label_nll", "log_columns", "transition_nll"]

#: By how much probabilities, as given in float32 perhaps, may miss the sum 1.
ROW_SUM_TOLERANCE = 1e-6


def log_columns(transition: Tensor) -> Tensor:
    """Row j holds log T[:, j], what a noisy label j says of each clean class; checked once, looked up in every step.

    Args:
        transition: float [C, C], C >= 2, T[i, j] = p(noisy = j | clean = i), rows sum to 1.

    Returns:
        [C, C] of the same dtype, -inf where T is 0.

    Raises:
        TypeError: T is no floating-point tensor.
        ValueError: T is not square, of fewer than 2 classes, has a negative entry, or a row misses the sum 1 by more
            than 1e-6.
    """
    check_floats("transition", transition)
    if transition.ndim != 2 or transition.shape[0] != transition.shape[1] or len(transition) < 2:
        raise ValueError(f"transition must be [C, C] with C >= 2 classes, got {list(transition.shape)}")
    rows = transition.detach().cpu().double().sum(-1)
    if not (transition >= 0).all() or not ((rows - 1).abs() <= ROW_SUM_TOLERANCE).all():
        sums = ", ".join(f"{row:.7g}" for row in rows[:10].tolist()) + (", ..." if len(rows) > 10 else "")
        raise ValueError(f"each row of the transition matrix must be >= 0 and sum to 1, got row sums {sums}")
    return torch.log(transition).T.contiguous()


def label_nll(logits: Tensor, labels: Tensor, columns: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """NLL of labels under the softmax of logits, forward-corrected if `columns` are given.

    Args:
        logits: float [..., C].
        labels: int64 [...], in [0, C).
        columns: `log_columns(T)`, on the device of the logits; None for no correction.
        smoothing: s in [0, 1): (1 - s) times the NLL plus s times its mean over all classes as label.

    Returns:
        float [...]; inf where no class could have produced the label.

    Raises:
        TypeError: logits or columns are not floating-point, labels no integers, or smoothing no number.
        ValueError: shapes or devices do not agree, smoothing is outside [0, 1), or, on a CPU, a label is outside
            [0, C).
    """
    check_floats("logits", logits)
    if logits.ndim < 1 or not logits.shape[-1]:
        raise ValueError(f"logits must be [..., C], got {list(logits.shape)}")
    classes = logits.shape[-1]
    labels = check_integers("labels", labels)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"logits {list(logits.shape)} need labels {list(logits.shape[:-1])}, got {list(labels.shape)}")
    smoothing = check_real("smoothing", smoothing, "[0, 1)")
    if columns is not None:
        check_floats("columns", columns)
        if columns.shape != (classes, classes) or columns.device != logits.device:
            raise ValueError(
                f"columns must be [{classes}, {classes}] on {logits.device}, got {list(columns.shape)} on "
                f"{columns.device}; they are log_columns(T) of the classes of the logits"
            )
    log_p = F.log_softmax(logits, dim=-1)
    if columns is None:
        nll = -entries("labels", log_p, labels)
        every = log_p
    else:
        said = rows("labels", columns, labels.flatten()).view(log_p.shape)
        nll = -torch.logsumexp(log_p + said, dim=-1)
        p = log_p.exp().to(columns.dtype) if smoothing else None
        every = (p @ columns.T.exp()).clamp_min(torch.finfo(columns.dtype).tiny).log() if smoothing else None
    return (1 - smoothing) * nll - smoothing * every.mean(-1) if smoothing else nll


def transition_nll(logits: Tensor, labels: Tensor, transition: Tensor) -> Tensor:
    """Forward-corrected NLL for class-conditional noise: -log sum_i T[i, y] p(i | x).

    Args:
        logits: float [..., C].
        labels: int64 [...], the noisy labels, in [0, C).
        transition: float [C, C], T[i, j] = p(noisy = j | clean = i), rows sum to 1.

    Returns:
        Tensor [...]; inf where no class could have produced the label.

    Raises:
        TypeError: logits or T are not floating-point, or labels no integers.
        ValueError: T has another shape, or is no such matrix, see `log_columns`; labels as for `label_nll`.
    """
    check_floats("logits", logits)
    check_floats("transition", transition)
    if logits.ndim < 1:
        raise ValueError(f"logits must be [..., C], got {list(logits.shape)}")
    classes = logits.shape[-1]
    if transition.shape != (classes, classes):
        raise ValueError(f"transition must be [{classes}, {classes}], got {list(transition.shape)}")
    return label_nll(logits, labels, log_columns(transition).to(logits))
