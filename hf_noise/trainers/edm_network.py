"""What the EDM trainer adds to a network: a layer that is told of augmentation, and a moving average of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import TrainerCallback

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["Average", "Description", "check_embeddings"]


class Average(TrainerCallback):
    """Takes the weights of each optimiser step into the moving average."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        # A step whose float16 gradients overflowed was none: its weights are those of the step before.
        if not self.trainer.accelerator.optimizer_step_was_skipped:
            self.trainer.ema.step(self.trainer.published_parameters())


class Description(nn.Linear):
    """Adds what an image's augmentation was, [B, 9], to the network's embedding of the noise level while `telling`."""

    def __init__(self, unet: UNet2DModel):
        super().__init__(9, unet.time_embedding.linear_2.out_features, bias=False)
        nn.init.zeros_(self.weight)
        self.told: Tensor | None = None
        unet.time_embedding.register_forward_hook(self._add)

    @contextmanager
    def telling(self, described: Tensor | None) -> Iterator[None]:
        self.told = described
        try:
            yield
        finally:
            self.told = None

    def _add(self, module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        return embedded if self.told is None else embedded + self(self.told.to(embedded.dtype))


def check_embeddings(unet: UNet2DModel, classes: int, whose: str) -> None:
    """Refuse a network with an embedding for each class and none for images without a label."""
    if classes == unet.config.num_class_embeds:
        raise ValueError(
            f"{whose} {classes} classes, the model {classes - 1}: of its {classes} class embeddings the last is for "
            f"images without a label; make it with num_class_embeds = {classes + 1}"
        )

