"""recipes/loss_stability.py from the command line to table, claims, figure and records: tiny models, embedded text."""

from __future__ import annotations

import functools
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from printed import printed_by

from hf_noise.data.embedded import docs_text
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import RunRecord
from hf_noise.studies.settings import SettingError, at_scale
from hf_noise.studies.stability import study
from hf_noise.studies.stability.claims import labels_of, pairs_of, predicted_std, verdicts
from hf_noise.studies.stability.report import measurements, table_of_sizes
from hf_noise.studies.stability.run import named

main = functools.partial(printed_by, study.main)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[str]:
    """Settings of models that take a second: a short text, and few steps."""
    folder, text = tmp_path_factory.mktemp("text"), "\n".join(docs_text("validation"))
    train, validation = folder / "train.txt", folder / "validation.txt"
    train.write_text(text[:20_000], encoding="utf-8")
    validation.write_text(text[20_000:24_000], encoding="utf-8")
    return [
        "--source", str(train), "--validation_source", str(validation), "--tokenizer", "embedded:300",
        "--block_size", "16", "--steps", "4", "--batch_size", "4", "--micro_batch", "64", "--score_rows", "32",
        "--sizes", "4", "8", "16", "--num_batches", "20",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny):
    """The folder of a study and what it printed."""
    folder = tmp_path_factory.mktemp("stability")
    return folder, main("--output", folder, *tiny)


def test_the_study_ends_in_table_claims_figure_and_records(done):
    folder, printed = done
    records = measurements(folder)
    assert [(one.name, one.noise["error_rate"]) for one in records] == [("r0-seed0", 0.0), ("r1-nll-batch-seed0", 0.5)]
    assert (folder / "stability.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "stability.md").read_text().splitlines()) == 2 + 6
    assert "| e = 0.5: the mean does not depend on the size" in printed and "figure: " in printed
    for one in records:
        mean, std = one.metrics["macro_batch_mean"], one.metrics["macro_batch_std"]
        losses = np.array(mean["losses"])
        assert losses.shape == (3, 20) and std["sizes"] == [4, 8, 16]
        assert losses.mean(1) == pytest.approx(mean["values"], abs=1e-6)
        assert losses.std(1, ddof=1) == pytest.approx(std["values"], abs=2e-6)
        assert one.budget["rows"] == 20 * 28 and one.metrics["loss_exponent"]["low"] < 0
        row = one.metrics["row_std"]["value"]
        assert std["independent"] == pytest.approx([row / 2, row / 8**0.5, row / 4])
    assert "nll_corrupted_targets" not in records[0].metrics and "nll_corrupted_targets" in records[1].metrics


def test_what_is_there_is_not_measured_again_and_other_settings_are_refused(done, tiny):
    folder, printed = done
    before = (folder / "measured" / "r0-seed0" / "record.json").read_bytes()
    assert main("--output", folder, *tiny) == printed
    assert (folder / "measured" / "r0-seed0" / "record.json").read_bytes() == before
    with pytest.raises(FileExistsError, match=r"other settings \(num_batches\)"):
        main("--output", folder, *tiny, "--num_batches", "21")


def test_a_checkpoint_is_measured_with_the_noise_it_states(done, tiny, tmp_path):
    """The same figures as in the study that trained it, and in stored order beside them."""
    folder, _ = done
    model = folder / "models" / "r1-nll-batch-seed0"
    at = tiny.index("--tokenizer")
    own = [*tiny[:at], *tiny[at + 2 :]]  # that of the checkpoint
    main("--output", tmp_path, *own, "--model", model)
    printed = main("--output", tmp_path, *own, "--model", model, "--order", "stored", "--micro_batch", "7")
    shuffled, stored = sorted(measurements(tmp_path), key=lambda one: one.name)
    ours = measurements(folder)[1]
    for name in ("macro_batch_mean", "macro_batch_std", "loss_exponent"):
        assert shuffled.metrics[name] == ours.metrics[name]
    assert stored.name == "r1-nll-batch-seed0-stored" and stored.noise == ours.noise
    assert stored.metrics["macro_batch_std"]["values"] != ours.metrics["macro_batch_std"]["values"]
    assert "r1-nll-batch-seed0-stored: the mean" in printed, "by name, as both have one error rate"
    clean = tmp_path / "as it is"
    main("--output", clean, *own, "--model", model, "--no_stated")
    assert measurements(clean)[0].noise["error_rate"] == 0


def test_models_that_cannot_be_measured_are_refused_before_any_is(done, tiny, tmp_path):
    folder, _ = done
    model = folder / "models" / "r0-seed0"
    silent = tmp_path / "silent"
    shutil.copytree(model, silent)
    for name in ("README.md", "record.json"):
        (silent / name).unlink()
    config = json.loads((silent / "config.json").read_text())
    for told, changes, message in (
        ({"hf_noise": None}, [], "--no_stated measures it on the text as it is"),
        ({"architectures": ["BertForMaskedLM"]}, [], "is no causal language model .*BertForMaskedLM"),
        ({}, ["--tokenizer", "embedded:400"], "--tokenizer embedded:400 has 400 tokens, --model .* knows 300"),
        ({}, ["--tokenizer", "embedded:290"], "--tokenizer embedded:290 is not that of --model .*; leave it out"),
        ({}, ["--block_size", "64"], "--block_size 64: .* positions for 16"),
        ({}, ["--sizes", "4", "100000"], "--sizes 100000: there are .* none stands twice"),
    ):
        left = {key: value for key, value in (config | told).items() if value is not None}
        (silent / "config.json").write_text(json.dumps(left))
        with pytest.raises(ValueError, match=message):
            main("--output", tmp_path / "out", *tiny, *changes, "--model", model, silent)


def test_models_of_one_name_are_told_apart(done, tiny, tmp_path):
    model = done[0] / "models" / "r0-seed0"
    other = tmp_path / "r0-seed0"
    settings = at_scale(study.Settings, "demo", model=[str(model), str(model.parent / "r1-nll-batch-seed0")])
    shutil.copytree(model, other)
    again = replace(settings, model=[str(model), str(other)], order="stored")
    assert [one.name for one in named(settings)] == ["r0-seed0", "r1-nll-batch-seed0"]
    assert [one.name for one in named(again)] == ["r0-seed0-stored", "r0-seed0~2-stored"]


def test_a_dry_run_says_what_would_be_done(done, tiny, tmp_path):
    folder, _ = done
    told = main("--output", tmp_path / "none", *tiny, "--dry_run")
    assert "r1-nll-batch-seed0: e = 0.5000, 4 steps x 8 rows" in told and "each is measured on 560 rows" in told
    told = main("--output", tmp_path / "none", *tiny, "--dry_run", "--model", folder / "models" / "r1-nll-batch-seed0")
    assert "e = 0.5000" in told and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": [8]}, "--sizes must be two or more that rise"), ({"sizes": [8, 4]}, "--sizes must be two or more"),
        ({"streaming": True, "validation_source": "a.txt"}, "--streaming: rows are read by their numbers"),
        ({"ratio": []}, "--ratio is empty and there is no --model"),
        ({"num_batches": 9}, "--num_batches must be >= 10"),
        ({"model": ["no/such/folder"]}, "--model no/such/folder: there is no such folder"),
        ({"order": "random"}, "--order must be one of shuffled, stored"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        at_scale(study.Settings, "demo", **changes)


# ---- claims, on the paper's own table


def published(kind: str, error_rate: float) -> RunRecord:
    """Table 5 as a record."""
    table = paper_table("A.table5")
    means, stds = ([row[f"{kind}_{what}"] * scale for row in table.values()] for what, scale in
                   (("mean", 1), ("std", 1e-3)))  # fmt: skip
    slope = np.polyfit(np.log(list(table)), np.log(stds), 1)[0]
    at = {"n": 200, "sizes": list(table)}
    nll = {"clean": 2.87 + np.log(2) * (kind == "noisy"), "corrupted": np.log(50257) + np.log(2)}
    return RunRecord(
        name=kind, task="loss_stability", recipe="recipes/loss_stability.py", model={"name": "gpt2"},
        data={"source": "Skylion007/openwebtext", "block_size": 1024},
        noise={"protocol": "uniform-tokens", "error_rate": error_rate}, budget={"order": "shuffled"}, loss={},
        settings={}, seed=0, wall_seconds=0.0,
        metrics={
            "macro_batch_mean": at | {"value": means[-1], "values": means, "same_mean_p": 0.9},
            "macro_batch_std": at | {"value": stds[-1], "values": stds, "independent": stds, "worth": list(table)},
            "loss_exponent": {"value": slope, "low": slope - 0.04, "high": slope + 0.04, "n": 200},
        } | {f"nll_{of}_targets": {"value": float(nll[of]), "n": 9} for of in ("clean", "corrupted")},
    )  # fmt: skip


@pytest.fixture
def paper():
    return [published("clean", 0.0), published("noisy", 0.5)]


def test_every_claim_holds_of_the_papers_own_table(paper):
    found = verdicts(paper)
    assert len(found) == 8 and {one.word for one in found} == {"held (one model)"}
    assert "-0.499 [-0.539, -0.459], 75% less" in found[1].statistic
    assert "-0.493" in found[4].statistic and "0.54 [" in found[6].statistic
    assert labels_of(paper) == {"clean": "e = 0", "noisy": "e = 0.5"}


def test_the_spread_that_arithmetic_predicts(paper):
    """Of the specification: 10.4, 7.7, 5.3, 3.8 and 2.6 thousandths, measured 9.45, 7.08, 4.58, 3.61, 2.40."""
    assert 1000 * predicted_std(*paper) == pytest.approx([10.4, 7.7, 5.3, 3.8, 2.6], abs=0.1)
    told = {name: value for name, value in paper[1].metrics.items() if name != "nll_clean_targets"}
    assert predicted_std(paper[0], replace(paper[1], metrics=told)) is None


def test_claims_that_fail_or_stay_open(paper):
    clean, noisy = paper

    def changed(metric, **values):
        return replace(noisy, metrics=noisy.metrics | {metric: noisy.metrics[metric] | values})

    def words(record):
        return [one.word.partition(" (")[0] for one in verdicts([clean, record])[3:]]

    std = np.array(noisy.metrics["macro_batch_std"]["values"])
    assert words(changed("macro_batch_std", values=std[::-1].tolist()))[0] == "not held"
    for higher, word in ((0.15, "open"), (0.3, "not held")):  # by a 95 % interval of 0.139 alone, and of four
        risen = [std[0], std[0] * math.exp(higher), *std[2:]]
        assert words(changed("macro_batch_std", values=risen))[0] == word
    assert words(changed("loss_exponent", low=-0.4, high=-0.3))[1] == "not held"
    assert words(changed("loss_exponent", low=-0.9, high=-0.3))[1] == "open"
    assert words(changed("macro_batch_mean", same_mean_p=1e-4))[2] == "not held"
    assert words(changed("macro_batch_std", values=(4 * std).tolist()))[3:] == ["not held", "not held"]
    equal = changed("macro_batch_std", values=clean.metrics["macro_batch_std"]["values"])
    assert words(equal)[3] == "open"
    larger_at_first = (std * np.r_[2.5, np.ones(4)]).tolist()
    assert words(changed("macro_batch_std", values=larger_at_first))[3] == "not held"
    few = replace(noisy, metrics={
        name: value | {"n": 3} if name.startswith("macro") else value for name, value in noisy.metrics.items()
    })  # fmt: skip
    assert words(few)[0] == "open"  # of three macro-batches a spread says nothing
    means = noisy.metrics["macro_batch_mean"]["values"]
    assert words(changed("macro_batch_mean", values=[1.05 * means[0], *means[1:]]))[2] == "not held"
    scattered = replace(noisy, metrics=noisy.metrics | {
        "macro_batch_std": noisy.metrics["macro_batch_std"] | {"values": (100 * std).tolist()}
    })  # fmt: skip
    assert words(scattered)[2] == "open"
    for other in ({"block_size": 64}, {"tokenizer": "another"}):
        assert pairs_of([clean, replace(noisy, data=noisy.data | other)]) == []
    assert pairs_of([clean, replace(noisy, model=noisy.model | {"parameters": 1})]) == []
    assert pairs_of([clean, replace(noisy, seed=1)]) == [] and pairs_of([noisy, clean]) == [(clean, noisy)]


def test_the_table_has_the_papers_figures_beside_their_own_setting(paper):
    table = table_of_sizes(paper).markdown()
    assert [cell.strip() for cell in table.splitlines()[2].split("|")[-3:-1]] == ["2.8366", "17.5"]
    assert [cell.strip() for cell in table.splitlines()[-1].split("|")[-3:-1]] == ["7.5807", "2.4"]
    elsewhere = [replace(one, data=one.data | {"block_size": 256}) for one in paper]
    assert "paper" not in table_of_sizes(elsewhere).measured().markdown()
