"""`hf-noise`: the studies by name, and whose flags are whose."""

from __future__ import annotations

import ast
import configparser
import json
import os
import signal
import subprocess
import sys
from dataclasses import make_dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands import config as accelerate_config
from accelerate.commands import launch as accelerate_launch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

import hf_noise
import hf_noise.studies
from hf_noise.reports.provenance import CONSOLE_SCRIPT, command_line
from hf_noise.studies import command
from hf_noise.studies.catalogue import Entry, UnknownStudyError, catalogue, find

ROOT = Path(__file__).parents[2]
ENTRIES = catalogue()
LANGUAGE, THEORY = ENTRIES["gpt2-noise"], ENTRIES["theory"]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """A command says in sys.argv what it is, and a launch leaves Ctrl-C to what it started."""
    monkeypatch.setattr(sys, "argv", ["pytest"])
    heeded = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, heeded)


def ended(capsys, *argv: str) -> tuple[int, str]:
    """Status and last line of a command that does not come to its end."""
    with pytest.raises(SystemExit) as stop:
        command.main(argv)
    return stop.value.code, capsys.readouterr().err.splitlines()[-1]


# ---- which studies there are


def test_a_study_is_called_as_its_recipe_is():
    named = {entry.package: entry.name for entry in ENTRIES.values()}
    for path in (ROOT / "recipes").glob("*.py"):
        packages = {node.module.rpartition(".")[0] for node in ast.parse(path.read_text()).body
                    if isinstance(node, ast.ImportFrom) and node.module.endswith(".study")}  # fmt: skip
        assert [named[package] for package in packages] == [path.stem.replace("_", "-")]
    assert len(named) == len(ENTRIES) == len([*(ROOT / "hf_noise" / "studies").glob("*/__main__.py")])


def test_each_says_what_it_shows():
    for entry in ENTRIES.values():
        assert entry.shows.endswith(".") and "\n" not in entry.shows, entry


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.demo_minutes is not None])
def test_minutes_are_those_of_the_records(name):
    """Within a factor of three: they depend on the machine."""
    scales = import_module(f"{ENTRIES[name].package}.study").SCALES
    folder = ROOT / "benchmarks" / "results" / Path(scales["demo"].get("output", f"{name}-demo")).name
    records = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    records += [json.loads(path.read_text()) for path in folder.rglob("record.json")]
    seeds = scales["demo"].get("seed", [0])
    minutes = sum(record.get("wall_seconds") or 0 for record in records if record.get("seed", 0) in seeds) / 60
    if not minutes:
        pytest.skip(f"no record in {folder.relative_to(ROOT)} says how long it took")
    assert minutes / 3 <= ENTRIES[name].demo_minutes <= 3 * max(minutes, 0.4)


def test_a_new_folder_is_a_new_study(tmp_path, monkeypatch):
    for name, code in {"one_more": '"""Something\nnew.\n\nMore."""\n', "no_command": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    (tmp_path / "one_more" / "__main__.py").touch()
    (tmp_path / "module.py").touch()
    monkeypatch.setattr(hf_noise.studies, "__path__", [str(tmp_path)])
    for name in ("one_more", "no_command"):
        monkeypatch.delitem(sys.modules, f"hf_noise.studies.{name}", raising=False)
    package = "hf_noise.studies.one_more"
    assert catalogue() == {"one-more": Entry("one-more", package, "Something new.", None, False)}


def test_a_study_may_be_asked_for_in_other_words():
    assert {find(name) for name in ("gpt2-noise", "gpt2_noise", "gpt2_noise.py", "language")} == {LANGUAGE}
    assert find("gradient_coherence").name == "gradient-coherence"


@pytest.mark.parametrize(
    ("asked", "hint"), [("gpt-noise", "did you mean gpt2-noise? "), ("lists", "did you mean list? "), ("zzz", "")]
)
def test_no_study_of_this_name(asked, hint, capsys):
    told = f"there is no study '{asked}'; {hint}`hf-noise list` names them all"
    with pytest.raises(UnknownStudyError, match="there is no study"):
        find(asked)
    assert ended(capsys, asked) == (2, f"hf-noise: error: {told}")


@pytest.mark.parametrize("width", [70, 80, 130])
def test_the_list_fits_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    command.main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= max(width, 80)
    assert {line.split()[0] for line in lines[1:-2] if not line.startswith(" ")} == set(ENTRIES)


def test_help_and_version(capsys):
    for argv in ([], ["--help"], ["help"]):
        command.main(argv)
        lines = capsys.readouterr().out.splitlines()
        named = {line.split()[1] for line in lines if line.startswith("  hf-noise ")}
        assert {"list", "gpt2-noise", "--version"} <= named <= {"list", "--version", *ENTRIES}
        assert set(lines) <= set(command.HELP.splitlines()) and len(lines) <= 24
    command.main(["--version"])
    assert capsys.readouterr().out == f"hf-noise {hf_noise.__version__}\n"
    assert ended(capsys, "--scale", "demo")[1].endswith("comes first, as in hf-noise gpt2-noise --scale")


def test_the_wheel_has_the_command():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split()
    assert scripts == [CONSOLE_SCRIPT, "=", f"{command.__name__}:{command.main.__name__}"]


def test_what_only_tells_something_loads_nothing_heavy():
    code = (
        "import sys\nfrom hf_noise.studies.command import main\nmain(['list'])\n"
        "assert not {'numpy', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "try:\n    main(['gpt2-noise', '--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print(sorted({'torch', 'diffusers', 'timm', 'datasets', 'accelerate', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.rstrip().endswith("[]") and "usage: hf-noise gpt2-noise [--FLAG" in done.stdout


# ---- whose flags are whose


def study_with(*names: str) -> SimpleNamespace:
    return SimpleNamespace(Settings=make_dataclass("Settings", names))


@pytest.mark.parametrize(
    ("given", "launcher", "own"),
    [
        ("--scale demo --dry_run", {}, "--scale demo --dry_run"),
        ("--mixed_precision bf16 --ratio 0 1", {"mixed_precision": ["--mixed_precision", "bf16"]}, "--ratio 0 1"),
        ("--ratio 0 1 --config-file=a.yaml", {"config_file": ["--config-file=a.yaml"]}, "--ratio 0 1"),
        ("--multi_gpu --seed 0", {"multi_gpu": ["--multi_gpu"]}, "--seed 0"),
        ("--num_processes 2", {"num_processes": ["--num_processes", "2"]}, "--num_processes 2"),
        ("--num_processes=2 x", {"num_processes": ["--num_processes=2"]}, "--num_processes=2 x"),
        ("--env A=1 --env B=2", {"env": ["--env", "A=1", "--env", "B=2"]}, ""),
        ("--debug --help --module -m -q", {}, "--debug --help --module -m -q"),
        ("--main_process_port", {"main_process_port": ["--main_process_port"]}, ""),
    ],
)
def test_flags_are_the_launchers_or_the_studys(given, launcher, own):
    assert command.split(given.split(), study_with("num_processes")) == (launcher, own.split())
    without = command.split(given.split(), study_with("other"))[1]
    assert without == [text for text in own.split() if "num_processes" not in text and text != "2"]


@pytest.mark.parametrize("name", ENTRIES)
def test_no_setting_of_a_study_is_called_as_one_of_the_launcher(name):
    study = import_module(f"{ENTRIES[name].package}.study")
    theirs = {action.dest for action in accelerate_launch.launch_command_parser()._actions}
    assert command.names_of(study) & theirs <= {"num_processes", "debug"}


def test_a_first_value_is_the_source():
    study = study_with("source")
    assert command.with_source(study, ["my.csv", "--column", "label"]) == ["--source", "my.csv", "--column", "label"]
    assert command.with_source(study, ["a", "b"]) == ["--source", "a", "b"]
    for argv, other in ((["--column", "x"], study), ([], study), (["A.table8"], study_with("ids"))):
        assert command.with_source(other, argv) == argv


# ---- in how many processes


@pytest.fixture
def devices(monkeypatch, tmp_path):
    """A machine with so many devices, and with or without a configuration of accelerate."""

    def have(count: int, *, config: bool = False) -> None:
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(accelerate_config, "default_config_file", str(tmp_path / "default_config.yaml"))
        if config:
            (tmp_path / "default_config.yaml").touch()

    return have


def test_a_study_without_settings_reads_all_of_its_arguments(monkeypatch, devices):
    devices(4)
    given = []
    monkeypatch.setattr(command, "import_module", lambda name: SimpleNamespace(main=given.append))
    command.main(["gpt2-noise", "A.table8", "--jobs", "2", "--num_processes", "2", "--", "--help"])
    assert given == [["A.table8", "--jobs", "2", "--num_processes", "2", "--", "--help"]]


@pytest.mark.parametrize(
    ("count", "config", "launcher", "expected"),
    [
        (0, False, {}, False), (1, False, {}, False), (2, False, {}, True), (0, True, {}, True),
        (0, False, {"num_processes": ["--num_processes", "1"]}, False),
        (0, False, {"num_processes": ["--num_processes=2"]}, True), (1, False, {"use_fsdp": ["--use_fsdp"]}, True),
    ],
)  # fmt: skip
def test_one_process_is_this_one(count, config, launcher, expected, devices):
    devices(count, config=config)
    assert command.needs_launcher(LANGUAGE, launcher) == expected
    if len(launcher) == 0:
        assert not command.needs_launcher(THEORY, launcher)


def test_a_study_of_one_process_refuses_several(capsys):
    assert ended(capsys, "theory", "--num_processes", "2", "--multi_gpu") == (
        2, "hf-noise theory: error: --num_processes, --multi_gpu: theory works in one process alone"
    )  # fmt: skip


def started(monkeypatch, *argv: str, fails: BaseException | None = None):
    """What accelerate is asked to start."""
    asked = []

    def launch_command(args):
        asked.append(args)
        if fails:
            raise fails

    monkeypatch.setattr(accelerate_launch, "launch_command", launch_command)
    command.main(["gpt2-noise", *argv])
    return asked[0]


@pytest.mark.parametrize(
    ("count", "flags", "processes", "multi"),
    [(0, ["--num_processes", "2"], 2, True), (4, [], 4, True), (1, ["--use_fsdp"], 1, False),
     (8, ["--num_processes", "2", "--use_fsdp"], 2, False), (0, ["--mixed_precision", "no"], 1, False)],
)  # fmt: skip
def test_processes_are_started_by_accelerate(count, flags, processes, multi, devices, monkeypatch):
    devices(count)
    args = started(monkeypatch, "my.txt", "--scale", "demo", *flags, "--seed", "1")
    assert args.module and args.training_script == "hf_noise.studies.language"
    own = [text for text in flags if "num" in text or text.isdecimal()]
    assert args.training_script_args == ["--source", "my.txt", "--scale", "demo", *own, "--seed", "1"]
    assert (args.num_processes, bool(args.multi_gpu), args.num_machines) == (processes, multi, 1)
    assert (args.mixed_precision, args.dynamo_backend) == ("no", "no")


def test_a_configuration_of_the_user_is_left_to_accelerate(devices, monkeypatch):
    devices(0, config=True)
    args = started(monkeypatch)
    assert args.num_processes is args.num_machines is args.mixed_precision is None and not args.multi_gpu


@pytest.mark.parametrize("status", [2, 130])
@pytest.mark.parametrize("many", [False, True])
def test_a_process_that_fails_gives_its_status(status, many, devices, monkeypatch, capsys):
    devices(2)
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=status, error_file="none")
    error = ChildFailedError("it", {0: failure}) if many else subprocess.CalledProcessError(status, "it")
    with pytest.raises(SystemExit) as stop:
        started(monkeypatch, fails=error)
    assert stop.value.code == status and "Traceback" not in capsys.readouterr().err


def test_a_process_started_for_real(tmp_path):
    argv = ["language", "--mixed_precision", "no", "--ratios", "1"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path)}
    run = [sys.executable, "-m", "hf_noise", *argv]
    done = subprocess.run(run, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=120)
    told = "hf_noise.studies.language: error: no flag takes --ratios 1; did you mean --ratio?"
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == told and "Traceback" not in done.stderr


# ---- in this process


def test_a_study_in_this_process_knows_how_it_was_started(devices, capsys, tmp_path):
    devices(0)
    command.main(["theory", "--output", str(tmp_path), "--dry_run"])
    assert '"dry_run": true' in capsys.readouterr().out
    assert command_line().startswith("hf-noise theory --output ") and command_line().endswith(" --dry_run")
    status, told = ended(capsys, "theory", "--alphas", "1")
    assert (status, told) == (2, "hf-noise theory: error: no flag takes --alphas 1; did you mean --alpha?")


def test_ctrl_c_in_this_process_is_one_line(devices, capsys, monkeypatch):
    def stopped(argv):
        raise KeyboardInterrupt

    devices(0)
    monkeypatch.setattr("hf_noise.studies.theory.study.main", stopped)
    status, told = ended(capsys, "theory")
    assert status == 130 and told.startswith("hf-noise theory: stopped; the same command again")


def test_the_command_line_of_a_record():
    assert command_line(["hf-noise", "gpt2-noise", "--ratio", "0", "1"]) == "hf-noise gpt2-noise --ratio 0 1"
    assert command_line(["x/hf-noise.py", "--ratio", "0"]).startswith("python ")
