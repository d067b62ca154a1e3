"""Bad calls to what is asked of macro-batches: their losses, the exponent of their spread, the losses of rows."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, ints, number, reals, same, whole
from bad_values import pick

from hf_noise.analysis.stability import MacroBatchLosses, macro_batch_losses
from hf_noise.trainers.row_losses import RowLosses

N = 40


def make_macro(draw: np.random.Generator) -> dict[str, Any]:
    losses = draw.normal(3, 0.5, N)
    return {
        "row_losses": pick(draw, losses, losses.tolist(), torch.from_numpy(losses)), "sizes": [2, 5],
        "num_rows": pick(draw, None, N), "num_batches": 12, "order": pick(draw, "stored", "shuffled"), "seed": 3,
        "epoch": 0, "batch_size": 7,
    }  # fmt: skip


def check_macro(given: dict[str, Any], found: Any) -> None:
    """Macro-batches of the stream, cut by hand."""
    losses, sizes = reals(given["row_losses"], 1), np.atleast_1d(ints(given["sizes"]))
    confirm(len(losses) >= 2 and np.isfinite(losses).all() and (np.abs(losses) <= 1e100).all(), "losses")
    confirm(given["num_rows"] is None or whole(given["num_rows"], 2) == len(losses), "another number of rows")
    confirm(sizes.ndim == 1 and (np.diff(sizes) > 0).all() and sizes.min() >= 1 and sizes.max() <= len(losses), "sizes")
    k, seed = whole(given["num_batches"], 10, 2**16), whole(given["seed"], 0, 2**63 - 1)
    whole(given["epoch"], 0, 2**63 - 1), whole(given["batch_size"], 1, 2**31)
    confirm(isinstance(given["order"], str) and given["order"] in ("stored", "shuffled"), "order")
    total = int(k * sizes.sum())
    passes = -(-total // len(losses))
    orders = [np.arange(len(losses)) if given["order"] == "stored" else
              np.random.default_rng([seed, i]).permutation(len(losses)) for i in range(passes)]  # fmt: skip
    stream = losses[np.concatenate(orders)[:total]]
    parts = np.split(stream, np.cumsum(np.repeat(sizes, k))[:-1])
    close(found.losses, np.array([part.mean() for part in parts]).reshape(len(sizes), k), 1e-9)
    same(found.sizes, sizes.astype(np.int64))
    close(found.row_std, stream.std(ddof=1), 1e-6)
    same((found.rows_read, found.passes, found.order), (total, passes, str(given["order"])))


LOSSES = np.random.default_rng(0).normal(size=(3, 20)) * [[1.0], [0.7], [0.5]]
FOUND = MacroBatchLosses(np.array([8, 16, 32]), 3 + LOSSES, 1.0, 1120, 1, "stored")


def exponent(confidence: Any, resamples: Any, seed: Any) -> Any:
    return FOUND.exponent(confidence=confidence, resamples=resamples, seed=seed)


def check_exponent(given: dict[str, Any], found: Any) -> None:
    confidence = number(given["confidence"])
    confirm(0 < confidence < 1, "confidence")
    n, draw = whole(given["resamples"], 100, 2**16), np.random.default_rng(whole(given["seed"], 0, 2**63 - 1))
    x, (_, k) = np.log(FOUND.sizes), FOUND.losses.shape
    close(found.value, np.polyfit(x, np.log(FOUND.std), 1)[0], 1e-9)
    drawn = [losses[draw.integers(k, size=(n, k))].std(axis=1, ddof=1) for losses in FOUND.losses]
    slopes, tail = np.sort(np.polyfit(x, np.log(drawn), 1)[0]), (1 - confidence) / 2 * (n - 1)
    close(found.low, slopes[math.floor(tail + 1e-9)], 1e-9)
    close(found.high, slopes[math.ceil(n - 1 - tail - 1e-9)], 1e-9)
    close(found.confidence, confidence, 0)


@functools.lru_cache(1)
def losses_of_rows() -> RowLosses:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=6, n_embd=8, n_layer=1, n_head=1))
    rows = [{"input_ids": np.arange(i, i + 6) % 9, "sample_id": i} for i in range(N)]
    return RowLosses(model, rows)


def check_rows(given: dict[str, Any], found: Any) -> None:
    rows = ints(given["rows"])
    confirm(rows.ndim == 1 and rows.size > 0 and rows.min() >= 0 and rows.max() < N, "rows")
    whole(given["epoch"], 0, 2**63 - 1)
    alone = [losses_of_rows()(np.array([row]))[0][0] for row in rows.tolist()]
    close(found[0], np.array(alone), 1e-4)
    same(found[1], np.full(len(rows), 5.0))


TARGETS = [
    Target("analysis.macro_batch_losses", macro_batch_losses, make_macro, check_macro,
           {"row_losses": ("losses", "rows"), "sizes": ("macro-batch",), "num_rows": ("rows",)}),
    Target("analysis.MacroBatchLosses.exponent", exponent,
           lambda draw: {"confidence": 0.95, "resamples": 100, "seed": 0}, check_exponent, weight=0.5),
    Target("trainers.RowLosses.__call__", lambda rows, epoch: losses_of_rows()(rows, epoch),
           lambda draw: {"rows": pick(draw, [0, 3, 3], np.array([39])), "epoch": 2}, check_rows, weight=0.5),
]  # fmt: skip
