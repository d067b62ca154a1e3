"""Classifiers of noisy images at every noise level, learned from wrong labels: what TDSM takes its weights from.

Trains one classifier per setting: through the known transition matrix T, through one that is estimated beside it by
volume minimisation, or through one read off the anchor points of a plain classifier. Then prints a table. Every setting
has a folder with the saved `TimeDependentClassifier` and `record.json`. Started again, it skips what is finished and
goes on where it was killed. `--dry_run` looks at settings and data. Any flag overrides the scale's preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_noise.models.names import TIME_CLASSIFIERS
from hf_noise.noise.labels import LABEL_PROTOCOLS
from hf_noise.noise.schedule import Plan, plan_named
from hf_noise.studies.image_settings import ImageSettings, check_rates, elsewhere, knows_rows, train_rows_of
from hf_noise.studies.ranges import NotNegative, Positive, Share, ShareInside
from hf_noise.studies.settings import LEARNING_RATE_SCHEDULES, SettingError, setting
from hf_noise.studies.study import Study, planned

TRANSITIONS = ("known", "estimated", "anchor", "human", "none")
# Paper C: 200M images in batches of 1024, Adam with a linear ramp-up over the first 10M.
CIFAR = dict(
    data="hf_noise/cifar10-noisy", batch_size=1024, micro_batch=1024, learning_rate=1e-3,
    warmup=0.05, save_steps=5000, logging_steps=100, bf16=True, torch_compile=True,
)  # fmt: skip
SCALES: dict[str, dict] = {
    "demo": dict(
        output="runs/time-classifier-demo", data="hf_noise/digits-noisy", ratio=[1.0],
        transition=["known", "estimated", "anchor"], epochs=40.0, batch_size=128, micro_batch=512, learning_rate=2e-3,
        schedule="cosine", warmup=0.05, matrix_phases="short", augment=0.0, save_steps=1000, logging_steps=50,
    ),  # fmt: skip
    # 10M images, a few minutes of one H200 for each matrix.
    "gpu": CIFAR | dict(
        output="runs/time-classifier-gpu", ratio=[2 / 3], transition=["known", "estimated"], epochs=200.0, augment=0.0,
        schedule="cosine", matrix_phases="short",
    ),  # fmt: skip
    # In single precision; 40% of the labels are wrong, drawn once.
    "paper": CIFAR | dict(
        output="runs/time-classifier-paper", ratio=[2 / 3], transition=["known"], epochs=4000.0,
        redraw="never", flip=False, augment=0.12, bf16=False, tf32=False, schedule="constant_with_warmup",
        matrix_phases="paper",
    ),  # fmt: skip
}


@dataclass
class Settings(ImageSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ("transition", "seed", "ratio")
    usual: ClassVar = ("transition",)

    model: str | None = setting(None, "network, or paper C's", group="model", choices=TIME_CLASSIFIERS)
    protocol: str = setting("symmetric", f"{', '.join(LABEL_PROTOCOLS)}, or human:<name>", group="noise and loss")
    transition: list[str] = setting(
        None, "what is trained through: " + ", ".join(TRANSITIONS), group="noise and loss", in_result=False
    )
    matrix_phases: str = setting(None, "plan of the estimate", group="noise and loss", choices=["short", "paper"])
    anchor_quantile: ShareInside = setting(
        0.97, "of anchor points; nearer 1 for more classes", group="noise and loss"
    )
    learning_rate: Positive = setting(None, "peak, of Adam")
    schedule: str = setting(None, "of the learning rate", choices=LEARNING_RATE_SCHEDULES)
    warmup: NotNegative = setting(None, "steps, or below 1 a share of them")
    augment: Share = setting(None, "probability of EDM's augmentation, 0 for none")
    tf32: bool | None = setting(None, "TensorFloat-32 on GPUs; as torch has it if not set", group="machine")
    fp16: bool = setting(False, "float16 autocast, float32 weights; for GPUs without bfloat16", group="machine")

    def complete(self) -> None:
        self.model = self.model or usual_network(self)
        self.check_images([self.protocol])
        if unknown := sorted(set(self.transition) - set(TRANSITIONS)):
            raise SettingError(f"unknown --transition {unknown[0]}; known: {', '.join(TRANSITIONS)}")
        if "human" in self.transition and not self.protocol.startswith("human:"):
            raise SettingError("--transition human counts T in human labels: give --protocol human:<name> too")
        check_rates(runs_of(self), self)


def usual_network(settings: Settings) -> str:
    """Paper C's for these images; at demo scale small ones."""
    if settings.is_tiny:
        return "cnn-digits"
    if settings.scale == "demo" or "mnist" in settings.data:
        return "cnn-mnist"
    return "resnet34" if "cifar100" in settings.data else "resnet18"


@dataclass(frozen=True)
class Run:
    """One setting; `ratio` is None for human labels, whose rate is what it is."""

    ratio: float | None
    protocol: str
    transition: str
    seed: int

    @property
    def name(self) -> str:
        noise = self.protocol.replace(":", "-") if self.ratio is None else f"r{self.ratio:.3g}-{self.protocol}"
        return f"{noise}-{self.transition}-seed{self.seed}"


def runs_of(settings: Settings) -> list[Run]:
    """One run for each seed, ratio and way to come by a matrix."""
    ratios = [None] if settings.protocol.startswith("human:") else settings.ratio
    return [
        Run(ratio, settings.protocol, transition, seed)
        for seed in settings.seed for ratio in ratios for transition in settings.transition
    ]  # fmt: skip


def plan_of(settings: Settings, run: Run, rows: int) -> Plan:
    """Steps and batch of a run: the same for any noise, so that none gets more compute than another."""
    steps = max(1, round(settings.epochs * max(1, rows // settings.batch_size)))
    return planned(plan_named("budget"), run, steps=steps, batch_size=settings.batch_size)


STUDY = Study(
    package=__package__,
    recipe="recipes/time_classifier.py",
    task="noisy_classification",
    description=__doc__.split("\n\n")[0],
    settings=Settings,
    runs=runs_of,
    plan=plan_of,
    rows=train_rows_of,
    knows_rows=knows_rows,
    elsewhere=elsewhere,
    derived=lambda settings, plan, rows: f"images = {plan.sequences:,} noisy images",
)
main = STUDY.main
