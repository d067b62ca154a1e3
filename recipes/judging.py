"""The judge of generated images: a classifier trained on clean labels, and what it says of images and of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classifier_noise import plan_of
from classifier_noise_run import Data, Run
from study import reading
from transformers import AutoImageProcessor, AutoModelForImageClassification

import hf_noise.models.image  # noqa: F401  teaches transformers the judge's network
from hf_noise.metrics import Extractor, accuracy, judge_extractor, label_consistency
from hf_noise.reports.record import RunRecord


def judge_training(classifier: Any):
    """The one run that trains the judge, and its steps and batch."""
    run = Run(0.0, "none", "nll", classifier.plan[0], classifier.seed[0])
    return run, plan_of(classifier, run, Data.rows(classifier))


def load_judge(name: str, data: Data, device: torch.device) -> Extractor:
    """The judge as an extractor. Raises ValueError: it knows other classes than the data."""
    with reading("the judge", name):
        model = AutoModelForImageClassification.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name)
    known = [model.config.id2label[i] for i in range(model.config.num_labels)]
    if known != data.classes and (len(known) != len(data.classes) or not known[0].startswith("LABEL_")):
        raise ValueError(f"the judge {name} tells {len(known)} classes ({known[0]}, ...), the data {len(data.classes)} "
                         f"({data.classes[0]}, ...); use one that was trained on these data")  # fmt: skip
    channels = getattr(model.config, "num_channels", None) or len(processor.image_mean)
    kind = getattr(model.config, "architecture", None) or network_name(name)
    statistics = {"mean": processor.image_mean[:channels], "std": processor.image_std[:channels]}
    return judge_extractor(model, name=kind, **statistics, device=device)


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


def with_interval(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A record's entry for what `hf_noise.metrics` found out about so many images."""
    return {"value": found[name]} | {key: found[key] for key in ("low", "high", "n")}
