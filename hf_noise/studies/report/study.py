"""A report of all records: one HTML page and one Markdown file, and the tables that README and docs show.

First the picture that compares: how much worse language models, encoder-decoders, classifiers and diffusion models get
with wrong training data, and with their cures. Then every table of the papers beside what was measured, the claims that
held and those that did not, pictures of the studies, settings and versions. Each figure names its record. Tables are of
every seed that there are records of; what stands after `--` is what the runs were told, as when they were made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_noise.reports.paper import SCALES, paper_table_ids
from hf_noise.studies.door import program
from hf_noise.studies.reproduce.flags import refuse_own, tell_unknown

__all__ = ["main"]

#: Flags of studies that say nothing of how runs were told apart here, and what to do instead.
_OWN = {
    "--scale": "give --scale before --, of the runs",
    "--output": "give --records before --, the folder of the runs, or --output, that of the report",
    "--seed": "leave it out; tables are of every seed that there are records of",
    "--dry_run": "leave it out; a report makes no runs",
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command. With `--readme --check` it ends with status 1 where something is not up to date."""
    argv = [*(sys.argv[1:] if argv is None else argv)]
    at = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    told, more = parser.parse_args(argv[:at]), argv[at + 1 :]
    from hf_noise.studies.report.marks import update
    from hf_noise.studies.reproduce.records import usual_folder

    usual = usual_folder()
    if told.check and told.readme is None:
        parser.error("--check looks at what --readme would write; give both")
    if more and told.readme is not None:
        parser.error(f"-- {' '.join(more)}: the tables of --readme are of the demos as they are; give one of both")
    if told.readme is not None:
        root = Path(told.readme) if told.readme else usual and usual.parents[1]
        if root is None or not (root / "README.md").is_file():
            where = told.readme or "without a folder"
            parser.error(f"--readme {where}: there is no README.md of a repository here; name one of hf_noise")
        old = update(root, writes=not told.check)
        print("\n".join([f"{'old' if told.check else 'written'}: {file}" for file in old]) or "all is up to date")
        if told.check and old:
            sys.exit(1)
        return
    folder = usual if told.records is None else Path(told.records)
    if folder is None:
        parser.error("no benchmarks/results of a repository here; name a folder with records of runs by --records")
    if not folder.is_dir():
        parser.error(f"--records {told.records}: there is no such folder; name one with records of runs")
    if more:
        _check_flags(parser, more, told.scale, folder)
    from hf_noise.studies.report.page import write_report

    for file in write_report(folder, Path(told.output), told.scale, more):
        print(f"written: {file}")


def _check_flags(parser: argparse.ArgumentParser, more: Sequence[str], scale: str, folder: Path) -> None:
    from hf_noise.studies.reproduce.plan import Asked, planned

    refuse_own(parser, more, _OWN)
    plans = [planned(name, Asked(scale, folder, more=tuple(more))) for name in paper_table_ids()]
    tell_unknown(parser, plans, scale, more, "no runs are read")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    usage = "%(prog)s [--FLAG VALUE ...] [-- FLAGS OF THE STUDIES]"
    parser = argparse.ArgumentParser(program(), usage, __doc__, allow_abbrev=False, formatter_class=raw)
    parser.add_argument("--records", metavar="DIR",
                        help="folder of records, as runs/reproduce (default: benchmarks/results of the repository)")
    parser.add_argument("--scale", choices=SCALES, default="demo",
                        help="of the runs that tables are read of (default: demo)")  # fmt: skip
    parser.add_argument("--output", default="runs/report", metavar="OUTPUT",
                        help="folder of report.html, report.md and overview.png (default: runs/report)")  # fmt: skip
    parser.add_argument("--readme", nargs="?", const="", metavar="DIR",
                        help="only put the tables between the marks of a repository's README.md and docs, render its "
                             "hub_cards and draw the first picture (default: this repository)")  # fmt: skip
    parser.add_argument("--check", action="store_true", help="with --readme: write nothing, name what is old")
    parser.add_argument("--debug", action="store_true", help="show where in the code an error was raised")
    return parser
