"""The commit of a data set on the Hub, with and without an answer."""

from __future__ import annotations

import types

import huggingface_hub
import pytest

from hf_noise.data.hub_revision import _asked, hub_revision
from hf_noise.data.sources import find_source

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Says what the Hub will answer: a commit, or an error."""
    monkeypatch.setenv("HF_NOISE_CACHE", str(tmp_path))
    asked = []

    def answer(what):
        def dataset_info(self, name, timeout):
            asked.append(name)
            if isinstance(what, Exception):
                raise what
            return types.SimpleNamespace(sha=what)

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        _asked.cache_clear()
        return asked

    yield answer
    _asked.cache_clear()


def test_a_commit_is_part_of_the_identity_and_read_alone(answer):
    seen = set()
    for commit in (FIRST, SECOND):
        asked = answer(commit)
        source = find_source("owner/name", "some")
        assert source.options == {"name": "some", "revision": commit} and commit in source.identity
        seen.add(source.identity)
        assert find_source("owner/name", "some").identity == source.identity
    assert len(seen) == 2 and asked == ["owner/name"] * 2  # one answer serves a load


@pytest.mark.parametrize("error", [ConnectionError("down"), ValueError("no name"), TimeoutError()])
def test_without_an_answer_it_is_the_last_one_seen(answer, error):
    answer(error)
    assert hub_revision("owner/name") is None
    assert find_source("owner/name").options == {"name": None}
    answer(FIRST)
    assert hub_revision("owner/name") == FIRST
    answer(error)
    assert hub_revision("owner/name") == FIRST and hub_revision("owner/other") is None


def test_another_hub_has_other_commits(answer, monkeypatch):
    answer(FIRST)
    assert hub_revision("owner/name") == FIRST
    answer(ConnectionError())
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_revision("owner/name") is None
