"""Which checkpoints of a run's folder are whole, what is wrong with the others, and which one to go on from."""

from __future__ import annotations

import json
import logging
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME

from hf_noise.atomic import fsync_folder
from hf_noise.trainers.folders import locked
from hf_noise.trainers.manifest import MANIFEST, STATE_FILE, Manifest, faults, read_manifest, write_manifest

__all__ = ["adopt", "check", "is_foreign", "last_complete_checkpoint", "newest", "next_order", "set_aside"]

logger = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_NO_MANIFEST = (
    f"it has no {MANIFEST}, so it was not written to its end, or before checkpoints had one; "
    "hf_noise.trainers.checkpoints.adopt(folder) takes it as it is, if you know that it is whole"
)
# What training goes on with, and the files that hold it: of the Trainer itself, of FSDP and of DeepSpeed.
_TO_RESUME = {
    "weights": ("model.safetensors", "model-*.safetensors", "adapter_model.safetensors", "pytorch_model*", "global_*"),
    "optimiser": ("optimizer.pt", "optimizer.bin", "optimizer_*", "global_*"),
    "scheduler": ("scheduler.pt", "global_*"),
    "random state": ("rng_state.pth", "rng_state_*.pth"),
}


@dataclass
class _Found:
    """The checkpoints of a folder: the newest one to go on from, and the unusable ones, each with the reason."""

    whole: Path | None = None
    broken: dict[Path, str] = field(default_factory=dict)
    others: dict[Path, str] = field(default_factory=dict)  # whole or not ours: left as they are


def last_complete_checkpoint(folder: str | Path) -> Path | None:
    """The newest `checkpoint-<step>` in a run's folder that is whole, None if there is none to go on from."""
    return _look(Path(folder)).whole


def newest(folder: Path, *, or_none: bool) -> Path | None:
    """The newest whole checkpoint of a folder that this process has locked; broken ones are renamed, none is deleted.

    Args:
        or_none: None if there is no whole one, and a warning if there are broken ones, instead of an error.

    Raises:
        ValueError: there is none to go on from; what is wrong with each.
    """
    found = _look(folder)
    wrong = [f"{path.name}: {reason}" for path, reason in (found.broken | found.others).items()]
    if found.whole is None and (found.others or not or_none):
        raise ValueError(
            f"{folder} holds no checkpoint to go on from"
            + "".join(f"; {one.rstrip('.')}" for one in wrong)
            + "; leave resume_from_checkpoint out to start anew, best in another folder"
        )
    for path, reason in found.broken.items():
        set_aside(path, reason)
    for path, reason in found.others.items():
        logger.warning("%s is passed over and left as it is: %s", path, reason)
    if wrong:
        what = f"goes on from {found.whole.name}" if found.whole else "starts anew, as no checkpoint is whole"
        logger.warning("%s: the run %s", folder, what)
    return found.whole


def check(checkpoint: str | Path, *, to_resume: bool = True) -> Manifest:
    """Refuse a checkpoint that is not whole, or not ours; returns what its manifest says.

    Args:
        to_resume: whether it must hold what training goes on with, or weights are enough.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: what is wrong with which file, and what to do.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder; give that of a checkpoint (checkpoint-<step>), or True for the last in output_dir"
        )
    try:
        manifest = read_manifest(folder)
        wrong = faults(folder, manifest)
    except FileNotFoundError:
        is_ours = (folder / STATE_FILE).is_file()
        raise ValueError(f"{folder}: {_NO_MANIFEST if is_ours else _foreign(folder)}") from None
    except ValueError as error:
        wrong = [str(error)]
    if wrong:
        raise ValueError(
            f"{folder} is broken: {'; '.join(wrong)}. Copy it again from where it is whole, or take an earlier one: "
            "resume_from_checkpoint=True goes on from the newest whole one in output_dir. If you changed it yourself, "
            "hf_noise.trainers.checkpoints.adopt(folder) takes it as it is"
        )
    if to_resume and not manifest.is_resumable:
        raise ValueError(f"{folder}: {_weights_only(folder)}")
    return manifest


def adopt(checkpoint: str | Path) -> None:
    """Declare a checkpoint whole as it stands, by a new manifest: one that has none, or whose files you changed.

    What can be seen without a manifest is looked at: that all is there that training goes on with, and that no file is
    cut or scrambled, as far as its format tells (safetensors does not tell values from other values).

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no checkpoint of hf_noise, or a file is missing or cannot be read.
        BlockingIOError: the folder that it stands in is in use by another process.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give that of a checkpoint (checkpoint-<step>)")
    state = folder / TRAINER_STATE_NAME
    if not (folder / STATE_FILE).is_file() or not state.is_file():
        raise ValueError(f"{folder}: {_foreign(folder)}")
    for what, names in _TO_RESUME.items():
        if not any(any(folder.glob(name)) for name in names):
            raise ValueError(f"{folder} has no {names[0]}, so no {what}. {_start_anew(folder)}")
    for file in sorted(folder.rglob("*")):
        if file.name != MANIFEST and (problem := _unreadable(file)):
            raise ValueError(f"{folder}: {file.relative_to(folder)} cannot be read ({problem}). {_start_anew(folder)}")
    step, processes = json.loads(state.read_bytes())["global_step"], len(list(folder.glob("rng_state*.pth")))
    with locked(folder.parent):
        order = next_order(folder.parent)
        write_manifest(folder, step=step, order=order, processes=processes, is_resumable=True)


def next_order(folder: Path) -> int:
    """The `Manifest.order` of the next checkpoint in a run's folder."""
    order = 0
    for path in _checkpoints(folder):
        try:
            order = max(order, read_manifest(path).order)
        except (FileNotFoundError, ValueError):
            continue  # it is not counted among the whole ones either
    return order + 1


def set_aside(checkpoint: Path, reason: str, as_: str = "broken") -> Path:
    """Give a checkpoint a name by which nothing takes it for one, and warn; returns the name."""
    # Transformers' rotation deletes what begins with "checkpoint-"; its push leaves out what begins with "_".
    name = checkpoint.with_name(f"_{as_}-{checkpoint.name}")
    number = 1
    while name.exists():
        number += 1
        name = checkpoint.with_name(f"_{as_}-{checkpoint.name}-{number}")
    checkpoint.rename(name)
    fsync_folder(name.parent)
    logger.warning(
        "%s is %s (%s) and was renamed to %s; delete it when you need the space", checkpoint, as_, reason, name.name
    )
    return name


def is_foreign(folder: Path) -> bool:
    """Whether a checkpoint was written to its end by something else: ours has its own state before the Trainer's."""
    ours = any((folder / name).is_file() for name in (MANIFEST, STATE_FILE))
    return not ours and (folder / TRAINER_STATE_NAME).is_file()


def _look(folder: Path) -> _Found:
    found, sealed = _Found(), []
    for path in _checkpoints(folder):
        if is_foreign(path):
            found.others[path] = _foreign(path)
            continue
        try:
            sealed.append((read_manifest(path), path))
        except FileNotFoundError:
            found.broken[path] = _NO_MANIFEST
        except ValueError as error:
            found.broken[path] = str(error)
    # Older ones than the first whole one are not read: they may be many and large.
    for manifest, path in sorted(sealed, key=lambda one: (one[0].order, one[0].step), reverse=True):
        if wrong := faults(path, manifest):
            found.broken[path] = "; ".join(wrong)
        elif manifest.is_resumable:
            found.whole = path
            break
        else:
            found.others[path] = _weights_only(path)
    return found


def _checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(_CHECKPOINT.fullmatch(path.name)[1]))


def _foreign(folder: Path) -> str:
    missing = [name for name in (MANIFEST, STATE_FILE, TRAINER_STATE_NAME) if not (folder / name).is_file()]
    return (
        f"it is no checkpoint of hf_noise, or only a part of one: it has no {' and no '.join(missing)}. The stock "
        f"Trainer counts no noise, so a run cannot go on from its checkpoints. {_start_anew(folder)}"
    )


def _weights_only(folder: Path) -> str:
    return (
        "it was saved with save_only_model=True, without optimiser, scheduler and random state, so a run that went on "
        f"from it would be another one. {_start_anew(folder)}"
    )


def _start_anew(folder: Path) -> str:
    how = f"from_pretrained({str(folder)!r})" if (folder / "config.json").is_file() else "load_state_dict"
    return f"Load its weights with {how} and start a new run from them"


def _unreadable(file: Path) -> str | None:
    """What is wrong with a file, as far as its format tells."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="np"):
                return None
        if file.suffix in (".pt", ".pth", ".bin"):  # zip archives with checksums
            with zipfile.ZipFile(file) as archive:
                return archive.testzip()
        if file.suffix == ".json":
            json.loads(file.read_bytes())
    except (SafetensorError, zipfile.BadZipFile, ValueError, OSError) as error:
        return str(error)
    return None
