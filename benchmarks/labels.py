"""Label noise against the plain NumPy recipe, and against cleanlab where it is installed; used by noise.py."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from compare import Report, Spread, interleave, ratio

from hf_noise.noise import LabelFlips, counter
from hf_noise.noise.labels_torch import flip

#: Labels of ImageNet's training split.
IMAGENET = 1_281_167
CLASSES = (10, 100, 1000)
ERROR_RATE = 0.4


def recipe(labels: np.ndarray, num_classes: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What everybody writes: a random mask, and an offset of 1 .. C - 1 for the labels in it. -> (noisy, is_noisy)."""
    is_noisy = generator.random(labels.shape) < ERROR_RATE
    shifted = (labels + generator.integers(1, num_classes, size=labels.shape)) % num_classes
    return np.where(is_noisy, shifted, labels), is_noisy


def label_by_label(noise: LabelFlips, labels: np.ndarray, sample: np.ndarray) -> list[int]:
    """`noise(labels, sample)[0]` of symmetric flips from the counter's definition, one label after another."""
    key, noisy = counter.stream_key(noise.seed, noise.stream, 0), []
    for label, number in zip(labels.tolist(), sample.tolist()):
        word = counter.mix(key + (number + 1) * counter.GOLDEN)
        other = (word & (2**32 - 1)) * (noise.num_classes - 1) >> 32
        noisy.append(other + (other >= label) if (word >> 32) < noise.error_rate * 2**32 else label)
    return noisy


def random_matrix(num_classes: int, generator: np.random.Generator) -> np.ndarray:
    """A dense transition matrix with errors of all sizes and a mean error rate of ERROR_RATE, [C, C]."""
    errors = generator.gamma(0.5, size=(num_classes, num_classes))
    np.fill_diagonal(errors, 0)
    errors *= ERROR_RATE / errors.sum(axis=1, keepdims=True)
    return errors + np.eye(num_classes) * (1 - ERROR_RATE)


def measure_labels(report: Report, rounds: int, n: int = IMAGENET) -> None:
    """Realised rates, equality of all routes, and throughput at 10, 100 and 1000 classes."""
    generator = np.random.default_rng(0)
    for num_classes in CLASSES:
        labels, sample = generator.integers(num_classes, size=n), np.arange(n)
        noises = {
            "symmetric": LabelFlips.symmetric(error_rate=ERROR_RATE, num_classes=num_classes, seed=1),
            "cyclic": LabelFlips.cyclic(error_rate=ERROR_RATE, num_classes=num_classes, seed=1),
            "matrix": LabelFlips.from_transition(random_matrix(num_classes, generator), seed=1),
        }
        check(report, noises, labels, sample)
        time_all(report, noises, labels, sample, generator, rounds)


def check(report: Report, noises: dict[str, LabelFlips], labels: np.ndarray, sample: np.ndarray) -> None:
    """State that all routes draw the same and that each noise makes the asked share of labels wrong."""
    of = f"{noises['symmetric'].num_classes} classes"
    head = slice(0, 2000)
    slow = label_by_label(noises["symmetric"], labels[head], sample[head])
    noisy = noises["symmetric"](labels[head], sample[head])[0]
    report.equal(f"symmetric flips and their definition, {of}", noisy.tolist() == slow, "equal, 2000 labels at most")
    for name, noise in noises.items():
        noisy, is_noisy = noise(labels, sample)
        drawn, mask = noise(torch.from_numpy(labels), torch.from_numpy(sample))
        same = bool((noisy == drawn.numpy()).all() and (is_noisy == mask.numpy()).all())
        report.equal(f"NumPy and torch, {name}, {of}", same, f"bit-equal, {labels.size} labels")
        off = abs(is_noisy.mean() - ERROR_RATE) / math.sqrt(ERROR_RATE * (1 - ERROR_RATE) / labels.size)
        report.add(f"realised rate off the asked one, {name}, {of}", float(off), at_most=4.0, unit="standard errors")


def time_all(
    report: Report,
    noises: dict[str, LabelFlips],
    labels: np.ndarray,
    sample: np.ndarray,
    generator: np.random.Generator,
    rounds: int,
) -> None:
    """Throughput of each noise over that of the recipe."""
    num_classes = noises["symmetric"].num_classes
    tensor, of = torch.from_numpy(labels), f"{num_classes} classes"
    # Every call draws other noise, else the processor learns the mask by heart and predicts its branches.
    ids = itertools.cycle([sample + shift * labels.size for shift in range(8)])
    tensor_ids = itertools.cycle([torch.from_numpy(sample + shift * labels.size) for shift in range(8)])
    variants: dict[str, Callable] = {"recipe": lambda: recipe(labels, num_classes, generator)}
    for name, noise in noises.items():
        variants[name] = lambda noise=noise: noise(labels, next(ids))
    compiled = noises["symmetric"]
    variants["compiled"] = lambda: flip(compiled, tensor, next(tensor_ids), compiled=True)
    times = interleave(variants, rounds)
    report.add(f"recipe, int64, {of}", Spread.of(labels.size / times["recipe"] / 1e6), unit="Mlabel/s")
    bars = {"symmetric": 0.8 if num_classes != 100 else None, "matrix": 0.3 if num_classes == 10 else None}
    for name in noises:
        report.add(f"{name} / recipe, {of}", ratio(times["recipe"], times[name]), at_least=bars.get(name))
    report.add(f"symmetric, compiled / recipe, {of}", ratio(times["recipe"], times["compiled"]))
    if importlib.util.find_spec("cleanlab"):
        against_cleanlab(report, noises, labels, sample, rounds)


def against_cleanlab(
    report: Report, noises: dict[str, LabelFlips], labels: np.ndarray, sample: np.ndarray, rounds: int
) -> None:
    """Throughput over that of `cleanlab.benchmarking.noise_generation.generate_noisy_labels`, on fewer labels."""
    from cleanlab.benchmarking.noise_generation import generate_noisy_labels

    num_classes, n = noises["symmetric"].num_classes, min(labels.size, 200_000)
    labels, sample = labels[:n], sample[:n]
    for name, bar in (
        ("symmetric", 5.0 if num_classes == 10 else None),
        ("matrix", 2.5 if num_classes == 1000 else None),
    ):
        noise = noises[name]
        columns_clean = np.ascontiguousarray(noise.transition.T)
        times = interleave(
            {
                "cleanlab": lambda: generate_noisy_labels(labels, columns_clean),  # noqa: B023
                "ours": lambda: noise(labels, sample),  # noqa: B023
            },
            max(2, rounds // 3),
        )
        what = f"{name} / cleanlab, {n} labels, {num_classes} classes"
        report.add(what, ratio(times["cleanlab"], times["ours"]), at_least=bar)
        delivered = (generate_noisy_labels(labels, columns_clean) != labels).mean()
        report.add(
            f"rate that cleanlab delivers, asked {ERROR_RATE}, {name}, {num_classes} classes", float(delivered), unit=""
        )
