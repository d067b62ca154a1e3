"""Settings that are typed: from Python and from a command line they are the same, and each says what it decides."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace

import pytest

from hf_noise.noise.schedule import plan_named
from hf_noise.objectives import CorrectedLabels
from hf_noise.studies.classifier import study as classifier
from hf_noise.studies.diffusion import study as diffusion
from hf_noise.studies.documents import study as documents
from hf_noise.studies.engine import identity
from hf_noise.studies.evaluation import study as evaluation
from hf_noise.studies.finetune import study as finetune
from hf_noise.studies.gradient_coherence import study as gradient_coherence
from hf_noise.studies.language import study as language
from hf_noise.studies.masked_language import study as masked_language
from hf_noise.studies.publishing import study as publishing
from hf_noise.studies.sampling import study as sampling
from hf_noise.studies.seq2seq import study as seq2seq
from hf_noise.studies.settings import GROUPS, SettingError, at_scale, parse, parser_of
from hf_noise.studies.stability import study as stability
from hf_noise.studies.study import planned
from hf_noise.studies.theory import study as theory
from hf_noise.studies.time_classifier import study as time_classifier

MODULES = (
    language, documents, masked_language, classifier, time_classifier, diffusion, evaluation, sampling, publishing,
    theory, finetune, seq2seq, stability, gradient_coherence,
)  # fmt: skip
OF_TEXT = (language.STUDY, documents.STUDY, masked_language.STUDY, finetune.STUDY)
STUDIES = [module.STUDY for module in MODULES if hasattr(module, "STUDY")]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__package__)
def test_each_setting_has_help_and_a_group(module):
    for one in fields(module.Settings):
        assert one.metadata["help"] and one.metadata["group"] in GROUPS, one.name
    shown = parser_of(module.Settings, "what it shows").format_help()
    assert all(f"--{one.name}" in shown for one in fields(module.Settings)) and "None" not in shown


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.package)
def test_at_each_scale_python_and_the_command_line_agree(study):
    for scale, values in study.settings.scales.items():
        known = {one.name for one in fields(study.settings)}
        assert set(values) <= known, "a scale sets what is no setting"
        source = {"source": "embedded/docs-text"} if study in OF_TEXT else {}
        flags = [f"--{name}={value}" for name, value in source.items()]
        if study is seq2seq.STUDY:  # which takes several
            source, flags = {"source": ["embedded/docs-pairs"]}, ["--source", "embedded/docs-pairs"]
        made = at_scale(study.settings, scale, **source)
        assert made == study.parse(["--scale", scale, *flags])
        assert len({run.name for run in study.runs(made)}) == len(study.runs(made)) > 0


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.package)
def test_what_is_in_no_result_changes_no_claim(study):
    settings = study.parse([])
    run = study.runs(settings)[-1]
    own = ("alpha", "protocol", "cure") if hasattr(settings, "alpha") else ("ratio",)
    for name in ("output", "save_steps", "push_to_hub", "num_processes", "dry_run", "debug", "seed", "scale", *own):
        assert identity(replace(settings, **{name: "another"}), run) == identity(settings, run), name
    for name in ("batch_size", "learning_rate", "bf16", "model"):
        assert identity(replace(settings, **{name: "another"}), run) != identity(settings, run), name


def test_without_noise_every_plan_is_the_same_unless_it_gets_more_compute():
    settings = language.STUDY.parse(["--plan", "steps", "batch", "--ratio", "0", "1", "--corrected"])
    runs = language.runs_of(settings)
    base, more = runs[0], [run for run in runs if run.compute_of is not None]
    assert identity(settings, base)["plan"] == "any" and [run.plan for run in more] == ["steps", "batch"]
    assert len({tuple(sorted(map(str, identity(settings, run).items()))) for run in runs}) == len(runs)
    steps, batch = (language.plan_of(settings, run, None) for run in more)
    assert (steps.steps, steps.batch_size, steps.exposure) == (600, 32, 2.0)
    assert (batch.steps, batch.batch_size, batch.exposure) == (300, 64, 2.0)


@pytest.mark.parametrize("study", [language.STUDY, classifier.STUDY, diffusion.STUDY], ids=lambda study: study.package)
@pytest.mark.parametrize("flags", [[], ["--no_equal_compute"]], ids=["equal", "not"])
def test_no_run_with_noise_gets_more_steps_than_all_without(study, flags):
    """So that noise that seems to help cannot have had twice the steps."""
    settings = study.parse(flags)
    runs, plans, _ = study.planned(settings)
    clean = max(plan.sequences for run, plan in zip(runs, plans) if run.ratio == 0)
    noisy = max(plan.sequences for run, plan in zip(runs, plans) if run.ratio)
    assert (clean == noisy) == (not flags)


@pytest.mark.parametrize("reading", ["principle", "as_printed"])
@pytest.mark.parametrize("classes", ["10", "100"])
def test_more_compute_is_that_of_the_run_that_takes_most(classes, reading):
    """In table 7 as it is printed that is not the noisiest one, and none may take more than the run without noise."""
    flags = ["--scale", "imagenet", "--classes", classes, "--reading", reading, "--train_rows", "128000"]
    settings = classifier.STUDY.parse(flags)
    runs, plans, _ = classifier.STUDY.planned(settings)
    base = next(plan for run, plan in zip(runs, plans) if run.ratio == 0 and run.compute_of is None)
    noisy = max(plan.sequences for run, plan in zip(runs, plans) if run.ratio)
    more = [plan.sequences for run, plan in zip(runs, plans) if run.compute_of is not None]
    assert more == ([noisy] if noisy > 1.001 * base.sequences else [])


def test_the_corrected_loss_by_name_is_at_all_ratios():
    settings = language.STUDY.parse(["--ratio", "0", "0.3", "1", "--corrected", "1", "--loss", "corrected"])
    corrected = [run.ratio for run in language.runs_of(settings) if run.loss == "corrected"]
    assert corrected == [1.0, 0.3]


def test_an_abbreviated_scale_is_that_scale():
    assert diffusion.STUDY.parse(["--scal", "gpu"]) == diffusion.STUDY.parse(["--scale", "gpu"])


def test_folders_of_before_a_flag_was_there_go_on():
    settings = classifier.STUDY.parse(["--source", "mine", "--image_size", "8"])
    run = classifier.runs_of(settings)[0]
    assert "resize" not in identity(settings, run)
    assert identity(replace(settings, resize=True), run)["resize"] is True


def test_human_labels_get_what_the_run_without_noise_gets():
    run = classifier.Run(None, "human:worse", "nll", "budget", 0)
    plan = planned(plan_named("budget"), run, steps=10, batch_size=4)
    assert (plan.steps, plan.batch_size, plan.ratio) == (10, 4, 0.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ratios", "1"], "no flag takes --ratios 1; did you mean --ratio?"),
        (["--learning-rates=1"], "did you mean --learning_rate?"),
        (["--frobnicate"], "no flag takes --frobnicate; --help-all lists them all"),
        (["--model", "gpt3"], "invalid choice: 'gpt3'"),
        (["--source", ""], "--source is empty ('')"), (["--score_rows", "0"], "--score_rows must be >= 1"),
        (["--weight_decay", "-1"], "--weight_decay must be >= 0"), (["--num_processes", "0"], "--num_processes must"),
        (["--learning_rate", "inf"], "--learning_rate must be finite"), (["--seed"], "expected at least one argument"),
        (["--ratio", "--corrected"], "--ratio is empty: nothing would be trained"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_named_with_the_remedy(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        language.main(flags)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (diffusion, ["--max_grad_norm", "inf"], "--max_grad_norm must be finite"),
        (diffusion, ["--num_images", "1"], "--num_images must be >= 2"),
        (classifier, ["--train_rows", "-1"], "--train_rows must be >= 1"),
        (classifier, ["--model", "resnet18_cifar"], "unknown --model resnet18_cifar; did you mean resnet18-cifar?"),
        (classifier, ["--data", "hf_noise/noisy"], "--data hf_noise/noisy needs --source"),
        (classifier, ["--resize"], "--resize needs --image_size"),
        (classifier, ["--human_column", "weak"], "--human_column weak: it is read with --protocol human:<name> only"),
        (time_classifier, ["--schedule", "cosinus"], "invalid choice: 'cosinus'"),
        (evaluation, ["--cas_model", "resnet-fifty", "--images", "x"], "unknown --cas_model resnet-fifty"),
        (sampling, [], "--model is missing"),
    ],
)  # fmt: skip
def test_what_can_only_fail_is_refused_before_anything_is_trained(module, flags, message, capsys):
    with pytest.raises(SystemExit):
        module.main(flags)
    assert message in capsys.readouterr().err


def test_a_setting_out_of_range_is_refused_in_python_too():
    with pytest.raises(SettingError, match="--epochs must be > 0"):
        at_scale(classifier.Settings, "demo", epochs=-1.0)


def test_the_classifier_of_tdsm_follows_the_scale_of_its_study():
    from hf_noise.studies.diffusion.run import classifier_of, judge_of

    def epochs(*flags: str) -> float:
        settings = diffusion.STUDY.parse(list(flags))
        return classifier_of(settings, diffusion.Run(1.0, "cyclic", "tdsm", 3)).epochs

    usual = time_classifier.SCALES["demo"]["epochs"]
    assert epochs() == usual and epochs("--epochs", "2.6") == pytest.approx(usual / 10)
    assert epochs("--scale", "gpu") == 60 and epochs("--scale", "gpu", "--epochs", "2") == pytest.approx(6)
    assert epochs("--epochs", "2.6", "--classifier_epochs", "7") == 7
    settings = diffusion.STUDY.parse(["--source", "mine", "--column", "kind", "--image_size", "16", "--resize"])
    theirs = classifier_of(settings, diffusion.Run(1.0, "cyclic", "tdsm", 3)), judge_of(settings)
    for one in theirs:
        assert (one.source, one.column, one.image_size, one.resize) == ("mine", "kind", 16, True)
    assert (theirs[0].protocol, theirs[0].ratio, theirs[0].seed) == ("cyclic", [1.0], [3])


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__package__)
def test_help_needs_no_heavy_library(module):
    """Which is what makes it come at once."""
    code = (
        "import sys\n"
        f"from {module.__name__} import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'diffusers', 'timm', 'datasets', 'accelerate', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.rstrip().endswith("[]"), done.stdout[-300:]


def test_the_help_of_a_scale_shows_its_defaults(capsys):
    with pytest.raises(SystemExit):
        parse(language.Settings, ["--scale", "paper", "--help-all"], "it")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--steps STEPS optimiser steps without noise (default: 600000)" in shown
    assert "--scale demo | gpu | paper" in shown and "--micro-batch" not in shown


def test_labels_are_smoothed_by_losses_that_can(monkeypatch, capsys):
    flags = ["--label_smoothing", "0.1", "--loss", "corrected"]
    assert classifier.STUDY.parse(flags).label_smoothing == 0.1
    monkeypatch.setattr(CorrectedLabels, "smooths", False)
    with pytest.raises(SystemExit):
        classifier.STUDY.parse(flags)
    assert "--label_smoothing 0.1: the loss corrected has no smoothed form" in capsys.readouterr().err
