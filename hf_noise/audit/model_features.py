"""Features of a data set by a frozen network, made once and kept."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

__all__ = ["model_features"]


def model_features(model: str | os.PathLike, rows: Any, column: str | None) -> np.ndarray:
    """What a network makes of the images, or the mean over tokens that it makes of the texts, of a data set.

    Args:
        model: a folder, a Hub id or a name of timm's, as `TextBackbone.load` and `ImageBackbone.load` take it.
        rows: a `datasets.Dataset` with one column of images, or else one of texts.
        column: of its labels, which is not looked at.

    Returns:
        float32 [N, D]; kept in the cache of the package by weights and content, see `extract_features`.

    Raises:
        TypeError: the model is neither a path nor a name.
        ValueError: there is no data set, or none or several columns to look at; what `extract_features` refuses.
        OSError: there is no such network.
    """
    from datasets import Image, Value

    from hf_noise.data.backbones import ImageBackbone, TextBackbone, image_contents, text_contents
    from hf_noise.data.features import extract_features

    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be a folder, a Hub id or a name of timm's, got {model!r:.80}")
    if rows is None:
        raise ValueError(f"model={str(model)!r:.80} looks at texts or images, and labels were given as an array; audit "
                         "a data set, or give features")  # fmt: skip
    others = {name: of for name, of in rows.features.items() if name != column}
    images = [name for name, of in others.items() if isinstance(of, Image)]
    seen = images or [name for name, of in others.items() if isinstance(of, Value) and "string" in of.dtype]
    if len(seen) != 1:
        told = ", ".join(map(repr, seen)) or f"none among {', '.join(map(repr, rows.features))}"
        raise ValueError(f"a model looks at one column of images or texts, and there are {told}; remove_columns() the "
                         "others, or give features")  # fmt: skip
    if images:
        return extract_features(ImageBackbone.load(model), image_contents(rows, seen[0])).features
    texts = text_contents(rows, f"{{{seen[0]}}}")
    return extract_features(TextBackbone.load(model, pooling="mean"), texts).features
