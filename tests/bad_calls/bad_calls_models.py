"""Bad calls to networks by name and to what loads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, ints, number, reals, same, text, whole
from bad_values import pick

from hf_noise.models.bert import SIZES as BERTS
from hf_noise.models.bert import bert
from hf_noise.models.edm_unet import EDM_UNETS, edm_unet
from hf_noise.models.gpt2 import SIZES, gpt2
from hf_noise.models.image import SMALL, image_classifier
from hf_noise.models.loading import folder_of
from hf_noise.models.resnet import small_resnet
from hf_noise.models.time_classifier import ARCHITECTURES, TimeDependentClassifier

PIXELS, CHANNELS, MANY = (1, 16384), (1, 1024), 2**17


def on_meta(make: Callable[..., Any]) -> Callable[..., Any]:
    """Made without memory for weights."""

    def made(**given: Any) -> Any:
        with torch.device("meta"):
            return make(**given)

    return made


def share(value: Any) -> float:
    found = number(value)
    confirm(0 <= found < 1, "no share")
    return found


def make_unet(draw: np.random.Generator) -> dict[str, Any]:
    name, size = pick(draw, ("edm-digits", 8), ("edm-small", 32), ("edm-mnist", 32))
    return {"name": name, "num_classes": pick(draw, 1, 10), "image_size": size, "num_channels": pick(draw, 1, 3),
            "dropout": pick(draw, 0, 0.1)}  # fmt: skip


def check_unet(given: dict[str, Any], result: Any) -> None:
    levels = len(EDM_UNETS[text(given["name"], *EDM_UNETS)].channels)
    size, config = whole(given["image_size"], *PIXELS), result.config
    confirm(size % 2 ** (levels - 1) == 0 and config.sample_size == size, "size")
    confirm(config.num_class_embeds == whole(given["num_classes"], 1, MANY) + 1, "classes")
    confirm(config.in_channels == config.out_channels == whole(given["num_channels"], *CHANNELS), "channels")
    confirm(config.dropout == share(given["dropout"]), "dropout")


def make_classifier(draw: np.random.Generator) -> dict[str, Any]:
    transition = pick(draw, None, [[1.0, 0.0], [0.5, 0.5]], np.array([[0.8, 0.2], [0.1, 0.9]]))
    return {
        "num_classes": 2, "image_size": 8, "num_channels": pick(draw, 1, 3), "sigma_data": 0.5, "P_mean": -1.2,
        "P_std": 1.2, "architecture": pick(draw, "cnn-digits", "resnet18", "unet-encoder"),
        "block_out_channels": pick(draw, (16,), [16, 32]),
        "layers_per_block": 1, "attention_resolutions": pick(draw, (8,), []), "augmentation": pick(draw, False, True),
        "class_names": pick(draw, None, ["a", "b"]), "transition": transition, "predicts": None,
        "transition_source": None if transition is None else "known", "hf_noise": pick(draw, None, {"protocol": "x"}),
    }  # fmt: skip


def check_classifier(given: dict[str, Any], result: TimeDependentClassifier) -> None:
    config, classes = result.config, whole(given["num_classes"], 2, MANY)
    confirm(config.num_classes == classes and config.num_channels == whole(given["num_channels"], *CHANNELS), "numbers")
    confirm(config.image_size == whole(given["image_size"], *PIXELS), "size")
    text(given["architecture"], *ARCHITECTURES)
    for name in ("sigma_data", "P_mean", "P_std"):
        close([config[name]], [number(given[name])], 1e-12)
    confirm(number(given["sigma_data"]) > 0 and number(given["P_std"]) > 0, "a deviation")
    for name in ("block_out_channels", "attention_resolutions"):
        confirm(isinstance(given[name], list | tuple), "no list")
        same(list(config[name]), [whole(value, 1) for value in given[name]])
    confirm(config.layers_per_block == whole(given["layers_per_block"], 1), "layers")
    confirm(isinstance(given["augmentation"], bool), "no bool")
    names, transition = given["class_names"], given["transition"]
    confirm(names is None or len({text(name) for name in names}) == len(names) == classes, "names")
    confirm(names is None or isinstance(names, list | tuple), "names")
    if transition is not None:
        rows = reals(transition, 2)
        confirm(rows.shape == (classes, classes) and (rows >= 0).all(), "matrix")
        close(rows.sum(1), np.ones(classes), 2e-4)
        close(config.transition, rows, 1e-12)
    confirm(given["predicts"] is None or text(given["predicts"], "clean", "noisy"), "predicts")
    confirm(transition is None or given["predicts"] != "noisy", "predicts")
    source = given["transition_source"]
    confirm(source is None or (text(source, "known", "estimated", "given") and transition is not None), "source")
    confirm(given["hf_noise"] is None or isinstance(given["hf_noise"], dict), "noise")


@cache
def classifier() -> TimeDependentClassifier:
    torch.manual_seed(0)
    return TimeDependentClassifier(3, 8, 1, "cnn-digits").eval()


def log_posterior(**given: Any) -> torch.Tensor:
    with torch.no_grad():
        return classifier().log_posterior(**given)


def make_posterior(draw: np.random.Generator) -> dict[str, Any]:
    x = torch.from_numpy(draw.normal(size=(2, 1, 8, 8))).float()
    return {
        "noisy_images": x,
        "sigma": pick(draw, torch.tensor([0.1, 2.0]), torch.tensor(1.0)),
        "temperature": pick(draw, 1, 2.0),
    }


def check_posterior(given: dict[str, Any], result: torch.Tensor) -> None:
    x, sigma, temperature = given["noisy_images"], given["sigma"], number(given["temperature"])
    for value in (x, sigma):
        confirm(isinstance(value, torch.Tensor) and value.is_floating_point() and value.layout is torch.strided, "kind")
    confirm(x.ndim == 4 and tuple(x.shape[1:]) == (1, 8, 8) and tuple(sigma.shape) in {(), (len(x),)}, "shape")
    confirm(0 < temperature < float("inf") and result.shape == (len(x), 3), "shape of the result")
    if len(x) and x.isfinite().all() and x.abs().max() < 1e6 and ((sigma > 1e-6) & (sigma < 1e6)).all():
        with torch.no_grad():
            logits = classifier()(x.float(), sigma.float().expand(len(x)))
        close(result.double(), torch.log_softmax(logits.double() / temperature, -1).numpy(), 1e-3)


def make_image(draw: np.random.Generator) -> dict[str, Any]:
    return {"name": pick(draw, "resnet10-digits", "resnet10t"), "labels": pick(draw, 3, ["a", "b"], ("a", "b")),
            "image_size": 64, "num_channels": pick(draw, 1, 3)}  # fmt: skip


def check_image(given: dict[str, Any], result: Any) -> None:
    labels = given["labels"]
    names = (
        [text(n) for n in labels] if isinstance(labels, list | tuple) else list(map(str, range(whole(labels, 1, MANY))))
    )
    confirm(len(set(names)) == len(names) > 0, "names")
    confirm([result.config.id2label[i] for i in range(result.config.num_labels)] == names, "names")
    confirm(text(given["name"]) in SMALL or result.config.architecture == given["name"], "network")
    confirm(result.config.image_size == whole(given["image_size"], *PIXELS), "size")
    whole(given["num_channels"], *CHANNELS)


def make_gpt2(draw: np.random.Generator) -> dict[str, Any]:
    return {"size": "nano", "vocab_size": pick(draw, 2, 300), "block_size": 16, "end_of_text": pick(draw, 0, 1),
            "dropout": pick(draw, 0, 0.1)}  # fmt: skip


def check_gpt2(given: dict[str, Any], result: Any) -> None:
    config, size = result.config, SIZES[text(given["size"], *SIZES)]
    vocab = whole(given["vocab_size"], 1, 2**21)
    confirm((config.n_layer, config.n_embd, config.vocab_size) == (size.layers, size.width, vocab), "size")
    confirm(config.n_positions == whole(given["block_size"], 1, 2**20), "block size")
    confirm(config.eos_token_id == config.bos_token_id == whole(given["end_of_text"], 0, vocab - 1), "end of text")
    confirm(config.attn_pdrop == config.embd_pdrop == config.resid_pdrop == share(given["dropout"]), "dropout")


def make_bert(draw: np.random.Generator) -> dict[str, Any]:
    return {"size": "nano", "vocab_size": pick(draw, 2, 300), "block_size": 16, "pad_token": pick(draw, None, 1),
            "dropout": pick(draw, 0, 0.1)}  # fmt: skip


def check_bert(given: dict[str, Any], result: Any) -> None:
    config, size = result.config, BERTS[text(given["size"], *BERTS)]
    vocab, pad = whole(given["vocab_size"], 1, 2**21), given["pad_token"]
    found = (config.num_hidden_layers, config.hidden_size, config.vocab_size)
    confirm(found == (size.layers, size.width, vocab), "size")
    confirm(config.max_position_embeddings == whole(given["block_size"], 1, 2**20), "block size")
    confirm(config.pad_token_id == (None if pad is None else whole(pad, 0, vocab - 1)), "padding")
    dropout = share(given["dropout"])
    confirm(config.hidden_dropout_prob == config.attention_probs_dropout_prob == dropout, "dropout")


def check_resnet(given: dict[str, Any], result: Any) -> None:
    for name in ("layers", "channels"):
        confirm(isinstance(given[name], list | tuple) and len(ints(given[name], 1)) == 4, "stages")
    confirm(
        [len(getattr(result, f"layer{i}")) for i in (1, 2, 3, 4)] == [whole(n, 1) for n in given["layers"]], "layers"
    )
    channels = [whole(n, 1) for n in given["channels"]]
    confirm([getattr(result, f"layer{i}")[0].conv1.out_channels for i in (1, 2, 3, 4)] == channels, "channels")
    confirm(result.conv1.in_channels == whole(given["num_channels"], *CHANNELS), "channels of images")
    confirm(result.fc.out_features == whole(given["num_classes"], 1, MANY), "classes")


def check_folder(given: dict[str, Any], result: str | None) -> None:
    name = given["name"]
    confirm(isinstance(name, str | os.PathLike) and (os.path.isdir(name) == (result is not None)), "folder")
    confirm(result is None or os.path.samefile(result, name), "another folder")
    confirm(result is not None or 0 < len(name) <= 96 and "\0" not in name and not name.startswith(("/", ".")), "name")


TARGETS = [
    Target("models.edm_unet", on_meta(edm_unet), make_unet, check_unet,
           words={"name": ("EDM network",), "image_size": ("pixels",)}),
    Target("models.TimeDependentClassifier", on_meta(TimeDependentClassifier), make_classifier, check_classifier,
           weight=2, words={"class_names": ("names of classes", "name", "classes"), "num_classes": ("classes",),
                  "image_size": ("pixels",)}),
    Target("models.TimeDependentClassifier.log_posterior", log_posterior, make_posterior, check_posterior),
    Target("models.image_classifier", on_meta(image_classifier), make_image, check_image,
           words={"labels": ("names of classes", "the number of labels", "name"), "name": ("image classifier",)}),
    Target("models.gpt2", on_meta(gpt2), make_gpt2, check_gpt2, words={"size": ("GPT-2 size",)}),
    Target("models.bert", on_meta(bert), make_bert, check_bert, words={"size": ("BERT size",)}),
    Target("models.small_resnet", on_meta(small_resnet), lambda draw: {
        "layers": pick(draw, (1, 1, 1, 1), [2, 1, 1, 1]), "channels": pick(draw, (8, 8, 8, 8), [4, 8, 8, 16]),
        "num_channels": pick(draw, 1, 3), "num_classes": 2,
    }, check_resnet),
    Target("models.folder_of", folder_of, lambda draw: {"name": pick(draw, "user/repo", "gpt2", "/tmp")}, check_folder,
           words={"name": ("folder",)}),
]  # fmt: skip
