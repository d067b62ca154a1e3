"""The base of builders of images with noisy labels: one set of columns, whatever the source calls its own."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, DatasetInfo, Features, Image, IterableDataset, SplitGenerator, Value

from hf_noise.data.builder import first_sample_id
from hf_noise.data.labels import (
    SHARD_BYTES,
    NoisyLabelsBuilder,
    NoisyLabelsConfig,
    check_labels,
    class_names,
    one_column,
)
from hf_noise.data.reading import CorpusError, Shard, with_features
from hf_noise.data.settings import check_flags, check_names
from hf_noise.data.sources import Source, find_splits, source_identity
from hf_noise.data.whole_images import WholeImages

__all__ = ["NoisyImagesBuilder", "NoisyImagesConfig", "unreadable"]

logger = logging.getLogger(__name__)

_BATCH = 256  # images
# From this size on, decoding outweighs handing the work to threads: twice as fast on two cores at 70 kB.
_WORTH_A_THREAD = 16 << 10
# Images of a batch that are decoded one by one, to learn which are whole without decoding them.
_DECODED_FIRST = 16
_IMAGE_COLUMNS = ("image", "img")
# As what a column without the feature `Image` may hold images: the content of their files, or their paths.
_STORED = ("binary", "large_binary", "string", "large_string")


@dataclass
class NoisyImagesConfig(NoisyLabelsConfig):
    """Settings of images with noisy labels.

    Args:
        source: a local file, glob or folder of data files, a folder of images with one folder a class, a data set on
            the Hub, or one of these for each split: {"train": ..., "test": ...}. A single file is the train split.
        test_source: what the test split is read from if `source` has none.
        image_column, label_column: where the source does not use one of the usual names.
        check_images: look at every image while the data are built, so that one that cannot be read is found now and not
            in the middle of a training run. PNG and JPEG files that are whole by their bytes are not decoded
            (microseconds, see `hf_noise.data.whole_images`), all others are (2 ms for a photograph).
        on_error: "raise" for an image that cannot be read, which is named; "skip" leaves out its row, logs a warning
            and counts the skipped rows of each split in the description of the data.
    """

    NUM_CLASSES: ClassVar[int]
    #: In the order of their numbers, where the map of pairs relies on it.
    CLASS_NAMES: ClassVar[tuple[str, ...] | None] = None
    LABEL_COLUMNS: ClassVar[tuple[str, ...]] = ("label",)
    #: Splits of the source that the data set has; None for all.
    SPLITS: ClassVar[tuple[str, ...] | None] = None

    test_source: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    check_images: bool = True
    on_error: str = "raise"

    def check(self) -> None:
        super().check()
        check_names(self, "image_column", "label_column")
        check_flags(self, "check_images")
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip", got {self.on_error!r}')
        if self.on_error == "skip" and not self.check_images:
            raise ValueError('on_error="skip" needs check_images=True, which finds what to skip')

    def identity(self) -> dict[str, Any]:
        changed = super().identity()
        if self.test_source is not None:
            changed["test_source"] = source_identity(self.test_source)
        return changed

    def found_splits(self) -> dict[str, tuple[Source, IterableDataset]]:
        """The splits of the source and of `test_source`, looked up again each time: a file may have changed."""
        found = find_splits(self.source, self.source_config)
        if self.SPLITS is not None:
            found = {split: part for split, part in found.items() if split in self.SPLITS}
        if self.test_source is not None:
            if "test" in found:
                raise ValueError(f"the source {self.source!r} has a test split already; leave out test_source=")
            found |= find_splits({"test": self.test_source})
        if "train" not in found:
            raise ValueError(f"the source {self.source!r} has no train split, only {', '.join(found) or 'none'}")
        return found

    def columns_of(self, dataset: IterableDataset, source: Source) -> list[str]:
        """The columns of the source that hold the images and the labels."""
        image, label = [
            _find_column(dataset, source, *choice)
            for choice in (
                (self.image_column, _IMAGE_COLUMNS, "image_column"),
                (self.label_column, self.LABEL_COLUMNS, "label_column"),
            )
        ]
        kind = dataset.features[image]
        if not (isinstance(kind, Image) or getattr(kind, "dtype", None) in _STORED or isinstance(kind, dict)):
            raise ValueError(f"column {image!r} of {source.name!r} holds {kind}, no images; choose another with "
                             "image_column=")  # fmt: skip
        if f"clean_{label}" in dataset.features:
            raise ValueError(
                f"column {label!r} of {source.name!r} is corrupted already: there is 'clean_{label}' beside it; take "
                f"the true labels with label_column='clean_{label}', or data that are clean"
            )
        return [image, label]


class NoisyImagesBuilder(NoisyLabelsBuilder):
    """Columns, whatever else the source has: `image`, `label` (noisy), `sample_id`, `clean_label`, `is_noisy`.

    A sample id counts the rows of the source, also those that a subset of classes or `on_error="skip"` leaves out.
    """

    BUILDER_CONFIG_CLASS = NoisyImagesConfig

    _skipped: Mapping[str, int] = {}

    def num_classes(self) -> int:
        return self.config.NUM_CLASSES

    def _info(self) -> DatasetInfo:
        self.config.check()
        return self.describe(None)  # the names of the classes are those of the source, which is looked at when read

    def choose_classes(self, names: list[str] | None) -> tuple[int, np.ndarray]:
        """The number of classes in a source with these names, and those of them that become 0 .. C - 1, int64 [C].

        `names` is None where the labels are plain integers. Raises ValueError if the source does not fit.
        """
        if names is not None and len(names) != self.num_classes():
            raise ValueError(f"{self.config.source!r} has {len(names)} classes, not {self.num_classes()}")
        return self.num_classes(), np.arange(self.num_classes())

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        found = self.config.found_splits()
        self.check_noisy_splits(list(found))
        found = {split: (source, with_features(dataset, source.name)) for split, (source, dataset) in found.items()}
        columns = {split: self.config.columns_of(dataset, source) for split, (source, dataset) in found.items()}
        names = self._names(found, columns)
        of_source, classes = self.choose_classes(names)
        if self.config.human is not None and len(classes) < of_source:
            raise ValueError(
                f"protocol={self.config.protocol!r} needs all {of_source} classes, because people name any of them"
            )
        self._check_pairs(names)
        chosen = [names[index] for index in classes] if names else list(self.config.CLASS_NAMES or ())
        label = ClassLabel(names=chosen) if chosen else ClassLabel(num_classes=len(classes))
        self.info.features = Features(
            {"image": Image(), "label": label, "sample_id": Value("int64"), "clean_label": label,
             "is_noisy": Value("bool")}
        )
        generators = []
        for split, (source, dataset) in found.items():
            human = self.read_labels(split, source, dataset, columns[split][1], of_source, classes)
            used = Features({column: dataset.features[column] for column in columns[split]})
            shards = source.shards(source.narrowed(dataset, columns[split]), SHARD_BYTES, used)
            first_sample_id(split, len(shards) - 1, found)  # too many shards or splits are refused at once
            # Tuples, because `datasets` deals out the entries of lists to its processes.
            settings = {
                "split": split, "splits": tuple(found), "columns": tuple(columns[split]), "of_source": of_source,
                "classes": tuple(classes.tolist()), "is_streaming": dl_manager.is_streaming,
            }  # fmt: skip
            given = human or [None] * len(shards)
            generators.append(SplitGenerator(split, {"shards": shards, "human": given, **settings}))
        self.tell_noise()
        return generators

    def _names(
        self, found: Mapping[str, tuple[Source, IterableDataset]], columns: Mapping[str, list[str]]
    ) -> list[str] | None:
        """The names of the classes, which all splits that know them agree on."""
        known: dict[str, list[str]] = {}
        for split, (_, dataset) in found.items():
            if (names := class_names(dataset.features, columns[split][1], "label_column")) is not None:
                known[split] = names
        first = next(iter(known), None)
        for split, names in known.items():
            if names != known[first]:
                raise ValueError(
                    f"the splits {first!r} and {split!r} of {self.config.source!r} name their classes differently, so "
                    f"the same number may mean two things: {known[first][:10]} and {names[:10]}"
                )
        return known.get(first)

    def _check_pairs(self, names: list[str] | None) -> None:
        expected = self.config.CLASS_NAMES
        usual = self.config.protocol == "pairs" and self.config.pairs is None
        if usual and expected and names and tuple(names) != expected:
            raise ValueError(
                f'protocol="pairs" relies on the order of the classes {", ".join(expected)}, but those of '
                f"{self.config.source!r} are {', '.join(names)}; give pairs= for them"
            )

    def _generate_tables(
        self, shards: list[Shard], human: list[np.ndarray | None], split: str, splits: tuple[str, ...],
        columns: tuple[str, str], of_source: int, classes: tuple[int, ...], is_streaming: bool,
    ) -> Iterator[tuple[Any, pa.Table]]:  # fmt: skip
        number_of = np.full(of_source, -1)
        number_of[list(classes)] = np.arange(len(classes))
        known = WholeImages()
        for shard, given in zip(shards, human, strict=True):
            first, row, skipped = first_sample_id(split, shard.index, splits), 0, []
            for number, table in enumerate(shard.tables(_BATCH, list(columns))):
                labels = one_column(table, columns[1])
                check_labels(labels, of_source, f"{self.config.source!r}, split {split!r}, shard {shard.index}", row)
                rows = np.flatnonzero(number_of[labels] >= 0)
                images = Image().cast_storage(_one_array(table[columns[0]]).take(pa.array(rows)))
                if self.config.check_images and (broken := unreadable(images, known)):
                    skipped += self._broken(split, shard, images, broken, row + rows, number_of[labels[rows]])
                    good = np.setdiff1d(np.arange(rows.size), list(broken))
                    rows, images = rows[good], images.take(pa.array(good))
                clean = number_of[labels[rows]]
                ids = first + row + rows
                noisy = None if given is None else given[row + rows]
                row += len(table)
                if rows.size:
                    yield (shard.index, number), self._table(images, clean, ids, split, noisy)
            if skipped:
                logger.warning("%s: skipped %d unreadable images of shard %d", split, len(skipped), shard.index)
                if not is_streaming:  # several processes may write one split, and the count is told at its end
                    Path(self._output_dir, f"skipped-{split}-{shard.index}.json").write_text(json.dumps(skipped))

    def _table(
        self, images: pa.Array, clean: np.ndarray, ids: np.ndarray, split: str, human: np.ndarray | None
    ) -> pa.Table:
        if human is None:
            noisy, is_noisy = self.noise_of(split)(clean, sample=ids, epoch=self.config.epoch)
        else:
            noisy, is_noisy = human, human != clean
        columns = {"image": images, "label": noisy, "sample_id": ids, "clean_label": clean, "is_noisy": is_noisy}
        return pa.table(columns).cast(self.info.features.arrow_schema)

    def _broken(
        self, split: str, shard: Shard, images: pa.Array, broken: Mapping[int, str], rows: np.ndarray,
        classes: np.ndarray,
    ) -> list[int]:  # fmt: skip
        """The rows of the shard to leave out; raises CorpusError for the first of them if that is not asked for."""
        label = self.info.features["label"]
        for index, reason in broken.items():
            path = images[index]["path"].as_py() if images[index].is_valid else None
            named = f"row {rows[index]} of shard {shard.index}" + (f" ({path})" if path else "")
            named += f", of class {classes[index]} ({label.int2str(int(classes[index]))}),"
            told = f"{self.config.source!r}, split {split!r}: the image in {named} cannot be read: {reason}"
            if self.config.on_error == "raise":
                raise CorpusError(f'{told}; mend or remove it, or pass on_error="skip"')
            logger.warning("%s; skipped", told)
        return [int(rows[index]) for index in broken]

    def told(self) -> dict[str, Any]:
        return {"skipped": self._skipped} if self._skipped else {}

    def check_written(self, split: str) -> None:
        super().check_written(split)
        files = list(Path(self._output_dir).glob(f"skipped-{split}-*.json"))
        if files:
            self._skipped = {**self._skipped, split: sum(len(json.loads(file.read_text())) for file in files)}
        for file in files:
            file.unlink()


def unreadable(images: pa.Array, known: WholeImages | None = None) -> dict[int, str]:
    """The images [n] (storage of the feature `Image`) that cannot be decoded, index -> reason.

    `known` are those seen before, so that whole ones are told without decoding them.
    """
    read, known = Image().decode_example, WholeImages() if known is None else known

    def reason(index: int) -> str | None:
        image = images[index].as_py()
        if image is None:
            return "it is missing"
        try:
            read(image)
        except (ConnectionError, TimeoutError):  # of an image behind a URL: nothing is known of the image
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
            return f"{type(error).__name__}: {error}"
        return None

    reasons: dict[int, str | None] = {}
    unsure = []
    for index, content in enumerate(images.field("bytes").to_pylist()):
        if content is not None and known.has(content):
            continue
        if content is not None and len(unsure) < _DECODED_FIRST:  # a picture of each kind, if there are few
            reasons[index] = reason(index)
            if reasons[index] is None:
                known.decoded(content)
        unsure.append(index)
    left = [index for index in unsure if index not in reasons]
    in_files = images.field("bytes").null_count > 0
    if in_files or images.nbytes > _WORTH_A_THREAD * len(images):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            reasons |= zip(left, pool.map(reason, left), strict=True)
    else:
        reasons |= {index: reason(index) for index in left}
    return {index: text for index, text in sorted(reasons.items()) if text is not None}


def _find_column(
    dataset: IterableDataset, source: Source, asked: str | None, usual: tuple[str, ...], option: str
) -> str:
    there = dataset.column_names
    for column in (asked,) if asked is not None else usual:
        if column in there:
            return column
    wanted = repr(asked) if asked is not None else " or ".join(map(repr, usual))
    raise ValueError(
        f"the source {source.name!r} has no column {wanted}; it has {', '.join(map(repr, there))}: choose one with "
        f"{option}="
    )


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
