"""The settings of noisy labels: protocols by name, the labels people gave, splits that are held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from datasets import IterableDataset

from hf_noise.data.builder import NoisyDataConfig
from hf_noise.data.held_rows import HeldRows, MissingSplitError, check_share
from hf_noise.data.settings import check_flags, check_names, check_pairs
from hf_noise.data.source_names import SourceLike
from hf_noise.data.sources import Source, find_splits, source_identity
from hf_noise.noise import LabelFlips
from hf_noise.noise.base import Unit

__all__ = ["NoisyLabelsConfig"]

_HUMAN = "human:"


@dataclass
class NoisyLabelsConfig(NoisyDataConfig):
    """Settings of noisy labels.

    Args:
        source: as for every noisy data set.
        test_source, validation_source: what these splits are read from if `source` has none.
        test_fraction, validation_fraction: or which share of the rows of the train split they are, in [0, 1), chosen by
            the number of each row in the source and nothing else: the same for every noise, rate and seed.
        protocol: "symmetric" (any other class, paper A; what None means), "uniform_resample" (any class, the true one
            too), "cyclic" (the next class), "pairs" (similar classes, paper C), see `LabelFlips`; or "human:<name>",
            the labels that people gave, from the column `human_<name>` of the train split. Their rate is what it is, so
            `r` and `error_rate` are left out, and `seed` and `epoch` have no effect.
        pairs: {class: the class it is mistaken for}, for "pairs"; by default paper C's map where there is one.
        human_column: the column with the labels that people gave, if it is called otherwise; without a `protocol`, this
            is one of its own: "human:<human_column>".
        weak_column: the same, of labels that rules gave and not people (weak or distant supervision), such as
            "weak_label". Their T is counted and their rate is what it is, as for those of people; a column of other
            classes is refused.
        human_source: where that column stands beside the true labels (column `clean_label` or that of the source) if
            not in the source: the same rows in the same order, which the true labels have to prove.
        allow_adversarial: accept a rate at which the true class is the least likely label, see `LabelFlips.symmetric`.
        allow_missing_classes: accept a split without any row of some class.
    """

    UNITS: ClassVar[str] = "labels"
    NOISE_UNITS: ClassVar[tuple[Unit, ...]] = ("labels",)
    DEFAULT_PROTOCOL: ClassVar[str | None] = "symmetric"
    OTHER_PROTOCOLS: ClassVar[str] = "human:<name> for the labels in a column human_<name>, or in that of human_column="
    SETTINGS: ClassVar[Mapping[str, str]] = {
        **NoisyDataConfig.SETTINGS, "mapping": "pairs", "num_classes": "num_classes",
        "allow_adversarial": "allow_adversarial",
    }  # fmt: skip
    #: Paper C's wrong classes for this data set.
    PAIRS: ClassVar[Mapping[int, int] | None] = None
    #: Splits of the source that the data set has; None for all.
    SPLITS: ClassVar[tuple[str, ...] | None] = None

    protocol: str | None = None
    pairs: Mapping[int, int] | None = None
    human_column: str | None = None
    weak_column: str | None = None
    human_source: SourceLike | None = None
    test_source: SourceLike | None = None
    validation_source: SourceLike | None = None
    test_fraction: float | None = None
    validation_fraction: float | None = None
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

    @property
    def human_labels(self) -> str:
        """The column with the labels that people gave."""
        return self.human_column or f"human_{self.human}"

    @property
    def held(self) -> HeldRows:
        """What is held out of the train split."""
        return HeldRows(self.validation_fraction or 0.0, self.test_fraction or 0.0)

    def check_protocol(self) -> None:
        if self.human is None:
            super().check_protocol()
        elif self.protocol_kwargs:
            raise TypeError(f"protocol={self.protocol!r} takes the labels that people gave, and no protocol_kwargs")

    def check(self) -> None:
        check_names(self, "protocol", "human_column", "weak_column")
        if self.weak_column is not None:
            if self.human_column not in (None, self.weak_column):
                raise ValueError(f"human_column={self.human_column!r} and weak_column={self.weak_column!r} both name "
                                 "the given labels; leave one out")  # fmt: skip
            self.human_column = self.weak_column
        if self.human_column is not None and self.protocol is None:
            self.protocol = f"{_HUMAN}{self.human_column}"
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
        for name in ("human_source", "weak_column", "human_column"):
            if getattr(self, name) is not None and self.human is None:
                raise ValueError(f'{name}= belongs to protocol="human:<name>", got protocol={self.protocol!r}')
        if self.human is not None and (extra := self.extra_noisy_splits - {"train"}):
            raise ValueError(
                f"protocol={self.protocol!r} is known for the train split alone; leave {', '.join(sorted(extra))} out "
                "of noisy_splits"
            )
        self._check_held_out()

    def _check_held_out(self) -> None:
        for split in ("test", "validation"):
            share, place = f"{split}_fraction", f"{split}_source"
            setattr(self, share, check_share(share, getattr(self, share)))
            if getattr(self, share) and getattr(self, place) is not None:
                raise ValueError(f"give {place} or {share}, not both")
        self.held  # noqa: B018 - both shares together

    def found_splits(self) -> dict[str, tuple[Source, IterableDataset]]:
        """The splits of the data and what each is read from, looked up again each time: a file may have changed.

        Those that are held out are read from the train split.

        Raises:
            MissingSplitError: there is no train split.
            ValueError: a split is there already that an argument names or wants to be held out.
        """
        found = find_splits(self.source, self.source_config)
        if self.SPLITS is not None:
            found = {split: part for split, part in found.items() if split in self.SPLITS}
        for split in ("test", "validation"):
            place = getattr(self, f"{split}_source")
            argument = f"{split}_source" if place is not None else f"{split}_fraction"
            if split in found and (place is not None or split in self.held.splits):
                raise ValueError(f"the source {self.source_name} has a {split} split already; leave out {argument}=")
            if place is not None:
                found |= find_splits({split: place})
        if self.held and "train" not in found:
            raise MissingSplitError("train", found, self.source_name)
        return found | (dict.fromkeys(self.held.splits, found["train"]) if self.held else {})

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

    def if_noisy_already(self) -> str:
        if self.source is None:  # of these the labels are known
            return ""
        return (
            "; labels that are wrong already need none added: load them with `datasets` as they are, and train with a "
            'loss that knows no T, such as ELR, GCE, CoTeaching or transition="estimated"; or name them by '
            "weak_column= where the true ones stand beside them (column=)"
        )

    def identity(self) -> dict[str, Any]:
        changed = super().identity()
        changed.pop("weak_column", None)  # another spelling of human_column
        if self.protocol == "symmetric":
            changed.pop("protocol", None)  # in whichever way the default is spelt
        for share in ("test_fraction", "validation_fraction"):
            if not getattr(self, share):
                changed.pop(share, None)
        if self.pairs is not None:
            changed["pairs"] = sorted((int(source), int(target)) for source, target in self.pairs.items())
        if self.human is not None:
            for without_effect in ("seed", "epoch"):
                changed.pop(without_effect, None)
        for place in ("human_source", "test_source", "validation_source"):
            if getattr(self, place) is not None:
                changed[place] = source_identity(getattr(self, place))
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
