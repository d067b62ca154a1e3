"""Probabilities of labels by classifiers that have not seen them, from features of the rows."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np

from hf_noise.noise.arrays import integers, real_numbers
from hf_noise.noise.checks import check_count, check_seed

__all__ = ["finite_features", "out_of_fold", "split_rows"]

#: Inverse strengths of the ridge that are tried; features are standardised.
_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def out_of_fold(features: Any, labels: Any, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    """p(label = j | features) of each row, from logistic regressions that were fitted without it.

    Rows are dealt out to folds by class, rows of the same features into one fold, as a copy would give its label away;
    features are standardised within the rows of each fit. Of five strengths of
    the ridge that one speaks whose out-of-fold NLL on the given labels is smallest.

    Args:
        features: real numbers [N, D], finite, D >= 1.
        labels: given labels, integers [N] in [0, C), each class in at least `folds` rows.
        folds: in [2, 64].
        seed: of the folds.

    Returns:
        float64 [N, C], rows sum to 1.

    Raises:
        TypeError: features are no real numbers, or labels no integers.
        ValueError: shapes differ, a feature is not finite, a class has fewer rows than there are folds, or copies of
            rows leave a fold empty or a class in one fold alone.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = finite_features("features", features), integers("labels", labels)
    folds, seed = check_count("folds", folds, 2, 6), check_seed(seed)
    if y.shape != x.shape[:1]:
        raise ValueError(f"features must be [N, D] and labels [N], got shapes {list(x.shape)} and {list(y.shape)}")
    split = split_rows(x, y, folds, seed)
    found = []
    for strength in _GRID:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        p = cross_val_predict(model, x, y, cv=split, method="predict_proba")
        found.append((log_loss(y, p), p))
    p = min(found, key=lambda one: one[0])[1]
    return p / p.sum(axis=1, keepdims=True)


def finite_features(name: str, values: Any) -> np.ndarray:
    """`values` as float64 [N, D], D >= 1, all finite; TypeError or ValueError for others."""
    x = real_numbers(name, values)
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"{name} must be [N, D], got shape {list(x.shape)}")
    if not np.isfinite(x).all():
        row = int((~np.isfinite(x).all(axis=1)).argmax())
        raise ValueError(f"{name} must be finite, row {row} is not; look at what made it, or leave that row out")
    return x


def split_rows(x: np.ndarray, y: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit and rows to judge, of each fold; copies of a row are in one fold. Raises as `out_of_fold`."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    counts = np.bincount(y) if y.size and y.min() >= 0 else np.zeros(1, dtype=int)
    if len(counts) < 2 or counts.min() < folds:
        rare = int(counts.argmin())
        raise ValueError(f"each class must be in at least {folds} rows, one for each fold, and there must be two: "
                         f"class {rare} is in {counts[rare]}; drop it, or use fewer folds")  # fmt: skip
    seen: dict[bytes, int] = {}
    # Zero has two signs, which bytes tell apart and a sum does not.
    of = np.array([seen.setdefault(blake2b((row + 0).tobytes(), digest_size=16).digest(), len(seen)) for row in x])
    distinct = len(seen)
    if distinct == len(x):
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32).split(x, y))
    if distinct >= folds:
        split = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32).split(x, y, of))
        if all(len(judged) and len(np.unique(y[fitted])) == y.max() + 1 for fitted, judged in split):
            return split
    raise ValueError(
        f"features have {distinct} distinct rows among {len(x)}, too few for {folds} folds that share none and "
        "each leave rows of every class to fit; drop copies or rare classes, or use fewer folds"
    )
