"""Wrong labels of images, by classifiers of noisy images beside others: ranks, rates and lists, in one table.

    python benchmarks/diffusion_audit.py [--data folder] [--quick] [--output benchmarks/results/diffusion_audit.json]

Each set of labels is audited by `choose_estimate` on the probabilities of logistic heads on pixels, of a small network,
and of the same network as a time-dependent classifier at several noise levels; out of fold, and in-sample for what that
does. cleanlab's normalized margin reads the same probabilities. The sets are the embedded digits with drawn noise, and
a few thousand rows of mnist-train.parquet and cifar10-train.parquet in --data or HF_NOISE_IMAGE_AUDITS, of which the
latter has people's labels. The truth is for the score alone. See benchmarks/README.md.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from compare import Report, arguments, clock, start
from label_audit import f1
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score

from hf_noise.audit import choose_estimate, cross_fitted_posterior, fit_time_classifier, time_posterior
from hf_noise.audit.diffusion import SIGMAS
from hf_noise.audit.out_of_fold import out_of_fold
from hf_noise.noise import LabelFlips

PLACE = "HF_NOISE_IMAGE_AUDITS"
LEVELS = (0.05, 0.2, 0.8)
MEAN, FAIR = f"mean of {', '.join(f'{level:g}' for level in SIGMAS)}", ", out of fold"
FOLDS, DRAWS = 3, 2
#: A level at which an image of 8 bits is what it was: the network without noise.
NO_NOISE = 1e-3
DRAWN = [(protocol, rate) for protocol in ("symmetric", "cyclic") for rate in (0.2, 0.4)]


@dataclass
class Images:
    """Of one set: uint8 [N, channels, H, W], given labels and true ones."""

    name: str
    pixels: torch.Tensor
    given: np.ndarray
    clean: np.ndarray


@dataclass
class Found:
    """What was read off one array of probabilities."""

    auroc: float
    precision: float
    rate: float
    low: float
    high: float
    f1: float
    warnings: int
    margin: float | None


def drawn(name: str, pixels: torch.Tensor, clean: np.ndarray, protocol: str, rate: float) -> Images:
    noise = LabelFlips.named(protocol, error_rate=rate, num_classes=10)
    given = noise(clean, sample=np.arange(len(clean)), epoch=0)[0]
    return Images(f"{name}, {protocol} {rate:g}", pixels, given, clean)


def digits() -> tuple[torch.Tensor, np.ndarray]:
    pixels, clean = load_digits(return_X_y=True)
    return torch.from_numpy((pixels * 255 / 16).round().astype(np.uint8)).view(-1, 1, 8, 8), clean


def stored(path: Path, rows: int, size: int) -> tuple[torch.Tensor, Any]:
    """The first images at this size, and their other columns."""
    from datasets import Dataset

    from hf_noise.trainers.images import decode_images

    data = Dataset(pq.read_table(path).slice(0, rows))
    channels = 1 if "mnist" in path.name else 3
    pixels = decode_images(data, "image", channels)
    return F.adaptive_avg_pool2d(pixels.float(), size).round().to(torch.uint8), data


def sets_of(folder: Path | None, quick: bool) -> Iterator[Images]:
    pixels, clean = digits()
    if quick:
        yield drawn("digits", pixels[:200], clean[:200], "symmetric", 0.2)
        return
    for protocol, rate in DRAWN:
        yield drawn("digits", pixels, clean, protocol, rate)
    if folder is None:
        return
    if (path := folder / "mnist-train.parquet").exists():
        pixels, data = stored(path, 3000, 16)
        yield drawn("MNIST", pixels, np.asarray(data["label"]), "symmetric", 0.4)
    if (path := folder / "cifar10-train.parquet").exists():
        pixels, data = stored(path, 3000, 16)
        for column in ("human_worse", "human_aggre"):
            yield Images(f"CIFAR-10, {column}", pixels, np.asarray(data[column]), np.asarray(data["label"]))


def read(given: np.ndarray, clean: np.ndarray, p: np.ndarray, peer: bool) -> Found:
    wrong, found, margin = given != clean, choose_estimate(given, p), None
    if peer:
        from cleanlab.rank import get_label_quality_scores

        margin = float(roc_auc_score(wrong, 1 - get_label_quality_scores(given, p, method="normalized_margin")))
    rate = found.error_rate
    return Found(
        roc_auc_score(wrong, found.p_wrong), average_precision_score(wrong, found.p_wrong), rate.value, rate.low,
        rate.high, f1(found.flagged(), wrong), len(found.warnings), margin,
    )  # fmt: skip


def kept(fit: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    """`fit`, which trains once on the same rows."""
    known: dict[bytes, Any] = {}

    def asked(rows: np.ndarray) -> Any:
        if rows.tobytes() not in known:
            known[rows.tobytes()] = fit(rows)
        return known[rows.tobytes()]

    return asked


def posteriors(images: Images, epochs: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, probabilities and seconds of each classifier."""
    pixels, given, everyone = images.pixels, images.given, np.arange(len(images.given))
    started = clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a weak ridge does not converge, and is not chosen
        heads = out_of_fold(_pooled(pixels), given, folds=FOLDS)
    yield f"logistic on pixels{FAIR}", heads, clock() - started

    def fit(rows: np.ndarray, **network: float) -> Any:
        return fit_time_classifier(pixels[rows], given[rows], epochs=epochs, sample_ids=rows, **network)

    plain = kept(lambda rows: fit(rows, P_mean=float(np.log(NO_NOISE)), P_std=0.01))
    noisy = kept(fit)
    one = {f"{level:g}": (level,) for level in LEVELS} | {MEAN: SIGMAS}
    cases = [("network without noise", plain, (NO_NOISE,), 1)]
    cases += [(f"time classifier, sigma {told}", noisy, levels, DRAWS) for told, levels in one.items()]
    for told, by, levels, draws in cases:
        started = clock()
        p = cross_fitted_posterior(pixels, given, fit=by, folds=FOLDS, sigmas=levels, draws=draws)
        yield f"{told}{FAIR}", p, clock() - started
        started = clock()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that is what is measured
            p = time_posterior(by(everyone), pixels, trained_on=everyone, sigmas=levels, draws=draws)
        yield f"{told}, in-sample", p, clock() - started


def _pooled(pixels: torch.Tensor) -> np.ndarray:
    """Pixels [N, D] of at most 8 x 8, of which five folds are fitted in seconds."""
    return F.adaptive_avg_pool2d(pixels.float(), 8).flatten(1).double().numpy() / 255


def add(report: Report, label: str, found: Found, true: float, seconds: float, is_fair: bool) -> None:
    """The figures of one classifier; without bars on what nobody should do but that it is told."""
    held, peer = float(found.low <= true <= found.high), found.margin is not None and is_fair
    report.add(f"{label}: AUROC", found.auroc, unit="",
               at_least=round(found.margin - 0.002, 4) if peer else None)  # fmt: skip
    report.add(f"{label}: AP", found.precision, unit="")
    report.add(f"{label}: rate", found.rate, unit=f"[{found.low:.4g}, {found.high:.4g}]")
    if is_fair:
        report.add(f"{label}: interval holds the rate", held, at_least=1, unit="")
    else:
        told = float(held or found.warnings > 0)
        report.add(f"{label}: interval holds the rate, or a warning", told, at_least=1, unit="")
    report.add(f"{label}: F1 of the list", found.f1, unit="")
    report.add(f"{label}: seconds", seconds, unit="s")


def table(found: dict[str, dict[str, Found]], true: dict[str, float]) -> str:
    """One row for each set and classifier."""
    lines = ["| labels | classifier | AUROC | AP | cleanlab's AUROC | rate | interval | F1 of the list |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, by in found.items():
        for told, one in by.items():
            margin = "-" if one.margin is None else f"{one.margin:.4f}"
            lines.append(f"| {name} ({true[name]:.1%} wrong) | {told} | {one.auroc:.4f} | {one.precision:.4f} | "
                         f"{margin} | {one.rate:.1%} | {one.low:.1%} to {one.high:.1%} | {one.f1:.3f} |")  # fmt: skip
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get(PLACE) or None,
                        help=f"folder of mnist-train.parquet and cifar10-train.parquet; or set {PLACE}")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=15, help="passes of each network over its rows")
    args = parser.parse_args(argv)
    start(args)
    peer = importlib.util.find_spec("cleanlab") is not None
    folder = None if args.data is None else Path(args.data)
    epochs = 2 if args.quick else args.epochs
    sets = list(sets_of(folder, args.quick))
    report = Report("Audit of image labels by a classifier of noisy images", {
        "sets": [images.name for images in sets], "cleanlab": peer, "epochs": epochs, "folds": FOLDS, "draws": DRAWS,
        "levels": list(LEVELS), "mean_of_levels": list(SIGMAS),
    })  # fmt: skip
    if not peer:
        print("cleanlab is not installed: nothing to compare with (pip install cleanlab==2.9.0)")
    found: dict[str, dict[str, Found]] = {}
    true = {images.name: float((images.given != images.clean).mean()) for images in sets}
    for images in sets:
        report.add(f"{images.name}: true rate", true[images.name], unit="")
        of_set = found.setdefault(images.name, {})
        for told, p, seconds in posteriors(images, epochs):
            of_set[told] = read(images.given, images.clean, p, peer)
            add(report, f"{images.name}: {told}", of_set[told], true[images.name], seconds, told.endswith(FAIR))
        beside = of_set[f"time classifier, sigma {MEAN}{FAIR}"].auroc
        report.add(f"{images.name}: AUROC of the time classifier less that of the network without noise",
                   beside - of_set[f"network without noise{FAIR}"].auroc, at_least=0, unit="")  # fmt: skip
    print(f"\n{table(found, true)}")
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
