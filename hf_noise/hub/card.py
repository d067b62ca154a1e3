"""RunRecord -> model card. Every figure in it is read from the record.

Render a published card again, beside its record:

    python -m hf_noise.hub.card hub_cards/<name>/record.json --owner user
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, RepoCard

from hf_noise.hub import render
from hf_noise.hub.audit_card import TASK, audit_card
from hf_noise.hub.data_card import data_card
from hf_noise.hub.filters import local_base
from hf_noise.hub.usage import adapter_metadata, is_place, load_model, noise_usage
from hf_noise.metrics.words import METRICS, name_of, split_of
from hf_noise.noise import Masking
from hf_noise.noise.block import as_noise, is_unknown, noise_block, noise_sentence
from hf_noise.objectives.base import objective_of_record
from hf_noise.reports.markdown import code, fenced, table, text
from hf_noise.reports.record import DataRecord, Record, RunRecord, read_records, write_atomic
from hf_noise.reports.secrets import portable

__all__ = ["data_card", "model_card", "render_card"]

# Task of a record -> library, Hub pipeline tag, class that loads the checkpoint.
_TASKS = {
    "causal_lm": ("transformers", "text-generation", "AutoModelForCausalLM"),
    "masked_lm": ("transformers", "fill-mask", "AutoModelForMaskedLM"),
    "seq2seq": ("transformers", "text2text-generation", "AutoModelForSeq2SeqLM"),
    "image_classification": ("transformers", "image-classification", "AutoModelForImageClassification"),
    "text_classification": ("transformers", "text-classification", "AutoModelForSequenceClassification"),
    "class_conditional_generation": ("diffusers", "unconditional-image-generation", "EDMPipeline"),
    "noisy_classification": ("hf_noise", "image-classification", "TimeDependentClassifier"),
}

# What the noise is called with, in the card's code.
_UNITS = dict.fromkeys(
    ("image_classification", "text_classification", "class_conditional_generation", "noisy_classification"), "labels"
)
_OF_IMAGES = ("image_classification", "class_conditional_generation", "noisy_classification")
_CAUSES = {
    "drawn": "It was put there on purpose and is known exactly",
    "images": "People made these mistakes; the clean labels are known beside them",
    "text": "People or rules gave the wrong labels; the true ones are known beside them",
}


def model_card(
    record: RunRecord,
    *,
    repo_id: str | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
    files: Collection[str] | None = None,
    adapter: Mapping[str, Any] | None = None,
) -> ModelCard:
    """The card of a trained checkpoint.

    Args:
        record: the run; the only source of figures.
        repo_id: where the checkpoint is loaded from in the card's code, by default the record's name. A name without
            an owner or folder is no such place, and no code is printed.
        license: Hub id of the licence of the weights, such as "apache-2.0".
        tags: further tags beside `hf_noise` and the protocol.
        files: names of the files that are published; a tokenizer that is not among them is not loaded in the code.
        adapter: configuration of an adapter of peft, whose weights these are.

    Returns:
        A card whose metadata holds `model-index` and `noise`, see `hf_noise.noise.block.noise_block`.

    Raises:
        ValueError: the record's task or noise is unknown to this version of hf_noise.
    """
    if record.task not in _TASKS:
        raise ValueError(f"no model card for the task {record.task!r}; known tasks: {', '.join(_TASKS)}")
    library, pipeline_tag, loader = _TASKS[record.task]
    block = noise_block(record.noise)
    config, is_known = block.pop("config"), not is_unknown(record.noise)
    source = render.hub_id(record.data.get("source"))
    modality = "images" if record.task in _OF_IMAGES else "text"
    place = repo_id or record.name
    if adapter is not None and not adapter.get("base_model_name_or_path"):
        usage = noise_usage(place)  # its base model has no name, and only its author can load it
    else:
        usage = load_model(record, place, loader, files, is_adapter=adapter is not None)
    data = ModelCardData(
        language=record.data.get("language"),
        license=license,
        **{"library_name": library} | adapter_metadata(adapter),
        pipeline_tag=pipeline_tag,
        tags=["hf_noise", "noisy-data", block["protocol"], *tags],
        datasets=[source] if source else None,
        model_name=record.name,
        eval_results=_eval_results(record, pipeline_tag) or None,
        noise=block | {"budget": record.budget, "loss": record.loss, "config": config},
    )
    return ModelCard.from_template(
        data,
        template_str=render.template("model_card.md"),
        name=text(record.name),
        intro=_intro(record),
        noise_sentence=text(noise_sentence(block | {"config": config})),
        is_noisy=is_known and bool(block.get("alpha", block.get("e", True))),
        is_drawn="seed" in block,
        cause=_CAUSES["drawn" if "seed" in block else modality],
        modality=modality,
        adapter=render.pairs(_adapter_rows(record, adapter)) if adapter else "",
        local_base=code(portable(base)) if adapter and (base := local_base(adapter)) else "",
        is_loaded_by_us=record.task == "text_classification",
        is_known=is_known,
        is_of_documents=is_known and as_noise(config).unit == "documents",
        is_of_sequences=is_known and as_noise(config).unit == "sequences",
        results=_results(record),
        noise_table=render.pairs(_noise_rows(record)),
        loss_sentence=_loss_sentence(record),
        masking_sentence=_masking_sentence(record),
        units=_UNITS.get(record.task, "tokens"),
        budget=render.pairs(record.budget),
        data=render.pairs(record.data),
        usage=fenced("python", usage) if is_place(place) else "",
        command=fenced("bash", record.command),
        provenance=render.pairs(_provenance(record)),
        versions=text(", ".join(f"{name} {version}" for name, version in record.versions.items())),
    )


def render_card(record: Record, repo_id: str | None = None) -> RepoCard:
    """Model card of a RunRecord, that of an audit, or data card of a DataRecord; the last two lie beside their data."""
    if isinstance(record, DataRecord):
        return data_card(record)
    return audit_card(record) if record.task == TASK else model_card(record, repo_id=repo_id)


def _metrics(record: RunRecord) -> list[tuple[str, dict[str, Any]]]:
    """Metrics in the card's order; perplexity is exp(NLL) and is added where only the NLL was recorded."""
    metrics = dict(record.metrics)
    nll = metrics.get("validation_nll")
    if nll and "validation_perplexity" not in metrics and nll["value"] < 700:  # exp overflows a double at 709
        bounds = {key: math.exp(nll[key]) for key in ("low", "high") if key in nll}
        metrics["validation_perplexity"] = {"value": math.exp(nll["value"]), "n": nll["n"], **bounds}
    known = [name for name in METRICS if name in metrics]
    return [(name, metrics[name]) for name in known + [name for name in metrics if name not in METRICS]]


def _name(record: RunRecord, key: str, metric: Mapping[str, Any]) -> str:
    """What a metric is called; where nobody knows which labels are wrong, those of test rows are as they were given."""
    name = name_of(key, metric)
    return name.replace("clean test labels", "test labels as given") if is_unknown(record.noise) else name


def _eval_results(record: RunRecord, pipeline_tag: str) -> list[EvalResult]:
    source = str(record.data.get("source", record.data.get("builder", "unknown")))
    others = {f"nll_{name}": str(corpus) for name, corpus in (record.data.get("measured_on") or {}).items()}
    return [
        EvalResult(
            task_type=pipeline_tag,
            dataset_type=render.hub_id(others.get(name, source)) or "other",
            dataset_name=others.get(name, source),
            dataset_split=split_of(name),
            metric_type=name,
            metric_name=_name(record, name, metric),
            metric_value=metric["value"],
            metric_args={key: value for key, value in metric.items() if key != "value"},
        )
        for name, metric in _metrics(record)
    ]


def _intro(record: RunRecord) -> str:
    model, data, budget = record.model, record.data, record.budget
    size = f" with {render.number(model['parameters'])} parameters" if "parameters" in model else ""
    seen = f" for {render.number(budget['tokens'])} tokens" if "tokens" in budget else ""
    steps = f" in {render.number(budget['steps'])} steps" if "steps" in budget else ""
    return f"{text(model.get('name', 'A model'))}{size}, trained on {code(data.get('source', 'unknown'))}{seen}{steps}."


def _results(record: RunRecord) -> str:
    rows = []
    for name, metric in _metrics(record):
        value = render.number(float(metric["value"]))
        told = _name(record, name, metric)
        rows.append((told, value, _interval(metric), str(metric.get("unit", "")), render.number(metric["n"])))
    columns = ("metric", "value", "interval", "unit", "n")
    kept = [
        i for i, column in enumerate(columns) if column in ("metric", "value", "n") or any(r[i] for r in rows)
    ]
    return table(
        [columns[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        numeric=[position for position, i in enumerate(kept) if columns[i] in ("value", "interval", "n")],
    )


def _interval(metric: Mapping[str, Any]) -> str:
    """Of a metric in words; one without a lower or without an upper end is open there."""
    low, high = (render.number(metric[end]) if end in metric else "" for end in ("low", "high"))
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if low else f"{high} or less" if high else ""


def _noise_rows(record: RunRecord) -> dict[str, Any]:
    rows = {key: value for key, value in record.noise.items() if key != "realised"}
    if isinstance(rows.get("teacher"), Mapping):  # of targets that a model wrote
        teacher = as_noise(record.noise).teacher
        rows |= {"teacher": teacher.name, "its sha256": teacher.sha256, "its steps": teacher.steps}
        rows |= {"its decoding": teacher.decoding.summary}
    realised = record.noise.get("realised") or {}
    return rows | {f"realised {key}": value for key, value in realised.items()}


def _loss_sentence(record: RunRecord) -> str:
    """What the objective says of itself; its name where this version of hf_noise does not know it."""
    loss, task = record.loss, record.task
    objective = objective_of_record(task, loss)
    if objective is None:
        return f"{code(loss.get('name'))}."
    facts = {key: value if isinstance(value, int | float | None) else text(value) for key, value in loss.items()}
    told = objective.told(facts, task, record.noise.get("error_rate"))
    return f"{told} It was trained on {facts['rows']}." if isinstance(facts.get("rows"), str) else told


def _adapter_rows(record: RunRecord, adapter: Mapping[str, Any]) -> dict[str, Any]:
    """How an adapter was trained, of its configuration and the record."""

    def names(key: str) -> str | None:
        value = adapter.get(key)
        return value if isinstance(value, str) or not value else ", ".join(sorted(map(str, value)))

    return {
        "kind": adapter.get("peft_type"), "rank": adapter.get("r"), "alpha": adapter.get("lora_alpha"),
        "dropout": adapter.get("lora_dropout"), "modules with an adapter": names("target_modules"),
        "modules trained whole, where there are any": names("modules_to_save"),
        "trained parameters": record.model.get("trained_parameters"),
    }  # fmt: skip


def _masking_sentence(record: RunRecord) -> str:
    """Which tokens a masked language model predicts; empty for all other models."""
    stated = record.loss.get("masking")
    if stated is None:
        return ""
    masking = Masking.from_dict(stated)
    beyond = ", which is none of the tokenizer's" if masking.mask_token == masking.vocab_size else ""
    return f"{text(masking.sentence)} The mask token has the id {masking.mask_token}{beyond}."


def _provenance(record: RunRecord) -> dict[str, Any]:
    units = {"cores": "{} cores", "memory_gib": "{} GiB memory"}
    values = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in record.hardware.items()
    }
    hardware = ", ".join(
        units.get(key, "{}").format(value) for key, value in values.items() if value is not None
    )
    rows = {"recipe": record.recipe, "seed": record.seed, "created": record.created, "commit": record.git}
    return rows | {"hardware": hardware, "wall time, s": round(record.wall_seconds), "status": record.status}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the README.md beside each record."""
    parser = argparse.ArgumentParser(description="Render the card of a record as the README.md beside it.")
    parser.add_argument("records", nargs="+", type=Path, help="record.json of a run or of a data set")
    parser.add_argument("--owner", help="whose the models are on the Hub: the code loads them from owner/<name>")
    args = parser.parse_args(argv)
    for path in args.records:
        (record,) = read_records(path)
        repo_id = f"{args.owner}/{record.name}" if args.owner else None
        print(write_atomic(path.parent / "README.md", str(render_card(record, repo_id))))


if __name__ == "__main__":
    main()
