"""`--help` fits a screen, and names every flag; `--help-all` explains each."""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from importlib import import_module

import pytest

from hf_noise.studies.catalogue import catalogue
from hf_noise.studies.help import FEW, USUAL
from hf_noise.studies.settings import CommandSettings, StudySettings, parse, setting

MODULES = {name: import_module(f"{entry.package}.study") for name, entry in catalogue().items()}
STUDIES = {name: study for name, study in MODULES.items() if hasattr(study, "Settings")}  # else with its own parser
SCREEN = 48  # lines of a terminal that is not small


def shown_by(settings: type, capsys, *flags: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(settings, list(flags), "What it shows.")
    told = capsys.readouterr()
    assert stop.value.code == 0 and not told.err
    return told.out


@pytest.mark.parametrize("name", STUDIES)
def test_the_help_of_a_study_fits_a_screen_and_names_every_flag(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    settings = STUDIES[name].Settings
    lines = shown_by(settings, capsys, "--help").splitlines()
    assert len(lines) <= SCREEN and max(map(len, lines)) <= 80
    words = set(" ".join(lines).split())
    assert all({f"--{one.name}", f"--no_{one.name}"} & words for one in fields(settings))
    assert set(settings.usual) <= {one.name for one in fields(settings)} - USUAL


Many = make_dataclass(
    "Many",
    [
        ("text", str, setting("as it is", "words; with a semicolon and so much more that no terminal has room for it")),
        ("size", str, setting(None, "which one", choices=["quite-small", "rather-large", "larger-than-that"])),
        ("names", str, setting(None, "one-of-a-few," * 9)),
        ("is_on", bool, setting(True, "is on by itself")), ("is_off", bool, setting(False, "is off by itself")),
        ("many", list[int], setting([*range(30)], "so many that not all of them fit in a line of a terminal")),
        *((f"more_{i}", int, setting(i, f"the setting of number {i}")) for i in range(FEW)),
    ],
    bases=(StudySettings,), namespace={"scales": {"demo": {}, "paper": {"text": "of the paper"}}, "usual": ("text",)},
)  # fmt: skip


def test_what_is_used_most_has_a_line_and_the_rest_its_name(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown_by(Many, capsys, "--scale", "paper", "--help").splitlines()
    assert lines[2] == "What it shows." and "training:" in lines and "data:" not in lines
    assert "  --text TEXT               words (of the paper)" in lines  # the default is that of the scale
    more = " ".join(lines).partition("--text TEXT")[2]
    assert "more: --size --names --no_is_on --is_off --many --more_0" in " ".join(more.split())
    assert "--is_on" not in more.split() and "the setting of number 3" not in more
    assert lines[-1].startswith("--help-all shows")


def test_all_of_each_flag(capsys):
    told = " ".join(shown_by(Many, capsys, "--help-all").split())
    for words in ("so much more that no terminal has room", "--size quite-small | rather-large", "not: is on by itself",
                  "the setting of number 3 (default: 3)", "--help-all"):  # fmt: skip
        assert words in told


def test_a_line_is_cut_between_words_where_there_are_any(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(Many, "usual", ("size", "names", "text", "many"))
    lines = {line.split()[0]: line for line in shown_by(Many, capsys, "--help").splitlines() if line.strip()}
    assert lines["--size"] == "  --size SIZE               quite-small, rather-large, larger-than-that"
    assert lines["--names"].endswith("one-of-a-few ...") and len(lines["--names"]) <= 78
    assert lines["--many"] == "  --many MANY ...           so many that not ... (0 1 2 3 4 5 6 7 8 9 ...)"
    monkeypatch.setenv("COLUMNS", "150")
    lines = {line.split()[0]: line for line in shown_by(Many, capsys, "--help").splitlines() if line.strip()}
    assert "no terminal has room for it (as it is)" in lines["--text"]


def test_few_flags_are_all_shown_at_once(capsys):
    short, long = (shown_by(CommandSettings, capsys, flag) for flag in ("--help", "--help-all"))
    assert short == long and "show where in the code an error was raised" in short
