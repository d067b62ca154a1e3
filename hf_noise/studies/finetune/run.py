"""Fine-tuned classifiers: encoder, rows, the trainer of a run, and what is measured of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, TrainingArguments

from hf_noise.analysis.transition import transition_error
from hf_noise.metrics import accuracy, classifier_calibration
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.noise.block import UNKNOWN_NOISE
from hf_noise.noise.schedule import Plan
from hf_noise.reports.provenance import portable
from hf_noise.studies.chosen_rows import some_rows
from hf_noise.studies.engine import Job, with_interval
from hf_noise.studies.finetune.data import LabelledTexts, read_rows
from hf_noise.studies.finetune.encoder import embedded_words, encoder_config, train_encoder
from hf_noise.studies.finetune.network import adapted, pretrained, tokenizer_of
from hf_noise.studies.finetune.runs import AS_THEY_COME, Run, objective_of, passes_of
from hf_noise.studies.finetune.study import EMBEDDED_MODEL, Settings
from hf_noise.trainers import ClassifierTrainer

#: Training texts on which it is measured at the end what was learned by heart.
SCORED_ROWS = 1000


@dataclass
class Shared:
    """What all runs share: rows, tokens, and where the encoder is."""

    rows: LabelledTexts
    tokenizer: Any
    encoder: str
    train: Dataset
    test: Dataset
    validation: Dataset | None
    weak: Dataset | None

    def training(self, run: Run) -> Dataset:
        """The rows of a run: weak labels stand in them, all other wrong ones are drawn by the trainer."""
        return self.weak if run.protocol == "weak" else self.train


def load(settings: Settings, args: TrainingArguments, runs: Sequence[Run], is_trial: bool = False) -> Shared:
    """Read texts and tokenise them; what any of the runs would refuse is refused before an encoder is trained."""
    rows = read_rows(settings)
    for run in runs:
        noise_of(run, settings, rows)
    is_own = settings.model == EMBEDDED_MODEL
    tokenizer = embedded_words() if is_own else tokenizer_of(settings.model)
    told = (tokenizer, settings.max_length, rows.classes)
    shared = Shared(
        rows, tokenizer, encoder_of(settings), rows.train.tokenised(*told),
        by_length(rows.test.tokenised(*told, split="test"))[0],
        None if rows.validation is None else by_length(rows.validation.tokenised(*told, split="validation"))[0],
        None if rows.weak_noise is None else rows.train.tokenised(*told, is_weak=True),
    )
    if is_own and not is_trial:
        train_encoder(Path(shared.encoder), steps=settings.pretrain_steps, block_size=settings.max_length)
    return shared


def encoder_of(settings: Settings) -> str:
    """The encoder's id on the Hub, or its folder from the root: an adapter names it, and is loaded from elsewhere."""
    folder = Path(settings.output) / "encoder" if settings.model == EMBEDDED_MODEL else Path(settings.model)
    return str(folder.absolute()) if settings.model == EMBEDDED_MODEL or folder.is_dir() else settings.model


def by_length(rows: Dataset, *beside: np.ndarray) -> tuple[Any, ...]:
    """Rows from the shortest to the longest, which wastes little on padding, and arrays of theirs in the same order."""
    order = np.argsort([len(tokens) for tokens in rows["input_ids"]], kind="stable")
    return rows.select(order), *(array[order] for array in beside)


def describe_rows(settings: Settings, runs: Sequence[Run], rows: LabelledTexts | None = None) -> list[str]:
    """What the rows are, for a dry run, whether or not there is a model to tokenise them for.

    Raises what `load` does for them.
    """
    rows = read_rows(settings) if rows is None else rows
    for run in runs:
        noise_of(run, settings, rows)
    lines = rows.described()
    if settings.as_they_come:
        lines.append("labels as they come: nobody knows how many are wrong; those of the test rows are taken for right")
    return lines


def describe(settings: Settings, data: Shared) -> list[str]:
    """What the data are, for a dry run."""
    lengths = [len(tokens) for tokens in data.train["input_ids"]]
    cut = sum(length >= settings.max_length for length in lengths)
    lines = describe_rows(settings, [], data.rows)
    lines.append(f"tokens of a text: {np.mean(lengths):.0f} on average, {cut:,} texts fill all {settings.max_length}")
    if settings.model == EMBEDDED_MODEL:
        lines.append(f"encoder: trained first, {settings.pretrain_steps:,} steps on embedded text")
    return lines


def helpers(job: Job) -> list[Job]:
    """Nothing that is a run: the embedded encoder is trained when the texts are read."""
    return []


def noise_of(run: Run, settings: Settings, rows: LabelledTexts) -> LabelFlips | HumanLabels | None:
    """The noise of a run, None of labels as they come.

    Raises ValueError: these classes cannot have it, or are not those of `--pairs`.
    """
    if run.protocol == AS_THEY_COME:
        return None
    if run.ratio is None:
        return rows.weak_noise
    classes, known = len(rows.classes), {}
    if run.protocol == "pairs":
        pairs = [one.split(":") for one in settings.pairs]
        if unknown := [name for pair in pairs for name in pair if name not in rows.classes]:
            raise ValueError(f"--pairs names the class {unknown[0]!r}; known: {', '.join(rows.classes)}")
        known = {"mapping": {rows.classes.index(source): rows.classes.index(target) for source, target in pairs}}
    return LabelFlips.named(
        run.protocol if run.ratio else "symmetric", known=known, ratio=run.ratio, num_classes=classes, seed=run.seed,
        redraw=settings.redraw, allow_adversarial=settings.allow_adversarial,
    )  # fmt: skip


def build(job: Job) -> ClassifierTrainer:
    settings, run, data = job.settings, job.run, job.data
    rows = data.training(run)
    is_lora = run.method == "lora"
    args = job.arguments(
        len(rows), learning_rate=settings.lora_learning_rate if is_lora else settings.learning_rate,
    )  # fmt: skip
    if job.is_trial and settings.model == EMBEDDED_MODEL:  # as fast as it will be, and as wrong as it begins
        config = encoder_config(num_labels=len(data.rows.classes))
        model, new = AutoModelForSequenceClassification.from_config(config), ["classifier", "head"]
    else:
        model, new = pretrained(data.encoder, data.rows.classes, data.tokenizer)
    if settings.model == EMBEDDED_MODEL:  # of text without noise, which is no noise before
        for name in [name for name in vars(model.config) if name.startswith("hf_noise")]:
            delattr(model.config, name)
    noise = noise_of(run, settings, data.rows)
    if noise is None and (earlier := getattr(model.config, "hf_noise", None)) is not None:  # of the encoder's training
        model.config.hf_noise_before = [*(getattr(model.config, "hf_noise_before", None) or []), earlier]
        del model.config.hf_noise
    model = adapted(model, new, settings) if is_lora else model
    return ClassifierTrainer(
        model, args, noise=noise, loss=objective_of(run, settings), train_dataset=rows,
        eval_dataset=data.test, processing_class=data.tokenizer,
    )  # fmt: skip


def finish(job: Job, trainer: ClassifierTrainer) -> dict[str, Any]:
    """What the record says."""
    settings, run, data, plan = job.settings, job.run, job.data, job.plan
    noise, model = trainer.noise, trainer.accelerator.unwrap_model(trainer.model)
    weights = [(one.numel(), one.requires_grad) for name, one in model.named_parameters()
               if not name.startswith(trainer.own_prefix) and "original_module" not in name.split(".")]  # fmt: skip
    config = {name: value for name, value in json.loads(model.config.to_json_string(use_diff=True)).items()
              if not name.startswith("hf_noise") and name not in ("id2label", "label2id")}  # fmt: skip
    return dict(
        model={
            "name": portable(settings.model), "method": run.method, "parameters": sum(n for n, _ in weights),
            "trained_parameters": sum(n for n, is_trained in weights if is_trained), "config": config,
        },
        data={
            "source": portable(data.rows.source), "classes": len(data.rows.classes), "names": data.rows.classes,
            "tokenizer": portable(settings.model), "train_rows": len(data.train), "test_rows": len(data.test),
            "max_length": settings.max_length, "text_column": ", ".join(settings.text_column),
            "label_column": settings.weak_column if run.protocol == "weak" else settings.column,
        },
        noise=UNKNOWN_NOISE if noise is None else noise.to_dict() | {"realised": trainer.realised_noise()},
        budget=budget_of(plan, noise) | {
            "epochs": plan.sequences / len(data.train), "processes": trainer.args.world_size,
            "learning_rate": trainer.args.learning_rate,
        },
        loss=trainer.loss_record() | {
            "error_rate": noise.error_rate if run.loss == "corrected" else 0.0,
            "cure": run.loss,
            "regulariser": run.regulariser, "lgm": run.lgm, "passes": passes_of(trainer.loss),
        },
        metrics=measure(run, trainer, data, noise),
    )  # fmt: skip


def budget_of(plan: Plan, noise: LabelFlips | HumanLabels | None) -> dict[str, Any]:
    """What a record says of a plan; of labels as they come nothing that depends on how many are wrong."""
    if noise is not None:
        return replace(plan, ratio=noise.ratio).to_dict()
    unknown = ("ratio", "error_rate", "exposure")
    return {name: value for name, value in plan.to_dict().items() if name not in unknown}


def measure(
    run: Run, trainer: ClassifierTrainer, data: Shared, noise: LabelFlips | HumanLabels | None
) -> dict[str, dict]:
    """The figures of a run, each with the number of texts, or of entries of T, behind it."""
    metrics = {}
    for split, rows in (("test", data.test), ("validation", data.validation)):
        if rows is None:
            continue
        logits, labels, _ = trainer.predict(rows)
        found = classifier_calibration(logits, labels)
        hits = accuracy(logits.argmax(-1), labels, num_classes=len(data.rows.classes))
        metrics[f"{split}_accuracy"] = with_interval(hits, "accuracy")
        nll = "test_nll" if split == "test" else "validation_label_nll"
        metrics[nll] = {"value": found["nll"], "n": len(labels), "unit": "nats"}
        if split == "test":
            metrics["test_ece"] = {"value": found["ece"], "n": len(labels)}
    places = some_rows(len(data.train), SCORED_ROWS)
    scored, places = by_length(data.train.select(places), places)
    guess = trainer.predict(scored).predictions.argmax(-1)
    rows = data.rows.train.take(places)
    clean, trained = rows.labels, rows.weak if run.protocol == "weak" else rows.labels
    if run.ratio:  # the labels of the last epoch that was trained to its end
        epoch = max(0, math.floor(trainer.state.epoch or 0) - 1)
        trained, _ = noise(clean, sample=rows.ids, epoch=epoch)
    kinds = {"train_accuracy_trained_labels": guess == trained}
    if noise is not None:
        kinds["train_accuracy_clean_labels"] = guess == clean
    if np.any(wrong := trained != clean):
        kinds["memorised"] = (guess == trained)[wrong]
    for name, hits in kinds.items():
        metrics[name] = {"value": float(hits.mean()), "n": hits.size}
    if run.loss == "estimated" and noise is not None:
        error = transition_error(trainer.objective.transition, noise.transition)
        entries = noise.num_classes**2
        metrics["transition_mean_absolute_error"] = {"value": error.mean_absolute, "n": entries}
        metrics["transition_worst_row"] = {"value": error.worst_row, "n": noise.num_classes}
    return metrics
