"""Publish a checkpoint or a noisy data set: check first, then one commit, so that nothing half-done is seen.

A push that breaks off leaves the repository at the commit it was at. Running it again uploads what is
missing; a second run of a finished push changes nothing. What goes up is on the list in `contents`, and passes the
filter in `filters`.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import reprlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, DatasetCard, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from hf_noise.hub.card import data_card, model_card
from hf_noise.hub.checkpoint import CONFIG_KEY, NOISE_FILE, check_weights, config_name, read_config, stated_noise
from hf_noise.hub.commit import commit_files, make_repo
from hf_noise.hub.contents import checkpoint_files, data_files, is_pattern
from hf_noise.hub.data_card import config_block, describe_columns, with_config
from hf_noise.hub.data_folder import describe_config, write_config
from hf_noise.hub.errors import explained
from hf_noise.hub.filters import filtered, local_base
from hf_noise.hub.load import load_noise
from hf_noise.hub.reading import card_metadata, json_object
from hf_noise.hub.retry import patiently
from hf_noise.hub.usage import adapter_metadata, noise_usage
from hf_noise.noise import Noise
from hf_noise.noise.block import as_noise, is_unknown, noise_block, noise_sentence
from hf_noise.noise.describe import noise_records
from hf_noise.reports.markdown import fenced, text
from hf_noise.reports.record import DataRecord, RunRecord, read_records
from hf_noise.reports.secrets import scrubbed

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["push_checkpoint", "push_data_folder", "push_dataset"]

_CARD, _RECORD = "README.md", "record.json"
# Remote files of an earlier push that a new one replaces.
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

    Only what belongs to a checkpoint goes up (`hf_noise.hub.contents`), without credentials and local folders
    (`hf_noise.hub.filters`); what stays at home is named in the log.

    Args:
        folder: what `save_pretrained` or a Trainer wrote: config.json and safetensors weights; an adapter of peft; a
            pipeline of diffusers.
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
        ValueError: a file is half-written, a link leaves the folder, a vocabulary holds an access token, the noise is
            unknown or contradicts the record, or an adapter's base model is a folder of this machine.
        ConnectionError, PermissionError, RuntimeError: see `hf_noise.hub.errors.explained`.
    """
    folder = Path(folder)
    config = read_config(folder)
    found = checkpoint_files(folder, config)
    check_weights(folder)
    if record is None and _RECORD in found:
        record = _run_record(found[_RECORD])
    noise = _known_noise(folder, config, record)
    is_adapter = config_name(folder) == "adapter_config.json"
    if is_adapter and (base := local_base(config)):
        raise ValueError(
            f"adapter_config.json in {folder} names the folder {base!r} of this machine as its base model, which "
            "nobody else has; set base_model_name_or_path to the base model's id on the Hub"
        )

    files = {name: filtered(name, path) for name, path in found.items()}
    # Only the uploaded copy gets what the local one lacks: somebody may be reading the folder.
    if is_adapter:
        beside = json_object(folder / NOISE_FILE) if NOISE_FILE in found else {}
        files[NOISE_FILE] = _as_json(beside if noise is None else beside | {CONFIG_KEY: noise.to_dict()})
    else:
        described = config_name(folder)
        published = files[described]
        config = json.loads(published) if isinstance(published, bytes) else config
        if noise is not None and config.get(CONFIG_KEY) != noise.to_dict():
            files[described] = _as_json(config | {CONFIG_KEY: noise.to_dict()})
    if record is not None:
        card = model_card(record, repo_id=repo_id, license=license, files=files, adapter=config if is_adapter else None)
        files[_CARD] = str(card).encode()
        files[_RECORD] = (record.to_json() + "\n").encode()
    elif _CARD not in files:
        files[_CARD] = str(_short_card(repo_id, noise, license, config if is_adapter else None)).encode()
    return commit_files(
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
    epoch: int | None = None,
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
        noise: the noise that made it; a data set of `load_dataset("hf_noise/...")` knows it without this. Rows that
            contradict it (in `is_noisy`, with a false alarm in 1e6) are refused.
        epoch: whose noise was drawn; by default what the data set says, else 0.
        source, license, language: of the clean data; used when the card is made.

    Raises:
        TypeError: the data set is a stream.
        ValueError: the noise is unknown or there are several, the rows were drawn at several epochs, or the
            configuration's name cannot name a folder.
        ConnectionError, PermissionError, RuntimeError: see `hf_noise.hub.errors.explained`.
    """
    splits = dataset if isinstance(dataset, dict) else {"train": dataset}
    if noise is None and splits:
        try:
            noise = load_noise(splits)
        except ValueError as error:
            raise ValueError(f"the data set does not say which noise it carries; pass noise= ({error})") from error
    config = describe_config(
        splits,
        config_name,
        noise.to_dict() if isinstance(noise, Noise) else noise or {},
        epoch=_stated_epoch(splits) if epoch is None else epoch,
    )
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="hf_noise-") as temporary:
        files: dict[str, Path | bytes] = dict(write_config(splits, temporary, config_name))
        with explained(repo_id, "pushing a data set to", "Run the same push again."):
            make_repo(api, repo_id, "dataset", private, revision)
            head = patiently(lambda: api.repo_info(repo_id, repo_type="dataset", revision=revision)).sha
            card = patiently(lambda: _remote_card(api, repo_id, head))
        if card is None:
            unit, columns = describe_columns(next(iter(splits.values())).features, as_noise(config["noise"]))
            card = data_card(DataRecord(
                name=repo_id, builder="hf_noise.push_dataset", source=source or "not stated", unit=unit, data={},
                columns=columns, configs=[config], license=license, language=language,
            ))  # fmt: skip
        else:
            card = with_config(card, config_block(**config))
        files[_CARD] = str(card).encode()
        return commit_files(
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
        ValueError: the card's `configs` are not in the form that `datasets` reads, or as for `push_checkpoint`.
        ConnectionError, PermissionError, RuntimeError: see `hf_noise.hub.errors.explained`.
    """
    folder = Path(folder)
    patterns = _patterns(card_metadata(folder / _CARD), folder) if (folder / _CARD).is_file() else []
    found = data_files(folder, patterns) if patterns else {}
    if not any(name.endswith(".parquet") for name in found):
        raise FileNotFoundError(
            f"{folder} needs a README.md and the Parquet files it lists; write it with write_data_folder"
        )
    files = {name: filtered(name, path) for name, path in found.items()}
    if _RECORD in found:
        files |= _renamed(found[_RECORD], found[_CARD], repo_id)
    return commit_files(
        repo_id, "dataset", files, stale=("*.parquet",), private=private, token=token, revision=revision,
        message=commit_message, consequence=f"The data in {folder} is complete: run the same push again.",
    )  # fmt: skip


def _stated_epoch(splits: Mapping[str, Dataset]) -> int:
    """The epoch of which the splits say that its noise was drawn, 0 if they say none."""
    told = [getattr(getattr(rows, "info", None), "description", None) for rows in splits.values()]
    epochs = [record.get("epoch", 0) for description in told for record in noise_records(description)]
    if any(epoch != epochs[0] for epoch in epochs):
        raise ValueError(
            f"the noise of these rows was drawn at several epochs ({', '.join(map(str, epochs))}); push those of each "
            "as a configuration of its own, or pass epoch="
        )
    return epochs[0] if epochs else 0


def _patterns(card: Mapping[str, Any], folder: Path) -> list[str]:
    """Of the data files that a card lists: `data_files` of its configurations, or all that is in their `data_dir`."""
    patterns = []
    configs = card.get("configs") or []
    for config in configs if isinstance(configs, list) else [configs]:
        listed, inside = (config.get("data_files", "**"), config.get("data_dir", "")) if _is_config(config) else ("", 0)
        entries = listed if isinstance(listed, list) else [listed]
        paths = [entry.get("path") if isinstance(entry, Mapping) else entry for entry in entries]
        paths = [name for path in paths for name in (path if isinstance(path, list) else [path])]
        if not all(map(is_pattern, paths)) or not isinstance(inside, str):
            raise ValueError(
                f"README.md in {folder} lists the configuration {reprlib.repr(config)}, which is not of the form "
                "{config_name: a, data_files: [{split: train, path: a/train-*}]}; mend `configs` there"
            )
        patterns += [posixpath.normpath(posixpath.join(inside, name)) for name in paths]
    return patterns


def _is_config(config: Any) -> bool:
    return isinstance(config, Mapping) and bool({"data_files", "data_dir"} & config.keys())


def _renamed(record: Path, card: Path, repo_id: str) -> dict[str, bytes]:
    """Record and card of a folder under the name that the data set has on the Hub; text added by hand stays."""
    (made,) = read_records(record)
    if made.name == repo_id or not isinstance(made, DataRecord):
        return {}
    text, moved = card.read_text(encoding="utf-8"), dataclasses.replace(made, name=repo_id)
    if text == str(data_card(made)):
        text = str(data_card(moved))
    else:
        text = text.replace(json.dumps(made.name), json.dumps(repo_id))
    return {_RECORD: (moved.to_json() + "\n").encode(), _CARD: scrubbed(text).encode()}


def _remote_card(api: HfApi, repo_id: str, revision: str) -> DatasetCard | None:
    try:
        path = api.hf_hub_download(repo_id, _CARD, repo_type="dataset", revision=revision)
    except LocalEntryNotFoundError:  # a subclass of the next: no answer, and a new card would replace the user's
        raise
    except EntryNotFoundError:
        return None
    card_metadata(Path(path))  # says what is wrong with it
    return DatasetCard.load(path)


def _known_noise(folder: Path, config: Mapping[str, Any], record: RunRecord | None) -> Noise | None:
    """The noise of a checkpoint, None where its record says that it was trained on labels as they come."""
    path = folder / config_name(folder)
    stated = stated_noise(config, path)
    if (folder / NOISE_FILE).is_file():
        path = folder / NOISE_FILE
        stated = stated_noise(json_object(path), path)
    if stated is None and record is None:
        raise ValueError(
            f"the noise of {folder} is unknown: {path.name} has no {CONFIG_KEY!r} and there is no record; "
            "pass record=, or set model.config.hf_noise = noise.to_dict() before save_pretrained"
        )
    if stated is None and is_unknown(record.noise):
        return None
    noise = as_noise(stated if stated is not None else record.noise)
    if record is not None and as_noise(record.noise) != noise:
        raise ValueError(
            f"{path.name} in {folder} states {noise} but the record {record.name!r} states "
            f"{as_noise(record.noise)}; they are of different runs"
        )
    return noise


def _run_record(path: Path) -> RunRecord:
    (record,) = read_records(path)
    if not isinstance(record, RunRecord):
        raise ValueError(f"{path} is the record of a data set, not of a run; push it with push_data_folder")
    return record


def _short_card(repo_id: str, noise: Noise, license: str | None, adapter: Mapping[str, Any] | None) -> ModelCard:
    block = noise_block(noise)
    data = ModelCardData(
        license=license, tags=["hf_noise", "noisy-data", block["protocol"]], noise=block, **adapter_metadata(adapter)
    )
    name = text(repo_id.split("/")[-1])
    usage = fenced("python", noise_usage(repo_id))
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n{text(noise_sentence(block))}\n\n{usage}\n")


def _as_json(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()  # the form of transformers
