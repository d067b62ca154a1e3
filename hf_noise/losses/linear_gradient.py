"""Local Gradient Matching of one linear head: the case that is trained most, in as few operations as there are.

What `LinearForm` is to many heads with any penalty, for one head, a mean over rows and | G - G_hat |. At a few rows a
step, each operation costs more than what it computes, and this takes half as many.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_noise.losses.head_gradients import TINY, Targets

__all__ = ["OneLinearForm"]


class OneLinearForm:
    """Loss and penalty of a linear head on a batch, and their gradients; see `hf_noise.losses.head_gradients`.

    Args:
        weight: [C, D].
        bias: [C] or None.
        features, noise: [B, D].
        targets: what the rows say, of one batch.
        gamma: strength of the noise.

    Attributes:
        loss, penalty: [].
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, features: Tensor, noise: Tensor, targets: Targets,
                 gamma: float):  # fmt: skip
        self.weight, self.has_bias, self.features, self.noise = weight, bias is not None, features, noise
        self.gamma, self.rows = gamma, len(features)
        clean = self._through(features, weight, bias)
        logits = torch.stack((clean, torch.addmm(clean, noise, weight.t(), alpha=gamma)))
        nll, self.residual, self._jacobian = targets(logits, _as_it_is)
        self.loss = nll[0].mean()
        own, moved = self.residual.unbind(0)
        self.mixed = own - moved
        # B (G - G_hat), whose gradient in its rows goes back through the same products.
        self.field = torch.mm(self.mixed.t(), features).addmm_(moved.t(), noise, alpha=-gamma)
        flat = self.field.view(-1)
        square = torch.dot(flat, flat)
        self.of_bias = self.mixed.sum(0) if self.has_bias else None
        if self.has_bias:
            square += torch.dot(self.of_bias, self.of_bias)
        self.norm = square.add_(TINY * self.rows**2).sqrt_()
        self.penalty = self.norm / self.rows

    @staticmethod
    def _through(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())

    def gradients(self, on_loss: Tensor | float = 1.0, on_penalty: Tensor | float = 1.0,
                  features: bool = False) -> tuple[list[Tensor], Tensor | None]:  # fmt: skip
        """Of on_loss * loss + on_penalty * penalty: of weight and bias, and of the features if wanted."""
        back = self._through(self.features, self.field, self.of_bias)
        moved = torch.addmm(back, self.noise, self.field.t(), alpha=self.gamma)
        scale = on_penalty / (self.rows * self.norm)
        own, moved = self._jacobian(torch.stack((back, moved))).mul_(scale).unbind(0)
        on_clean = torch.sub(own, moved).addcmul_(self.residual[0], scale.new_full((), 1 / self.rows) * on_loss)
        found = [torch.mm(on_clean.t(), self.features).addmm_(moved.t(), self.noise, alpha=-self.gamma)]
        found += [on_clean.sum(0)] if self.has_bias else []
        if not features:
            return found, None
        return found, torch.mm(on_clean, self.weight) + torch.mm(self.mixed * scale, self.field)


def _as_it_is(values: Tensor) -> Tensor:
    return values
