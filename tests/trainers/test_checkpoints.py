"""Manifests: what is whole is found, what is not is named and kept, and what is none of ours is left alone."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os

import pytest
import torch
from safetensors.torch import save_file

from hf_noise.trainers import manifest
from hf_noise.trainers.checkpoints import adopt, check, last_complete_checkpoint, newest, next_order
from hf_noise.trainers.manifest import MANIFEST, STATE_FILE, faults, read_manifest, write_manifest

FILES = ("model.safetensors", STATE_FILE, "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


@pytest.fixture
def checkpoint(tmp_path):
    """`checkpoint(step)`: a whole one, sealed unless told otherwise."""

    def make(step: int, weights: str = "model.safetensors", is_sealed: bool = True, is_resumable: bool = True):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / weights).parent.mkdir(parents=True)
        save_file({"w": torch.zeros(1000)}, folder / weights)
        save_file({"total": torch.zeros(4)}, folder / STATE_FILE)
        if is_resumable:
            for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
                torch.save({"state": torch.full((300,), step)}, folder / name)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        if is_sealed:
            write_manifest(folder, step=step, order=next_order(tmp_path), processes=1, is_resumable=is_resumable)
        return folder

    return make


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def as_folder(path):
    path.unlink()
    path.mkdir()


INJURIES = {
    "missing": lambda path: path.unlink(),
    "cut": cut,
    "emptied": lambda path: cut(path, 0),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "flipped": flip,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "a folder": as_folder,
}


@pytest.mark.parametrize("injury", list(INJURIES))
def test_each_injury_of_each_file_is_named(tmp_path, checkpoint, injury):
    for step, name in enumerate((*FILES, MANIFEST), 10):
        whole, broken = checkpoint(step), checkpoint(step + 100)
        INJURIES[injury](broken / name)
        check(whole)
        with pytest.raises(ValueError, match=f"checkpoint-{step + 100}.*{name}"):
            check(broken)
        assert last_complete_checkpoint(tmp_path) == whole
        assert newest(tmp_path, or_none=False) == whole
        assert {path.name for path in tmp_path.glob("*-*")} == {whole.name, f"_broken-{broken.name}"}
        whole.rename(tmp_path / f"kept{step}")
        (tmp_path / f"_broken-{broken.name}").rename(tmp_path / f"broken{step}")


def test_the_messages_say_what_is_wrong_and_what_to_do(tmp_path, checkpoint):
    broken = checkpoint(3)
    (broken / "optimizer.pt").unlink()
    size = (broken / "scheduler.pt").stat().st_size
    (broken / "scheduler.pt").write_bytes(bytes(12))
    with pytest.raises(ValueError) as caught:
        check(broken)
    assert str(caught.value) == (
        f"{broken} is broken: optimizer.pt is missing; scheduler.pt has 12 bytes, {size:,} were written. Copy it again "
        "from where it is whole, or take an earlier one: resume_from_checkpoint=True goes on from the newest whole one "
        "in output_dir. If you changed it yourself, hf_noise.trainers.checkpoints.adopt(folder) takes it as it is"
    )
    broken = checkpoint(4)
    INJURIES["zeroed"](broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors has other content than was written \(SHA-256\)"):
        check(broken)
    with pytest.raises(FileNotFoundError, match="is no folder; give that of a checkpoint"):
        check(tmp_path / "checkpoint-5")


def test_the_manifest_is_what_it_says(checkpoint):
    folder = checkpoint(7)
    told = json.loads((folder / MANIFEST).read_text())
    assert set(told["files"]) == set(FILES)
    for name, entry in told["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert (told["step"], told["order"], told["processes"], told["is_resumable"]) == (7, 1, 1, True)
    (folder / "notes.txt").write_text("what is not in it is nobody's business")
    assert faults(folder, read_manifest(folder)) == []
    for changed in ({"step": 8}, {"is_resumable": 1.0}, {"files": {}}, {"schema": "hf_noise.checkpoint/9"}):
        (folder / MANIFEST).write_text(json.dumps(told | changed))
        with pytest.raises(ValueError, match="its content is not what was written"):
            read_manifest(folder)
    del told["sha256"]
    told["schema"] = "hf_noise.checkpoint/9"
    (folder / MANIFEST).write_text(json.dumps(told | {"sha256": manifest._digest(told)}))
    with pytest.raises(RuntimeError, match="written by another version of hf_noise: .* is not hf_noise.checkpoint/1"):
        last_complete_checkpoint(folder.parent)  # not broken, so it is not passed over either
    assert folder.is_dir()


def test_all_is_on_the_disk_before_the_manifest_is(checkpoint, tmp_path, monkeypatch):
    folder, synced = checkpoint(1, "shards/__0_0.distcp", is_sealed=False), []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), folder)), fsync(fd))
    )
    write_manifest(folder, step=1, order=1, processes=1, is_resumable=True)
    files = {"shards/__0_0.distcp", *FILES} - {"model.safetensors"}
    assert set(synced[: len(files)]) == files and set(synced[len(files) : -3]) == {".", "shards"}
    assert synced[-3].startswith(f".{MANIFEST}.") and synced[-2:] == [".", ".."]
    assert read_manifest(folder).files.keys() == files


def test_a_file_that_may_not_be_read_is_no_broken_one(checkpoint, monkeypatch):
    """A hiccup of a network file system must not send a run back; a bad sector must."""
    folder = checkpoint(1)

    def refuse(number):
        def sha256(path):
            raise OSError(number, os.strerror(number), str(path))

        return sha256

    monkeypatch.setattr(manifest, "_sha256", refuse(errno.ESTALE))
    with pytest.raises(OSError, match="Stale file handle"):
        newest(folder.parent, or_none=True)
    monkeypatch.setattr(manifest, "_sha256", refuse(errno.EIO))
    with pytest.raises(ValueError, match="optimizer.pt cannot be read"):
        check(folder)


def test_the_newest_is_the_one_written_last(tmp_path, checkpoint):
    assert last_complete_checkpoint(tmp_path) is None
    for step in (3, 20, 100):
        checkpoint(step)
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-100"
    # A run that started anew in the folder of one that went further, and was stopped.
    checkpoint(10)
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-10"
    cut(tmp_path / "checkpoint-10" / MANIFEST)
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-100"
    assert next_order(tmp_path) == 4


def test_other_folders_are_left_alone(tmp_path):
    for name in ("checkpoint-best", "checkpoint-1-old", "notes", "_broken-checkpoint-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert newest(tmp_path, or_none=True) is None
    with pytest.raises(ValueError, match="holds no checkpoint to go on from; leave resume"):
        newest(tmp_path, or_none=False)
    assert len(list(tmp_path.iterdir())) == 5


def test_without_a_whole_one_an_error_or_a_new_start(tmp_path, checkpoint, caplog):
    for step in (1, 2):
        cut(checkpoint(step) / "optimizer.pt")
    checkpoint(3, is_sealed=False)  # killed before its manifest, or from before there was one
    with pytest.raises(ValueError) as caught:
        newest(tmp_path, or_none=False)
    for told in ("checkpoint-1: optimizer.pt has", "checkpoint-2: optimizer.pt has", "checkpoint-3: it has no hf_noise",
                 "adopt(folder) takes it as it is", "leave resume_from_checkpoint out to start anew"):  # fmt: skip
        assert told in str(caught.value)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 3, "nothing is renamed by an error"
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path, or_none=True) is None
    assert {path.name for path in tmp_path.iterdir()} == {f"_broken-checkpoint-{step}" for step in (1, 2, 3)}
    assert f"{tmp_path}: the run starts anew, as no checkpoint is whole" in caplog.text
    assert caplog.text.count("and was renamed to _broken-checkpoint-") == 3


def test_a_second_broken_one_of_a_step_has_another_name(tmp_path, checkpoint):
    for name in ("_broken-checkpoint-2", "_broken-checkpoint-2-2", "_broken-checkpoint-2-3"):
        cut(checkpoint(2) / "optimizer.pt")
        newest(tmp_path, or_none=True)
        assert (tmp_path / name).is_dir()


def test_weights_alone_are_refused_and_foreign_ones_named(tmp_path, checkpoint, caplog):
    whole = checkpoint(1)
    weights = checkpoint(2, is_resumable=False)
    with pytest.raises(ValueError, match="save_only_model=True, without optimiser.*load_state_dict and start a"):
        check(weights)
    (weights / "config.json").write_text("{}")  # it was none of transformers
    with pytest.raises(ValueError, match=r"from_pretrained\('.*checkpoint-2'\) and start a new run"):
        check(weights)
    assert check(weights, to_resume=False).step == 2
    foreign = checkpoint(3, is_sealed=False)
    (foreign / STATE_FILE).unlink()
    with pytest.raises(ValueError, match=f"no checkpoint of hf_noise.* no {MANIFEST} and no {STATE_FILE}. The stock"):
        check(foreign)
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path, or_none=False) == whole
    assert caplog.text.count("is passed over and left as it is") == 2 and "goes on from checkpoint-1" in caplog.text
    (whole / "optimizer.pt").unlink()
    for or_none in (True, False):  # they are not ours to write over
        with pytest.raises(ValueError, match="checkpoint-1: optimizer.*checkpoint-3: it is no.*checkpoint-2: it was"):
            newest(tmp_path, or_none=or_none)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 3
    with pytest.raises(ValueError, match="no checkpoint of hf_noise"):
        check(tmp_path)


@pytest.mark.parametrize("kind", ["model.safetensors", "model-00001-of-00002.safetensors", "shards/__0_0.distcp"])
def test_weights_of_every_format_are_sealed(checkpoint, kind):
    folder = checkpoint(1, kind)
    assert kind in check(folder).files
    flip(folder / kind)
    with pytest.raises(ValueError, match="other content"):
        check(folder)


def test_adopting_is_deliberate_and_looks_first(tmp_path, checkpoint):
    old = checkpoint(4, is_sealed=False)
    with pytest.raises(ValueError, match=r"checkpoint-4: it has no .*adopt\(folder\) takes it as it is, if you know"):
        check(old)
    adopt(old)
    assert (check(old).step, check(old).order, check(old).processes) == (4, 1, 1)
    (old / "config.json").write_text("{}")
    (old / "trainer_state.json").write_text(json.dumps({"global_step": 4, "best_metric": 1.0}))
    (old / MANIFEST).write_text("")
    adopt(old)
    assert check(old).order == 1 and "config.json" in check(old).files
    for name in FILES:
        # Values in safetensors have no checksum, in what torch.save writes they have.
        for injury in ("missing", "cut", "emptied", "zeroed", "flipped")[: 5 if name.endswith((".pt", ".pth")) else 4]:
            data = (old / name).read_bytes()
            INJURIES[injury](old / name)
            with pytest.raises(ValueError, match=name):
                adopt(old)
            (old / name).write_bytes(data)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        adopt(tmp_path / "none")
