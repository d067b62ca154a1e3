"""The recipe of the time-dependent classifier from the command line to its table, on some of the embedded digits."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from huggingface_hub import ModelCard
from printed import printed_by

import hf_noise
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import read_records
from hf_noise.studies.time_classifier import study as time_classifier

main = functools.partial(printed_by, time_classifier.main)


TINY = ["--train_rows", "128", "--epochs", "1", "--batch_size", "16", "--save_steps", "4", "--logging_steps", "4"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, main("--output", folder, *TINY)


def test_every_way_to_a_matrix_gives_a_classifier_and_a_line(study):
    folder, printed = study
    records = {record.name: record for record in read_records(folder)}
    truth = LabelFlips.symmetric(ratio=1.0, num_classes=10)
    for transition, source in (("known", "known"), ("estimated", "estimated"), ("anchor", "given")):
        name = f"r1-symmetric-{transition}-seed0"
        model, record = TimeDependentClassifier.from_pretrained(folder / name), records.pop(name)
        assert model.config.transition_source == source and model.config.class_names[3] == "3"
        assert hf_noise.load_noise(folder / name) == truth
        error = np.abs(np.asarray(model.config.transition) - truth.transition).mean()
        assert record.metrics["transition_mean_absolute_error"]["value"] == pytest.approx(error, abs=1e-6)
        assert (error < 1e-6) == (transition == "known")
        card = ModelCard.load(folder / name / "README.md")
        assert card.data.noise["e"] == 0.5 and f"(T is {transition})" in card.content.replace("\n", " ")
        assert record.metrics["accuracy_sigma0.1"]["n"] == record.data["test_rows"]
        assert f"| {name} " in printed
    assert not records


def test_a_finished_study_is_printed_and_not_made_again(study):
    folder, printed = study
    before = (folder / "r1-symmetric-known-seed0" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    assert main("--output", folder, *TINY) == printed
    assert (folder / "r1-symmetric-known-seed0" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == before


def test_every_scale_says_what_it_would_do():
    assert '"model": "resnet34"' in main("--scale", "paper", "--data", "hf_noise/cifar100-noisy", "--dry_run")
    assert '"model": "cnn-mnist"' in main("--data", "hf_noise/cifar10-noisy", "--dry_run")
    shown = main("--scale", "paper", "--dry_run")
    assert '"model": "resnet18"' in shown and "r0.667-symmetric-known-seed0: e = 0.4000" in shown


def test_the_rate_of_human_labels_is_not_made_up():
    shown = main("--protocol", "human:worse", "--data", "hf_noise/cifar10-noisy", "--dry_run")
    assert "e = that of the labels" in shown and "clean exposure 1 - e" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--transition", "guessed"], "unknown --transition guessed; known: known, estimated, anchor, human, none"),
        (["--transition", "human"], "give --protocol human:<name> too"),
        (["--protocol", "other"], "unknown --protocol other"),
        (["--epochs", "0"], "--epochs must be > 0 and"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        time_classifier.main(arguments)
    assert message in capsys.readouterr().err
