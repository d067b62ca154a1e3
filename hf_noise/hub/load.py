"""Read the noise back from what was published or saved: checkpoint, card or data set, local or on the Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from hf_noise.hub.checkpoint import CONFIG_KEY, NOISE_FILE, stated_noise
from hf_noise.hub.errors import explained
from hf_noise.hub.reading import card_metadata, json_object
from hf_noise.noise import Noise, noise_from_description
from hf_noise.noise.block import as_noise
from hf_noise.reports.record import RunRecord, read_records

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

__all__ = ["load_noise"]

# Files of JSON that hold it under a key: of an adapter, a model, a pipeline.
_CONFIGS = (NOISE_FILE, "config.json", "model_index.json", "adapter_config.json")
# Where a folder may state its noise; the last two are of `save_to_disk`.
_LOCAL = (*_CONFIGS, "README.md", "record.json", "dataset_info.json", "train/dataset_info.json")
# Where a repository may. An adapter's file comes last, because few have it, and its card says the same.
_REMOTE = ("config.json", "model_index.json", "README.md", NOISE_FILE)
_REMEDY = (
    f"record it with model.config.{CONFIG_KEY} = noise.to_dict() before save_pretrained, or push with "
    "hf_noise.hub.push, which writes it into config and card"
)


def load_noise(
    path_or_repo: str | os.PathLike | Dataset | DatasetDict | IterableDataset | IterableDatasetDict,
    *,
    config_name: str | None = None,
    repo_type: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Noise:
    """The noise that a checkpoint was trained on or a data set was made with.

    Looks at config.json (key "hf_noise"), for a pipeline at model_index.json, for an adapter at hf_noise.json, then at
    the `noise` block of README.md, then, in a folder, at record.json and at what `save_to_disk` wrote. A path that
    exists is read; anything else is a repository on the Hub, of a model or else of a data set. Of the Hub's files only
    those four are downloaded. A data set in memory, or its splits, say their noise themselves.

    Args:
        path_or_repo: folder of a checkpoint or data set, a card or record file, "owner/name", or a data set of
            `datasets`, with splits or without, or a stream.
        config_name: which configuration of a data set with several.
        repo_type: "model" or "dataset"; by default both are tried in this order.
        revision, token, cache_dir: as in `huggingface_hub.hf_hub_download`.

    Raises:
        FileNotFoundError: neither a path nor a repository.
        ValueError: no noise is stated there, several are and `config_name` is not given, or a file is
            half-written, foreign or broken.
        TypeError: neither a path nor a data set.
        ConnectionError, PermissionError: see `hf_noise.hub.errors.explained`.
    """
    if repo_type not in (None, "model", "dataset"):
        raise ValueError(f'repo_type must be "model", "dataset" or None for both, got {repo_type!r}')
    if hasattr(path_or_repo, "info") or isinstance(path_or_repo, Mapping):
        where = {"config_name": config_name, "repo_type": repo_type, "revision": revision}
        if given := [name for name, value in where.items() if value is not None]:
            raise ValueError(f"{', '.join(given)} belongs to a path or repository; a data set in memory has one noise")
        return _from_dataset(path_or_repo)
    if not isinstance(path_or_repo, str | os.PathLike):
        raise TypeError(
            f'load_noise takes a path, "owner/name" or a data set of `datasets`, got {type(path_or_repo).__name__}'
        )
    if not os.fspath(path_or_repo):
        raise ValueError('load_noise takes a path or "owner/name", got an empty string')
    path = Path(os.path.expanduser(path_or_repo))
    if path.exists():
        return _from_path(path, config_name)
    repo_id = os.fspath(path_or_repo)
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise FileNotFoundError(
            f"{repo_id!r} is no existing path, and no repository on the Hub: {error}"
        ) from None

    looked_at, notes = [], []
    for kind in [repo_type] if repo_type else ["model", "dataset"]:
        for name in _REMOTE:
            try:
                with explained(repo_id, "reading the noise of"):
                    file = _download(repo_id, name, kind, revision, token, cache_dir)
            except FileNotFoundError as error:
                if not isinstance(error.__cause__, RepositoryNotFoundError):
                    raise
                break
            if file is not None:
                looked_at.append(f"{name} of the {kind}")
                noise = _from_file(file, config_name, f"{name} of the {kind} {repo_id!r}", notes)
                if noise is not None:
                    return noise
    if not looked_at:
        kinds = f"{repo_type} repository" if repo_type else "model or data set"
        raise FileNotFoundError(
            f"{repo_id!r} is no existing path and no {kinds} on the Hub with a config.json or README.md; if "
            "it is private, log in with `hf auth login`, set HF_TOKEN or pass token="
        )
    raise ValueError(f"{repo_id!r} states no noise (looked at {', '.join(looked_at)}){_told(notes)}; {_REMEDY}")


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


def _from_dataset(dataset: Any) -> Noise:
    """The noise of a data set in memory, or the one that its splits agree on."""
    splits = dataset if isinstance(dataset, Mapping) else {"": dataset}
    found: dict[str, Noise] = {}
    for split, rows in splits.items():
        if not hasattr(rows, "info"):
            raise TypeError(f"load_noise takes data sets of `datasets`, got {type(rows).__name__} under {split!r}")
        where = f"the description of split {split!r}" if split else "the description of the data set"
        noise = _described(rows.info.description, where)
        if noise is not None:
            found[split] = noise
    if not found:
        raise ValueError(
            'the data set states no noise: load_dataset("hf_noise/...") writes it into info.description, which files '
            "and to_iterable_dataset() do not keep"
        )
    if any(noise != next(iter(found.values())) for noise in found.values()):
        told = "; ".join(f"{split!r}: {noise}" for split, noise in found.items())
        raise ValueError(f"the splits state different noise ({told}); pass one of them")
    return next(iter(found.values()))


def _described(description: Any, where: str) -> Noise | None:
    if not isinstance(description, str):
        return None
    try:
        return noise_from_description(description)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where} states a noise that cannot be read: {error}") from error


def _from_path(path: Path, config_name: str | None) -> Noise:
    files = [path] if path.is_file() else [path / name for name in _LOCAL]
    present, notes = [file for file in files if file.is_file()], []
    for file in present:
        noise = _from_file(file, config_name, str(file), notes)
        if noise is not None:
            return noise
    described = any((path / name).is_file() for name in _CONFIGS)
    if path.is_dir() and not described and any(path.glob("*.safetensors*")):
        raise ValueError(
            f"{path} is a half-written checkpoint: there are weights but no config.json; save it again"
        )
    looked_at = ", ".join(file.name for file in present) or f"found no {', '.join(_LOCAL)}"
    raise ValueError(f"{path} states no noise (looked at: {looked_at}){_told(notes)}; {_REMEDY}")


def _told(notes: list[str]) -> str:
    return f"; {'; '.join(notes)}" if notes else ""


def _from_file(file: Path, config_name: str | None, where: str, notes: list[str]) -> Noise | None:
    """The noise that one file states, None if it states none; `notes` takes what somebody else wrote in its place."""
    stated: Any
    if file.suffix == ".md":
        stated = card_metadata(file).get("noise")
        if stated is not None and not _is_ours(stated):
            notes.append(f"the `noise` in {where} is not of hf_noise: {stated!r:.80}")
            return None
    elif file.name == "dataset_info.json":
        return _described(json_object(file, "a data set's description").get("description"), where)
    elif file.suffix in (".json", ".jsonl") and file.name != "record.json" and _is_config(file):
        stated = stated_noise(json_object(file), file)
    else:
        stated = _of_record(file)
    if stated is None:
        return None
    if isinstance(stated, list):
        stated = _select(stated, config_name, where)
    # A card's block and a data record's entry hold the noise under a key, config.json and a run are the
    # noise.
    inner = stated.get("config", stated.get("noise", stated))
    try:
        return as_noise(inner)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: {error}") from error


def _is_config(file: Path) -> bool:
    """Whether it is a configuration; a record says what it is."""
    return file.name in _CONFIGS or (file.suffix == ".json" and "schema" not in json_object(file))


def _is_ours(stated: Any) -> bool:
    blocks = stated if isinstance(stated, list) else [stated]
    return bool(blocks) and all(isinstance(block, Mapping) and "protocol" in block for block in blocks)


def _of_record(file: Path) -> Any:
    try:
        records = read_records(file)
    except ValueError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        raise ValueError(f"{file} is no card, configuration or record: {error.__cause__}") from None
    if len(records) != 1:
        raise ValueError(f"{file} holds {len(records)} records; pass the record.json of one run")
    (record,) = records
    return record.noise if isinstance(record, RunRecord) else record.configs


def _select(blocks: list[Mapping[str, Any]], config_name: str | None, where: str) -> Mapping[str, Any]:
    names = [str(block.get("config_name")) for block in blocks]
    if config_name is None and len(blocks) == 1:
        return blocks[0]
    if config_name not in names:
        asked = "which one is not said" if config_name is None else f"none of them is {config_name!r}"
        raise ValueError(f"{where} has the configurations {', '.join(names)} and {asked}; pass config_name=")
    return blocks[names.index(config_name)]
