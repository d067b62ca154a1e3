"""BLEU, chrF and ROUGE: answers of their own libraries, worked out by hand where that can be done."""

from __future__ import annotations

import builtins
import math

import pytest

from hf_noise.metrics import sequence_scores


@pytest.mark.parametrize(("missing", "told"), [("sacrebleu", "BLEU and chrF take"), ("rouge_score", "ROUGE takes")])
def test_without_its_library_it_says_what_to_install(monkeypatch, missing, told):
    if missing == "rouge_score":
        pytest.importorskip("sacrebleu")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf'{told}.*; pip install "hf_noise\[sequences\]"'):
        sequence_scores(["a"], ["a"])


def test_by_hand():
    pytest.importorskip("sacrebleu"), pytest.importorskip("rouge_score")
    found = sequence_scores(["the cat sat on the mat today", "no"], ["the cat sat on the mat", "yes"])
    assert set(found) == {"bleu", "chrf", "rouge1", "rouge2", "rougeL"}
    # 8 words for 7: 6, 5, 4, 3 of 8, 6, 5, 4 n-grams are right, and the output is no shorter.
    assert found["bleu"]["value"] == pytest.approx(100 * math.prod((6 / 8, 5 / 6, 4 / 5, 3 / 4)) ** 0.25)
    # F1 of 6 of 7 words and 6 of 6, and of nothing.
    assert found["rouge1"]["value"] == found["rougeL"]["value"] == pytest.approx(100 * (12 / 13) / 2)
    assert found["rouge2"]["value"] == pytest.approx(100 * (10 / 11) / 2)
    assert all(0 <= score["value"] <= 100 and score["n"] == 2 for score in found.values())
    assert "version" in found["bleu"]["signature"] and "nc:6" in found["chrf"]["signature"]


@pytest.mark.parametrize(
    ("predictions", "references", "error", "message"),
    [
        (["a"], [], ValueError, "as many, one at least, got 1 and 0"), ([], [], ValueError, "got 0 and 0"),
        ("a", ["a"], TypeError, "predictions must be a list of texts"), (["a"], [["a"]], TypeError, r"references\[0\]"),
    ],
)  # fmt: skip
def test_other_than_texts_is_refused(predictions, references, error, message):
    with pytest.raises(error, match=message):
        sequence_scores(predictions, references)
