"""A tokenizer of pairs and what it makes of them: targets with their end, empty and long ones counted and named."""

from __future__ import annotations

import logging

import pytest
from datasets import Dataset
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5Tokenizer

from hf_noise.data.pair_tokens import pair_tokenizer, tokenize_pairs

ROWS = [
    {"source": "the cat sat on the mat", "target": "die Katze", "clean_target": "die Katze saß", "is_noisy": True},
    {"source": "a dog", "target": "ein Hund", "clean_target": "ein Hund", "is_noisy": False},
]


@pytest.fixture(scope="module")
def tokenizer():
    return pair_tokenizer(ROWS, 262)


def test_any_text_comes_back_and_ends(tokenizer, tmp_path):
    assert len(tokenizer) == 262 and (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    for text in ("the cat", "Ünïcödé 漢字 🙂", " two  spaces"):
        ids = tokenizer(text).input_ids
        assert ids[-1] == 1 and 1 not in ids[:-1]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert tokenizer(text_target=text).input_ids == ids
    assert set(tokenizer("the")) == {"input_ids", "attention_mask"}
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("die Katze").input_ids == tokenizer("die Katze").input_ids


def test_it_learns_from_clean_targets():
    """The teacher's are in `target`: of the two texts only the clean one becomes a token."""
    noisy = pair_tokenizer([{"source": "x", "target": "zzzzzzzz", "clean_target": "yyyyyyyy"}] * 2, 259)
    assert "yy" in noisy.get_vocab() and "zz" not in noisy.get_vocab()
    assert "zz" in pair_tokenizer([("x", "zzzzzzzz")] * 2, 259).get_vocab()


def test_columns_of_tokens(tokenizer):
    made = tokenize_pairs(Dataset.from_list([row | {"teacher_nll": 2.5} for row in ROWS]), tokenizer)
    assert set(made.column_names) == {"input_ids", "labels", "clean_labels", "is_noisy", "sample_id", "teacher_nll"}
    assert made["sample_id"][:] == [0, 1] and made["is_noisy"][:] == [True, False]
    for row, text in zip(made, ROWS):
        for name, column in (("input_ids", "source"), ("labels", "target"), ("clean_labels", "clean_target")):
            assert row[name] == tokenizer(text[column]).input_ids


def test_long_texts_are_cut_only_when_told(tokenizer, caplog):
    pairs = Dataset.from_list([{**row, "sample_id": 7 + i} for i, row in enumerate(ROWS)])
    n = len(tokenizer(ROWS[0]["source"]).input_ids)
    told = rf"1 of 2 rows \(50.00%\) have a source of more than 8 tokens, the longest {n} \(sample_id 7\); truncate="
    with pytest.raises(ValueError, match=told):
        tokenize_pairs(pairs, tokenizer, max_source_tokens=8)
    with caplog.at_level(logging.WARNING):
        made = tokenize_pairs(pairs, tokenizer, max_source_tokens=8, truncate=True)
    assert "1 of 2 rows (50.00%) have a source of more than 8 tokens and were cut there" in caplog.text
    assert made[0]["input_ids"] == tokenizer(ROWS[0]["source"]).input_ids[:7] + [1]
    assert made[1]["labels"] == tokenizer(ROWS[1]["target"]).input_ids


def test_empty_texts_are_counted_and_named(tokenizer):
    rows = [*ROWS, {**ROWS[0], "source": " "}]
    with pytest.raises(ValueError, match="1 of 3 rows have an empty source, the first is sample_id 2"):
        tokenize_pairs(Dataset.from_list(rows), tokenizer)
    with pytest.raises(ValueError, match="1 of 2 rows have an empty target, the first is sample_id 1"):
        tokenize_pairs(Dataset.from_list([ROWS[0], {**ROWS[1], "target": ""}]), tokenizer)
    # A teacher may end at once: then the end is all it wrote.
    made = tokenize_pairs(Dataset.from_list([{**ROWS[0], "target": ""}, ROWS[1]]), tokenizer)
    assert made[0]["labels"] == [1]


def test_few_pairs_have_as_many_tokens_as_they_yield():
    found = pair_tokenizer(ROWS)
    assert 258 <= len(found) < 32_000 and len(found) == len(pair_tokenizer(ROWS, len(found)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: pair_tokenizer(ROWS, 257), ValueError, "vocab_size must be at least 258"),
        (lambda t: pair_tokenizer(ROWS, 5000), ValueError, "these pairs yield at most .* vocab_size=5000 is too large"),
        (lambda t: pair_tokenizer(ROWS, 300.0), TypeError, "vocab_size must be a whole number"),
        (lambda t: pair_tokenizer([("a", None)], 300), TypeError, "pair 0 has no text as its target"),
        (lambda t: pair_tokenizer("text", 300), TypeError, "pairs must be rows with source and target"),
        (lambda t: tokenize_pairs(ROWS, t), TypeError, "dataset must be a datasets.Dataset"),
        (lambda t: tokenize_pairs(Dataset.from_list([{"source": "a"}]), t), ValueError, "no column target"),
        (lambda t: tokenize_pairs(Dataset.from_list(ROWS), t, max_target_tokens=1), TypeError, "max_target_tokens"),
        (lambda t: tokenize_pairs(Dataset.from_list([{"source": "a", "target": None}]), t), ValueError, "is no text"),
    ],
)
def test_what_is_no_pair_is_refused_by_name(tokenizer, call, error, message):
    with pytest.raises(error, match=message):
        call(tokenizer)


def test_a_text_that_speaks_of_special_tokens_has_its_letters(tokenizer):
    """They were the tokens themselves: a target that ended in its middle, and a source with padding."""
    text = "a <pad> and </s> on"
    made = tokenize_pairs(Dataset.from_dict({"source": [text], "target": [text]}), tokenizer)[0]
    for ids in (made["input_ids"], made["labels"]):
        assert 0 not in ids and ids.index(1) == len(ids) - 1 and tokenizer.decode(ids[:-1]) == text
    assert tokenizer(text).input_ids != made["labels"]  # for others the tokenizer is as it was


def test_pieces_that_are_spelled_like_an_end_are_refused_and_counted():
    """The pieces of T5 hold "</s>" itself, so that splitting leaves it whole."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), ("a", -1.0)]
    t5 = T5Tokenizer(vocab=pieces, extra_ids=0)
    rows = Dataset.from_dict({"source": ["a", "a </s> a", "<pad> a"], "target": ["a", "a", "a"]})
    assert tokenize_pairs(rows.select([0]), t5)[0]["labels"][-1] == t5.eos_token_id
    with pytest.raises(ValueError, match="2 of 3 rows have a source whose letters .* the first is sample_id 1"):
        tokenize_pairs(rows, t5)


def test_an_end_token_that_the_tokenizer_does_not_write_is_written_behind_each():
    """Where it is a token of texts too, "a.b" had none, as there was one in the last but one place."""
    bare = pair_tokenizer(ROWS, 262)
    bare.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    dot = bare.convert_tokens_to_ids(".")
    other = PreTrainedTokenizerFast(tokenizer_object=bare.backend_tokenizer, eos_token="!", pad_token="<pad>")
    other.eos_token_id = dot
    made = tokenize_pairs(Dataset.from_dict({"source": ["a b"], "target": ["a"]}), other)[0]
    assert made["input_ids"] == [*other("a b").input_ids, dot] and made["labels"] == [*other("a").input_ids, dot]
    with pytest.raises(ValueError, match="1 of 1 rows have a target whose letters this tokenizer takes for its own"):
        tokenize_pairs(Dataset.from_dict({"source": ["a"], "target": ["a.b"]}), other)


def test_tokens_that_a_teacher_chose_are_the_labels_as_they_are(tokenizer):
    tokens, text = tokenizer, ["data noise", "data noise", "data"]
    rows = Dataset.from_dict({"source": text, "target": text, "target_ids": [[70, 71, 72], None, [70, 1]]})
    made = tokenize_pairs(rows, tokens)
    assert made["labels"][:] == [[70, 71, 72], tokens("data noise").input_ids, [70, 1]]
    assert "target_ids" not in made.column_names
    limits = {"max_source_tokens": 64, "max_target_tokens": 2}
    with pytest.raises(ValueError, match="2 of 3 rows .* have a target of more than 2 tokens"):
        tokenize_pairs(rows, tokens, **limits)
    assert tokenize_pairs(rows, tokens, truncate=True, **limits)[0]["labels"] == [70, 71]
    for wrong in ([], [-1]):
        with pytest.raises(ValueError, match="target_ids of the row with sample_id 0 must be tokens"):
            tokenize_pairs(rows.select([0]).remove_columns("target_ids").add_column("target_ids", [wrong]), tokens)
