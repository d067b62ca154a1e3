"""Image classifiers under label noise: what wrong labels do to accuracy and to the marginal, and how to train through.

Trains one model per setting, then prints a table and draws `<output>/study.png`. Every setting has a folder with
its checkpoint, `record.json` and card. Started again, it skips what is finished and goes on where it was killed.
`--dry_run` looks at settings and data. Any flag overrides the scale's preset.

Several `--train_rows` make a study of each number of clean images, and then show what noise costs against it.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from hf_noise.models.names import SMALL_CLASSIFIERS
from hf_noise.noise.schedule import Plan, Schedule, Table7, plan_named
from hf_noise.objectives import objectives
from hf_noise.studies.door import program
from hf_noise.studies.image_settings import ImageSettings, check_rates, elsewhere, knows_rows, train_rows_of
from hf_noise.studies.losses import check_losses, names_of_losses
from hf_noise.studies.ranges import Count, CountOrNone, Name, NotNegative, Positive, ShareBelowOne
from hf_noise.studies.settings import ComparedSettings, SettingError, setting
from hf_noise.studies.study import Study, most_compute, planned

# Papers A and C say ResNet-18 and 200 epochs and leave the rest open; these are the usual settings for it.
CIFAR = dict(
    data="hf_noise/cifar10-noisy", model="resnet18-cifar", epochs=200.0, batch_size=128, micro_batch=512,
    optimizer="sgd", learning_rate=0.1, warmup=0.0, weight_decay=5e-4, crop_padding=4,
    loss=["nll"], save_steps=5000, logging_steps=100, bf16=True, torch_compile=True,
)  # fmt: skip
RATIOS = [0.0, 0.1, 0.3, 0.5, 1.0]
MULTIPLIED = [f"steps-x{m}" for m in (2, 4, 8)]
PLANS = ["steps", *MULTIPLIED, "batch", "table7", "budget"]
SCALES: dict[str, dict] = {
    "demo": dict(
        output="runs/classifier-demo", data="hf_noise/digits-noisy", plan=["steps"],
        ratio=RATIOS, protocol=["symmetric", "cyclic"], loss=["nll", "corrected"], epochs=15.0, batch_size=64,
        micro_batch=512, optimizer="sgd", learning_rate=0.05, warmup=0.0, weight_decay=5e-4, crop_padding=1,
        save_steps=1000, logging_steps=50,
    ),  # fmt: skip
    # How large a batch at r = 1: what is advised against what is best, at equal clean exposure. All batches are made of
    # passes of 32, over which the network normalises.
    "advice": dict(
        output="runs/classifier-advice", data="hf_noise/digits-noisy", plan=["steps", *MULTIPLIED], ratio=[0.0, 1.0],
        protocol=["symmetric"], loss=["nll"], epochs=10.0, batch_size=64, micro_batch=32, optimizer="sgd",
        learning_rate=0.05, warmup=0.0, weight_decay=5e-4, crop_padding=1, save_steps=1000, logging_steps=50,
        seed=[0, 1, 2], equal_compute=False, advise=True,
    ),  # fmt: skip
    # Meant for 25 minutes of one H200: ten settings, 30 epochs without noise.
    "gpu": CIFAR | dict(
        output="runs/classifier-gpu", plan=["steps"], ratio=[0.0, 0.5, 1.0], protocol=["symmetric", "cyclic"],
        loss=["nll", "corrected"], epochs=30.0,
    ),  # fmt: skip
    "paper": CIFAR | dict(
        output="runs/classifier-paper", plan=["steps"], ratio=RATIOS, protocol=["symmetric", "cyclic"],
    ),  # fmt: skip
    # Paper A, tables 3, 7 and 9: ViT-B/16 from scratch; 128 images on each of 8 GPUs.
    "imagenet": dict(
        output="runs/classifier-imagenet", data="hf_noise/imagenet-noisy", classes=1000, model="vit_base_patch16_224",
        image_size=224, on_device=False, workers=8, plan=["table7"], ratio=RATIOS, protocol=["symmetric"],
        loss=["nll"], epochs=300.0, batch_size=1024, micro_batch=128, optimizer="adamw", learning_rate=1e-3,
        warmup=0.03, weight_decay=0.1, crop_padding=0, save_steps=5000, logging_steps=100, bf16=True,
        torch_compile=True,
    ),  # fmt: skip
}


@dataclass
class Settings(ComparedSettings, ImageSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES
    train_rows: Count | None = setting(
        None, "how many of the images, all if not set; several numbers: a study of each, at r = 0 and 1 with three "
        "seeds unless told", group="data",
    )  # fmt: skip
    one_or_more: ClassVar = ("protocol", "loss", "plan", "seed")

    model: Name | None = setting(None, f"{', '.join(SMALL_CLASSIFIERS)}, or any name of timm", group="model")
    on_device: bool = setting(True, "keep all images there", group="machine")
    workers: CountOrNone = setting(
        0, "processes that read images not on the device", group="machine", in_result=False
    )
    protocol: list[str] = setting(
        None, "symmetric, cyclic, uniform_resample, pairs, human:x", group="noise and loss", in_result=False
    )
    loss: list[str] = setting(
        None, f"by name, corrected is through the known T: {', '.join(names_of_losses('labels'))}",
        group="noise and loss", in_result=False,
    )
    plan: list[str] = setting(
        None, f"compute at noise r: {', '.join(PLANS)}; -x2: in batches twice as large", group="noise and loss",
        choices=PLANS, in_result=False,
    )
    reading: str = setting("principle", "of table 7", group="noise and loss", choices=list(Table7.readings))
    optimizer: str = setting(None, "sgd (momentum 0.9) or adamw", choices=["sgd", "adamw"])
    learning_rate: Positive = setting(None, "peak; cosine to 0")
    warmup: NotNegative = setting(None, "steps, or below 1 a share of them")
    scale_learning_rate: bool = setting(
        False, "of plans with larger batches: by their factor, its root for adamw", is_later=True
    )
    weight_decay: NotNegative = setting(None, "on matrices and filters only")
    crop_padding: CountOrNone = setting(None, "random crops after padding by so many pixels")
    label_smoothing: ShareBelowOne = setting(0.0, "share of all classes in the target")
    mixup: NotNegative = setting(0.0, "alpha of mixup, 0 for none")
    advise: bool = setting(
        False, "measure signal and noise of gradients in runs of the plan steps, and advise a batch",
        group="measurement", in_result=False,
    )

    def complete(self) -> None:
        check_losses(self.loss, "labels")
        plain = [loss.name for loss in objectives("labels") if loss.name in self.loss and not loss.smooths]
        if self.label_smoothing and plain:
            raise SettingError(f"--label_smoothing {self.label_smoothing:g}: the loss {plain[0]} has no smoothed form")
        looking = [loss.name for loss in objectives("labels") if loss.name in self.loss and loss.needs_forward]
        if self.mixup and looking:
            raise SettingError(f"--mixup {self.mixup:g} mixes rows, and the loss {looking[0]} looks at each of them")
        self.model = self.model or ("resnet10-digits" if self.is_tiny else "resnet10-small")
        check_network(self.model, "model")
        self.check_images(self.protocol)
        runs = runs_of(self)
        if not runs:
            raise SettingError("--ratio is empty: nothing would be trained")
        if self.advise:
            self._check_advice()
        check_rates(runs, self)

    def _check_advice(self) -> None:
        if not (any(self.ratio) and "steps" in self.plan and self.on_device):
            raise SettingError("--advise watches runs with noise of the plan steps, on images in memory: give a "
                               "--ratio above 0, --plan steps, and not --no_on_device")  # fmt: skip
        if self.mixup:
            raise SettingError(f"--advise tells gradients of clean from those of wrong labels, and --mixup "
                               f"{self.mixup:g} mixes their rows: leave one out")  # fmt: skip
        if self.batch_size < 2 * self.micro_batch or self.batch_size % self.micro_batch:
            raise SettingError(f"--advise compares the passes of a step, which are to be as large in each batch: give "
                               f"a --batch_size that is a multiple of --micro_batch {self.micro_batch} and at least "
                               f"twice that, got {self.batch_size}")  # fmt: skip


def check_network(name: str, flag: str) -> None:
    """Raises SettingError: no classifier of ours or timm's has this name."""
    if name in SMALL_CLASSIFIERS:
        return
    import timm  # takes seconds

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [*SMALL_CLASSIFIERS, *timm.list_models()], n=1)
        hint = f"did you mean {near[0]}? known:" if near else "known:"
        raise SettingError(f"unknown --{flag} {name}; {hint} {', '.join(SMALL_CLASSIFIERS)}, timm.list_models()")


@dataclass(frozen=True)
class Run:
    """One setting; `ratio` is None for human labels, whose rate is what it is. `compute_of` is the ratio whose steps
    and batch a run without noise gets, None for its own.
    """

    ratio: float | None
    protocol: str
    loss: str
    plan: str
    seed: int
    compute_of: float | None = None

    @property
    def name(self) -> str:
        if self.compute_of is not None:
            return f"r0-compute-of-r{self.compute_of:g}-{self.plan}-seed{self.seed}"
        if self.ratio == 0:
            return f"r0-seed{self.seed}"
        noise = self.protocol.replace(":", "-") if self.ratio is None else f"r{self.ratio:g}-{self.protocol}"
        return f"{noise}-{self.loss}-{self.plan}-seed{self.seed}"


def clean_run(settings: Settings) -> Run:
    """The run on clean labels of the first seed, such as a judge is."""
    return Run(0.0, "none", "nll", settings.plan[0], settings.seed[0])


def runs_of(settings: Settings) -> list[Run]:
    """The runs of a study: without noise once per seed, all others once per protocol, loss, plan and seed."""
    runs, longest = [], {}
    if settings.equal_compute and any(not protocol.startswith("human:") for protocol in settings.protocol):
        longest = {plan: most_compute(schedule_of(settings, plan), settings.ratio, settings.batch_size)
                   for plan in settings.plan}  # fmt: skip
    for seed in settings.seed:
        if 0 in settings.ratio:
            runs.append(Run(0.0, "none", "nll", settings.plan[0], seed))
            runs += [Run(0.0, "none", "nll", plan, seed, ratio) for plan, ratio in longest.items() if ratio]
        for protocol in settings.protocol:
            for loss in settings.loss:
                if protocol.startswith("human:"):
                    runs.append(Run(None, protocol, loss, "budget", seed))
                    continue
                runs += [Run(r, protocol, loss, plan, seed) for plan in settings.plan for r in settings.ratio if r]
    return runs


def schedule_of(settings: Settings, plan: str) -> Schedule:
    """The compute plan of this name, with what it depends on; steps-x4 is of batches four times as large."""
    plan, _, multiplier = plan.partition("-x")
    if multiplier:
        return plan_named(plan, batch_multiplier=int(multiplier))
    options = {"classes": settings.classes, "reading": settings.reading} if plan == "table7" else {}
    return plan_named(plan, **options)


def learning_rate_of(settings: Settings, plan: Plan) -> float:
    """The peak learning rate of a run, raised along with its batch where that is asked for."""
    if not settings.scale_learning_rate or plan.name not in MULTIPLIED:
        return settings.learning_rate
    factor = plan.batch_multiplier
    return settings.learning_rate * (factor if settings.optimizer == "sgd" else factor**0.5)


def plan_of(settings: Settings, run: Run, rows: int) -> Plan:
    """Steps and batch of a run."""
    steps = max(1, round(settings.epochs * max(1, rows // settings.batch_size)))
    # Without noise every plan is the same; the others are told apart by their name.
    is_plain = run.ratio == 0 and run.compute_of is None
    schedule = schedule_of(settings, run.plan.partition("-x")[0] if is_plain else run.plan)
    found = planned(schedule, run, steps=steps, batch_size=settings.batch_size)
    if found.batch_size > rows:
        raise SettingError(f"{run.name} is to make steps of {found.batch_size} images, and there are {rows} to train "
                           f"on: its batches would be smaller than is planned; give a smaller --batch_size than "
                           f"{settings.batch_size}, or another --plan")  # fmt: skip
    return found if is_plain or run.plan not in MULTIPLIED else replace(found, name=run.plan)


STUDY = Study(
    package=__package__,
    recipe="recipes/classifier_noise.py",
    task="image_classification",
    description=__doc__.split("\n\n")[0],
    settings=Settings,
    runs=runs_of,
    plan=plan_of,
    rows=train_rows_of,
    knows_rows=knows_rows,
    elsewhere=elsewhere,
    derived=lambda settings, plan, rows: f"images = {plan.sequences / rows:.1f} epochs",
)


def main(argv: Sequence[str] | None = None) -> None:
    """The study as a command, or with several `--train_rows` once for each number of them."""
    first = argparse.ArgumentParser(program(), add_help=False, allow_abbrev=False)
    first.add_argument("--train_rows", nargs="*", default=[])
    asked, others = first.parse_known_args(argv)
    if len(asked.train_rows) < 2:
        STUDY.main(argv)
        return
    from hf_noise.studies.classifier.sizes import sweep

    sweep(STUDY, asked.train_rows, others)
