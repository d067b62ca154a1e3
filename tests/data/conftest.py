"""Small corpora for the tests of the data floor."""

from __future__ import annotations

import json
import random

import datasets
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
