"""How heads are fitted: what may differ between those of a grid, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hf_noise.losses.checks import check_count, check_flag, check_real
from hf_noise.losses.head_gradients import PENALTIES
from hf_noise.losses.labels import log_columns
from hf_noise.noise.transition import check_transition

__all__ = ["HeadPlan", "HeadSetting"]

_MOST = 1 << 24


@dataclass(frozen=True, kw_only=True)
class HeadSetting:
    """One setting of a grid.

    Args:
        learning_rate: of AdamW, > 0; 3e-4 and 6e-4 are paper B's for text, 0.1 (linear) and 1e-3 (mlp) for images.
        weight_decay: of AdamW, >= 0, on weights and biases.
        gamma: standard deviation of the perturbation of features, >= 0; 0.01 is paper B's (table 1).
        lam: weight of Local Gradient Matching, >= 0; 0 is plain cross-entropy, 0.15 is paper B's (table 1).
        batch_size: rows of a step, >= 1; the last of an epoch may have fewer.
        seed: in [0, 2^63), of the first weights, the order of rows and the perturbations.

    Raises:
        TypeError: a field is no number, or no integer.
        ValueError: it is outside its range.
    """

    learning_rate: float = 6e-4
    weight_decay: float = 0.0
    gamma: float = 0.01
    lam: float = 0.0
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        checked = {
            "learning_rate": check_real("learning_rate", self.learning_rate, "(0, inf)"),
            **{name: check_real(name, getattr(self, name), "[0, inf)") for name in ("weight_decay", "gamma", "lam")},
            "batch_size": check_count("batch_size", self.batch_size, 1, _MOST),
            "seed": check_count("seed", self.seed, 0, (1 << 63) - 1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class HeadPlan:
    """What all settings of a grid share.

    Args:
        head: "linear", or "mlp" for two layers with a ReLU between them.
        hidden: units between the two layers; by default as many as features (paper B). Of a linear head None.
        bias: whether layers have biases.
        epochs: at most so many passes over the rows, >= 1.
        schedule: "constant", or "cosine" for learning rates that fall to 0 over all epochs.
        patience: epochs without a better validation after which a setting stops; None for all epochs.
        best_by: what of the validation rows decides on the best epoch: "nll" or "accuracy".
        tolerance: by how much an epoch has to be better to count as better, >= 0.
        penalty: "difference" is Local Gradient Matching; "norm" and "cosine" are its ablations, see
            `hf_noise.losses.local_gradient_matching`.
        gamma_relative: gamma counts in the mean standard deviation of the features over the training rows, by their
            weights.
        transition: T [C, C] with rows clean, through which the cross-entropy of noisy labels is corrected.
        validation_is_noisy: whether the validation labels are as wrong as those of training, so that their NLL goes
            through T too. Accuracy counts them as they are.

    Raises:
        TypeError: a field is of another type.
        ValueError: it is outside its range, T is no such matrix, or early stopping could not be honoured.
    """

    head: Literal["linear", "mlp"] = "linear"
    hidden: int | None = None
    bias: bool = True
    epochs: int = 10
    schedule: Literal["constant", "cosine"] = "constant"
    patience: int | None = None
    best_by: Literal["nll", "accuracy"] = "nll"
    tolerance: float = 0.0
    penalty: Literal["difference", "norm", "cosine"] = "difference"
    gamma_relative: bool = False
    transition: Sequence[Sequence[float]] | None = None
    validation_is_noisy: bool = True

    def __post_init__(self) -> None:
        for name, known in (("head", ("linear", "mlp")), ("schedule", ("constant", "cosine")),
                            ("best_by", ("nll", "accuracy")), ("penalty", tuple(PENALTIES))):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r:.80}")
        for name in ("bias", "gamma_relative", "validation_is_noisy"):
            object.__setattr__(self, name, check_flag(name, getattr(self, name)))
        object.__setattr__(self, "epochs", check_count("epochs", self.epochs, 1, _MOST))
        object.__setattr__(self, "tolerance", check_real("tolerance", self.tolerance, "[0, inf)"))
        for name in ("hidden", "patience"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_count(name, value, 1, _MOST))
        if self.hidden is not None and self.head == "linear":
            raise ValueError(f'hidden={self.hidden} is of head="mlp"; a linear head has no hidden units')
        if isinstance(self.transition, str):
            raise ValueError(f"transition must be T [C, C] with rows clean, got {self.transition!r:.80}; heads learn "
                             "no T: estimate it before, or train with ClassifierTrainer")  # fmt: skip
        if self.transition is not None:  # hashable, and as JSON holds it
            object.__setattr__(self, "transition", tuple(map(tuple, check_transition(self.transition).tolist())))

    def matches(self, setting: HeadSetting) -> bool:
        """Whether a penalty is to be computed for a setting."""
        return setting.lam > 0 and (setting.gamma > 0 or self.penalty == "norm")

    def columns(self, num_classes: int, like: Tensor) -> Tensor | None:
        """`hf_noise.losses.log_columns` of T in the dtype and on the device of `like`; ValueError for other classes."""
        if self.transition is None:
            return None
        if len(self.transition) != num_classes:
            raise ValueError(f"transition has {len(self.transition)} classes, the labels {num_classes}; T has a row "
                             "and a column for each of them, also for a class that no row has")  # fmt: skip
        return log_columns(torch.from_numpy(np.array(self.transition))).to(like)
