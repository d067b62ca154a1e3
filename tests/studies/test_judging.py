"""Where the judge of generated images is looked for, and what is said if it is not there."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from hf_noise.models.gpt2 import gpt2
from hf_noise.studies.evaluation import study as evaluation
from hf_noise.studies.judging import load_judge
from hf_noise.studies.reading import find_judge


def checkpoint(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_checkpoint_and_a_name_on_the_hub_are_taken_as_they_are(tmp_path):
    folder = checkpoint(tmp_path / "mine")
    assert find_judge(str(folder)) == str(folder) and find_judge("owner/name") == "owner/name"


@pytest.mark.parametrize("place", ["judge/r0-seed0", "judge/r0-seed7", "r0-seed0"], ids=["diffusion", "seed", "labels"])
def test_it_is_found_inside_a_study_s_folder(tmp_path, place):
    """That of a diffusion study or an evaluation, or of a study of classifiers, whose other runs are no judges."""
    judge = checkpoint(tmp_path / place)
    for other in ("r0-compute-of-r1-steps-seed0", "r1-symmetric-nll-steps-seed0"):
        checkpoint(tmp_path / other)
    assert find_judge(str(tmp_path)) == str(judge)


def test_of_several_seeds_one_is_to_be_named(tmp_path):
    for seed in (1, 0):
        checkpoint(tmp_path / f"r0-seed{seed}")
    message = "not the folder of a study with one judge (found r0-seed0, r0-seed1); name the judge's own folder"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        find_judge(str(tmp_path))


def test_a_folder_without_a_judge_says_what_it_holds(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--judge .* is no checkpoint, .* \(found nothing\)"):
        find_judge(str(tmp_path))
    checkpoint(tmp_path / "r1-symmetric-nll-steps-seed0")
    (tmp_path / "study.png").touch()
    message = f"(found r1-symmetric-nll-steps-seed0, study.png); name the judge's own folder, such as {tmp_path}"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        find_judge(str(tmp_path))


def test_it_is_looked_for_before_anything_is_read(tmp_path, capsys):
    with pytest.raises(SystemExit):
        evaluation.main(["--images", str(tmp_path), "--judge", str(tmp_path)])
    assert "is no checkpoint, and not the folder of a study with one judge (found nothing)" in capsys.readouterr().err


def test_a_model_of_something_else_is_refused_by_name(tmp_path):
    """The folder of a study of language models has such runs, too."""
    gpt2("nano", vocab_size=32, block_size=8, end_of_text=0).save_pretrained(tmp_path / "r0-seed0")
    with pytest.raises(ValueError, match="the judge .*r0-seed0 is no classifier of images"):
        load_judge(str(tmp_path), SimpleNamespace(classes=["a", "b"]), torch.device("cpu"))
