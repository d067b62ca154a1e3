"""What a dry run says of settings, data, time and disk, and that it leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image
from printed import printed_by
from transformers import TrainingArguments

from hf_noise.studies.classifier import study as classifier
from hf_noise.studies.diffusion import study as diffusion
from hf_noise.studies.dry_run import in_words
from hf_noise.studies.engine import Job
from hf_noise.studies.language import study as language
from hf_noise.studies.time_classifier import study as time_classifier

SMALL = ["--train_rows", "128", "--test_rows", "64", "--batch_size", "16"]


@pytest.mark.parametrize(
    ("study", "flags"),
    [
        (classifier, ["--ratio", "0", "1", *SMALL]),
        (time_classifier, ["--transition", "anchor", *SMALL]),
        (diffusion, ["--ratio", "1", *SMALL]),
    ],
    ids=["classifier", "time_classifier", "diffusion"],
)
def test_a_dry_run_of_images_looks_at_them_and_trains_nothing(study, flags, tmp_path):
    printed = printed_by(study.main, *flags, "--output", tmp_path / "none", "--dry_run")
    settings, end = json.JSONDecoder().raw_decode(printed)
    assert settings["train_rows"] == 128 and settings["epochs"] == study.SCALES["demo"]["epochs"]
    rest = printed[end:]
    assert "128 images to train on, 64 to test on, of embedded/digits: 8 x 8 pixels, 1 channel\n" in rest
    counts = re.search(r"10 classes, (.*)", rest)[1]
    assert sum(int(n) for n in re.findall(r"\d: (\d+)", counts)) == 128
    assert re.search(r"first image: \(1, 8, 8\), class \d \(\d\)", rest)
    assert re.search(r"time: about .* \(a step takes \d+ ms", rest) and "disk: at most 0." in rest
    assert not (tmp_path / "none").exists() and not list(tmp_path.iterdir())


def test_data_on_the_hub_are_not_downloaded_by_a_look():
    printed = printed_by(language.main, "--scale", "paper", "--model", "gpt2-large", "--dry_run")
    assert "data: Skylion007/openwebtext on the Hub, which a run downloads" in printed
    assert "time:" not in printed


def test_what_is_neither_here_nor_on_the_hub_is_refused(tmp_path):
    for source in ("nothing/here.txt", '{"train": "nothing.txt", "validation": "nothing.txt"}'):
        with pytest.raises(FileNotFoundError, match="there is no file or folder"):
            printed_by(language.main, "--source", source, "--dry_run")
    own = ["--data", "hf_noise/noisy", "--source", "someone/pets", "--dry_run"]
    assert "data: someone/pets on the Hub, which a run downloads" in printed_by(classifier.main, *own)


def test_the_disk_is_that_of_the_output(tmp_path, monkeypatch):
    free = namedtuple("free", "total used free")
    looked = []
    monkeypatch.setattr("shutil.disk_usage", lambda path: looked.append(path) or free(9, 8, 1))
    flags = ["--ratio", "1", "--transition", "known", *SMALL, "--output", tmp_path / "there" / "it", "--dry_run"]
    with pytest.raises(OSError, match="GiB, the disk of .*there/it has 0.0 GiB free"):
        printed_by(time_classifier.main, *flags)
    assert set(looked) == {tmp_path}


def test_what_is_trained_first_counts(tmp_path):
    """Judge and classifier of a diffusion study, and the plain classifier of anchor points."""
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    settings = diffusion.STUDY.parse(["--ratio", "0", "1", *SMALL, "--output", str(tmp_path)])
    runs, plans, _ = diffusion.STUDY.planned(settings)
    data = diffusion.STUDY.work.load(settings, args, runs, is_trial=True)
    jobs = [Job(diffusion.STUDY, settings, run, plan, tmp_path / run.name, data, "", True)
            for run, plan in zip(runs, plans)]  # fmt: skip
    names = [[helper.folder.name for helper in diffusion.STUDY.work.helpers(job)] for job in jobs]
    assert names[0] == ["judge"] and names[-1] == ["judge", "classifier-r1-symmetric-seed0"]


def test_what_a_run_would_refuse_a_dry_run_refuses(tmp_path):
    folder = tmp_path / "pictures" / "train" / "a"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "0.png")
    shutil.copytree(folder, folder.parent / "b")
    own = ["--data", "hf_noise/noisy", "--source", tmp_path / "pictures", "--batch_size", "1", "--dry_run"]
    with pytest.raises(ValueError, match="no test split in .*: name one with test_source=, or hold out a share with"):
        printed_by(classifier.main, *own)


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.2, "3 seconds"), (150, "2.5 minutes"), (7200, "2.0 hours"), (864_000, "10.0 days")]
)
def test_a_duration_is_told_in_the_unit_that_fits(seconds, words):
    assert in_words(seconds) == words
