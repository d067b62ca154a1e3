"""Checkpoints whose weights are not all there: refused by name, where transformers and diffusers would warn."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification

from hf_noise.diffusion import EDMHeunScheduler, EDMPipeline
from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.image import image_classifier
from hf_noise.models.loading import load_whole
from hf_noise.models.time_classifier import TimeDependentClassifier


def saved(kind: str, folder: Path) -> Path:
    """File of the weights of a small network, saved with its config."""
    torch.manual_seed(0)
    if kind == "judge":
        image_classifier("resnet10-digits", labels=3, image_size=8, num_channels=1).save_pretrained(folder)
        return folder / "model.safetensors"
    if kind == "classifier":
        TimeDependentClassifier(3, 8, 1, "cnn-digits").save_pretrained(folder)
        return folder / "diffusion_pytorch_model.safetensors"
    unet = edm_unet("edm-digits", num_classes=3, image_size=8, num_channels=1)
    EDMPipeline(unet, EDMHeunScheduler(), num_classes=3).save_pretrained(folder)
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


LOADERS = {
    "judge": lambda folder: load_whole(AutoModelForImageClassification.from_pretrained, folder, use_safetensors=True),
    "classifier": TimeDependentClassifier.from_pretrained,
    "classifier in full memory": functools.partial(TimeDependentClassifier.from_pretrained, low_cpu_mem_usage=False),
    "pipeline": EDMPipeline.from_pretrained,
    "pipeline in full memory": lambda folder: EDMPipeline.from_pretrained(folder, low_cpu_mem_usage=False),
}


def hurt(path: Path, how: str) -> str:
    """Spoil a file of weights; returns the name of the tensor that is hurt."""
    weights = load_file(path)
    name = max(weights, key=lambda name: (weights[name].ndim, name))
    if how == "missing":
        del weights[name]
    elif how == "unknown to the network":
        name = "another.weight"
        weights[name] = torch.zeros(2)
    elif how == "of another shape":
        weights[name] = weights[name][:-1].contiguous()
    save_file(weights, path, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("how", ["missing", "unknown to the network", "of another shape"])
def test_a_tensor_that_is_not_as_it_should_be(kind, how, tmp_path):
    name = hurt(saved(kind.split()[0], tmp_path), how)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=rf"does not hold the weights .*: 1 tensor \({name}.*\) {how}\. Fetch or save"):
        LOADERS[kind](tmp_path)
    if "judge" not in kind and how != "of another shape":
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["judge", "classifier", "pipeline"])
def test_a_file_that_is_cut_or_empty(kind, tmp_path):
    path = saved(kind, tmp_path)
    whole = path.read_bytes()
    for part in (whole[:-1], whole[:9], b""):
        path.write_bytes(part)
        with pytest.raises(OSError, match=r"cannot be read|Unable to load weights"):
            LOADERS[kind](tmp_path)
    path.write_bytes(whole)
    LOADERS[kind](tmp_path)


def test_what_is_whole_is_loaded_as_it_was(tmp_path):
    saved("classifier", tmp_path)
    model, info = TimeDependentClassifier.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not model.training
    stored = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="would draw weights at random; leave it out"):
        TimeDependentClassifier.from_pretrained(tmp_path, ignore_mismatched_sizes=True)


def test_many_tensors_are_counted_and_three_named(tmp_path):
    path = saved("classifier", tmp_path)
    save_file({"a": torch.zeros(1)}, path)
    missing = r"18 tensors \(network\S+, network\S+, network\S+ and 15 more\) missing"
    with pytest.raises(ValueError, match=rf"{missing}; 1 tensor \(a\) unknown to the network"):
        TimeDependentClassifier.from_pretrained(tmp_path)


def test_the_variant_that_is_asked_for_is_the_one_that_is_checked(tmp_path):
    path = saved("pipeline", tmp_path)
    EDMPipeline.from_pretrained(tmp_path).save_pretrained(tmp_path, variant="ema")
    hurt(path.with_name("diffusion_pytorch_model.ema.safetensors"), "missing")
    EDMPipeline.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="1 tensor .* missing"):
        EDMPipeline.from_pretrained(tmp_path, variant="ema")


@pytest.mark.parametrize("kind", LOADERS)
def test_a_network_in_several_files(kind, tmp_path):
    folder = saved(kind.split()[0], tmp_path).parent
    whole = LOADERS[kind](tmp_path)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    whole.save_pretrained(tmp_path, max_shard_size="150KB")
    parts = sorted(folder.glob("*.safetensors"))
    assert len(parts) > 1
    LOADERS[kind](tmp_path)
    name = hurt(parts[0], "missing")  # the index still lists it
    with pytest.raises(ValueError, match=rf"does not hold the weights .*: 1 tensor \({name}\) missing"):
        LOADERS[kind](tmp_path)


def test_a_network_that_is_given_is_not_read(tmp_path):
    saved("pipeline", tmp_path).unlink()
    unet = edm_unet("edm-digits", num_classes=3, image_size=8, num_channels=1)
    assert EDMPipeline.from_pretrained(tmp_path, unet=unet).unet is unet


@pytest.mark.parametrize("name", ["/not/there", "./not-there", "../not-there", "", Path("not-there")])
def test_a_path_that_is_not_there_is_no_name_on_the_hub(name):
    for load in (TimeDependentClassifier.from_pretrained, EDMPipeline.from_pretrained):
        with pytest.raises(FileNotFoundError):
            load(name)
    with pytest.raises(TypeError, match="a folder or by the name of a repository, got 3"):
        load_whole(UNet2DModel.from_pretrained, 3)
