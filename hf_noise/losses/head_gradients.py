"""Linear and two-layer heads: their loss, how their gradient moves when features do, and the gradient of both, by hand.

Many heads are computed at once: K batches (of K seeds, say), and M heads on each of them. With E = [features; noise],
every product with features is one with E, which all heads of a batch share, and perturbed features are never made. No
graph is recorded, and nothing is differentiated twice: `gradients` are closed forms too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PENALTIES", "TINY", "ClosedForm", "Targets", "closed_form", "penalty_of"]

#: Under the root of a norm, which has no gradient at 0.
TINY = 1e-12

#: What is added to the loss, each of G and G_hat, the gradients on clean and on perturbed features -> the sums
#: (of G, of G_hat) that it is made of.
PENALTIES = {"difference": ((1, -1),), "norm": ((1, 0),), "cosine": ((1, 0), (0, 1))}


@dataclass(frozen=True)
class Targets:
    """What the rows say, for heads whose logits are [K, M, 2, B, C]; it broadcasts against them.

    Attributes:
        hot: one-hot labels [K, 1, 1, B, C], or, for a squared error, the numbers themselves.
        said: log T[:, label] of each row, of that shape, for a cross-entropy that is corrected through T.
        squared: whether the loss is the mean over outputs of the squared error.
    """

    hot: Tensor
    said: Tensor | None = None
    squared: bool = False

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Loss of each row on clean features [K, M, B], residual d loss / d logits, and its (symmetric) Jacobian."""
        if self.squared:
            share = 2 / logits.shape[-1]
            error = logits - self.hot
            return error[:, :, 0].square().mean(-1), share * error, lambda on: share * on
        log_p = torch.log_softmax(logits, -1)
        p = log_p.exp()
        if self.said is None:
            nll = -(log_p[:, :, 0] * self.hot[:, :, 0]).sum(-1)
            return nll, p - self.hot, lambda on: _through_softmax(p, on)
        joint = log_p + self.said
        log_q = torch.logsumexp(joint, -1, keepdim=True)
        posterior = (joint - log_q).exp()
        return (-log_q[:, :, 0, :, 0], p - posterior,
                lambda on: _through_softmax(p, on) - _through_softmax(posterior, on))  # fmt: skip


def _through_softmax(p: Tensor, on: Tensor) -> Tensor:
    weighed = p * on
    return torch.addcmul(weighed, p, weighed.sum(-1, keepdim=True), value=-1)


def penalty_of(kind: str, sums: list[list[Tensor]], axes: int) -> tuple[Tensor, list[list[Tensor]]]:
    """A penalty and its gradient with respect to the sums, whose blocks have this many axes before their own.

    Args:
        kind: of `PENALTIES`.
        sums: for each of its terms, the blocks of the gradient, one of each parameter.
    """
    def dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
        return sum((one * other).flatten(axes).sum(-1) for one, other in zip(a, b))

    norms = [(dot(one, one) + TINY).sqrt() for one in sums]
    if kind != "cosine":
        return norms[0], [[block / _as(norms[0], block) for block in sums[0]]]
    inner = dot(*sums)
    cosine = inner / (norms[0] * norms[1])
    fields = [
        [_as(cosine / own.square(), a) * a - b / _as(norms[0] * norms[1], b) for a, b in zip(of, against)]
        for own, of, against in ((norms[0], *sums), (norms[1], *sums[::-1]))
    ]
    return 1 - cosine, fields


def _as(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.reshape(numbers.shape + (1,) * (like.ndim - numbers.ndim))


def _up(both: Tensor, weight: Tensor) -> Tensor:
    """E [K, n, D] times weight [K, M, O, D] transposed: [K, M, n, O]."""
    out = torch.bmm(both, weight.flatten(1, 2).mT)
    return out.unflatten(-1, weight.shape[1:3]).transpose(1, 2)


def _down(sums: Tensor, both: Tensor) -> Tensor:
    """Sums [K, M, n, O] transposed times E [K, n, D]: [K, M, O, D]."""
    flat = sums.transpose(1, 2).flatten(2)
    return torch.bmm(flat.mT, both).unflatten(1, (sums.shape[1], sums.shape[3]))


class ClosedForm:
    """Loss and penalty of heads on a batch, and their gradients.

    Args:
        parameters: "weight" [K, M, C, D] and perhaps "bias" [K, M, C] of linear heads; of two-layer ones "0.weight"
            [K, M, H, D], "0.bias", "2.weight" [K, M, C, H] and "2.bias".
        both: E [K, 2B, D], features before noise; [K, B, D], features alone, for no penalty.
        targets: what the rows say.
        weights: of the rows, [K, 1, 1, B, 1]; the mean over a batch has them sum to 1.
        gamma: strength of the noise, a number or [K, M, 1, 1].
        kind: of `PENALTIES`, None for none.

    Attributes:
        loss: [K, M], the weighted sum of the loss on clean features.
        penalty: [K, M], None for none.
    """

    def __init__(self, parameters: dict[str, Tensor], both: Tensor, targets: Targets, weights: Tensor,
                 gamma: Tensor | float = 0.0, kind: str | None = "difference"):  # fmt: skip
        self.parameters, self.both, self.weights, self.gamma, self.kind = parameters, both, weights, gamma, kind
        self.is_deep = "0.weight" in parameters
        self.first = "0." if self.is_deep else ""
        inner = self._halves(_up(both, parameters[f"{self.first}weight"]), parameters.get(f"{self.first}bias"))
        logits = self._second(inner) if self.is_deep else inner
        rows, residual, self._jacobian = targets(logits)
        self.loss = (rows * weights[:, :, 0, :, 0]).sum(-1)
        self.residual = residual * weights  # [K, M, halves, B, C]
        # d loss / d (what the first layer gives), row by row
        self.reached = (self.residual @ parameters["2.weight"].unsqueeze(2)) * self.is_on if self.is_deep else None
        self.penalty, self._fields = None, []
        if kind is not None:
            sums = [self._mixed(*shares) for shares in PENALTIES[kind]]
            self.penalty, self._fields = penalty_of(kind, sums, 2)

    def _halves(self, out: Tensor, bias: Tensor | None) -> Tensor:
        """[K, M, halves, B, O] from the first layer's products with E: clean, and perturbed by gamma noise."""
        out = out.unflatten(2, (-1, self.weights.shape[3]))
        if out.shape[2] > 1:
            clean = out[:, :, 0]
            out = torch.stack([clean, clean + self.gamma * out[:, :, 1]], 2)
        return out if bias is None else out + bias[:, :, None, None]

    def _second(self, inner: Tensor) -> Tensor:
        self.is_on = (inner > 0).to(inner.dtype)
        self.hidden = inner * self.is_on
        out = self.hidden @ self.parameters["2.weight"].mT.unsqueeze(2)
        bias = self.parameters.get("2.bias")
        return out if bias is None else out + bias[:, :, None, None]

    def _of_both(self, of_clean: Tensor, of_noisy: Tensor | None) -> Tensor:
        """Sums over rows as [K, M, 2B, O] beside E: what counts for the features, and for the noise."""
        return of_clean if of_noisy is None else torch.cat([of_clean, self.gamma * of_noisy], 2)

    def _mixed(self, clean: int, noisy: int) -> list[Tensor]:
        """The blocks of clean * G + noisy * G_hat, in the order of the parameters."""
        by_row = self.reached if self.is_deep else self.residual
        mixed = clean * by_row[:, :, 0] + noisy * by_row[:, :, 1] if noisy else clean * by_row[:, :, 0]
        noise = noisy * by_row[:, :, 1] if noisy else torch.zeros_like(mixed)
        blocks = {f"{self.first}weight": _down(self._of_both(mixed, noise), self.both),
                  f"{self.first}bias": mixed.sum(2)}  # fmt: skip
        if self.is_deep:
            signed = self._signed(self.residual, clean, noisy)
            blocks |= {"2.weight": signed.flatten(2, 3).mT @ self.hidden.flatten(2, 3), "2.bias": signed.sum((2, 3))}
        return [blocks[name] for name in self.parameters]

    @staticmethod
    def _signed(values: Tensor, clean: int, noisy: int) -> Tensor:
        return torch.stack([clean * values[:, :, 0], noisy * values[:, :, 1]], 2)

    def _back(self, field: dict[str, Tensor], clean: int, noisy: int) -> Tensor:
        """What a field on the first layer's blocks of `_mixed` does to its rows, [K, M, 2, B, O]."""
        out = _up(self.both, field[f"{self.first}weight"]).unflatten(2, (2, -1))
        of_clean = out[:, :, 0]
        bias = field.get(f"{self.first}bias")
        of_clean = of_clean if bias is None else of_clean + bias[:, :, None]
        return torch.stack([clean * of_clean, noisy * (of_clean + self.gamma * out[:, :, 1])], 2)

    def gradients(self, on_loss: Tensor | float = 1.0, on_penalty: Tensor | float = 1.0,
                  features: bool = False) -> tuple[dict[str, Tensor], Tensor | None]:  # fmt: skip
        """Gradients of sum(on_loss * loss + on_penalty * penalty): by parameter, and of the features if wanted.

        Args:
            on_loss, on_penalty: numbers, or [K, M].
            features: whether to give that of the features too, [K, B, D].
        """
        def spread(on: Tensor | float, axes: int) -> Tensor | float:
            return on[(...,) + (None,) * axes] if isinstance(on, Tensor) else on

        of_loss = self.residual[:, :, 0] * spread(on_loss, 2)
        if self.penalty is None:
            on_logits = of_loss.unsqueeze(2)
            on_hidden, out = None, {}
        else:
            on_residual, on_hidden, out = self._from_penalty(spread(on_penalty, 3))
            on_logits = self._jacobian(on_residual * self.weights)
            on_logits[:, :, 0] += of_loss
        if self.is_deep:
            weight = on_logits.flatten(2, 3).mT @ self.hidden.flatten(2, 3)
            out["2.weight"] = weight + out["2.weight"] if "2.weight" in out else weight
            out["2.bias"] = on_logits.sum((2, 3))
            through = on_logits @ self.parameters["2.weight"].unsqueeze(2)
            on_first = (through if on_hidden is None else through + on_hidden) * self.is_on
        else:
            on_first = on_logits
        on_clean = on_first.sum(2)
        noise = on_first[:, :, 1] if on_first.shape[2] > 1 else None
        out[f"{self.first}weight"] = _down(self._of_both(on_clean, noise), self.both)
        out[f"{self.first}bias"] = on_clean.sum(2)
        on_features = self._on_features(on_clean, on_penalty) if features else None
        return {name: out[name] for name in self.parameters}, on_features

    def _from_penalty(self, on: Tensor | float) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """What the penalty does to the rows' residuals and hidden units, and to the second weight directly."""
        to_first = to_second = on_hidden = None
        for shares, blocks in zip(PENALTIES[self.kind], self._fields):
            field = dict(zip(self.parameters, blocks))
            to_first = _added(to_first, self._back(field, *shares))
            if self.is_deep:
                weight, bias = field["2.weight"].unsqueeze(2), field.get("2.bias")
                out = self.hidden @ weight.mT
                to_second = _added(to_second, self._signed(out if bias is None else out + bias[:, :, None, None],
                                                           *shares))  # fmt: skip
                on_hidden = _added(on_hidden, self._signed(self.residual @ weight, *shares))
        to_first = to_first * on
        if not self.is_deep:
            return to_first, None, {}
        to_first = to_first * self.is_on
        second = self.parameters["2.weight"]
        direct = self.residual.flatten(2, 3).mT @ to_first.flatten(2, 3)
        return to_second * on + to_first @ second.mT.unsqueeze(2), on_hidden * on, {"2.weight": direct}

    def _on_features(self, on_clean: Tensor, on_penalty: Tensor | float) -> Tensor:
        on_features = (on_clean @ self.parameters[f"{self.first}weight"]).sum(1)
        by_row = self.reached if self.is_deep else self.residual
        at = list(self.parameters).index(f"{self.first}weight")
        for (clean, noisy), blocks in zip(PENALTIES[self.kind] if self.kind else (), self._fields):
            mixed = clean * by_row[:, :, 0] + (noisy * by_row[:, :, 1] if noisy else 0)
            on = on_penalty[..., None, None] if isinstance(on_penalty, Tensor) else on_penalty
            on_features = on_features + (mixed @ (blocks[at] * on)).sum(1)
        return on_features


def _added(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more


def closed_form(head: torch.nn.Module) -> str | None:
    """"linear" or "mlp" if a closed form is known of this head, else None.

    Subclasses, heads with hooks of their own on what they are given, and parametrised or shared weights have none.
    """
    def is_linear(layer: torch.nn.Module) -> bool:
        plain = type(layer) is torch.nn.Linear or type(layer) is torch.nn.modules.linear.NonDynamicallyQuantizableLinear
        return plain and layer.weight is layer._parameters.get("weight")

    if is_linear(head):
        return "linear"
    if type(head) is torch.nn.Sequential and len(head) == 3 and type(head[1]) is torch.nn.ReLU:
        first, _, second = head
        if is_linear(first) and is_linear(second) and first.weight is not second.weight:
            return "mlp"
    return None
