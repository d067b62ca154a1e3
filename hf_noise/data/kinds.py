"""Which columns a noise can corrupt, and the columns that come of it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Features, List, Value

from hf_noise.data.added import MASK, SHARE, added_features
from hf_noise.noise import Noise

__all__ = ["SAMPLE_ID", "adds_rows", "check_id_type", "corrupted_features", "holds_labels", "holds_tokens"]

SAMPLE_ID = "sample_id"


def adds_rows(noise: Noise) -> bool:
    """Whether the noise stands in rows of its own, beside the clean ones."""
    return noise.unit == "documents" and not noise.is_drawn


def corrupted_features(features: Features, noise: Noise, column: str, sample_id: str = SAMPLE_ID) -> Features:
    """The features after `column` was corrupted by such a noise; raises ValueError if it cannot be."""
    if column not in features:
        raise ValueError(f"there is no column {column!r} to corrupt; the data set has {', '.join(map(repr, features))}")
    taken = [name for name in (f"clean_{column}", MASK, SHARE) if name in features]
    if taken:
        raise ValueError(
            f"column {column!r} is corrupted already: there is {' and '.join(map(repr, taken))}; corrupt the clean "
            "data instead, or remove or rename those columns"
        )
    mask = _mask_of(features[column], noise, column)
    if sample_id in features:
        check_id_type(features, sample_id)
    elif not sample_id.isprintable():
        raise ValueError(f"sample_id must be a name of printable characters, got {sample_id!r}")
    if adds_rows(noise):
        return added_features(features, noise, column, sample_id)
    beside = [name for name in noise.noisy_columns if name in features and name != column]
    if noise.unit == "documents" and beside:
        raise ValueError(
            f"{type(noise).__name__} is noise as context and as target, and beside column {column!r} there is "
            f"{', '.join(map(repr, beside))}, which would stay clean; remove it (a trainer takes input_ids for "
            "labels), or call dataset.map(noise, batched=True, with_indices=True)"
        )
    added = {f"clean_{column}": features[column], MASK: mask}
    ids = {} if sample_id in features else {sample_id: Value("int64")}
    return Features({**features, **ids, **added})


def check_id_type(features: Features, column: str) -> None:
    if not holds_labels(features[column]):  # any integers
        raise ValueError(f"sample ids must be integers, but column {column!r} holds {features[column]}")


def holds_labels(kind: Any) -> bool:
    """Whether a feature holds single labels: a `ClassLabel` or integers."""
    return isinstance(kind, ClassLabel) or isinstance(kind, Value) and pa.types.is_integer(kind.pa_type)


def holds_tokens(kind: Any) -> bool:
    """Whether a feature holds lists of integers."""
    inner = getattr(kind, "feature", None)
    return isinstance(inner, Value) and pa.types.is_integer(inner.pa_type)


def _mask_of(kind: Any, noise: Noise, column: str) -> Any:
    """The feature of the mask beside a column of this kind; raises ValueError if the noise is not for it."""
    if noise.unit == "labels":
        if not holds_labels(kind):
            raise ValueError(
                f"column {column!r} holds {kind}; label noise corrupts single labels, a ClassLabel or integers (text "
                f"becomes a ClassLabel by dataset.class_encode_column({column!r})) - lists of tokens take UniformTokens"
            )
        if isinstance(kind, ClassLabel) and kind.num_classes != noise.num_classes:
            raise ValueError(
                f"column {column!r} has {kind.num_classes} classes, and the noise num_classes={noise.num_classes}"
            )
        return Value("bool")
    if not holds_tokens(kind):
        raise ValueError(
            f"column {column!r} holds {kind}; this noise is for tokens, and only lists of integer tokens can be "
            "corrupted, such as List(Value('int32')) - single labels (ClassLabel) and integers take LabelFlips"
        )
    return List(Value("bool"), length=getattr(kind, "length", -1))
