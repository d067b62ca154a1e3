"""A diffusion pipeline over HTTP: pushed here, loaded in a new process with an empty cache."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from hf_noise.diffusion import EDMHeunScheduler, EDMPipeline
from hf_noise.hub.load import load_noise
from hf_noise.hub.push import push_checkpoint
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord

NOISE = LabelFlips.symmetric(ratio=1.0, num_classes=3, seed=4)
DRAW = "images = pipeline([0, 1, 2], seed=[3, 1, 4], num_inference_steps=4, output_type='pt').images"


@pytest.fixture
def pipeline():
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, num_class_embeds=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    return EDMPipeline(unet, EDMHeunScheduler(rho=6.0), has_unconditional=True, hf_noise=NOISE.to_dict())


def test_a_pushed_pipeline_draws_the_same_images_elsewhere(client, pipeline, fresh_python, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    # diffusers pushes through an object that knows the Hub's address since the import: not in this process.
    fresh_python(f"""
from hf_noise.diffusion import EDMPipeline
EDMPipeline.from_pretrained({str(tmp_path / "saved")!r}).push_to_hub("user/edm", private=True)
""")
    client.requests.clear()
    loading = f"""
import json
import hf_noise
from hf_noise.diffusion import EDMPipeline
pipeline = EDMPipeline.from_pretrained("user/edm")
{DRAW}
noise = hf_noise.load_noise("user/edm")
print(json.dumps([images.tolist(), noise.to_dict(), noise.transition.tolist(), pipeline.scheduler.config.rho]))
"""
    out = fresh_python(loading, HF_HOME=str(tmp_path / "empty"))
    drawn, noise, transition, rho = json.loads(out.splitlines()[-1])
    here = {"pipeline": pipeline}
    exec(DRAW, here)
    torch.testing.assert_close(torch.tensor(drawn), here["images"], rtol=0, atol=1e-5)
    assert noise == NOISE.to_dict() and transition == NOISE.transition.tolist() and rho == 6
    assert load_noise("user/edm") == NOISE
    asked = {path.split("/")[-1] for _, path, status in client.requests if status == 200 and "/resolve/" in path}
    assert {name.rpartition(".")[2] for name in asked} == {"json", "safetensors"}


def test_only_safetensors_and_json_are_fetched(client, pipeline, tmp_path):
    from huggingface_hub import HfApi

    pipeline.save_pretrained(tmp_path / "saved")
    HfApi().create_repo("user/edm")
    HfApi().upload_folder(folder_path=tmp_path / "saved", repo_id="user/edm")
    for name in ("unet/diffusion_pytorch_model.bin", "pipeline.py", "unet/evil.py"):
        HfApi().upload_file(path_or_fileobj=b"x", path_in_repo=name, repo_id="user/edm")
    client.requests.clear()
    EDMPipeline.from_pretrained("user/edm", cache_dir=tmp_path / "here")
    fetched = [path for _, path, _ in client.requests if "/resolve/" in path]
    assert fetched and not [path for path in fetched if path.endswith((".bin", ".py"))]
    assert list((tmp_path / "here").rglob("model_index.json"))

    path = tmp_path / "saved" / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.weight"]
    save_file(weights, path)
    HfApi().upload_file(path_or_fileobj=path, path_in_repo=f"unet/{path.name}", repo_id="user/edm")
    with pytest.raises(ValueError, match=r"does not hold the weights .*: 1 tensor \(conv_in.weight\) missing"):
        EDMPipeline.from_pretrained("user/edm", cache_dir=tmp_path / "here")


def test_a_run_of_the_recipe_is_pushed_with_its_card(client, pipeline, tmp_path):
    """The folder also holds checkpoints and images for the figure, which stay at home."""
    folder = tmp_path / "run"
    pipeline.save_pretrained(folder)
    (folder / "checkpoint-4").mkdir()
    (folder / "checkpoint-4" / "ema.safetensors").write_bytes(b"x")
    (folder / "samples.npz").write_bytes(b"x")
    shares = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    RunRecord(
        name="r1-tdsm", task="class_conditional_generation", recipe="recipes/edm_noise.py", seed=0, settings={},
        model={"name": "edm-digits", "parameters": 10}, data={"source": "embedded/digits", "classes": 3},
        budget={"steps": 4}, loss={"name": "tdsm", "transition": "estimated"}, wall_seconds=1.0,
        noise=NOISE.to_dict() | {"realised": {"rate": 0.5, "n": 64}},
        metrics={"label_consistency": shares, "frechet_distance": {"value": 2.0, "n": 100, "name": "distance in x"}},
    ).write(folder / "record.json")  # fmt: skip
    push_checkpoint(folder, "user/edm-run")
    files = client.files("user/edm-run")
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert {"model_index.json", "unet/config.json", weights, "README.md", "record.json"} <= set(files)
    assert not {"config.json", "samples.npz", "checkpoint-4/ema.safetensors"} & set(files)
    assert json.loads(files["model_index.json"])["hf_noise"] == NOISE.to_dict()
    card = files["README.md"].decode()
    assert 'EDMPipeline.from_pretrained("user/edm-run")' in card and "distance in x" in card
    assert "T is estimated" in card and "library_name: diffusers" in card
    loaded = EDMPipeline.from_pretrained("user/edm-run", cache_dir=tmp_path / "here")
    assert all(torch.equal(a, b) for a, b in zip(loaded.unet.parameters(), pipeline.unet.parameters(), strict=True))
    assert load_noise("user/edm-run") == NOISE


def test_a_pipeline_without_its_weights_is_not_pushed(client, pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="not a complete pipeline: no safetensors weights in unet"):
        push_checkpoint(tmp_path, "user/edm-run")
