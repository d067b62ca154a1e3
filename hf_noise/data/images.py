"""The base of builders of images with noisy labels: one set of columns, whatever the source calls its own."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Image, IterableDataset, SplitGenerator, Value

from hf_noise.data.builder import first_sample_id
from hf_noise.data.classes import Classes
from hf_noise.data.columns import find_column
from hf_noise.data.held_rows import MissingSplitError
from hf_noise.data.image_sizes import of_one_size
from hf_noise.data.labels import SHARD_BYTES, NoisyLabelsBuilder, NoisyLabelsConfig, check_labels
from hf_noise.data.reading import CorpusError, Shard, with_features
from hf_noise.data.settings import check_flags, check_names
from hf_noise.data.sources import Source
from hf_noise.data.whole_images import WholeImages
from hf_noise.noise.checks import check_count

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
        source: as for every noisy data set, or a folder of images with one folder a class. A single file is the train
            split.
        image_column, label_column: where the source does not use one of the usual names. Labels may be words, booleans
            or integers, of any number of classes.
        check_images: look at every image while the data are built, so that one that cannot be read is found now and not
            in the middle of a training run. PNG and JPEG files that are whole by their bytes are not decoded
            (microseconds, see `hf_noise.data.whole_images`), all others are (2 ms for a photograph).
        on_error: "raise" for an image that cannot be read, which is named; "skip" leaves out its row, logs a warning
            and counts the skipped rows of each split in the description of the data.
        image_size: pixels on each side that all images shall have; smaller ones are put between zeros.
        resize: scale images to this size, larger and smaller ones, see `hf_noise.data.image_sizes`.
    """

    #: Of the data set's own source; None where it has none.
    NUM_CLASSES: ClassVar[int | None] = None
    #: In the order of their numbers, where the map of pairs relies on it.
    CLASS_NAMES: ClassVar[tuple[str, ...] | None] = None
    LABEL_COLUMNS: ClassVar[tuple[str, ...]] = ("label",)
    LABEL_OPTION: ClassVar[str] = "label_column"

    image_column: str | None = None
    label_column: str | None = None
    check_images: bool = True
    on_error: str = "raise"
    image_size: int | None = None
    resize: bool = False

    def check(self) -> None:
        super().check()
        if self.protocol is None and self.UNITS == "labels":
            self.protocol = "symmetric"
        check_names(self, "image_column", "label_column", "on_error")
        check_flags(self, "check_images", "resize")
        if self.image_size is not None:
            self.image_size = check_count("image_size", self.image_size, 1, 15, "it counts pixels")
        elif self.resize:
            raise ValueError("resize=True needs image_size=, the pixels on each side that images shall have")
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip", got {self.on_error!r}')
        if self.on_error == "skip" and not self.check_images:
            raise ValueError('on_error="skip" needs check_images=True, which finds what to skip')

    def found_splits(self) -> dict[str, tuple[Source, IterableDataset]]:
        found = super().found_splits()
        if "train" not in found:
            raise MissingSplitError("train", found, f"the source {self.source_name}")
        return found

    @property
    def has_own_source(self) -> bool:
        """Whether the source is another one than that of this data set."""
        default = next(field.default for field in fields(self) if field.name == "source")
        return isinstance(self.source, Dataset) or self.source != default

    @property
    def labels_from(self) -> str | None:
        """The column of the labels, if it was named."""
        return self.label_column

    def columns_of(self, dataset: IterableDataset, source: Source) -> list[str]:
        """The columns of the source that hold the images and the labels."""
        image, label = [
            find_column(dataset.column_names, source.name, *choice)
            for choice in (
                (self.image_column, _IMAGE_COLUMNS, "image_column"),
                (self.labels_from, self.LABEL_COLUMNS, self.LABEL_OPTION),
            )
        ]
        kind = dataset.features[image]
        if not (isinstance(kind, Image) or getattr(kind, "dtype", None) in _STORED or isinstance(kind, dict)):
            raise ValueError(f"column {image!r} of {source.name!r} holds {kind}, no images; choose another with "
                             "image_column=")  # fmt: skip
        if f"clean_{label}" in dataset.features:
            raise ValueError(
                f"column {label!r} of {source.name!r} is corrupted already: there is 'clean_{label}' beside it; take "
                f"the true labels with {self.LABEL_OPTION}='clean_{label}', or data that are clean"
            )
        return [image, label]


class NoisyImagesBuilder(NoisyLabelsBuilder):
    """Columns, whatever else the source has: `image`, `label` (noisy), `sample_id`, `clean_label`, `is_noisy`.

    A sample id counts the rows of the source, also those that a subset of classes or `on_error="skip"` leaves out.
    """

    BUILDER_CONFIG_CLASS = NoisyImagesConfig

    _skipped: Mapping[str, int] = {}

    def num_classes(self) -> int:
        if self.info.features:  # once the source has been looked at
            return self.info.features["label"].num_classes
        if self.config.has_own_source:
            found = self._found()
            self._choose(found, self._columns(found))
            self._labels_read.clear()
            return self._size
        return self.config.NUM_CLASSES

    def _info(self) -> DatasetInfo:
        self.config.check()
        return self.describe(None)  # the names of the classes are those of the source, which is looked at when read

    def choose_classes(self, names: list[str] | None, size: int) -> tuple[int, np.ndarray]:
        """The number of classes in a source with these names, and those of them that become 0 .. C - 1, int64 [C].

        `names` is None where the labels are plain integers. Raises ValueError if the source does not fit.
        """
        if size != (usual := self.config.NUM_CLASSES or size):
            logger.warning("%s has %d classes, not %d; taken as they are", self.config.source_name, size, usual)
        return size, np.arange(size)

    def _found(self) -> dict[str, tuple[Source, IterableDataset]]:
        found = self.config.found_splits().items()
        return {split: (source, with_features(dataset, source.name)) for split, (source, dataset) in found}

    def _columns(self, found: Mapping[str, tuple[Source, IterableDataset]]) -> dict[str, list[str]]:
        return {split: self.config.columns_of(dataset, source) for split, (source, dataset) in found.items()}

    def source_classes(
        self, found: Mapping[str, tuple[Source, IterableDataset]], columns: Mapping[str, str]
    ) -> Classes:
        """The classes of the source. A source of one's own may have any number of them."""
        usual = self.config.NUM_CLASSES
        size = None if self.config.has_own_source else usual
        return self.find_classes(found, columns, self.config.LABEL_OPTION, size, usual)

    def _choose(
        self, found: Mapping[str, tuple[Source, IterableDataset]], columns: Mapping[str, list[str]]
    ) -> tuple[list[str] | None, int, np.ndarray]:
        """The names of the classes in the source, if they have some, their number, and those of them that are taken."""
        classes = self.source_classes(found, {split: label for split, (_, label) in columns.items()})
        names = None if classes.names is None else list(classes.names)
        of_source, chosen = self.choose_classes(names, classes.size)
        self._size = len(chosen)
        return names, of_source, chosen

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        found = self._found()
        self.check_noisy_splits(list(found))
        columns = self._columns(found)
        names, of_source, classes = self._choose(found, columns)
        if self.config.human is not None and len(classes) < of_source:
            raise ValueError(
                f"protocol={self.config.protocol!r} needs all {of_source} classes, because people name any of them"
            )
        self._check_pairs(names, len(classes))
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

    def _check_pairs(self, names: list[str] | None, size: int) -> None:
        expected, usual = self.config.CLASS_NAMES, self.config.protocol == "pairs" and self.config.pairs is None
        if usual and (size != self.config.NUM_CLASSES or expected and names and tuple(names) != expected):
            order = f"order of the classes {', '.join(expected)}" if expected else f"{self.config.NUM_CLASSES} classes"
            raise ValueError(
                f'protocol="pairs" relies on the {order}, but those of {self.config.source_name} are '
                f"{', '.join(names or map(str, range(size)))}; give pairs= for them"
            )

    def _generate_tables(
        self, shards: list[Shard], human: list[np.ndarray | None], split: str, splits: tuple[str, ...],
        columns: tuple[str, str], of_source: int, classes: tuple[int, ...], is_streaming: bool,
    ) -> Iterator[tuple[Any, pa.Table]]:  # fmt: skip
        number_of = np.full(of_source, -1)
        number_of[list(classes)] = np.arange(len(classes))
        known, held, config = WholeImages(), self.config.held, self.config
        for shard, given in zip(shards, human, strict=True):
            first, row, skipped = first_sample_id(held.origin(split), shard.index, splits), 0, []
            where = f"{config.source_name}, split {split!r}, shard {shard.index}"
            for number, table in enumerate(shard.tables(_BATCH, list(columns))):
                labels = self._numbers(table[columns[1]], columns[1])
                check_labels(labels, of_source, where, row)
                taken, inside = number_of[labels] >= 0, held.rows(split, first + row + np.arange(labels.size))
                rows = np.flatnonzero(taken if inside is None else taken & inside)
                images = Image().cast_storage(_one_array(table[columns[0]]).take(pa.array(rows)))
                if config.check_images and (broken := unreadable(images, known)):
                    skipped += self._broken(split, shard, images, broken, row + rows, number_of[labels[rows]])
                    good = np.setdiff1d(np.arange(rows.size), list(broken))
                    rows, images = rows[good], images.take(pa.array(good))
                if config.image_size is not None:
                    images = of_one_size(images, config.image_size, config.resize, where, row + rows)
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
            told = f"{self.config.source_name}, split {split!r}: the image in {named} cannot be read: {reason}"
            if self.config.on_error == "raise":
                raise CorpusError(f'{told}; mend or remove it, or pass on_error="skip"')
            logger.warning("%s; skipped", told)
        return [int(rows[index]) for index in broken]

    def told(self) -> dict[str, Any]:
        return super().told() | ({"skipped": self._skipped} if self._skipped else {})

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


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
