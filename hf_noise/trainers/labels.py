"""What trainers on labelled images share: which label a row is trained on, and that labels and classes agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from hf_noise.losses.labels import log_columns
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.trainers.base import NoiseTrainer
from hf_noise.trainers.images import DeviceImages

__all__ = ["LabelTrainer", "check_class_names", "check_labels", "class_names", "collate_images", "sample_ids"]


class LabelTrainer(NoiseTrainer):
    """`NoiseTrainer` on labelled images; a subclass says how many classes its model has.

    Rows hold `pixel_values`, `labels` and `sample_id` (dynamic noise, drawn on the device for every epoch), or those of
    a noisy data set: noisy `labels`, `clean_labels`, `is_noisy`; see `hf_noise.trainers.images`.

    Args:
        channels_last: memory layout of model and images; by default on a GPU.

    Raises:
        ValueError: noise or labels do not fit the model's classes (in training, where labels are in no column that
            can be read before), or `DeviceImages` are to be read by workers; and what `NoiseTrainer` refuses.
    """

    noise_kinds = (LabelFlips, HumanLabels)
    other_noise = "see hf_noise.noise for noise on labels"

    def __init__(self, model: Any, args: Any, *, channels_last: bool | None = None, **kwargs: Any):
        kwargs.setdefault("data_collator", collate_images)
        super().__init__(model, args, **kwargs)
        for rows in (self.train_dataset, self.eval_dataset):
            check_labels(_stored_labels(rows), self.num_classes)
        # What cannot be read now is looked at batch by batch, on the CPU: no device has to wait for it.
        self.data_collator = _InRange(self.data_collator, self.num_classes)
        self.label_smoother = None  # of transformers, which knows no corrected loss
        self.model_accepts_loss_kwargs = True
        self.label_names = ["labels"]
        if any(isinstance(rows, DeviceImages) for rows in (self.train_dataset, self.eval_dataset)):
            if self.args.dataloader_num_workers:
                raise ValueError("DeviceImages are on the device already: dataloader_num_workers must be 0")
            self.args.dataloader_pin_memory = False
        self.channels_last = self.args.device.type == "cuda" if channels_last is None else channels_last
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)

    @property
    def num_classes(self) -> int:
        """C of the model."""
        return self.model.config.num_labels

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
        if isinstance(self.noise, HumanLabels):
            raise ValueError("HumanLabels cannot be drawn: rows need the columns labels, clean_labels and is_noisy")
        noisy, is_noisy = self.noise(labels, sample_ids(inputs), self.epoch)
        return noisy, labels, is_noisy

    def log_columns(self, transition: Any) -> Tensor:
        """`hf_noise.losses.log_columns` of T, an array or tensor [C, C], for the model: float32 on its device."""
        columns = log_columns(torch.as_tensor(transition, dtype=torch.float64))
        if len(columns) != self.num_classes:
            raise ValueError(f"transition has {len(columns)} classes, the model {self.num_classes}")
        return columns.float().to(self.args.device)

    def laid_out(self, images: Tensor) -> Tensor:
        """Images in the memory layout of the model."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


def sample_ids(rows: Mapping[str, Tensor]) -> Tensor:
    """The column `sample_id` int64 [B], or a ValueError that says what it is for."""
    if "sample_id" not in rows:
        raise ValueError(
            "dynamic noise needs the column `sample_id`, the stable index of each row; rows have "
            f"{', '.join(sorted(rows))}"
        )
    return rows["sample_id"]


def check_labels(columns: Mapping[str, Tensor], num_classes: int) -> None:
    """Raise ValueError for labels outside [0, C), with their number and the first one, before anything is trained."""
    for name in ("labels", "clean_labels"):
        if name in columns:
            wrong = ((columns[name] < 0) | (columns[name] >= num_classes)).nonzero().flatten()
            if len(wrong):
                first = int(wrong[0])
                raise ValueError(
                    f"{len(wrong)} of {len(columns[name])} {name} are outside [0, {num_classes}), the first is "
                    f"{int(columns[name][first])} in row {first}; correct them, or make a model with more classes"
                )


def _stored_labels(rows: Any) -> dict[str, Tensor]:
    """The columns `labels` and `clean_labels` as far as they are stored, int64 [N] each."""
    if hasattr(rows, "columns"):
        return rows.columns
    layout = getattr(rows, "format", None)  # of a datasets.Dataset; a stream has none, and no column to read
    if not isinstance(layout, Mapping) or layout["type"] == "custom":  # a transform may make other labels of a column
        return {}
    names = [name for name in ("labels", "clean_labels") if name in rows.column_names]
    table = rows.with_format("numpy", columns=names)
    columns = {name: np.asarray(table[name][:]) for name in names}
    return {name: torch.from_numpy(column) for name, column in columns.items() if column.dtype.kind == "i"}


@dataclass(frozen=True)
class _InRange:
    """Batches of a collator whose labels lie in [0, C); those on a device were read before."""

    collator: Callable[[Any], Any]
    num_classes: int

    def __call__(self, rows: Any) -> Any:
        batch = self.collator(rows)
        labels = {name: batch[name] for name in ("labels", "clean_labels") if isinstance(batch.get(name), Tensor)}
        check_labels({name: values for name, values in labels.items() if values.device.type == "cpu"}, self.num_classes)
        return batch


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
    first = next(i for i, (one, other) in enumerate(zip(named, of_rows)) if one != other)
    raise ValueError(
        f"{owner} calls class {first} {named[first]!r}, the data {of_rows[first]!r}; use one for these classes in "
        "this order"
    )


def collate_images(rows: Any) -> dict[str, Tensor]:
    """Rows to a batch; a batch that a data set made as a whole stays as it is."""
    return rows if isinstance(rows, Mapping) else default_collate(rows)
