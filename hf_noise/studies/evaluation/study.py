"""Generated images against the classes they were asked for: label consistency, distances to real images, CAS.

`--images` are folders of `sample_edm.py`, or any with a `metadata.jsonl` ({"file_name": ..., "label": ...} for each
image), or .npz files with `images` uint8 [N, H, W, C] and `labels`. What `--pipeline` names is drawn by `sample_edm.py`
first. A judge that is not given is trained, on clean images. CAS trains a network like the judge's unless `--cas_model`
names another; paper C takes `--cas_model resnet50`. Every set has a folder with its `record.json`; started again, the
recipe skips what is finished. Without Inception's weights, distances are in the judge's features, and are called so:
FID is that of Inception alone, with the weights that pytorch-fid publishes as a .pth file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import timm

from hf_noise.metrics import find_inception_weights, inception_name, mixture_reference
from hf_noise.models.image import SMALL
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.classifier.run import Data
from hf_noise.studies.classifier.study import parse as classifier_settings
from hf_noise.studies.engine import check_model, parse_scaled
from hf_noise.studies.evaluation.report import evaluation_table
from hf_noise.studies.evaluation.run import evaluate
from hf_noise.studies.evaluation.sets import image_sets
from hf_noise.studies.judging import judge_training
from hf_noise.studies.ranges import Count, DataName, Name, Output, Positive, Seed, TwoOrMore

SCALES: dict[str, dict] = {
    "demo": dict(output="runs/evaluation-demo", data="hf_noise/digits-noisy", num_images=1000),
    "gpu": dict(output="runs/evaluation-gpu", data="hf_noise/cifar10-noisy", num_images=10_000),
    "paper": dict(output="runs/evaluation-paper", data="hf_noise/cifar10-noisy", num_images=50_000),
}


@dataclass
class Settings:
    """Settings of the evaluation; the judge's training is that of `classifier_noise.py` at the same scale."""

    scale: str = field(default="demo", metadata={"help": "demo | gpu | paper", "choices": list(SCALES)})
    output: Output = field(default=None, metadata={"help": "folder of the evaluation"})
    images: list[Output] = field(default_factory=list, metadata={"help": "folders or .npz files of generated images"})
    pipeline: list[Name] = field(default_factory=list, metadata={"help": "EDM pipelines to draw images from first"})
    num_images: TwoOrMore = field(default=None, metadata={"help": "images per pipeline, as many of every class"})
    steps: Count = field(default=18, metadata={"help": "sampling steps of a pipeline"})
    data: DataName = field(default=None, metadata={"help": "real images: hf_noise/digits-noisy, cifar10-noisy, ..."})
    source: Name | None = field(default=None, metadata={"help": "Parquet, image folder or Hub data set instead"})
    test_source: Name | None = field(default=None, metadata={"help": "test images, if the source has none"})
    classes: Count | None = field(default=None, metadata={"help": "10, 100 or 1000 classes of ImageNet"})
    train_rows: Count | None = field(default=None, metadata={"help": "how many of the real images; all if not set"})
    test_rows: Count | None = field(default=None, metadata={"help": "how many of the test images; all if not set"})
    image_size: Count | None = field(default=None, metadata={"help": "pixels; smaller real images get zeros around"})
    judge: Name | None = field(default=None, metadata={"help": "classifier, folder or Hub id; trained if not given"})
    judge_model: Name | None = field(default=None, metadata={"help": "network of the judge, if trained here"})
    judge_epochs: Positive | None = field(default=None, metadata={"help": "passes of the judge and of CAS over images"})
    inception: Name | None = field(default=None, metadata={"help": "its weights: file, folder, Hub id, or `none`"})
    k: Count = field(default=5, metadata={"help": "neighbours of density and coverage"})
    splits: Count = field(default=10, metadata={"help": "of the inception score"})
    cas: bool = field(default=True, metadata={"help": "train a classifier on the generated images, test it on real"})
    cas_model: Name | None = field(default=None, metadata={"help": "network of CAS, ours or timm's (resnet50)"})
    batch_size: Count = field(default=256, metadata={"help": "images per forward pass and process"})
    seed: Seed = field(default=0, metadata={"help": "of the judge, of CAS and of sampling"})
    num_processes: Count | None = field(default=None, metadata={"help": "stop unless so many processes work together"})
    dry_run: bool = field(default=False, metadata={"help": "print settings and what would be measured, then stop"})


def parse(argv: list[str] | None = None) -> Settings:
    parser, settings = parse_scaled(Settings, SCALES, argv, __doc__.split("\n\n")[0], one_or_more=())
    if not settings.images and not settings.pipeline:
        parser.error("nothing to evaluate; name --images or a --pipeline")
    if settings.cas_model not in (None, *SMALL) and not timm.is_model(settings.cas_model):
        parser.error(f"unknown --cas_model {settings.cas_model}; known: {', '.join(SMALL)}, timm.list_models()")
    check_model(parser, "judge", settings.judge)
    return settings


def classifier_of(settings: Settings):
    """Settings of `classifier_noise.py` for the judge: one run on clean labels."""
    given = {
        "scale": settings.scale, "output": f"{settings.output}/judge", "data": settings.data, "ratio": 0,
        "seed": settings.seed, "source": settings.source, "test_source": settings.test_source,
        "classes": settings.classes, "train_rows": settings.train_rows, "test_rows": settings.test_rows,
        "image_size": settings.image_size,
        "model": settings.judge_model, "epochs": settings.judge_epochs, "num_processes": settings.num_processes,
    }  # fmt: skip
    return classifier_settings([f"--{name}={value}" for name, value in given.items() if value is not None])


def in_words(weights: Path | None) -> str:
    """What the distances will be called."""
    if weights is None:
        return "judge features"
    name = inception_name(weights)
    return "Inception features (FID)" if name == "Inception" else f"{name}, which are not those of FID"


def main(argv: list[str] | None = None) -> None:
    settings = parse(argv)
    classifier, sets = classifier_of(settings), image_sets(settings)
    weights = None if settings.inception == "none" else find_inception_weights(settings.inception)
    if settings.dry_run:
        print(json.dumps(asdict(settings), indent=2))
        run, plan = judge_training(classifier, Data.rows(classifier))
        trained = f"{classifier.model}, {plan.steps:,} steps x {plan.batch_size}, seed {run.seed}"
        print(f"judge: {settings.judge or trained}")
        print(f"distances in: {in_words(weights)}")
        for images in sets:
            print(f"{images.name}: {images.describe()}")
        return
    if evaluate(settings, classifier, sets, weights):
        records = [record for record in read_records(settings.output) if isinstance(record, RunRecord)]
        print(evaluation_table(records, reference=mixture_reference))
