"""The table of regimes, all values as JSON, and what is said of a pair of runs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.analysis.information import independence_point, pac_sample_bound, relative_information_loss
from hf_noise.analysis.ntp_theory import REGIMES, Proposition1, bilingual, proposition1
from hf_noise.atomic import write_atomic
from hf_noise.reports.tables import Column, Table, shown_table
from hf_noise.studies.theory.figures import (
    CLASSES,
    DELTA,
    DIMENSIONS,
    draw_figure_7,
    draw_figure_9,
    draw_figure_a3,
    draw_pac,
)
from hf_noise.studies.theory.pair import Pair
from hf_noise.studies.theory.study import CLEAN_LOSS, NOISE_LOSS, Settings

__all__ = ["regimes", "show", "table_of_regimes", "values_of"]

_COLUMNS = (
    Column("alpha"), Column("k"), Column("eta", 3), Column("eta / p_c, %", 1, "eta, %"),
    Column("what Proposition 1 says", 0, "says"), Column("break-even / eta", 2),
    Column("clean loss rises at eta, nats", 1, "rise, nats"),
    Column("at the break-even, nats", 4, "at break-even"),
)  # fmt: skip


def losses_of(settings: Settings, pair: Pair | None) -> tuple[float, float]:
    """Losses of h* on clean text and on noise, in nats: as told, else of the pair's last step, else the paper's.

    Raises ValueError: clean text costs no less than noise, of which Proposition 1 says nothing.
    """
    clean, noise = (CLEAN_LOSS, NOISE_LOSS) if pair is None else (float(pair.clean_star[-1]), pair.early_noise)
    given = settings.clean_loss, settings.noise_loss
    told = (clean if given[0] is None else given[0], noise if given[1] is None else given[1])
    if told[0] >= told[1]:
        raise ValueError(f"--clean_loss {told[0]:g} is not below --noise_loss {told[1]:.4g}: a model that finds noise "
                         "as likely as clean text has learned nothing, and Proposition 1 is not of it")  # fmt: skip
    return told


def regimes(settings: Settings, pair: Pair | None = None) -> Proposition1:
    """Proposition 1 over the grid alpha [A, 1] x k [K]."""
    clean, noise = losses_of(settings, pair)
    return proposition1(math.exp(-clean), math.exp(-noise), np.reshape(settings.alpha, (-1, 1)), settings.k)


def table_of_regimes(found: Proposition1) -> Table:
    """One line for each alpha and k."""
    rows = []
    rises, evens = found.clean_loss_rise(found.best_eps), found.clean_loss_rise(found.break_even)
    for at in np.ndindex(found.eta.shape):
        pays = found.eta[at] > 0
        rows.append([
            f"{found.alpha[at]:g}", f"{found.k[at]:g}", f"{found.eta[at]:.3g}",
            f"{100 * found.eta[at] / found.p_c[at]:.3g}", str(found.regime[at]),
            f"{found.break_even[at] / found.eta[at]:.3f}" if pays else "-",
            f"{rises[at]:.2g}" if pays else "-", f"{evens[at]:.2g}" if pays else "-",
        ])  # fmt: skip
    return Table(_COLUMNS, rows)


def values_of(settings: Settings, pair: Pair | None) -> dict[str, Any]:
    """All values that are shown, as JSON holds them; None for what there is none of."""
    found, two = regimes(settings, pair), bilingual()
    eps = {"eta": two.eta, "break_even": two.break_even, "2 eta": 2 * two.eta}
    rates, errors = np.linspace(0, 1, 21), [0.3, 0.1, 0.03, 0.01]
    return {
        "settings": asdict(settings), "regimes": _proposition(found), "statements": REGIMES,
        "figure_7a": None if pair is None else _of_pair(pair),
        "figure_9": _proposition(two) | {
            "clean_loss_rise": {name: float(two.clean_loss_rise(at)) for name, at in eps.items()},
            "noise_loss_drop": {name: float(two.noise_loss_drop(at)) for name, at in eps.items()},
        },
        "figure_3_of_paper_a": {
            "error_rate": rates.tolist(), "independence_point": {n: float(independence_point(n)) for n in CLASSES},
            "relative_information_loss": {n: relative_information_loss(rates, n).tolist() for n in CLASSES},
        },
        "pac_bound_of_paper_a": {
            "c0": 1.0, "delta": DELTA, "eps": errors,
            "clean_samples": {d: pac_sample_bound(errors, DELTA, d).tolist() for d in DIMENSIONS},
        },
    }  # fmt: skip


def _proposition(found: Proposition1) -> dict[str, Any]:
    names = ("p_c", "p_n", "alpha", "k", "eta", "threshold", "regime", "bound", "maximum", "break_even", "eps_limit")
    return {name: _plain(getattr(found, name)) for name in names}


def _of_pair(pair: Pair) -> dict[str, Any]:
    told = {name: value for name, value in asdict(pair).items() if name != "names"}
    told |= {"runs": list(pair.names), "k": pair.k, "pays_below": pair.pays_below}
    told |= {"without_gain": pair.without_gain, "without_loss": pair.without_loss}
    return {name: _plain(value) for name, value in told.items()}


def _plain(value: Any) -> Any:
    """Numbers and texts of Python; NaN and infinities as None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def told_of_pair(pair: Pair) -> str:
    """What the k of a pair of runs is, and on which side of Proposition 1."""
    lines = [f"k over training, {pair.describe()}"]
    k = pair.k[pair.is_rate]
    if k.size:
        never = (k >= pair.pays_below[pair.is_rate]).sum()
        lines.append(
            f"k: median {np.median(k):.3g}, from {k.min():.3g} to {k.max():.3g}, above 1 at {(k > 1).sum()} of "
            f"{k.size} steps; following the noise never pays (statement 1) at {never} of them"
        )
    return "\n".join(lines)


def show(settings: Settings, pair: Pair | None) -> str:
    """Write figures, table and values; returns what a terminal shows of them."""
    output, found = Path(settings.output), regimes(settings, pair)
    clean, noise = losses_of(settings, pair)
    table = shown_table(table_of_regimes(found), output / "theory.md")
    figures = [
        draw_figure_7(found, pair, output / "figure7.png"), draw_figure_9(bilingual(), output / "figure9.png"),
        draw_figure_a3(output / "figure3-paper-a.png"), draw_pac(output / "pac-paper-a.png"),
    ]  # fmt: skip
    values = write_atomic(
        output / "theory.json", json.dumps(values_of(settings, pair), indent=2, allow_nan=False) + "\n"
    )
    said = [f"  {name}: {REGIMES[name]}" for name in REGIMES if (found.regime == name).any()]
    measured = told_of_pair(pair) if pair else (
        "k over training (figure 7a) is left out: it takes --clean and --mixed, the folders of two runs of "
        "gpt2_noise.py --protocol random-documents"
    )  # fmt: skip
    head = f"h* has {clean:.3f} nats per token on clean text, {noise:.3f} on noise"
    files = f"figures: {', '.join(map(str, figures))}\nvalues: {values}"
    return "\n".join([head, "", table, "", *said, "", measured, files])
