"""The data of all configurations, and the folder they are written to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import datasets

from hf_noise.data import hook
from hf_noise.hub.data_card import describe_columns
from hf_noise.hub.data_folder import describe_config, write_config, write_data_folder
from hf_noise.hub.push import push_data_folder
from hf_noise.noise.describe import noise_dict_from_description
from hf_noise.reports.record import DataRecord, read_records
from hf_noise.studies.image_settings import OWN_DATA
from hf_noise.studies.publishing.study import OF_LABELS, OF_TEXT, TEXT_BUILDERS, Settings, options_of
from hf_noise.trainers.folders import claimed

OURS = "recipes/publish_dataset.py"
# Data sets whose licence and language are known; of other sources the user says them.
KNOWN = {
    "embedded/docs-text": {"license": "psf-2.0", "language": "en"},
    "embedded/digits": {"license": "cc-by-4.0", "language": None},
}


def publish(settings: Settings, noises: Mapping[str, Any], earlier: DataRecord | None) -> Path:
    """Build and write all configurations beside those of earlier commands, and push them; returns the folder."""
    hook.install()
    asked = options_of(settings)
    builders = {name: datasets.load_dataset_builder(settings.name, **noise, **asked) for name, noise in noises.items()}
    if settings.name == OWN_DATA and (unit := next(iter(builders.values())).noise.unit) != "labels":
        raise ValueError(
            f"--column {asked['column']} holds {unit}, and this recipe publishes labels of {OWN_DATA}; text is "
            "published by --name hf_noise/owt-noisy"
        )
    kept = earlier_configs(settings, earlier, builders)
    with claimed(settings.folder, claim_of(settings, next(iter(builders.values())))):
        write(settings, builders, kept)
    print(f"wrote {settings.folder / 'README.md'}")
    if settings.push_to_hub:
        info = push_data_folder(settings.folder, settings.push_to_hub, private=settings.private or None)
        print(f"pushed: {info.commit_url}")
    return settings.folder


def arguments_of(config: Any) -> dict[str, Any] | None:
    """What `load_dataset` has to be called with to build the same again; None if some of it is a local file."""
    inherited = {field.name for field in fields(datasets.BuilderConfig)}
    own = [field for field in fields(config) if field.name not in inherited]
    asked = {field.name: getattr(config, field.name) for field in own}
    asked = {field.name: asked[field.name] for field in own if asked[field.name] != field.default}
    for name in ("source", "validation_source", "test_source", "human_source", "tokenizer"):
        if is_local(asked.get(name)) and (name, asked[name]) != ("tokenizer", "embedded"):
            return None
    if asked.get("pairs") is not None:
        asked["pairs"] = [list(pair) for pair in asked["pairs"].items()]  # JSON has no integers as keys
    return asked


def is_local(source: Any) -> bool:
    """Whether a source or tokenizer is a file or folder of this machine, which a card cannot name for others."""
    if isinstance(source, Mapping):
        return any(map(is_local, source.values()))
    return isinstance(source, os.PathLike) or (
        isinstance(source, str) and source not in KNOWN
        and (os.path.exists(os.path.expanduser(source)) or any(letter in source for letter in "*?["))
    )  # fmt: skip


def check_folder(folder: Path, builder: str) -> DataRecord | None:
    """What an earlier start of this recipe wrote; None if the folder is new, or that start was stopped.

    Raises FileExistsError: something else lies there, which would be overwritten or mixed with the data.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--output {folder} is a file; name a folder")
    there = sorted(path.name for path in folder.glob("*") if not path.name.startswith((".", "_hf_noise")))
    told, record = folder / "run.json", folder / "record.json"
    is_ours = told.is_file() and f'"{OURS}"' in told.read_text(encoding="utf-8", errors="replace")
    if not there or (is_ours and not record.is_file()):
        return None
    named = f"{', '.join(there[:5])}{', ...' if there[5:] else ''}"
    refused = f"--output {folder} holds {named}, and no data set of this recipe; choose a new folder"
    try:
        (found,) = read_records(record) if record.is_file() else [None]
    except ValueError as error:
        raise FileExistsError(f"{refused} ({error})") from error
    if not isinstance(found, DataRecord):
        raise FileExistsError(refused)
    if found.builder != builder:
        raise FileExistsError(f"--output {folder} holds {found.builder}, not {builder}; choose another folder")
    return found


def claim_of(settings: Settings, builder: Any) -> dict[str, Any]:
    """What all configurations of a folder have in common: the rows without noise, and the seed."""
    shared = builder.config.identity()
    names = ("source", "test_source", *OF_TEXT, *OF_LABELS, "label_column")
    told = {"recipe": OURS, "builder": settings.name, "seed": settings.seed}
    return told | {name: shared.get(name) for name in names}


def data_of(settings: Settings, builder: Any) -> dict[str, Any]:
    """What the record says of the data besides their noise."""
    data = {"seed": settings.seed, "epoch": 0}
    if settings.name in TEXT_BUILDERS:
        return data | {"vocab_size": builder.vocab_size(), "block_size": builder.config.block_size}
    return data | {"classes": builder.num_classes()}


def task_of(features: datasets.Features) -> str:
    """What a data set with labels is for, as the Hub calls it."""
    if any(isinstance(feature, datasets.Image) for feature in features.values()):
        return "image-classification"
    has_text = any(getattr(feature, "dtype", None) in ("string", "large_string") for feature in features.values())
    return "text-classification" if has_text else "tabular-classification"


def earlier_configs(
    settings: Settings, earlier: DataRecord | None, builders: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The configurations of the folder that stay as they are.

    Raises FileExistsError: they are of other data, or one of a name that is asked for has another protocol.
    """
    if earlier is None:
        return []
    first = next(iter(builders.values()))
    columns = first.info.features  # of labels they are known once the source is read
    unit = first.noise.unit
    if earlier.unit != unit or (unit != "labels" and sorted(columns) != sorted(earlier.columns)):
        there = f"{earlier.unit} with the columns {', '.join(earlier.columns)}"
        raise FileExistsError(
            f"--output {settings.folder} holds {there}, and noise on {unit} has others; choose another folder"
        )
    asked = replace(earlier, source=first.config.source, data=data_of(settings, first))
    asked = type(earlier).from_json(asked.to_json())  # a record on disk names files less fully
    changed = ["source"] * (earlier.source != asked.source)
    changed += [name for name in asked.data if earlier.data.get(name) != asked.data[name]]
    if changed:
        raise FileExistsError(
            f"--output {settings.folder} holds data with another {', '.join(changed)}; choose another folder"
        )
    kept = []
    for config in earlier.configs:
        name = config["config_name"]
        if name not in builders:
            if any(Path(settings.folder, name).glob("*.parquet")):
                kept.append(config)
            continue
        protocol = getattr(builders[name].config, "protocol", None)
        before = config["noise"].get("kind", protocol)
        if config["noise"].get("error_rate") and protocol and before != protocol:
            raise FileExistsError(
                f"--output {settings.folder} has a configuration {name!r} of the protocol {before}, not {protocol}; "
                f"name both, as with --protocol {before} {protocol}, or another folder"
            )
    return kept


def place_of(folder: Path) -> str:
    """The folder as the card's code loads it from where the recipe was started; its name alone if it lies elsewhere."""
    inside = os.path.relpath(folder)
    return folder.absolute().name if inside.startswith("..") else f"./{inside}"


def write(settings: Settings, builders: Mapping[str, Any], kept: list[dict[str, Any]]) -> None:
    """Build, and write the folder: new configurations beside those that are kept."""
    configs = []
    for name, builder in builders.items():
        builder.download_and_prepare(num_proc=settings.num_proc)
        splits = builder.as_dataset()
        write_config(splits, settings.folder, name)
        described = describe_config(splits, name, noise_dict_from_description(builder.info.description))
        configs.append(described | {"arguments": arguments_of(builder.config)})
        print(f"  {name}: realised {configs[-1]['noise']['realised']}")

    unit, columns = describe_columns(builder.info.features, builder.noise)
    if unit != "labels":
        builder.tokenizer.save_pretrained(settings.folder / "tokenizer")
    tasks = {"task_categories": [task_of(builder.info.features)]} if unit == "labels" else {}
    source = builder.config.source
    stated = KNOWN.get(source, {"license": None, "language": None})
    record = DataRecord(
        name=settings.push_to_hub or place_of(settings.folder),
        builder=settings.name,
        source=source,
        unit=unit,
        data=data_of(settings, builder) | tasks,
        columns=columns,
        configs=kept + configs,
        license=settings.license or stated["license"],
        language=settings.language or stated["language"],
        has_tokenizer=unit != "labels",
    )
    write_data_folder(settings.folder, record)
