"""Folders of the cache are whole or absent."""

from __future__ import annotations

import threading

import pytest

from hf_noise.data.cache import build_once, cache_root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_NOISE_CACHE", str(tmp_path / "cache"))


def test_root_follows_the_environment(tmp_path, monkeypatch):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("HF_NOISE_CACHE")
    assert cache_root().parts[-2:] == (".cache", "hf_noise")


def test_builds_once():
    builds = []

    def build(folder):
        builds.append(folder)
        (folder / "a").write_text("x")

    first, second = build_once("some/thing", build), build_once("some/thing", build)
    assert first == second == cache_root() / "some/thing"
    assert (first / "a").read_text() == "x" and len(builds) == 1
    assert [p.name for p in first.parent.iterdir()] == ["thing"]


def test_a_failed_build_leaves_nothing():
    def build(folder):
        (folder / "a").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_once("some/thing", build)
    assert list((cache_root() / "some").iterdir()) == []


def test_builders_that_start_together_agree():
    together = threading.Barrier(2)

    def build(folder):
        (folder / "a").write_text("same")
        together.wait(timeout=10)

    found = []
    threads = [threading.Thread(target=lambda: found.append(build_once("thing", build))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache_root() / "thing"] * 2
    assert [p.name for p in cache_root().iterdir()] == ["thing"]
    assert (found[0] / "a").read_text() == "same"
