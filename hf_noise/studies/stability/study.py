"""How steady the training loss of a model is, by the size of the macro-batch: table 5 of paper A.

Nothing is updated. The model is looked at on training text under the noise it was trained with, drawn afresh, in
macro-batches of growing size; told are the mean loss, its standard deviation, and how that falls with the size, beside
the -1/2 of rows that have nothing to do with each other. Without `--model` a model on clean text and one at r = 1 are
trained first, as `gpt2_noise.py` does. With it, any checkpoint of a causal language model is measured, and its noise is
read from it. Each measurement has a folder with its `record.json`; started again, the study skips what is there.
`--dry_run` looks at settings and data. Any flag overrides the scale's preset.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from hf_noise.models.names import GPT2_SIZES
from hf_noise.studies.language import study as language
from hf_noise.studies.ranges import Count, Name, NotNegative, Positive, Range, TwoOrMore
from hf_noise.studies.reading import check_readable, is_elsewhere
from hf_noise.studies.settings import SettingError, StudySettings, at_scale, parse, setting
from hf_noise.studies.text_settings import TextSettings

ORDERS = ["shuffled", "stored"]  # of hf_noise.analysis.stability
SIZES_OF_THE_PAPER = [480, 960, 1920, 3840, 7680]
SCALES: dict[str, dict] = {
    "demo": dict(
        output="runs/stability-demo", source="embedded/docs-text", tokenizer=None, block_size=64, network="nano",
        plan="batch", steps=250, batch_size=32, micro_batch=64, sizes=[8, 16, 32, 64, 128],
    ),  # fmt: skip
    # Meant for 25 minutes of one H200 (not measured): two models of 30 M weights, and 1.5 G tokens to look at.
    "gpu": dict(
        output="runs/stability-gpu", source=None, tokenizer=None, block_size=256, network="mini", plan="steps",
        steps=2000, batch_size=480, micro_batch=240, sizes=SIZES_OF_THE_PAPER, bf16=True,
    ),  # fmt: skip
    # Paper A, table 5: the checkpoints of table 6's clean run and of that at r = 1.
    "paper": dict(
        output="runs/stability-paper", source="Skylion007/openwebtext", tokenizer=None, block_size=1024,
        network="gpt2", plan="table6", steps=600_000, batch_size=480, micro_batch=12, sizes=SIZES_OF_THE_PAPER,
        bf16=True,
    ),  # fmt: skip
}
# What the models' own study is told beside its scale.
_OF_TRAINING = (
    "source", "text_column", "documents", "validation_source", "validation_fraction", "tokenizer", "block_size",
    "num_proc", "ratio", "steps", "batch_size", "micro_batch", "bf16", "seed", "num_processes",
)  # fmt: skip


@dataclass
class Settings(TextSettings, StudySettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ("seed", "sizes")
    usual: ClassVar = ("sizes", "num_batches")

    model: list[Name] = setting(
        [], "checkpoints to measure, folders or Hub ids; without any, models are trained first", group="model",
        in_result=False,
    )  # fmt: skip
    stated: bool = setting(
        True, "draw the noise that a --model states; --no_stated: measure on the text as it is", group="noise and loss"
    )
    tokenizer: Name | None = setting(
        None, "embedded:<size>, a folder, or a Hub model (default: that of --model, else of gpt2_noise.py)",
        group="data",
    )  # fmt: skip
    network: str = setting(None, "size of the models that are trained here", group="model", choices=GPT2_SIZES)
    ratio: list[NotNegative] = setting(
        [0.0, 1.0], "noise ratios r of the models that are trained here", group="noise and loss", in_result=False
    )
    plan: str = setting(None, f"compute at noise r: {', '.join(language.PLANS)}", choices=language.PLANS)
    steps: Count = setting(None, "optimiser steps without noise, of a model trained here")
    batch_size: Count = setting(None, "rows per step without noise, of a model trained here")
    learning_rate: Positive | None = setting(None, "peak, of a model trained here (default: that of gpt2_noise.py)")
    micro_batch: Count = setting(None, "rows per process and forward pass", in_result=False)
    sizes: list[Count] = setting(None, "rows of a macro-batch, rising", group="measurement")
    num_batches: Annotated[int, Range(10, 2**16)] = setting(200, "macro-batches of each size", group="measurement")
    order: str = setting(
        "shuffled", "of rows: shuffled as in training, or stored, neighbours together", group="measurement",
        choices=ORDERS,
    )  # fmt: skip
    score_rows: TwoOrMore = setting(512, "rows on which clean and noisy targets are told apart", group="measurement")
    bf16: bool = setting(False, "bfloat16 autocast, float32 weights", group="machine")

    def complete(self) -> None:
        self.complete_text()
        if self.streaming:
            raise SettingError("--streaming: rows are read by their numbers here; leave it out")
        if sorted(set(self.sizes)) != self.sizes or len(self.sizes) < 2:
            raise SettingError(f"--sizes must be two or more that rise, got {' '.join(map(str, self.sizes))}")
        for name in self.model:
            check_readable("model", name)
        if self.model:
            self.tokenizer = self.tokenizer or self.model[0]
        elif not self.ratio:
            raise SettingError("--ratio is empty and there is no --model: nothing would be measured")
        else:
            self.tokenizer = models_of(self).tokenizer


def models_of(settings: Settings) -> language.Settings:
    """Settings of the models that are trained here: plain loss, one for each ratio and seed."""
    told = {name: getattr(settings, name) for name in _OF_TRAINING}
    told |= {"learning_rate": settings.learning_rate, "model": settings.network, "plan": [settings.plan]}
    return at_scale(
        language.Settings, settings.scale, output=str(Path(settings.output) / "models"), corrected=[],
        equal_compute=False, **told,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """The study as a command: its settings, then a look at what they mean, or the measurements and their table."""
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    if settings.dry_run:
        print(json.dumps(asdict(settings), indent=2), flush=True)
        if is_elsewhere(settings.source):
            print(f"data: {settings.source} on the Hub, which a run downloads; a dry run looks at data of this machine")
            return
        from hf_noise.studies.stability.run import look

        look(settings)
        return
    from hf_noise.studies.stability.run import measure

    if measure(settings):
        from hf_noise.studies.stability.report import show

        print(show(settings))
