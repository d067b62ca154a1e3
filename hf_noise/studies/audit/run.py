"""The work of an audit: rows, what they are judged by, the audit, and all that is written of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hf_noise.atomic import write_atomic
from hf_noise.audit import LabelAudit, Plan, audit_labels, write_page
from hf_noise.audit.probe_rows import read_features
from hf_noise.audit.probe_runs import FOLDS
from hf_noise.audit.sample_file import sheets_in
from hf_noise.audit.sheet import is_filled
from hf_noise.hub.audit_card import TASK, audit_card
from hf_noise.noise.block import UNKNOWN_NOISE
from hf_noise.reports.record import RunRecord
from hf_noise.studies.audit.data import AuditData, read_data
from hf_noise.studies.audit.embedding import embed_images
from hf_noise.studies.audit.evidence import WORDS, Evidence, claim_of, gather, way_of
from hf_noise.studies.audit.judge import Judge, judge_of
from hf_noise.studies.audit.measures import metrics_of
from hf_noise.studies.audit.pictures import audit_figure
from hf_noise.studies.audit.report import audit_text, plan_text, training_text
from hf_noise.studies.audit.study import Settings
from hf_noise.studies.audit.training import doubts_without, train_all, ways_of, ways_without
from hf_noise.studies.audit.words import cut_note
from hf_noise.studies.engine import stopped_in, world_of
from hf_noise.studies.reading import is_elsewhere
from hf_noise.trainers.folders import claimed

__all__ = ["look", "work"]

RECIPE = "recipes/audit.py"
#: Folder of the sheet to fill in, within the output.
SHEET = "verify"
_NO_FEATURES = (
    "it needs features of the rows; give --features beside --probabilities, --model, or --network patches"
)
#: Of the labels that may be right, the share foretold out of fold below which a better model is advised.
_WEAK = 0.8


class Stages(tqdm):
    """A bar of what is being done, beside those of its parts."""

    def __init__(self, is_shown: bool):
        super().__init__(total=4, disable=not is_shown, leave=False, bar_format="{desc} ({n} of {total}, {elapsed})")

    def begin(self, what: str) -> None:
        """Show what begins now."""
        self.update()
        self.set_description_str(what)


def look(settings: Settings) -> Iterator[str]:
    """What a dry run shows: the rows, and what they will be judged by."""
    if is_elsewhere(settings.source):
        yield f"data: {settings.source} on the Hub, which a run downloads; a dry run looks at data of this machine"
        return
    data = read_data(settings)
    yield from data.describe()
    way = way_of(settings, data)
    folds = "" if way == "probabilities" else f", in {settings.folds} folds"
    yield f"judged by {WORDS[way]}{folds}"
    if way == "words" and (note := cut_note(data.texts())):
        yield note
    if settings.train:
        yield f"then trained and measured on {judge_of(settings, data).words}"


def work(settings: Settings) -> str:
    """Audit, write all of it, and train if asked to; what a terminal shows, nothing on other processes."""
    started, args = time.perf_counter(), world_of(settings)
    with args.main_process_first(desc="data"):
        data = read_data(settings)
    check_sheet(settings)
    claim, is_main = claim_of(settings, data), args.process_index == 0
    with claimed(settings.output, claim, is_main=is_main), stopped_in("the audit", settings), Stages(is_main) as bar:
        bar.begin("judging rows out of fold")
        evidence = gather(settings, data, args, claim)
        if evidence is None:
            return ""
        bar.begin("audit")
        audit = audited(settings, data, evidence)
        listed = audit.flagged(settings.fdr)
        bar.begin("plan")
        lacks = no_plan(data, evidence, settings.seed)
        can_plan = settings.plan and lacks is None
        plan = audit.plan(evidence.features, seed=settings.seed, progress=is_main) if can_plan else None
        bar.begin("training and writing" if settings.train else "writing")
        trained, judge = [], judge_of(settings, data) if settings.train else None
        if judge is not None:
            ways = ways_of(audit, listed, plan)
            if judge.held.any() and not judge.is_audited:
                doubts = doubts_without(audit, evidence.features, judge.held, settings.folds, settings.seed)
                ways = ways_without(audit, ways, doubts, plan, settings.fdr, settings.seed)
            trained = train_all(settings, data, evidence, ways, judge, args)
        if not is_main:
            return ""
        metrics = metrics_of(audit, listed, data.clean, trained, judge)
        record = record_of(settings, data, evidence, audit, plan, judge, metrics, time.perf_counter() - started)
        judged = evidence.words + (f" ({data.text or data.image})" if data.seen_by(evidence.way) else "")
        judged += f"; {agreement_text(settings, evidence, audit)}"
        cut = cut_note(data.texts()) if evidence.way == "words" else None
        judged += "" if cut is None else f"; {cut}"
        parts = [*data.notes, audit_text(audit, listed, judged, data.shown(), metrics)]
        if settings.plan:
            parts.append(f"no plan of ways to train: {lacks}" if plan is None else plan_text(plan))
        parts += [] if judge is None else [training_text(trained, judge)]
        return written(settings, data, audit, listed, plan, record, parts)


def no_plan(data: AuditData, evidence: Evidence, seed: int = 0) -> str | None:
    """Why rows are too few or too many copies, or nothing is known of them, for the probe runs of a plan, else None."""
    counts = np.bincount(data.rows.labels)
    rare = int(counts.argmin())
    if counts[rare] < FOLDS:
        return (f"its probe runs take {FOLDS} rows of each class, and {data.classes[rare]!r} is in {counts[rare]}; "
                "add rows, or leave that class out")  # fmt: skip
    if evidence.features is None:
        return _NO_FEATURES
    try:
        read_features(evidence.features, data.rows.labels, seed)
    except ValueError as error:
        problem = str(error).partition(";")[0]
        return f"its probe runs take {FOLDS} folds, and {problem}; drop copies, or leave such classes out"
    return None


def sheet_of(settings: Settings) -> Path:
    """Folder of the sheet to fill in."""
    return Path(settings.output) / SHEET if settings.sheet is None else Path(settings.sheet).expanduser()


def check_sheet(settings: Settings) -> None:
    """Raises FileExistsError: a sheet is to be drawn where one lies that a person has begun; nothing is written yet."""
    if settings.verify is None:
        return
    folder = sheet_of(settings)
    if filled := [file.name for file in sheets_in(folder) if is_filled(file)]:
        raise FileExistsError(
            f"--verify {settings.verify}: {folder} holds {filled[0]}, in which something is filled in. Read it with "
            f"--verified {folder}, or draw anew into another folder, --sheet. A sheet is not made longer: another "
            "number of rows is another draw, into which the labels of rows that are in both may be copied"
        )


def agreement_text(settings: Settings, evidence: Evidence, audit: LabelAudit) -> str:
    """How many of the given labels the classifier foretells, and what to do where they are few."""
    share, least = evidence.told["agreement"], evidence.told["most_frequent"]
    said = f"out of fold it foretells {share:.1%} of the given labels (the most frequent class is {least:.1%})"
    is_few = share < _WEAK * (1 - audit.error_rate.low)
    if is_few and settings.model is None and evidence.way not in ("features", "probabilities"):
        said += ", which is few: a network made for such rows tells more, and reads the rate better (--model)"
    return said


def audited(settings: Settings, data: AuditData, evidence: Evidence) -> LabelAudit:
    """The audit, by verified rows where there are any. Raises what `audit_labels` and `LabelAudit.verified` do."""
    return audit_labels(
        data.rows.table, column=data.column, probabilities=evidence.probabilities, verified=settings.verified,
        class_names=data.classes if data.is_words else None, seed=settings.seed,
    )  # fmt: skip


def record_of(
    settings: Settings, data: AuditData, evidence: Evidence, audit: LabelAudit, plan: Plan | None,
    judge: Judge | None, metrics: dict[str, dict], seconds: float,
) -> RunRecord:  # fmt: skip
    """All that is known of the audit but what is said of single rows."""
    task = "image-classification" if data.image else "text-classification" if data.text else "tabular-classification"
    counts = np.bincount(audit.labels, minlength=len(data.classes)).tolist()
    return RunRecord(
        name=Path(settings.output).name, task=TASK, recipe=RECIPE, seed=settings.seed, settings=asdict(settings),
        model=evidence.told, noise=data.noise or UNKNOWN_NOISE,
        data={
            "source": data.source, "split": data.split, "column": data.column, "rows": len(data.rows), "task": task,
            "classes": len(data.classes), "clean_column": settings.clean_column, "test_source": settings.test_source,
            "audit": audit.to_dict() | {"rows_of_class": counts}, "notes": data.notes,
            "measured_on": None if judge is None else judge.words,
            "plan": None if plan is None else plan.to_dict(), **data.identity,
        },
        budget={"folds": evidence.told["folds"]}, loss={"name": "nll"}, metrics=metrics, wall_seconds=seconds,
    )  # fmt: skip


def written(
    settings: Settings, data: AuditData, audit: LabelAudit, listed: np.ndarray, plan: Plan | None, record: RunRecord,
    parts: list[str],
) -> str:  # fmt: skip
    """Rows, figure, page, record and card in the output folder; returns the tables and where all of it is."""
    output = Path(settings.output)
    audit.save(output)
    if data.image is not None:
        embed_images(output / "rows.parquet")
    files = {
        "page": write_page(
            output / "audit.html", audit, title=f"Labels of {Path(data.source).name}", source=data.source,
            texts=data.shown(), images=images_of(data), plan=plan,
            clean=None if data.clean is None or (data.clean < 0).any() else data.clean,
        ),
        "figure": audit_figure(audit, listed, output / "audit.png", data.clean), "rows": output / "rows.parquet",
    }  # fmt: skip
    if settings.verify is not None:
        files["to fill in"] = audit.to_verify(
            settings.verify, sheet_of(settings), text_column=data.first_text, image_column=data.image
        )
    write_atomic(output / "audit.md", "\n\n".join(parts) + "\n")
    files["card"] = write_atomic(output / "README.md", str(audit_card(record)))
    files["record"] = record.write(output / "record.json")
    said = "\n".join(f"{name}: {place}" for name, place in files.items())
    if audit.verified_by is None and settings.verify is None and data.noise is None:
        said += "\nto know the rate without an assumption: --verify 200, fill in the sheet, then --verified"
    return "\n\n".join([*parts, said])


def images_of(data: AuditData) -> Any:
    """The column of images, each decoded when it is asked for; None without."""
    return None if data.image is None else data.rows.table[data.image]
