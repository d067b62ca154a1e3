"""What a table is made of: cells, each one run of a study that can be made, killed and made again for itself."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from hf_noise.reports.record import RunRecord
from hf_noise.reports.verdicts import Verdict
from hf_noise.studies.reproduce.same import differing
from hf_noise.studies.settings import SettingError
from hf_noise.studies.study import Study, identity

__all__ = ["Cell", "Family", "Part", "Reader", "Trained", "UnknownFlags", "decided", "family", "parsed"]

#: Figures by row, column and seed, from records and what a table says of reading them.
Reader = Callable[[Sequence[RunRecord], Mapping[str, Any]], Mapping[Any, Mapping[str, Mapping[int, float]]]]
#: In a folder of a run, what it was made with.
_CLAIM = "run.json"
_RECORD = "record.json"
#: How parsers, ours and that of Python, tell of flags that they do not have.
_UNKNOWN = re.compile(r"(?:no flag takes|unrecognized arguments:) ([^;]*)")


class UnknownFlags(SettingError):
    """A study does not have some of its flags, which `flags` are."""

    def __init__(self, message: str, flags: Sequence[str]):
        super().__init__(message)
        self.flags = flags


@dataclass(frozen=True)
class Part:
    """One file that a cell leaves.

    Attributes:
        file: of its record, or of values.
        name, task: of its record.
        claim: what the folder of the run is claimed with, as far as it is known before the run is made.
        settings: of the command, that its result depends on.
        model: that it is made on, where another cell makes that.
    """

    file: Path
    name: str
    task: str
    claim: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Part | None = None

    @property
    def is_done(self) -> bool:
        """Whether the file is there and can be read, of a run with these settings on a model with its own."""
        is_here = self.file.is_file() and not self.differs and self.problem is None
        return is_here and (self.model is None or self.model.is_done)

    @property
    def problem(self) -> str | None:
        """What is wrong with the file that is there; None if nothing is."""
        try:
            self.record()
        except ValueError as error:
            return str(error)
        return None

    @property
    def is_cut_off(self) -> bool:
        """Whether the file that is there was not written to its end: it is empty, or no JSON."""
        if not self.file.is_file():
            return False
        try:
            json.loads(self.file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return True
        return False

    @property
    def differs(self) -> list[str]:
        """Settings in which the folder's run is another one."""
        file = self.file.parent / _CLAIM
        try:
            theirs = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # it is not there, or was not written to its end
            return self._differs_in_record
        if not isinstance(theirs, dict):
            return [_CLAIM]
        ours = json.loads(json.dumps(dict(self.claim)))
        return sorted(name for name in ours if theirs.get(name) != ours[name])

    @property
    def _differs_in_record(self) -> list[str]:
        try:
            record = self.record() if self.file.is_file() else None
        except ValueError:
            return []
        return [] if record is None else differing(self, record.settings)

    def record(self) -> RunRecord | None:
        """What was measured; None of a file of values. Raises ValueError: it cannot be read; the file is named."""
        try:
            text = self.file.read_text(encoding="utf-8")
            if self.file.name == _RECORD or f'"{RunRecord.schema}"' in text:
                return RunRecord.from_json(text)
            json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.file} cannot be read ({error}); delete it, and the cell is made again") from None
        return None


@dataclass(frozen=True)
class Cell:
    """One run, or runs that are made together.

    Attributes:
        study: name of its package.
        argv: flags of the study's command, output and seeds included.
        name: among the cells of these flags.
        folder: output of the study, which one process at a time works in.
        parts: what it leaves.
    """

    study: str
    argv: tuple[str, ...]
    name: str
    folder: Path
    parts: tuple[Part, ...] = field(compare=False)

    @property
    def is_done(self) -> bool:
        return all(part.is_done for part in self.parts)

    @property
    def title(self) -> str:
        return f"{self.folder.name}/{self.name}"


def decided(settings: Any, ignores: Iterable[str] = ()) -> dict[str, Any]:
    """The settings that a result depends on, those of later versions too, which records of before do not have."""
    names = [one.name for one in fields(settings) if one.metadata["in_result"] and one.name not in {*ignores}]
    return {name: getattr(settings, name) for name in names}


class Family:
    """How one study is taken apart into cells; subclasses say how each is made and read."""

    #: Settings that hold seeds, of what a table repeats and of what it averages.
    seeds: tuple[str, ...] = ("seed",)
    #: Ways to read rows, by the name that tables give them; see `hf_noise.studies.reproduce.rows`.
    readers: Mapping[str, Reader] = {}
    #: Those of them whose figures are means of what several records say, of which one may be alike by chance.
    averaging: Collection[str] = ()

    def commands(self, flags: Sequence[str], output: Path, seeds: int | None) -> list[list[str]]:
        """Flags of the commands that make the cells: one, with so many seeds where that is asked for."""
        if seeds is None:
            return [[*flags, "--output", str(output)]]
        return [[*_without(flags, "--seed"), "--output", str(output), "--seed", *map(str, range(seeds))]]

    def settings(self, argv: Sequence[str]) -> Any:
        """Raises SettingError: they make no sense, or data have to be named."""
        raise NotImplementedError

    def cells(self, settings: Any) -> Iterable[tuple[str, list[Part]]]:
        """Names of cells and what they leave, in the order in which they are made."""
        raise NotImplementedError

    def make(self, settings: Any, name: str) -> None:
        """Make the cell of this name: in a process of its own, see `hf_noise.studies.reproduce.worker`."""
        raise NotImplementedError

    def verdicts(self, records: Sequence[RunRecord]) -> list[Verdict]:
        """What the study itself says of the paper's claims."""
        return []

    def uncounted(self, records: Sequence[RunRecord]) -> list[str]:
        """Which of the records its readers leave out, in words that begin with "left out"; most leave out none."""
        return []


def _without(flags: Sequence[str], name: str) -> list[str]:
    """Flags without one of them and its values."""
    if name not in flags:
        return [*flags]
    at = flags.index(name)
    after = next((i for i in range(at + 1, len(flags)) if flags[i].startswith("--")), len(flags))
    return [*flags[:at], *flags[after:]]


class Trained(Family):
    """A study that the engine runs: a cell is a run."""

    def __init__(self, module: str, readers: Mapping[str, Reader] | None = None,
                 verdicts: Callable[[Sequence[RunRecord]], list[Verdict]] | None = None):  # fmt: skip
        self.module, self.readers, self._verdicts = module, readers or {}, verdicts
        self._loaded: tuple[Any, Any] | None = None

    @property
    def study(self) -> Study:
        return import_module(self.module).STUDY

    def settings(self, argv: Sequence[str]) -> Any:
        return parsed(self.study.parse, argv)

    def cells(self, settings: Any) -> Iterable[tuple[str, list[Part]]]:
        for run in self.study.runs(settings):
            folder, kept = Path(settings.output) / run.name, decided(settings, getattr(run, "ignores", ()))
            yield run.name, [Part(folder / "record.json", run.name, self.study.task, identity(settings, run), kept)]

    def make(self, settings: Any, name: str) -> None:
        from hf_noise.studies.engine import train, world_of

        runs, plans, _ = self.study.planned(settings)
        if self._loaded is None or self._loaded[0] != settings:  # read once for all cells of a command
            self._loaded = None
            self._loaded = settings, self.study.work.load(settings, world_of(settings), runs)
        at = [run.name for run in runs].index(name)
        train(self.study, settings, [runs[at]], [plans[at]], self._loaded[1])

    def verdicts(self, records: Sequence[RunRecord]) -> list[Verdict]:
        return self._verdicts(records) if self._verdicts and records else []


def parsed(parse: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> Any:
    """Settings from flags. Raises SettingError with a parser's own words, UnknownFlags of flags that it has not."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(list(argv))
    except SystemExit as end:
        lines = said.getvalue().strip().splitlines()
        message = lines[-1].partition("error: ")[2] if lines else f"status {end.code}"
        if unknown := _UNKNOWN.match(message):
            words = unknown[1].split()
            raise UnknownFlags(message, [word for word in words if word.startswith("-")] or words) from None
        raise SettingError(message) from None


def family(study: str) -> Family:
    """The family of a study, from the module of its name in `families`, or from one of your own by its dotted name."""
    return import_module(study if "." in study else f"hf_noise.studies.reproduce.families.{study}").FAMILY
