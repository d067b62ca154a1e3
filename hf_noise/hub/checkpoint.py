"""Is a folder a complete checkpoint, and which noise does it state? Reads JSON and the headers of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Key of config.json, or of a pipeline's model_index.json, under which `noise.to_dict()` is stored.
CONFIG_KEY = "hf_noise"
_CONFIG, _PIPELINE = "config.json", "model_index.json"
# Names of the weights without their ending: of transformers, of diffusers.
_WEIGHTS = ("model", "diffusion_pytorch_model")


def config_name(folder: Path) -> str:
    """File that describes a checkpoint: model_index.json for a pipeline of diffusers, config.json for a model."""
    return _PIPELINE if (folder / _PIPELINE).is_file() and not (folder / _CONFIG).is_file() else _CONFIG


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint, model_index.json of a pipeline.

    Raises:
        FileNotFoundError: the folder, or config.json in it, is missing.
        ValueError: config.json is not a JSON object, as after a crash while it was written.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; pass the folder that save_pretrained wrote")
    path = folder / config_name(folder)
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a complete checkpoint: config.json is missing; write it with save_pretrained"
        )
    return parse_config(path)


def parse_config(path: Path) -> dict[str, Any]:
    """The JSON object in a config.json. Raises ValueError for a half-written one."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise ValueError(
            f"{path} is half-written or not JSON ({error}); save the checkpoint again"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(
            f"{path} holds a {type(config).__name__}, not a configuration; save the checkpoint again"
        )
    return config


def check_weights(folder: Path) -> list[Path]:
    """The weight files of a checkpoint, after their headers were read and their lengths compared with them.

    Those of a pipeline lie in the folders of its components; one that has none, as a scheduler, has no config.json.

    Raises:
        FileNotFoundError: there are no safetensors weights, or a shard that the index lists is missing.
        ValueError: a file is cut off or unreadable, or lacks a tensor that the index puts there.
    """
    if config_name(folder) == _PIPELINE:
        components = sorted(path.parent for path in folder.glob(f"*/{_CONFIG}"))
        found = [path for component in components for path in sorted(component.glob("*.safetensors"))]
        empty = [component.name for component in components if not any(component.glob("*.safetensors"))]
        if empty or not found:
            raise FileNotFoundError(
                f"{folder} is not a complete pipeline: no safetensors weights in {', '.join(empty) or 'any folder'}; "
                "save it again"
            )
        for path in found:
            _tensor_names(path)
        return found
    stem = next((stem for stem in _WEIGHTS if any(folder.glob(f"{stem}.safetensors*"))), _WEIGHTS[0])
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        weight_map = parse_config(index).get("weight_map") or {}
        shards = sorted({folder / name for name in weight_map.values()})
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing or not shards:
            raise FileNotFoundError(
                f"{folder} is not a complete checkpoint: {index.name} lists "
                f"{', '.join(missing) or 'no shards'}"
                f"{', which is missing' if missing else ''}; save the checkpoint again"
            )
        for shard in shards:
            expected = {tensor for tensor, name in weight_map.items() if name == shard.name}
            absent = sorted(expected - _tensor_names(shard))
            if absent:
                raise ValueError(
                    f"{shard} lacks the tensor {absent[0]!r} that {index.name} puts there; save it again"
                )
        return [index, *shards]
    if not single.is_file():
        raise FileNotFoundError(
            f"{folder} is not a complete checkpoint: model.safetensors is missing; save the model there with "
            "save_pretrained (weights in pickle form, *.bin or *.pt, are not published)"
        )
    _tensor_names(single)
    return [single]


def stated_noise(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The noise that config.json states, None without one."""
    noise = config.get(CONFIG_KEY)
    return dict(noise) if isinstance(noise, Mapping) else None


def _tensor_names(path: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        # Opening compares the header with the length of the file; no tensor is read.
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise ValueError(
            f"{path} is half-written or no safetensors file ({error}); save the checkpoint again"
        ) from error
