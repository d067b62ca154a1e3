"""Fine-tuning under wrong labels: what they do to a text classifier, and which cures and regularisers help.

Trains one model per setting, all for the same number of steps, then prints tables, says which cure beats cross-entropy
and draws `<output>/study.png`. Every setting has a folder with its checkpoint or adapter, `record.json` and card.
Started again, it skips what is finished and goes on where it was killed. `--dry_run` looks at settings and data. Any
flag overrides the scale's preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_noise.noise import rates
from hf_noise.noise.labels import LABEL_PROTOCOLS
from hf_noise.noise.schedule import FixedBudget, Plan
from hf_noise.studies.finetune.runs import EMBEDDED_MODEL, LOSSES, METHODS, REGULARISERS, Run, runs_of
from hf_noise.studies.ranges import Count, Name, NotNegative, Positive, ShareBelowOne, ShareInside, TwoOrMore
from hf_noise.studies.reading import is_elsewhere, may_be_read
from hf_noise.studies.settings import LEARNING_RATE_SCHEDULES, SettingError, TrainingSettings, setting
from hf_noise.studies.study import Study

USUAL = dict(ratio=[0.0, 3 / 7], protocol=["symmetric"], method=["full"], regulariser=["none"], loss=["nll"])
SCALES: dict[str, dict] = {
    "demo": USUAL | dict(
        output="runs/finetune-demo", model=EMBEDDED_MODEL, source="embedded/docs-topics", ratio=[0.0, 2 / 3],
        regulariser=["none", "l2-sp", "smart", "lnsr"],
        loss=["nll", "corrected", "estimated", "gce", "elr", "co-teaching"], seed=[0, 1, 2], epochs=4.0, batch_size=32,
        micro_batch=64, learning_rate=1e-3, lora_learning_rate=5e-3, max_length=48, save_steps=1000, logging_steps=20,
        # As they are published, SMART and LNSR change nothing that one can see in a network of this size.
        smart_epsilon=3e-3, lnsr=100.0,
    ),  # fmt: skip
    # Any data set with one label a row; twelve settings and three seeds of BERT-base are meant for 25 minutes of a GPU.
    "gpu": USUAL | dict(
        output="runs/finetune-gpu", model="google-bert/bert-base-uncased", method=["lora"],
        loss=["nll", "corrected", "estimated", "gce", "elr", "co-teaching"], seed=[0, 1, 2], epochs=3.0, batch_size=32,
        micro_batch=128, learning_rate=2e-5, lora_learning_rate=3e-4, max_length=128, save_steps=1000, logging_steps=20,
        bf16=True,
    ),  # fmt: skip
    # Paper B, table 4, names BERT-Large, three regularisers with and without LGM, and RTE, MRPC, CoLA and STS-B, of
    # which the last is a regression and not offered. It states no setting of training: these are the usual ones of
    # BERT-Large on small tasks of GLUE (LNSR, section 5), which the published figures were cited from.
    "paper": USUAL | dict(
        output="runs/finetune-paper", model="google-bert/bert-large-uncased", ratio=[0.0],
        regulariser=["none", "l2-sp", "smart", "lnsr"], lgm=True, seed=[0, 1, 2, 3, 4], epochs=3.0, batch_size=32,
        micro_batch=32, learning_rate=2e-5, lora_learning_rate=3e-4, max_length=128, save_steps=1000, logging_steps=20,
        bf16=True,
    ),  # fmt: skip
}


@dataclass
class Settings(TrainingSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ("protocol", "method", "regulariser", "loss", "seed", "text_column")
    usual: ClassVar = ("method", "test_source")

    source: Name | None = setting(None, "file, glob, folder or Hub data set of texts with labels", group="data")
    test_source: Name | None = setting(None, "test rows, if the source has none", group="data")
    validation_source: Name | None = setting(None, "validation rows, which are measured too", group="data")
    test_fraction: ShareInside | None = setting(None, "share held out, if there are no test rows", group="data")
    text_column: list[Name] = setting(["text"], "the column of texts, or two columns for pairs", group="data")
    column: Name = setting("label", "the column of true labels", group="data")
    weak_column: Name | None = setting(
        None, "weak labels of the training rows, to train on: T is counted of both columns", group="data"
    )
    as_they_come: bool = setting(
        False, "labels of --column are wrong already, nobody knows how many, and are trained on as they come; the test "
        "labels are taken for right", group="data", in_result=False,
    )  # fmt: skip
    train_rows: TwoOrMore | None = setting(None, "how many of the training rows; all if not set", group="data")
    test_rows: TwoOrMore | None = setting(None, "how many of the test rows; all if not set", group="data")
    max_length: TwoOrMore = setting(None, "tokens of a text, or of both of a pair, at most", group="data")

    ratio: list[NotNegative] = setting(None, "noise ratios r = e / (1 - e)", group="noise and loss", in_result=False)
    error_rate: list[ShareBelowOne] = setting(
        [], "shares e of wrong labels, instead of --ratio", group="noise and loss", in_result=False
    )
    protocol: list[str] = setting(
        None, f"of wrong labels: {', '.join(LABEL_PROTOCOLS)}", group="noise and loss", in_result=False
    )
    pairs: list[Name] = setting(
        [], "of --protocol pairs: class:class, as sport:politics; the first is taken for the second",
        group="noise and loss",
    )  # fmt: skip
    redraw: str = setting(
        "never", "draw wrong labels once, as people make them, or anew in each epoch", group="noise and loss",
        choices=["never", "epoch"],
    )  # fmt: skip
    allow_adversarial: bool = setting(False, "accept e above (C - 1)/C", group="noise and loss")
    loss: list[str] = setting(
        None, f"of noisy runs: {', '.join(LOSSES)}; corrected is through the known T, estimated learns it",
        group="noise and loss", choices=LOSSES, in_result=False,
    )  # fmt: skip
    matrix_rate: Positive = setting(0.02, "learning rate of an estimated T", group="noise and loss")
    forget_rate: ShareBelowOne | None = setting(
        None, "share of rows that co-teaching leaves out, by default that of the wrong ones", group="noise and loss",
        is_later=True,
    )  # fmt: skip
    regulariser: list[str] = setting(
        None, "beside plain cross-entropy", group="noise and loss", choices=REGULARISERS, in_result=False
    )
    lgm: bool = setting(
        False, "Local Gradient Matching on the head too, beside cross-entropy with each regulariser",
        group="noise and loss", in_result=False,
    )  # fmt: skip
    l2_sp: NotNegative = setting(0.01, "alpha of L2-SP", group="noise and loss")
    smart: NotNegative = setting(1.0, "weight of SMART", group="noise and loss")
    smart_epsilon: Positive = setting(
        1e-5, "how far SMART moves an entry of an embedding at most; it starts as far and steps 100 times as far",
        group="noise and loss",
    )
    lnsr: NotNegative = setting(1.0, "weight of LNSR", group="noise and loss")
    gamma: Positive = setting(0.01, "of LGM, spec of paper B's table 1", group="noise and loss")
    lam: NotNegative = setting(0.15, "of LGM", group="noise and loss")

    model: Name = setting(None, f"folder or Hub id of an encoder, or {EMBEDDED_MODEL}", group="model")
    pretrain_steps: Count = setting(300, f"of {EMBEDDED_MODEL}", group="model")
    method: list[str] = setting(None, "all weights, or an adapter", group="model", choices=METHODS, in_result=False)
    lora_r: Count = setting(8, "rank of the adapter", group="model")
    lora_alpha: Positive = setting(16.0, "of the adapter: its product counts alpha / r times", group="model")
    lora_dropout: ShareBelowOne = setting(0.1, "before the adapter", group="model")
    lora_targets: list[Name] = setting([], "modules with an adapter; by default peft's for the model", group="model")

    epochs: Positive = setting(None, "passes over the training rows, of whole batches each")
    learning_rate: Positive = setting(None, "peak, of all weights")
    lora_learning_rate: Positive = setting(None, "peak, of an adapter")
    schedule: str = setting("linear", "of the learning rate", choices=LEARNING_RATE_SCHEDULES)
    warmup: NotNegative = setting(0.1, "steps, or below 1 a share of them")
    weight_decay: NotNegative = setting(0.01, "on matrices only")

    def complete(self) -> None:
        if self.source is None:
            raise SettingError(f"--scale {self.scale} needs --source: texts with a label each")
        if len(self.text_column) > 2:
            raise SettingError(f"--text_column takes one column, or two of a pair, got {len(self.text_column)}")
        if self.model != EMBEDDED_MODEL and not may_be_read(self.model):
            raise SettingError(f"--model {self.model}: there is no such folder; give that of an encoder, or owner/name "
                               f"on the Hub, or {EMBEDDED_MODEL}")  # fmt: skip
        self._take_rates()
        self._check_noise()
        self._check_losses()
        if "lora" in self.method:
            from hf_noise.hub.adapter import needs_peft

            needs_peft("--method lora")
            if self.push_to_hub and (self.model == EMBEDDED_MODEL or not is_elsewhere_model(self.model)):
                raise SettingError(f"--push_to_hub: an adapter of {self.model}, which nobody else has, would be of no "
                                   "use to anyone; push its base model first, and give its id as --model")  # fmt: skip
        if not runs_of(self):
            raise SettingError("--ratio is empty: nothing would be trained")

    def _take_rates(self) -> None:
        """`--error_rate` as ratios, which runs are named by."""
        if self.error_rate:
            if self.ratio != SCALES[self.scale]["ratio"] and self.ratio is not None:
                raise SettingError("--ratio and --error_rate say the same; give one of them")
            self.ratio = [rates.ratio(e) for e in self.error_rate]

    def _check_noise(self) -> None:
        for protocol in self.protocol:
            if protocol not in LABEL_PROTOCOLS:
                raise SettingError(f"unknown --protocol {protocol}; known: {', '.join(LABEL_PROTOCOLS)}")
        if ("pairs" in self.protocol) != bool(self.pairs):
            raise SettingError("--protocol pairs and --pairs go together: --protocol pairs --pairs sport:politics")
        if wrong := [one for one in self.pairs if one.count(":") != 1 or not all(one.split(":"))]:
            raise SettingError(f"--pairs takes class:class, got {wrong[0]!r}")
        if self.weak_column is not None and self.weak_column == self.column:
            raise SettingError(f"--weak_column {self.weak_column} is --column; of one of them the labels are true")
        asked = self.error_rate or self.ratio != SCALES[self.scale]["ratio"]
        if self.as_they_come and (self.weak_column is not None or asked or self.protocol != USUAL["protocol"]):
            raise SettingError("--as_they_come: the labels are trained on as they are, and nobody knows how many are "
                               "wrong; leave out --ratio, --error_rate, --protocol and --weak_column")  # fmt: skip
        if self.weak_column is not None and asked and any(self.ratio):
            raise SettingError(f"--weak_column {self.weak_column}: its labels are wrong at the rate that they have; "
                               "leave out --ratio and --error_rate, or give 0 for a run on right labels")  # fmt: skip


    def _check_losses(self) -> None:
        """Refuse a loss or regulariser that was asked for and that no run would have."""
        preset = SCALES[self.scale]
        if self.as_they_come:
            self._check_unknown(preset)
        others = [loss for loss in self.loss if loss != "nll"]
        is_noisy = self.as_they_come or self.weak_column is not None or any(self.ratio)
        if others and not is_noisy and self.loss != preset["loss"]:
            raise SettingError(f"--loss {' '.join(others)} would do nothing, as no run has wrong labels: give "
                               "--as_they_come if some labels of --column are wrong already, --weak_column for weak "
                               "ones beside true ones, or --ratio or --error_rate to make labels wrong")  # fmt: skip
        beside = [f"--regulariser {name}" for name in self.regulariser if name != "none"] + ["--lgm"] * self.lgm
        was_asked = self.regulariser != preset["regulariser"] or self.lgm != preset.get("lgm", False)
        has_plain = "nll" in self.loss or 0.0 in self.ratio and not self.as_they_come
        if beside and was_asked and not has_plain:
            raise SettingError(f"{beside[0]} would do nothing: it goes beside plain cross-entropy, which no run has; "
                               "add nll to --loss")  # fmt: skip

    def _check_unknown(self, preset: dict) -> None:
        """Of a scale's losses, those that need no noise that is known; others that were asked for are refused."""
        lacks = {"corrected": "corrects by the T of the noise, which nobody knows here; estimated learns it"}
        if self.forget_rate is None:
            lacks["co-teaching"] = ("leaves out as many rows as are wrong, which nobody knows here; state "
                                    "--forget_rate, such as 0.2")  # fmt: skip
        if self.loss == preset["loss"]:
            self.loss = [loss for loss in self.loss if loss not in lacks]
        for loss in self.loss:
            if loss in lacks:
                raise SettingError(f"--as_they_come: --loss {loss} {lacks[loss]}")


def is_elsewhere_model(model: str) -> bool:
    """Whether a model is on the Hub, not on this machine."""
    from pathlib import Path

    return model != EMBEDDED_MODEL and not Path(model).exists()


def elsewhere(settings: Settings) -> str | None:
    """What a run would download, None for nothing."""
    if far := _far_data(settings):
        return far[0]
    return settings.model if is_elsewhere_model(settings.model) else None


def has_rows(settings: Settings) -> bool:
    """Whether all data are on this machine, wherever the model is."""
    return not _far_data(settings)


def _far_data(settings: Settings) -> list[str]:
    places = (settings.source, settings.test_source, settings.validation_source)
    return [place for place in places if place is not None and is_elsewhere(place)]


def train_rows_of(settings: Settings) -> int:
    """Number of training rows."""
    from hf_noise.studies.finetune.data import read_rows  # which loads torch

    return len(read_rows(settings).train)


def plan_of(settings: Settings, run: Run, rows: int) -> Plan:
    """The same steps for all runs: wrong labels get no more rows than right ones.

    What a step takes differs by cure, see `hf_noise.studies.finetune.runs.passes_of`.
    """
    steps = max(1, round(settings.epochs * max(1, rows // settings.batch_size)))
    return FixedBudget().plan(run.ratio or 0.0, steps=steps, batch_size=settings.batch_size)


STUDY = Study(
    package=__package__,
    recipe="recipes/finetune_noise.py",
    task="text_classification",
    description=__doc__.split("\n\n")[0],
    settings=Settings,
    runs=runs_of,
    plan=plan_of,
    rows=train_rows_of,
    knows_rows=lambda settings: False,
    elsewhere=elsewhere,
    has_rows=has_rows,
    derived=lambda settings, plan, rows: f"texts = {plan.sequences / rows:.1f} epochs",
)
main = STUDY.main
