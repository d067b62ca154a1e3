"""What `loss_stability.py` does with each model: train or read it, look at macro-batches of its text, record."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from hf_noise.analysis.stability import MacroBatchLosses, macro_batch_losses
from hf_noise.data.tokenization import vocabulary_size
from hf_noise.hub.load import load_noise
from hf_noise.metrics import weights_hash
from hf_noise.models.loading import load_whole
from hf_noise.noise import Noise, UniformTokens
from hf_noise.reports.record import RunRecord
from hf_noise.studies import engine
from hf_noise.studies.language import study as language
from hf_noise.studies.language.run import UNSEEN_EPOCH, score_batch
from hf_noise.studies.reading import reading, tokenizer_of_model, within_positions
from hf_noise.studies.stability.study import Settings, models_of
from hf_noise.studies.text import Text
from hf_noise.trainers.collate import known_tokens
from hf_noise.trainers.folders import claimed
from hf_noise.trainers.row_losses import RowLosses
from hf_noise.trainers.scoring import score_tokens

__all__ = ["MEASURED", "TASK", "look", "measure"]

TASK = "loss_stability"
#: Folder of the measurements, beside that of the models.
MEASURED = "measured"


@dataclass(frozen=True)
class Checkpoint:
    """A model to measure: where it is, what its measurement is called, and the seed that it was trained with."""

    path: str
    name: str
    seed: int = 0


def measure(settings: Settings) -> bool:
    """Train what is to be trained, then measure all models that have no record; returns whether this is the main
    process. Each process measures models of its own."""
    args = engine.world_of(settings)
    accelerator = Accelerator(cpu=args.use_cpu)
    data = Text.load(settings, args, settings.score_rows)
    check_sizes(settings, data)
    given = [] if not settings.model else [(one, noise_of(settings, one.path)) for one in named(settings)]
    for one, noise in given:  # refused before the first is measured
        check_model(one.path)
        check_noise(one.path, noise)
        check_vocabulary(settings, one.path, noise, data)
    if not settings.model:
        models = models_of(settings)
        runs, plans, _ = language.STUDY.planned(models)
        engine.train(language.STUDY, models, runs, plans)
    for number, one in enumerate(named(settings)):
        if number % accelerator.num_processes == accelerator.process_index:
            measure_one(settings, one, data, accelerator.device)
    accelerator.wait_for_everyone()
    return accelerator.is_main_process


def named(settings: Settings) -> list[Checkpoint]:
    """The models of a study, each with a name of its own."""
    if not settings.model:
        models = models_of(settings)
        found = [Checkpoint(f"{models.output}/{run.name}", run.name, run.seed) for run in language.runs_of(models)]
    else:
        found = []
        for path in settings.model:
            name = Path(path).name or "model"
            taken = sum(one.name.split("~")[0] == name for one in found)
            found.append(Checkpoint(path, f"{name}~{taken + 1}" if taken else name, settings.seed[0]))
    suffix = "" if settings.order == "shuffled" else f"-{settings.order}"
    return [replace(one, name=one.name + suffix) for one in found]


def measure_one(settings: Settings, one: Checkpoint, data: Text, device: torch.device) -> None:
    """Measure a model and write its record, unless it is there."""
    started = time.perf_counter()
    model, noise = load_model(settings, one.path).to(device), noise_of(settings, one.path)
    tokenizer_of_model(one.path, known_tokens(model), settings.tokenizer, data.tokenizer)
    ignored = {field.name for field in fields(settings) if not field.metadata["in_result"]}
    told = {name: value for name, value in asdict(settings).items() if name not in ignored}
    told |= {"weights": weights_hash(model)[:16], "noise": noise.to_dict(), "seed": one.seed}
    folder = Path(settings.output) / MEASURED / one.name
    with claimed(folder, told, is_main=True):
        if (folder / "record.json").exists():
            return
        rows = RowLosses(model, data.train, noise=noise if noise.error_rate else None)
        autocast = torch.autocast(device.type, torch.bfloat16) if settings.bf16 else nullcontext()
        with autocast, tqdm(total=settings.num_batches * sum(settings.sizes), desc=one.name, unit=" rows") as bar:
            losses = macro_batch_losses(
                shown(rows, bar), settings.sizes, num_rows=len(rows), num_batches=settings.num_batches,
                order=settings.order, seed=one.seed, epoch=UNSEEN_EPOCH, batch_size=settings.micro_batch,
            )  # fmt: skip
        RunRecord(
            name=one.name, task=TASK, recipe="recipes/loss_stability.py", seed=one.seed, settings=asdict(settings),
            model={"name": one.path, "parameters": model.num_parameters(), "weights": told["weights"]},
            data=data.recorded(settings), noise=noise.to_dict(),
            budget={"rows": losses.rows_read, "passes": losses.passes, "order": losses.order},
            loss={"name": "nll"}, metrics=metrics_of(settings, losses, targets_of(settings, model, data, noise)),
            wall_seconds=time.perf_counter() - started,
        ).write(folder / "record.json")  # fmt: skip


def shown(rows: RowLosses, bar: tqdm) -> Any:
    """The losses of rows, with a bar that counts them."""

    def look_at(numbers: Any, epoch: int) -> Any:
        bar.update(len(numbers))
        return rows(numbers, epoch)

    return look_at


def metrics_of(settings: Settings, losses: MacroBatchLosses, of_targets: dict[str, dict]) -> dict[str, dict]:
    """What the record says; the losses themselves too, in millionths of a nat."""
    n, sizes, nats = settings.num_batches, losses.sizes.tolist(), {"unit": "nats per token"}
    exponent, independent = losses.exponent(), losses.row_std / losses.sizes**0.5
    return of_targets | {
        "macro_batch_mean": {
            "value": losses.mean[-1], "n": n, "sizes": sizes, "values": losses.mean.tolist(),
            "same_mean_p": losses.same_mean_p(), "losses": losses.losses.round(6).tolist(), **nats,
        },
        "macro_batch_std": {
            "value": losses.std[-1], "n": n, "sizes": sizes, "values": losses.std.tolist(),
            "independent": independent.tolist(), "worth": losses.worth.tolist(), **nats,
        },
        "loss_exponent": {"value": exponent.value, "low": exponent.low, "high": exponent.high, "n": n},
        "row_std": {"value": losses.row_std, "n": losses.rows_read, **nats},
    }  # fmt: skip


def targets_of(settings: Settings, model: PreTrainedModel, data: Text, noise: Noise) -> dict[str, dict]:
    """NLL of clean and of corrupted targets apart, on the first rows."""
    scores = score_tokens(
        model, data.sample, noise=noise if noise.error_rate else None, epoch=UNSEEN_EPOCH, ranks=False,
        batch_size=score_batch(settings),
    )  # fmt: skip
    kinds = {"clean_targets": ~scores.is_noisy, "corrupted_targets": scores.is_noisy}
    return {
        f"nll_{kind}": {"value": float(scores.nll[which].mean(dtype="float64")), "n": int(which.sum()),
                        "unit": "nats per token"}
        for kind, which in kinds.items() if which.any()
    }  # fmt: skip


def load_model(settings: Settings, name: str) -> PreTrainedModel:
    """A causal language model in float32: safetensors only, all weights, no code of its repository.

    Raises:
        OSError: it cannot be read.
        ValueError: it lacks weights, or has positions for fewer tokens than rows have.
    """
    with reading("the model", name):
        model = load_whole(
            AutoModelForCausalLM.from_pretrained, name, use_safetensors=True, trust_remote_code=False,
            dtype=torch.float32,
        )  # fmt: skip
    within_positions(name, model, settings.block_size)
    return model


def check_model(name: str) -> None:
    """Raises ValueError unless this is a causal language model that transformers knows, OSError: it cannot be read."""
    with reading("the model", name):
        told, _ = PreTrainedConfig.get_config_dict(name)
    known = {kind.__name__ for kind in MODEL_FOR_CAUSAL_LM_MAPPING.values()}
    made = told.get("architectures") or []
    if not known & set(made):
        raise ValueError(f"--model {name} is no causal language model (its config.json says {', '.join(made)}); for "
                         "others call hf_noise.analysis.stability.macro_batch_losses with the losses of your rows"
                         )  # fmt: skip


def noise_of(settings: Settings, name: str) -> Noise:
    """The noise that a checkpoint states, or none with `--no_stated`. Raises ValueError: it states none."""
    if not settings.stated:
        return UniformTokens(ratio=0.0, vocab_size=2)
    try:
        return load_noise(name)
    except ValueError as error:
        raise ValueError(f"{error}; --no_stated measures it on the text as it is") from error


def check_noise(name: str, noise: Noise) -> None:
    """Raises ValueError unless this noise can be drawn on the targets of packed text."""
    if noise.unit != "tokens" or not noise.draws_targets:
        raise ValueError(f"--model {name} was trained with {type(noise).__name__}, which cannot be drawn on targets of "
                         "text; --no_stated measures it on the text as it is")  # fmt: skip


def check_vocabulary(settings: Settings, name: str, noise: Noise, data: Text) -> None:
    """Raises ValueError: a model states noise over another vocabulary than that of the text."""
    size, stated = vocabulary_size(data.tokenizer), getattr(noise, "vocab_size", None)
    if noise.error_rate and stated is not None and stated != size:
        raise ValueError(f"--model {name} states noise over {stated} tokens, --tokenizer {settings.tokenizer} has "
                         f"{size}; give the tokenizer that it was trained with")  # fmt: skip


def check_sizes(settings: Settings, data: Text) -> None:
    """Raises ValueError: a macro-batch would hold a row twice."""
    if settings.sizes[-1] > len(data.train):
        raise ValueError(f"--sizes {settings.sizes[-1]}: there are {len(data.train):,} rows of {settings.block_size} "
                         "tokens, and none stands twice in a macro-batch")  # fmt: skip


def look(settings: Settings) -> None:
    """For a dry run: what the data are, what will be trained and measured, and how much that reads."""
    with tempfile.TemporaryDirectory(prefix="hf_noise-dry-run-") as folder:
        args = engine.world_of(replace(settings, output=folder))
    data = Text.load(settings, args, settings.score_rows)
    check_sizes(settings, data)
    for line in [*data.described(settings.block_size), *_planned(settings, data)]:
        print(line, flush=True)


def _planned(settings: Settings, data: Text) -> Iterator[str]:
    if not settings.model:
        models = models_of(settings)
        runs, plans, _ = language.STUDY.planned(models)
        for run, plan in zip(runs, plans):
            yield f"{run.name}: e = {plan.error_rate:.4f}, {plan.steps:,} steps x {plan.batch_size} rows of training"
    for name in settings.model:
        check_model(name)
        noise = noise_of(settings, name)
        check_noise(name, noise)
        check_vocabulary(settings, name, noise, data)
        yield f"{name}: e = {noise.error_rate:.4f}"
    rows = settings.num_batches * sum(settings.sizes)
    yield (f"each is measured on {rows:,} rows, {rows / len(data.train):.1f} passes over {len(data.train):,}: "
           f"{settings.num_batches} macro-batches of {', '.join(map(str, settings.sizes))}")  # fmt: skip
