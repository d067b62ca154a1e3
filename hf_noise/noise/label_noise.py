"""What noise on labels shares that is drawn from the class alone: its two forms of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hf_noise.noise import labels_numpy
from hf_noise.noise.arrays import check_batch, integers, is_tensor
from hf_noise.noise.base import Noise, Unit
from hf_noise.noise.transition import ClassConditional

__all__ = ["LabelNoise", "is_past_chance"]

_SAME_RATE = 1e-9


class LabelNoise(ClassConditional, Noise):
    """Base of `LabelFlips`: calls on labels, arrays or tensors, and on batches of columns."""

    unit: ClassVar[Unit] = "labels"

    kind: str

    @property
    def variant(self) -> str:
        return self.kind

    def on_device(self, labels: Any, sample: Any, epoch: int = 0, *, compiled: bool = False) -> Any:
        from hf_noise.noise import labels_torch

        return labels_torch.flip(self, labels, sample, epoch, compiled)  # type: ignore[arg-type]

    def __call__(self, labels: Any, sample: Any, epoch: int = 0) -> Any:
        """Corrupt labels.

        Args:
            labels: integers of any shape [...], NumPy array or torch tensor on any device, values in [0, C) or -100
                (ignored, left as they are). Or a batch of columns (a mapping), as `datasets.map` passes it.
            sample: integers [...], the stable index of each label's sample; row numbers in the form for `datasets.map`.
            epoch: which epoch's noise to draw, in [0, 2^63) (no effect with `redraw="never"`).

        Returns:
            `(noisy, is_noisy)`: same shape, type, dtype and device as `labels`, and booleans that mark the labels that
            are wrong now. For a mapping: the new columns, see `columns`.

        Raises:
            ValueError: shapes differ, or labels are outside [0, C): their number and the first index (not checked on a
                GPU, where looking would make the device wait).
            TypeError: labels, samples or the epoch are not integers.
        """
        if isinstance(labels, Mapping):
            return self.columns(labels, sample, epoch)
        if is_tensor(labels):
            return self.on_device(labels, sample, epoch)
        return labels_numpy.flip(self, labels, sample, epoch)  # type: ignore[arg-type]

    def columns(self, batch: Mapping[str, Any], indices: Any, epoch: int = 0) -> dict[str, Any]:
        """The form for `datasets.map(noise, batched=True, with_indices=True)`.

        Args:
            batch: columns with `label` or `labels`, one integer per row.
            indices: row numbers, used as sample ids unless the batch has a column `sample_id`.

        Returns:
            The columns `label` (noisy), `clean_label`, `is_noisy` and `sample_id`; `labels` and `clean_labels` if that
            is the column's name.
        """
        check_batch(batch)
        name = "label" if "label" in batch else "labels"
        if name not in batch:
            raise ValueError(f"there is no column 'label' or 'labels' to corrupt, only: {', '.join(map(str, batch))}")
        clean = integers(name, batch[name])
        if clean.ndim != 1:
            raise ValueError(f"column {name!r} must hold one integer per row; pass whole batches, batched=True")
        sample = integers("sample_id", batch.get("sample_id", indices))
        noisy, is_noisy = self(clean, sample, epoch)
        return {name: noisy, f"clean_{name}": clean, "is_noisy": is_noisy, "sample_id": sample}


def is_past_chance(noise: Any, allowed: bool) -> bool:
    """Whether the error rate of a kind of `LabelFlips` is past (C - 1)/C; ValueError if it is and is not allowed."""
    limit = (noise.num_classes - 1) / noise.num_classes
    if noise.error_rate <= limit + _SAME_RATE:
        return False
    if not allowed:
        why = {
            "symmetric": "the true class would be the least likely label",
            "uniform_resample": "a larger share of labels would be redrawn than chance gets wrong",
        }.get(noise.kind, "the label would name the wrong class almost always")
        raise ValueError(
            f"error_rate {noise.error_rate:.6g} (ratio {noise.ratio:.6g}) is past (C - 1)/C = {limit:.6g} for "
            f"{noise.num_classes} classes: {why}; give a ratio up to C - 1 = {noise.num_classes - 1}, or "
            "allow_adversarial=True if it is meant"
        )
    return True
