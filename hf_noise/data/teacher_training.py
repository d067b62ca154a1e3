"""Train the teacher of a task: a model of the same kind on its clean pairs, for few steps (paper A, K.3)."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.atomic import fsync_folder
from hf_noise.data.cache import cache_root
from hf_noise.data.pair_fit import check_fit
from hf_noise.data.pair_tokens import tokenize_pairs
from hf_noise.data.teacher_files import TOLD
from hf_noise.data.teacher_parts import check_folder, digest_of_texts
from hf_noise.data.teacher_turn import last_checkpoint, scratch, scratch_of, turn_at
from hf_noise.data.tokenization import tokenizer_identity
from hf_noise.noise.checks import check_count, check_flag, check_real, check_seed

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["teacher_place", "train_teacher"]

logger = logging.getLogger(__name__)

# Raised whenever the same pairs and settings would train another teacher.
_VERSION = 2
# Steps: what a kill costs, a minute or so, where a tenth of all would be less.
_BETWEEN_SAVES = 200


def train_teacher(
    pairs: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    steps: int,
    model: PreTrainedModel | Mapping[str, Any] | None = None,
    output: str | os.PathLike | None = None,
    task: str | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    max_source_tokens: int | None = None,
    max_target_tokens: int | None = None,
    truncate: bool = False,
    seed: int = 0,
) -> str:
    """A teacher, trained on clean pairs by the stock `transformers.Trainer` with Adam, and clipping at 1.

    The same call again finds it and trains nothing; one beside it waits for it; one after it was killed goes on from
    its last checkpoint, of which there are ten, 200 steps apart at least. Every process of a run that was started with
    several has to call it; they train together.

    Args:
        pairs: rows with `source` and `target`, of which `clean_target` is taken where there is one.
        tokenizer: of the pairs, see `pair_tokenizer`.
        steps: of the optimiser, >= 1; paper A's example is 5,000, a tenth of a run.
        model: where it starts: settings of `encoder_decoder` such as {"layers": 2}, by default the paper's; or a model
            of transformers, which is trained in place.
        output: folder for it; by default one of this package's own cache, named by all that the teacher depends on.
        task: its name, which is held against that of the rows the teacher writes for.
        batch_size: pairs of a step, over all processes.
        learning_rate: > 0; reached in a tenth of the steps, 4,000 at most (spec 4.2), and constant then.
        max_source_tokens, max_target_tokens, truncate: as for `tokenize_pairs`.
        seed: of the first weights, dropout and order.

    Returns:
        The folder, which `load_teacher` reads.

    Raises:
        ValueError: a number is out of range, the batch is no multiple of the processes, a text is empty or too long,
            also for the positions of the model, or has tokens that it does not know, or `output` holds something else.
        TypeError: an argument is of another type.
    """
    steps = check_count("steps", steps, 1, 40)
    numbers = {
        "steps": steps, "batch_size": check_count("batch_size", batch_size, 1, 20),
        "learning_rate": check_real("learning_rate", learning_rate), "seed": check_seed(seed), "task": task,
        "max_source_tokens": max_source_tokens,
        "max_target_tokens": max_target_tokens, "truncate": check_flag("truncate", truncate),
    }  # fmt: skip
    if not 0 < numbers["learning_rate"] < float("inf"):
        raise ValueError(f"learning_rate must be > 0, got {learning_rate!r}")
    if task is not None and not isinstance(task, str):
        raise TypeError(f"task must be a name, got {task!r:.80}")
    place, made_of = teacher_place(pairs, tokenizer, model, numbers)
    folder = place if output is None else check_folder("output", output)
    with turn_at(folder, made_of) as is_ours:
        if is_ours:
            limits = {name: numbers[name] for name in ("max_source_tokens", "max_target_tokens", "truncate")}
            rows, told = tokenize_pairs(_clean(pairs), tokenizer, **limits), {"steps": numbers["steps"], "task": task}
            _train(rows, tokenizer, model, numbers, folder, {**told, "made_of": made_of})
    return str(folder)


def teacher_place(
    pairs: Dataset, tokenizer: PreTrainedTokenizerBase, model: Any, settings: Mapping[str, Any]
) -> tuple[Path, str]:
    """Where a teacher is kept if no folder is named, and a hash of all that it depends on."""
    clean = _clean(pairs)
    stated = {
        "version": _VERSION, "tokenizer": tokenizer_identity(tokenizer), "model": _start(model), **settings,
        "pairs": digest_of_texts(clean["source"][:], clean["target"][:]),
    }  # fmt: skip
    made_of = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
    return cache_root() / "teacher" / f"model-{made_of[:24]}", made_of


def _clean(pairs: Dataset) -> Dataset:
    from datasets import Dataset

    if not isinstance(pairs, Dataset):
        raise TypeError(f"pairs must be a datasets.Dataset with source and target, got {type(pairs).__name__}")
    target = "clean_target" if "clean_target" in pairs.column_names else "target"
    if missing := [name for name in ("source", target) if name not in pairs.column_names]:
        raise ValueError(f"pairs have no column {missing[0]}, they have: {', '.join(pairs.column_names)}")
    pairs = pairs.select_columns(["source", target])
    return pairs if target == "target" else pairs.rename_column(target, "target")


def _start(model: Any) -> Any:
    """What the first weights depend on."""
    if model is None or isinstance(model, Mapping):
        return {_setting(name): _number(name, value) for name, value in (model or {}).items()}
    import torch
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be settings of encoder_decoder() or a model of transformers, got {model!r:.80}")
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _setting(name: Any) -> str:
    from hf_noise.models.seq2seq import encoder_decoder

    own = list(inspect.signature(encoder_decoder).parameters)
    known = own[own.index("eos_token") + 1 :]  # its tokens are those of the tokenizer
    if name not in known:
        raise ValueError(f"model has the setting {name!r:.80}, and may have {', '.join(known)}")
    return name


def _number(name: str, value: Any) -> int | float:
    if isinstance(value, np.integer | np.floating):
        return value.item() if value.dtype.itemsize <= 8 else float(value)
    if not isinstance(value, int | float):
        raise TypeError(f"the setting {name} of model must be a number, got {value!r:.80}")
    return value


def _train(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, model: Any, numbers: Mapping[str, Any], folder: Path,
    told: Mapping[str, Any],
) -> None:  # fmt: skip
    import torch
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, TrainingArguments, set_seed

    from hf_noise.data.teacher_steps import TeacherTrainer
    from hf_noise.data.tokenization import vocabulary_size
    from hf_noise.models.seq2seq import encoder_decoder

    set_seed(numbers["seed"] % 2**32)
    if model is None or isinstance(model, Mapping):
        tokens = {"pad_token": tokenizer.pad_token_id, "eos_token": tokenizer.eos_token_id}
        model = encoder_decoder(vocabulary_size(tokenizer), **tokens, **(model or {}))
    check_fit(rows, model)
    rows = rows.select_columns(["input_ids", "labels"])
    with scratch(folder) as place:
        arguments = TrainingArguments(
            output_dir=place, max_steps=numbers["steps"], learning_rate=numbers["learning_rate"], max_grad_norm=1.0,
            lr_scheduler_type="constant_with_warmup", warmup_steps=min(4000, numbers["steps"] // 10), weight_decay=0.0,
            per_device_train_batch_size=numbers["batch_size"], train_sampling_strategy="group_by_length",
            seed=numbers["seed"] % 2**32, remove_unused_columns=False, report_to="none",
            save_strategy="steps", save_steps=max(_BETWEEN_SAVES, numbers["steps"] // 10), save_total_limit=1,
            logging_steps=max(1, numbers["steps"] // 10), disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),  # else several processes on CPUs would not know of each other
            dataloader_pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        processes = arguments.world_size
        if numbers["batch_size"] % processes:
            raise ValueError(f"batch_size={numbers['batch_size']} is no multiple of the {processes} processes")
        arguments.per_device_train_batch_size = numbers["batch_size"] // max(1, processes, arguments.n_gpu)
        trainer = TeacherTrainer(
            model, arguments, train_dataset=rows, processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model, label_pad_token_id=-100),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        checkpoint = last_checkpoint(place)
        trainer.train(**({} if checkpoint is None else {"resume_from_checkpoint": checkpoint}))
        logger.info("a teacher of %d steps: %s", numbers["steps"], trainer.state.log_history[-1])
        if trainer.is_world_process_zero():
            _save_whole(trainer.accelerator.unwrap_model(trainer.model), tokenizer, folder, told)
        trainer.accelerator.wait_for_everyone()


def _save_whole(model: PreTrainedModel, tokenizer: Any, folder: Path, told: Mapping[str, Any]) -> None:
    """Write a teacher into a folder beside its place, which then takes its name in one step."""
    beside = scratch_of(folder) / "whole"
    shutil.rmtree(beside, ignore_errors=True)
    model.eval().save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    (beside / TOLD).write_text(json.dumps(told, indent=1), encoding="utf-8")
    beside.chmod(folder.parent.stat().st_mode & 0o777)
    fsync_folder(beside)
    os.replace(beside, folder)
