"""Is a folder a complete checkpoint, and which noise does it state? Reads JSON and the headers of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_noise.hub.contents import WEIGHTS
from hf_noise.hub.reading import json_object

#: Key of config.json, of a pipeline's model_index.json or of an adapter's file, under which `noise.to_dict()` stands.
CONFIG_KEY = "hf_noise"
#: Key that a trainer of ours writes beside it, also where it knows of no noise.
OBJECTIVE_KEY = "hf_noise_objective"
#: Beside an adapter, whose own configuration keeps no key that peft does not know: {"hf_noise": noise.to_dict()}, and
#: what a whole checkpoint's config would say besides, such as "hf_noise_objective".
NOISE_FILE = "hf_noise.json"
ADAPTER_CONFIG = "adapter_config.json"
_CONFIG, _PIPELINE, _ADAPTER = "config.json", "model_index.json", ADAPTER_CONFIG
# Names of the weights without their ending: of transformers, of diffusers, of peft.
_WEIGHTS = ("model", "diffusion_pytorch_model", "adapter_model")


def config_name(folder: Path) -> str:
    """File that describes a checkpoint: config.json of a model, model_index.json of a pipeline of diffusers,
    adapter_config.json of an adapter of peft."""
    has_model = any(any(folder.glob(f"{stem}*.safetensors")) for stem in _WEIGHTS[:2])
    if (folder / _ADAPTER).is_file() and not has_model:
        return _ADAPTER
    return _PIPELINE if (folder / _PIPELINE).is_file() and not (folder / _CONFIG).is_file() else _CONFIG


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint, model_index.json of a pipeline, adapter_config.json of an adapter.

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
    return json_object(path)


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
    usual = _WEIGHTS[2] if config_name(folder) == _ADAPTER else _WEIGHTS[0]
    stem = next((stem for stem in _WEIGHTS if any(folder.glob(f"{stem}.safetensors*"))), usual)
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        weight_map = json_object(index).get("weight_map") or {}
        _check_names(index, weight_map)
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
        if single.is_file() and single not in shards:
            raise ValueError(
                f"{folder} holds both {single.name} and the shards of {index.name}, of which loaders take the first; "
                "remove those that are old"
            )
        return [index, *shards]
    if not single.is_file():
        raise FileNotFoundError(
            f"{folder} is not a complete checkpoint: {single.name} is missing; save the model there with "
            "save_pretrained (weights in pickle form, *.bin or *.pt, are not published)"
        )
    _tensor_names(single)
    return [single]


def stated_noise(config: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The noise that the configuration read from `path` states, None without one.

    Raises ValueError for something else under its key.
    """
    noise = config.get(CONFIG_KEY)
    if noise is not None and not isinstance(noise, Mapping):
        raise ValueError(f"{path}: {CONFIG_KEY!r} must be noise.to_dict(), got {noise!r:.80}; save it again")
    return dict(noise) if noise is not None else None


def _check_names(index: Path, weight_map: Any) -> None:
    names = weight_map.values() if isinstance(weight_map, Mapping) else [weight_map]
    for name in names:
        if not isinstance(name, str) or not WEIGHTS.fullmatch(name):
            raise ValueError(f"{index} lists {name!r}, which is no file of weights beside it; save it again")


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
