"""Which weights and settings a network was read from, so that features of others are not taken for its own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["digest_of_files", "read_from"]

# Of a local folder, what its features depend on.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_SETTINGS = ("config.json", "adapter_config.json", "preprocessor_config.json", "processor_config.json",
             "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.codes",
             "*.model")  # fmt: skip


def read_from(name: str, revision: str | None, config: Any) -> dict[str, Any]:
    """The digest of a folder, or name and commit of a repository; of an adapter those of its base model, too.

    Args:
        name: folder, or repository on the Hub, of the network or of an adapter of peft.
        revision: that was asked for.
        config: of the network that transformers made; that of the base model where `name` is an adapter.

    Raises:
        ValueError: the settings of an adapter cannot be read, or name no base model.
    """
    from transformers.utils import find_adapter_config_file
    from transformers.utils.hub import extract_commit_hash

    commit = getattr(config, "_commit_hash", None)
    settings = find_adapter_config_file(name, revision=revision)
    if settings is None:
        return _place(name, commit or revision)
    found = _place(name, extract_commit_hash(settings, None) or revision)
    if os.path.isfile(os.path.join(name, "config.json")):  # a whole network and the adapter in one folder
        return found
    try:
        base = json.loads(Path(settings).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"adapter_config.json of {name} cannot be read: {error}") from error
    if not isinstance(base, str):
        raise ValueError(f"adapter_config.json of {name} names no base model; set base_model_name_or_path")
    return found | {"base": _place(base, commit or revision)}


def _place(name: str, commit: str | None) -> dict[str, Any]:
    folder = Path(name)
    if not folder.is_dir():
        return {"name": name, "revision": commit}
    return {"digest": digest_of_files(folder, (*_WEIGHTS, *_SETTINGS))[:32]}


def digest_of_files(folder: Path, patterns: Iterable[str]) -> str:
    """SHA-256 of the names and contents of those files of a folder, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
