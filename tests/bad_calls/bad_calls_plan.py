"""Bad calls to plans: of an audit of labels, and of tokens."""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, ints, number, reals, whole
from bad_values import pick

from hf_noise.audit import LabelAudit, Measured, PlanOption, audit_labels, plan_tokens

ROWS = 30


@functools.cache
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Features [N, 2] and true classes of an easy problem of two classes."""
    draw = np.random.default_rng(0)
    true = np.arange(ROWS) % 2
    return draw.normal(size=(ROWS, 2)) + 3 * true[:, None], true


@functools.cache
def audit() -> LabelAudit:
    x, true = rows()
    return audit_labels(np.where(np.arange(ROWS) < 4, 1 - true, true), features=x)


def make(draw: np.random.Generator) -> dict[str, Any]:
    x, true = rows()
    return {
        "features": pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)(x),
        "budget": int(draw.integers(0, 4)),
        "_test": pick(draw, None, (x, true)),
        "seed": int(draw.integers(0, 9)),
        "confidence": pick(draw, None, 0.9),
        "probe_rows": pick(draw, 10_000, ROWS, 20),
        "progress": False,
    }


def call(_test: Any, **given: Any) -> Any:
    return audit().plan(test=_test, **given)


def parts(found: Any) -> Any:
    """All that a plan holds, as values that can be compared."""
    if dataclasses.is_dataclass(found):
        return [(field.name, parts(getattr(found, field.name))) for field in dataclasses.fields(found)]
    if isinstance(found, np.ndarray):
        return found.shape, found.tolist()
    return [parts(one) for one in found] if isinstance(found, list | tuple) else found


@functools.lru_cache(maxsize=4)  # the same arguments are asked of many results that are a little wrong
def again(given: bytes) -> Any:
    return parts(call(**pickle.loads(given)))  # noqa: S301 - of the line above


def check(given: dict[str, Any], found: Any) -> None:
    # Its figures have no second way: what is asked of them is that they follow from the arguments.
    confirm(parts(found) == again(pickle.dumps(given)), "the same again")
    x = reals(given["features"], 2)
    confirm(len(x) == ROWS and x.shape[1] == (2 if given["_test"] is not None else x.shape[1]), "shape")
    confirm(x.shape[1] >= 1 and np.isfinite(x).all(), "features")
    budget = whole(given["budget"], 0, ROWS)
    whole(given["seed"], 0, 2**63 - 1)
    whole(given["probe_rows"], 1, 2**31)
    confirm(isinstance(given["progress"], bool | np.bool_), "progress")
    confidence = audit().error_rate.confidence if given["confidence"] is None else number(given["confidence"])
    confirm(0 < confidence < 1, "confidence")
    close(found.confidence, confidence, 0)
    options: dict[str, PlanOption] = {one.name: one for one in found.options}
    confirm(("verify" in options) == (budget > 0), "verify")
    promised = [one for one in options.values() if one.accuracy is not None]
    for one in promised:
        confirm(0 <= one.accuracy.low <= one.accuracy.value <= one.accuracy.high <= 1, "accuracy")
        confirm(one.rows == one.keep.sum() <= ROWS, "rows")
        if one.difference is not None:
            confirm(one.difference.low <= one.difference.value <= one.difference.high, "difference")
    confirm(len(set(ints(options["verify"].to_verify, 1).tolist())) == budget if budget else True, "to verify")
    best = max(one.difference.value if one.difference else 0.0 for one in promised if one.labels is not None)
    close(options[found.best].difference.value if options[found.best].difference else 0.0, best, 0)


def make_tokens(draw: np.random.Generator) -> dict[str, Any]:
    e = float(draw.uniform(0, 0.5))
    return {"error_rate": pick(draw, e, Measured(e, 0.0, 0.6, "told")), "nll": 9.0, "vocab_size": 5000}


def check_tokens(given: dict[str, Any], found: Any) -> None:
    confirm(parts(found) == parts(plan_tokens(**given)), "the same again")
    told, size, nll = given["error_rate"], whole(given["vocab_size"], 2, 2**31), number(given["nll"])
    e = number(told.value if isinstance(told, Measured) else told)
    confirm(0 <= e < 1 and 0 <= nll < math.inf, "ranges")
    mixed = -e * math.log(e) - (1 - e) * math.log(1 - e) if e else 0.0
    clean = (nll - e * math.log(size) - mixed) / (1 - e)
    confirm(clean >= -1e-9, "below a perfect model")
    close([one.nll.value for one in found.options[:2]], [clean - math.log(1 - e), clean], 1e-6)
    confirm(all(one.nll.low <= one.nll.value <= one.nll.high for one in found.options[:2]), "interval")


TARGETS = [
    Target("audit.plan", call, make, check, weight=0.1),
    Target("audit.plan_tokens", plan_tokens, make_tokens, check_tokens),
]
