"""How a recipe ends that is refused something, and what its help says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hf_noise.data.reading import CorpusError
from hf_noise.noise import rates
from hf_noise.studies.classifier import study as classifier_noise
from hf_noise.studies.diffusion import study as edm_noise
from hf_noise.studies.door import door, is_refusal
from hf_noise.studies.evaluation import study as evaluate_generation
from hf_noise.studies.language import study as gpt2_noise
from hf_noise.studies.time_classifier import study as time_classifier


def refused(monkeypatch, capsys, main) -> str:
    monkeypatch.setattr(sys, "argv", ["/some/where/recipe.py"])
    with pytest.raises(SystemExit) as stop:
        door(main)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "message"),
    [
        (lambda: classifier_noise.main(["--train_rows", "9999"]), "--train_rows 9999, but there are 1442 images"),
        (lambda: gpt2_noise.main(["--source", "no/such.txt"]), "there is no file or folder source='no/such.txt'"),
        (lambda: rates.ratio(2.0), "must lie in [0, 1), got 2.0"),
        (lambda: Path("no/such/file").read_text(), "No such file or directory"),
    ],
)
def test_a_refusal_is_one_message(monkeypatch, capsys, tmp_path, main, message):
    monkeypatch.chdir(tmp_path)
    err = refused(monkeypatch, capsys, main)
    assert "recipe.py: error: " in err and message in err and "Traceback" not in err


def test_errors_of_others_and_of_runs_keep_their_traceback():
    def make_run():
        raise ValueError("in a run")

    for main in (lambda: int("x"), make_run, lambda: [][0]):
        with pytest.raises((ValueError, IndexError)):
            door(main)


def test_errors_of_processes_that_build_data():
    """Raised again by another library, in whose file the last frame is."""
    namespace = {"error": CorpusError("the file"), "other": ValueError("no")}
    code = compile("def again(which): raise which", "/site-packages/multiprocess/pool.py", "exec")
    exec(code, namespace)
    for name, expected in (("error", True), ("other", False)):
        with pytest.raises(ValueError) as found:
            namespace["again"](namespace[name])
        found.value.__traceback__ = found.tb.tb_next
        assert is_refusal(found.value) == expected


@pytest.mark.parametrize("recipe", [gpt2_noise, classifier_noise, edm_noise, time_classifier, evaluate_generation])
def test_the_help_of_negated_flags(recipe, capsys):
    with pytest.raises(SystemExit):
        recipe.main(["--help"])
    help = " ".join(capsys.readouterr().out.split())
    for flag, told in {"on_device": "keep all images there", "cas": "train a classifier on the generated"}.items():
        assert help.count(f"--no-{flag.replace('_', '-')} not: {told}") == help.count(f"[--no_{flag}]")
    assert recipe not in (classifier_noise, evaluate_generation) or "not: " in help


@pytest.mark.parametrize(
    ("recipe", "plans"),
    [(gpt2_noise, "steps batch table6 budget"), (classifier_noise, "steps batch table7 budget"),
     (edm_noise, "steps batch budget")],
)  # fmt: skip
def test_plans_that_a_recipe_does_not_take(recipe, plans, capsys):
    with pytest.raises(SystemExit):
        recipe.main(["--plan", "table9", "--dry_run"])
    told = capsys.readouterr().err.replace("'", "")
    assert f"argument --plan: invalid choice: table9 (choose from {', '.join(plans.split())})" in told


@pytest.mark.parametrize("recipe", [classifier_noise, edm_noise, time_classifier])
def test_a_dry_run_refuses_rates_that_the_classes_cannot_have(recipe):
    for data in ([], ["--data", "hf_noise/imagenet-noisy", "--classes", "10"], ["--data", "hf_noise/mnist-noisy"]):
        with pytest.raises(ValueError, match=r"0.952381 \(ratio 20\) is past .* for 10 classes.*allow_adversarial"):
            recipe.main(["--ratio", "20", "--dry_run", "--train_rows", "100", *data])
    recipe.main(["--ratio", "20", "--dry_run", "--train_rows", "1000", "--allow_adversarial"])
