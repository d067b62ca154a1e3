"""Heads on frozen features: does Local Gradient Matching (LGM) help them, on right labels and on wrong ones?

Features are made once and kept; then linear and two-layer heads are fitted on them, a whole grid of settings together,
without a penalty and with each of `--penalty`. The setting of each is chosen on validation rows, whose labels are as
wrong as those of training, and the test rows are looked at once. A table of paired tests and `<output>/study.png` show
what came of it. Started again, it skips what is finished. `--dry_run` looks at settings and data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

from hf_noise.noise.labels import LABEL_PROTOCOLS
from hf_noise.studies.ranges import Count, CountOrNone, Name, NotNegative, Positive, Range, ShareInside, TwoOrMore
from hf_noise.studies.settings import LEARNING_RATE_SCHEDULES, SettingError, StudySettings, parse, setting

# Spec 8.3, B.table1: what the paper's own language models were probed with.
TABLE1 = dict(
    head=["linear", "mlp"], gamma=[0.01], lam=[0.15], learning_rate=[3e-4, 6e-4], batch_size=[8, 12, 16, 32],
    epochs=10, seed=[0, 1, 2, 3, 4], pooling="last",
)  # fmt: skip
SCALES: dict[str, dict] = {
    # Which module of Python's library a passage is from, in the features of a small GPT-2 that is trained first.
    "demo": TABLE1 | dict(
        output="runs/lgm-probe-demo", source="embedded/docs-topics", ratio=[0.0, 1.0],
        penalty=["difference", "norm", "cosine", "l2"], pooling="mean", gamma=[0.1, 0.3], lam=[0.15],
        learning_rate=[3e-3, 1e-2], mlp_learning_rate=[1e-3, 3e-3], batch_size=[32],
    ),  # fmt: skip
    # Any backbone on one GPU in minutes: the strengths of LGM are chosen too; r = 0.43 makes 30 % wrong.
    "gpu": TABLE1 | dict(
        output="runs/lgm-probe-gpu", ratio=[0.0, 0.43], gamma=[0.01, 0.05, 0.1],
        lam=[0.01, 0.05, 0.15], learning_rate=[3e-4, 6e-4], batch_size=[32],
    ),  # fmt: skip
    "paper": TABLE1 | dict(output="runs/lgm-probe-paper", model="openai-community/gpt2"),
    # B.table2; the grid of gamma and lambda is not stated there, spec 8.3 has this one.
    "llm": TABLE1 | dict(
        output="runs/lgm-probe-llm", gamma=[0.001, 0.01, 0.05, 0.1], lam=[0.001, 0.01, 0.05, 0.1, 0.15],
        learning_rate=[6e-4], mlp_learning_rate=[1e-4], batch_size=[8], bf16=True,
    ),  # fmt: skip
    # B.table3: AdamW, 30 epochs, cosine. The batch is not stated.
    "vision": TABLE1 | dict(
        output="runs/lgm-probe-vision", epochs=30, schedule="cosine", learning_rate=[0.1], mlp_learning_rate=[1e-3],
        mlp_weight_decay=1e-4, batch_size=[256], gamma=[0.001, 0.01, 0.05, 0.1], lam=[0.01, 0.05, 0.15],
    ),  # fmt: skip
}
HEADS = ["linear", "mlp"]
#: Penalties by the name of a flag; "difference" is LGM, "norm" and "cosine" are its ablations of B.table5, and "l2" is
#: the usual | g(t) - g(t_hat) | on a head's outputs that figure 6 compares with.
PENALTIES = ["difference", "norm", "cosine", "l2"]
SCHEDULES = [name for name in LEARNING_RATE_SCHEDULES if name in ("constant", "cosine")]
#: Of the training rows, where there are no validation rows.
VALIDATION_SHARE = 0.1
OddSteps = Annotated[int, Range(3, 1023)]


@dataclass
class Settings(StudySettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ("head", "penalty", "learning_rate", "batch_size", "gamma", "lam", "protocol", "seed")
    usual: ClassVar = ("penalty", "test_source")

    source: Name | None = setting(None, "file, glob, folder or Hub data set with labels", group="data")
    test_source: Name | None = setting(None, "test rows, if the source has none", group="data")
    validation_source: Name | None = setting(None, "validation rows; else a tenth of the training rows", group="data")
    test_fraction: ShareInside | None = setting(None, "share held out, if there are no test rows", group="data")
    column: Name = setting("label", "the column of labels", group="data")
    test_column: Name | None = setting(
        None, "that of the test rows; --clean_column, else --column, if not set", group="data"
    )
    clean_column: Name | None = setting(
        None, "true labels, if --column holds wrong ones: T is counted of both, and --ratio draws from these",
        group="data",
    )
    text_column: Name = setting("text", "the column of texts", group="data")
    prompt: Name | None = setting(None, "text with columns in braces, as '{text} this movie is'", group="data")
    image_column: Name | None = setting(None, "the column of images, instead of texts", group="data")
    features: Name | None = setting(None, ".npy, .safetensors or .parquet with a vector for each row", group="data")
    test_features: Name | None = setting(None, "those of the test rows", group="data")
    validation_features: Name | None = setting(None, "those of the validation rows", group="data")
    feature_column: Name | None = setting(None, "the source's own column of vectors, instead of a file", group="data")
    train_rows: TwoOrMore | None = setting(None, "how many of the training rows; all if not set", group="data")
    test_rows: TwoOrMore | None = setting(None, "how many of the test rows; all if not set", group="data")

    model: Name | None = setting(None, "frozen network: folder, Hub id or name of timm's", group="model")
    pooling: str = setting("last", "of a text's tokens", group="model", choices=["last", "mean"])
    max_length: Count | None = setting(None, "tokens of a text; all that the network takes if not set", group="model")
    image_size: Count | None = setting(None, "pixels, of networks of timm; theirs if not set", group="model")
    pretrain_steps: Count = setting(300, "of the small GPT-2 that is trained if there is no --model", group="model")

    ratio: list[NotNegative] = setting(
        [0.0], "noise ratios r of training and validation labels", group="noise and loss", in_result=False
    )
    protocol: list[str] = setting(
        ["symmetric"], f"of wrong labels: {', '.join(p for p in LABEL_PROTOCOLS if p != 'pairs')}",
        group="noise and loss", in_result=False,
    )
    allow_adversarial: bool = setting(False, "accept e above (C - 1)/C", group="noise and loss")
    corrected: bool = setting(
        True, "wrong labels with the loss corrected through T too", group="noise and loss", in_result=False
    )
    penalty: list[str] = setting(
        ["difference"], "difference is LGM; norm, cosine: ablations; l2: on outputs", group="noise and loss",
        choices=PENALTIES, in_result=False,
    )
    gamma: list[Positive] = setting(None, "standard deviations of perturbed features", group="noise and loss")
    gamma_relative: bool = setting(
        False, "count gamma in the mean standard deviation of the features", group="noise and loss"
    )
    lam: list[Positive] = setting(None, "weights of the penalty", group="noise and loss")

    head: list[str] = setting(HEADS, "kinds of head", choices=HEADS, in_result=False)
    learning_rate: list[Positive] = setting(
        None, "of linear heads, and of MLP heads without --mlp_learning_rate; one is chosen on validation rows"
    )
    mlp_learning_rate: list[Positive] = setting([], "of MLP heads, if others")
    batch_size: list[Count] = setting(None, "rows per step; one is chosen on validation rows")
    weight_decay: NotNegative = setting(0.0, "of AdamW")
    mlp_weight_decay: NotNegative | None = setting(None, "of MLP heads, if another")
    epochs: Count = setting(10, "passes over the training rows")
    schedule: str = setting("constant", "of the learning rate", choices=SCHEDULES)
    best_epoch: bool = setting(False, "choose the epoch on validation rows, too; else the last one counts")

    area_rows: CountOrNone = setting(100, "test rows around which decisions are looked at", group="measurement")
    area_steps: OddSteps = setting(31, "points along a side of their squares, odd", group="measurement")
    reach: Positive = setting(
        2.0, "half a side, in the root mean square distance of features from their mean", group="measurement"
    )
    bf16: bool = setting(False, "run the network in bfloat16; features and heads are float32", group="machine")
    extract_batch: Count = setting(32, "rows per forward pass of the network", group="machine", in_result=False)

    def complete(self) -> None:
        if self.source is None:
            raise SettingError(f"--scale {self.scale} needs --source: a file, folder or Hub data set with labels")
        ways = {"features": self.features, "feature_column": self.feature_column, "image_column": self.image_column}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise SettingError(f"--{given[0]} and --{given[1]}: features come one way; leave one out")
        if given and self.prompt is not None:
            raise SettingError(f"--prompt is for texts, and --{given[0]} says that features are not of texts")
        if self.reads_vectors and self.model is not None and self.model != SCALES[self.scale].get("model"):
            raise SettingError(f"--model {self.model} would not be used: --{given[0]} brings the features")
        for name in ("test_features", "validation_features"):
            if getattr(self, name) is not None and self.features is None:
                raise SettingError(f"--{name} goes with --features")
        if self.image_column is not None and self.model is None:
            raise SettingError("--image_column needs --model: a folder, a Hub id or a name of timm's")
        self._check_noise()
        if self.area_steps % 2 == 0:
            raise SettingError(f"--area_steps must be odd, so that the row is in the middle, got {self.area_steps}")
        if not runs_of(self):
            raise SettingError("--ratio is empty: nothing would be fitted")

    def _check_noise(self) -> None:
        for protocol in self.protocol:
            if protocol not in LABEL_PROTOCOLS or protocol == "pairs":
                known = ", ".join(name for name in LABEL_PROTOCOLS if name != "pairs")
                raise SettingError(f"unknown --protocol {protocol}; known: {known}")

    @property
    def reads_vectors(self) -> bool:
        """Whether the features are given, and no network is run."""
        return self.features is not None or self.feature_column is not None

    @property
    def reads_texts(self) -> bool:
        """Whether a network reads texts, and neither images nor vectors."""
        return not self.reads_vectors and self.image_column is None

    @property
    def text_prompt(self) -> str:
        """What is read of a text's row."""
        return self.prompt or f"{{{self.text_column}}}"


@dataclass(frozen=True)
class Run:
    """One head: `ratio` is None for labels that are wrong as they come; `penalty` is "none" or one of `PENALTIES`."""

    head: str
    ratio: float | None
    protocol: str
    loss: str
    penalty: str
    seed: int

    @property
    def labels(self) -> str:
        """Which labels it learns from, in a few letters."""
        if self.ratio is None:
            return self.protocol.replace(":", "-")
        return f"r{self.ratio:g}-{self.protocol}" if self.ratio else "r0"

    @property
    def name(self) -> str:
        penalty = {"none": "plain", "difference": "lgm"}.get(self.penalty, self.penalty)
        return f"{self.head}-{self.labels}-{self.loss}-{penalty}-seed{self.seed}"


def runs_of(settings: Settings) -> list[Run]:
    """The runs of a study: for each head, labels and loss one without penalty and one with each, once per seed."""
    noises: list[tuple[float | None, str]] = [(0.0, "none")] * (0.0 in settings.ratio)
    if settings.clean_column is not None:
        noises.append((None, f"column:{settings.column}"))
    noises += [(r, protocol) for protocol in settings.protocol for r in settings.ratio if r]
    runs = []
    for head in settings.head:
        for ratio, protocol in noises:
            for loss in ["nll"] + ["corrected"] * (settings.corrected and ratio != 0):
                runs += [Run(head, ratio, protocol, loss, penalty, seed)
                         for seed in settings.seed for penalty in ["none", *settings.penalty]]  # fmt: skip
    return runs


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    from hf_noise.studies.probe.run import look, work

    if settings.dry_run:
        print(json.dumps(asdict(settings), indent=2), flush=True)
        for line in look(settings):
            print(line)
        return
    if work(settings):
        from hf_noise.reports.record import RunRecord, read_records
        from hf_noise.studies.probe.report import show

        records = [one for one in read_records(settings.output) if isinstance(one, RunRecord) and one.task == "probe"]
        print(show(records, settings, runs_of(settings)))
