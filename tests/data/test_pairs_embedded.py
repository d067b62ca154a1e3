"""The embedded pairs: two tasks with the same targets in the same rows, and splits that share nothing."""

from __future__ import annotations

import ast

import pytest

from hf_noise.data.pairs_embedded import _halves, _named_docstrings, docs_pairs, docs_pairs_files, docs_pairs_identity

SPLITS = ("train", "validation", "test")


def test_both_contexts_have_the_same_targets_in_the_same_rows():
    sizes = []
    for split in SPLITS:
        (bodies, targets), (names, others) = docs_pairs(split, "rich"), docs_pairs(split, "sparse")
        assert targets == others and len(bodies) == len(names) == len(targets)
        assert all(map(str.strip, bodies + names + targets))
        assert sum(map(len, bodies)) > 5 * sum(map(len, names))
        sizes.append(len(targets))
    assert sizes[0] > 1500 and min(sizes[1:]) > 100


def test_no_target_name_or_body_is_in_two_rows():
    for column in (0, 1):
        for context in ("rich", "sparse"):
            texts = [text for split in SPLITS for text in docs_pairs(split, context)[column]]
            assert len(set(texts)) == len(texts)


def test_a_docstring_is_cut_after_its_first_sentence():
    assert _halves("Return e.g. This\none. More.\n\nBody.") == ("Return e.g. This one.", "More.\n\nBody.")
    assert _halves("Only one sentence") == ("Only one sentence", "")
    code = 'class A:\n    "Of A."\n    def f(self):\n        "Of f."\n        def g(): "Of g."\n'
    found = [("m.A", "Of A."), ("m.A.f", "Of f."), ("m.A.f.g", "Of g.")]
    assert list(_named_docstrings(ast.parse(code), "m")) == found


def test_names_are_checked():
    assert docs_pairs_identity() == docs_pairs_identity() and len(docs_pairs_identity()) == 16
    with pytest.raises(ValueError, match="has the splits 'train', 'validation', 'test', not 'dev'"):
        docs_pairs_files("dev")
    with pytest.raises(ValueError, match='context must be "rich" or "sparse", got 3'):
        docs_pairs("train", 3)
