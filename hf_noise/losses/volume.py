"""A transition matrix that is learned beside the classifier: volume minimisation.

Many pairs of a posterior p and a matrix T explain noisy labels, q = T^T p. Among them VolMinNet (Li et al., "Provably
end-to-end label-noise learning without anchor points", ICML 2021) seeks the T of smallest volume |det T|, which is the
true one if the clean posteriors reach into the corners of the simplex: some samples have to be unmistakable.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["VolumeMinimisation"]

#: Keeps the logarithm finite where no class could have produced the label, and far from a det T of 0.
_SMALLEST_P = 1e-12
_SMALLEST_SINGULAR = 1e-4


class VolumeMinimisation(nn.Module):
    """T_hat = I + (1 - I) * sigmoid(A), each row divided by its sum; A [C, C] is learned.

    Rows are clean classes, columns noisy ones. The largest entry of a row is that on the diagonal, so noise that
    labels a class as another one more often than as itself cannot be found.

    Args:
        num_classes: C >= 2.
        initial: value of all entries of A; -2 starts the diagonal at 0.807 for C = 3, 0.482 for 10, 0.078 for 100.

    Raises:
        ValueError: fewer than two classes.

    Source: Li et al., "Provably end-to-end label-noise learning without anchor points", ICML 2021.
    """

    def __init__(self, num_classes: int, initial: float = -2.0):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be >= 2, got {num_classes}")
        self.A = nn.Parameter(torch.full((num_classes, num_classes), float(initial)))

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
        """
        # One row of columns per label: [B, C] without the product [B, C] x [C, C].
        columns = self.transition.T.index_select(0, labels)
        return -torch.log((torch.softmax(logits.float(), -1) * columns).sum(-1) + _SMALLEST_P)

    def log_volume(self) -> Tensor:
        """log |det T_hat| <= 0, the term that is added with a weight of 1e-4.

        Computed as log det(T T^T + 1e-8 I) / 2, which differs by rounding for any T that can be inverted, does not
        depend on the sign of det T, and has a finite value and gradient where det T = 0.
        """
        dtype = torch.float32 if self.A.device.type == "mps" else torch.float64
        matrix = self.transition.to(dtype)
        guard = _SMALLEST_SINGULAR**2 * torch.eye(len(matrix), dtype=dtype, device=matrix.device)
        return (torch.linalg.slogdet(matrix @ matrix.T + guard).logabsdet / 2).float()
