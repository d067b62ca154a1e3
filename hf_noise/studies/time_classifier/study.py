"""Classifiers of noisy images at every noise level, learned from wrong labels: what TDSM takes its weights from.

Trains one classifier per setting: through the known transition matrix T, through one that is estimated beside it by
volume minimisation, or through one read off the anchor points of a plain classifier. Then prints a table. Every setting
has a folder with the saved `TimeDependentClassifier` and `record.json`. Started again, it skips what is finished and
goes on where it was killed. `--dry_run` prints the settings and what follows from them. Any flag overrides the scale's
preset.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_noise.models.time_classifier import ARCHITECTURES
from hf_noise.noise.labels import LABEL_PROTOCOLS
from hf_noise.noise.schedule import plan_named
from hf_noise.reports.record import read_records
from hf_noise.studies.classifier.run import Data
from hf_noise.studies.engine import parse_scaled, print_plans
from hf_noise.studies.image_settings import ImageSettings, check_rates
from hf_noise.studies.ranges import NotNegative, Positive, Share, ShareInside
from hf_noise.studies.time_classifier.run import TRANSITIONS, Run, table, train

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

    scale: str = field(default="demo", metadata={"help": "demo | gpu | paper", "choices": list(SCALES)})
    model: str | None = field(default=None, metadata={"help": "network, or paper C's", "choices": list(ARCHITECTURES)})
    protocol: str = field(default="symmetric", metadata={"help": f"{', '.join(LABEL_PROTOCOLS)}, or human:<name>"})
    transition: list[str] = field(default=None, metadata={"help": "what is trained through: " + ", ".join(TRANSITIONS)})
    matrix_phases: str = field(default=None, metadata={"help": "plan of the estimate", "choices": ["short", "paper"]})
    anchor_quantile: ShareInside = field(default=0.97, metadata={"help": "of anchor points; nearer 1 for more classes"})
    learning_rate: Positive = field(default=None, metadata={"help": "peak, of Adam"})
    schedule: str = field(default=None, metadata={"help": "of the learning rate, by its name in transformers"})
    warmup: NotNegative = field(default=None, metadata={"help": "steps, or below 1 a share of them"})
    augment: Share = field(default=None, metadata={"help": "probability of EDM's augmentation, 0 for none"})
    tf32: bool | None = field(default=None, metadata={"help": "TensorFloat-32 on GPUs; as torch has it if not set"})
    fp16: bool = field(default=False, metadata={"help": "float16 autocast, float32 weights; for GPUs without bfloat16"})


def parse(argv: list[str] | None = None) -> Settings:
    lists = ("transition", "seed", "ratio")
    parser, settings = parse_scaled(Settings, SCALES, argv, __doc__.split("\n\n")[0], one_or_more=lists)
    settings.model = settings.model or usual_network(settings)
    settings.complete(parser, [settings.protocol])
    if unknown := sorted(set(settings.transition) - set(TRANSITIONS)):
        parser.error(f"unknown --transition {unknown[0]}; known: {', '.join(TRANSITIONS)}")
    if "human" in settings.transition and not settings.protocol.startswith("human:"):
        parser.error("--transition human counts T in human labels: give --protocol human:<name> too")
    if not runs_of(settings):
        parser.error("--ratio or --transition is empty: nothing would be trained")
    return settings


def usual_network(settings: Settings) -> str:
    """Paper C's for these images; at demo scale small ones."""
    if settings.is_tiny:
        return "cnn-digits"
    if settings.scale == "demo" or "mnist" in settings.data:
        return "cnn-mnist"
    return "resnet34" if "cifar100" in settings.data else "resnet18"


def runs_of(settings: Settings) -> list[Run]:
    """One run for each seed, ratio and way to come by a matrix."""
    ratios = [None] if settings.protocol.startswith("human:") else settings.ratio
    return [
        Run(ratio, settings.protocol, transition, seed)
        for seed in settings.seed for ratio in ratios for transition in settings.transition
    ]  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    settings = parse(argv)
    runs = runs_of(settings)
    check_rates(runs, settings)
    steps = max(1, round(settings.epochs * max(1, Data.rows(settings) // settings.batch_size)))
    budget = plan_named("budget")
    plans = [budget.plan(run.ratio or 0.0, steps=steps, batch_size=settings.batch_size) for run in runs]
    if settings.dry_run:
        print_plans(settings, runs, plans, lambda plan: f"images = {plan.sequences:,} noisy images")
        return
    is_main = train(settings, runs, plans)
    if is_main:
        print(table(read_records(settings.output)))
