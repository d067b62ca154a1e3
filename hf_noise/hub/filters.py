"""The filter that every text file passes on its way to the Hub, as cards do: no credential, no local folder.

What a filter must not touch is refused instead: a vocabulary or a template with another text in it is another model.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hf_noise.hub.contents import IMAGES, TOKENIZER
from hf_noise.reports.secrets import REMOVED, credential, is_secret_name, portable, scrubbed

__all__ = ["filtered", "local_base"]

logger = logging.getLogger(__name__)

#: The files of a tokenizer that are settings and not text to learn or to write.
_SETTINGS = ("tokenizer_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
             "processor_config.json", "audio_tokenizer_config.json")  # fmt: skip
# Text that the model reads or writes, wherever it stands in a configuration: class names, pieces, templates.
_CONTENTS = ("id2label", "label2id", "added_tokens_decoder", "chat_template", "chat_templates", "extra_special_tokens",
             "additional_special_tokens", "weight_map")  # fmt: skip
_PATH = re.compile(r"[~/\\]|\.{1,2}[\\/]|[A-Za-z]:[\\/]|file:")
_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w.~+/=-]{10,}")
_LARGEST = 256 << 20  # bytes of a text file


def filtered(name: str, path: Path) -> Path | bytes:
    """A file as it may be published: the path of a file that stays as it is, else its new content.

    - JSON: values under the name of a credential go, and text in others loses credentials and local folders. Class
      names, special tokens and templates stay.
    - vocabularies, merges, templates, sentencepiece models: unchanged, and refused if they hold an access token.
    - README.md and other text: credentials and local folders go.

    What was removed is logged by file and key.

    Raises:
        ValueError: the file is no JSON or no text although its name says so, or a vocabulary holds an access token.
    """
    base = name.rpartition("/")[2]
    if base.endswith(".safetensors"):
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.dumps(file.metadata() or {})  # which is text as well
        except SafetensorError as error:
            raise ValueError(f"{name} is half-written or no safetensors file ({error}); save it again") from None
        return _untouched(name, path, header)
    if base.lower().endswith((".parquet", *IMAGES)):
        return path
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{name} has {path.stat().st_size:,} bytes, too many for a text file; remove it")
    content = path.read_bytes()
    if base in TOKENIZER and base not in _SETTINGS or base.endswith(".jinja"):
        return _untouched(name, path, content.decode("utf-8", errors="replace"))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no text in UTF-8 ({error}); write it again or remove it") from None
    if not base.endswith(".json"):
        cleaned = scrubbed(text)
        if cleaned != text:
            logger.warning("%s: credentials or local folders were taken out of the published copy", name)
        return path if cleaned == text else cleaned.encode()
    return _filtered_json(name, path, text)


def local_base(config: dict[str, Any]) -> str | None:
    """The base model of an adapter's configuration if it is a folder of this machine, which nobody else has."""
    base = config.get("base_model_name_or_path")
    return base if isinstance(base, str) and base and (_PATH.match(base) or Path(base).exists()) else None


def _untouched(name: str, path: Path, text: str) -> Path:
    if found := credential(text):
        raise ValueError(
            f"{name} holds what looks like an access token ({found}). What a model reads is not changed on its way, so "
            "nothing was pushed; save it again without the token, and revoke that one"
        )
    return path


def _filtered_json(name: str, path: Path, text: str) -> Path | bytes:
    base = name.rpartition("/")[2]
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) < len(items):  # the one that counts hides the others from the filter, not from readers
            repeated.append(next(key for i, (key, _) in enumerate(items) if key in dict(items[:i])))
        return dict(items)

    try:
        content = json.loads(text, object_pairs_hook=pairs)
        removed: list[str] = []
        cleaned = _clean(content, "", base in _SETTINGS, removed)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is half-written or not JSON ({error}); save the checkpoint again") from None
    if not removed and not repeated:
        return _untouched(name, path, text)
    logger.warning("%s: the published copy is without %s", name, ", ".join([*removed, *repeated]))
    kept = json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n"
    _untouched(name, path, kept)
    return kept.encode()


def _clean(value: Any, where: str, of_tokenizer: bool, removed: list[str]) -> Any:
    """The value without credentials and local folders; `removed` takes the keys of what was left out or changed."""
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            inner = f"{where}.{key}".lstrip(".")
            if any(_texts(item)) and _is_secret(key, item, of_tokenizer):
                removed.append(inner)
            elif key in _CONTENTS or (of_tokenizer and key.endswith(("_token", "content"))):
                kept[key] = item
            else:
                kept[key] = _clean(item, inner, of_tokenizer, removed)
        return kept
    if isinstance(value, list):
        return [_clean(item, f"{where}[{i}]", of_tokenizer, removed) for i, item in enumerate(value)]
    if isinstance(value, str):
        cleaned = portable(value) if _PATH.match(value) and not re.search(r"\s", value) else scrubbed(value)
        if cleaned != value:
            removed.append(f"{where} ({'a credential' if REMOVED in cleaned else 'a local folder'})")
        return cleaned
    return value


def _is_secret(key: str, value: Any, of_tokenizer: bool) -> bool:
    """Whether the name is that of a credential. A model's `split_token` may be a piece of text: what is named without
    an owner, unlike `hub_token`, has to look like one as well."""
    if is_secret_name(key, of_tokenizer=True):
        return True
    return not of_tokenizer and is_secret_name(key) and isinstance(value, str) and bool(_RANDOM.fullmatch(value))


def _texts(value: Any) -> Iterator[str]:
    """All text in a value: numbers, true and null are no credentials."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and value:
        yield value
