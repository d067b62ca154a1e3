"""How far the gradients of clean and of corrupt examples agree, and how the ratio of their sums grows with the batch.

Paper A, table 4: cosines of all pairs of gradients within a batch, lengths of the sums of clean and of corrupt ones,
and their ratio (SNR), for some rates of corruption and sizes of batches. The gradient is that of the output layer,
which is the token embedding where both are one as in GPT-2, unless `--parameters` names others. An example is corrupt
with the rate's probability, and then all its targets are random; of `--unit token` single targets are. Each setting has
a folder with its `record.json`; started again, the study skips what is finished. `--model` is a size of GPT-2, fresh,
or a checkpoint: folder or name on the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

from hf_noise.models.names import GPT2_SIZES
from hf_noise.studies.ranges import Count, Name, Range, Seed, ShareInside, TwoOrMore
from hf_noise.studies.reading import is_elsewhere, may_be_read
from hf_noise.studies.settings import CommandSettings, SettingError, parse, setting
from hf_noise.studies.text_settings import TextSettings

SCALES: dict[str, dict] = {
    # Long rows: what two examples share stands out of what each has alone the better, the more targets they have.
    "demo": dict(
        output="runs/gradient-coherence-demo", source="embedded/docs-text", tokenizer=None, block_size=256,
        model="nano", batch_size=[4, 8, 16], batches=100,
    ),
    # Meant for ten minutes of one H200; not measured.
    "gpu": dict(
        output="runs/gradient-coherence-gpu", source=None, tokenizer=None, block_size=1024,
        model="gpt2", batch_size=[4, 8, 16], batches=50,
    ),
    "paper": dict(
        output="runs/gradient-coherence-paper", source="Skylion007/openwebtext", tokenizer=None,
        block_size=1024, model="gpt2", batch_size=[4, 8], batches=200,
    ),
}  # fmt: skip

#: Of the fresh models of a scale.
TOKENIZERS = {"demo": "embedded:1024", "gpu": "openai-community/gpt2", "paper": "openai-community/gpt2"}
Mebibytes = Annotated[int, Range(1, 2**20)]


@dataclass(frozen=True)
class Cell:
    """One setting of the study."""

    corruption: float
    batch_size: int
    seed: int

    @property
    def name(self) -> str:
        return f"e{self.corruption:g}-b{self.batch_size}-seed{self.seed}"


@dataclass
class Settings(TextSettings, CommandSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ("corruption", "batch_size")
    usual: ClassVar = ("corruption", "batches")

    scale: str = setting("demo", "a preset of all that follows", group="study", in_result=False)
    seed: Seed = setting(0, "of weights, rows and corruption", group="study")
    tokenizer: Name | None = setting(
        None, "embedded:<size>, a folder, or a Hub model (default: that of --model; of a fresh one embedded:1024, and "
        "GPT-2's beyond the demo)", group="data",
    )  # fmt: skip
    model: Name = setting(None, f"{', '.join(GPT2_SIZES)}: fresh; else a checkpoint", group="model")
    parameters: list[Name] = setting(
        [], "whose gradient it is (default: the output layer, tied to the embedding or not)", group="measurement"
    )
    corruption: list[ShareInside] = setting(
        [0.25, 0.5], "probability that an example, or target, is corrupt", group="noise and loss", in_result=False
    )
    unit: str = setting("example", "what is corrupt as a whole", group="noise and loss", choices=["example", "token"])
    batch_size: list[TwoOrMore] = setting(None, "examples in a batch", group="measurement", in_result=False)
    batches: TwoOrMore = setting(None, "of each size; those of smaller ones are examples of larger ones too",
                                 group="measurement")  # fmt: skip
    memory_mib: Mebibytes = setting(
        256, "MiB of gradients and logits held at a time", group="machine", in_result=False
    )
    num_processes: Count | None = setting(
        None, "stop unless so many processes work together; one does", group="machine", in_result=False
    )

    def complete(self) -> None:
        self.complete_text()
        for name in ("corruption", "batch_size"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise SettingError(f"--{name} names one twice: {' '.join(map(str, getattr(self, name)))}")
        if self.num_processes not in (None, 1):
            raise SettingError(f"--num_processes {self.num_processes}: this study works in one")
        if self.model not in GPT2_SIZES and not may_be_read(self.model):
            raise SettingError(f"--model {self.model}: neither a size ({', '.join(GPT2_SIZES)}), nor a folder, nor "
                               "owner/name on the Hub")  # fmt: skip
        if self.tokenizer is None:
            self.tokenizer = TOKENIZERS[self.scale] if self.model in GPT2_SIZES else self.model

    @property
    def rows(self) -> int:
        """Examples of the largest batches; smaller ones have the first of them."""
        return self.batches * max(self.batch_size)

    @property
    def cells(self) -> list[Cell]:
        return [Cell(rate, size, self.seed) for rate in self.corruption for size in self.batch_size]


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    if settings.dry_run:
        print(json.dumps(asdict(settings), indent=2))
        names = ", ".join(one.name for one in settings.cells)
        print(f"{len(settings.cells)} settings, {names}; {settings.rows:,} rows of "
              f"{settings.block_size} tokens")  # fmt: skip
        if is_elsewhere(settings.source):
            print(f"data: {settings.source} on the Hub, which a run downloads; a dry run looks at data of this machine")
            return
    from hf_noise.studies.gradient_coherence.run import load, measure

    work = load(settings)
    if settings.dry_run:
        print("\n".join(work.described()))
        return
    measure(settings, work)
    from hf_noise.studies.gradient_coherence.report import show

    print(show(settings))
