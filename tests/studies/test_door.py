"""How a study ends as a command: refused something, with a slip of ours in it, or stopped by Ctrl-C; and its help."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hf_noise.data.reading import CorpusError
from hf_noise.noise import rates
from hf_noise.studies.classifier import study as classifier_noise
from hf_noise.studies.diffusion import study as edm_noise
from hf_noise.studies.door import UNREAD, as_flags, door, is_refusal
from hf_noise.studies.evaluation import study as evaluate_generation
from hf_noise.studies.language import study as gpt2_noise
from hf_noise.studies.progress import FigureProgress
from hf_noise.studies.time_classifier import study as time_classifier

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in (ROOT / "hf_noise" / "studies").glob("*/__main__.py"))
RUN = "r1-nll-steps-seed0"


@pytest.fixture(autouse=True)
def threads():
    """A study takes the cores that it finds."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny(output: Path, *more: str) -> list[str]:
    """One run of a language model that takes a second or two."""
    return [
        "--output", str(output), "--tokenizer", "embedded:300", "--block_size", "16", "--batch_size", "4",
        "--micro_batch", "64", "--steps", "2", "--save_steps", "2", "--logging_steps", "2", "--score_rows", "16",
        "--ratio", "1", "--corrected", "--plan", "steps", *more,
    ]  # fmt: skip


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


MODULE = """
def slip_of_type():
    return len(5)

def slip_of_value():
    return int("x")

def slip_of_attribute():
    return None.rate

def refuses_value():
    raise ValueError("ratio must be >= 0")

def refuses_type():
    raise TypeError(
        "ratio must be a number"
    )
"""


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """Functions of a module that lies where our code does."""
    file = tmp_path / "ours.py"
    file.write_text(MODULE)
    monkeypatch.setattr("hf_noise.studies.door._OURS", str(tmp_path.resolve()))
    return runpy.run_path(str(file))


@pytest.mark.parametrize(
    ("slip", "error"), [("slip_of_type", TypeError), ("slip_of_value", ValueError),
                        ("slip_of_attribute", AttributeError)],
)  # fmt: skip
def test_a_slip_in_our_own_code_keeps_its_traceback(ours, slip, error):
    """Which is what a report of it needs; it is not the user's mistake, and no line for the user would help."""
    with pytest.raises(error):
        door(ours[slip])


@pytest.mark.parametrize(("check", "error"), [("refuses_value", ValueError), ("refuses_type", TypeError)])
@pytest.mark.parametrize("flag", ["--debug", "--debug=true"])
def test_debug_brings_the_traceback_of_a_refusal_back(ours, monkeypatch, capsys, check, error, flag):
    assert "recipe.py: error: ratio must be" in refused(monkeypatch, capsys, ours[check])
    monkeypatch.setattr(sys, "argv", ["recipe.py", flag])
    with pytest.raises(error):
        door(ours[check])


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("give text_column= or test_fraction=0.1, not both", "give --text_column or --test_fraction 0.1, not both"),
        ("text_column='a b' and other=0.1 stay as Python has them", None), ("--text_column=body is one already", None),
        ("my.text_column=body, text_column == body", None),
    ],
)  # fmt: skip
def test_arguments_of_python_are_told_as_the_flags_of_the_command(message, told, monkeypatch):
    monkeypatch.setattr("hf_noise.studies.door.FLAGS", {"text_column", "test_fraction"})
    assert as_flags(message) == (told or message)


def test_debug_reaches_the_settings_of_a_study_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipe.py", "--debug"])
    with pytest.raises(FileNotFoundError, match="no/such.txt"):
        door(lambda: gpt2_noise.main(tiny(tmp_path, "--source", "no/such.txt", "--debug")))


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
        recipe.main(["--help-all"])
    help = " ".join(capsys.readouterr().out.split())
    for flag, told in {"on_device": "keep all images there", "cas": "train a classifier on the generated"}.items():
        assert help.count(f"--no-{flag.replace('_', '-')} not: {told}") == help.count(f"[--no_{flag}]")
    assert recipe not in (classifier_noise, evaluate_generation) or "not: " in help


@pytest.mark.parametrize(
    ("recipe", "plans"),
    [(gpt2_noise, "steps batch table6 budget"),
     (classifier_noise, "steps steps-x2 steps-x4 steps-x8 batch table7 budget"), (edm_noise, "steps batch budget")],
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


@pytest.mark.parametrize("package", PACKAGES)
def test_each_study_is_a_command_of_the_package(package, monkeypatch, capsys):
    """`python -m hf_noise.studies.language --help`."""
    monkeypatch.setattr(sys, "argv", [package, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(f"hf_noise.studies.{package}", run_name="__main__", alter_sys=True)
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and "--output OUTPUT" in shown
    assert shown.startswith(f"usage: hf_noise.studies.{package} [--FLAG VALUE ...]")


def test_every_study_has_a_command():
    assert len(PACKAGES) >= 7 and all(importlib.util.find_spec(f"hf_noise.studies.{name}.study") for name in PACKAGES)


def ctrl_c(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_says_where_it_was_and_the_restart_from_where_it_goes_on(tmp_path, monkeypatch, capsys):
    arguments = tiny(tmp_path)  # at r = 1 twice the steps: 4, and checkpoints at 2 and 4
    monkeypatch.setattr(sys, "argv", ["recipe.py"])
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(FigureProgress, "on_save", ctrl_c)
        door(lambda: gpt2_noise.main(arguments))
    assert stop.value.code == 130
    told = f"recipe.py: stopped in [1/1] {RUN} of {tmp_path}; the same command again goes on from what was saved"
    assert capsys.readouterr().err.splitlines()[-1] == told
    gpt2_noise.main(arguments)
    told = capsys.readouterr()
    assert f"[1/1] {RUN}: goes on from step 2 of 4\n" in told.err and "goes on" not in told.out
    assert (tmp_path / RUN / "record.json").is_file()


def test_ctrl_c_in_a_real_process_is_one_line(tmp_path):
    """As a terminal sends it."""
    command = [sys.executable, str(ROOT / "recipes" / "gpt2_noise.py"), *tiny(tmp_path, "--steps", "2000")]
    env = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    # Of a shell that runs tests in the background, a process would inherit that it ignores the signal.
    heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeds
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / RUN / "checkpoint-2" / "trainer_state.json").exists():
            assert process.poll() is None and time.monotonic() < deadline, "no checkpoint in two minutes"
            time.sleep(0.02)
        for _ in range(3):  # Python loses one that comes while it cleans up an object
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = process.communicate(timeout=30)
                break
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130 and "Traceback" not in err and out == ""
    told = f"gpt2_noise.py: stopped in [1/1] {RUN} of {tmp_path}; the same command again goes on from what was saved"
    assert re.split(r"[\r\n]+", err.rstrip())[-1] == told  # a line of its own below the bar
    assert (tmp_path / RUN / "run.json").is_file()  # the folder is this run's still


def no_space(*_):
    raise OSError("3 checkpoints need 1.0 GiB, the disk has 0.5 GiB free")


def no_trainer(*_, **__):
    raise ValueError("noise: the model has 300 ids, the noise draws from 301")


@pytest.mark.parametrize(
    ("place", "fails"),
    [("hf_noise.studies.engine.check_disk", no_space), ("hf_noise.studies.language.run.CausalLMTrainer", no_trainer),
     ("hf_noise.studies.text.PackedRows", no_trainer), ("hf_noise.trainers.CausalLMTrainer.train", no_trainer)],
    ids=["disk", "trainer", "data", "train"],
)  # fmt: skip
def test_a_start_that_fails_leaves_no_claim(tmp_path, place, fails):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, fails)
        with pytest.raises((OSError, ValueError), match="GiB free|300 ids"):
            gpt2_noise.main(tiny(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_after_a_start_that_failed_the_next_one_may_have_other_settings(tmp_path, capsys):
    with pytest.raises(FileNotFoundError):
        gpt2_noise.main(tiny(tmp_path, "--source", "no/such.txt"))
    with pytest.raises(ValueError, match="no column"):
        gpt2_noise.main(tiny(tmp_path, "--text_column", "body"))
    gpt2_noise.main(tiny(tmp_path, "--learning_rate", "1e-3", "--steps", "1"))
    assert f"| {RUN} |" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match=r"other settings \(learning_rate\)"):
        gpt2_noise.main(tiny(tmp_path, "--steps", "1"))


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_is_no_error(lines):
    """As `hf-noise list | head` does: whether all of it fits the pipe's buffer or not."""
    code = f"from hf_noise.studies.door import door; door(lambda: print('line\\n' * {lines}))"
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (UNREAD, "")
