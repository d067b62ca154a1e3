"""What trainers on labelled images share: which label a row is trained on, and that labels and classes agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from hf_noise.losses.labels import log_columns
from hf_noise.noise import HumanLabels, LabelFlips, noise_from_dict
from hf_noise.noise.arrays import as_array
from hf_noise.noise.checks import check_flag
from hf_noise.noise.transition import check_transition
from hf_noise.trainers.arguments import check_given
from hf_noise.trainers.base import NoiseTrainer
from hf_noise.trainers.collate import shown_columns
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.stored import column_of, held_columns, is_table

__all__ = [
    "ImageBatches", "LabelTrainer", "SAME_TRANSITION", "check_class_names", "check_images", "check_kind",
    "check_labels", "check_same_names", "check_same_noise", "class_names", "collate_images", "sample_ids",
]  # fmt: skip

#: Entries of two matrices that differ by no more are the same: one in a config may have gone through float32.
SAME_TRANSITION = 1e-6


#: How far from 0 pixels in [-1, 1] may be: rounding, and what resizing adds at edges.
_BEYOND = 1.5


class LabelTrainer(NoiseTrainer):
    """`NoiseTrainer` on labelled images; a subclass says how many classes its model has, and which images it takes.

    Rows hold `pixel_values`, `labels` (or `label`) and `sample_id` (dynamic noise, drawn on the device for every
    epoch), or those of a noisy data set: noisy `labels`, `clean_labels`, `is_noisy`; see `hf_noise.trainers.images`.
    Other columns are left alone.

    Args:
        channels_last: memory layout of model and images; by default on a GPU.

    Raises:
        ValueError: noise, labels, names of classes or images do not fit the model, or each other (in training, where
            they are in no column that can be read before), or `DeviceImages` are to be read by workers; and what
            `NoiseTrainer` refuses.
    """

    noise_kinds = (LabelFlips, HumanLabels)
    other_noise = "see hf_noise.noise for noise on labels"

    def __init__(self, model: Any, args: Any, *, channels_last: bool | None = None, **kwargs: Any):
        check_given(model, args, kwargs)
        if channels_last is not None:
            check_flag("channels_last", channels_last)
        own = kwargs.get("data_collator")
        if own is None:
            kwargs["data_collator"] = collate_images
        is_trimmed = own is not None and (args is None or args.remove_unused_columns)
        super().__init__(model, args, **kwargs)
        for rows in self._row_sets():
            check_class_names(self.class_names, rows, "the model")
            check_labels(_stored_labels(rows), self.num_classes)
            if self.image_shape is not None:
                check_images(rows, self.image_shape)
        check_same_names(list(self._row_sets()))
        # What cannot be read now is looked at batch by batch, on the CPU: no device has to wait for it.
        self.data_collator = ImageBatches(
            self.data_collator, self.num_classes, self.image_shape, _KNOWN_NAMES if is_trimmed else None
        )  # fmt: skip
        self.model_accepts_loss_kwargs = True
        self.label_names = ["labels"]
        if any(isinstance(rows, DeviceImages) for rows in self._row_sets()):
            if self.args.dataloader_num_workers:
                raise ValueError("DeviceImages are on the device already: dataloader_num_workers must be 0")
            self.args.dataloader_pin_memory = False
        self.channels_last = self.args.device.type == "cuda" if channels_last is None else channels_last
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)

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

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of the images, which then lie in [-1, 1]; None for a model that takes any."""
        return None

    def check_fit(self, inputs: Mapping[str, Tensor]) -> None:
        if self.image_shape is None:
            return
        low, high = (float(end) for end in inputs["pixel_values"].aminmax())
        if low < -_BEYOND or high > _BEYOND:
            raise ValueError(f"images must lie in [-1, 1], those of the first batch do in [{low:.3g}, {high:.3g}]; "
                             "bytes become so by x / 127.5 - 1")  # fmt: skip

    def none_of(self, noise: LabelFlips | HumanLabels) -> LabelFlips:
        return LabelFlips.symmetric(ratio=0.0, num_classes=noise.num_classes, seed=getattr(noise, "seed", 0))

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
        columns = log_columns(torch.from_numpy(check_transition(transition)))
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
            "labels and noise levels are drawn from the column `sample_id`, the stable index of each row; rows "
            f"have {', '.join(sorted(rows))} (or the data collator drops it)"
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
    if (held := held_columns(rows)) is not None:
        return held
    found = {name: column_of(rows, name) for name in ("labels", "clean_labels")} if is_table(rows) else {}
    return {name: torch.from_numpy(column.astype(np.int64)) for name, column in found.items() if column is not None}


def check_images(rows: Any, shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless images, where they are `DeviceImages`, have this shape [channels, H, W] and [-1, 1]."""
    if not isinstance(rows, DeviceImages):
        return
    _check_shape(rows.images, shape)
    low, high = ((level - rows.mean) * rows.scale for level in (0, 255))
    if not (torch.allclose(low, -torch.ones_like(low)) and torch.allclose(high, torch.ones_like(high))):
        raise ValueError(
            f"images must lie in [-1, 1], these do in [{float(low.min()):.3g}, {float(high.max()):.3g}]; make "
            "DeviceImages with a mean and a std of 0.5 for each channel"
        )


def _check_shape(images: Tensor, shape: tuple[int, int, int]) -> None:
    if tuple(images.shape[1:]) != shape:
        raise ValueError(
            f"the model takes images [channels, height, width] = {list(shape)}, the data have "
            f"{list(images.shape[1:])}; pad or convert them, or make a model for this shape"
        )


#: Columns that are used, and other names that they may have; rows may hold others, of any kind, which are left alone.
_USED = {
    "pixel_values": ("pixel_values",), "labels": ("labels", "label"), "clean_labels": ("clean_labels", "clean_label"),
    "is_noisy": ("is_noisy",), "sample_id": ("sample_id",),
}  # fmt: skip

_KNOWN_NAMES = frozenset(name for names in _USED.values() for name in names)


def collate_images(rows: Any) -> dict[str, Tensor]:
    """Rows to a batch of the columns that are used; a batch that a data set made as a whole stays as it is.

    Raises:
        ValueError: images or labels are missing, or rows cannot be one batch; the row is named.
        TypeError: rows that are no mappings of columns.
    """
    if isinstance(rows, Mapping):
        return rows
    if not isinstance(rows[0], Mapping):
        raise TypeError(f"rows must be mappings of columns, such as pixel_values, got {type(rows[0]).__name__}")
    there = {use: next((name for name in names if name in rows[0]), None) for use, names in _USED.items()}
    if missing := [use for use in ("pixel_values", "labels") if there[use] is None]:
        raise ValueError(f"rows need {' and '.join(missing)}, they have {', '.join(map(str, rows[0]))}; name the "
                         "columns so, or make them with a transform")  # fmt: skip
    # As `datasets` stores what a map has made of images.
    return {use: _stacked(name, rows) for use, name in there.items() if name is not None}


def _stacked(name: str, rows: Sequence[Mapping[str, Any]]) -> Tensor:
    values: list[Tensor] = []
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or name not in row:
            raise ValueError(f"row {i} of the batch has no column {name!r}, which row 0 has")
        value = _as_tensor(name, row[name])
        if values and (value.dtype == torch.bool) != (values[0].dtype == torch.bool):
            raise ValueError(f"row {i} of the batch: column {name!r} holds {row[name]!r:.50}, row 0 "
                             f"{rows[0][name]!r:.50}; a column is of numbers or of booleans")  # fmt: skip
        if values and value.shape != values[0].shape:
            raise ValueError(f"row {i} of the batch: column {name!r} has the shape {list(value.shape)}, row 0 has "
                             f"{list(values[0].shape)}; bring images to one size")  # fmt: skip
        values.append(value)
    return default_collate(values)


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if value is None:
        raise ValueError(f"column {name!r} holds None, which is no number; leave such rows out, or fill them in")
    array = as_array(f"column {name!r}", value)
    if array.dtype.kind not in "iufb":
        raise ValueError(f"column {name!r} must hold numbers, got {repr(value)[:50]}; text becomes a number by "
                         f"dataset.class_encode_column({name!r})")  # fmt: skip
    # Pixels that were lists are float64, which no model is; a label that is a fraction is named later.
    if array.dtype.kind == "f" and array.itemsize > 4:
        array = array.astype(np.float32 if array.ndim else np.float64)
    return torch.from_numpy(array.astype(array.dtype))


@dataclass(frozen=True)
class ImageBatches:
    """Batches of a collator whose labels lie in [0, C) and whose images fit; labels on a device were read before.

    The collator is shown the columns `shown` alone, as `remove_unused_columns` has it; all of them if that is None.
    """

    collator: Callable[[Any], Any]
    num_classes: int
    image_shape: tuple[int, int, int] | None
    shown: frozenset[str] | None = None

    def __call__(self, rows: Any) -> Any:
        made = self.collator(shown_columns(rows, self.shown, "pixel_values"))
        if not isinstance(made, Mapping):
            raise TypeError(f"data_collator must give a mapping of columns, got {type(made).__name__}")
        there = {use: next((name for name in names if name in made), None) for use, names in _USED.items()}
        batch = {use: _as_tensor(name, made[name]) for use, name in there.items() if name is not None}
        if missing := [use for use in ("pixel_values", "labels") if use not in batch]:
            raise ValueError(f"a batch needs {' and '.join(missing)}, the collator gives {', '.join(map(str, made))}")
        if self.image_shape is not None:
            _check_shape(batch["pixel_values"], self.image_shape)
        labels = {name: batch[name] for name in ("labels", "clean_labels") if name in batch}
        for name, values in labels.items():
            check_kind(name, values)
            batch[name] = values.long()
        if "sample_id" in batch:
            batch["sample_id"] = _whole("sample_id", batch["sample_id"]).long()
        check_labels({name: values for name, values in labels.items() if values.device.type == "cpu"}, self.num_classes)
        return batch


def check_kind(name: str, labels: Tensor) -> None:
    """Raise ValueError unless labels are integers [B]."""
    if labels.is_floating_point() or labels.ndim != 1 or labels.dtype == torch.bool:
        raise ValueError(
            f"{name} must be integers [B], the number of each image's class, got {labels.dtype} {list(labels.shape)}; "
            "of one-hot or mixed labels take argmax(-1), and round no fractions"
        )


def _whole(name: str, values: Any) -> Tensor:
    """Integers [B], or a ValueError."""
    if not isinstance(values, Tensor) or values.ndim != 1 or not _is_integer(values.dtype):
        told = f"{values.dtype} {list(values.shape)}" if isinstance(values, Tensor) else repr(values)[:80]
        raise ValueError(f"{name} must be one integer for each row, got {told}")
    return values


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


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
        theirs: config of a `NoisyClassifier`. Where it does not state its noise, a T that is "known" tells it. One
            without T on labels that are stated to be clean fits any noise.
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
