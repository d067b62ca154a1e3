"""Language models that were pre-trained among noise documents, as frozen backbones: table 1 of paper B.

Trains one GPT-2 per noise at equal steps, then fits linear and two-layer heads on its features for every task, without
a penalty and with Local Gradient Matching (LGM). It prints tables and draws `<output>/study.png`. Started again, it
skips what is finished and goes on where it was killed. `--dry_run` looks at settings and data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from hf_noise.models.names import GPT2_SIZES
from hf_noise.noise.protocols import protocol_names
from hf_noise.studies.documents import study as documents
from hf_noise.studies.probe import study as probe
from hf_noise.studies.ranges import Count, Name, Positive, Seed, ShareBelowOne, ShareInside
from hf_noise.studies.settings import SettingError, StudySettings, at_scale, parse, setting

__all__ = ["TASKS", "Settings", "Task", "backbone_settings", "main", "probe_settings", "tasks_of"]

#: Tasks by name: where they are read from unless `--task name=...` says otherwise, and what a network reads of a text.
#: Those of table 1 have the prompts of table 11.
TASKS = {
    "docs-topics": ("embedded/docs-topics", None),
    "sst2": ("SetFit/sst2", "{text} this movie is"),
    "sst-fine": ("SetFit/sst5", "{text} this movie is"),
    "20newsgroup": ("SetFit/20_newsgroups", "{text} This article is about"),
    "cr": ("SetFit/CR", "{text} the sentiment is"),
}
PAPER_TASKS = ["sst2", "sst-fine", "20newsgroup", "cr"]

SCALES: dict[str, dict] = {
    "demo": dict(
        output="runs/noisy-backbones-demo", task=["docs-topics"], alpha=[0.05, 0.2], steps=400,
        learning_rate=[3e-3, 1e-2], mlp_learning_rate=[1e-3, 3e-3], batch_size=[32], seed=[0, 1, 2, 3, 4],
    ),  # fmt: skip
    # About 25 minutes of one H200: five models of 124 M weights, 0.26 G tokens together, and the paper's tasks.
    "gpu": dict(
        output="runs/noisy-backbones-gpu", task=PAPER_TASKS, alpha=[0.05, 0.2],
        learning_rate=[3e-4, 6e-4], batch_size=[32], seed=[0, 1, 2, 3, 4],
    ),  # fmt: skip
    # Table 1; its Gaussian model has alpha = 0.05.
    "paper": dict(
        output="runs/noisy-backbones-paper", task=PAPER_TASKS, alpha=[0.01, 0.05, 0.2],
        learning_rate=[3e-4, 6e-4], batch_size=[8, 12, 16, 32], seed=[0, 1, 2, 3, 4],
    ),  # fmt: skip
}


@dataclass
class Settings(StudySettings):
    """Settings of the study; `seed` is that of heads, what is not said of models is as gpt2_noise.py has it."""

    scales: ClassVar = SCALES
    one_or_more: ClassVar = ("seed", "protocol", "alpha", "task", "head", "learning_rate", "batch_size", "model_seed")
    usual: ClassVar = ("task",)

    source: Name | None = setting(None, "text of the models, as for gpt2_noise.py", group="data")
    text_column: Name | None = setting(None, "its column", group="data")
    tokenizer: Name | None = setting(None, "of the models", group="data")
    block_size: Count | None = setting(None, "tokens of a row", group="data")
    task: list[str] = setting(
        None, f"{', '.join(TASKS)}; name=train,test reads files, name=source what has both", group="data"
    )
    test_fraction: ShareInside = setting(0.1, "held out of a task that has no test rows", group="data")
    protocol: list[str] = setting(
        ["random-documents", "gaussian-documents"],
        f"documents of noise: {', '.join(protocol_names('documents'))}", group="noise and loss",
        choices=[*protocol_names("documents")],
    )  # fmt: skip
    alpha: list[ShareBelowOne] = setting(None, "shares of noise in the mixture", group="noise and loss")
    gamma: Positive = setting(0.01, "LGM: standard deviation of perturbed features", group="noise and loss")
    gamma_relative: bool = setting(
        False, "count gamma in the mean standard deviation of the features", group="noise and loss"
    )
    lam: Positive = setting(0.15, "LGM: weight of the penalty", group="noise and loss")
    model: str | None = setting(None, "size of the models", group="model", choices=GPT2_SIZES)
    model_seed: list[Seed] = setting([0], "seeds of models, each with all noises", group="model")
    pooling: str = setting("last", "of a text's tokens", group="model", choices=["last", "mean"])
    head: list[str] = setting(probe.HEADS, "kinds of head", choices=probe.HEADS)
    steps: Count | None = setting(None, "optimiser steps of each model")
    learning_rate: list[Positive] = setting(
        None, "of linear heads, and of MLP heads without --mlp_learning_rate; one is chosen on validation rows"
    )
    mlp_learning_rate: list[Positive] = setting([], "of MLP heads, if others")
    batch_size: list[Count] = setting(None, "of heads; one is chosen on validation rows")
    epochs: Count = setting(10, "of heads")

    def complete(self) -> None:
        backbone_settings(self)  # refuses what they cannot be
        for task in tasks_of(self):
            probe_settings(self, "unknown", task)


@dataclass(frozen=True)
class Task:
    """Rows with labels, and what a network reads of them."""

    name: str
    source: str
    test_source: str | None
    prompt: str | None


def tasks_of(settings: Settings) -> list[Task]:
    """The tasks of `--task`. Raises SettingError: one has a name that is none, stands twice, or has no source."""
    found: dict[str, Task] = {}
    for one in settings.task:
        name, is_given, where = one.partition("=")
        known, prompt = TASKS.get(name, (None, None))
        sources = where.split(",") if is_given else [known]
        if not name.replace("-", "_").isidentifier() and name not in TASKS or len(sources) > 2 or not all(sources):
            raise SettingError(f"--task takes {', '.join(TASKS)}, name=source, or name=train,test, got {one!r:.80}")
        if name in found:
            raise SettingError(f"--task {name}: the name stands twice; give each task one of its own")
        found[name] = Task(name, sources[0], sources[1] if len(sources) == 2 else None, prompt)
    return list(found.values())


def backbone_settings(settings: Settings) -> documents.Settings:
    """Those of the models: every noise with the plain loss, and one model without."""
    return at_scale(
        documents.Settings, settings.scale, output=f"{settings.output}/backbones", seed=settings.model_seed,
        source=settings.source, text_column=settings.text_column, tokenizer=settings.tokenizer,
        block_size=settings.block_size, protocol=settings.protocol, alpha=settings.alpha, model=settings.model,
        steps=settings.steps, cure=[], equal_clean=False, evaluations=2, num_processes=settings.num_processes,
    )  # fmt: skip


def probe_settings(settings: Settings, backbone: str, task: Task) -> probe.Settings:
    """Those of the heads on one model's features for one task."""
    return at_scale(
        probe.Settings, "demo" if settings.scale == "demo" else "paper",
        output=f"{settings.output}/heads/{backbone}/{task.name}", model=f"{settings.output}/backbones/{backbone}",
        source=task.source, test_source=task.test_source, test_fraction=settings.test_fraction, prompt=task.prompt,
        pooling=settings.pooling, ratio=[0.0], corrected=False, penalty=["difference"], gamma=[settings.gamma],
        gamma_relative=settings.gamma_relative, lam=[settings.lam], head=settings.head, seed=settings.seed,
        learning_rate=settings.learning_rate, mlp_learning_rate=settings.mlp_learning_rate,
        batch_size=settings.batch_size, epochs=settings.epochs, area_rows=0, num_processes=settings.num_processes,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(Settings, argv, __doc__.split("\n\n")[0])
    from hf_noise.studies.backbones.run import look, work

    if settings.dry_run:
        print(json.dumps(asdict(settings), indent=2), flush=True)
        for line in look(settings):
            print(line)
        return
    if work(settings):
        from hf_noise.studies.backbones.report import show

        print(show(settings))
