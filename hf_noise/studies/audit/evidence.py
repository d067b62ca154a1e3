"""What rows are judged by: features of a network, of words and letters or of pixels, and out-of-fold probabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from transformers import TrainingArguments

from hf_noise.audit.out_of_fold import out_of_fold
from hf_noise.data.backbones import image_contents
from hf_noise.data.feature_files import check_features, read_features, vectors_of
from hf_noise.data.features import extract_features, fingerprint_of
from hf_noise.data.reading import CorpusError
from hf_noise.studies.audit.data import AuditData, Part
from hf_noise.studies.audit.kept import kept_array
from hf_noise.studies.audit.study import PATCHES, Settings
from hf_noise.studies.audit.words import word_features
from hf_noise.studies.backbone import backbone_of
from hf_noise.studies.hashes import hash_of

__all__ = ["WORDS", "Evidence", "claim_of", "contents_of", "gather", "way_of"]

#: Pixels of a side up to which images are their own features: a network has nothing to look for in them.
_TINY = 16
#: What features of each way are, as record and card say it.
WORDS = {
    "model": "features of a network, by a logistic regression on them",
    "words": "TF-IDF of words and letters, reduced by a singular value decomposition, and a logistic regression on it",
    "patches": "a layer of filters that are typical patches of the images, and a logistic regression on it",
    "pixels": "pixels, and a logistic regression on them",
    "network": "a network that was trained here on the images, once for each fold",
    "features": "features that were given, and a logistic regression on them",
    "probabilities": "probabilities that were given",
}


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the audit is told.

    Attributes:
        way: a key of `WORDS`.
        probabilities: p(label = j | row) out of fold, float64 [N, C].
        features: float32 [N, D], None where there are none.
        test_features: those of the test rows, None without them.
        told: what the record says of it.
    """

    way: str
    probabilities: np.ndarray
    features: np.ndarray | None
    test_features: np.ndarray | None
    told: dict[str, Any]

    @property
    def words(self) -> str:
        return WORDS[self.way]

    @classmethod
    def of(
        cls, told: dict[str, Any], labels: np.ndarray, probabilities: np.ndarray, features: np.ndarray | None = None,
        test_features: np.ndarray | None = None,
    ) -> Evidence:  # fmt: skip
        """With how many of the labels it foretells beside what else is told."""
        told = told | {
            "agreement": float((probabilities.argmax(axis=1) == labels).mean()),
            "most_frequent": float(np.bincount(labels).max() / len(labels)),
        }
        return cls(told["way"], probabilities, features, test_features, told)


def way_of(settings: Settings, data: AuditData) -> str:
    """How rows are judged, see `WORDS`. Raises CorpusError: there is nothing to run a model on."""
    if settings.probabilities or settings.probability_columns:
        return "probabilities"
    if _has_features(settings):
        return "features"
    if settings.model is not None:
        return "model"
    if data.image is None:
        return "words"
    size = max(data.rows.table.select_columns([data.image])[0][data.image].size)
    return "pixels" if size <= _TINY else "patches" if settings.network == PATCHES else "network"


def _has_features(settings: Settings) -> bool:
    return bool(settings.features or settings.feature_column)


def claim_of(settings: Settings, data: AuditData) -> dict[str, Any]:
    """All that features and probabilities depend on: settings, labels, and what rows hold, as JSON has it."""
    told = {one.name: getattr(settings, one.name) for one in fields(settings) if one.metadata["in_result"]}
    way = way_of(settings, data)
    if way == "probabilities":
        content = hash_of(_given_probabilities(settings, data))
        if _has_features(settings):
            content += hash_of(_given_features(settings, data))
    else:
        content = hash_of(_given_features(settings, data)) if way == "features" else _content(data, data.rows)
    return told | data.identity | {"content": content}


def gather(
    settings: Settings, data: AuditData, args: TrainingArguments, claim: dict[str, Any]
) -> Evidence | None:
    """Features and probabilities, made or read where the folder has those of this claim.

    None on processes whose work ends with the features.
    """
    way, output = way_of(settings, data), Path(settings.output)
    key = hashlib.sha256(json.dumps(claim, sort_keys=True).encode()).hexdigest()[:32]
    told: dict[str, Any] = {"way": way, "words": WORDS[way], "folds": settings.folds}
    if way == "probabilities":
        found, features = _given_probabilities(settings, data), (None, None)
        if _has_features(settings):
            features = _kept_features(settings, data, "features", key)
        return Evidence.of(told | {"folds": None}, data.rows.labels, found, *features)
    if way == "network":
        from hf_noise.studies.audit.network import fold_probabilities, read_pictures

        pictures = read_pictures(data.rows.table, data.image, settings.network_size)
        found = fold_probabilities(settings, pictures, data.rows.labels, data.classes, args, key)
        told |= {"name": settings.network, "size": pictures.images.shape[-1]}
        return Evidence.of(told, data.rows.labels, found)
    made = _kept_features(settings, data, way, key)
    told |= {"name": settings.model or settings.features or settings.feature_column, "features": made[0].shape[1]}
    if args.process_index != 0:
        return None
    probabilities = kept_array(
        output / "probabilities.safetensors", key, is_alone=True,
        make=lambda: out_of_fold(made[0], data.rows.labels, folds=settings.folds, seed=settings.seed),
    )  # fmt: skip
    return Evidence.of(told, data.rows.labels, probabilities, *made)


def _kept_features(settings: Settings, data: AuditData, way: str, key: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Features of the rows, and of the test rows where training will want them."""
    test = data.test if settings.train else None
    if way == "features":
        rows = _given_features(settings, data)
        return rows, None if test is None else _given_test_features(settings, data, test, rows)
    made: dict[str, np.ndarray] = {}

    def make(name: str) -> Callable[[], np.ndarray]:
        def both() -> np.ndarray:
            if not made:
                made["features"], made["test"] = _features(settings, data, way, test)
            return made[name]

        return both

    output = Path(settings.output)
    rows = kept_array(output / "features.safetensors", key, make("features"))
    if test is None:
        return rows, None
    of_test = f"{key} {_content(data, test)}"
    return rows, kept_array(output / "test_features.safetensors", of_test, make("test"))


def _features(
    settings: Settings, data: AuditData, way: str, test: Part | None
) -> tuple[np.ndarray, np.ndarray | None]:
    if way == "words":
        return word_features(data.texts(), None if test is None else data.texts(test), settings.seed)
    if way in ("pixels", "patches"):
        return _of_pictures(settings, data, way, test)
    backbone = backbone_of(replace(settings, image_column=data.image), settings.model)
    found = [None if part is None else extract_features(backbone, _contents(data, part),
             batch_size=settings.extract_batch).features for part in (data.rows, test)]  # fmt: skip
    return found[0], found[1]


def _of_pictures(
    settings: Settings, data: AuditData, way: str, test: Part | None
) -> tuple[np.ndarray, np.ndarray | None]:
    from hf_noise.studies.audit.network import read_pictures
    from hf_noise.studies.audit.patches import patch_features

    pictures = read_pictures(data.rows.table, data.image, settings.network_size)
    of_test = None if test is None else read_pictures(test.table, data.image, 0, pictures).images
    if way == "patches":
        return patch_features(pictures.images, of_test, settings.seed)
    rows, of_test = (None if one is None else one.flatten(1).numpy().astype(np.float32) / 255
                     for one in (pictures.images, of_test))  # fmt: skip
    return rows, of_test


def _contents(data: AuditData, part: Part) -> Any:
    return image_contents(part.table, data.image) if data.image is not None else data.texts(part)


def _content(data: AuditData, part: Part) -> str:
    """A hash of the texts or images that rows are judged by."""
    return fingerprint_of(_contents(data, part))


def contents_of(settings: Settings, data: AuditData, part: Part | None = None) -> list[bytes]:
    """What tells a row from a copy of another, of the audited rows or of a part: a hash of what it is judged by.

    That is a text, without its case and its white space, an encoded image, or the vector that was given.
    """
    if _has_features(settings):
        found = _given_features(settings, data)
        found = found if part is None else _given_test_features(settings, data, part, found)
        contents = [(row + 0).tobytes() for row in found.astype(np.float32)]  # + 0, as zero has two signs
    elif data.image is not None:
        contents = image_contents((part or data.rows).table, data.image)
    else:
        contents = [" ".join(one.lower().split()).encode("utf-8", "surrogatepass") for one in data.texts(part)]
    return [hashlib.blake2b(one, digest_size=16).digest() for one in contents]


def _given_features(settings: Settings, data: AuditData) -> np.ndarray:
    if settings.feature_column is not None:
        return _vectors(data.rows, settings.feature_column, data)
    return _of_rows(read_features(settings.features), "features", settings.features, data)


def _given_test_features(settings: Settings, data: AuditData, test: Part, rows: np.ndarray) -> np.ndarray:
    if settings.feature_column is not None:
        return _vectors(test, settings.feature_column, data)
    if settings.test_features is None:
        raise CorpusError("--features are of the rows under audit; those with clean labels need --test_features")
    of_test = read_features(settings.test_features)
    if of_test.shape != (len(test), rows.shape[1]):
        raise CorpusError(f"{settings.test_features} is {list(of_test.shape)}, and {len(test)} test rows need features "
                          f"of {rows.shape[1]} numbers, as {settings.features} has")  # fmt: skip
    return of_test


def _vectors(part: Part, column: str, data: AuditData) -> np.ndarray:
    where = f"column {column!r} of {data.source}"
    return check_features(where, vectors_of(part.table.with_format("arrow")[:][column], where))


def _of_rows(found: np.ndarray, flag: str, path: str, data: AuditData) -> np.ndarray:
    """The rows of a file that are audited: all its rows are those of the split."""
    if len(found) != data.rows_of_split:
        raise CorpusError(f"--{flag} {path} has {len(found)} rows, and {data.split} has {data.rows_of_split}; they "
                          "have to be the same rows in the same order")  # fmt: skip
    return found[data.chosen]


def _given_probabilities(settings: Settings, data: AuditData) -> np.ndarray:
    """p(label = j) of a file or of columns, float64 [N, C], of the classes that are audited."""
    columns = settings.probability_columns
    if columns and len(columns) == 1:
        found = _vectors(data.rows, columns[0], data)
    elif columns:
        table = data.rows.table.with_format("arrow")[:]
        found = np.stack([_numbers(table[name], name, data) for name in columns], axis=1)
    else:
        found = _of_rows(_read_probabilities(settings.probabilities, data), "probabilities", settings.probabilities,
                         data)  # fmt: skip
    if found.shape[1] != len(data.classes):
        raise CorpusError(
            f"probabilities have {found.shape[1]} columns, and the labels {len(data.classes)} classes "
            f"({', '.join(data.classes[:10])}): one column for each class, in this order"
        )
    return found.astype(np.float64)


def _read_probabilities(path: str, data: AuditData) -> np.ndarray:
    """Of a Parquet file with a column named as each class these; of others what `read_features` reads."""
    place = Path(path).expanduser()
    if place.suffix.lower() == ".parquet" and place.is_file():
        names = pq.read_schema(place).names
        if set(data.classes) <= set(names):
            table = pq.read_table(place, columns=data.classes)
            return np.stack([_numbers(table[name], name, data) for name in data.classes], axis=1)
    return read_features(path)


def _numbers(column: Any, name: str, data: AuditData) -> np.ndarray:
    values = column.to_numpy()
    if values.dtype.kind not in "fiu":
        raise CorpusError(f"column {name!r} holds {column.type}, no probabilities of {data.source}")
    return values

