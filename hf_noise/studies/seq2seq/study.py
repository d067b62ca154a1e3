"""Sequence to sequence on a teacher's targets: does a rich source protect against them, and how does one learn past?

Trains a teacher for each task, lets it write the noisy targets once, then one model per setting, all for the same
number of steps; prints tables, holds the paper's claims against the runs and draws `<output>/study.png`. Every setting
has a folder with its checkpoint, `record.json` and card. Started again, it skips what is finished and goes on where it
was killed. `--dry_run` looks at settings and data. Any flag overrides the scale's preset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from hf_noise.data.pairs_embedded import CONTEXTS, DOCS_PAIRS
from hf_noise.noise import rates
from hf_noise.noise.schedule import FixedBudget, Plan
from hf_noise.studies.ranges import (
    Count,
    CountOrNone,
    Name,
    NotNegative,
    Positive,
    Range,
    ShareBelowOne,
    ShareInside,
    TwoOrMore,
)
from hf_noise.studies.reading import is_elsewhere, may_be_read
from hf_noise.studies.seq2seq.runs import LOSSES, OTHERS, TASKS, Run, runs_of
from hf_noise.studies.settings import LEARNING_RATE_SCHEDULES, SettingError, TrainingSettings, setting
from hf_noise.studies.study import Study

Norm = Annotated[float, Range(above=0, high=math.sqrt(2))]
USUAL = dict(
    task=TASKS, loss=["nll"], other=OTHERS[:2], schedule="constant_with_warmup", decoding="greedy"
)
SCALES: dict[str, dict] = {
    # The rest of a docstring, or the bare name, to its first sentence: the targets of both tasks are the same. The
    # teacher, of a tenth of the steps, is sampled from: greedy, it writes one and the same sentence for all sources.
    "demo": USUAL | dict(
        output="runs/seq2seq-demo", ratio=[0.0, 0.5, 1.0],
        loss=["nll", "sequence-mixture", "audited", "truncated", "error-norm", "oracle"], seed=[0, 1, 2],
        vocab_size=1000, max_source_tokens=[64], max_target_tokens=64, max_new_tokens=32, layers=1,
        d_model=64, heads=4, feed_forward=256, dropout=0.0, decoding="sample", steps=350, teacher_steps=35,
        batch_size=16, micro_batch=64, learning_rate=3e-3, warmup=0.1, save_steps=1000, logging_steps=50,
    ),  # fmt: skip
    # Pairs of one's own: clean targets and half a teacher's, with cures.
    "gpu": USUAL | dict(
        output="runs/seq2seq-gpu", ratio=[0.0, 1.0],
        loss=["nll", "sequence-mixture", "audited", "truncated", "error-norm", "oracle"], seed=[0, 1, 2],
        vocab_size=8000, max_source_tokens=[512], max_target_tokens=128, max_new_tokens=128, layers=3, d_model=256,
        heads=4, feed_forward=1024, dropout=0.1, steps=2000, teacher_steps=200, batch_size=128, micro_batch=128,
        learning_rate=5e-4, warmup=0.1, save_steps=1000, logging_steps=50, bf16=True,
    ),  # fmt: skip
    # Paper A, table 10 and appendix K.3 (spec 4.2); batch, warm-up and what else the paper leaves open are usual.
    "paper": USUAL | dict(
        output="runs/seq2seq-paper", ratio=[0.0, 0.1, 0.3, 0.5, 1.0], seed=[0], vocab_size=32_000,
        max_target_tokens=256, max_new_tokens=256, layers=6, d_model=512,
        heads=8, feed_forward=2048, dropout=0.1, steps=50_000, teacher_steps=5000, batch_size=64, micro_batch=64,
        learning_rate=1e-4, warmup=4000, save_steps=5000, logging_steps=100, bf16=True,
    ),  # fmt: skip
}


_GENERATED = {"demo": 50, "gpu": 500, "paper": 1000}
# Of a scale, and task by task: what stands for a setting that is not given.
_GIVEN: dict[str, dict[str, dict]] = {
    "demo": {task: dict(source=DOCS_PAIRS) for task in TASKS},
    "paper": {
        "sparse": dict(source="hf_noise/wmt14-noisy", max_source_tokens=256),
        "rich": dict(source="hf_noise/cnn-dailymail-noisy", max_source_tokens=2048),
    },
}  # fmt: skip
_BY_TASK = ("source", "test_source", "source_column", "target_column", "max_source_tokens", "teacher")


@dataclass(frozen=True)
class Place:
    """Where the pairs of a task are, how long a source is read, and the teacher that is given."""

    source: str
    test_source: str | None
    source_column: str
    target_column: str
    max_source_tokens: int
    teacher: str | None


@dataclass
class Settings(TrainingSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ("task", "loss", "other", "seed")
    usual: ClassVar = ("task", "source_column", "target_column")

    source: list[Name] = setting(
        [], "pairs of texts: one source, or one for each of --task: file, glob, folder, Hub data set, or data of "
        "hf_noise such as hf_noise/wmt14-noisy", group="data",
    )  # fmt: skip
    test_source: list[Name] = setting([], "test pairs, one for each source, if they have none", group="data")
    test_fraction: ShareInside | None = setting(None, "share held out, if there are no test pairs", group="data")
    source_column: list[Name] = setting(
        [], "the column of sources, or one for each of --task; translation.en is a field of a column (default: source)",
        group="data",
    )  # fmt: skip
    target_column: list[Name] = setting(
        [], "the column of targets, or one for each of --task (default: target)", group="data"
    )
    train_rows: TwoOrMore | None = setting(None, "how many of the training pairs; all if not set", group="data")
    test_rows: TwoOrMore | None = setting(None, "how many of the test pairs; all if not set", group="data")
    vocab_size: Count = setting(
        None, "tokens of a task's byte-level BPE, of both tasks' where their targets are the same", group="data"
    )
    max_source_tokens: list[TwoOrMore] = setting(
        [], "the longest source, or one for each of --task", group="data"
    )
    max_target_tokens: TwoOrMore = setting(None, "the longest target", group="data")
    truncate: bool | None = setting(
        None, "cut what is longer, and tell the share; else it is refused (if not set, embedded pairs and data of "
        "hf_noise are cut)", group="data",
    )  # fmt: skip

    task: list[str] = setting(
        None, "by how much the source says of the target", group="noise and loss", choices=TASKS, in_result=False
    )
    ratio: list[NotNegative] = setting(
        None, "noise ratios r = e / (1 - e); 0 is no noise", group="noise and loss", in_result=False
    )
    error_rate: list[ShareBelowOne] = setting(
        [], "shares e of a teacher's targets, instead of --ratio", group="noise and loss", in_result=False
    )
    loss: list[str] = setting(
        None, "of noisy runs; truncated leaves out whole pairs; sequence-mixture leaves an audit behind, p(clean) of "
        "each pair (audit.parquet); audited trains anew on those that it calls right, oracle on the right ones",
        group="noise and loss", choices=LOSSES, in_result=False,
    )
    other: list[str] = setting(
        None, "what sequence-mixture knows of who wrote: the teacher, and e; an early copy of the model (learned) or a "
        "table of tokens (unigram), and not e", group="noise and loss", choices=OTHERS, in_result=False,
    )  # fmt: skip
    cured: list[Positive] = setting(
        [], "ratios at which other losses than nll are tried (default: the largest)", group="noise and loss",
        in_result=False,
    )  # fmt: skip
    fraction: list[ShareBelowOne] = setting(
        [0.3], "of truncated: shares of the pairs to leave out, a run of each", group="noise and loss", in_result=False
    )
    threshold: list[Norm] = setting(
        [1.15], "of error-norm: of ||p - onehot||, sqrt(2) at most, a run of each", group="noise and loss",
        in_result=False,
    )  # fmt: skip
    teacher: list[Name] = setting(
        [], "folder or Hub id of the model that writes, one for each of --task; else one is trained",
        group="noise and loss",
    )  # fmt: skip
    teacher_steps: Count = setting(None, "optimiser steps of a teacher that is trained", group="noise and loss")
    decoding: str = setting(
        None, "how the teacher writes", group="noise and loss", choices=["greedy", "sample", "beam"]
    )
    max_new_tokens: Count = setting(None, "that the teacher writes for a source, at most", group="noise and loss")

    model: Name | None = setting(
        None, "folder or Hub id of any T5, BART or Marian to train on, with its tokenizer; else from scratch",
        group="model",
    )  # fmt: skip
    layers: Count = setting(None, "of encoder and of decoder", group="model")
    d_model: TwoOrMore = setting(None, "width", group="model")
    heads: Count = setting(None, "of attention", group="model")
    feed_forward: Count = setting(None, "width inside the feed-forward layers", group="model")
    dropout: ShareBelowOne = setting(None, "of a model from scratch", group="model")

    steps: Count = setting(None, "optimiser steps of each run")
    tokens_per_batch: TwoOrMore | None = setting(
        None, "tokens of source and target in a step, padding included (default: what --batch_size pairs have on "
        "average)",
    )  # fmt: skip
    learning_rate: Positive = setting(None, "peak")
    schedule: str = setting(None, "of the learning rate", choices=LEARNING_RATE_SCHEDULES)
    warmup: NotNegative = setting(None, "steps, or below 1 a share of them")
    weight_decay: NotNegative = setting(0.0, "on matrices only")
    max_grad_norm: Positive = setting(1.0, "to which gradients are clipped")
    score_rows: Count = setting(512, "training pairs on which noisy targets are measured", group="measurement")
    generated: CountOrNone | None = setting(
        None, "test pairs for which targets are written and scored by BLEU, chrF and ROUGE, which take "
        "hf_noise[sequences] (default: of demo 50, gpu 500, paper 1000; none without these packages)",
        group="measurement", in_result=False,
    )  # fmt: skip

    def complete(self) -> None:
        self._take_rates()
        if len(set(self.task)) < len(self.task):
            raise SettingError(f"--task {' '.join(self.task)}: each once")
        self._fill_in()
        self.loss = sorted(self.loss, key=LOSSES.index)  # an audit is there before what is trained by it
        if not self.source:
            raise SettingError(f"--scale {self.scale} needs --source: pairs of texts, one source or one for each of "
                               "--task")  # fmt: skip
        if not self.max_source_tokens:
            raise SettingError("--max_source_tokens is empty: say how many tokens a source may have")
        for name in _BY_TASK:
            given, of_one = getattr(self, name), () if name == "teacher" else (1,)
            if given and len(given) not in (*of_one, len(self.task)):
                raise SettingError(f"--{name} takes {'one, or ' if of_one else ''}one for each of --task "
                                   f"{' '.join(self.task)}, got {len(given)}")  # fmt: skip
        self._check_sources()
        self._check_model()
        self._count_generated()
        if "audited" in self.loss and "sequence-mixture" not in self.loss:
            raise SettingError("--loss audited: which pairs are right is what a mixture says; add sequence-mixture")
        if self.max_new_tokens > self.max_target_tokens:
            raise SettingError(f"--max_new_tokens {self.max_new_tokens} is more than --max_target_tokens "
                               f"{self.max_target_tokens}, so that what a teacher writes would be cut")  # fmt: skip
        self.cured = self.cured or [ratio for ratio in [max(self.ratio, default=0.0)] if ratio]
        if missing := sorted(set(self.cured) - set(self.ratio)):
            raise SettingError(f"--cured {missing[0]:g} is compared with the plain loss there: add it to --ratio")
        if not runs_of(self):
            raise SettingError("--ratio is empty: nothing would be trained")

    def _fill_in(self) -> None:
        """What the scale has for each task, and the columns of embedded pairs."""
        for name in ("source", "max_source_tokens"):
            known = [_GIVEN.get(self.scale, {}).get(task, {}).get(name) for task in self.task]
            if not getattr(self, name) and None not in known:
                setattr(self, name, known[:1] if len(set(known)) == 1 else known)
        if not self.source_column:
            is_embedded = set(self.source) == {DOCS_PAIRS}
            self.source_column = [CONTEXTS[task] for task in self.task] if is_embedded else ["source"]
        self.target_column = self.target_column or ["target"]
        if self.truncate is None:
            self.truncate = all(source.startswith(("embedded/", "hf_noise/")) for source in self.source)

    def _check_sources(self) -> None:
        places = [self.place(task) for task in self.task]
        for one in places:
            own = (one.test_source, one.source_column, one.target_column) != (None, "source", "target")
            if one.source.startswith("hf_noise/") and own:
                raise SettingError(f"--source {one.source} has columns and test pairs of its own: leave out "
                                   "--source_column, --target_column and --test_source")  # fmt: skip
        alike = {(one.source, one.test_source, one.source_column, one.target_column) for one in places}
        if len(places) > 1 and len(alike) == 1:
            raise SettingError(f"--task {' '.join(self.task)} would be the same pairs twice: give a --source or a "
                               "--source_column for each, or one --task")  # fmt: skip

    def _take_rates(self) -> None:
        """`--error_rate` as ratios, which runs are named by."""
        if self.error_rate:
            if self.ratio is not None and self.ratio != SCALES[self.scale]["ratio"]:
                raise SettingError("--ratio and --error_rate say the same; give one of them")
            self.ratio = [rates.ratio(e) for e in self.error_rate]

    def _count_generated(self) -> None:
        from importlib.util import find_spec

        missing = [name for name, package in (("sacrebleu", "sacrebleu"), ("rouge-score", "rouge_score"))
                   if find_spec(package) is None]  # fmt: skip
        if self.generated and missing:
            raise SettingError(f"--generated {self.generated}: scores take {missing[0]}; pip install "
                               '"hf_noise[sequences]", or leave it out')  # fmt: skip
        if self.generated is None:
            self.generated = 0 if missing else _GENERATED[self.scale]

    def _check_model(self) -> None:
        for flag, names in (("model", [self.model] if self.model else []), ("teacher", self.teacher)):
            for name in names:
                if not may_be_read(name):
                    raise SettingError(f"--{flag} {name}: there is no such folder; give that of an encoder-decoder, or "
                                       "owner/name on the Hub")  # fmt: skip
                if not Path(name).is_dir() and name.count("/") and (beside := Path(name).parent).is_dir():
                    raise SettingError(f"--{flag} {name}: the folder {beside} is here and has no such one; name one "
                                       f"that it has, or run where there is no {beside} if it is on the "
                                       "Hub")  # fmt: skip
        if self.model is None and self.d_model % (2 * self.heads):
            raise SettingError(f"--d_model {self.d_model} must be a multiple of twice --heads {self.heads}")

    def place(self, task: str) -> Place:
        """Where the pairs of a task are, and its teacher."""

        def own(values: list[str]) -> str | None:
            return values[self.task.index(task)] if len(values) == len(self.task) else values[0] if values else None

        return Place(**{name: own(getattr(self, name)) for name in _BY_TASK})


def elsewhere(settings: Settings) -> str | None:
    """What a run would download, None for nothing."""
    models = [settings.model, *settings.teacher]
    return _rows_elsewhere(settings) or next(
        (name for name in models if name is not None and not Path(name).exists()), None
    )


def has_rows(settings: Settings) -> bool:
    """Whether the pairs are on this machine."""
    return _rows_elsewhere(settings) is None


def _rows_elsewhere(settings: Settings) -> str | None:
    for task in settings.task:
        place = settings.place(task)
        for source in (place.source, place.test_source):
            if source is not None and (_is_on_hub(source) if source.startswith("hf_noise/") else is_elsewhere(source)):
                return source
    return None


def _is_on_hub(builder: str) -> bool:
    return builder != "hf_noise/docs-pairs-noisy"


def plan_of(settings: Settings, run: Run, rows: int | None) -> Plan:
    """The same steps for all runs: a teacher's targets get no more compute than clean ones."""
    return FixedBudget().plan(run.ratio, steps=settings.steps, batch_size=settings.batch_size)


STUDY = Study(
    package=__package__,
    recipe="recipes/seq2seq_noise.py",
    task="seq2seq",
    description=__doc__.split("\n\n")[0],
    settings=Settings,
    runs=runs_of,
    plan=plan_of,
    elsewhere=elsewhere,
    has_rows=has_rows,
    derived=lambda settings, plan, rows: f"pairs on average = {plan.sequences:,} pairs",
)
main = STUDY.main
