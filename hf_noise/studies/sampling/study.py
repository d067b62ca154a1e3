"""Draw images from a trained EDM pipeline: PNG files with their classes, the same for any batch and process count.

Writes `<output>/images/0000017.png` and, when all are there, `metadata.jsonl` with the class of each, so that
`load_dataset("imagefolder", data_dir=output)` and `evaluate_generation.py --images` read them; `settings.json` says
what they were drawn from, and what noise that was trained on. Started again, with any number of processes, it draws
what is missing, and refuses to mix images of other weights or settings. Image i depends on the weights, the seed, i and
its class alone.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from hf_noise.reports.provenance import portable
from hf_noise.studies.ranges import FromOne, Name, Output, Range, SeedOfNoise, check_flags

if TYPE_CHECKING:
    from hf_noise.diffusion import EDMPipeline

# What the images depend on, besides the weights; a folder holds images of one choice of these. What the model is called
# does not matter.
KEPT = ("seed", "classes", "num_inference_steps", "guidance_scale", "bf16")
SETTINGS_FILE = "settings.json"
# Images have numbers of seven digits in their names; batch and steps have the limits of EDMPipeline.
FLAGS = {
    "model": Name, "output": Output, "num_images": Annotated[int, Range(1, 10**7)],
    "batch_size": Annotated[int, Range(1, 2**17)], "num_inference_steps": Annotated[int, Range(1, 10**6)],
    "seed": SeedOfNoise, "guidance_scale": FromOne,
}  # fmt: skip


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a pipeline, or its name on the Hub")
    parser.add_argument("--output", type=Path, default=Path("runs/samples"), help="new folder, or one of this recipe")
    parser.add_argument("--num_images", type=int, default=50_000, help="images in all")
    parser.add_argument("--batch_size", type=int, default=256, help="images per process and call")
    parser.add_argument("--seed", type=int, default=0, help="of images and of uniform classes")
    parser.add_argument(
        "--classes", nargs="+", default=["uniform"], help="uniform (drawn), or numbers of classes, taken in turns"
    )
    parser.add_argument("--num_inference_steps", type=int, default=18, help="18 are 35 network calls")
    parser.add_argument("--guidance_scale", type=float, default=1.0, help="classifier-free guidance, 1 for none")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast; the sample stays in float32")
    parser.add_argument("--dry_run", action="store_true", help="print the settings and stop")
    args = parser.parse_args(argv)
    check_flags(parser, args, FLAGS)
    if args.classes != ["uniform"]:
        if unknown := [name for name in args.classes if not name.isdecimal()]:
            parser.error(f"--classes takes uniform, or numbers of classes, got {unknown[0]}")
        args.classes = [int(name) for name in args.classes]
    return args


def check_asked(args: argparse.Namespace, pipeline: EDMPipeline) -> None:
    """Refuse classes and guidance that the pipeline cannot give. Raises ValueError."""
    classes, has_unconditional = pipeline.config.num_classes, pipeline.config.has_unconditional
    if args.classes != ["uniform"]:
        if not classes:
            raise ValueError(f"{args.model} was trained without classes; leave out --classes")
        if max(args.classes) >= classes:
            raise ValueError(f"--classes must lie in [0, {classes - 1}], got {max(args.classes)}")
    if args.guidance_scale > 1 and not (classes and has_unconditional):
        raise ValueError(f"--guidance_scale {args.guidance_scale:g}: {args.model} has no unconditional class to guide "
                         "away from; leave it out")  # fmt: skip


def labels_of(args: argparse.Namespace, num_classes: int) -> np.ndarray | None:
    """Class of each image, int64 [num_images]; the first n are the same for any larger number of images."""
    if not num_classes:
        return None
    if args.classes == ["uniform"]:
        return np.random.default_rng(args.seed).integers(num_classes, size=args.num_images)
    return np.resize(args.classes, args.num_images)


def check_folder(folder: Path, asked: Mapping[str, Any]) -> None:
    """Refuse to mix images of two settings; a folder without images takes any.

    Raises:
        ValueError: the folder's images were drawn otherwise, or by something else; the message names the setting.
    """
    path = folder / SETTINGS_FILE
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; --output is a folder")
    if not any((folder / "images").glob("*.png")):
        return
    if not path.is_file():
        raise ValueError(f"{folder} holds images, and no {SETTINGS_FILE} that says of what; choose another --output")
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}), so what {folder} holds is not known; choose another "
                         "--output") from error  # fmt: skip
    for name, value in asked.items():
        if found.get(name) != value:
            raise ValueError(
                f"{folder} holds images drawn with {name} = {found.get(name)}, asked for {value}; choose another "
                "--output"
            )


def weights_of(pipeline: EDMPipeline) -> str:
    """A hash of all that makes an image out of its random numbers: the weights, what the network and scheduler are."""
    from hf_noise.metrics import weights_hash

    # Names with an underscore are versions and paths.
    configs = [
        [type(part).__name__, {name: value for name, value in part.config.items() if not name.startswith("_")}]
        for part in (pipeline.unet, pipeline.scheduler)
    ]
    return weights_hash(pipeline.unet, pipeline.config.num_classes, *configs)[:16]


def main(argv: Sequence[str] | None = None) -> Path | None:
    args = parse(argv)
    asked = {name: getattr(args, name) for name in KEPT}
    check_folder(args.output, asked)
    calls = 2 * args.num_inference_steps - 1
    print(f"{args.num_images} images of {args.model}, seed {args.seed}, up to {calls} network calls each")
    if args.dry_run:
        return None

    # After the dry run: these imports take seconds.
    import torch
    from accelerate import PartialState
    from tqdm.auto import tqdm

    from hf_noise.diffusion import EDMPipeline
    from hf_noise.diffusion.pipeline_edm import image_generators
    from hf_noise.reports.atomic import sweep_temporaries, temporary_beside, write_atomic
    from hf_noise.studies.launch import take_back_cores
    from hf_noise.trainers.folders import locked

    take_back_cores()
    state = PartialState(cpu=not torch.cuda.is_available())
    with state.main_process_first():  # it downloads, the others find it in the cache
        pipeline = EDMPipeline.from_pretrained(args.model)
    check_asked(args, pipeline)
    asked["weights"] = weights_of(pipeline)
    check_folder(args.output, asked)  # a network trained again has the name it had
    pipeline.to(state.device)
    pipeline.set_progress_bar_config(disable=True)
    labels = labels_of(args, pipeline.config.num_classes)
    folder = args.output / "images"

    def path_of(index: int) -> Path:
        return folder / f"{index:07d}.png"

    with locked(args.output) if state.is_main_process else nullcontext():
        folder.mkdir(parents=True, exist_ok=True)
        if state.is_main_process:
            told = {"model": portable(args.model)} | asked
            told |= {"num_classes": pipeline.config.num_classes, "noise": pipeline.config.hf_noise}
            write_atomic(args.output / SETTINGS_FILE, json.dumps(told, indent=2) + "\n")
            sweep_temporaries(folder)
        missing = [index for index in range(args.num_images) if not path_of(index).is_file()]
        state.wait_for_everyone()  # all have looked before anyone writes, so all share out the same images
        own = missing[state.process_index :: state.num_processes]
        with tqdm(total=len(own), unit="image", disable=not state.is_main_process) as bar:
            for begin in range(0, len(own), args.batch_size):
                batch = own[begin : begin + args.batch_size]
                generators = [image_generators(args.seed, 1, index)[0] for index in batch]
                with torch.autocast(state.device.type, torch.bfloat16, enabled=args.bf16):
                    pictures = pipeline(
                        None if labels is None else labels[batch], len(batch), args.num_inference_steps,
                        args.guidance_scale, generator=generators,
                    ).images  # fmt: skip
                for index, picture in zip(batch, pictures):
                    partial = temporary_beside(path_of(index))
                    picture.save(partial, format="PNG")
                    os.replace(partial, path_of(index))
                bar.update(len(batch))
        state.wait_for_everyone()
        if state.is_main_process:
            rows = [{"file_name": f"images/{path_of(index).name}"} for index in range(args.num_images)]
            if labels is not None:
                rows = [row | {"label": int(label)} for row, label in zip(rows, labels)]
            write_atomic(args.output / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            print(f"wrote {args.output}")
    return args.output
