"""Audit a corpus: how many of its tokens are wrong, and how likely each is clean, as a trained model sees it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.special import expit
from scipy.stats import beta
from torch import nn
from tqdm.auto import tqdm

from hf_noise.analysis.document_share import document_share
from hf_noise.analysis.token_rate import TokenRate, rate_from_mixture, token_error_rate
from hf_noise.atomic import replaced_whole
from hf_noise.losses import clean_posterior, mixture_posterior
from hf_noise.noise import Noise
from hf_noise.noise.arrays import as_array
from hf_noise.noise.checks import check_choice, check_count, check_seed
from hf_noise.noise.mixture import DocumentNoise
from hf_noise.noise.rates import check_error_rate
from hf_noise.trainers.collate import TokenBatches, collate_rows, known_tokens, text_config
from hf_noise.trainers.scoring import check_stored, rows_from, score_batches
from hf_noise.trainers.token_filter import check_inputs_are_targets, clean_posterior_of_rows
from hf_noise.trainers.token_laws import TokenLaw, token_law
from hf_noise.trainers.token_looks import TokenLooks, look_at_tokens, looks

__all__ = ["audit_facts", "audit_tokens", "posterior", "token_rate"]

_FIELDS = [
    ("sample_id", pa.int64()), ("position", pa.int64()), ("nll", pa.float32()), ("clean_posterior", pa.float32()),
    ("weight", pa.float32()),
]  # fmt: skip
_TOLD = "hf_noise"
_MOST_TARGETS = 1 << 18  # that an estimate of e is made of


def posterior(
    nll: np.ndarray, *, error_rate: float, vocab_size: int, trained: Literal["corrected", "nll"] = "corrected"
) -> np.ndarray:
    """Posterior [n] that each target is clean, from its NLL [n] under the model.

    Args:
        nll: -log of the probability that the model gives the target, in nats.
        error_rate: e in [0, 1), the weight of uniform noise in the targets.
        vocab_size: V.
        trained: "corrected" if the model predicts clean text, "nll" if it learned the noise along (plain loss).

    Returns:
        Values in [0, 1], of the precision of `nll`.

    Raises:
        TypeError: nll holds no floating-point numbers, or e or V is of another type.
        ValueError: nll is masked or ragged, e or V is out of range, or `trained` is another word.
    """
    functions = {"corrected": clean_posterior, "nll": mixture_posterior}
    function = functions[check_choice("trained", trained, functions)]
    error_rate = check_error_rate(error_rate)
    nll = as_array("nll", nll)
    if nll.dtype.kind != "f" or nll.itemsize > 8:
        raise TypeError(f"nll must be floating-point, of up to 64 bits, got {nll.dtype}")
    nll = np.ascontiguousarray(nll, dtype=nll.dtype.newbyteorder("=")).reshape(nll.shape)
    return function(torch.from_numpy(nll), error_rate=error_rate, vocab_size=vocab_size).numpy()


def audit_tokens(
    model: nn.Module,
    rows: Any,
    output: str | Path,
    *,
    error_rate: float | None = None,
    kind: Any = "uniform",
    trained: Literal["corrected", "nll"] = "corrected",
    noise: Noise | None = None,
    batch_size: int = 32,
    particles: int = 0,
    seed: int = 0,
) -> Path:
    """Write a Parquet file with one line per target: sample_id, position, nll, clean_posterior, weight.

    Works in constant memory; the file appears complete or not at all. For your own corpus leave `noise` out; the
    lines with the lowest `weight` are the tokens to look at first. `clean_posterior` is p(clean) given the tokens
    before; `weight` is p(clean) given those after too where there are `particles`, else the same. It is what
    `hf_noise.trainers.token_weights.with_weights` gives to a stock Trainer. `audit_facts` reads e with its interval.

    Args:
        model: causal language model: a stock one or one trained with the corrected loss, which predict clean text, or,
            stated by `trained`, one that learned the noise along (plain loss on noisy text).
        rows: map-style data set of rows, see `hf_noise.data.packing.PackedRows`.
        output: path of the Parquet file.
        error_rate: e in [0, 1); None estimates it, with an interval, by one more pass over the rows (`token_rate`).
        kind: what replacements are drawn from, see `hf_noise.trainers.token_laws.token_law`. Of a noise of documents,
            whole rows are clean or not, and all targets of one have the same posterior.
        noise: corrupt the targets first, to try the audit on noise that is known.
        batch_size: rows per forward pass.
        particles: M in [2, 2^12], ways to read a row that are held at a time, 16 for example; 0 looks at the tokens
            before alone. It takes about M times as long.
        seed: of the particles.

    Raises:
        ValueError: there are no rows, e is out of range, or `kind` is not supported with the rest: particles need
            rows whose inputs are what was corrupted, a model that predicts clean text and e > 0; look-alikes and
            documents need such a model too.
    """
    output = Path(output)
    check_stored(rows, batch_size, "audit")
    check_choice("trained", trained, ("corrected", "nll"))
    law = _law(model, rows, kind, noise)
    _check_together(law, kind, trained, noise, particles, check_seed(seed))
    if error_rate is not None:
        check_error_rate(error_rate)
        rate, told = float(error_rate), {"value": float(error_rate), "how": "stated"}
    else:
        found = token_rate(model, rows, kind=law if not isinstance(kind, DocumentNoise) else kind, trained=trained,
                           noise=noise, batch_size=batch_size)  # fmt: skip
        rate, told = min(found.value, 1 - 1e-6), found.to_dict()
    facts = {"error_rate": told, "kind": law.name, "trained": trained, "particles": particles}
    schema = pa.schema(_FIELDS, metadata={_TOLD: json.dumps(facts)})
    tables = _tables(model, rows, law, rate, kind, trained, noise, batch_size, particles, seed)
    with replaced_whole(output) as unfinished, pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
        for columns in tqdm(tables, total=-(-len(rows) // batch_size), desc="audit", unit="batch"):
            writer.write_table(pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema))
    return output


def token_rate(
    model: nn.Module,
    rows: Any,
    *,
    kind: Any = "uniform",
    trained: Literal["corrected", "nll"] = "corrected",
    noise: Noise | None = None,
    batch_size: int = 32,
    confidence: float = 0.95,
) -> TokenRate:
    """e with its interval, from one pass over the rows, of many of them over a part; arguments as `audit_tokens`.

    What stands behind it: `hf_noise.analysis.token_rate` where replacements know nothing of what was there, its fit
    alone for look-alikes, and `hf_noise.analysis.document_share` for documents, no narrower than the interval of a
    proportion of so many rows (Clopper and Pearson).

    Raises:
        ValueError: as `audit_tokens`, or there are fewer than 50 targets.
    """
    check_stored(rows, batch_size, "audit")
    law = kind if isinstance(kind, TokenLaw) else _law(model, rows, kind, noise)
    _check_together(law, kind, check_choice("trained", trained, ("corrected", "nll")), noise, 0, 0)
    length = max(1, len(rows[0]["input_ids"]))
    seen = look_at_tokens(model, rows, law, noise=noise, batch_size=batch_size, most=-(-_MOST_TARGETS // length))
    row = np.unique(seen.sample_id, return_inverse=True)[1]
    if isinstance(kind, DocumentNoise):
        return _rate_of_documents(_row_odds(seen, row), confidence)
    if law.is_fixed:
        clean = seen.log_clean if trained == "corrected" else None
        return token_error_rate(seen.tail, seen.entropy, row, clean, seen.log_noise, confidence=confidence,
                                resembles=law.name != "uniform")  # fmt: skip
    return rate_from_mixture(seen.log_clean, seen.log_noise, row, seen.entropy, confidence=confidence)


def audit_facts(audit: str | Path) -> dict[str, Any]:
    """What a file of `audit_tokens` rests on: error_rate with its interval and how, kind, trained, particles.

    Raises:
        ValueError: the file does not say so, another wrote it.
    """
    told = (pq.read_schema(audit).metadata or {}).get(_TOLD.encode())
    if told is None or "kind" not in (facts := json.loads(told)):
        raise ValueError(f"{audit} does not say what its audit rests on; audit_tokens() writes it anew")
    return facts


def _law(model: nn.Module, rows: Any, kind: Any, noise: Noise | None) -> TokenLaw:
    vocab_size = text_config(model).vocab_size
    if noise is not None and isinstance(kind, str) and kind == "uniform":
        return token_law("uniform", noise.vocab_size)
    counts = None
    if isinstance(kind, str) and kind == "unigram":
        counts = np.zeros(vocab_size)
        for start in range(0, len(rows), 256):
            batch = TokenBatches(collate_rows, known_tokens(model))(rows_from(rows, start, 256))["labels"]
            counts += np.bincount(batch[batch >= 0].numpy(), minlength=vocab_size)
    return token_law(kind, vocab_size, counts)


def _check_together(law: TokenLaw, kind: Any, trained: str, noise: Any, particles: int, seed: int) -> None:
    is_documents = isinstance(kind, DocumentNoise)
    if trained == "nll" and (not law.is_fixed or is_documents):
        what = "documents" if is_documents else "confusions"
        raise ValueError(f'kind of {what} needs a model that predicts clean text, and trained="nll" states one that '
                         "learned the noise along")  # fmt: skip
    if not isinstance(particles, bool) and particles == 0:
        return
    check_count("particles", particles, 2, 12, "0 looks at the tokens before alone")
    if trained == "nll":
        raise ValueError('particles need a model that predicts clean text, and trained="nll" states another')
    if noise is not None or is_documents:
        raise ValueError("particles read tokens that were replaced one by one in the rows themselves; use particles=0 "
                         "with noise= and for documents")  # fmt: skip


def _tables(model, rows, law, rate, kind, trained, noise, batch_size, particles, seed) -> Iterator[list[np.ndarray]]:
    """The columns of each batch."""
    if law.name == "uniform" and not particles:
        for scores in score_batches(model, rows, noise=noise, batch_size=batch_size, ranks=False):
            clean = posterior(scores.nll, error_rate=rate, vocab_size=law.vocab_size, trained=trained)
            yield [scores.sample_id, scores.position, scores.nll, *[clean.astype(np.float32)] * 2]
        return
    for start in range(0, len(rows), batch_size):
        part = rows_from(rows, start, batch_size)
        seen = next(looks(model, [(part, start)], law, noise=noise))
        clean = _posterior(seen, rate, kind, trained)
        weight = _both_sides(model, part, seen, law, rate, particles, seed + start) if particles and rate else clean
        yield [seen.sample_id, seen.position, seen.nll, clean.astype(np.float32), weight.astype(np.float32)]


def _posterior(seen: TokenLooks, rate: float, kind: Any, trained: str) -> np.ndarray:
    if rate == 0:
        return np.ones(len(seen.nll))
    log_clean, log_wrong = math.log1p(-rate), math.log(rate)
    if isinstance(kind, DocumentNoise):
        row = np.unique(seen.sample_id, return_inverse=True)[1]
        return expit(_row_odds(seen, row) + log_clean - log_wrong)[row]
    if trained == "nll":
        return np.clip(-np.expm1(np.minimum(log_wrong + seen.log_noise + seen.nll, 0)), 0, 1)
    right = np.log1p(rate * (seen.stays.astype(np.float64) - 1))  # not replaced, or by itself
    return expit(right - seen.nll - log_wrong - seen.log_wrong)


def _rate_of_documents(odds: np.ndarray, confidence: float) -> TokenRate:
    """The share of rows that are noise; of few rows the likelihood's interval alone holds the truth too seldom."""
    found, level = document_share(odds, confidence=confidence), (1 - confidence) / 2
    noise, text = found.value * found.n, (1 - found.value) * found.n
    low = beta.ppf(level, noise, text + 1) if noise > 0 else 0.0
    high = beta.ppf(1 - level, noise + 1, text) if text > 0 else 1.0
    how = "whole rows are text, as the model predicts it, or noise of the stated law"
    parts = {"likelihood": (found.low, found.high), "proportion of so many rows": (float(low), float(high))}
    ends = float(min(found.low, low)), float(max(found.high, high))
    return TokenRate(found.value, *ends, how, found.n, confidence, parts)


def _row_odds(seen: TokenLooks, row: np.ndarray) -> np.ndarray:
    """Log-odds of each row of text against noise, which lie within what a float holds."""
    return np.bincount(row, np.clip(-seen.nll.astype(np.float64) - seen.log_noise, -1e6, 1e6))


def _both_sides(model, part, seen: TokenLooks, law, rate, particles, seed) -> np.ndarray:
    batch = TokenBatches(collate_rows, known_tokens(model))(part)
    check_inputs_are_targets(batch)
    inputs = batch["input_ids"].to(next(model.parameters()).device)
    found = clean_posterior_of_rows(model, inputs, law, error_rate=rate, particles=particles, seed=seed % (1 << 62))
    is_target = (batch["labels"][:, 1:] >= 0).numpy()
    return found[:, 1:].cpu().numpy()[is_target]
