"""Linear and two-layer heads: their loss, how their gradient moves when features do, and the gradient of both, by hand.

Many heads are computed at once: K batches (of K seeds, say), and M heads on each of them. All products with features
and noise are those that the M heads share, and perturbed features are never made. No graph is recorded, and nothing is
differentiated twice: `gradients` are closed forms too.

Residuals r = d loss / d logits give G = sum r t' for a linear head. With t_hat = t + gamma delta,
G - G_hat = sum (r - r_hat) t' - gamma sum r_hat delta', in which no large numbers cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PENALTIES", "TINY", "LinearForm", "Targets", "TwoLayerForm", "closed_form", "penalty_of"]

#: Under the root of a norm, which has no gradient at 0.
TINY = 1e-12

#: What is added to the loss, each of G and G_hat, the gradients on clean and on perturbed features -> the sums
#: (of G, of G_hat) that it is made of.
PENALTIES = {"difference": ((1, -1),), "norm": ((1, 0),), "cosine": ((1, 0), (0, 1))}

Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Targets:
    """What the rows say.

    Attributes:
        hot: one-hot labels [K, B, C], or, for a squared error, the numbers themselves.
        said: log T[:, label] of each row, [K, B, C], for a cross-entropy that is corrected through T.
        squared: whether the loss is the mean over outputs of the squared error.
    """

    hot: Tensor
    said: Tensor | None = None
    squared: bool = False

    def __call__(self, logits: Tensor, rows: Rows) -> tuple[Tensor, Tensor, Rows]:
        """Loss [...], residual d loss / d logits [..., C], and its (symmetric) Jacobian; `rows` spreads [K, B, C]."""
        hot = rows(self.hot)
        if self.squared:
            share = 2 / logits.shape[-1]
            error = logits - hot
            return error.square().mean(-1), share * error, lambda on: share * on
        log_p = torch.log_softmax(logits, -1)
        p = log_p.exp()
        if self.said is None:
            return (log_p * hot).sum(-1).neg_(), p - hot, lambda on: _through_softmax(p, on)
        joint = log_p + rows(self.said)
        log_q = torch.logsumexp(joint, -1, keepdim=True)
        posterior = (joint - log_q).exp()
        return (-log_q.squeeze(-1), p - posterior,
                lambda on: _through_softmax(p, on) - _through_softmax(posterior, on))  # fmt: skip


def _through_softmax(p: Tensor, on: Tensor) -> Tensor:
    weighed = p * on
    return weighed.addcmul_(p, weighed.sum(-1, keepdim=True), value=-1)


def penalty_of(kind: str, sums: list[list[Tensor]]) -> tuple[Tensor, list[list[Tensor]], Tensor | float]:
    """A penalty [...], fields, and what these are to be multiplied by to be its gradient in the sums.

    Args:
        kind: of `PENALTIES`.
        sums: for each of its terms, the blocks [..., n] of the gradient.
    """
    norms = [_norm(one) for one in sums]
    if kind != "cosine":
        return norms[0], sums, 1 / norms[0]
    inner = sum((one * other).sum(-1) for one, other in zip(*sums))
    both = norms[0] * norms[1]
    cosine = inner / both
    fields = [
        [(cosine / own.square())[..., None] * a - b / both[..., None] for a, b in zip(of, against)]
        for own, of, against in ((norms[0], *sums), (norms[1], *sums[::-1]))
    ]
    return 1 - cosine, fields, 1.0


def _norm(blocks: list[Tensor]) -> Tensor:
    """sqrt(sum of squares + TINY)."""
    whole = blocks[0].new_full((), TINY**0.5)  # first, as (0, 0) has no gradient
    for block in blocks:
        whole = torch.hypot(whole, torch.linalg.vector_norm(block, dim=-1))
    return whole


def _spread(values: Tensor | float, shape: tuple[int, ...]) -> Tensor | float:
    return values.reshape(shape) if isinstance(values, Tensor) and values.ndim else values


@dataclass
class _Form:
    """What both heads share: their first layer.

    Args:
        weights: of the layers, each [K, M, outputs, inputs].
        biases: of the layers, each [K, M, outputs]; empty for none.
        features: [K, B, D].
        noise: [K, B, D]; None for no penalty.
        targets: what the rows say.
        gamma: strength of the noise, a number or [K, M].
        kind: of `PENALTIES`, looked at if there is noise.
        shares: of the rows, [K, B]; None for a mean over the batch.
        buffers: two tensors [K, M * outputs, D] of the first layer to write into, which saves a system from finding so
            much new memory in each step; what was returned lasts until the next form that is given them.

    Attributes:
        loss: [K, M], the weighted sum of the loss on clean features.
        penalty: [K, M], None for none.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    features: Tensor
    noise: Tensor | None
    targets: Targets
    gamma: Tensor | float = 0.0
    kind: str = "difference"
    shares: Tensor | None = None
    buffers: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        self.seeds, self.heads = self.weights[0].shape[:2]
        self.size = self.features.shape[1]
        self.gamma = _spread(self.gamma, (self.seeds, 1, self.heads, 1))
        self.terms = () if self.noise is None else PENALTIES[self.kind]
        nll, self.residual, self._jacobian = self.targets(self._logits(), self._rows)
        self.loss = self._mean(nll)
        self.share = 1 / self.size if self.shares is None else self._rows(self.shares[..., None])
        self.residual.mul_(self.share)
        self.penalty, self._fields, self._scale = None, [], 1.0
        if self.terms:
            sums = [[block.flatten(2) for block in self._sums(*term)] for term in self.terms]
            self.penalty, self._fields, self._scale = penalty_of(self.kind, sums)

    def _through(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Clean and perturbed features through the first layer, or a field of its shape: [K, halves, B, M, outputs]."""
        flat = weight.reshape(self.seeds, -1, self.features.shape[2]).mT
        out = flat.new_empty(self.seeds, 1 if self.noise is None else 2, self.size, flat.shape[2])
        if bias is None:
            torch.bmm(self.features, flat, out=out[:, 0])
        else:
            torch.baddbmm(bias.reshape(self.seeds, 1, -1), self.features, flat, out=out[:, 0])
        halves = out.view(self.seeds, -1, self.size, self.heads, flat.shape[2] // self.heads)
        if self.noise is not None and not isinstance(self.gamma, Tensor):
            torch.baddbmm(out[:, 0], self.noise, flat, alpha=self.gamma, out=out[:, 1])
        elif self.noise is not None:
            torch.bmm(self.noise, flat, out=out[:, 1])
            halves[:, 1].mul_(self.gamma).add_(halves[:, 0])
        return halves

    def _down(self, of_features: Tensor, of_noise: Tensor | None, factor: float = 1.0,
              out: Tensor | None = None) -> list[Tensor]:  # fmt: skip
        """Sums over rows, [K, B, M, outputs], times features, and factor * gamma * noise: of weight and bias."""
        of_features = of_features.reshape(self.seeds, self.size, -1)
        weight = torch.bmm(of_features.mT, self.features, out=out)
        if of_noise is not None:
            is_one = not isinstance(self.gamma, Tensor)
            flat = (of_noise if is_one else of_noise * self.gamma).reshape(self.seeds, self.size, -1).mT
            weight.baddbmm_(flat, self.noise, alpha=factor * (self.gamma if is_one else 1))
        bias = [of_features.sum(1).view(self.seeds, self.heads, -1)] if self.biases else []
        return [weight.view_as(self.weights[0]), *bias]

    def _first(self) -> Tensor:
        return self._through(self.weights[0], self.biases[0] if self.biases else None)

    def _summed_first(self, own: Tensor, moved: Tensor, clean: int, noisy: int) -> list[Tensor]:
        """sum over rows of clean * own t' + noisy * moved t_hat', and its biases."""
        out = None if self.buffers is None or len(self.terms) > 1 else self.buffers[0]
        if not noisy:
            return self._down(own, None, out=out)
        return self._down(torch.add(own, moved, alpha=noisy) if clean else moved * noisy, moved, noisy, out)

    def _back_first(self, fields: list[Tensor], clean: int, noisy: int) -> Tensor:
        """What fields on `_summed_first` do to its rows, [K, 2, B, M, outputs]."""
        out = self._through(fields[0], fields[1] if self.biases else None)
        for half, factor in enumerate((clean, noisy)):
            if factor != 1:
                out[:, half].mul_(factor)
        return out

    def _first_gradients(self, rows: list[Tensor]) -> list[Tensor]:
        """Of weight and bias of the first layer, from that of what it gives, each half [K, B, M, outputs]."""
        self._on_clean = rows[0] if len(rows) == 1 else rows[0] + rows[1]
        out = None if self.buffers is None else self.buffers[1]
        return self._down(self._on_clean, rows[1] if len(rows) > 1 else None, out=out)

    def _on_features(self, scale: Tensor | float, own: Tensor, moved: Tensor | None) -> Tensor:
        """The gradient of the features [K, B, D], after `_first_gradients`; the rows are those that were summed."""
        def through(rows: Tensor, weight: Tensor) -> Tensor:
            flat = weight.reshape(self.seeds, -1, self.features.shape[2])
            return torch.bmm(rows.reshape(self.seeds, self.size, -1), flat)

        out = through(self._on_clean, self.weights[0])
        for (clean, noisy), fields in zip(self.terms, self._fields):
            mixed = clean * own + (noisy * moved if noisy else 0)
            out += through(mixed * _spread(scale, (self.seeds, 1, self.heads, 1)), fields[0])
        return out


class LinearForm(_Form):
    """Linear heads on a batch; see `_Form`. Rows are [K, halves, B, M, C]."""

    def _rows(self, values: Tensor) -> Tensor:  # [K, B, C]
        return values[:, None, :, None]

    def _mean(self, nll: Tensor) -> Tensor:
        nll = nll[:, 0]
        return nll.mean(1) if self.shares is None else (nll * self.shares[..., None]).sum(1)

    def _logits(self) -> Tensor:
        return self._first()

    def _sums(self, clean: int, noisy: int) -> list[Tensor]:
        return self._summed_first(*self.residual.unbind(1), clean, noisy)

    def gradients(self, on_loss: Tensor | float = 1.0, on_penalty: Tensor | float = 1.0,
                  features: bool = False) -> tuple[list[Tensor], Tensor | None]:  # fmt: skip
        """Gradients of sum(on_loss * loss + on_penalty * penalty).

        Args:
            on_loss, on_penalty: numbers, or [K, M].
            features: whether to give that of the features too.

        Returns:
            Those of weight and bias of each layer in turn, and that of the features [K, B, D], None if not wanted.
        """
        own, spread = self.residual[:, 0], (self.seeds, 1, self.heads, 1)
        scale = on_penalty * self._scale
        own = own if isinstance(on_loss, float) and on_loss == 1 else own * _spread(on_loss, spread)
        if self.noise is None:
            halves = [own]
        else:
            back = [self._back_first(fields, *term) for term, fields in zip(self.terms, self._fields)]
            rows = self._jacobian(back[0] if len(back) == 1 else back[0].add_(back[1]))
            rows.mul_(_spread(scale, (self.seeds, 1, 1, self.heads, 1)) * self.share)
            halves = [rows[:, 0].add_(own), rows[:, 1]]
        found = self._first_gradients(halves)
        moved = None if self.noise is None else self.residual[:, 1]
        return found, self._on_features(scale, self.residual[:, 0], moved) if features else None


class TwoLayerForm(_Form):
    """Heads of two layers with a ReLU between them; see `_Form`. Rows of the second are [K, M, halves, B, ...]."""

    def _rows(self, values: Tensor) -> Tensor:  # [K, B, C]
        return values[:, None, None]

    def _mean(self, nll: Tensor) -> Tensor:
        nll = nll[:, :, 0]
        return nll.mean(2) if self.shares is None else (nll * self.shares[:, None]).sum(2)

    def _logits(self) -> Tensor:
        inner = self._first().permute(0, 3, 1, 2, 4).contiguous()  # [K, M, halves, B, H]
        self.hidden = inner.relu()
        self.is_on = self.hidden > 0
        out = self._times(self.hidden, self.weights[1].mT)
        return out + self.biases[1][:, :, None, None] if self.biases else out

    @staticmethod
    def _times(rows: Tensor, by: Tensor) -> Tensor:
        """Rows [K, M, halves, B, n] times [K, M, n, m]."""
        return (rows.flatten(2, 3) @ by).unflatten(2, rows.shape[2:4])

    @staticmethod
    def _halves(rows: Tensor) -> list[Tensor]:
        """Rows [K, M, halves, B, H] as the first layer has them, [K, B, M, H] for each half."""
        return [half.transpose(1, 2) for half in rows.unbind(2)]

    @staticmethod
    def _signed(values: Tensor, clean: int, noisy: int) -> Tensor:
        return torch.stack([clean * values[:, :, 0], noisy * values[:, :, 1]], 2)

    def _second(self, rows: Tensor, hidden: Tensor) -> list[Tensor]:
        """Sums over rows of both halves: of weight and bias of the second layer."""
        weight = rows.flatten(2, 3).mT @ hidden.flatten(2, 3)
        return [weight, rows.sum((2, 3))] if self.biases else [weight]

    def _sums(self, clean: int, noisy: int) -> list[Tensor]:
        self.reached = self._halves(self._times(self.residual, self.weights[1]) * self.is_on)
        first = self._summed_first(*self.reached, clean, noisy)
        return [*first, *self._second(self._signed(self.residual, clean, noisy), self.hidden)]

    def gradients(self, on_loss: Tensor | float = 1.0, on_penalty: Tensor | float = 1.0,
                  features: bool = False) -> tuple[list[Tensor], Tensor | None]:  # fmt: skip
        """As `LinearForm.gradients`."""
        spread, scale = (self.seeds, self.heads, 1, 1), on_penalty * self._scale
        own = self.residual[:, :, 0] * _spread(on_loss, spread)
        if self.noise is None:
            rows = own.unsqueeze(2)
            on_hidden, direct = self._times(rows, self.weights[1]), None
        else:
            factor = _spread(scale, (*spread, 1))
            on_reached, on_residual, on_hidden = self._from_penalty()
            on_residual += self._times(on_reached, self.weights[1].mT)
            direct = self._second(self.residual, on_reached)[0] * _spread(scale, spread)
            rows = self._jacobian(on_residual).mul_(factor * self.share)
            rows[:, :, 0].add_(own)
            on_hidden = self._times(rows, self.weights[1]) + on_hidden * factor
        second = self._second(rows, self.hidden)
        if direct is not None:
            second[0] += direct
        first = self._first_gradients(self._halves(on_hidden * self.is_on))
        reached = (None, None) if self.noise is None else self.reached
        return [*first, *second], self._on_features(scale, *reached) if features else None

    def _from_penalty(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the fields do to what is reached, to residuals, and to hidden units, [K, M, 2, B, ...] each."""
        total: list[Tensor] = []
        for term, fields in zip(self.terms, self._fields):
            of_first = len(fields) // 2
            weight = fields[of_first].view_as(self.weights[1])
            through = self._times(self.hidden, weight.mT)
            through = through + fields[-1][:, :, None, None] if self.biases else through
            back = self._back_first(fields[:of_first], *term).permute(0, 3, 1, 2, 4) * self.is_on
            found = [back, self._signed(through, *term), self._signed(self._times(self.residual, weight), *term)]
            total = found if not total else [one + other for one, other in zip(total, found)]
        return total[0], total[1], total[2]


def closed_form(head: torch.nn.Module) -> str | None:
    """"linear" or "mlp" if a closed form is known of this head, else None.

    Subclasses, parametrised and shared weights have none.
    """
    if _is_linear(head):
        return "linear"
    if type(head) is torch.nn.Sequential and len(head) == 3 and type(head[1]) is torch.nn.ReLU:
        first, _, second = head
        alike = _is_linear(first) and _is_linear(second) and (first.bias is None) == (second.bias is None)
        if alike and first.weight is not second.weight and (first.bias is None or first.bias is not second.bias):
            return "mlp"
    return None


def _is_linear(layer: torch.nn.Module) -> bool:
    plain = type(layer) is torch.nn.Linear or type(layer) is torch.nn.modules.linear.NonDynamicallyQuantizableLinear
    return plain and layer.weight is layer._parameters.get("weight")
