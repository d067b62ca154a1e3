"""Every table of the papers from one command: runs the cells that are missing, then shows paper beside measured.

Each table is made of cells, runs of this package's studies. A cell that was made before is not made again, and one that
fails or is killed stops no other: the same command goes on where it was. What stands after `--` is told to the studies,
such as `-- --source corpus.parquet`. Runs for several GPUs are started by the commands that `--dry_run` shows, with
`accelerate launch -m` for `python -m`; this command then finds what they made.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from hf_noise.atomic import write_atomic
from hf_noise.reports.paper import SCALES, PaperTable, paper_table_ids, published
from hf_noise.studies.door import program
from hf_noise.studies.reproduce.flags import refuse_own, tell_unknown

if TYPE_CHECKING:
    from hf_noise.studies.reproduce.plan import Asked, Planned

__all__ = ["main"]

ALL = "all"
#: Flags of studies that this command gives them itself, and what to do instead.
_OWN = {
    "--scale": "give --scale before --, of the tables",
    "--output": "give --output before --, a folder of all runs",
    "--seed": "give --seeds N before --, for seeds 0 to N - 1; --only '*-seed2' picks one of them",
    "--dry_run": "give --dry_run before --",
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Ends with status 1 if a cell failed."""
    argv = [*(sys.argv[1:] if argv is None else argv)]
    at = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    told, more = parser.parse_args(argv[:at]), argv[at + 1 :]
    refuse_own(parser, more, _OWN)
    names = _names(parser, told)
    if (launched := int(os.environ.get("WORLD_SIZE", 1))) > 1:
        parser.error(f"{launched} processes of this command were launched, and it starts those that it needs itself: "
                     "start it with python, and see --jobs")  # fmt: skip
    from hf_noise.studies.reproduce.plan import Asked, planned
    from hf_noise.studies.reproduce.records import Kept, usual_folder

    folder = usual_folder() if told.records is None else Path(told.records)
    if told.records is not None and not folder.is_dir():
        parser.error(f"--records {told.records}: there is no such folder")
    if told.reuse and folder is None:
        parser.error("--reuse: no benchmarks/results of a repository here; name a folder with --records")
    output = Path(told.output)
    if (file := next((one for one in (output, *output.parents) if one.is_file()), None)) is not None:
        parser.error(f"--output {told.output}: {file} is a file, and runs need a folder; name another")
    asked = Asked(
        scale=told.scale, output=output, seeds=told.seeds, only=tuple(told.only), more=tuple(more),
        kept=Kept.read(folder, is_strict=True), reuses=told.reuse,
    )  # fmt: skip
    plans = [planned(name, asked) for name in names]
    tell_unknown(parser, plans, asked.scale, asked.more, "nothing is run")
    if told.list:
        from hf_noise.studies.reproduce.listing import listing

        print(listing(plans, asked))
        return
    refused = [reason for plan in plans for reason in plan.refused]
    if refused and not any(plan.cells for plan in plans):
        parser.error(f"nothing to run: {'; '.join(dict.fromkeys(refused))}")
    if told.only and not any(plan.every for plan in plans):
        parser.error(f"--only {' '.join(told.only)}: no cell of these tables has such a name; --dry_run lists them")
    if told.dry_run:
        print("\n".join(_commands(plans, asked)))
        return
    _make_and_show(names, asked, told.jobs)


def _commands(plans: Sequence[Planned], asked: Asked) -> Iterator[str]:
    """Each command with the cells that it makes; what it makes is found here, too, whoever starts it."""
    from hf_noise.studies.reproduce.board import counted
    from hf_noise.studies.reproduce.cells import family
    from hf_noise.studies.reproduce.plan import is_there, lanes

    commands: dict[tuple[str, ...], list[str]] = {}
    for cell in (cell for lane in lanes(plans) for cell in lane):
        state = "there" if is_there(cell, asked) else "to run"
        commands.setdefault((f"hf_noise.studies.{cell.study}", *cell.argv), []).append(f"  {cell.name} ({state})")
    for command, cells in commands.items():
        of_study = family(command[0].rpartition(".")[2])
        others = len([*of_study.cells(of_study.settings(command[1:]))]) - len(cells)
        more = [f"  and {counted(others)} that --only leaves out"] * (bool(asked.only) and others > 0)
        yield "\n".join([f"python -m {shlex.join(command)}", *cells, *more])
    for plan in plans:
        if plan.missing:
            yield f"{plan.table.id}: {'; '.join(plan.missing)}"


def _make_and_show(names: Sequence[str], asked: Asked, jobs: int | None) -> None:
    from hf_noise.studies.reproduce.board import counted
    from hf_noise.studies.reproduce.plan import lanes, planned
    from hf_noise.studies.reproduce.report import absent, outcomes, shown, summary, values_of
    from hf_noise.studies.reproduce.runner import run, usual_jobs

    failures = run(lanes([planned(name, asked) for name in names]), asked, jobs or usual_jobs())
    every = replace(asked, only=())  # which says what runs, not what is read
    found, failed = outcomes(names, every), {one.cell: one.message for one in failures}
    plans = [planned(name, every) for name in names]
    lacks = [absent(plan, every, failed) for plan in plans]
    told = [shown(one, plan, lack) for one, plan, lack in zip(found, plans, lacks)]
    text = "\n\n".join([*told, summary(found)])
    folder = asked.output / asked.scale
    file = write_atomic(folder / "tables.md", f"{text}\n")
    values = write_atomic(folder / "tables.json", json.dumps(values_of(found, lacks), indent=1, allow_nan=False) + "\n")
    print(f"{text}\n\nwritten: {file}, values: {values}")
    if failures:
        lines = [f"  {one.cell.title}: {one.message} ({one.log})" for one in failures]
        head = f"{counted(len(failures))} failed; the same command tries again:"
        print("\n".join([head, *lines]), file=sys.stderr)
        sys.exit(1)


def _names(parser: argparse.ArgumentParser, told: argparse.Namespace) -> list[str]:
    """The tables that are asked for; where a table has no runs and its claims look at others, those come before it."""
    known = paper_table_ids()
    asked = told.ids or ([ALL] if told.list else [])
    if not asked:
        parser.error("which tables? Give ids, such as A.table8, or all; --list shows them")
    found: list[str] = []
    for one in asked:
        names = known if one == ALL else [name for name in known if fnmatch(name.lower(), one.lower())]
        if not names:
            near = difflib.get_close_matches(one, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ";"
            parser.error(f"there is no table {one}{hint} --list shows them all")
        found += names
    if not told.list:
        tables = [published(name) for name in found]
        found = [name for table in tables
                 for name in [*_needed(table), table.id]]  # fmt: skip
    return list(dict.fromkeys(found))


def _needed(table: PaperTable) -> list[str]:
    """The tables that decide the claims of one that has no runs of its own."""
    from hf_noise.studies.reproduce.rows import others_of_table

    return [] if table.runs or table.not_built else others_of_table(table)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"takes a number of at least 1, got {text!r:.80}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    usage = "%(prog)s [--FLAG VALUE ...] ID ... [-- FLAGS OF THE STUDIES]"
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(program(), usage, __doc__, allow_abbrev=False, formatter_class=raw)
    parser.add_argument("ids", nargs="*", metavar="ID", help="tables, such as A.table8 or 'B.*', or all")
    runs = parser.add_argument_group("what is run")
    runs.add_argument("--scale", choices=SCALES, default="demo", help="how large the runs are (default: demo)")
    runs.add_argument("--seeds", type=_count, metavar="N",
                      help="of each run, 0 to N - 1 (default: one, three where a run takes seconds)")  # fmt: skip
    runs.add_argument("--only", nargs="+", default=[], metavar="CELL", help="cells of these names, with * and ?")
    runs.add_argument("--jobs", type=_count, metavar="J",
                      help="processes side by side (default: one for each GPU, or core up to 4)")  # fmt: skip
    runs.add_argument("--output", default="runs/reproduce", metavar="OUTPUT",
                      help="folder of all runs, and of the last call's tables (default: runs/reproduce)")  # fmt: skip
    before = parser.add_argument_group("what was run before")
    before.add_argument("--reuse", action="store_true",
                        help="cells that have a record of the same data in --records are not run")  # fmt: skip
    before.add_argument("--records", metavar="DIR",
                        help="folder of records (default: benchmarks/results of the repository)")  # fmt: skip
    looks = parser.add_argument_group("looks")
    looks.add_argument("--list", action="store_true", help="ids with status and cost, then stop")
    looks.add_argument("--dry_run", action="store_true", help="the command of each cell, then stop")
    looks.add_argument("--debug", action="store_true", help="show where in the code an error was raised")
    return parser
