"""How much of a user's own labels is wrong, which rows, and what to train on.

Any file, folder of images or data set on the Hub becomes features (of `--model`; without one of words and letters, of
pixels, or of a small network that is trained here), the features become probabilities by models that had not seen the
row, and these the audit: the rate of wrong labels with its interval, T, and p(wrong) of each row. It ends in a table, a
figure, a page, `rows.parquet` with `p_wrong` and `suggested`, a record and a card. `--verify 200` writes a sheet to
fill in, `--verified` reads it back, `--train` trains on what the audit says. Started again, it makes no feature twice.
Without `--source` digits with hidden noise show what an audit finds. `--dry_run` looks at settings and data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

from hf_noise.data.packaged import DIGITS
from hf_noise.models.names import SMALL_CLASSIFIERS
from hf_noise.noise.labels import LABEL_PROTOCOLS
from hf_noise.studies.ranges import Count, Name, NotNegative, Positive, Range, Seed, Share, TwoOrMore
from hf_noise.studies.reading import check_readable
from hf_noise.studies.settings import SettingError, StudySettings, parse, setting

#: In place of a network that is trained: see `hf_noise.studies.audit.patches`.
PATCHES = "patches"
SCALES: dict[str, dict] = {
    "demo": dict(network=PATCHES, epochs=15.0, network_size=32),
    # Meant for minutes of one GPU.
    "gpu": dict(network="resnet18-cifar", epochs=30.0, network_size=64, bf16=True),
    # The schedule by which papers A and C train this network on CIFAR.
    "paper": dict(network="resnet34-cifar", epochs=200.0, network_size=64, bf16=True),
}
PROTOCOLS = [name for name in LABEL_PROTOCOLS if name != "pairs"]
#: r of the noise that is hidden in the embedded digits: a fifth of the labels is wrong.
HIDDEN = 0.25

SideOfPixels = Annotated[int, Range(8, 1024)]


@dataclass
class Settings(StudySettings):
    """Settings of the study; the defaults of some are those of the scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ()

    source: Name | None = setting(
        None, f"file, glob, image folder, folder of a data set or Hub id (default: {DIGITS} with hidden noise)",
        group="data",
    )  # fmt: skip
    split: Name | None = setting(None, "what is audited (default: train, or the only one)", group="data")
    column: Name | None = setting(None, "the column of labels; guessed if only one can be", group="data")
    clean_column: Name | None = setting(
        None, "true labels, where you have them: measured beside, never used by the audit", group="data"
    )
    text_column: Name | None = setting(None, "the column of texts; guessed if only one can be", group="data")
    prompt: Name | None = setting(None, "text with columns in braces, as '{title}: {text}'", group="data")
    image_column: Name | None = setting(None, "the column of images; guessed if only one can be", group="data")
    features: Name | None = setting(
        None, ".npy, .safetensors or .parquet with a vector for each row of the split", group="data"
    )
    feature_column: Name | None = setting(None, "the source's own column of vectors, instead of a file", group="data")
    probabilities: Name | None = setting(
        None, "such a file with p(label = j) of each row, out of fold: no classifier is fitted then; --features "
        "beside it are for plan and training", group="data"
    )
    probability_columns: list[Name] = setting(
        [], "the source's own: a column of vectors, or one column for each class in their order", group="data"
    )
    rows: TwoOrMore | None = setting(None, "how many of the rows; all if not set", group="data")
    drop_unusable: bool = setting(
        False, "leave out rows without a label, text or image and classes rarer than --folds, and say how many",
        group="data", in_result=False,
    )  # fmt: skip
    test_source: Name | None = setting(
        None, "rows with clean labels, on which --train measures", group="data", in_result=False
    )
    test_column: Name | None = setting(
        None, "their column of labels (default: --clean_column, else --column)", group="data", in_result=False
    )
    test_features: Name | None = setting(None, "a file as --features, of these rows", group="data", in_result=False)

    model: Name | None = setting(None, "network that makes features: folder, Hub id or name of timm's", group="model")
    pooling: str = setting("mean", "of a text's tokens", group="model", choices=["last", "mean"])
    max_length: Count | None = setting(None, "tokens of a text; all that the network takes if not set", group="model")
    image_size: Count | None = setting(None, "pixels, of networks of timm; theirs if not set", group="model")
    network: str = setting(
        None, f"on images without --model: {PATCHES} (filters that need no labels), or trained here in folds",
        group="model", choices=[PATCHES, *SMALL_CLASSIFIERS],
    )  # fmt: skip
    network_size: SideOfPixels = setting(None, "pixels of a side at most, for that network", group="model")

    ratio: NotNegative | None = setting(
        None, f"hide noise of this r in the labels first and see what is found (default: {HIDDEN:g} without --source)",
        group="noise and loss",
    )  # fmt: skip
    protocol: str = setting("cyclic", "of hidden noise", group="noise and loss", choices=PROTOCOLS)

    folds: Annotated[int, Range(2, 64)] = setting(5, "parts of the rows, each judged by models of the others")
    epochs: Positive = setting(None, "passes of the network over its rows")
    batch_size: Count = setting(64, "rows per step of the network, all processes together")
    learning_rate: Positive = setting(0.05, "peak of the network's, cosine to 0")

    verify: TwoOrMore | None = setting(
        None, "draw so many rows and write a sheet to fill in: <output>/verify", group="study", in_result=False
    )
    sheet: Name | None = setting(None, "its folder instead of <output>/verify", group="study", in_result=False)
    verified: Name | None = setting(
        None, "that sheet filled in, or its folder: the rate then rests on it", group="study", in_result=False
    )
    train: bool | None = setting(
        None, "train on what the audit says and measure it (default: without --source)", group="study", in_result=False
    )
    plan: bool = setting(
        True, "predict what each way to train would reach; --no_plan spares the time", group="study", in_result=False
    )
    seed: Seed = setting(0, "of folds, of rows to verify and of all training", group="study")
    fdr: Share | None = setting(
        None, "share of false alarms in the list; if not set, the list of the largest expected F1",
        group="measurement", in_result=False,
    )  # fmt: skip
    bf16: bool = setting(False, "run and train networks in bfloat16; features are float32", group="machine")
    extract_batch: Count = setting(32, "rows per forward pass of --model", group="machine", in_result=False)

    def complete(self) -> None:
        is_demo = self.source is None
        if is_demo:
            self._as_demo()
        self.train, self.ratio = bool(self.train), self.ratio or 0.0
        self.output = self.output or ("runs/audit-demo" if is_demo else "runs/audit")
        self._check_ways()
        check_readable("model", self.model)
        if self.clean_column is not None and self.ratio:
            raise SettingError(f"--ratio {self.ratio:g} hides noise in labels that then count as right, and "
                               "--clean_column says which are; leave one out")  # fmt: skip
        if self.verify is not None and self.verified is not None:
            raise SettingError("--verify draws a new sheet and --verified reads one that is filled in; leave one out")
        if self.sheet is not None and self.verify is None:
            raise SettingError("--sheet goes with --verify; a sheet that is filled in is read by --verified")
        for name in ("test_column", "test_features"):
            if getattr(self, name) is not None and self.test_source is None:
                raise SettingError(f"--{name} goes with --test_source")

    def _as_demo(self) -> None:
        """Embedded digits, of which a fifth gets wrong labels; those of the test stay right."""
        if self.scale != "demo":
            raise SettingError(f"--scale {self.scale} needs --source: a file, folder or Hub data set with labels")
        self.source, self.test_source = DIGITS, self.test_source or DIGITS
        self.ratio = HIDDEN if self.ratio is None else self.ratio
        self.train = True if self.train is None else self.train

    def _check_ways(self) -> None:
        """What rows are judged by comes one way."""
        ways = ("features", "feature_column", "probabilities", "probability_columns")
        given = [name for name in ways if getattr(self, name)]
        has_features = bool(self.features or self.feature_column)
        # Probabilities judge, and beside them features are what plan and training use.
        if len(given) > 1 and (len(given) > 2 or {name[:4] for name in given} != {"feat", "prob"}):
            raise SettingError(f"--{given[0]} and --{given[1]}: what rows are judged by comes one way; leave one out")
        if given and self.model is not None:
            raise SettingError(f"--model {self.model} would not be used: --{given[0]} is there in its place")
        shown = [name for name in ("text_column", "prompt", "image_column") if getattr(self, name)]
        if len(shown) > 1:
            raise SettingError(f"--{shown[0]} and --{shown[1]}: a row is read one way; leave one out")
        if self.train and given and not has_features:
            raise SettingError(f"--train needs something to train on, and --{given[0]} are of a model that is not "
                               "here; give --features beside them, or --model instead")  # fmt: skip
        if self.test_features is not None and self.features is None:
            raise SettingError("--test_features goes with --features")


def main(argv: Sequence[str] | None = None) -> None:
    """The study as a command: its settings, then a look at what they mean, or the audit and what comes of it."""
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    if settings.dry_run:
        told = {name: value for name, value in asdict(settings).items() if value not in (None, [])}
        print(json.dumps(told, indent=2), flush=True)
    from hf_noise.studies.audit.run import look, work

    if settings.dry_run:
        for line in look(settings):
            print(line, flush=True)
        return
    if said := work(settings):
        print(said)
