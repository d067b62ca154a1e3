"""How rows to verify were drawn, kept beside their sheet: later audits may say other things of the same rows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_noise.atomic import replaced_whole
from hf_noise.audit.sampling import Sample
from hf_noise.audit.sheet import fingerprints, is_filled

__all__ = ["check_free", "filled_sheet", "keep_sample", "kept_sample", "sheets_in"]

_NAME = "sample.parquet"
_COLUMNS = {"stratum", "probability", "place"}


def keep_sample(sample: Sample, folder: str | os.PathLike) -> Path:
    """Write of each row of the data its stratum, its chance and its place in the sample, -1 of those not in it."""
    place = np.full(len(sample.stratum), -1)
    place[sample.rows] = np.arange(len(sample))
    table = pa.table({"stratum": sample.stratum, "probability": sample.probability, "place": place})
    path = Path(folder) / _NAME
    with replaced_whole(path) as file:
        pq.write_table(table.replace_schema_metadata({"seed": str(sample.seed)}), file)
    return path


def check_free(folder: str | os.PathLike, sample: Sample, audit: str) -> None:
    """FileExistsError unless a sheet of this sample, whose fingerprint is `audit`, may be written into a folder."""
    sheets = sheets_in(folder)
    if filled := [file.name for file in sheets if is_filled(file)]:
        raise FileExistsError(f"{folder} holds {filled[0]}, in which something is filled in; give another folder")
    for file in sheets:
        if fingerprints(file) != {audit}:
            raise FileExistsError(f"{folder} holds {file.name} of other rows than these {len(sample)}, which somebody "
                                  "may be filling in in a browser; give another folder, or delete it")  # fmt: skip


def kept_sample(sheet: str | os.PathLike, rows: int) -> Sample:
    """Read it back from beside a sheet, for data of so many rows.

    Raises:
        FileNotFoundError: there is none, or no such sheet.
        ValueError: it is of other data, or no such file.
    """
    sheet = Path(sheet)
    if not sheet.is_file():
        raise FileNotFoundError(f"there is no file {sheet}; give the CSV that was filled in, or the folder that "
                                "to_verify wrote with the CSV in it")  # fmt: skip
    path = sheet.parent / _NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no {_NAME} beside {sheet}, which says how the rows were drawn; put the "
                                f"filled CSV into the folder that to_verify wrote, where its {_NAME} is")  # fmt: skip
    try:
        table = pq.read_table(path)
        seed = int((table.schema.metadata or {})[b"seed"])
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path} is not the file that to_verify wrote ({error}); draw the rows anew") from error
    if len(table) != rows or {*table.column_names} != _COLUMNS:
        raise ValueError(f"{path} is of {len(table)} rows of data, and this audit has {rows}; give the folder that its "
                         "to_verify wrote")  # fmt: skip
    place = table["place"].to_numpy()
    drawn = np.flatnonzero(place >= 0)
    return Sample(drawn[np.argsort(place[drawn])], table["stratum"].to_numpy(), table["probability"].to_numpy(), seed)


def sheets_in(folder: str | os.PathLike) -> list[Path]:
    """The CSV of `to_verify`, and those that its page saved."""
    folder = Path(folder)
    return sorted([*folder.glob("to_verify*.csv"), *folder.glob("verified-*.csv")])


def filled_sheet(path: str | os.PathLike) -> Path:
    """The CSV itself, or the one of a folder in which something is filled in. Raises ValueError: there are several."""
    path = Path(path)
    if not path.is_dir():
        return path
    filled = [one for one in sheets_in(path) if is_filled(one)]
    if len(filled) > 1:
        raise ValueError(f"{path} holds several sheets in which something is filled in, "
                         f"{', '.join(one.name for one in filled)}; give the path of one")  # fmt: skip
    return filled[0] if filled else path / "to_verify.csv"
