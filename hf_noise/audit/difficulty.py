"""Whether labels are wrong by class alone, or more often the harder a row is: asked of the labels themselves."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from hf_noise.audit.estimators.class_conditional import Fit
from hf_noise.audit.estimators.rows import Rows, margins, softmax, surest

__all__ = ["difficulty_score"]

#: Share of the rows of each predicted class that are looked at: on the hardest the classifier's mistakes prevail.
_SHARE = 0.75
_PRIOR_WIDTH = 2.0
#: How well the offset is known, in log odds per standard deviation of the margin: it is a fit, and so many rows that
#: the coefficient is known better would refute a trifle.
_OFFSET_ERROR = 0.005
_STEPS = 30


def difficulty_score(fit: Fit, rows: Rows) -> float:
    """By how many standard errors disagreement falls faster with the margin than class-conditional noise explains.

    A logistic regression of "the label contradicts the classifier" on class and margin among the surer three quarters
    of the rows, where the odds that the fit predicts stand in as an offset. The coefficient of the margin over its
    standard error, that of the offset included, is about normal if noise is class-conditional and the classifier as
    fitted; -3 and less says that hard rows are mislabelled more often.
    """
    evidence = fit.evidence(rows.log_p)
    classes, margin = evidence.argmax(axis=1), margins(evidence)
    kept = surest(classes, margin, _SHARE)
    clean, of = softmax(evidence[kept]), np.unique(classes[kept], return_inverse=True)[1]
    agrees = (clean @ fit.transition)[np.arange(len(of)), classes[kept]]
    offset = logit(np.clip(1 - agrees, 1e-4, 1 - 1e-4))
    contradicts = (rows.labels[kept] != classes[kept]).astype(np.float64)
    x = margin[kept] / (margin[kept].std() + 1e-9)
    x = x - (np.bincount(of, x) / np.bincount(of))[of]
    design = np.column_stack([of[:, None] == np.arange(of.max() + 1), x])
    coefficients, ridge = np.zeros(design.shape[1]), 1 / _PRIOR_WIDTH**2
    for _ in range(_STEPS):
        p = expit(design @ coefficients + offset)
        information = (design * (p * (1 - p))[:, None]).T @ design + ridge * np.eye(design.shape[1])
        coefficients += np.linalg.solve(information, design.T @ (contradicts - p) - ridge * coefficients)
    return float(coefficients[-1] / np.sqrt(np.linalg.inv(information)[-1, -1] + _OFFSET_ERROR**2))
