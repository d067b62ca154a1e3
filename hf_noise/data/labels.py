"""What the builders of noisy labels share: protocols by name, the labels people gave, checks of the clean column."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, IterableDataset, Value

from hf_noise.data.builder import NoisyDataBuilder, NoisyDataConfig
from hf_noise.data.columns import check_same_classes
from hf_noise.data.reading import CorpusError, check_column, with_features
from hf_noise.data.settings import check_flags, check_pairs
from hf_noise.data.sources import Source, find_splits, source_identity
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.noise.base import Unit

__all__ = [
    "SHARD_BYTES",
    "UNLABELLED",
    "NoisyLabelsBuilder",
    "NoisyLabelsConfig",
    "check_labels",
    "class_names",
    "one_column",
]

#: Of local files. Nothing is dropped at the end of a shard, so that it may be large, and sample ids of what fits into
#: one shard (CIFAR, MNIST) are the row numbers.
SHARD_BYTES = 64 << 20

#: How `datasets` marks a row that has no label.
UNLABELLED = -1

_HUMAN = "human:"


@dataclass
class NoisyLabelsConfig(NoisyDataConfig):
    """Settings of noisy labels.

    Args:
        source: as for every noisy data set, or `{split: source}`.
        protocol: "symmetric" (any other class, paper A), "uniform_resample" (any class, the true one too), "cyclic"
            (the next class), "pairs" (similar classes, paper C), see `LabelFlips`; or "human:<name>", the labels that
            people gave, from the column `human_<name>` of the train split. Their rate is what it is, so `r` and
            `error_rate` are left out, and `seed` and `epoch` have no effect.
        pairs: {class: the class it is mistaken for}, for "pairs"; by default paper C's map where there is one.
        human_source: where the column `human_<name>` stands beside the true labels (column `clean_label` or that of the
            source) if not in the source: the same rows in the same order, which the true labels have to prove.
        allow_adversarial: accept a rate at which the true class is the least likely label, see `LabelFlips.symmetric`.
        allow_missing_classes: accept a split without any row of some class.
    """

    UNITS: ClassVar[str] = "labels"
    NOISE_UNITS: ClassVar[tuple[Unit, ...]] = ("labels",)
    DEFAULT_PROTOCOL: ClassVar[str | None] = "symmetric"
    OTHER_PROTOCOLS: ClassVar[str] = "human:<name> for the labels in a column human_<name>"
    SETTINGS: ClassVar[Mapping[str, str]] = {
        **NoisyDataConfig.SETTINGS, "mapping": "pairs", "num_classes": "num_classes",
        "allow_adversarial": "allow_adversarial",
    }  # fmt: skip
    #: Paper C's wrong classes for this data set.
    PAIRS: ClassVar[Mapping[int, int] | None] = None

    source: str | Mapping[str, str] | None = None
    protocol: str | None = "symmetric"
    pairs: Mapping[int, int] | None = None
    human_source: str | None = None
    allow_adversarial: bool = False
    allow_missing_classes: bool = False

    @property
    def human(self) -> str | None:
        """The name of the labels that people gave; None if the noise is drawn."""
        before, _, name = (self.protocol or "").partition(_HUMAN)
        return name or None if not before else None

    @property
    def ratio(self) -> float | None:
        return super().ratio if self.human is None else None

    def check_protocol(self) -> None:
        if self.human is None:
            super().check_protocol()
        elif self.protocol_kwargs:
            raise TypeError(f"protocol={self.protocol!r} takes the labels that people gave, and no protocol_kwargs")

    def check(self) -> None:
        super().check()
        check_flags(self, "allow_adversarial", "allow_missing_classes")
        if self.pairs is not None:
            if self.protocol != "pairs":
                raise ValueError(f'pairs= belongs to protocol="pairs", got protocol={self.protocol!r}')
            self.pairs = check_pairs(self.pairs)  # a read-only view, as label_maps has, would not reach other processes
        if self.protocol == "pairs" and not (self.pairs or self.PAIRS):
            raise ValueError(
                'no map of similar classes is known for these data; give pairs={class: partner, ...} beside '
                'protocol="pairs", or choose another protocol'
            )
        if self.human_source is not None and self.human is None:
            raise ValueError(f'human_source= belongs to protocol="human:<name>", got protocol={self.protocol!r}')
        if self.human is not None and (extra := self.extra_noisy_splits - {"train"}):
            raise ValueError(
                f"protocol={self.protocol!r} is known for the train split alone; leave {', '.join(sorted(extra))} out "
                "of noisy_splits"
            )

    def check_rate(self) -> None:
        if self.human is None:
            return super().check_rate()
        if self.r is not None or self.error_rate is not None:
            given = f"r={self.r!r}" if self.r is not None else f"error_rate={self.error_rate!r}"
            by_name = f" (the configuration {self.name!r} brings it)" if self.name != "default" else ""
            raise ValueError(
                f"protocol={self.protocol!r} takes the labels that people gave, at the rate that they have; leave out "
                f"{given}{by_name}"
            )
        return None

    def identity(self) -> dict[str, Any]:
        changed = super().identity()
        if self.protocol == "symmetric":
            changed.pop("protocol", None)  # in whichever way the default is spelt
        if self.pairs is not None:
            changed["pairs"] = sorted((int(source), int(target)) for source, target in self.pairs.items())
        if self.human is not None:
            for without_effect in ("seed", "epoch"):
                changed.pop(without_effect, None)
        if self.human_source is not None:
            changed["human_source"] = source_identity(self.human_source)
        if self.source is not None:
            changed["source"] = source_identity(self.source, self.source_config)
        return changed

    def flips(self, num_classes: int) -> LabelFlips:
        """The noise that these settings mean for so many classes; not for labels that people gave."""
        return LabelFlips.named(
            self.protocol or "symmetric", known={"mapping": self.PAIRS}, mapping=self.pairs, ratio=self.r,
            error_rate=self.error_rate, num_classes=num_classes, seed=self.seed,
            allow_adversarial=self.allow_adversarial, **(self.protocol_kwargs or {}),
        )  # fmt: skip


class NoisyLabelsBuilder(NoisyDataBuilder):
    """Base of the builders of noisy labels; a subclass gives `num_classes()`, and calls `read_labels` for each split
    before `tell_noise`."""

    #: Whether a clean split may consist of rows without a label.
    KEEPS_UNLABELLED: ClassVar[bool] = False

    _people: HumanLabels | None = None

    @abc.abstractmethod
    def num_classes(self) -> int:
        """Number of classes, C."""

    @property
    def noisy_column(self) -> str:
        return "label"

    @property
    def noise(self) -> LabelFlips | HumanLabels:
        if self.config.human is None:
            return self.config.flips(self.num_classes())
        if self._people is None:
            raise ValueError("the labels that people gave are known once the source has been read; load the data first")
        return self._people

    def no_noise(self) -> LabelFlips:
        return LabelFlips.symmetric(ratio=0.0, num_classes=self.num_classes(), seed=self.config.seed)

    def requested_rate(self, split: str) -> float:
        return self.noise_of(split).overall_error_rate()

    def read_labels(
        self, split: str, source: Source, dataset: IterableDataset, column: str, of_source: int, classes: np.ndarray
    ) -> list[np.ndarray] | None:
        """Check the clean labels of a split where they can be read at once, and find those that people gave.

        Labels of local data files are read here, before anything is built; of others (a folder of images, a data set
        on the Hub) only if the protocol needs them, and their checks wait until the rows themselves are read.

        Args:
            column: of the clean labels.
            of_source: number of classes in the source; labels are 0 .. of_source - 1.
            classes: those of them that the data set takes.

        Returns:
            int64 arrays, the labels people gave to each shard's rows; None if the noise is drawn.

        Raises:
            CorpusError: labels are missing or outside [0, C), a class has no row, or the true labels are not those
                that people labelled.
        """
        wanted = self.config.human if split == "train" else None
        if wanted is None and (not source.files or source.is_image_folder):
            return None
        columns = [column]
        if wanted is not None and self.config.human_source is None:
            check_column(dataset, f"human_{wanted}", source.name, "protocol")
            columns.append(f"human_{wanted}")
            check_same_classes(dataset.features, *columns, source.name)
        shards, rows = _read(source, dataset, columns)
        labels = [shard[0] for shard in shards]
        everything = np.concatenate(labels)
        if self.is_unlabelled(split, everything):
            return None
        where = f"{source.name!r}, split {split!r}"
        check_labels(everything, of_source, where, files=rows)
        self.check_classes(split, np.bincount(everything, minlength=of_source)[classes])
        if wanted is None:
            return None
        if len(columns) == 1:
            human = self._annotations(wanted, column, everything, dataset.features)
        else:
            human = np.concatenate([shard[1] for shard in shards])
            self._people = _people(everything, human, of_source, wanted, where)
        return np.split(human, np.cumsum([part.size for part in labels])[:-1])

    def _annotations(self, name: str, column: str, labels: np.ndarray, features: Features) -> np.ndarray:
        """The labels that people gave, from a source of their own that proves to belong to these true labels."""
        found = find_splits(self.config.human_source)
        source, dataset = found["train"] if "train" in found else next(iter(found.values()))
        dataset = with_features(dataset, source.name)
        clean, human = "clean_label" if "clean_label" in dataset.features else column, f"human_{name}"
        for needed in (clean, human):
            check_column(dataset, needed, source.name, "human_source")
            class_names(dataset.features, needed, "human_source")
            check_same_classes({**dataset.features, column: features[column]}, column, needed, source.name)
        shards, _ = _read(source, dataset, [clean, human])
        columns = [np.concatenate(parts) for parts in zip(*shards, strict=True)]
        self._people = _people(*columns, self.num_classes(), name, repr(source.name))
        try:
            return self._people.columns(labels, columns[1])[0]
        except ValueError as error:
            raise CorpusError(f"{source.name!r} does not belong to {self.config.source!r}: {error}") from error

    def check_classes(self, split: str, counts: np.ndarray) -> None:
        """Raise CorpusError if a class has no row in a split; `counts` are the rows of each class, [C]."""
        missing = np.flatnonzero(counts == 0)
        if not missing.size or self.config.allow_missing_classes:
            return
        names = getattr((self.info.features or {}).get(self.noisy_column), "names", None)
        named = [f"{index} ({names[index]})" if names else str(index) for index in missing[:5]]
        raise CorpusError(
            f"the split {split!r} of {self.config.source!r} has no row of {missing.size} of its {counts.size} classes: "
            f"{', '.join(named)}{', ...' if missing.size > len(named) else ''}; mend the source, or pass "
            "allow_missing_classes=True"
        )

    def is_unlabelled(self, split: str, labels: np.ndarray) -> bool:
        """Whether these labels of a split may stay as they are because there are none: a clean split of -1 alone."""
        return self.KEEPS_UNLABELLED and not self.is_noisy_split(split) and bool((labels == UNLABELLED).all())

    def check_written(self, split: str) -> None:
        # The first count is of rows without a label.
        counts = np.zeros(1 + self.num_classes(), dtype=np.int64)
        for (clean,) in self.written(split, [f"clean_{self.noisy_column}"]):
            # In int64, because a column of uint8 holds no -1, and one of int8 no 128.
            counts += np.bincount(clean.astype(np.int64) - UNLABELLED, minlength=counts.size)
        if counts[0] == counts.sum():
            return
        if counts[0]:
            raise CorpusError(
                f"the split {split!r} of {self.config.source!r} has {counts[0]} rows without a label ({UNLABELLED}) "
                f"among {counts.sum()}; drop them"
            )
        self.check_classes(split, counts[1:])


def class_names(features: Features, column: str, option: str) -> list[str] | None:
    """The names of the classes in a column, None if it holds plain integers; ValueError if it holds neither.

    `option` is the argument that chooses another column.
    """
    kind = features[column]
    if isinstance(kind, ClassLabel):
        return list(kind.names)
    if isinstance(kind, Value) and pa.types.is_integer(kind.pa_type):
        return None
    raise ValueError(
        f"column {column!r} holds {kind}, no class labels; give a ClassLabel or integers (text becomes a ClassLabel by "
        f"dataset.class_encode_column({column!r})), or choose another column with {option}="
    )


def one_column(table: pa.Table, column: str, where: str | None = None) -> np.ndarray:
    """A column of integers as int64 [n]; CorpusError if it holds nulls, or no integers. `where` names its file."""
    there = f" (in {where})" if where else ""
    if nulls := table[column].null_count:
        raise CorpusError(
            f"column {column!r} holds {nulls} null(s); every row needs a label, so drop those without{there}"
        )
    if not pa.types.is_integer(table[column].type):
        raise CorpusError(
            f"column {column!r} holds {table[column].type}, no labels; give integers or a ClassLabel{there}"
        )
    return table[column].to_numpy().astype(np.int64, copy=False)


def check_labels(
    labels: np.ndarray, num_classes: int, where: str, first: int = 0, files: Sequence[tuple[str, int]] = ()
) -> None:
    """Raise CorpusError unless all labels [n] are in [0, num_classes).

    `first` is the number of the first row, and `files` are the names of the files in their order and their rows.
    """
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        ends = np.cumsum([0, *(rows for _, rows in files)])
        place = int(np.searchsorted(ends, outside[0], side="right")) - 1
        named = f", row {outside[0] - ends[place]} of {files[place][0]}" if files else ""
        raise CorpusError(
            f"{where}: {outside.size} of {labels.size} labels are outside [0, {num_classes}), the first at index "
            f"{first + outside[0]}: {labels[outside[0]]} (counted in rows {first} to {first + labels.size - 1}{named})"
            "; rows without a label (-1 on the Hub) have to go, and a source with other classes is no source for these "
            "data"
        )


def _read(
    source: Source, dataset: IterableDataset, columns: list[str]
) -> tuple[list[list[np.ndarray]], list[tuple[str, int]]]:
    """Columns of integers of each shard of a split, int64 in the order of the rows; and the files with their rows."""
    used = Features({column: dataset.features[column] for column in columns})
    shards, files = [], []
    for shard in source.shards(source.narrowed(dataset, columns), SHARD_BYTES, used):
        parts: list[list[np.ndarray]] = [[np.empty(0, np.int64)] for _ in columns]
        for file, table in shard.files(columns):
            files.append((file, len(table)))
            for part, column in zip(parts, columns, strict=True):
                part.append(one_column(table, column, file))
        shards.append([np.concatenate(part) for part in parts])
    return shards, files


def _people(clean: np.ndarray, human: np.ndarray, num_classes: int, name: str, where: str) -> HumanLabels:
    try:
        return HumanLabels.from_columns(clean, human, num_classes=num_classes, name=name)
    except ValueError as error:
        raise CorpusError(f"{where}, column 'human_{name}': {error}") from error
