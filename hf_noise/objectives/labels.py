"""Objectives of classifiers: plain cross-entropy, or one that is corrected through a transition matrix T."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hf_noise.noise.transition import check_transition
from hf_noise.objectives.base import Bound, Objective, RunContext, condensed
from hf_noise.objectives.tokens import NO_NOISE
from hf_noise.objectives.volume_plan import VolumePlan

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CorrectedLabels", "CrossEntropy"]

_ON_NOISY_IMAGES = "noisy_classification"


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Plain cross-entropy on the noisy labels; the model was not told of the noise."""

    name = "nll"
    unit = "labels"
    is_nll = True
    smooths = True

    def bound(self, run: RunContext) -> ThroughColumns:
        return ThroughColumns(None, run.smoothing, None, "none")

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        if task == _ON_NOISY_IMAGES:
            return (
                "cross-entropy on images under Gaussian noise of every level, on the noisy labels as they are: it "
                "gives the probabilities of the noisy labels."
            )
        return NO_NOISE if error_rate == 0 else self.sentence


@dataclass(frozen=True)
class CorrectedLabels(Objective):
    """Cross-entropy corrected through the transition matrix T of the noise.

    Args:
        transition: "known" takes T from the noise of the run; a matrix [C, C] with rows clean states it; "estimated"
            learns it beside the classifier by volume minimisation.
        volume: how T is estimated, by default `VolumePlan()`.

    Raises:
        ValueError: T is no matrix of probabilities; in a run, it is to be known and there is no noise to know it from,
            or it is of other classes.
        TypeError: T holds no numbers, or `volume` is no VolumePlan.

    Source: Patrini et al., CVPR 2017 (training through T); Li et al., ICML 2021 (estimated T).
    """

    transition: Literal["known", "estimated"] | Sequence[Sequence[float]] = "known"
    volume: VolumePlan | None = None

    name = "corrected"
    unit = "labels"
    is_nll = True
    smooths = True

    def __post_init__(self) -> None:
        given, volume = self.transition, self.volume
        if isinstance(given, str):
            if given not in ("known", "estimated"):
                raise ValueError(f'transition must be "known", "estimated", a matrix or None, got {given!r:.80}')
        else:  # hashable, and as JSON holds it
            given = tuple(map(tuple, check_transition(given).tolist()))
        if isinstance(volume, Mapping):
            if unknown := [key for key in volume if key not in VolumePlan.__dataclass_fields__]:
                raise ValueError(f"volume has no field {unknown[0]!r:.80}; see VolumePlan")
            volume = VolumePlan(**volume)
        if not isinstance(volume, VolumePlan | None):
            raise TypeError(f"volume must be a VolumePlan or None, got {volume!r:.80}")
        object.__setattr__(self, "transition", given)
        object.__setattr__(self, "volume", volume)

    @property
    def sentence(self) -> str:
        return (
            "cross-entropy corrected through the transition matrix T of the noise, `-log sum_i T[i, y] p(i)`, so that "
            "the model learned the clean labels."
        )

    @property
    def learns(self) -> str | None:
        return 'transition="estimated"' if self.transition == "estimated" else None

    def bound(self, run: RunContext) -> ThroughColumns | ThroughVolume:
        if self.transition == "estimated":
            if not run.can_learn:
                raise ValueError(
                    'transition="estimated" is for trainers that learn beside their model; here pass T [C, C] with '
                    "rows clean, such as hf_noise.analysis estimates"
                )
            return ThroughVolume(run, self.volume or VolumePlan())
        if self.transition == "known":
            known = check_transition(_of_noise(run))
            return ThroughColumns(_columns(known, run), run.smoothing, known, "known")
        given = check_transition(self.transition)
        return ThroughColumns(_columns(given, run), run.smoothing, given, "given")

    def claims(self) -> dict[str, Any]:
        """As for every objective; how T is estimated as it is done, however that was said."""
        claims = super().claims()
        volume = asdict(self.volume or VolumePlan()) if self.transition == "estimated" else None
        return claims | {"objective": claims["objective"] | {"volume": volume}}

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        if task == _ON_NOISY_IMAGES:
            return (
                "cross-entropy on images under Gaussian noise of every level, corrected through the transition matrix "
                f"T (T is {facts.get('source', 'known')}), so that it gives the probabilities of the clean labels."
            )
        return self.sentence


class ThroughColumns(Bound):
    """Cross-entropy in a run, through a fixed T or through none.

    Attributes:
        columns: `hf_noise.losses.log_columns` of T for the model, None for no T.
        transition: T, float64 [C, C], None for none.
        source: "known", "given" or "none".
    """

    def __init__(self, columns: Tensor | None, smoothing: float, transition: np.ndarray | None, source: str):
        from hf_noise.losses.labels import label_nll

        self._loss = label_nll
        self.columns, self.smoothing, self.transition, self.source = columns, smoothing, transition, source

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self._loss(logits, labels, self.columns, self.smoothing)


class ThroughVolume(Bound):
    """Cross-entropy in a run, through a T that is learned by volume minimisation."""

    source, columns = "estimated", None
    module_name = "hf_noise_volume"

    def __init__(self, run: RunContext, plan: VolumePlan):
        from hf_noise.losses.volume import VolumeMinimisation

        self.plan, self.learning_rate, self.noise = plan, plan.matrix_rate, run.noise
        self.module = VolumeMinimisation(run.num_classes, initial_diagonal=plan.initial_diagonal).to(run.device)

    @property
    def transition(self) -> np.ndarray:
        """T as it stands now, float64 [C, C]."""
        return self.module.transition.detach().double().cpu().numpy()

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.module(logits, labels)

    def penalty(self, count: int) -> Tensor:
        """What is added to the sum of `count` losses."""
        return self.plan.weight * count * self.module.log_volume()

    def facts(self) -> dict[str, Any]:
        return super().facts() | condensed({"transition": self.transition.tolist()})

    def logged(self) -> dict[str, float]:
        if self.noise is None:
            return {}
        return {"transition_error": float(np.abs(self.transition - self.noise.transition).mean())}


def _of_noise(run: RunContext) -> np.ndarray:
    asked, would = ('transition="known"', "be") if run.can_learn else ('loss="corrected"', "correct for")
    others = ', or "estimated", or leave the correction out to take labels as they are' if run.can_learn else ""
    if run.noise is None:
        raise ValueError(
            f"{asked} takes T from the noise, and the trainer was given none; pass noise=, or a matrix transition= "
            f"[C, C] with rows clean{others}"
        )
    if run.noise.error_rate == 0 and not run.was_given:
        raise ValueError(
            f"{asked} would {would} no noise at all (T = I): the rows say that none was added to them, and not how "
            "many of their labels are wrong; pass transition= [C, C] with rows clean, noise= with a rate of 0 if they "
            f"are clean{others}"
        )
    return run.noise.transition


def _columns(transition: np.ndarray, run: RunContext) -> Tensor:
    """`hf_noise.losses.log_columns` of T for the model: float32 on its device."""
    import torch

    from hf_noise.losses.labels import log_columns

    columns = log_columns(torch.from_numpy(transition))
    if len(columns) != run.num_classes:
        raise ValueError(f"transition has {len(columns)} classes, the model {run.num_classes}")
    return columns.float().to(run.device)
