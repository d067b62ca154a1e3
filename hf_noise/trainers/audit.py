"""Audit a corpus: write the posterior probability that each token is clean, as a trained model sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn
from tqdm.auto import tqdm

from hf_noise.atomic import replaced_whole
from hf_noise.losses import clean_posterior, mixture_posterior
from hf_noise.noise import Noise
from hf_noise.noise.arrays import as_array
from hf_noise.noise.checks import check_choice
from hf_noise.noise.rates import check_error_rate
from hf_noise.trainers.collate import text_config
from hf_noise.trainers.scoring import TokenScores, check_stored, score_batches

__all__ = ["audit_tokens", "posterior"]

_SCHEMA = pa.schema([
    ("sample_id", pa.int64()), ("position", pa.int64()), ("nll", pa.float32()), ("clean_posterior", pa.float32()),
])  # fmt: skip


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
    error_rate: float,
    trained: Literal["corrected", "nll"] = "corrected",
    noise: Noise | None = None,
    batch_size: int = 32,
) -> Path:
    """Write a Parquet file with one line per target: sample_id, position, nll, clean_posterior.

    Works in constant memory; the file appears complete or not at all. For your own corpus leave `noise` out; the
    lines with the lowest `clean_posterior` are the tokens to look at first.

    Args:
        model: causal language model, trained with the corrected loss or, stated by `trained`, the plain one.
        rows: map-style data set of rows, see `hf_noise.data.packing.PackedRows`.
        output: path of the Parquet file.
        error_rate: e in [0, 1), see `hf_noise.analysis.error_rate` for an estimate.
        noise: corrupt the targets first, to try the audit on noise that is known.

    Raises:
        ValueError: there are no rows, or e is out of range.
    """
    output = Path(output)
    check_stored(rows, batch_size, "audit")
    vocab_size = text_config(model).vocab_size if noise is None else noise.vocab_size
    batches = score_batches(model, rows, noise=noise, batch_size=batch_size, ranks=False)
    with replaced_whole(output) as unfinished, pq.ParquetWriter(unfinished, _SCHEMA, compression="zstd") as writer:
        for scores in tqdm(batches, total=-(-len(rows) // batch_size), desc="audit", unit="batch"):
            writer.write_table(_table(scores, error_rate, vocab_size, trained))
    return output


def _table(scores: TokenScores, error_rate: float, vocab_size: int, trained: str) -> pa.Table:
    clean = posterior(scores.nll, error_rate=error_rate, vocab_size=vocab_size, trained=trained)
    columns = [scores.sample_id, scores.position, scores.nll, clean.astype(np.float32)]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=_SCHEMA)
