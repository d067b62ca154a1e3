"""Bad fields, files and texts for records, and for what keeps secrets and markup out of them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bad_places as places
import numpy as np
from bad_calls import Target
from bad_readers import confirm, number, same, text, whole
from bad_values import pick

from hf_noise.noise import LabelFlips, UniformTokens
from hf_noise.reports import markdown, secrets
from hf_noise.reports.claims import judge
from hf_noise.reports.paper import Claim, paper_table, paper_table_ids, published
from hf_noise.reports.provenance import command_line
from hf_noise.reports.record import DataRecord, RunRecord, append_record, read_records

TOKEN = "hf_" + "aB3dE5gH7j" * 4


def run_fields(draw: np.random.Generator) -> dict[str, Any]:
    noise = pick(
        draw, UniformTokens(ratio=0.5, vocab_size=9, seed=1), LabelFlips.symmetric(ratio=1.0, num_classes=4)
    )
    return {
        "name": pick(draw, "user/run", "run"), "task": pick(draw, "causal_lm", "image_classification"),
        "recipe": "gpt2.py", "model": {"name": "GPT-2", "parameters": 33_000},
        "data": {"source": "owner/text", "classes": 4},
        "noise": noise.to_dict() | {"realised": {"rate": 0.33, "n": 100}}, "budget": {"steps": 15, "tokens": 1920},
        "loss": {"name": pick(draw, "nll", "corrected"), "error_rate": 0.3, "source": "known"},
        "settings": {"learning_rate": 1e-3, "list": [1, 2.5, None, True]},
        "metrics": {"validation_nll": {"value": 4.25, "n": 924, "low": 4.2, "high": 4.3}, "own": {"value": 1, "n": 5}},
        "seed": 7, "wall_seconds": pick(draw, 61.4, 3), "command": "python gpt2.py", "versions": {"torch": "2.1"},
        "hardware": {"cpu": "Some CPU", "cores": 2}, "created": "2025-01-01T00:00:00+00:00", "git": None,
        "status": "finished",
    }  # fmt: skip


def data_fields(draw: np.random.Generator) -> dict[str, Any]:
    noise = UniformTokens(ratio=0.5, vocab_size=9, seed=1).to_dict()
    splits = {"train": {"rows": 8, "units": 128, "noisy": True}, "test": {"rows": 3, "units": 48, "noisy": False}}
    configs = [{"config_name": name, "noise": noise | {"realised": {"rate": 0.3, "n": 128}}, "splits": splits}
               for name in pick(draw, ("r0.5",), ("r0.5", "r1.0"))]  # fmt: skip
    return {
        "name": "user/data", "builder": "hf_noise/docs-noisy", "source": "embedded/docs-text", "unit": "tokens",
        "data": {"block_size": 16}, "columns": {"labels": "the targets", "clean_labels": "the truth"},
        "configs": configs, "license": pick(draw, None, "mit"), "language": None,
        "has_tokenizer": bool(draw.integers(2)), "command": "python publish.py", "versions": {"torch": "2.1"},
        "created": "2025-01-01T00:00:00+00:00",
        "git": pick(draw, None, "abc"),
    }  # fmt: skip


# ---- what a record holds


def plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    confirm(not isinstance(value, np.ma.MaskedArray), "a mask")
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, Mapping):
        confirm(all(isinstance(key, str) for key in value), "keys")
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    confirm(value is None or isinstance(value, str | bool | int | float), f"{value!r:.60}")
    confirm(not isinstance(value, float) or math.isfinite(value), "not finite")
    return value


TYPES = {"str": str, "int": int, "bool": bool, "str | None": str | None, "float": int | float}


def check_fields(cls: type, given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Every field is what was given, as JSON has it, and of its type."""
    for field in dataclasses.fields(cls):
        value, kind = plain(given[field.name]), TYPES.get(field.type)
        if kind is not None:
            confirm(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), field.name)
        else:
            confirm(isinstance(value, dict if field.type.startswith("dict") else list), field.name)
        if field.type == "dict[str, str]":
            confirm(all(isinstance(entry, str) for entry in value.values()), field.name)
        found = stored[field.name]
        confirm(type(found) is type(value) or isinstance(value, str), f"{field.name} is a {type(found)}")
        confirm(json.dumps(found) == json.dumps(value), f"{field.name} is {found!r}, not {value!r}")


def noise_of(value: Any, name: str) -> None:
    confirm(isinstance(value, dict) and isinstance(value.get("protocol"), str), f"no noise in {name}")


def check_run(given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    confirm(stored["schema"] == "hf_noise.run/1", "schema")
    check_fields(RunRecord, given, stored)
    noise_of(stored["noise"], "noise")
    confirm(0 <= number(stored["wall_seconds"]) < math.inf, "wall_seconds")
    for metric in stored["metrics"].values():
        confirm(isinstance(metric, dict) and math.isfinite(number(metric["value"])), "a metric")
        whole(metric["n"], 1)


def check_data(given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    confirm(stored["schema"] == "hf_noise.data/1", "schema")
    check_fields(DataRecord, given, stored)
    names = [text(config["config_name"]) for config in stored["configs"]]
    confirm(names and len(set(names)) == len(names), "names")
    for config in stored["configs"]:
        noise_of(config["noise"], "configs")


def stored_run(**fields: Any) -> dict[str, Any]:
    record = RunRecord(**fields)
    confirm(RunRecord.from_json(record.to_json()) == record, "another comes back from JSON")
    return json.loads(record.to_json())


def stored_data(**fields: Any) -> dict[str, Any]:
    record = DataRecord(**fields)
    confirm(DataRecord.from_json(record.to_json(indent=None)) == record, "another comes back from JSON")
    return json.loads(record.to_json())


def from_dict(values: Any, _cls: Any = RunRecord) -> dict[str, Any]:
    return RunRecord.from_dict(values).to_dict()


def check_from_dict(given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    values = given["values"]
    confirm(isinstance(values, Mapping) and values.get("schema") == "hf_noise.run/1", "schema")
    confirm(set(values) == {field.name for field in dataclasses.fields(RunRecord)} | {"schema"}, "fields")
    check_run(values, stored)


# ---- files


def json_of(draw: np.random.Generator, indent: int | None = None) -> str:
    return pick(draw, RunRecord(**run_fields(draw)), DataRecord(**data_fields(draw))).to_json(indent)


def file_call(draw: np.random.Generator) -> dict[str, Any]:
    name = pick(draw, "record.json", "records.jsonl")
    content = json_of(draw, 2 if name.endswith("json") else None)
    return {"name": name, "content": content, "_again": bool(draw.integers(2))}


def read_file(name: Any, content: Any, _again: bool) -> list[dict[str, Any]]:
    """Records of a file that holds this text; with `_again`, of its folder, after they were appended once more."""
    folder = places.FOLDER / "records"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    path = folder / name if isinstance(name, str) and name in ("record.json", "records.jsonl") else name
    if isinstance(path, Path):
        path.write_bytes(content if isinstance(content, bytes) else str(content).encode("utf-8", "replace"))
    found = read_records(path)
    if _again and isinstance(path, Path):
        for record in found:
            append_record(folder / "records.jsonl", record)
        found = read_records(folder)
    return [record.to_dict() for record in found]


def check_file(given: Mapping[str, Any], result: list[dict[str, Any]]) -> None:
    content = given["content"]
    content = content.decode() if isinstance(content, bytes) else str(content)
    lines = content.split("\n") if given["name"] == "records.jsonl" else [content]
    wanted = [json.loads(line) for line in dict.fromkeys(lines) if line.strip()]  # each once
    confirm(given["name"] in ("record.json", "records.jsonl"), "no such file")
    confirm([json.dumps(record, sort_keys=True) for record in result]
            == [json.dumps(record, sort_keys=True) for record in wanted], "other records")  # fmt: skip


GOOD = RunRecord(**run_fields(np.random.default_rng(0)))
BROKEN = tuple(
    (lambda content=content: content)
    for content in (
        "{", "[]", "null", "3", '"text"', "[" * 5000, '{"schema": "hf_noise.run/1"}', '{"schema": "hf_noise.run/2"}',
        '{"schema": "hf_noise.data/1"}', '{"a": NaN}', "\ufeff{}", "", "\n\n", '{"schema": ["hf_noise.run/1"]}',
        "\ud800", GOOD.to_json(None).replace("61.4", "Infinity").replace('"wall_seconds": 3', '"wall_seconds": -3'),
        GOOD.to_json(None).replace('"seed": 7', '"seed": "7"'), GOOD.to_json(None)[:-9], b"\xff\xfe{", b"\x80",
        GOOD.to_json(None) + "\n" + GOOD.to_json(None), GOOD.to_json(None).replace('"n": 5', '"n": 0'),
    )
)  # fmt: skip


# ---- secrets and commands


HARMLESS = ("tokens/s of user/repo: 3", "eos_token=x", "e = 0.5, see https://host/a")
#: With a secret, and what is left without it.
SECRET = {
    "": "", f" {TOKEN}": " <removed>", " https://me:pass1@host/x": " https://host/x", " /home/me/data/a.txt": " a.txt",
    " hub_token=aB3dE5gH7j": " hub_token=<removed>",
}  # fmt: skip


def secret_call(draw: np.random.Generator) -> dict[str, Any]:
    return {"text": pick(draw, *HARMLESS) + pick(draw, *SECRET)}


def without(text: Any) -> tuple[str, str, str | None]:
    return secrets.portable(text), secrets.scrubbed(text), secrets.credential(text)


def check_secrets(given: Mapping[str, Any], result: tuple[str, str, str | None]) -> None:
    given_text, (portable, scrubbed, found) = text(given["text"]), result
    confirm(TOKEN not in portable + scrubbed and "me:pass1@" not in portable + scrubbed, "a secret is left")
    confirm((found is not None) or TOKEN not in given_text, "credential")
    confirm(found is None or given_text.find(found[:7]) >= 0 and found[7:] == "...", "credential")
    for first in HARMLESS:
        if (rest := SECRET.get(given_text.removeprefix(first))) is not None and given_text.startswith(first):
            confirm(portable == scrubbed == first + rest, f"{portable!r} and {scrubbed!r}")
    if not any(sign in given_text for sign in ("hf_", "://", "=", "/")):
        confirm(portable == scrubbed == given_text and found is None, "harmless text was changed")


NAMES = {
    "hub_token": True, "--hf-token": True, "password": True, "API_KEY": True, "eos_token": False, "tokens": False,
    "label_key": False, "seed": False, "key": True,
}  # fmt: skip


def check_secret_name(given: Mapping[str, Any], result: bool) -> None:
    name = text(given["name"])
    confirm(result is NAMES.get(name, result) and isinstance(result, bool), "name")
    confirm(name in NAMES or not result or any(word in name.lower() for word in ("tok", "key", "pass", "api")), "name")


ARGUMENTS = [["--ratio", "0.5"], ["--hub_token", "abc1"], ["--key=abc1"], ["--lr", "-1e-3"], ["TOKEN=abc1"]]


def argv_call(draw: np.random.Generator) -> dict[str, Any]:
    chosen = [part for i in draw.permutation(len(ARGUMENTS))[:3] for part in ARGUMENTS[i]]
    return {"argv": ["recipes/gpt2_noise.py", *chosen]}


def check_command(given: Mapping[str, Any], result: str) -> None:
    argv, parts = given["argv"], shlex.split(text(result))
    if argv is None:  # that of this process
        return
    confirm(isinstance(argv, list | tuple) and all(isinstance(part, str) for part in argv), "argv")
    confirm(parts[0] == "python" and len(parts) <= 1 + len(argv), "parts")
    if not set(argv) <= {"recipes/gpt2_noise.py", *(part for arguments in ARGUMENTS for part in arguments)}:
        return
    if argv.count("abc1") > (argv[argv.index("abc1") - 1] == "--hub_token" if "abc1" in argv else 0):
        return  # one of them is no value of a secret
    confirm("abc1" not in result, "a secret")
    kept = [part for part in argv if "abc1" not in part and part != "--hub_token"]
    found = [part for part in parts[1:] if "<removed>" not in part]
    confirm(found == kept, f"{found}, not {kept}")


# ---- Markdown


def markdown_call(draw: np.random.Generator) -> dict[str, Any]:
    return {"value": pick(draw, "plain text", "a|b `c` <script>", "x\ny", "```\ncode", 'quote "it"', "\u202e")}


def rendered(value: Any) -> tuple[str, str, str, str]:
    return markdown.text(value), markdown.code(value), markdown.fenced("python", value), markdown.quoted(value)


def check_markdown(given: Mapping[str, Any], result: tuple[str, str, str, str]) -> None:
    value, (shown, code, fence, quoted) = text(given["value"]), result
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())
    entities = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    confirm("".join(shown.split("\\")) == "".join(entities.split("\\")) and "\n" not in shown, "text")
    ticks = code[: len(code) - len(code.lstrip("`"))]
    inner = code[len(ticks) : -len(ticks)] if ticks else ""
    confirm(ticks and code.endswith(ticks) and inner.strip(" ") == line.strip(" ") and ticks not in inner, "code")
    first, *lines = fence.split("\n")
    fence_ticks = first.removesuffix("python")
    confirm(set(fence_ticks) == {"`"} and lines[-1] == fence_ticks, "fence")
    confirm("\n".join(lines[:-1]) == value and fence_ticks not in value, "fenced")
    confirm(eval(quoted, {}) == value and "\n" not in quoted, "quoted")  # noqa: S307  (a literal is what it shall be)


def check_paper(given: Mapping[str, Any], result: Mapping[Any, Any]) -> None:
    table = text(given["table_id"], *paper_table_ids())
    file = Path(markdown.__file__).parent / "paper_tables" / f"{table}.json"
    stored = json.loads(file.read_text())
    same(len(result), len(stored["rows"]))
    for row in stored["rows"]:
        told = {name: value[0] if isinstance(value, list) else value for name, value in row.items()}
        numbers = {name: value for name, value in told.items() if type(value) in (int, float) and name != stored["key"]}
        confirm(result[row[stored["key"]]] == numbers, "another row")


CLAIM = Claim("A.x.c1", "it rises", True, True, again=({"kind": "monotone_up", "columns": ["x"]},))


def judge_call(draw: np.random.Generator) -> dict[str, Any]:
    seeds = range(int(draw.integers(1, 4)))
    return {"claim": CLAIM, "rows": {key: {"x": {seed: float(draw.normal()) for seed in seeds}} for key in range(3)}}


def check_judge(given: Mapping[str, Any], result: Any) -> None:
    """All but the figures' digits again: each step by seed, and where Student's interval of its mean lies."""
    from scipy.stats import t

    same(given["claim"].id, CLAIM.id)
    first, cells = next(iter(given["rows"].values()), {}), [row["x"] for row in given["rows"].values() if row.get("x")]
    steps = [[b[seed] - a[seed] for seed in a if seed in b] for a, b in zip(cells, cells[1:])]
    confirm((result.claim, result.source, result.of, result.on_rows) == ("it rises", CLAIM.id, "seed", False), "words")
    is_told = first.get("x") and steps and all(steps)
    if not is_told or not np.isfinite([one for step in steps for one in step]).all():
        confirm((result.held, result.seeds, result.statistic) == (None, 0, "no figures"), "nothing")
        return
    held = []
    for step in steps:
        error = np.std(step, ddof=1) / len(step) ** 0.5 if len(step) > 2 else 0.0
        low, high = (np.mean(step) + sign * t.ppf(1 - 0.025 / of, max(1, len(step) - 1)) * error
                     for sign, of in ((-1, 1), (1, len(steps))))  # fmt: skip
        held.append(None if len(step) == 2 else True if low > 0 else False if high < 0 else None)
    if len(steps) < 2 < len(given["rows"]):
        held = [one and None for one in held]
    expected = False if False in held else None if None in held else True
    confirm(result.held is expected and result.seeds == min(map(len, steps)), "another verdict")
    lacks = tuple(str(key) for key, row in given["rows"].items() if not row.get("x"))
    statistic, _, without = result.statistic.partition("; without ")
    statistic = statistic.removesuffix(" (one step alone)")
    confirm(result.lacks == lacks and without == ", ".join(lacks), "lacks")
    told = re.findall(r"(-?[0-9.]+(?:e[-+][0-9]+)?)(?: \[[^]]*\])?(?:, |$)", statistic.removeprefix("x: "))
    confirm(statistic.startswith("x: ") and statistic.endswith(tuple("0123456789]")), "statistic")
    confirm(len(told) == len(steps), "as many figures")
    means = [np.mean(step) for step in steps]
    confirm(np.allclose([float(one) for one in told], means, rtol=5e-3, atol=2e-3), "figures")


def check_published(given: Mapping[str, Any], result: Any) -> None:
    """All that the file says, and what it leaves out."""
    table = text(given["table_id"], *paper_table_ids())
    stored = json.loads((Path(markdown.__file__).parent / "paper_tables" / f"{table}.json").read_text())
    usual = {"kind": "measured", "not_built": None, "facts": {}, "claims": [], "runs": []}
    of_claim = {"printed": [], "of_study": None, "settings": [], "high": None}
    of_runs = {"missing": {}, "stand_in": {}, "reads": {}, "folder": {}}
    expected = usual | stored
    expected["claims"] = [of_claim | {"again": one.get("printed", [])} | one for one in expected["claims"]]
    expected["runs"] = [of_runs | one for one in expected["runs"]]
    confirm(json.loads(json.dumps(dataclasses.asdict(result))) == expected, "another table")


WORDS = {
    "rows": ("rows",), "claim": ("claim",),
    "values": ("schema", "fields", "record", "RunRecord", "noise", "metrics", "seed"),
    "name": ("record", "seed", "path"),
    "content": ("record", "file", "line", "JSON", "schema"), "configs": ("config_name",), "argv": ("arguments",),
    "table_id": ("table",), "noise": ("protocol",),
}  # fmt: skip

TARGETS = [
    Target("reports.RunRecord", stored_run, run_fields, check_run, WORDS, weight=2),
    Target("reports.DataRecord", stored_data, data_fields, check_data, WORDS),
    Target("reports.RunRecord.from_dict", from_dict, lambda draw: {"values": RunRecord(**run_fields(draw)).to_dict()},
           check_from_dict, WORDS),
    Target("reports.read_records", read_file, file_call, check_file, WORDS, {"content": BROKEN}),
    Target("reports.secrets", without, secret_call, check_secrets),
    Target("reports.is_secret_name", secrets.is_secret_name, lambda draw: {"name": pick(draw, *NAMES)},
           check_secret_name),
    Target("reports.command_line", command_line, argv_call, check_command, WORDS),
    Target("reports.markdown", rendered, markdown_call, check_markdown),
    Target("reports.published", published, lambda draw: {"table_id": pick(draw, *paper_table_ids())},
           check_published, WORDS, weight=0.5),
    Target("reports.judge", judge, judge_call, check_judge, WORDS, weight=0.5),
    Target("reports.paper_table", paper_table, lambda draw: {"table_id": pick(draw, *paper_table_ids())},
           check_paper, WORDS, weight=0.5),
]  # fmt: skip
