"""What an audit is worth: the same model trained on the labels as they are and in the ways that the audit suggests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import TrainingArguments

from hf_noise.analysis.paired import PairedTest, paired_test
from hf_noise.audit import LabelAudit, Measured, audit_labels, list_at_fdr, recalibrated
from hf_noise.audit.doubts import Doubts
from hf_noise.audit.out_of_fold import out_of_fold
from hf_noise.audit.plan import Plan
from hf_noise.audit.plan_probes import recipes_of, what_is_done
from hf_noise.audit.probe_runs import Recipe
from hf_noise.audit.recalibrate import tilted
from hf_noise.metrics.intervals import wilson_share
from hf_noise.objectives import CorrectedLabels, CrossEntropy
from hf_noise.studies.audit.data import AuditData
from hf_noise.studies.audit.evidence import Evidence
from hf_noise.studies.audit.judge import Judge
from hf_noise.studies.audit.study import Settings
from hf_noise.trainers.heads import HeadPlan, fit_heads, head_grid

__all__ = ["Trained", "Way", "doubts_without", "train_all", "ways_of", "ways_without"]

#: Share of the rows that the ridge of a head is chosen by.
_CHOSEN_BY = 0.1
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
class Trained:
    """What came of a way: right answers bool [M], beside those of the labels as they are.

    `rows` is how many the weights are fitted on, `chosen_by` how many others their ridge and epoch.
    """

    way: Way
    rows: int
    chosen_by: int
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


def doubts_without(audit: LabelAudit, features: np.ndarray, held: np.ndarray, folds: int, seed: int) -> Doubts:
    """What an audit of its own says of the rows that are not held out, bool [N]: made as that of all rows was, and
    corrected by the verified ones among them.

    Raises ValueError: copies of a few rows are all that is left.
    """
    kept, classes = np.flatnonzero(~held), np.eye(len(audit.class_names))
    given = audit.labels[kept]
    p = out_of_fold(features[kept], given, folds=min(folds, int(np.bincount(given).min())), seed=seed)
    own = audit_labels(given, probabilities=p, seed=seed)
    posterior, p_wrong, transition = classes[audit.labels], np.zeros(len(audit)), own.transition
    posterior[kept], p_wrong[kept] = own.posterior, own.p_wrong
    known = np.zeros(0, np.int64)
    if (verified := audit.verified_by) is not None:
        is_here, transition = ~held[verified.rows], audit.transition
        known, true = verified.rows[is_here], verified.labels[is_here]
        if known.size:
            p_wrong[kept] = recalibrated(own.p_wrong, np.searchsorted(kept, known), true != audit.labels[known],
                                         verified.sample.probability[known])  # fmt: skip
            posterior[kept] = tilted(own.posterior, given, p_wrong[kept])
            posterior[known] = classes[true]
    return Doubts(kept, posterior, p_wrong, transition, known)


def ways_without(
    audit: LabelAudit, ways: Sequence[Way], doubts: Doubts, plan: Plan | None, fdr: float | None, seed: int
) -> list[Way]:  # fmt: skip
    """The same ways by what is said of some rows alone, which are those that will be trained on; what it leaves
    nothing to do for is left out."""
    recipes = recipes_of(doubts, audit.labels, 0.0, seed)
    if plan is not None:
        does = what_is_done(recipes, audit.labels, doubts.known)
        return [_of_recipe(way, recipes[way.name], does[way.name]) for way in ways if way.name in does]
    listed = doubts.flagged()
    if fdr is not None:
        listed[doubts.rows] = list_at_fdr(doubts.p_wrong[doubts.rows], fdr)
    suggested = np.where(listed, doubts.posterior.argmax(axis=1), audit.labels)
    changes: dict[str, dict[str, Any]] = {
        "drop": {"keep": ~listed}, "relabel": {"labels": suggested}, "corrected": {"transition": doubts.transition}
    }  # fmt: skip
    return [replace(way, **changes.get(way.name, {})) for way in ways]


def _of_recipe(way: Way, recipe: Recipe, does: str) -> Way:
    return Way(way.name, does, recipe.keep, recipe.targets, recipe.transition, way.predicted)


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
        said, fitted = fit(way, rows)
        hits = said == judge.labels
        beside = paired_test(hits.astype(float), found[0].hits.astype(float)) if found else None
        found.append(Trained(way, fitted, len(rows) - fitted, hits, beside))
    return found


def _heads(
    settings: Settings, data: AuditData, evidence: Evidence, judge: Judge, args: TrainingArguments
) -> Callable[[Way, np.ndarray], tuple[np.ndarray, int]]:
    """What is said of the rows to judge, and by how many fitted ones.

    Linear heads on the features of the audit; of a grid the one whose loss on a tenth of its rows is least.
    """
    mean, spread = evidence.features.mean(axis=0), evidence.features.std(axis=0)
    features = (evidence.features - mean) / np.where(spread > 0, spread, 1)
    judged = features if data.test is None else (evidence.test_features - mean) / np.where(spread > 0, spread, 1)
    judged = judged[judge.rows]

    def fit(way: Way, rows: np.ndarray) -> tuple[np.ndarray, int]:
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
        return heads.logits(judged)[best].argmax(-1).cpu().numpy(), len(fitted)

    return fit


def _networks(
    settings: Settings, data: AuditData, judge: Judge, args: TrainingArguments
) -> Callable[[Way, np.ndarray], tuple[np.ndarray, int]]:
    """As `_heads`, by the small network that the audit itself used, in its own settings."""
    from hf_noise.studies.audit.network import predicted, read_pictures, trained

    pictures = read_pictures(data.rows.table, data.image, settings.network_size)
    judged = pictures if data.test is None else read_pictures(data.test.table, data.image, 0, pictures)

    def fit(way: Way, rows: np.ndarray) -> tuple[np.ndarray, int]:
        loss = CrossEntropy() if way.transition is None else CorrectedLabels(transition=way.transition.tolist())
        trainer = trained(settings, pictures, way.labels, rows, data.classes, args, way.name, loss)
        found = predicted(trainer, judged, judge.rows)
        del trainer
        torch.cuda.empty_cache()
        return found.argmax(axis=1), len(rows)

    return fit
