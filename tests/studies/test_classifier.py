"""The classifier recipe from the command line to its table: a few steps on some of the embedded digits."""

from __future__ import annotations

import fcntl
import functools
import re
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError
from PIL import Image
from printed import printed_by
from transformers import AutoImageProcessor, AutoModelForImageClassification, TrainingArguments

import hf_noise
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import read_records
from hf_noise.studies.classifier import study as classifier_noise
from hf_noise.studies.images import ImageData
from hf_noise.trainers.folders import LOCK_FILE

main = functools.partial(printed_by, classifier_noise.main)


TINY = ["--train_rows", "128", "--epochs", "1", "--batch_size", "16", "--save_steps", "4", "--logging_steps", "4"]
RUNS = [
    "r0-compute-of-r1-steps-seed0", "r0-seed0", "r1-cyclic-corrected-steps-seed0", "r1-cyclic-nll-steps-seed0",
    "r1-symmetric-corrected-steps-seed0", "r1-symmetric-nll-steps-seed0",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, main("--output", folder, *TINY, "--ratio", "0", "1")


def test_every_run_has_its_folder_record_card_and_checkpoint(study):
    folder, _ = study
    assert sorted(path.name for path in folder.iterdir()) == [*RUNS, "study.md", "study.png"]
    for run in RUNS:
        steps = 8 if run == "r0-seed0" else 16
        names = {path.name for path in (folder / run).iterdir()}
        assert {"record.json", "README.md", "model.safetensors", "preprocessor_config.json", "run.json"} <= names
        assert f"checkpoint-{steps}" in names
        model = AutoModelForImageClassification.from_pretrained(folder / run)
        assert model.config.id2label[3] == "3" and model.config.num_labels == 10
        assert AutoImageProcessor.from_pretrained(folder / run).size["height"] == 8
        card = (folder / run / "README.md").read_text()
        assert "accuracy, clean test labels" in card


def test_the_checkpoint_knows_its_noise(study):
    folder, _ = study
    assert hf_noise.load_noise(folder / RUNS[3]) == LabelFlips.cyclic(ratio=1.0, num_classes=10)
    assert hf_noise.load_noise(folder / RUNS[5]) == LabelFlips.symmetric(ratio=1.0, num_classes=10)


def test_records_hold_what_was_measured(study):
    folder, _ = study
    records = {record.name: record for record in read_records(folder)}
    assert sorted(records) == RUNS
    for name, record in records.items():
        steps = record.budget["steps"]
        assert (steps, record.budget["epochs"]) == ((8, 1.0) if name == "r0-seed0" else (16, 2.0))
        assert record.noise["realised"]["n"] == 16 * steps
        e = record.noise["error_rate"]
        # Five standard deviations: a false alarm once in a million seeds.
        assert abs(record.noise["realised"]["rate"] - e) <= 5 * (e * (1 - e) / (16 * steps)) ** 0.5
        test = record.metrics["test_accuracy"]
        assert test["low"] < test["value"] < test["high"] and test["n"] == record.data["test_rows"]
        assert len(test["per_class"]) == 10
        assert ("memorised" in record.metrics) == (e > 0)
        assert record.metrics["train_accuracy_clean_labels"]["n"] == 128
        assert record.task == "image_classification" and record.data["source"] == "embedded/digits"


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scale", "paper"], {"epochs": 200.0, "model": "resnet18-cifar", "batch_size": 128}),
        (["--scale", "gpu", "--epochs", "2"], {"epochs": 2.0, "ratio": [0.0, 0.5, 1.0]}),
        (["--scale", "imagenet", "--ratio", "0"], {"model": "vit_base_patch16_224"}),
    ],
)
def test_the_settings_of_a_scale(arguments, expected):
    settings = vars(classifier_noise.STUDY.parse(arguments))
    assert {name: settings[name] for name in expected} == expected


def test_both_readings_of_table_7():
    base = ["--scale", "imagenet", "--train_rows", "102400", "--classes", "100", "--ratio", "1", "--dry_run"]
    assert "15,000 steps x 4096 images = 600.0 epochs, clean exposure 1.000" in main(*base)
    assert "3,750 steps x 4096 images = 150.0 epochs, clean exposure 0.250" in main(*base, "--reading", "as_printed")
    assert "hf_noise/imagenet-noisy on the Hub, which a run downloads" in main(*base)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--loss", "hinge"], ", got hinge"), (["--epochs", "0"], "must be > 0 and"),
     (["--protocol", "random"], "unknown --protocol random; known: symmetric"),
     (["--protocol", "pairs", "--data", "hf_noise/imagenet-noisy"], "no map of similar classes is known")],
)
def test_wrong_flags_are_refused_at_once(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(*arguments)
    assert message in capsys.readouterr().err


def test_more_rows_than_there_are_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="--test_rows 356, but there are 355"):
        main("--output", tmp_path, "--train_rows", "128", "--test_rows", "356", "--ratio", "0")
    with pytest.raises(ValueError, match="--train_rows 10000, but there are 14"):
        main("--output", tmp_path, "--train_rows", "10000", "--ratio", "0")


def test_what_cannot_be_drawn_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_noise.studies.engine.make", lambda *_: pytest.fail("a run was made"))
    with pytest.raises(ValueError, match=r"0.9523.*allow_adversarial"):
        main("--output", tmp_path, *TINY, "--ratio", "0", "20")
    with pytest.raises((ValueError, DatasetGenerationError), match="human_worse"):
        main("--output", tmp_path, *TINY, "--ratio", "0", "--protocol", "human:worse")


def test_past_the_limit_if_asked_for(tmp_path):
    main("--output", tmp_path, *TINY, "--ratio", "20", "--protocol", "symmetric", "--loss", "nll", "--plan", "budget",
         "--redraw", "never", "--allow_adversarial", "True", "--seed", "1", "2")  # fmt: skip
    records = read_records(tmp_path)
    assert [record.seed for record in records] == [1, 2]
    assert all(record.budget["steps"] == 8 and record.noise["redraw"] == "never" for record in records)
    assert all(record.noise["realised"]["rate"] > 0.8 for record in records)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Labels that people gave to the digits: every fifth one names the next class."""
    clean = np.array(hf_noise.load_dataset("hf_noise/digits-noisy", r=0.0, split="train")["label"])
    given = np.where(np.arange(clean.size) % 5 == 0, (clean + 1) % 10, clean)
    path = tmp_path_factory.mktemp("people") / "people.parquet"
    Dataset.from_dict({"clean_label": clean, "human_worse": given}).to_parquet(path)
    return path, clean, given


@pytest.mark.parametrize("on_device", [True, False])
def test_labels_of_people(tmp_path, people, on_device):
    path, clean, given = people
    small = [] if on_device else ["--image_size", "32", "--train_rows", "128", "--epochs", "1"]
    main("--output", tmp_path, *TINY, "--protocol", "human:worse", "--human_source", path, "--ratio", "--loss",
         "corrected", "--on_device", on_device, *small)  # fmt: skip
    (record,) = read_records(tmp_path)
    noise = record.noise
    assert record.name == "human-worse-corrected-budget-seed0"
    assert noise["error_rate"] == pytest.approx(np.mean(clean != given))
    transition = np.array(hf_noise.load_noise(tmp_path / record.name).transition)
    assert transition[3, 4] == pytest.approx(np.mean(given[clean == 3] == 4)) and transition[3, 4] > 0.1
    assert record.metrics["memorised"]["n"] > 0 and record.loss["source"] == "known"


def test_some_of_the_rows_are_of_all_classes(tmp_path, pictures):
    """A folder is sorted by class: its first rows are of one."""
    flags = ["--source", str(pictures), "--data", "hf_noise/imagenet-noisy", "--classes", "10", "--train_rows", "36"]
    settings = classifier_noise.STUDY.parse(flags)
    train, _ = ImageData.read(settings)
    assert len(train) == 36 and set(train["label"]) == set(range(10))
    assert train["sample_id"] == sorted(train["sample_id"])
    settings.train_rows = 12
    with pytest.raises(ValueError, match=r"--train_rows 12 leaves no image of class \d"):
        ImageData.read(settings)


def test_killed_between_checkpoints_it_goes_on(tmp_path, study):
    """A run stopped after a checkpoint that was hurt then, started again, ends with the same weights."""
    folder, _ = study
    from hf_noise.trainers.image_classifier import ImageClassifierTrainer

    original, calls = ImageClassifierTrainer.compute_loss, []

    def stop(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    arguments = ["--output", tmp_path, *TINY, "--protocol", "cyclic", "--loss", "corrected", "--ratio", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageClassifierTrainer, "compute_loss", stop)
        with pytest.raises(KeyboardInterrupt):
            main(*arguments)
    run = RUNS[2]
    assert Path(tmp_path, run, "checkpoint-8").is_dir() and not Path(tmp_path, run, "record.json").exists()
    Path(tmp_path, run, "checkpoint-8", "optimizer.pt").write_bytes(b"")  # the disk was full
    with open(tmp_path / run / LOCK_FILE, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match=f"{run} is in use by another process"):
            main(*arguments)
    main(*arguments)
    assert Path(tmp_path, run, "_broken-checkpoint-8").is_dir() and not Path(tmp_path, run, LOCK_FILE).exists()
    assert Path(tmp_path, run, "model.safetensors").read_bytes() == (folder / run / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder as ImageNet's: train and validation, one folder a class, pictures of several sizes, some grey."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, n in (("train", 4), ("validation", 2)):
        for label in range(10):
            place = folder / split / f"class-{label}"
            place.mkdir(parents=True)
            for number in range(n):
                pixels = draw.integers(0, 256, (40 + 3 * number, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).convert("L" if number == 0 else "RGB").save(place / f"{number}.png")
    return folder


def test_large_images_come_through_workers(tmp_path, pictures):
    main(
        "--scale", "imagenet", "--output", tmp_path, "--source", pictures, "--classes", "10", "--model", "resnet10t",
        "--image_size", "32", "--batch_size", "8", "--epochs", "1", "--workers", "0", "--ratio", "1", "--bf16", "False",
        "--torch_compile", "False", "--logging_steps", "2", "--save_steps", "5",
    )  # fmt: skip
    (record,) = read_records(tmp_path)
    # Table 7 doubles the batch for ten classes at r = 1: 5 steps x 2 / 2, batches of 16.
    assert (record.budget["steps"], record.budget["batch_size"]) == (5, 16)
    assert (record.metrics["test_accuracy"]["n"], record.metrics["train_accuracy_clean_labels"]["n"]) == (20, 40)
    assert record.data["channels"] == 3 and record.noise["realised"]["n"] == 80
    processor = AutoImageProcessor.from_pretrained(tmp_path / record.name)
    assert processor.crop_size["height"] == 32 and processor.do_center_crop


def test_the_saved_processor_does_what_resizing_did(tmp_path):
    """A picture that goes through it is what the network was tested on."""
    draw = np.random.default_rng(0)
    for label in ("wide", "tall"):
        for i in range(20):
            place = tmp_path / "pets" / label
            place.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(draw.integers(0, 256, (3, 4, 3), dtype=np.uint8))
            coarse.resize((24, 18 + i % 5), Image.Resampling.BICUBIC).save(place / f"{i}.png")
    own = ["--data", "hf_noise/noisy", "--source", tmp_path / "pets", "--test_fraction", "0.4", "--image_size", "12"]
    flags = ["--batch_size", "8", "--epochs", "1", "--ratio", "0", "--protocol", "symmetric", "--loss", "nll"]
    main("--output", tmp_path / "out", *own, "--resize", *flags)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out" / "r0-seed0")
    flags = [str(flag) for flag in (*own, "--resize")]
    settings = classifier_noise.STUDY.parse(flags)
    data = ImageData.load(settings, TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"))
    for i, row in enumerate(ImageData.read(settings)[1]):
        seen = processor(row["image"], return_tensors="pt")["pixel_values"][0]
        assert seen.shape == (3, 12, 12)
        # In standard deviations: it cuts after it has resized, by whole pixels of another size.
        assert (seen - data.test[i]["pixel_values"]).abs().mean() < 0.2


def test_pairs_are_of_known_classes(tmp_path):
    for label in "qrstuvwxyz":
        for i in range(4):
            place = tmp_path / "ten" / "train" / label
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 20 * i, dtype=np.uint8)).save(place / f"{i}.png")
    own = ["--data", "hf_noise/cifar10-noisy", "--source", tmp_path / "ten", "--test_fraction", "0.3"]
    own += ["--protocol", "pairs", "--ratio", "1"]
    with pytest.raises(ValueError, match="--protocol pairs relies on the airplane, automobile"):
        main("--output", tmp_path / "out", *own, "--batch_size", "8")


def test_several_sizes_and_too_large_ones_are_told_with_flags(tmp_path):
    for label in "ab":
        for i in range(8):
            place = tmp_path / "own" / label
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8 + i % 2, 9), 20 * i, dtype=np.uint8)).save(place / f"{i}.png")
    own = ["--data", "hf_noise/noisy", "--source", tmp_path / "own", "--test_fraction", "0.3"]
    own += ["--output", tmp_path / "x"]
    with pytest.raises(ValueError, match=r"have 2 sizes, sides of 8 to 9 pixels; bring them to one with resize=True"):
        main(*own, "--batch_size", "4")
    with pytest.raises(ValueError, match=r"up to 9 pixels on a side, and image_size=6 only pads smaller ones"):
        main(*own, "--batch_size", "4", "--image_size", "6")
