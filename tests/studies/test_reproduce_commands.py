"""`reproduce` on a table of a tiny study: parts of it made again, two commands at once, flags that nobody takes."""

import json

import pytest

from hf_noise.reports.paper import Claim, PaperTable, Runs
from hf_noise.studies.reproduce import study

TINY = "reproduce_fakes.tiny"
READS = {"row": "noise.ratio", "columns": {"x": "loss"}}
FALLS = Claim("T.one.c1", "the loss falls", True, True, again=({"kind": "monotone_down", "columns": ["x"]},))
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
    values, text = run(tmp_path, "T.one")
    (table,) = values["tables"]
    assert [row["by_seed"] for row in table["rows"]] == [{"0": 1.0}, {"0": 0.0}] and "not made" not in text
    assert table["claims"][0]["held"] is True
    (tmp_path / "demo" / TINY / "r1-seed0" / "record.json").unlink()
    again, same = run(tmp_path, "T.one", "--only", "r1*")
    assert made(tmp_path) == ["r0-seed0", "r1-seed0", "r1-seed0"]
    assert again["tables"] == values["tables"] and same == text


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
    assert f"-- {flags[0]}: no study of these tables has such a flag ({TINY}, theory)" in told


def test_a_flag_that_one_study_has_is_fine_and_the_others_are_named(tmp_path, capsys):
    values, text = run(tmp_path, "T.*", "--only", "r0*", "--", "--size", "2")
    assert made(tmp_path) == ["r0-seed0"]
    assert "--size is not known to theory, of which nothing is run; ask for those tables without it" in (
        capsys.readouterr().err)  # fmt: skip
    assert "Not measured: no flag takes --size 2; --help-all lists them all; what stands after -- goes" in text


def test_a_value_that_a_study_refuses_is_no_flag_that_nobody_has(tmp_path):
    assert "--size must be >= 0" in run(tmp_path, "T.one", "--", "--size", "-1")[1]
