"""Names of tokenizers, and what makes two of them the same."""

from __future__ import annotations

import numpy as np
import pytest
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from hf_noise.data.embedded import embedded_tokenizer
from hf_noise.data.tokenization import find_tokenizer, tokenizer_identity, vocabulary_size


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
    used = embedded_tokenizer(300)
    used("a text", truncation=True, max_length=2)
    assert tokenizer_identity(used) == tokenizer_identity(embedded_tokenizer(300)), "a call leaves its settings behind"


def test_identity_of_a_tokenizer_without_a_backend_is_that_of_its_files():
    first, again, other = map(tokenizer_identity, (ByT5Tokenizer(), ByT5Tokenizer(), ByT5Tokenizer(extra_ids=10)))
    assert first == again != other


class Reversed(PreTrainedTokenizerFast):
    """Has the backend of another tokenizer and encodes as it likes."""


def test_identity_of_a_class_of_ones_own_is_its_own():
    backend = embedded_tokenizer(300).backend_tokenizer
    made = [kind(tokenizer_object=backend, eos_token="<|endoftext|>") for kind in (PreTrainedTokenizerFast, Reversed)]
    assert tokenizer_identity(made[0]) != tokenizer_identity(made[1])


def words(ids):
    """A tokenizer of words with these ids."""
    backend = Tokenizer(models.WordLevel({f"w{i}": i for i in ids}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="w0", unk_token="w0")


@pytest.mark.parametrize(("ids", "size"), [(range(5), 5), ([0, 3, 7], 8), ([0, 141], 142)])
def test_the_size_of_a_vocabulary_is_its_largest_id_plus_one(ids, size, caplog):
    assert vocabulary_size(words(ids)) == size
    told = [record.getMessage() for record in caplog.records]
    gap = f"{size - len(ids)} of the ids 0 to {size - 1} belong to no token of the tokenizer ''; noise draws from all"
    assert told == ([] if len(ids) == size else [f"{gap} {size}"])


def test_added_tokens_count(caplog):
    tokenizer = words([0, 1, 2])
    tokenizer.add_tokens([AddedToken("new"), AddedToken("newer", special=True)])
    assert vocabulary_size(tokenizer) == 5 == len(tokenizer) and not caplog.records
    gaps = words([0, 1, 9])
    gaps.add_tokens(["new"])  # takes an id that is free, or the next one
    assert vocabulary_size(gaps) == max(gaps.get_vocab().values()) + 1 > len(gaps)


def test_a_folder_that_is_there_goes_before_the_names_of_embedded_tokenizers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    embedded_tokenizer(np.int64(300)).save_pretrained("embedded/tok")
    assert len(find_tokenizer("embedded/tok")) == 300 and len(find_tokenizer("embedded")) == 2048
    with pytest.raises(ValueError, match="embedded:<vocabulary size>"):
        find_tokenizer("embedded/other")


@pytest.mark.parametrize("name", ["embedded:", "embedded:many", "embedded:-5"])
def test_bad_embedded_size(name):
    with pytest.raises(ValueError, match="embedded:<vocabulary size>"):
        find_tokenizer(name)


def test_missing():
    with pytest.raises(OSError, match="(?s)nobody/nothing.*without a network, give tokenizer="):
        find_tokenizer("nobody/nothing")


@pytest.mark.parametrize("name", ["/no/such", "./missing", "../missing", "~/missing", "a/b/c", "missing.json", ""])
def test_a_path_that_is_not_there_fails_before_the_hub_is_asked(name, monkeypatch):
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_: pytest.fail("asked"))
    with pytest.raises(FileNotFoundError, match=f"no folder tokenizer='{name}' .searched from"):
        find_tokenizer(name)


@pytest.mark.parametrize("content", ["{}", "", "no json", '{"model": {"type": "BPE"}}'])
def test_a_folder_with_broken_files_is_named(tmp_path, content):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(content)
    with pytest.raises(OSError, match=f"(?s){tmp_path}.*could not be loaded"):
        find_tokenizer(tmp_path)


def test_a_checkpoint_without_tokenizer_files_has_none(tmp_path):
    """Of its config.json alone transformers makes a tokenizer that knows no word."""
    transformers.GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(OSError, match="there is no tokenizer in .*give tokenizer= a folder with tokenizer files"):
        find_tokenizer(str(tmp_path))


def test_no_end_of_text():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=embedded_tokenizer(300).backend_tokenizer)
    with pytest.raises(ValueError, match="no end-of-text"):
        find_tokenizer(tokenizer)


def test_a_separator_ends_a_text_where_nothing_else_does(tmp_path):
    """As of BERT's tokenizer, by its name; who hands over an object says it there."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "bert")
    assert find_tokenizer(tmp_path / "bert").eos_token_id == words.index("[SEP]")
    with pytest.raises(ValueError, match="no end-of-text"):
        find_tokenizer(tokenizer)


def test_not_a_tokenizer():
    with pytest.raises(TypeError, match="got int"):
        find_tokenizer(5)
