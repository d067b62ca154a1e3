"""Advice on the batch and numbers of clean images: from records made up, and a few steps of the command."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace

import pytest
from PIL import Image
from printed import printed_by

from hf_noise.analysis import advise_batch
from hf_noise.analysis.noise_scale import NoiseScale
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.classifier import study as classifier
from hf_noise.studies.classifier.multipliers import advice_figure, advised, show_advice, table_of_multipliers
from hf_noise.studies.classifier.sizes import show_sizes, size_figure, sizes_of, table_of_sizes, verdicts
from hf_noise.studies.settings import SettingError, at_scale

main = functools.partial(printed_by, classifier.main)
TINY = ["--epochs", "1", "--batch_size", "16", "--save_steps", "50", "--logging_steps", "4"]
SNR = {"value": 0.9, "low": 0.8, "high": 1.0, "n": 20, "batch_size": 64, "ratio": 1.0,
       "noise_scale_low": 5000.0}


def record(ratio=1.0, seed=0, accuracy=0.8, multiplier=1.0, rows=1000, optimizer="sgd", nll=0.5, **metrics):
    plan = "steps" if multiplier == 1 else f"steps-x{multiplier:g}"
    metrics = {"test_accuracy": {"value": accuracy, "n": 100}, "test_nll": {"value": nll, "n": 100}} | metrics
    noise = {"protocol": "label_flips", "kind": "symmetric", "ratio": ratio, "error_rate": ratio / (1 + ratio)}
    return RunRecord(
        name=f"r{ratio:g}-{plan}-seed{seed}", task="image_classification", recipe="recipes/classifier_noise.py",
        command="", model={"name": "resnet10-digits"}, seed=seed, wall_seconds=1.0, git=None, versions={}, hardware={},
        settings={"optimizer": optimizer}, data={"source": "x", "train_rows": rows},
        noise=noise | {"realised": {"rate": noise["error_rate"], "n": 100}}, loss={"name": "nll"},
        budget={"plan": plan, "steps": int(100 / multiplier), "batch_multiplier": multiplier, "exposure": 1.0},
        metrics=metrics,
    )  # fmt: skip


def tried(accuracies, **metrics):
    return [record(accuracy=value, multiplier=m, seed=seed, **(metrics if m == 1 else {}))
            for m, values in accuracies.items() for seed, value in enumerate(values)]  # fmt: skip


# ---- advice


def test_the_advised_batch_beside_the_best():
    runs = tried({1.0: (0.90, 0.92), 2.0: (0.95, 0.93), 4.0: (0.96, 0.94), 8.0: (0.5, 0.5)}, gradient_snr=SNR)
    (found,) = advised([record(0.0), *runs])
    infinite = NoiseScale(math.inf, 5000.0, math.inf, signal=-1.0, variance=1.0, n=9, confidence=0.95)
    expected = advise_batch(1.0, snr=0.9, batch_size=64, snr_ratio=1.0, noise_scale=infinite, noise_scale_ratio=1.0,
                            snr_interval=(0.8, 1.0), optimizer="sgd")  # fmt: skip
    assert found.advice[0] == expected and found.multiplier == pytest.approx(1 + 1 / 0.81)
    assert (found.choice, found.best) == (2, 4)
    assert found.behind == pytest.approx(1 - 0.94 / 0.95) and found.behind > 0.01
    assert "is not within 1% of the best: 1.05% behind (2 seeds)" in found.told()
    lines = table_of_multipliers([found]).rows
    assert [line[1] for line in lines] == ["1", "2", "4", "8"] and lines[1][-1] == "yes (2.23)"
    assert lines[1][3] == "94.0" and lines[2][7] == "0.00"


def test_a_learning_rate_that_grows_too_takes_the_advice_of_adam():
    runs = tried({1.0: (0.9,), 4.0: (0.9,)}, gradient_snr=SNR,
                 gradient_noise_scale={"value": 500.0, "low": 200.0, "high": 900.0, "n": 20})  # fmt: skip
    runs = [replace(one, settings=one.settings | {"scale_learning_rate": True}) for one in runs]
    (found,) = advised(runs)
    assert found.advice[0].optimizer == "adam" and found.choice == 4 and "is within 1% of the best" in found.told()
    assert found.advice[0].noisy_noise_scale == pytest.approx(500)


def test_advice_is_written_and_drawn(tmp_path):
    runs = tried({1.0: (0.90, 0.92), 2.0: (0.95, 0.93)}, gradient_snr=SNR)
    told = show_advice(runs, tmp_path)
    values = json.loads((tmp_path / "advice.json").read_text())
    assert values["ratios"][0]["held"] is True and values["ratios"][0]["test_accuracy"]["2.0"]["1"] == 0.93
    assert "advised 2.23 times the batch" in told and (tmp_path / "advice.md").exists()
    assert Image.open(advice_figure(advised(runs), tmp_path / "a.png")).width > 900
    assert "no advice" in show_advice(runs[:2], tmp_path) and "no advice" in show_advice(runs[2:], tmp_path)


def test_plans_of_larger_batches():
    settings = at_scale(classifier.Settings, "advice", batch_size=64)
    runs = classifier.runs_of(settings)
    assert len(runs) == 15
    plans = {run.name: classifier.plan_of(settings, run, 1442) for run in runs if run.seed == 0}
    assert {(plan.name, plan.steps, plan.batch_size) for plan in plans.values()} == {
        ("steps", 330, 64), ("steps", 660, 64), ("steps-x2", 330, 128), ("steps-x4", 165, 256), ("steps-x8", 82, 512),
    }  # fmt: skip
    eight = plans["r1-symmetric-nll-steps-x8-seed0"]
    assert classifier.learning_rate_of(settings, eight) == 0.05
    for optimizer, factor in (("sgd", 8), ("adamw", 8**0.5)):
        scaled = replace(settings, scale_learning_rate=True, optimizer=optimizer)
        assert classifier.learning_rate_of(scaled, eight) == pytest.approx(0.05 * factor)
        assert classifier.learning_rate_of(scaled, plans["r0-seed0"]) == 0.05
    # Whatever plan stands first, the run without noise has the batch that it is asked for.
    first = at_scale(classifier.Settings, "demo", plan=["steps-x4"], ratio=[0.0, 1.0])
    assert classifier.plan_of(first, classifier.clean_run(first), 1442).batch_size == 64
    for wrong in ({"ratio": [0.0]}, {"plan": ["batch"]}):
        with pytest.raises(SettingError, match="--advise"):
            at_scale(classifier.Settings, "advice", **wrong)


def test_the_command_measures_and_advises(tmp_path):
    told = main("--output", tmp_path, "--scale", "advice", "--seed", "0", "--plan", "steps", "steps-x2",
                "--train_rows", "256", *TINY)  # fmt: skip
    assert "advised" in told and "batch, x" in told
    records = {one.name: one for one in read_records(tmp_path)}
    assert "gradient_snr" not in records["r0-seed0"].metrics
    watched = records["r1-symmetric-nll-steps-seed0"]
    assert watched.metrics["gradient_snr"]["n"] == 8 and watched.metrics["gradient_snr"]["ratio"] == 1
    assert watched.metrics["gradient_snr"]["low"] < watched.metrics["gradient_snr"]["value"]
    twice = records["r1-symmetric-nll-steps-x2-seed0"]
    assert "gradient_snr" not in twice.metrics and twice.budget["batch_multiplier"] == 2
    assert twice.budget["plan"] == "steps-x2" and twice.budget["exposure"] == 1
    assert (tmp_path / "advice.png").exists()


# ---- numbers of clean images


def sizes(losses, seeds=3):
    """Runs whose relative loss is as given, in percent, a little other with each seed."""
    runs = []
    for rows, loss in losses.items():
        for seed in range(seeds):
            runs.append(record(0.0, seed, 0.9, rows=rows))
            runs.append(record(1.0, seed, 0.9 * (1 - loss / 100 - 0.001 * seed * (1 + rows / 1e4)), rows=rows))
    return runs


def test_the_loss_is_that_of_each_seed_against_its_own_clean_run():
    found = sizes_of([record(0.0, 0, 0.8), record(0.0, 1, 0.5), record(1.0, 0, 0.6), record(1.0, 1, 0.5),
                      record(1.0, 2, 0.1), record(1.0, 0, 0.7, rows=50)])  # fmt: skip
    (one,) = found
    assert one.loss.values == pytest.approx((25, 0)) and one.rows == 1000 and one.error_rate == 0.5


def test_verdicts_over_seeds():
    first, second = verdicts(sizes_of(sizes({100: 20.0, 1000: 10.0, 10000: 1.0})))
    assert first.word == second.word == "held" and "from 100 to 10000 clean images" in first.claim
    assert "from 20.1% to 1.2%" in first.statistic and "paper: 18.5%, 28.8%, -1.3%" in first.statistic
    whole, steps = verdicts(sizes_of(sizes({100: 20.0, 1000: 30.0, 10000: 1.0})))
    assert whole.word == "held" and steps.word == "not held"
    assert verdicts(sizes_of(sizes({100: 20.0, 1000: 10.0}, seeds=2)))[0].word == "open"
    assert verdicts(sizes_of(sizes({100: 20.0, 1000: 10.0}, seeds=1)))[0].word == "held (one seed)"
    assert verdicts(sizes_of(sizes({100: 20.0}))) == []


def test_sizes_are_written_and_drawn(tmp_path):
    runs = sizes({100: 20.0, 1000: 10.0})
    told = show_sizes(runs, tmp_path)
    values = json.loads((tmp_path / "sizes.json").read_text())
    assert [one["rows"] for one in values["sizes"]] == [100, 1000] and values["claims"][0]["verdict"] == "held"
    assert "held" in told and "held" in (tmp_path / "sizes.md").read_text()
    assert [row[0] for row in table_of_sizes(sizes_of(runs)).rows] == ["100", "1000"]
    assert Image.open(size_figure(sizes_of(runs), tmp_path / "s.png")).width > 900
    assert "nothing to compare" in show_sizes(runs[:1], tmp_path)


def test_the_command_sweeps(tmp_path):
    arguments = ["--output", tmp_path, "--train_rows", "192", "96", *TINY, "--seed", "0"]
    told = main(*arguments)
    assert sorted(path.name for path in tmp_path.glob("rows-*")) == ["rows-192", "rows-96"]
    for rows in (96, 192):
        names = {one.name for one in read_records(tmp_path / f"rows-{rows}")}
        assert names == {"r0-seed0", "r1-symmetric-nll-steps-seed0"}
    assert "(one seed)" in told and (tmp_path / "sizes.png").exists()
    assert main(*arguments) == told, "what is finished is not trained again"
    planned = main("--output", tmp_path, "--train_rows", "96", "192", *TINY, "--seed", "0", "--dry_run")
    assert "--train_rows 96\n" in planned and "--train_rows 192\n" in planned


def test_a_sweep_is_refused(tmp_path):
    with pytest.raises(SettingError, match="a number stands there twice"):
        classifier.main(["--train_rows", "96", "96"])
    with pytest.raises(SettingError, match="--push_to_hub"):
        classifier.main(["--train_rows", "96", "192", "--push_to_hub", "me/it"])
    with pytest.raises(SystemExit):
        classifier.main(["--train_rows", "96", "many"])
    with pytest.raises(ValueError, match="--train_rows 5000, but there are 1442 images"):
        classifier.main(["--train_rows", "96", "5000", "--output", str(tmp_path), *TINY])
