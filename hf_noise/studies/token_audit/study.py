"""How many tokens of a user's own text are wrong, and which, as a causal language model sees it.

Rows of tokens are drawn from any text; the model, which should know clean text like it and not these rows, says how
many tokens were replaced, with an interval and what that stands on, and p(clean) of each. It ends in a table, a figure,
a page, `tokens.parquet` with the weights, `rows.parquet` with the rows they are of, a record and a card. Without
`--source` embedded text with hidden noise is audited by a nano model that is trained on other, clean text first.
Started again, it goes on where it was, and a finished audit is shown anew. `--dry_run` looks at settings and data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

from hf_noise.data.embedded import DOCS_TEXT
from hf_noise.studies.ranges import Count, Name, NotNegative, Range, Seed, TwoOrMore
from hf_noise.studies.reading import check_readable, is_elsewhere
from hf_noise.studies.settings import CommandSettings, SettingError, parse, setting

#: What replaced tokens; of documents, whole rows are noise.
KINDS = ("uniform", "unigram", "look-alikes", "documents")
#: r of the noise that is hidden in the embedded text: a fifth of the tokens is replaced.
HIDDEN = 0.25
SCALES: dict[str, dict] = {
    "demo": dict(block_size=64, rows=96, batch_size=32),
    # Meant for minutes of one GPU; not measured.
    "gpu": dict(block_size=512, rows=1024, batch_size=32),
}
_MOST_PARTICLES = 1 << 12

Particles = Annotated[int, Range(0, _MOST_PARTICLES)]


@dataclass
class Settings(CommandSettings):
    """Settings of the study; the defaults of some are those of the scale."""

    scales: ClassVar = SCALES
    usual: ClassVar = ("kind", "particles", "rows", "gguf_file")

    scale: str = setting("demo", "a preset of all that follows", group="study", in_result=False)
    seed: Seed = setting(0, "of which rows, of hidden noise, of particles and of the demo's model", group="study")
    source: Name | None = setting(
        None, f"text: file, glob, folder or Hub id (default: {DOCS_TEXT} with hidden noise)", group="data"
    )
    split: Name | None = setting(None, "what is audited (default: train; held-out text in the demo)", group="data")
    text_column: Name | None = setting(None, "the source's column of text (default: text)", group="data")
    documents: str | None = setting(
        None, "of .txt and .md: what is one document (default: file)", group="data",
        choices=["file", "line", "paragraph"],
    )  # fmt: skip
    block_size: TwoOrMore = setting(None, "tokens per row", group="data")
    rows: TwoOrMore = setting(None, "how many rows, drawn from all", group="data")
    model: Name | None = setting(
        None, "causal language model of clean text: folder or Hub id (default in the demo: a nano one, trained first)",
        group="model",
    )  # fmt: skip
    gguf_file: Name | None = setting(None, "name of the weights in it, where they are GGUF", group="model")
    steps: Count = setting(300, "of training the demo's model", group="model")
    kind: str = setting("uniform", "what replaced tokens", group="noise and loss", choices=KINDS)
    ratio: NotNegative | None = setting(
        None, f"hide noise of this kind and r first and see what is found (default: {HIDDEN:g} without --source)",
        group="noise and loss",
    )  # fmt: skip
    particles: Particles | None = setting(
        None, "ways to read a row at a time: p(clean) then knows the tokens after too; 0 looks at those before alone "
        "(default: 16, and 0 of documents)", group="measurement",
    )  # fmt: skip
    batch_size: Count = setting(None, "rows per forward pass; with particles as many times more", group="machine")
    num_processes: Count | None = setting(
        None, "stop unless so many processes work together; one does", group="machine", in_result=False
    )

    def complete(self) -> None:
        is_demo = self.source is None
        if is_demo:
            self.source, self.split = DOCS_TEXT, self.split or "validation"
            self.ratio = HIDDEN if self.ratio is None else self.ratio
        elif self.model is None:
            raise SettingError(f"--source {self.source} needs --model: a causal language model of clean text like it, "
                               "a folder or owner/name on the Hub")  # fmt: skip
        self.output = self.output or ("runs/audit-tokens-demo" if is_demo else "runs/audit-tokens")
        self.split, self.ratio = self.split or "train", self.ratio or 0.0
        check_readable("model", self.model)
        if self.gguf_file is not None and self.model is None:
            raise SettingError(f"--gguf_file {self.gguf_file} is a file of --model, which is not given")
        if self.particles is None:
            self.particles = 0 if self.kind == "documents" else 16
        if self.particles == 1:
            raise SettingError("--particles 1 would read a row in one way; give 2 or more, or 0 for none")
        if self.particles and self.kind == "documents":
            raise SettingError(f"--particles {self.particles} read token by token, and of --kind documents whole rows "
                               "are clean or not; leave it out")  # fmt: skip
        if self.num_processes not in (None, 1):
            raise SettingError(f"--num_processes {self.num_processes}: this study works in one")


def main(argv: Sequence[str] | None = None) -> None:
    """The study as a command: its settings, then a look at what they mean, or the audit and what comes of it."""
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    if settings.dry_run:
        print(json.dumps(asdict(settings), indent=2), flush=True)
        for what, name in (("data", settings.source), ("model", settings.model)):
            if name is not None and (is_elsewhere(name) if what == "data" else _is_on_hub(name)):
                print(f"{what}: {name} on the Hub, which a run downloads; a dry run looks at what is on this machine")
                return
    from hf_noise.studies.token_audit.run import look, work

    if settings.dry_run:
        print("\n".join(look(settings)))
        return
    print(work(settings))


def _is_on_hub(model: str) -> bool:
    from pathlib import Path

    return not Path(model).is_dir()
