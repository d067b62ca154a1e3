"""Materialise a noisy data set at several rates: Parquet, one configuration per setting, with a data card.

Offline, half a minute on two cores. Add `--push_to_hub user/docs-noisy` to publish it; people load it without
hf_noise: `load_dataset("user/docs-noisy", "r0.5")`. Started again, it takes what is built already from the
cache of `datasets`; with other rates or protocols, their configurations come beside those in the folder.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_noise.data.hook import builder_names
from hf_noise.noise import rates
from hf_noise.noise.labels import LABEL_PROTOCOLS
from hf_noise.studies.ranges import (
    Count,
    Name,
    NotNegative,
    Output,
    Repo,
    SeedOfNoise,
    TwoOrMore,
    check_classes,
    check_flags,
)

if TYPE_CHECKING:
    from hf_noise.reports.record import DataRecord

OURS = "recipes/publish_dataset.py"
# These have no data of their own (noisy) or no noise (packed).
BUILDERS = [name for name in builder_names() if name not in ("hf_noise/noisy", "hf_noise/packed")]
# Data sets whose licence and language are known; of other sources the user says them.
KNOWN = {
    "embedded/docs-text": {"license": "psf-2.0", "language": "en"},
    "embedded/digits": {"license": "cc-by-4.0", "language": None},
}
TEXT_BUILDERS = ("hf_noise/docs-noisy", "hf_noise/owt-noisy")
OF_THE_BUILDER = ("source", "test_source", "human_source", "classes", "tokenizer", "block_size")
OF_TEXT, OF_IMAGES = ("tokenizer", "block_size"), ("test_source", "human_source", "classes")
FLAGS = {
    "ratios": NotNegative, "output": Output, "classes": Count, "block_size": TwoOrMore, "seed": SeedOfNoise,
    "num_proc": Count, "push_to_hub": Repo,
    **dict.fromkeys(("source", "test_source", "human_source", "tokenizer", "license", "language"), Name),
}  # fmt: skip
DEFAULT_RATIOS = [0.0, 0.1, 0.3, 0.5, 1.0]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="hf_noise/docs-noisy", choices=BUILDERS, help="a builder of noisy data")
    parser.add_argument("--ratios", type=float, nargs="+", help="r, noisy per clean unit (default: 0 0.1 0.3 0.5 1)")
    parser.add_argument("--protocol", nargs="+", help="of labels: symmetric, cyclic, ..., human:<name> (no ratio)")
    parser.add_argument("--output", type=Path, help="folder to write, new or of this recipe (default: runs/<name>)")
    parser.add_argument("--source", help="local file, glob, folder or Hub id (default: the builder's)")
    parser.add_argument("--test_source", help="of images: where the test split is, if not in the source")
    parser.add_argument("--human_source", help="of images: where the labels of people are, if not in the source")
    parser.add_argument("--classes", type=int, help="10, 100 or 1000 classes of ImageNet")
    parser.add_argument("--tokenizer", help="of text: name or folder of a tokenizer (default: the builder's)")
    parser.add_argument("--block_size", type=int, help="of text: tokens per row (default: the builder's)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--num_proc", type=int, help="processes that build; the result is the same for any number")
    parser.add_argument("--license", help="Hub id of the licence of the source, such as cc0-1.0")
    parser.add_argument("--language", help="language of the source, such as en")
    parser.add_argument("--push_to_hub", metavar="REPO", help="owner/name of a data set on the Hub")
    parser.add_argument("--private", action="store_true", help="make the repository private if it is new")
    parser.add_argument("--dry_run", action="store_true", help="print the settings and stop")
    args = parser.parse_args(argv)
    check_flags(parser, args, FLAGS)
    args.output = args.output or Path("runs", args.name.split("/")[1])
    if args.protocol and args.name in TEXT_BUILDERS:
        parser.error(f"--protocol is for labels, and {args.name} has noisy tokens; leave it out")
    others = OF_IMAGES if args.name in TEXT_BUILDERS else OF_TEXT
    if foreign := [name for name in others if getattr(args, name) is not None]:
        kind = "text" if args.name in TEXT_BUILDERS else "images"
        parser.error(f"--{foreign[0]} {getattr(args, foreign[0])}: {args.name} is of {kind} and has no such setting")
    check_classes(parser, args.name, args.classes)
    drawn = drawn_protocols(args)
    if args.ratios and not drawn:
        parser.error("--ratios: the labels of people have the rate that they have; leave it out")
    if unknown := sorted(set(drawn) - {None, *LABEL_PROTOCOLS}):
        parser.error(f"unknown --protocol {unknown[0]}; known: {', '.join(LABEL_PROTOCOLS)}, human:<name>")
    args.ratios = [rates.check_ratio(ratio) for ratio in dict.fromkeys(args.ratios or DEFAULT_RATIOS)] if drawn else []
    return args


def drawn_protocols(args: argparse.Namespace) -> list[str | None]:
    """The protocols that take a ratio; None is the builder's own."""
    return [p for p in dict.fromkeys(args.protocol or [None]) if p is None or not p.startswith("human:")]


def settings_of(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and noise of each configuration; of several drawn protocols, all but the first stand in the names."""
    drawn = drawn_protocols(args)
    for protocol in drawn:
        chosen = {"protocol": protocol} if protocol else {}
        for ratio in args.ratios:
            if protocol == drawn[0]:
                yield f"r{ratio}", {"r": ratio, "seed": args.seed, **chosen}
            elif ratio:  # rows without noise are the same for all
                yield f"{protocol}-r{ratio}", {"r": ratio, "seed": args.seed, **chosen}
    for protocol in dict.fromkeys(args.protocol or []):
        if protocol not in drawn:
            yield protocol.replace(":", "-"), {"protocol": protocol}


def arguments_of(config: Any) -> dict[str, Any] | None:
    """What `load_dataset` has to be called with to build the same again; None if some of it is a local file."""
    from datasets import BuilderConfig

    inherited = {field.name for field in fields(BuilderConfig)}
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
    from hf_noise.reports.record import DataRecord, read_records

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


def claim_of(args: argparse.Namespace, builder: Any) -> dict[str, Any]:
    """What all configurations of a folder have in common: the rows without noise, and the seed."""
    shared = builder.config.identity()
    names = ("source", "test_source", "classes", "tokenizer", "block_size")
    return {"recipe": OURS, "builder": args.name, "seed": args.seed} | {name: shared.get(name) for name in names}


def data_of(args: argparse.Namespace, builder: Any) -> dict[str, Any]:
    """What the record says of the data besides their noise."""
    data = {"seed": args.seed, "epoch": 0}
    if args.name in TEXT_BUILDERS:
        return data | {"vocab_size": builder.vocab_size(), "block_size": builder.config.block_size}
    return data | {"classes": builder.num_classes(), "task_categories": ["image-classification"]}


def earlier_configs(
    args: argparse.Namespace, earlier: DataRecord | None, builders: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The configurations of the folder that stay as they are.

    Raises FileExistsError: they are of other data, or one of a name that is asked for has another protocol.
    """
    if earlier is None:
        return []
    first = next(iter(builders.values()))
    asked = replace(earlier, source=first.config.source, data=data_of(args, first))
    asked = type(earlier).from_json(asked.to_json())  # a record on disk names files less fully
    changed = ["source"] * (earlier.source != asked.source)
    changed += [name for name in asked.data if earlier.data.get(name) != asked.data[name]]
    if changed:
        raise FileExistsError(f"--output {args.output} holds data with another {', '.join(changed)}; choose another "
                              "folder")  # fmt: skip
    kept = []
    for config in earlier.configs:
        name = config["config_name"]
        if name not in builders:
            if any(Path(args.output, name).glob("*.parquet")):
                kept.append(config)
            continue
        protocol = getattr(builders[name].config, "protocol", None)
        before = config["noise"].get("kind", protocol)
        if config["noise"].get("error_rate") and protocol and before != protocol:
            raise FileExistsError(
                f"--output {args.output} has a configuration {name!r} of the protocol {before}, not {protocol}; name "
                f"both, as with --protocol {before} {protocol}, or another folder"
            )
    return kept


def place_of(folder: Path) -> str:
    """The folder as the card's code loads it from where the recipe was started; its name alone if it lies elsewhere."""
    inside = os.path.relpath(folder)
    return folder.absolute().name if inside.startswith("..") else f"./{inside}"


def main(argv: Sequence[str] | None = None) -> Path | None:
    args = parse(argv)
    settings = dict(settings_of(args))
    print(f"{args.name} -> {args.output}, seed {args.seed}")
    for name, noise in settings.items():
        print(f"  {name:<14} " + (f"e = {rates.error_rate(noise['r']):.4f}" if "r" in noise else "e as it is"))
    earlier = check_folder(args.output, args.name)
    if args.dry_run:
        return None

    # After the dry run: these imports take seconds.
    import datasets

    from hf_noise.data import hook
    from hf_noise.hub.push import push_data_folder
    from hf_noise.trainers.folders import claimed

    hook.install()
    asked = {name: getattr(args, name) for name in OF_THE_BUILDER if getattr(args, name) is not None}
    builders = {name: datasets.load_dataset_builder(args.name, **noise, **asked) for name, noise in settings.items()}
    kept = earlier_configs(args, earlier, builders)
    with claimed(args.output, claim_of(args, next(iter(builders.values())))):
        write(args, builders, kept)
    print(f"wrote {args.output / 'README.md'}")
    if args.push_to_hub:
        info = push_data_folder(args.output, args.push_to_hub, private=args.private or None)
        print(f"pushed: {info.commit_url}")
    return args.output


def write(args: argparse.Namespace, builders: Mapping[str, Any], kept: list[dict[str, Any]]) -> None:
    """Build, and write the folder: new configurations beside those that are kept."""
    from hf_noise.hub.data_card import describe_columns
    from hf_noise.hub.data_folder import describe_config, write_config, write_data_folder
    from hf_noise.noise.base import noise_of_description
    from hf_noise.reports.record import DataRecord

    configs = []
    for name, builder in builders.items():
        builder.download_and_prepare(num_proc=args.num_proc)
        splits = builder.as_dataset()
        write_config(splits, args.output, name)
        described = describe_config(splits, name, noise_of_description(builder.info.description))
        configs.append(described | {"arguments": arguments_of(builder.config)})
        print(f"  {name}: realised {configs[-1]['noise']['realised']}")

    unit, columns = describe_columns(builder.info.features)
    if unit == "tokens":
        builder.tokenizer.save_pretrained(args.output / "tokenizer")
    source = builder.config.source
    stated = KNOWN.get(source, {"license": None, "language": None})
    record = DataRecord(
        name=args.push_to_hub or place_of(args.output),
        builder=args.name,
        source=source,
        unit=unit,
        data=data_of(args, builder),
        columns=columns,
        configs=kept + configs,
        license=args.license or stated["license"],
        language=args.language or stated["language"],
        has_tokenizer=unit == "tokens",
    )
    write_data_folder(args.output, record)
