"""Image classifiers under label noise: what wrong labels do to accuracy and to the marginal, and how to train through.

Trains one model per setting, then prints a table and draws `<output>/study.png`. Every setting has a folder with
its checkpoint, `record.json` and card. Started again, it skips what is finished and goes on where it was killed.
`--dry_run` prints the settings and what follows from them. Any flag overrides the scale's preset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hf_noise.noise.schedule import Table7, plan_named
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.classifier.report import label_figure, label_table
from hf_noise.studies.classifier.run import Data, Run, train
from hf_noise.studies.engine import parse_scaled, print_plans
from hf_noise.studies.image_settings import ImageSettings, check_rates
from hf_noise.studies.ranges import CountOrNone, Name, NotNegative, Positive, ShareBelowOne

# Papers A and C say ResNet-18 and 200 epochs and leave the rest open; these are the usual settings for it.
CIFAR = dict(
    data="hf_noise/cifar10-noisy", model="resnet18-cifar", epochs=200.0, batch_size=128, micro_batch=512,
    optimizer="sgd", learning_rate=0.1, warmup=0.0, weight_decay=5e-4, crop_padding=4,
    loss=["nll"], save_steps=5000, logging_steps=100, bf16=True, torch_compile=True,
)  # fmt: skip
RATIOS = [0.0, 0.1, 0.3, 0.5, 1.0]
PLANS = ["steps", "batch", "table7", "budget"]
SCALES: dict[str, dict] = {
    "demo": dict(
        output="runs/classifier-demo", data="hf_noise/digits-noisy", plan=["steps"],
        ratio=RATIOS, protocol=["symmetric", "cyclic"], loss=["nll", "corrected"], epochs=15.0, batch_size=64,
        micro_batch=512, optimizer="sgd", learning_rate=0.05, warmup=0.0, weight_decay=5e-4, crop_padding=1,
        save_steps=1000, logging_steps=50,
    ),  # fmt: skip
    # Meant for 25 minutes of one H200: nine settings, 30 epochs without noise.
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
class Settings(ImageSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scale: str = field(default="demo", metadata={"help": "demo | gpu | paper | imagenet", "choices": list(SCALES)})
    model: Name | None = field(default=None, metadata={"help": "a small network of ours, or any name of timm"})
    on_device: bool = field(default=True, metadata={"help": "keep all images there"})
    workers: CountOrNone = field(default=0, metadata={"help": "processes that read images not on the device"})
    protocol: list[str] = field(default=None, metadata={"help": "symmetric, cyclic, uniform_resample, pairs, human:x"})
    loss: list[str] = field(default=None, metadata={"help": "nll, corrected (through the known transition matrix)"})
    plan: list[str] = field(
        default=None, metadata={"help": f"compute at noise r: {', '.join(PLANS)}", "choices": PLANS}
    )
    reading: str = field(default="principle", metadata={"help": "of table 7", "choices": list(Table7.readings)})
    optimizer: str = field(default=None, metadata={"help": "sgd (momentum 0.9) or adamw", "choices": ["sgd", "adamw"]})
    learning_rate: Positive = field(default=None, metadata={"help": "peak; cosine to 0"})
    warmup: NotNegative = field(default=None, metadata={"help": "steps, or below 1 a share of them"})
    weight_decay: NotNegative = field(default=None, metadata={"help": "on matrices and filters only"})
    crop_padding: CountOrNone = field(default=None, metadata={"help": "random crops after padding by so many pixels"})
    label_smoothing: ShareBelowOne = field(default=0.0, metadata={"help": "share of all classes in the target"})
    mixup: NotNegative = field(default=0.0, metadata={"help": "alpha of mixup, 0 for none"})


def parse(argv: list[str] | None = None) -> Settings:
    lists = ("protocol", "loss", "plan", "seed")
    parser, settings = parse_scaled(Settings, SCALES, argv, __doc__.split("\n\n")[0], one_or_more=lists)
    if unknown := sorted(set(settings.loss) - {"nll", "corrected"}):
        parser.error(f"--loss takes nll and corrected, got {unknown[0]}")
    settings.model = settings.model or ("resnet10-digits" if settings.is_tiny else "resnet10-small")
    settings.complete(parser, settings.protocol)
    if not runs_of(settings):
        parser.error("--ratio is empty: nothing would be trained")
    return settings


def runs_of(settings: Settings) -> list[Run]:
    """The runs of a study: without noise once per seed, all others once per protocol, loss, plan and seed."""
    runs = []
    for seed in settings.seed:
        if 0 in settings.ratio:
            runs.append(Run(0.0, "none", "nll", settings.plan[0], seed))
        for protocol in settings.protocol:
            for loss in settings.loss:
                if protocol.startswith("human:"):
                    runs.append(Run(None, protocol, loss, "budget", seed))
                    continue
                runs += [Run(r, protocol, loss, plan, seed) for plan in settings.plan for r in settings.ratio if r]
    return runs


def plan_of(settings: Settings, run: Run, train_rows: int):
    """Steps and batch of a run; human labels, whose rate is what it is, get what the run without noise gets."""
    options = {"classes": settings.classes, "reading": settings.reading} if run.plan == "table7" else {}
    steps = max(1, round(settings.epochs * max(1, train_rows // settings.batch_size)))
    return plan_named(run.plan, **options).plan(run.ratio or 0.0, steps=steps, batch_size=settings.batch_size)


def main(argv: list[str] | None = None) -> None:
    settings = parse(argv)
    runs = runs_of(settings)
    check_rates(runs, settings)
    train_rows = Data.rows(settings)
    plans = [plan_of(settings, run, train_rows) for run in runs]
    if settings.dry_run:
        print_plans(settings, runs, plans, lambda plan: f"images = {plan.sequences / train_rows:.1f} epochs")
        return
    is_main = train(settings, runs, plans)
    if is_main:
        records = [record for record in read_records(settings.output) if isinstance(record, RunRecord)]
        print(label_table(records))
        print(f"\nfigure: {label_figure(records, Path(settings.output) / 'study.png')}")
