"""One process at a time uses a folder, one run's settings belong to it, and nobody's files are taken away."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import time
from contextlib import contextmanager, suppress

import pytest

from hf_noise.atomic import fsync_folder, is_alive, sweep_temporaries, temporary_beside, write_atomic
from hf_noise.trainers.folders import LOCK_FILE, claim_folder, claimed, locked, refuse_other, release_folder

DEAD = 2**22 + 1  # above the largest number of a process


@contextmanager
def other_process(work):
    """A forked process that does `work(ready)` and waits after `ready()` until it is killed here."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            work(lambda: (os.write(writing, b"."), time.sleep(60)))
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"."
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def hold(folder):
    def work(ready):
        with locked(folder):
            ready()

    return work


def test_another_process_is_named_and_a_killed_one_is_no_hindrance(tmp_path):
    folder = tmp_path / "run"
    with other_process(hold(folder)) as child:
        for path in (folder, os.path.relpath(folder), tmp_path / "link"):
            if not os.path.exists(path):
                path.symlink_to(folder)
            named = f"in use by process {child} on this machine; wait until it has"
            with pytest.raises(BlockingIOError, match=named), locked(path):
                pass
        with pytest.raises(BlockingIOError, match="in use by process"), claimed(folder, {"ratio": 1}):
            pass
        assert {path.name for path in folder.iterdir()} == {LOCK_FILE}
    assert (folder / LOCK_FILE).exists(), "it was killed and could not remove it"
    with locked(folder):
        assert str(os.getpid()) in (folder / LOCK_FILE).read_text()
    assert list(folder.iterdir()) == []


def test_no_two_have_it_at_once(tmp_path):
    """The file of the lock comes and goes; whoever has opened one that is gone has nothing."""

    def contend():
        done = 0
        while done < 150:
            with suppress(BlockingIOError), locked(tmp_path):
                os.close(os.open(tmp_path / "alone", os.O_CREAT | os.O_EXCL))  # FileExistsError if it is not
                os.unlink(tmp_path / "alone")
                done += 1

    children = []
    for _ in range(3):
        if child := os.fork():
            children.append(child)
        else:
            status = 1
            try:
                contend()
                status = 0
            finally:
                os._exit(status)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_the_same_process_may_do_so_again_within(tmp_path):
    with locked(tmp_path):
        with locked(tmp_path / "x" / ".."), claimed(tmp_path, {}):
            pass
        assert (tmp_path / LOCK_FILE).exists()
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK_FILE).exists()


def test_children_of_a_killed_process_keep_nothing(tmp_path):
    """Workers of a DataLoader outlive their parent by seconds."""

    def work(ready):
        with locked(tmp_path):
            with locked(tmp_path):
                worker = os.fork()
            if worker:
                (tmp_path / "worker").write_text(str(worker))
                ready()
            else:
                time.sleep(60)

    with other_process(work):
        worker = int((tmp_path / "worker").read_text())
    try:
        os.kill(worker, 0)
        with locked(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_lock_of_another_machine_and_one_that_tells_nothing(tmp_path):
    descriptor = os.open(tmp_path / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # another description of the file excludes, in the same process too
    for told, named in (('{"process": 7, "machine": "node-3"}', "process 7 on node-3"), ("", "another process")):
        (tmp_path / LOCK_FILE).write_text(told)
        with pytest.raises(BlockingIOError, match=f"in use by {named};"), locked(tmp_path):
            pass
    os.close(descriptor)


def test_a_file_system_without_locks_is_said_and_nothing_else_is_hidden(tmp_path, monkeypatch, caplog):
    def refuse(number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        return flock

    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    with caplog.at_level(logging.WARNING), locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
    assert "cannot be locked (No locks available): see to it that no other process uses it" in caplog.text
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path):
        pass


def test_temporary_files_of_the_dead_are_swept_and_no_others(tmp_path):
    def half_written(name):
        (tmp_path / name).write_text("half")
        return name

    ours = temporary_beside(tmp_path / "record.json").name
    machine = ours.split(".")[-3]
    with other_process(lambda ready: ready()) as child:
        stays = [half_written(name) for name in (
            ours,
            f".run.json.{machine}.{child}.tmp",  # a living process
            f".run.json.0123abcd.{DEAD}.tmp",  # of another machine, where it may live
            ".figure.png.tmp", f"mine.{DEAD}.tmp", f".notes.{DEAD}.txt", ".x.12a.tmp",  # no temporary files of ours
        )]  # fmt: skip
        (tmp_path / f".folder.{DEAD}.tmp").mkdir()
        dead = [half_written(name) for name in (f".README.md.{machine}.{DEAD}.tmp", f".0000004.{DEAD}.tmp")]
        with locked(tmp_path):
            pass
        assert {path.name for path in tmp_path.iterdir()} == {*stays, f".folder.{DEAD}.tmp"}
        (tmp_path / dead[0]).write_text("half")
        assert sweep_temporaries(tmp_path) == dead[:1]
        os.kill(child, signal.SIGKILL)
        while is_alive(child):  # not waited for, its number is still taken
            time.sleep(0.001)
        assert sweep_temporaries(tmp_path) == [f".run.json.{machine}.{child}.tmp"]
    assert is_alive(1) and is_alive(os.getpid()) and not is_alive(DEAD) and not is_alive(10**30)


def test_what_is_written_is_on_the_disk_under_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    write_atomic(tmp_path / "a.json", "text")
    assert done == [str(temporary_beside(tmp_path / "a.json")), "replace", str(tmp_path)]

    def unknown(descriptor):
        raise OSError(errno.EINVAL, "not known here")

    monkeypatch.setattr(os, "fsync", unknown)
    fsync_folder(tmp_path)


def test_a_folder_belongs_to_one_setting(tmp_path):
    folder = tmp_path / "run"
    claim_folder(folder, {"ratio": 0.5, "layers": (1, 2)})
    claim_folder(folder, {"ratio": 0.5, "layers": [1, 2]})  # JSON knows no tuples
    before = (folder / "run.json").read_text()
    with pytest.raises(FileExistsError, match=r"other settings \(ratio, seed\); delete it or choose another folder"):
        claim_folder(folder, {"ratio": 1.0, "layers": [1, 2], "seed": 0})
    assert (folder / "run.json").read_text() == before
    for damage in ("", before[:5], "\0" * 20, "7"):
        (folder / "run.json").write_text(damage)
        with pytest.raises(ValueError, match="run.json is damaged, .* delete that file if the folder is this run's"):
            refuse_other(folder, {"ratio": 0.5})


def test_a_claim_is_given_back_unless_something_was_written(tmp_path):
    for folder, is_written in ((tmp_path / "empty", False), (tmp_path / "run", True)):
        with pytest.raises(KeyboardInterrupt), claimed(folder, {"ratio": 0.5}):
            assert {path.name for path in folder.iterdir()} == {"run.json", LOCK_FILE}
            if is_written:
                (folder / "checkpoint-5").mkdir()
            raise KeyboardInterrupt
    assert not (tmp_path / "empty").exists()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "checkpoint-5"}
    assert not release_folder(tmp_path / "run")
    with claimed(tmp_path / "other", {}, is_main=False):
        assert not (tmp_path / "other").exists()
    with claimed(tmp_path / "other", {}):
        pass
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["run.json"]
