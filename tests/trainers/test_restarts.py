"""A run that was stopped, and whose checkpoints were hurt, ends with the weights of a run that was not."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_jit_checkpoint import CheckpointManager

from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.image import image_classifier
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips, UniformTokens
from hf_noise.trainers import CausalLMTrainer, EDMTrainer, ImageClassifierTrainer, TimeClassifierTrainer
from hf_noise.trainers.checkpoints import adopt, check, last_complete_checkpoint, newest
from hf_noise.trainers.folders import LOCK_FILE
from hf_noise.trainers.images import CropFlip, DeviceImages
from hf_noise.trainers.manifest import MANIFEST, read_manifest, write_manifest

STEPS, TOKENS, CLASSES, SIZE = 6, 64, 4, 8
COMMON = [
    "hf_noise_state.safetensors", "model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt",
    "trainer_state.json", "training_args.bin",
]  # fmt: skip
FILES = {
    "causal_lm": [*COMMON, "config.json", "generation_config.json"],
    "image_classifier": [*COMMON, "config.json"],
    "time_classifier": COMMON,
    "edm": [*COMMON, "ema.safetensors"],
}


def pictures():
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.integers(0, 256, (20, 1, SIZE, SIZE), dtype=np.uint8))
    columns = {"labels": torch.from_numpy(draw.integers(0, CLASSES, 20)), "sample_id": torch.arange(20)}
    return DeviceImages(images, columns, mean=[0.5], std=[0.5], augment=CropFlip(padding=1, seed=1))


def sentences():
    draw = np.random.default_rng(0)
    return [{"input_ids": draw.integers(0, TOKENS, 12), "sample_id": i} for i in range(20)]


class Began(TrainerCallback):
    """The step at which training began."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.at = state.global_step


def build(kind, folder, **options):
    trainer = make(kind, folder, **options)
    trainer.began = Began()
    trainer.add_callback(trainer.began)
    return trainer


def make(kind, folder, seed=0, **changes):
    """A trainer with something to lose: moments, a schedule, dropout or augmentation, parameters of its own."""
    torch.manual_seed(seed)
    args = TrainingArguments(**{
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_steps": STEPS,
        "save_strategy": "steps", "save_steps": 2, "logging_steps": 3, "learning_rate": 1e-2,
        "per_device_train_batch_size": 4, "lr_scheduler_type": "cosine", "dataloader_pin_memory": False, **changes,
    })  # fmt: skip
    if kind == "causal_lm":
        model = GPT2LMHeadModel(GPT2Config(
            vocab_size=TOKENS, n_positions=16, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
        ))  # fmt: skip
        noise = UniformTokens(error_rate=0.5, vocab_size=TOKENS, seed=3)
        return CausalLMTrainer(
            model, args, noise=noise, loss="corrected", error_rate="learned", train_dataset=sentences(),
            eval_dataset=sentences()[:4],
        )  # fmt: skip
    noise = LabelFlips.symmetric(ratio=1.0, num_classes=CLASSES, seed=5)
    shape = {"num_classes": CLASSES, "image_size": SIZE, "num_channels": 1}
    if kind == "image_classifier":
        model = image_classifier("resnet10-digits", labels=CLASSES, image_size=SIZE, num_channels=1)
        return ImageClassifierTrainer(model, args, noise=noise, train_dataset=pictures(), eval_dataset=pictures())
    if kind == "time_classifier":
        model = TimeDependentClassifier(**shape, architecture="cnn-digits")
        return TimeClassifierTrainer(model, args, noise=noise, transition="estimated", train_dataset=pictures())
    return EDMTrainer(edm_unet("edm-digits", **shape), args, noise=noise, ema_decay=0.9, train_dataset=pictures())


def state(trainer):
    """All that a run ends with."""
    found = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    if hasattr(trainer, "ema"):
        found |= {f"average of {name}": value.clone() for name, value in zip(trainer.names, trainer.ema.shadow_params)}
    return found | {"counts": trainer.meter.total.clone()}


def assert_same(trainer, whole):
    found = state(trainer)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(found[name], value), name


@pytest.fixture(scope="session")
def unhurt(tmp_path_factory):
    """`unhurt(kind)`: a run's folder with checkpoint-2 and checkpoint-4, and what the run ended with."""
    made = {}

    def make(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind) / "run"
            trainer = build(kind, folder)
            trainer.train()
            shutil.rmtree(folder / f"checkpoint-{STEPS}")
            made[kind] = folder, state(trainer)
        return made[kind]

    return make


@pytest.fixture
def stopped(unhurt, tmp_path):
    """`stopped(kind)`: a copy of that folder, as a stopped run leaves it, and what the run would have ended with."""

    def make(kind="causal_lm"):
        folder, whole = unhurt(kind)
        return shutil.copytree(folder, tmp_path / "run"), whole

    return make


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


INJURIES = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": zero,
    "flipped": flip,
}


@pytest.mark.parametrize("injury", list(INJURIES))
@pytest.mark.parametrize("name", [*FILES["causal_lm"], MANIFEST])
def test_whatever_is_hurt_the_run_ends_as_the_unhurt_one(stopped, caplog, name, injury):
    folder, whole = stopped()
    INJURIES[injury](folder / "checkpoint-4" / name)
    trainer = build("causal_lm", folder, seed=1)
    with caplog.at_level(logging.WARNING, logger="hf_noise"):
        trainer.train(resume_from_checkpoint=True)
    assert_same(trainer, whole)
    assert trainer.began.at == 2
    assert f"{folder / 'checkpoint-4'} is broken" in caplog.text and "goes on from checkpoint-2" in caplog.text
    kept = folder / "_broken-checkpoint-4"
    assert {path.name for path in folder.iterdir()} == {kept.name, *(f"checkpoint-{step}" for step in (2, 4, 6))}
    assert (kept / name).exists() == (injury != "missing"), "what is broken is kept as it was"


@pytest.mark.parametrize("kind", list(FILES))
def test_every_file_of_every_trainer_is_in_the_manifest(stopped, kind):
    folder, whole = stopped(kind)
    broken = folder / "checkpoint-4"
    assert sorted(read_manifest(broken).files) == sorted(set(FILES[kind]) & set(os.listdir(broken))) == sorted(
        set(os.listdir(broken)) - {MANIFEST}
    )
    for number, name in enumerate(read_manifest(broken).files):
        data = (broken / name).read_bytes()
        list(INJURIES.values())[number % len(INJURIES)](broken / name)
        assert last_complete_checkpoint(folder).name == "checkpoint-2"
        (broken / name).write_bytes(data)
    assert last_complete_checkpoint(folder) == broken
    zero(broken / ("ema.safetensors" if kind == "edm" else "hf_noise_state.safetensors"))
    trainer = build(kind, folder, seed=1)
    trainer.train(resume_from_checkpoint="auto")
    assert_same(trainer, whole)
    assert trainer.began.at == 2


def test_a_checkpoint_that_is_given_is_refused_by_name(stopped):
    folder, whole = stopped()
    broken = folder / "checkpoint-4"
    for name in ("optimizer.pt", "scheduler.pt"):
        (broken / name).unlink()
    with pytest.raises(ValueError, match="checkpoint-4 is broken: optimizer.pt is missing; scheduler.pt is missing. C"):
        build("causal_lm", folder).train(str(broken))
    with pytest.raises(FileNotFoundError, match="checkpoint-3 is no folder"):
        build("causal_lm", folder).train(folder / "checkpoint-3")
    for wrong in (1, 2.0, ["checkpoint-2"]):
        with pytest.raises(TypeError, match="is a checkpoint's folder, True, False, None or 'auto', got"):
            build("causal_lm", folder).train(wrong)
    assert {path.name for path in folder.iterdir()} == {"checkpoint-2", "checkpoint-4"}, "nothing is renamed"
    trainer = build("causal_lm", folder.parent / "elsewhere", seed=1)
    trainer.train(folder / "checkpoint-2")
    assert_same(trainer, whole)


def test_without_a_whole_one_it_stops_or_starts_anew(stopped, caplog):
    folder, whole = stopped()
    with pytest.raises(ValueError, match="holds no checkpoint to go on from; leave resume_from_checkpoint out"):
        build("causal_lm", folder.parent / "empty").train(True)
    for step in (2, 4):
        zero(folder / f"checkpoint-{step}" / "model.safetensors")
    with pytest.raises(ValueError, match="no checkpoint to go on from; .*-4: model.safetensors has other content"):
        build("causal_lm", folder).train(True)
    assert not list(folder.glob("_broken*"))
    trainer = build("causal_lm", folder)
    trainer.train("auto")
    assert_same(trainer, whole)
    assert trainer.began.at == 0 and "the run starts anew, as no checkpoint is whole" in caplog.text
    assert len(list(folder.glob("_broken*"))) == 2


def test_checkpoints_of_others_and_of_before(stopped, caplog):
    folder, whole = stopped()
    manifest = folder / "checkpoint-4" / MANIFEST
    manifest.unlink()
    with pytest.raises(ValueError, match=r"has no hf_noise_manifest.json.*adopt\(folder\) takes it as it is"):
        build("causal_lm", folder).train(str(folder / "checkpoint-4"))
    adopt(folder / "checkpoint-4")
    trainer = build("causal_lm", folder, seed=1)
    trainer.train(True)
    assert_same(trainer, whole)
    assert trainer.began.at == 4
    stock = folder.parent / "stock"
    like = build("causal_lm", stock, max_steps=2)
    rows = [{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in sentences()]
    Trainer(GPT2LMHeadModel(like.model.config), like.args, train_dataset=rows).train()
    for given in (str(stock / "checkpoint-2"), True, "auto"):
        with pytest.raises(ValueError, match="it is no checkpoint of hf_noise.*Load its weights.* start a new run"):
            build("causal_lm", stock).train(given)
    # Ours is not written over it, nor does it pass for ours.
    build("causal_lm", stock, max_steps=2).train()
    assert check(stock / "checkpoint-2").step == 2
    assert not (stock / "_foreign-checkpoint-2" / "hf_noise_state.safetensors").exists()


def test_weights_without_their_optimizer_are_no_checkpoint(tmp_path, caplog):
    whole = build("causal_lm", tmp_path, max_steps=2)
    whole.train()
    build("causal_lm", tmp_path, max_steps=4, save_only_model=True).train(True)
    for given in (str(tmp_path / "checkpoint-4"), tmp_path / "checkpoint-4"):
        with pytest.raises(ValueError, match="checkpoint-4: it was saved with save_only_model=True"):
            build("causal_lm", tmp_path).train(given)
    trainer = build("causal_lm", tmp_path)
    trainer.train(True)
    assert trainer.began.at == 2 and "checkpoint-4 is passed over and left as it is" in caplog.text


def test_a_run_that_starts_anew_goes_on_from_its_own(stopped):
    """Not from the later step of the run whose folder it was."""
    folder, _ = stopped()

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    trainer = build("causal_lm", folder, seed=9)
    trainer.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    again = build("causal_lm", folder, seed=9)
    again.train(True)
    assert again.began.at == 2
    expected = build("causal_lm", folder.parent / "whole", seed=9)
    expected.train()
    assert_same(again, state(expected))


def best(folder, **changes):
    trainer = build(
        "image_classifier", folder, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
        metric_for_best_model="rank", greater_is_better=False, **changes,
    )  # fmt: skip
    trainer.compute_metrics = lambda prediction: {"rank": abs(trainer.state.global_step - 2)}
    return trainer


def test_the_best_model_is_a_whole_one_also_when_nothing_is_left_to_do(tmp_path):
    trainer = best(tmp_path, save_total_limit=1)
    trainer.train()
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2"}, "the best one, whole, is all that is kept"
    check(tmp_path / "checkpoint-2")
    trainer = best(tmp_path / "all")
    trainer.train()
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    again = best(tmp_path / "all")
    again.train(True)
    assert again.state.global_step == STEPS
    assert all(torch.equal(value, weights[name]) for name, value in again.model.state_dict().items())
    flip(tmp_path / "all" / "checkpoint-2" / "model.safetensors")
    with pytest.raises(ValueError, match="checkpoint-2 is broken: model.safetensors has other content"):
        best(tmp_path / "all").train(True)


class Snapshots:
    """Copies of a folder as `kill -9` would leave it: before and after each step of writing, and in the middle."""

    def __init__(self, folder, into, patch):
        self.folder, self.into, self.number, self.is_on = folder, into, 0, False
        for module, name, where in (
            (torch, "save", 1), (safetensors.torch, "serialize_file", 1), (os, "fsync", None), (os, "replace", None),
            (os, "unlink", None), (os, "rename", None), (os, "rmdir", None), (json, "dumps", None),
        ):  # fmt: skip
            patch.setattr(module, name, self.around(getattr(module, name), where))

    def take(self):
        if self.is_on and self.folder.is_dir():
            self.number += 1
            shutil.copytree(self.folder, self.into / str(self.number))

    def around(self, function, where):
        def watched(*args, **kwargs):
            self.take()
            result = function(*args, **kwargs)
            path = None if where is None else args[where]
            if self.is_on and isinstance(path, (str, os.PathLike)) and str(path).startswith(str(self.folder)):
                self.take()
                half = self.into / str(self.number) / os.path.relpath(path, self.folder)
                half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
            return result

        return watched


def test_killed_at_any_write_it_ends_the_same(tmp_path, unhurt):
    """With a single checkpoint kept, so that the older one goes as soon as the newer one is whole."""
    template, whole = unhurt("causal_lm")
    expected = {step: (template / f"checkpoint-{step}" / "model.safetensors").read_bytes() for step in (2, 4)}
    folder, copies = tmp_path / "run", tmp_path / "copies"
    trainer = build("causal_lm", folder, save_total_limit=1)
    with pytest.MonkeyPatch.context() as patch:
        snapshots = Snapshots(folder, copies, patch)
        snapshots.is_on = True
        trainer.train()
        snapshots.is_on = False
    assert snapshots.number > 100
    found = []
    for number in range(1, snapshots.number + 1):
        path = newest(copies / str(number), or_none=True)
        found.append(int(path.name[11:]) if path else 0)
        if found[-1] in expected:
            assert (path / "model.safetensors").read_bytes() == expected[found[-1]]
    assert found == sorted(found) and set(found) == {0, 2, 4, 6}, "once there is a whole one, there always is"
    for step in (0, 2, 4, 6):  # a start from the last snapshot before the next one was whole
        again = build("causal_lm", copies / str(len(found) - found[::-1].index(step)), seed=step and 1)
        again.train("auto")
        assert_same(again, whole)
        assert step == STEPS or again.began.at == step


def wait_after_a_step(folder):
    class Wait(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            print("waiting", flush=True)
            time.sleep(60)

    trainer = build("causal_lm", folder, seed=1)
    trainer.add_callback(Wait())
    trainer.train(True)


def test_an_output_folder_in_use_is_refused_until_its_process_is_killed(stopped):
    folder, whole = stopped()
    # No fork: threads of torch that this process may have do not live on in a child.
    command = [sys.executable, "-c", f"import test_restarts as own; own.wait_after_a_step({str(folder)!r})"]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)
    child = process.pid
    try:
        assert "waiting\n" in process.stdout
        before = {path.name for path in folder.iterdir()}
        for given in (None, True, "auto", str(folder / "checkpoint-2")):
            with pytest.raises(BlockingIOError, match=f"run is in use by process {child} on this machine"):
                build("causal_lm", folder).train(given)
        with pytest.raises(BlockingIOError, match="in use"):
            adopt(folder / "checkpoint-2")
        trainer = build("causal_lm", folder, save_strategy="no", max_steps=1)
        trainer.train()  # writes nothing
        with pytest.raises(BlockingIOError, match="in use"):
            trainer._save_checkpoint(trainer.model, None)
        assert {path.name for path in folder.iterdir()} == before
    finally:
        process.kill()
        process.communicate()
    for _ in range(2):  # one trainer after the other in one process
        trainer = build("causal_lm", folder, seed=1)
        trainer.train(True)
        assert_same(trainer, whole)
    assert not (folder / LOCK_FILE).exists()


def test_errors_after_the_seal_leave_the_checkpoint(tmp_path, monkeypatch):
    """A push that fails, or a rotation, is no reason to remove what was written whole."""
    trainer = build("causal_lm", tmp_path)

    def push(folder):
        assert check(folder).step == 2, "what is pushed is sealed"
        raise OSError("no route to the Hub")

    trainer.args.push_to_hub = True
    trainer._push_from_checkpoint = push
    with pytest.raises(OSError, match="^no route to the Hub$"):
        trainer.train()
    assert check(tmp_path / "checkpoint-2").is_resumable
    # One that cannot be sealed is none.
    trainer = build("causal_lm", tmp_path)
    monkeypatch.setattr("hf_noise.trainers.manifest.write_atomic", lambda *_: full())
    with pytest.raises(OSError, match="checkpoint-4 could not be written .*No space left.* and was removed; earlier"):
        trainer.train(True)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    check(tmp_path / "checkpoint-2")


def test_another_number_of_processes_is_said(stopped, caplog):
    folder, _ = stopped()
    checkpoint = folder / "checkpoint-4"
    write_manifest(checkpoint, step=4, order=9, processes=2, is_resumable=True)
    for given in (True, str(checkpoint)):
        caplog.clear()
        build("causal_lm", folder, save_strategy="no").train(given)
        assert "checkpoint-4 was written by 2 processes, 1 take it up: noise and sums are the same" in caplog.text


def test_a_checkpoint_on_sigterm_is_whole(tmp_path):
    """Transformers lays a mark beside its files, which is gone afterwards."""
    trainer = build("causal_lm", tmp_path, save_steps=5)

    class Terminate(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                CheckpointManager(trainer).execute_jit_checkpoint()
                control.should_training_stop = True

    trainer.add_callback(Terminate())
    trainer.train()
    assert check(tmp_path / "checkpoint-1").step == 1


def test_backends_that_would_lose_counts_are_refused(stopped, tmp_path):
    folder, _ = stopped()
    trainer = build("causal_lm", folder)
    trainer.is_deepspeed_enabled = True
    for given in (True, "auto", str(folder / "checkpoint-2")):
        with pytest.raises(ValueError, match="cannot be resumed under DeepSpeed.*Use DDP or FSDP"):
            trainer.train(given)
    trainer = build("causal_lm", tmp_path)
    trainer.is_fsdp_enabled = True
    plugin = SimpleNamespace(state_dict_type="StateDictType.SHARDED_STATE_DICT")
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    with pytest.raises(ValueError, match="SHARDED_STATE_DICT has no place .*set fsdp_config="):
        trainer.train()


def full():
    raise OSError(28, "No space left on device")
