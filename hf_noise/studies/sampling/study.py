"""Draw images from a trained EDM pipeline: PNG files with their classes, the same for any batch and process count.

Writes `<output>/images/0000017.png` and, when all are there, `metadata.jsonl` with the class of each, so that
`load_dataset("imagefolder", data_dir=output)` and `evaluate_generation.py --images` read them; `settings.json` says
what they were drawn from, and what noise that was trained on. Started again, with any number of processes, it draws
what is missing, and refuses to mix images of other weights or settings. Image i depends on the weights, the seed, i and
its class alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from hf_noise.studies.ranges import FromOne, Name, Output, Range, SeedOfNoise
from hf_noise.studies.settings import CommandSettings, SettingError, parse, setting

# What the images depend on, besides the weights; a folder holds images of one choice of these. What the model is called
# does not matter.
KEPT = ("seed", "classes", "num_inference_steps", "guidance_scale", "bf16")
SETTINGS_FILE = "settings.json"
UNIFORM = ["uniform"]


@dataclass
class Settings(CommandSettings):
    """Settings of sampling."""

    one_or_more: ClassVar = ("classes",)

    model: Name = setting(None, "folder of a pipeline, or its name on the Hub", group="model")
    output: Output = setting("runs/samples", "new folder, or one of this recipe", group="study", in_result=False)
    # Images have numbers of seven digits in their names; batch and steps have the limits of EDMPipeline.
    num_images: Annotated[int, Range(1, 10**7)] = setting(50_000, "images in all", group="study")
    batch_size: Annotated[int, Range(1, 2**17)] = setting(256, "images per process and call", group="machine")
    seed: SeedOfNoise = setting(0, "of images and of uniform classes", group="study")
    classes: list[str] = setting(UNIFORM, "uniform (drawn), or numbers of classes, taken in turns", group="study")
    num_inference_steps: Annotated[int, Range(1, 10**6)] = setting(18, "18 are 35 network calls", group="model")
    guidance_scale: FromOne = setting(1.0, "classifier-free guidance, 1 for none", group="model")
    bf16: bool = setting(False, "bfloat16 autocast; the sample stays in float32", group="machine")

    def complete(self) -> None:
        if self.model is None:
            raise SettingError("--model is missing: the folder of a pipeline, or its name on the Hub")
        if self.classes != UNIFORM:
            if unknown := [name for name in self.classes if not str(name).isdecimal()]:
                raise SettingError(f"--classes takes uniform, or numbers of classes, got {unknown[0]}")
            self.classes = [int(name) for name in self.classes]


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


def main(argv: Sequence[str] | None = None) -> Path | None:
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    check_folder(Path(settings.output), {name: getattr(settings, name) for name in KEPT})
    if settings.dry_run:
        print(json.dumps(asdict(settings), indent=2))
    calls = 2 * settings.num_inference_steps - 1
    print(f"{settings.num_images} images of {settings.model}, seed {settings.seed}, up to {calls} network calls each")
    if settings.dry_run:
        return None
    from hf_noise.studies.sampling.run import sample

    return sample(settings)
