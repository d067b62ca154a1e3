"""What paper A's table 5 says of the loss over macro-batches, each held against records of this study.

A claim about a size is held against an interval over the macro-batches of one model; other models are other seeds. Of
several comparisons see `hf_noise.reports.verdicts`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import ndtri

from hf_noise.analysis.stability import INDEPENDENT
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import markdown_table
from hf_noise.reports.verdicts import Lies, Verdict, are_alike, interval_lies, joined

__all__ = ["claims_table", "labels_of", "pairs_of", "predicted_std", "verdicts"]

SOURCE = "table 5"
#: Of an exponent: an interval as wide holds too much to tell anything.
WIDEST = 0.3
#: Of the means of all sizes: a p below says that they differ.
SMALLEST_P = 0.01
#: Share of the loss by which the means of two sizes may differ and still be one.
ALIKE = 0.01
_Z = float(ndtri(0.975))
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

    def alike(record: RunRecord) -> str:
        std, settings = record.metrics["macro_batch_std"], record.settings
        same = [record.seed, record.budget["order"], std["n"], std["sizes"], record.data,
                record.model.get("parameters"), settings.get("bf16"), settings.get("stated")]  # fmt: skip
        return json.dumps(same, sort_keys=True)

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
    falls = joined([_is_smaller(b, a, std["n"]) for a, b in pairwise(spread)]).held
    yield _verdict(f"{label}: the spread falls at every step from {sizes[0]} to {sizes[-1]} rows",
                   f"{1000 * spread[0]:.3g} to {1000 * spread[-1]:.3g} nats / 1000", falls)  # fmt: skip
    low, high, drop = exponent["low"], exponent["high"], 1 - spread[-1] / spread[0]
    held = None if high - low > WIDEST else low <= INDEPENDENT <= high
    yield _verdict(f"{label}: as of independent rows, exponent -1/2 and "
                   f"{100 * (1 - (sizes[0] / sizes[-1]) ** 0.5):.0f}% less",
                   f"{exponent['value']:.3f} [{low:.3f}, {high:.3f}], {100 * drop:.0f}% less", held)  # fmt: skip
    values, p = mean["values"], mean["same_mean_p"]
    yield _verdict(f"{label}: the mean does not depend on the size",
                   f"{min(values):.4f} to {max(values):.4f} nats, p = {p:.2g}",
                   False if p < SMALLEST_P else _are_alike(values, spread, mean["n"]))  # fmt: skip


def _are_alike(means: Sequence[float], spread: Sequence[float], n: int) -> bool | None:
    """Whether each two means are within `ALIKE` of the loss; None: too few."""
    margin = ALIKE * abs(float(np.mean(means)))
    return are_alike([(one, _Z * s / math.sqrt(n)) for one, s in zip(means, spread)], margin)


def _smaller(clean: RunRecord, noisy: RunRecord, label: str) -> Verdict:
    """At every size the noisier model's loss is higher and its spread smaller."""
    n, (s, t) = noisy.metrics["macro_batch_std"]["n"], (_values(one, "macro_batch_std") for one in (noisy, clean))
    more = _values(noisy, "macro_batch_mean") - _values(clean, "macro_batch_mean")
    half = _Z * np.hypot(s, t) / math.sqrt(n)
    higher = [interval_lies(one, one - h, one + h, 0, math.inf, seeds=1) for one, h in zip(more, half)]
    smaller = [_is_smaller(a, b, n) for a, b in zip(s, t)]
    ratio, low, high = _ratio(s, t, noisy)
    held = joined([*higher, *smaller]).held
    loss = f"loss {'' if (more > 0).all() else 'not '}higher"
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
    low, high = _of_ratio(logs.mean(), n, len(logs))
    return float(np.exp(logs.mean())), low, high


def _is_smaller(one: float, other: float, n: int) -> Lies:
    """Whether a standard deviation of n normal losses is smaller than another."""
    ends = map(math.log, _of_ratio(log := math.log(one / other), n))
    return interval_lies(log, *ends, -math.inf, 0, seeds=1)


def _of_ratio(log: float, n: int, sizes: int = 1) -> tuple[float, float]:
    """95 % interval of a ratio of standard deviations of n normal losses each, from its logarithm over sizes."""
    half = _Z * math.sqrt(1 / (n - 1) / sizes)  # 1 / (2 (n - 1)) of each of two
    return math.exp(log - half), math.exp(log + half)


def _verdict(claim: str, statistic: str, held: bool | None, source: str = SOURCE) -> Verdict:
    return Verdict(claim, source, statistic, held, seeds=1, of="model")
