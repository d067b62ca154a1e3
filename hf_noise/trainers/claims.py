"""What a run says of the noise in its rows, held against the rows, the first batch and the steps that were made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import has_length

from hf_noise.noise import Noise
from hf_noise.noise.arrays import IGNORE_INDEX, as_array
from hf_noise.trainers.documents import CountedDocuments
from hf_noise.trainers.marked import FALSE_ALARMS, Marked, contradicts, differing_rows
from hf_noise.trainers.parts import columns_of
from hf_noise.trainers.stated import Stated, check_ids, in_short, one_rate
from hf_noise.trainers.stored import different_rows, hides_mask, is_same_row, marked_rows, stored_ids

__all__ = ["Claims"]

_DROPPED = (
    "the rows have a column is_noisy that does not reach the trainer: the data collator drops it, and labels that are "
    "noisy already would be corrupted again; leave data_collator= out"
)
_HIDDEN = (
    "the rows have a column is_noisy that their format hides, with_format(columns=...), and labels that are noisy "
    "already would be corrupted again; name is_noisy and clean_* there too, or remove_columns('is_noisy') if they are "
    "clean"
)
_REWRITTEN = (
    "the rows were changed after they were corrupted, or a data collator makes other labels of them; leave "
    "data_collator= out, or drop is_noisy and clean_labels if the labels are meant"
)
_REMEDY = (
    "the rows were filtered, put together, taken from another split or rewritten since; build them anew, give noise= "
    'what they hold, or clear their description (rows.info.description = "") and drop is_noisy and clean_* to train on '
    "the labels as they are"
)


class Claims:
    """The noise of a run, agreed on by the trainer's argument, the description of the rows, and the rows themselves.

    Args:
        rows: to train on, None for none.
        given: the noise that the trainer was told.
        always_drawn: what is drawn from sample ids whether or not there is noise, in words.
        stated: what the description of the rows says, see `stated_noise`.

    Attributes:
        noise: what to record, and to draw unless the rows bring it.
        draws_over_clean_columns: the rows are clean, so that noise is drawn though they have the columns of noise.
        documents: counts the documents of noise in rows that cannot be read before; None where there are none such.

    Raises:
        ValueError: they contradict each other, or ids repeat that are to be drawn from.
    """

    def __init__(self, rows: Any, given: Noise | None, always_drawn: str | None = None, *, stated: Stated | None):
        self.columns, self.always_drawn = columns_of(rows), always_drawn
        is_clean = stated is not None and stated.is_clean_split
        self.stated = replace(stated, noise=stated.noise.without_noise()) if is_clean else stated
        parts, comes_again = different_rows(rows)
        marked = marked_rows(rows, parts)
        self.noise, self.draws_over_clean_columns = decide(given, self.stated, marked)
        if self.draws_over_clean_columns and not self._can_be_drawn:
            raise ValueError(_carried(self.noise))
        self._one_rate = None if self.noise is None else one_rate(self.noise)
        self._looks = 0
        if self._is_given and self.noise.error_rate > 0 and not self.draws_over_clean_columns and hides_mask(rows):
            raise ValueError(_HIDDEN)
        # A stream may repeat without an end and without a word: it is told by the first of its rows.
        self.is_stream, self._first, self._has_repeated = not has_length(rows), None, None
        repeats = self._check_ids(stored_ids(rows), "is_noisy" in self.columns, partial(is_same_row, rows))
        if repeats or comes_again:
            self._one_rate = None  # rows that come again are no further evidence
        is_of_documents = self.noise is not None and self.noise.unit == "documents" and self.noise.error_rate > 0
        self.documents = None
        if is_of_documents and marked is None and not (repeats or comes_again):
            self.documents = CountedDocuments(self.noise, is_stream=self.is_stream)

    @property
    def _is_given(self) -> bool:
        """Whether the noise is that of the trainer's argument."""
        return self.noise is not None and not self._is_of_rows

    @property
    def _can_be_drawn(self) -> bool:
        return self.noise is None or self.noise.error_rate == 0 or self.noise.draws_targets

    @property
    def _is_of_rows(self) -> bool:
        """Whether the noise is that of the description."""
        return self.stated is not None and self.noise is self.stated.noise

    def check_batch(self, inputs: Mapping[str, Any]) -> None:
        """Hold a training batch against what is known; called for the first one, as a GPU has to be waited for.

        Raises:
            ValueError: mask and labels disagree, the noise was taken off on the way, or ids repeat that are drawn from.
        """
        masked = "is_noisy" in inputs
        if not masked and "is_noisy" in self.columns:
            raise ValueError(_DROPPED)
        if masked:
            self._check_mask(inputs)
            self._check_inputs(inputs)
        else:
            if not self._can_be_drawn:
                raise ValueError(_carried(self.noise))
            self._check_clean_beside(inputs)
            if self._is_of_rows and self.noise.error_rate > 0:
                self._check_unmasked(inputs)
        ids = inputs.get("sample_id")
        self._check_ids(None if ids is None else as_array("sample_id", ids), masked, partial(_is_same_in, inputs))

    def count(self, inputs: Mapping[str, Any]) -> None:
        """Count the documents of a training batch of the first epoch, before `watch` sees it."""
        if self.documents is not None:
            sample, is_new = inputs.get("sample_id"), None
            if sample is not None and self._first is not None:
                is_new = ~(self._has_repeated | (sample == self._first).cumsum(0).bool())
            self.documents.add(inputs, is_new)

    def watch(self, sample: Tensor | None) -> None:
        """Look, without waiting for a device, whether a stream begins again: ids int64 [B] of a training batch."""
        if sample is None:
            return
        if self._first is None:
            self._first, self._has_repeated = sample[:1].clone(), torch.zeros((), dtype=bool, device=sample.device)
        else:
            self._has_repeated |= (sample == self._first).any()

    def check_realised(self, found: Mapping[str, float | int]) -> None:
        """Hold the rate `{"rate", "n"}` of the first epoch's steps so far against the stated one.

        Rows of one class may have another rate than those of the next; then nothing is said here. All looks together
        share one false alarm in a million.

        Raises:
            ValueError: it cannot be that rate.
        """
        if self._one_rate is None or self._has_repeated is not None and bool(self._has_repeated):
            return
        self._looks += 1
        noisy, n = round(found["rate"] * found["n"]), found["n"]
        if self.is_stream:  # its first row may come again late in the second pass
            noisy, n = noisy // 2, n // 2
        if contradicts(noisy, n, self._one_rate, FALSE_ALARMS / (self._looks * (self._looks + 1))):
            raise ValueError(
                f"{noisy} of {n} units of the first steps were noisy, {found['rate']:.2%}, where "
                f"{in_short(self.noise)} makes {self._one_rate:.2%} so; look at the rows and at what batches them"
            )

    def _check_mask(self, inputs: Mapping[str, Any]) -> None:
        marked = Marked.of_batch(inputs)
        if marked is None:
            names = ("labels", "clean_labels", "is_noisy")
            shapes = {name: list(inputs[name].shape) for name in names if name in inputs}
            raise ValueError(f"rows with is_noisy need labels and clean_labels of the same shape, got {shapes}; a "
                             "column of another name is no clean_labels: rename it")  # fmt: skip
        if self.draws_over_clean_columns:
            found = "the mask says that some are noisy" if marked.counts()[0] else marked.mismatch(None)
        elif self.noise is None:
            found = marked.mismatch(None)
        else:
            epoch = self.stated.epoch if self._is_of_rows else _epoch_of(self.noise)
            found = marked.against(self.noise, epoch, of_all=False)
        if found:
            raise ValueError(f"in the first batch, {found}: {_REWRITTEN}")

    def _check_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Tokens beside what they were: here noise falls on targets, and a model reads clean text."""
        if self.noise is not None and "input_ids" in self.noise.noisy_columns:
            self._check_same_document(inputs)
            return
        tokens, clean = inputs.get("input_ids"), inputs.get("clean_labels")
        if tokens is not None and clean is not None and tokens.shape == clean.shape:
            apart = int(((tokens != clean) & (clean != IGNORE_INDEX)).sum())
            if apart:
                raise ValueError(
                    f"{apart} of {tokens.numel()} input_ids are not what clean_labels say: the inputs were corrupted. "
                    'This noise falls on targets alone; corrupt a column "labels" that is a copy of input_ids'
                )

    def _check_same_document(self, inputs: Mapping[str, Any]) -> None:
        """A document of noise is noise as context and as target."""
        tokens, labels = inputs.get("input_ids"), inputs["labels"]
        if tokens is not None and tokens.shape == labels.shape:
            apart = int(((tokens != labels) & (labels != IGNORE_INDEX)).sum())
            if apart:
                raise ValueError(f"{apart} of {tokens.numel()} labels are not the input_ids beside them, and "
                                 f"{in_short(self.noise)} falls on both alike: {_REWRITTEN}")  # fmt: skip

    def _check_unmasked(self, inputs: Mapping[str, Any]) -> None:
        """Rows whose description states noise and that come without a mask: only clean ones can be corrupted here."""
        labels, tokens = inputs["labels"], inputs.get("input_ids")
        same = tokens is not None and tokens.shape == labels.shape
        if not (same and bool(((labels == tokens) | (labels == IGNORE_INDEX)).all())):
            raise ValueError(
                f"the labels carry {in_short(self.noise)} already, and the rows have no is_noisy that says where, so "
                "that it would be drawn a second time; keep the columns is_noisy and clean_*, or clear the description "
                '(rows.info.description = "") to train on the labels as they are'
            )

    def _check_clean_beside(self, inputs: Mapping[str, Any]) -> None:
        """Rows with labels beside what they were, and no mask: noisy ones would be taken for clean ones."""
        labels, clean = inputs["labels"], inputs.get("clean_labels")
        if clean is None:
            return
        if clean.shape == labels.shape:
            apart = int(((labels != clean) & (labels != IGNORE_INDEX)).sum())
        else:
            apart = int((labels != IGNORE_INDEX)[differing_rows(labels, clean)].sum()) if labels.ndim == 2 else 0
        if apart:
            raise ValueError(_unmarked(apart, labels.numel()))

    def _check_ids(self, sample: Any, masked: bool, is_same: Callable[[int, int], bool]) -> bool:
        if sample is None:
            return False
        draws = self.noise is not None and self.noise.error_rate > 0 and (not masked or self.draws_over_clean_columns)
        return check_ids(sample, self.always_drawn or ("wrong labels" if draws else None), is_same)


def _is_same_in(inputs: Mapping[str, Any], i: int, j: int) -> bool:
    """Whether two rows of a batch with one id may be one row; pixels may be augmented, and are not compared."""
    names = [name for name in ("input_ids", "clean_labels", "labels") if name in inputs]
    return all(bool((inputs[name][i] == inputs[name][j]).all()) for name in names)


def _carried(noise: Noise) -> str:
    remedy = "build them with it, load_dataset(..., protocol=, alpha=) or hf_noise.corrupt(rows, noise)"
    if noise.unit != "documents" and not noise.is_drawn:
        remedy = noise.if_not_drawn
    return (
        f"{type(noise).__name__} cannot be drawn by a trainer: rows bring it, and need the column is_noisy that says "
        f"where it is; {remedy}"
    )


def _unmarked(apart: int, n: int) -> str:
    return (
        f"{apart} of {n} labels are not what clean_labels say, and the rows have no is_noisy, so that they would count "
        "as clean; add the column is_noisy = (labels != clean_labels), or drop clean_labels to train on the labels as "
        "they are"
    )


def _epoch_of(noise: Noise) -> int | None:
    """The epoch whose draws rows hold if they hold a noise that is drawn once; None if that is not said."""
    return 0 if noise.is_drawn and noise.redraw == "never" else None


def decide(given: Noise | None, stated: Stated | None, marked: Marked | None) -> tuple[Noise | None, bool]:
    """The noise to record, and whether the rows are clean so that it is drawn over them though they have a mask.

    Args:
        given: what the trainer was told.
        stated: what the description says.
        marked: what the rows hold, None if they have no mask or cannot be read now.

    Raises:
        ValueError: the rows contradict what is said of them, or description and argument contradict each other.
    """
    in_rows = None if stated is None else stated.noise
    is_clean = in_rows is not None and in_rows.error_rate == 0
    if marked is None:
        return _agreed(given, in_rows), is_clean and given is not None
    if is_clean and not marked.counts()[0] and marked.mismatch(None) is None:
        return given or in_rows, given is not None
    why = None if in_rows is None else marked.against(in_rows, stated.epoch)
    if in_rows is not None and why is None:
        return _agreed(given, in_rows), False
    if given is None and in_rows is None:
        if found := marked.mismatch(None):
            raise ValueError(f"{found}; {_REMEDY}")
        return None, False
    if given is not None:
        found = marked.against(given, _epoch_of(given))
        if found is None:
            return _as_stored(given, marked), False
        why = why or found
    raise ValueError(f"the rows are said to carry {in_short(in_rows or given)}, and {why}: {_REMEDY}")


def _agreed(given: Noise | None, in_rows: Noise | None) -> Noise | None:
    """The noise to record: that of the rows, unless they are clean or do not tell; then the given one."""
    if given is None or in_rows is None or in_rows.error_rate == 0:
        return in_rows if given is None else given
    settings = [{**noise.to_dict(), "redraw": None, "ratio": None} for noise in (given, in_rows)]
    if settings[0] != settings[1]:
        raise ValueError(f"the rows were built with {in_rows}, and the trainer is given {given}; leave noise= out")
    return in_rows


def _as_stored(noise: Noise, marked: Marked) -> Noise:
    """The noise as it lies in the rows: if it is that of epoch 0, it is drawn never again."""
    may_be = noise.error_rate > 0 and noise.redraw == "epoch"
    return replace(noise, redraw="never") if may_be and marked.is_drawn(noise, 0) else noise
