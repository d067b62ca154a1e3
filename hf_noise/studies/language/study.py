"""GPT-2 under token noise: what wrong targets do to a language model, and how to lose almost nothing to them.

Trains one model per setting, then prints a table and draws `<output>/study.png`. Every setting has a folder with
its checkpoint, `record.json` and card. Started again, it skips what is finished and goes on where it was killed.
`--dry_run` looks at settings and data. Any flag overrides the scale's preset.

Noise that comes as whole documents is a study of its own, `hf_noise.studies.documents`, under the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hf_noise.models.names import GPT2_SIZES
from hf_noise.noise.protocols import protocol_names
from hf_noise.noise.schedule import Plan, plan_named
from hf_noise.studies.documents.study import STUDY as documents
from hf_noise.studies.door import program
from hf_noise.studies.losses import check_losses, names_of_losses, objective_class
from hf_noise.studies.ranges import Count, NotNegative, Positive
from hf_noise.studies.reading import is_elsewhere
from hf_noise.studies.settings import ComparedSettings, SettingError, TrainingSettings, setting
from hf_noise.studies.study import Study, most_compute, planned
from hf_noise.studies.text_settings import TextSettings

TOKEN_NOISE, DOCUMENT_NOISE = [*protocol_names("tokens")], [*protocol_names("documents")]
PLANS = ["steps", "batch", "table6", "budget"]
SCALES: dict[str, dict] = {
    "demo": dict(
        output="runs/gpt2-demo", source="embedded/docs-text", tokenizer="embedded:1024", block_size=64, model="nano",
        plan=["batch"], ratio=[0.0, 0.1, 0.3, 0.5, 1.0], corrected=[0.5, 1.0],
        steps=300, batch_size=32, micro_batch=64, learning_rate=2e-3, warmup=0.05, save_steps=200, logging_steps=25,
    ),  # fmt: skip
    # About 25 minutes of one H200: eight runs of 124 M weights, 0.65 G tokens together.
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
class Settings(TextSettings, ComparedSettings, TrainingSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ("plan", "seed")

    model: str = setting(None, "size: gpt2 has 124 M weights, gpt2-large 774 M", group="model", choices=GPT2_SIZES)
    protocol: str | None = setting(
        None, f"noise on targets; for {', '.join(DOCUMENT_NOISE)} there is another study with other flags: "
        "--protocol random-documents --help (default: uniform-tokens)", group="noise and loss",
        choices=[*TOKEN_NOISE, *DOCUMENT_NOISE],
        is_later=True,
    )  # fmt: skip
    plan: list[str] = setting(
        None, f"compute at noise r: {', '.join(PLANS)}", group="noise and loss", choices=PLANS, in_result=False
    )
    ratio: list[NotNegative] = setting(
        None, "noise ratios r, plain loss; 0 is no noise", group="noise and loss", in_result=False
    )
    corrected: list[Positive] = setting(
        None, "ratios for the corrected loss, e known; without a value none", group="noise and loss", in_result=False
    )
    learned: list[Positive] = setting(
        [], "ratios for the corrected loss, e learned", group="noise and loss", in_result=False
    )
    estimated: list[Positive] = setting(
        [], "ratios; e from ranks of a plain run", group="noise and loss", in_result=False
    )
    misstated: list[Positive] = setting(
        [], "ratios r; e taken from r/2 and 2r", group="noise and loss", in_result=False
    )
    loss: list[str] = setting(
        [], f"further losses by name, at all of --ratio: {', '.join(names_of_losses('tokens'))}",
        group="noise and loss", in_result=False,
    )  # fmt: skip
    tuned: bool = setting(
        True, "of losses with a parameter of their own try three values; the one of the best top-1 accuracy on noisy "
        "validation targets is compared", group="noise and loss", in_result=False,
    )  # fmt: skip
    steps: Count = setting(None, "optimiser steps without noise")
    learning_rate: Positive = setting(None, "peak; cosine to a tenth")
    warmup: NotNegative = setting(None, "steps, or below 1 a share of them")
    weight_decay: NotNegative = setting(0.1, "on matrices only")
    score_rows: Count = setting(512, "training rows on which noisy targets are measured", group="measurement")
    audit: bool = setting(
        False, "write p(clean) of every training token as Parquet", group="measurement", in_result=False
    )

    def complete(self) -> None:
        if self.protocol in DOCUMENT_NOISE:
            raise SettingError(f"--protocol {self.protocol}: those settings are at_scale(hf_noise.studies.documents."
                               "study.Settings, ...)")  # fmt: skip
        check_losses(self.loss, "tokens")
        self.complete_text()
        if 0 in self.corrected + self.learned + self.estimated + self.misstated:
            raise SettingError("without noise there is nothing to correct: r = 0 goes with --ratio only")
        if self.audit and (others := set(self.loss) - {"nll", "corrected"}):
            raise SettingError(f"--audit: p(clean) is not known of a model trained by {min(others)}; leave one out")
        if self.audit and self.streaming:
            raise SettingError("--audit needs rows that can be read again in order: leave --streaming out")
        if missing := sorted(set(self.estimated) - set(self.ratio)):
            raise SettingError(f"--estimated {missing[0]:g} takes e from a run with the plain loss: add it to --ratio")
        if not runs_of(self):
            raise SettingError("--ratio is empty: nothing would be trained")


@dataclass(frozen=True)
class Run:
    """One setting. `stated` says where e comes from: "none", "known", "learned", "estimated" by the ranks of the run
    with the plain loss, or a ratio r that it is taken from. `compute_of` is the ratio whose steps and batch a run
    without noise gets, None for its own. `own` is the value of the loss's own parameter (`Objective.tuned`), None for
    its default.
    """

    ratio: float
    loss: str
    stated: str | float
    plan: str
    seed: int
    compute_of: float | None = None
    own: float | None = None

    @property
    def name(self) -> str:
        if self.compute_of is not None:
            return f"r0-compute-of-r{self.compute_of:g}-{self.plan}-seed{self.seed}"
        if self.ratio == 0:
            return f"r0-seed{self.seed}"
        how = self.loss if self.stated in ("none", "known") else f"{self.loss}-{self.stated}"
        how = how if isinstance(self.stated, str) else f"{self.loss}-as-r{self.stated:g}"
        how = how if self.own is None else f"{how}-{tuned_by(self.loss)[0]}{self.own:g}"
        return f"r{self.ratio:g}-{how}-{self.plan}-seed{self.seed}"


def tuned_by(loss: str) -> tuple[str, tuple[float | None, ...]]:
    """The own parameter of a loss and the values to try; none of a loss that has none."""
    return objective_class(loss, "tokens").tuned or ("", (None,))


def runs_of(settings: Settings) -> list[Run]:
    """The runs of a study: without noise once per seed, all others once per plan and seed."""
    runs, others = [], [loss for loss in dict.fromkeys(settings.loss) if loss not in ("nll", "corrected")]
    known = list(settings.corrected)
    if "corrected" in settings.loss:
        known += [r for r in settings.ratio if r and r not in known]
    ratios = [*settings.ratio, *known, *settings.learned, *settings.misstated]
    for seed in settings.seed:
        if 0 in settings.ratio:
            runs.append(Run(0.0, "nll", "none", settings.plan[0], seed))
        for plan in settings.plan:
            longest = most_compute(plan_named(plan), ratios, settings.batch_size)
            if 0 in settings.ratio and settings.equal_compute and longest:
                runs.append(Run(0.0, "nll", "none", plan, seed, longest))
            runs += [Run(r, "nll", "none", plan, seed) for r in settings.ratio if r != 0]
            runs += [
                Run(r, loss, "none", plan, seed, own=own)
                for loss in others for r in settings.ratio if r != 0
                for own in (tuned_by(loss)[1] if settings.tuned else (None,))
            ]  # fmt: skip
            runs += [Run(r, "corrected", "known", plan, seed) for r in known]
            runs += [Run(r, "corrected", "learned", plan, seed) for r in settings.learned]
            runs += [Run(r, "corrected", "estimated", plan, seed) for r in settings.estimated]
            # r, not e, is halved and doubled: at r = 1 twice the error rate would be 1, which no ratio reaches.
            runs += [Run(r, "corrected", stated, plan, seed) for r in settings.misstated for stated in (r / 2, 2 * r)]
    return runs


def plan_of(settings: Settings, run: Run, rows: int | None) -> Plan:
    """Steps and batch of a run."""
    return planned(plan_named(run.plan), run, steps=settings.steps, batch_size=settings.batch_size)


STUDY = Study(
    package=__package__,
    recipe="recipes/gpt2_noise.py",
    task="causal_lm",
    description=__doc__.split("\n\n")[0],
    settings=Settings,
    runs=runs_of,
    plan=plan_of,
    elsewhere=lambda settings: settings.source if is_elsewhere(settings.source) else None,
    derived=lambda settings, plan, rows: f"rows = {plan.tokens(settings.block_size):,} tokens",
)


def main(argv: Sequence[str] | None = None) -> None:
    """The study as a command, or with `--protocol` of documents the one of those."""
    first = argparse.ArgumentParser(program(), "%(prog)s [--FLAG VALUE ...]", add_help=False, allow_abbrev=False)
    first.add_argument("--protocol", nargs="*", default=[])
    first.add_argument("--alpha", nargs="*")
    asked = first.parse_known_args(argv)[0]
    is_of_documents = bool(set(asked.protocol) & set(DOCUMENT_NOISE))
    if asked.alpha is not None and not is_of_documents:
        first.error(f"--alpha {' '.join(asked.alpha)}: the share of documents of noise; add --protocol "
                    f"{' or '.join(DOCUMENT_NOISE)}, or give --ratio for noise on targets")  # fmt: skip
    (documents if is_of_documents else STUDY).main(argv)
