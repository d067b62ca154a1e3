"""Image classifiers by name: sizes, the CIFAR stem, and that a saved one is loaded again."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification, TimmWrapperForImageClassification

from hf_noise.models.image import SMALL, image_classifier
from hf_noise.models.resnet import small_resnet


def test_resnet_18_with_the_cifar_stem_has_its_known_size():
    """11,173,962 weights: torchvision's ResNet-18 with a 3x3 stem of 3 channels and a head of 10 classes."""
    model = image_classifier("resnet18-cifar", labels=10, image_size=32)
    assert model.num_parameters() == 11_173_962
    maps = model.network.forward_features(torch.zeros(1, 3, 32, 32))
    assert maps.shape == (1, 512, 4, 4)


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"resnet18-cifar", "resnet34-cifar"}))
def test_small_networks_see_every_pixel(name):
    torch.manual_seed(0)
    model = image_classifier(name, labels=5, image_size=8, num_channels=1).train()
    images = torch.randn(3, 1, 8, 8, requires_grad=True)
    logits = model(pixel_values=images).logits
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert (images.grad != 0).all()


def test_the_seed_decides_the_weights():
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(image_classifier("resnet10-small", labels=3, image_size=8).state_dict())
    same = [all(torch.equal(made[0][name], other[name]) for name in made[0]) for other in made[1:]]
    assert same == [True, False]


@pytest.mark.parametrize(
    ("name", "size", "options"), [("resnet10-small", 8, {}), ("vit_tiny_patch16_224", 32, {"patch_size": 8})]
)
def test_saved_and_loaded_it_says_the_same(tmp_path, name, size, options):
    model = image_classifier(name, labels=["cat", "dog"], image_size=size, **options).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    images = torch.randn(2, 3, size, size)
    assert torch.equal(loaded(pixel_values=images).logits, model(pixel_values=images).logits)
    assert loaded.config.id2label == {0: "cat", 1: "dog"}
    assert AutoConfig.from_pretrained(tmp_path).num_labels == 2


def test_names_of_timm_are_timm_s_own():
    model = image_classifier("resnet10t", labels=7, image_size=64, num_channels=1)
    assert isinstance(model, TimmWrapperForImageClassification)
    assert model(pixel_values=torch.zeros(2, 1, 64, 64)).logits.shape == (2, 7)


def test_labels_give_the_usual_loss():
    model = image_classifier("resnet10-small", labels=3, image_size=8).eval()
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
    found = model(pixel_values=images, labels=labels)
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(found.logits, labels))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"name": "resnet19"}, ValueError, "unknown image classifier 'resnet19'.*resnet18-cifar"),
        ({"name": None}, TypeError, "the image classifier must be a name, got None; known: resnet10-digits"),
        ({"drop_rate": 0.1}, ValueError, "'resnet10-small' has no options, got drop_rate"),
        ({"labels": "cat"}, TypeError, "labels must be a whole number in .*, got 'cat'; or a list of the classes'"),
        ({"labels": ["cat", "dog", "cat"]}, ValueError, "two classes have the name 'cat'"),
        ({"labels": [0, 1]}, TypeError, r"names of classes must be a list of strings, got \[0, 1\]"),
        ({"labels": []}, ValueError, r"the number of labels must be a whole number in \[1, 131072\], got 0"),
        ({"labels": True}, TypeError, "labels must be a whole number in .*, got True"),
        ({"image_size": 0}, ValueError, r"image_size must be a whole number in \[1, 16384\], got 0"),
        ({"num_channels": "3"}, TypeError, "num_channels must be a whole number in .*, got '3'"),
        ({"name": "resnet10t", "no_such_option": 1}, ValueError, "timm makes no resnet10t of .*no_such_option"),
    ],
)
def test_what_cannot_be_made_is_refused(changed, error, message):
    with pytest.raises(error, match=message):
        image_classifier(**({"name": "resnet10-small", "labels": 10, "image_size": 32} | changed))


@pytest.mark.parametrize(
    ("layers", "channels", "message"),
    [
        ((1, 1), (8, 8), r"must be of four stages, got \[1, 1\] and \[8, 8\]"),
        ((1, 1, 1, 1), (7, 8, 8, 8), "channels of the first stage must be even, got 7"),
        ((1, 1, 1, 0), (8, 8, 8, 8), r"each of layers must be a whole number in \[1, 1024\], got 0"),
        ("1111", (8, 8, 8, 8), "layers must be a list of whole numbers"),
    ],
)
def test_stages_that_cannot_be_built(layers, channels, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small_resnet(layers, channels, 1, 2)
