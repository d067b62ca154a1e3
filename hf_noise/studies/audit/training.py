"""What an audit is worth: the same model trained on the labels as they are and in the ways that the audit suggests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import TrainingArguments

from hf_noise.analysis.paired import PairedTest, paired_test
from hf_noise.audit import LabelAudit, Measured
from hf_noise.audit.plan import Plan
from hf_noise.data.held_rows import HeldRows
from hf_noise.data.reading import CorpusError
from hf_noise.metrics.intervals import wilson_share
from hf_noise.objectives import CorrectedLabels, CrossEntropy
from hf_noise.studies.audit.data import AuditData
from hf_noise.studies.audit.evidence import Evidence
from hf_noise.studies.audit.study import Settings
from hf_noise.trainers.heads import HeadPlan, fit_heads, head_grid

__all__ = ["Judge", "Trained", "Way", "judge_of", "train_all", "ways_of"]

#: Share of the rows that is held out to measure on where there are no test rows, and of the others to choose by.
_HELD, _CHOSEN_BY = 0.2, 0.1
#: Of heads: passes in which so many rows are seen in all, at least and at most.
_SEEN, _FEWEST, _MOST = 1 << 17, 10, 40
_GRID = {"learning_rate": (1e-2, 3e-2), "weight_decay": (1e-2, 0.3, 3.0), "batch_size": 256}


@dataclass(frozen=True, eq=False)
class Way:
    """One way to train: which rows (bool [N]) with which labels (int64 [N]), through which T.

    `predicted` is the accuracy that a plan expects of it, None without one.
    """

    name: str
    does: str
    keep: np.ndarray
    labels: np.ndarray
    transition: np.ndarray | None = None
    predicted: Measured | None = None


@dataclass(frozen=True, eq=False)
class Judge:
    """The rows that are measured on.

    Attributes:
        labels: int64 [M].
        held: bool [N], audited rows that nothing is trained on, because they are these; none with rows of their own.
        is_clean: whether the labels are right, as far as anyone knows.
        words: what they are.
    """

    labels: np.ndarray
    held: np.ndarray
    is_clean: bool
    words: str


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of a way: right answers bool [M], beside those of the labels as they are."""

    way: Way
    rows: int
    hits: np.ndarray
    beside: PairedTest | None

    @property
    def accuracy(self) -> dict[str, Any]:
        """{"value", "low", "high", "n"}, Wilson's interval of 95%."""
        found = wilson_share("value", self.hits, 0.95)
        return found if self.beside is None else found | {
            "gain": self.beside.mean, "gain_low": self.beside.low, "gain_high": self.beside.high,
            "only_this": self.beside.wins, "only_given": self.beside.losses,
        }  # fmt: skip


def judge_of(data: AuditData) -> Judge:
    """Test rows where a user has them, else some of the audited rows, with true labels where these are known.

    Raises CorpusError: there are too few rows to hold any out.
    """
    nothing = np.zeros(len(data.rows), dtype=bool)
    if data.test is not None:
        return Judge(data.test.labels, nothing, True, f"{len(data.test):,} test rows with clean labels")
    held = HeldRows(test=_HELD).rows("test", data.chosen)
    if not held.any():
        raise CorpusError(f"--train: none of {len(held)} rows is held out to measure on; give --test_source, or more")
    if data.clean is None:
        words = f"{held.sum():,} held-out rows with labels as given, some of them wrong: no clean ones are known"
        return Judge(data.rows.labels[held], held, False, words)
    held &= data.clean >= 0
    return Judge(data.clean[held], held, True, f"{held.sum():,} held-out rows with their true labels")


def ways_of(audit: LabelAudit, listed: np.ndarray, plan: Plan | None = None) -> list[Way]:
    """Those of a plan that need neither a person nor soft labels, the first being that of the labels as they are.

    Without a plan: the labels as they are, without the listed rows, with suggested labels for them, and through the
    audited T.
    """
    if plan is not None:
        return [Way(one.name, one.does, one.keep, one.labels, one.transition, one.accuracy) for one in plan.options
                if one.labels is not None]  # fmt: skip
    every, given = np.ones(len(audit), dtype=bool), audit.labels
    return [
        Way("given", "labels as they are", every, given),
        Way("drop", "without the listed rows", ~listed, given),
        Way("relabel", "listed rows as suggested", every, np.where(listed, audit.suggested, given)),
        Way("corrected", "through the audited T", every, given, audit.transition),
    ]


def train_all(
    settings: Settings, data: AuditData, evidence: Evidence, ways: Sequence[Way], judge: Judge,
    args: TrainingArguments,
) -> list[Trained]:  # fmt: skip
    """Train each way, the first being that of the labels as they are, and measure all on the same rows."""
    fit = _heads(settings, data, evidence, judge, args) if evidence.features is not None else (
        _networks(settings, data, judge, args))  # fmt: skip
    found: list[Trained] = []
    for way in tqdm(ways, desc="training", unit="way", leave=False, disable=args.process_index != 0):
        rows = np.flatnonzero(way.keep & ~judge.held)
        hits = fit(way, rows) == judge.labels
        beside = paired_test(hits.astype(float), found[0].hits.astype(float)) if found else None
        found.append(Trained(way, len(rows), hits, beside))
    return found


def _heads(
    settings: Settings, data: AuditData, evidence: Evidence, judge: Judge, args: TrainingArguments
) -> Callable[[Way, np.ndarray], np.ndarray]:
    """Linear heads on the features of the audit; of a grid the one whose loss on a tenth of its rows is least."""
    mean, spread = evidence.features.mean(axis=0), evidence.features.std(axis=0)
    features = (evidence.features - mean) / np.where(spread > 0, spread, 1)
    judged = features[judge.held]
    if data.test is not None:
        judged = (evidence.test_features - mean) / np.where(spread > 0, spread, 1)

    def fit(way: Way, rows: np.ndarray) -> np.ndarray:
        mixed = np.random.default_rng(settings.seed).permutation(rows)
        apart, fitted = np.split(mixed, [max(1, round(_CHOSEN_BY * len(rows)))])
        epochs = int(np.clip(_SEEN // len(fitted), _FEWEST, _MOST))
        plan = HeadPlan(epochs=epochs, schedule="cosine", transition=way.transition)
        heads = fit_heads(
            features[fitted], way.labels[fitted], head_grid(seed=settings.seed, **_GRID), plan,
            validation=(features[apart], way.labels[apart]), num_classes=len(data.classes), device=args.device,
            progress=False,
        )  # fmt: skip
        best = int(np.nanmin(heads.validation_nll, axis=1).argmin())
        return heads.logits(judged)[best].argmax(-1).cpu().numpy()

    return fit


def _networks(
    settings: Settings, data: AuditData, judge: Judge, args: TrainingArguments
) -> Callable[[Way, np.ndarray], np.ndarray]:
    """The small network that the audit itself used, in its own settings."""
    from hf_noise.studies.audit.network import predicted, read_pictures, trained

    pictures = read_pictures(data.rows.table, data.image, settings.network_size)
    of_test = None if data.test is None else read_pictures(data.test.table, data.image, 0, pictures)

    def fit(way: Way, rows: np.ndarray) -> np.ndarray:
        loss = CrossEntropy() if way.transition is None else CorrectedLabels(transition=way.transition.tolist())
        trainer = trained(settings, pictures, way.labels, rows, data.classes, args, way.name, loss)
        if of_test is None:
            found = predicted(trainer, pictures, np.flatnonzero(judge.held))
        else:
            found = predicted(trainer, of_test, np.arange(len(judge.labels)))
        del trainer
        torch.cuda.empty_cache()
        return found.argmax(axis=1)

    return fit
