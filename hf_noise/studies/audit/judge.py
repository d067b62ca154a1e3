"""Rows that trained models are measured on: none of them is a copy of one that was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_noise.data.held_rows import HeldRows
from hf_noise.data.reading import CorpusError
from hf_noise.studies.audit.data import AuditData
from hf_noise.studies.audit.evidence import contents_of, way_of
from hf_noise.studies.audit.study import Settings

__all__ = ["Judge", "judge_of"]

#: Share of the rows that is held out to measure on where there are no test rows.
_HELD = 0.2


@dataclass(frozen=True, eq=False)
class Judge:
    """The rows that are measured on.

    Attributes:
        labels: int64 [M].
        rows: int64 [M], their places in the test rows; in the audited ones where these are held out.
        held: bool [N], audited rows that nothing is trained on: those measured on, and copies of them; none with test
            rows.
        is_clean: whether the labels are right, as far as anyone knows.
        is_audited: whether the audit that is followed has seen these rows.
        words: what they are.
    """

    labels: np.ndarray
    rows: np.ndarray
    held: np.ndarray
    is_clean: bool
    is_audited: bool
    words: str


def judge_of(settings: Settings, data: AuditData) -> Judge:
    """Test rows where a user has them, else some of the audited rows, with true labels where these are known.

    Raises CorpusError: test rows are the audited ones, or there are too few rows to hold any out.
    """
    return _held_out(settings, data) if data.test is None else _by_test(settings, data)


def _by_test(settings: Settings, data: AuditData) -> Judge:
    there, labels = set(contents_of(settings, data)), data.test.labels
    is_copy = np.array([one in there for one in contents_of(settings, data, data.test)])
    if is_copy.all():
        raise CorpusError(
            f"--test_source {settings.test_source}: all {len(labels):,} rows are copies of rows under audit, by what "
            "they hold; a model is measured on rows that it was not trained on: name others, or leave it out"
        )
    is_known = labels >= 0
    rows = np.flatnonzero(~is_copy & is_known)
    if not len(rows):
        raise CorpusError(f"--test_source {settings.test_source}: no row is of a class that a given label has, but for "
                          f"{is_copy.sum():,} copies of rows under audit; name others, or leave it out")  # fmt: skip
    words = f"{len(rows):,} test rows with clean labels"
    if is_copy.any():
        words += f"; {is_copy.sum():,} others are copies of audited rows and left out"
    if unknown := int((~is_known & ~is_copy).sum()):
        words += (f"; {unknown:,} others are of classes that no given label has, and left out: a model of these labels "
                  "is wrong on each of them")  # fmt: skip
    return Judge(labels[rows], rows, np.zeros(len(data.rows), dtype=bool), True, False, words)


def _held_out(settings: Settings, data: AuditData) -> Judge:
    """A fifth of the rows, by the number of the first one of each content: copies stand on one side."""
    first: dict[bytes, int] = {}
    of = [first.setdefault(one, row) for row, one in enumerate(contents_of(settings, data))]
    held = HeldRows(test=_HELD).rows("test", data.chosen[of])
    is_known = np.ones(len(held), dtype=bool) if data.clean is None else data.clean >= 0
    rows = np.flatnonzero(held & is_known)
    if not len(rows) or held.all():
        raise CorpusError(f"--train: {held.sum()} of {len(held)} rows, {len(first)} of them distinct, are held out to "
                          "measure on; give --test_source, or more rows")  # fmt: skip
    # Each class has to be in two folds of the rows that are left, which are audited by themselves.
    counts = np.bincount(data.rows.labels[~held], minlength=len(data.classes))
    is_audited = way_of(settings, data) == "network" or counts.min() < 2
    if data.clean is None:
        words = f"{len(rows):,} held-out rows with labels as given, some of them wrong: no clean ones are known"
    else:
        words = f"{len(rows):,} held-out rows with their true labels"
        if left := int((held & ~is_known).sum()):
            words += f"; {left:,} others are of classes that no given label has, and left out"
    words += "; list and T that are followed are " + (
        "of an audit that has seen these rows too, which may flatter them" if is_audited else
        "of an audit of the other rows alone"
    )  # fmt: skip
    return Judge(data.rows.labels[rows] if data.clean is None else data.clean[rows], rows, held,
                 data.clean is not None, is_audited, words)  # fmt: skip
