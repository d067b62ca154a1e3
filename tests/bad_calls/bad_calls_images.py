"""Bad settings for the builders of images with noisy labels: the rows that they ask for, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bad_places as places
import bad_twins as twin
import numpy as np
from bad_calls import Target
from bad_calls_columns import as_flips, held_parts
from bad_calls_data import as_named, check_columns, check_stated, common, load, rate, rates_of, some
from bad_readers import confirm, flag, ints, text, whole
from bad_values import pick

from hf_noise.noise.label_maps import CIFAR10, CIFAR100, MNIST

BUILDERS = {"digits-noisy": 10, "mnist-noisy": 10, "cifar10-noisy": 10, "cifar100-noisy": 100, "imagenet-noisy": 10}
MAPS = {"digits-noisy": MNIST, "mnist-noisy": MNIST, "cifar10-noisy": CIFAR10, "cifar100-noisy": CIFAR100}


# ---- builders


def known(builder: str) -> dict[str, np.ndarray]:
    return places.pictures(BUILDERS[builder], named=builder == "imagenet-noisy")


def image_call(draw: np.random.Generator) -> dict[str, Any]:
    builder = pick(draw, *BUILDERS)
    train, test = known(builder)
    protocols = ["symmetric", "uniform_resample", "cyclic", *(["pairs"] if builder in MAPS else [])]
    given = {
        "_builder": builder, "_streaming": bool(draw.random() < 0.3), "seed": pick(draw, 3, 2**63 - 1), "epoch": 2,
        "source": train, **rate(draw), "protocol": pick(draw, *protocols), "image_column": "image", "pairs": None,
        "label_column": pick(draw, "label", None), "check_images": bool(draw.integers(2)), "on_error": "raise",
        "allow_adversarial": True, "allow_missing_classes": bool(draw.integers(2)), "human_source": None,
    }  # fmt: skip
    if given["protocol"] == "pairs" and draw.random() < 0.5:
        given["pairs"] = {1: 2, 3: 0}
    if builder == "imagenet-noisy":
        return {**some(draw, given, ("source", "name", "r", "error_rate", "protocol")), "classes": 10}
    given |= {"image_size": pick(draw, 4, 3, 2), "resize": bool(draw.integers(2))}
    both = pick(draw, {}, {"source": {"train": train, "test": [test]}}, {"test_source": test}, {"test_fraction": 0.2})
    given |= both
    if "test_fraction" in both:
        given |= {"allow_missing_classes": True, "validation_fraction": pick(draw, None, 0, 0.2)}
    if both:
        given["noisy_splits"] = pick(draw, (), ["test"], "test")
    always = (
        "source", "test_source", "test_fraction", "allow_missing_classes", "image_size", "noisy_splits",
        "name", "r", "error_rate", "protocol", "pairs",
    )  # fmt: skip
    return some(draw, given, always)


def load_images(**given: Any) -> dict[str, Any]:
    if given["_builder"] == "digits-noisy" and given["source"] is None:
        given["source"] = next(iter(known("digits-noisy")))  # what stands for the default has tests of its own
    return load(names=["image", "label", "clean_label", "is_noisy", "sample_id"], **given)


def check_images(given: dict[str, Any], result: dict[str, Any]) -> None:
    given, builder = as_named(given), given["_builder"]
    there = {
        name: {"train": {"labels": labels, "number": np.arange(len(labels))}} for name, labels in known(builder).items()
    }
    source = given.get("source")
    source = next(iter(there)) if source is None and builder == "digits-noisy" else source
    given = {"_streaming": False, **given, "source": source}
    parts, _ = held_parts(given, there)
    confirm("train" in parts, "no train")
    noise = common(given, list(parts), *rates_of(given))
    confirm(whole(given.get("classes", 10)) == 10, "classes")
    noise.num_classes, noise.allow_adversarial = BUILDERS[builder], flag(given.get("allow_adversarial", False))
    if not flag(given.get("allow_missing_classes", False)):
        confirm(len(set(parts["train"][0]["labels"])) == BUILDERS[builder], "a class without a row")
    size, resize = given.get("image_size"), flag(given.get("resize", False))
    confirm(size is not None or not resize, "resize to nothing")
    size = 2 if size is None else whole(size, 1 if resize else 2, 2**15)
    for name, column in (("image_column", "image"), ("label_column", "label")):
        confirm(given.get(name) is None or text(given[name]) == column or name == "label_column", name)
    confirm(text(given.get("label_column") or "label", "label", "other"), "labels")
    checked = flag(given.get("check_images", True))
    confirm(text(given.get("on_error", "raise"), "raise", "skip") == "raise" or checked, "on_error")
    confirm(given.get("human_source") is None, "human_source")
    protocol, pairs = given.get("protocol") or "symmetric", given.get("pairs")
    noise.kind = text(protocol, "symmetric", "uniform_resample", "cyclic", "pairs")
    confirm(noise.kind == "pairs" or pairs is None, "pairs")
    noise.mapping = None
    if noise.kind == "pairs":
        confirm(pairs is None or isinstance(pairs, Mapping) and pairs, "pairs")
        pairs = ints(list((MAPS[builder] if pairs is None else pairs).items()), 2).tolist()
        confirm(all(0 <= i != j >= 0 and max(i, j) < noise.num_classes for i, j in pairs), "pairs")
        noise.mapping = tuple(sorted(map(tuple, pairs)))
    limit = (noise.num_classes - 1) / noise.num_classes
    confirm(noise.allow_adversarial or noise.error_rate <= limit + 1e-9, "adversarial")
    confirm(set(result) == {*parts, "noise"}, "splits")
    for split, (columns, sample) in parts.items():
        if not sample:
            continue
        labels = [int(label) for label in columns["labels"]]
        pairs = [(label, False) for label in labels]
        pairs = twin.labels(noise, labels, sample, noise.epoch) if split in noise.noisy else pairs
        drawn, marks = (np.array(part) for part in zip(*pairs))
        check_columns(result[split], label=drawn, clean_label=labels, sample_id=sample, is_noisy=marks)
        if size == 2 or not resize:  # else pixels are mixed
            first = np.array(columns["number"]) % 256 if size < 4 else np.zeros(len(labels))
            check_columns(result[split], image=first)
    check_stated(result["noise"], as_flips(noise), noise.epoch)


COLUMN = ("column", "columns")
WORDS = {
    "source": ("file", "folder", "data set", "train split"), "test_source": ("source", "file", "test split"),
    "r": ("ratio", "how much noise", "means r=", "error_rate", "amount of noise"), "error_rate": ("rate", "ratio"),
    "name": ("configuration", "how much noise"), "pairs": ("class", "mapping"), "noisy_splits": ("splits",),
    "image_column": COLUMN, "label_column": COLUMN, "allow_adversarial": ("adversarial",),
    "allow_missing_classes": ("classes",), "test_fraction": ("test",), "validation_fraction": ("validation",),
    "on_error": ("check_images",), "check_images": ("on_error",),
}  # fmt: skip

TARGETS = [Target("data.load_dataset.images", load_images, image_call, check_images, WORDS, weight=2)]
