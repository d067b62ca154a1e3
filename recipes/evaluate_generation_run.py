"""What `evaluate_generation.py` does with each set of images: read or draw, look at with the judge, measure, record."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sample_edm
import torch
from accelerate import Accelerator
from classifier_noise import plan_of
from classifier_noise_run import NOT_IN_A_RUN, Data, Run, make_run
from huggingface_hub.utils import validate_repo_id
from judging import (
    accuracy_of_judge,
    classwise_distance,
    consistency,
    enough,
    judge_training,
    load_judge,
    measured,
    with_interval,
)
from PIL import Image
from sample_edm import SETTINGS_FILE
from scipy.special import softmax
from study import reading, run_all
from torch import Tensor
from transformers import TrainingArguments

from hf_noise.metrics import (
    Extractor,
    FeatureStatistics,
    classwise_density_coverage,
    density_coverage,
    frechet_distance,
    inception_extractor,
    inception_score,
)
from hf_noise.reports.generation_evaluation import METRIC_KEYS, REAL, TASK
from hf_noise.reports.record import RunRecord
from hf_noise.trainers.checkpoints import claim_folder
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.launch import check_world, take_back_cores

# Judge and Inception stand in a claim with their weights, whatever they are called.
NOT_IN_RESULT = (
    "scale", "output", "images", "pipeline", "num_processes", "batch_size", "dry_run", "judge", "inception",
    "num_images", "steps",
)  # fmt: skip
# What a folder of sets, and the judge's, are called.
RESERVED = (REAL, "judge")


@dataclass(frozen=True)
class ImageSet:
    """Images that lie somewhere, or that a pipeline has to draw first."""

    name: str
    path: str | None = None
    pipeline: str | None = None

    def describe(self) -> str:
        """In words, for `--dry_run`."""
        if self.path is None:
            config = config_of_pipeline(self.pipeline)
            noise = config.get("hf_noise") or {}
            return (f"to be drawn from {self.pipeline}, {config['num_classes']} classes, "
                    f"noise {noise.get('error_rate', 'unknown')}")  # fmt: skip
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
    """The sets that a command line names, each of which is there.

    Raises:
        FileNotFoundError, OSError: nothing is there, or it cannot be read.
        TypeError, ValueError: two of one name, a name that cannot be a folder's, labels that are none.
    """
    sets = [ImageSet(name_of(path), path=path) for path in settings.images]
    sets += [ImageSet(name_of(name), pipeline=name) for name in settings.pipeline]
    names = [images.name for images in sets]
    if twice := sorted({name for name in names if names.count(name) > 1 or name in RESERVED}):
        raise ValueError(f"sets of images need names of their own, got {twice[0]!r} twice or as a reserved one")
    for images in sets:
        if images.path is not None:
            read_labels(Path(images.path))
        else:
            config_of_pipeline(images.pipeline)
    return sets


def name_of(where: str) -> str:
    """What a set is called in its table, and its folder: the last part of its path, or owner--name of the Hub."""
    path = Path(where)
    if not path.exists() and where.count("/") == 1 and path.suffix != ".npz":
        return where.replace("/", "--")
    path = path.resolve()  # `.` and `..` have names as well
    # The folder r0.5 is no r0, and no file.
    name = path.stem if path.suffix == ".npz" else path.name
    if not name or name.startswith("."):
        raise ValueError(f"{where} cannot give a set its name, {name!r}; rename it, without a dot at the beginning")
    return name


def config_of_pipeline(name: str) -> Mapping[str, Any]:
    """What `model_index.json` of an EDM pipeline says. Raises FileNotFoundError, OSError, ValueError: it is none."""
    from hf_noise.diffusion import EDMPipeline  # diffusers takes seconds to import

    if not Path(name).is_dir():
        try:
            validate_repo_id(name)
        except ValueError:
            raise FileNotFoundError(f"the pipeline {name}: there is no such folder; give that of a pipeline, or "
                                    "owner/name on the Hub") from None  # fmt: skip
    with reading("the pipeline", name):
        config = EDMPipeline.load_config(name)
    if type(config.get("num_classes")) is not int:
        kind = config.get("_class_name", "of no class")
        raise ValueError(f"the pipeline {name} ({kind}) states no num_classes; name an EDMPipeline, as edm_noise.py "
                         "and EDMTrainer save it")  # fmt: skip
    check_noise(name, config.get("hf_noise"))
    return config


def check_noise(what: Any, noise: Any) -> None:
    """Refuse now a noise that the record would refuse in the end. Raises ValueError."""
    if noise and not (isinstance(noise, dict) and isinstance(noise.get("protocol"), str)):
        raise ValueError(f"the noise that {what} states must be noise.to_dict() with a `protocol`, got {noise!r}")


def check_pipeline(name: str, data: Data) -> None:
    """Refuse a pipeline of other classes or images than the data have, by what its files say. Raises ValueError."""
    from diffusers import UNet2DModel

    if (known := config_of_pipeline(name)["num_classes"]) != len(data.classes):
        raise ValueError(f"{name} draws {known} classes, the data have {len(data.classes)}")
    with reading("the network of the pipeline", name):
        unet = UNet2DModel.load_config(name, subfolder="unet")
    size = unet["sample_size"]
    check_shape(name, *((size, size) if isinstance(size, int) else size), unet["out_channels"], data)


def check_shape(what: Any, height: int, width: int, channels: int, data: Data) -> None:
    """Refuse images that are not like the real ones; images of one channel can be repeated. Raises ValueError."""
    if (height, width) != (data.image_size, data.image_size) or channels not in (1, data.num_channels):
        raise ValueError(f"images of {what} are {height} x {width} in {channels} channels, the real ones "
                         f"{data.image_size} x {data.image_size} in {data.num_channels}")  # fmt: skip


def read_labels(path: Path) -> tuple[list[Path], np.ndarray, dict]:
    """Files of a folder (of an .npz file that one), labels int64 [N], and noise where `settings.json` states it.

    Raises:
        FileNotFoundError: there are no labels, or not all of the images.
        TypeError: labels are no integers.
        ValueError: a line or a file is broken, or there are no images; the message names both.
    """
    if path.suffix == ".npz":
        labels = arrays_of(path, "labels")[0]
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise TypeError(f"{path}: labels must be integers [N], got {labels.dtype} {list(labels.shape)}")
        files, labels, noise = [path], labels.astype(np.int64), {}
    else:
        files, labels, noise = *lines_of(path), told(path).get("noise") or {}
    if not len(labels):
        raise ValueError(f"{path} has no images")
    check_noise(path, noise)
    return files, labels, noise


def lines_of(path: Path) -> tuple[list[Path], np.ndarray]:
    """Files and labels that a folder's `metadata.jsonl` lists."""
    file = path / "metadata.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; images need a folder that sample_edm.py has finished, any other "
                                'with a line {"file_name": ..., "label": ...} for each, or one .npz file')  # fmt: skip
    files, labels = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is no JSON: {error}") from None
        if not isinstance(row, dict) or not {"file_name", "label"} <= row.keys():
            raise ValueError(f"{where}: no file_name or no label; without classes there is nothing to judge")
        if type(row["label"]) is not int:  # a bool is one, to isinstance
            raise TypeError(f"{where}: label must be an integer, the number of a class, got {row['label']!r}")
        files.append(path / str(row["file_name"]))
        labels.append(row["label"])
    if lost := [name for name in files if not name.is_file()]:
        raise FileNotFoundError(f"{len(lost)} of {len(files)} images of {path} are missing, first {lost[0].name}; draw "
                                "the images again")  # fmt: skip
    return files, np.array(labels, dtype=np.int64)


def arrays_of(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz file, which has to have images and labels. Raises FileNotFoundError, ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if lacking := {"images", "labels"} - set(arrays):
                raise ValueError(f"it has no array `{min(lacking)}`")
            return [arrays[name] for name in names]
    except (OSError, TypeError, ValueError, zipfile.BadZipFile) as error:  # TypeError: one array alone, an .npy file
        raise ValueError(f"{path} is no .npz file with arrays `images` and `labels`: {error}") from error


def told(path: Path) -> dict:
    """`settings.json` of a folder, empty without one."""
    file = path / SETTINGS_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def read_images(path: Path, files: Sequence[Path], data: Data) -> Tensor:
    """All images of a folder's files or of an .npz file, as uint8 [N, channels, H, W] of the data's shape.

    Raises:
        TypeError: an .npz file's are not uint8 [N, H, W, C] or [N, H, W].
        ValueError: a file cannot be read, or images have another shape than the real ones.
    """
    channels = data.num_channels
    if path.suffix == ".npz":
        images = arrays_of(path, "images")[0]
        images = images[..., None] if images.ndim == 3 else images
        if images.dtype != np.uint8 or images.ndim != 4:
            raise TypeError(f"{path}: images must be uint8 [N, H, W, C], got {images.dtype} {list(images.shape)}")
        check_shape(path, *images.shape[1:], data)
        return torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, channels, -1, -1)
    pixels = []
    for file in files:
        try:
            with Image.open(file) as image:
                pixels.append(np.array(image.convert({1: "L", 3: "RGB"}[channels])))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{file} cannot be read: {error}; draw the images again") from error
        check_shape(file, *pixels[-1].shape[:2], channels, data)
    return torch.from_numpy(np.stack(pixels)).reshape(len(pixels), *pixels[0].shape[:2], channels).permute(0, 3, 1, 2)


def content_of(settings: Any, images: ImageSet) -> str:
    """A hash that changes when images, labels or the stated noise do."""
    if images.name == REAL:
        return "test split"
    files, labels, noise = read_labels(folder_of(settings, images))
    digest = hashlib.sha256(json.dumps([labels.tolist(), noise], sort_keys=True).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def evaluate(settings: Any, classifier: Any, sets: Sequence[ImageSet], weights: Path | None) -> bool:
    """Measure all sets that have no record yet; returns whether this is the main process.

    All that can be refused is, before a judge is trained or an image drawn.
    """
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        take_back_cores()
    args = TrainingArguments(output_dir=settings.output, use_cpu=on_cpu, report_to="none")
    check_world(args, settings.num_processes)
    accelerator = Accelerator(cpu=on_cpu)
    data = Data.load(classifier, args)
    if settings.k >= data.train_rows:
        raise ValueError(f"--k must be below {data.train_rows}, the number of real images, got {settings.k}")
    inception = None if weights is None else inception_extractor(weights, device=accelerator.device)
    judge = None if settings.judge is None else load_judge(settings.judge, data, accelerator.device)
    sets = [ImageSet(REAL), *sets]
    common = {name: value for name, value in asdict(settings).items() if name not in NOT_IN_RESULT}
    claims = {images.name: common | check(settings, images, data, accelerator) for images in sets}
    for name, claim in claims.items():
        refuse_other(Path(settings.output) / name, claim)
    if judge is None:
        run, plan = judge_training(classifier)
        run_all(classifier, [run], [plan], load=lambda *_: data, make=make_run, left_out=NOT_IN_A_RUN)
        accelerator.wait_for_everyone()
        judge = load_judge(str(Path(classifier.output) / run.name), data, accelerator.device)
    extractor = inception or judge
    look = Looker(accelerator, judge, extractor, settings.batch_size)
    whose = {"judge_weights": judge.weights, "feature_weights": extractor.weights}
    real = test = None
    for images in sets:
        folder = Path(settings.output) / images.name
        if accelerator.is_main_process:
            claim_folder(folder, claims[images.name] | whose)
        accelerator.wait_for_everyone()
        content = claims[images.name].get("content") or draw(settings, images, accelerator)
        if (folder / "record.json").exists():
            check_content(folder, content)
            continue
        started = time.perf_counter()
        real = real or look(data.train_images.images, data.train_images.columns["labels"])
        test = test or look(data.test.images, data.test.columns["labels"])
        pixels, labels, noise = read(settings, images, data)
        fake = test if images.name == REAL else look(pixels, labels)
        metrics = measure(settings, data, real, fake, extractor) if accelerator.is_main_process else {}
        if settings.cas and images.name != REAL:
            metrics |= accuracy_of_cas(settings, classifier, data, images, pixels, labels, folder, content, on_cpu)
        if accelerator.is_main_process:
            by_judge = accuracy_of_judge(judge, test.judged, test.labels, data.classes)
            metrics["judge_test_accuracy"] = by_judge | {"weights": judge.weights}
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


def check(settings: Any, images: ImageSet, data: Data, accelerator: Accelerator) -> dict[str, Any]:
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


def refuse_other(folder: Path, claim: Mapping[str, Any]) -> None:
    """Refuse now a folder that `claim_folder` would refuse once the judge is trained. Raises FileExistsError."""
    file = folder / "run.json"
    theirs = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else claim
    if changed := sorted(name for name in claim if theirs.get(name) != claim[name]):
        raise FileExistsError(
            f"{folder} holds a run with other settings ({', '.join(changed)}); delete it or choose another folder"
        )


def check_content(folder: Path, content: str) -> None:
    """Refuse a record of other images than there are now. Raises FileExistsError."""
    record = RunRecord.from_json((folder / "record.json").read_text(encoding="utf-8"))
    if record.data["content"] != content:
        raise FileExistsError(f"{folder} holds a record of other images; delete it or choose another folder")


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
    pixels = read_images(path, files, data)
    if len(pixels) != len(labels):
        raise ValueError(f"{path} has {len(pixels)} images and {len(labels)} labels; draw the images again")
    return pixels.reshape(-1).view(pixels.shape), torch.from_numpy(labels), noise or {"protocol": "unknown"}


def folder_of(settings: Any, images: ImageSet) -> Path:
    """Where the images of a set lie, or will."""
    return Path(images.path) if images.path is not None else Path(settings.output) / images.name / "samples"


def draw(settings: Any, images: ImageSet, accelerator: Accelerator) -> str:
    """Draw what a pipeline has not drawn yet, as many images of every class; returns the hash of the content."""
    classes = config_of_pipeline(images.pipeline)["num_classes"]
    sample_edm.main([
        f"--model={images.pipeline}", f"--output={folder_of(settings, images)}", f"--num_images={settings.num_images}",
        f"--batch_size={settings.batch_size}", f"--seed={settings.seed}", f"--num_inference_steps={settings.steps}",
        "--classes", *map(str, range(classes)),
    ])  # fmt: skip
    accelerator.wait_for_everyone()
    return content_of(settings, images)


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


def accuracy_of_cas(
    settings: Any, classifier: Any, data: Data, images: ImageSet, pixels: Tensor, labels: Tensor, folder: Path,
    content: str, on_cpu: bool,
) -> dict[str, dict]:  # fmt: skip
    """Classification accuracy score (Ravuri and Vinyals 2019): trained on generated images, tested on real ones."""
    run = Run(0.0, "none", "nll", classifier.plan[0], settings.seed)
    classifier = replace(classifier, model=settings.cas_model or classifier.model)
    plan = plan_of(classifier, run, len(pixels))
    folder = folder / "cas"
    accelerator = Accelerator(cpu=on_cpu)
    if accelerator.is_main_process:
        own = {"model": classifier.model, "epochs": classifier.epochs, "seed": settings.seed, "content": content}
        claim_folder(folder, own)
    accelerator.wait_for_everyone()
    if not (folder / "record.json").exists():
        columns = {"labels": labels.long(), "sample_id": torch.arange(len(labels))}
        rows = DeviceImages(pixels, columns, device=data.device, mean=data.mean, std=data.std)
        generated = replace(data, train_images=rows, train_rows=len(rows), source=f"generated images: {images.name}")
        make_run(classifier, run, plan, folder, generated, on_cpu, f"CAS {images.name}")
    record = RunRecord.from_json((folder / "record.json").read_text(encoding="utf-8"))
    test = record.metrics["test_accuracy"]
    return {"cas": with_interval(test, "value") | {"name": f"CAS ({classifier.model})"}}
