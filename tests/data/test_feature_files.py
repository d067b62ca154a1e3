"""Features from files: what comes back, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from hf_noise.data.feature_files import read_features

VALUES = np.arange(12, dtype=np.float64).reshape(4, 3) / 3


def written(path, values=VALUES, name="features"):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".safetensors":
        save_file({name: torch.as_tensor(np.asarray(values)), "ids": torch.arange(4)}, path)
    else:
        pq.write_table(pa.table({name: list(values), "label": list(range(len(values)))}), path)
    return path


@pytest.mark.parametrize("kind", [".npy", ".safetensors", ".parquet"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_what_is_written_is_read(tmp_path, kind, dtype):
    found = read_features(written(tmp_path / f"x{kind}", VALUES.astype(dtype)))
    assert found.dtype == np.float32 and (found == VALUES.astype(dtype).astype(np.float32)).all()


@pytest.mark.parametrize("kind", [".safetensors", ".parquet"])
def test_a_name_chooses(tmp_path, kind):
    path = written(tmp_path / f"x{kind}", name="of mine")
    assert (read_features(path, "of mine") == VALUES.astype(np.float32)).all()
    with pytest.raises(ValueError, match="no .* 'embedding', only .*of mine"):
        read_features(path, "embedding")


def test_half_precision_and_fixed_sizes(tmp_path):
    save_file({"x": torch.ones(2, 3, dtype=torch.bfloat16)}, tmp_path / "b.safetensors")
    assert (read_features(tmp_path / "b.safetensors") == 1).all()
    column = pa.FixedSizeListArray.from_arrays(pa.array(VALUES.ravel()), 3)
    pq.write_table(pa.table({"x": column}), tmp_path / "b.parquet")
    assert (read_features(tmp_path / "b.parquet") == VALUES.astype(np.float32)).all()


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("nan.npy", lambda p: np.save(p, [[1.0, np.nan], [1.0, 2.0]]), "1 of 2 rows .* NaN.*first is row 0"),
        ("large.npy", lambda p: np.save(p, [[1e300, 1.0]]), "NaN or inf"),
        ("flat.npy", lambda p: np.save(p, [1.0, 2.0]), r"shape is \[2\]"),
        ("none.npy", lambda p: np.save(p, np.zeros((0, 3))), "empty"),
        ("objects.npy", lambda p: np.save(p, np.array([[{}]], dtype=object), allow_pickle=True), "cannot be read"),
        ("texts.npy", lambda p: np.save(p, np.array([["a"]])), "real numbers"),
        ("empty.npy", _empty, "cannot be read"),
        ("empty.safetensors", _empty, "cannot be read"),
        ("empty.parquet", _empty, "cannot be read"),
        ("two.safetensors", lambda p: save_file({"a": torch.ones(1, 2), "b": torch.ones(1, 2)}, p), "'a', 'b'"),
        ("words.parquet", lambda p: pq.write_table(pa.table({"x": ["a"]}), p), "no column 'features'"),
        ("rows.parquet", lambda p: pq.write_table(pa.table({"x": pa.array([], pa.list_(pa.float32()))}), p), "empty"),
        ("ragged.parquet", lambda p: pq.write_table(pa.table({"x": [[1.0], [1.0, 2.0]]}), p), "1 to 2 numbers"),
        ("null.parquet", lambda p: pq.write_table(pa.table({"x": [[1.0], None]}), p), "null"),
        ("within.parquet", lambda p: pq.write_table(pa.table({"x": [[1.0, None]]}), p), "within vectors"),
        ("lists.parquet", lambda p: pq.write_table(pa.table({"x": [["a"]]}), p), "no vectors"),
        ("a.pt", _empty, "no known kind"),
    ],
)
def test_refused_by_name(tmp_path, name, write, said):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=said) as caught:
        read_features(tmp_path / name)
    assert name in str(caught.value)


def test_refused_calls(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.npy"):
        read_features(tmp_path / "gone.npy")
    with pytest.raises(TypeError, match="path"):
        read_features(3)
    with pytest.raises(TypeError, match="name"):
        read_features(tmp_path / "a.npy", 3)
    with pytest.raises(ValueError, match="leave 'a' out"):
        read_features(written(tmp_path / "a.npy"), "a")
