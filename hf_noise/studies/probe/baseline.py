"""Heads whose outputs are held still: the usual consistency penalty that figure 6 of paper B compares LGM with.

The penalty is the mean over rows of | g(t) - g(t_hat) |_2 on the logits, with the perturbations, first weights, orders
and optimiser of `hf_noise.trainers.heads`, so that two heads of a seed differ in their penalty alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_noise.trainers.heads import FittedHeads, HeadPlan, HeadSetting, scored, stacked
from hf_noise.trainers.heads_data import HeadData
from hf_noise.trainers.heads_stack import Stack, head_shapes, logits_of

__all__ = ["fit_still_heads"]

_TINY = 1e-12  # under the root, which has no gradient at 0
_ROWS_AT_ONCE = 1 << 12


class _OutputForm:
    """Loss and penalty of K x M heads on their batches, and their gradients by torch's own differentiation."""

    def __init__(self, parameters: dict[str, Tensor], rows: Tensor, noise: Tensor, hot: Tensor, said: Tensor | None,
                 gamma: float | Tensor):  # fmt: skip
        self.leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        gamma = gamma[..., None, None] if isinstance(gamma, Tensor) else gamma  # of each setting [K, M], or of all
        with torch.enable_grad():
            rows = rows[:, None]  # [K, 1, B, D]
            logits = logits_of(self.leaves, rows)  # [K, M, B, C]
            moved = logits_of(self.leaves, rows + gamma * noise[:, None])
            log_p = torch.log_softmax(logits, -1)
            nll = -(log_p * hot[:, None]).sum(-1) if said is None else -torch.logsumexp(log_p + said[:, None], -1)
            self._loss = nll.mean(-1)
            self._penalty = ((logits - moved).square().sum(-1) + _TINY).sqrt().mean(-1)  # [K, M]
        self.loss, self.penalty = self._loss.detach(), self._penalty.detach()

    def gradients(self, of_loss: float, of_penalty: Tensor) -> tuple[tuple[Tensor, ...], None]:
        """Of loss and penalty together, in the order of the parameters."""
        with torch.enable_grad():
            total = (of_loss * self._loss + of_penalty * self._penalty).sum()
        return torch.autograd.grad(total, list(self.leaves.values())), None


class _StillStack(Stack):
    """Heads that are fitted together, with the penalty on their outputs in the place of that on gradients."""

    def _form(self, batch: Tensor, noise: Tensor) -> _OutputForm:
        said = None if self.said is None else self.said[batch]
        return _OutputForm(self.parameters, self.data.features[batch], noise, self.hot[batch], said, self.gamma)


def fit_still_heads(
    features: Any, labels: Any, settings: Sequence[HeadSetting], plan: HeadPlan, *, num_classes: int,
    validation: tuple[Any, Any] | None = None, sample_ids: Any = None, device: Any = None,
) -> FittedHeads:  # fmt: skip
    """As `fit_heads`, with the penalty of this module; every setting has gamma and lam above 0.

    Raises as `fit_heads`, and ValueError for a setting without a penalty.
    """
    if weak := [one for one in settings if not (one.lam > 0 and one.gamma > 0)]:
        raise ValueError(f"gamma and lam must be above 0 for a penalty on outputs, got {weak[0]}")
    data = HeadData.read(features, labels, None, sample_ids, num_classes, validation, device)
    columns = plan.columns(num_classes, data.features)
    shapes = head_shapes(plan, data.features.shape[1], num_classes)
    found: dict[int, tuple[dict[str, Tensor], int]] = {}
    for places in stacked(settings, plan, sum(int(np.prod(shape)) for shape in shapes.values())):
        stack = _StillStack([[settings[place] for place in row] for row in places], plan, data, columns, shapes)
        parameters, best = _fitted(stack, plan, data, columns)
        for k, row in enumerate(places):
            for m, place in enumerate(row):
                found[place] = {name: value[k, m] for name, value in parameters.items()}, int(best[k, m])
    places = range(len(settings))
    nothing = np.full((len(settings), plan.epochs), np.nan)
    return FittedHeads(
        tuple(settings), plan, num_classes,
        {name: torch.stack([found[place][0][name] for place in places]) for name in shapes},
        nothing, nothing, nothing, nothing, np.array([found[place][1] for place in places]),
        np.full(len(settings), plan.epochs),
    )  # fmt: skip


def _fitted(stack: Stack, plan: HeadPlan, data: HeadData, columns: Tensor | None) -> tuple[dict[str, Tensor], Any]:
    """Parameters [K, M, ...] of each head's best epoch, the last without validation rows, and that epoch [K, M]."""
    best, epochs, kept = np.full(stack.shape, np.inf), np.full(stack.shape, plan.epochs - 1), None
    for epoch in range(plan.epochs):
        stack.epoch(epoch)
        if data.validation is None:
            continue
        accuracy, nll = scored(stack.parameters, *data.validation, columns, _ROWS_AT_ONCE)
        measure = nll if plan.best_by == "nll" else -accuracy
        is_better = measure < best
        best[is_better], epochs[is_better] = measure[is_better], epoch
        kept = stack.kept(kept, is_better)
    return stack.kept(None, np.ones(stack.shape, dtype=bool)) if kept is None else kept, epochs
