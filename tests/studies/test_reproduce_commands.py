"""`reproduce` on a table of a tiny study: parts of it made again, two commands at once, flags that nobody takes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_noise.reports.paper import Claim, PaperTable, Runs
from hf_noise.studies.reproduce import study

TINY = "reproduce_fakes.tiny"
READS = {"row": "noise.ratio", "columns": {"x": "loss"}}
FALLS = Claim("T.one.c1", "the loss falls", True, True, again=({"kind": "monotone_down", "columns": ["x"]},))


def tiny(name, cells):
    rows = ({"ratio": 0.0, "x": 2.0}, {"ratio": 1.0, "x": 1.0})
    return PaperTable(name, "T", "a title", "ratio", rows, {"x": {"unit": "nats"}},
                      runs=(Runs(TINY, {"demo": f"--names {cells}"}, reads=READS),))  # fmt: skip


TABLES = {
    "T.one": PaperTable(
        "T.one", "T", "a title", "ratio", ({"ratio": 0.0, "x": 2.0}, {"ratio": 1.0, "x": 1.0}), {"x": {"unit": "nats"}},
        (FALLS,), (Runs(TINY, {"demo": "--names r0 r1"}, reads=READS),
                   Runs(TINY, {}, {"demo": "there is no second set"}, reads=READS)),
    ),
    "T.bad": PaperTable(
        "T.bad", "T", "a title", "ratio", ({"ratio": 0.0, "x": 2.0},), {"x": {"unit": "nats"}},
        runs=(Runs(TINY, {"demo": "--names fails empty"}, folder={"demo": "bad"}, reads=READS),
              Runs(TINY, {}, {"demo": "there is no second set"}, reads=READS)),
    ),
    "T.killed": tiny("T.killed", "r0 halfway"), "T.waits": tiny("T.waits", "waits"),
    "T.many": tiny("T.many", "r0 r1 r2 r3 r4 r5"),
    "T.stands": PaperTable(
        "T.stands", "T", "a title", "ratio", (), {"x": {"unit": "nats"}},
        runs=(Runs(TINY, {"demo": "--names r0"}, folder={"demo": "own"}, reads=READS,
                   stand_in={"demo": "a small thing"}),),
    ),
    "T.other": PaperTable("T.other", "T", "a title", "p", (), {}, runs=(Runs("gradient_coherence", {"demo": ""}),)),
    "T.theory": PaperTable("T.theory", "T", "a title", "p", (), {}, runs=(Runs("theory", {"demo": ""}),)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    for module in ("study", "plan", "report", "rows"):
        monkeypatch.setattr(f"hf_noise.studies.reproduce.{module}.published", TABLES.__getitem__)
    monkeypatch.setattr(study, "paper_table_ids", lambda: [*TABLES])


def run(output, *flags):
    (kept := output / "kept").mkdir(exist_ok=True)
    study.main([*flags[:1], "--output", str(output), "--records", str(kept), "--jobs", "1", *flags[1:]])
    return json.loads((output / "demo" / "tables.json").read_text()), (output / "demo" / "tables.md").read_text()


def made(output, folder=TINY):
    return (output / "demo" / folder / "made.txt").read_text().split()


def test_only_says_what_runs_and_not_what_is_read(tmp_path):
    values, text = run(tmp_path, "T.one", "--only", "r0*")
    assert made(tmp_path) == ["r0-seed0"] and [row["row"] for row in values["tables"][0]["rows"]] == [0.0]
    assert f"\n\n1 of 2 cells not made: {TINY}/r1-seed0.\n\n" in text
    assert values["tables"][0]["lacks"] == f"1 of 2 cells not made: {TINY}/r1-seed0"
    values, text = run(tmp_path, "T.one")
    (table,) = values["tables"]
    assert [row["by_seed"] for row in table["rows"]] == [{"0": 1.0}, {"0": 0.0}] and "not made" not in text
    assert table["claims"][0]["held"] is True and table["lacks"] is None
    (tmp_path / "demo" / TINY / "r1-seed0" / "record.json").unlink()
    again, same = run(tmp_path, "T.one", "--only", "r1*")
    assert made(tmp_path) == ["r0-seed0", "r1-seed0", "r1-seed0"]
    assert again["tables"] == values["tables"] and same == text


def test_records_that_are_left_out_are_told_in_both_files(tmp_path):
    run(tmp_path, "T.one")
    for name, rows in (("r0", 6), ("r1", 5)):
        file = tmp_path / "demo" / TINY / f"{name}-seed0" / "record.json"
        told = json.loads(file.read_text())
        file.write_text(json.dumps(told | {"data": {"source": "x", "train_rows": rows}, "created": f"2026-01-0{rows}"}))
    values, text = run(tmp_path, "T.one")
    said = "left out as of other data than the rest (train_rows 5, not 6): r1-seed0"
    assert [row["row"] for row in values["tables"][0]["rows"]] == [0.0]
    assert values["tables"][0]["lacks"] == said and f"\n\n{said}.\n\n" in text


def test_a_table_without_figures_names_the_cells_that_failed(tmp_path):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "T.bad")
    text = (tmp_path / "demo" / "tables.md").read_text()
    assert stop.value.code == 1
    assert (f"Not measured: 2 of 2 cells not made: {TINY}-bad/fails-seed0 (there is no such file), {TINY}-bad/empty-"
            "seed0 (it ended without a record); there is no second set.") in text  # fmt: skip


@pytest.mark.parametrize("flags", [["--siez", "2"], ["--siez=2"]])
def test_a_flag_that_no_study_has_is_refused(flags, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "T.*", "--", *flags)
    told = capsys.readouterr().err
    assert stop.value.code == 2 and not (tmp_path / "demo").exists()
    assert f"-- {flags[0]}: no study of these tables has such a flag (gradient_coherence, {TINY}); " in told


def test_a_flag_that_one_study_has_is_fine_and_the_others_are_named(tmp_path, capsys):
    values, text = run(tmp_path, "T.*", "--only", "r0*", "--", "--size", "2")
    assert made(tmp_path) == ["r0-seed0"]
    assert "--size is not known to gradient_coherence, of which nothing is run; ask for those tables without it" in (
        capsys.readouterr().err)  # fmt: skip
    assert "Not measured: no flag takes --size 2; --help-all lists them all; what stands after -- goes" in text


def test_what_is_computed_is_never_told_a_flag(tmp_path, capsys):
    _, text = run(tmp_path, "T.[ot][nh]e*", "--only", "r0*", "values", "--", "--size", "2")
    assert "not known to" not in capsys.readouterr().err and "no flag takes" not in text
    assert (tmp_path / "demo" / "theory" / "theory.json").is_file()
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "T.theory", "--", "--alpha", "0.1")
    assert stop.value.code == 2
    assert "-- --alpha 0.1: these tables are computed, and no runs are told anything" in capsys.readouterr().err


def test_data_are_those_of_the_tables_own_flags_but_for_others(tmp_path):
    for more, says in ([], "a small thing"), (["--", "--size", "2"], "a small thing, but for --size 2"):
        (output := tmp_path / str(len(more))).mkdir()
        values, text = run(output, "T.stands", *more)
        assert f"Measured at demo scale on {says}." in text
        assert values["tables"][0]["stand_in"] == [says]


def test_of_many_cells_that_are_not_there_the_first_are_named(tmp_path):
    _, text = run(tmp_path, "T.many", "--only", "r0*")
    assert f"5 of 6 cells not made: {', '.join(f'{TINY}/r{i}-seed0' for i in range(1, 5))} and 1 more" in text


@pytest.mark.parametrize("before", [(), ("--dry_run",), ("--only", "r0*")])
def test_a_value_that_every_study_refuses_is_refused_and_is_no_flag_that_nobody_has(before, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "T.one", *before, "--", "--size", "-1")
    assert stop.value.code == 2 and "nothing to run: --size must be >= 0" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", '{"schema": "hf_noise.run/1", "name'])
def test_a_record_that_was_cut_off_is_made_again(text, tmp_path, capsys):
    run(tmp_path, "T.one")
    file = tmp_path / "demo" / TINY / "r1-seed0" / "record.json"
    file.write_text(text)
    values, _ = run(tmp_path, "T.one")
    assert made(tmp_path) == ["r0-seed0", "r1-seed0", "r1-seed0"] and len(values["tables"][0]["rows"]) == 2
    log = (tmp_path / "demo" / "logs" / TINY / "r1-seed0.log").read_text()
    assert log.startswith(f"{file} was not written to its end and is made again\n")


@pytest.mark.parametrize(("text", "message"), [("{}", "schema is None"), ('{"schema": "hf_noise.run/0"}', "run/0'")])
def test_a_whole_file_that_is_no_record_is_left_alone_and_named(text, message, tmp_path, capsys):
    run(tmp_path, "T.one")
    file = tmp_path / "demo" / TINY / "r1-seed0" / "record.json"
    file.write_text(text)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "T.one")
    told = capsys.readouterr()
    assert stop.value.code == 1 and file.read_text() == text and made(tmp_path) == ["r0-seed0", "r1-seed0"]
    assert f"{file} cannot be read (" in told.err and message in told.err and f"not made: {TINY}/r1-seed0" in told.out


def test_a_cell_killed_while_it_writes_its_record_is_made_again_alone(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "T.killed")
    folder = tmp_path / "demo" / TINY / "halfway-seed0"
    assert "its process ended (signal 9" in capsys.readouterr().err
    assert [file.name for file in folder.glob(".record.json*.tmp")] and not (folder / "record.json").exists()
    values, _ = run(tmp_path, "T.killed")
    assert made(tmp_path) == ["r0-seed0", "halfway-seed0", "halfway-seed0"]
    assert [*folder.glob(".record.json*.tmp")] == [] and (folder / "record.json").is_file()


def test_a_second_command_is_refused_what_the_first_one_makes_and_leaves_its_log_alone(tmp_path, capsys):
    """The first one is another process, which is told to end its cell once the second was refused."""
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import test_reproduce_commands as here\nfrom pathlib import Path\n"
            "from hf_noise.studies.reproduce import plan, report, rows, study\n"
            "for one in (plan, report, rows, study): one.published = here.TABLES.__getitem__\n"
            "study.paper_table_ids = lambda: [*here.TABLES]\n"
            f"if __name__ == '__main__': here.run(Path({str(tmp_path)!r}), 'T.waits')\n")  # fmt: skip
    (script := tmp_path / "command.py").write_text(code)
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    first = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": paths},
                             stdout=subprocess.PIPE, text=True)  # fmt: skip
    log, end = tmp_path / "demo" / "logs" / TINY / "waits-seed0.log", time.monotonic() + 60
    try:
        while not (log.is_file() and log.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        with pytest.raises(SystemExit):
            run(tmp_path, "T.waits")
        assert "waits-seed0 is in use by process" in capsys.readouterr().err
        assert log.read_text() == "making waits-seed0\n"
        (tmp_path / "demo" / TINY / "waits-seed0" / "go").touch()
        assert first.wait(60) == 0 and log.read_text() == "making waits-seed0\nmade\n"
    finally:
        first.kill()
        first.communicate()
    values, _ = run(tmp_path, "T.waits")
    assert made(tmp_path) == ["waits-seed0"] and len(values["tables"][0]["rows"]) == 1
