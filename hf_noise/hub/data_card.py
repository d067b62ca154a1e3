"""The card of a materialised noisy data set: one configuration per noise setting, listed under `noise:`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from huggingface_hub import DatasetCard, DatasetCardData

from hf_noise.hub import render
from hf_noise.noise.block import noise_block
from hf_noise.reports.record import DataRecord

if TYPE_CHECKING:
    from datasets import Features

#: What the columns of a noisy data set hold.
COLUMNS = {
    "input_ids": "the context, clean",
    "labels": "the targets, NOISY: what a model trains on",
    "clean_labels": "the targets, clean",
    "is_noisy": "true where a target was replaced (a uniform replacement may repeat the original)",
    "sample_id": "stable index of the row; with seed and epoch it determines the row's noise",
}

#: The same where single labels are noisy; other columns are those of the source.
LABEL_COLUMNS = {
    "image": "the picture",
    "label": "the class, NOISY: what a model trains on",
    "clean_label": "the class, true",
    "is_noisy": "true where the label is wrong",
    "sample_id": COLUMNS["sample_id"],
}
_HUMAN = "human_labels"

# The table between the marks is ours and is written anew with every configuration; the text around it is the
# user's.
_BEGIN, _END = "<!-- hf_noise: settings -->", "<!-- hf_noise: end of settings -->"
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


def data_card(record: DataRecord) -> DatasetCard:
    """The card of a data set, all figures from its record.

    Its metadata lists the configurations (`configs`, the first one is the default, files at
    `<config_name>/<split>-*.parquet`) and their noise (`noise`, one block each with `config_name` and
    `splits`).

    Raises:
        ValueError: the noise of a configuration is unknown to this version of hf_noise.
    """
    blocks = [config_block(**config) for config in record.configs]
    source = render.hub_id(record.source)
    example = next(
        (block for block in blocks if any(s.get("noisy") for s in block["splits"].values())), blocks[0]
    )
    data = DatasetCardData(
        language=record.language,
        license=record.license,
        pretty_name=record.name.split("/")[-1],
        size_categories=[_size(blocks)],
        source_datasets=[source] if source else None,
        task_categories=record.data.get("task_categories"),
        tags=["hf_noise", "noisy-data", *dict.fromkeys(block["protocol"] for block in blocks)],
        configs=_configs(blocks),
        noise=blocks,
    )
    return DatasetCard.from_template(
        data,
        template_str=render.template("data_card.md"),
        name=record.name,
        **_said(record, blocks),
        settings=settings_table(blocks),
        columns=render.table(("column", "holds"), [(f"`{k}`", v) for k, v in record.columns.items()]),
        usage=_usage(record.name, example),
        usage_noise=_usage_noise(record, example),
        tokenizer=_usage_tokenizer(record.name) if record.has_tokenizer else "",
        source=f"`{record.source}`",
        provenance=_provenance(record),
    )


def describe_columns(features: Features) -> tuple[str, dict[str, str]]:
    """What is noisy in a data set with these features ("tokens" or "labels"), and what each column holds."""
    unit = "labels" if getattr(features.get("is_noisy"), "dtype", None) == "bool" else "tokens"
    known = LABEL_COLUMNS if unit == "labels" else COLUMNS
    return unit, {name: known.get(name, str(feature)) for name, feature in features.items()}


def config_block(config_name: str, noise: Mapping[str, Any], splits: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of one configuration in the card's `noise` list."""
    block = noise_block(noise)
    config = block.pop("config")
    return {"config_name": config_name, **block, "splits": dict(splits), "config": config}


def with_config(card: DatasetCard, block: Mapping[str, Any]) -> DatasetCard:
    """The card with one configuration added or replaced; the user's text and other metadata stay.

    A card without our table (one written by hand) gets it at its end.
    """
    blocks = [b for b in card.data.get("noise") or [] if b.get("config_name") != block["config_name"]]
    blocks.append(dict(block))
    updated = DatasetCard(str(card))
    ours = _configs([block])[0]
    others = [c for c in card.data.get("configs") or [] if c.get("config_name") != block["config_name"]]
    old = [c for c in card.data.get("configs") or [] if c.get("config_name") == block["config_name"]]
    if any(c.get("default") for c in others) or not (others == [] or any(c.get("default") for c in old)):
        del ours["default"]
    updated.data["configs"] = others + [ours]
    updated.data["noise"] = blocks
    tags = updated.data.get("tags") or []
    updated.data["tags"] = list(dict.fromkeys([*tags, "hf_noise", "noisy-data", block["protocol"]]))
    table, marks = settings_table(blocks), re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if marks.search(updated.text):
        updated.text = marks.sub(lambda _: table, updated.text, count=1)
    else:
        updated.text = f"{updated.text.rstrip()}\n\n## Noise\n\n{table}\n"
    return updated


def settings_table(blocks: Sequence[Mapping[str, Any]]) -> str:
    """One row per configuration, between the marks by which it is found again."""
    rows = []
    for block in blocks:
        realised = block.get("realised")
        rows.append((
            f"`{block['config_name']}`", _protocol(block),
            *(render.number(float(block[key])) if key in block else "" for key in ("r", "e", "alpha")),
            f"{realised['rate']:.4f} of {realised['n']:,}" if realised else "not counted",
            str(block.get("seed", "")),
            ", ".join(
                f"{split} {render.number(s['rows'])}{' (noisy)' if s.get('noisy') else ''}"
                for split, s in block["splits"].items()
            ),
        ))  # fmt: skip
    header = ("config", "protocol", "r", "e", "alpha", "realised", "seed", "rows")
    kept = [
        i for i in range(len(header)) if header[i] in ("config", "protocol") or any(row[i] for row in rows)
    ]
    table = render.table(
        [header[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        numeric=[
            position
            for position, i in enumerate(kept)
            if header[i] in ("r", "e", "alpha", "realised", "seed")
        ],
    )
    return f"{_BEGIN}\n{table}\n{_END}"


def _protocol(block: Mapping[str, Any]) -> str:
    """The protocol as the table shows it: with its kind, or the name of the labels, where it has one."""
    config = block["config"]
    more = config.get("name" if block["protocol"] == _HUMAN else "kind")
    return f"{block['protocol']} ({more})" if more else block["protocol"]


def _said(record: DataRecord, blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the card says of noise that was drawn, and of labels that people gave."""
    clean = "`clean_labels`" if record.unit == "tokens" else f"the true {record.unit}"
    drawn = [
        "The noise is synthetic. It says nothing about how often or how the source itself is wrong.",
        "The noise here is drawn once (epoch 0); training with fresh noise in every epoch needs `hf_noise` "
        f"and {clean}.",
    ]
    human = (
        "The noisy labels are those that people gave. Their errors depend on the single sample, of which the "
        "rates of each class say nothing; the labels called true were given by people as well."
    )
    by_people = [block["protocol"] == _HUMAN for block in blocks]
    if not any(by_people):
        intro, nature, limits = f"{record.unit} corrupted on purpose", "artificial", drawn
    elif all(by_people):
        intro, nature, limits = "labels that people gave", "that of real annotators", [human]
    else:
        intro, nature = "labels corrupted on purpose, or given by people", "artificial or that of real annotators"
        limits = [*drawn, f"Where the protocol is {_HUMAN}: {human[0].lower()}{human[1:]}"]
    limits = "\n".join(f"- {limit}" for limit in limits)
    return {"intro": f"`{record.source}` with {intro}.", "nature": nature, "limits": limits}


def _configs(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    configs = [
        {
            "config_name": block["config_name"],
            "data_files": [
                {"split": split, "path": f"{block['config_name']}/{split}-*"} for split in block["splits"]
            ],
        }
        for block in blocks
    ]
    configs[0]["default"] = True
    return configs


def _size(blocks: Sequence[Mapping[str, Any]]) -> str:
    rows = sum(split["rows"] for block in blocks for split in block["splits"].values())
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def _usage(name: str, block: Mapping[str, Any]) -> str:
    config, split = block["config_name"], next(iter(block["splits"]))
    return (
        f'from datasets import load_dataset\n\ndata = load_dataset("{name}", "{config}", split="{split}")\n'
        f'stream = load_dataset("{name}", "{config}", split="{split}", streaming=True)'
    )


def _usage_noise(record: DataRecord, block: Mapping[str, Any]) -> str:
    load = f'hf_noise.load_noise("{record.name}", config_name="{block["config_name"]}")'
    lines = f"import hf_noise\n\nnoise = {load}"
    config = block["config"]
    if record.builder.startswith("hf_noise/") and block["protocol"] == _HUMAN:
        lines += f'\nagain = hf_noise.load_dataset("{record.builder}", protocol="human:{config["name"]}")'
    elif record.builder.startswith("hf_noise/") and "r" in block:
        protocol = f', protocol="{config["kind"]}"' if "kind" in config else ""
        lines += f'\nagain = hf_noise.load_dataset("{record.builder}", r={block["r"]:.6g}{protocol})'
    return lines


def _usage_tokenizer(name: str) -> str:
    return (
        "from huggingface_hub import snapshot_download\nfrom transformers import AutoTokenizer\n\n"
        f'folder = snapshot_download("{name}", repo_type="dataset", allow_patterns="tokenizer/*")\n'
        'tokenizer = AutoTokenizer.from_pretrained(f"{folder}/tokenizer")'
    )


def _provenance(record: DataRecord) -> str:
    rows = {"source": record.source, **record.data, "created": record.created, "commit": record.git}
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    made = f"Made with `hf_noise`. Versions: {versions}."
    return f"```bash\n{record.command}\n```\n\n{render.pairs(rows)}\n\n{made}"
