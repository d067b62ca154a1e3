"""Features from a file, whoever made them: .npy, safetensors, or a column of vectors in Parquet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hf_noise.data.reading import CorpusError

__all__ = ["check_features", "read_features", "vectors_of"]

KINDS = (".npy", ".safetensors", ".parquet")
#: The tensor or column that is taken where a file has several.
USUAL = "features"


def read_features(path: str | os.PathLike, name: str | None = None) -> np.ndarray:
    """The features in a file, float32 [N, d].

    Args:
        path: a .npy file of numbers [N, d], a .safetensors file, or a Parquet file with a column of vectors.
        name: the tensor or column to take; by default "features", or the only one that can be meant.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another kind or a broken one, or what it holds are no features, see `check_features`.
        TypeError: the path is no path, or the name no text.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be that of a file with features, got {path!r:.80}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be that of a tensor or column, got {name!r:.80}")
    path = Path(path).expanduser()
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise ValueError(f"{path} is of no known kind; features are read from {', '.join(KINDS)}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path} with features (searched from {Path.cwd()})")
    read = {".npy": _from_npy, ".safetensors": _from_safetensors, ".parquet": _from_parquet}[kind]
    return check_features(str(path), read(path, name))


def check_features(where: str, features: Any) -> np.ndarray:
    """`features` as float32 [N, d], N, d >= 1; `where` they are from, in words.

    Raises ValueError: another shape, no real numbers, or NaN or inf in some rows.
    """
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape:
        what = "is empty" if 0 in features.shape else "holds no features"
        raise ValueError(f"{where} {what}: its shape is {list(features.shape)}, and features are [rows, size]")
    if features.dtype.kind not in "fiu":
        raise ValueError(f"{where} holds {features.dtype}; features are real numbers")
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(features, dtype=np.float32)
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise ValueError(
            f"{broken.sum()} of {len(features)} rows of {where} hold NaN or inf (as float32), the first is row "
            f"{broken.argmax()}; look at what made them, or leave those rows out with their labels"
        )
    return features


def vectors_of(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """A column of vectors as an array [N, d]. Raises CorpusError: other values, nulls, or vectors of several lengths.
    """
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise CorpusError(f"{where} holds {kind}, no vectors; features are a list of numbers in each row")
    if not len(column):
        raise CorpusError(f"{where} is empty: it has no rows")
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if column.null_count or None in lengths:
        raise CorpusError(f"{where} holds {column.null_count} null(s); every row needs a vector")
    if len(lengths) > 1:
        raise CorpusError(f"{where} holds vectors of {min(lengths)} to {max(lengths)} numbers; they need one length")
    values = pa.concat_arrays([chunk.flatten() for chunk in column.chunks])
    if values.null_count:
        raise CorpusError(f"{where} holds {values.null_count} null(s) within vectors; every number is needed")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), lengths[0])


def _from_npy(path: Path, name: str | None) -> np.ndarray:
    if name is not None:
        raise ValueError(f"{path} holds one array without a name; leave {name!r} out")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:  # pickled objects are among the first
        raise ValueError(f"{path} cannot be read as an array of numbers: {error}") from error


def _from_safetensors(path: Path, name: str | None) -> np.ndarray:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(_chosen(path, "tensor", list(file.keys()), name))
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()  # bfloat16 is no dtype of NumPy
    return tensor.numpy()


def _from_parquet(path: Path, name: str | None) -> np.ndarray:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            lists = [field.name for field in schema if pa.types.is_nested(field.type)]
            column = _chosen(path, "column", schema.names if name else lists, name)
            table = file.read(columns=[column])
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    return vectors_of(table[column], f"column {column!r} of {path}")


def _chosen(path: Path, what: str, there: list[str], name: str | None) -> str:
    """The one to take; ValueError where none is, or several and none has the usual name."""
    if name is None and len(there) == 1:
        return there[0]
    wanted = name or USUAL
    if wanted not in there:
        listed = ", ".join(map(repr, there[:10])) or "none that could be features"
        raise ValueError(f"{path} has no {what} {wanted!r}, only {listed}; name the one with the features")
    return wanted
