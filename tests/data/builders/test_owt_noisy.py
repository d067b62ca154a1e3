"""OpenWebText by default, any text by `source=`, with defaults that follow it."""

from __future__ import annotations

import pytest
from datasets import load_dataset, load_dataset_builder

from hf_noise.data.builders.owt_noisy import OPENWEBTEXT, OwtNoisyConfig

NAME = "hf_noise/owt-noisy"


def test_defaults_follow_the_source(corpus):
    hub, local = OwtNoisyConfig(r=0.5), OwtNoisyConfig(r=0.5, source=corpus)
    assert hub.source == OPENWEBTEXT and hub.block_size == 1024
    assert (hub.tokenizer_choice(), hub.held_out()) == ("openai-community/gpt2", 0.0005)
    assert (local.tokenizer_choice(), local.held_out()) == ("embedded", 0.01)
    assert OwtNoisyConfig(r=0.5, validation_fraction=0.2).held_out() == 0.2
    assert OwtNoisyConfig(r=0.5, tokenizer="embedded:300").tokenizer_choice() == "embedded:300"


def test_without_a_network_the_remedy_is_named():
    with pytest.raises(ConnectionError, match="'Skylion007/openwebtext'.*source= a local file"):
        load_dataset(NAME, r=0.5, tokenizer="embedded")
    with pytest.raises(OSError, match="(?s)'openai-community/gpt2'.*tokenizer="):
        load_dataset(NAME, r=0.5)


def test_embedded_source():
    builder = load_dataset_builder(NAME, r=0.5, source="embedded/docs-text")
    assert builder.vocab_size() == 2048


def test_web_text(shared_data):
    source = str(shared_data / "web_text-validation.parquet")
    rows = load_dataset(NAME, r=0.5, source=source, validation_fraction=0.2, split="train")
    stream = load_dataset(NAME, r=0.5, source=source, validation_fraction=0.2, split="train", streaming=True)
    assert rows.num_rows > 50 and list(stream.take(5)) == rows.select(range(5)).to_list()


def test_web_text_streams_with_the_tokenizer_of_gpt2(shared_data):
    source, tokenizer = str(shared_data / "web_text-train.parquet"), str(shared_data / "gpt2-tokenizer")
    stream = load_dataset(NAME, r=1, source=source, tokenizer=tokenizer, split="train", streaming=True)
    row = next(iter(stream))
    assert len(row["labels"]) == 1024 and 2048 < max(row["input_ids"]) <= 50256 and stream.num_shards > 1
