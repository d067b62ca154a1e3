"""The noise that the description of rows states, and their ids."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_noise.noise import Noise, noise_from_dict
from hf_noise.noise.describe import noise_records
from hf_noise.trainers.stored import described

__all__ = ["Stated", "check_ids", "in_short", "one_rate", "stated_noise"]

# Of ids that repeat, so many pairs of rows are compared.
_PAIRS_LOOKED_AT = 256


@dataclass(frozen=True)
class Stated:
    """What the description of a data set says: its noise, and the epoch that was drawn."""

    noise: Noise
    epoch: int
    is_clean_split: bool


def stated_noise(rows: Any) -> Stated | None:
    """The noise that the description of a data set states, which may stand behind wrappers such as PackedRows.

    Raises:
        ValueError: it states several noises, as data sets that were put together do, or one that is unknown here.
    """
    told = [(data, noise_records(data.info.description or "") if data is not None else []) for data in described(rows)]
    records = [record for _, of_data in told for record in of_data]
    if not records:
        return None
    noises = [noise_from_dict({k: v for k, v in record["noise"].items() if k != "realised"}) for record in records]
    others = [in_short(noise) for noise in noises if noise.to_dict() != noises[-1].to_dict()]
    others += ["none" for _, of_data in told if not of_data]
    if others:
        raise ValueError(
            f"the rows state several noises, {others[0]} and {in_short(noises[-1])}: data sets were put "
            'together; train on one of them, or clear the description (rows.info.description = "") and give noise= '
            "what the rows hold"
        )
    return Stated(noises[-1], records[-1].get("epoch", 0), all(_is_clean(*one) for one in told))


def _is_clean(data: Any, records: list[Mapping[str, Any]]) -> bool:
    """Whether these rows are of a split, or of a part of one such as "test[:50%]", that got no noise."""
    splits = [re.sub(r"\[.*\]$", "", part) for part in str(getattr(data, "split", None)).split("+")]
    of_splits = [(records[-1].get("realised") or {}).get(split) for split in splits]
    return all(found is not None and found["rate"] == 0 for found in of_splits)


def in_short(noise: Noise) -> str:
    """A noise in a message, such as "LabelFlips (symmetric), e = 0.333"."""
    variant = f" ({noise.variant})" if noise.variant else ""
    return f"{type(noise).__name__}{variant}, e = {noise.error_rate:.3g}"


def one_rate(noise: Noise) -> float | None:
    """The share of units that a noise marks if it is the same for all.

    None where it depends on the class, and for documents and sequences, whose tokens are noisy together.
    """
    if noise.unit in ("documents", "sequences"):
        return None
    by_class = noise.error_rates
    if by_class is None:
        return noise.error_rate
    return float(by_class[0]) if np.ptp(by_class) < 1e-9 else None


def check_ids(sample: np.ndarray, drawn: str | None, is_same: Callable[[int, int], bool]) -> bool:
    """Whether ids repeat; refused where something is drawn from them, unless it is a row that comes again.

    Args:
        sample: integers [N].
        drawn: what is, in words; None for nothing.
        is_same: whether the rows of two places are one row.

    Raises:
        ValueError: they do, and other rows of one id would share it.
    """
    ordered = np.sort(sample)
    repeats = ordered[1:] == ordered[:-1]
    if not repeats.any():
        return False
    order = np.argsort(sample, kind="stable")
    pairs = np.stack([order[1:][repeats], order[:-1][repeats]], axis=1)
    looked_at = pairs[np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _PAIRS_LOOKED_AT)).astype(int))]
    other = next(((i, j) for i, j in looked_at.tolist() if not is_same(i, j)), None)
    told = f"{len(sample)} rows have {len(sample) - int(repeats.sum())} different sample ids"
    if other is not None and drawn is not None:
        raise ValueError(
            f"{told} (rows {min(other)} and {max(other)} have {sample[other[0]]}), and {drawn} belong to an id, so "
            "that rows would share them; give each row an id of its own, such as its number, or rename a column "
            "sample_id that means something else"
        )
    if other is not None:
        warnings.warn(f"{told}: rows with the same id have the same noise", stacklevel=4)
    return True
