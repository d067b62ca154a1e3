"""The papers' tables and figures as data: a JSON file each in `paper_tables`, with claims and the runs that show them.

A file holds

- `id`, `paper`, `title`; `kind`: "measured", or "settings" and "facts" of which there is nothing to run,
- `key`, the name of the column that tells rows apart, and `rows`: figures as printed, `[mean, spread]` where the paper
  has both, null for what it leaves out, and words that describe a row (`"source": "derived"`: computed from the paper's
  figures, not printed there),
- `columns`: unit of each figure, and whether "lower" or "higher" is better,
- `claims`, see `Claim`; `runs`, see `Runs`; `not_built`, why there are no runs; `facts`, what else is printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["SCALES", "Claim", "PaperTable", "Runs", "paper_table", "paper_table_ids", "published"]

_FOLDER = files("hf_noise.reports") / "paper_tables"
#: From minutes on a laptop, over minutes on one GPU, to the size that the papers had.
SCALES = ("demo", "gpu", "paper")


@dataclass(frozen=True)
class Claim:
    """What a paper says of a table, and how it is judged.

    Thresholds stand in the table's file, and are taken from what the paper says and prints, and from no run. Those of
    up to 2026-11-27 were written down, and some were changed, when most of the runs that they judge had been made.

    Attributes:
        id: that of its table, and a number.
        says: the claim; where new runs are asked for less than was printed, for what, too.
        holds: whether it is true of the printed figures.
        replica: whether a run that is smaller than the paper's should show it, too.
        printed: tests that the printed figures decide it by, see `hf_noise.reports.claims.judge`; none: by reading.
        again: tests that decide it of new runs.
        of_study: the study's own verdicts decide it of new runs: those with this source.
        settings: whose verdicts these are, each the words that they begin with; those of others do not count, and the
            claim lacks those that are missing.
        high: what the study's statistic may be at most, where its verdicts ask for a size.
    """

    id: str
    says: str
    holds: bool
    replica: bool
    printed: tuple[Mapping[str, Any], ...] = ()
    again: tuple[Mapping[str, Any], ...] = ()
    of_study: str | None = None
    settings: tuple[str, ...] = ()
    high: float | None = None

    @property
    def by_reading(self) -> bool:
        """Whether no program judges it of new runs."""
        return not self.again and self.of_study is None


@dataclass(frozen=True)
class Runs:
    """Runs of a study that give figures of a table.

    Attributes:
        study: name of its package in `hf_noise.studies`.
        flags: of its command, by scale; a scale that is missing is in `missing`.
        missing: why a scale has no such runs.
        stand_in: by scale, what is measured in place of the paper's data or models.
        reads: how rows are read of the records, see `hf_noise.studies.reproduce.rows`.
        folder: by scale, part of the name of their output; runs of one study that share it are made once.
    """

    study: str
    flags: Mapping[str, str]
    missing: Mapping[str, str] = field(default_factory=dict)
    stand_in: Mapping[str, str] = field(default_factory=dict)
    reads: Mapping[str, Any] = field(default_factory=dict)
    folder: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A published table or figure, see the module's docstring; it is read once, and not to be changed."""

    id: str
    paper: str
    title: str
    key: str
    rows: tuple[Mapping[str, Any], ...]
    columns: Mapping[str, Mapping[str, str]]
    claims: tuple[Claim, ...] = ()
    runs: tuple[Runs, ...] = ()
    kind: str = "measured"
    not_built: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> list[Any]:
        """What tells the rows apart, in their order."""
        return [row[self.key] for row in self.rows]

    @property
    def printed(self) -> dict[Any, dict[str, dict[int, float]]]:
        """Rows as `hf_noise.reports.claims.judge` takes them, as if of one seed."""
        rows = paper_table(self.id)
        return {key: {name: {0: value} for name, value in row.items() if name in self.columns}
                for key, row in rows.items()}  # fmt: skip


def paper_table_ids() -> list[str]:
    """Ids such as "A.table8", sorted."""
    return sorted(entry.name.removesuffix(".json") for entry in _FOLDER.iterdir() if entry.name.endswith(".json"))


def paper_table(table_id: str) -> dict[Any, dict[str, float]]:
    """Figures of a published table by the value of its key column (the noise ratio r, for instance).

    Of a mean with its spread it is the mean; what a paper leaves out, and words, are left out.

    Raises:
        ValueError: there is no such table.
    """
    _check(table_id)
    table = _stored(table_id)
    found = {}
    for row in table["rows"]:
        figures = {name: mean_of(value) for name, value in row.items() if name != table["key"]}
        found[row[table["key"]]] = {name: value for name, value in figures.items() if value is not None}
    return found


def mean_of(value: Any) -> float | None:
    """The figure of a cell; None where there is none."""
    if isinstance(value, list):
        value = value[0] if value else None
    return None if isinstance(value, str | bool | dict | list) else value


def published(table_id: str) -> PaperTable:
    """A published table with its claims and the runs that show them.

    Raises:
        ValueError: there is no such table.
    """
    _check(table_id)
    return _read(table_id)


@cache
def _read(table_id: str) -> PaperTable:
    told = _stored(table_id)
    claims = [_claim(one) for one in told.pop("claims", ())]
    runs = [Runs(**one) for one in told.pop("runs", ())]
    rows = tuple(told.pop("rows"))
    return PaperTable(**told, rows=rows, claims=tuple(claims), runs=tuple(runs))


def _claim(told: Mapping[str, Any]) -> Claim:
    printed, settings = (tuple(told.get(name, ())) for name in ("printed", "settings"))
    return Claim(**{**told, "printed": printed, "again": tuple(told.get("again", printed)), "settings": settings})


def _check(table_id: Any) -> None:
    if not isinstance(table_id, str) or table_id not in paper_table_ids():
        raise ValueError(f"unknown table {table_id!r}; there are: {', '.join(paper_table_ids())}")


def _stored(table_id: str) -> dict[str, Any]:
    return json.loads((_FOLDER / f"{table_id}.json").read_text(encoding="utf-8"))
