"""The noise in what the stock Trainer writes: in its card, so that a plain `push_to_hub=True` tells of it too, and
beside an adapter, whose folder has no config.json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hf_noise.noise import Masking, Noise
from hf_noise.noise.block import noise_block, noise_sentence
from hf_noise.reports.markdown import text
from hf_noise.reports.record import write_atomic

__all__ = ["state_masking", "state_noise", "state_noise_of_adapter"]

_TITLE = "## Noise in the training data"
_MASKING = "## Masking"
_ADAPTER, _BESIDE, _OURS = "adapter_config.json", "hf_noise.json", "hf_noise"


def state_noise(path: Path, noise: Noise) -> None:
    """Add tags, the machine-readable `noise` block and a paragraph to the card at `path`; harmless twice."""
    card = ModelCard.load(path)
    block = noise_block(noise)
    card.data.tags = list(dict.fromkeys([*(card.data.tags or []), "hf_noise", "noisy-data", block["protocol"]]))
    card.data.noise = block
    if _TITLE not in card.text:
        card.text = f"{card.text.rstrip()}\n\n{_TITLE}\n\n{text(noise_sentence(block))}\n"
    card.save(path)


def state_masking(path: Path, masking: Masking) -> None:
    """Add a paragraph and the machine-readable `masking` to the card at `path`; harmless twice."""
    card = ModelCard.load(path)
    card.data.masking = masking.to_dict()
    if _MASKING not in card.text:
        card.text = f"{card.text.rstrip()}\n\n{_MASKING}\n\n{text(masking.sentence)}\n"
    card.save(path)


def state_noise_of_adapter(folder: str | os.PathLike, noise: Noise | None, model: Any = None) -> None:
    """Write hf_noise.json beside an adapter of peft, which `load_noise` reads; nothing where there is no adapter.

    Without noise it says what else a whole checkpoint's config would: objective and classes.

    peft saves the adapter and not the model's config, and drops, with a warning, keys of adapter_config.json that it
    does not know. An adapter of another name than "default" lies in a folder of that name.

    Args:
        model: with the config that a whole checkpoint would have: all keys of it that begin with "hf_noise", and the
            names of a classifier's classes, without which its base model cannot be loaded for them.
    """
    folders = [one for one in (Path(folder), *_folders(folder)) if (one / _ADAPTER).is_file()]
    if not folders:
        return
    config = model.config.to_dict() if hasattr(getattr(model, "config", None), "to_dict") else {}
    stated = {key: value for key, value in config.items() if key.startswith(_OURS)}
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if type(inner).__name__.endswith("Classification"):
        stated["id2label"] = {str(number): name for number, name in model.config.id2label.items()}
    if noise is not None:
        stated["hf_noise"] = noise.to_dict()
    for one in folders if stated else []:
        write_atomic(one / _BESIDE, json.dumps(stated, indent=2) + "\n")


def _folders(folder: str | os.PathLike) -> list[Path]:
    return sorted(path for path in Path(folder).glob("*") if path.is_dir() and not path.name.startswith("checkpoint-"))
