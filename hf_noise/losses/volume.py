"""A transition matrix that is learned beside the classifier: volume minimisation.

Many pairs of a posterior p and a matrix T explain noisy labels, q = T^T p. Among them VolMinNet (Li et al., "Provably
end-to-end label-noise learning without anchor points", ICML 2021) seeks the T of smallest volume |det T|, which is the
true one if the clean posteriors reach into the corners of the simplex: some samples have to be unmistakable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hf_noise.losses.checks import check_count, check_floats, check_integers, check_real
from hf_noise.losses.lookup import rows

__all__ = ["VolumeMinimisation"]

#: Keeps the logarithm finite where no class could have produced the label, and far from a det T of 0.
_SMALLEST_P = 1e-12
_SMALLEST_SINGULAR = 1e-4
#: Paper C's, and VolMinNet's for 10 classes.
_INITIAL = -2.0
_MOST_CLASSES = 1 << 15  # a matrix of 4 GiB in float32


class VolumeMinimisation(nn.Module):
    """T_hat = I + (1 - I) * sigmoid(A), each row divided by its sum; A [C, C] is learned.

    Rows are clean classes, columns noisy ones. The largest entry of a row is that on the diagonal, so noise that
    labels a class as another one more often than as itself cannot be found.

    Args:
        num_classes: C in [2, 2^15].
        initial: value of all entries of A in [-100, 100], by default -2, which starts the diagonal at 0.807 for C = 3,
            0.482 for 10, 0.078 for 100.
        initial_diagonal: in (1/C, 1), where the diagonal starts whatever C is, in place of `initial`. VolMinNet's
            authors start at 0.48 for 10 classes (-2) and for 100 (-4.5).

    Raises:
        TypeError: a value is no number, or num_classes is no integer.
        ValueError: a value is out of its range, or initial and initial_diagonal are both given.

    Source: Li et al., "Provably end-to-end label-noise learning without anchor points", ICML 2021.
    """

    def __init__(self, num_classes: int, initial: float | None = None, *, initial_diagonal: float | None = None):
        super().__init__()
        num_classes = check_count("num_classes", num_classes, 2, _MOST_CLASSES)
        if initial_diagonal is None:
            initial = _INITIAL if initial is None else check_real("initial", initial, "[-100, 100]")
        elif initial is None:
            initial = _initial_for(initial_diagonal, num_classes)
        else:
            raise ValueError(f"initial={initial!r} and initial_diagonal={initial_diagonal!r} both say where T starts")
        self.A = nn.Parameter(torch.full((num_classes, num_classes), initial))

    @property
    def transition(self) -> Tensor:
        """T_hat, float32 [C, C], rows sum to 1; differentiable."""
        identity = torch.eye(len(self.A), device=self.A.device)
        weights = identity + (1 - identity) * torch.sigmoid(self.A.float())
        return weights / weights.sum(-1, keepdim=True)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """-log((p T_hat)[label] + 1e-12) of noisy labels, where p is the softmax of the logits.

        Args:
            logits: float [B, C], of clean classes.
            labels: int64 [B] in [0, C).

        Returns:
            float32 [B], in nats.

        Raises:
            TypeError: logits are not floating-point, or labels no integers.
            ValueError: shapes do not agree, or, on a CPU, a label is outside [0, C).
        """
        check_floats("logits", logits)
        classes = len(self.A)
        if logits.ndim != 2 or logits.shape[1] != classes:
            raise ValueError(f"logits must be [B, {classes}], got {list(logits.shape)}")
        labels = check_integers("labels", labels)
        if labels.shape != logits.shape[:1]:
            raise ValueError(f"{len(logits)} rows of logits need labels [{len(logits)}], got {list(labels.shape)}")
        # One row of columns per label: [B, C] without the product [B, C] x [C, C].
        columns = rows("labels", self.transition.T, labels)
        return -torch.log((torch.softmax(logits.float(), -1) * columns).sum(-1) + _SMALLEST_P)

    def log_volume(self) -> Tensor:
        """log |det T_hat| <= 0, the term that is added with a weight of 1e-4.

        Computed as log det(T T^T + g^2 I) / 2 with g = 1e-4, which does not depend on the sign of det T and has a
        finite value and gradient where det T = 0. It is larger than log |det T| by the sum of log(1 + g^2 / s^2) / 2
        over the singular values s of T, at most C g^2 / (2 s_min^2): below 1e-6 for C = 10 and s_min >= 0.23, 0.35 for
        each s that is as small as g, and without limit as T becomes singular. The gradient is that of the sum too: it
        stops growing where s falls below g.
        """
        dtype = torch.float32 if self.A.device.type == "mps" else torch.float64
        matrix = self.transition.to(dtype)
        guard = _SMALLEST_SINGULAR**2 * torch.eye(len(matrix), dtype=dtype, device=matrix.device)
        return (torch.linalg.slogdet(matrix @ matrix.T + guard).logabsdet / 2).float()


def _initial_for(diagonal: float, num_classes: int) -> float:
    """The entry of A for which all diagonal entries of T are this: 1 / (1 + (C - 1) sigmoid(a))."""
    diagonal = check_real("initial_diagonal", diagonal, "(0, 1)", "it is the share of labels that is right at first")
    errors = (1 / diagonal - 1) / (num_classes - 1)  # = sigmoid(a)
    if errors >= 1:
        raise ValueError(
            f"initial_diagonal must lie in (1/C, 1) = ({1 / num_classes:.6g}, 1) for {num_classes} classes, got "
            f"{diagonal!r}; the diagonal holds the largest entry of each row"
        )
    return math.log(errors) - math.log1p(-errors)
