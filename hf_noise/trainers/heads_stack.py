"""Heads that are fitted together: K seeds, each with its own batches, and M settings on each of these."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hf_noise.losses.gradient_matching import feature_scale
from hf_noise.losses.head_gradients import LinearForm, Targets, TwoLayerForm
from hf_noise.losses.linear_gradient import FewRowsForm, OneLinearForm, are_few
from hf_noise.noise.normals_torch import normals, uniforms
from hf_noise.trainers.heads_data import HeadData
from hf_noise.trainers.heads_plan import HeadPlan, HeadSetting

__all__ = ["PERTURBATION_STREAM", "Stack", "head_shapes", "logits_of"]

PERTURBATION_STREAM, WEIGHT_STREAM, ORDER_STREAM = 112, 113, 114

#: AdamW's, as torch has them.
_ADAMW = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "maximize": False}
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
        parameters: by name, [K, M, ...]: views into one tensor, so that the optimiser may take one turn.
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
        moved = [self.flat, *(torch.zeros_like(self.flat) for _ in range(3))]  # and its gradient and both moments
        self._gradients = self._views(moved[1])
        self._buffers = torch.empty_like(self.weights[0]).flatten(1, 2), self._gradients[0].flatten(1, 2)
        self.steps_done = 0
        self._groups = self._alike(settings, moved)
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
        self._shapes = [(*self.shape, *shape) for shape in shapes.values()]
        self.flat = self.data.features.new_empty(sum(map(math.prod, self._shapes)))
        self.parameters = dict(zip(shapes, self._views(self.flat)))
        width = 0
        for number, (name, shape) in enumerate(shapes.items()):
            width = shape[1] if len(shape) == 2 else width  # of a bias that of its weight before it
            rows = torch.arange(shape[0], device=self.flat.device)
            for k, seed in enumerate(self.seeds):
                drawn = uniforms(seed, WEIGHT_STREAM, number, rows, math.prod(shape[1:]))
                self.parameters[name][k] = ((2 * drawn - 1) * width**-0.5).reshape(shape).to(self.flat)
        self.weights = [values for name, values in self.parameters.items() if name.endswith("weight")]
        self.biases = [values for name, values in self.parameters.items() if name.endswith("bias")]

    def _views(self, flat: Tensor) -> list[Tensor]:
        """The part of each of the parameters, [K, M, ...]."""
        parts = flat.split([math.prod(shape) for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes)]

    def _alike(self, settings: Sequence[Sequence[HeadSetting]], moved: list[Tensor]) -> list[tuple]:
        """(learning rate, weight decay, what of each of the tensors has them, the count of steps for each piece)."""
        of = [[(setting.learning_rate, setting.weight_decay) for setting in row] for row in settings]
        views = [self._views(tensor) for tensor in moved]
        pieces: dict[tuple[float, float], list[list[Tensor]]] = {}
        if len({numbers for row in of for numbers in row}) == 1:
            pieces[of[0][0]] = views
        else:
            for k, row in enumerate(of):
                start = 0
                for numbers, run in itertools.groupby(row):
                    stop = start + len(list(run))
                    for into, parts in zip(pieces.setdefault(numbers, [[] for _ in moved]), views):
                        into += [part[k, start:stop] for part in parts]
                    start = stop
        self._step = self.flat.new_zeros((), dtype=torch.float32)
        return [(*numbers, tensors, [self._step] * len(tensors[0]))
                for numbers, tensors in pieces.items()]  # fmt: skip

    @staticmethod
    def _numbers(settings: Sequence[Sequence[HeadSetting]], name: str) -> Tensor:
        return torch.tensor([[getattr(setting, name) for setting in row] for row in settings], dtype=torch.float64)

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
                self._move(found, rows)
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

    def _form(self, batch: Tensor, noise: Tensor | None) -> LinearForm | TwoLayerForm | OneLinearForm | FewRowsForm:
        at = batch.reshape(-1)

        def rows(values: Tensor) -> Tensor:  # [N, ...] -> [K, B, ...]
            return values.index_select(0, at).unflatten(0, batch.shape)

        features = rows(self.data.features)
        targets = Targets(rows(self.hot), None if self.said is None else rows(self.said))
        shares = None if self.data.weights is None else rows(self.data.weights) / batch.shape[1]
        if self.is_alone and noise is not None and shares is None:
            bias = self.biases[0][0, 0] if self.biases else None
            return OneLinearForm(self.weights[0][0, 0], bias, features[0], noise[0], targets, self.gamma)
        if len(self.weights) == 1 and noise is not None and self.kind == "difference" and (
                are_few(batch.shape[1], *self._buffers[0].shape[1:])):  # fmt: skip
            return FewRowsForm(self.weights[0], self.biases[0] if self.biases else None, features, noise, targets,
                               self.gamma, shares, self._buffers[1])  # fmt: skip
        form = LinearForm if len(self.weights) == 1 else TwoLayerForm
        return form(self.weights, self.biases, features, noise, targets, self.gamma,
                    self.kind or "difference", shares, self._buffers)

    def _move(self, gradients: Sequence[Tensor], rows: int) -> None:
        """One step of AdamW (Loshchilov and Hutter, 2019), by the kernel of `torch.optim.AdamW(fused=True)`.

        It passes over memory once. The class around it costs several times what one head of a few rows does.
        """
        found = [of.reshape(own.shape).contiguous() for own, of in zip(self._gradients, gradients)]
        if len(self._groups) > 1:
            for own, of in zip(self._gradients, found):
                if own.data_ptr() != of.data_ptr():  # the largest are mostly written where they belong
                    own.copy_(of)
        factor = 1.0
        if self.plan.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * self.steps_done / (self.plan.epochs * -(-rows // self.batch_size))))
        self._step += 1
        for rate, decay, (own, gradient, first, second), steps in self._groups:
            torch._fused_adamw_(own, gradient if len(self._groups) > 1 else found, first, second, [], steps,
                                lr=rate * factor, weight_decay=decay, **_ADAMW)  # fmt: skip
        self.steps_done += 1

    def kept(self, before: dict[str, Tensor] | None, which: np.ndarray) -> dict[str, Tensor]:
        """The parameters of the heads [K, M] that `which` names, in the place of those kept before."""
        if before is None:
            return {name: values.clone() for name, values in self.parameters.items()}
        chosen = torch.from_numpy(which).to(self.flat.device)
        for name, values in self.parameters.items():
            mask = chosen.reshape(chosen.shape + (1,) * (values.ndim - 2))
            before[name] = torch.where(mask, values, before[name])
        return before
