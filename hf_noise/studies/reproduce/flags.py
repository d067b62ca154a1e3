"""Flags behind `--`, which the commands of all studies get: those that no study has are refused."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_noise.studies.reproduce.plan import Planned

__all__ = ["COMPUTED", "refuse_own", "tell_unknown"]

#: The study whose figures are computed: what runs were told is nothing to it.
COMPUTED = "theory"


def refuse_own(parser: argparse.ArgumentParser, more: Sequence[str], instead: Mapping[str, str]) -> None:
    """Refuse flags that a command gives the studies itself: it would set them again, or look elsewhere for runs.

    Args:
        parser: of the command.
        more: what stands behind `--`.
        instead: by flag, what to do.
    """
    for flag in (one.partition("=")[0] for one in more if one.startswith("--") and len(one) > 3):
        own = next((name for name in instead if name.startswith(flag)), None)  # parsers take beginnings, too
        if own is not None:
            parser.error(f"-- {flag}: {instead[own]}")


def tell_unknown(
    parser: argparse.ArgumentParser, plans: Sequence[Planned], scale: str, more: Sequence[str], left: str
) -> None:
    """Refuse flags that no study of these tables has, and say which studies do not have those that others take.

    Args:
        parser: of the command.
        plans: of the tables, with these flags.
        scale: of the runs.
        more: what stands behind `--`.
        left: what is not done with studies that lack a flag, such as "nothing is run".
    """
    every = {runs.study for plan in plans for runs in plan.table.runs if scale not in runs.missing}
    studies = every - {COMPUTED}
    if more and every and not studies:
        parser.error(f"-- {' '.join(more)}: these tables are computed, and no runs are told anything")
    for flag in more:
        without = sorted({study for plan in plans for study, flags in plan.unknown.items() if flag in flags})
        if studies and {*without} == studies:
            parser.error(f"-- {flag}: no study of these tables has such a flag ({', '.join(without)}); --help-all of "
                         "its recipe lists those that there are")  # fmt: skip
        if without:
            print(f"{parser.prog}: {flag} is not known to {', '.join(without)}, of which {left}; ask for those tables "
                  "without it", file=sys.stderr)  # fmt: skip
