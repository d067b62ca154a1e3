"""Publish a checkpoint or a noisy data set: check first, then one commit, so that nothing half-done is seen.

A push that breaks off leaves the repository at the commit it was at. Running it again uploads what is
missing; a second run of a finished push changes nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
    ModelCard,
    ModelCardData,
    metadata_load,
)
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from hf_noise.hub.card import data_card, model_card
from hf_noise.hub.checkpoint import CONFIG_KEY, check_weights, config_name, read_config, stated_noise
from hf_noise.hub.data_card import config_block, describe_columns, with_config
from hf_noise.hub.data_folder import describe_config, write_config
from hf_noise.hub.errors import explained
from hf_noise.noise import Noise
from hf_noise.noise.base import noise_of_description
from hf_noise.noise.block import as_noise, noise_block, noise_sentence
from hf_noise.reports.record import DataRecord, RunRecord, read_records

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["push_checkpoint", "push_data_folder", "push_dataset"]

# Never uploaded: pickles (they run code when loaded), code, logs, the state of training.
_PRIVATE = (
    "*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.npy", "*.npz", "*.py",
    "__pycache__/*", "trainer_state.json", "run.json", "checkpoint-*/*", "runs/*", "logs/*", "*.log",
    "*tfevents*", ".*", "*/.*", "*.tmp",
)  # fmt: skip
# Tables that a run writes beside its checkpoint, such as an audit of the corpus, belong into a data set.
_NO_MODEL = ("*.parquet", "*.arrow", "*.jsonl", "*.csv")
_CARD, _RECORD = "README.md", "record.json"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def push_checkpoint(
    folder: str | Path,
    repo_id: str,
    *,
    record: RunRecord | None = None,
    license: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload checkpoint and card",
) -> CommitInfo:
    """Upload a checkpoint with its card in one commit. The local folder is not changed.

    Args:
        folder: what `save_pretrained` or a Trainer wrote: config.json and safetensors weights.
        repo_id: "owner/name"; made if it does not exist.
        record: the run, from which the card is written; by default record.json in the folder. Without any
            record the folder's own README.md goes up, or a short card that states the noise.
        license: Hub id of the licence of the weights.
        private: visibility of a repository that is made now.
        token: token or None for the one logged in with.
        revision: branch; made if it does not exist.
        commit_message: title of the commit.

    Raises:
        FileNotFoundError: a file of the checkpoint is missing.
        ValueError: a file is half-written, the noise is unknown or contradicts the record.
        ConnectionError, PermissionError, RuntimeError: see `hf_noise.hub.errors.explained`.
    """
    folder = Path(folder)
    config = read_config(folder)
    check_weights(folder)
    if record is None and (folder / _RECORD).is_file():
        (record,) = read_records(folder / _RECORD)
    noise = _known_noise(folder, config, record)

    files: dict[str, Path | bytes] = dict(_local_files(folder, _NO_MODEL))
    # Only the uploaded copy gets what the local one lacks: somebody may be reading the folder.
    files[config_name(folder)] = _as_json(config | {CONFIG_KEY: noise.to_dict()})
    if record is not None:
        files[_CARD] = str(model_card(record, repo_id=repo_id, license=license)).encode()
        files[_RECORD] = (record.to_json() + "\n").encode()
    elif _CARD not in files:
        files[_CARD] = str(_short_card(repo_id, noise, license)).encode()
    return _push(
        repo_id, "model", files, stale=_WEIGHTS, private=private, token=token, revision=revision,
        message=commit_message,
        consequence=f"The checkpoint in {folder} is complete: run the same push again.",
    )  # fmt: skip


def push_dataset(
    dataset: Dataset | DatasetDict,
    repo_id: str,
    *,
    config_name: str,
    noise: Noise | Mapping[str, Any] | None = None,
    source: str | None = None,
    license: str | None = None,
    language: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> CommitInfo:
    """Upload one noise setting of a materialised data set: a Parquet configuration and its entry in the card.

    Other configurations, and text and metadata that were written into the card by hand, stay as they are. The
    first configuration of a repository becomes its default. Needs free disk for one copy of the data.

    Args:
        dataset: with the columns of a noisy data set; a `Dataset` counts as the split "train". The realised
            rate is counted in its column `is_noisy`, where there is one.
        config_name: such as "r0.5"; an existing configuration of this name is replaced.
        noise: the noise that made it; a data set of `load_dataset("hf_noise/...")` knows it without this.
        source, license, language: of the clean data; used when the card is made.

    Raises:
        TypeError: the data set is a stream.
        ValueError: the noise is unknown, or the configuration's name cannot name a folder.
        ConnectionError, PermissionError, RuntimeError: see `hf_noise.hub.errors.explained`.
    """
    splits = dataset if isinstance(dataset, dict) else {"train": dataset}
    if noise is None and splits:
        noise = noise_of_description(next(iter(splits.values())).info.description)
        if noise is None:
            raise ValueError("the data set does not say which noise it carries; pass noise=")
    config = describe_config(
        splits, config_name, noise.to_dict() if isinstance(noise, Noise) else noise or {}
    )
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="hf_noise-") as temporary:
        files: dict[str, Path | bytes] = dict(write_config(splits, temporary, config_name))
        with explained(repo_id, "pushing a data set to", "Run the same push again."):
            _make_repo(api, repo_id, "dataset", private, revision)
            head = api.repo_info(repo_id, repo_type="dataset", revision=revision).sha
            card = _remote_card(api, repo_id, head)
        if card is None:
            unit, columns = describe_columns(next(iter(splits.values())).features)
            card = data_card(DataRecord(
                name=repo_id, builder="hf_noise.push_dataset", source=source or "not stated", unit=unit, data={},
                columns=columns, configs=[config], license=license, language=language,
            ))  # fmt: skip
        else:
            card = with_config(card, config_block(**config))
        files[_CARD] = str(card).encode()
        return _push(
            repo_id, "dataset", files, stale=(f"{config_name}/*.parquet",), private=private, token=token,
            revision=revision, message=commit_message or f"Upload {config_name}", head=head,
        )  # fmt: skip


def push_data_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload data set and card",
) -> CommitInfo:
    """Upload a folder of Parquet configurations with its README.md (see `write_data_folder`) in one commit.

    Raises:
        FileNotFoundError: the folder has no card, or no Parquet file of a configuration that the card lists.
        ConnectionError, PermissionError, RuntimeError: see `hf_noise.hub.errors.explained`.
    """
    folder = Path(folder)
    files = dict(_local_files(folder))
    card = metadata_load(files[_CARD]) if _CARD in files else None
    listed = {str(config["config_name"]) for config in (card or {}).get("configs", [])}
    # Configurations of an earlier run may lie beside those that the card lists.
    files = {
        name: path
        for name, path in files.items()
        if not name.endswith(".parquet") or name.split("/")[0] in listed
    }
    if not any(name.endswith(".parquet") for name in files):
        raise FileNotFoundError(
            f"{folder} needs a README.md and the Parquet files it lists; write it with write_data_folder"
        )
    return _push(
        repo_id, "dataset", files, stale=("*.parquet",), private=private, token=token, revision=revision,
        message=commit_message, consequence=f"The data in {folder} is complete: run the same push again.",
    )  # fmt: skip


def _push(
    repo_id: str,
    kind: str,
    files: Mapping[str, Path | bytes],
    *,
    stale: Sequence[str],
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    message: str,
    head: str | None = None,
    consequence: str = "Run the same push again.",
) -> CommitInfo:
    """One commit with these files; remote files that match `stale` and are not among them are deleted in it.

    `head` is the commit that the files were made for, by default the present one.
    """
    api = HfApi(token=token)
    # The connection may also break after the Hub stored the commit and before it said so.
    kept = f"The repository holds its previous commit, or this one as a whole. {consequence}"
    with explained(repo_id, f"pushing a {'data set' if kind == 'dataset' else kind} to", kept):
        _make_repo(api, repo_id, kind, private, revision)
        head = head or api.repo_info(repo_id, repo_type=kind, revision=revision).sha
        remote = api.list_repo_files(repo_id, repo_type=kind, revision=head)
        gone = [name for name in filter_repo_objects(remote, allow_patterns=list(stale)) if name not in files]
        operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        return api.create_commit(
            repo_id,
            [*operations, *(CommitOperationDelete(name) for name in gone)],
            commit_message=message,
            repo_type=kind,
            revision=revision,
            # Without it, two pushes at the same time could mix one's card with the other's weights.
            parent_commit=head,
        )


def _make_repo(api: HfApi, repo_id: str, kind: str, private: bool | None, revision: str | None) -> None:
    api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)


def _remote_card(api: HfApi, repo_id: str, revision: str) -> DatasetCard | None:
    try:
        path = api.hf_hub_download(repo_id, _CARD, repo_type="dataset", revision=revision)
    except (
        LocalEntryNotFoundError
    ):  # a subclass of the next: no answer, and a new card would replace the user's
        raise
    except EntryNotFoundError:
        return None
    return DatasetCard.load(path)


def _local_files(folder: Path, ignored: Sequence[str] = ()) -> Iterable[tuple[str, Path]]:
    found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return (
        (name, folder / name) for name in filter_repo_objects(found, ignore_patterns=[*_PRIVATE, *ignored])
    )


def _known_noise(folder: Path, config: Mapping[str, Any], record: RunRecord | None) -> Noise:
    stated = stated_noise(config)
    if stated is None and record is None:
        raise ValueError(
            f"the noise of {folder} is unknown: config.json has no {CONFIG_KEY!r} and there is no record; "
            "pass record=, or set model.config.hf_noise = noise.to_dict() before save_pretrained"
        )
    noise = as_noise(stated if stated is not None else record.noise)
    if record is not None and as_noise(record.noise) != noise:
        raise ValueError(
            f"config.json in {folder} states {noise} but the record {record.name!r} states "
            f"{as_noise(record.noise)}; they are of different runs"
        )
    return noise


def _short_card(repo_id: str, noise: Noise, license: str | None) -> ModelCard:
    block = noise_block(noise)
    data = ModelCardData(license=license, tags=["hf_noise", "noisy-data", block["protocol"]], noise=block)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {repo_id.split('/')[-1]}\n\n{noise_sentence(block)}\n")


def _as_json(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()  # the form of transformers
