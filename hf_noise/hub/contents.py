"""What belongs to a checkpoint or a data set that is published. All else stays at home and is named in the log.

A list of what may go, not of what may not: `id_rsa`, `secrets.env` and whatever lies in the folder tomorrow are not on
it. Links are followed inside the folder alone, and inside the client's own cache, whose snapshots are links.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.utils import glob_translate

__all__ = ["ABOUT", "IMAGES", "MODEL", "TOKENIZER", "WEIGHTS", "checkpoint_files", "data_files", "is_pattern",
           "real_file"]  # fmt: skip

logger = logging.getLogger(__name__)

#: What tells of the contents.
ABOUT = ("README.md", "record.json", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "CITATION.cff")
#: Weights and their index, of transformers, diffusers and peft, whole or in shards, in any variant ("fp16").
WEIGHTS = re.compile(
    r"(?:model|diffusion_pytorch_model|adapter_model|pytorch_lora_weights)(?:\.[A-Za-z0-9_]+)?(?:-\d{5}-of-\d{5})?"
    r"(?:\.[A-Za-z0-9_]+)?\.safetensors(?:\.index(?:\.[A-Za-z0-9_]+)?\.json)?"
)
#: The configurations of a model, an adapter, a scheduler, and of what prepares their inputs.
MODEL = (
    "config.json", "generation_config.json", "model_index.json", "adapter_config.json", "hf_noise.json",
    "scheduler_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "audio_tokenizer_config.json",
)  # fmt: skip
#: A tokenizer of transformers, of any kind that it knows.
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "additional_chat_templates/*.jinja", "vocab.json", "vocab.txt", "merges.txt",
    "vocab-src.json", "vocab-tgt.json", "target_vocab.json", "entity_vocab.json", "normalizer.json", "byte_maps.json",
    "emoji.json", "word_shape.json", "word_pronunciation.json", "dict.txt", "bpe.codes", "prophetnet.tokenizer",
    "source.spm", "target.spm", "spiece.model", "spm.model", "spm_char.model", "sentencepiece.model",
    "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
#: Pictures, where the card shows them.
IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
# What a training run always leaves beside its checkpoint. It stays at home as well, but is no surprise.
_OF_TRAINING = (
    "*.bin", "*.pt", "*.pth", "*.pkl", "trainer_state.json", "run.json", "checkpoint-*/", "runs/", "logs/", "*.log",
    "*tfevents*", "hf_noise_state.safetensors", "*.npz", "*.jsonl", "__pycache__/", ".*", "*.tmp", "*.lock",
)  # fmt: skip
_SHOWN = re.compile(r"""!\[[^\]]*\]\(\s*<?([^)\s>]+)|<img\b[^>]*?\bsrc\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_NAMED_IN_LOG = 30  # files that a message names
_DEEPEST = 4  # folders below the one that is pushed


def checkpoint_files(folder: Path, config: Mapping[str, Any]) -> dict[str, Path]:
    """The files of a checkpoint, an adapter or a pipeline that belong to it: name in the repository -> real path.

    Args:
        config: what describes it; of a pipeline, its entries `[library, class]` are the components' folders.

    Raises:
        ValueError: a file that would belong to it is a link that leaves the folder, or no plain file.
    """
    components = {
        name for name, value in config.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
    }  # fmt: skip

    def holds_ours(parent: str) -> bool:
        # The second tokenizer of a processor, and the templates that a tokenizer has besides its first, lie apart.
        return parent in components or parent.endswith("tokenizer") or parent == "additional_chat_templates"

    def is_ours(name: str) -> bool:
        parent, _, base = name.rpartition("/")
        is_model = base in MODEL or bool(WEIGHTS.fullmatch(base))
        is_tokenizer = _matches(name, TOKENIZER) or bool(parent) and base in TOKENIZER
        return is_tokenizer or (is_model and parent in {"", *components}) or name in ABOUT

    return _belonging(folder, is_ours, holds_ours)


def data_files(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    """The files of a data set that belong to it: the card and what it shows, the tokenizer, and the Parquet files.

    Args:
        patterns: of the data files that the card lists, such as "r0.5/train-*", as `datasets` reads them: a `*` stays
            within a folder, `**` does not. Hidden files and folders (`.cache`, `__old`) are never among them.

    Raises:
        ValueError: as for `checkpoint_files`.
    """
    tokenizer = [f"tokenizer/{pattern}" for pattern in TOKENIZER]

    def holds_ours(parent: str) -> bool:
        depth = parent.count("/") + 1
        begun = [pattern.split("/") for pattern in patterns]
        return (
            any(name.startswith(f"{parent}/") for name in tokenizer)
            or any(len(parts) > depth and _is_listed(parent, "/".join(parts[:depth])) for parts in begun)
            or any("**" in parts[:depth] and _is_listed(parent, "**") for parts in begun)
        )

    def is_ours(name: str) -> bool:
        if name.endswith(".parquet"):
            return any(_is_listed(name, pattern) for pattern in patterns)
        return name in ABOUT or _matches(name, tokenizer)

    return _belonging(folder, is_ours, holds_ours)


def is_pattern(pattern: Any) -> bool:
    """Whether `datasets` reads files by it: a text, in which `**` stands for whole folders."""
    try:
        return bool(pattern) and isinstance(pattern, str) and bool(glob_translate(pattern))
    except ValueError:
        return False


def _is_listed(name: str, pattern: str) -> bool:
    is_hidden = any(part.startswith((".", "__")) for part in name.split("/"))
    return not is_hidden and bool(re.fullmatch(glob_translate(pattern), name))


def _begins(folder: str, names: Iterable[str]) -> bool:
    return any(name.startswith(folder) for name in names)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _belonging(
    folder: Path, is_ours: Callable[[str], bool], holds_ours: Callable[[str], bool]
) -> dict[str, Path]:
    root = folder.resolve()
    found, left = {}, []
    for name in _names(folder, holds_ours):
        if not name.endswith("/") and is_ours(name):
            found[name] = real_file(root, name)
        else:
            left.append(name)
    if "README.md" in found:
        shown = _shown(found["README.md"].read_text(encoding="utf-8", errors="replace"))
        found |= {name: real_file(root, name) for name in shown if os.path.lexists(root / name)}
    _log([name for name in left if name not in found and not (name[-1] == "/" and _begins(name, found))])
    return found


def real_file(root: Path, name: str) -> Path:
    """The plain file that `name` in the folder `root` means, links followed as long as they stay inside.

    Raises:
        ValueError: a link, of the file or of a folder above it, leaves `root`, leads nowhere or in a circle; or what is
            there is no plain file, such as a named pipe, whose reader would wait for ever.
    """
    path = root / name
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # 3.12 and before raise RuntimeError for a circle
        raise ValueError(f"{name!r} in {root} is a link that leads nowhere ({error}); copy a file there") from None
    if not (real.is_relative_to(root) or _is_in_cache(root, real)):
        raise ValueError(
            f"{name!r} in {root} is a link to {real}, outside of the folder, and is not published; "
            "copy the file there if it belongs to the checkpoint, else remove the link"
        )
    if not stat.S_ISREG(real.stat().st_mode):
        raise ValueError(f"{name!r} in {root} is no plain file and cannot be published; remove it")
    return real


def _is_in_cache(root: Path, real: Path) -> bool:
    """Whether this is a snapshot in the cache of huggingface_hub, which keeps the contents in `blobs` of that repo."""
    repo = root.parent.parent
    is_snapshot = root.parent.name == "snapshots" and re.match(r"(?:models|datasets)--", repo.name)
    return bool(is_snapshot) and real.parent == repo / "blobs"


def _names(folder: Path, holds_ours: Callable[[str], bool], above: str = "") -> Iterator[str]:
    """Files, and folders that are not looked into, with a slash at their end. No circle of links is walked in, because
    only so many names hold anything of ours."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = f"{above}{entry.name}"
        if not _is_folder(entry):
            yield name
        elif holds_ours(name) and name.count("/") < _DEEPEST:
            yield from _names(Path(entry.path), holds_ours, f"{name}/")
        else:
            yield f"{name}/"


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _shown(card: str) -> Iterator[str]:
    """The pictures of the folder that a card shows."""
    for markdown, html in _SHOWN.findall(card):
        name = (markdown or html).removeprefix("./")
        parts = PurePosixPath(name).parts
        is_inside = name and not name.startswith("/") and ".." not in parts and ":" not in name and "\\" not in name
        if is_inside and name.lower().endswith(IMAGES):
            yield "/".join(parts)


def _log(left: Sequence[str]) -> None:
    expected = [name for name in left if _matches(name, _OF_TRAINING)]
    for level, names in ((logging.INFO, expected), (logging.WARNING, [name for name in left if name not in expected])):
        if names:
            more = f" and {len(names) - _NAMED_IN_LOG} more" if len(names) > _NAMED_IN_LOG else ""
            logger.log(level, "left at home, no part of what is published: %s", ", ".join(names[:_NAMED_IN_LOG]) + more)
