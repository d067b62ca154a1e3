"""An audit of a user's own labels: how many are wrong, which classes are taken for which, and which rows to look at."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.atomic import replaced_whole, write_atomic
from hf_noise.audit.choose import ChosenEstimate, choose_estimate
from hf_noise.audit.given import as_given, read_given
from hf_noise.audit.lists import default_list, list_at_fdr
from hf_noise.audit.measured import Measured
from hf_noise.audit.model_features import model_features
from hf_noise.audit.out_of_fold import out_of_fold
from hf_noise.audit.powered import Verified, combine_verified
from hf_noise.audit.recalibrate import tilted
from hf_noise.audit.sample_file import check_free, filled_sheet, keep_sample, kept_sample
from hf_noise.audit.sampling import draw_sample
from hf_noise.audit.saved import keep_values, kept_rows, kept_values
from hf_noise.audit.sheet import fingerprint, read_sheet, write_sheet
from hf_noise.audit.told import short_of, summary_of, warnings_after
from hf_noise.noise.arrays import real_numbers
from hf_noise.noise.checks import check_seed

if TYPE_CHECKING:
    from hf_noise.analysis.advice import BatchAdvice
    from hf_noise.audit.plan import Plan

__all__ = ["LabelAudit", "audit_labels"]

#: Of `save`: everything but the rows of the data.
_ARRAYS = "audit.safetensors"


@dataclass(frozen=True, eq=False)
class LabelAudit:
    """What labels and a classifier say of each other, and what verified rows make of it.

    Attributes:
        error_rate: share of wrong labels with its interval, and on which assumption it stands.
        transition, transition_low, transition_high: T[i, j] = p(given = j | true = i), float64 [C, C], with intervals.
        prior: p(true = i), float64 [C].
        p_wrong: probability that each label is wrong, float64 [N].
        suggested: likeliest class of each row, int64 [N].
        posterior: p(true = c) of each row, float64 [N, C].
        labels: the given ones, int64 [N] in [0, C).
        class_names: C texts.
        warnings: what a user should know, in words; empty if nothing.
        estimate: what was estimated before a row was verified.
        verified_by: what verified rows say; None where none was.
        column: of the labels in the data set; None of an array.
    """

    error_rate: Measured
    transition: np.ndarray = field(repr=False)
    transition_low: np.ndarray = field(repr=False)
    transition_high: np.ndarray = field(repr=False)
    prior: np.ndarray = field(repr=False)
    p_wrong: np.ndarray = field(repr=False)
    suggested: np.ndarray = field(repr=False)
    posterior: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    class_names: tuple[str, ...]
    warnings: tuple[str, ...]
    estimate: ChosenEstimate = field(repr=False)
    verified_by: Verified | None = field(default=None, repr=False)
    seed: int = 0
    column: str | None = None
    _data: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def flagged(self, fdr: float | None = None) -> np.ndarray:
        """Rows to look at, bool [N].

        Args:
            fdr: the longest list whose expected share of false alarms is at most this, in [0, 1]; None for the list
                whose expected F1 is largest.

        Raises TypeError or ValueError: it is no such share.
        """
        return default_list(self.p_wrong) if fdr is None else list_at_fdr(self.p_wrong, fdr)

    def rows(self) -> Any:
        """The data set with the columns `p_wrong` (float) and `suggested`, of the same kind as the labels.

        Of a column of words it holds words, of integers and booleans such, of a ClassLabel a ClassLabel, so that it can
        be compared with the labels and put in their place. Without a data set (labels were given as an array) the rows
        are `label`, `p_wrong` and `suggested`, as ClassLabel.

        Raises ValueError: it has a column of one of these names.
        """
        from datasets import Dataset, Features, Value

        suggested = as_given(self.suggested, self.class_names, self._data, self.column)
        ours = {"p_wrong": (self.p_wrong, Value("float64")), "suggested": suggested}
        if self._data is None:
            columns = {"label": (self.labels, suggested[1])} | ours
            features = Features({name: of for name, (_, of) in columns.items()})
            return Dataset.from_dict({name: values for name, (values, _) in columns.items()}, features=features)
        if taken := sorted({*ours} & {*self._data.column_names}):
            raise ValueError(f"the data set has a column {taken[0]!r} already; rename it before the audit")
        made = self._data
        for name, (values, of) in ours.items():
            made = made.add_column(name, values, feature=of)
        return made

    def to_verify(
        self, n: int, folder: str | os.PathLike, *, text_column: str | None = None, image_column: str | None = None,
        seed: int | None = None, blind: bool = True,
    ) -> Path:  # fmt: skip
        """Draw n rows, more of them where the audit is in doubt, and write `to_verify.csv` and `to_verify.html`.

        Args:
            n: rows, in [2, N].
            folder: of both files, made if it is not there.
            text_column, image_column: of the data set, what a person sees of a row; by default the first that holds
                texts or images.
            seed: of the draw; by default the audit's.
            blind: show what a row is labelled as, and what is suggested, only once it was answered. Who sees a label
                first tends to agree with it, so that the rate comes out too low; False is quicker, for checking rows
                rather than for an estimate.

        How the rows were drawn is written beside them (`sample.parquet`), so that what was filled in keeps its meaning
        whatever later audits say of these rows.

        Returns:
            The page's path. Fill in either file; the page saves a CSV, which belongs into the same folder.

        Raises:
            FileExistsError: the folder holds a sheet in which something is filled in, or one of other rows, which
                somebody may be filling in; an open one of the same rows is written again.
            TypeError, ValueError: as `draw_sample` and `write_sheet`; there is no such column, or this audit was
                verified already.
        """
        if self.verified_by is not None:
            raise ValueError("this audit was verified already; draw further rows from the audit before, whose sample "
                             "they have to be a part of: give it a larger n")  # fmt: skip
        sample = draw_sample(self.p_wrong, n, given=self.labels, seed=self.seed if seed is None else seed)
        check_free(folder, sample, fingerprint(sample, self.labels, self.class_names))
        text, image = self._shown(text_column, image_column)
        rows = sample.rows.tolist()
        taken = {} if text is image is None else self._data.with_format(None).select(rows)
        _, page = write_sheet(
            folder, sample, given=self.labels, suggested=self.suggested, class_names=self.class_names,
            texts=None if text is None else [str(one) for one in taken[text]],
            images=None if image is None else list(taken[image]), blind=blind,
        )  # fmt: skip
        keep_sample(sample, folder)
        return page

    def verified(self, path: str | os.PathLike, *, confidence: float | None = None) -> LabelAudit:
        """This audit with what a person found in the rows of `to_verify`.

        The interval of the rate then rests on the draw, whatever the classifier is worth (`combine_verified`); p_wrong
        and the lists are corrected, T and the prior are estimated anew.

        Args:
            path: of the filled CSV, or its folder, in which one CSV is filled in; `sample.parquet` of `to_verify` lies
                beside it.
            confidence: of the intervals, in (0, 1); by default the audit's.

        Raises:
            FileNotFoundError: there is no such file, or none that says how the rows were drawn.
            TypeError, ValueError: as `read_sheet` and `combine_verified`; several sheets of a folder are filled in.
        """
        first = self if self.verified_by is None else _from(self.estimate, self.labels, self.class_names, self.seed,
                                                            self._data, self.column)  # fmt: skip
        path = filled_sheet(path)
        sample = kept_sample(path, len(self))
        labels = read_sheet(path, sample, given=self.labels, class_names=self.class_names)
        found = combine_verified(
            sample, labels, given=self.labels, p_wrong=first.p_wrong, posterior=first.posterior,
            confidence=first.error_rate.confidence if confidence is None else confidence,
        )  # fmt: skip
        posterior = tilted(first.posterior, self.labels, found.p_wrong)
        is_known = labels >= 0
        posterior[sample.rows[is_known]] = np.eye(len(self.class_names))[labels[is_known]]
        return replace(
            first, error_rate=found.error_rate, transition=found.transition, transition_low=found.transition_low,
            transition_high=found.transition_high, prior=found.prior, p_wrong=found.p_wrong, posterior=posterior,
            suggested=posterior.argmax(axis=1), warnings=warnings_after(first, found), verified_by=found,
        )  # fmt: skip

    def plan(
        self, features: Any, *, budget: int = 0, test: tuple[Any, Any] | None = None,
        batch: BatchAdvice | None = None, seed: int = 0, confidence: float | None = None, probe_rows: int = 10_000,
        progress: bool = True,
    ) -> Plan:  # fmt: skip
        """What to expect of each way to train on these labels, see `hf_noise.audit.plan.make_plan`, which takes the
        same and raises the same."""
        from hf_noise.audit.plan import make_plan

        return make_plan(self, features, budget=budget, test=test, batch=batch, seed=seed, confidence=confidence,
                         probe_rows=probe_rows, progress=progress)  # fmt: skip

    def summary(self, most: int = 5) -> str:
        """The rate, what it stands on, the most frequent confusions and how many rows are listed, as text."""
        return summary_of(self, most)

    def __repr__(self) -> str:
        return short_of(self)

    def to_dict(self) -> dict[str, Any]:
        """All but what is said of single rows, as JSON holds it."""
        arrays = ("transition", "transition_low", "transition_high", "prior")
        rate = self.error_rate
        return {
            "rows": len(self), "class_names": list(self.class_names), "seed": self.seed,
            "error_rate": {"value": rate.value, "low": rate.low, "high": rate.high, "confidence": rate.confidence,
                           "how": rate.how},
            **{name: getattr(self, name).tolist() for name in arrays},
            "flagged": int(self.flagged().sum()), "warnings": list(self.warnings),
            "verified": None if self.verified_by is None else self.verified_by.answered,
        }  # fmt: skip

    def save(self, folder: str | os.PathLike) -> Path:
        """Write into a folder, which is returned, all that `load` reads.

        `audit.json` is for people (`to_dict`), `rows.parquet` has the rows (`rows`), `audit.safetensors` the arrays.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_whole(folder / "rows.parquet") as file:
            self.rows().to_parquet(file)
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "_data"}
        keep_values(values | {"has_data": self._data is not None}, folder / _ARRAYS)
        write_atomic(folder / "audit.json", json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike) -> LabelAudit:
        """The audit that `save` wrote: what it said, and rows to verify can be drawn and read as before.

        Raises:
            FileNotFoundError: the folder holds no audit.
            ValueError: a file is not what `save` wrote, or the rows are of another audit.
        """
        values = kept_values(Path(folder) / _ARRAYS)
        try:
            has_data, audit = values.pop("has_data"), cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder} does not hold what LabelAudit.save wrote ({error})") from error
        return replace(audit, _data=kept_rows(Path(folder), audit.p_wrong)) if has_data else audit

    def _shown(self, text: str | None, image: str | None) -> tuple[str | None, str | None]:
        """The columns that a person is shown."""
        if self._data is None:
            if text or image:
                raise ValueError("labels were given as an array, so that there is no column to show; audit a data set")
            return None, None
        from datasets import Image, Value

        features = self._data.features
        for name in (text, image):
            if name is not None and name not in features:
                raise ValueError(f"there is no column {name!r}, only {', '.join(features)}")
        if text is None and image is None:
            image = next((name for name, of in features.items() if isinstance(of, Image)), None)
            texts = (name for name, of in features.items() if isinstance(of, Value) and "string" in of.dtype)
            text = next(texts, None) if image is None else None
        return text, image


def audit_labels(
    data: Any, *, column: str | None = None, probabilities: Any = None, model: str | os.PathLike | None = None,
    features: Any = None, verified: Any = None, class_names: Sequence[str] | None = None, seed: int = 0,
    confidence: float = 0.95,
) -> LabelAudit:  # fmt: skip
    """Audit given labels by a classifier that has not seen them.

    Args:
        data: labels, integers [N] in [0, C); or a `datasets.Dataset` with a column of them: a ClassLabel, integers,
            booleans or words.
        column: of the labels in a data set.
        probabilities: p(label = j | row) out of fold, real numbers [N, C]: no row may be judged by a model that was
            trained on it. Columns are in the order of the classes: of a ClassLabel its own, of words `class_names`, or
            the alphabet's without.
        model: in their place a frozen network, a folder, a Hub id or a name of timm's, that makes features of the
            images or texts of the data set, see `model_features`.
        features: in their place real numbers [N, D], of which `out_of_fold` makes them.
        verified: a CSV of `LabelAudit.to_verify` that was filled in, or its folder.
        class_names: C texts, none empty or "unsure", all different by more than spaces; by default those of the column,
            to which the same applies, else the numbers. Of words they are the order of the classes; a ClassLabel has
            its own, and no others may be given.
        seed: of folds, and of rows to verify, in [0, 2^63).
        confidence: of the intervals, in (0, 1).

    Raises:
        TypeError: an argument is of another kind.
        ValueError: not one of probabilities, model and features is given, or several are; lengths, ranges or sums are
            wrong; a model has no column to look at, or several.
        OSError: there is no such model.

    >>> rng = np.random.default_rng(0)
    >>> true = rng.integers(0, 2, 400)
    >>> p = np.where(true[:, None] == [0, 1], 0.97, 0.03)
    >>> audit = audit_labels(np.where(np.arange(400) < 40, 1 - true, true), probabilities=p)
    >>> int(audit.flagged().sum())
    40
    """
    labels, names, rows = read_given(data, column, class_names)
    seed = check_seed(seed)
    if sum(way is not None for way in (probabilities, model, features)) != 1:
        raise ValueError("give out-of-fold probabilities [N, C], or features [N, D] or a model to make them of, and "
                         "not two of them")  # fmt: skip
    if model is not None:
        features = model_features(model, rows, column)
    if probabilities is None:
        probabilities = out_of_fold(features, labels, seed=seed)
    shape = real_numbers("probabilities", probabilities).shape
    if names is not None and len(shape) == 2 and shape[1] != len(names):
        raise ValueError(f"class_names are {len(names)}, and there are {shape[1]} columns of probabilities; give one "
                         f"column for each of {', '.join(names[:10])}")  # fmt: skip
    found = choose_estimate(labels, probabilities, confidence=confidence, class_names=names)
    names = tuple(map(str, range(shape[1]))) if names is None else names
    audit = _from(found, labels, names, seed, rows, column)
    return audit if verified is None else audit.verified(verified, confidence=confidence)


def _from(
    found: ChosenEstimate, labels: np.ndarray, names: tuple[str, ...], seed: int, rows: Any, column: str | None
) -> LabelAudit:
    assert found.chosen.posterior is not None  # what is chosen among has one
    return LabelAudit(
        error_rate=found.error_rate, transition=found.transition, transition_low=found.transition_low,
        transition_high=found.transition_high, prior=found.prior, p_wrong=found.p_wrong, suggested=found.suggested,
        posterior=found.chosen.posterior, labels=labels, class_names=names, warnings=found.warnings, estimate=found,
        seed=seed, column=column, _data=rows,
    )  # fmt: skip
