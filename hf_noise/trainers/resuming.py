"""What a trainer does around saving and training so that a killed run ends as one that was not."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open

from hf_noise.objectives.base import condensed
from hf_noise.trainers.checkpoints import check, is_foreign, newest, next_order, set_aside
from hf_noise.trainers.folders import locked
from hf_noise.trainers.manifest import MANIFEST, STATE_FILE, read_manifest, write_manifest

__all__ = ["AUTO", "agreed", "check_best", "check_same_claims", "claims_of", "saving", "taking_up"]

logger = logging.getLogger(__name__)

#: `train(resume_from_checkpoint=AUTO)`: from the newest whole checkpoint, and from the start if there is none.
AUTO = "auto"

_CLAIMS = "hf_noise_claims"  # in the metadata of a trainer's state

T = TypeVar("T")


@contextmanager
def saving(trainer: Any, folder: Path) -> Iterator[None]:
    """Around transformers' `_save_checkpoint`: seals the checkpoint, or removes it if it could not be written.

    It is sealed as soon as all processes have written, before it is pushed and before older ones are deleted for it, so
    that at no time a folder holds no whole one that held one before.
    """
    args, state = trainer.args, trainer.state
    write_state, is_sealed = state.save_to_json, False

    def seal() -> None:
        nonlocal is_sealed
        trainer.accelerator.wait_for_everyone()
        if args.should_save:
            write_manifest(
                folder, step=state.global_step, order=next_order(folder.parent), processes=args.world_size,
                is_resumable=not args.save_only_model,
            )  # fmt: skip
        is_sealed = True

    def save_to_json(path: str) -> None:  # the last file of a checkpoint; a push and the deletion of others follow
        write_state(path)
        seal()

    with locked(folder.parent) if trainer.is_world_process_zero() else nullcontext():
        if args.should_save and folder.is_dir():
            if is_foreign(folder):
                set_aside(folder, "it stands where a checkpoint is to be written", "foreign")
            (folder / MANIFEST).unlink(missing_ok=True)
        trainer.accelerator.wait_for_everyone()  # before another process writes into it
        try:
            state.save_to_json = save_to_json
            yield
            if not is_sealed:  # processes that write no state
                seal()
        except (OSError, RuntimeError, SafetensorError) as error:  # what a full disk makes the three writers raise
            if is_sealed:
                raise
            if args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
            what = "was removed" if args.should_save else "is not whole"
            raise OSError(f"{folder} could not be written ({error}) and {what}; earlier checkpoints stay") from error
        finally:
            del state.save_to_json


@contextmanager
def taking_up(trainer: Any, resume: str | os.PathLike | bool | None) -> Iterator[str | None]:
    """Use a trainer's output folder while it trains; gives the whole checkpoint to go on from, None for the start.

    Called by all processes of a run. The main one looks, and what it finds or refuses holds for all of them.

    Args:
        resume: a checkpoint's folder, True for the newest whole one, `AUTO`, or None or False to start anew.

    Raises:
        TypeError: it is none of these.
        FileNotFoundError, ValueError: there is no whole checkpoint, or the given one is not; with what is wrong. Or
            DeepSpeed or sharded files of FSDP would lose what a checkpoint is to hold.
        BlockingIOError: the output folder is in use by another process.
    """
    if not (resume is None or isinstance(resume, (bool, str, os.PathLike))):
        raise TypeError(
            f"resume_from_checkpoint is a checkpoint's folder, True, False, None or {AUTO!r}, got {resume!r}"
        )
    args, output = trainer.args, Path(trainer.args.output_dir)
    is_main, is_searched = trainer.is_world_process_zero(), resume is True or resume == AUTO
    chosen = None if is_searched or resume is None or resume is False else Path(resume)
    with ExitStack() as held:

        def look() -> Path | None:
            _refuse_sharded_files(trainer)
            if is_searched or args.save_strategy != "no":
                held.enter_context(locked(output))
            found = newest(output, or_none=resume == AUTO) if is_searched else chosen
            if found is not None:
                _refuse_deepspeed(trainer)
                if not is_searched:
                    check(found)
            return found

        found = agreed(trainer, look if is_main else None)
        if is_searched and found is not None:
            chosen = output / found.name
        if chosen is not None:
            if args.save_on_each_node:  # each machine has files of its own
                is_local_main = args.should_save and not is_main
                agreed(trainer, (lambda: check(chosen)) if is_local_main else None)
            if is_main:
                _warn_of_processes(chosen, args.world_size)
        yield None if chosen is None else str(chosen)


def claims_of(trainer: Any) -> dict[str, str]:
    """What a run claims to be trained under, as the metadata of a checkpoint's state."""
    noise = None if trainer.noise is None else trainer.noise.to_dict()
    return {_CLAIMS: json.dumps({"noise": noise, **trainer.objective_claims}, sort_keys=True)}


def check_same_claims(trainer: Any, checkpoint: str | os.PathLike) -> None:
    """Raise ValueError if a checkpoint was trained under another noise, or for another objective, than this run has.

    Else the run would record for all of its steps what only the later ones had. Of the objective what a checkpoint
    states is compared: older ones name their loss, and not all that it was made with.
    """
    with safe_open(os.path.join(checkpoint, STATE_FILE), "pt") as state:
        before = json.loads((state.metadata() or {}).get(_CLAIMS, "null"))
    now = json.loads(claims_of(trainer)[_CLAIMS])
    if before is None or before == now:  # older checkpoints do not say
        return
    stated, found = before.pop("objective", None) or {}, now.pop("objective", None) or {}
    differ = [(name, before.get(name), now.get(name)) for name in sorted(before | now)]
    differ += [(f"objective.{name}", value, found.get(name)) for name, value in sorted(condensed(stated).items())]
    for name, value, other in differ:
        if value != other:
            raise ValueError(
                f"{checkpoint} was trained with {_difference(name, value, other)}. Go on as it began, or start a run "
                "of its own in another output_dir, with the weights of from_pretrained(checkpoint)"
            )


def _difference(name: str, value: Any, other: Any) -> str:
    """Two claims that differ, in words; of lists and plans the first entry that does."""
    if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
        i = next(i for i, (one, two) in enumerate(zip(value, other)) if one != two)
        return _difference(f"{name}[{i}]", value[i], other[i])
    if name.startswith("objective.") and isinstance(value, dict) and isinstance(other, dict):
        key = next(key for key in sorted(value | other) if value.get(key) != other.get(key))
        return _difference(f"{name}.{key}", value.get(key), other.get(key))
    return f"{name} = {_shown(value)}, this run has {_shown(other)}"


def _shown(value: Any) -> str:
    is_matrix = isinstance(value, list) and bool(value) and isinstance(value[0], list)
    return f"a matrix of {len(value)} rows" if is_matrix else str(value)


def check_best(trainer: Any) -> None:
    """Refuse a broken best checkpoint before its weights are taken for the result (a collective call)."""
    best = trainer.state.best_model_checkpoint
    agreed(trainer, (lambda: check(best, to_resume=False)) if trainer.is_world_process_zero() else None)


def _refuse_deepspeed(trainer: Any) -> None:
    if trainer.is_deepspeed_enabled:
        raise ValueError(
            "a run cannot be resumed under DeepSpeed, which loads checkpoints past this trainer: its counts of noise "
            "and whatever else is its own would begin anew. Use DDP or FSDP"
        )


def _refuse_sharded_files(trainer: Any) -> None:
    plugin = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
    if plugin is not None and "SHARDED" in str(plugin.state_dict_type) and trainer.args.save_strategy != "no":
        raise ValueError(
            "FSDP's SHARDED_STATE_DICT has no place for a trainer's counts of noise and own parameters, so its "
            "checkpoints could not be resumed; set fsdp_config={'state_dict_type': 'FULL_STATE_DICT'}"
        )


def _warn_of_processes(checkpoint: Path, processes: int) -> None:
    if (before := read_manifest(checkpoint).processes) != processes:
        logger.warning(
            "%s was written by %d processes, %d take it up: noise and sums are the same, but dropout and whatever else "
            "draws at random starts anew, and rows are shared out otherwise", checkpoint, before, processes,
        )  # fmt: skip


def agreed(trainer: Any, call: Callable[[], T] | None) -> T:
    """What the main process's call gives, on all processes; what any call raises stops all (a collective call)."""
    if trainer.args.world_size == 1:
        return None if call is None else call()
    result = error = None
    if call is not None:
        try:
            result = call()
        except Exception as caught:  # raised again below, when the other processes know
            error = caught
    told = gather_object([(result, error and f"{type(error).__name__}: {error}")])
    if error is not None:
        raise error
    for rank, (_, message) in enumerate(told):
        if message:
            raise RuntimeError(f"process {rank} stopped the run: {message}")
    return told[0][0]
