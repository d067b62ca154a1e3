"""GPT-2 under token noise: what wrong targets do to a language model, and how to lose almost nothing to them.

Trains one model per setting, then prints a table and draws `<output>/study.png`. Every setting has a folder with
its checkpoint, `record.json` and card. Started again, it skips what is finished and goes on where it was killed.
`--dry_run` prints the settings and what follows from them. Any flag overrides the scale's preset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hf_noise.data.embedded import DOCS_TEXT
from hf_noise.noise.schedule import plan_named
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.engine import parse_scaled, print_plans
from hf_noise.studies.language.report import study_figure, study_table
from hf_noise.studies.language.run import Run, train
from hf_noise.studies.ranges import Count, Name, NotNegative, Output, Positive, Repo, Seed, ShareInside, TwoOrMore

PLANS = ["steps", "batch", "table6", "budget"]
SCALES: dict[str, dict] = {
    "demo": dict(
        output="runs/gpt2-demo", source="embedded/docs-text", tokenizer="embedded:1024", block_size=64, model="nano",
        plan=["steps"], ratio=[0.0, 0.1, 0.3, 0.5, 1.0], corrected=[0.5, 1.0],
        steps=300, batch_size=32, micro_batch=64, learning_rate=2e-3, warmup=0.05, save_steps=200, logging_steps=25,
    ),  # fmt: skip
    # About 25 minutes of one H200: seven runs of 124 M weights, 0.55 G tokens together.
    "gpu": dict(
        output="runs/gpt2-gpu", source=None, tokenizer="openai-community/gpt2", block_size=1024, model="gpt2",
        plan=["steps"], ratio=[0.0, 0.1, 0.3, 0.5, 1.0], corrected=[0.5, 1.0],
        steps=400, batch_size=128, micro_batch=32, learning_rate=6e-4, warmup=0.1, save_steps=200, logging_steps=10,
        bf16=True, torch_compile=True,
    ),  # fmt: skip
    # Paper A, table 6, on OpenWebText; what the paper leaves open follows the public GPT-2 recipe of the same batch.
    "paper": dict(
        output="runs/gpt2-paper", source="Skylion007/openwebtext", tokenizer="openai-community/gpt2",
        block_size=1024, model="gpt2", plan=["table6"], ratio=[0.0, 0.1, 0.3, 0.5, 1.0], corrected=[],
        steps=600_000, batch_size=480, micro_batch=12, learning_rate=6e-4, warmup=2000, save_steps=5000,
        logging_steps=100, bf16=True, torch_compile=True,
    ),  # fmt: skip
}


@dataclass
class Settings:
    """Settings of the study; the defaults of most are those of the scale."""

    scale: str = field(default="demo", metadata={"help": "demo | gpu | paper", "choices": list(SCALES)})
    output: Output = field(default=None, metadata={"help": "folder of the study"})
    source: Name | None = field(default=None, metadata={"help": "embedded/docs-text, path or glob, or a Hub data set"})
    text_column: Name | None = field(default=None, metadata={"help": "the source's column of text (default: text)"})
    validation_source: Name | None = field(default=None, metadata={"help": "clean text to validate on, else held out"})
    validation_fraction: ShareInside | None = field(
        default=None, metadata={"help": "share held out of a source without validation split (default: 0.01)"}
    )
    tokenizer: Name = field(default=None, metadata={"help": "embedded, embedded:<size>, a folder, or a Hub model"})
    block_size: TwoOrMore = field(default=None, metadata={"help": "tokens per row"})
    streaming: bool = field(default=False, metadata={"help": "read, tokenise and pack while training, nothing on disk"})
    num_proc: Count | None = field(default=None, metadata={"help": "processes that tokenise and pack"})
    model: str = field(default=None, metadata={"help": "size: nano, mini, gpt2 (124M), gpt2-medium, gpt2-large (774M)"})
    plan: list[str] = field(
        default=None, metadata={"help": f"compute at noise r: {', '.join(PLANS)}", "choices": PLANS}
    )
    ratio: list[NotNegative] = field(default=None, metadata={"help": "noise ratios r, plain loss; 0 is no noise"})
    corrected: list[Positive] = field(default=None, metadata={"help": "ratios for the corrected loss, e known"})
    learned: list[Positive] = field(default_factory=list, metadata={"help": "ratios for the corrected loss, e learned"})
    estimated: list[Positive] = field(default_factory=list, metadata={"help": "ratios; e from ranks of a plain run"})
    misstated: list[Positive] = field(default_factory=list, metadata={"help": "ratios r; e taken from r/2 and 2r"})
    seed: list[Seed] = field(default_factory=lambda: [0], metadata={"help": "of weights, order and noise"})
    steps: Count = field(default=None, metadata={"help": "optimiser steps without noise"})
    batch_size: Count = field(default=None, metadata={"help": "rows per step without noise, all processes together"})
    micro_batch: Count = field(default=None, metadata={"help": "rows per process and forward pass, at most"})
    learning_rate: Positive = field(default=None, metadata={"help": "peak; cosine to a tenth"})
    warmup: NotNegative = field(default=None, metadata={"help": "steps, or below 1 a share of them"})
    weight_decay: NotNegative = field(default=0.1, metadata={"help": "on matrices only"})
    save_steps: Count = field(default=None, metadata={"help": "optimiser steps between checkpoints"})
    logging_steps: Count = field(default=None, metadata={"help": "optimiser steps between log entries"})
    score_rows: Count = field(default=512, metadata={"help": "training rows on which noisy targets are measured"})
    audit: bool = field(default=False, metadata={"help": "write p(clean) of every training token as Parquet"})
    bf16: bool = field(default=False, metadata={"help": "bfloat16 autocast, float32 weights"})
    torch_compile: bool = field(default=False, metadata={"help": "compile model and noise"})
    num_processes: Count | None = field(default=None, metadata={"help": "stop unless so many processes train together"})
    push_to_hub: Repo | None = field(default=None, metadata={"help": "owner/name; of several runs each adds its name"})
    private: bool = field(default=False, metadata={"help": "make Hub repositories private"})
    dry_run: bool = field(default=False, metadata={"help": "print settings and derived figures, then stop"})


def parse(argv: list[str] | None = None) -> Settings:
    parser, settings = parse_scaled(Settings, SCALES, argv, __doc__.split("\n\n")[0], one_or_more=("plan", "seed"))
    if settings.source is None:
        parser.error(f"--scale {settings.scale} needs a corpus: --source path/*.parquet")
    if 0 in settings.corrected + settings.learned + settings.estimated + settings.misstated:
        parser.error("without noise there is nothing to correct: r = 0 goes with --ratio only")
    if settings.streaming and settings.validation_source is None and settings.source != DOCS_TEXT:
        parser.error("--streaming needs --validation_source: held-out documents are spread over a stream")
    if settings.validation_source is not None and settings.validation_fraction is not None:
        parser.error(f"--validation_fraction {settings.validation_fraction:g}: --validation_source is the whole "
                     "validation split; give one of them")  # fmt: skip
    if settings.audit and settings.streaming:
        parser.error("--audit needs rows that can be read again in order: leave --streaming out")
    if missing := sorted(set(settings.estimated) - set(settings.ratio)):
        parser.error(f"--estimated {missing[0]:g} takes e from a run with the plain loss: add it to --ratio")
    return settings


def runs_of(settings: Settings) -> list[Run]:
    """The runs of a study: without noise once per seed, all others once per plan and seed."""
    runs = []
    for seed in settings.seed:
        if 0 in settings.ratio:
            runs.append(Run(0.0, "nll", "none", settings.plan[0], seed))
        for plan in settings.plan:
            runs += [Run(r, "nll", "none", plan, seed) for r in settings.ratio if r != 0]
            runs += [Run(r, "corrected", "known", plan, seed) for r in settings.corrected]
            runs += [Run(r, "corrected", "learned", plan, seed) for r in settings.learned]
            runs += [Run(r, "corrected", "estimated", plan, seed) for r in settings.estimated]
            # r, not e, is halved and doubled: at r = 1 twice the error rate would be 1, which no ratio reaches.
            runs += [Run(r, "corrected", stated, plan, seed) for r in settings.misstated for stated in (r / 2, 2 * r)]
    return runs


def main(argv: list[str] | None = None) -> None:
    settings = parse(argv)
    runs = runs_of(settings)
    plans = [plan_named(run.plan).plan(run.ratio, steps=settings.steps, batch_size=settings.batch_size) for run in runs]
    if settings.dry_run:
        tokens = settings.block_size
        print_plans(settings, runs, plans, lambda plan: f"rows = {plan.tokens(tokens):,} tokens")
        return
    is_main = train(settings, runs, plans)
    if is_main:
        # Those of earlier commands with this output too; data sets may have been written there as well.
        records = [record for record in read_records(settings.output) if isinstance(record, RunRecord)]
        print(study_table(records))
        print(f"\nfigure: {study_figure(records, Path(settings.output) / 'study.png')}")
