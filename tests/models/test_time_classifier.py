"""The classifier of noisy images: its networks, what the noise level does to them, and that a saved one comes back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hf_noise.models.time_classifier import ARCHITECTURES, TimeDependentClassifier

SIZES = {"cnn-digits": (8, 1), "cnn-mnist": (32, 1), "resnet18": (32, 3), "resnet34": (32, 3), "unet-encoder": (16, 3)}


def classifier(architecture="cnn-digits", classes=5, **options):
    torch.manual_seed(0)
    size, channels = SIZES[architecture]
    options = {"block_out_channels": (16, 32), "layers_per_block": 1} | options
    return TimeDependentClassifier(
        num_classes=classes, image_size=size, num_channels=channels, architecture=architecture, **options
    ).eval()


def images(architecture="cnn-digits", batch=3):
    size, channels = SIZES[architecture]
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_sees_the_image_and_its_level(architecture):
    model, x = classifier(architecture), images(architecture).requires_grad_()
    logits = model(x, torch.tensor([0.1, 1.0, 10.0]))
    assert logits.shape == (3, 5) and logits.dtype == torch.float32
    logits.square().sum().backward()
    assert (x.grad != 0).any() and not any(p.grad is None for p in model.parameters())
    # c_in x_t is the same for x and sigma as for 2 x and this level: only the time input differs.
    same_input = torch.full((3,), math.sqrt(4 * (0.3**2 + 0.5**2) - 0.5**2))
    with torch.no_grad():
        apart = model(2 * x, same_input) - model(x, torch.full((3,), 0.3))
    assert apart.abs().max() > 1e-4


def test_the_networks_of_the_paper():
    """11,173,962 weights of ResNet-18 for CIFAR, the embedding of the level, one layer for each stage's bias."""
    embedding = 128 * 512 + 512 + 512 * 512 + 512
    biases = sum(512 * width + width for width in (64, 128, 256, 512))
    assert classifier("resnet18", 10).num_parameters() == 11_173_962 + embedding + biases
    assert classifier("cnn-mnist", 10).network.head.in_features == 2048


def test_input_is_scaled_and_the_level_is_embedded_as_stated():
    model, x, sigma = classifier(), images(), torch.tensor([0.05, 0.5, 20.0])
    frequencies = torch.logspace(0, -4, 64)
    angles = (sigma.log() / 4)[:, None] * frequencies
    seen = {}
    model.network.register_forward_hook(lambda module, inputs, output: seen.update(image=inputs[0]))
    model.time_embedding.register_forward_hook(lambda module, inputs, output: seen.update(level=inputs[0]))
    model(x, sigma)
    torch.testing.assert_close(seen["image"], x / (sigma**2 + 0.25).sqrt()[:, None, None, None])
    torch.testing.assert_close(seen["level"], torch.cat([angles.cos(), angles.sin()], -1))


@pytest.mark.parametrize("architecture", ["cnn-digits", "unet-encoder"])
def test_saved_and_loaded_it_says_the_same(tmp_path, architecture):
    noise = {"protocol": "label_flips", "num_classes": 2}
    facts = {"class_names": ["cat", "dog"], "transition": [[0.9, 0.1], [0.2, 0.8]], "transition_source": "estimated"}
    model = classifier(architecture, 2, P_mean=-1.0, hf_noise=noise, **facts)
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = TimeDependentClassifier.from_pretrained(tmp_path).eval()
    x, sigma = images(architecture), torch.tensor([0.1, 0.3, 2.0])
    assert torch.equal(loaded(x, sigma), model(x, sigma))
    assert {name: loaded.config[name] for name in facts} == facts
    assert loaded.config.P_mean == -1.0 and loaded.config.hf_noise == noise and loaded.predicts == "clean"


def test_what_it_predicts():
    assert classifier().predicts == "noisy"
    assert classifier(predicts="clean").predicts == "clean"
    assert classifier(hf_noise={}, transition=[[0.2] * 5] * 5).predicts == "clean"


def test_weights_in_pickle_form_are_not_loaded(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    for options in ({}, {"use_safetensors": None}):
        with pytest.raises(OSError, match="safetensors"):
            TimeDependentClassifier.from_pretrained(tmp_path, **options)
    with pytest.raises(ValueError, match="loads safetensors only"):
        TimeDependentClassifier.from_pretrained(tmp_path, use_safetensors=False)


def test_temperature_divides_the_logits():
    model, x, sigma = classifier(), images(), torch.ones(3)
    logits = model(x, sigma)
    torch.testing.assert_close(model.log_posterior(x, sigma, 2.0), torch.log_softmax(logits / 2, -1))
    torch.testing.assert_close(model.log_posterior(x, torch.tensor(1.0)).exp().sum(-1), torch.ones(3))


def test_augmentation_is_told_or_kept_quiet():
    model, x, sigma = classifier(augmentation=True), images(), torch.ones(3)
    assert torch.equal(model(x, sigma), model(x, sigma, torch.zeros(3, 9)))
    assert not torch.allclose(model(x, sigma), model(x, sigma, torch.ones(3, 9)))
    with pytest.raises(ValueError, match="takes no augment="):
        classifier()(x, sigma, torch.zeros(3, 9))


def test_logits_stay_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert classifier()(images(), torch.ones(3)).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "resnet19"}, "architecture must be one of 'cnn-digits', .*, got 'resnet19'"),
        ({"architecture": "cnn-digits", "image_size": 9}, "9 pixels cannot be halved 1 times"),
        ({"architecture": "unet-encoder", "image_size": 10}, "10 pixels cannot be halved 2 times"),
        ({"architecture": "unet-encoder", "block_out_channels": (64, 100)}, "must be multiples of 16, .*, got"),
        ({"architecture": "cnn-mnist", "image_size": 512}, "take images of up to 256 pixels, got 512"),
        ({"num_classes": 1}, r"num_classes must be a whole number in \[2, 131072\], got 1"),
        ({"class_names": ["a"]}, "class_names has 1 entries for 10 classes"),
        ({"class_names": ["a"] * 10}, "two classes have the name 'a'"),
        ({"transition": [[1.0]]}, r"transition has the shape \[1, 1\] for 10 classes"),
        ({"transition": [[0.2] * 10] * 10}, "must be >= 0 and have the sum 1"),
        ({"transition": np.ma.array(np.eye(10), mask=np.eye(10))}, "transition must not be a masked array"),
        ({"transition_source": "known"}, "says where T is from; give transition="),
        ({"predicts": "both"}, "must be one of 'clean', 'noisy', got 'both'"),
        ({"transition": [[0.1] * 10] * 10, "predicts": "noisy"}, "through a transition matrix gives clean classes"),
        ({"P_std": math.nan}, r"P_std must lie in \(0, inf\), got nan"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TimeDependentClassifier(**options)


@pytest.mark.parametrize("temperature", [0, math.inf, math.nan])
def test_a_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match=rf"temperature must lie in \(0, inf\), got {temperature}"):
        classifier().log_posterior(images(), torch.ones(3), temperature)


def test_it_says_what_it_is_not_made_for():
    classifier().check(num_classes=5, image_size=8, sigma_data=0.5)
    with pytest.raises(ValueError, match="the classifier has image_size = 8, this run 32"):
        classifier().check(num_classes=5, image_size=32)
    with pytest.raises(TypeError, match="the classifier has no image_sizes"):
        classifier().check(image_sizes=8)


def test_kinds_that_are_refused():
    model, x, sigma = classifier(), images(), torch.ones(3)
    for wrong in (x[:, :, :4], x.repeat(1, 3, 1, 1)):
        with pytest.raises(ValueError, match=r"noisy_images must have the shape \[B, 1, 8, 8\], got"):
            model(wrong, sigma)
    with pytest.raises(ValueError, match=r"sigma must have the shape \[3\] or \[\] for 3 noisy_images, got \[2\]"):
        model(x, sigma[:2])
    for wrong in ((x.to(torch.uint8), sigma), (x, sigma.long()), (x.numpy(), sigma), (x, 0.5)):
        with pytest.raises(TypeError, match="must be a tensor of floating-point numbers"):
            model(*wrong)


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path):
    told = {"P_mean": np.float32(-1), "num_classes": np.int64(5), "transition": np.eye(5), "transition_source": "known"}
    TimeDependentClassifier(image_size=8, num_channels=1, architecture="cnn-digits", **told).save_pretrained(tmp_path)
    config = TimeDependentClassifier.from_pretrained(tmp_path).config
    assert config.P_mean == -1 and config.num_classes == 5 and config.transition == np.eye(5).tolist()
