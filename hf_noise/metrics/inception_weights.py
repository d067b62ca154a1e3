"""Which file holds Inception's weights, and whether it is the one that FID is named after."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from hf_noise.metrics.checks import check_path

__all__ = [
    "INCEPTION", "INCEPTION_FILE", "INCEPTION_SHA256", "digest_of", "features_name", "find_inception_weights",
    "inception_name", "read_weights",
]  # fmt: skip

#: File of the pytorch-fid release, and its SHA-256.
INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# The release's file first: of the others nobody can tell whether they hold its weights.
_HUB_FILES = (INCEPTION_FILE, Path(INCEPTION_FILE).with_suffix(".safetensors").name, "model.safetensors")
#: What its features are called if the file is the release's own.
INCEPTION = "Inception"


def find_inception_weights(where: str | os.PathLike | None = None) -> Path | None:
    """The file of Inception's weights, None if there is none at hand. Nothing is downloaded unless `where` is a Hub id.

    Args:
        where: a file (.safetensors or .pth), a folder that has one, or a Hub id "owner/name"; None looks where
            pytorch-fid keeps its own, in torch.hub's cache. The release's .pth comes before any other file.

    Raises:
        FileNotFoundError: `where` is given and there are no weights.
    """
    if where is None:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
        return next((path for path in (cached, cached.with_suffix(".safetensors")) if path.is_file()), None)
    path = check_path("where", where)
    if path.is_file():
        return path
    if path.is_dir():
        found = next((path / name for name in _HUB_FILES if (path / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{path} has none of {', '.join(_HUB_FILES)}")
        return found
    if str(where).count("/") != 1 or path.suffix in (".safetensors", ".pth"):
        raise FileNotFoundError(f"{where} is neither a file nor a folder nor a Hub id (owner/name)")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    missing: Exception | None = None
    for name in _HUB_FILES:
        try:
            return Path(hf_hub_download(str(where), name))
        except HFValidationError as error:
            raise FileNotFoundError(f"{where} is neither a file nor a folder nor a Hub id (owner/name)") from error
        except (EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError) as error:
            missing = error
    raise FileNotFoundError(
        f"{where}: there is no such file or folder here, and none of {', '.join(_HUB_FILES)} can be had from the Hub"
    ) from missing


def inception_name(path: str | os.PathLike) -> str:
    """What features of these weights are called: "Inception" if the file is that of pytorch-fid's release.

    Any other file, whatever its name, gives "Inception features (weights ...)" with the beginning of its SHA-256.

    Raises FileNotFoundError: there is no such file.
    """
    path = check_path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} of weights")
    return features_name(digest_of(path))


def features_name(digest: str) -> str:
    """What features of the weights in a file with this SHA-256 are called."""
    return INCEPTION if digest == INCEPTION_SHA256 else f"Inception features (weights {digest[:8]})"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Weights of a file; nothing in it is run."""
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path.name} cannot be read as weights: {error}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
