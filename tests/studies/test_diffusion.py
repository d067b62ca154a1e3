"""The diffusion recipe from the command line to its grid of images: a few steps on some of the embedded digits."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from printed import printed_by

import hf_noise
from hf_noise.diffusion import EDMPipeline
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import read_records
from hf_noise.studies.diffusion import study as edm_noise

TINY = [
    "--train_rows", "128", "--epochs", "1", "--batch_size", "16", "--classifier_epochs", "1", "--judge_epochs", "1",
    "--num_images", "40", "--sample_batch", "16", "--sampling_steps", "2", "--save_steps", "4", "--logging_steps", "4",
]  # fmt: skip
RUNS = ["r0-dsm-seed0", "r1-symmetric-dsm-seed0", "r1-symmetric-tdsm-seed0", "r0-compute-of-r1-dsm-seed0"]


main = functools.partial(printed_by, edm_noise.main)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, main("--output", folder, *TINY, "--ratio", "0", "1")


def test_every_run_is_a_pipeline_with_record_and_card(study):
    folder, _ = study
    others = ["classifier-r1-symmetric-seed0", "judge", "study.md", "study.png"]
    assert {path.name for path in folder.iterdir()} == {*others, *RUNS}
    for run in RUNS:
        names = {path.name for path in (folder / run).iterdir()}
        assert {"record.json", "README.md", "model_index.json", "unet", "scheduler", "samples.npz"} <= names
        assert "model.safetensors" not in names
        assert (folder / run / f"checkpoint-{8 if run == RUNS[0] else 16}").is_dir()
        card = (folder / run / "README.md").read_text()
        assert "Frechet distance in judge features" in card
        assert "transition-aware" in card if "tdsm" in run else "plain denoising score matching" in card
        with np.load(folder / run / "samples.npz") as kept:
            assert kept["images"].shape == (40, 8, 8, 1) and kept["images"].dtype == np.uint8
    assert hf_noise.load_noise(folder / RUNS[2]) == LabelFlips.symmetric(ratio=1.0, num_classes=10)


def test_the_kept_images_are_those_of_the_saved_pipeline(study):
    folder, _ = study
    pipeline = EDMPipeline.from_pretrained(folder / RUNS[1])
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(list(range(10)), seed=0, num_inference_steps=2, output_type="np").images
    with np.load(folder / RUNS[1] / "samples.npz") as kept:
        first = np.stack([kept["images"][kept["labels"] == label][0] for label in range(10)])
    assert np.abs(first - 255 * drawn).max() <= 1  # rounding of another batch


def test_records_hold_what_was_measured(study):
    folder, _ = study
    for run in RUNS:
        (record,) = read_records(folder / run / "record.json")
        metrics, steps = record.metrics, record.budget["steps"]
        assert steps == (8 if run == RUNS[0] else 16)
        assert record.noise["realised"]["n"] == 16 * steps
        assert metrics["label_consistency"]["n"] == 40 and 0 <= metrics["label_consistency"]["value"] <= 1
        assert metrics["judge_test_accuracy"]["n"] == metrics["test_loss"]["n"] == record.data["test_rows"]
        assert metrics["frechet_distance"]["value"] > 0
        assert record.model["parameters"] == 265_849
        assert record.loss.get("transition") == ("known" if "-tdsm-" in run else None)


def test_table_and_figure(study):
    folder, printed = study
    for run in RUNS:
        assert re.search(rf"^\| {run} +\|", printed, re.MULTILINE)
    assert printed.rstrip().endswith(f"figure: {folder / 'study.png'}")
    assert (folder / "study.png").stat().st_size > 10_000


def test_started_again_it_trains_nothing(study, monkeypatch):
    folder, printed = study
    monkeypatch.setattr("hf_noise.studies.engine.make", lambda *_: pytest.fail("made a finished run"))
    assert main("--output", folder, *TINY, "--ratio", "0", "1") == printed


def test_a_given_classifier_is_taken(study, tmp_path):
    folder, _ = study
    given = ["--classifier", folder / "classifier-r1-symmetric-seed0", "--judge", folder / "judge" / "r0-seed0"]
    main("--output", tmp_path, *TINY, "--ratio", "1", "--loss", "tdsm", *given)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RUNS[2], "study.md", "study.png"]
    (record,) = read_records(tmp_path / RUNS[2] / "record.json")
    (before,) = read_records(folder / RUNS[2] / "record.json")
    assert record.metrics["test_loss"] == before.metrics["test_loss"]


def test_a_classifier_of_other_settings_is_not_taken_up(study, tmp_path):
    folder, _ = study
    name = "classifier-r1-symmetric-seed0"
    shutil.copytree(folder / name, tmp_path / name)
    given = ["--output", tmp_path, *TINY, "--ratio", "1", "--loss", "tdsm", "--judge", folder / "judge" / "r0-seed0"]
    with pytest.raises(FileExistsError, match=r"other settings \(epochs\)"):
        main(*given, "--classifier_epochs", "2")


def test_the_classifier_has_a_record_of_its_own(study):
    folder, _ = study
    (record,) = read_records(folder / "classifier-r1-symmetric-seed0" / "record.json")
    assert record.task == "noisy_classification" and record.budget["error_rate"] == 0.5
    assert record.metrics["accuracy_sigma0.5"]["n"] == record.data["test_rows"]


def test_what_a_run_does_not_depend_on_may_change(study, monkeypatch):
    folder, _ = study
    monkeypatch.setattr("hf_noise.studies.engine.make", lambda *_: pytest.fail("made a finished run"))
    main("--output", folder, *TINY, "--ratio", "0", "1", "--loss", "dsm", "--tau", "0.5", "--sample_batch", "20")


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (["--classifier", "{study}/classifier-r1-symmetric-seed0", "--image_size", "16"], ValueError,
         "the classifier has image_size = 8, this run 16"),
        (["--classifier", "{study}/classifier-r1-symmetric-seed0", "--ratio", "0", "0.5"], ValueError,
         "of other noise"),
        (["--classifier", "{study}/judge"], OSError, "the classifier .*judge cannot be read"),
        (["--classifier", "nobody/nothing"], OSError, "nobody/nothing is no folder here"),
        (["--ratio", "0", "12"], ValueError, "allow_adversarial"),
    ],
)  # fmt: skip
def test_what_a_later_run_would_refuse_is_refused_first(study, tmp_path, monkeypatch, flags, error, message):
    folder, _ = study
    monkeypatch.setattr("hf_noise.studies.diffusion.run.trained_judge", lambda *_: pytest.fail("a judge was trained"))
    flags = [flag.format(study=folder) for flag in flags]
    with pytest.raises(error, match=message):
        main("--output", tmp_path / "new", *TINY, "--ratio", "0", "1", *flags)
    assert not list((tmp_path / "new").glob("*"))


def test_two_processes_draw_and_record_what_one_does(study, tmp_path):
    folder, _ = study
    recipe = Path(__file__).parents[2] / "recipes" / "edm_noise.py"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", recipe, "--output",
         tmp_path, *TINY, "--ratio", "1", "--judge", folder / "judge" / "r0-seed0", "--num_processes", "2"],
        capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    for run in RUNS[1:3]:
        (one,), (two,) = (read_records(where / run / "record.json") for where in (folder, tmp_path))
        assert two.budget["processes"] == 2 and two.noise["realised"] == one.noise["realised"]
        assert two.metrics["test_loss"]["value"] == pytest.approx(one.metrics["test_loss"]["value"], rel=1e-4)
        with np.load(folder / run / "samples.npz") as alone, np.load(tmp_path / run / "samples.npz") as together:
            assert np.array_equal(alone["labels"], together["labels"])
            apart = np.abs(alone["images"].astype(int) - together["images"].astype(int))
            assert np.quantile(apart, 0.99) <= 2  # of 255; a pixel in doubt may go to the other side


@pytest.mark.parametrize(("scale", "bound"), [("demo", 1.0), ("gpu", 0.0), ("paper", 0.0), ("paper_c", 0.0)])
def test_the_papers_cut_no_gradients(scale, bound):
    assert edm_noise.STUDY.parse(["--scale", scale]).max_grad_norm == bound


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scale", "paper"], {"model": "edm-cifar", "batch_size": 128, "learning_rate": 1e-4, "ema_decay": 0.9993}),
        (["--scale", "paper_c"], {"model": "edm-ddpmpp", "batch_size": 512, "dropout": 0.13, "redraw": "never",
                                  "tf32": False, "flip": False}),
        (["--scale", "gpu", "--data", "hf_noise/mnist-noisy"], {"flip": False}),
        (["--data", "hf_noise/cifar10-noisy"], {"model": "edm-small", "flip": True}),
        (["--scale", "paper"], {"flip": True}),
        (["--scale", "gpu", "--epochs", "2"], {"epochs": 2.0, "num_images": 10_000}),
    ],
)
def test_the_settings_of_a_scale(arguments, expected):
    settings = vars(edm_noise.STUDY.parse(arguments))
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--loss", "mse"], "takes dsm and tdsm, got mse"), (["--epochs", "0"], "--epochs must be > 0 and"),
     (["--bf16", "--fp16"], "--fp16 and --bf16 exclude each other"),
     (["--protocol", "random"], "unknown --protocol random; known: symmetric"),
     (["--flip", "True"], "--flip True would mirror digits"),
     (["--sampling_steps", "0"], "--sampling_steps must be >= 1"),
     (["--tau", "1"], "--tau must be >= 0 and < 1, got 1.0"), (["--ratio"], "nothing would be trained"),
     (["--scale", "gpu", "--protocol", "pairs", "--data", "hf_noise/imagenet-noisy"], "no map of similar classes"),
     (["--judge", "runs/no/such/judge"], "--judge runs/no/such/judge: there is no such folder"),
     (["--redraw", "daily"], "invalid choice: 'daily'")],
)  # fmt: skip
def test_wrong_flags_are_refused_at_once(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(*arguments)
    assert message in capsys.readouterr().err
