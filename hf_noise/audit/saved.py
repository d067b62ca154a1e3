"""An audit in one file: its arrays as safetensors, and all else as JSON in the file's header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.atomic import replaced_whole
from hf_noise.audit.choose import ChosenEstimate
from hf_noise.audit.estimators.noise_estimate import NoiseEstimate
from hf_noise.audit.measured import Measured
from hf_noise.audit.powered import Verified
from hf_noise.audit.sampling import Sample

__all__ = ["keep_values", "kept_rows", "kept_values"]

_KINDS = {kind.__name__: kind for kind in (ChosenEstimate, Measured, NoiseEstimate, Sample, Verified)}
#: Raised whenever a file of before could not be read any more.
_VERSION = 1
#: Columns that `LabelAudit.rows` adds.
_OURS = ("p_wrong", "suggested")


def keep_values(values: Mapping[str, Any], path: Path) -> None:
    """Write numbers, texts, arrays, tuples and estimates by their names."""
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    names: dict[int, str] = {}
    told = {name: _told(value, name, arrays, names) for name, value in values.items()}
    header = {"version": str(_VERSION), "audit": json.dumps(told, default=lambda number: number.item())}
    with replaced_whole(path) as file:
        save_file(arrays, file, metadata=header)


def kept_values(path: Path) -> dict[str, Any]:
    """Read them back, all as they were.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what `keep_values` wrote, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; give the folder that LabelAudit.save returned")
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        if header.get("version") != str(_VERSION):
            raise ValueError(f"its version is {header.get('version')}, and this one reads {_VERSION}")
        return {name: _read(value, arrays) for name, value in json.loads(header["audit"]).items()}
    except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what LabelAudit.save wrote ({error}); audit the labels anew") from error


def kept_rows(folder: Path, p_wrong: np.ndarray) -> Any:
    """The data set of an audit whose p_wrong this is, without the audit's columns.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another audit.
    """
    from datasets import Dataset

    if not (file := folder / "rows.parquet").is_file():
        raise FileNotFoundError(f"there is no {file}, which LabelAudit.save writes beside the audit; save it anew")
    rows = Dataset.from_parquet(str(file))
    if not {*_OURS} <= {*rows.column_names} or not np.array_equal(rows[_OURS[0]], p_wrong):
        raise ValueError(f"{file} is not of the same audit as the files beside it; save it anew")
    return rows.remove_columns(list(_OURS))


def _told(value: Any, name: str, arrays: dict[str, np.ndarray], names: dict[int, str]) -> Any:
    """A value as JSON holds it; arrays apart, one that occurs twice once."""
    if isinstance(value, np.ndarray):
        if id(value) not in names:
            names[id(value)] = name
            arrays[name] = np.ascontiguousarray(value)
        return {"array": names[id(value)]}
    if is_dataclass(value):
        own = {one.name: _told(getattr(value, one.name), f"{name}.{one.name}", arrays, names) for one in fields(value)}
        return {"kind": type(value).__name__, "fields": own}
    if isinstance(value, tuple):
        return [_told(one, f"{name}.{place}", arrays, names) for place, one in enumerate(value)]
    return value


def _read(told: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(told, list):
        return tuple(_read(one, arrays) for one in told)
    if not isinstance(told, dict):
        return told
    if "array" in told:
        return arrays[told["array"]]
    return _KINDS[told["kind"]](**{name: _read(value, arrays) for name, value in told["fields"].items()})
