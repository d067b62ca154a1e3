"""What a plan promises of each way to train on noisy labels, beside what each of them reaches on clean test rows.

    python benchmarks/audit_plan.py [--text trec.parquet] [--output benchmarks/results/audit_plan.json]

Noise is drawn on the embedded digits (pixels) and, with --text (columns text and label), on TF-IDF features of texts;
rows are split into training and test rows anew in every draw. The truth is for the score alone. An interval is of the
accuracy on all rows that could be drawn, and the test rows are a sample of these: it holds what was measured if that is
inside after both ends were moved by the test rows' own error, in quadrature. See benchmarks/README.md for the bars.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from compare import Report, arguments, start
from scipy.stats import binom
from sklearn.datasets import load_digits
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

from hf_noise.audit import LabelAudit, Plan, audit_labels
from hf_noise.audit.clean_accuracy import ByTest, Predicted, Span
from hf_noise.audit.plan_probes import read_test
from hf_noise.audit.probe_fit import fit_head
from hf_noise.audit.probe_rows import read_features
from hf_noise.noise import LabelFlips

CONFIDENCE, BUDGET, VERIFIED, VERIFIED_EVERY = 0.95, 100, 200, 3
RATES, TEXT_RATES = (0.05, 0.2, 0.4), (0.2, 0.4)
TRAINED, TEXT_TRAINED, TEXT_WIDTH = 1078, 2000, 100
FALSE_ALARM = 0.01  # of each bar, were coverage exactly as stated


class Setting:
    """Features [N, D] and true labels [N], how many rows are trained on, and the noise."""

    def __init__(self, name: str, data: tuple[np.ndarray, np.ndarray], rows: int, protocol: str, rate: float):
        (self.x, self.true), self.rows, self.protocol, self.rate = data, rows, protocol, rate
        self.name = f"{name}, {protocol} {rate:g}"

    def draw(self, seed: int) -> tuple[LabelAudit, np.ndarray, np.ndarray]:
        """The audit of noisy training rows, these rows and the test rows."""
        ours, test = train_test_split(np.arange(len(self.true)), train_size=self.rows, random_state=seed,
                                      stratify=self.true)  # fmt: skip
        more = {"mapping": {3: 8, 4: 9, 1: 7}} if self.protocol == "pairs" else {}
        noise = LabelFlips.named(self.protocol, error_rate=self.rate, num_classes=int(self.true.max()) + 1, seed=seed,
                                 **more)  # fmt: skip
        given = noise(self.true[ours], sample=ours, epoch=0)[0]
        return audit_labels(given, features=self.x[ours], seed=seed, confidence=CONFIDENCE), ours, test


def settings(text: Path | None, quick: bool) -> Iterator[Setting]:
    digits = load_digits(return_X_y=True)
    for protocol in ("cyclic",) if quick else ("symmetric", "cyclic", "pairs"):
        for rate in RATES[1:2] if quick else RATES:
            yield Setting("digits", digits, TRAINED // 2 if quick else TRAINED, protocol, rate)
    if text is None:
        return
    table = pq.read_table(text)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(table["text"].to_pylist())
    features = TruncatedSVD(TEXT_WIDTH, random_state=0).fit_transform(words), table["label"].to_numpy()
    for protocol in ("symmetric", "cyclic"):
        for rate in TEXT_RATES:
            yield Setting("text", features, TEXT_TRAINED, protocol, rate)


def verified(audit: LabelAudit, true: np.ndarray, seed: int) -> LabelAudit:
    """The audit after a person who makes no mistakes has looked at rows."""
    with tempfile.TemporaryDirectory() as folder:
        audit.to_verify(VERIFIED, folder, seed=seed)
        file = Path(folder) / "to_verify.csv"
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        with file.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, rows[0])
            writer.writeheader()
            writer.writerows(row | {"true_label": audit.class_names[true[int(row["row"])]]} for row in rows)
        return audit.verified(folder)


def measure(plan: Plan, audit: LabelAudit, x: np.ndarray, true: np.ndarray, clean: tuple[np.ndarray, np.ndarray],
            seed: int) -> dict[str, dict[str, Span]]:  # fmt: skip
    """Accuracy of each option on clean test rows and its difference from "given", of heads of all rows."""
    found, (rows, _) = {}, read_features(x, audit.labels, seed)
    judge, (test, _) = ByTest(clean[1]), read_test(clean, rows, len(audit.class_names))
    each = 1 - (1 - CONFIDENCE) / max(len(plan.options) - 2, 1)  # as the plan's own differences
    for one in plan.options:
        if one.accuracy is None:
            continue
        labels = (audit.labels if one.labels is None else one.labels).copy()
        if one.name == "verify":  # a person finds the truth, and keeps what was found before
            found_before = np.zeros(0, np.int64) if audit.verified_by is None else audit.verified_by.rows
            labels[found_before], labels[one.to_verify] = true[found_before], true[one.to_verify]
        targets = np.eye(len(audit.class_names))[labels] if one.targets is None else one.targets
        head = fit_head(rows.values[one.keep], targets[one.keep], ridge=one.ridge, transition=one.transition)
        said = head.scores(test).argmax(axis=1)
        of = found.setdefault(one.name, {"said": Predicted(said, said, 0.0)})
        of["accuracy"] = judge.accuracy(of["said"], CONFIDENCE)
        if one.difference is not None:
            of["difference"] = judge.difference(of["said"], found["given"]["said"], each)
    return {name: {what: of[what] for what in ("accuracy", "difference") if what in of} for name, of in found.items()}


def holds(promised: Span, found: Span) -> bool:
    """Whether the interval holds the other's value, but for the other's own error."""
    error = (found.high - found.low) / 2
    low, high = (np.hypot(promised.value - promised.low, error), np.hypot(promised.high - promised.value, error))
    return promised.value - low <= found.value <= promised.value + high


class Tally:
    """What draws add up to, by what was asked."""

    def __init__(self) -> None:
        self.held, self.off, self.width = defaultdict(list), defaultdict(list), defaultdict(list)
        self.claims, self.regret = [], defaultdict(list)

    def add(self, plan: Plan, measured: dict[str, dict[str, Span]]) -> None:
        reached = {name: of["accuracy"].value for name, of in measured.items()}
        for one in plan.options:
            for what, found in measured.get(one.name, {}).items():
                promised = getattr(one, what)
                self.held[what, one.name].append(holds(promised, found))
                self.off[what, one.name].append(promised.value - found.value)
                self.width[what, one.name].append((promised.high - promised.low) / 2)
        if plan.is_clear:
            self.claims.append(reached[plan.best] > reached["given"])
        highest = max(reached.values())
        for name, taken in (("best", plan.best), ("given", "given"), ("corrected", "corrected")):
            self.regret[name].append(highest - reached[taken] if taken in reached else np.nan)

    def joined(self, other: Tally) -> None:
        for ours, theirs in ((self.held, other.held), (self.off, other.off), (self.width, other.width),
                             (self.regret, other.regret)):  # fmt: skip
            for key, values in theirs.items():
                ours[key] += values
        self.claims += other.claims


def tell(report: Report, judge: str, tally: Tally) -> None:
    """Pooled over settings, with bars."""
    for (what, name), held in sorted(tally.held.items()):
        n, at_least = len(held), binom.ppf(FALSE_ALARM, len(held), CONFIDENCE) / len(held)
        report.add(f"{judge}: {what} of {name} is held, {n} draws", 100 * float(np.mean(held)), unit="%",
                   at_least=round(100 * float(at_least), 1))  # fmt: skip
        report.add(f"{judge}: {what} of {name}, promised - measured", 100 * float(np.mean(tally.off[what, name])),
                   unit="points")  # fmt: skip
        report.add(f"{judge}: {what} of {name}, half-width", 100 * float(np.mean(tally.width[what, name])),
                   unit="points")  # fmt: skip
    if tally.claims:
        report.add(f"{judge}: what is called clearly better is better, {len(tally.claims)} claims",
                   100 * float(np.mean(tally.claims)), unit="%", at_least=round(
                       100 * float(binom.ppf(FALSE_ALARM, len(tally.claims), CONFIDENCE)) / len(tally.claims), 1),
                   )  # fmt: skip
    for name, lost in tally.regret.items():
        report.add(f"{judge}: lost beside the best option by {name}", 100 * float(np.nanmean(lost)), unit="points")


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--text", type=Path, help="Parquet file with the columns text and label")
    args = parser.parse_args(argv)
    start(args)
    draws = args.rounds or (2 if args.quick else 3)
    asked = list(settings(None if args.quick else args.text, args.quick))
    report = Report("Plan of an audit", {
        "settings": [one.name for one in asked], "draws of each": draws, "confidence": CONFIDENCE, "budget": BUDGET,
        "verified": VERIFIED,
    })  # fmt: skip
    judges = {"given labels": Tally(), f"{VERIFIED} verified rows": Tally()}
    for one in asked:
        own = Tally()
        for seed in range(draws):
            audit, ours, test = one.draw(seed)
            clean = one.x[test], one.true[test]
            asked_of = [(audit, own)]
            if seed % VERIFIED_EVERY == 0:
                asked_of.append((verified(audit, one.true[ours], seed), judges[f"{VERIFIED} verified rows"]))
            for found, tally in asked_of:
                plan = found.plan(one.x[ours], budget=BUDGET, seed=seed, progress=False)
                tally.add(plan, measure(plan, found, one.x[ours], one.true[ours], clean, seed))
        for what in ("accuracy", "difference"):
            every = [held for (kind, _), values in own.held.items() if kind == what for held in values]
            report.add(f"{one.name}: intervals of {what} that hold", 100 * float(np.mean(every)), unit="%")
        report.add(f"{one.name}: lost beside the best option", 100 * float(np.mean(own.regret["best"])), unit="points")
        judges["given labels"].joined(own)
    for judge, tally in judges.items():
        tell(report, judge, tally)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
