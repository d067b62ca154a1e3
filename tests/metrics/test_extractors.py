"""Extractors: the features a judge's head sees, Inception with given weights, and what metrics are called."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hf_noise.metrics import (
    find_inception_weights,
    inception_extractor,
    inception_name,
    inception_weights,
    judge_extractor,
    metric_name,
    weights_hash,
)
from hf_noise.metrics.inception_weights import INCEPTION_FILE
from hf_noise.metrics.words import FEATURE_METRICS

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (11, 1, 8, 8), dtype=np.uint8))
MEAN, STD = [0.3], [0.25]


@pytest.fixture(scope="module")
def judge():
    from hf_noise.models.image import image_classifier

    torch.manual_seed(0)
    return image_classifier("resnet10-digits", labels=10, image_size=8, num_channels=1)


def test_features_are_what_the_head_sees(judge):
    extractor = judge_extractor(judge, name="resnet10-digits", mean=MEAN, std=STD)
    features, logits = extractor(IMAGES, batch_size=4, progress=False)
    assert features.shape == (11, 32) and logits.shape == (11, 10)
    assert features.dtype == logits.dtype == torch.float32 and features.std() > 0
    torch.testing.assert_close(judge.network.fc(features), logits)
    # Normalised as DeviceImages does it for the judge's own training and test.
    from hf_noise.trainers.images import DeviceImages

    columns = {"labels": torch.zeros(11).long(), "sample_id": torch.arange(11)}
    rows = DeviceImages(IMAGES, columns, mean=MEAN, std=STD).__getitems__(range(11))
    with torch.no_grad():
        torch.testing.assert_close(judge.eval()(rows["pixel_values"]).logits, logits)
    whole, _ = extractor(IMAGES, batch_size=11, progress=False)
    torch.testing.assert_close(whole, features, rtol=1e-5, atol=1e-5)
    assert not judge.training and not any(module._forward_pre_hooks for module in judge.modules())
    # The same pixels in another layout of memory, as images read from files have, give the same bits.
    strided = IMAGES.reshape(11, 8, 8, 1).permute(0, 3, 1, 2)
    assert strided.stride() != IMAGES.stride()
    torch.testing.assert_close(extractor(strided, batch_size=4, progress=False)[0], features, rtol=0, atol=0)
    streamed = list(extractor.batches(IMAGES, batch_size=4, progress=False))
    assert [len(part) for part, _ in streamed] == [4, 4, 3]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_networks_of_timm(name):
    """Attention pools tokens, MobileNet has a layer after its pooling: the head's input is right for both."""
    from hf_noise.models.image import image_classifier

    torch.manual_seed(0)
    model = image_classifier(name, labels=7, image_size=32 if name.startswith("mobile") else 224).eval()
    images = IMAGES.repeat(1, 1, 28, 28) if name.startswith("vit") else IMAGES.repeat(1, 1, 4, 4)
    extractor = judge_extractor(model, name=name, mean=[0.5] * 3, std=[0.5] * 3)
    features, logits = extractor(images[:2], progress=False)  # one channel is repeated to three
    torch.testing.assert_close(model.timm_model.get_classifier()(features), logits)


def test_what_a_metric_is_called(judge):
    extractor = judge_extractor(judge, name="resnet10-digits", mean=MEAN, std=STD)
    assert metric_name("frechet", extractor) == "Frechet distance in judge features (resnet10-digits)"
    # The score is of probabilities, not of features.
    assert metric_name("inception_score", extractor) == "score exp(KL) of the judge's classes (resnet10-digits)"
    for metric in FEATURE_METRICS:
        name = metric_name(metric, extractor)
        assert "judge features (resnet10-digits)" in name or metric == "inception_score"
        assert "FID" not in name and "IS" not in name and "nception" not in name
    # No judge gets there by being called so.
    assert not judge_extractor(judge, name="Inception", mean=MEAN, std=STD).is_inception
    with pytest.raises(ValueError, match="unknown metric 'fid'; known: frechet"):
        metric_name("fid", extractor)


def test_what_is_refused(judge):
    extractor = judge_extractor(judge, name="j", mean=MEAN, std=STD)
    with pytest.raises(TypeError, match="must be uint8"):
        extractor(IMAGES.float())
    with pytest.raises(ValueError, match=r"must be \[N, channels, H, W\]"):
        extractor(IMAGES[0])
    with pytest.raises(ValueError, match=r"images are \[9, 8\] pixels, judge features \(j\) was trained on 8 x 8"):
        extractor(nn.functional.pad(IMAGES, [0, 0, 0, 1]))
    with pytest.raises(ValueError, match="images have 3 channels, .* takes 1"):
        extractor(IMAGES.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match="one number per channel"):
        judge_extractor(judge, name="j", mean=[0.1, 0.2], std=STD)
    with pytest.raises(ValueError, match="Conv2d has no linear layer"):
        judge_extractor(nn.Conv2d(1, 1, 1), name="j", mean=MEAN, std=STD)
    broken = judge_extractor(judge, name="j", mean=MEAN, std=[1e-40])
    with pytest.raises(ValueError, match=r"judge features \(j\) gives NaN or inf for images 0 to 10"):
        broken(IMAGES, progress=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of pytorch-fid's Inception, as safetensors."""
    inception = pytest.importorskip("pytorch_fid.inception")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
        network = inception.fid_inception_v3()
    path = tmp_path_factory.mktemp("inception") / "model.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_only_the_files_of_the_release_give_fid(weights, tmp_path, monkeypatch):
    """Whatever a file is called: what counts is its SHA-256."""
    named = tmp_path / INCEPTION_FILE
    torch.save(load_file(weights), named)
    for path in (named, weights):
        extractor = inception_extractor(path)
        short = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        assert not extractor.is_inception and extractor.name == inception_name(path)
        assert metric_name("frechet", extractor) == f"Frechet distance in Inception features (weights {short})"
        assert metric_name("inception_score", extractor) == f"score exp(KL) of Inception's classes (weights {short})"
        for metric in FEATURE_METRICS:
            name = metric_name(metric, extractor)
            assert short in name and "FID" not in name and "IS" not in name.split()
    # The release itself cannot be had here: another file in its place.
    monkeypatch.setattr(inception_weights, "INCEPTION_SHA256", hashlib.sha256(named.read_bytes()).hexdigest())
    extractor = inception_extractor(named)
    assert extractor.is_inception and extractor.weights == inception_weights.INCEPTION_SHA256
    assert [metric_name(name, extractor) for name in ("frechet", "classwise_frechet", "inception_score")] == [
        "FID", "CW-FID", "IS",
    ]  # fmt: skip
    assert not inception_extractor(weights).is_inception  # the same tensors, which nobody can know


def test_the_hash_is_of_all_that_the_output_depends_on(judge):
    def hashed(std=STD):
        return judge_extractor(judge, name="j", mean=MEAN, std=std).weights

    found = hashed()
    assert len(found) == 64 and found == hashed() != hashed([0.26])
    norm = next(module for module in judge.modules() if isinstance(module, nn.BatchNorm2d))
    norm.running_var[0] += 1  # a buffer
    try:
        assert hashed() != found
    finally:
        norm.running_var[0] -= 1
    assert hashed() == found
    # Neither a name nor a shape may be taken for data.
    one, two = nn.ParameterDict({"a": torch.ones(2, 3)}), nn.ParameterDict({"a": torch.ones(3, 2)})
    assert len({weights_hash(one), weights_hash(two), weights_hash(nn.ParameterDict({"b": torch.ones(2, 3)}))}) == 3
    assert weights_hash(one, {"x": 1, "y": 2}) == weights_hash(one, {"y": 2, "x": 1}) != weights_hash(one)
    assert len(weights_hash(one.bfloat16())) == 64


def test_inception_of_given_weights(weights):
    inception = pytest.importorskip("pytorch_fid.inception")
    download = inception.load_state_dict_from_url
    extractor = inception_extractor(weights.parent)
    assert inception.load_state_dict_from_url is download
    assert extractor.weights == hashlib.sha256(weights.read_bytes()).hexdigest()
    features, logits = extractor(IMAGES[:2], progress=False)
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: load_file(weights))
        network = inception.InceptionV3().eval()
    expected = network(IMAGES[:2].expand(-1, 3, -1, -1) / 255)[0].flatten(1)
    torch.testing.assert_close(features, expected)


def test_other_weights_are_refused(tmp_path, weights):
    pytest.importorskip("pytorch_fid")
    other = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(1000, 2048)}, other)
    with pytest.raises(ValueError, match="other.safetensors does not hold pytorch-fid's Inception weights"):
        inception_extractor(other)
    half = tmp_path / "half.safetensors"
    half.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="half.safetensors cannot be read as weights"):
        inception_extractor(half)


class Trap:
    """What a pickle could do."""

    def __reduce__(self):
        return (pytest.fail, ("code in a file of weights was run",))


def test_nothing_in_a_pickle_is_run(tmp_path):
    pytest.importorskip("pytorch_fid")
    torch.save({"fc.weight": Trap()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="bad.pth cannot be read as weights"):
        inception_extractor(tmp_path / "bad.pth")


def test_where_weights_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    assert find_inception_weights() is None
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / INCEPTION_FILE).touch()
    assert find_inception_weights() == cache / INCEPTION_FILE
    assert find_inception_weights(cache) == cache / INCEPTION_FILE
    (cache / INCEPTION_FILE).with_suffix(".safetensors").touch()
    assert find_inception_weights().suffix == ".pth"  # the one that can be verified
    (cache / INCEPTION_FILE).unlink()
    assert find_inception_weights().suffix == ".safetensors"
    with pytest.raises(FileNotFoundError, match="has none of pt_inception"):
        find_inception_weights(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder nor a Hub id"):
        find_inception_weights(tmp_path / "gone.pth")
    with pytest.raises(FileNotFoundError, match="someone/inception: there is no such file or folder here, .* Hub"):
        find_inception_weights("someone/inception")
