"""The work of an audit of tokens: rows, the model, the audit, what is measured of it, and all that is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn
from torch.nn.functional import cross_entropy

from hf_noise.atomic import replaced_whole, write_atomic
from hf_noise.hub.token_audit_card import TASK, token_audit_card
from hf_noise.losses.error_norm import error_norms
from hf_noise.reports.record import RunRecord
from hf_noise.studies.engine import stopped_in, world_of
from hf_noise.studies.study import deciding
from hf_noise.studies.token_audit.data import Hidden, drawn_rows, hide, kind_of, pieces
from hf_noise.studies.token_audit.models import model_of, tokenizer_of
from hf_noise.studies.token_audit.page import write_page
from hf_noise.studies.token_audit.pictures import token_audit_figure
from hf_noise.studies.token_audit.report import Found, audit_text
from hf_noise.studies.token_audit.study import Settings
from hf_noise.trainers.audit import audit_facts, audit_tokens
from hf_noise.trainers.collate import text_config
from hf_noise.trainers.folders import claimed

__all__ = ["look", "work"]

RECIPE = "recipes/audit_tokens.py"
_LOOK, _TEXT = 300, "audit.md"


def look(settings: Settings) -> Iterator[str]:
    """What a dry run shows: the rows, and the model."""
    tokenizer = tokenizer_of(settings)
    tokens, _, count = drawn_rows(settings, tokenizer)
    of = f"{settings.split} of {settings.source}"
    yield f"data: {len(tokens):,} of {count:,} rows of {settings.block_size} tokens, {of}"
    yield f"first row: {tokenizer.decode(tokens[0])[:_LOOK]!r}"
    if settings.model is None:
        yield f"model: a nano GPT-2, trained first for {settings.steps:,} steps on other, clean text"
    else:
        model = model_of(settings, tokenizer, torch.device("cpu"))
        yield f"model: {settings.model}, {sum(one.numel() for one in model.parameters()):,} weights"
    if settings.ratio:
        yield f"noise of the kind {settings.kind} is hidden first, r = {settings.ratio:g}"


def work(settings: Settings) -> str:
    """Audit and write all of it; returns what a terminal shows. A finished audit is shown anew."""
    started, output = time.perf_counter(), Path(settings.output)
    with claimed(output, deciding(settings)), stopped_in("the audit", settings):
        if (output / "record.json").exists():
            return (output / _TEXT).read_text(encoding="utf-8").rstrip()
        device, tokenizer = world_of(settings).device, tokenizer_of(settings)
        clean, ids, count = drawn_rows(settings, tokenizer)
        model = model_of(settings, tokenizer, device)
        vocab_size = text_config(model).vocab_size
        hidden = hide(settings, clean, ids, tokenizer, vocab_size)
        _keep_rows(output / "rows.parquet", hidden.tokens, ids, tokenizer)
        file = output / "tokens.parquet"
        if not file.exists():
            rows = [{"input_ids": row, "sample_id": int(one)} for row, one in zip(hidden.tokens, ids)]
            audit_tokens(model, rows, file, kind=kind_of(settings, tokenizer, vocab_size), particles=settings.particles,
                         batch_size=settings.batch_size, seed=settings.seed)  # fmt: skip
        found = found_in(file, hidden, ids, pieces(tokenizer, hidden.tokens))
        metrics = measured(found, None if hidden.clean is None else _norms(model, hidden.tokens, settings.batch_size))
        record = RunRecord(
            name=output.name, task=TASK, recipe=RECIPE, seed=settings.seed, settings=asdict(settings),
            model={"name": settings.model or "nano", "parameters": sum(one.numel() for one in model.parameters()),
                   "trained_here": settings.model is None, "gguf_file": settings.gguf_file},
            data={"source": settings.source, "split": settings.split, "rows": len(ids), "all_rows": count,
                  "block_size": settings.block_size, "vocab_size": vocab_size, "audit": found.facts},
            noise=hidden.told, budget={"steps": settings.steps if settings.model is None else 0, "processes": 1},
            loss={"name": "nll"}, metrics=metrics, wall_seconds=time.perf_counter() - started,
        )  # fmt: skip
        return written(output, found, record)


def _keep_rows(file: Path, tokens: np.ndarray, ids: np.ndarray, tokenizer: Any) -> None:
    """The rows that the weights are of, as `with_weights` takes them."""
    columns = {"sample_id": ids, "input_ids": list(tokens), "text": tokenizer.batch_decode(tokens)}
    with replaced_whole(file) as unfinished:
        Dataset.from_dict(columns).to_parquet(str(unfinished))


def found_in(file: Path, hidden: Hidden, ids: np.ndarray, texts: list[list[str]]) -> Found:
    """What the audit says of each token, as arrays [N, L] in the order of the rows; NaN of the first, which is none."""
    table = pq.read_table(file)
    row = np.searchsorted(ids, table["sample_id"].to_numpy())
    place = row, table["position"].to_numpy()
    grids = []
    for name in ("weight", "nll"):
        grid = np.full(hidden.tokens.shape, np.nan)
        grid[place] = table[name].to_numpy()
        grids.append(grid)
    wrong = None if hidden.clean is None else hidden.tokens != hidden.clean
    return Found(1 - grids[0], grids[1], texts, wrong, hidden.told.get("realised"), audit_facts(file))


def measured(found: Found, norms: np.ndarray | None) -> dict[str, dict[str, Any]]:
    """The rate; and beside known noise how well p(wrong), loss and error norm find what is wrong."""
    rate = found.facts["error_rate"]
    metrics = {"error_rate": {name: rate[name] for name in ("value", "low", "high", "n", "confidence", "how")}}
    if found.is_wrong is None or norms is None:
        return metrics
    wrong = found.is_wrong[:, 1:].ravel()
    covers = rate["low"] <= found.realised["rate"] <= rate["high"]
    metrics["true_error_rate"] = {"value": found.realised["rate"], "n": wrong.size, "is_covered": covers}
    if wrong.any() and not wrong.all():
        for name, score in (("p_wrong", found.p_wrong[:, 1:]), ("loss", found.nll[:, 1:]), ("error_norm", norms)):
            metrics[f"auroc_{name}"] = {"value": float(roc_auc_score(wrong, score.ravel())), "n": wrong.size}
            metrics[f"average_precision_{name}"] = {
                "value": float(average_precision_score(wrong, score.ravel())), "n": wrong.size
            }
    return metrics


@torch.no_grad()
def _norms(model: nn.Module, tokens: np.ndarray, batch_size: int) -> np.ndarray:
    """The error norm [N, L - 1] of each target, a score that needs no rate."""
    made, device = [], next(model.parameters()).device
    for part in torch.from_numpy(tokens).split(batch_size):
        part = part.to(device)
        logits, targets = model(part).logits[:, :-1].float(), part[:, 1:]
        nll = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        made.append(error_norms(nll, logits, targets).cpu().numpy())
    return np.concatenate(made)


def written(output: Path, found: Found, record: RunRecord) -> str:
    """Figure, page, card, text and record in the output folder; the record comes last."""
    files = {
        "page": write_page(output / "audit.html", found, record),
        "figure": token_audit_figure(found, output / "study.png"),
        "weights": output / "tokens.parquet", "rows": output / "rows.parquet",
        "card": write_atomic(output / "README.md", str(token_audit_card(record))),
    }  # fmt: skip
    said = "\n".join(f"{name}: {place}" for name, place in (files | {"record": output / "record.json"}).items())
    text = f"{audit_text(found, record.metrics)}\n\n{said}"
    write_atomic(output / _TEXT, text + "\n")
    record.write(output / "record.json")
    return text
