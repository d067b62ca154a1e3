"""Records: the one place from which cards, tables, plots and the README take their figures.

A record is one JSON object. It is checked when it is made and again when it is read, so a file that exists is
complete, finite and free of tokens and local folders.
"""

from __future__ import annotations

import contextvars
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hf_noise.atomic import write_atomic

from .provenance import command_line, git_commit, hardware, now, versions
from .secrets import is_secret_name, is_secret_pair, portable, without_secret_arguments

__all__ = [
    "DataRecord",
    "RunRecord",
    "append_record",
    "command_line",
    "git_commit",
    "hardware",
    "is_number",
    "now",
    "read_records",
    "versions",
    "write_atomic",
]

R = TypeVar("R", bound="Record")

# What is read was made elsewhere, where other files lay.
_is_read: contextvars.ContextVar[bool] = contextvars.ContextVar("is_read", default=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What both records share: plain values, a schema name, JSON in and out."""

    schema: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            # Plain Python values only, so that reading back gives an equal record.
            value = _plain(getattr(self, field.name), field.name)
            _check_kind(field.name, value, str(field.type))
            object.__setattr__(self, field.name, value)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values, `schema` first."""
        return {"schema": self.schema} | dataclasses.asdict(self)

    def to_json(self, indent: int | None = 2) -> str:
        """One JSON object; `indent=None` gives the single line of a `.jsonl` file."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls: type[R], values: Mapping[str, Any]) -> R:
        """Raises ValueError for another schema, and for fields that are missing or unknown."""
        if not isinstance(values, Mapping):
            raise ValueError(f"values of a record must be one dictionary, see to_dict(), got {values!r:.80}")
        values = dict(values)
        schema = values.pop("schema", None)
        if schema != cls.schema:
            raise ValueError(
                f"schema is {schema!r}, this version of hf_noise reads {cls.schema!r} as {cls.__name__}; "
                "read the record with the version of hf_noise that wrote it, or run again"
            )
        fields = {field.name: field for field in dataclasses.fields(cls)}
        # A stored record states everything: a default would invent today's versions for yesterday's run.
        missing, unknown = sorted(fields.keys() - values.keys()), sorted(values.keys() - fields.keys())
        if missing or unknown:
            raise ValueError(
                f"{cls.__name__} {cls.schema}: missing fields {missing}, unknown fields {unknown}"
            )
        reading = _is_read.set(True)
        try:
            return cls(**values)
        finally:
            _is_read.reset(reading)

    @classmethod
    def from_json(cls: type[R], text: str) -> R:
        """Raises ValueError for text that is no JSON object, for NaN and infinity, and like `from_dict`."""
        if not isinstance(text, str):
            raise ValueError(f"the text of a record must be a string of JSON, got {text!r:.80}")
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:  # JSONDecodeError, and that of numbers with thousands of digits
            raise ValueError(
                f"not a complete JSON object ({error}); the file is half-written or not a record"
            ) from None
        except RecursionError:
            raise ValueError("nested too deeply; the file is not a record") from None
        if not isinstance(values, dict):
            raise ValueError(f"a record is one JSON object, got {type(values).__name__}")
        return cls.from_dict(values)

    def write(self, path: str | os.PathLike) -> Path:
        """Write pretty JSON. The file appears complete or not at all; parent folders are made."""
        return write_atomic(path, self.to_json() + "\n")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """A training run and what it measured.

    `noise` is `noise.to_dict()` plus `realised` = {"rate", "n"}. `metrics` maps a name to {"value", "n",
    ...}: the figure, the number of units (tokens, images) it was averaged over, and extras such as "low",
    "high", "unit". `wall_seconds` is in seconds, `created` in UTC (ISO 8601). Fields with a default describe
    this process.

    Raises ValueError: a number that is not finite, a metric without value or n, a noise without protocol.
    """

    schema: ClassVar[str] = "hf_noise.run/1"

    name: str
    task: str = "causal_lm"
    recipe: str
    model: dict[str, Any]
    data: dict[str, Any]
    noise: dict[str, Any]
    budget: dict[str, Any]
    loss: dict[str, Any]
    settings: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    seed: int
    wall_seconds: float
    command: str = dataclasses.field(default_factory=command_line)
    versions: dict[str, str] = dataclasses.field(default_factory=versions)
    hardware: dict[str, Any] = dataclasses.field(default_factory=hardware)
    created: str = dataclasses.field(default_factory=now)
    git: str | None = dataclasses.field(default_factory=git_commit)
    status: str = "finished"

    def __post_init__(self) -> None:
        super().__post_init__()
        if "source" in self.data:
            object.__setattr__(self, "data", self.data | {"source": _told_apart(self.data["source"])})
        _check_noise(self.noise, "noise")
        for name, metric in self.metrics.items():
            value, n = (metric.get("value"), metric.get("n")) if isinstance(metric, dict) else (None, None)
            if not is_number(value) or not is_number(n) or not isinstance(n, int) or n < 1:
                raise ValueError(
                    f"metrics[{name!r}] must be {{'value': number, 'n': units >= 1, ...}}, got {metric!r}; "
                    "leave a metric out that was not measured"
                )
        if not is_number(self.wall_seconds) or self.wall_seconds < 0:
            raise ValueError(f"wall_seconds must be >= 0, got {self.wall_seconds!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRecord(Record):
    """A published noisy data set: one entry of `configs` per noise setting.

    An entry is {"config_name", "noise": noise.to_dict() + "realised", "splits": {split: {"rows", "units",
    "noisy"}}}; `noisy` tells whether the split carries the noise. It may also hold "arguments", all that `builder`
    is called with to build the same rows again, None if some of it is a file of the user's machine; "epoch", whose
    noise was drawn, if not 0; and "redrawn", the epoch whose noise of the clean column is the noisy one (this was
    checked), None if it is not.

    `unit` names what is corrupted ("tokens", "labels") and `columns` says what each column holds. `license` and
    `language` are Hub ids or None; `has_tokenizer` tells of a folder `tokenizer/` beside the data. `name` is
    "owner/name", or a folder relative to the working directory, which begins with "./".

    Raises ValueError: a number that is not finite, no or repeated config names, a noise without protocol.
    """

    schema: ClassVar[str] = "hf_noise.data/1"

    name: str
    builder: str
    source: str
    unit: str = "tokens"
    data: dict[str, Any]
    columns: dict[str, str]
    configs: list[dict[str, Any]]
    license: str | None = None
    language: str | None = None
    has_tokenizer: bool = False
    command: str = dataclasses.field(default_factory=command_line)
    versions: dict[str, str] = dataclasses.field(default_factory=versions)
    created: str = dataclasses.field(default_factory=now)
    git: str | None = dataclasses.field(default_factory=git_commit)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "source", _told_apart(self.source))
        if not all(isinstance(config, dict) for config in self.configs):
            raise ValueError(f"configs must be dictionaries, got {self.configs!r:.80}")
        names = [config.get("config_name") for config in self.configs]
        if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise ValueError(f"configs need one distinct config_name each, a text, got {names}")
        for config in self.configs:
            _check_noise(config.get("noise"), f"configs[{config['config_name']!r}].noise")


def append_record(path: str | os.PathLike, record: Record) -> Path:
    """Add one line to a `.jsonl` file. Several processes may append: each line goes out in one write.

    Raises OSError when the line could not be written whole (a full disk); the file is then as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (record.to_json(indent=None) + "\n").encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        if before and os.pread(descriptor, 1, before - 1) != b"\n":  # a line that was cut off, or edited by hand
            line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, before)
            raise OSError(f"{path}: the record could not be written whole; is the disk full?")
    finally:
        os.close(descriptor)
    return path


def read_records(path: str | os.PathLike) -> list[Record]:
    """Records of a `.json` or `.jsonl` file, or of every `record.json` and `records.jsonl` below a folder.

    Sorted by path; a record that stands in both a run's own file and a common `.jsonl` is returned once.
    Raises FileNotFoundError, and ValueError that names file and line of a record that cannot be read.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"path must be that of a record file or of a folder of runs, got {path!r:.80}")
    if not os.fspath(path):
        raise ValueError("path of the records is an empty text; the working directory is '.'")
    path = Path(path)
    if os.path.isdir(path):
        files = sorted([*path.rglob("record.json"), *path.rglob("records.jsonl")])
    elif os.path.isfile(path):  # False, too, for names that no path can have
        files = [path]
    else:
        raise FileNotFoundError(f"{str(path)!r:.200} is neither a record file nor a folder of runs")
    found = {record.to_json(): record for file in files for record in _read_file(file)}
    return list(found.values())


def _read_file(file: Path) -> Iterator[Record]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8, as a record is: {error}") from error
    is_lines = file.suffix == ".jsonl"
    for number, part in enumerate(text.split("\n") if is_lines else [text], start=1):
        if not part.strip():
            continue
        is_data = f'"{DataRecord.schema}"' in part
        try:
            yield (DataRecord if is_data else RunRecord).from_json(part)
        except ValueError as error:
            raise ValueError(f"{file}{f' line {number}' if is_lines else ''}: {error}") from error


def _plain(value: Any, where: str) -> Any:
    """Value as JSON would give it back; refuses what JSON cannot hold and drops credentials."""
    if hasattr(value, "mask"):  # of NumPy, which item() would read without
        raise ValueError(f"{where} is masked, {value!r:.80}; leave the figure out, or use None")
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # scalars of NumPy and torch
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        _check_utf8(value, where)
        return portable(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(
                f"{where} is {value}; a record holds finite numbers only: leave the figure out, or use None"
            )
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(
                f"{where} has keys that are not strings: {[key for key in value if not isinstance(key, str)]}"
            )
        for key in value:
            _check_utf8(key, where)
        kept = {key: item for key, item in value.items() if not is_secret_name(key)}
        if is_secret_pair(kept):
            del kept["value"]
        return {str(key): _plain(item, f"{where}.{key}") for key, item in kept.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(without_secret_arguments(value))]
    raise ValueError(
        f"{where} is a {type(value).__name__}, which JSON cannot hold; convert it to plain Python values"
    )


def _told_apart(source: Any) -> Any:
    """A local file or folder `a/b` as `./a/b`, because `a/b` means a data set on the Hub."""
    is_id = isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "~", "/"))
    return f"./{source}" if is_id and not _is_read.get() and os.path.exists(source) else source


def _check_noise(noise: Any, where: str) -> None:
    if not isinstance(noise, dict) or not isinstance(noise.get("protocol"), str):
        raise ValueError(f"{where} must be noise.to_dict() with a 'protocol', got {noise!r}")


def is_number(value: Any) -> bool:
    """Whether this is a number that a float holds, and no bool."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


_KINDS = {
    "str": (str, "a text"), "str | None": (str | None, "a text or None"), "bool": (bool, "True or False"),
    "int": (int, "an integer"), "float": (int | float, "a number"), "dict": (dict, "a dict"), "list": (list, "a list"),
}  # fmt: skip


def _check_kind(name: str, value: Any, kind: str) -> None:
    """Raise ValueError unless a plain value is of the type that its field is annotated with."""
    of, said = _KINDS[kind.partition("[")[0]]
    if not isinstance(value, of) or isinstance(value, bool) and of is not bool:
        raise ValueError(f"{name} must be {said}, got {value!r:.80}")
    if kind == "dict[str, str]" and not all(isinstance(item, str) for item in value.values()):
        raise ValueError(f"{name} must be a dict of texts, got {value!r:.80}")


def _check_utf8(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} holds {text!r:.80}, which is no text that a file can hold: {error}") from error


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON; a record holds finite numbers only")
