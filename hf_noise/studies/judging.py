"""The judge of generated images: a classifier trained on clean labels, and what it says of images and of itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedConfig,
)

import hf_noise.models.image  # noqa: F401  teaches transformers the judge's network
from hf_noise.metrics import (
    Extractor,
    accuracy,
    classwise_frechet,
    judge_extractor,
    label_consistency,
    metric_name,
)
from hf_noise.models.loading import load_whole
from hf_noise.reports.record import RunRecord
from hf_noise.studies.classifier.study import STUDY, Settings, clean_run
from hf_noise.studies.engine import train, with_interval
from hf_noise.studies.images import ImageData
from hf_noise.studies.reading import find_judge, reading


def trained_judge(settings: Settings, data: ImageData) -> str:
    """Folder of the judge with these settings; trained now on clean labels unless it is there."""
    run = clean_run(settings)
    train(STUDY, settings, [run], [STUDY.plan(settings, run, data.train_rows)], replace(data, settings=settings))
    return str(Path(settings.output) / run.name)


def check_rows(name: str, data: ImageData) -> None:
    """Refuse a judge that was trained on images which are held out here, by what its record says. Raises ValueError."""
    record = Path(name) / "record.json"
    if not record.is_file():
        return
    theirs = RunRecord.from_json(record.read_text(encoding="utf-8")).settings
    ours = asdict(data.settings)
    names = ("data", "source", "test_source", "test_fraction")
    told = {one: (theirs.get(one), ours.get(one)) for one in names}
    if all(one == other for one, other in (told["data"], told["source"])) and (
        odd := [one for one in names if told[one][0] != told[one][1]]
    ):
        theirs, ours = told[odd[0]]
        raise ValueError(
            f"the judge {name} was trained with --{odd[0]} {theirs}, this run has {ours}: it has seen images that are "
            "held out here, and would look better than it is; use the same, or leave --judge out"
        )


def load_judge(name: str, data: ImageData, device: torch.device) -> Extractor:
    """The judge as an extractor; safetensors only, all weights or none, and no code of its repository is run.

    Raises:
        OSError: it cannot be read, or has no safetensors.
        ValueError: it lacks weights, needs code of its own, or was trained on other classes, sizes or channels than the
            data have.
    """
    name = find_judge(name)
    check_rows(name, data)
    with reading("the judge", name):
        check_kind(name)
        # False, because None asks at the terminal whether to run what the repository brings.
        model = load_whole(
            AutoModelForImageClassification.from_pretrained, name, use_safetensors=True, trust_remote_code=False
        )
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    known = [model.config.id2label[i] for i in range(model.config.num_labels)]
    if known != data.classes and (len(known) != len(data.classes) or not known[0].startswith("LABEL_")):
        raise ValueError(f"the judge {name} tells {len(known)} classes ({known[0]}, ...), the data {len(data.classes)} "
                         f"({data.classes[0]}, ...); use one that was trained on these data")  # fmt: skip
    channels = getattr(model.config, "num_channels", None) or len(processor.image_mean)
    kind = getattr(model.config, "architecture", None) or network_name(name)
    statistics = {"mean": processor.image_mean[:channels], "std": processor.image_std[:channels]}
    judge = judge_extractor(model, name=kind, **statistics, device=device)
    if judge.image_size not in (None, data.image_size) or data.num_channels not in (1, judge.num_channels):
        size = data.image_size if judge.image_size is None else judge.image_size
        raise ValueError(f"the judge {name} takes {size} x {size} pixels in {judge.num_channels} channels, the data "
                         f"have {data.image_size} x {data.image_size} in {data.num_channels}; use one that was trained "
                         "on these data, or set --image_size")  # fmt: skip
    return judge


def check_kind(name: str) -> None:
    """Raises ValueError unless this is a classifier of images that transformers knows."""
    told, _ = PreTrainedConfig.get_config_dict(name)
    known = {kind.model_type for kind in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING}
    kind = told.get("model_type")
    if kind not in known and "auto_map" not in told:  # code of its own is refused when it is loaded
        raise ValueError(f"the judge {name} is no classifier of images (its config.json says model_type {kind!r}); "
                         "give the folder of a run of classifier_noise.py, or one of transformers")  # fmt: skip


def network_name(folder: str) -> str:
    """What a judge's record calls its network; the name of its folder without a record."""
    record = Path(folder) / "record.json"
    if record.is_file():
        return RunRecord.from_json(record.read_text(encoding="utf-8")).model["name"]
    return Path(folder).name


def consistency(judged: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Share of images that the judge gives the class they were asked for, with its interval, and that of each class."""
    found = label_consistency(judged, labels, num_classes=len(classes))
    per_class = zip(classes, found["per_class"]["label_consistency"])
    return with_interval(found, "label_consistency") | {
        "per_class": {name: float(value) for name, value in per_class if np.isfinite(value)}
    }


def accuracy_of_judge(judge: Extractor, judged: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict:
    """Share of the real test images that the judge gets right, with its interval."""
    return with_interval(accuracy(judged, labels, num_classes=len(classes)), "accuracy") | {"judge": judge.name}


def measured(metric: str, value: float, n: int, extractor: Extractor, **extra: Any) -> dict[str, Any]:
    """A record's entry for a metric of features: its figure, its name, and which weights gave the features."""
    whose = {"name": metric_name(metric, extractor), "features": extractor.name, "weights": extractor.weights}
    return {"value": value, "n": n, **whose, **extra}


def classwise_distance(
    real: np.ndarray, real_labels: ArrayLike, fake: np.ndarray, fake_labels: ArrayLike, classes: Sequence[str],
    extractor: Extractor,
) -> dict[str, Any] | None:  # fmt: skip
    """A record's entry for the class-wise Frechet distance, CW-FID of Inception.

    Args:
        real, fake: features, float [N, D] and [M, D].
        real_labels, fake_labels: integers [N], the clean classes, and [M], those that were asked for.
        classes: names of all classes, whether or not there are images of them.
        extractor: what the features are of.

    Returns:
        {"value", "n": M, "name", "features", "weights", "per_class": {name: distance}, "smallest_class": images of the
        class that has fewest, on either side}; None where a class has fewer than two of either.

    Warns:
        UserWarning: a class has no more images than there are features, or too few to measure; it says how many.
    """
    if not enough("class-wise Frechet distance", real_labels, fake_labels, classes, 2, 2):
        return None
    found = classwise_frechet(real, real_labels, fake, fake_labels)
    return measured(
        "classwise_frechet", found["classwise_frechet"], found["n"], extractor,
        per_class={classes[c]: value for c, value in found["per_class"].items()},
        smallest_class=min(*found["n_real"].values(), *found["n_fake"].values()),
    )  # fmt: skip


def enough(
    what: str, real_labels: ArrayLike, fake_labels: ArrayLike, classes: Sequence[str], real: int, fake: int
) -> bool:
    """Whether each class has so many real and generated images; warns which one has too few."""
    for side, labels, needed in (("real", real_labels, real), ("generated", fake_labels, fake)):
        counts = np.bincount(np.asarray(labels), minlength=len(classes))
        fewest = int(counts.argmin())
        if counts[fewest] < needed:
            warnings.warn(f"no {what}: class {fewest} ({classes[fewest]}) has {counts[fewest]} {side} images, at least "
                          f"{needed} of every class are needed", stacklevel=3)  # fmt: skip
            return False
    return True
