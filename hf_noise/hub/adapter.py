"""Adapters of peft, from a folder or the Hub: on their base model, and with what they were trained on."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.utils import validate_repo_id

from hf_noise.hub.checkpoint import ADAPTER_CONFIG, NOISE_FILE, check_weights, stated_noise
from hf_noise.hub.errors import explained
from hf_noise.hub.reading import json_object
from hf_noise.objectives.base import objective_from_dict

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["load_adapter", "needs_peft"]

_FILES = (ADAPTER_CONFIG, "adapter_model*.safetensors", "adapter_model.safetensors.index.json", NOISE_FILE)
#: Task of an adapter -> class that loads its base model.
_LOADERS = {
    "SEQ_CLS": "AutoModelForSequenceClassification", "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM", "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering", "FEATURE_EXTRACTION": "AutoModel",
}  # fmt: skip
#: The weight that makes the logits, without what peft puts before its name.
_LAST_OF_HEADS = {
    ("classifier", "weight"), ("score", "weight"), ("logits_proj", "weight"), ("classifier", "out_proj", "weight"),
    ("classification_head", "out_proj", "weight"),
}  # fmt: skip
_NO_SAFETENSORS = re.compile(r"(no|a) file named .*safetensors")
# What can only be a folder: it begins with ~, /, ./, ../ or a drive.
_PATH = re.compile(r"[~/\\]|\.{1,2}[\\/]|[A-Za-z]:[\\/]")


def load_adapter(
    path_or_repo: str | os.PathLike,
    loader: Any = None,
    *,
    base_model: str | os.PathLike | None = None,
    is_trainable: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    **kwargs: Any,
) -> PeftModel:
    """An adapter of peft on its base model, with what it says of its noise, objective and classes in the config.

    `model.config.hf_noise` and `hf_noise_objective` are then what they are in a whole checkpoint; `hf_noise.load_noise`
    reads the noise alone, without any weights. Weights in pickle form are refused, of adapter and base model. The base
    model is of the revision that the adapter names. Where nobody says the classes, their number is that of the
    adapter's head.

    Args:
        path_or_repo: folder of the adapter, or "owner/name" on the Hub.
        loader: class of transformers that loads the base model; by default that of the adapter's task.
        base_model: folder or repository instead of the one that the adapter names, as where that one lies elsewhere.
        is_trainable: whether the adapter is to be trained on.
        revision, token, cache_dir: as in `huggingface_hub.snapshot_download`.
        **kwargs: for `loader.from_pretrained`; `use_safetensors=False` for a base model in pickle form that you trust.

    Raises:
        ModuleNotFoundError: peft is not installed.
        FileNotFoundError: there is no such adapter, a file of it is missing, or its base model is not there or has no
            safetensors; named.
        ValueError: a file is half-written or foreign, the adapter's task has no loader, or the adapter does not fit
            its base model.
        TypeError: this is no path.
        ConnectionError, PermissionError: see `hf_noise.hub.errors.explained`.
    """
    peft = needs_peft("loading an adapter")
    if not isinstance(path_or_repo, str | os.PathLike):
        raise TypeError(f'load_adapter takes a path or "owner/name", got {type(path_or_repo).__name__}')
    where = {"revision": revision, "token": token, "cache_dir": cache_dir}
    folder = _folder(path_or_repo, where)
    if not (folder / ADAPTER_CONFIG).is_file():
        raise FileNotFoundError(f"{path_or_repo} is no adapter: it has no {ADAPTER_CONFIG}")
    config = json_object(folder / ADAPTER_CONFIG)
    weights = check_weights(folder)
    beside = json_object(folder / NOISE_FILE) if (folder / NOISE_FILE).is_file() else {}
    stated = _stated(beside, folder / NOISE_FILE)
    loader = _loader(config, path_or_repo) if loader is None else loader
    config = config if base_model is None else {"base_model_name_or_path": os.fspath(base_model)}
    of_base = {"revision": _revision(config, path_or_repo), "token": token, "cache_dir": cache_dir}
    base = _base(config, path_or_repo, of_base)
    if (names := beside.get("id2label")) is not None:
        id2label = {int(number): name for number, name in names.items()}
        kwargs = {"id2label": id2label, "label2id": {name: number for number, name in id2label.items()}} | kwargs
    elif (size := _size_of_head(weights)) is not None and "id2label" not in kwargs:
        kwargs = {"num_labels": size} | kwargs
    network = _network(loader, base, path_or_repo, of_base | {"use_safetensors": True} | kwargs)
    for name, value in stated.items():
        setattr(network.config, name, value)
    try:
        with warnings.catch_warnings():  # it warns of weights that are then random
            warnings.filterwarnings("error", message=".*missing adapter keys")
            return peft.PeftModel.from_pretrained(network, str(folder), is_trainable=is_trainable)
    except (RuntimeError, KeyError, ValueError, UserWarning) as error:
        if type(error) not in (RuntimeError, KeyError, ValueError, UserWarning):  # such as memory that runs out
            raise
        said = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"the adapter {str(path_or_repo)!r} does not fit its base model {base!r}: {said:.400}; give "
                         "base_model= that which it was trained on, or save the adapter again") from error  # fmt: skip


def needs_peft(doing: str) -> Any:
    """The library, or a ModuleNotFoundError that says what to install."""
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'{doing} needs peft: pip install "hf_noise[peft]"') from error
    return peft


def _folder(path_or_repo: str | os.PathLike, where: Mapping[str, Any]) -> Path:
    path = Path(os.path.expanduser(os.fspath(path_or_repo)))
    if path.is_dir():
        return path
    if isinstance(path_or_repo, os.PathLike) or _PATH.match(path_or_repo):
        raise FileNotFoundError(f"there is no folder {str(path)!r} with an adapter")
    _check_name(path_or_repo, "is no existing folder with an adapter, and no repository on the Hub")
    with explained(path_or_repo, "loading the adapter", f"There is no folder {path_or_repo!r} here either"):
        return Path(snapshot_download(path_or_repo, allow_patterns=list(_FILES), **where))


def _check_name(name: str, otherwise: str) -> None:
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise FileNotFoundError(f"{name!r:.200} {otherwise}: {error!s:.300}") from None


def _stated(beside: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What goes into the model's config, once it is known to be what it should."""
    stated_noise(beside, path)
    if (names := beside.get("id2label")) is not None and not (
        isinstance(names, Mapping) and all(str(key).isdecimal() for key in names)
    ):
        raise ValueError(f"{path}: 'id2label' must name classes by number, got {names!r:.80}; save the adapter again")
    if (objective := beside.get("hf_noise_objective")) is not None:
        try:
            objective_from_dict(objective)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: 'hf_noise_objective' cannot be read: {error}") from error
    return {key: value for key, value in beside.items() if key.startswith("hf_noise")}


def _loader(config: Mapping[str, Any], adapter: Any) -> Any:
    import transformers

    task = config.get("task_type")
    if task not in _LOADERS:
        raise ValueError(f"the adapter {str(adapter)!r} has the task_type {task!r}, which is none of "
                         f"{', '.join(_LOADERS)}; give loader=, a class of transformers such as AutoModel")  # fmt: skip
    return getattr(transformers, _LOADERS[task])


def _revision(config: Mapping[str, Any], adapter: Any) -> str | None:
    """The revision of the base model that an adapter names, None for the newest."""
    revision = config.get("revision")
    if revision is not None and not isinstance(revision, str):
        raise ValueError(f"the adapter {str(adapter)!r} names revision={revision!r:.80} of its base model, which is no "
                         f"text; mend {ADAPTER_CONFIG}")  # fmt: skip
    return revision or None


def _size_of_head(weights: Sequence[Path]) -> int | None:
    """Classes of the head that is saved whole in an adapter's files, of their headers; None if there is none."""
    from safetensors import safe_open

    for path in weights:
        if path.suffix != ".safetensors":
            continue
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                parts = [part for part in key.split(".") if part not in ("base_model", "model", "modules_to_save")]
                if tuple(parts) in _LAST_OF_HEADS and len(shape := file.get_slice(key).get_shape()) == 2:
                    return shape[0]
    return None


def _network(loader: Any, base: str, adapter: Any, options: Mapping[str, Any]) -> Any:
    """The base model, of safetensors unless the caller says otherwise."""
    options = {name: value for name, value in options.items() if name != "revision" or value is not None}
    with explained(base, f"loading the base model of the adapter {str(adapter)!r},"):
        try:
            return loader.from_pretrained(base, **options)
        except OSError as error:
            if type(error) is not OSError or not _NO_SAFETENSORS.search(str(error)):
                raise
            lacks = error
    raise FileNotFoundError(f"{base!r}, the base model of the adapter {str(adapter)!r}, has no safetensors; weights in "
                            "pickle form may run any code and are not loaded: give base_model= one that has, or "
                            "use_safetensors=False if you trust it") from lacks  # fmt: skip


def _base(config: Mapping[str, Any], adapter: Any, where: Mapping[str, Any]) -> str:
    """The base model's folder or repository, once it is known to be there."""
    base, who = config.get("base_model_name_or_path"), f"the adapter {str(adapter)!r}"
    remedy = "give base_model= a folder or repository that has it"
    if not isinstance(base, str) or not base:
        raise FileNotFoundError(f"{who} does not say what model it is for: base_model_name_or_path={base!r}; {remedy}")
    path = Path(os.path.expanduser(base))
    if path.is_dir():
        return str(path)
    if _PATH.match(base):
        raise FileNotFoundError(f"{who} is for the model in {base!r}, and there is no such folder here; {remedy}")
    _check_name(base, f"is the base model of {who}, and neither a folder here nor a repository; {remedy}")
    try:
        with explained(base, f"loading the base model of {who},", f"There is no folder {base!r} here either; {remedy}"):
            hf_hub_download(base, "config.json", **where)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {remedy}") from error
    return base
