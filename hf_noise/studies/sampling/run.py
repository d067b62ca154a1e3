"""The images themselves, drawn by all processes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from hf_noise.atomic import sweep_temporaries, temporary_beside, write_atomic
from hf_noise.diffusion import EDMPipeline
from hf_noise.diffusion.pipeline_edm import image_generators
from hf_noise.metrics import weights_hash
from hf_noise.reports.provenance import portable
from hf_noise.studies.launch import take_back_cores
from hf_noise.studies.sampling.study import KEPT, SETTINGS_FILE, UNIFORM, Settings, check_folder
from hf_noise.trainers.folders import locked


def sample(settings: Settings) -> Path:
    """Draw what is missing in the folder, and list it; returns the folder."""
    take_back_cores()
    state, output = PartialState(cpu=not torch.cuda.is_available()), Path(settings.output)
    with state.main_process_first():  # it downloads, the others find it in the cache
        pipeline = EDMPipeline.from_pretrained(settings.model)
    check_asked(settings, pipeline)
    asked = {name: getattr(settings, name) for name in KEPT} | {"weights": weights_of(pipeline)}
    check_folder(output, asked)  # a network trained again has the name it had
    pipeline.to(state.device)
    pipeline.set_progress_bar_config(disable=True)
    labels = labels_of(settings, pipeline.config.num_classes)
    folder = output / "images"
    with locked(output) if state.is_main_process else nullcontext():
        folder.mkdir(parents=True, exist_ok=True)
        if state.is_main_process:
            told = {"model": portable(settings.model)} | asked
            told |= {"num_classes": pipeline.config.num_classes, "noise": pipeline.config.hf_noise}
            write_atomic(output / SETTINGS_FILE, json.dumps(told, indent=2) + "\n")
            sweep_temporaries(folder)
        missing = [index for index in range(settings.num_images) if not path_of(folder, index).is_file()]
        state.wait_for_everyone()  # all have looked before anyone writes, so all share out the same images
        draw(settings, pipeline, labels, folder, missing[state.process_index :: state.num_processes], state)
        state.wait_for_everyone()
        if state.is_main_process:
            rows = [{"file_name": f"images/{path_of(folder, index).name}"} for index in range(settings.num_images)]
            if labels is not None:
                rows = [row | {"label": int(label)} for row, label in zip(rows, labels)]
            write_atomic(output / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            print(f"wrote {output}")
    return output


def path_of(folder: Path, index: int) -> Path:
    return folder / f"{index:07d}.png"


def draw(
    settings: Settings, pipeline: EDMPipeline, labels: np.ndarray | None, folder: Path, own: Sequence[int],
    state: PartialState,
) -> None:  # fmt: skip
    """Draw the images of these numbers, each from a stream of its own, and write each as a whole."""
    with tqdm(total=len(own), unit="image", disable=not state.is_main_process) as bar:
        for begin in range(0, len(own), settings.batch_size):
            batch = own[begin : begin + settings.batch_size]
            generators = [image_generators(settings.seed, 1, index)[0] for index in batch]
            with torch.autocast(state.device.type, torch.bfloat16, enabled=settings.bf16):
                pictures = pipeline(
                    None if labels is None else labels[batch], len(batch), settings.num_inference_steps,
                    settings.guidance_scale, generator=generators,
                ).images  # fmt: skip
            for index, picture in zip(batch, pictures):
                partial = temporary_beside(path_of(folder, index))
                picture.save(partial, format="PNG")
                os.replace(partial, path_of(folder, index))
            bar.update(len(batch))


def check_asked(settings: Settings, pipeline: EDMPipeline) -> None:
    """Refuse classes and guidance that the pipeline cannot give. Raises ValueError."""
    classes, has_unconditional = pipeline.config.num_classes, pipeline.config.has_unconditional
    if settings.classes != UNIFORM:
        if not classes:
            raise ValueError(f"{settings.model} was trained without classes; leave out --classes")
        if max(settings.classes) >= classes:
            raise ValueError(f"--classes must lie in [0, {classes - 1}], got {max(settings.classes)}")
    if settings.guidance_scale > 1 and not (classes and has_unconditional):
        raise ValueError(
            f"--guidance_scale {settings.guidance_scale:g}: {settings.model} has no unconditional class to guide away "
            "from; leave it out"
        )


def labels_of(settings: Settings, num_classes: int) -> np.ndarray | None:
    """Class of each image, int64 [num_images]; the first n are the same for any larger number of images."""
    if not num_classes:
        return None
    if settings.classes == UNIFORM:
        return np.random.default_rng(settings.seed).integers(num_classes, size=settings.num_images)
    return np.resize(settings.classes, settings.num_images)


def weights_of(pipeline: EDMPipeline) -> str:
    """A hash of all that makes an image out of its random numbers: the weights, what the network and scheduler are."""
    # Names with an underscore are versions and paths.
    configs = [
        [type(part).__name__, {name: value for name, value in part.config.items() if not name.startswith("_")}]
        for part in (pipeline.unet, pipeline.scheduler)
    ]
    return weights_hash(pipeline.unet, pipeline.config.num_classes, *configs)[:16]


