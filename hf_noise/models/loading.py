"""Checkpoints loaded as a whole: a tensor that is missing, unknown or of another shape is an error, not a warning."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError

from hf_noise.models.checks import shown

__all__ = ["folder_of", "load_whole"]

#: What transformers and diffusers tell of a checkpoint that does not fit, and in which words this module says it.
_MISFITS = {
    "missing_keys": "missing",
    "unexpected_keys": "unknown to the network",
    "mismatched_keys": "of another shape",
    "error_msgs": "unreadable",
}
_NAMED = 3


def load_whole(from_pretrained: Callable[..., Any], name: str | os.PathLike, **kwargs: Any) -> Any:
    """`from_pretrained(name, **kwargs)`, if the checkpoint has just the tensors of the network that its config states.

    transformers and diffusers draw weights at random where a checkpoint has none, or leave them without values, and
    pass over tensors that the network has no place for. They say so in a warning.

    Args:
        from_pretrained: of a model class of diffusers or transformers, or of one of transformers' Auto classes.
        name: folder, or repository on the Hub.
        **kwargs: for `from_pretrained`; low_cpu_mem_usage=False, which changes no weight, is not handed on.

    Raises:
        ValueError: tensors are missing, unknown or of another shape, and the message names them; or
            ignore_mismatched_sizes=True, which asks for weights drawn at random.
        OSError: there is no checkpoint, or its file is cut or no safetensors; FileNotFoundError for a path that is not
            there, which cannot be the name of a repository.
        TypeError: name is neither a string nor a path.
    """
    folder_of(name)
    if kwargs.pop("ignore_mismatched_sizes", False):
        raise ValueError("ignore_mismatched_sizes=True would draw weights at random; leave it out")
    kwargs.pop("low_cpu_mem_usage", None)  # without it diffusers draws all weights first, and it is not seen which stay
    wants_info = kwargs.pop("output_loading_info", False)
    try:
        # Told to ignore shapes, transformers lists all that differ; diffusers raises at the first one all the same.
        model, info = from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs)
    except SafetensorError as error:
        raise OSError(f"the weights of {name} cannot be read ({error}); fetch or save them again") from error
    except ValueError as error:
        found = re.search(r"because (\S+) expected shape torch.Size\((.*?)\), but got torch.Size\((.*?)\)", str(error))
        if found is None:
            raise
        info = {"mismatched_keys": [(found[1], found[3], found[2])]}
        raise ValueError(_refusal(name, info)) from error
    # Of a checkpoint in several files, diffusers believes the list of what they hold.
    empty = {key for key, tensor in model.state_dict(keep_vars=True).items() if tensor.is_meta}
    info = {**info, "missing_keys": {*info["missing_keys"], *empty}}
    if any(info.get(kind) for kind in _MISFITS):
        raise ValueError(_refusal(name, info))
    return (model, info) if wants_info else model


def folder_of(name: str | os.PathLike) -> str | None:
    """The folder of this name, or None if there is none and it can be the name of a repository on the Hub.

    Raises:
        FileNotFoundError: it can be neither; the Hub is not asked.
        TypeError: it is neither a string nor a path.
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"a network is loaded from a folder or by the name of a repository, got {shown(name)}")
    folder = os.path.expanduser(os.fspath(name))
    if os.path.isdir(folder):
        return folder
    if isinstance(name, os.PathLike):
        raise FileNotFoundError(f"there is no folder {str(name)!r}; a repository is named by a string")
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise FileNotFoundError(f"{name!r} is no existing folder, and no repository: {error}") from None
    return None


def _refusal(name: str | os.PathLike, info: Mapping[str, Any]) -> str:
    found = [f"{_listed(info[kind])} {words}" for kind, words in _MISFITS.items() if info.get(kind)]
    return (
        f"{name} does not hold the weights of the network in its config: {'; '.join(found)}. Fetch or save it again; "
        "weights of a network that was not trained, or not as a whole, would tell nothing"
    )


def _listed(keys: Any) -> str:
    """How many tensors, and the first of them: names, or (name, shape in the file, shape in the network)."""
    words = sorted(
        key if isinstance(key, str) else f"{key[0]}: {_shape(key[1])} for {_shape(key[2])}" for key in keys
    )
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return f"{len(words)} tensor{'s' if len(words) > 1 else ''} ({', '.join(words[:_NAMED])}{more})"


def _shape(shape: Any) -> str:
    return shape if isinstance(shape, str) else str(list(shape))
