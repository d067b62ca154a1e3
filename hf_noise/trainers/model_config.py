"""What a trainer writes into a model's config, which checkpoints take along."""

from __future__ import annotations

import logging
from typing import Any

from hf_noise.noise import Noise

__all__ = ["drop_config", "keep_earlier_noise", "write_config"]

logger = logging.getLogger(__name__)

# Marks a model in memory whose config states what no training has been under yet, or this process's.
_STATED_HERE = "_hf_noise_stated_here"


def keep_earlier_noise(model: Any, noise: Noise) -> None:
    """Move the noise that a loaded model states, if it is another one than this, to `hf_noise_before` in its config.

    That is a list, the oldest first, in configs of transformers; those of diffusers have no place for it.
    """
    earlier, is_loaded = getattr(model.config, "hf_noise", None), not hasattr(model, _STATED_HERE)
    setattr(model, _STATED_HERE, True)
    if not is_loaded or earlier is None or earlier == noise.to_dict():
        return
    logger.warning(
        "the model was trained under another noise before (%s), and states that of this run from now on%s", earlier,
        "" if hasattr(model, "register_to_config") else "; the earlier one is kept in config.hf_noise_before",
    )  # fmt: skip
    if not hasattr(model, "register_to_config"):
        model.config.hf_noise_before = [*(getattr(model.config, "hf_noise_before", None) or []), earlier]


def write_config(model: Any, **values: Any) -> None:
    """Set values in the config of a model of transformers or diffusers, which checkpoints take along."""
    if hasattr(model, "register_to_config"):
        model.register_to_config(**values)
    else:
        for name, value in values.items():
            setattr(model.config, name, value)


def drop_config(model: Any, name: str) -> None:
    """Take a value out of the config of a model of transformers; those of diffusers hold what their class names."""
    if name in vars(model.config):
        delattr(model.config, name)
