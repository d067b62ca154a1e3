"""A noisy data set as a folder: Parquet, a configuration per noise setting, and the card that lists them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from hf_noise.atomic import replaced_whole
from hf_noise.hub.data_card import data_card
from hf_noise.noise import Noise
from hf_noise.noise.block import as_noise
from hf_noise.noise.checks import check_epoch
from hf_noise.noise.tokens import IGNORE_INDEX
from hf_noise.reports.record import DataRecord, write_atomic

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["describe_config", "write_config", "write_data_folder"]

_SHARD_BYTES = 500_000_000  # the size that `datasets` and the Hub's viewer work with
_PICTURES = 100  # in a row group, as `datasets` writes them
_ROWS_DRAWN = 1000


def describe_config(
    splits: Mapping[str, Dataset], config_name: str, noise: Mapping[str, Any], epoch: int = 0
) -> dict[str, Any]:
    """One entry of `DataRecord.configs`: rows and units of each split, the realised rate, the epoch that was drawn if
    not 0, and whether its noise, drawn for the clean column, gives the noisy one (seen in the first rows).

    The rate is counted in the noisy splits, where there is a column `is_noisy`; a rate that `noise` brings is that of
    the rows it was built with, which may be others by now.

    Raises:
        TypeError: a split is a stream, which has no length.
        ValueError: no split, a name that cannot name a folder, or a noise that these rows contradict.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.=-]*", config_name):
        raise ValueError(f"config_name must be letters, digits, '.', '_', '=' or '-', got {config_name!r}")
    epoch = check_epoch(epoch)
    if not splits:
        raise ValueError(f"configuration {config_name!r} has no split")
    described: dict[str, dict[str, Any]] = {}
    noisy_units = {}
    for split, dataset in splits.items():
        if not hasattr(dataset, "num_rows"):
            raise TypeError(
                f"split {split!r} is a {type(dataset).__name__}; materialise it first: Dataset.from_generator"
            )
        described[split] = {"rows": dataset.num_rows}
        if "is_noisy" in dataset.column_names:
            noisy, units = _count_noisy(dataset)
            described[split] |= {"units": units, "noisy": noisy > 0}
            noisy_units[split] = noisy
    # A clean validation split must not dilute the rate; without any noise all splits count.
    counted = [split for split, noisy in noisy_units.items() if noisy] or list(noisy_units)
    units = sum(described[split]["units"] for split in counted)
    if units:
        noisy = sum(noisy_units[split] for split in counted)
        if noisy:
            _check_rate(config_name, as_noise(noise), noisy, [described[split] for split in counted])
        elif "train" in counted:  # which is the noisy one if any is
            _check_rate(config_name, as_noise(noise), 0, [described["train"]])
        noise = dict(noise) | {"realised": {"rate": noisy / units, "n": units}}
    is_redrawn = counted and all(_is_redrawn(splits[split], noise, epoch) for split in counted if noisy_units[split])
    drawn = {"redrawn": epoch} if is_redrawn else {}
    drawn |= {"epoch": epoch} if epoch else {}
    return {"config_name": config_name, "noise": dict(noise), "splits": described, **drawn}


def write_config(
    splits: Mapping[str, Dataset], folder: str | os.PathLike, config_name: str
) -> dict[str, Path]:
    """Write `<config_name>/<split>-00000-of-00001.parquet` and further shards; returns name -> file.

    Other Parquet files of the configuration, of an earlier run with more shards or splits, are removed: the
    card finds the files by a pattern and would count their rows twice.
    """
    written = {}
    for split, dataset in splits.items():
        shards = max(1, -(-dataset.data.nbytes // _SHARD_BYTES))
        for index in range(shards):
            name = f"{config_name}/{split}-{index:05d}-of-{shards:05d}.parquet"
            path = Path(folder, name)
            with replaced_whole(path) as unfinished:
                _to_parquet(dataset.shard(shards, index, contiguous=True), unfinished)
            written[name] = path
    for stale in set(Path(folder, config_name).glob("*.parquet")) - set(written.values()):
        stale.unlink()
    return written


def write_data_folder(folder: str | os.PathLike, record: DataRecord) -> Path:
    """Write card and record beside configurations that `write_config` wrote. Returns the folder."""
    folder = Path(folder)
    record.write(folder / "record.json")
    write_atomic(folder / "README.md", str(data_card(record)))
    return folder


def _to_parquet(dataset: Dataset, path: Path) -> None:
    """Write one file that needs no other: pictures of which the data set only knows the path go into it."""
    from datasets.arrow_writer import ParquetWriter
    from datasets.features.features import require_storage_embed

    if not any(map(require_storage_embed, dataset.features.values())):
        dataset.to_parquet(path)
        return
    with ParquetWriter(features=dataset.features, path=str(path), embed_local_files=True) as writer:
        for table in dataset.with_format("arrow").iter(batch_size=_PICTURES):
            writer.write_table(table)
        writer.finalize()


def _check_rate(config_name: str, noise: Noise, noisy: int, splits: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError if so many noisy units cannot be of this noise: false alarms have a probability below 1e-6.

    The tokens of a document are noisy together, so that a row of them is one piece of evidence.
    """
    units = sum(split["units"] for split in splits)
    what = "units"
    if noise.unit == "documents":
        rows = sum(split["rows"] for split in splits)
        noisy, units, what = round(noisy / units * rows) or int(noisy > 0), rows, "rows"
    rates = noise.error_rates
    if rates is None:
        lowest = highest = noise.error_rate
    elif noise.is_drawn:  # rates differ between classes, which may have any frequencies
        lowest, highest = float(rates.min()), float(rates.max())
    else:  # labels of people, of which the rows may be a part
        return
    rate = noisy / units
    nearest = min(max(rate, lowest), highest)
    # Chernoff's bound: P(a share beyond rate) <= exp(-n KL(rate, e)), on either side.
    distance = sum(p * math.log(p / q) if q else math.inf for p, q in ((rate, nearest), (1 - rate, 1 - nearest)) if p)
    if units * distance > math.log(2e6):
        raise ValueError(
            f"configuration {config_name!r}: {noisy:,} of {units:,} {what} are marked in `is_noisy`, which the stated "
            f"noise with a rate of {nearest:.4g} does not give; pass the noise= that made these rows (r = 0 for clean "
            "ones)"
        )


def _is_redrawn(dataset: Dataset, noise: Mapping[str, Any], epoch: int) -> bool:
    """Whether the noise, drawn again, gives the noisy column, in its first rows."""
    drawn = as_noise(noise)
    clean = next((name for name in dataset.column_names if name.startswith("clean_")), None)
    noisy = clean.removeprefix("clean_") if clean else None
    if not drawn.draws_targets or not {noisy, "sample_id"} <= set(dataset.column_names):
        return False
    rows = dataset.select_columns([clean, noisy, "sample_id"]).with_format("numpy")[:_ROWS_DRAWN]
    if rows[clean].dtype == object:  # rows of several lengths
        return False
    try:
        again, _ = drawn(rows[clean], sample=rows["sample_id"], epoch=epoch)
    except (TypeError, ValueError):  # other columns than those of a noisy data set
        return False
    return np.array_equal(again, rows[noisy])


def _count_noisy(dataset: Dataset) -> tuple[int, int]:
    """Noisy units and all units in the column `is_noisy`, tokens or labels, in constant memory."""
    noisy = units = 0
    clean = next((name for name in dataset.column_names if name.startswith("clean_")), None)
    columns = ["is_noisy"] if clean is None else ["is_noisy", clean]
    for batch in dataset.select_columns(columns).with_format("arrow").iter(batch_size=1000):
        marked, *truth = (_flat(batch[column]) for column in columns)
        noisy += int(np.count_nonzero(marked))
        # Positions without a target are no units.
        units += len(marked) - (int(np.count_nonzero(truth[0] == IGNORE_INDEX)) if truth else 0)
    return noisy, units


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    """The values of a column, those of lists one after another, one level per axis."""
    chunk = column.combine_chunks()
    while chunk.type.num_fields:
        chunk = chunk.flatten()
    return chunk.to_numpy(zero_copy_only=False)
