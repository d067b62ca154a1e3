"""Read the noise back from what was published or saved: checkpoint, card or data set, local or on the Hub."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from hf_noise.hub.checkpoint import ADAPTER_CONFIG, CONFIG_KEY, NOISE_FILE, OBJECTIVE_KEY, stated_noise
from hf_noise.hub.errors import explained
from hf_noise.hub.reading import card_metadata, json_object
from hf_noise.noise import Noise, noise_from_description
from hf_noise.noise.block import as_noise, noise_block
from hf_noise.reports.record import RunRecord, read_records

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

__all__ = ["load_noise"]

# Files of JSON that hold it under a key: of an adapter, a model, a pipeline.
_CONFIGS = (NOISE_FILE, "config.json", "model_index.json", ADAPTER_CONFIG)
# Where a folder may state its noise; the last two are of `save_to_disk`: a list of splits, and what tells of one.
_SPLITS, _INFO = "dataset_dict.json", "dataset_info.json"
_LOCAL = (*_CONFIGS, "README.md", "record.json", _SPLITS, _INFO)
# Where a repository may. An adapter's file comes last, because few have it, and its card says the same.
_REMOTE = ("config.json", "model_index.json", "README.md", NOISE_FILE)
# Of a block, what repeats its config for readers and searches.
_READ_BY_PEOPLE = ("protocol", "r", "e", "alpha", "seed")
_OF_ADAPTER = (
    f"the noise of an adapter lies beside it, in {NOISE_FILE}: save it with a trainer of hf_noise, or push it with "
    "hf_noise.hub.push and record="
)
_REMEDY = (
    f"record it with model.config.{CONFIG_KEY} = noise.to_dict() before save_pretrained, or push with "
    "hf_noise.hub.push, which writes it into config and card"
)
_AS_THEY_CAME = (
    "a trainer of hf_noise trained it on rows as they came, without noise= and without a noise that the rows state. "
    "They may be right or wrong"
)
_AUDIT = "where nobody knows it, hf_noise.audit_tokens or, of pairs, audit_sequences tell which are likely to be wrong"


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
    exists is read; any other text is a repository on the Hub, of a model or else of a data set. Of the Hub's files only
    those four are downloaded. A data set in memory, or its splits, say their noise themselves.

    Args:
        path_or_repo: folder of a checkpoint or data set, a card or record file, "owner/name", or a data set of
            `datasets`, with splits or without, or a stream.
        config_name: which configuration of a data set with several; what states a single noise has none.
        repo_type: "model" or "dataset"; by default both are tried in this order.
        revision, token, cache_dir: as in `huggingface_hub.hf_hub_download`.

    Raises:
        FileNotFoundError: neither a path nor a repository.
        ValueError: no noise is stated there, or it is unknown; several are and `config_name` is not given, or is given
            and there are none; a block contradicts itself; or a file is half-written, foreign or broken.
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
    repo_id = os.fspath(path_or_repo)
    path = os.path.expanduser(repo_id)
    if os.path.exists(path):  # False, too, for names that no path can have
        return _from_path(Path(path), config_name)
    if isinstance(path_or_repo, os.PathLike):
        raise FileNotFoundError(f"there is no {path!r:.200}; a repository is named by a string")
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise FileNotFoundError(
            f"{repo_id!r:.200} is no existing path, and no repository on the Hub: {error!s:.300}"
        ) from None

    looked_at, notes = [], []
    for kind in [repo_type] if repo_type else ["model", "dataset"]:
        for name in _REMOTE:
            try:
                with explained(repo_id, "reading the noise of", f"There is no file or folder {repo_id!r} here either"):
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
    raise _no_noise(repr(repo_id), f"looked at {', '.join(looked_at)}", notes, _REMEDY)


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
            "and to_iterable_dataset() do not keep; of a published data set give the folder or the repository's name, "
            'as in load_noise("runs/mine")'
        )
    return _agreed(found, "the data set")


def _agreed(found: Mapping[str, Noise], where: str) -> Noise:
    """The noise that all splits state."""
    noises = list(found.values())
    if any(noise != noises[0] for noise in noises):
        told = "; ".join(f"{split!r}: {noise}" for split, noise in found.items())
        raise ValueError(f"{where}: the splits state different noise ({told}); pass one of them")
    return noises[0]


def _described(description: Any, where: str) -> Noise | None:
    if not isinstance(description, str):
        return None
    try:
        return noise_from_description(description)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where} states a noise that cannot be read: {error}") from error


def _from_path(path: Path, config_name: str | None) -> Noise:
    files = [path / name for name in _LOCAL] if path.is_dir() else [path]
    present, notes = [file for file in files if file.is_file()], []
    for file in present:
        noise = _from_file(file, config_name, str(file), notes)
        if noise is not None:
            return noise
    described = any((path / name).is_file() for name in _CONFIGS)
    if path.is_dir() and not described and (weights := sorted(path.glob("*.safetensors*"))):
        is_adapter = weights[0].name.startswith("adapter_model")
        missing = ADAPTER_CONFIG if is_adapter else "config.json"
        what = "adapter" if is_adapter else "checkpoint"
        raise ValueError(f"{path} is a half-written {what}: there are weights but no {missing}; save it again")
    looked_at = ", ".join(file.name for file in present) or f"found no {', '.join(_LOCAL)}"
    remedy = _OF_ADAPTER if (path / ADAPTER_CONFIG).is_file() else _REMEDY
    raise _no_noise(str(path), f"looked at: {looked_at}", notes, remedy)


def _no_noise(place: str, looked_at: str, notes: list[str], remedy: str) -> ValueError:
    if _AS_THEY_CAME in notes:
        return ValueError(f"the noise of {place} is unknown: {_AS_THEY_CAME}. If you know it, {remedy}; {_AUDIT}")
    return ValueError(f"{place} states no noise ({looked_at}){''.join(f'; {note}' for note in notes)}; {remedy}")


def _from_file(file: Path, config_name: str | None, where: str, notes: list[str]) -> Noise | None:
    """The noise that one file states, None if it states none; `notes` takes what somebody else wrote in its place."""
    stated: Any
    if file.suffix == ".md":
        stated = card_metadata(file).get("noise")
        if stated is not None and not _is_ours(stated):
            notes.append(f"the `noise` in {where} is not of hf_noise: {reprlib.repr(stated)}")
            return None
    elif file.name == _INFO:
        info = json_object(file, "a data set's description")
        return _single(_described(info.get("description"), where), config_name, where)
    elif file.name == _SPLITS:
        return _of_splits(file, config_name)
    elif file.suffix in (".json", ".jsonl") and file.name != "record.json" and _is_config(file):
        config = json_object(file)
        stated = stated_noise(config, file)
        if stated is None and OBJECTIVE_KEY in config:
            notes.append(_AS_THEY_CAME)
    else:
        stated = _of_record(file)
    if stated is None:
        return None
    if isinstance(stated, list):
        return _select(stated, config_name, where)
    return _single(_of_block(stated, where), config_name, where)


def _of_splits(file: Path, config_name: str | None) -> Noise | None:
    """The noise of the data set of which `save_to_disk` wrote the list of splits, a folder each."""
    splits = json_object(file, "a list of splits").get("splits")
    if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
        raise ValueError(f"{file} lists {reprlib.repr(splits)} as its splits; save the data set again")
    infos = {split: file.parent / split / _INFO for split in splits if split == os.path.basename(split)}
    read = {split: _from_file(info, config_name, str(info), []) for split, info in infos.items() if info.is_file()}
    found = {split: noise for split, noise in read.items() if noise is not None}
    return _agreed(found, str(file.parent)) if found else None


def _of_block(stated: Mapping[str, Any], where: str) -> Noise:
    """The noise of a card's block or a data record's entry, which hold it under a key, or of a config or run."""
    try:
        noise = as_noise(stated.get("config", stated.get("noise", stated)))
        if "config" in stated:
            _check_block(stated, noise_block(noise))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: {error}") from error
    return noise


def _check_block(stated: Mapping[str, Any], block: Mapping[str, Any]) -> None:
    """Raise ValueError if what readers and searches see of a block is not what its config says."""
    for key in _READ_BY_PEOPLE:
        said, is_number = stated.get(key), isinstance(stated.get(key), int | float)
        meant = block.get(key)
        is_close = is_number and isinstance(meant, int | float) and math.isclose(said, meant, rel_tol=1e-3)
        if said is not None and said != meant and not is_close:
            raise ValueError(
                f"the block states {key} = {reprlib.repr(said)}, and its config {reprlib.repr(meant)}; mend one of them"
            )


def _single(noise: Noise | None, config_name: str | None, where: str) -> Noise | None:
    if noise is not None and config_name is not None:
        raise ValueError(f"{where} states one noise and has no configuration {config_name!r}; leave config_name out")
    return noise


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


def _select(blocks: list[Mapping[str, Any]], config_name: str | None, where: str) -> Noise:
    names = [str(block.get("config_name")) for block in blocks]
    if config_name is None and len(blocks) == 1:
        return _of_block(blocks[0], where)
    if config_name not in names:
        asked = "which one is not said" if config_name is None else f"none of them is {config_name!r}"
        raise ValueError(f"{where} has the configurations {', '.join(names)} and {asked}; pass config_name=")
    first, *others = (_of_block(block, where) for name, block in zip(names, blocks, strict=True) if name == config_name)
    if any(noise != first for noise in others):
        raise ValueError(f"{where} has several configurations {config_name!r} with different noise; rename all but one")
    return first
