"""What trainers of any classifier share, of images, text or sound: the label of a row, and that classes agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from hf_noise.noise import HumanLabels, LabelFlips, noise_from_dict
from hf_noise.trainers.image_batches import check_labels
from hf_noise.trainers.label_names import with_label_names
from hf_noise.trainers.objective import ObjectiveTrainer
from hf_noise.trainers.parts import held_columns, is_table
from hf_noise.trainers.stored import column_of

__all__ = [
    "LabelTrainer", "SAME_TRANSITION", "add_penalty", "check_class_names", "check_same_names", "check_same_noise",
    "class_names", "sample_ids",
]  # fmt: skip

#: Entries of two matrices that differ by no more are the same: one in a config may have gone through float32.
SAME_TRANSITION = 1e-6


class LabelTrainer(ObjectiveTrainer):
    """`ObjectiveTrainer` on rows with a label each, of images, text or sound; a subclass says how they become a batch.

    Rows hold `labels` (or `label`) and `sample_id` (dynamic noise, drawn on the device for every epoch), or those of a
    noisy data set: noisy `labels`, `clean_labels`, `is_noisy`. Where a noisy data set calls them otherwise (`topic`,
    `clean_topic`), the one pair that `is_noisy` can be of is taken, see `hf_noise.trainers.label_names`. The batches of
    a subclass hold `labels`.

    Raises:
        ValueError: noise, labels or names of classes do not fit the model, or each other (in training, where they are
            in no column that can be read before); and what `NoiseTrainer` refuses.
    """

    unit = "labels"
    noise_units = ("labels",)
    other_noise = "see hf_noise.noise for noise on labels"
    #: Whether a collator of the user's own is shown all columns, by the names that they have.
    shows_all = False

    def __init__(self, model: Any, args: Any, **kwargs: Any):
        kwargs |= {name: self._named(kwargs[name]) for name in ("train_dataset", "eval_dataset") if name in kwargs}
        super().__init__(model, args, **kwargs)
        for rows in self._row_sets():
            check_class_names(self.class_names, rows, "the model")
            check_labels(_stored_labels(rows), self.num_classes)
        check_same_names(list(self._row_sets()))
        self.model_accepts_loss_kwargs = True
        self.label_names = ["labels"]

    def _named(self, rows: Any) -> Any:
        """Rows, or several sets of them by name, with the labels under the names that are read."""
        if self.shows_all:
            return rows
        if isinstance(rows, dict):
            return {name: with_label_names(one) for name, one in rows.items()}
        return with_label_names(rows)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        return super().get_eval_dataloader(self._named(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        return super().get_test_dataloader(self._named(test_dataset))

    def _row_sets(self) -> Iterator[Any]:
        """The rows of training and of each evaluation."""
        several = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"eval": self.eval_dataset}
        yield from (rows for rows in (self.train_dataset, *several.values()) if rows is not None)

    @property
    def class_names(self) -> list[str] | None:
        """Names that the model has for its classes; None if it has none of its own."""
        return None

    @property
    def num_classes(self) -> int:
        """C of the model."""
        return self.model.config.num_labels

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """As transformers makes it, times the factors of a plan by which a T is learned."""
        scheduler, plan = super().create_scheduler(num_training_steps, optimizer), getattr(self.objective, "plan", None)
        if plan is None:
            return scheduler
        groups = self.optimizer.param_groups
        if not isinstance(scheduler, LambdaLR) or len(scheduler.lr_lambdas) != len(groups):
            raise ValueError("to estimate T, the learning rate follows a schedule of transformers; pass no scheduler")

        def planned(schedule: Callable[[int], float], part: int) -> Callable[[int], float]:
            return lambda step: schedule(step) * plan.factors(step / num_training_steps)[part]

        *usual, of_matrix = scheduler.lr_lambdas
        scheduler.lr_lambdas = [*(planned(one, 0) for one in usual), planned(of_matrix, 1)]
        for group, base, of_step in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas):
            group["lr"] = base * of_step(0)
        return scheduler

    def check_noise(self, noise: LabelFlips | HumanLabels) -> None:
        if noise.num_classes != self.num_classes:
            raise ValueError(
                f"the noise has {noise.num_classes} classes, the model {self.num_classes}; use the same number"
            )

    def targets(self, inputs: Mapping[str, Tensor], *, draw: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Labels to train on and clean labels, int64 [B], and where they differ, bool [B]."""
        labels = inputs["labels"]
        if self.has_noise(inputs):
            return labels, inputs["clean_labels"], inputs["is_noisy"].bool()
        if not draw or self.noise is None:
            return labels, labels, torch.zeros_like(labels, dtype=torch.bool)
        if not self.noise.draws_targets:
            name = type(self.noise).__name__
            raise ValueError(f"{name} cannot be drawn: rows need the columns labels, clean_labels and is_noisy")
        noisy, is_noisy = self.noise(labels, sample_ids(inputs), self.epoch)
        return noisy, labels, is_noisy


def add_penalty(objective: Any, total: Tensor, count: int) -> Tensor:
    """A sum of `count` losses with what an objective adds to it, such as the volume of a T that is learned."""
    return total + objective.penalty(count) if hasattr(objective, "penalty") else total


def sample_ids(rows: Mapping[str, Tensor]) -> Tensor:
    """The column `sample_id` int64 [B], or a ValueError that says what it is for."""
    if "sample_id" not in rows:
        raise ValueError(
            "labels and noise levels are drawn from the column `sample_id`, the stable index (an integer) of each row; "
            f"rows have {', '.join(sorted(rows))} (or the data collator drops it)"
        )
    return rows["sample_id"]


def _stored_labels(rows: Any) -> dict[str, Tensor]:
    """The columns `labels` and `clean_labels` as far as they are stored, int64 [N] each."""
    if (held := held_columns(rows)) is not None:
        return held
    found = {}
    for use, name in (("labels", "label"), ("clean_labels", "clean_label")):
        if is_table(rows):
            found[use] = column_of(rows, use if use in rows.column_names else name)
    return {name: torch.from_numpy(column.astype(np.int64)) for name, column in found.items() if column is not None}


def class_names(rows: Any) -> list[str] | None:
    """Names of the classes that a data set, or what wraps it, states for its labels; None if it states none."""
    info = getattr(getattr(rows, "dataset", rows), "info", None)
    for column in ("label", "labels", "clean_label", "clean_labels"):
        names = getattr((getattr(info, "features", None) or {}).get(column), "names", None)
        if names:
            return list(names)
    return None


def check_class_names(named: Sequence[str] | None, rows: Any, owner: str) -> None:
    """Raise ValueError if a model, here called `owner`, and rows both name their classes, and not in the same way."""
    of_rows = class_names(rows)
    if named is None or of_rows is None or list(named) == of_rows:
        return
    if len(named) != len(of_rows):
        raise ValueError(f"{owner} names {len(named)} classes, the data {len(of_rows)}; use one for these classes")
    if all(str(i) == name for i, name in enumerate(named)) or all(name == f"LABEL_{i}" for i, name in enumerate(named)):
        return  # numbers are no names
    first = next(i for i, (one, other) in enumerate(zip(named, of_rows)) if one != other)
    raise ValueError(
        f"{owner} calls class {first} {named[first]!r}, the data {of_rows[first]!r}; use one for these classes in "
        "this order"
    )


def check_same_names(row_sets: Sequence[Any]) -> None:
    """Raise ValueError if two of several data sets name their classes, and not in the same way."""
    for rows in row_sets[1:]:
        check_class_names(class_names(row_sets[0]), rows, "the training rows")


def check_same_noise(theirs: Any, noise: LabelFlips | HumanLabels | None) -> None:
    """Refuse a classifier of noisy images that was trained on labels of other noise than this run's.

    It is then of no use here, wherever its T is from: an estimated one too is that of its own labels.

    Args:
        theirs: config of a `TimeDependentClassifier`. Where it does not state its noise, a T that is "known" tells it.
            One without T on labels that are stated to be clean fits any noise.
        noise: of this run; None, of which nothing is known, fits any.

    Raises:
        ValueError: the two matrices differ in an entry by more than 1e-6, or in their classes.
    """
    stated = None if theirs.hf_noise is None else noise_from_dict(theirs.hf_noise)
    if stated is not None:
        trained_on = None if theirs.transition is None and stated.error_rate == 0 else stated.transition
    else:
        trained_on = np.asarray(theirs.transition) if theirs.transition_source == "known" else None
    if noise is None or trained_on is None:
        return
    if len(trained_on) != noise.num_classes:
        raise ValueError(f"the classifier's noise has {len(trained_on)} classes, this run {noise.num_classes}; "
                         "train one on the labels of this run")  # fmt: skip
    apart = float(np.abs(trained_on - noise.transition).max())
    if apart > SAME_TRANSITION:
        raise ValueError(
            f"the classifier was trained on labels of other noise (entries of the two T differ by up to {apart:.3g}); "
            "train one on the labels of this run"
        )
