"""Sets of generated images: where they lie, their labels and stated noise, or the pipeline that draws them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from hf_noise.reports.record import RunRecord
from hf_noise.studies.evaluation.report import REAL
from hf_noise.studies.images import ImageData
from hf_noise.studies.reading import may_be_read, reading
from hf_noise.studies.sampling import study as sampling
from hf_noise.studies.sampling.run import sample
from hf_noise.studies.sampling.study import SETTINGS_FILE
from hf_noise.trainers.eight_bits import to_eight_bits

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


def image_sets(settings: Any) -> list[ImageSet]:
    """The sets that a command line names, each of which is there.

    Raises:
        FileNotFoundError, OSError: nothing is there, or it cannot be read.
        TypeError, ValueError: two of one name, a name that cannot be a folder's, labels that are no integers.
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

    if not may_be_read(name):
        raise FileNotFoundError(f"the pipeline {name}: there is no such folder; give that of a pipeline, or "
                                "owner/name on the Hub")  # fmt: skip
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


def check_pipeline(name: str, data: ImageData) -> None:
    """Refuse a pipeline of other classes or images than the data have, by what its files say. Raises ValueError."""
    from diffusers import UNet2DModel

    if (known := config_of_pipeline(name)["num_classes"]) != len(data.classes):
        raise ValueError(f"{name} draws {known} classes, the data have {len(data.classes)}")
    with reading("the network of the pipeline", name):
        unet = UNet2DModel.load_config(name, subfolder="unet")
    size = unet["sample_size"]
    check_shape(name, *((size, size) if isinstance(size, int) else size), unet["out_channels"], data)


def check_shape(what: Any, height: int, width: int, channels: int, data: ImageData) -> None:
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


def read_images(path: Path, files: Sequence[Path], data: ImageData) -> Tensor:
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
                pixels.append(np.array(to_eight_bits(image, channels)))
        except Exception as error:  # Pillow's decoders raise many kinds
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


def check_content(folder: Path, content: str) -> None:
    """Refuse a record of other images than there are now. Raises FileExistsError."""
    record = RunRecord.from_json((folder / "record.json").read_text(encoding="utf-8"))
    if record.data["content"] != content:
        raise FileExistsError(f"{folder} holds a record of other images; delete it or choose another folder")


def read(settings: Any, images: ImageSet, data: ImageData) -> tuple[Tensor, Tensor, dict]:
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
    sample(sampling.Settings(
        model=images.pipeline, output=str(folder_of(settings, images)), num_images=settings.num_images,
        batch_size=settings.batch_size, seed=settings.seed, num_inference_steps=settings.steps,
        classes=list(range(classes)),
    ))  # fmt: skip
    accelerator.wait_for_everyone()
    return content_of(settings, images)
