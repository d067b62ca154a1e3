"""What `evaluate_generation.py` does with each set of images: read or draw, look at with the judge, measure, record."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from scipy.special import softmax
from torch import Tensor

from hf_noise.metrics import (
    Extractor,
    FeatureStatistics,
    classwise_density_coverage,
    density_coverage,
    frechet_distance,
    inception_extractor,
    inception_score,
)
from hf_noise.reports.record import RunRecord
from hf_noise.studies import engine
from hf_noise.studies.classifier import study as judges
from hf_noise.studies.engine import with_interval
from hf_noise.studies.evaluation.report import METRIC_KEYS, REAL, TASK
from hf_noise.studies.evaluation.sets import ImageSet, check_content, check_pipeline, content_of, draw, read
from hf_noise.studies.evaluation.study import Settings
from hf_noise.studies.images import ImageData, describe_images
from hf_noise.studies.judging import (
    accuracy_of_judge,
    classwise_distance,
    consistency,
    enough,
    load_judge,
    measured,
    trained_judge,
)
from hf_noise.trainers.folders import claimed, refuse_other
from hf_noise.trainers.images import DeviceImages


@dataclass(frozen=True)
class Looked:
    """What the networks see in images: arrays of N rows, and the statistics of the features."""

    labels: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray  # of the network that gives the features
    judged: np.ndarray  # classes that the judge sees
    statistics: FeatureStatistics


def evaluate(settings: Settings, judged_by: judges.Settings, sets: Sequence[ImageSet], weights: Path | None) -> bool:
    """Measure all sets that have no record yet; returns whether this is the main process.

    All that can be refused is, before a judge is trained or an image drawn.

    Args:
        judged_by: settings of the judge and of CAS.
        weights: of Inception; None for distances in the judge's features.
    """
    args = engine.world_of(settings)
    accelerator = Accelerator(cpu=args.use_cpu)
    data = ImageData.load(judged_by, args)
    if settings.k >= data.train_rows:
        raise ValueError(f"--k must be below {data.train_rows}, the number of real images, got {settings.k}")
    inception = None if weights is None else inception_extractor(weights, device=accelerator.device)
    judge = None if settings.judge is None else load_judge(settings.judge, data, accelerator.device)
    sets = [ImageSet(REAL), *sets]
    ignored = {one.name for one in fields(settings) if not one.metadata["in_result"]}
    common = {name: value for name, value in asdict(settings).items() if name not in ignored}
    claims = {images.name: common | check(settings, images, data, accelerator) for images in sets}
    for name, claim in claims.items():
        refuse_other(Path(settings.output) / name, claim)
    if judge is None:
        folder = trained_judge(judged_by, data)
        accelerator.wait_for_everyone()
        judge = load_judge(folder, data, accelerator.device)
    evaluation = Evaluation(settings, judged_by, data, accelerator, judge, inception or judge)
    whose = {"judge_weights": judge.weights, "feature_weights": evaluation.extractor.weights}
    for images in sets:
        folder = Path(settings.output) / images.name
        with claimed(folder, claims[images.name] | whose, is_main=accelerator.is_main_process):
            accelerator.wait_for_everyone()
            content = claims[images.name].get("content") or draw(settings, images, accelerator)
            if (folder / "record.json").exists():
                check_content(folder, content)
            else:
                evaluation.record(images, folder, content)
            accelerator.wait_for_everyone()
    return accelerator.is_main_process


def look(settings: Settings, judged_by: judges.Settings, sets: Sequence[ImageSet]) -> None:
    """For a dry run: print what the real images are; refuse sets that are not like them."""
    with tempfile.TemporaryDirectory(prefix="hf_noise-dry-run-") as folder:
        args = engine.world_of(replace(settings, output=folder))
    data = ImageData.load(judged_by, args)
    for line in describe_images(data):
        print(line)
    for images in sets:
        check(settings, images, data, Accelerator(cpu=args.use_cpu))


class Evaluation:
    """What all sets are measured by; the real images are looked at once, when the first set needs it."""

    def __init__(
        self, settings: Settings, judged_by: judges.Settings, data: ImageData, accelerator: Accelerator,
        judge: Extractor, extractor: Extractor,
    ):  # fmt: skip
        self.settings, self.judged_by, self.data = settings, judged_by, data
        self.accelerator, self.judge, self.extractor = accelerator, judge, extractor
        self.look = Looker(accelerator, judge, extractor, settings.batch_size)

    @cached_property
    def real(self) -> Looked:
        """The real training images."""
        return self.look(self.data.train_images.images, self.data.train_images.columns["labels"])

    @cached_property
    def test(self) -> Looked:
        """The real test images."""
        return self.look(self.data.test.images, self.data.test.columns["labels"])

    def record(self, images: ImageSet, folder: Path, content: str) -> None:
        """Measure a set and write its record."""
        started, settings, data = time.perf_counter(), self.settings, self.data
        real, test = self.real, self.test
        pixels, labels, noise = read(settings, images, data)
        fake = test if images.name == REAL else self.look(pixels, labels)
        is_main = self.accelerator.is_main_process
        metrics = measure(settings, data, real, fake, self.extractor) if is_main else {}
        if settings.cas and images.name != REAL:
            metrics |= self.accuracy_of_cas(images, pixels, labels, folder, content)
        if not is_main:
            return
        by_judge = accuracy_of_judge(self.judge, test.judged, test.labels, data.classes)
        metrics["judge_test_accuracy"] = by_judge | {"weights": self.judge.weights}
        of_data = {("real_rows" if name == "train_rows" else name): value for name, value in data.to_dict().items()}
        RunRecord(
            name=images.name, task=TASK, recipe="recipes/evaluate_generation.py", seed=settings.seed,
            settings=asdict(settings), model={"name": images.pipeline or images.path or REAL}, noise=noise,
            data={name: value for name, value in of_data.items() if name != "test_rows"} | {"content": content},
            budget={"images": len(fake.labels), "processes": self.accelerator.num_processes}, loss={"name": "none"},
            metrics=metrics, wall_seconds=time.perf_counter() - started,
        ).write(folder / "record.json")  # fmt: skip

    def accuracy_of_cas(
        self, images: ImageSet, pixels: Tensor, labels: Tensor, folder: Path, content: str
    ) -> dict[str, dict]:
        """Classification accuracy score (Ravuri and Vinyals 2019): trained on generated images, tested on real ones."""
        # Of fewer images than a step of the judge's takes, each step takes all.
        settings = replace(self.judged_by, model=self.settings.cas_model or self.judged_by.model,
                           batch_size=min(self.judged_by.batch_size, len(pixels)))  # fmt: skip
        run, folder = judges.clean_run(settings), folder / "cas"
        own = {"model": settings.model, "epochs": settings.epochs, "seed": run.seed, "content": content}
        with claimed(folder, own, is_main=self.accelerator.is_main_process):
            self.accelerator.wait_for_everyone()
            if not (folder / "record.json").exists():
                columns = {"labels": labels.long(), "sample_id": torch.arange(len(labels))}
                rows = DeviceImages(
                    pixels, columns, device=self.data.device, mean=self.data.mean, std=self.data.std
                )
                generated = replace(
                    self.data, settings=settings, train_images=rows, train_rows=len(rows),
                    source=f"generated images: {images.name}",
                )  # fmt: skip
                plan = judges.STUDY.plan(settings, run, len(pixels))
                engine.make(engine.Job(judges.STUDY, settings, run, plan, folder, generated, f"CAS {images.name}"))
        record = RunRecord.from_json((folder / "record.json").read_text(encoding="utf-8"))
        test = record.metrics["test_accuracy"]
        return {"cas": with_interval(test, "value") | {"name": f"CAS ({settings.model})"}}


def check(settings: Settings, images: ImageSet, data: ImageData, accelerator: Accelerator) -> dict[str, Any]:
    """Read or look up what a set holds; returns what its figures depend on, as far as it can be known before drawing.

    Raises TypeError, ValueError: labels, sizes or channels do not fit the data, or there are too few images.
    """
    if images.pipeline is not None:
        check_pipeline(images.pipeline, data)
        return {"num_images": settings.num_images, "steps": settings.steps}
    found = len(read(settings, images, data)[1])
    if found < max(2, accelerator.num_processes):
        raise ValueError(f"{images.path or REAL} has {found} images, too few for a distance or for "
                         f"{accelerator.num_processes} processes")  # fmt: skip
    return {"content": content_of(settings, images)}


@dataclass(frozen=True)
class Looker:
    """Looks at images with all processes: each takes a share, and every one has the whole afterwards."""

    accelerator: Accelerator
    judge: Extractor
    extractor: Extractor
    batch_size: int

    def __call__(self, images: Tensor, labels: Tensor) -> Looked:
        if len(images) < self.accelerator.num_processes:
            raise ValueError(f"{len(images)} images cannot be shared by {self.accelerator.num_processes} processes")
        features, logits, judged, statistics = [], [], [], FeatureStatistics()
        with self.accelerator.split_between_processes(list(range(len(images)))) as own:
            for seen, scores, verdict in self.batches(images[own[0] : own[-1] + 1]):
                statistics.update(seen)
                features.append(seen)
                logits.append(scores)
                judged.append(verdict)
        together = [self.gathered(parts) for parts in (features, logits, judged)]
        return Looked(
            labels=labels.cpu().numpy(), features=together[0], probabilities=softmax(together[1], axis=1),
            judged=together[2], statistics=statistics.reduced(self.accelerator),
        )  # fmt: skip

    def batches(self, images: Tensor):
        """(features, logits, classes that the judge sees) batch by batch."""
        options = {"batch_size": self.batch_size, "progress": self.accelerator.is_main_process}
        if self.extractor is self.judge:
            for features, logits in self.judge.batches(images, **options):
                yield features, logits, logits.argmax(1)
            return
        judged = self.judge(images, **options)[1].argmax(1).split(self.batch_size)
        for (features, logits), verdict in zip(self.extractor.batches(images, **options), judged):
            yield features, logits, verdict

    def gathered(self, parts: list[Tensor]) -> np.ndarray:
        """Rows of all processes in their order, which is that of the images."""
        own = torch.cat(parts).to(self.accelerator.device)
        counts = self.accelerator.gather(torch.tensor([len(own)], device=own.device)).tolist()
        rows = self.accelerator.gather(self.accelerator.pad_across_processes(own, dim=0))
        return torch.cat([part[:n] for part, n in zip(rows.split(max(counts)), counts)]).cpu().numpy()


def measure(settings: Settings, data: ImageData, real: Looked, fake: Looked, extractor: Extractor) -> dict[str, dict]:
    """The figures of one set against the real training images, each with its name and number of images."""
    n, device = len(fake.labels), extractor.device
    metrics = {"label_consistency": consistency(fake.judged, fake.labels, data.classes)}

    def add(metric: str, value: float, **extra: Any) -> None:
        metrics[key_of(metric, extractor)] = measured(metric, value, n, extractor, **extra)

    add("frechet", frechet_distance(real.statistics, fake.statistics), n_real=real.statistics.n)
    # Images that come class by class would give every split a marginal of its own.
    order = np.random.default_rng(0).permutation(n)
    score = inception_score(fake.probabilities[order], min(settings.splits, n))
    add("inception_score", score["inception_score"], std=score["std"], splits=score["splits"])
    near = density_coverage(real.features, fake.features, settings.k, device=device)
    for metric in ("density", "coverage"):
        add(metric, near[metric], k=settings.k, n_real=near["n_real"])
    sides = real.features, real.labels, fake.features, fake.labels
    if (distance := classwise_distance(*sides, data.classes, extractor)) is not None:
        metrics[key_of("classwise_frechet", extractor)] = distance
    if enough("class-wise density", real.labels, fake.labels, data.classes, settings.k + 1, 1):
        by_class = classwise_density_coverage(*sides, settings.k, device=device)
        smallest = min(min(one["n_real"], one["n"]) for one in by_class["per_class"].values())
        for metric in ("classwise_density", "classwise_coverage"):
            add(metric, by_class[metric], k=settings.k, smallest_class=smallest)
    return metrics


def key_of(metric: str, extractor: Extractor) -> str:
    """What a metric is called in the record."""
    return METRIC_KEYS[metric][0 if extractor.is_inception else 1]
