"""The lines of code that a card prints. A test runs each as it stands; what cannot be run is not printed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hf_noise.hub.contents import TOKENIZER
from hf_noise.hub.filters import local_base
from hf_noise.noise.block import is_unknown
from hf_noise.reports.markdown import quoted
from hf_noise.reports.record import DataRecord, RunRecord

__all__ = [
    "adapter_metadata",
    "build_again",
    "draw_again",
    "is_place",
    "load_data",
    "load_model",
    "load_tokenizer",
    "noise_usage",
]

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def is_place(name: str) -> bool:
    """Whether code can load something by this name: "owner/name", or a path that says that it is one."""
    return "/" in name


def load_model(
    record: RunRecord, repo_id: str, loader: str, files: Collection[str] | None, is_adapter: bool = False
) -> str:
    """Code that loads a checkpoint and its noise, where that is known.

    Args:
        files: names of the files beside the weights; None for the folder of a run, which has what its record names.
        is_adapter: of peft, whose base model is loaded too.

    Raises:
        ValueError: a record of images does not say how many classes or what images its model takes.
    """
    noise = f"noise = hf_noise.load_noise({quoted(repo_id)})  # what it was trained on, as an object"
    if record.task == "class_conditional_generation":
        last = _of_images(record, "classes", "num_class_embeds", without=1) - 1  # the last embedding is for no label
        return "\n".join([
            f"from hf_noise.diffusion import {loader}", "", f"pipeline = {loader}.from_pretrained({quoted(repo_id)})",
            f"images = pipeline(class_labels=[0, {last}], seed=0).images  # classes are 0 to {last}", "",
            "import hf_noise", "",
            noise,
        ])  # fmt: skip
    if record.task == "noisy_classification":
        size = _of_images(record, "image_size", "image_size")
        channels = _of_images(record, "channels", "num_channels")
        return "\n".join([
            "import torch", "", "import hf_noise", f"from hf_noise.models.time_classifier import {loader}", "",
            f"classifier = {loader}.from_pretrained({quoted(repo_id)})",
            f"images, sigma = torch.rand(1, {channels}, {size}, {size}) * 2 - 1, torch.tensor([0.5])",
            "probabilities = classifier.log_posterior(images + sigma * torch.randn_like(images), sigma).exp()", "",
            noise,
        ])  # fmt: skip
    lines = [f"from transformers import {loader}", "", f"model = {loader}.from_pretrained({quoted(repo_id)})"]
    if is_adapter and record.task == "text_classification":  # it has the head too, for so many classes
        lines[0], classes = "from hf_noise.hub.adapter import load_adapter", record.data.get("classes")
        lines[2] = f"model = load_adapter({quoted(repo_id)})  # of {classes} classes, on its base model"
    has_tokenizer = record.data.get("tokenizer") if files is None else set(TOKENIZER) & set(files)
    if has_tokenizer:
        lines[0] += "\nfrom transformers import AutoTokenizer" if "load_adapter" in lines[0] else ", AutoTokenizer"
        lines.append(f"tokenizer = AutoTokenizer.from_pretrained({quoted(repo_id)})")
    if record.task == "image_classification" and (files is None or set(_PROCESSORS) & set(files)):
        lines[0] += ", AutoImageProcessor"
        lines.append(f"processor = AutoImageProcessor.from_pretrained({quoted(repo_id)})")
    if str(record.model.get("config", {}).get("model_type", "")).startswith("hf_noise_"):
        lines[:1] = ["import hf_noise.models.image  # teaches transformers this network", lines[0]]
    lines[:0] = ["# an adapter: needs peft"] if is_adapter else []
    return "\n".join(lines if is_unknown(record.noise) else [*lines, "", "import hf_noise", "", noise])


def _of_images(record: RunRecord, name: str, key: str, without: int = 0) -> int:
    """A number of a record's data or, where they do not say it, of its model's config: `key` less `without`."""
    given, config = record.data.get(name), record.model.get("config") or {}
    value = config.get(key) if given is None else given
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"the record {record.name!r} of the task {record.task!r} says neither in data[{name!r}] nor in "
            f"model['config'][{key!r}] what its card shows: an integer >= 1, got {value!r:.50}"
        )
    return value - without if given is None else value


def noise_usage(repo_id: str) -> str:
    """Code that loads the noise of a checkpoint of which no more is known."""
    return f"import hf_noise\n\nnoise = hf_noise.load_noise({quoted(repo_id)})"


def adapter_metadata(config: Mapping[str, Any] | None) -> dict[str, str]:
    """What the card of an adapter says besides: its library, and its base model where that has a name on the Hub."""
    if config is None:
        return {}
    base = None if local_base(config) else config.get("base_model_name_or_path")
    return {"library_name": "peft"} | ({"base_model": base} if base else {})


def load_data(name: str, config_name: str, split: str) -> str:
    """Code that loads a published configuration without hf_noise."""
    asked = f"{quoted(name)}, {quoted(config_name)}, split={quoted(split)}"
    return (
        f"from datasets import load_dataset\n\ndata = load_dataset({asked})\n"
        f"stream = load_dataset({asked}, streaming=True)"
    )


def load_tokenizer(name: str) -> str:
    """Code that loads the tokenizer in the folder `tokenizer/` of a data set."""
    if name.startswith("."):
        return (
            "from transformers import AutoTokenizer\n\n"
            f"tokenizer = AutoTokenizer.from_pretrained({quoted(f'{name}/tokenizer')})"
        )
    return (
        "from huggingface_hub import snapshot_download\nfrom transformers import AutoTokenizer\n\n"
        f'folder = snapshot_download({quoted(name)}, repo_type="dataset", allow_patterns="tokenizer/*")\n'
        'tokenizer = AutoTokenizer.from_pretrained(f"{folder}/tokenizer")'
    )


def draw_again(record: DataRecord, config: Mapping[str, Any]) -> str:
    """Code that loads the noise of a configuration, and draws its noisy column again where that was seen to work."""
    name = quoted(config["config_name"])
    noise = f"noise = hf_noise.load_noise({quoted(record.name)}, config_name={name})"
    clean = next((column for column in record.columns if column.startswith("clean_")), None)
    split = next((split for split, told in config["splits"].items() if told.get("noisy")), None)
    if config.get("redrawn") is None or clean is None or split is None:
        return f"import hf_noise\n\n{noise}"
    return "\n".join([
        "import hf_noise", "from datasets import load_dataset", "", noise,
        f'rows = load_dataset({quoted(record.name)}, {name}, split={quoted(split)}).with_format("numpy")',
        f'noisy, is_noisy = noise(rows[{quoted(clean)}][:], sample=rows["sample_id"][:], epoch={config["redrawn"]})',
    ])  # fmt: skip


def build_again(record: DataRecord, config: Mapping[str, Any]) -> str:
    """Code that builds a configuration again from its source; empty if it is not known how, or nobody else can."""
    arguments = config.get("arguments")
    if not record.builder.startswith("hf_noise/") or arguments is None:
        return ""
    given = ", ".join(f"{name}={_literal(name, value)}" for name, value in arguments.items())
    return f"import hf_noise\n\nagain = hf_noise.load_dataset({quoted(record.builder)}, {given})"


def _literal(name: str, value: Any) -> str:
    if name == "pairs":  # JSON has no integers as keys
        return repr({int(source): int(target) for source, target in value})
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted(key)}: {_literal('', item)}" for key, item in value.items()) + "}"
    return quoted(value) if isinstance(value, str) else repr(value)
