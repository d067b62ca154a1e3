"""Bad calls to losses that others published for noisy targets, to mixtures of documents, and to their objectives."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_calls_losses import floats, log_softmax, near, normal, of_label
from bad_readers import close, confirm, ints, number, reals, text, whole
from bad_values import pick

from hf_noise.analysis.document_share import document_share
from hf_noise.losses import (
    document_mixture_nll,
    error_norm_nll,
    error_norms,
    generalised_cross_entropy,
    smoothed_nll,
    truncated_nll,
)
from hf_noise.losses.document_mixture import noise_table
from hf_noise.objectives import (
    ELR,
    GCE,
    CoTeaching,
    DocumentMixture,
    ErrorNorm,
    SequenceMixture,
    Smoothed,
    Truncated,
)

V = 6
ROOT = math.sqrt(2)


def inside(value: Any, low: float, high: float, ends: str) -> float:
    x = number(value)
    confirm(low < x < high or x == low and ends[0] == "[" or x == high and ends[1] == "]", "range")
    return x


# ---- losses


def make_gce(draw: np.random.Generator) -> dict[str, Any]:
    return {"nll": normal(draw, *pick(draw, (5,), (2, 3), ())).abs(), "q": pick(draw, 0, 0.7, 1)}


def check_gce(given: dict[str, Any], result: Any) -> None:
    nll, q = floats(given["nll"]), inside(given["q"], 0, 1, "[]")
    with np.errstate(all="ignore"):
        near(given, result, nll if q < 1e-15 else -np.expm1(-q * nll) / q)


def make_logits(draw: np.random.Generator) -> dict[str, Any]:
    logits = normal(draw, *pick(draw, (4,), (2, 2), ()), V)
    targets = torch.from_numpy(np.asarray(draw.integers(0, V, size=logits.shape[:-1])))
    nll = -torch.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return {"nll": nll, "logits": logits, "targets": targets.where(targets > 0, -100)}


def of_logits(given: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]:
    """NLL, log p, targets, which are some; and whether the NLL is that of the logits, without which nothing is told."""
    nll, logits = floats(given["nll"]), floats(given["logits"])
    confirm(logits.ndim and logits.shape[-1] and nll.shape == logits.shape[:-1], "logits")
    confirm(isinstance(given["targets"], torch.Tensor), "no tensor")
    targets = ints(given["targets"])
    confirm(targets.shape == nll.shape, "targets")
    confirm(all(t == -100 or 0 <= t < logits.shape[-1] for t in targets.reshape(-1)), "a target outside")
    is_target, log_p = targets != -100, log_softmax(logits)
    own = -of_label(log_p, np.where(is_target, targets, 0).astype(np.int64))
    with np.errstate(all="ignore"):
        fits = bool((~is_target | (np.abs(own - nll) < 1e-3)).all())
    return nll, log_p, np.where(is_target, targets, 0).astype(np.int64), is_target, fits


def check_smoothed(given: dict[str, Any], result: Any) -> None:
    s = inside(given["smoothing"], 0, 1, "[)")
    nll, log_p, _, is_target, fits = of_logits(given)
    confirm(tuple(result.shape) == nll.shape, "shape")
    if fits:
        with np.errstate(all="ignore"):
            near(given, result, np.where(is_target, (1 - s) * nll - (s * log_p.mean(-1) if s else 0), 0))


def check_norms(given: dict[str, Any], result: Any, threshold: float | None = None) -> None:
    threshold = None if "threshold" not in given else inside(given["threshold"], 0, ROOT, "(]")
    nll, log_p, targets, is_target, fits = of_logits(given)
    confirm(tuple(result.shape) == nll.shape, "shape")
    if not fits:
        return
    error = np.exp(log_p) - (np.arange(log_p.shape[-1]) == targets[..., None])
    norms = np.where(is_target, np.sqrt((error**2).sum(-1)), 0)
    if threshold is None:
        near(given, result, norms)
    elif (np.abs(norms - threshold) > 1e-2).all():
        near(given, result, np.where(is_target & (norms <= threshold), nll, 0))


def make_truncated(draw: np.random.Generator) -> dict[str, Any]:
    nll = normal(draw, 2, 3).abs()
    return {"nll": nll, "threshold": torch.tensor(pick(draw, 0.5, math.inf)), "by": pick(draw, None, nll[:, :1])}


def check_truncated(given: dict[str, Any], result: Any) -> None:
    nll, threshold = floats(given["nll"]), floats(given["threshold"])
    by = nll if given["by"] is None else floats(given["by"])
    confirm(threshold.ndim == 0 and by.ndim == nll.ndim, "shapes")
    confirm(all(small in (1, large) for small, large in zip(by.shape, nll.shape)), "spread")
    near(given, result, np.where(by > threshold, 0, nll))


def make_mixture(draw: np.random.Generator) -> dict[str, Any]:
    of_noise = pick(draw, normal(draw, 2, 3).abs(), torch.full((2, 3), math.inf))
    return {"nll": normal(draw, 2, 3).abs(), "of_noise": of_noise,
            "is_target": torch.from_numpy(draw.random((2, 3)) < 0.8),
            "alpha": pick(draw, 0, 0.3, torch.tensor([0.3], requires_grad=True))}  # fmt: skip


def check_mixture(given: dict[str, Any], result: Any) -> None:
    nll, of_noise = floats(given["nll"], None, None), floats(given["of_noise"], None, None)
    where = given["is_target"]
    confirm(isinstance(where, torch.Tensor) and where.dtype == torch.bool, "no mask")
    where = where.numpy()
    confirm(nll.shape == of_noise.shape == where.shape, "shapes")
    alpha = given["alpha"]
    if isinstance(alpha, torch.Tensor):
        alpha = floats(alpha)
        confirm(alpha.size == 1 and 0 <= alpha.reshape(-1)[0] <= 1, "alpha")
        alpha = alpha.reshape(-1)[0]
    else:
        alpha = inside(alpha, 0, 1, "[)")
    with np.errstate(all="ignore"):
        rows = -np.logaddexp(np.log1p(-alpha) - np.where(where, nll, 0).sum(-1),
                             np.log(alpha) - np.where(where, of_noise, 0).sum(-1))  # fmt: skip
        near(given, result, np.where(where, (rows / np.maximum(where.sum(-1), 1))[:, None], 0))


def check_table(given: dict[str, Any], result: Any) -> None:
    p, v = reals(given["probabilities"], 1), whole(given["vocab_size"], 1, 2**24)
    confirm(len(p) <= v and (p >= 0).all() and (p <= 1).all(), "probabilities")
    with np.errstate(divide="ignore"):
        close(result, -np.log(np.concatenate([p, np.zeros(v - len(p))])), 1e-5)


def make_odds(draw: np.random.Generator) -> dict[str, Any]:
    odds = draw.normal(2, 5, 30)
    return {"log_odds": pick(draw, odds, odds.tolist(), np.append(odds, math.inf)), "confidence": pick(draw, 0.95, 0.5)}


def check_share(given: dict[str, Any], found: Any) -> None:
    odds, confidence = reals(given["log_odds"], 1), inside(given["confidence"], 0, 1, "()")
    confirm(odds.size and not np.isnan(odds).any(), "odds")
    confirm(found.n == odds.size and found.confidence == confidence, "what was asked")
    confirm(0 <= found.low <= found.value <= found.high <= 1, "order")
    if np.isfinite(odds).all() and (np.abs(odds) < 50).all():
        def likelihood(alpha: float) -> float:
            return np.log((1 - alpha) + alpha * np.exp(-odds)).sum()

        best = max(likelihood(alpha) for alpha in np.linspace(0, 0.999, 200))
        confirm(likelihood(found.value) >= best - 1e-4, "not the likeliest")
        drops = [likelihood(found.value) - likelihood(end) for end in (found.low, found.high) if 1e-9 < end < 1 - 1e-9]
        from scipy.stats import chi2

        close(drops, np.full(len(drops), chi2.ppf(confidence, 1) / 2), 1e-3)


# ---- objectives


def some(name: str, *values: Any, **others: tuple[Any, ...]) -> Any:
    return lambda draw: {key: pick(draw, *given) for key, given in {name: values, **others}.items()}


def fields_of(cls: type, read: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: how(given.get(name, getattr(cls(), name))) for name, how in read.items()}


def share_or(*words: str) -> Any:
    return lambda value: text(value, *words) if isinstance(value, str) else inside(value, 0, 1, "[)")


SHARE = functools.partial(inside, low=0, high=1, ends="[)")
FIELDS = {
    GCE: {"q": functools.partial(inside, low=0, high=1, ends="[]")}, Smoothed: {"smoothing": SHARE},
    Truncated: {"fraction": SHARE, "drops": lambda value: text(value, "tokens", "rows"), "start": SHARE,
                "memory": lambda value: whole(value, 1, 1 << 15)},
    ErrorNorm: {"threshold": functools.partial(inside, low=0, high=ROOT, ends="(]"), "start": SHARE},
    DocumentMixture: {"alpha": share_or("known", "learned"), "noise": lambda value: text(value, "known", "unigram"),
                      "start": SHARE},
    SequenceMixture: {"error_rate": share_or("known", "learned"),
                      "other": lambda value: text(value, "teacher", "unigram", "learned"),
                      "evidence": lambda value: text(value, "auto", "scores", "likelihood"), "start": SHARE,
                      "memory": lambda value: whole(value, 1, 1 << 15)},
    ELR: {"beta": SHARE, "lam": functools.partial(inside, low=0, high=math.inf, ends="[)")},
    CoTeaching: {"forget_rate": share_or("known"), "warmup": SHARE,
                 "peer": lambda value: text(value, "head", "network"),
                 "seed": lambda value: whole(value, 0, 2**63 - 1)},
}  # fmt: skip
#: As `bad_calls_objectives.KINDS` has them.
PEERS = {
    GCE: (some("q", 0, 0.3), functools.partial(fields_of, GCE, FIELDS[GCE])),
    Smoothed: (some("smoothing", 0, 0.3), functools.partial(fields_of, Smoothed, FIELDS[Smoothed])),
    Truncated: (some("fraction", 0, 0.3, drops=("tokens", "rows"), start=(0, 0.5), memory=(1, 7)),
                functools.partial(fields_of, Truncated, FIELDS[Truncated])),
    ErrorNorm: (some("threshold", 1, 1.3, start=(0, 0.5)), functools.partial(fields_of, ErrorNorm, FIELDS[ErrorNorm])),
    DocumentMixture: (some("alpha", "known", "learned", 0.1, noise=("known", "unigram"), start=(0, 0.5)),
                      functools.partial(fields_of, DocumentMixture, FIELDS[DocumentMixture])),
    SequenceMixture: (some("error_rate", "known", "learned", 0.1, other=("teacher", "unigram", "learned"),
                           evidence=("auto",), start=(0, 0.5), memory=(1, 7)),
                      functools.partial(fields_of, SequenceMixture, FIELDS[SequenceMixture])),
    ELR: (some("beta", 0, 0.7, lam=(0, 3.0)), functools.partial(fields_of, ELR, FIELDS[ELR])),
    CoTeaching: (some("forget_rate", "known", 0.2, warmup=(0, 0.1), peer=("head", "network"), seed=(0, 5)),
                 functools.partial(fields_of, CoTeaching, FIELDS[CoTeaching])),
}  # fmt: skip

TARGETS = [
    Target("losses.generalised_cross_entropy", generalised_cross_entropy, make_gce, check_gce),
    Target("losses.smoothed_nll", smoothed_nll,
           lambda draw: {**make_logits(draw), "smoothing": pick(draw, 0, 0.1)}, check_smoothed),
    Target("losses.error_norms", error_norms, make_logits, check_norms),
    Target("losses.error_norm_nll", error_norm_nll,
           lambda draw: {**make_logits(draw), "threshold": pick(draw, 1, 1.2)}, check_norms),
    Target("losses.truncated_nll", truncated_nll, make_truncated, check_truncated),
    Target("losses.document_mixture_nll", document_mixture_nll, make_mixture, check_mixture),
    Target("losses.noise_table", noise_table,
           lambda draw: {"probabilities": draw.dirichlet(np.ones(4)), "vocab_size": pick(draw, 4, 7)}, check_table),
    Target("analysis.document_share", document_share, make_odds, check_share),
]  # fmt: skip
