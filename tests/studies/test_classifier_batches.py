"""Advice on the batch and numbers of clean images: from records made up, and a few steps of the command."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from printed import printed_by
from transformers import TrainingArguments

from hf_noise.analysis import advise_batch
from hf_noise.analysis.noise_scale import NoiseScale
from hf_noise.models.image import image_classifier
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.classifier import study as classifier
from hf_noise.studies.classifier.multipliers import advice_figure, advised, show_advice, table_of_multipliers
from hf_noise.studies.classifier.signal import SignalToNoise
from hf_noise.studies.classifier.sizes import (
    comparable,
    show_sizes,
    size_figure,
    sizes_of,
    table_of_sizes,
    verdicts,
)
from hf_noise.studies.settings import SettingError, at_scale
from hf_noise.trainers import ImageClassifierTrainer
from hf_noise.trainers.images import DeviceImages

main = functools.partial(printed_by, classifier.main)
TINY = ["--epochs", "1", "--batch_size", "16", "--save_steps", "50", "--logging_steps", "4"]
WATCHED = [*TINY, "--scale", "advice", "--micro_batch", "8", "--seed", "0", "--train_rows", "128"]
SNR = {"value": 0.9, "low": 0.8, "high": 1.0, "n": 20, "batch_size": 64, "ratio": 1.0, "window": "last half"}
MEASURED = {"gradient_snr": SNR, "gradient_noise_scale_low": {"value": 5000.0, "n": 20}}


SETTINGS = at_scale(classifier.Settings, "advice")


def record(ratio=1.0, seed=0, accuracy=0.8, multiplier=1.0, rows=1000, optimizer="sgd", nll=0.5, **metrics):
    plan = "steps" if multiplier == 1 else f"steps-x{multiplier:g}"
    metrics = {"test_accuracy": {"value": accuracy, "n": 100}, "test_nll": {"value": nll, "n": 100}} | metrics
    noise = {"protocol": "label_flips", "kind": "symmetric", "ratio": ratio, "error_rate": ratio / (1 + ratio)}
    return RunRecord(
        name=f"r{ratio:g}-{plan}-seed{seed}", task="image_classification", recipe="recipes/classifier_noise.py",
        command="", model={"name": "resnet10-digits"}, seed=seed, wall_seconds=1.0, git=None, versions={}, hardware={},
        settings=asdict(SETTINGS) | {"optimizer": optimizer, "train_rows": rows},
        data={"source": "x", "train_rows": rows},
        noise=noise | {"realised": {"rate": noise["error_rate"], "n": 100}}, loss={"name": "nll"},
        budget={"plan": plan, "steps": int(100 / multiplier), "batch_multiplier": multiplier, "exposure": 1.0},
        metrics=metrics,
    )  # fmt: skip


def tried(accuracies, **metrics):
    return [record(accuracy=value, multiplier=m, seed=seed, **(metrics if m == 1 else {}))
            for m, values in accuracies.items() for seed, value in enumerate(values)]  # fmt: skip


# ---- advice


def test_the_advised_batch_beside_the_best():
    runs = tried({1.0: (0.90, 0.92, 0.91), 2.0: (0.95, 0.93, 0.94), 4.0: (0.97, 0.95, 0.96), 8.0: (0.5, 0.5, 0.5)},
                 **MEASURED)  # fmt: skip
    (found,) = advised([record(0.0), *runs])
    infinite = NoiseScale(math.inf, 5000.0, math.inf, signal=-1.0, variance=1.0, n=9, confidence=0.95)
    expected = advise_batch(1.0, snr=0.9, batch_size=64, snr_ratio=1.0, noise_scale=infinite, noise_scale_ratio=1.0,
                            snr_interval=(0.8, 1.0), optimizer="sgd")  # fmt: skip
    assert found.advice[0] == expected and found.multiplier == pytest.approx(1 + 1 / 0.81)
    assert (found.choice, found.best) == (2, 4)
    assert found.behind == pytest.approx((1 - 0.95 / 0.97 + 1 - 0.93 / 0.95 + 1 - 0.94 / 0.96) / 3)
    assert found.held is False and "of the last half; by seed" in found.told()
    assert "The advised one is not within 1% of the best: 2.08 [2.03, 2.14]% behind (3 seeds)" in found.told()
    lines = table_of_multipliers([found]).rows
    assert [line[1] for line in lines] == ["1", "2", "4", "8"] and lines[1][-1] == "yes (2.23)"
    assert lines[1][3] == "94.0" and lines[2][7] == "0.00"


def test_open_ends_go_into_the_advice():
    """An SNR that may be 0 or without an end, as of few measurements: neither is taken for exact."""
    for ends, low, high in (({"low": 0.0, "high": 1.0}, 2.0, math.inf), ({"low": 0.8}, 1.0, None)):
        snr = {name: value for name, value in SNR.items() if name not in ("low", "high")} | ends
        (found,) = advised(tried({1.0: (0.9,), 2.0: (0.9,)}, **(MEASURED | {"gradient_snr": snr})))
        told = found.advice[0]
        assert told.low == pytest.approx(low) and (told.high == high or high is None and 2.5 < told.high < 2.7)


def test_what_is_within_of_the_best_is_judged_seed_by_seed():
    def of(usual, twice):
        return advised(tried({1.0: usual, 2.0: twice}, **MEASURED))[0]

    assert of((0.9, 0.91, 0.92), (0.9, 0.908, 0.921)).held is True
    assert of((0.9, 0.91, 0.92), (0.8, 0.82, 0.80)).held is False
    wide = of((0.95, 0.95, 0.95), (0.95, 0.94, 0.955))
    assert wide.behind < 0.01 and wide.held is None and "is open: 0.18 [" in wide.told()
    few = of((0.9, 0.91), (0.9, 0.908))
    assert few.held is None and "Whether the advised one is within 1% of the best is open" in few.told()
    assert of((0.9, 0.91), (0.91, 0.92)).held is None, "two seeds are too few also where it is the best itself"


def test_multipliers_are_compared_in_the_seeds_of_all():
    runs = tried({1.0: (0.1, 0.9, 0.9), 2.0: (0.1, 0.8, 0.8)}, **MEASURED)[1:]  # without seed 0 of the usual batch
    (found,) = advised(runs)
    assert found.accuracies == {1.0: {1: 0.9, 2: 0.9}, 2.0: {1: 0.8, 2: 0.8}}
    assert found.behind == pytest.approx(1 - 8 / 9)
    apart = [record(seed=0, **MEASURED), record(seed=1, multiplier=2.0)]
    assert advised(apart) == [] and "no seed was trained with every batch multiplier" in show_advice(apart, "none")


def test_a_learning_rate_that_grows_too_takes_the_advice_of_adam():
    scale = {"gradient_noise_scale": {"value": 500.0, "low": 200.0, "high": 900.0, "n": 20},
             "gradient_noise_scale_low": {"value": 200.0, "n": 20}}  # fmt: skip
    runs = tried({1.0: (0.9,), 4.0: (0.9,)}, gradient_snr=SNR, **scale)
    runs = [replace(one, settings=one.settings | {"scale_learning_rate": True}) for one in runs]
    (found,) = advised(runs)
    assert found.advice[0].optimizer == "adam" and found.choice == 4
    assert found.advice[0].noisy_noise_scale == pytest.approx(500)


def test_advice_is_written_and_drawn(tmp_path):
    runs = tried({1.0: (0.90, 0.92, 0.91), 2.0: (0.95, 0.93, 0.94)}, **MEASURED)
    told = show_advice(runs, tmp_path)
    values = json.loads((tmp_path / "advice.json").read_text())
    assert values["ratios"][0]["held"] is True and values["ratios"][0]["test_accuracy"]["2.0"]["1"] == 0.93
    assert values["ratios"][0]["window"] == "last half"
    assert "advised 2.23 times the batch" in told and (tmp_path / "advice.md").exists()
    assert Image.open(advice_figure(advised(runs), tmp_path / "a.png")).width > 900


def test_what_advice_lacks_is_said(tmp_path):
    runs = tried({1.0: (0.90,), 2.0: (0.95,)}, **MEASURED)
    assert "no larger batches were tried" in show_advice(runs[:1], tmp_path)
    assert "no run under symmetric noise" in show_advice(runs[1:], tmp_path)
    unwatched = tried({1.0: (0.90,), 2.0: (0.95,)})
    assert "no advice: r1-steps-seed0: no SNR was measured" in show_advice(unwatched, tmp_path)


def test_with_advise_it_is_said_also_of_runs_that_were_trained_before(tmp_path):
    unwatched = ["--output", tmp_path, *WATCHED, "--ratio", "1", "--plan", "steps"]
    assert "advice" not in main(*unwatched, "--advise", "False")
    assert "no advice: r1-symmetric-nll-steps-seed0: no SNR was measured" in main(*unwatched)


def test_plans_of_larger_batches():
    settings = at_scale(classifier.Settings, "advice", batch_size=64)
    runs = classifier.runs_of(settings)
    assert len(runs) == 15
    plans = {run.name: classifier.plan_of(settings, run, 1442) for run in runs if run.seed == 0}
    assert {(plan.name, plan.steps, plan.batch_size) for plan in plans.values()} == {
        ("steps", 220, 64), ("steps", 440, 64), ("steps-x2", 220, 128), ("steps-x4", 110, 256), ("steps-x8", 55, 512),
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
    for wrong, says in (({"ratio": [0.0]}, "--advise"), ({"plan": ["batch"]}, "--advise"),
                        ({"mixup": 0.2}, "--mixup 0.2 mixes their rows"),
                        ({"micro_batch": 64}, "multiple of --micro_batch 64 and at least twice that, got 64"),
                        ({"batch_size": 80}, "multiple of --micro_batch 32")):  # fmt: skip
        with pytest.raises(SettingError, match=says):
            at_scale(classifier.Settings, "advice", **wrong)


def test_a_batch_of_more_images_than_there_are_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_noise.studies.engine.make", lambda *_: pytest.fail("a run was made"))
    with pytest.raises(SettingError, match="r1-symmetric-nll-steps-x8-seed0 is to make steps of 512 images, and there "
                                           "are 100 to train on"):  # fmt: skip
        classifier.main(["--output", str(tmp_path), "--scale", "advice", "--train_rows", "100", "--batch_size", "64",
                         "--epochs", "12", "--seed", "0", "--plan", "steps", "steps-x8", "--ratio", "1"])  # fmt: skip


def test_the_command_measures_and_advises(tmp_path):
    told = main("--output", tmp_path, *WATCHED, "--plan", "steps", "steps-x2", "--train_rows", "250")
    assert "advised" in told and "batch, x" in told
    records = {one.name: one for one in read_records(tmp_path)}
    assert "gradient_snr" not in records["r0-seed0"].metrics
    watched = records["r1-symmetric-nll-steps-seed0"]
    # Of 30 steps every fourth from 0 is measured, 16 to 28 in the last half.
    assert watched.metrics["gradient_snr"]["n"] == 4 and watched.metrics["gradient_snr"]["ratio"] == 1
    assert watched.metrics["gradient_snr"]["low"] < watched.metrics["gradient_snr"]["value"]
    assert watched.metrics["gradient_noise_scale_low"]["window"] == "last half of the steps"
    # 250 images are 15 whole batches of 16, and 7 of 32.
    assert {one.noise["realised"]["n"] for one in records.values()} == {15 * 16, 30 * 16}
    twice = records["r1-symmetric-nll-steps-x2-seed0"]
    assert "gradient_snr" not in twice.metrics and twice.budget["batch_multiplier"] == 2
    assert twice.budget["plan"] == "steps-x2" and twice.budget["exposure"] == 1
    assert (tmp_path / "advice.png").exists()


def test_what_was_measured_is_not_lost_with_a_record(tmp_path, monkeypatch):
    """The run that is ended after its last step, here by its card, has measured what it would have."""
    arguments = [*WATCHED, "--ratio", "1", "--plan", "steps", "--save_steps", "3"]
    main("--output", tmp_path / "whole", *arguments)
    with monkeypatch.context() as patch:
        patch.setattr("hf_noise.studies.engine.model_card", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main("--output", tmp_path / "ended", *arguments)
    main("--output", tmp_path / "ended", *arguments)
    whole, ended = (read_records(tmp_path / name)[0].metrics for name in ("whole", "ended"))
    assert whole["gradient_snr"]["n"] == 2 and whole["gradient_noise_scale_low"]["n"] == 2
    names = [name for name in whole if name.startswith("gradient")]
    assert {name: whole[name] for name in names} == {name: ended[name] for name in names}


@pytest.mark.parametrize("redraw", ["epoch", "never"])
def test_both_norms_are_those_of_gradients_by_hand(tmp_path, redraw):
    """Clean over corrupt, in passes of 8 that are normalised apart."""
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.integers(0, 256, (24, 1, 8, 8), dtype=np.uint8))
    own = {"labels": torch.from_numpy(draw.integers(0, 4, 24)), "sample_id": torch.arange(24) * 3}
    rows = DeviceImages(images, own, mean=[0.5], std=[0.5])
    noise = LabelFlips.symmetric(ratio=0.5, num_classes=4, seed=3, redraw=redraw)
    signal = SignalToNoise(16)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", max_steps=5, save_strategy="no",
                             per_device_train_batch_size=8, gradient_accumulation_steps=2, learning_rate=0.0,
                             disable_tqdm=True)  # fmt: skip
    torch.manual_seed(0)
    model = image_classifier("resnet10-digits", labels=4, image_size=8, num_channels=1)
    ImageClassifierTrainer(model, args, noise=noise, train_dataset=rows, callbacks=[signal]).train()
    model.train()
    assert len(signal.norms) == 2
    for step, found in zip((0, 4), signal.norms):
        chosen = np.random.default_rng([3, step]).choice(24, 16, replace=False)
        labels = own["labels"][chosen]
        noisy, is_noisy = noise(labels, own["sample_id"][chosen], (1 << 30) + step)
        expected = []
        for kind in (~is_noisy, is_noisy):
            model.zero_grad()
            for part in (slice(0, 8), slice(8, 16)):
                pixels = (images[chosen[part]] / 255 - 0.5) / 0.5
                nll = torch.nn.functional.cross_entropy(model(pixels).logits, noisy[part], reduction="none")
                nll[kind[part]].sum().backward()
            expected.append(sum(float((p.grad.double() ** 2).sum()) for p in model.parameters()) ** 0.5)
        assert found == pytest.approx(tuple(expected), rel=1e-4)
        assert abs(expected[0] / expected[1] - 1) > 0.01, "which tells one from the other"
        if redraw == "never":
            assert torch.equal(noisy, noise(labels, own["sample_id"][chosen], 0)[0]), "those that are trained on"


def test_more_rows_than_there_are_are_not_measured(tmp_path):
    rows = DeviceImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
                        {"labels": torch.arange(4), "sample_id": torch.arange(4)}, mean=[0.5], std=[0.5])  # fmt: skip
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", save_strategy="no")
    model = image_classifier("resnet10-digits", labels=4, image_size=8, num_channels=1)
    noise = LabelFlips.symmetric(ratio=0.5, num_classes=4)
    with pytest.raises(ValueError, match="batches of 16 rows, and there are 4"):
        ImageClassifierTrainer(model, args, noise=noise, train_dataset=rows, callbacks=[SignalToNoise(16)]).train()


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
    assert verdicts(sizes_of(sizes({100: 20.0, 1000: 10.0}, seeds=1)))[0].word == "held on these test rows (one seed)"
    assert verdicts(sizes_of(sizes({100: 20.0}))) == []


def test_only_the_same_seeds_are_compared():
    runs = [one for one in sizes({100: 20.0, 1000: 10.0}, seeds=6) if (one.seed < 3) == (one.data["train_rows"] == 100)]
    found = sizes_of(runs)
    assert [one.seeds for one in found] == [(0, 1, 2), (3, 4, 5)] and verdicts(found) == []
    shifted = [one for one in sizes({100: 20.0, 1000: 10.0}, seeds=4)
               if one.seed != (3 if one.data["train_rows"] == 100 else 0)]  # fmt: skip
    (verdict,) = verdicts(sizes_of(shifted))
    same = [one for one in sizes({100: 20.0, 1000: 10.0}, seeds=3) if one.seed in (1, 2)]
    assert verdict == verdicts(sizes_of(same))[0] and verdict.seeds == 2


def test_runs_of_other_settings_are_left_out_by_name():
    runs = sizes({100: 20.0, 1000: 10.0}, seeds=1)
    of_another = replace(runs[0], settings=runs[0].settings | {"epochs": 3.0, "model": "resnet18-cifar"})
    no_flag = {name: value for name, value in runs[1].settings.items() if name != "scale_learning_rate"}
    other_seed = replace(runs[1], settings=no_flag | {"seed": [7], "ratio": [0.5], "output": "x", "save_steps": 3})
    kept, left_out = comparable([of_another, other_seed, *runs[2:]], SETTINGS)
    assert kept == [other_seed, *runs[2:]]
    assert left_out == [f"left out, of --epochs 3.0 --model resnet18-cifar: 100 images: {of_another.name}"]


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
    other = main("--output", tmp_path, "--train_rows", "64", "80", *TINY, "--seed", "0", "--learning_rate", "0.01")
    assert "left out, of --learning_rate 0.05: 96 images: r0-seed0, 96 images: r1-symmetric" in other
    assert "96" not in (tmp_path / "sizes.md").read_text()
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
