"""Small corpora and pictures for the tests of the data floor."""

from __future__ import annotations

import io
import json
import random

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_noise.data import hook

WORDS = ["noise", "data", "model", "token", "label", "clean", "wrong", "rate", "seed", "epoch", "row", "block"]


@pytest.fixture(scope="session", autouse=True)
def quiet():
    datasets.disable_progress_bars()
    hook.install()


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """300 distinct documents of 5 to 60 words."""
    draw = random.Random(0)
    return [f"{i} " + " ".join(draw.choices(WORDS, k=draw.randint(5, 60))) for i in range(300)]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, documents) -> str:
    """The documents in three JSON lines files; the source is a glob, so there are three shards."""
    folder = tmp_path_factory.mktemp("corpus")
    for part in range(3):
        lines = (json.dumps({"text": text, "length": len(text)}) for text in documents[part::3])
        (folder / f"part-{part}.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "part-*.jsonl")


@pytest.fixture(scope="session")
def parquet(tmp_path_factory, documents) -> str:
    """The documents in one Parquet file with six row groups."""
    file = tmp_path_factory.mktemp("parquet") / "corpus.parquet"
    pq.write_table(pa.table({"text": documents, "number": range(len(documents))}), file, row_group_size=50)
    return str(file)


def png(number: int) -> bytes:
    """A picture of 2 x 2 grey pixels that says which it is."""
    stream = io.BytesIO()
    PIL.Image.fromarray(np.array([[number // 256, number % 256], [0, 0]], dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def seen():
    """Turns rows into a list of tuples: the number of the picture, then the other columns by name."""

    def seen(rows) -> list[tuple]:
        return [
            (int(np.asarray(row["image"])[0] @ [256, 1]), *(row[name] for name in sorted(row) if name != "image"))
            for row in rows
        ]

    return seen


@pytest.fixture(scope="session")
def pictures():
    """Writes a Parquet file of pictures 0, 1, ... with these labels; returns its path."""

    def write(file, labels, names=None, image="image", label="label", broken=(), row_group_size=None, **columns) -> str:
        contents = [{"bytes": b"no picture" if i in broken else png(i), "path": f"{i}.png"} for i in range(len(labels))]
        features = {image: datasets.Image(), label: datasets.ClassLabel(names=names) if names else None}
        features |= {name: datasets.ClassLabel(names=names) if names else None for name in columns}
        table = pa.table({image: contents, label: np.asarray(labels), **{k: np.asarray(v) for k, v in columns.items()}})
        kinds = {
            name: kind or datasets.Features.from_arrow_schema(table.select([name]).schema)[name]
            for name, kind in features.items()
        }
        table = table.cast(datasets.Features(kinds).arrow_schema)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, row_group_size=row_group_size)
        return str(file)

    return write
