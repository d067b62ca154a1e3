"""What theory gives: figures that are computed, and one cell of seconds that draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.analysis.information import relative_information_loss
from hf_noise.analysis.ntp_theory import Proposition1, bilingual, proposition1
from hf_noise.reports.claims import Rows
from hf_noise.reports.paper import published
from hf_noise.reports.record import RunRecord
from hf_noise.reports.verdicts import Verdict
from hf_noise.studies.reproduce.cells import Family, Part, parsed
from hf_noise.studies.settings import parse

#: Of f on each side of its maximum.
_POINTS = 101
#: Shares of noise, and clean probability lost per noise probability gained, which f is looked at for.
_ALPHA, _K = np.linspace(0.01, 0.99, 99), np.geomspace(1, 1e4, 81)


def information(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """The loss of information at the printed error rates, for each number of classes."""
    table = published("A.figure3")
    return {p: {name: {0: float(relative_information_loss(p, int(name.removeprefix("n"))))} for name in table.columns}
            for p in table.keys}  # fmt: skip


def two_languages(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """What following the noise does to both losses, at the printed multiples of eta."""
    found, rows = bilingual(), {}
    for times in published("B.figure9").keys:
        eps = times * found.eta
        rows[times] = {"loss_c_rise": {0: float(found.clean_loss_rise(eps))},
                       "loss_n_drop": {0: float(found.noise_loss_drop(eps))}}  # fmt: skip
    return rows


def rises_and_falls(found: Proposition1) -> np.ndarray:
    """Whether f of Proposition 1 rises up to eta, falls from there, and is below 0 at the end of what is promised.

    One bool for each case of which the paper promises it, for alpha < 1/3 or > 1/2 in most; others are left out.
    """
    every = (found.p_c, found.p_n, found.alpha, found.k, found.bound)
    *given, bound = (np.ravel(one) for one in np.broadcast_arrays(*every))
    one = proposition1(*(values[bound > 0] for values in given))
    share = np.linspace(0, 1, _POINTS)[:, None]
    end = np.minimum(one.bound, np.nextafter(one.p_c, 0))  # f is -inf where clean text has no probability left
    up, down = one.f(share * one.eta), one.f(one.eta + share * (end - one.eta))
    return (np.diff(up, axis=0) > 0).all(0) & (np.diff(down, axis=0) < 0).all(0) & (down[-1] < 0)


class _Theory(Family):
    readers = {"A.figure3": information, "B.figure9": two_languages}

    def commands(self, flags: Sequence[str], output: Path, seeds: int | None) -> list[list[str]]:
        return super().commands(flags, output, None)  # nothing is drawn

    def settings(self, argv: Sequence[str]) -> Any:
        from hf_noise.studies.theory.study import Settings

        return parsed(lambda flags: parse(Settings, flags, ""), argv)

    def cells(self, settings: Any) -> Iterable[tuple[str, list[Part]]]:
        yield "values", [Part(Path(settings.output) / "theory.json", "values", "theory")]

    def verdicts(self, records: Sequence[RunRecord]) -> list[Verdict]:
        from hf_noise.studies.theory.study import CLEAN_LOSS, NOISE_LOSS

        found = proposition1(math.exp(-CLEAN_LOSS), math.exp(-NOISE_LOSS), _ALPHA[:, None], _K)
        is_so = rises_and_falls(found)
        claim = "Proposition 1: f rises up to eta, falls from there, and is 0 again before 2 or 3 eta"
        told = (f"in {is_so.sum():,} of the {is_so.size:,} cases that it is promised of, among {found.bound.size:,} of "
                "alpha and k")  # fmt: skip
        return [Verdict(claim, "figure 7b", told, bool(is_so.all()), 1, of="computation")]

    def make(self, settings: Any, name: str) -> None:
        from hf_noise.studies.theory.report import show

        print(show(settings, None))


FAMILY = _Theory()
