"""Materialise a noisy data set at several rates: Parquet, one configuration per setting, with a data card.

Offline, half a minute on two cores. Add `--push_to_hub user/docs-noisy` to publish it; people load it without
hf_noise: `load_dataset("user/docs-noisy", "r0.5")`. Started again, it takes what is built already from the
cache of `datasets`; with other rates or protocols, their configurations come beside those in the folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hf_noise.data.hook import builder_names
from hf_noise.noise import rates
from hf_noise.noise.labels import LABEL_PROTOCOLS
from hf_noise.noise.mixture import PLACEMENTS
from hf_noise.noise.protocols import protocol_names
from hf_noise.studies.image_settings import CHOSEN_CLASSES, OWN_DATA
from hf_noise.studies.ranges import (
    Count,
    Name,
    NotNegative,
    Output,
    Repo,
    SeedOfNoise,
    ShareBelowOne,
    ShareInside,
    TwoOrMore,
)  # fmt: skip
from hf_noise.studies.reading import source_of
from hf_noise.studies.settings import CommandSettings, SettingError, parse, setting

# Whose noise needs a teacher, which no setting here names.
_OF_PAIRS = ("hf_noise/cnn-dailymail-noisy", "hf_noise/docs-pairs-noisy", "hf_noise/wmt14-noisy")
BUILDERS = [name for name in builder_names() if name not in _OF_PAIRS]
# Whose rows have no noise but documents of it.
PACKED = "hf_noise/packed"
TEXT_BUILDERS = ("hf_noise/docs-noisy", "hf_noise/owt-noisy", PACKED)
DOCUMENTS, TOKENS = protocol_names("documents"), protocol_names("tokens")
SOURCES = ("source", "test_source", "human_source")
OF_TEXT = ("tokenizer", "block_size", "text_column", "documents")
OF_LABELS = (
    "test_source", "human_source", "human_column", "test_fraction", "classes", "column", "image_column", "image_size",
    "resize",
)  # fmt: skip
DEFAULT_RATIOS = [0.0, 0.1, 0.3, 0.5, 1.0]
DEFAULT_ALPHAS = [0.0, 0.01, 0.05, 0.2]  # paper B's


@dataclass
class Settings(CommandSettings):
    """Settings of publishing; `complete` makes lists of rates that are drawn, without doubles."""

    usual: ClassVar = ("name", "ratios")

    name: str = setting("hf_noise/docs-noisy", "a builder of noisy data", group="data", choices=BUILDERS)
    ratios: list[NotNegative] = setting(
        [], "r, noisy per clean unit (default: 0 0.1 0.3 0.5 1)", group="noise and loss"
    )
    protocol: list[str] = setting(
        [], "of labels: symmetric, cyclic, ..., human:<name> (no ratio); of text: random-documents, ... (--alpha)",
        group="noise and loss",
    )  # fmt: skip
    alpha: list[ShareBelowOne] = setting(
        [], "of documents of noise: their share of the mixture (default: 0 0.01 0.05 0.2)", group="noise and loss"
    )
    placement: str | None = setting(
        None, "of documents of noise: where they stand (default: append)", group="noise and loss",
        choices=list(PLACEMENTS),
    )  # fmt: skip
    output: Output = setting(None, "folder to write, new or of this recipe (default: runs/<name>)", group="study")
    source: Name | None = setting(None, "local file, glob, folder or Hub id (default: the builder's)", group="data")
    column: Name | None = setting(None, "of labels: their column in the source (default: label)", group="data")
    image_column: Name | None = setting(None, "of images: their column in the source", group="data")
    text_column: Name | None = setting(None, "of text: its column in the source (default: text)", group="data")
    documents: str | None = setting(
        None, "of .txt and .md: what is one document (default: file)", group="data",
        choices=["file", "line", "paragraph"],
    )  # fmt: skip
    image_size: Count | None = setting(None, "of images: pixels to resize to, with --resize", group="data")
    resize: bool = setting(False, "of images: resize them to --image_size", group="data")
    test_fraction: ShareInside | None = setting(None, "of labels: share held out for a test split", group="data")
    human_column: Name | None = setting(None, "of labels: the column of those of people", group="data")
    test_source: Name | None = setting(
        None, "of labels: where the test split is, if not in the source", group="data"
    )
    human_source: Name | None = setting(
        None, "of labels: where the labels of people are, if not in the source", group="data"
    )
    classes: Count | None = setting(None, "10, 100 or 1000 classes of ImageNet", group="data")
    tokenizer: Name | None = setting(
        None, "of text: name or folder of a tokenizer (default: the builder's)", group="data"
    )
    block_size: TwoOrMore | None = setting(None, "of text: tokens per row (default: the builder's)", group="data")
    seed: SeedOfNoise = setting(0, "of the noise", group="noise and loss")
    num_proc: Count | None = setting(
        None, "processes that build; the result is the same for any number", group="machine"
    )
    license: Name | None = setting(None, "Hub id of the licence of the source, such as cc0-1.0", group="Hub")
    language: Name | None = setting(None, "language of the source, such as en", group="Hub")
    push_to_hub: Repo | None = setting(None, "owner/name of a data set on the Hub", group="Hub")
    private: bool = setting(False, "make the repository private if it is new", group="Hub")

    @property
    def folder(self) -> Path:
        return Path(self.output)

    def complete(self) -> None:
        self.output = self.output or str(Path("runs", self.name.split("/")[1]))
        is_text = self.name in TEXT_BUILDERS
        self._check_noise(is_text)
        if foreign := [one for one in (OF_LABELS if is_text else OF_TEXT) if getattr(self, one)]:
            raise SettingError(f"--{foreign[0]} {getattr(self, foreign[0])}: {self.name} is of "
                               f"{'text' if is_text else 'labels'} and has no such setting")  # fmt: skip
        if self.name == OWN_DATA and self.source is None:
            raise SettingError(f"--name {OWN_DATA} needs --source: what is to become noisy")
        if self.resize != (self.image_size is not None):
            raise SettingError("--image_size and --resize go together: the pixels to resize to")
        if self.classes is not None and self.name != CHOSEN_CLASSES:
            raise SettingError(
                f"--classes {self.classes}: only {CHOSEN_CLASSES} has classes to choose from, {self.name} has its own"
            )
        if self.is_of_documents:
            self.alpha = [rates.check_alpha(alpha) for alpha in dict.fromkeys(self.alpha or DEFAULT_ALPHAS)]
            return
        ratios = dict.fromkeys(self.ratios or DEFAULT_RATIOS)
        self.ratios = [rates.check_ratio(ratio) for ratio in ratios] if drawn_protocols(self) else []

    @property
    def is_of_documents(self) -> bool:
        """Whether the noise is documents of it."""
        return bool(self.protocol) and self.protocol[0] in DOCUMENTS

    def _check_noise(self, is_text: bool) -> None:
        """Spell the protocols in one way; SettingError unless they are of one kind, and with the rates of that."""
        drawn = drawn_protocols(self)
        if is_text:
            self.protocol = [one.replace("_", "-") for one in self.protocol]
            known, others = [*TOKENS, *DOCUMENTS], sorted(set(self.protocol) - {*TOKENS, *DOCUMENTS})
        else:
            known, others = [*LABEL_PROTOCOLS, "human:<name>"], sorted(set(drawn) - {None, *LABEL_PROTOCOLS})
        if others:
            what = "text" if is_text else "labels"
            raise SettingError(f"unknown --protocol {others[0]}; {self.name} is of {what}: {', '.join(known)}")
        if len({one in DOCUMENTS for one in self.protocol}) > 1:
            raise SettingError(f"--protocol {' '.join(self.protocol)}: noise on targets and documents of noise have "
                               "different columns; write them to two folders")  # fmt: skip
        if self.name == PACKED and not self.is_of_documents:
            raise SettingError(f"{PACKED} has clean rows, or documents of noise among them; give --protocol "
                               "random-documents, or another --name")  # fmt: skip
        if self.ratios and not drawn:
            raise SettingError("--ratios: the labels of people have the rate that they have; leave it out")
        if self.ratios and self.is_of_documents:
            raise SettingError(f"--ratios: the share of {self.protocol[0]} is --alpha, in [0, 1)")
        for name in ("alpha", "placement"):
            if getattr(self, name) and not self.is_of_documents:
                raise SettingError(f"--{name} is for documents of noise: --protocol {' or '.join(DOCUMENTS)}")


def options_of(settings: Settings) -> dict[str, Any]:
    """Arguments of the builder, those that are set, under its names."""
    told = {name: source_of(getattr(settings, name)) for name in SOURCES}
    told |= {name: getattr(settings, name) or None for name in (*OF_TEXT, *OF_LABELS) if name not in SOURCES}
    if settings.name == OWN_DATA:
        told["column"] = settings.column or "label"
    else:
        told["label_column"] = told.pop("column")
    return {name: value for name, value in told.items() if value is not None}


def drawn_protocols(settings: Settings) -> list[str | None]:
    """The protocols that take a ratio; None is the builder's own."""
    return [p for p in dict.fromkeys(settings.protocol or [None]) if p is None or not p.startswith("human:")]


def noises_of(settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and noise of each configuration; of several drawn protocols, all but the first stand in the names."""
    drawn = drawn_protocols(settings)
    if settings.is_of_documents:
        placed = {"protocol_kwargs": {"placement": settings.placement}} if settings.placement else {}
        for protocol in drawn:
            for alpha in settings.alpha:
                if protocol == drawn[0] or alpha:  # rows without noise are the same for all
                    name = f"alpha{alpha}" if protocol == drawn[0] else f"{protocol}-alpha{alpha}"
                    yield name, {"protocol": protocol, "alpha": alpha, "seed": settings.seed, **placed}
        return
    for protocol in drawn:
        chosen = {"protocol": protocol} if protocol else {}
        for ratio in settings.ratios:
            if protocol == drawn[0]:
                yield f"r{ratio}", {"r": ratio, "seed": settings.seed, **chosen}
            elif ratio:  # rows without noise are the same for all
                yield f"{protocol}-r{ratio}", {"r": ratio, "seed": settings.seed, **chosen}
    for protocol in dict.fromkeys(settings.protocol or []):
        if protocol not in drawn:
            yield protocol.replace(":", "-"), {"protocol": protocol}


def main(argv: Sequence[str] | None = None) -> Path | None:
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    noises = dict(noises_of(settings))
    print(f"{settings.name} -> {settings.folder}, seed {settings.seed}")
    for name, noise in noises.items():
        rate = noise["alpha"] if "alpha" in noise else rates.error_rate(noise["r"]) if "r" in noise else None
        print(f"  {name:<14} " + ("e as it is" if rate is None else f"e = {rate:.4f}"))
    from hf_noise.studies.publishing.run import check_folder, publish

    earlier = check_folder(settings.folder, settings.name)
    return None if settings.dry_run else publish(settings, noises, earlier)
