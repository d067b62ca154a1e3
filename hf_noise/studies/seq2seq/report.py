"""Tables, claims and figure of a study of teacher noise, from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_noise.atomic import write_atomic
from hf_noise.metrics.words import METRICS
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import Column, Table, fixed, mean_sd, percent, seeds_told
from hf_noise.reports.verdicts import Spread
from hf_noise.studies.seq2seq.claims import claims_table
from hf_noise.studies.seq2seq.compare import NLL, PLAIN, Compared, Setting, clean_of, compared, value_of
from hf_noise.studies.seq2seq.pictures import study_figure

__all__ = ["run_table", "settings_table", "show", "teacher_table"]

_COLUMNS = (
    Column("task"), Column("loss"), Column("e"), Column("seeds", 5),
    Column(METRICS[NLL].label, 0, "test NLL"), Column("rise, nats (95% interval)", 1, "rise, nats"),
    Column("rise, % (95% interval)", 0, "rise, %"), Column("paper A, %", 6),
    Column("gap closed, % (95% interval)", 0, "gap closed, %"),
    Column("of what right pairs alone close, % (95% interval)", 3, "of right pairs', %"),
    Column(METRICS["row_auroc"].label, 2, "AUROC"),
    Column("e found", 4), Column("left out, %", 10), Column(METRICS["test_bleu"].label, 4),
    Column(METRICS["test_chrf"].label, 8),
    Column(METRICS["test_rouge_l"].label, 3), Column(METRICS["padding_share"].heading, 9),
)  # fmt: skip


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    """The table of settings as far as there is room, the claims, and where all of it and the figure are."""
    output = Path(settings.output)
    study = compared([record for record in records if record.task == "seq2seq"])
    table, parts = settings_table(study), [teacher_table(study).markdown(), claims_table(study), *_notes(study)]
    figure = study_figure(study, output / "study.png")
    write_atomic(output / "study.md", "\n\n".join([table.markdown(), *parts, run_table(study).markdown()]) + "\n")
    shown = "\n\n".join([table.fitted().markdown(), *parts])
    return f"{shown}\n\nfigure: {figure}\ntables, of each run too: {output / 'study.md'}"


def settings_table(study: Compared) -> Table:
    """One line for each task, rate and loss: NLL on clean test targets over seeds, and how far it is from the clean
    runs."""
    rows = []
    for task in study.tasks:
        for setting in [clean_of(task), *(one for ratio in _ratios(study, task) for one in study.cures(task, ratio))]:
            if not study.runs.get(setting):
                continue
            is_plain = setting.cure == PLAIN and setting.ratio > 0
            closed = study.gap_closed(setting)
            published = study.published(task).get(setting.ratio) if is_plain else None
            rows.append([
                task, setting.title, f"{setting.error_rate:.3f}", str(len(study.runs[setting])),
                mean_sd(study.values(setting), 3), _told(study.rise(setting) if setting.ratio else None, 3),
                _told(study.relative_rise(setting) if setting.ratio else None, 1), fixed(published, 1),
                _told(closed, 0, 100), _told(study.of_oracle(setting), 0, 100),
                mean_sd(study.values(setting, "row_auroc"), 3),
                mean_sd(study.values(setting, "audited_error_rate"), 3), _left_out(study, setting),
                mean_sd(study.values(setting, "test_bleu"), 1),
                mean_sd(study.values(setting, "test_chrf"), 1), mean_sd(study.values(setting, "test_rouge_l"), 1),
                mean_sd(study.values(setting, "padding_share"), 1, 100),
            ])  # fmt: skip
    return Table(_COLUMNS, rows).measured()


def _left_out(study: Compared, setting: Setting) -> str:
    """Share of training targets that taught nothing."""
    dropped = [*study.values(setting, "dropped_share"), *(1 - kept for kept in study.values(setting, "kept_share"))]
    return mean_sd(dropped, 1, 100)


def _ratios(study: Compared, task: str) -> list[float]:
    return sorted({one.ratio for one in study.runs if one.task == task and one.ratio})


def teacher_table(study: Compared) -> Table:
    """How good each teacher is, and how near its targets are to a clean model: what confounds two tasks."""
    columns = [Column(name) for name in ("task", "steps of its teacher", f"{METRICS['teacher_nll'].label}, test",
                                         "clean runs', test", "clean runs' NLL of what it wrote", "tokens of a source",
                                         "of a target")]  # fmt: skip
    rows = []
    for task in study.tasks:
        runs = [run for one, found in study.runs.items() if one.task == task for run in found.values()]
        first, clean = runs[0], clean_of(task)
        rows.append([
            task, str(first.data.get("teacher", {}).get("steps") or "-"), fixed(value_of(first, "teacher_nll"), 3),
            mean_sd(study.values(clean), 3), mean_sd(study.values(clean, "written_nll"), 3),
            fixed(first.data.get("source_tokens"), 1), fixed(first.data.get("target_tokens"), 1),
        ])  # fmt: skip
    return Table(columns, rows)


def run_table(study: Compared) -> Table:
    """One line for each run: what it was trained on, and all that was measured."""
    columns = [Column(name) for name in ("run", "realised e", "pairs a step", METRICS[NLL].label,
                                         METRICS["train_nll_clean"].label,
                                         METRICS["train_nll_corrupted"].label, METRICS["row_auroc"].label,
                                         METRICS["written_nll"].label, METRICS["padding_share"].heading,
                                         "seconds")]  # fmt: skip
    rows = []
    records = [run for found in study.runs.values() for run in found.values()]
    for record in sorted(records, key=lambda one: one.name):
        figures = [value_of(record, name) for name in (NLL, "train_nll_clean", "train_nll_corrupted", "row_auroc",
                                                       "written_nll")]  # fmt: skip
        rows.append([
            record.name, fixed(record.noise.get("realised", {}).get("rate")),
            fixed(record.budget.get("pairs_per_step"), 1), *(fixed(value, 3) for value in figures),
            percent(value_of(record, "padding_share")), fixed(record.wall_seconds, 0),
        ])  # fmt: skip
    return Table(columns, rows).measured()


def _notes(study: Compared) -> list[str]:
    """What has to be known to read the figures."""
    same = ("Both tasks have the same targets and tokens, and differ in their sources alone. " if study.is_controlled
            else "The tasks have targets of their own: relative rises divide by different NLLs, and teachers differ. "
            if len(study.tasks) > 1 else "")  # fmt: skip
    seeds = seeds_told(map(len, study.runs.values()))
    notes = [
        f"{same}NLL in nats per token of clean test targets; rises are over the clean run of the same seed, intervals "
        f"Student's t over {seeds}, ± the standard deviation. All runs of a task take the same steps, and seeds share "
        "one teacher, so that nothing here speaks of other teachers or other test pairs."
    ]
    if study.cured:
        notes.append("Gap closed: the share of what the plain loss loses that a loss wins back. The mixture is told e "
                     "where it is told q, and neither elsewhere. Losses see the same pairs, but where a model is "
                     "trained on some alone, which it sees more often; trained anew is two trainings, that of the "
                     "mixture and one of as many steps. e found: the mean of 1 - p(clean) in the mixture's audit of "
                     "all pairs, where e was not told.")  # fmt: skip
    doubts = sorted(run.name for found in study.runs.values() for run in found.values()
                    if (run.loss.get("audit") or {}).get("doubt"))  # fmt: skip
    if doubts:
        notes.append(f"The audits of {', '.join(doubts)} tell no pairs apart (their records say why), so that runs "
                     "that are trained anew on what they call right have all pairs.")  # fmt: skip
    never = sorted(run.name for found in study.runs.values() for run in found.values()
                   if run.loss.get("has_begun") == 0)  # fmt: skip
    if never:
        notes.append(f"The mixture of {', '.join(never)} never began: the model did not find rows likelier than "
                     "the other writer does. What was minimised is the plain NLL, and its audit says little: more "
                     "--steps.")  # fmt: skip
    return notes


def _told(found: Spread | None, digits: int, scale: float = 1) -> str:
    if found is None:
        return fixed(None)
    scaled = Spread(tuple(scale * value for value in found.values))
    if scaled.interval is None:
        return f"{scaled.mean:+.{digits}f}"
    low, high = scaled.interval
    return f"{scaled.mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
