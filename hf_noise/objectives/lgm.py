"""Local Gradient Matching on the head of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hf_noise.noise.checks import check_choice, check_flag, check_seed
from hf_noise.objectives.base import Bound, Forward, Objective, RunContext, real_in
from hf_noise.objectives.labels import CorrectedLabels, CrossEntropy

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LGM"]

_PENALTIES = ("difference", "norm", "cosine")
_STREAM = 112  # as `hf_noise.trainers.heads_stack` has it, so that a head alone sees the same perturbations


@dataclass(frozen=True)
class LGM(Objective):
    """Cross-entropy plus lam times how far the head's mean gradient moves when its features are perturbed.

    The features may be those of a model that is trained too, whose gradient then holds the penalty's. The means are
    over what one forward pass sees, a micro-batch of one process. Perturbations are those of (seed, epoch, sample id),
    so a run is the same after a resume, and in any order of rows.

    Args:
        gamma: standard deviation of the perturbation, >= 0. It is absolute, and features differ in scale.
        lam: weight of the penalty, >= 0.
        gamma_relative: gamma counts in the mean standard deviation of the features over the batch.
        transition: None for plain cross-entropy; T of the noise ("known") or a matrix [C, C] with rows clean, through
            which cross-entropy and gradients are corrected (Patrini et al., 2017).
        penalty: "difference" is the paper's; "norm" and "cosine" are its ablations (table 5).
        seed: of the perturbations, in [0, 2^63).

    Raises:
        ValueError: a value is out of its range, T is no matrix of probabilities; in a run, the trainer knows of no
            head, or the rows have no sample ids.
        TypeError: a value is of another type.

    Source: paper B, section 5 (gamma and lam of table 1), see `hf_noise.losses.local_gradient_matching`.
    """

    gamma: float = 0.01
    lam: float = 0.15
    gamma_relative: bool = False
    transition: Literal["known"] | Sequence[Sequence[float]] | None = None
    penalty: Literal["difference", "norm", "cosine"] = "difference"
    seed: int = 0

    name = "lgm"
    unit = "labels"
    needs_forward = True
    tuned = ("gamma", (0.001, 0.01, 0.1))

    def __post_init__(self) -> None:
        known = ", ".join(map(repr, _PENALTIES))
        checked = {
            "gamma": real_in("gamma", self.gamma, "[0, inf)"), "lam": real_in("lam", self.lam, "[0, inf)"),
            "gamma_relative": check_flag("gamma_relative", self.gamma_relative),
            "penalty": check_choice("penalty", self.penalty, _PENALTIES, f"one of {known}"),
            "seed": check_seed(self.seed),
        }  # fmt: skip
        if self.transition is not None:
            checked["transition"] = CorrectedLabels(self.transition).transition
            if checked["transition"] == "estimated":
                raise ValueError('transition must be None, "known" or a matrix [C, C], got "estimated": a T that is '
                                 "learned would be matched too; learn it first, and give it here")  # fmt: skip
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def sentence(self) -> str:
        through = "" if self.transition is None else ", corrected through the transition matrix T of the noise,"
        added = {
            "difference": "the distance of the head's gradients on its features and on perturbed ones",
            "norm": "the norm of the head's gradient",
            "cosine": "one minus the cosine of the head's gradients on its features and on perturbed ones",
        }[self.penalty]
        unit = " mean standard deviations" if self.gamma_relative else ""
        return (f"cross-entropy{through} plus {self.lam:.4g} times {added} (Local Gradient Matching, gamma = "
                f"{self.gamma:.4g}{unit}).")  # fmt: skip

    def bound(self, run: RunContext) -> BoundLGM:
        plain = CrossEntropy() if self.transition is None else CorrectedLabels(self.transition)
        return BoundLGM(self, plain.bound(run))


class BoundLGM(Bound):
    """`LGM` in a run, through a T or through none.

    Attributes:
        columns, transition, source: as of `hf_noise.objectives.labels.ThroughColumns`.
    """

    def __init__(self, objective: LGM, plain: Any):
        from hf_noise.losses import local_gradient_matching
        from hf_noise.noise.normals_torch import normals

        self._match, self._normals = local_gradient_matching, normals
        self.objective, self._plain = objective, plain
        self.columns, self.transition, self.source = plain.columns, plain.transition, plain.source
        self._penalty: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor, forward: Forward) -> Tensor:
        wanted, nll = self.objective, self._plain(logits, labels)
        if wanted.lam == 0:
            return nll
        if forward.head is None or forward.features is None:
            raise ValueError("LGM matches gradients of a classifier's head, and the trainer knows of none; pass head= "
                             "the module of the model that makes the logits")  # fmt: skip
        if forward.sample_ids is None:
            raise ValueError("LGM draws perturbations by sample id, and the rows have none; add a column sample_id "
                             'of integers: dataset.add_column("sample_id", range(len(dataset))), where one of text is '
                             "renamed before")  # fmt: skip
        given = forward.features
        noise = self._normals(wanted.seed, _STREAM, forward.epoch, forward.sample_ids, given[0].numel())
        found = self._match(forward.head, given, labels, gamma=wanted.gamma, noise=noise.view(given.shape),
                            columns=self.columns, penalty=wanted.penalty, gamma_relative=wanted.gamma_relative
                            )  # fmt: skip
        self._penalty = found.penalty.detach()
        return nll + wanted.lam * found.penalty

    def logged(self) -> dict[str, float]:
        """The penalty of the last batch before lam, named by its kind; reading it makes the device wait."""
        return {} if self._penalty is None else {f"gradient_{self.objective.penalty}": float(self._penalty)}
