"""Documents of noise by their names: exact to a row, drawn by id, stated, and refused by name where they cannot be."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise import load_noise
from hf_noise.data import sources
from hf_noise.data.builder import first_sample_id
from hf_noise.data.builders.docs_noisy import DocsNoisyConfig
from hf_noise.data.corrupt import corrupt
from hf_noise.data.packing import PackedRows
from hf_noise.data.reading import CorpusError
from hf_noise.noise import GaussianDocuments, RandomDocuments, UniformTokens
from hf_noise.noise.protocols import find_protocol, named_noise, protocol_names

NAME = "hf_noise/owt-noisy"
KINDS = {
    "random-documents": {"boost": "none"}, "boosted-documents": {"boost": "random"}, "low-documents": {"boost": "low"},
    "gaussian-documents": {},
}  # fmt: skip


@pytest.fixture
def load(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(sources, "_SHARD_BYTES", 1)  # one shard a file

    def load(protocol="random-documents", split="train", **settings):
        defaults = {"source": corpus, "block_size": 32, "cache_dir": str(tmp_path), "validation_fraction": 0.1}
        builder = settings.pop("builder", NAME)
        return load_dataset(builder, split=split, protocol=protocol, **{"alpha": 0.05, **defaults, **settings})

    return load


@pytest.mark.parametrize("protocol", KINDS)
def test_each_name_builds_its_noise_exact_to_a_token(load, protocol):
    data = load(protocol)
    noise, rows = load_noise(data), data.with_format("numpy")[:]
    flat = rows["is_noisy"].reshape(-1)
    assert abs(int(flat.sum()) - 0.05 * flat.size) <= 0.5 and (np.diff(flat.astype(int)) >= 0).all()
    assert (rows["noise_share"] == rows["is_noisy"].mean(axis=1, dtype=np.float32)).all()
    assert ((rows["noise_share"] > 0) & (rows["noise_share"] < 1)).sum() <= 1
    assert noise.alpha == 0.05 and noise.exclude == 0  # the embedded tokenizer closes a document with token 0
    assert {name: getattr(noise, name) for name in KINDS[protocol]} == KINDS[protocol]
    assert isinstance(noise, GaussianDocuments if protocol.startswith("gaussian") else RandomDocuments)
    ids = rows["sample_id"]
    assert np.unique(ids).size == ids.size
    assert (rows["input_ids"] == np.where(rows["is_noisy"], noise.rows(ids, 32), rows["input_ids"])).all()
    assert (rows["input_ids"] == rows["labels"]).all() and (rows["input_ids"] != 0).any()
    told = json.loads(data.info.description.splitlines()[-1])
    assert told["noise"]["realised"] == {"rate": flat.mean(), "n": flat.size}
    assert told["realised"]["validation"]["rate"] == 0
    assert "Documents of random tokens are mixed into" in data.info.description


def test_the_text_is_that_of_a_build_without_noise(load):
    clean, mixed = load(alpha=0.0), load()
    # The last row of text may end where noise begins.
    assert mixed.select(range(len(clean) - 1))["input_ids"][:] == clean["input_ids"][:-1]
    assert clean["input_ids"][:] == load("uniform-tokens", alpha=None, r=0.0)["input_ids"][:]
    assert not np.any(clean["is_noisy"]) and not np.any(clean["noise_share"])


@pytest.mark.parametrize("num_proc", [None, 2])
def test_noise_between_documents(load, tmp_path, num_proc):
    """Each shard has its own share, so that processes and streams write the same rows."""
    settings = {"alpha": 0.2, "protocol_kwargs": {"placement": "interleave"}}
    data = load(**settings, num_proc=num_proc)
    noise, rows = load_noise(data), data.with_format("numpy")[:]
    shards = rows["sample_id"] >> 40
    assert np.unique(shards).tolist() == [0, 1, 2] and noise.placement == "interleave"
    for shard in range(3):
        mask, ids = rows["is_noisy"][shards == shard], rows["sample_id"][shards == shard]
        assert abs(mask.sum() - 0.2 * mask.size) <= 0.5 and (np.diff(ids) == 1).all()
        assert (mask.any(axis=1) & ~mask.all(axis=1)).sum() > 0  # rows straddle
        assert mask[: len(mask) // 2].any()  # it does not all come last
    assert (rows["noise_share"] == rows["is_noisy"].mean(axis=1, dtype=np.float32)).all()
    assert (rows["input_ids"] == np.where(rows["is_noisy"], noise.rows(rows["sample_id"], 32), rows["input_ids"])).all()
    text = load(alpha=0.0).with_format("numpy")[:]
    for shard in range(3):  # no token of the text is changed or missing, but for the last ones
        here, of_text = shards == shard, text["sample_id"] >> 40 == shard
        kept = rows["input_ids"][here][~rows["is_noisy"][here]]
        whole = text["input_ids"][of_text].reshape(-1)
        n = min(kept.size, whole.size)
        assert (kept[:n] == whole[:n]).all() and abs(kept.size - whole.size) < 64
    stream = load(**settings, streaming=True)
    assert stream.num_shards == 3 and list(stream) == data.to_list()


@pytest.mark.parametrize("placement", ["append", "interleave", "replace"])
def test_packed_rows_with_documents_of_noise(load, placement):
    settings = {"alpha": 0.3, "protocol_kwargs": {"placement": placement}}
    packed, mixed = load(builder="hf_noise/packed", **settings), load(**settings)
    beside = ["clean_input_ids", "is_noisy"] if placement == "replace" else ["is_noisy", "noise_share"]
    assert packed.column_names == ["input_ids", *beside, "sample_id"]
    assert packed.to_list() == mixed.select_columns(packed.column_names).to_list()
    assert load_noise(packed) == load_noise(mixed)
    mask = PackedRows(packed).__getitems__([7, 3, 2])["is_noisy"]
    assert (mask == np.array(packed["is_noisy"])[[7, 3, 2]]).all()


def test_processes_and_streaming_change_nothing(load):
    rows = load().to_list()
    assert load(num_proc=2).to_list() == rows
    stream = load(streaming=True)
    assert list(stream) == rows and stream.num_shards == 1


def test_splits_share_no_document(load):
    data = load(split=None, noisy_splits=("validation",), alpha=0.3)
    rows = {name: part.filter(lambda row: row["noise_share"] == 1)["input_ids"][:] for name, part in data.items()}
    assert rows["validation"] and not set(map(tuple, rows["train"])) & set(map(tuple, rows["validation"]))
    told = json.loads(data["train"].info.description.splitlines()[-1])["realised"]
    assert told["validation"]["rate"] == pytest.approx(0.3, abs=16 / told["validation"]["n"])


def test_rows_are_replaced_where_that_is_asked_for(load):
    data = load(alpha=0.5, protocol_kwargs={"placement": "replace"})
    clean, rows = load(alpha=0.0).with_format("numpy")[:], data.with_format("numpy")[:]
    noise = load_noise(data)
    replaced = noise.replaced(rows["sample_id"])
    assert (rows["is_noisy"] == replaced[:, None]).all() and 0.2 < replaced.mean() < 0.8
    drawn = noise.rows(rows["sample_id"], 32)
    assert (rows["input_ids"] == np.where(rows["is_noisy"], drawn, clean["input_ids"])).all()
    assert (rows["labels"] == rows["input_ids"]).all()
    assert (rows["clean_labels"] == clean["input_ids"]).all() and (rows["clean_input_ids"] == clean["input_ids"]).all()
    assert json.loads(data.info.description.splitlines()[-1])["noise"]["realised"] == {
        "rate": replaced.mean(), "n": 32 * len(data)}  # fmt: skip
    stream = load(alpha=0.5, protocol_kwargs={"placement": "replace"}, streaming=True)
    assert list(stream) == data.to_list() and stream.num_shards > 1


def test_settings_of_a_noise_of_its_own(load):
    noise = load_noise(load("boosted-documents", protocol_kwargs={"boost_mass": 0.5, "n_boost": 7, "exclude": None}))
    assert (noise.boost_mass, noise.n_boost, noise.exclude) == (0.5, 7, None)
    assert load_noise(load("gaussian_documents", protocol_kwargs={"std": 3.0})).std == 3.0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"protocol": None}, ValueError, "alpha=0.05 is the share of noise documents, .* give r= or error_rate="),
        ({"alpha": None}, ValueError, "protocol='random-documents' takes alpha=0.05, a share of the mixture"),
        ({"alpha": None, "r": 0.5}, ValueError, "takes alpha=, the share of noise in the mixture; leave out r=0.5"),
        ({"error_rate": 0.5}, ValueError, "leave out error_rate=0.5"),
        ({"name": "r0.5"}, ValueError, "leave out r=0.5 .the configuration 'r0.5' brings it"),
        ({"alpha": 1.0}, ValueError, r"alpha must lie in \[0, 1\), got 1.0"),
        ({"alpha": "0.05"}, TypeError, "alpha must be a real number"),
        ({"protocol": "pink"}, ValueError, "one of gaussian-documents, .*, uniform-tokens, got 'pink'"),
        ({"protocol": "cyclic"}, ValueError, "protocol must be one of .*, got 'cyclic'"),
        ({"protocol": 3}, TypeError, "protocol must be a name, got 3"),
        ({"exclude_original": True}, TypeError, "'random-documents' has no setting exclude_original; it takes alpha"),
        ({"protocol_kwargs": {"colour": 1}}, TypeError, "'random-documents' has no setting colour; it takes alpha"),
        ({"protocol_kwargs": {"alpha": 1}}, TypeError, "has 'alpha', which is the setting alpha= itself"),
        ({"protocol_kwargs": {"vocab_size": 1}}, TypeError, "which is the setting tokenizer= itself"),
        ({"protocol_kwargs": 3}, TypeError, "protocol_kwargs must be settings by name"),
        ({"protocol_kwargs": {"placement": "shuffle"}}, ValueError, "placement must be .*append.*, got 'shuffle'"),
        ({"protocol_kwargs": {"placement": []}}, (TypeError, ValueError), r"placement must be .*got \[\]"),
        ({"protocol": "low-documents", "protocol_kwargs": {"boost": "none"}}, TypeError, "has no setting boost; it"),
        ({"protocol_kwargs": {"n_boost": 3}}, ValueError, 'n_boost and boost_mass need boost="random"'),
        ({"alpha": 1e-6}, CorpusError, "alpha=1e-06 of the 19.* tokens of the train .* is less than one token"),
        ({"alpha": 1e-6, "protocol_kwargs": {"placement": "interleave"}}, CorpusError, "of each of its shards, is"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(load, settings, error, message):
    with pytest.raises(error, match=message):
        load(**settings)


@given(n_clean=st.integers(0, 5000), alpha=st.floats(0, 0.9), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_number_of_added_rows_is_exact(n_clean, alpha, seed):
    noise = DocsNoisyConfig(protocol="random-documents", alpha=alpha, seed=seed).token_noise(50)
    n = noise.number_of_noise_rows(n_clean)
    assert abs(n - alpha / (1 - alpha) * n_clean) <= 0.5 + 1e-9
    assert named_noise("random-documents", ("documents",), alpha=alpha, seed=seed, vocab_size=50) == noise


def test_names_are_declared_by_the_noises():
    assert {*KINDS, "uniform-tokens"} == set(protocol_names("tokens", "documents"))
    assert list(protocol_names("labels")) == ["symmetric", "uniform_resample", "cyclic", "pairs"]
    for spelt in ("low-documents", "low_documents"):
        assert find_protocol(spelt, ("documents",)) == ("low-documents", RandomDocuments, {"boost": "low"})
    assert find_protocol("uniform_tokens", ("tokens",))[1] is UniformTokens
    with pytest.raises(ValueError, match="or human:<name>, got 'x'"):
        find_protocol("x", ("labels",), "human:<name>")


def test_spellings_of_one_noise_share_a_cache():
    def config_id(**settings):
        config = DocsNoisyConfig(**settings)
        return config.create_config_id({"x": 1})

    assert config_id(r=1.0) == config_id(error_rate=0.5, protocol="uniform_tokens")
    one = config_id(protocol="low-documents", alpha=0.5, protocol_kwargs={"n_boost": 7, "boost_mass": 0.5})
    assert one == config_id(protocol="low_documents", alpha=0.5, protocol_kwargs={"boost_mass": 0.5, "n_boost": 7})
    assert one != config_id(protocol="low-documents", alpha=0.5, protocol_kwargs={"boost_mass": 0.5, "n_boost": 8})
    assert one != config_id(protocol="low-documents", alpha=0.4, protocol_kwargs={"boost_mass": 0.5, "n_boost": 7})


@pytest.mark.parametrize("kwargs", [None, {"placement": "replace"}])
def test_a_published_folder_tells_of_its_documents(tmp_path, corpus, kwargs, monkeypatch):
    from datasets import load_dataset_builder

    from hf_noise.studies.publishing.run import write

    builder = load_dataset_builder(
        NAME, protocol="low-documents", alpha=0.25, source=corpus, block_size=32, cache_dir=str(tmp_path / "cache"),
        protocol_kwargs=kwargs, validation_fraction=0.1,
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(folder=tmp_path / "out", name=NAME, num_proc=None, push_to_hub=None, license=None,
                              language=None, seed=0)  # fmt: skip
    args.folder.mkdir()
    write(args, {"alpha0.25": builder}, [])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "documents of random tokens put in on purpose" in card and "`alpha` is the share of noise in the" in card
    entropy = load_noise(builder.as_dataset()["train"]).entropy  # of a token of noise, nats
    assert f"| `alpha0.25` | random_documents (low) | 0.25 | {entropy:.4f} |" in card and "`r` counts" not in card
    assert ("the truth stands beside it" in card) == (kwargs is not None)
    assert "a document of it is the same in every epoch" in card and (tmp_path / "out" / "tokenizer").is_dir()
    noise = load_noise(tmp_path / "out")
    assert noise.alpha == 0.25 and noise.boost == "low"
    rows = load_dataset(str(tmp_path / "out"), "alpha0.25", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.to_list() == builder.as_dataset(split="train").to_list()


def test_ids_of_added_rows_follow_those_of_the_last_shard(load):
    ids = np.array(load()["sample_id"])
    shards = np.unique(ids >> 40)
    is_added = ids >= first_sample_id("train", int(shards.max()))
    assert (np.diff(ids[is_added]) == 1).all() and ids[is_added][0] == first_sample_id("train", int(shards.max()))


def test_corrupt_puts_documents_in_the_place_of_rows():
    noise = RandomDocuments(alpha=0.5, vocab_size=50, placement="replace")
    tokens = [list(range(i % 5 + 1)) for i in range(60)]
    rows = Dataset.from_dict({"input_ids": tokens})
    noisy = corrupt(rows, noise, "input_ids")
    replaced = noise.replaced(np.arange(60))
    for row, clean, is_replaced, number in zip(noisy, tokens, replaced, range(60)):
        assert row["clean_input_ids"] == clean and row["is_noisy"] == [is_replaced] * len(clean)
        assert row["input_ids"] == (noise.rows(number, len(clean)).tolist() if is_replaced else clean)
    told = json.loads(noisy.info.description.splitlines()[-1])["noise"]["realised"]
    lengths = np.array([len(row) for row in tokens])  # tokens are counted
    assert told == {"rate": lengths[replaced].sum() / lengths.sum(), "n": lengths.sum()} and load_noise(noisy) == noise
    with pytest.raises(ValueError, match="have 1 to 5 tokens, and the share alpha counts rows of one length"):
        corrupt(rows, RandomDocuments(alpha=0.5, vocab_size=50), "input_ids")
    with pytest.raises(ValueError, match="beside column 'input_ids' there is 'labels', which would stay clean; remove"):
        corrupt(rows.add_column("labels", tokens), noise, "input_ids")
