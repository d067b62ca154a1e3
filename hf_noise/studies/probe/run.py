"""The work of a probe: features, heads, and a record of each head."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hf_noise.analysis.sensitivity import correct_area
from hf_noise.atomic import replaced_whole
from hf_noise.data.passages import DOCS_TOPICS
from hf_noise.metrics import accuracy
from hf_noise.reports.record import RunRecord
from hf_noise.studies.engine import stopped_in, world_of
from hf_noise.studies.engine import train as train_study
from hf_noise.studies.language import study as language
from hf_noise.studies.probe.data import PROMPTED, ProbeData, extracted, read_rows
from hf_noise.studies.probe.fits import Chosen, Problem, fit_all, grid_of, noise_of
from hf_noise.studies.probe.study import Run, Settings, runs_of
from hf_noise.studies.reading import is_elsewhere, may_be_read
from hf_noise.studies.settings import SettingError, at_scale
from hf_noise.studies.study import identity
from hf_noise.trainers.folders import claimed

__all__ = ["backbone_settings", "checked", "fit", "look", "prepared", "work"]

RECIPE = "recipes/lgm_probe.py"
#: Penalties whose heads are looked at around test rows, as figure 6 does.
LOOKED_AT = ("none", "difference", "l2")
#: Squares that are kept, of the first seed; the figure shows some of them.
KEPT = 24
SLICES = "slices.safetensors"
#: Condition of T from which on it is taken for singular.
SINGULAR = 1e8


def look(settings: Settings) -> Iterator[str]:
    """What a dry run shows: the rows, what a network reads of the first, and how many heads are fitted."""
    check_model(settings)
    if is_elsewhere(settings.source):
        yield f"data: {settings.source} on the Hub, which a run downloads; a dry run looks at data of this machine"
        return
    data = checked(settings)
    yield from data.describe()
    if settings.reads_texts:
        yield f"first text: {data.train.table[0][PROMPTED]!r:.200}"
    runs = runs_of(settings)
    tried = sum(len(grid_of(settings, run.head, run.penalty, run.seed)) for run in runs)
    trained = f", after {settings.pretrain_steps} steps of a small GPT-2" if needs_backbone(settings) else ""
    yield f"{len(runs)} heads, chosen of {tried:,} that are fitted for {settings.epochs} epochs each{trained}"


def work(settings: Settings) -> bool:
    """Make features and all heads that are not finished; returns whether this is the main process."""
    args = world_of(settings)
    data = prepared(settings)
    if args.process_index != 0:
        return False
    fit(settings, data, args.device)
    return True


def prepared(settings: Settings) -> ProbeData:
    """The rows with their features, which all processes make together, and wait for each other."""
    check_model(settings)
    data = checked(settings)
    model = pretrained(settings) if needs_backbone(settings) else settings.model
    return extracted(data, settings, model)


def fit(settings: Settings, data: ProbeData, device: Any) -> None:
    """Make all heads that are not finished: work of one process."""
    groups = list(groups_of(runs_of(settings)))
    with tqdm(groups, unit="grid") as bar:
        for runs in bar:
            bar.set_description(f"{runs[0].head}, {runs[0].labels}, {runs[0].loss}")
            with stopped_in(f"the heads of {runs[0].name}", settings):
                make(settings, runs, data, device)
            gc.collect()


def checked(settings: Settings) -> ProbeData:
    """The rows, once they can have the noise of every run.

    Raises ValueError: the classes cannot have such noise, or it leaves nothing to correct from.
    """
    data = read_rows(settings)
    for run in runs_of(settings):
        noise = noise_of(settings, run, data)
        if run.loss == "corrected" and np.linalg.cond(noise.transition) > SINGULAR:
            raise ValueError(
                f"labels of {run.labels} cannot be corrected: T of {len(data.classes)} classes at e = "
                f"{noise.error_rate:.3g} has no inverse, so they say nothing of some classes; lower --ratio, or leave "
                "the corrected loss out with --no_corrected"
            )
    return data


def check_model(settings: Settings) -> None:
    """Raises SettingError: there is no network to make features with, and nothing says which."""
    if settings.reads_vectors or needs_backbone(settings):
        return
    if settings.model is None:
        raise SettingError("--model is missing: a folder, a Hub id, or --features with what a network made before")
    if not may_be_read(settings.model):
        raise SettingError(f"--model {settings.model}: there is no such folder, and it is no name on the Hub")


def needs_backbone(settings: Settings) -> bool:
    """Whether a small GPT-2 has to be trained first: for the embedded task, where no network is given."""
    return settings.source == DOCS_TOPICS and settings.model is None and not settings.reads_vectors


def backbone_settings(settings: Settings) -> language.Settings:
    """Those of the small GPT-2 on the text that the embedded task is made of: one run without noise."""
    return at_scale(
        language.Settings, "demo", output=f"{settings.output}/backbone", ratio=[0.0], corrected=[],
        equal_compute=False, steps=settings.pretrain_steps, num_processes=settings.num_processes,
    )  # fmt: skip


def pretrained(settings: Settings) -> str:
    """The folder of that GPT-2, trained now if it is not there."""
    own = backbone_settings(settings)
    runs, plans, _ = language.STUDY.planned(own)
    train_study(language.STUDY, own, runs, plans)
    return str(Path(own.output) / runs[0].name)


def groups_of(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs of one head, noise and loss, which are fitted together and compared."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        found.setdefault((run.head, run.ratio, run.protocol, run.loss), []).append(run)
    yield from found.values()


def make(settings: Settings, runs: Sequence[Run], data: ProbeData, device: Any) -> None:
    """Fit the heads of a group unless all are finished, and write the records of those that are not."""
    output = Path(settings.output)
    if all((output / run.name / "record.json").exists() for run in runs):
        for run in runs:  # refuses folders that other settings filled
            with claimed(output / run.name, identity(settings, run) | data.identity):
                continue
        return
    started = time.perf_counter()
    fitted = fit_all(settings, runs, data, device)
    each = (time.perf_counter() - started) / len(runs)
    right = {}
    for run in sorted(runs, key=lambda run: run.penalty != "none"):
        begun, (problem, chosen), folder = time.perf_counter(), fitted[run], output / run.name
        predicted, nll = tested(chosen, data)
        right[run] = predicted == data.test.labels
        plain = next((right[one] for one in right if one.penalty == "none" and one.seed == run.seed), None)
        with claimed(folder, identity(settings, run) | data.identity):
            if (folder / "record.json").exists():
                continue
            metrics = measure(settings, run, problem, chosen, data, predicted, nll)
            if plain is not None and run.penalty != "none":
                metrics["gain"] = gain(right[run], plain)
            if settings.area_rows and run.penalty in LOOKED_AT and run.loss == "nll":
                metrics["correct_area"] = area(settings, chosen, data, folder, keeps=run.seed == settings.seed[0])
            with replaced_whole(folder / "head.safetensors") as unfinished:
                from safetensors.torch import save_file

                save_file({name: value.contiguous().cpu() for name, value in chosen.parameters.items()}, unfinished)
            seconds = each + time.perf_counter() - begun
            record_of(settings, run, problem, chosen, data, metrics, seconds).write(folder / "record.json")


def tested(chosen: Chosen, data: ProbeData) -> tuple[np.ndarray, float]:
    """Classes of the test rows as a head sees them, and its mean NLL of their labels in nats."""
    log_p = torch.log_softmax(chosen.logits(data.test.features).double(), -1)
    labels = torch.as_tensor(data.test.labels).to(log_p.device)
    return log_p.argmax(-1).cpu().numpy(), float(-log_p.gather(1, labels[:, None]).mean())


def measure(settings: Settings, run: Run, problem: Problem, chosen: Chosen, data: ProbeData, predicted: np.ndarray,
            nll: float) -> dict[str, dict]:  # fmt: skip
    """The figures of a head, each with the number of rows behind it."""
    overall = accuracy(predicted, data.test.labels, num_classes=len(data.classes))
    rows = problem.train
    guess = chosen.logits(data.train.features[rows]).argmax(-1).cpu().numpy()
    learned = problem.labels[rows]
    metrics = {
        "test_accuracy": {"value": overall["accuracy"]} | {key: overall[key] for key in ("low", "high", "n")},
        "test_nll": {"value": nll, "n": len(predicted), "unit": "nats"},
        "validation_accuracy": {"value": chosen.validation_accuracy, "n": len(problem.validation[1]),
                                "worst_setting": chosen.worst_accuracy},
        "train_accuracy_trained_labels": {"value": float((guess == learned).mean()), "n": len(rows)},
    }  # fmt: skip
    clean = problem.clean[rows]
    if (wrong := clean != learned).any():
        metrics["train_accuracy_clean_labels"] = {"value": float((guess == clean).mean()), "n": len(rows)}
        metrics["memorised"] = {"value": float((guess == learned)[wrong].mean()), "n": int(wrong.sum())}
    return metrics


def gain(ours: np.ndarray, plain: np.ndarray) -> dict[str, Any]:
    """What the head has over the one without a penalty of its seed, on the same test rows."""
    only, lost = int((ours & ~plain).sum()), int((plain & ~ours).sum())
    return {"value": (only - lost) / len(ours), "n": len(ours), "only_this": only, "only_plain": lost}


def area(settings: Settings, chosen: Chosen, data: ProbeData, folder: Path, keeps: bool) -> dict[str, Any]:
    """The correct area around some test rows, always the same; squares of the first ones are kept for the figure."""
    features, labels = data.test.features, data.test.labels
    rows = np.random.default_rng(1).permutation(len(labels))[: settings.area_rows]
    centred = data.train.features.astype(np.float64)
    reach = settings.reach * float(np.sqrt(((centred - centred.mean(0)) ** 2).sum(1).mean()))

    def predict(moved: np.ndarray) -> np.ndarray:
        return chosen.logits(moved.astype(np.float32)).argmax(-1).cpu().numpy()

    found = correct_area(predict, features[rows], labels[rows], reach=reach, steps=settings.area_steps, sample=rows,
                         keep=min(KEPT, len(rows)) if keeps else 0)  # fmt: skip
    if keeps:
        from safetensors.numpy import save_file

        with replaced_whole(folder / SLICES) as unfinished:
            save_file({"predicted": found.predicted.astype(np.int32), "labels": labels[rows[:KEPT]].astype(np.int32),
                       "offsets": found.offsets}, unfinished)  # fmt: skip
    right = found.is_correct
    inside = float(found.area[right].mean()) if right.any() else 0.0
    told = {"of_correct_rows": inside, "correct_rows": int(right.sum())}
    return {"value": found.mean, "n": len(rows), "reach": reach} | told


def record_of(settings: Settings, run: Run, problem: Problem, chosen: Chosen, data: ProbeData, metrics: dict,
              seconds: float) -> RunRecord:  # fmt: skip
    """What is known of a head."""
    best = chosen.setting
    steps = -(-len(problem.train) // min(best.batch_size, len(problem.train))) * settings.epochs
    penalty = {"name": run.penalty} | ({} if run.penalty == "none" else {"gamma": best.gamma, "lam": best.lam})
    return RunRecord(
        name=run.name, task="probe", recipe=RECIPE, seed=run.seed, settings=asdict(settings),
        model=data.model | {"head": run.head, "parameters": sum(v.numel() for v in chosen.parameters.values())},
        data={
            "source": data.source, "labels": run.labels, "classes": len(data.classes), "train_rows": len(problem.train),
            "validation_rows": len(problem.validation[1]), "test_rows": len(data.test),
            "prompt": None if data.model["backbone"] is None or settings.image_column else settings.text_prompt,
            "at_limit": {split: rows.at_limit for split, rows in data.splits.items()}, **data.identity,
        },
        noise=problem.noise.to_dict() | {"realised": problem.realised},
        budget={"epochs": settings.epochs, "steps": steps, "batch_size": best.batch_size,
                "settings_tried": chosen.tried, "best_epoch": chosen.best_epoch},
        loss={"name": run.loss, "penalty": penalty, "learning_rate": best.learning_rate,
              "weight_decay": best.weight_decay, "transition": run.loss == "corrected"},
        metrics=metrics, wall_seconds=seconds,
    )  # fmt: skip
