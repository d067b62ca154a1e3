"""How often the intervals of an audit hold, and how long they are, when its verified rows are drawn a thousand times.

    python benchmarks/verified_rows.py --data a.parquet b.parquet [--output benchmarks/results/verified_rows.json]

Each file holds one set of labels: the columns given_label, true_label and, for one network or several,
probabilities_<network> (out-of-fold, a list of C). `--quick` makes labels of its own. See benchmarks/README.md for the
bars.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from compare import Report, arguments, start

from hf_noise.audit.cells import expected_cells, transition_cells
from hf_noise.audit.sampling import Frame, frame
from hf_noise.audit.stratified import PoweredShare, powered_share
from hf_noise.metrics import wilson_interval

VERIFIED = (200, 400)
SHARPNESS = 1.0  # power of the probabilities before they sum to 1 again; no truth is looked at to choose it
CELL_DRAWS = 5  # every so many-th draw looks at T too
LARGE = 0.02  # cells of T that are really made, told apart: nearly all others are 0
HIDDEN = (
    (0.1, 0.01, 1.0, 200), (0.3, 0.01, 0.97, 200), (0.1, 0.003, 1.0, 400), (0.02, 0.007, 0.97, 400),
)  # share found, share missed, p_wrong of those found, verified rows  # fmt: skip
HALF = "twins_pcpvt, aggre"  # held to half of the binomial's width


def sets_of(files: list[Path]) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, probabilities [N, C], given and true labels [N] of every network of every file."""
    for file in files:
        table = pq.read_table(file)
        given, true = (table[f"{kind}_label"].to_numpy().astype(np.int64) for kind in ("given", "true"))
        for column in table.column_names:
            if column.startswith("probabilities_"):
                values = table[column].combine_chunks().flatten().to_numpy().astype(np.float64)
                yield f"{column[14:]}, {file.stem.rpartition('-')[2]}", values.reshape(len(given), -1), given, true


def made_up(rows: int = 4000, classes: int = 4) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """A set of labels of which a tenth are wrong, and a classifier that is right on most rows."""
    draw = np.random.default_rng(0)
    true = draw.integers(0, classes, rows)
    given = np.where(draw.random(rows) < 0.1, (true + draw.integers(1, classes, rows)) % classes, true)
    scores = np.exp(draw.normal(size=(rows, classes)) + 3 * np.eye(classes)[true])
    return "made up", scores, given, true


def measure(report: Report, name: str, p: np.ndarray, given: np.ndarray, true: np.ndarray, draws: int) -> None:
    """Coverage and half-widths on one set, for each number of verified rows."""
    posterior = p**SHARPNESS / (p**SHARPNESS).sum(1, keepdims=True)
    p_wrong, is_wrong = 1 - posterior[np.arange(len(given)), given], true != given
    rate, classes = is_wrong.mean(), posterior.shape[1]
    joint = np.zeros((classes, classes))
    np.add.at(joint, (true, given), 1)
    transition = joint / joint.sum(1, keepdims=True)
    for n in VERIFIED:
        (design, rows), found = drawn_intervals(p_wrong, is_wrong, n, draws, given)
        stratum = design.stratum[rows[0]]
        low, high = wilson_interval(np.random.default_rng(n).binomial(n, rate, 100 * draws), n)
        covers = float(((found.low <= rate) & (rate <= found.high)).mean())
        width = float((found.high - found.low).mean() / (high - low).mean())
        expected = expected_cells(posterior, given, design.stratum)
        held = np.stack([
            (cells.low <= transition) & (transition <= cells.high)
            for i in range(0, draws, CELL_DRAWS)
            for cells in [transition_cells(
                true[rows[i]], given[rows[i]], stratum, design.sizes, expected, np.bincount(given, minlength=classes),
                (found.value[i], found.low[i], found.high[i]),
            )]
        ])  # fmt: skip
        large = (transition > LARGE) & ~np.eye(classes, dtype=bool)
        what = f"{name}, n = {n}"
        report.add(f"rate is covered, {what}", 100 * covers, unit="%", at_least=93)
        report.add(f"covered beyond 95, {what}", 100 * covers - 95, unit="points", at_most=2)
        report.add(f"width / binomial's, {what}", width, at_most=0.5 if name == HALF else 0.8)
        report.add(f"cells of T covered, {what}", 100 * float(np.mean(held)), unit="%", at_least=93)
        report.add(f"those above {LARGE}, {what}", 100 * float(np.mean(held[:, large])), unit="%", at_least=90)


def measure_hidden(report: Report, draws: int) -> None:
    """Coverage where a classifier is sure and rarely wrong, so that many a sample shows not one of its misses."""
    for found, missed, sharp, n in HIDDEN:
        draw = np.random.default_rng(0)
        is_found, noise = draw.random(20_000) < found, 0.001 * draw.random(20_000)
        is_wrong = is_found | (draw.random(20_000) < missed)
        p_wrong = np.where(is_found, sharp - noise, 1 - sharp + noise)
        _, interval = drawn_intervals(p_wrong, is_wrong, n, draws)
        rate, what = is_wrong.mean(), f"{found:.0%} found and {missed:.1%} missed, n = {n}"
        low, high = wilson_interval(np.random.default_rng(n).binomial(n, rate, 100 * draws), n)
        covers = float(((interval.low <= rate) & (rate <= interval.high)).mean())
        report.add(f"rate is covered, {what}", 100 * covers, unit="%", at_least=93)
        report.add(f"width / binomial's, {what}", float((interval.high - interval.low).mean() / (high - low).mean()))


def drawn_intervals(
    p_wrong: np.ndarray, is_wrong: np.ndarray, n: int, draws: int, given: np.ndarray | None = None
) -> tuple[tuple[Frame, np.ndarray], PoweredShare]:
    """The frame and rows [draws, n] of so many samples, rows of a stratum together, and their intervals."""
    design = frame(p_wrong, n, given=given)
    rows = np.stack([design.draw(seed).rows for seed in range(draws)])
    rows = np.take_along_axis(rows, np.argsort(design.stratum[rows], axis=1, kind="stable"), 1)
    means = np.bincount(design.stratum, p_wrong) / design.sizes
    found = powered_share(is_wrong[rows], p_wrong[rows], means, design.stratum[rows[0]], design.sizes)
    return (design, rows), found


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="Parquet files, see above")
    args = parser.parse_args(argv)
    start(args)
    if not args.data and not args.quick:
        raise SystemExit("--data is needed: Parquet files with given_label, true_label and probabilities_<network>")
    draws = args.rounds or (40 if args.quick else 1000)
    report = Report("Verified rows", {"verified": VERIFIED, "draws": draws, "sharpness": SHARPNESS})
    for one in sets_of(args.data) if args.data else [made_up()]:
        measure(report, *one, draws)
    measure_hidden(report, draws)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
