"""What the builders of noisy labels share: protocols by name, the labels people gave, checks of the clean column."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, IterableDataset

from hf_noise.data.builder import NoisyDataBuilder, first_sample_id
from hf_noise.data.classes import Classes, classes_of, is_label_kind, needs_values
from hf_noise.data.columns import check_same_classes
from hf_noise.data.label_settings import NoisyLabelsConfig
from hf_noise.data.reading import CorpusError, check_column, with_features
from hf_noise.data.sources import Source, find_splits
from hf_noise.noise import HumanLabels, LabelFlips

__all__ = [
    "SHARD_BYTES",
    "UNLABELLED",
    "NoisyLabelsBuilder",
    "NoisyLabelsConfig",
    "check_labels",
]

#: Of local files. Nothing is dropped at the end of a shard, so that it may be large, and sample ids of what fits into
#: one shard (CIFAR, MNIST) are the row numbers.
SHARD_BYTES = 64 << 20

#: How `datasets` marks a row that has no label.
UNLABELLED = -1


class NoisyLabelsBuilder(NoisyDataBuilder):
    """Base of the builders of noisy labels; a subclass gives `num_classes()`, and calls `read_labels` for each split
    before `tell_noise`."""

    #: Whether a clean split may consist of rows without a label.
    KEEPS_UNLABELLED: ClassVar[bool] = False

    _people: HumanLabels | None = None
    _classes: Classes | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The labels of each split that had to be read to know its classes, until they are used.
        self._labels_read: dict[str, _Labels] = {}

    @abc.abstractmethod
    def num_classes(self) -> int:
        """Number of classes, C."""

    def find_classes(
        self, found: Mapping[str, tuple[Source, IterableDataset]], columns: Mapping[str, str], option: str,
        size: int | None = None, usual: int | None = None,
    ) -> Classes:  # fmt: skip
        """The classes of these columns of labels, see `classes_of`; if they stand in no header, all labels are read."""
        features = {split: dataset.features for split, (_, dataset) in found.items()}
        kinds = [features[split][column] for split, column in columns.items()]
        values = {}
        if all(map(is_label_kind, kinds)) and needs_values(kinds, size):
            for split in (split for split in found if split == self.config.held.origin(split)):
                self._labels_read[split] = self._read(split, *found[split], columns[split])
                values[split] = pa.chunked_array(
                    [chunk for shard in self._labels_read[split].shards for chunk in shard[0].chunks],
                    features[split].arrow_schema.field(columns[split]).type,
                )
        self._classes = classes_of(features, columns, values, self.config.source_name, option, size, usual)
        return self._classes

    def told(self) -> dict[str, Any]:
        held = self.config.held
        return super().told() | ({"held_out": {split: getattr(held, split) for split in held.splits}} if held else {})

    def remedy_if_empty(self, split: str) -> str:
        held = self.config.held.splits
        if split == "train" and held:
            return f"; lower {' or '.join(f'{part}_fraction=' for part in held)}"
        return f"; raise {split}_fraction=, or name one with {split}_source=" if split in held else ""

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
        read = self._labels_read.pop(split, None)
        if split != self.config.held.origin(split):  # all its rows are looked at with those of the train split
            return None
        wanted = self.config.human if split == "train" else None
        if wanted is None and (not source.is_local or source.is_image_folder):
            return None
        if read is None:
            read = self._read(split, source, dataset, column)
        numbers = [self._numbers(shard[0], column) for shard in read.shards]
        everything = np.concatenate(numbers)
        if self.is_unlabelled(split, everything):
            return None
        where = f"{source.name!r}, split {split!r}"
        check_labels(everything, of_source, where, files=read.files)
        kept = self.kept_rows(split, [part.size for part in numbers])
        self.check_classes(split, np.bincount(everything[kept], minlength=of_source)[classes])
        if wanted is None:
            return None
        if len(read.columns) == 1:
            human = self._annotations(wanted, column, everything, kept, dataset.features)
        else:
            human = np.concatenate([self._numbers(shard[1], self.config.human_labels) for shard in read.shards])
            self._people = _people(everything[kept], human[kept], of_source, wanted, self.config.human_labels, where)
        return np.split(human, np.cumsum([part.size for part in numbers])[:-1])

    def kept_rows(self, split: str, sizes: Sequence[int]) -> np.ndarray:
        """Which rows of shards of these sizes are in a split, bool [n]."""
        held, origin = self.config.held, self.config.held.origin(split)
        ids = [first_sample_id(origin, index) + np.arange(size) for index, size in enumerate(sizes)] if held else []
        rows = held.rows(split, np.concatenate(ids)) if ids else None
        return np.ones(sum(sizes), dtype=bool) if rows is None else rows

    def _read(self, split: str, source: Source, dataset: IterableDataset, column: str) -> _Labels:
        """The labels of a split, and those that people gave if they stand beside them."""
        columns = [column]
        if split == "train" and self.config.human is not None and self.config.human_source is None:
            named = ("weak_column", "human_column")
            option = next((name for name in named if getattr(self.config, name) is not None), "protocol")
            check_column(dataset, self.config.human_labels, source.name, option)
            columns.append(self.config.human_labels)
            check_same_classes(dataset.features, *columns, source.name)
        return _read(source, dataset, columns)

    def _numbers(self, values: pa.ChunkedArray, column: str, where: str | None = None) -> np.ndarray:
        """Labels as the numbers of their classes, int64 [n]."""
        classes = Classes(self.num_classes()) if self._classes is None else self._classes
        return classes.numbers(pa.table({column: values}), column, where)

    def _annotations(
        self, name: str, column: str, labels: np.ndarray, kept: np.ndarray, features: Features
    ) -> np.ndarray:
        """The labels that people gave, from a source of their own that proves to belong to these true labels."""
        found = find_splits(self.config.human_source)
        source, dataset = found["train"] if "train" in found else next(iter(found.values()))
        dataset = with_features(dataset, source.name)
        clean, human = "clean_label" if "clean_label" in dataset.features else column, self.config.human_labels
        for needed in (clean, human):
            check_column(dataset, needed, source.name, "human_source")
            if not is_label_kind(dataset.features[needed]):
                raise ValueError(
                    f"column {needed!r} of human_source={source.name!r} holds {dataset.features[needed]}, no class "
                    "labels; give words, booleans, integers or a ClassLabel"
                )
            check_same_classes({**dataset.features, column: features[column]}, column, needed, source.name)
        read = _read(source, dataset, [clean, human])
        columns = [
            np.concatenate([self._numbers(shard[place], name) for shard in read.shards])
            for place, name in enumerate((clean, human))
        ]
        whole = _people(*columns, self.num_classes(), name, human, repr(source.name))
        try:
            human = whole.columns(labels, columns[1])[0]
        except ValueError as error:
            raise CorpusError(f"{source.name!r} does not belong to {self.config.source_name}: {error}") from error
        self._people = _people(labels[kept], human[kept], self.num_classes(), name, self.config.human_labels,
                               repr(source.name))  # fmt: skip
        return human

    def check_classes(self, split: str, counts: np.ndarray) -> None:
        """Raise CorpusError if a class has no row in a split; `counts` are the rows of each class, [C]."""
        missing = np.flatnonzero(counts == 0)
        if not missing.size or self.config.allow_missing_classes or split in self.config.held.splits:
            return
        names = getattr((self.info.features or {}).get(self.noisy_column), "names", None)
        named = [f"{index} ({names[index]})" if names else str(index) for index in missing[:5]]
        held = "".join(f", lower {share}_fraction=" for share in self.config.held.splits if split == "train")
        raise CorpusError(
            f"the split {split!r} of {self.config.source_name} has no row of {missing.size} of its {counts.size} "
            f"classes: {', '.join(named)}{', ...' if missing.size > len(named) else ''}; mend the source{held}, or "
            "pass allow_missing_classes=True"
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
                f"the split {split!r} of {self.config.source_name} has {counts[0]} rows without a label ({UNLABELLED}) "
                f"among {counts.sum()}; drop them"
            )
        self.check_classes(split, counts[1:])


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


@dataclass(frozen=True)
class _Labels:
    """Columns of labels as they stand in a split: those of each shard, and the files with their rows."""

    columns: list[str]
    shards: list[list[pa.ChunkedArray]]
    files: list[tuple[str, int]]


def _read(source: Source, dataset: IterableDataset, columns: list[str]) -> _Labels:
    used = Features({column: dataset.features[column] for column in columns})
    schema, shards, files = used.arrow_schema, [], []
    for shard in source.shards(source.narrowed(dataset, columns), SHARD_BYTES, used):
        parts: list[list[pa.Array]] = [[] for _ in columns]
        for file, table in shard.files(columns):
            before = files.pop()[1] if files and files[-1][0] == file else 0  # of a file that comes in parts
            files.append((file, before + len(table)))
            for part, column in zip(parts, columns, strict=True):
                if nulls := table[column].null_count:
                    raise CorpusError(
                        f"column {column!r} holds {nulls} null(s), the first in row "
                        f"{before + pc.index(table[column].is_null(), True).as_py()} of "
                        f"{file}; every row needs a label, so drop those without"
                    )
                part.extend(table[column].chunks)
        shards.append(
            [pa.chunked_array(part, schema.field(column).type) for part, column in zip(parts, columns, strict=True)]
        )
    return _Labels(columns, shards, files)


def _people(
    clean: np.ndarray, human: np.ndarray, num_classes: int, name: str, column: str, where: str
) -> HumanLabels:
    try:
        return HumanLabels.from_columns(clean, human, num_classes=num_classes, name=name)
    except ValueError as error:
        raise CorpusError(f"{where}, column {column!r}: {error}") from error
