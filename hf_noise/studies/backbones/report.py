"""Tables, claims and figure of heads on models that saw noise documents."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_noise.atomic import write_atomic
from hf_noise.data.passages import DOCS_TOPICS
from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.paper import published
from hf_noise.reports.tables import markdown_table
from hf_noise.reports.verdicts import Verdict, lies_in
from hf_noise.studies.backbones.compare import LGM, PLAIN, Heads, read_heads
from hf_noise.studies.backbones.study import Settings, backbone_settings, tasks_of
from hf_noise.studies.documents.claims import GAUSSIAN
from hf_noise.studies.documents.compare import UNIFORM
from hf_noise.studies.probe.report import SAW_PASSAGES

__all__ = ["claims", "show", "study_figure", "tables"]

#: Heads that come out the same are no better, and no worse.
_ABOVE_0 = sys.float_info.min
_PAPER_RAISED = {"linear": "19 of 20, +0.51", "mlp": "15 of 20, +0.27"}
READING = (
    "Accuracy in percent on test rows; [low, high]: 95 % interval of a mean over seeds of heads (Student's t), which "
    "says nothing of other test rows or other models. LGM's gain is paired by seed. NLLs, and claims of what noise in "
    "pre-training does, have theirs over models."
)
ONE_MODEL = (
    " There is one model of each noise, and so no such interval: a difference between models may be their order of "
    "rows, and not the noise."
)


def show(settings: Settings) -> str:
    """The tables, what came of the paper's claims, and where the figure is."""
    output, heads = Path(settings.output), read_heads(settings)
    told = "\n\n".join([*tables(heads), claims_table(heads), reading(settings)])
    write_atomic(output / "study.md", told + "\n")
    return f"{told}\n\nfigure: {study_figure(heads, output / 'study.png')}\ntables: {output / 'study.md'}"


def reading(settings: Settings) -> str:
    """How the figures came about, in words."""
    said = READING + (ONE_MODEL if len(settings.model_seed) == 1 else "")
    saw = [one.name for one in tasks_of(settings) if one.source == DOCS_TOPICS]
    is_embedded = backbone_settings(settings).source == "embedded/docs-text"
    return f"{said} Of {', '.join(saw)}: {SAW_PASSAGES}" if saw and is_embedded else said


def tables(heads: Heads) -> Iterator[str]:
    """The mean over tasks, then each task if there are several."""
    for task in [None, *heads.tasks] if len(heads.tasks) > 1 else heads.tasks:
        rows = []
        for one in heads.backbones:
            cells = [one.label, heads.nll[one].told(3)]
            for kind in heads.kinds:
                cells += [heads.accuracy(one, task, kind, penalty).told(1) for penalty in (PLAIN, LGM)]
                cells.append(heads.gain(one, task, kind).told(2))
            rows.append(cells)
        columns = [f"{kind}{of}" for kind in heads.kinds for of in (" head", " + LGM", ": gain")]
        yield markdown_table([f"noise; {task or 'mean of tasks'}", "validation NLL", *columns], rows)


def claims(heads: Heads) -> Iterator[Verdict]:
    """What table 1 says, held against these heads."""
    for kind in heads.kinds:
        gain, (up, cells) = heads.mean_gain(kind), heads.raised(kind)
        yield Verdict(f"LGM raises the accuracy of {kind} heads", f"table 1: {_PAPER_RAISED[kind]}",
                      f"{up} of {cells} cells, {gain.told(2)} points", *lies_in(gain, _ABOVE_0),
                      on_rows=True)  # fmt: skip
    noisy, margin = [one for one in heads.backbones if one.alpha], _margin()
    for one in (one for one in noisy if one.protocol == UNIFORM and "linear" in heads.kinds):
        change = heads.over_clean(one, "linear")
        yield Verdict(f"{one.label}: linear heads lose no more than {margin:g} points", "table 1",
                      f"{change.told(2)} points", *lies_in(change, -margin), of="model", on_rows=True)  # fmt: skip
    for one in (one for one in noisy if one.protocol == GAUSSIAN and "linear" in heads.kinds):
        change = heads.over_clean(one, "linear")
        yield Verdict(f"{one.label}: linear heads are worse than without noise", "table 1: -1.38",
                      f"{change.told(2)} points", *lies_in(change, high=-_ABOVE_0), of="model",
                      on_rows=True)  # fmt: skip


def _margin() -> float:
    """By how many points uniform noise may lower heads and still not do so, as the claim of the table has it."""
    return min(test["high"] for one in published("B.table1").claims if one.id == "B.table1.c3" for test in one.again)


def claims_table(heads: Heads) -> str:
    rows = [[one.claim, one.source, one.statistic, one.word] for one in claims(heads)]
    return markdown_table(["claim", "paper B", "measured", "verdict"], rows)


def study_figure(heads: Heads, path: Path) -> Path:
    """Draw a panel for each kind of head: accuracy on each model's features, plain and with LGM, a dot for each seed.

    A further panel below them shows what LGM adds.
    """
    plt, kinds = start_figure(), list(heads.kinds)
    fig, axes = plt.subplot_mosaic(
        [kinds, ["gains"] * len(kinds)], figsize=(5.6 * len(kinds), 7.6), layout="constrained",
    )  # fmt: skip
    for kind in kinds:
        _accuracies(axes[kind], heads, kind)
    _gains(axes["gains"], heads)
    return save_figure(fig, path)


_COLOURS = {PLAIN: "#777777", LGM: "#2166ac"}


def _accuracies(axis: Any, heads: Heads, kind: str) -> None:
    for place, one in enumerate(heads.backbones):
        for penalty, shift, name in ((PLAIN, -0.15, "plain"), (LGM, 0.15, "with LGM")):
            found, x = heads.accuracy(one, None, kind, penalty), place + shift
            axis.plot([x] * len(found.values), found.values, "o", ms=4, color=_COLOURS[penalty], alpha=0.35)
            axis.plot(x, found.mean, "_", ms=16, mew=2, color=_COLOURS[penalty], label=None if place else name)
    axis.set_xticks(range(len(heads.backbones)), [one.label.replace(" ", "\n") for one in heads.backbones], fontsize=8)
    axis.set_ylabel("test accuracy, %")
    axis.legend(frameon=False, fontsize=8)
    axis.margins(y=0.2)
    axis.set_title(f"{kind} heads on frozen features", loc="left", fontweight="bold", fontsize=10.5)


def _gains(axis: Any, heads: Heads) -> None:
    rows = [(one, kind) for one in heads.backbones for kind in heads.kinds][::-1]
    for row, (one, kind) in enumerate(rows):
        found = heads.gain(one, None, kind)
        low, high = found.interval or (found.mean, found.mean)
        axis.plot([low, high], [row, row], color=_COLOURS[LGM], lw=1.4)
        axis.plot(found.mean, row, "o", ms=5, color=_COLOURS[LGM])
    axis.axvline(0, color="#222222", lw=0.8)
    axis.set_yticks(range(len(rows)), [f"{one.label}, {kind}" for one, kind in rows], fontsize=8)
    axis.set_xlabel("points that LGM adds, 95 % interval over seeds of heads")
    axis.set_title("What LGM adds", loc="left", fontweight="bold", fontsize=10.5)
