"""Local Gradient Matching of linear heads, | G - G_hat |: the cases that are trained most, cheaper than `LinearForm`.

`OneLinearForm` is for one head and a mean over rows: at a few rows a step, each operation costs more than what it
computes, and it takes half as many. `FewRowsForm` is for many heads on few rows: it does half of the arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_noise.losses.head_gradients import TINY, Targets

__all__ = ["FewRowsForm", "OneLinearForm", "are_few"]


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


def are_few(rows: int, outputs: int, width: int) -> bool:
    """Whether `FewRowsForm` needs fewer products than `LinearForm`: four of rows x outputs x width are saved, and
    products of rows with rows, 4 rows^2 (outputs + width), are added; outputs are those of all heads on a batch."""
    return rows * (outputs + width) <= outputs * width


class FewRowsForm:
    """Loss and penalty of K x M linear heads, and their gradients; see `hf_noise.losses.head_gradients`.

    With rows Z = [t; delta] and A = [r - r_hat; -gamma r_hat], what moves is A' Z. Neither its norm nor what the norm
    does to A needs that product: both come from (Z Z') A, and Z Z' [2 B, 2 B] is the same for the M heads. All of A is
    small where gamma is, so no large numbers cancel. Z goes through the weights once, and once back to them.

    Args:
        weight: [K, M, C, D], contiguous.
        bias: [K, M, C] or None.
        features, noise: [K, B, D].
        targets: what the rows say.
        gamma: strength of the noise, a number or [K, M].
        shares: of the rows, [K, B]; None for a mean over the batch.
        out: [K, M * C, D] to write the gradient of the weight into, or None.

    Attributes:
        loss, penalty: [K, M].
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, features: Tensor, noise: Tensor, targets: Targets,
                 gamma: Tensor | float, shares: Tensor | None = None, out: Tensor | None = None):  # fmt: skip
        self.weight, self.has_bias, self.out = weight, bias is not None, out
        seeds, heads, classes, width = weight.shape
        size = features.shape[1]
        self.by_rows, self.by_heads = (seeds, 2 * size, heads * classes), (seeds, 2, size, heads, classes)
        self.gamma = gamma.reshape(seeds, 1, heads, 1) if isinstance(gamma, Tensor) else gamma
        self.rows = torch.cat((features, noise), 1)
        logits = torch.bmm(self.rows, weight.view(seeds, -1, width).mT).view(self.by_heads)
        if bias is not None:
            logits[:, 0] += bias[:, None]
        self._add_moved(logits)
        nll, self.residual, self._jacobian = targets(logits, lambda values: values[:, None, :, None])
        nll = nll[:, 0]
        self.loss = nll.mean(1) if shares is None else (nll * shares[..., None]).sum(1)
        self.share = 1 / size if shares is None else shares[:, None, :, None, None]
        own, moved = self.residual.mul_(self.share).unbind(1)
        mixed = torch.stack((own - moved, moved * -self.gamma), 1)
        products = torch.bmm(self.rows, self.rows.mT)
        if bias is not None:
            products[:, :size, :size] += 1  # of a feature that is 1, and has no noise
        self.back = torch.bmm(products, mixed.view(self.by_rows)).view(self.by_heads)
        square = mixed.mul_(self.back).sum((1, 2, 4))
        self.penalty = square.clamp_(min=0).add_(TINY).sqrt_()  # rounding may leave less than 0

    def _add_moved(self, halves: Tensor) -> None:
        """From what features and noise give, [K, 2, B, M, C], to what clean and perturbed features give, in place."""
        clean, noise = halves.unbind(1)
        if isinstance(self.gamma, Tensor):
            torch.addcmul(clean, noise, self.gamma, out=noise)
        else:
            torch.add(clean, noise, alpha=self.gamma, out=noise)

    def gradients(self, on_loss: float = 1.0, on_penalty: Tensor | float = 1.0) -> tuple[list[Tensor], None]:
        """Of sum(on_loss * loss + on_penalty * penalty), the last a number or [K, M]: of weight and bias. Once only."""
        self._add_moved(self.back)
        scale = (on_penalty / self.penalty)[:, None, None, :, None]
        rows = self._jacobian(self.back).mul_(scale * self.share)
        clean, moved = rows.unbind(1)
        clean.sub_(moved).add_(self.residual[:, 0], alpha=on_loss)
        moved.mul_(-self.gamma)
        weight = torch.bmm(rows.view(self.by_rows).mT, self.rows, out=self.out).view_as(self.weight)
        return [weight, clean.sum(1)] if self.has_bias else [weight], None
