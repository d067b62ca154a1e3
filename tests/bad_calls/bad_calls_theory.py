"""Bad calls to what theory says of noise documents, of flat minima and of the information in noisy labels."""

from __future__ import annotations

import math
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, flag, ints, number, reals, same, whole
from bad_values import pick
from scipy.special import entr

from hf_noise.analysis.flatness import (
    flatness_lower,
    flatness_upper,
    gradient_bound,
    head_smoothness,
    perturbation_radius,
)
from hf_noise.analysis.information import (
    channel_information_loss,
    conditional_entropy,
    independence_point,
    information_loss_slope,
    mutual_information,
    pac_sample_bound,
    relative_information_loss,
)
from hf_noise.analysis.ntp_theory import (
    bilingual,
    k_from_losses,
    k_lower_bound,
    mixture_loss,
    proposition1,
)

P, K, ALPHA, LOSS = (1e-100, 1.0), (1e-200, 1e200), (0.0, math.nextafter(1, 0)), (0.0, 230.0)


def within(value: Any, low: float, high: float) -> np.ndarray:
    values = reals(value)
    confirm(((values >= low) & (values <= high)).all(), f"outside [{low:g}, {high:g}]")
    return values


def together(*arrays: np.ndarray) -> list[np.ndarray]:
    return list(np.broadcast_arrays(*arrays))


def some(draw: np.random.Generator, *values: float) -> Any:
    """The values as an array, a list or a tensor, or the first of them alone."""
    return pick(draw, lambda x: x[0], np.array, list, lambda x: torch.tensor(x, dtype=torch.float64))(list(values))


# ---- Proposition 1


def make_proposition(draw: np.random.Generator) -> dict[str, Any]:
    return {"p_c": some(draw, 0.05, 0.1), "p_n": 2e-5, "alpha": some(draw, 0.05, 0.6), "k": some(draw, 100.0, 1.5)}


def confirm_proposition(found: Any, p_c: np.ndarray, p_n: np.ndarray, alpha: np.ndarray, k: np.ndarray) -> None:
    p_c, p_n, alpha, k = together(p_c, p_n, alpha, k)
    for name, value in {"p_c": p_c, "p_n": p_n, "alpha": alpha, "k": k}.items():
        same(getattr(found, name), value, name)
    eta = alpha * p_c - (1 - alpha) * k * p_n
    close(found.eta / p_c, eta / p_c, 1e-12)
    close(found.threshold, 1 / (1 + p_c / p_n / k), 1e-12)
    bounds, regimes = np.ravel(found.bound), np.ravel(found.regime)
    rows = zip(p_c.flat, p_n.flat, alpha.flat, k.flat, np.ravel(found.eta), bounds, regimes)
    for c, n, a, rate, best, bound, regime in rows:
        expected = "eta only"
        if best <= 0:
            expected = "never pays"
        elif a < 1 / 3 and rate * n > a * (1 - 3 * a) * c / ((1 - a) * (2 - 3 * a)):
            expected = "below 3 eta"
        elif a > 1 / 2 and rate * n > (2 * a - 1) * c / (2 * (1 - a)):
            expected = "below 2 eta"
        confirm(regime == expected, f"{regime}, not {expected}")
        times = {"never pays": 0, "below 3 eta": 3, "below 2 eta": 2, "eta only": math.nan}[expected]
        close(bound, times * best if times else times, 1e-12)


def check_proposition(given: dict[str, Any], found: Any) -> None:
    p_c, p_n, alpha = within(given["p_c"], *P), within(given["p_n"], *P), within(given["alpha"], *ALPHA)
    confirm_proposition(found, p_c, p_n, alpha, within(given["k"], *K))


def check_bilingual(given: dict[str, Any], found: Any) -> None:
    one, other = (np.exp(-within(given[name], *LOSS)) for name in ("loss_one", "loss_other"))
    confirm_proposition(found, one, other, within(given["alpha"], *ALPHA), within(given["k"], *K))


def of_eps(name: str) -> Any:
    return lambda eps: getattr(bilingual(), name)(eps)


def check_eps(name: str) -> Any:
    c, n, a = math.exp(-2.9), math.exp(-2.8), 0.55

    def expected(eps: float) -> float:
        if name == "noise_loss_drop":
            return math.log(1 + eps / n)
        if eps >= c:
            return math.inf if name == "clean_loss_rise" else -math.inf
        rise, drop = -math.log(1 - eps / c), math.log(1 + eps / n)
        told = {"f": a * drop - (1 - a) * rise, "derivative": a / (n + eps) - (1 - a) / (c - eps)}
        return told.get(name, rise)

    def check(given: dict[str, Any], found: Any) -> None:
        eps = within(given["eps"], 0, c)
        close(found, np.array([expected(one) for one in eps.flat]).reshape(eps.shape), 1e-9)

    return check


def check_k(given: dict[str, Any], found: Any) -> None:
    names = ("clean_star", "clean", "noise_star", "noise")
    cs, c, ns, n = together(*(within(given[name], *LOSS) for name in names))
    with np.errstate(all="ignore"):
        expected = np.where(ns > n, (np.exp(-cs) - np.exp(-c)) / (np.exp(-n) - np.exp(-ns)), np.nan)
    # Of losses that nearly agree the difference of two exponentials has no digits left; those have the right sign.
    plain = (np.abs(ns - n) > 1e-6) & (np.abs(c - cs) > 1e-6) & np.isfinite(expected)
    close(np.where(plain, found, 0), np.where(plain, expected, 0), 1e-6)
    confirm((np.isnan(found) == ~(ns > n)).all() and found.shape == c.shape, "NaN")
    confirm((np.sign(np.asarray(found)[ns > n]) == np.sign(c - cs)[ns > n]).all(), "sign")


def check_k_bound(given: dict[str, Any], found: Any) -> None:
    cs, c, n = together(*(within(given[name], *LOSS) for name in ("clean_star", "clean", "noise")))
    close(found, np.where(c >= cs, np.exp(n) * np.exp(-c) * (c - cs), np.nan), 1e-9)


def check_mixture(given: dict[str, Any], found: Any) -> None:
    alpha = within(given["alpha"], *ALPHA)
    a, c, n = together(alpha, *(within(given[name], *LOSS) for name in ("loss_clean", "loss_noise")))
    close(found, c + a * (n - c), 1e-12)


# ---- Proposition 2


def make_head(draw: np.random.Generator) -> dict[str, Any]:
    labels = pick(draw, np.array, list, torch.tensor)([0, 2, 1, 0])
    return {"weight": draw.normal(size=(3, 2)), "bias": draw.normal(size=3), "features": draw.normal(size=(4, 2)),
            "labels": labels, "rho": 0.5, "num_steps": 10}  # fmt: skip


def matrix(value: Any) -> np.ndarray:
    values = within(value, -1e100, 1e100)
    confirm(values.ndim == 2 and values.size > 0, "a matrix")
    return values


def amount(value: Any) -> float:
    confirm(0 <= number(value) <= 1e100, "an amount")
    return float(value)


def check_lower(given: dict[str, Any], found: Any) -> None:
    weight, features, bias = matrix(given["weight"]), matrix(given["features"]), reals(given["bias"], 1)
    labels, rho = ints(given["labels"], 1), amount(given["rho"])
    whole(given["num_steps"], 1, 2**20)
    confirm(weight.shape[1] == features.shape[1] and bias.shape == (len(weight),), "shapes")
    confirm(labels.shape == (len(features),) and all(0 <= y < len(weight) for y in labels), "labels")
    confirm(np.isfinite(bias).all() and isinstance(found, float) and found >= 0, "bias")
    confirm(rho > 0 or found == 0, "without perturbation")
    if max(np.abs(bias).max(), np.abs(features).max()) > 1e6:  # beside which no rise has digits left
        return
    if np.abs(weight).max() < 1e10 and np.abs(features).max() < 1e10 and rho < 1e10:
        confirm(found <= math.sqrt(2) * np.linalg.norm(weight, 2) * rho * (1 + 1e-9) + 1e-9, "above Lipschitz")
    angles = np.linspace(0, 2 * math.pi, 720)
    if features.shape[1] == 2 and given["num_steps"] == 10 and rho == 0.5 and np.abs(weight).max() < 4:
        rises = []
        for t, y in zip(features, labels):
            at = t + rho * np.stack([np.cos(angles), np.sin(angles)], 1)
            rises.append(max(nll(x, weight, bias, y) for x in at) - nll(t, weight, bias, y))
        confirm(0.8 * np.mean(rises) - 1e-9 <= found <= np.mean(rises) + 1e-3, "the largest rise")


def nll(t: np.ndarray, weight: np.ndarray, bias: np.ndarray, label: int) -> float:
    logits = weight @ t + bias
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])


def check_upper(given: dict[str, Any], found: Any) -> None:
    weight = matrix(given["weight"])
    scale = np.abs(weight).max() or 1.0  # so that no square is too large for a float
    norm = math.sqrt(np.linalg.eigvalsh((weight / scale) @ (weight / scale).T).max()) * scale
    close(found, math.sqrt(2) * norm * amount(given["rho"]), 1e-6)


def check_smoothness(given: dict[str, Any], found: Any) -> None:
    features = matrix(given["features"])
    longest = max(math.hypot(*row) for row in features) + amount(given["rho"])
    close(found, (longest**2 + flag(given["has_bias"])) / 2, 1e-9)


def check_bound(given: dict[str, Any], found: Any) -> None:
    parts = [within(given[name], 0, 1e100) for name in ("beta", "cross_entropy", "flatness")]
    beta, loss, rise = together(*parts)
    close(found, 2 * (beta + loss) + rise, 1e-12)


def check_radius(given: dict[str, Any], found: Any) -> None:
    close(found, amount(given["gamma"]) * (whole(given["size"], 1, 2**40) ** 0.5 + 3), 1e-12)


# ---- information


def classes(value: Any) -> np.ndarray:
    n = ints(value)
    confirm(all(2 <= one <= 2**53 for one in n.flat), "classes")
    return n.astype(np.float64)


def check_loss(given: dict[str, Any], found: Any) -> None:
    p, n = together(within(given["error_rate"], 0, 1), classes(given["num_classes"]))
    close(found, (entr(p) + entr(1 - p) + p * np.log(n - 1)) / np.log(n), 1e-9)


def check_slope(given: dict[str, Any], found: Any) -> None:
    p, n = together(within(given["error_rate"], 0, 1), classes(given["num_classes"]))
    with np.errstate(divide="ignore"):
        close(found, (np.log(1 - p) + np.log(n - 1) - np.log(p)) / np.log(n), 1e-6)


def entropies(given: dict[str, Any]) -> tuple[float, float]:
    """H(true | observed) and H(true)."""
    transition = twin.matrix_of(given["transition"])
    prior = np.full(len(transition), 1 / len(transition)) if given["prior"] is None else reals(given["prior"], 1)
    confirm(prior.shape == (len(transition),) and (prior >= 0).all() and abs(prior.sum() - 1) <= 1e-6, "prior")
    joint = prior[:, None] * transition
    return entr(joint).sum() - entr(joint.sum(0)).sum(), entr(prior).sum()


def check_channel(given: dict[str, Any], found: Any) -> None:
    lost, total = entropies(given)
    confirm(total > 0, "no information")
    close(found, lost / total, 1e-5)


def check_lost(given: dict[str, Any], found: Any) -> None:
    close(found, entropies(given)[0], 1e-5)


def check_kept(given: dict[str, Any], found: Any) -> None:
    lost, total = entropies(given)
    close(found, total - lost, 1e-5)


def check_samples(given: dict[str, Any], found: Any) -> None:
    below = math.nextafter(1, 0)
    eps, delta = within(given["eps"], 1e-100, below), within(given["delta"], 1e-100, below)
    d, c0 = within(given["dimension"], 1e-100, 1e100), within(given["c0"], 1e-50, 1e50)
    eps, delta, d, e, c0 = together(eps, delta, d, within(given["error_rate"], 0, below), c0)
    close(found, c0 * (np.log(1 / delta) + d * np.log(1 / eps)) / eps / (1 - e), 1e-9)


def make_losses(draw: np.random.Generator) -> dict[str, Any]:
    return {"clean_star": 2.9, "clean": some(draw, 3.0, 2.95), "noise_star": 10.8, "noise": some(draw, 10.0, 10.9)}


CHANNEL = [[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]
WORDS = {
    "transition": ("transition matrix", "T"), "prior": ("the prior",), "labels": ("shapes", "bias"),
    **dict.fromkeys(("weight", "bias", "features"), ("shapes", "labels")),
}  # fmt: skip

TARGETS = [
    Target("analysis.proposition1", proposition1, make_proposition, check_proposition, weight=2),
    Target("analysis.bilingual", bilingual,
           lambda draw: {"loss_one": some(draw, 2.9, 2.0), "loss_other": 2.8, "alpha": 0.55, "k": 1.0},
           check_bilingual),
    *[Target(f"analysis.Proposition1.{name}", of_eps(name), lambda draw: {"eps": some(draw, 0.001, 0.05)},
             check_eps(name), weight=0.5) for name in ("f", "derivative", "clean_loss_rise", "noise_loss_drop")],
    Target("analysis.k_from_losses", k_from_losses, make_losses, check_k),
    Target("analysis.k_lower_bound", k_lower_bound,
           lambda draw: {name: value for name, value in make_losses(draw).items() if name != "noise_star"},
           check_k_bound),
    Target("analysis.mixture_loss", mixture_loss,
           lambda draw: {"alpha": 0.2, "loss_clean": some(draw, 3.0, 2.0), "loss_noise": 10.0}, check_mixture),
    Target("analysis.gradient_bound", gradient_bound,
           lambda draw: {"beta": some(draw, 1.0, 2.0), "cross_entropy": 0.5, "flatness": 0.1}, check_bound),
    Target("analysis.perturbation_radius", perturbation_radius, lambda draw: {"gamma": 0.01, "size": 768}, check_radius,
           weight=0.5),
    Target("analysis.head_smoothness", head_smoothness,
           lambda draw: {"features": draw.normal(size=(4, 3)), "rho": 0.1, "has_bias": True}, check_smoothness),
    Target("analysis.flatness_upper", flatness_upper,
           lambda draw: {"weight": draw.normal(size=(4, 3)), "rho": 0.1}, check_upper),
    Target("analysis.flatness_lower", flatness_lower, make_head, check_lower, WORDS),
    Target("analysis.relative_information_loss", relative_information_loss,
           lambda draw: {"error_rate": some(draw, 0.3, 0.5), "num_classes": pick(draw, 10, [2, 50257])}, check_loss),
    Target("analysis.information_loss_slope", information_loss_slope,
           lambda draw: {"error_rate": some(draw, 0.3, 0.5), "num_classes": pick(draw, 10, [2, 50257])}, check_slope),
    Target("analysis.independence_point", independence_point, lambda draw: {"num_classes": pick(draw, 10, [2, 50257])},
           lambda given, found: close(found, 1 - 1 / classes(given["num_classes"]), 1e-15), weight=0.5),
    Target("analysis.channel_information_loss", channel_information_loss,
           lambda draw: {"transition": CHANNEL, "prior": pick(draw, None, [0.2, 0.3, 0.5])}, check_channel, WORDS),
    Target("analysis.conditional_entropy", conditional_entropy,
           lambda draw: {"transition": CHANNEL, "prior": pick(draw, None, [0.2, 0.3, 0.5])}, check_lost, WORDS,
           weight=0.5),
    Target("analysis.mutual_information", mutual_information,
           lambda draw: {"transition": CHANNEL, "prior": pick(draw, None, [0.2, 0.3, 0.5])}, check_kept, WORDS,
           weight=0.5),
    Target("analysis.pac_sample_bound", pac_sample_bound,
           lambda draw: {"eps": some(draw, 0.1, 0.05), "delta": 0.01, "dimension": 50.0, "error_rate": 0.5, "c0": 1.0},
           check_samples),
]  # fmt: skip
