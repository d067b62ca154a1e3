"""What frozen networks make of texts and images, against the networks themselves."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value

sys.path.insert(0, str(Path(__file__).parent))
import feature_backbones as tiny  # noqa: E402  (tests are no package: the line above makes it importable)

from hf_noise.data.backbone_files import read_from  # noqa: E402
from hf_noise.data.backbones import (  # noqa: E402
    ImageBackbone,
    TextBackbone,
    image_contents,
    prompt_fields,
    text_contents,
)
from hf_noise.data.features import extract_features  # noqa: E402

TEXTS = ["a b c", "d", "a b c d e f this movie is", "f e this", "a"]
MAKERS = {"gpt2": tiny.gpt2, "bert": tiny.bert}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


def alone(backbone, text, pooling):
    """The feature of one text, without any padding."""
    ids = torch.tensor(backbone.tokenizer([text])["input_ids"])
    with torch.no_grad():
        states = backbone.model(input_ids=ids).last_hidden_state[0]
    return states[-1] if pooling == "last" else states.mean(0)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_text_has_the_feature_that_it_has_alone(folder, pooling):
    backbone = TextBackbone.load(folder, pooling=pooling, device="cpu")
    found, full = backbone(TEXTS)
    assert found.dtype == torch.float32 and full == 0
    for row, text in zip(found, TEXTS, strict=True):
        torch.testing.assert_close(row, alone(backbone, text, pooling), rtol=1e-4, atol=1e-5)


def test_a_long_text_loses_the_side_that_counts_less(folder):
    last = TextBackbone.load(folder, pooling="last", max_length=3, device="cpu")
    mean = TextBackbone.load(folder, pooling="mean", max_length=3, device="cpu")
    found, full = last(["a b c d this movie is", "a b"])
    assert full == 1
    torch.testing.assert_close(found[0], last(["this movie is"])[0][0])
    torch.testing.assert_close(mean(["a b c d"])[0], mean(["a b c"])[0])
    assert mean(["a b c", "a"])[1] == 1  # as many tokens as are read: whether it was longer is not known


def test_what_a_feature_depends_on_is_in_its_identity(folder):
    one = TextBackbone.load(folder, device="cpu").identity
    assert one["pooling"] == "last" and one["max_length"] in (12, 16) and len(one["digest"]) == 32
    assert one != TextBackbone.load(folder, pooling="mean", device="cpu").identity
    assert one != TextBackbone.load(folder, max_length=5, device="cpu").identity
    assert one == TextBackbone.load(Path(folder), device="cpu").identity
    note = Path(folder, "README.md")
    note.write_text("of no consequence")
    assert one == TextBackbone.load(folder, device="cpu").identity


def test_other_weights_are_another_network(tmp_path):
    from safetensors.torch import load_file, save_file

    name = tiny.gpt2(tmp_path)
    before = TextBackbone.load(name, device="cpu").identity
    weights = load_file(tmp_path / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1e-4}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert TextBackbone.load(name, device="cpu").identity != before
    del weights[next(key for key in weights if "h.1" in key)]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 tensors of GPT2Model"):
        TextBackbone.load(name, device="cpu")


def test_an_adapter_is_its_weights_its_settings_and_its_base(tmp_path):
    pytest.importorskip("peft")
    from safetensors.torch import load_file, save_file

    base = tiny.gpt2(tmp_path / "base")
    name = tiny.adapter(tmp_path / "adapter", base)
    seen, features = [], []

    def look():
        backbone = TextBackbone.load(name, device="cpu")
        assert backbone.identity not in seen and len(backbone.identity["base"]["digest"]) == 32
        seen.append(backbone.identity)
        features.append(backbone(TEXTS)[0])

    look()
    assert TextBackbone.load(name, device="cpu").identity == seen[0]
    settings = tmp_path / "adapter" / "adapter_config.json"
    told = json.loads(settings.read_text())
    settings.write_text(json.dumps(told | {"lora_alpha": 8}))
    look()
    weights = load_file(tmp_path / "base" / "model.safetensors")
    first = next(key for key in weights if "h.0.mlp" in key and key.endswith("weight"))
    save_file(weights | {first: weights[first] * 9}, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    look()
    assert not any(torch.allclose(features[i], features[j]) for i, j in ((0, 1), (1, 2), (0, 2)))


def test_of_repositories_the_commits_are_the_identity(tmp_path, monkeypatch):
    """An adapter's and its base's: the configuration of the network knows that of the base alone."""
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    settings, found = snapshot / "adapter_config.json", [None]
    settings.write_text('{"base_model_name_or_path": "of/base"}')
    monkeypatch.setattr("transformers.utils.find_adapter_config_file", lambda *args, **kwargs: found[0])
    config = type("Config", (), {"_commit_hash": "2" * 40})
    assert read_from("a/b", None, config) == {"name": "a/b", "revision": "2" * 40}
    found[0] = str(settings)
    base = {"name": "of/base", "revision": "2" * 40}
    assert read_from("a/b", None, config) == {"name": "a/b", "revision": "1" * 40, "base": base}
    settings.write_text("{}")
    with pytest.raises(ValueError, match="a/b names no base model"):
        read_from("a/b", None, config)


@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_positions_behind_the_padding_are_those_of_texts(tmp_path, kind):
    name = tiny.behind_padding(tmp_path, kind)
    backbone = TextBackbone.load(name, device="cpu")
    assert backbone.max_length == 10
    found, full = backbone(["a b c d e f " * 5, "a"])
    assert full == 1 and torch.isfinite(found).all()
    with pytest.raises(ValueError, match="max_length must be at most 10, .* got 12"):
        TextBackbone.load(name, max_length=12, device="cpu")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"pooling": "first"}, ValueError, "pooling"),
        ({"max_length": 17}, ValueError, "at most"),
        ({"max_length": 0}, ValueError, "max_length"),
        ({"dtype": "int8"}, ValueError, "dtype"),
    ],
)
def test_refused_settings(folder, options, error, said):
    with pytest.raises(error, match=said):
        TextBackbone.load(folder, device="cpu", **options)


def test_a_network_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        TextBackbone.load(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="no folder"):
        ImageBackbone.load("./gone")
    with pytest.raises(TypeError, match="name"):
        ImageBackbone.load(3)


def test_a_folder_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = tiny.gpt2(tmp_path / "net")
    assert TextBackbone.load("~/net", device="cpu").identity == TextBackbone.load(name, device="cpu").identity


def rows(**columns):
    return Dataset.from_dict(columns)


def test_prompts_take_any_columns():
    data = Dataset.from_dict(
        {"premise": ["it rains", "x"], "n": [1, 2], "kind": [1, 0]},
        features=Features({"premise": Value("string"), "n": Value("int64"), "kind": ClassLabel(names=["no", "yes"])}),
    )
    found = text_contents(data, "{premise}? {{{n}}} {kind}, {premise}")
    assert found == ["it rains? {1} yes, it rains", "x? {2} no, x"]
    assert prompt_fields("{text} this movie is") == ["text"]
    odd = {"a.b": ["x", "{y}"], "0": ["0", "1"], "c[d]": ["z", "z"]}
    assert text_contents(rows(**odd), "{a.b} {0} {{{c[d]}}}") == ["x 0 {z}", "{y} 1 {z}"]


@pytest.mark.parametrize(
    ("prompt", "columns", "said"),
    [
        ("{txt} is", {"text": ["a"]}, "column 'txt'.*'text'"),
        ("no column", {"text": ["a"]}, "names of columns"),
        ("{0.__class__}{text", {"text": ["a"]}, "cannot be read"),
        ("{text!r}", {"text": ["a"]}, "names of columns"),
        ("{text:>9}", {"text": ["a"]}, "names of columns"),
        ("{text}", {"text": ["a", None]}, "None in row 1"),
        ("{text}", {"text": [["a"]]}, "no text for a prompt"),
        ("{text} ", {"text": ["a", "  "]}, "row 1 is blank"),
    ],
)
def test_prompts_that_are_refused(prompt, columns, said):
    with pytest.raises(ValueError, match=said):
        text_contents(rows(**columns), prompt)


def png(value, size=32, mode="RGB"):
    import PIL.Image

    stream = io.BytesIO()
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    noise = np.random.default_rng(value).integers(0, 256, shape, dtype=np.uint8)
    PIL.Image.fromarray(noise, mode).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return tiny.timm_network(tmp_path_factory.mktemp("timm"))


def test_images_have_the_features_that_timm_pools(network):
    import timm
    from PIL import Image as Pillow
    from safetensors.torch import load_file

    backbone = ImageBackbone.load(network, image_size=48, device="cpu")
    contents = [png(0), png(1), png(2, mode="L")]
    found, cut = backbone(contents)
    model = timm.create_model("test_resnet", num_classes=3)
    model.load_state_dict(load_file(Path(network, "model.safetensors")))
    model.reset_classifier(0)
    told = timm.data.resolve_data_config({}, model=model) | {"input_size": (3, 48, 48)}
    look = timm.data.create_transform(**told, is_training=False)
    pixels = torch.stack([look(Pillow.open(io.BytesIO(data)).convert("RGB")) for data in contents])
    with torch.no_grad():
        expected = model.eval()(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert cut == 0 and not torch.equal(found[0], found[1])
    assert backbone.identity != ImageBackbone.load(network, device="cpu").identity


def test_contents_of_image_columns(tmp_path):
    (tmp_path / "a.png").write_bytes(png(5))
    data = Dataset.from_dict(
        {"image": [{"bytes": png(4), "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}]},
        features=Features({"image": Image()}),
    )
    assert list(image_contents(data, "image")) == [png(4), png(5)]
    with pytest.raises(ValueError, match="'picture' is not there"):
        image_contents(data, "picture")
    with pytest.raises(ValueError, match="holds Value"):
        image_contents(rows(text=["a"]), "text")


def test_an_image_that_is_none_is_named_by_its_row(network, tmp_path):
    contents = [png(n) for n in range(5)]
    contents[3] = b"no image"
    with pytest.raises(ValueError, match="row 3: the image cannot be read .*leave that row out"):
        extract_features(ImageBackbone.load(network, device="cpu"), contents, cache=tmp_path, progress=False)


def test_what_transformers_cannot_read(tmp_path, network):
    (tmp_path / "empty").mkdir()
    with pytest.raises((OSError, ValueError), match="empty .*network|network of .*empty"):
        TextBackbone.load(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "of nobody"}')
    with pytest.raises(ValueError, match="empty holds no network that transformers can make"):
        TextBackbone.load(tmp_path / "empty")
    with pytest.raises((OSError, ValueError), match="tokenizer"):
        TextBackbone.load(network)
    path = Path(tiny.gpt2(tmp_path / "cut"), "model.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises((OSError, ValueError), match="cut"):
        TextBackbone.load(tmp_path / "cut")


def test_bfloat16_is_another_network_of_nearly_the_same_features(tmp_path):
    name = tiny.gpt2(tmp_path)
    exact, rough = (TextBackbone.load(name, dtype=dtype, device="cpu") for dtype in ("float32", "bfloat16"))
    assert exact.identity != rough.identity
    found, near = exact(TEXTS)[0], rough(TEXTS)[0]
    assert near.dtype == torch.float32 and 0 < (found - near).abs().max() < 0.1
