"""The frozen network of a study, as its settings name it."""

from __future__ import annotations

from typing import Any

from hf_noise.data.backbones import ImageBackbone, TextBackbone

__all__ = ["backbone_of"]


def backbone_of(settings: Any, model: str) -> ImageBackbone | TextBackbone:
    """A network that makes features of the images of `settings.image_column`, of texts where that is None.

    Raises OSError and ValueError as `ImageBackbone.load` and `TextBackbone.load`.
    """
    dtype = "bfloat16" if settings.bf16 else "float32"
    if settings.image_column is not None:
        import hf_noise.models.image  # noqa: F401  (teaches transformers our own networks)

        return ImageBackbone.load(model, image_size=settings.image_size, dtype=dtype)
    return TextBackbone.load(model, pooling=settings.pooling, max_length=settings.max_length, dtype=dtype)
