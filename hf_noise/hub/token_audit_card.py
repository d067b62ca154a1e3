"""The card of text whose tokens were audited: how many are wrong, how that is known, and how to train on it."""

from __future__ import annotations

from huggingface_hub import DatasetCard, DatasetCardData

from hf_noise.hub import render
from hf_noise.reports.markdown import code, fenced, table, text
from hf_noise.reports.record import RunRecord

__all__ = ["TASK", "token_audit_card"]

#: Task of the record of an audit of tokens.
TASK = "token_audit"
_PERCENT = 100


def token_audit_card(record: RunRecord) -> DatasetCard:
    """The card of the folder of an audit of tokens, all figures from its record.

    Its metadata holds `audit`: the rate with its interval, and what replaced tokens; and configurations of
    `tokens.parquet` and `rows.parquet`, so that `load_dataset` reads the folder.

    Raises ValueError: the record is of another task, or says no rate.
    """
    if record.task != TASK or "error_rate" not in record.metrics:
        raise ValueError(f"the card needs the record of an audit of tokens ({TASK!r}), got that of {record.task!r}")
    rate, audit = record.metrics["error_rate"], record.data["audit"]
    source = render.hub_id(record.data["source"])
    data = DatasetCardData(
        pretty_name=f"{record.data['source']}, its tokens audited", tags=["hf_noise", "token-audit", "noisy-data"],
        source_datasets=[source] if source else None, task_categories=["text-generation"],
        configs=[{"config_name": name, "data_files": f"{name}.parquet"} for name in ("tokens", "rows")],
        audit={
            "kind": audit["kind"], _unit(record): rate["n"],
            "error_rate": {name: round(rate[name], 6) for name in ("value", "low", "high", "confidence")},
        },
    )  # fmt: skip
    share = f"{_PERCENT * rate['value']:.1f}% [{_PERCENT * rate['low']:.1f}, {_PERCENT * rate['high']:.1f}]"
    return DatasetCard.from_template(
        data,
        template_str=render.template("token_audit_card.md"),
        name=text(record.name), source=code(record.data["source"]), rate=share, kind=text(audit["kind"]),
        confidence=f"{_PERCENT * rate['confidence']:.0f}", units=f"{rate['n']:,} {_unit(record)}",
        rows=f"{record.data['rows']:,}", all_rows=f"{record.data['all_rows']:,}",
        model=code(record.model["name"]), particles=audit["particles"],
        how="\n".join(f"- {text(part)}" for part in rate["how"].split("; ")), hidden=text(_hidden(record)),
        results=_results(record), usage=fenced("python", _USAGE), command=fenced("bash", record.command),
        provenance=render.pairs({"created": record.created, "commit": record.git, "seed": record.seed}),
        versions=text(", ".join(f"{name} {version}" for name, version in record.versions.items())),
    )  # fmt: skip


def _unit(record: RunRecord) -> str:
    """What the rate counts: of noise documents whole rows."""
    return "rows" if record.settings["kind"] == "documents" else "tokens"


def _hidden(record: RunRecord) -> str:
    """What is said of noise that was drawn on purpose; empty for text as it came."""
    realised = record.noise.get("realised")
    if realised is None:
        return ""
    return f"This is an example: {_PERCENT * realised['rate']:.1f}% of these tokens were replaced on purpose."


def _results(record: RunRecord) -> str:
    """What was measured beside the truth; empty where it is not known."""
    rows = [(name.replace("_", " "), render.number(one["value"]), f"{one['n']:,}") for name, one in
            record.metrics.items() if name != "error_rate"]  # fmt: skip
    return table(("measured", "value", "n"), rows, (1, 2)) if rows else ""


_USAGE = """\
from datasets import Dataset
from hf_noise.trainers.token_weights import weighted_loss, with_weights

rows = Dataset.from_parquet("rows.parquet")                                       # where this file lies
train = with_weights(rows.select_columns(["sample_id", "input_ids"]), "tokens.parquet")
Trainer(model, args, train_dataset=train, compute_loss_func=weighted_loss, ...)   # or threshold=0.5 and any loss"""
