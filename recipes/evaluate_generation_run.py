"""What `evaluate_generation.py` does with each set of images: read or draw, look at with the judge, measure, record."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sample_edm
import torch
from accelerate import Accelerator
from classifier_noise import plan_of
from classifier_noise_run import Data, Run, make_run
from classifier_noise_run import train as train_classifiers
from judging import accuracy_of_judge, consistency, judge_training, load_judge, with_interval
from PIL import Image
from sample_edm import SETTINGS_FILE
from scipy.special import softmax
from torch import Tensor
from transformers import TrainingArguments

from hf_noise.metrics import (
    Extractor,
    FeatureStatistics,
    classwise_density_coverage,
    classwise_frechet,
    density_coverage,
    frechet_distance,
    inception_extractor,
    inception_score,
    metric_name,
    mixture_reference,
)
from hf_noise.reports.generation_study import TASK
from hf_noise.reports.provenance import portable
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import figure, markdown_table, percent
from hf_noise.trainers.checkpoints import claim_folder
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.launch import check_world, take_back_cores

REAL = "real-test"  # the real test images, measured as if they had been generated
# Key of a metric in the record, of Inception and of any other extractor.
KEYS = {
    "frechet": ("fid", "frechet_distance"), "classwise_frechet": ("cw_fid", "cw_frechet_distance"),
    "inception_score": ("inception_score", "judge_score"), "density": ("density", "density"),
    "coverage": ("coverage", "coverage"), "classwise_density": ("cw_density", "cw_density"),
    "classwise_coverage": ("cw_coverage", "cw_coverage"),
}  # fmt: skip
NOT_IN_RESULT = ("scale", "output", "images", "pipeline", "num_processes", "batch_size", "dry_run")


@dataclass(frozen=True)
class ImageSet:
    """Images that lie somewhere, or that a pipeline has to draw first."""

    name: str
    path: str | None = None
    pipeline: str | None = None

    def describe(self) -> str:
        """In words, for `--dry_run`."""
        if self.path is None:
            return f"to be drawn from {self.pipeline}"
        labels, noise = read_labels(Path(self.path))[1:]
        return f"{len(labels):,} images of {len(np.unique(labels))} classes, noise {noise.get('error_rate', 'unknown')}"


@dataclass(frozen=True)
class Looked:
    """What the networks see in images: arrays of N rows, and the statistics of the features."""

    labels: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray  # of the network that gives the features
    judged: np.ndarray  # classes that the judge sees
    statistics: FeatureStatistics


def image_sets(settings: Any) -> list[ImageSet]:
    """The sets that a command line names. Raises ValueError: two of one name, FileNotFoundError: nothing there."""
    paths = map(Path, settings.images)
    # The folder r0.5 is no r0, and no file.
    sets = [ImageSet(path.stem if path.suffix == ".npz" else path.name, path=str(path)) for path in paths]
    sets += [ImageSet(Path(name).name, pipeline=name) for name in settings.pipeline]
    names = [images.name for images in sets]
    if twice := sorted({name for name in names if names.count(name) > 1 or name in (REAL, "judge")}):
        raise ValueError(f"sets of images need names of their own, got {twice[0]!r} twice or as a reserved one")
    for images in sets:
        if images.path is not None:
            read_labels(Path(images.path))
    return sets


def read_labels(path: Path) -> tuple[list[Path], np.ndarray, dict]:
    """Files of a folder (of an .npz file that one), labels int64 [N], and noise where `settings.json` states it."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return [path], arrays["labels"].astype(np.int64), {}
    file = path / "metadata.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; images need a folder that sample_edm.py has finished, any other "
                                'with a line {"file_name": ..., "label": ...} for each, or one .npz file')  # fmt: skip
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if bare := [number for number, row in enumerate(rows, 1) if not {"file_name", "label"} <= row.keys()]:
        raise ValueError(f"{file}, line {bare[0]}: no file_name or no label; without classes there is nothing to judge")
    files = [path / row["file_name"] for row in rows]
    if lost := [name for name in files if not name.is_file()]:
        raise FileNotFoundError(f"{len(lost)} of {len(files)} images of {path} are missing, first {lost[0].name}; draw "
                                "the images again")  # fmt: skip
    return files, np.array([row["label"] for row in rows], dtype=np.int64), told(path).get("noise") or {}


def told(path: Path) -> dict:
    """`settings.json` of a folder, empty without one."""
    file = path / SETTINGS_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def read_images(path: Path, files: Sequence[Path], channels: int) -> Tensor:
    """All images of a folder's files or of an .npz file, as uint8 [N, channels, H, W]."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            images = arrays["images"]
        if images.dtype != np.uint8:
            raise TypeError(f"{path}: images must be uint8 [N, H, W, C], got {images.dtype}")
        images = images[..., None] if images.ndim == 3 else images
        if images.shape[-1] not in (1, channels):
            raise ValueError(f"{path}: images have {images.shape[-1]} channels, the real ones {channels}")
        return torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, channels, -1, -1)
    pixels = []
    for file in files:
        try:
            with Image.open(file) as image:
                pixels.append(np.array(image.convert({1: "L", 3: "RGB"}[channels])))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{file} cannot be read: {error}; draw the images again") from error
    return torch.from_numpy(np.stack(pixels)).reshape(len(pixels), *pixels[0].shape[:2], channels).permute(0, 3, 1, 2)


def content_of(path: Path) -> str:
    """A hash that changes when images, labels or the stated noise do."""
    files, labels, noise = read_labels(path)
    digest = hashlib.sha256(json.dumps([labels.tolist(), noise], sort_keys=True).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def evaluate(settings: Any, classifier: Any, sets: Sequence[ImageSet], weights: Path | None) -> bool:
    """Measure all sets that have no record yet; returns whether this is the main process."""
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        take_back_cores()
    args = TrainingArguments(output_dir=settings.output, use_cpu=on_cpu, report_to="none")
    check_world(args, settings.num_processes)
    accelerator = Accelerator(cpu=on_cpu)
    judge_folder = settings.judge
    if judge_folder is None:
        run, plan = judge_training(classifier)
        train_classifiers(classifier, [run], [plan])
        accelerator.wait_for_everyone()
        judge_folder = str(Path(classifier.output) / run.name)
    data = Data.load(classifier, args)
    judge = load_judge(judge_folder, data, accelerator.device)
    extractor = judge if weights is None else inception_extractor(weights, device=accelerator.device)
    look = Looker(accelerator, judge, extractor, settings.batch_size)
    common = {name: value for name, value in asdict(settings).items() if name not in NOT_IN_RESULT}
    common |= {"judge": portable(judge_folder), "features": extractor.name, "weights": extractor.weights}
    real = test = None
    for images in [ImageSet(REAL), *sets]:
        folder = Path(settings.output) / images.name
        content = draw_first(settings, images, data, accelerator)
        if accelerator.is_main_process:
            claim_folder(folder, common | {"content": content})
        accelerator.wait_for_everyone()
        if (folder / "record.json").exists():
            continue
        started = time.perf_counter()
        real = real or look(data.train_images.images, data.train_images.columns["labels"])
        test = test or look(data.test.images, data.test.columns["labels"])
        pixels, labels, noise = read(settings, images, data)
        fake = test if images.name == REAL else look(pixels, labels)
        metrics = measure(settings, data, real, fake, extractor) if accelerator.is_main_process else {}
        if settings.cas and images.name != REAL:
            metrics |= accuracy_of_cas(settings, classifier, data, images, pixels, labels, folder, on_cpu)
        if accelerator.is_main_process:
            metrics["judge_test_accuracy"] = accuracy_of_judge(judge, test.judged, test.labels, data.classes)
            RunRecord(
                name=images.name, task=TASK, recipe="recipes/evaluate_generation.py", seed=settings.seed,
                settings=asdict(settings), model={"name": images.pipeline or images.path or REAL}, noise=noise,
                data={
                    "builder": settings.data, "source": data.source, "classes": len(data.classes),
                    "image_size": data.image_size, "channels": data.num_channels, "real_rows": data.train_rows,
                    "content": content,
                },
                budget={"images": len(fake.labels), "processes": args.world_size}, loss={"name": "none"},
                metrics=metrics, wall_seconds=time.perf_counter() - started,
            ).write(folder / "record.json")  # fmt: skip
        accelerator.wait_for_everyone()
    return accelerator.is_main_process


def read(settings: Any, images: ImageSet, data: Data) -> tuple[Tensor, Tensor, dict]:
    """Images uint8 [N, C, H, W], labels int64 [N] and noise of a set; ValueError if they are of other classes."""
    if images.name == REAL:
        return data.test.images, data.test.columns["labels"], {"protocol": "none"}
    path = folder_of(settings, images)
    files, labels, noise = read_labels(path)
    known = told(path).get("num_classes", len(data.classes))
    if known != len(data.classes):
        raise ValueError(f"{path} was drawn for {known} classes, the data have {len(data.classes)}")
    if labels.min() < 0 or labels.max() >= len(data.classes):
        raise ValueError(f"labels of {path} must lie in [0, {len(data.classes)}), got {labels.min()} to {labels.max()}")
    pixels = read_images(path, files, data.num_channels)
    if len(pixels) != len(labels):
        raise ValueError(f"{path} has {len(pixels)} images and {len(labels)} labels; draw the images again")
    return pixels.reshape(-1).view(pixels.shape), torch.from_numpy(labels), noise or {"protocol": "unknown"}


def folder_of(settings: Any, images: ImageSet) -> Path:
    """Where the images of a set lie, or will."""
    return Path(images.path) if images.path is not None else Path(settings.output) / images.name / "samples"


def draw_first(settings: Any, images: ImageSet, data: Data, accelerator: Accelerator) -> str:
    """Draw what a pipeline has not drawn yet, as many images of every class; returns the hash of the content."""
    if images.name == REAL:
        return "test split"
    path = folder_of(settings, images)
    if images.pipeline is not None:
        from hf_noise.diffusion import EDMPipeline  # diffusers takes seconds to import

        known = EDMPipeline.load_config(images.pipeline)["num_classes"]
        if known != len(data.classes):
            raise ValueError(f"{images.pipeline} draws {known} classes, the data have {len(data.classes)}")
        sample_edm.main([
            f"--model={images.pipeline}", f"--output={path}", f"--num_images={settings.num_images}",
            f"--batch_size={settings.batch_size}", f"--seed={settings.seed}",
            f"--num_inference_steps={settings.steps}", "--classes", *map(str, range(known)),
        ])  # fmt: skip
    accelerator.wait_for_everyone()
    return content_of(path)


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


def measure(settings: Any, data: Data, real: Looked, fake: Looked, extractor: Extractor) -> dict[str, dict]:
    """The figures of one set against the real training images, each with its name and number of images."""
    n, classes = len(fake.labels), len(data.classes)
    device = extractor.device
    metrics = {"label_consistency": consistency(fake.judged, fake.labels, data.classes)}

    def add(metric: str, value: float, **extra: Any) -> None:
        key = KEYS[metric][0 if extractor.is_inception else 1]
        metrics[key] = {"value": value, "n": n, "name": metric_name(metric, extractor), **extra}

    add("frechet", frechet_distance(real.statistics, fake.statistics), n_real=real.statistics.n)
    # Images that come class by class would give every split a marginal of its own.
    order = np.random.default_rng(0).permutation(n)
    score = inception_score(fake.probabilities[order], min(settings.splits, n))
    add("inception_score", score["inception_score"], std=score["std"], splits=score["splits"])
    near = density_coverage(real.features, fake.features, settings.k, device=device)
    for metric in ("density", "coverage"):
        add(metric, near[metric], k=settings.k, n_real=near["n_real"])
    sides = real.features, real.labels, fake.features, fake.labels
    n_real, n_fake = (np.bincount(labels, minlength=classes).min() for labels in (real.labels, fake.labels))
    smallest = {"smallest_class": int(min(n_real, n_fake))}
    if min(n_real, n_fake) >= 2:
        by_class = classwise_frechet(*sides)
        named = {data.classes[c]: value for c, value in by_class["per_class"].items()}
        add("classwise_frechet", by_class["classwise_frechet"], per_class=named, **smallest)
    if n_real > settings.k and n_fake >= 1:
        by_class = classwise_density_coverage(*sides, settings.k, device=device)
        for metric in ("classwise_density", "classwise_coverage"):
            add(metric, by_class[metric], k=settings.k, **smallest)
    return metrics


def accuracy_of_cas(
    settings: Any, classifier: Any, data: Data, images: ImageSet, pixels: Tensor, labels: Tensor, folder: Path,
    on_cpu: bool,
) -> dict[str, dict]:  # fmt: skip
    """Classification accuracy score (Ravuri and Vinyals 2019): trained on generated images, tested on real ones."""
    run = Run(0.0, "none", "nll", classifier.plan[0], settings.seed)
    classifier = replace(classifier, model=settings.cas_model or classifier.model)
    plan = plan_of(classifier, run, len(pixels))
    folder = folder / "cas"
    accelerator = Accelerator(cpu=on_cpu)
    if accelerator.is_main_process:
        claim_folder(folder, {"model": classifier.model, "epochs": classifier.epochs, "seed": settings.seed})
    accelerator.wait_for_everyone()
    if not (folder / "record.json").exists():
        columns = {"labels": labels.long(), "sample_id": torch.arange(len(labels))}
        rows = DeviceImages(pixels, columns, device=data.device, mean=data.mean, std=data.std)
        generated = replace(data, train_images=rows, train_rows=len(rows), source=f"generated images: {images.name}")
        make_run(classifier, run, plan, folder, generated, on_cpu, f"CAS {images.name}")
    record = RunRecord.from_json((folder / "record.json").read_text(encoding="utf-8"))
    test = record.metrics["test_accuracy"]
    return {"cas": with_interval(test, "value") | {"name": f"CAS ({classifier.model})"}}


def generation_table(records: Sequence[RunRecord]) -> str:
    """One line per set: consistency beside the judge's own accuracy and the reference line, distances, CAS."""
    records = [record for record in records if record.task == TASK]
    clean = [record for record in records if record.noise.get("error_rate") == 0]
    a0 = clean[0].metrics["label_consistency"]["value"] if clean else None
    names = {key: metric["name"] for record in records for key, metric in record.metrics.items() if "name" in metric}
    shown = [key for pair in KEYS.values() for key in dict.fromkeys(pair) if key in names]
    header = [
        "images", "e", "n", "judge on real test images, %", "consistency, %", "its 95% interval",
        "fits the noisy conditional, %", *(names[key] for key in shown), names.get("cas", "CAS") + ", %",
    ]  # fmt: skip
    rows = []
    for record in sorted(records, key=lambda record: (record.name != REAL, record.noise.get("error_rate", 1))):
        found, metrics = record.metrics["label_consistency"], record.metrics
        rate = record.noise.get("error_rate")
        reference = None
        if a0 is not None and record.noise.get("kind") == "symmetric" and rate is not None:
            reference = mixture_reference(a0, rate, record.data["classes"])
        rows.append([
            record.name, figure(rate), f"{found['n']:,}", percent(metrics["judge_test_accuracy"]["value"]),
            percent(found["value"]), f"{percent(found['low'])} to {percent(found['high'])}", percent(reference),
            *(figure(metrics.get(key, {}).get("value")) for key in shown),
            percent(metrics.get("cas", {}).get("value")),
        ])  # fmt: skip
    return markdown_table(header, rows)
