"""The noise that rows state, held against the rows: their mask, their labels, their rate, their ids."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Subset

from hf_noise.noise import Noise, noise_from_dict
from hf_noise.noise.arrays import IGNORE_INDEX, as_array
from hf_noise.noise.base import noise_records

__all__ = [
    "FALSE_ALARMS", "Marked", "Stated", "check_ids", "columns_of", "contradicts", "in_short", "one_rate",
    "stated_noise", "stored_ids",
]  # fmt: skip

#: A true rate is taken for a false one with this probability.
FALSE_ALARMS = 1e-6
# No rate below it can be drawn.
_SMALLEST_RATE = 2.0**-33
# So many rows and units are read before training; evenly spread, as a corpus may be sorted.
_ROWS_READ, _UNITS_READ = 100_000, 1 << 20

@dataclass(frozen=True)
class Stated:
    """What the description of a data set says: its noise, and the epoch that was drawn."""

    noise: Noise
    epoch: int
    is_clean_split: bool


def stated_noise(rows: Any) -> Stated | None:
    """The noise that the description of a data set states, which may stand behind wrappers such as PackedRows.

    Raises:
        ValueError: it states several noises, as data sets that were put together do, or one that is unknown here.
    """
    data = _described(rows)
    records = noise_records(data.info.description) if data is not None else []
    noises = [noise_from_dict({k: v for k, v in record["noise"].items() if k != "realised"}) for record in records]
    if not noises:
        return None
    if others := [noise for noise in noises if noise.to_dict() != noises[-1].to_dict()]:
        raise ValueError(
            f"the rows state several noises, {in_short(others[0])} and {in_short(noises[-1])}: data sets were put "
            'together; train on one of them, or clear the description (rows.info.description = "") and give noise= '
            "what the rows hold"
        )
    of_split = (records[-1].get("realised") or {}).get(str(getattr(data, "split", None)))
    is_clean = bool(of_split) and of_split["rate"] == 0
    return Stated(noises[-1], records[-1].get("epoch", 0), is_clean)


def _described(rows: Any) -> Any:
    """The innermost of the wrapped data sets that has an info."""
    while rows is not None:
        if getattr(rows, "info", None) is not None:
            return rows if rows.info.description else None
        rows = getattr(rows, "dataset", None)
    return None


def contradicts(noisy: int, n: int, rate: float, false_alarms: float = FALSE_ALARMS) -> bool:
    """Whether so many noisy ones among n units cannot come of this rate, but for a false alarm in a million.

    The units are independent, and their own rates may differ: then `rate` is the mean, and the binomial tail is an
    upper bound (Hoeffding, 1956).
    """
    from scipy.stats import binomtest

    if not n:
        return False
    if not _SMALLEST_RATE < rate < 1 - _SMALLEST_RATE:  # SciPy's sums overflow for the smallest numbers there are
        return noisy != round(rate) * n
    return binomtest(noisy, n, rate).pvalue < false_alarms


@dataclass(frozen=True)
class Marked:
    """Units that come with a mask: one after the other, [n] each; tokens with the lengths of their rows, [N].

    Attributes:
        labels, clean: integers [n], as trained on and as they were; -100 where there is no target.
        is_noisy: bool [n].
        sample: integers [N], ids of the rows; None where they have none.
        lengths: integers [N] of rows of tokens; None where each row is a unit.
    """

    labels: np.ndarray
    clean: np.ndarray
    is_noisy: np.ndarray
    sample: np.ndarray | None = None
    lengths: np.ndarray | None = None

    @classmethod
    def of_batch(cls, batch: Mapping[str, Any]) -> Marked | None:
        """The units of a batch with `is_noisy`; None if it cannot be told what was clean."""
        clean = batch.get("clean_labels", batch.get("input_ids"))
        if clean is None or not batch["labels"].shape == clean.shape == batch["is_noisy"].shape:
            return None
        named = {"labels": batch["labels"], "clean labels": clean, "is_noisy": batch["is_noisy"]}
        columns = [as_array(name, column) for name, column in named.items()]
        sample = as_array("sample_id", batch["sample_id"]) if "sample_id" in batch else None
        lengths = np.full(len(columns[0]), columns[0].shape[1]) if columns[0].ndim == 2 else None
        return cls._made(*(column.reshape(-1) for column in columns), sample, lengths)

    @classmethod
    def _made(cls, labels: np.ndarray, clean: np.ndarray, mask: np.ndarray, sample: Any, lengths: Any) -> Marked:
        # Where the inputs stand for clean labels, they have tokens also where there is no target.
        return cls(labels, np.where(labels == IGNORE_INDEX, labels, clean), mask.astype(bool), sample, lengths)

    @classmethod
    def of_rows(cls, rows: Any) -> Marked | None:
        """Those of stored rows, of many rows a part; None where rows have no mask, or have to be made to be read."""
        columns = _read(rows)
        if columns is None:
            return None
        labels, clean, mask, sample = columns
        if labels and np.ndim(labels[0]):
            lengths = np.array([len(row) for row in labels])
            flat = [np.concatenate([np.asarray(row) for row in column]) for column in (labels, clean, mask)]
        else:
            lengths, flat = None, [np.asarray(column) for column in (labels, clean, mask)]
        if len({part.shape for part in flat}) > 1 or flat[0].dtype.kind not in "iu" or flat[1].dtype.kind not in "iu":
            return None  # named when the labels themselves are looked at
        return cls._made(*flat, None if sample is None else np.asarray(sample), lengths)

    @property
    def is_unit(self) -> np.ndarray:
        """Where there is a target: bool [n]."""
        return self.labels != IGNORE_INDEX

    def counts(self) -> tuple[int, int]:
        """Number of noisy units, and of all."""
        return int((self.is_noisy & self.is_unit).sum()), int(self.is_unit.sum())

    def mismatch(self, noise: Noise | None) -> str | None:
        """What is wrong between mask and labels, in words; None if nothing is.

        Where the mask says no, a label is the clean one; where it says yes it is another one, or under token noise,
        which may draw the token that was there, another one but for one time in V.
        """
        same = self.labels == self.clean
        kept, moved = self.is_unit & ~self.is_noisy, self.is_unit & self.is_noisy
        if wrong := int((kept & ~same).sum()):
            return f"{wrong} of {int(kept.sum())} units that is_noisy calls clean are not what they were"
        stayed, n = int((moved & same).sum()), int(moved.sum())
        if not stayed:
            return None
        may_stay = 0.0
        if self.lengths is not None:
            size = getattr(noise, "vocab_size", None)
            if size is None and stayed < n:
                return None
            may_stay = 0.0 if size is None or getattr(noise, "exclude_original", False) else 1 / size
        if may_stay == 0 or (stayed > n * may_stay and contradicts(stayed, n, may_stay)):
            return f"{stayed} of {n} units that is_noisy calls noisy are what they were"
        return None

    def is_drawn(self, noise: Noise, epoch: int) -> bool | None:
        """Whether these are the labels that the noise draws in this epoch; None if that cannot be known."""
        if self.sample is None or not callable(noise):
            return None
        try:
            if self.lengths is None:
                drawn, _ = noise(self.clean, self.sample, epoch)
            else:
                drawn, _ = noise.flat(self.clean, self.lengths, self.sample, epoch)
        except ValueError:  # labels out of its range
            return False
        return bool((drawn == self.labels).all())

    def expected_rate(self, noise: Noise) -> float:
        """Share of the units that this noise marks: by the class where it depends on that."""
        by_class = getattr(noise, "error_rates", None)
        if by_class is None:
            return noise.error_rate
        known = self.clean[self.is_unit]
        fits = known.size and known.min() >= 0 and known.max() < len(by_class)
        return float(by_class[known].mean()) if fits else noise.error_rate

    def against(self, noise: Noise, epoch: int | None) -> str | None:
        """Why these units do not have this noise, in words, None if they may.

        Args:
            epoch: whose draws the labels have to be, None where only their rate is stated.
        """
        if found := self.mismatch(noise):
            return found
        noisy, n = self.counts()
        rate = self.expected_rate(noise)
        if contradicts(noisy, n, rate):
            return f"is_noisy marks {noisy} of {n} units, {noisy / n:.2%}, where the noise makes {rate:.2%} so"
        if epoch is not None and self.is_drawn(noise, epoch) is False:
            return "their labels are not those that it draws for their ids"
        return None


def in_short(noise: Noise) -> str:
    """A noise in a message, such as "LabelFlips (symmetric), e = 0.333"."""
    kind = getattr(noise, "kind", getattr(noise, "name", None))
    return f"{type(noise).__name__}{f' ({kind})' if kind else ''}, e = {noise.error_rate:.3g}"


def one_rate(noise: Noise) -> float | None:
    """The share of units that a noise marks if it is the same for all, None where it depends on the class."""
    by_class = getattr(noise, "error_rates", None)
    if by_class is None:
        return noise.error_rate
    return float(by_class[0]) if np.ptp(by_class) < 1e-9 else None


def columns_of(rows: Any) -> Sequence[str]:
    """Names of the columns that rows have, as far as they can be told without making one."""
    if hasattr(rows, "columns"):
        return list(rows.columns)
    if isinstance(rows, list | tuple):
        return list(rows[0]) if rows and isinstance(rows[0], Mapping) else []
    return getattr(rows, "column_names", None) or []


def check_ids(sample: np.ndarray, drawn: str | None) -> None:
    """Refuse ids that repeat where something is drawn from them, else warn.

    Args:
        sample: integers [N].
        drawn: what is, in words; None for nothing.

    Raises:
        ValueError: they do, and rows of one id would share it.
    """
    n, different = len(sample), len(np.unique(sample))
    if n == different:
        return
    told = f"{n} rows have {different} different sample ids"
    if drawn is not None:
        raise ValueError(
            f"{told}, and {drawn} belong to an id, so that rows would share them; give each row an id of its own, such "
            "as its number, or rename a column sample_id that means something else"
        )
    warnings.warn(f"{told}: rows with the same id have the same noise, if they are not the same row", stacklevel=4)


def stored_ids(rows: Any) -> np.ndarray | None:
    """The column `sample_id` of stored rows, None where there is none or reading it would make rows."""
    if hasattr(rows, "columns"):
        return as_array("sample_id", rows.columns["sample_id"]) if "sample_id" in rows.columns else None
    data = getattr(rows, "dataset", rows)
    if isinstance(rows, Subset) or not _is_table(data) or "sample_id" not in data.column_names:
        return None
    column = np.asarray(data.with_format("numpy", columns=["sample_id"])["sample_id"][:])
    return column if column.dtype.kind in "iu" else None


def _is_table(rows: Any) -> bool:
    """Whether rows are a `datasets.Dataset` whose columns come as they are stored."""
    layout = getattr(rows, "format", None)  # a stream has none, and no column to read
    return isinstance(layout, Mapping) and layout["type"] != "custom"  # a transform may make others of a column


def _read(rows: Any) -> list[Sequence[Any] | None] | None:
    """Labels, clean labels, mask and ids of some of the rows; None if they have no mask."""
    if hasattr(rows, "columns"):
        names = ("labels", "clean_labels", "is_noisy", "sample_id")
        found = [rows.columns.get(name) for name in names]
        if any(column is None for column in found[:3]):
            return None
        return [None if column is None else list(as_array(name, column)) for name, column in zip(names, found)]
    if isinstance(rows, list | tuple):
        return _of_list(rows)
    return _of_table(rows) if _is_table(rows) else None


def _of_list(rows: Sequence[Any]) -> list[Sequence[Any] | None] | None:
    if not rows or not isinstance(rows[0], Mapping) or "is_noisy" not in rows[0]:
        return None
    named = _names(rows[0])
    if named is None:
        return None
    part = [rows[i] for i in _some(len(rows), np.size(rows[0]["is_noisy"]))]
    return [None if name is None else [as_array(name, row[name]) for row in part] for name in named]


def _of_table(rows: Any) -> list[Sequence[Any] | None] | None:
    named = _names(rows.column_names)
    if named is None or not len(rows):
        return None
    table = rows.with_format("numpy", columns=[name for name in named if name is not None])
    part = table.select(_some(len(rows), np.size(table[0]["is_noisy"])))
    return [None if name is None else list(part[name][:]) for name in named]


def _names(there: Any) -> tuple[str | None, ...] | None:
    """Columns of labels, clean labels, mask and ids among those that are there."""
    label = next((name for name in ("labels", "label") if name in there), None)
    if label is None or "is_noisy" not in there:
        return None
    clean = next((name for name in (f"clean_{label}", "clean_labels", "input_ids") if name in there), None)
    return None if clean is None else (label, clean, "is_noisy", "sample_id" if "sample_id" in there else None)


def _some(n: int, units: int) -> np.ndarray:
    """Numbers of rows to read, evenly spread."""
    wanted = min(n, _ROWS_READ, max(1, _UNITS_READ // max(1, units)))
    return np.unique(np.linspace(0, n - 1, wanted).round().astype(np.int64))

