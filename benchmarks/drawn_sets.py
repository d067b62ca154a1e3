"""Features and true labels of real data, and ways to draw wrong labels of them; for `drawn_labels.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.special import softmax
from scipy.stats import truncnorm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from hf_noise.noise import LabelFlips

__all__ = ["KINDS", "Audited", "drawn_sets", "given_labels", "weak_sets"]

TEXTS = ("trec-train", "bbc_news-all", "20newsgroups-train")
IMAGES = ("cifar10-train",)
WEAK = ("hausa_newsclass-train", "yoruba_newsclass-train")
#: Rows of a set, drawn once, and features: as an audit of a few thousand rows has them, in seconds.
ROWS, FEATURES = 2000, 64
#: Tokens of a text that a network reads.
TOKENS = 128
#: Spread of the rows' rates around the mean (Xia et al. 2020, algorithm 2).
SPREAD = 0.1


@dataclass(frozen=True)
class Audited:
    """Features [N, D] and true labels [N] of some rows; the given ones too where they are not drawn."""

    name: str
    features: np.ndarray
    clean: np.ndarray
    given: np.ndarray | None = None

    @property
    def classes(self) -> int:
        return int(self.clean.max()) + 1


def drawn_sets(data: Path | None, text_model: str | None, image_model: str | None) -> Iterator[Audited]:
    """The digits, and what the folder holds: texts by TF-IDF or by a network's features, images by a network's."""
    pixels, clean = load_digits(return_X_y=True)
    yield Audited("digits, pixels", pixels / 16, clean)
    for stem in TEXTS if data else ():
        if not (file := data / f"{stem}.parquet").is_file():
            continue
        texts, clean = _some_rows(file, "text")
        yield Audited(f"{stem.partition('-')[0]}, TF-IDF", _of_words(texts), clean)
        if text_model:
            yield Audited(f"{stem.partition('-')[0]}, network", _of_texts(texts, text_model), clean)
    for stem in IMAGES if data and image_model else ():
        if (file := data / f"{stem}.parquet").is_file():
            images, clean = _some_rows(file, "image")
            features = _of_images([one["bytes"] for one in images], image_model)
            yield Audited(f"{stem.partition('-')[0]}, network", features, clean)


def weak_sets(data: Path | None) -> Iterator[Audited]:
    """News titles whose labels come from lists of words, beside people's."""
    for stem in WEAK if data else ():
        if (file := data / f"{stem}.parquet").is_file():
            table = pq.read_table(file)
            features = _of_words(table["text"].to_pylist())
            clean, given = (table[name].to_numpy() for name in ("label", "weak_label"))
            yield Audited(stem.partition("_")[0], features, clean, given)


def _some_rows(file: Path, column: str) -> tuple[list[Any], np.ndarray]:
    table = pq.read_table(file, columns=[column, "label"])
    labels = table["label"].to_numpy()
    kept = np.random.default_rng(0).permutation(len(table))
    if column == "text":
        texts = table["text"].to_pylist()
        kept = np.array([row for row in kept if texts[row].strip()])
    kept = np.sort(kept[:ROWS])
    return table.take(kept)[column].to_pylist(), labels[kept]


def _of_words(texts: list[str]) -> np.ndarray:
    counts = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2)).fit_transform(texts)
    return TruncatedSVD(FEATURES, random_state=0).fit_transform(counts)


def _of_texts(texts: list[str], model: str) -> np.ndarray:
    from hf_noise.data.backbones import TextBackbone
    from hf_noise.data.features import extract_features

    found = extract_features(TextBackbone.load(model, pooling="mean", max_length=TOKENS), texts)
    return PCA(FEATURES, random_state=0).fit_transform(found.features)


def _of_images(images: list[bytes], model: str) -> np.ndarray:
    from hf_noise.data.backbones import ImageBackbone
    from hf_noise.data.features import extract_features

    found = extract_features(ImageBackbone.load(model), images)
    return PCA(FEATURES, random_state=0).fit_transform(found.features)


def _symmetric(one: Audited, rate: float, seed: int) -> np.ndarray:
    return _flipped(LabelFlips.symmetric(error_rate=rate, num_classes=one.classes, seed=seed), one)


def _cyclic(one: Audited, rate: float, seed: int) -> np.ndarray:
    return _flipped(LabelFlips.cyclic(error_rate=rate, num_classes=one.classes, seed=seed), one)


def _pairs(one: Audited, rate: float, seed: int) -> np.ndarray:
    """Of every second class to the one whose mean is nearest."""
    means = np.stack([one.features[one.clean == label].mean(axis=0) for label in range(one.classes)])
    apart = np.square(means[:, None] - means).sum(axis=2) + np.diag(np.full(one.classes, np.inf))
    nearest = {label: int(apart[label].argmin()) for label in range(0, one.classes, 2)}
    return _flipped(LabelFlips.pairs(nearest, error_rate=rate, num_classes=one.classes, seed=seed), one)


def _flipped(noise: LabelFlips, one: Audited) -> np.ndarray:
    return noise(one.clean, sample=np.arange(len(one.clean)), epoch=0)[0]


def _instance_dependent(one: Audited, rate: float, seed: int) -> np.ndarray:
    """Xia et al., "Part-dependent label noise", NeurIPS 2020, algorithm 2: a row's features decide where it goes."""
    draw, (n, width), rows = np.random.default_rng(seed), one.features.shape, np.arange(len(one.clean))
    rates = truncnorm(-rate / SPREAD, (1 - rate) / SPREAD, rate, SPREAD).rvs(n, random_state=draw)
    weights = draw.normal(size=(one.classes, width, one.classes))
    x = (one.features - one.features.mean(axis=0)) / one.features.std()
    scores = np.einsum("nd,ndc->nc", x, weights[one.clean])
    scores[rows, one.clean] = -np.inf
    p = rates[:, None] * softmax(scores, axis=1)
    p[rows, one.clean] = 1 - rates
    return (p.cumsum(axis=1) < draw.random(n)[:, None]).sum(axis=1).clip(0, one.classes - 1)


KINDS: dict[str, Callable[[Audited, float, int], np.ndarray]] = {
    "symmetric": _symmetric, "cyclic": _cyclic, "pairs": _pairs, "instance-dependent": _instance_dependent,
}  # fmt: skip


def given_labels(kind: str, one: Audited, rate: float, seed: int) -> np.ndarray:
    """Labels [N] of which about this share, of the listed classes for pairs, is wrong."""
    return KINDS[kind](one, rate, seed)
