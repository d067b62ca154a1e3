"""The embedded task of topics: what its passages, classes and splits are."""

from __future__ import annotations

import pytest
from datasets import load_dataset

from hf_noise.data.embedded import docs_text
from hf_noise.data.passages import docs_topics_files, docs_topics_identity


@pytest.fixture(scope="module")
def splits():
    return load_dataset("parquet", data_files={split: docs_topics_files(split) for split in ("train", "test")})


def test_ten_modules_with_many_passages_each(splits):
    classes = splits["train"].features["label"].names
    assert len(classes) == 10 and classes == sorted(classes) and "reference" in classes
    for split in splits.values():
        assert set(split["label"]) == set(range(10))
    assert 800 < len(splits["train"]) < 2500 and 0.2 < len(splits["test"]) / len(splits["train"]) < 0.5


def test_no_passage_is_on_both_sides_and_all_are_of_the_text(splits):
    train, test = (list(splits[split]["text"]) for split in ("train", "test"))
    assert len({*train, *test}) == len(train) + len(test)
    text = "\n\n".join(docs_text("train") + docs_text("validation"))
    assert all(one in text for one in test[:50])
    assert all(120 <= len(one) <= 1000 for one in train)


def test_it_is_a_source_by_name(splits):
    import hf_noise

    found = hf_noise.load_dataset("hf_noise/noisy", source="embedded/docs-topics", column="label", r=1.0)
    assert found["test"]["label"][:] == splits["test"]["label"][:]
    assert 0.4 < sum(found["train"]["is_noisy"]) / len(found["train"]) < 0.6
    assert docs_topics_identity() == docs_topics_identity() and len(docs_topics_identity()) == 16
    with pytest.raises(ValueError, match="not 'validation'"):
        docs_topics_files("validation")
