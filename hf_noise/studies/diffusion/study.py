"""Diffusion models under label noise: what wrong labels do to the images of a class, and TDSM that learns through them.

Trains one network per setting and has a judge, trained on clean labels, look at the images it draws; then prints a
table and draws `<output>/study.png`, where each row is a class that was asked for. Every setting has a folder with a
pipeline, `record.json` and card. Started again, it skips what is finished and goes on where it was killed.
`--dry_run` prints the settings and what follows from them. Any flag overrides the scale's preset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hf_noise.metrics import mixture_reference
from hf_noise.models.edm_unet import EDM_UNETS
from hf_noise.noise.schedule import plan_named
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.classifier.run import Data
from hf_noise.studies.diffusion.report import generation_figure, generation_table
from hf_noise.studies.diffusion.run import Run, train
from hf_noise.studies.engine import check_model, parse_scaled, print_plans
from hf_noise.studies.image_settings import ImageSettings, check_rates
from hf_noise.studies.ranges import Count, CountOrNone, Name, NotNegative, Positive, Share, ShareBelowOne

PLANS = ["steps", "batch", "budget"]
CIFAR = dict(
    data="hf_noise/cifar10-noisy", model="edm-cifar", protocol=["symmetric"], plan="steps", redraw="epoch",
    schedule="constant_with_warmup", ema_decay=0.9993, max_grad_norm=0.0, micro_batch=512, sample_batch=1000,
    save_steps=10_000, logging_steps=100, bf16=True, torch_compile=True,
)  # fmt: skip
SCALES: dict[str, dict] = {
    "demo": dict(
        output="runs/edm-demo", data="hf_noise/digits-noisy", protocol=["symmetric"],
        ratio=[0.0, 0.5, 1.0], loss=["dsm", "tdsm"], plan="steps", redraw="epoch", epochs=26.0,
        batch_size=64, micro_batch=256, learning_rate=3e-3, warmup=50, schedule="cosine", ema_decay=0.99,
        max_grad_norm=1.0, dropout=0.0, augment=0.0, num_images=1000, sample_batch=250, save_steps=400,
        logging_steps=100,
    ),  # fmt: skip
    # About 25 minutes of one H200: three networks and one classifier.
    "gpu": CIFAR | dict(
        output="runs/edm-gpu", ratio=[0.0, 1.0], loss=["dsm", "tdsm"], epochs=20.0, batch_size=512, learning_rate=5e-4,
        warmup=500, dropout=0.0, augment=0.0, classifier_epochs=60.0, num_images=10_000,
    ),  # fmt: skip
    # Paper A, tables 1 and 12. It states neither duration nor dropout nor augmentation, and a warm-up of 200 epochs:
    # read as part of 300, with the usual 5,000 steps of warm-up.
    "paper": CIFAR | dict(
        output="runs/edm-paper", ratio=[0.0, 0.1, 0.3, 0.5, 1.0], loss=["dsm"], epochs=300.0, batch_size=128,
        learning_rate=1e-4, warmup=5000, dropout=0.1, augment=0.0, num_images=50_000,
    ),  # fmt: skip
    # Paper C: 200M images for network and classifier, ramp-up over 10M, 40% symmetric noise that is drawn once.
    "paper_c": CIFAR | dict(
        output="runs/edm-paper-c", model="edm-ddpmpp", ratio=[0.0, 2 / 3], loss=["dsm", "tdsm"], plan="budget",
        redraw="never", epochs=4000.0, batch_size=512, learning_rate=1e-3, warmup=19_531, dropout=0.13, flip=False,
        augment=0.12, num_images=50_000, bf16=False, tf32=False,
    ),  # fmt: skip
}


@dataclass
class Settings(ImageSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scale: str = field(default="demo", metadata={"help": "demo | gpu | paper | paper_c", "choices": list(SCALES)})
    model: str | None = field(default=None, metadata={"help": "network", "choices": list(EDM_UNETS)})
    protocol: list[str] = field(default=None, metadata={"help": "symmetric, cyclic, uniform_resample, pairs, human:x"})
    loss: list[str] = field(default=None, metadata={"help": "dsm, tdsm (through the transition matrix)"})
    plan: str = field(default=None, metadata={"help": f"compute at noise r: {', '.join(PLANS)}", "choices": PLANS})
    learning_rate: Positive = field(default=None, metadata={"help": "peak, of Adam"})
    warmup: CountOrNone = field(default=None, metadata={"help": "steps"})
    schedule: str = field(default=None, metadata={"help": "cosine (to 0), or constant_with_warmup"})
    ema_decay: ShareBelowOne = field(default=None, metadata={"help": "of the moving average, per step"})
    max_grad_norm: NotNegative = field(default=None, metadata={"help": "longer gradients are cut to this; 0 for none"})
    dropout: ShareBelowOne = field(default=None, metadata={"help": "in the network"})
    label_dropout: ShareBelowOne = field(default=0.0, metadata={"help": "share of labels left out, for guidance"})
    augment: Share = field(default=None, metadata={"help": "probability of EDM's augmentation, 0 for none"})
    tau: ShareBelowOne = field(default=0.01, metadata={"help": "tdsm: classes of less weight are left out"})
    classifier: Name | None = field(default=None, metadata={"help": "tdsm: folder or Hub id; trained if not given"})
    classifier_model: str | None = field(default=None, metadata={"help": "its network, see time_classifier.py"})
    classifier_epochs: Positive | None = field(default=None, metadata={"help": "its passes over the training images"})
    judge: Name | None = field(default=None, metadata={"help": "classifier, folder or Hub id; trained if not given"})
    judge_epochs: Positive | None = field(default=None, metadata={"help": "its passes over the clean training images"})
    num_images: Count = field(default=None, metadata={"help": "images to draw and to judge, as many of every class"})
    sampling_steps: Count = field(default=18, metadata={"help": "of Heun's method; N steps take 2N - 1 network calls"})
    sample_batch: Count = field(default=None, metadata={"help": "images drawn at a time"})
    tf32: bool | None = field(default=None, metadata={"help": "TensorFloat-32 on GPUs; as torch has it if not set"})
    fp16: bool = field(default=False, metadata={"help": "float16 autocast, float32 weights; for GPUs without bfloat16"})


def parse(argv: list[str] | None = None) -> Settings:
    lists = ("protocol", "loss", "seed")
    parser, settings = parse_scaled(Settings, SCALES, argv, __doc__.split("\n\n")[0], one_or_more=lists)
    if unknown := sorted(set(settings.loss) - {"dsm", "tdsm"}):
        parser.error(f"--loss takes dsm and tdsm, got {unknown[0]}")
    settings.model = settings.model or ("edm-digits" if settings.is_tiny else "edm-small")
    settings.complete(parser, settings.protocol)
    if not runs_of(settings):
        parser.error("--ratio or --loss is empty: nothing would be trained")
    for name in ("classifier", "judge"):
        check_model(parser, name, getattr(settings, name))
    return settings


def runs_of(settings: Settings) -> list[Run]:
    """The runs of a study: without noise once per seed, all others once per protocol, loss and seed."""
    runs = []
    for seed in settings.seed:
        if 0 in settings.ratio:
            runs.append(Run(0.0, "none", "dsm", seed))
        for protocol in settings.protocol:
            ratios = [None] if protocol.startswith("human:") else [r for r in settings.ratio if r]
            runs += [Run(r, protocol, loss, seed) for r in ratios for loss in settings.loss]
    return runs


def plan_of(settings: Settings, run: Run, train_rows: int):
    """Steps and batch of a run; human labels, whose rate is what it is, get what the run without noise gets."""
    steps = max(1, round(settings.epochs * train_rows / settings.batch_size))
    plan = plan_named("budget" if run.ratio is None else settings.plan)
    return plan.plan(run.ratio or 0.0, steps=steps, batch_size=settings.batch_size)


def main(argv: list[str] | None = None) -> None:
    settings = parse(argv)
    runs = runs_of(settings)
    check_rates(runs, settings)
    train_rows = Data.rows(settings)
    plans = [plan_of(settings, run, train_rows) for run in runs]
    if settings.dry_run:
        print_plans(settings, runs, plans, lambda plan: f"images = {plan.sequences / train_rows:.1f} epochs")
        return
    if train(settings, runs, plans):
        folders = [Path(settings.output) / run.name for run in runs]
        records = [record for folder in folders for record in read_records(folder / "record.json")]
        records = [record for record in records if isinstance(record, RunRecord)]
        print(generation_table(records, reference=mixture_reference))
        print(f"\nfigure: {generation_figure(records, folders, Path(settings.output) / 'study.png')}")
