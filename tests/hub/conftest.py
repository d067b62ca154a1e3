"""A running Hub, a client in this process that talks to it, and clients in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub_server import HubServer  # noqa: E402  (tests are no package: the line above makes it importable)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def hub_env(hub, tmp_path):
    """Environment of a fresh process: our Hub, a token, an empty cache, nothing that keeps it offline."""
    dropped = (
        "HF_HUB_OFFLINE",
        "HF_DATASETS_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_TOKEN_PATH",
        "HF_HUB_CACHE",
    )
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(tmp_path / "fresh-home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


@pytest.fixture
def fresh_python(hub_env, tmp_path):
    """Run code in a new Python process with `hub_env`, in an empty folder; returns what it printed."""

    def run(code: str, **environment: str) -> str:
        folder = tmp_path / "elsewhere"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=hub_env | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


@pytest.fixture
def client(hub, monkeypatch, tmp_path):
    """Point huggingface_hub of this process at the server. The waits between its retries are skipped."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    return hub


@pytest.fixture
def waits(client, monkeypatch):
    """The seconds that would have been waited for the Hub, in their order."""
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


NOISE = {"protocol": "uniform_tokens", "version": 1, "ratio": 0.5, "error_rate": 1 / 3, "vocab_size": 128,
"seed": 7,
         "exclude_original": False, "redraw": "epoch"}  # fmt: skip


@pytest.fixture
def noise():
    from hf_noise.noise import noise_from_dict

    return noise_from_dict(NOISE)


@pytest.fixture
def record(noise):
    from hf_noise.reports.record import RunRecord

    return RunRecord(
        name="user/gpt2-tiny-r0.5",
        recipe="recipes/gpt2_noise.py",
        model={"name": "GPT-2", "parameters": 33_000},
        data={"source": "owner/some-text", "tokenizer": "gpt2", "vocab_size": 128, "train_tokens": 5000},
        noise=noise.to_dict() | {"realised": {"rate": 0.3301, "n": 5000}},
        budget={"plan": "steps", "base_steps": 10, "steps": 15, "batch_size": 4, "tokens": 1920},
        loss={"name": "corrected", "error_rate": 1 / 3, "source": "known"},
        settings={"learning_rate": 1e-3},
        metrics={
            "validation_nll": {"value": 4.25, "n": 924, "unit": "nats per token", "low": 4.2, "high": 4.3},
            "train_nll_noisy": {"value": 4.875, "n": 5000, "unit": "nats per token"},
            "my_own_score": {"value": 0.93, "n": 5000},
        },
        seed=7,
        wall_seconds=61.4,
        command="python recipes/gpt2_noise.py --ratio 0.5",
        versions={"python": "3.11.1", "torch": "2.11.0"},
        hardware={"cpu": "Some CPU", "cores": 2},
        created="2025-01-01T00:00:00+00:00",
        git=None,
    )


@pytest.fixture
def checkpoint(tmp_path, noise):
    """A tiny GPT-2 as a Trainer leaves it: weights, the noise in its config, files that must stay at home."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=2, n_positions=32))
    model.config.hf_noise = noise.to_dict()
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    for name in (
        "optimizer.pt",
        "rng_state.pth",
        "training_args.bin",
        "scheduler.pt",
        "trainer_state.json",
        "x.pkl",
    ):
        (folder / name).write_bytes(b"not for publication")
    return folder


@pytest.fixture
def weights(checkpoint):
    """Reads the file of weights of the checkpoint, as bytes."""
    return (checkpoint / "model.safetensors").read_bytes


@pytest.fixture
def change_weights(checkpoint):
    """Makes of the checkpoint the next one of the same run."""
    import safetensors.numpy

    def change() -> None:
        tensors = safetensors.numpy.load_file(checkpoint / "model.safetensors")
        tensors = {name: tensor + 1 for name, tensor in tensors.items()}
        safetensors.numpy.save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})

    return change


@pytest.fixture
def noisy_data(noise):
    """Eight rows of sixteen tokens with a noisy train split and a clean validation split."""
    import datasets

    def split(rows: int, is_clean: bool) -> datasets.Dataset:
        tokens = np.random.default_rng(rows).integers(0, 128, (rows, 16), dtype=np.int32)
        ids = np.arange(rows)
        noisy, is_noisy = (tokens, np.zeros(tokens.shape, bool)) if is_clean else noise(tokens, sample=ids)
        integers, booleans = (datasets.List(datasets.Value(kind), length=16) for kind in ("int32", "bool"))
        features = datasets.Features(
            {
                "input_ids": integers,
                "labels": integers,
                "clean_labels": integers,
                "is_noisy": booleans,
                "sample_id": datasets.Value("int64"),
            }
        )
        columns = {
            "input_ids": tokens,
            "labels": noisy,
            "clean_labels": tokens,
            "is_noisy": is_noisy,
            "sample_id": ids,
        }
        return datasets.Dataset.from_dict(
            {name: list(column) for name, column in columns.items()}, features=features
        )

    return datasets.DatasetDict({"train": split(8, False), "validation": split(3, True)})


@pytest.fixture
def write_data(noisy_data, noise):
    """Write a folder of configurations with their card."""
    from hf_noise.hub.data_folder import describe_config, write_config, write_data_folder
    from hf_noise.reports.record import DataRecord

    def write(folder: Path, names: tuple[str, ...] = ("r0.5", "r1.0")) -> Path:
        for name in names:
            write_config(noisy_data, folder, name)
        configs = [describe_config(noisy_data, name, noise.to_dict()) for name in names]
        return write_data_folder(folder, DataRecord(
            name="user/d", builder="hf_noise/docs-noisy", source="embedded/docs-text", data={}, columns={},
            configs=configs,
        ))  # fmt: skip

    return write
