"""Heads on features: a whole grid of settings fitted together, each as it would be alone.

A frozen backbone is run once; what is left is many small fits (learning rates, strengths of Local Gradient Matching,
seeds). Those of the same batch size are stacked, so that a step of all of them is a few matrix products instead of one
loop each. Weights, orders of rows and perturbations are functions of (seed, epoch, row) alone, so a setting comes out
as it does in a fit of its own, up to the rounding of sums.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from hf_noise.losses.checks import check_count, check_device
from hf_noise.trainers.heads_data import HeadData, read_features, read_labels
from hf_noise.trainers.heads_plan import HeadPlan, HeadSetting
from hf_noise.trainers.heads_stack import Stack, head_shapes, logits_of

__all__ = ["FittedHeads", "HeadPlan", "HeadSetting", "fit_heads", "head_grid"]

logger = logging.getLogger(__name__)

#: Weights of the heads that are fitted together; Adam holds four numbers of each.
_MOST_WEIGHTS = 1 << 26
#: Logits at once when heads are asked about many rows.
_MOST_LOGITS = 1 << 24


def head_grid(**values: Any) -> list[HeadSetting]:
    """All combinations of fields of `HeadSetting`, each one value or a sequence of them.

    Raises ValueError and TypeError as `HeadSetting` does, and ValueError for an empty sequence.

    >>> len(head_grid(learning_rate=(3e-4, 6e-4), lam=(0.0, 0.15), seed=range(5)))
    20
    """
    axes = {name: list(value) if isinstance(value, list | tuple | range) or isinstance(value, np.ndarray) and value.ndim
            else [value] for name, value in values.items()}  # fmt: skip
    if empty := [name for name, of in axes.items() if not of]:
        raise ValueError(f"{empty[0]} has no value; leave it out for its default, or give one at least")
    if unknown := sorted(set(axes) - set(HeadSetting.__dataclass_fields__)):
        raise TypeError(f"a setting of a head has no {', '.join(unknown)}; known: "
                        f"{', '.join(HeadSetting.__dataclass_fields__)}")  # fmt: skip
    return [HeadSetting(**dict(zip(axes, chosen))) for chosen in itertools.product(*axes.values())]


@dataclass(frozen=True)
class FittedHeads:
    """S heads of one shape, in the order of their settings.

    Attributes:
        settings: S of them.
        plan: that they were fitted by.
        num_classes: C.
        parameters: of each head's best epoch (the last without validation rows), stacked: "weight" [S, C, D] and
            "bias" [S, C], or those of `nn.Sequential(Linear, ReLU, Linear)` by their names in it.
        train_loss: float64 [S, E], mean over each epoch of the loss while it trained, without the penalty; NaN for
            epochs after a fit had stopped.
        train_penalty: float64 [S, E], likewise, before lam; NaN for heads without one.
        validation_nll, validation_accuracy: float64 [S, E]; all NaN without validation rows.
        best_epoch: int64 [S], from 0.
        epochs_run: int64 [S].
    """

    settings: tuple[HeadSetting, ...]
    plan: HeadPlan
    num_classes: int
    parameters: dict[str, Tensor]
    train_loss: np.ndarray
    train_penalty: np.ndarray
    validation_nll: np.ndarray
    validation_accuracy: np.ndarray
    best_epoch: np.ndarray = field(repr=False)
    epochs_run: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.settings)

    def state_dict(self, index: int) -> dict[str, Tensor]:
        """Weights of one head, for `hf_noise.models.probe.probe(...)`'s `load_state_dict`."""
        index = check_count("index", index, 0, len(self) - 1)
        return {name: values[index].clone() for name, values in self.parameters.items()}

    def logits(self, features: Any) -> Tensor:
        """Logits of all heads [S, N, C] for features [N, D], on the heads' device.

        Raises as `fit_heads` does for features that are none, or of another width.
        """
        features = self._read(features)
        step = max(1, _MOST_LOGITS // (len(self) * self._width()))
        with torch.no_grad():
            parts = [logits_of(self.parameters, part) for part in features.split(step)]
        return torch.cat(parts, 1)

    def scores(self, features: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy and mean NLL in nats of each head on these rows, float64 [S] each; the labels as they are.

        Raises as `fit_heads` does.
        """
        features = self._read(features)
        labels = read_labels("labels", labels, len(features), self.num_classes).to(features.device)
        step = max(1, _MOST_LOGITS // (len(self) * self._width()))
        return scored(self.parameters, features, labels, None, None, step)

    def _width(self) -> int:
        return max(values.shape[1] for values in self.parameters.values())

    def _read(self, features: Any) -> Tensor:
        first = next(iter(self.parameters.values()))
        return read_features("features", features, first.device, first.dtype, first.shape[-1])


def fit_heads(
    features: Any,
    labels: Any,
    settings: Sequence[HeadSetting],
    plan: HeadPlan | None = None,
    *,
    validation: tuple[Any, ...] | None = None,
    sample_weight: Any = None,
    sample_ids: Any = None,
    num_classes: int | None = None,
    device: Any = None,
    progress: bool = True,
) -> FittedHeads:
    """Fit a head for each setting, all of them together, with AdamW and Local Gradient Matching.

    A setting with lam = 0 is plain cross-entropy. Its seed decides its first weights (uniform as `nn.Linear`'s), the
    order of rows in each epoch, and the perturbations, which are those of (seed, epoch, sample id).

    Args:
        features: [N, D], an array or a tensor of finite numbers; float64 is kept, all else is float32.
        labels: integers [N] in [0, C), of at least two classes.
        settings: see `HeadSetting` and `head_grid`.
        plan: what all settings share, see `HeadPlan`.
        validation: (features [N', D], labels [N']), and perhaps weights [N'] >= 0, by which the best epoch of each
            setting is chosen.
        sample_weight: [N], >= 0; only their ratios count.
        sample_ids: integers [N], by which rows are told when noise is drawn; by default 0 .. N - 1.
        num_classes: C; by default one more than the largest label, in `validation` too.
        device: where to fit; by default where the features are, the CPU for an array.
        progress: whether to show a bar of epochs.

    Returns:
        `FittedHeads`, on that device.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: counts that differ, features that are not finite, labels outside [0, C), one class only, negative
            weights or none above 0, T of another size, no settings, patience without validation rows.
    """
    plan = HeadPlan() if plan is None else plan
    if not isinstance(plan, HeadPlan):
        raise TypeError(f"plan must be a HeadPlan, got {type(plan).__name__}")
    if plan.patience is not None and validation is None:
        raise ValueError(f"patience={plan.patience} stops by validation rows, and there are none; give validation=")
    settings = _settings(settings)
    device = None if device is None else check_device("device", device)
    data = HeadData.read(features, labels, sample_weight, sample_ids, num_classes, validation, device)
    columns = plan.columns(data.num_classes, data.features)
    shapes = head_shapes(plan, data.features.shape[1], data.num_classes)
    fitted: dict[int, dict[str, Any]] = {}
    stacks = stacked(settings, plan, sum(int(np.prod(shape)) for shape in shapes.values()))
    with tqdm(total=plan.epochs * len(stacks), desc="heads", unit="epoch", disable=not progress) as bar:
        for places in stacks:
            stack = Stack([[settings[place] for place in row] for row in places], plan, data, columns, shapes)
            result = _fit(stack, plan, data, columns, bar)
            for k, row in enumerate(places):
                for m, place in enumerate(row):
                    fitted[place] = {name: value[k, m] for name, value in result.items()}
    return _joined(settings, plan, data.num_classes, [fitted[place] for place in range(len(settings))], list(shapes))


def stacked(settings: Sequence[HeadSetting], plan: HeadPlan, weights: int) -> list[list[list[int]]]:
    """Places of the settings as stacks: lists of one list for each seed, all as long, of one batch size."""
    by_seed: dict[tuple, list[int]] = {}
    for place, setting in enumerate(settings):
        by_seed.setdefault((setting.batch_size, plan.matches(setting), setting.seed), []).append(place)
    alike: dict[tuple, list[list[int]]] = {}
    for (batch_size, matches, _), places in by_seed.items():
        alike.setdefault((batch_size, matches, len(places)), []).append(places)
    stacks = []
    for rows in alike.values():
        seeds = max(1, min(len(rows), _MOST_WEIGHTS // weights))
        heads = max(1, _MOST_WEIGHTS // (weights * seeds))
        for start in range(0, len(rows), seeds):
            some = rows[start : start + seeds]
            stacks += [[row[first : first + heads] for row in some] for first in range(0, len(some[0]), heads)]
    return stacks


def scored(parameters: dict[str, Tensor], features: Tensor, labels: Tensor, weights: Tensor | None,
           columns: Tensor | None, step: int) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Accuracy and mean NLL, through T if columns are given, of heads stacked along any axes: float64 of these."""
    right = nll = 0
    weights = torch.ones_like(labels, dtype=torch.float64) if weights is None else weights.double()
    with torch.no_grad():
        for part, of, weight in zip(features.split(step), labels.split(step), weights.split(step)):
            log_p = torch.log_softmax(logits_of(parameters, part), -1)
            right = right + (log_p.argmax(-1) == of).double() @ weight
            said = log_p.gather(-1, of[:, None].expand(*log_p.shape[:-1], 1))[..., 0] if columns is None else (
                torch.logsumexp(log_p + columns[of], -1))  # fmt: skip
            nll = nll - said.double() @ weight
    return (right / len(labels)).cpu().numpy(), (nll / len(labels)).cpu().numpy()


def _fit(stack: Stack, plan: HeadPlan, data: HeadData, columns: Tensor | None, bar: Any) -> dict[str, Any]:
    """Curves [K, M, E], best and last epochs [K, M], and weights [K, M, ...] of a stack."""
    shape = stack.shape
    curves = {name: np.full((*shape, plan.epochs), np.nan) for name in
              ("train_loss", "train_penalty", "validation_nll", "validation_accuracy")}  # fmt: skip
    best, best_epoch = np.full(shape, np.inf), np.zeros(shape, np.int64)
    epochs_run, is_active = np.zeros(shape, np.int64), np.ones(shape, bool)
    kept = None
    step = max(1, _MOST_LOGITS // (shape[0] * shape[1] * max(weight.shape[2] for weight in stack.weights)))
    for epoch in range(plan.epochs):
        loss, penalty = stack.epoch(epoch)
        curves["train_loss"][is_active, epoch] = loss[is_active]
        curves["train_penalty"][is_active, epoch] = penalty[is_active]
        epochs_run[is_active] += 1
        bar.update()
        if data.validation is None:
            continue
        through = columns if plan.validation_is_noisy else None
        accuracy, nll = scored(stack.parameters, *data.validation, through, step)
        curves["validation_nll"][is_active, epoch] = nll[is_active]
        curves["validation_accuracy"][is_active, epoch] = accuracy[is_active]
        measure = nll if plan.best_by == "nll" else -accuracy
        is_better = is_active & (measure < best - (plan.tolerance if epoch else 0))
        best[is_better], best_epoch[is_better] = measure[is_better], epoch
        kept = stack.kept(kept, is_better)
        if plan.patience is not None:
            is_active &= epoch - best_epoch < plan.patience
            if not is_active.any():
                bar.update(plan.epochs - epoch - 1)
                break
    if kept is None:
        kept, best_epoch = stack.kept(None, np.ones(shape, bool)), epochs_run - 1
    return {**curves, "best_epoch": best_epoch, "epochs_run": epochs_run, **kept}


def _joined(settings: tuple[HeadSetting, ...], plan: HeadPlan, num_classes: int, found: list[dict[str, Any]],
            names: list[str]) -> FittedHeads:  # fmt: skip
    parameters = {name: torch.stack([one[name] for one in found]) for name in names}
    is_finite = torch.stack([values.flatten(1).isfinite().all(1) for values in parameters.values()]).all(0)
    if not bool(is_finite.all()):
        lost = [settings[place] for place in (~is_finite).nonzero()[:, 0].tolist()]
        logger.warning("%d of %d heads diverged: their weights are not finite; the first is %s", len(lost),
                       len(settings), lost[0])  # fmt: skip
    others = {name: np.stack([one[name] for one in found]) for name in found[0] if name not in names}
    return FittedHeads(settings, plan, num_classes, parameters, **others)


def _settings(settings: Any) -> tuple[HeadSetting, ...]:
    if isinstance(settings, HeadSetting):
        return (settings,)
    if isinstance(settings, str | bytes) or not isinstance(settings, Sequence):
        raise TypeError(f"settings must be a list of HeadSetting, got {type(settings).__name__}; see head_grid")
    if not settings:
        raise ValueError("settings must name one setting at least, got none; see head_grid")
    if wrong := [one for one in settings if not isinstance(one, HeadSetting)]:
        raise TypeError(f"settings must be a list of HeadSetting, got {wrong[0]!r:.80} among them")
    return tuple(settings)


