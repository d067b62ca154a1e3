"""Which labels are wrong, from how a classifier learned them: an audit without cross-validation.

A wrong label is learned late, if at all, and against what the others teach. `DynamicsCallback` records that while a
model is trained; here are the scores that people have made of it, as functions on arrays [epochs, N]. Each is "higher =
more likely wrong" in [0, 1], NaN where a sample was never seen. They rank: none is a calibrated probability, and none
tells how many labels are wrong.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.metrics.checks import as_array, check_path, real_numbers
from hf_noise.trainers.dynamics_files import check_whole, first_copies, parts_in, read_part

__all__ = [
    "TrainingDynamics", "aum_score", "area_under_margin", "forgetting_events", "forgetting_score", "mean_loss",
    "read_dynamics", "small_loss_score",
]  # fmt: skip

_SHOWN = 8


@dataclass(frozen=True)
class TrainingDynamics:
    """What a training run made of each sample's label in each epoch, see `read_dynamics`.

    Attributes:
        sample_ids: int64 [N].
        epochs: int64 [E], their numbers from 0; the last one may have been seen in part.
        labels: int32 [E, N], labels as they were trained on; -1 where a sample was not seen.
        loss: float32 [E, N], -log p(given) in nats, in the pass that the sample was trained in; NaN where not seen.
        margin: float32 [E, N], logit of the given label minus the largest other; NaN where not seen.
        p_given: float32 [E, N], probability of the given label; NaN where not seen.
    """

    sample_ids: np.ndarray
    epochs: np.ndarray
    labels: np.ndarray
    loss: np.ndarray
    margin: np.ndarray
    p_given: np.ndarray

    @property
    def never_seen(self) -> np.ndarray:
        """Ids of samples that no epoch has, int64 [k]; their scores are NaN."""
        return self.sample_ids[(self.labels < 0).all(0)]

    @property
    def given(self) -> np.ndarray:
        """The label of each sample, int32 [N], -1 where never seen.

        Raises ValueError: labels changed between epochs, so that there is no one to score.
        """
        given = self.labels.max(0, initial=-1)
        if (changed := ((self.labels >= 0) & (self.labels != given)).any(0)).any():
            told = ", ".join(map(str, self.sample_ids[changed][:_SHOWN]))
            raise ValueError(f"labels of {int(changed.sum())} samples changed between epochs (sample_id {told}"
                             f"{', ...' if changed.sum() > _SHOWN else ''}): noise was drawn anew in each, and none of "
                             "them is the given one; train on labels that stay, or score one epoch")  # fmt: skip
        return given

    def scores(self, epochs: Sequence[int] | slice | None = None) -> dict[str, np.ndarray]:
        """`aum`, `forgetting` and `small_loss` of each sample, float64 [N] each in the order of `sample_ids`.

        Args:
            epochs: places in `epochs` to look at, all for None; such as `slice(5)` for those before labels are
                memorised. Forgetting looks at them one after the other.

        Raises ValueError: labels changed between these epochs, or there are no such epochs.
        """
        chosen = _chosen("this record", len(self.epochs), epochs)
        one = TrainingDynamics(self.sample_ids, self.epochs[chosen], self.labels[chosen], self.loss[chosen],
                               self.margin[chosen], self.p_given[chosen])  # fmt: skip
        _ = one.given
        return {"aum": aum_score(one.margin), "forgetting": forgetting_score(one.margin),
                "small_loss": small_loss_score(one.loss)}  # fmt: skip


def read_dynamics(folder: str | os.PathLike, sample_ids: Any = None) -> TrainingDynamics:
    """Read the folder of a `hf_noise.trainers.DynamicsCallback`.

    A sample that several processes were given twice, to fill the last batch of an epoch, counts once: as it was first
    seen.

    Args:
        folder: of one run, which may be still training.
        sample_ids: int [N], which samples to read and in which order; None for all that were seen, by their ids. Those
            that no epoch has come as NaN, see `TrainingDynamics.never_seen`.

    Raises:
        FileNotFoundError: there is no such folder, or no record in it.
        ValueError: a file is damaged or missing, sample ids repeat in an epoch or among `sample_ids`, or the record
            holds ids that are not asked for (another run's, or other rows).
    """
    folder = check_path("folder", folder)
    parts = parts_in(folder) if folder.is_dir() else []
    if not parts:
        raise FileNotFoundError(f"{folder} holds no training dynamics; give the folder of a DynamicsCallback, whose "
                                "run has ended an epoch or saved a checkpoint")  # fmt: skip
    check_whole(folder, parts)
    numbers = sorted({part.epoch for part in parts})
    read = [_epoch(folder, [part for part in parts if part.epoch == number]) for number in numbers]
    seen = np.unique(np.concatenate([one["sample_id"] for one in read]))
    ids = seen if sample_ids is None else _asked(sample_ids, seen, folder)
    order = np.argsort(ids)
    shape = len(numbers), len(ids)
    table = {name: np.full(shape, np.nan, dtype=np.float32) for name in ("loss", "margin", "p_given")}
    table["label"] = np.full(shape, -1, dtype=np.int32)
    for row, columns in enumerate(read):
        place = order[np.searchsorted(ids, columns["sample_id"], sorter=order)]
        for name, values in table.items():
            values[row, place] = columns[name]
    return TrainingDynamics(ids, np.array(numbers, dtype=np.int64), table.pop("label"), **table)


def _epoch(folder: Path, parts: list) -> dict[str, np.ndarray]:
    """The columns of an epoch, each sample once."""
    read = [read_part(folder, part) for part in parts]
    columns = {name: np.concatenate([one[name] for one in read]) for name in read[0]}
    most = max(part.processes for part in parts)
    kept = first_copies(columns["sample_id"], columns["step"], epoch=parts[0].epoch, processes=most)
    return {name: values[kept] for name, values in columns.items()}


def _asked(sample_ids: Any, seen: np.ndarray, folder: Path) -> np.ndarray:
    """The ids that are asked for, int64 [N]."""
    ids = as_array("sample_ids", sample_ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"sample_ids must be integers [N], got {ids.dtype} {list(ids.shape)}")
    if len(ids) and ids.max() > np.iinfo(np.int64).max:
        raise ValueError(f"sample_ids must be below 2^63, got {ids.max()}")
    ids = ids.astype(np.int64)
    if len(np.unique(ids)) < len(ids):
        raise ValueError(f"sample_ids repeat: {len(ids) - len(np.unique(ids))} of {len(ids)} are there before; ask for "
                         "each once")  # fmt: skip
    if len(other := np.setdiff1d(seen, ids)):
        raise ValueError(f"{folder} holds {len(other)} samples that sample_ids lacks (the first is {other[0]}): it is "
                         "the record of other rows; give the ids of all rows that were trained on")  # fmt: skip
    return ids


# ---- scores


def area_under_margin(margin: Any, epochs: Sequence[int] | slice | None = None) -> np.ndarray:
    """AUM: the mean margin of each sample over the epochs that it was seen in, float64 [N], in logits; low = wrong.

    Args:
        margin: float [epochs, N], logit of the given label minus the largest other; NaN where not seen.
        epochs: which rows to average, None for all. The paper stops before the first drop of the learning rate.

    Returns:
        float64 [N], NaN for samples that were never seen.

    Raises ValueError or TypeError: this is no array of numbers [epochs, N], or has no such epochs.

    Source: Pleiss et al. (2020), "Identifying mislabeled data using the area under the margin ranking", section 3.
    """
    return _mean("margin", _epochs_by_samples("margin", margin), epochs)


def aum_score(margin: Any, epochs: Sequence[int] | slice | None = None) -> np.ndarray:
    """1 / (1 + exp(AUM)), in [0, 1]: above 1/2 where another class had the larger logit on average; [N].

    Arguments, errors and source are those of `area_under_margin`.
    """
    from scipy.special import expit

    return expit(-area_under_margin(margin, epochs))


def forgetting_events(margin: Any, epochs: Sequence[int] | slice | None = None) -> np.ndarray:
    """How often a sample was forgotten: its label was predicted in one epoch and not in the next; float64 [N].

    A sample whose label was never predicted counts as infinitely often forgotten, as in the paper. Epochs that did not
    see a sample are passed over. Predicted means a margin above 0: a tie is none.

    Arguments and errors are those of `area_under_margin`; NaN for samples that were never seen.

    Source: Toneva et al. (2019), "An empirical study of example forgetting during deep neural network learning",
        section 3 and algorithm 1.
    """
    values = _epochs_by_samples("margin", margin)
    values = values[_chosen("margin", len(values), epochs)]
    events, was, ever = np.zeros(values.shape[1]), *np.zeros((2, values.shape[1]), dtype=bool)
    for of_epoch in values:
        seen, predicted = ~np.isnan(of_epoch), of_epoch > 0
        events += seen & was & ~predicted
        was, ever = np.where(seen, predicted, was), ever | predicted
    return np.where(np.isnan(values).all(0), np.nan, np.where(ever, events, np.inf))


def forgetting_score(margin: Any, epochs: Sequence[int] | slice | None = None) -> np.ndarray:
    """f / (1 + f) of f forgetting events, in [0, 1]; 1 where the label was never predicted; [N].

    Many samples share a value, so it ranks coarsely. Arguments, errors and source are those of `forgetting_events`.
    """
    events = forgetting_events(margin, epochs)
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(events), 1.0, events / (1 + events))


def mean_loss(loss: Any, epochs: Sequence[int] | slice | None = None) -> np.ndarray:
    """The mean loss of each sample over chosen epochs, float64 [N], in nats; high = wrong.

    Args:
        loss: float [epochs, N], -log p(given) >= 0; NaN where not seen.
        epochs: which rows to average, None for all; early ones before labels are memorised.

    Returns:
        float64 [N], NaN for samples that were never seen.

    Raises ValueError or TypeError: this is no array of losses [epochs, N], or has no such epochs.

    Source: small losses are of right labels: Arpit et al. (2017), Han et al. (2018); their mean over epochs is that of
        Huang et al. (2019), "O2U-Net", section 3.2.
    """
    values = _epochs_by_samples("loss", loss)
    if (values < 0).any():
        raise ValueError(f"loss must be >= 0, -log p(given) in nats, got {values[values < 0].min():.6g}")
    return _mean("loss", values, epochs)


def small_loss_score(loss: Any, epochs: Sequence[int] | slice | None = None) -> np.ndarray:
    """1 - exp(-mean loss), in [0, 1]: 1 minus the geometric mean of p(given) over chosen epochs; [N].

    Arguments, errors and source are those of `mean_loss`.
    """
    return -np.expm1(-mean_loss(loss, epochs))


def _epochs_by_samples(name: str, values: Any) -> np.ndarray:
    values = real_numbers(name, values)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"{name} must be [epochs, N] with at least one epoch, got {list(values.shape)}")
    return values


def _chosen(name: str, n: int, epochs: Sequence[int] | slice | None) -> np.ndarray:
    """Places int64 [m] of chosen epochs among the n of an array."""
    if epochs is None:
        return np.arange(n)
    if isinstance(epochs, slice):
        try:
            places = np.arange(n)[epochs]
        except (TypeError, ValueError) as error:
            raise ValueError(f"epochs = {epochs!r} cuts nothing out of the {n} of {name}: {error}") from error
    else:
        places = as_array("epochs", epochs)
        if places.ndim != 1 or places.size and places.dtype.kind not in "iu":
            raise TypeError(f"epochs must be a slice, or integers in [0, {n}), got {epochs!r:.80}")
    if not places.size or places.min() < 0 or places.max() >= n:
        raise ValueError(f"epochs must name at least one of the {n} of {name}, counted from 0, got {epochs!r:.80}")
    if len(np.unique(places)) < len(places):
        raise ValueError(f"epochs must name each once, got {epochs!r:.80}")
    return places.astype(np.int64)


def _mean(name: str, values: np.ndarray, epochs: Sequence[int] | slice | None) -> np.ndarray:
    """Mean over chosen epochs, of each sample over those that saw it."""
    values = values[_chosen(name, len(values), epochs)]
    seen = ~np.isnan(values)
    count = seen.sum(0)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs, and where none was seen
        return np.where(seen, values, 0).sum(0) / np.where(count, count, np.nan)
