"""The embedded corpus: real text, no leak between its splits, a tokenizer that is the same every time."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.data import embedded


@pytest.fixture(scope="module")
def tokenizer():
    return embedded.embedded_tokenizer()


def test_size_and_split():
    train, validation = embedded.docs_text("train"), embedded.docs_text("validation")
    characters = [sum(map(len, split)) for split in (train, validation)]
    assert 1.5e6 < sum(characters) < 5e6
    assert 0.03 < characters[1] / sum(characters) < 0.12
    assert min(map(len, train + validation)) >= 200
    assert any("Boolean operations" in text for text in train + validation)


def test_no_document_and_no_passage_is_on_both_sides():
    train, validation = embedded.docs_text("train"), embedded.docs_text("validation")
    assert len(set(train + validation)) == len(train) + len(validation)
    passages = [{p for text in split for p in text.split("\n\n") if len(p) >= 80} for split in (train, validation)]
    assert len(passages[1]) > 100 and not passages[0] & passages[1]


def test_unknown_split():
    with pytest.raises(ValueError, match='"train" and "validation", not \'test\''):
        embedded.docs_text("test")


def test_documents_are_extracted_the_same_way_twice(monkeypatch):
    files = [file for file in embedded._library_files() if file.name in ("ast.py", "topics.py", "turtle.py")]
    monkeypatch.setattr(embedded, "_library_files", lambda: files)
    documents = dict(embedded._documents())
    assert documents == dict(embedded._documents())
    assert {"ast", "turtle", "pydoc_data.topics/types"} <= set(documents)


def test_topics_are_read_without_importing():
    tree = ast.parse("x = 1\ntopics = {'b': 'one\\n', 'a': 'longer'}")
    assert list(embedded._topics(tree).items()) == [("a", "longer"), ("b", "one")]
    assert "pydoc_data.topics" not in sys.modules


def test_docstrings_are_cleaned():
    source = '"""Module."""\ndef f():\n    """One.\n\n        Two.\n          Three.\n    """\n\nclass A:\n    x = 1\n'
    tree = ast.parse(source)
    assert embedded._docstrings(tree) == ["Module.", "One.\n\nTwo.\n  Three."]


def test_repeated_passages_go_and_short_ones_stay():
    seen: set[str] = set()
    long = "word " * 20
    assert embedded._without_repetitions(f"Short.\n\n{long}x\n\nEnd.", seen) == f"Short.\n\n{long}x\n\nEnd."
    assert embedded._without_repetitions(f"Short.\n\n{long}x\n\nEnd.", seen) == "Short.\n\nEnd."


def test_training_is_deterministic_with_several_threads(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    texts = embedded.docs_text("train")[:60]
    first = embedded._train_bpe(texts, 400)
    code = (
        "from hf_noise.data import embedded; import sys;"
        "sys.stdout.write(embedded._train_bpe(embedded.docs_text('train')[:60], 400))"
    )
    other_process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert first == embedded._train_bpe(texts, 400) == other_process.stdout


def test_tokenizer(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == 2048
    assert tokenizer.eos_token == tokenizer.bos_token == tokenizer.unk_token == "<|endoftext|>"
    assert tokenizer.eos_token_id == 0
    assert len(embedded.embedded_tokenizer(300)) == 300
    text = embedded.docs_text("validation")[0]
    assert len(tokenizer(text)["input_ids"]) < len(text) / 2.5


@pytest.mark.parametrize("size", [256, 0, -1, True, 2.5, "300", None, 1 << 40, 10**30])
def test_sizes_of_a_vocabulary_that_cannot_be(size):
    with pytest.raises(ValueError, match="vocab_size"):
        embedded.embedded_tokenizer(size)


@given(text=st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_survives(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert not ids or max(ids) < len(tokenizer)


@pytest.mark.parametrize("size", [0, 256, 2.5, True])
def test_too_small_a_vocabulary(size):
    with pytest.raises(ValueError, match=">= 257"):
        embedded.embedded_tokenizer(size)


def test_too_large_a_vocabulary_leaves_no_cache(tmp_path, monkeypatch):
    texts = embedded.docs_text("train")[:3]
    monkeypatch.setattr(embedded, "docs_text", lambda split: texts)
    monkeypatch.setenv("HF_NOISE_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="yields at most"):
        embedded.embedded_tokenizer(100_000)
    assert list((tmp_path / "embedded").iterdir()) == []


def test_a_python_without_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_library_folder", lambda: tmp_path)
    monkeypatch.setenv("HF_NOISE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="source=path"):
        embedded.docs_text_files()
