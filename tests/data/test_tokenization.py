"""Names of tokenizers, and what makes two of them the same."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from hf_noise.data.embedded import embedded_tokenizer
from hf_noise.data.tokenization import find_tokenizer, tokenizer_identity


def test_names():
    assert len(find_tokenizer("embedded")) == 2048
    assert len(find_tokenizer("embedded:300")) == 300
    tokenizer = embedded_tokenizer(300)
    assert find_tokenizer(tokenizer) is tokenizer


def test_folder(tmp_path):
    tokenizer = embedded_tokenizer(300)
    tokenizer.save_pretrained(tmp_path)
    assert find_tokenizer(tmp_path)("some text")["input_ids"] == tokenizer("some text")["input_ids"]


def test_gpt2(shared_data):
    tokenizer = find_tokenizer(str(shared_data / "gpt2-tokenizer"))
    assert len(tokenizer) == 50257 and tokenizer.eos_token_id == 50256


def test_identity_is_that_of_the_content(tmp_path):
    embedded_tokenizer(300).save_pretrained(tmp_path)
    assert tokenizer_identity(find_tokenizer(str(tmp_path))) == tokenizer_identity(embedded_tokenizer(300))
    assert tokenizer_identity(embedded_tokenizer(301)) != tokenizer_identity(embedded_tokenizer(300))


@pytest.mark.parametrize("name", ["embedded:", "embedded:many", "embedded:-5"])
def test_bad_embedded_size(name):
    with pytest.raises(ValueError, match="embedded:<vocabulary size>"):
        find_tokenizer(name)


@pytest.mark.parametrize("name", ["/no/such/folder", "nobody/nothing"])
def test_missing(name):
    with pytest.raises(OSError, match=f"(?s){name}.*without a network, give tokenizer="):
        find_tokenizer(name)


def test_no_end_of_text():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=embedded_tokenizer(300).backend_tokenizer)
    with pytest.raises(ValueError, match="no end-of-text"):
        find_tokenizer(tokenizer)


def test_not_a_tokenizer():
    with pytest.raises(TypeError, match="got int"):
        find_tokenizer(5)
