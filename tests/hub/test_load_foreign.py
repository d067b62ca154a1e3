"""`load_noise` on data sets in memory, and on what somebody else wrote: broken, foreign, too deep, too large."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_noise
from hf_noise.hub import reading
from hf_noise.hub.load import load_noise
from hf_noise.noise import LabelFlips, UniformTokens
from hf_noise.noise.block import as_noise

FLIPS = LabelFlips.symmetric(ratio=0.5, num_classes=3, seed=2, redraw="never")


@pytest.fixture
def rows():
    return datasets.Dataset.from_dict({"label": np.arange(30) % 3})


def described(rows, noise):
    """As a builder leaves its rows."""
    rows = rows.select(range(len(rows)))
    rows.info.description = "Text.\n\n" + json.dumps({"noise": noise.to_dict() | {"realised": {"rate": 0.3, "n": 30}}})
    return rows


def test_a_data_set_says_its_noise(rows):
    noisy = described(rows, FLIPS)
    for form in (noisy, datasets.DatasetDict(train=noisy, test=rows), {"train": noisy}):
        assert hf_noise.load_noise(form) == FLIPS
    for split in ("train", None):  # Dataset and DatasetDict, and both as streams
        for streaming in (False, True):
            built = hf_noise.load_dataset(
                "hf_noise/digits-noisy", r=1.0, protocol="cyclic", seed=3, split=split, streaming=streaming
            )
            noise = hf_noise.load_noise(built)
            assert (noise.kind, noise.ratio, noise.seed) == ("cyclic", 1.0, 3)


def test_a_data_set_without_noise_or_with_two(rows):
    with pytest.raises(ValueError, match="the data set states no noise: .*info.description"):
        load_noise(rows)
    other = LabelFlips.cyclic(ratio=0.5, num_classes=3)
    splits = {"a": described(rows, FLIPS), "b": described(rows, other)}
    with pytest.raises(ValueError, match="the splits state different noise .*'a': .*'b': .*pass one of them"):
        load_noise(datasets.DatasetDict(splits))
    noisy = [described(rows, noise) for noise in (FLIPS, other, FLIPS)]
    for joined in (datasets.concatenate_datasets(noisy[:2]), datasets.concatenate_datasets(noisy[1:])):
        with pytest.raises(ValueError, match="states several noises, .*'cyclic'.*put together"):
            load_noise(joined)
    assert load_noise(datasets.concatenate_datasets(noisy[::2])) == FLIPS
    with pytest.raises(ValueError, match="config_name belongs to a path or repository"):
        load_noise(splits["a"], config_name="r0.5")
    with pytest.raises(ValueError, match="states no noise"):
        load_noise({})
    with pytest.raises(TypeError, match="got int under 'train'"):
        load_noise({"train": 3})
    rows.info.description = 'x\n{"noise": {"protocol"'
    with pytest.raises(ValueError, match="the description of the data set states a noise that cannot be read"):
        load_noise(rows)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [(None, TypeError, "got NoneType"), (3, TypeError, "got int"), (FLIPS, TypeError, "got LabelFlips"),
     ("", ValueError, "empty string"), ("a\0b", FileNotFoundError, "no existing path"),
     ("~nobody-of-this-name/x/y", FileNotFoundError, "no existing path")],
)  # fmt: skip
def test_what_is_no_place_at_all(wrong, error, message):
    with pytest.raises(error, match=message):
        load_noise(wrong)


#: Text of a README.md, and what is said of it. The file is always named.
CARDS = {
    "foreign text": ("noise: low", "the `noise` in .* is not of hf_noise: 'low'"),
    "foreign list": ("noise: [salt, pepper]", "is not of hf_noise"),
    "foreign mapping": ("noise: {sigma: 3}", "is not of hf_noise"),
    "number": ("noise: 0.5", "is not of hf_noise: 0.5"),
    "empty list": ("noise: []", "is not of hf_noise"),
    "unheard of": ("noise: {protocol: salt}", "unknown noise protocol 'salt'"),
    "wrong types": ("noise: {protocol: uniform_tokens, config: {protocol: uniform_tokens, version: 1, ratio: [1],"
                    " vocab_size: x}}", "must be"),
    "config is text": ("noise: {protocol: uniform_tokens, config: 3}", "noise must be a noise or the dictionary"),
    "broken": ("noise: [a, {b", "cannot be read"),
    "two documents": ("a: 1\nb: - c", "cannot be read"),
    "tags": ("noise: !!python/object/apply:os.system ['touch pwned']", "cannot be read"),
    "no mapping": ("- a\n- b", "cannot be read"),
    "deep": (f"noise: {'[' * 500}", "nested too deeply|cannot be read"),
    "bomb": ("a: &a [x, x, x]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + b] * 9)}]\n" for b, c in zip("abcdefgh",
             "bcdefghi", strict=True)) + "noise: *i", "aliases repeat each other"),
    "merges": ("a: &a {k: 1}\n" + "".join(f"{c}: &{c} {{<<: [{', '.join(['*' + b] * 9)}]}}\n" for b, c in zip(
               "abcdefgh", "bcdefghi", strict=True)), "aliases repeat each other"),
    "circle": ("noise: &a [*a]", "aliases repeat each other"),
    "date": ("noise: 2020-01-01", "is not of hf_noise"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CARDS)
def test_cards_of_others(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metadata, message = CARDS[kind]
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n\n# Mine\n")
    for where in (tmp_path, tmp_path / "README.md"):
        with pytest.raises(ValueError, match=message) as raised:
            load_noise(where)
        assert "README.md" in str(raised.value)
    assert not (tmp_path / "pwned").exists()


def test_metadata_with_a_few_aliases_are_read(tmp_path, noise):
    config = json.dumps(noise.to_dict())
    (tmp_path / "README.md").write_text(f"---\nmine: &id001 {config}\nnoise: *id001\n---\n# Mine\n")
    assert load_noise(tmp_path) == noise


def test_a_foreign_entry_does_not_hide_our_own(tmp_path, record, noise):
    (tmp_path / "README.md").write_text("---\nnoise: low\n---\n")
    record.write(tmp_path / "record.json")
    assert load_noise(tmp_path) == noise


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("config.json", "[" * 100_000, "nested too deeply"),
     ("config.json", '{"hf_noise": "low"}', "must be noise.to_dict"),
     ("config.json", '{"hf_noise": {"protocol": ["x"]}}', "unknown noise protocol"),
     ("config.json", '{"hf_noise": {"protocol": "uniform_tokens", "version": 1, "ratio": {}, "vocab_size": 2}}',
      "ratio must be a real number"),
     ("model_index.json", "null", "holds a NoneType"), ("hf_noise.json", "3", "holds a int"),
     ("adapter_config.json", '{"hf_noise": 3}', "must be noise.to_dict"),
     ("record.json", "[" * 100_000, "nested too deeply"), ("record.json", '{"schema": "hf_noise.run/1"}', "missing"),
     ("dataset_info.json", '{"description": 3}', "states no noise"),
     ("dataset_info.json", '{"description": "{\\"noise\\": 3}"}', "cannot be read"),
     ("dataset_info.json", "{", "half-written"), ("config.json", "\udcff", "half-written"),
     ("README.md", "---\n\udcff\n---\n", "cannot be read")],
)  # fmt: skip
def test_files_of_others(name, text, message, tmp_path):
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message) as raised:
        load_noise(tmp_path)
    assert name in str(raised.value)


def test_large_and_strange_files(tmp_path, monkeypatch, record):
    monkeypatch.setattr(reading, "_LARGEST", 1000)
    for name in ("README.md", "config.json"):
        (tmp_path / name).write_text(" " * 2000)
        with pytest.raises(ValueError, match=rf"{name} has 2,000 bytes, more than 1,000"):
            load_noise(tmp_path / name)
    (tmp_path / "model.safetensors").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="model.safetensors is no card, configuration or record"):
        load_noise(tmp_path / "model.safetensors")
    line = record.to_json(indent=None)
    (tmp_path / "records.jsonl").write_text(f"{line}\n{line.replace('61.4', '62.5')}\n")
    with pytest.raises(ValueError, match="records.jsonl holds 2 records; pass the record.json of one run"):
        load_noise(tmp_path / "records.jsonl")


def test_a_foreign_repository_on_the_hub_is_named(client):
    from huggingface_hub import HfApi

    HfApi().create_repo("user/foreign")
    for name, content, message in (
        ("README.md", b"---\nnoise: low\n---\n", "not of hf_noise: 'low'"),
        ("config.json", b"[" * 100_000, "nested too deeply"),
    ):
        HfApi().upload_file(path_or_fileobj=content, path_in_repo=name, repo_id="user/foreign")
        with pytest.raises(ValueError, match=message) as raised:
            load_noise("user/foreign")
        assert name in str(raised.value) and "user" in str(raised.value)


numbers = st.booleans() | st.integers() | st.floats()
values = st.none() | numbers | st.text(max_size=5) | st.lists(numbers, max_size=3)
fields = st.sampled_from(list(UniformTokens(ratio=0.5, vocab_size=8).to_dict() | FLIPS.to_dict()))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([UniformTokens(ratio=0.5, vocab_size=8), FLIPS]), st.dictionaries(fields, values, max_size=3))
def test_any_block_gives_a_noise_or_an_error_of_its_value(noise, changed):
    block = json.loads(json.dumps(noise.to_dict())) | changed
    try:
        found = as_noise(block)
    except (ValueError, TypeError):
        return
    assert as_noise(found.to_dict()) == found
