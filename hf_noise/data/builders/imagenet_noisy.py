"""`hf_noise/imagenet-noisy`: ImageNet (ILSVRC 2012) or a named subset of its classes, with noisy labels."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from datasets import ClassLabel, IterableDataset

from hf_noise.data.builder import ratio_grid
from hf_noise.data.classes import Classes
from hf_noise.data.images import NoisyImagesBuilder, NoisyImagesConfig
from hf_noise.data.kinds import holds_labels
from hf_noise.data.source_names import SourceLike
from hf_noise.data.sources import Source

logger = logging.getLogger(__name__)

_ALL = 1000
#: The ten classes of Imagenette by their number among the 1000 in the order of their WordNet ids.
IMAGENETTE: Mapping[int, str] = {
    0: "n01440764", 217: "n02102040", 482: "n02979186", 491: "n03000684", 497: "n03028079",
    566: "n03394916", 569: "n03417042", 571: "n03425413", 574: "n03445777", 701: "n03888257",
}  # fmt: skip
_EVERY = 10  # of the 1000 classes is in ImageNet-100
_WNID = re.compile(r"n\d{8}")


def imagenet_classes(classes: int) -> list[int]:
    """The classes of a subset, by their number among the 1000 in the order of their WordNet ids (that of the Hub).

    ImageNet-10 is Imagenette: tench, English springer, cassette player, chain saw, church, French horn, garbage truck,
    gas pump, golf ball, parachute. ImageNet-100 is every tenth class: 0, 10, ..., 990. The papers do not say which
    classes theirs are.

    Raises:
        ValueError: `classes` is not 10, 100 or 1000.
    """
    subsets = {10: list(IMAGENETTE), 100: list(range(0, _ALL, _EVERY)), _ALL: list(range(_ALL))}
    if isinstance(classes, bool) or not isinstance(classes, Integral) or int(classes) not in subsets:
        raise ValueError(f"classes must be 10, 100 or 1000, got {classes!r}")
    return subsets[int(classes)]


@dataclass
class ImagenetNoisyConfig(NoisyImagesConfig):
    """As `NoisyImagesConfig`. The test split of the source is left out, because its labels are not public.

    Args:
        source: all 1000 classes in the order of their WordNet ids, as on the Hub or in folders named by these ids, of
            which the subset is taken; or a source of just as many classes as `classes` says, taken whole.
        classes: 10, 100 or 1000, see `imagenet_classes`; numbered anew, in the order of their WordNet ids.
    """

    SPLITS: ClassVar[tuple[str, ...]] = ("train", "validation")

    source: SourceLike | Mapping[str, SourceLike] | None = "ILSVRC/imagenet-1k"
    classes: int = _ALL

    def check(self) -> None:
        super().check()
        self.classes = len(imagenet_classes(self.classes))


class ImagenetNoisy(NoisyImagesBuilder):
    """1.28 million and 50,000 photographs (train and validation) in 1000 classes, or those of fewer classes."""

    DESCRIPTION = """
ImageNet (ILSVRC 2012), or a subset of 10 or 100 of its classes. Labels (`label`) of the train split are noisy: replaced
at rate e = r / (1 + r) by a protocol of paper A. The true ones are in `clean_label`."""
    BUILDER_CONFIG_CLASS = ImagenetNoisyConfig
    BUILDER_CONFIGS = ratio_grid(ImagenetNoisyConfig)

    def num_classes(self) -> int:
        return self.config.classes

    def source_classes(
        self, found: Mapping[str, tuple[Source, IterableDataset]], columns: Mapping[str, str]
    ) -> Classes:
        kinds = [dataset.features[columns[split]] for split, (_, dataset) in found.items()]
        has_names = any(isinstance(kind, ClassLabel) or not holds_labels(kind) for kind in kinds)
        return self.find_classes(found, columns, self.config.LABEL_OPTION, None if has_names else _ALL)

    def choose_classes(self, names: list[str] | None, size: int) -> tuple[int, np.ndarray]:
        wanted = self.config.classes
        wnids = names is not None and all(_WNID.match(name) for name in names)
        if names is None or len(names) == _ALL:
            if wnids and (misplaced := [w for index, w in IMAGENETTE.items() if not names[index].startswith(w)]):
                raise ValueError(
                    f"the classes of {self.config.source_name} are not in the order of the 1000 WordNet ids of "
                    f"ImageNet: {misplaced[0]} is not at its place"
                )
            return _ALL, np.array(imagenet_classes(wanted))
        if len(names) != wanted:
            raise ValueError(
                f"the labels of {self.config.source_name} have {len(names)} classes; classes={wanted} takes a source "
                f"of all {_ALL} or of just those {wanted}"
            )
        if wanted == len(IMAGENETTE) and wnids and [name[:9] for name in names] != list(IMAGENETTE.values()):
            logger.warning("%s: its ten classes are not those of Imagenette; taken as they are", self.config.source)
        return wanted, np.arange(wanted)

    def told(self) -> dict[str, Any]:
        return {**super().told(), "classes": self.config.classes}
