"""JSON and the metadata of cards that somebody else wrote: bounded in size and depth, errors named by file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import metadata_load
from huggingface_hub.repocard import REGEX_YAML_BLOCK

__all__ = ["card_metadata", "json_object"]

_LARGEST = 64 << 20  # bytes; a configuration or a card has thousands
_LARGEST_EXPANDED = 1 << 20  # values and letters of metadata with their aliases written out


def json_object(path: Path, what: str = "a configuration", remedy: str = "save the checkpoint again") -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: the file is half-written, too large or too deep, or holds something else.
    """
    _check_size(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise ValueError(f"{path} is half-written or not JSON ({error}); {remedy}") from error
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply for {what}; {remedy}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not {what}; {remedy}")
    return content


def card_metadata(path: Path) -> dict[str, Any]:
    """The metadata at the head of a card, empty without any. Only plain YAML is read: no tag makes an object.

    Raises:
        ValueError: the metadata are no YAML, no mapping, too large (also for aliases that repeat each other) or too
            deep, or the file is no text.
    """
    _check_size(path)
    try:
        _check_aliases(path.read_text(encoding="utf-8-sig"))
        return metadata_load(path) or {}
    except (yaml.YAMLError, ValueError) as error:  # of ValueError: UnicodeDecodeError, and the client's own
        said = " ".join(str(error).split())
        raise ValueError(f"the metadata at the head of {path} cannot be read ({said}); mend the YAML there") from error
    except RecursionError:
        raise ValueError(f"the metadata at the head of {path} are nested too deeply; mend the YAML there") from None


def _check_aliases(card: str) -> None:
    """Raise ValueError for a few lines of YAML whose aliases stand for more than any memory holds."""
    head = REGEX_YAML_BLOCK.search(card)
    if head is None or "*" not in head[2]:  # as most
        return
    sizes: dict[int, float] = {}

    def expanded(node: yaml.Node) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = float("inf")  # of one that holds itself
            parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            is_text = isinstance(node, yaml.ScalarNode)
            sizes[id(node)] = 1 + (len(parts) if is_text else sum(map(expanded, parts)))
        return sizes[id(node)]

    root = yaml.compose(head[2], Loader=yaml.SafeLoader)
    if root is not None and expanded(root) > _LARGEST_EXPANDED:
        raise ValueError("its aliases repeat each other without end, or nearly so")


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > _LARGEST:
        raise ValueError(f"{path} has {size:,} bytes, more than {_LARGEST:,}: no configuration or card has so many")
