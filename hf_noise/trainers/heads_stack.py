"""Heads that are fitted together: K seeds, each with its own batches, and M settings on each of these."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hf_noise.losses.gradient_matching import feature_scale
from hf_noise.losses.head_gradients import LinearForm, Targets, TwoLayerForm
from hf_noise.losses.linear_gradient import OneLinearForm
from hf_noise.noise.normals_torch import normals, uniforms
from hf_noise.trainers.heads_data import HeadData
from hf_noise.trainers.heads_plan import HeadPlan, HeadSetting

__all__ = ["PERTURBATION_STREAM", "Stack", "head_shapes", "logits_of"]

PERTURBATION_STREAM, WEIGHT_STREAM, ORDER_STREAM = 112, 113, 114

#: AdamW's, as in torch.
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
#: Numbers of noise that are drawn at once, for steps to come: a CPU's cache holds them, a GPU is kept busy.
_DRAWN_ON_CPU, _DRAWN_ON_GPU = 96 << 10, 4 << 20


def head_shapes(plan: HeadPlan, features: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a head's parameters, by their names in `nn.Linear` and `nn.Sequential`."""
    hidden = plan.hidden or features
    layers = {"": (classes, features)} if plan.head == "linear" else {"0.": (hidden, features), "2.": (classes, hidden)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes[f"{name}weight"] = shape
        if plan.bias:
            shapes[f"{name}bias"] = shape[:1]
    return shapes


def logits_of(parameters: dict[str, Tensor], features: Tensor) -> Tensor:
    """Logits [..., N, C] of heads stacked along any axes, for features [N, D]."""
    out = features
    for name in ("0.", "2.") if "0.weight" in parameters else ("",):
        out = out if name != "2." else out.relu()
        out = out @ parameters[f"{name}weight"].mT
        bias = parameters.get(f"{name}bias")
        out = out if bias is None else out + bias.unsqueeze(-2)
    return out


class Stack:
    """Parameters, AdamW's moments, and the steps of an epoch.

    A subclass with another penalty gives another `_form`: what has `loss`, `penalty` [K, M] or None, and
    `gradients(1.0, lam)`, those of the parameters in their order and None.

    Args:
        settings: K lists, one for each seed, of M settings; all of one batch size, and with a penalty or without.
        plan: what they share.
        data: the rows.
        columns: `log_columns(T)`, or None.
        shapes: of the parameters of one head.

    Attributes:
        parameters: by name, [K, M, ...]: views into one tensor [K, P], so that the optimiser takes one turn.
    """

    def __init__(self, settings: Sequence[Sequence[HeadSetting]], plan: HeadPlan, data: HeadData,
                 columns: Tensor | None, shapes: dict[str, tuple[int, ...]]):  # fmt: skip
        self.plan, self.data = plan, data
        like = data.features
        self.shape = len(settings), len(settings[0])
        self.seeds = [row[0].seed for row in settings]
        self.batch_size = min(settings[0][0].batch_size, len(data.labels))
        self.kind = plan.penalty if plan.matches(settings[0][0]) else None
        self._lay_out(shapes)
        self.moments = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self._gradient, self._scratch = torch.empty_like(self.flat), torch.empty_like(self.flat)
        self._buffers = tuple(torch.empty_like(self.weights[0]).flatten(1, 2) for _ in range(2))
        self.steps_done = 0
        rates, decays = self._numbers(settings, "learning_rate"), self._numbers(settings, "weight_decay")
        self.rate = self._of_each(rates)
        self.decay = None if not decays.any() else self._of_each(rates * decays)
        gamma = self._numbers(settings, "gamma")
        if plan.gamma_relative:
            gamma = gamma * feature_scale(data.features, data.weights).double().cpu()
        if not bool((gamma <= torch.finfo(like.dtype).max).all()):
            raise ValueError(f"gamma must be a number that {like.dtype} holds, got {float(gamma.max())!r}")
        alike = bool((gamma == gamma[0, 0]).all())
        self.gamma = float(gamma[0, 0]) if alike else gamma.to(like)
        self.lam = self._numbers(settings, "lam").to(like)
        self.is_alone = self.shape == (1, 1) and len(self.weights) == 1 and plan.penalty == "difference"
        self.lam = self.lam.reshape(()) if self.is_alone else self.lam
        classes = torch.arange(data.num_classes, device=like.device)
        self.hot = (data.labels[:, None] == classes).to(like.dtype)
        self.said = None if columns is None else columns[data.labels]

    def _lay_out(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """First weights, uniform in +- 1 / sqrt(inputs) as `nn.Linear`'s are, from (seed, which of them, row)."""
        sizes = [self.shape[1] * math.prod(shape) for shape in shapes.values()]
        self.flat = self.data.features.new_empty(self.shape[0], sum(sizes))
        self.parameters = {name: part.view(*self.shape, *shape)
                           for (name, shape), part in zip(shapes.items(), self.flat.split(sizes, 1))}  # fmt: skip
        width = 0
        for number, (name, shape) in enumerate(shapes.items()):
            width = shape[1] if len(shape) == 2 else width  # of a bias that of its weight before it
            rows = torch.arange(shape[0], device=self.flat.device)
            for k, seed in enumerate(self.seeds):
                drawn = uniforms(seed, WEIGHT_STREAM, number, rows, math.prod(shape[1:]))
                self.parameters[name][k] = ((2 * drawn - 1) * width**-0.5).reshape(shape).to(self.flat)
        self.weights = [values for name, values in self.parameters.items() if name.endswith("weight")]
        self.biases = [values for name, values in self.parameters.items() if name.endswith("bias")]

    @staticmethod
    def _numbers(settings: Sequence[Sequence[HeadSetting]], name: str) -> Tensor:
        return torch.tensor([[getattr(setting, name) for setting in row] for row in settings], dtype=torch.float64)

    def _of_each(self, numbers: Tensor) -> Tensor:
        """A number of each setting [K, M] spread over its parameters, [K, P]; [] if all have the same."""
        if bool((numbers == numbers[0, 0]).all()):
            return numbers[0, 0].to(self.flat)
        of = numbers.to(self.flat)[..., None]
        sizes = [values[0, 0].numel() for values in self.parameters.values()]
        return torch.cat([of.expand(*self.shape, size).flatten(1) for size in sizes], 1)

    def order(self, epoch: int) -> Tensor:
        """Rows in the order of this epoch, int64 [K, N]."""
        ids = self.data.sample_ids
        if len(ids) <= self.batch_size:
            return torch.arange(len(ids), device=ids.device).expand(len(self.seeds), -1)
        places = torch.arange(len(ids), device=ids.device)
        drawn = [uniforms(seed, ORDER_STREAM, epoch, places, 1)[:, 0] for seed in self.seeds]
        return torch.stack(drawn).argsort(dim=1, stable=True)

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """One pass over the rows: mean loss and penalty while it went, float64 [K, M]; NaN for no penalty."""
        order, size = self.order(epoch), self.batch_size
        rows = order.shape[1]
        numbers = _DRAWN_ON_CPU if order.device.type == "cpu" else _DRAWN_ON_GPU
        ahead = size * max(1, numbers // (size * self.data.features.shape[1]))
        loss = penalty = 0
        noise = None
        with torch.no_grad():
            for start in range(0, rows, size):
                if self.kind is not None and start % ahead == 0:
                    noise = self._noise(epoch, order[:, start : start + ahead])
                batch = order[:, start : start + size]
                form = self._form(batch, None if noise is None else noise[:, start % ahead :][:, : batch.shape[1]])
                found, _ = form.gradients(1.0, self.lam)
                flat = [gradient.reshape(self.shape[0], -1) for gradient in found]
                self._move(torch.cat(flat, 1, out=self._gradient), rows)
                loss = loss + form.loss * batch.shape[1]
                penalty = penalty if form.penalty is None else penalty + form.penalty * batch.shape[1]
        nothing = np.full(self.shape, np.nan)
        mean = (loss / rows).double().reshape(self.shape).cpu().numpy()
        return mean, nothing if self.kind is None else (penalty / rows).double().reshape(self.shape).cpu().numpy()

    def _noise(self, epoch: int, rows: Tensor) -> Tensor:
        """Perturbations of rows [K, n], [K, n, D]."""
        ids, width = self.data.sample_ids, self.data.features.shape[1]
        drawn = [normals(seed, PERTURBATION_STREAM, epoch, ids[of], width) for seed, of in zip(self.seeds, rows)]
        return (drawn[0][None] if len(drawn) == 1 else torch.stack(drawn)).to(self.flat.dtype)

    def _form(self, batch: Tensor, noise: Tensor | None) -> LinearForm | TwoLayerForm | OneLinearForm:
        at = batch.reshape(-1)

        def rows(values: Tensor) -> Tensor:  # [N, ...] -> [K, B, ...]
            return values.index_select(0, at).unflatten(0, batch.shape)

        features = rows(self.data.features)
        targets = Targets(rows(self.hot), None if self.said is None else rows(self.said))
        shares = None if self.data.weights is None else rows(self.data.weights) / batch.shape[1]
        if self.is_alone and noise is not None and shares is None:
            bias = self.biases[0][0, 0] if self.biases else None
            return OneLinearForm(self.weights[0][0, 0], bias, features[0], noise[0], targets, self.gamma)
        form = LinearForm if len(self.weights) == 1 else TwoLayerForm
        return form(self.weights, self.biases, features, noise, targets, self.gamma,
                    self.kind or "difference", shares, self._buffers)

    def _move(self, gradient: Tensor, rows: int) -> None:
        """One step of AdamW (Loshchilov and Hutter, 2019), in torch's form of it."""
        self.steps_done += 1
        factor = 1.0
        if self.plan.schedule == "cosine":
            total = self.plan.epochs * -(-rows // self.batch_size)
            factor = 0.5 * (1 + math.cos(math.pi * (self.steps_done - 1) / total))
        first, second = self.moments
        one, other = (1 - beta**self.steps_done for beta in _BETAS)
        if self.decay is not None:
            self.flat.addcmul_(self.flat, self.decay, value=-factor)
        first.lerp_(gradient, 1 - _BETAS[0])
        second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        scale = torch.sqrt(second, out=self._scratch).add_(_EPSILON * other**0.5)
        torch.div(first, scale, out=scale)
        self.flat.addcmul_(scale, self.rate, value=-factor * other**0.5 / one)

    def kept(self, before: dict[str, Tensor] | None, which: np.ndarray) -> dict[str, Tensor]:
        """The parameters of the heads [K, M] that `which` names, in the place of those kept before."""
        if before is None:
            return {name: values.clone() for name, values in self.parameters.items()}
        chosen = torch.from_numpy(which).to(self.flat.device)
        for name, values in self.parameters.items():
            mask = chosen.reshape(chosen.shape + (1,) * (values.ndim - 2))
            before[name] = torch.where(mask, values, before[name])
        return before
