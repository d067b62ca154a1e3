"""The card of a materialised noisy data set: one configuration per noise setting, listed under `noise:`."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from huggingface_hub import DatasetCard, DatasetCardData

from hf_noise.hub import render
from hf_noise.hub.usage import build_again, draw_again, is_place, load_data, load_tokenizer
from hf_noise.noise import Noise
from hf_noise.noise.block import as_noise, noise_block
from hf_noise.reports.markdown import Code, code, fenced, table, text
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
#: The same where whole rows are noise.
DOCUMENT_COLUMNS = {
    "input_ids": "the tokens, of text or of noise",
    "labels": "the targets: the same tokens",
    "clean_input_ids": "the tokens of the text that the noise replaced",
    "clean_labels": "the same as targets",
    "is_noisy": "true where a token is noise: along the whole of a document of it",
    "noise_share": "the share of the row that is noise: 1 or 0, and between them where noise begins or ends in it",
    "sample_id": "stable index of the row; with seed it determines the tokens of noise in it",
}
#: The same where whole targets of pairs are noisy.
PAIR_COLUMNS = {
    "source": "what is given, clean",
    "target": "what is to be written, NOISY: what a model trains on",
    "clean_target": "what is to be written, clean",
    "is_noisy": "true where the target is the teacher's",
    "sample_id": "stable index of the row; with seed it determines whether its target is replaced",
    "teacher_nll": "nats of the whole `target` under the teacher that wrote the noise",
}
_COLUMNS = {
    "tokens": COLUMNS, "labels": LABEL_COLUMNS, "documents": DOCUMENT_COLUMNS, "sequences": PAIR_COLUMNS
}  # fmt: skip
_HUMAN = "human_labels"
# The text of the running Python's standard library: another Python has another.
_OF_PYTHON = ("embedded/docs-text", "embedded/docs-pairs")

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
        (config for config in record.configs if any(s.get("noisy") for s in config["splits"].values())),
        record.configs[0],
    )
    split = next(iter(example["splits"]))
    is_here = is_place(record.name)
    again = build_again(record, example)
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
        name=text(record.name.removeprefix("./")),
        **_said(record, blocks),
        settings=settings_table(blocks),
        has_clean=any(name.startswith("clean_") for name in record.columns),
        is_of_documents=record.unit == "documents",
        columns=table(("column", "holds"), [(Code(k), v) for k, v in record.columns.items()]),
        usage=fenced("python", load_data(record.name, example["config_name"], split)) if is_here else "",
        usage_noise=fenced("python", draw_again(record, example)) if is_here else "",
        is_redrawn=example.get("redrawn") is not None,
        again=fenced("python", again) if again else "",
        is_of_python=record.source in _OF_PYTHON,
        is_local="arguments" in example and example["arguments"] is None,
        tokenizer=fenced("python", load_tokenizer(record.name)) if record.has_tokenizer and is_here else "",
        source=code(record.source),
        provenance=_provenance(record),
    )


def describe_columns(features: Features, noise: Noise | None = None) -> tuple[str, dict[str, str]]:
    """What is noisy in a data set with these features ("tokens", "documents", "labels" or "sequences"), and what each
    column holds.

    `noise` says what it falls on; without it that is told by the columns.
    """
    is_single = getattr(features.get("is_noisy"), "dtype", None) == "bool"
    is_pair = "clean_target" in features
    unit = noise.unit if noise is not None else "sequences" if is_pair else "labels" if is_single else "tokens"
    return unit, {name: _COLUMNS[unit].get(name, str(feature)) for name, feature in features.items()}


def config_block(
    config_name: str, noise: Mapping[str, Any], splits: Mapping[str, Any], epoch: int = 0, **of_record: Any
) -> dict[str, Any]:
    """The entry of one configuration in the card's `noise` list; what else a record's entry has stays in the record."""
    block = noise_block(noise)
    config = block.pop("config")
    drawn = {"epoch": epoch} if epoch else {}
    return {"config_name": config_name, **block, **drawn, "splits": dict(splits), "config": config}


def with_config(card: DatasetCard, block: Mapping[str, Any]) -> DatasetCard:
    """The card with one configuration added or replaced; the user's text and other metadata stay.

    A card without our table (one written by hand) gets it at its end.

    Raises ValueError for a card whose `noise` or `configs` are not those of a data set as we write them.
    """
    stated, listed = card.data.get("noise") or [], card.data.get("configs") or []
    for key, entries, is_ours in (("noise", stated, _is_block), ("configs", listed, lambda e: isinstance(e, Mapping))):
        if not isinstance(entries, list) or not all(map(is_ours, entries)):
            told = reprlib.repr(entries)
            raise ValueError(f"README.md on the Hub has a `{key}` that is not of hf_noise ({told}); rename it")
    blocks = [b for b in stated if b["config_name"] != block["config_name"]]
    blocks.append(dict(block))
    updated = DatasetCard(str(card))
    ours = _configs([block])[0]
    others = [c for c in listed if c.get("config_name") != block["config_name"]]
    old = [c for c in listed if c.get("config_name") == block["config_name"]]
    if any(c.get("default") for c in others) or not (others == [] or any(c.get("default") for c in old)):
        del ours["default"]
    updated.data["configs"] = others + [ours]
    updated.data["noise"] = blocks
    tags = updated.data.get("tags") or []
    updated.data["tags"] = list(dict.fromkeys([*tags, "hf_noise", "noisy-data", block["protocol"]]))
    updated.text = updated.text.replace(_drawn_once(stated), _drawn_once(blocks))
    settings, marks = settings_table(blocks), re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if marks.search(updated.text):
        updated.text = marks.sub(lambda _: settings, updated.text, count=1)
    else:
        updated.text = f"{updated.text.rstrip()}\n\n## Noise\n\n{settings}\n"
    return updated


def _is_block(entry: Any) -> bool:
    """Whether an entry of a card's `noise` has what `config_block` gives."""
    if not isinstance(entry, Mapping) or not {"config_name", "protocol", "config", "splits"} <= entry.keys():
        return False
    splits, epoch = entry["splits"], entry.get("epoch", 0)
    return (
        isinstance(entry["config"], Mapping) and isinstance(splits, Mapping) and isinstance(epoch, int)
        and all(isinstance(split, Mapping) and isinstance(split.get("rows"), int) for split in splits.values())
    )  # fmt: skip


def settings_table(blocks: Sequence[Mapping[str, Any]]) -> str:
    """One row per configuration, between the marks by which it is found again."""
    rows = []
    for block in blocks:
        realised = block.get("realised")
        rows.append((
            Code(block["config_name"]), _protocol(block),
            *(render.number(float(block[key])) if key in block else "" for key in ("r", "e", "alpha")), _entropy(block),
            f"{realised['rate']:.4f} of {realised['n']:,}" if realised else "not counted",
            str(block.get("seed", "")), str(block.get("epoch", "")),
            ", ".join(
                f"{split} {render.number(s['rows'])}{' (noisy)' if s.get('noisy') else ''}"
                for split, s in block["splits"].items()
            ),
        ))  # fmt: skip
    header = ("config", "protocol", "r", "e", "alpha", "entropy", "realised", "seed", "epoch", "rows")
    kept = [
        i for i in range(len(header)) if header[i] in ("config", "protocol") or any(row[i] for row in rows)
    ]
    rendered = table(
        [header[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        numeric=[
            position
            for position, i in enumerate(kept)
            if header[i] in ("r", "e", "alpha", "entropy", "realised", "seed", "epoch")
        ],
    )
    return f"{_BEGIN}\n{rendered}\n{_END}"


def _entropy(block: Mapping[str, Any]) -> str:
    """Of a token of noise in nats, where documents of it stand among the rows: what a model's loss on it tends to."""
    noise = as_noise(block["config"])
    return render.number(round(noise.entropy, 4)) if noise.unit == "documents" and noise.error_rate else ""


def _protocol(block: Mapping[str, Any]) -> str:
    """The protocol as the table shows it: with its kind, or the name of the labels, where it has one."""
    more = as_noise(block["config"]).variant
    return f"{block['protocol']} ({more})" if more else block["protocol"]


def _said(record: DataRecord, blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the card says of noise that was drawn, and of labels that people gave."""
    clean = "`clean_labels`" if record.unit == "tokens" else f"the true {record.unit}"
    drawn = [
        "The noise is synthetic. It says nothing about how often or how the source itself is wrong.",
        f"The noise here is {_drawn_once(blocks)}; training with fresh noise in every epoch needs `hf_noise` "
        f"and {clean}.",
    ]
    if record.unit == "documents":
        drawn[1] = f"The noise here is {_drawn_once(blocks)}: a document of it is the same in every epoch of training."
    if record.unit == "sequences":
        drawn = [
            "The noise is what a model wrote. It says nothing about how often or how the source itself is wrong.",
            "It was written once, and is the same in every epoch of training.",
        ]
    human = (
        "The noisy labels are those that people gave. Their errors depend on the single sample, of which the "
        "rates of each class say nothing; the labels called true were given by people as well."
    )
    by_people = [block["protocol"] == _HUMAN for block in blocks]
    if not any(by_people):
        what = {"documents": "documents of random tokens put in", "sequences": "targets of a teacher put in"}
        what = what.get(record.unit, f"{record.unit} corrupted")
        intro, nature, limits = f"{what} on purpose", "artificial", drawn
    elif all(by_people):
        intro, nature, limits = "labels that people gave", "that of real annotators", [human]
    else:
        intro, nature = "labels corrupted on purpose, or given by people", "artificial or that of real annotators"
        limits = [*drawn, f"Where the protocol is {_HUMAN}: {human[0].lower()}{human[1:]}"]
    limits = "\n".join(f"- {limit}" for limit in limits)
    return {"intro": f"{code(record.source)} with {text(intro)}.", "nature": nature, "limits": limits}


def _drawn_once(blocks: Sequence[Mapping[str, Any]]) -> str:
    if all(block["config"].get("protocol") == "noisy_teacher" for block in blocks):
        return "written once, by a teacher"
    epochs = sorted({block.get("epoch", 0) for block in blocks if block["config"].get("protocol") != _HUMAN} or {0})
    if len(epochs) == 1:
        return f"drawn once (epoch {epochs[0]})"
    return "drawn once (epoch 0 unless the table says another)"


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


def _provenance(record: DataRecord) -> str:
    rows = {"source": record.source, **record.data, "created": record.created, "commit": record.git}
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    made = f"Made with `hf_noise`. Versions: {text(versions)}."
    return f"{fenced('bash', record.command)}\n\n{render.pairs(rows)}\n\n{made}"
