"""What paper A's table 5 says of the loss over macro-batches, each held against records of this study.

A claim about a size is held against an interval over the macro-batches of one model; other models are other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from hf_noise.analysis.stability import INDEPENDENT
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import markdown_table
from hf_noise.studies.documents.claims import Verdict

__all__ = ["claims_table", "labels_of", "pairs_of", "predicted_std", "verdicts"]

SOURCE = "table 5"
#: Of an exponent: an interval as wide holds too much to tell anything.
WIDEST = 0.3
#: Of the means of all sizes: a p below says that they differ.
SMALLEST_P = 0.01
#: Between the spread that arithmetic predicts of a noisy model and the measured one.
NEAR = 1.25


def verdicts(records: Sequence[RunRecord]) -> list[Verdict]:
    """Every claim that these measurements can be held against."""
    labels = labels_of(records)
    found = [one for record in records for one in _of_one(record, labels[record.name])]
    for clean, noisy in pairs_of(records):
        label = labels[noisy.name]
        found += [_smaller(clean, noisy, label), *_arithmetic(clean, noisy, label)]
    return found


def labels_of(records: Sequence[RunRecord]) -> dict[str, str]:
    """What each model is called: by its error rate, or by its name where several have the same."""
    rates = {record.name: f"e = {record.noise['error_rate']:.3g}" for record in records}
    is_told = len(set(rates.values())) == len(records)
    return rates if is_told else {name: name for name in rates}


def claims_table(records: Sequence[RunRecord]) -> str:
    """`verdicts` in Markdown."""
    rows = [[one.claim, one.source, one.statistic, one.word] for one in verdicts(records)]
    return markdown_table(["claim", "of", "measured", "verdict"], rows)


def pairs_of(records: Sequence[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    """A model without noise, and each with noise that was measured in the same way and has its seed."""

    def alike(record: RunRecord) -> tuple:
        std = record.metrics["macro_batch_std"]
        return record.seed, record.budget["order"], std["n"], tuple(std["sizes"]), record.data.get("source")

    clean = {alike(record): record for record in reversed(records) if not record.noise["error_rate"]}
    noisy = [record for record in records if record.noise["error_rate"]]
    return [(clean[alike(record)], record) for record in noisy if alike(record) in clean]


def predicted_std(clean: RunRecord, noisy: RunRecord) -> np.ndarray | None:
    """The spread [S] that a noisy model has by arithmetic, if only its clean targets vary as those of the clean model.

    sqrt(((1 - e) s)^2 + e (1 - e) D^2 / N): s of the clean model, D what a corrupted target costs beyond a clean one, N
    targets. None where D was not measured.
    """
    nll = [noisy.metrics.get(f"nll_{kind}_targets", {}).get("value") for kind in ("corrupted", "clean")]
    if None in nll:
        return None
    e, std = noisy.noise["error_rate"], clean.metrics["macro_batch_std"]
    targets = np.array(std["sizes"]) * (noisy.data["block_size"] - 1)
    of_mask = e * (1 - e) * (nll[0] - nll[1]) ** 2 / targets
    return np.sqrt(((1 - e) * np.array(std["values"])) ** 2 + of_mask)


def _of_one(record: RunRecord, label: str) -> Iterator[Verdict]:
    mean, std, exponent = (record.metrics[name] for name in ("macro_batch_mean", "macro_batch_std", "loss_exponent"))
    sizes, spread = std["sizes"], std["values"]
    falls = all(b < a for a, b in zip(spread, spread[1:]))
    yield _verdict(f"{label}: the spread falls at every step from {sizes[0]} to {sizes[-1]} rows",
                   f"{1000 * spread[0]:.3g} to {1000 * spread[-1]:.3g} nats / 1000", falls)  # fmt: skip
    low, high, drop = exponent["low"], exponent["high"], 1 - spread[-1] / spread[0]
    held = None if high - low > WIDEST else low <= INDEPENDENT <= high
    yield _verdict(f"{label}: as of independent rows, exponent -1/2 and "
                   f"{100 * (1 - (sizes[0] / sizes[-1]) ** 0.5):.0f}% less",
                   f"{exponent['value']:.3f} [{low:.3f}, {high:.3f}], {100 * drop:.0f}% less", held)  # fmt: skip
    values, p = mean["values"], mean["same_mean_p"]
    yield _verdict(f"{label}: the mean does not depend on the size",
                   f"{min(values):.4f} to {max(values):.4f} nats, p = {p:.2g}", p >= SMALLEST_P)  # fmt: skip


def _smaller(clean: RunRecord, noisy: RunRecord, label: str) -> Verdict:
    """At every size the noisier model's loss is higher and its spread smaller."""
    higher = all(a > b for a, b in zip(_values(noisy, "macro_batch_mean"), _values(clean, "macro_batch_mean")))
    ratio, low, high = _ratio(_values(noisy, "macro_batch_std"), _values(clean, "macro_batch_std"), noisy)
    held = (higher and high < 1) if high < 1 or low > 1 or not higher else None
    loss = f"loss {'' if higher else 'not '}higher"
    told = f"spread {ratio:.2f} [{low:.2f}, {high:.2f}] times, {loss}"
    return _verdict(f"{label}: a higher loss than without noise that scatters less", told, held)


def _arithmetic(clean: RunRecord, noisy: RunRecord, label: str) -> Iterator[Verdict]:
    """That the spread is smaller is what random targets make of it, and no steadier model."""
    expected = predicted_std(clean, noisy)
    if expected is None:
        return
    ratio, low, high = _ratio(_values(noisy, "macro_batch_std"), expected, noisy)
    held = None if low < NEAR < high or low < 1 / NEAR < high else 1 / NEAR <= ratio <= NEAR
    yield _verdict(f"{label}: by no more than random targets make of the clean spread",
                   f"{ratio:.2f} [{low:.2f}, {high:.2f}] times what arithmetic says", held, "ours")  # fmt: skip


def _values(record: RunRecord, metric: str) -> np.ndarray:
    return np.array(record.metrics[metric]["values"])


def _ratio(ours: Any, theirs: Any, record: RunRecord) -> tuple[float, float, float]:
    """Geometric mean over sizes of a ratio of standard deviations, with a 95 % interval of normal losses."""
    logs, n = np.log(ours) - np.log(theirs), record.metrics["macro_batch_std"]["n"]
    half = float(ndtri(0.975)) * math.sqrt(1 / (n - 1) / len(logs))  # 1 / (2 (n - 1)) of each of two
    return tuple(float(np.exp(logs.mean() + step)) for step in (0.0, -half, half))


def _verdict(claim: str, statistic: str, held: bool | None, source: str = SOURCE) -> Verdict:
    return Verdict(claim, source, statistic, held, seeds=1, of="model")
