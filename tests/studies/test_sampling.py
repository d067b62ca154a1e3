"""recipes/sample_edm.py in one process, killed and started again, and in two."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from diffusers import UNet2DModel
from PIL import Image

from hf_noise.diffusion import EDMHeunScheduler, EDMPipeline
from hf_noise.studies.sampling import study as sample_edm

RECIPE = Path(__file__).parents[2] / "recipes" / "sample_edm.py"


@pytest.fixture(autouse=True)
def threads():
    """The recipe takes all cores; the tests after it run on one thread again."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, num_class_embeds=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    EDMPipeline(unet, EDMHeunScheduler(), has_unconditional=True).save_pretrained(folder)
    return folder


def arguments(model, output, *more):
    return ["--model", str(model), "--output", str(output), "--num_images", "7", "--num_inference_steps", "3", *more]


def pixels(folder):
    return {path.name: np.asarray(Image.open(path)).astype(int) for path in sorted((folder / "images").glob("*.png"))}


def assert_same(folder, other):
    """Equal up to one step of 256: rounding depends on the batch."""
    assert list(pixels(folder)) == list(pixels(other)) == [f"{i:07d}.png" for i in range(7)]
    for one, two in zip(pixels(folder).values(), pixels(other).values()):
        assert np.abs(one - two).max() <= 1
    assert (folder / "metadata.jsonl").read_text() == (other / "metadata.jsonl").read_text()


def test_any_batch_any_process_count_and_after_a_stop(model, tmp_path, monkeypatch):
    whole = sample_edm.main(arguments(model, tmp_path / "whole"))
    rows = [json.loads(line) for line in (whole / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [f"images/{i:07d}.png" for i in range(7)]
    assert [row["label"] for row in rows] == np.random.default_rng(0).integers(3, size=7).tolist()
    data = load_dataset("imagefolder", data_dir=str(whole), split="train", cache_dir=str(tmp_path / "cache"))
    assert data["label"] == [row["label"] for row in rows] and data[0]["image"].size == (8, 8)
    pipeline = EDMPipeline.from_pretrained(model)
    expected = pipeline([row["label"] for row in rows], seed=0, num_inference_steps=3).images
    for picture, drawn in zip(expected, pixels(whole).values()):
        assert np.abs(np.asarray(picture).astype(int) - drawn).max() <= 1

    # Stopped while the fifth file is written: four are there, none is half-written; the rest is drawn later.
    replace, left = os.replace, iter(range(6))  # settings.json is one

    def until_full(*paths):
        if str(paths[1]).endswith(".png") and next(left) == 4:
            raise OSError("the disk is full")
        replace(*paths)

    monkeypatch.setattr("os.replace", until_full)
    with pytest.raises(OSError, match="disk is full"):
        sample_edm.main(arguments(model, tmp_path / "parts", "--batch_size", "2"))
    monkeypatch.undo()
    assert len(pixels(tmp_path / "parts")) == 4 and not (tmp_path / "parts" / "metadata.jsonl").exists()
    # One that is killed cannot tidy up; what a living process writes stays.
    for process in (2**22 + 1, 1):
        (tmp_path / "parts" / "images" / f".0000004.png.{process}.tmp").write_bytes(b"half a file")
    assert_same(sample_edm.main(arguments(model, tmp_path / "parts", "--batch_size", "2")), whole)
    assert [path.name for path in tmp_path.rglob("*.tmp")] == [".0000004.png.1.tmp"]

    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(RECIPE)]
    command = [*launch, *arguments(model, tmp_path / "two", "--batch_size", "3")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(tmp_path / "two", whole)


def test_classes_in_turns_and_another_setting(model, tmp_path, capsys):
    out = sample_edm.main(arguments(model, tmp_path / "out", "--classes", "2", "0"))
    assert [json.loads(line)["label"] for line in (out / "metadata.jsonl").open()] == [2, 0, 2, 0, 2, 0, 2]
    with pytest.raises(ValueError, match="holds images drawn with seed = 0, asked for 1; choose another --output"):
        sample_edm.main(arguments(model, tmp_path / "out", "--classes", "2", "0", "--seed", "1"))
    again = EDMPipeline.from_pretrained(model)
    again.unet.conv_in.bias.data += 1e-3
    again.save_pretrained(tmp_path / "model")
    settings = json.loads((out / "settings.json").read_text())
    assert settings["num_classes"] == 3 and settings["noise"] is None and settings["model"] == model.name
    # The same weights in another place draw the same images; other weights are refused whatever they are called.
    moved = shutil.copytree(model, tmp_path / "moved")
    assert sample_edm.main(arguments(moved, tmp_path / "out", "--classes", "2", "0")) == out
    with pytest.raises(ValueError, match=f"drawn with weights = {settings['weights']}, asked for"):
        sample_edm.main(arguments(tmp_path / "model", tmp_path / "out", "--classes", "2", "0"))
    assert sample_edm.main(arguments(model, tmp_path / "dry", "--dry_run")) is None
    assert "5 network calls" in capsys.readouterr().out and not (tmp_path / "dry").exists()
    for wrong in (["--num_images", "0"], ["--num_images", "10000001"], ["--batch_size", "1000000"],
                  ["--classes", "cat"], ["--seed", "-1"], ["--guidance_scale", "0.5"]):  # fmt: skip
        with pytest.raises(SystemExit):
            sample_edm.main(arguments(model, tmp_path / "dry", *wrong))
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match="taken is a file; --output is a folder"):
        sample_edm.main(arguments(model, tmp_path / "taken"))
    for broken in ("{", "[1]", "3"):
        (out / "settings.json").write_text(broken)
        with pytest.raises(ValueError, match=r"settings.json cannot be read \(.*choose another --output"):
            sample_edm.main(arguments(model, out))


def test_what_is_refused_binds_no_folder(model, tmp_path):
    pipeline = EDMPipeline.from_pretrained(model)
    EDMPipeline(pipeline.unet, EDMHeunScheduler()).save_pretrained(tmp_path / "no-guidance")
    unet = UNet2DModel.from_config(pipeline.unet.config, num_class_embeds=None)
    EDMPipeline(unet, EDMHeunScheduler()).save_pretrained(tmp_path / "no-classes")
    out = tmp_path / "out"
    for name, wrong, message in (
        (model, ["--classes", "0", "3"], r"--classes must lie in \[0, 2\], got 3"),
        (tmp_path / "no-guidance", ["--guidance_scale", "2"], "no-guidance has no unconditional class"),
        (tmp_path / "no-classes", ["--guidance_scale", "2"], "no-classes has no unconditional class"),
        (tmp_path / "no-classes", ["--classes", "0"], "no-classes was trained without classes; leave out --classes"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_edm.main(arguments(name, out, *wrong))
        assert not out.exists()
    # What was written before the first image binds nobody either.
    out.mkdir()
    (out / "settings.json").write_text(json.dumps({"seed": 7}))
    sample_edm.main(arguments(tmp_path / "no-classes", out))
    assert len(pixels(out)) == 7 and json.loads((out / "settings.json").read_text())["seed"] == 0
    assert json.loads((out / "metadata.jsonl").read_text().splitlines()[0]) == {"file_name": "images/0000000.png"}
    (out / "settings.json").unlink()
    with pytest.raises(ValueError, match="out holds images, and no settings.json"):
        sample_edm.main(arguments(tmp_path / "no-classes", out))
