"""Text that is packed and corrupted: the same rows however they are made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, List, Value, load_dataset
from datasets.distributed import split_dataset_by_node
from datasets.exceptions import DatasetGenerationError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_noise.data import sources
from hf_noise.data.embedded import embedded_tokenizer
from hf_noise.data.packing import Packing
from hf_noise.noise import UniformTokens, noise_from_description

NAME = "hf_noise/owt-noisy"


@pytest.fixture
def load(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(sources, "_SHARD_BYTES", 1)  # one shard a file

    def load(split="train", **settings):
        held_out = {} if "validation_source" in settings else {"validation_fraction": 0.1}
        defaults = {"r": 0.5, "source": corpus, "block_size": 32, "cache_dir": str(tmp_path), **held_out}
        return load_dataset(NAME, split=split, **{**defaults, **settings})

    return load


def test_columns(load):
    data = load()
    tokens = List(Value("int32"), length=32)
    assert data.features == {
        "input_ids": tokens, "labels": tokens, "clean_labels": tokens,
        "is_noisy": List(Value("bool"), length=32), "sample_id": Value("int64"),
    }
    rows = data.with_format("numpy")[:]
    assert (rows["input_ids"] == rows["clean_labels"]).all()
    assert (rows["labels"] == rows["clean_labels"])[~rows["is_noisy"]].all()
    noise = UniformTokens(ratio=0.5, vocab_size=2048)
    labels, is_noisy = noise(rows["clean_labels"], sample=rows["sample_id"])
    assert (labels == rows["labels"]).all() and (is_noisy == rows["is_noisy"]).all()


def test_rows_are_the_packed_documents_of_each_shard(load, documents):
    rows = load(validation_fraction=0)
    expected = []
    for part in range(3):
        blocks = Packing(embedded_tokenizer(), 32).rows([documents[part::3]])
        expected += [(part * 2**40 + i, row) for i, row in enumerate(np.concatenate(list(blocks)).tolist())]
    assert list(zip(rows["sample_id"], rows["input_ids"], strict=True)) == expected


def test_processes_and_streaming_change_nothing(load, tmp_path):
    rows = load().to_list()
    assert load(num_proc=2, cache_dir=str(tmp_path / "two")).to_list() == rows
    stream = load(streaming=True)
    assert stream.num_shards == 3 and list(stream) == rows


def test_nodes_share_the_stream(load):
    stream = load(streaming=True)
    whole = [row["sample_id"] for row in stream]
    for world in (2, 3):
        parts = [[row["sample_id"] for row in split_dataset_by_node(stream, rank, world)] for rank in range(world)]
        assert sorted(sum(parts, [])) == whole and len(set(whole)) == len(whole)


@pytest.mark.parametrize("stop", [1, 40, 100])
def test_a_stream_resumes(load, stop):
    stream = load(streaming=True)
    whole = list(stream)
    iterator = iter(stream)
    first = [next(iterator) for _ in range(stop)]
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = load(streaming=True)
    resumed.load_state_dict(state)
    assert first + list(resumed) == whole


def test_noise_of_other_epochs_and_seeds(load):
    base = load(streaming=True)
    rows = [np.array([row["labels"] for row in data]) for data in (base, load(epoch=1, streaming=True), load(seed=1))]
    assert (rows[0] != rows[1]).mean() > 0.4 and (rows[0] != rows[2]).mean() > 0.4


def test_validation_is_clean_unless_named(load):
    assert not np.any(load("validation", validation_fraction=0.3)["is_noisy"])
    noisy = load("validation", validation_fraction=0.3, noisy_splits=["validation"])
    assert np.any(noisy["is_noisy"]) and min(noisy["sample_id"]) == 2**60


def test_held_out_documents_are_in_no_other_split(load, documents):
    tokenizer = embedded_tokenizer()
    sides = [
        {n for row in load(split, validation_fraction=0.3, block_size=2)["input_ids"] for n in row}
        for split in ("train", "validation")
    ]
    assert all(sides)
    texts = [
        tokenizer.decode([i for row in load(s, validation_fraction=0.3, block_size=2)["input_ids"] for i in row])
        for s in ("train", "validation")
    ]
    found = [[document[:25] in text for document in documents] for text in texts]
    assert not np.logical_and(*found).any()
    assert 0.2 < np.mean(found[1]) < 0.4 and np.logical_or(*found).mean() > 0.98


def test_validation_source(load, parquet):
    rows = load("validation", validation_source=parquet, r=0)
    assert rows.num_rows > 50
    with pytest.raises(ValueError, match="not both"):
        load(validation_source=parquet, validation_fraction=0.1)


def test_validation_source_without_a_fitting_split(load, tmp_path, documents):
    Dataset.from_dict({"text": documents}).to_parquet(tmp_path / "own" / "test.parquet")
    with pytest.raises(ValueError, match="no validation or train split, only test"):
        load(validation_source=str(tmp_path / "own"))
    with pytest.raises(ValueError, match=r"no train split in .* \(splits: test\)"):
        load(source=str(tmp_path / "own"))


def test_source_with_splits(load, tmp_path, documents):
    for split in ("train", "validation", "test"):
        Dataset.from_dict({"text": documents}).to_parquet(tmp_path / "own" / f"{split}.parquet")
    splits = load(None, source=str(tmp_path / "own"))
    assert set(splits) == {"train", "validation", "test"}
    assert splits["train"]["input_ids"][:] == splits["test"]["input_ids"][:]
    assert np.any(splits["train"]["is_noisy"]) and not np.any(splits["test"]["is_noisy"])


def test_noise_and_realised_rate_travel_with_the_data(load, caplog):
    with caplog.at_level("INFO", logger="hf_noise"):
        rows = load()
    record = json.loads(rows.info.description.splitlines()[-1])
    realised = record["noise"].pop("realised")
    # Drawn once: whoever trains on it must not take it for noise that is renewed in every epoch.
    assert noise_from_description(rows.info.description) == UniformTokens(ratio=0.5, vocab_size=2048, redraw="never")
    assert noise_from_description(load(epoch=1).info.description) == UniformTokens(ratio=0.5, vocab_size=2048)
    mask = np.array(rows["is_noisy"])
    assert realised == {"rate": pytest.approx(mask.mean()), "n": mask.size} and record["epoch"] == 0
    assert record["realised"]["validation"]["rate"] == 0
    assert f"requested rate of noisy tokens 0.333333, realised {mask.mean():.6f} (n = {mask.size})" in caplog.text
    assert "tokens/s" in caplog.text


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_the_default_tokenizer_is_named_for_a_text_of_ones_own(load, caplog):
    load()
    told = [message for message in warnings(caplog) if "tokenizer" in message]
    assert told == ["default tokenizer 'embedded' with 2048 tokens; choose another with tokenizer="]
    caplog.clear()
    load(tokenizer="embedded:300")
    load(source="embedded/docs-text", validation_fraction=None, streaming=True)
    assert not any("tokenizer" in message for message in warnings(caplog))


def test_small_files_lose_no_text(load, tmp_path, documents, caplog, monkeypatch):
    for number, text in enumerate(documents):
        (tmp_path / f"{number:03d}.txt").write_text(text)
    monkeypatch.undo()
    rows = load(source=str(tmp_path / "*.txt"), validation_fraction=0)
    tokens = sum(len(ids) + 1 for ids in embedded_tokenizer()(documents, add_special_tokens=False)["input_ids"])
    assert rows.num_rows == tokens // 32 and not any("in no row" in message for message in warnings(caplog))


def test_text_that_is_lost_at_the_end_of_shards_is_told(load, caplog):
    rows = load(block_size=1000, validation_fraction=0)
    (told,) = (message for message in warnings(caplog) if "in no row" in message)
    dropped, tokens = (int(told.split()[place]) for place in (1, 3))
    assert told.startswith("train: ") and tokens - dropped == rows.num_rows * 1000 and dropped > 0.01 * tokens


def test_parquet_output_reports_its_rate_too(tmp_path, corpus):
    from datasets import load_dataset_builder

    settings = {"source": corpus, "block_size": 32, "validation_fraction": 0.1, "cache_dir": str(tmp_path)}
    builder = load_dataset_builder(NAME, r=1, **settings)
    builder.download_and_prepare(tmp_path / "out", file_format="parquet")
    realised = json.loads(builder.info.description.splitlines()[-1])["realised"]["train"]
    # 5 standard errors: one false alarm in 1.7 million seeds.
    assert abs(realised["rate"] - 0.5) < 5 * (0.25 / realised["n"]) ** 0.5


def test_ratio_zero_is_clean(load):
    rows = load(r=0)
    assert rows["labels"][:] == rows["clean_labels"][:] and not np.any(rows["is_noisy"])


def test_own_tokenizer_object(load):
    tokenizer = embedded_tokenizer(300)
    assert np.max(load(tokenizer=tokenizer, r=0)["input_ids"]) < 300


def test_a_tokenizer_whose_ids_have_a_gap(load, tmp_path, caplog):
    vocabulary = {"<eos>": 0, "<unk>": 1} | {f"w{i}": i + 2 + (100 if i >= 20 else 0) for i in range(40)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>")
    file = tmp_path / "words.parquet"
    Dataset.from_dict({"text": [" ".join(f"w{i}" for i in range(40))] * 20}).to_parquet(file)
    rows = load(source=str(file), tokenizer=tokenizer, block_size=16, validation_fraction=0.0)
    assert noise_from_description(rows.info.description).vocab_size == 142
    assert np.max(rows["clean_labels"]) == 141 and 42 < np.max(rows["labels"]) < 142
    assert any("100 of the ids 0 to 141 belong to no token" in record.getMessage() for record in caplog.records)


# --- what cannot work is refused, and nothing half-written stays ---


def ready_caches(folder: Path) -> list[Path]:
    return [*folder.rglob("dataset_info.json"), *folder.rglob("*.arrow"), *folder.rglob("*.incomplete")]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"block_size": 100_000}, ValueError, "train split of .* is shorter than one block of 100000 tokens"),
        ({"block_size": 1}, ValueError, "block_size must be an integer >= 2"),
        ({"text_column": "words"}, ValueError, "no column 'words'; it has 'text', 'length': .*text_column="),
        ({"text_column": "length"}, ValueError, "column 'length' holds int64, not text"),
        ({"source": "missing.parquet"}, FileNotFoundError, "missing.parquet"),
        ({"source": "missing-*.txt"}, FileNotFoundError, "no file matches"),
        ({"source": "nobody/nothing", "tokenizer": "embedded"}, ConnectionError, "source= a local file"),
        ({"validation_fraction": 1.0}, ValueError, r"validation_fraction must lie in \[0, 1\)"),
        ({"validation_fraction": "0.1"}, TypeError, "validation_fraction must be a real number, got '0.1'"),
        ({"validation_fraction": True}, TypeError, "validation_fraction must be a real number"),
        ({"text_column": None}, TypeError, "text_column must be the name of a column"),
        ({"text_column": ["text"]}, TypeError, "text_column must be a name"),
        ({"source": {"train": "./x.txt"}}, FileNotFoundError, "no file or folder source='./x.txt'"),
        ({"source": 3}, TypeError, "source must be a path or a name, .*, got 3"),
        ({"documents": "page"}, ValueError, "documents must be one of file, line, paragraph, got 'page'"),
        ({"documents": "line"}, ValueError, r"documents='line' is for .txt and .md files; .* leave it out"),
        ({"tokenizer": "./nowhere"}, FileNotFoundError, "no folder tokenizer='./nowhere'"),
        ({"tokenizer": "embedded/2048"}, ValueError, "embedded:<vocabulary size>"),
    ],
)
def test_refused(load, tmp_path, settings, error, message, streaming):
    with pytest.raises(error, match=message):
        next(iter(load(streaming=streaming, **settings)))
    assert ready_caches(tmp_path) == []


def test_validation_that_is_too_short_is_seen_before_training_data_are_built(load, tmp_path):
    with pytest.raises(ValueError, match="validation split .*; give validation_source=, or a larger share as"):
        load(validation_fraction=1e-9)
    assert ready_caches(tmp_path) == []


@pytest.mark.parametrize("kind", ["txt", "parquet"])
def test_empty_corpus(load, tmp_path, kind):
    file = tmp_path / f"empty.{kind}"
    file.write_text("") if kind == "txt" else Dataset.from_dict({"text": []}).to_parquet(file)
    with pytest.raises(ValueError, match="empty|shorter than one block"):
        load(source=str(file))
    assert ready_caches(tmp_path) == []


def test_an_error_half_way_leaves_no_cache_and_can_be_repeated(load, tmp_path, monkeypatch):
    whole = Packing.rows

    def breaks(self, batches):
        yield from whole(self, batches)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Packing, "rows", breaks)
        with pytest.raises(DatasetGenerationError) as caught:
            load()
        assert "disk full" in str(caught.value.__cause__)
    assert ready_caches(tmp_path) == []
    assert load().num_rows > 100
