"""Folders of the cache are whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from hf_noise.data import cache
from hf_noise.data.cache import build_once, cache_root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_NOISE_CACHE", str(tmp_path / "cache"))


def test_root_follows_the_environment(tmp_path, monkeypatch):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("HF_NOISE_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert cache_root() == tmp_path / "hf/hf_noise", "beside the caches of Hugging Face's libraries"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg/hf_noise"
    monkeypatch.delenv("XDG_CACHE_HOME")
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


def test_what_a_killed_process_left_is_swept_and_nothing_else():
    """A process is killed in its build; another is alive in its own, and a third was on another machine."""
    code = (
        "import sys, time; from hf_noise.data.cache import build_once\n"
        "def build(folder):\n    (folder / 'half').write_text('x'); print(folder, flush=True); time.sleep(60)\n"
        "build_once('some/thing', build)"
    )
    start = lambda: subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)  # noqa: E731
    killed, alive = start(), start()
    try:
        left, kept = (process.stdout.readline().strip() for process in (killed, alive))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        elsewhere = cache_root() / "some" / f".thing-another.machine-{killed.pid}-abc"
        mine = cache_root() / "some" / ".hidden"
        elsewhere.mkdir()
        mine.mkdir()
        assert str(killed.pid) in left and os.path.isdir(left)
        build_once("some/other", lambda folder: None)
        assert [os.path.isdir(folder) for folder in (left, kept, elsewhere, mine)] == [False, True, True, True]
    finally:
        alive.kill()
        alive.wait()
    build_once("some/third", lambda folder: None)
    assert not os.path.isdir(kept)


def test_a_name_with_dashes_and_numbers_is_no_process():
    # The part of the name before the last but one number is free: embedded/bpe-2048-<hash>.
    build_once("some/bpe-2048-99999999-x", lambda folder: None)
    folder = cache_root() / "some" / f".bpe-2048-{cache._machine()}-{os.getpid()}-abc"
    folder.mkdir()
    build_once("some/again", lambda folder: None)
    assert folder.is_dir() and (cache_root() / "some/bpe-2048-99999999-x").is_dir()
