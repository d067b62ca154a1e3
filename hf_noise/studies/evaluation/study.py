"""Generated images against the classes they were asked for: label consistency, distances to real images, CAS.

`--images` are folders of `sample_edm.py`, or any with a `metadata.jsonl` ({"file_name": ..., "label": ...} for each
image), or .npz files with `images` uint8 [N, H, W, C] and `labels`. What `--pipeline` names is drawn by `sample_edm.py`
first. A judge that is not given is trained, on clean images. CAS trains a network like the judge's unless `--cas_model`
names another; paper C takes `--cas_model resnet50`. Every set has a folder with its `record.json`; started again, the
study skips what is finished. Without Inception's weights, distances are in the judge's features, and are called so:
FID is that of Inception alone, with the weights that pytorch-fid publishes as a .pth file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from hf_noise.studies.classifier import study as judges
from hf_noise.studies.image_settings import DATA, DataSettings, elsewhere, knows_rows, shared, train_rows_of
from hf_noise.studies.ranges import Count, Name, Output, Positive, Seed, TwoOrMore
from hf_noise.studies.reading import check_judge
from hf_noise.studies.settings import SettingError, StudySettings, at_scale, parse, setting

SCALES: dict[str, dict] = {
    "demo": dict(output="runs/evaluation-demo", data="hf_noise/digits-noisy", num_images=1000),
    "gpu": dict(output="runs/evaluation-gpu", data="hf_noise/cifar10-noisy", num_images=10_000),
    "paper": dict(output="runs/evaluation-paper", data="hf_noise/cifar10-noisy", num_images=50_000),
}


@dataclass
class Settings(DataSettings, StudySettings):
    """Settings of the evaluation; the judge's training is that of the classifier study at the same scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ()
    usual: ClassVar = ("images", "pipeline", "num_images")

    seed: Seed = setting(0, "of the judge, of CAS and of sampling", group="study")
    images: list[Output] = setting(
        [], "folders or .npz files of generated images", group="study", in_result=False
    )
    pipeline: list[Name] = setting(
        [], "EDM pipelines to draw images from first", group="study", in_result=False
    )
    num_images: TwoOrMore = setting(
        None, "images per pipeline, as many of every class", group="measurement", in_result=False
    )
    steps: Count = setting(18, "sampling steps of a pipeline", group="measurement", in_result=False)
    # Judge and Inception stand in a claim with their weights, whatever they are called.
    judge: Name | None = setting(
        None, "classifier, folder or Hub id, or a study's folder; trained if not given", group="measurement",
        in_result=False,
    )  # fmt: skip
    judge_model: Name | None = setting(None, "network of the judge, if trained here", group="measurement")
    judge_epochs: Positive | None = setting(
        None, "passes of the judge and of CAS over images", group="measurement"
    )
    inception: Name | None = setting(
        None, "its weights: file, folder, Hub id, or `none`", group="measurement", in_result=False
    )
    k: Count = setting(5, "neighbours of density and coverage", group="measurement")
    splits: Count = setting(10, "of the inception score", group="measurement")
    cas: bool = setting(True, "train a classifier on the generated images, test it on real", group="measurement")
    cas_model: Name | None = setting(None, "network of CAS, ours or timm's (resnet50)", group="measurement")
    batch_size: Count = setting(256, "images per forward pass and process", group="machine", in_result=False)

    def complete(self) -> None:
        self.check_data()
        if not self.images and not self.pipeline:
            raise SettingError("nothing to evaluate; name --images or a --pipeline")
        for flag in ("cas_model", "judge_model"):
            if getattr(self, flag) is not None:
                judges.check_network(getattr(self, flag), flag)
        check_judge(self.judge)


def judge_of(settings: Settings) -> judges.Settings:
    """Settings of the judge: one run on clean labels."""
    return at_scale(
        judges.Settings, settings.scale, output=f"{settings.output}/judge", ratio=[0.0], seed=[settings.seed],
        model=settings.judge_model, epochs=settings.judge_epochs, **shared(settings, *DATA, "num_processes"),
    )  # fmt: skip


def in_words(weights: Path | None) -> str:
    """What the distances will be called."""
    from hf_noise.metrics import inception_name

    if weights is None:
        return "judge features"
    name = inception_name(weights)
    return "Inception features (FID)" if name == "Inception" else f"{name}, which are not those of FID"


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    from hf_noise.metrics import find_inception_weights
    from hf_noise.studies.evaluation.sets import image_sets

    judge, sets = judge_of(settings), image_sets(settings)
    weights = None if settings.inception == "none" else find_inception_weights(settings.inception)
    if settings.dry_run:
        print(json.dumps(asdict(settings), indent=2))
        trained = f"{judge.model}, {judge.epochs:g} epochs, seed {judge.seed[0]}"
        if elsewhere(settings) is None or knows_rows(settings):
            plan = judges.STUDY.plan(judge, judges.clean_run(judge), train_rows_of(judge))
            trained = f"{judge.model}, {plan.steps:,} steps x {plan.batch_size}, seed {judge.seed[0]}"
        print(f"judge: {settings.judge or trained}")
        print(f"distances in: {in_words(weights)}")
        for images in sets:
            print(f"{images.name}: {images.describe()}")
        if (name := elsewhere(settings)) is not None:
            print(f"data: {name} on the Hub, which a run downloads; a dry run looks at data of this machine")
            return
        from hf_noise.studies.evaluation.run import look

        look(settings, judge, sets)
        return
    from hf_noise.studies.evaluation.report import show
    from hf_noise.studies.evaluation.run import evaluate

    if evaluate(settings, judge, sets, weights):
        print(show(settings))
