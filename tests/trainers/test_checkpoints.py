"""A killed run's folder: what is whole is found, what is half is removed, another run's is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from hf_noise.trainers.checkpoints import (
    claim_folder,
    discard_incomplete,
    is_complete,
    last_complete_checkpoint,
    release_folder,
)


@pytest.fixture
def checkpoint(tmp_path):
    """`checkpoint(step)`: a whole one."""

    def make(step: int, weights: str = "model.safetensors"):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"w": torch.zeros(1000)}, folder / weights)
        save_file({"total": torch.zeros(4)}, folder / "hf_noise_state.safetensors")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        return folder

    return make


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


BREAKAGES = {
    "no state, which is written last": lambda folder: (folder / "trainer_state.json").unlink(),
    "half a state": lambda folder: cut(folder / "trainer_state.json"),
    "half the weights": lambda folder: cut(folder / "model.safetensors"),
    "an empty file of weights": lambda folder: cut(folder / "model.safetensors", 0),
    "half the noise's state": lambda folder: cut(folder / "hf_noise_state.safetensors"),
}


@pytest.mark.parametrize("breakage", list(BREAKAGES))
def test_half_written_checkpoints_are_skipped_and_removed(tmp_path, checkpoint, breakage):
    whole, broken = checkpoint(9), checkpoint(10)
    BREAKAGES[breakage](broken)
    assert is_complete(whole)
    assert not is_complete(broken)
    assert last_complete_checkpoint(tmp_path) == whole
    assert discard_incomplete(tmp_path) == ["checkpoint-10"]
    assert not broken.exists()
    assert is_complete(whole)


def test_the_last_is_the_one_with_the_most_steps(tmp_path, checkpoint):
    assert last_complete_checkpoint(tmp_path) is None
    for step in (100, 20, 3):
        checkpoint(step)
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-100"
    assert discard_incomplete(tmp_path) == []


def test_sharded_weights_and_adapters_are_weights(checkpoint):
    assert is_complete(checkpoint(1, "model-00001-of-00002.safetensors"))
    assert is_complete(checkpoint(2, "adapter_model.safetensors"))
    sharded = checkpoint(3)
    (sharded / "model.safetensors").rename(sharded / "__0_0.distcp")  # another format, which FSDP writes
    assert is_complete(sharded)


def test_other_folders_are_left_alone(tmp_path):
    for name in ("checkpoint-best", "checkpoint-1-old", "notes"):
        (tmp_path / name).mkdir()
    assert discard_incomplete(tmp_path) == []
    assert last_complete_checkpoint(tmp_path) is None
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_belongs_to_one_setting(tmp_path, checkpoint):
    folder = tmp_path / "run"
    claim_folder(folder, {"ratio": 0.5, "layers": (1, 2)})
    claim_folder(folder, {"ratio": 0.5, "layers": [1, 2]})  # JSON knows no tuples
    before = (folder / "run.json").read_text()
    with pytest.raises(FileExistsError, match=r"other settings \(ratio, seed\); delete it or choose another folder"):
        claim_folder(folder, {"ratio": 1.0, "layers": [1, 2], "seed": 0})
    assert (folder / "run.json").read_text() == before


def test_a_claim_is_given_back_unless_something_was_written(tmp_path, checkpoint):
    claim_folder(tmp_path / "empty", {"ratio": 0.5})
    release_folder(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    claim_folder(tmp_path, {"ratio": 0.5})
    checkpoint(5)
    release_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "checkpoint-5"}


def test_claiming_tidies_up(tmp_path, checkpoint):
    (checkpoint(5) / "trainer_state.json").unlink()
    claim_folder(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
