"""What the builders of noisy data share: the settings of the noise, stable sample ids, the realised rate."""

from __future__ import annotations

import abc
import inspect
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ArrowBasedBuilder, BuilderConfig, Dataset, DatasetInfo, Features, Version

from hf_noise.data.counting import count_noisy, flat_values
from hf_noise.data.reading import CorpusError
from hf_noise.data.settings import check_keywords, check_name, check_names, check_places, check_settings, names_of
from hf_noise.data.source_names import SourceLike, source_name
from hf_noise.noise import Noise, rates
from hf_noise.noise.base import Unit, check_seed
from hf_noise.noise.checks import check_epoch, check_integer
from hf_noise.noise.describe import describe_noise
from hf_noise.noise.protocols import check_fields, find_protocol

__all__ = [
    "CorpusError",
    "NoisyDataBuilder",
    "NoisyDataConfig",
    "first_sample_id",
    "ratio_grid",
]

logger = logging.getLogger(__name__)

# Sample ids: 2^40 rows a shard, 2^20 shards a split, so that no two rows of a data set share their noise.
_ROW_BITS, _SHARD_BITS = 40, 20
_SPLIT_NUMBERS = {"train": 0, "validation": 1, "test": 2}
# The numbers left for splits of other names, before ids outgrow int64.
_OTHER_SPLITS = range(3, 8)

# Arguments of every builder of `datasets` that would be ignored here.
_NOT_TAKEN = {
    "data_files": "name the data with source=", "data_dir": "name the folder with source=",
    "features": "its columns are told by its data; change them afterwards with dataset.cast()",
}  # fmt: skip

_CITATION = """\
@misc{hf_noise, title = {hf_noise: noisy training data for Hugging Face libraries}, note = {Python package}}"""


@dataclass
class NoisyDataConfig(BuilderConfig):
    """Settings of any noisy data set: what `load_dataset("hf_noise/...", r=0.5, ...)` takes.

    Args:
        r: noise ratio, noisy units (tokens or labels) per clean one, r >= 0. Give this or `error_rate`, never both.
        error_rate: share of units that are noisy, e = r / (1 + r), in [0, 1).
        seed: of the noise, in [0, 2^63).
        epoch: which epoch's noise to draw, >= 0 (a trainer that draws noise anew starts with epoch 0).
        noisy_splits: splits to corrupt besides "train", such as ("validation",).
        source: embedded data, a local file, glob or folder, a list of files, a data set on the Hub, or a
            `datasets.Dataset`; one of these for each split, `{split: source}`, which a `DatasetDict` is too.
        source_config: configuration of a data set on the Hub that has several.
        protocol: which noise, by one of its names (`Noise.names`); each data set has a default.
        protocol_kwargs: settings of this noise's own, by the names of its fields, such as {"boost_mass": 0.2}.
    """

    #: What one unit of the noise is called in messages.
    UNITS: ClassVar[str] = "units"
    #: The units of the noises that this data set can have.
    NOISE_UNITS: ClassVar[tuple[Unit, ...]] = ()
    #: What `protocol=None` means; None if that is known once the data are.
    DEFAULT_PROTOCOL: ClassVar[str | None] = None
    #: What else `protocol` may be, in words.
    OTHER_PROTOCOLS: ClassVar[str] = ""
    #: Fields of noises that are settings here, and so in no `protocol_kwargs`.
    SETTINGS: ClassVar[Mapping[str, str]] = {
        "ratio": "r", "error_rate": "error_rate", "seed": "seed", "redraw": "epoch", "kind": "protocol",
    }  # fmt: skip

    version: Version | str | None = Version("1.0.0")
    r: float | None = None
    error_rate: float | None = None
    seed: int = 0
    epoch: int = 0
    noisy_splits: Sequence[str] = ()
    source: SourceLike | Mapping[str, SourceLike] | None = None
    source_config: str | None = None
    protocol: str | None = None
    protocol_kwargs: Mapping[str, Any] | None = None

    @property
    def ratio(self) -> float | None:
        """r, from whichever of `r` and `error_rate` was given; None where the noise has a rate of its own."""
        return rates.resolve(self.r, self.error_rate)[0]

    @property
    def source_name(self) -> str:
        """What messages call the source."""
        return source_name(self.source)

    def check(self) -> None:
        """Raise for settings that can be seen to be wrong before anything is read.

        `datasets` fills named configurations after they were made, so `__post_init__` would come too early.
        """
        check_names(self, "protocol")
        self.check_protocol()
        self.check_rate()
        self.seed = check_seed(self.seed)
        self.epoch = check_epoch(self.epoch)
        check_names(self, "source_config")
        check_places(self, *(field.name for field in fields(self) if field.name.endswith("source")))
        names_of("noisy_splits", self.noisy_splits)

    def check_protocol(self) -> None:
        """Raise for a noise that is not known here, or that has no such settings."""
        if self.protocol is not None:
            self.protocol = find_protocol(self.protocol, self.NOISE_UNITS, self.OTHER_PROTOCOLS)[0]
        self.protocol_kwargs = check_keywords(self.protocol_kwargs)
        for name in self.protocol_kwargs or {}:
            if name in self.SETTINGS:
                raise TypeError(f"protocol_kwargs has {name!r}, which is the setting {self.SETTINGS[name]}= itself")
        if (named := self.protocol or self.DEFAULT_PROTOCOL) is not None:
            check_fields(named, self.NOISE_UNITS, self.protocol_kwargs or {})

    def check_rate(self) -> None:
        """Raise unless exactly one of `r` and `error_rate` is given, and is what the named configuration means."""
        if self.r is None and self.error_rate is None:
            raise ValueError(
                f"say how much noise: r=0.5 (noisy {self.UNITS} per clean one), or error_rate=1/3; r=0 is none"
                f"{self.if_noisy_already()}"
            )
        if self.r is not None and self.error_rate is not None:
            raise ValueError(
                f"r={self.r!r} and error_rate={self.error_rate!r} say the same thing twice; give one of them"
                + (f" (the configuration {self.name!r} brings its r)" if self.name != "default" else "")
            )
        ratio = self.ratio
        for config in ratio_grid(type(self)) if self.name != "default" else ():
            if config.name == self.name and config.r != ratio:
                raise ValueError(f"configuration {self.name!r} means r={config.r}, not r={ratio}; leave the name out")

    def if_noisy_already(self) -> str:
        """What to do with data that are noisy without any being added, as the end of a message; nothing by default."""
        return ""

    def create_config_id(self, config_kwargs: dict, custom_features: Features | None = None) -> str:
        """Name of the cache folder: settings that mean the same share one, r=1 and r=1.0 and error_rate=0.5."""
        self.check()
        return super().create_config_id(self.identity(), custom_features)

    def identity(self) -> dict[str, Any]:
        """The settings that differ from their defaults, in one spelling."""
        inherited = {field.name for field in fields(BuilderConfig)}
        own = {field.name: field.default for field in fields(self) if field.name not in inherited}
        changed = {name: getattr(self, name) for name, default in own.items() if getattr(self, name) != default}
        for respelt in ("r", "error_rate", "noisy_splits"):
            changed.pop(respelt, None)
        if self.protocol_kwargs:
            changed["protocol_kwargs"] = sorted(self.protocol_kwargs.items())
        if self.extra_noisy_splits:
            changed["noisy_splits"] = ",".join(sorted(self.extra_noisy_splits))
        return changed if self.ratio is None else {**changed, "r": self.ratio}

    @property
    def extra_noisy_splits(self) -> set[str]:
        """The splits that `noisy_splits` names."""
        return names_of("noisy_splits", self.noisy_splits)


def ratio_grid(config_class: type[NoisyDataConfig]) -> list[NoisyDataConfig]:
    """Named configurations "r0.0" ... "r1.0": the ratios that paper A studies."""
    return [
        config_class(name=f"r{ratio}", r=ratio, description=f"{ratio} noisy {config_class.UNITS} per clean one")
        for ratio in (0.0, 0.1, 0.3, 0.5, 1.0)
    ]


def first_sample_id(split: str, shard: int, splits: Collection[str] = ()) -> int:
    """The sample id of the first row of a shard; rows of the shard count up from it.

    It is shard * 2^40 in the train split and never depends on processes, streaming or order; other splits are
    numbered so that they share no id, and hence no noise, with it or each other.

    Args:
        split: a name; those other than train, validation and test are numbered in the order of the alphabet.
        shard: index of the shard in its split, in [0, 2^20).
        splits: all splits of the data set, needed if several have such other names.

    Raises:
        CorpusError: the shard has no id, or more than five splits have other names.
        TypeError: the shard is no integer, or a name no text.
    """
    shard, names = check_integer("shard", shard), list(splits) if isinstance(splits, Mapping) else splits
    others = sorted((names_of("split", [split]) | names_of("splits", names)) - _SPLIT_NUMBERS.keys())
    if not 0 <= shard < 1 << _SHARD_BITS:
        raise CorpusError(
            f"shard {shard} of the split {split!r} is outside [0, 2^{_SHARD_BITS}), so its rows have no sample ids; "
            "put the files of the source together into fewer"
        )
    if len(others) > len(_OTHER_SPLITS):
        raise CorpusError(
            f"the splits {', '.join(others)} would share sample ids: {len(_OTHER_SPLITS)} may be there besides "
            f"{', '.join(_SPLIT_NUMBERS)}; give the files of one split as source="
        )
    number = {**_SPLIT_NUMBERS, **dict(zip(others, _OTHER_SPLITS, strict=False))}[split]
    return ((number << _SHARD_BITS) + shard) << _ROW_BITS


class NoisyDataBuilder(ArrowBasedBuilder):
    """Base of the builders in `hf_noise.data.builders`.

    A subclass sets `DESCRIPTION`, gives `noise`, `no_noise()`, the methods of an `ArrowBasedBuilder`, and
    `noisy_column` if it is not "labels"; its `_split_generators` calls `tell_noise()`.
    """

    VERSION = Version("1.0.0")
    DESCRIPTION = ""
    #: Its name in messages, if it is not that of its module.
    CALLED: ClassVar[str] = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(inspect.signature(super().__init__).bind(*args, **kwargs).arguments)
        settings, name = given.pop("config_kwargs", {}), given.get("config_name")
        called = self.CALLED or f"hf_noise/{type(self).__module__.rpartition('.')[2].replace('_', '-')}"
        check_settings(called, self.BUILDER_CONFIG_CLASS, settings)
        check_name(called, name, [config.name for config in self.BUILDER_CONFIGS])
        for argument, remedy in _NOT_TAKEN.items():
            if given.get(argument) is not None:
                raise TypeError(f"{argument}={given[argument]!r:.80} means nothing for {called}; {remedy}")
        if name is None and not settings:
            self.BUILDER_CONFIG_CLASS().check()  # `datasets` would ask for a name, and here a rate is missing
        super().__init__(*args, **kwargs)

    @property
    @abc.abstractmethod
    def noise(self) -> Noise:
        """The noise of the noisy splits."""

    @abc.abstractmethod
    def no_noise(self) -> Noise:
        """The same with a rate of 0: the noise of the clean splits, which still checks what it is given."""

    @property
    def noisy_column(self) -> str:
        """The column that carries the noise."""
        return "labels"

    def is_noisy_split(self, split: str) -> bool:
        """Whether a split is corrupted: "train" is, validation and test if `noisy_splits` names them."""
        return split == "train" or split in self.config.extra_noisy_splits

    def noise_of(self, split: str) -> Noise:
        """The noise of one split."""
        return self.noise if self.is_noisy_split(split) else self.no_noise()

    def requested_rate(self, split: str) -> float:
        """The share of noisy units that is expected in one split."""
        return self.noise_of(split).error_rate

    def check_noisy_splits(self, splits: Sequence[str]) -> None:
        """Raise ValueError if `noisy_splits` names a split that is not there, or none is noisy."""
        unknown = sorted(self.config.extra_noisy_splits - set(splits))
        if unknown:
            raise ValueError(f"noisy_splits names {', '.join(unknown)}, but the splits are {', '.join(splits)}")
        if self.config.ratio != 0 and not any(map(self.is_noisy_split, splits)):
            raise ValueError(
                f"the source {self.config.source_name} has no train split, only {', '.join(splits)}, so that none is "
                "noisy; name those that shall be in noisy_splits="
            )

    def describe(self, features: Features | None) -> DatasetInfo:
        """The info of the data set before its noise is known, see `tell_noise`."""
        return DatasetInfo(description=self.text_of_description().strip(), features=features, citation=_CITATION)

    def text_of_description(self) -> str:
        """What the data are, in words, before the line that states their noise."""
        return self.DESCRIPTION

    def tell_noise(self, realised: dict[str, dict[str, Any]] | None = None) -> None:
        """Write the noise into the info, so that it stays with the data, see `describe_noise`; the realised rates only
        once the data are built."""
        told = self.told()
        text = self.text_of_description()
        self.info.description = describe_noise(text, self.noise, self.config.epoch, realised, **told)

    def told(self) -> dict[str, Any]:
        """What else a builder has to say in the last line of the description, JSON-able."""
        parts = self.config.source.values() if isinstance(self.config.source, Mapping) else [self.config.source]
        return {"source": self.config.source_name} if any(isinstance(part, Dataset) for part in parts) else {}

    def _download_and_prepare(self, dl_manager: Any, verification_mode: Any, **prepare_split_kwargs: Any) -> None:
        super()._download_and_prepare(dl_manager, verification_mode, **prepare_split_kwargs)
        self.check_all_written(list(self.info.splits))
        realised = {split: self._realised(split) for split in self.info.splits}
        for split, rate in realised.items():
            logger.info(
                "%s: requested rate of noisy %s %.6f, realised %.6f (n = %d)",
                split, self.config.UNITS, self.requested_rate(split), rate["rate"], rate["n"],
            )
        self.tell_noise(realised)

    def _prepare_split(self, split_generator: Any, *args: Any, **kwargs: Any) -> None:
        super()._prepare_split(split_generator, *args, **kwargs)
        if not split_generator.split_info.num_examples:
            told = f"the split {split_generator.name!r} of {self.config.source_name} came out empty"
            raise CorpusError(told + self.remedy_if_empty(split_generator.name))
        self.check_written(split_generator.name)

    def remedy_if_empty(self, split: str) -> str:
        """What to do about a split without rows, as the end of a message; nothing where that is not known."""
        return ""

    def check_written(self, split: str) -> None:
        """Raise CorpusError if a split that was just written cannot be used."""

    def check_all_written(self, splits: list[str]) -> None:
        """Raise CorpusError if the splits cannot be used together."""

    def _realised(self, split: str) -> dict[str, Any]:
        """Share of noisy units among all that could be, read back from the files just written."""
        columns = ["is_noisy"] if self.noise.unit == "documents" else ["is_noisy", f"clean_{self.noisy_column}"]
        return count_noisy(self._columns_written(split, columns))

    def written(self, split: str, columns: list[str]) -> Iterator[list[np.ndarray]]:
        """The values of some columns of a split that was just written, in batches; rows of lists one after another."""
        for batch in self._columns_written(split, columns):
            yield [flat_values(column) for column in batch]

    def _columns_written(self, split: str, columns: list[str]) -> Iterator[list[pa.Array]]:
        """`datasets` writes Arrow streams, or Parquet if asked for."""
        folder, prefix = Path(self._output_dir), f"{self.dataset_name}-{split}"
        # Not the files of a split whose name goes on after this one.
        for file in sorted([*folder.glob(f"{prefix}.*"), *folder.glob(f"{prefix}-[0-9]*-of-*")]):
            if file.suffix == ".parquet":
                for batch in pq.ParquetFile(file).iter_batches(columns=columns):
                    yield [batch[column] for column in columns]
            else:
                with pa.memory_map(str(file)) as mapped:
                    for batch in pa.ipc.open_stream(mapped):
                        yield [batch[column] for column in columns]
