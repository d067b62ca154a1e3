"""The card of a data set whose labels were audited: how many are wrong, and how that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from huggingface_hub import DatasetCard, DatasetCardData

from hf_noise.hub import render
from hf_noise.reports.markdown import Code, code, fenced, table, text
from hf_noise.reports.record import RunRecord

__all__ = ["TASK", "audit_card"]

#: Task of the record of an audit.
TASK = "label_audit"
_PERCENT = 100
#: Confusions that the card lists, and classes up to which its metadata hold T.
_SHOWN, _WHOLE = 10, 20


def audit_card(record: RunRecord) -> DatasetCard:
    """The card of the folder of an audit, all figures from its record.

    Its metadata holds `audit`: the rate with its interval, the rows, the classes, and T of up to 20 of them; and the
    configuration of `rows.parquet`, so that `load_dataset` reads the folder.

    Raises ValueError: the record is of another task, or says no rate.
    """
    if record.task != TASK or "error_rate" not in record.metrics:
        raise ValueError(f"the card of an audit needs the record of one (task {TASK!r}), got that of {record.task!r}")
    rate, audit = record.metrics["error_rate"], record.data["audit"]
    source = render.hub_id(record.data["source"])
    is_whole = len(audit["class_names"]) <= _WHOLE
    told = {"transition": np.round(audit["transition"], 4).tolist()} if is_whole else {}
    data = DatasetCardData(
        pretty_name=f"{record.data['source']}, audited", tags=["hf_noise", "label-audit", "noisy-data"],
        source_datasets=[source] if source else None, task_categories=[record.data["task"]],
        configs=[{"config_name": "default", "data_files": [{"split": record.data["split"], "path": "rows.parquet"}]}],
        audit={
            "column": record.data["column"], "rows": rate["n"], "verified_rows": rate["verified"],
            "error_rate": {name: round(rate[name], 6) for name in ("value", "low", "high", "confidence")},
            "class_names": audit["class_names"], **told,
        },
    )  # fmt: skip
    return DatasetCard.from_template(
        data,
        template_str=render.template("audit_card.md"),
        name=text(record.name),
        source=code(record.data["source"]), column=code(record.data["column"]),
        rate=_share(rate), confidence=f"{_PERCENT * rate['confidence']:g}", rows=f"{rate['n']:,}",
        verified=rate["verified"], judged=text(record.model["words"]), warnings=_warnings(audit),
        is_given=record.model["way"] == "probabilities", is_whole=is_whole,
        how="\n".join(f"- {text(part)}" for part in rate["how"].split("; ")
                      if part not in "; ".join(audit.get("warnings", ()))),
        listed=f"{record.metrics['listed']['rows']:,}",
        confusions=_confusions(audit), hidden=text(_hidden(record)), results=_results(record),
        measured_on=text(record.data.get("measured_on") or ""),
        usage=fenced("python", _usage(record)), command=fenced("bash", record.command),
        provenance=render.pairs({"created": record.created, "commit": record.git, "seed": record.seed}),
        versions=text(", ".join(f"{name} {version}" for name, version in record.versions.items())),
    )  # fmt: skip


def _share(found: dict[str, Any]) -> str:
    return f"{_PERCENT * found['value']:.1f}% [{_PERCENT * found['low']:.1f}, {_PERCENT * found['high']:.1f}]"


def _warnings(audit: dict[str, Any]) -> str:
    """What a reader of the rate has to know with it; empty for nothing."""
    return "\n\n".join(f"**Note:** {text(one)}." for one in audit.get("warnings", ()))


def _confusions(audit: dict[str, Any]) -> str:
    """The most frequent confusions, each with the interval of its cell of T; empty where there is none."""
    names, t = audit["class_names"], np.array(audit["transition"])
    wrong = t * np.array(audit["prior"])[:, None]
    np.fill_diagonal(wrong, 0)
    cells = [np.unravel_index(at, t.shape) for at in np.argsort(-wrong, axis=None)[:_SHOWN]]
    rows = [
        (Code(names[i]), Code(names[j]), *(f"{_PERCENT * audit[part][i][j]:.1f}" for part in
                                          ("transition", "transition_low", "transition_high")))
        for i, j in cells if wrong[i, j] * sum(audit["rows_of_class"]) >= 1
    ]  # fmt: skip
    return table(("true class", "labelled as", "% of the class", "low", "high"), rows, range(2, 5)) if rows else ""


def _hidden(record: RunRecord) -> str:
    """What is said of noise that was drawn on purpose; empty for labels as they came."""
    realised = record.noise.get("realised")
    if realised is None:
        return ""
    return (
        f"These labels are an example: noise of the kind {record.noise['kind']} was hidden in them on purpose, which "
        f"made {_PERCENT * realised['rate']:.1f}% of them wrong."
    )


def _results(record: RunRecord) -> str:
    """What was measured beside true labels, and of models that were trained; empty where nothing was."""
    rows = [(name.replace("_", " "), render.number(one["value"]), f"{one['n']:,}") for name, one in
            record.metrics.items() if name not in ("error_rate", "listed")]  # fmt: skip
    return table(("measured", "value", "n"), rows, (1, 2)) if rows else ""


def _usage(record: RunRecord) -> str:
    return (
        "from datasets import load_dataset\n\n"
        'rows = load_dataset("parquet", data_files="rows.parquet", split="train")   # where this file lies\n'
        'likely_right = rows.filter(lambda row: row["p_wrong"] < 0.5)\n'
        'to_look_at = rows.sort("p_wrong", reverse=True)'
    )
