"""Read the noise back from what was published or saved: checkpoint, card or data set, local or on the Hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from hf_noise.hub.checkpoint import CONFIG_KEY, parse_config, stated_noise
from hf_noise.hub.errors import explained
from hf_noise.noise import Noise, noise_from_description
from hf_noise.noise.block import as_noise
from hf_noise.reports.record import RunRecord, read_records

__all__ = ["load_noise"]

# Where a folder may state its noise; the last two are of `save_to_disk`.
_LOCAL = (
    "config.json", "model_index.json", "README.md", "record.json", "dataset_info.json", "train/dataset_info.json",
)  # fmt: skip
# Where a repository may: a model's configuration, that of a pipeline, the card.
_REMOTE = ("config.json", "model_index.json", "README.md")
_REMEDY = (
    f"record it with model.config.{CONFIG_KEY} = noise.to_dict() before save_pretrained, or push with "
    "hf_noise.hub.push, which writes it into config and card"
)


def load_noise(
    path_or_repo: str | os.PathLike,
    *,
    config_name: str | None = None,
    repo_type: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Noise:
    """The noise that a checkpoint was trained on or a data set was made with.

    Looks at config.json (key "hf_noise"), for a pipeline at model_index.json, then at the `noise` block of
    README.md, then, in a folder, at record.json and at what `save_to_disk` wrote. A path that exists is read;
    anything else is a repository on the Hub, of a model or else of a data set. Of the Hub's files only those
    three are downloaded.

    Args:
        path_or_repo: folder of a checkpoint or data set, a card or record file, or "owner/name".
        config_name: which configuration of a data set with several.
        repo_type: "model" or "dataset"; by default both are tried in this order.
        revision, token, cache_dir: as in `huggingface_hub.hf_hub_download`.

    Raises:
        FileNotFoundError: neither a path nor a repository.
        ValueError: no noise is stated there, several are and `config_name` is not given, or a file is
            half-written.
        ConnectionError, PermissionError: see `hf_noise.hub.errors.explained`.
    """
    if repo_type not in (None, "model", "dataset"):
        raise ValueError(f'repo_type must be "model", "dataset" or None for both, got {repo_type!r}')
    path = Path(path_or_repo).expanduser()
    if path.exists():
        return _from_path(path, config_name)
    repo_id = os.fspath(path_or_repo)
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise FileNotFoundError(
            f"{repo_id!r} is no existing path, and no repository on the Hub: {error}"
        ) from None

    looked_at = []
    for kind in [repo_type] if repo_type else ["model", "dataset"]:
        files = {}
        for name in _REMOTE:
            try:
                with explained(repo_id, "reading the noise of"):
                    files[name] = _download(repo_id, name, kind, revision, token, cache_dir)
            except FileNotFoundError as error:
                if not isinstance(error.__cause__, RepositoryNotFoundError):
                    raise
                break
            if files[name] is not None:
                looked_at.append(f"{name} of the {kind}")
                noise = _from_file(files[name], config_name, repo_id)
                if noise is not None:
                    return noise
    if not looked_at:
        kinds = f"{repo_type} repository" if repo_type else "model or data set"
        raise FileNotFoundError(
            f"{repo_id!r} is no existing path and no {kinds} on the Hub with a config.json or README.md; if "
            "it is private, log in with `hf auth login`, set HF_TOKEN or pass token="
        )
    raise ValueError(f"{repo_id!r} states no noise (looked at {', '.join(looked_at)}); {_REMEDY}")


def _download(repo_id: str, name: str, kind: str, revision, token, cache_dir) -> Path | None:
    """The file, None if the repository does not have it."""
    try:
        return Path(
            hf_hub_download(
                repo_id, name, repo_type=kind, revision=revision, token=token, cache_dir=cache_dir
            )
        )
    except LocalEntryNotFoundError:  # a subclass of the next, but it means that the Hub could not be asked
        raise
    except EntryNotFoundError:
        return None


def _from_path(path: Path, config_name: str | None) -> Noise:
    files = [path] if path.is_file() else [path / name for name in _LOCAL]
    present = [file for file in files if file.is_file()]
    for file in present:
        noise = _from_file(file, config_name, str(path))
        if noise is not None:
            return noise
    if path.is_dir() and not (path / "config.json").is_file() and any(path.glob("*.safetensors*")):
        raise ValueError(
            f"{path} is a half-written checkpoint: there are weights but no config.json; save it again"
        )
    looked_at = ", ".join(file.name for file in present) or f"found no {', '.join(_LOCAL)}"
    raise ValueError(f"{path} states no noise (looked at: {looked_at}); {_REMEDY}")


def _from_file(file: Path, config_name: str | None, where: str) -> Noise | None:
    """The noise that one file states, None if it states none."""
    if file.suffix == ".md":
        stated = (metadata_load(file) or {}).get("noise")
    elif file.name in ("config.json", "model_index.json"):
        stated = stated_noise(parse_config(file))
    elif file.name == "dataset_info.json":
        return noise_from_description(json.loads(file.read_text(encoding="utf-8")).get("description", ""))
    else:
        (record,) = read_records(file)
        stated = record.noise if isinstance(record, RunRecord) else record.configs
    if stated is None:
        return None
    if isinstance(stated, list):
        stated = _select(stated, config_name, where)
    # A card's block and a data record's entry hold the noise under a key, config.json and a run are the
    # noise.
    inner = stated.get("config", stated.get("noise", stated))
    return as_noise(inner)


def _select(blocks: list[Mapping[str, Any]], config_name: str | None, where: str) -> Mapping[str, Any]:
    names = [str(block.get("config_name")) for block in blocks]
    if config_name is None and len(blocks) == 1:
        return blocks[0]
    if config_name not in names:
        asked = "which one is not said" if config_name is None else f"none of them is {config_name!r}"
        raise ValueError(f"{where} has the configurations {', '.join(names)} and {asked}; pass config_name=")
    return blocks[names.index(config_name)]
