"""Diffusion models under label noise: what wrong labels do to the images of a class, and TDSM that learns through them.

Trains one network per setting and has a judge, trained on clean labels, look at the images it draws; then prints a
table and draws `<output>/study.png`, where each row is a class that was asked for. Every setting has a folder with a
pipeline, `record.json` and card. Started again, it skips what is finished and goes on where it was killed.
`--dry_run` looks at settings and data. Any flag overrides the scale's preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_noise.models.names import EDM_NETWORKS, TIME_CLASSIFIERS
from hf_noise.noise.schedule import Plan, plan_named
from hf_noise.studies.image_settings import ImageSettings, check_rates, elsewhere, knows_rows, train_rows_of
from hf_noise.studies.losses import check_losses, names_of_losses
from hf_noise.studies.ranges import Count, CountOrNone, Name, NotNegative, Positive, Share, ShareBelowOne, TwoOrMore
from hf_noise.studies.reading import check_judge, check_readable
from hf_noise.studies.settings import LEARNING_RATE_SCHEDULES, ComparedSettings, SettingError, setting
from hf_noise.studies.study import Study, most_compute, planned, steps_of

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
        warmup=500, dropout=0.0, augment=0.0, num_images=10_000,
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


#: Passes of TDSM's classifier over the images where they are not those of its own study at this scale.
CLASSIFIER_EPOCHS = {"gpu": 60.0}


@dataclass
class Settings(ComparedSettings, ImageSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ("protocol", "loss", "seed")
    usual: ClassVar = ("num_images",)

    model: str | None = setting(None, "network", group="model", choices=EDM_NETWORKS)
    protocol: list[str] = setting(
        None, "symmetric, cyclic, uniform_resample, pairs, human:x", group="noise and loss", in_result=False
    )
    loss: list[str] = setting(
        None, f"by name, tdsm is through the transition matrix: {', '.join(names_of_losses('images'))}",
        group="noise and loss", in_result=False,
    )
    plan: str = setting(None, f"compute at noise r: {', '.join(PLANS)}", group="noise and loss", choices=PLANS)
    learning_rate: Positive = setting(None, "peak, of Adam")
    warmup: CountOrNone = setting(None, "steps")
    schedule: str = setting(None, "of the learning rate; cosine ends at 0", choices=LEARNING_RATE_SCHEDULES)
    ema_decay: ShareBelowOne = setting(None, "of the moving average, per step")
    max_grad_norm: NotNegative = setting(None, "longer gradients are cut to this; 0 for none")
    dropout: ShareBelowOne = setting(None, "in the network", group="model")
    label_dropout: ShareBelowOne = setting(0.0, "share of labels left out, for guidance")
    augment: Share = setting(None, "probability of EDM's augmentation, 0 for none")
    tau: ShareBelowOne = setting(0.01, "tdsm: classes of less weight are left out", group="noise and loss")
    classifier: Name | None = setting(
        None, "tdsm: folder or Hub id; trained if not given", group="noise and loss"
    )
    classifier_model: str | None = setting(
        None, "its network, see time_classifier.py", group="model", choices=TIME_CLASSIFIERS
    )
    classifier_epochs: Positive | None = setting(
        None, "its passes over the training images; if not set, as many more or fewer than its scale as --epochs"
    )
    judge: Name | None = setting(
        None, "classifier, folder or Hub id, or a study's folder; trained if not given", group="measurement"
    )
    judge_epochs: Positive | None = setting(
        None, "its passes over the clean training images", group="measurement"
    )
    num_images: TwoOrMore = setting(
        None, "images to draw and to judge, as many of every class", group="measurement"
    )
    sampling_steps: Count = setting(
        18, "of Heun's method; N steps take 2N - 1 network calls", group="measurement"
    )
    sample_batch: Count = setting(None, "images drawn at a time", group="measurement", in_result=False)
    tf32: bool | None = setting(None, "TensorFloat-32 on GPUs; as torch has it if not set", group="machine")
    fp16: bool = setting(False, "float16 autocast, float32 weights; for GPUs without bfloat16", group="machine")

    def complete(self) -> None:
        check_losses(self.loss, "images")
        self.model = self.model or ("edm-digits" if self.is_tiny else "edm-small")
        self.check_images(self.protocol)
        runs = runs_of(self)
        if not runs:
            raise SettingError("--ratio or --loss is empty: nothing would be trained")
        check_rates(runs, self)
        check_readable("classifier", self.classifier)
        check_judge(self.judge)


@dataclass(frozen=True)
class Run:
    """One setting; `ratio` is None for human labels, whose rate is what it is. `compute_of` is the ratio whose steps
    and batch a run without noise gets, None for its own.
    """

    ratio: float | None
    protocol: str
    loss: str
    seed: int
    compute_of: float | None = None

    @property
    def labels(self) -> str:
        """Which labels it trains on, in a word that can name a folder."""
        if self.ratio == 0:
            return "r0" if self.compute_of is None else f"r0-compute-of-r{self.compute_of:.3g}"
        return self.protocol.replace(":", "-") if self.ratio is None else f"r{self.ratio:.3g}-{self.protocol}"

    @property
    def name(self) -> str:
        return f"{self.labels}-{self.loss}-seed{self.seed}"

    @property
    def ignores(self) -> tuple[str, ...]:
        """Settings that it does not depend on."""
        return ("tau", "classifier", "classifier_model", "classifier_epochs") if self.loss == "dsm" else ()


def runs_of(settings: Settings) -> list[Run]:
    """The runs of a study: without noise once per seed, all others once per protocol, loss and seed."""
    runs, longest = [], None
    if settings.equal_compute and any(not protocol.startswith("human:") for protocol in settings.protocol):
        longest = most_compute(plan_named(settings.plan), settings.ratio, settings.batch_size)
    for seed in settings.seed:
        if 0 in settings.ratio:
            runs.append(Run(0.0, "none", "dsm", seed))
            runs += [Run(0.0, "none", "dsm", seed, longest)] if longest else []
        for protocol in settings.protocol:
            ratios = [None] if protocol.startswith("human:") else [r for r in settings.ratio if r]
            runs += [Run(r, protocol, loss, seed) for r in ratios for loss in settings.loss]
    return runs


def plan_of(settings: Settings, run: Run, rows: int) -> Plan:
    """Steps and batch of a run."""
    schedule = plan_named("budget" if run.ratio is None else settings.plan)
    steps = steps_of(settings.epochs, rows, settings.batch_size)
    return planned(schedule, run, steps=steps, batch_size=settings.batch_size)


STUDY = Study(
    package=__package__,
    recipe="recipes/edm_noise.py",
    task="class_conditional_generation",
    description=__doc__.split("\n\n")[0],
    settings=Settings,
    runs=runs_of,
    plan=plan_of,
    rows=train_rows_of,
    knows_rows=knows_rows,
    elsewhere=elsewhere,
    derived=lambda settings, plan, rows: f"images = {plan.sequences / rows:.1f} epochs",
    # The average of the weights is kept beside them in each checkpoint, and the pipeline at the end.
    copies=4,
)
main = STUDY.main
