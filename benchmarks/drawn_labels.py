"""How often the interval of `audit_labels` holds the share of wrong labels that were drawn, with no row verified.

    python benchmarks/drawn_labels.py [--data folder] [--text-model folder] [--image-model folder] [--rounds 200]

The embedded digits; from --data the texts and images that are named in `drawn_sets.py`, a few thousand rows of each, as
TF-IDF and as features of frozen networks where those are given; and weak labels beside people's. Out-of-fold
probabilities are those that `audit_labels` makes of features. Truth is for the score alone. cleanlab 2.9.0 reads the
same probabilities; without it its columns are left out. See benchmarks/README.md for the bars.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from compare import Report, arguments, start
from drawn_sets import KINDS, Audited, drawn_sets, given_labels, weak_sets
from sklearn.metrics import roc_auc_score

from hf_noise.audit import audit_labels
from hf_noise.audit.out_of_fold import out_of_fold
from hf_noise.metrics import wilson_interval

RATES = tuple(round(0.05 * step, 2) for step in range(1, 11))
#: Noise that depends on the true class alone, as the audit assumes; the other kind is drawn half as often.
BY_CLASS = ("symmetric", "cyclic", "pairs")
#: Half of a class labelled as one other: which of the two it is, labels cannot tell.
LIMIT = {"cyclic": 0.5, "pairs": 0.5}
#: Seeds of the published draws; those of the draws that the rules were made with began at 5,000.
FIRST_SEED = 0


@dataclass(frozen=True)
class Draw:
    """One audit beside the truth; of cleanlab NaN where it is not installed."""

    rate: float
    true: float
    low: float
    value: float
    high: float
    warned: bool
    auroc: float
    f1: float
    peer_value: float = np.nan
    peer_auroc: float = np.nan
    peer_f1: float = np.nan

    @property
    def covers(self) -> bool:
        return self.low <= self.true <= self.high


def f1(listed: np.ndarray, wrong: np.ndarray) -> float:
    return float(2 * (listed & wrong).sum() / max(listed.sum() + wrong.sum(), 1))


def audited(one: Audited, given: np.ndarray, rate: float, seed: int, peer: bool) -> Draw:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that stopped at its last step will do
        p = out_of_fold(one.features, given, seed=seed)
    found, wrong = audit_labels(given, probabilities=p, seed=seed), given != one.clean
    said = found.error_rate
    other = of_cleanlab(given, wrong, p) if peer else ()
    return Draw(rate, float(wrong.mean()), said.low, said.value, said.high, bool(found.warnings),
                roc_auc_score(wrong, found.p_wrong), f1(found.flagged(), wrong), *other)  # fmt: skip


def of_cleanlab(given: np.ndarray, wrong: np.ndarray, p: np.ndarray) -> tuple[float, float, float]:
    """Rate, AUROC and F1 of the default list."""
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    scores = 1 - get_label_quality_scores(given, p, method="normalized_margin")
    listed = find_label_issues(given, p, n_jobs=1)
    return float(1 - estimate_joint(given, p).trace()), roc_auc_score(wrong, scores), f1(listed, wrong)


def measure(report: Report, name: str, kind: str, draws: list[Draw]) -> None:
    """Coverage, and what the interval is worth."""
    what = f"{name}, {kind}"
    add_coverage(report, what, draws, is_held_to=kind in BY_CLASS)
    # Other noise breaks the assumption, which is fair if the audit says so.
    if kind not in BY_CLASS:
        fair = np.mean([draw.covers or draw.warned for draw in draws])
        report.add(f"covered or warned of, {what}", 100 * float(fair), unit="%", at_least=93)
    if at := [draw for draw in draws if draw.rate == LIMIT.get(kind)]:
        add_coverage(report, f"{what} at e = {LIMIT[kind]:g}", at, is_held_to=False)
    off = np.array([draw.value - draw.true for draw in draws])
    report.add(f"half-width, {what}", float(np.median([(draw.high - draw.low) / 2 for draw in draws])), unit="")
    report.add(f"mean error of the rate, {what}", float(off.mean()), unit=f"(absolute {np.abs(off).mean():.4f})")
    report.add(f"warned of, {what}", 100 * float(np.mean([draw.warned for draw in draws])), unit="%")
    for figure in ("auroc", "f1"):
        ours, other = (float(np.mean([getattr(draw, before + figure) for draw in draws])) for before in ("", "peer_"))
        beside = "" if np.isnan(other) else f"(cleanlab {other:.4f})"
        report.add(f"{'AUROC' if figure == 'auroc' else 'F1 of the list'}, {what}", ours, unit=beside)
    peers = np.array([draw.peer_value - draw.true for draw in draws])
    if not np.isnan(peers).any():
        report.add(f"mean error of cleanlab's rate, {what}", float(peers.mean()),
                   unit=f"(absolute {np.abs(peers).mean():.4f})")  # fmt: skip


def add_coverage(report: Report, what: str, draws: list[Draw], is_held_to: bool = True) -> None:
    """Of the draws, with Wilson's interval."""
    held = sum(draw.covers for draw in draws)
    low, high = (float(end) for end in wilson_interval(held, len(draws)))
    told = f"% of {len(draws)} [{100 * low:.1f}, {100 * high:.1f}]"
    report.add(f"covered, {what}", 100 * held / len(draws), unit=told, at_least=93 if is_held_to else None)


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="folder of the Parquet files; without, digits alone")
    parser.add_argument("--text-model", help="an encoder whose features are those of the texts too")
    parser.add_argument("--image-model", help="a network for the images; without it, none of them")
    parser.add_argument("--only", nargs="*", default=(), help="sets, by the beginnings of their names")
    args = parser.parse_args(argv)
    start(args)
    peer = importlib.util.find_spec("cleanlab") is not None
    folder = None if args.quick else args.data
    draws = args.rounds or (2 if args.quick else 200)
    sets = [one for one in drawn_sets(folder, args.text_model, args.image_model)
            if not args.only or one.name.startswith(tuple(args.only))]  # fmt: skip
    weak = list(weak_sets(folder))
    report = Report("Drawn labels", {
        "sets": [[one.name, *one.features.shape, one.classes] for one in (*sets, *weak)], "draws": draws,
        "rates": RATES, "kinds": list(KINDS), "first_seed": FIRST_SEED, "cleanlab": peer,
    })  # fmt: skip
    if not peer:
        print("cleanlab is not installed: nothing to compare with (pip install cleanlab==2.9.0)")
    if not folder:
        print(f"digits alone: {'--quick' if args.quick else '--data is not given'}")
    started, audits = time.process_time(), 0
    everything: list[Draw] = []
    for one in sets:
        pooled: list[Draw] = []
        for kind in KINDS:
            found, by_class = [], kind in BY_CLASS
            for seed in range(FIRST_SEED, FIRST_SEED + (draws if by_class else max(draws // 2, 2))):
                rate = RATES[seed % len(RATES)]
                found.append(audited(one, given_labels(kind, one, rate, seed), rate, seed, peer))
            measure(report, one.name, kind, found)
            pooled += found if by_class else []
            audits += len(found)
        add_coverage(report, f"{one.name}, by class", pooled)
        everything += pooled
    add_coverage(report, "all sets, by class", everything)
    for one in weak:
        # The folds alone are drawn.
        again = [audited(one, one.given, np.nan, seed, peer) for seed in range(min(draws, 10))]
        measure(report, one.name, "lists of words", again)
        first = again[0]
        report.add(f"{one.name}: true rate", first.true, unit=f"(audit {first.value:.3f} [{first.low:.3f}, "
                                                               f"{first.high:.3f}])")  # fmt: skip
        audits += len(again)
    report.add("seconds of an audit, probabilities and cleanlab with it", (time.process_time() - started) / audits,
               unit="s")  # fmt: skip
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
