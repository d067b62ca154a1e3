"""The filter that every text file passes on its way to the Hub, as cards do: for credentials and local folders.

It knows credentials by their names and by the forms of known services' tokens, see `hf_noise.reports.secrets`; what has
neither stays. What a filter must not touch is refused instead: a vocabulary or a template with another text in it is
another model.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from safetensors import SafetensorError, safe_open

from hf_noise.hub.contents import TOKENIZER
from hf_noise.reports.secrets import (
    REMOVED,
    credential,
    is_secret_name,
    is_secret_pair,
    portable,
    scrubbed,
    without_secret_arguments,
)

__all__ = ["filtered", "local_base"]

logger = logging.getLogger(__name__)

#: The files of a tokenizer that are settings and not text to learn or to write.
_SETTINGS = ("tokenizer_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
             "processor_config.json", "audio_tokenizer_config.json")  # fmt: skip
# Text that the model reads or writes, wherever it stands in a configuration: class names, pieces, templates.
_CONTENTS = ("id2label", "label2id", "added_tokens_decoder", "chat_template", "chat_templates", "extra_special_tokens",
             "additional_special_tokens", "weight_map")  # fmt: skip
_PATH = re.compile(r"[~/\\]|\.{1,2}[\\/]|[A-Za-z]:[\\/]|file:")
_PIECE = re.compile(r"[<\[{|].*[>\]}|]", re.DOTALL)  # `<|user|>`, the text of a `user_token`
_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w.~+/=-]{10,}")
_YAML_TEXT = "tag:yaml.org,2002:str"
#: How files that are no text begin.
_BEGINNINGS = {".parquet": b"PAR1", ".png": b"\x89PNG", ".gif": b"GIF8", ".webp": b"RIFF"} | dict.fromkeys(
    (".jpg", ".jpeg"), b"\xff\xd8\xff"
)
_NOTHING_PUSHED = (
    "What a model reads is not changed on its way, so nothing was pushed; save it again without"
)
_LARGEST = 256 << 20  # bytes of a text file


def filtered(name: str, path: Path) -> Path | bytes:
    """A file as it may be published: the path of a file that stays as it is, else its new content.

    - JSON: values under the name of a credential go, and text in others loses credentials and local folders. Class
      names, special tokens and templates stay.
    - vocabularies, merges, templates, sentencepiece models, weights: unchanged, and refused if they hold an access
      token, or text under the name of a credential.
    - README.md and other text: credentials and local folders go, in the metadata at its head by their keys.
    - pictures and Parquet: unchanged, and refused if they begin like none.

    What was removed is logged by file and key.

    Raises:
        ValueError: the file is no JSON, text, picture or Parquet although its name says so, or a vocabulary or weights
            hold a credential.
    """
    base = name.rpartition("/")[2]
    if base.endswith(".safetensors"):
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}  # texts as well
        except SafetensorError as error:
            raise ValueError(f"{name} is half-written or no safetensors file ({error}); save it again") from None
        _untouched(name, path, json.dumps(metadata))
        _refuse_named(name, metadata.items())
        if hiding := [key for key, value in metadata.items() if REMOVED in scrubbed(value)]:
            raise ValueError(f"{name} has a credential within its key {hiding[0]!r}. {_NOTHING_PUSHED} it")
        return path
    if base.lower().endswith(tuple(_BEGINNINGS)):
        with path.open("rb") as file:
            begins = file.read(16)
        if not begins.startswith(_BEGINNINGS["." + base.lower().rpartition(".")[2]]):
            raise ValueError(f"{name} begins with {begins!r}, not as its name says; remove it or its mention")
        return path
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{name} has {path.stat().st_size:,} bytes, too many for a text file; remove it")
    content = path.read_bytes()
    if base in TOKENIZER and base not in _SETTINGS or base.endswith(".jinja"):
        text = content.decode("utf-8", errors="replace")
        if base.endswith(".json"):
            _parsed(name, text, lambda pairs: _refuse_named(name, pairs))
        return _untouched(name, path, text)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no text in UTF-8 ({error}); write it again or remove it") from None
    if not base.endswith(".json"):
        cleaned = scrubbed(_without_secret_keys(name, text))
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
            f"{name} holds what looks like an access token ({found}). {_NOTHING_PUSHED} the token, and revoke that one"
        )
    return path


def _refuse_named(name: str, pairs: Iterable[tuple[str, Any]]) -> None:
    """Raise ValueError for text under the name of a credential, in what must not be changed."""
    for key, value in pairs:
        is_text = isinstance(value, str) and bool(value)
        # A vocabulary's piece may have the name "token".
        is_plain = key.lower() in ("key", "token") and is_text and not _RANDOM.fullmatch(value)
        if is_text and not is_plain and _is_secret(key, value, of_tokenizer=True):
            raise ValueError(f"{name} has the key {key!r}, which names a credential. {_NOTHING_PUSHED} that key")


def _without_secret_keys(name: str, text: str) -> str:
    """A card, or a file of YAML, without the values of the keys in its metadata that are names of credentials."""
    head = REGEX_YAML_BLOCK.search(text)
    start, end = head.span(2) if head else (0, len(text) if name.endswith(".cff") else 0)
    before, metadata, after = text[:start], text[start:end], text[end:]
    try:
        spans = sorted(set(_secret_spans(yaml.compose(metadata, Loader=yaml.SafeLoader), set())), reverse=True)
    except (yaml.YAMLError, RecursionError):
        return text  # no metadata for any reader, and filtered as the text that it is
    for first, last, put in spans:
        value = metadata[first:last]
        metadata = f"{metadata[:first]}{put}{value[len(value.rstrip()) :]}{metadata[last:]}"
    try:
        yaml.compose(metadata, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:  # as for an alias of what was removed
        raise ValueError(
            f"the metadata of {name} hold a credential that cannot be taken out ({' '.join(str(error).split())}); "
            "remove it there"
        ) from None
    return f"{before}{metadata}{after}"


def _secret_spans(node: yaml.Node | None, seen: set[int]) -> Iterator[tuple[int, int, str]]:
    """Where the values of keys that are names of credentials stand, none within another, and what is put there."""
    if node is None or isinstance(node, yaml.ScalarNode) or id(node) in seen:
        return
    seen.add(id(node))  # an alias is another's place
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, part) for part in node.value]
    for key, value in pairs:
        is_named = isinstance(key, yaml.ScalarNode) and is_secret_name(key.value, of_tokenizer=True)
        if is_named and not (isinstance(value, yaml.ScalarNode) and value.tag != _YAML_TEXT):
            is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
            first = key.end_mark if is_block else value.start_mark
            yield first.index, value.end_mark.index, f": {REMOVED}" if is_block else REMOVED
        else:
            yield from _secret_spans(value, seen)


def _filtered_json(name: str, path: Path, text: str) -> Path | bytes:
    base = name.rpartition("/")[2]
    repeated: list[str] = []
    removed: list[str] = []

    def note(items: list[tuple[str, Any]]) -> None:
        if len(dict(items)) < len(items):  # the one that counts hides the others from the filter, not from readers
            repeated.append(next(key for i, (key, _) in enumerate(items) if key in dict(items[:i])))

    content = _parsed(name, text, note)
    cleaned = _clean(content, "", base in _SETTINGS, removed)
    if not removed and not repeated:
        return _untouched(name, path, text)
    logger.warning("%s: the published copy is without %s", name, ", ".join([*removed, *repeated]))
    kept = json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n"
    _untouched(name, path, kept)
    return kept.encode()


def _parsed(name: str, text: str, look_at: Callable[[list[tuple[str, Any]]], None]) -> Any:
    """The content of a JSON file, after `look_at` saw the pairs of each object in it, repeated keys too."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen.append(items)
        return dict(items)

    seen: list[list[tuple[str, Any]]] = []
    try:
        content = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is half-written or not JSON ({error}); save the checkpoint again") from None
    for items in seen:
        look_at(items)
    return content


def _clean(value: Any, where: str, of_tokenizer: bool, removed: list[str]) -> Any:
    """The value without credentials and local folders; `removed` takes the keys of what was left out or changed."""
    if isinstance(value, dict):
        kept = {}
        is_pair = is_secret_pair(value)
        for key, item in value.items():
            inner = f"{where}.{key}".lstrip(".")
            if any(_texts(item)) and (_is_secret(key, item, of_tokenizer) or (is_pair and key == "value")):
                removed.append(inner)
            elif key in _CONTENTS or (of_tokenizer and key.endswith(("_token", "content"))):
                kept[key] = item
            else:
                kept[key] = _clean(item, inner, of_tokenizer, removed)
        return kept
    if isinstance(value, list):
        arguments = without_secret_arguments(value)
        if len(arguments) < len(value):
            removed.append(f"{where} (a flag with a credential)")
        return [_clean(item, f"{where}[{i}]", of_tokenizer, removed) for i, item in enumerate(arguments)]
    if isinstance(value, str):
        cleaned = portable(value) if _PATH.match(value) and not re.search(r"\s", value) else scrubbed(value)
        if cleaned != value:
            removed.append(f"{where} ({'a credential' if REMOVED in cleaned else 'a local folder'})")
        return cleaned
    return value


def _is_secret(key: str, value: Any, of_tokenizer: bool) -> bool:
    """Whether the name is that of a credential. A model's `split_token` may be a piece of text: what is named without
    an owner, unlike `hub_token`, has to look like one as well."""
    if of_tokenizer and isinstance(value, str) and _PIECE.fullmatch(value):
        return False
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
