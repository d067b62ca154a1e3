"""What `choose_estimate` and cleanlab 2.9.0 say of the same labels and out-of-fold probabilities, beside the truth.

    python benchmarks/label_audit.py [--data folder] [--quick] [--output benchmarks/results/label_audit.json]

The sets are the embedded digits with drawn noise, and, from --data or HF_NOISE_LABEL_AUDITS, Parquet files with the
columns given_label, true_label and one or more of probabilities_<network>. The truth is for the score alone. Without
cleanlab its columns and bars are left out. See benchmarks/README.md for the bars.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from compare import Report, arguments, clock, start
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from hf_noise.audit import choose_estimate
from hf_noise.noise import LabelFlips

PLACE = "HF_NOISE_LABEL_AUDITS"
FILTERS = (
    "prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given",
    "low_normalized_margin", "low_self_confidence",
)  # fmt: skip
BINS = 15


@dataclass
class Score:
    """One tool on one set; a field that it has no answer to is NaN or empty."""

    rate: float
    transition_l1: float
    auroc: float
    precision: float
    lists: dict[str, float]
    seconds: float


def drawn_sets(quick: bool) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """The embedded digits, logistic regression in five folds on noisy labels."""
    pixels, clean = load_digits(return_X_y=True)
    rates = (0.2,) if quick else (0.05, 0.2, 0.4)
    for protocol, more in (("symmetric", {}), ("cyclic", {}), ("pairs", {"mapping": {3: 8, 4: 9, 1: 7}})):
        for rate in rates:
            noise = LabelFlips.named(protocol, error_rate=rate, num_classes=10, **more)
            given = noise(clean, sample=np.arange(len(clean)), epoch=0)[0]
            folds = StratifiedKFold(5, shuffle=True, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a fit of 40 steps has not converged, and need not
                p = cross_val_predict(LogisticRegression(max_iter=40), pixels / 16, given, cv=folds,
                                      method="predict_proba")  # fmt: skip
            yield f"digits, {protocol} {rate:g}", given, clean, p


def stored_sets(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    for path in sorted(folder.glob("*predictions*.parquet")):
        table = pq.read_table(path)
        given, clean = table["given_label"].to_numpy(), table["true_label"].to_numpy()
        for column in table.column_names:
            if column.startswith("probabilities_"):
                p = np.asarray(table[column].combine_chunks().flatten(), dtype=np.float64).reshape(len(given), -1)
                yield f"{path.stem.rpartition('-')[2]}, {column[14:]}", given, clean, p / p.sum(axis=1, keepdims=True)


def f1(listed: np.ndarray, wrong: np.ndarray) -> float:
    return float(2 * (listed & wrong).sum() / max(listed.sum() + wrong.sum(), 1))


def best_f1(scores: np.ndarray, wrong: np.ndarray) -> float:
    """Of all lists that this ranking has."""
    hits = np.cumsum(wrong[np.argsort(-scores, kind="stable")])
    return float((2 * hits / (np.arange(1, len(wrong) + 1) + wrong.sum())).max())


def calibration_error(p_wrong: np.ndarray, wrong: np.ndarray) -> float:
    """Of 15 bins of equal width, weighted by their rows."""
    bins = np.minimum((p_wrong * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, p_wrong - wrong, BINS)).sum() / len(wrong))


def rows_of(clean: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes))
    np.add.at(counts, (clean, given), 1.0)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def l1(found: np.ndarray, true: np.ndarray) -> float:
    """Mean over the rows of the sum of absolute differences."""
    return float(np.abs(found - true).sum(axis=1).mean())


def of_cleanlab(given: np.ndarray, clean: np.ndarray, p: np.ndarray) -> Score:
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    wrong, started = given != clean, clock()
    joint = estimate_joint(given, p).T
    scores = 1 - get_label_quality_scores(given, p, method="normalized_margin")
    lists = {name: f1(find_label_issues(given, p, filter_by=name, n_jobs=1), wrong) for name in FILTERS}
    seconds = clock() - started
    transition = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-12)
    return Score(float(1 - joint.trace()), l1(transition, rows_of(clean, given, p.shape[1])),
                 roc_auc_score(wrong, scores), average_precision_score(wrong, scores), lists, seconds)  # fmt: skip


def compare(report: Report, name: str, given: np.ndarray, clean: np.ndarray, p: np.ndarray, peer: bool) -> None:
    wrong, started = given != clean, clock()
    found = choose_estimate(given, p)
    seconds, rate, true = clock() - started, found.error_rate, float(wrong.mean())
    listed, best = f1(found.flagged(), wrong), best_f1(found.p_wrong, wrong)
    off, apart = abs(rate.value - true), l1(found.transition, rows_of(clean, given, p.shape[1]))
    auroc, precision = roc_auc_score(wrong, found.p_wrong), average_precision_score(wrong, found.p_wrong)
    report.add(f"{name}: true rate", true, unit="")
    report.add(f"{name}: rate, {found.chosen.method}", rate.value, unit=f"[{rate.low:.4g}, {rate.high:.4g}]")
    report.add(f"{name}: interval holds the rate", float(rate.low <= true <= rate.high), at_least=1, unit="")
    report.add(f"{name}: F1 of the list / best of its ranking", listed / best, at_least=0.97)
    report.add(f"{name}: calibration error", calibration_error(found.p_wrong, wrong), at_most=0.03, unit="")
    report.add(f"{name}: seconds", seconds, unit="s")
    if not peer:
        for what, value in (("AUROC", auroc), ("AP", precision), ("F1", listed), ("T, L1 per row", apart)):
            report.add(f"{name}: {what}", value, unit="")
        return
    other = of_cleanlab(given, clean, p)
    best_filter = max(other.lists, key=other.lists.get)
    report.add(f"{name}: error of the rate", off, at_most=round(abs(other.rate - true), 4), unit="")
    report.add(f"{name}: T, L1 per row", apart, at_most=round(other.transition_l1, 4), unit="")
    report.add(f"{name}: AUROC", auroc, at_least=round(other.auroc - 0.002, 4), unit="")
    report.add(f"{name}: AP", precision, at_least=round(other.precision - 0.002, 4), unit="")
    report.add(f"{name}: F1 of the list, against {best_filter}", listed, at_least=round(other.lists[best_filter], 4),
               unit="")  # fmt: skip
    report.add(f"{name}: seconds of cleanlab, with all filters", other.seconds, unit="s")


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get(PLACE) or None,
                        help=f"folder of *predictions*.parquet; or set {PLACE}")  # fmt: skip
    args = parser.parse_args(argv)
    start(args)
    peer = importlib.util.find_spec("cleanlab") is not None
    folder = None if args.quick else args.data
    sets = [*drawn_sets(args.quick), *(stored_sets(Path(folder)) if folder else ())]
    report = Report("Audit of labels", {"sets": [name for name, *_ in sets], "cleanlab": peer})
    if not peer:
        print("cleanlab is not installed: nothing to compare with (pip install cleanlab==2.9.0)")
    if not folder:
        print(f"no stored sets, digits alone: {'--quick' if args.quick else f'neither --data nor {PLACE} is given'}")
    for name, given, clean, p in sets:
        compare(report, name, given, clean, p, peer)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
