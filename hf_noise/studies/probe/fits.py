"""The heads of a study: what each seed learns from, the grid that is fitted, and the setting that is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_noise.noise import HumanLabels, LabelFlips, counter, realised_rate
from hf_noise.studies.probe.baseline import fit_still_heads
from hf_noise.studies.probe.data import ProbeData, Rows
from hf_noise.studies.probe.study import VALIDATION_SHARE, Run, Settings
from hf_noise.trainers.heads import FittedHeads, HeadPlan, HeadSetting, fit_heads, head_grid
from hf_noise.trainers.heads_stack import logits_of

__all__ = ["Chosen", "Problem", "fit_all", "grid_of", "noise_of", "plan_of", "problem_of"]

_VALIDATION_STREAM = 121  # by which validation rows are drawn, beside those of noises and heads
_OTHER_ROWS = 1 << 40  # ids of validation rows that have a source of their own


@dataclass(frozen=True, eq=False)
class Problem:
    """What the heads of one seed learn from and are chosen by.

    Attributes:
        seed: of the study.
        train: places of the training rows, int64 [n].
        labels: of all training rows as they are learned, int64 [N]; those of `train` count.
        clean: the labels before noise was drawn, or the true ones where the data have them beside wrong ones.
        validation: features [M, d] and labels [M], as wrong as those of training.
        noise: what the labels have.
        realised: {"rate", "n"} of it over training and validation rows.
    """

    seed: int
    train: np.ndarray
    labels: np.ndarray
    clean: np.ndarray
    validation: tuple[np.ndarray, np.ndarray]
    noise: LabelFlips | HumanLabels
    realised: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Chosen:
    """A head, the setting that validation rows chose for it, and what it was chosen from.

    Attributes:
        parameters: by name, of one head.
        setting: the best one.
        validation_accuracy: of it, in [0, 1].
        worst_accuracy: of the worst setting of the grid, on the same rows.
        tried: settings of the grid.
        best_epoch: that counts, from 0.
    """

    parameters: dict[str, Tensor]
    setting: HeadSetting
    validation_accuracy: float
    worst_accuracy: float
    tried: int
    best_epoch: int

    def logits(self, features: np.ndarray | Tensor) -> Tensor:
        """Logits float32 [n, C]."""
        like = next(iter(self.parameters.values()))
        with torch.no_grad():
            return logits_of(self.parameters, torch.as_tensor(features).to(like))


def noise_of(settings: Settings, run: Run, data: ProbeData) -> LabelFlips | HumanLabels:
    """The noise of a run's labels. Raises ValueError: its classes cannot have it."""
    if run.ratio is None:
        return HumanLabels.from_columns(
            data.train.clean, data.train.labels, num_classes=len(data.classes), name=settings.column
        )
    protocol = run.protocol if run.ratio else "symmetric"
    return LabelFlips.named(
        protocol, ratio=run.ratio, num_classes=len(data.classes), seed=run.seed, redraw="never",
        allow_adversarial=settings.allow_adversarial,
    )  # fmt: skip


def problem_of(settings: Settings, run: Run, data: ProbeData) -> Problem:
    """What the heads of a run learn from: labels that are wrong as the run says, also those they are chosen by."""
    noise, train, apart = noise_of(settings, run, data), data.train, data.validation
    labels, clean, is_wrong = _noisy(noise, run, train, train.ids)
    rows = np.arange(len(train))
    if apart is None:
        drawn = counter.units(counter.row_keys(run.seed, _VALIDATION_STREAM, 0, train.ids)[:, None], counter.weyl(1))
        order = np.argsort(drawn[:, 0], kind="stable")
        held = np.sort(order[: max(1, round(VALIDATION_SHARE * len(train)))])
        rows = np.setdiff1d(rows, held)
        validation = train.features[held], labels[held]
    else:
        own, _, wrong = _noisy(noise, run, apart, apart.ids + _OTHER_ROWS)
        validation, is_wrong = (apart.features, own), np.concatenate([is_wrong, wrong])
    return Problem(run.seed, rows, labels, clean, validation, noise, realised_rate(is_wrong))


def _noisy(noise: Any, run: Run, rows: Rows, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels as they are learned, the true ones, and which of them differ."""
    clean = rows.labels if rows.clean is None else rows.clean
    if run.ratio is None:  # they come wrong
        return rows.labels, clean, rows.labels != clean
    noisy, is_wrong = noise(clean, sample=ids, epoch=0)
    return noisy, clean, is_wrong


def plan_of(settings: Settings, run: Run, noise: Any) -> HeadPlan:
    """What all settings of a run's grid share."""
    kind = run.penalty if run.penalty in ("norm", "cosine") else "difference"
    return HeadPlan(
        head=run.head, epochs=settings.epochs, schedule=settings.schedule, penalty=kind, best_by="accuracy",
        gamma_relative=settings.gamma_relative,
        transition=noise.transition if run.loss == "corrected" else None,
    )  # fmt: skip


def grid_of(settings: Settings, head: str, penalty: str, seed: int) -> list[HeadSetting]:
    """The settings that are tried for one head and penalty."""
    is_mlp = head == "mlp"
    decay = settings.mlp_weight_decay if is_mlp and settings.mlp_weight_decay is not None else settings.weight_decay
    # The norm of a gradient does not depend on gamma.
    gammas = settings.gamma if penalty not in ("none", "norm") else settings.gamma[:1]
    return head_grid(
        learning_rate=settings.mlp_learning_rate if is_mlp and settings.mlp_learning_rate else settings.learning_rate,
        batch_size=settings.batch_size, gamma=gammas, lam=[0.0] if penalty == "none" else settings.lam,
        weight_decay=decay, seed=seed,
    )  # fmt: skip


def fit_all(
    settings: Settings, runs: Sequence[Run], data: ProbeData, device: Any
) -> dict[Run, tuple[Problem, Chosen]]:
    """Fit the runs of one head, noise and loss; what seeds share in data is fitted together, and all penalties' grids.

    Raises ValueError: there are too few rows or classes left to fit on.
    """
    problems = {run.seed: problem_of(settings, run, data) for run in reversed(runs)}
    is_shared = data.validation is not None and runs[0].ratio in (0.0, None)
    seeds = sorted(problems)
    found: dict[Run, tuple[Problem, Chosen]] = {}
    for together in [seeds] if is_shared else [[seed] for seed in seeds]:
        problem = problems[together[0]]
        some = [run for run in runs if run.seed in together]
        for penalties in _calls(some):
            part = [run for run in some if run.penalty in penalties]
            fitted = _fit(settings, part, problem, data, device)
            found |= {run: (problems[run.seed], chosen) for run, chosen in _choose(part, fitted, settings, problem)}
    return found


def _calls(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Penalties whose grids go through one fit: none and LGM, which differ in lam alone; each of the others."""
    there = dict.fromkeys(run.penalty for run in runs)
    together = tuple(one for one in ("none", "difference") if one in there)
    return [part for part in (together, *((one,) for one in there if one not in together)) if part]


def _fit(settings: Settings, runs: Sequence[Run], problem: Problem, data: ProbeData, device: Any) -> FittedHeads:
    grid = [one for run in runs for one in grid_of(settings, run.head, run.penalty, run.seed)]
    features, labels = data.train.features[problem.train], problem.labels[problem.train]
    told = {"validation": problem.validation} if settings.best_epoch else {}
    told |= {"sample_ids": data.train.ids[problem.train], "num_classes": len(data.classes), "device": device}
    plan = plan_of(settings, runs[0], problem.noise)
    if runs[0].penalty == "l2":
        return fit_still_heads(features, labels, grid, plan, **told)
    return fit_heads(features, labels, grid, plan, progress=False, **told)


def _choose(runs: Sequence[Run], fitted: FittedHeads, settings: Settings, problem: Problem):
    """Each run with its best head: highest accuracy on validation rows, of equal ones the lowest loss there."""
    features, labels = problem.validation
    logits = fitted.logits(features).double()  # [S, M, C]
    of = torch.as_tensor(labels).to(logits.device)
    log_p = torch.log_softmax(logits, -1)
    columns = fitted.plan.columns(fitted.num_classes, log_p)
    accuracy = (log_p.argmax(-1) == of).double().mean(1).cpu().numpy()
    said = log_p.gather(-1, of.expand(len(log_p), -1)[..., None])[..., 0] if columns is None else (
        torch.logsumexp(log_p + columns[of], -1))  # fmt: skip
    nll = np.nan_to_num(-said.mean(1).cpu().numpy(), nan=np.inf)
    start = 0
    for run in runs:
        size = len(grid_of(settings, run.head, run.penalty, run.seed))
        mine = range(start, start + size)
        best = min(mine, key=lambda place: (-accuracy[place], nll[place]))
        start += size
        yield run, Chosen(
            fitted.state_dict(best), fitted.settings[best], float(accuracy[best]), float(accuracy[list(mine)].min()),
            size, int(fitted.best_epoch[best]),
        )  # fmt: skip
