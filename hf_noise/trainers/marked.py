"""Units that come with a mask, held against a noise: mask and labels, the rate, which label became which, the draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_noise.noise import Noise
from hf_noise.noise.arrays import IGNORE_INDEX, as_array
from hf_noise.noise.transition import ClassConditional

__all__ = ["FALSE_ALARMS", "Marked", "as_mask", "contradicts", "differing_rows"]

#: A true rate is taken for a false one with this probability.
FALSE_ALARMS = 1e-6
# No rate below it can be drawn.
_SMALLEST_RATE = 2.0**-33


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


def whole_rows(targets: np.ndarray, marked: np.ndarray) -> tuple[int, int]:
    """Rows of noise, and all rows: a document's tokens are noisy together, so that a row is one piece of evidence.

    Args:
        targets, marked: integers [N], how many targets each row has and how many of them are marked. Parts of rows
            count together, to the nearest row.
    """
    has_targets = targets > 0
    shares = marked[has_targets] / targets[has_targets]
    noisy = float(shares.sum())
    return round(noisy) or int(noisy > 0), int(has_targets.sum())


def differing_rows(labels: Any, clean: Any) -> np.ndarray:
    """Whether a row of targets [B, L] is another one than that beside it [B, C], -100 for none: bool [B]."""
    ours, theirs = as_array("labels", labels), as_array("clean labels", clean)
    length = max(ours.shape[1], theirs.shape[1])
    filled = np.full((2, len(ours), length), IGNORE_INDEX)
    filled[0, :, : ours.shape[1]], filled[1, :, : theirs.shape[1]] = ours, theirs
    return (filled[0] != filled[1]).any(1)


def as_mask(values: Any) -> np.ndarray:
    """A mask as booleans, or a ValueError unless it holds booleans, or integers 0 and 1."""
    mask = as_array("is_noisy", values)
    if mask.dtype != bool and not (mask.dtype.kind in "iu" and (not mask.size or 0 <= mask.min() <= mask.max() <= 1)):
        first = mask.reshape(-1).tolist()[0] if mask.size else values
        raise ValueError(f"is_noisy must hold True and False, or 0 and 1, got {mask.dtype} such as {first!r:.50}")
    return mask.astype(bool, copy=False)


@dataclass(frozen=True)
class Marked:
    """Units that come with a mask: one after the other, [n] each; tokens with the lengths of their rows, [N].

    Attributes:
        labels, clean: integers [n], as trained on and as they were; -100 where there is no target.
        is_noisy: bool [n].
        sample: integers [N], ids of the rows; None where they have none.
        lengths: integers [N] of rows of tokens; None where each row is a unit.
        of_sequences: a unit is the whole target of a row: its label is 1 where that is another one than the clean one.
    """

    labels: np.ndarray
    clean: np.ndarray
    is_noisy: np.ndarray
    sample: np.ndarray | None = None
    lengths: np.ndarray | None = None
    of_sequences: bool = False

    @classmethod
    def of_batch(cls, batch: Mapping[str, Any]) -> Marked | None:
        """The units of a batch with `is_noisy`; None if it cannot be told what was clean."""
        if batch["is_noisy"].ndim == 1 and batch["labels"].ndim == 2:
            return cls._of_pairs(batch)
        clean = batch.get("clean_labels", batch.get("input_ids"))
        if clean is None or not batch["labels"].shape == clean.shape == batch["is_noisy"].shape:
            return None
        named = {"labels": batch["labels"], "clean labels": clean}
        columns = [as_array(name, column) for name, column in named.items()] + [as_mask(batch["is_noisy"])]
        sample = as_array("sample_id", batch["sample_id"]) if "sample_id" in batch else None
        lengths = np.full(len(columns[0]), columns[0].shape[1]) if columns[0].ndim == 2 else None
        return cls.made(*(column.reshape(-1) for column in columns), sample, lengths)

    @classmethod
    def _of_pairs(cls, batch: Mapping[str, Any]) -> Marked:
        mask = as_mask(batch["is_noisy"])
        is_other = differing_rows(batch["labels"], batch["clean_labels"]) if "clean_labels" in batch else mask
        return cls.whole(is_other, mask, as_array("sample_id", batch["sample_id"]) if "sample_id" in batch else None)

    @classmethod
    def made(cls, labels: np.ndarray, clean: np.ndarray, mask: np.ndarray, sample: Any, lengths: Any) -> Marked:
        """Of flat columns. Where inputs stand for clean labels, they have tokens also where there is no target."""
        return cls(labels, np.where(labels == IGNORE_INDEX, labels, clean), mask, sample, lengths)

    @classmethod
    def whole(cls, is_other: np.ndarray, mask: np.ndarray, sample: np.ndarray | None) -> Marked:
        """Of rows whose targets are clean or noisy as a whole: bool [N] each, and the ids of the rows."""
        return cls(is_other.astype(np.int64), np.zeros(len(mask), dtype=np.int64), mask, sample, None, True)

    @classmethod
    def joined(cls, parts: Sequence[Marked]) -> Marked | None:
        """Units of several data sets together; None where some are of tokens, others of whole rows."""
        if len({(part.lengths is None, part.of_sequences) for part in parts}) > 1:
            return None
        columns = [[getattr(part, name) for part in parts] for name in ("labels", "clean", "is_noisy")]
        samples, lengths = [part.sample for part in parts], [part.lengths for part in parts]
        ids = None if any(part is None for part in samples) else np.concatenate(samples)
        lengths = None if lengths[0] is None else np.concatenate(lengths)
        return cls(*map(np.concatenate, columns), ids, lengths, parts[0].of_sequences)

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
        which may draw the token that was there, another one but for a share `stay_rate`. A document of noise takes
        the place of nothing that could be compared.
        """
        same = self.labels == self.clean
        kept, moved = self.is_unit & ~self.is_noisy, self.is_unit & self.is_noisy
        if wrong := int((kept & ~same).sum()):
            return f"{wrong} of {int(kept.sum())} units that is_noisy calls clean are not what they were"
        if self.of_sequences or (noise is not None and noise.unit == "sequences"):
            return self._wrong_sequences(noise)
        size = None if noise is None or noise.unit == "labels" else noise.vocab_size
        if size is not None and (beyond := int((moved & (self.labels >= size)).sum())):
            return f"{beyond} of {int(moved.sum())} noisy units are {size} or more, which the noise never draws"
        if noise is not None and noise.unit == "documents":
            return self._torn_document(noise)
        stayed, n = int((moved & same).sum()), int(moved.sum())
        if not stayed:
            return None
        may_stay = 0.0
        if self.lengths is not None:
            if size is None and stayed < n:
                return None
            may_stay = 0.0 if size is None else noise.stay_rate
        if may_stay == 0 or (stayed > n * may_stay and contradicts(stayed, n, may_stay)):
            return f"{stayed} of {n} units that is_noisy calls noisy are what they were"
        return None

    def _wrong_sequences(self, noise: Noise | None) -> str | None:
        """What marks that are right about clean rows still get wrong; a teacher may write what was there."""
        if noise is None or noise.error_rate == 0 and not self.is_noisy.any():
            return None
        if noise.unit != "sequences":
            return f"is_noisy marks whole rows, and the noise falls on {noise.unit}, one by one"
        if not self.of_sequences:
            return "is_noisy marks tokens, and the noise falls on whole rows; give it as one bool a row"
        if self.sample is None:
            return None
        try:
            wrong = int((noise.is_noisy(self.sample) != self.is_noisy).sum())
        except ValueError as error:
            return str(error)
        n = len(self.is_noisy)
        return f"is_noisy of {wrong} of {n} rows is not what the noise has for their ids" if wrong else None

    def _documents(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each row, the number of its targets and of those that are marked: integers [N]."""
        row = np.repeat(np.arange(len(self.lengths)), self.lengths)
        of_row = {"minlength": len(self.lengths)}
        return np.bincount(row[self.is_unit], **of_row), np.bincount(row[self.is_unit & self.is_noisy], **of_row)

    def _torn_document(self, noise: Noise) -> str | None:
        """A row that is replaced is noise as a whole; documents among others may end anywhere in one."""
        if self.lengths is None:
            return "the rows hold single labels, and the noise falls on documents of tokens"
        if not noise.is_drawn:
            return None
        targets, marked = self._documents()
        torn = int(((marked > 0) & (marked < targets)).sum())
        return f"{torn} of {len(targets)} rows are noisy in part, where a row is replaced as a whole" if torn else None

    def is_drawn(self, noise: Noise, epoch: int) -> bool | None:
        """Whether these are the labels that the noise draws in this epoch; None if that cannot be known."""
        rows = self.labels if self.lengths is None else self.lengths
        if self.sample is None or len(self.sample) != len(rows):
            return None
        if noise.unit == "documents":
            return self._holds_documents(noise)
        if self.of_sequences or not noise.is_drawn:
            return None
        if self._has_drawn(noise, epoch):
            return True
        # Positions count from the first token, before which a collator may have padded.
        return self.lengths is not None and self.labels.size > 0 and self._begun()._has_drawn(noise, epoch)

    def _holds_documents(self, noise: Noise) -> bool:
        """Whether what is marked of each row is what the noise draws there for its id."""
        targets, marked = self._documents()
        noisy, starts = marked > 0, np.cumsum(self.lengths) - self.lengths
        for length in np.unique(self.lengths[noisy]).tolist():
            rows = np.flatnonzero(noisy & (self.lengths == length))
            places = starts[rows, None] + np.arange(length)
            is_other = self.labels[places] != noise.rows(self.sample[rows], length)
            if (is_other & self.is_noisy[places] & self.is_unit[places]).any():
                return False
        return not noise.is_drawn or bool((noise.replaced(self.sample) == noisy)[targets > 0].all())

    def _has_drawn(self, noise: Noise, epoch: int) -> bool:
        try:
            if self.lengths is None:
                drawn, _ = noise(self.clean, self.sample, epoch)
            else:
                drawn, _ = noise.flat(self.clean, self.lengths, self.sample, epoch)
        except ValueError:  # labels out of its range
            return False
        return bool((drawn == self.labels).all())

    def _begun(self) -> Marked:
        """The same rows without what stands before the first target of each."""
        row, units = np.repeat(np.arange(len(self.lengths)), self.lengths), np.cumsum(self.is_unit)
        before = np.append(0, units)[np.cumsum(self.lengths) - self.lengths]
        kept = units > before[row]
        return self._part(kept, np.bincount(row[kept], minlength=len(self.lengths)), self.sample)

    def expected_rate(self, noise: Noise) -> float:
        """Share of the units that this noise marks: by the class where it depends on that."""
        by_class = noise.error_rates
        if by_class is None:
            return noise.error_rate
        known = self.clean[self.is_unit]
        fits = known.size and known.min() >= 0 and known.max() < len(by_class)
        return float(by_class[known].mean()) if fits else noise.error_rate

    def against(self, noise: Noise, epoch: int | None, of_all: bool = True) -> str | None:
        """Why these units do not have this noise, in words, None if they may.

        Args:
            of_all: whether they stand for all rows; else those of one stretch, in which noise that is not spread has
                any rate.
            epoch: whose draws the labels have to be, None where only their rates are stated.
        """
        if found := self.mismatch(noise):
            return found
        # A stretch of pairs may hold those of one length, and a teacher's targets have lengths of their own.
        if (of_all or noise.is_spread and not self.of_sequences) and (found := self.once()._wrong_rate(noise)):
            return found
        if epoch is not None and self.is_drawn(noise, epoch) is False:
            return "their labels are not those that it draws for their ids"
        return None

    def once(self) -> Marked:
        """One row of each id: rows that come again, as in oversampled data, are no further evidence of a rate."""
        if self.sample is None or len(self.sample) != len(self.labels if self.lengths is None else self.lengths):
            return self
        kept = np.zeros(len(self.sample), dtype=bool)
        kept[np.unique(self.sample, return_index=True)[1]] = True
        if kept.all():
            return self
        lengths = None if self.lengths is None else self.lengths[kept]
        return self._part(kept if lengths is None else np.repeat(kept, self.lengths), lengths, self.sample[kept])

    def _part(self, units: np.ndarray, lengths: np.ndarray | None, sample: np.ndarray | None) -> Marked:
        flat = (self.labels[units], self.clean[units], self.is_noisy[units])
        return Marked(*flat, sample, lengths, self.of_sequences)

    def _wrong_rate(self, noise: Noise) -> str | None:
        what = "units"
        if noise.unit == "documents":
            what, (noisy, n) = "rows", whole_rows(*self._documents())
        else:
            noisy, n = self.counts()
        what = "rows" if self.of_sequences else what
        rate, exact = self.expected_rate(noise), getattr(noise, "num_rows", None)
        if self.of_sequences and n == exact and noisy != round(rate * n):
            return f"is_noisy marks {noisy} of {n} rows, where the noise marks {round(rate * n)} of so many exactly"
        if contradicts(noisy, n, rate, FALSE_ALARMS / 2):
            return f"is_noisy marks {noisy} of {n} {what}, {noisy / n:.2%}, where the noise makes {rate:.2%} so"
        return self._wrong_pair(noise) if noise.unit == "labels" and self.lengths is None else None

    def _wrong_pair(self, noise: ClassConditional) -> str | None:
        """A clean class that became a label more or less often than the noise can make it, in words.

        The pairs share half a false alarm in a million. Labels of people are no draws: of these no pair is possible
        that was never counted, and more is not said.
        """
        from scipy.stats import binom

        size = noise.num_classes
        clean, labels = self.clean[self.is_unit].astype(np.int64), self.labels[self.is_unit].astype(np.int64)
        if not clean.size or min(clean.min(), labels.min()) < 0 or max(clean.max(), labels.max()) >= size:
            return None  # named with the labels themselves
        classes, counts = np.unique(clean, return_counts=True)
        # Pairs that are there, and the right label of each class also where it is not.
        pairs, found = np.unique(np.append(clean * size + labels, classes * (size + 1)), return_counts=True)
        i, j = np.divmod(pairs, size)
        found, n, p = found - (i == j), counts[np.searchsorted(classes, i)], noise.probability(i, j)
        wrong = (p < _SMALLEST_RATE) & (found > 0)
        if noise.is_drawn:
            tail = np.where(found <= n * p, binom.cdf(found, n, p), binom.sf(found - 1, n, p))
            # Shared by all that could be there; which are is up to chance.
            wrong |= 2 * tail < FALSE_ALARMS / 2 / (len(classes) * size)
        if not wrong.any():
            return None
        k = int(np.argmin(np.where(wrong, p, 2.0)))  # what cannot be at all says most
        return (
            f"{found[k]} of {n[k]} units of class {i[k]} have the label {j[k]}, {found[k] / n[k]:.2%}, where the noise "
            f"makes {p[k]:.2%} so"
        )
