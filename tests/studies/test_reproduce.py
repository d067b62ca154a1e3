"""`reproduce` as a command: commands of all tables, what is read of records, the list, and what is refused."""

import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest
from reproduce_fakes.tiny import record

from hf_noise.reports.paper import SCALES, PaperTable, Runs, paper_table_ids, published
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.reproduce import report, study
from hf_noise.studies.reproduce.cells import Part, family
from hf_noise.studies.reproduce.listing import status
from hf_noise.studies.reproduce.plan import Asked, Planned, lanes, planned
from hf_noise.studies.reproduce.records import Kept, usual_folder
from hf_noise.studies.reproduce.rows import claims_asked, outcome, read_rows

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MEASURED = [name for name in paper_table_ids() if published(name).runs]
#: Studies that must be told their data at the scale of a GPU.
OWN = {"language", "documents", "masked_language", "seq2seq", "gradient_coherence", "stability", "backbones"}


@pytest.fixture(scope="module")
def kept():
    """Of the recipes' demos alone, which have some of the cells."""
    lines = [line for file in RESULTS.glob("*-demo/**/records.jsonl")
             if "reproduce-demo" not in file.parts for line in file.read_text("utf-8").splitlines()]
    return Kept(one for line in lines if (one := json.loads(line)).get("schema") == RunRecord.schema)


def run(capsys, *flags):
    study.main([str(flag) for flag in flags])
    return capsys.readouterr().out


@pytest.mark.parametrize("scale", SCALES)
def test_every_command_is_taken_by_its_study_and_no_two_want_one_folder(scale, tmp_path):
    claims, seen = {}, set()
    for name in MEASURED:
        plan = planned(name, Asked(scale, tmp_path, seeds=2))
        for at, cells in plan.cells.items():
            assert cells, f"{name} has no cells at {scale}"
            seen.add(published(name).runs[at].study)
            for part in (part for cell in cells for part in cell.parts):
                claim = json.dumps(dict(part.claim), sort_keys=True)
                assert claims.setdefault(part.file, claim) == claim, f"{part.file} is of two kinds of run"
        # Nothing but data of one's own is missing, which the demo has.
        told = [one for one in plan.missing if one not in published(name).runs[0].missing.values()]
        reasons = {reason for runs in published(name).runs for reason in runs.missing.values()}
        assert all(one in reasons or "needs" in one and scale == "gpu" for one in told), told
    assert {"theory", "diffusion", "classifier"} <= seen and (scale == "gpu" or len(seen) >= 10)


def test_with_data_of_ones_own_the_gpu_scale_has_cells(tmp_path):
    for name in MEASURED:
        for runs in published(name).runs:
            if runs.study in OWN and "gpu" in runs.flags:
                assert runs.study not in {cell.study for cell in planned(name, Asked("gpu", tmp_path)).every}
                task = ["--task", "rich"] if runs.study == "seq2seq" else []
                assert planned(name, Asked("gpu", tmp_path, more=("--source", "text.txt", *task))).every


def test_seeds_are_those_that_are_asked_for(tmp_path):
    for name in ("A.table8", "A.table4", "A.table10", "B.table5", "B.table1"):
        two, one = (planned(name, Asked("demo", tmp_path, seeds=n)).every for n in (2, 1))
        assert {part.file for cell in one for part in cell.parts} < {part.file for cell in two for part in cell.parts}
    assert len(planned("A.figure3", Asked("demo", tmp_path, seeds=3)).every) == 1, "theory draws nothing"


def test_tables_that_share_runs_make_them_once(tmp_path):
    asked = Asked("demo", tmp_path)
    plans = [planned(name, asked) for name in ("A.table1", "A.table12", "C.text")]
    assert [len(plan.every) for plan in plans] == [5, 5, 3]
    (lane,) = lanes(plans)
    assert [cell.name for cell in lane] == [
        "r0-dsm-seed0", "r0.1-symmetric-dsm-seed0", "r0.3-symmetric-dsm-seed0", "r0.5-symmetric-dsm-seed0",
        "r1-symmetric-dsm-seed0", "r1-symmetric-tdsm-seed0",
    ]  # fmt: skip


def values_of(folder, metric, where):
    found = defaultdict(list)
    for one in read_records(RESULTS / folder):
        if isinstance(one, RunRecord) and (key := where(one)) is not None:
            found[key].append(one.metrics[metric]["value"])
    return found


@pytest.mark.parametrize(("name", "folder", "metric", "column", "where", "times"), [
    ("A.table1", "edm-demo", "label_consistency", "cifar10_consistency",
     lambda one: one.noise["ratio"] if one.loss["name"] == "dsm" and "compute_of" not in one.budget else None, 100),
    ("A.table12", "edm-demo", "frechet_distance", "cifar10_fid",
     lambda one: one.noise["ratio"] if one.loss["name"] == "dsm" and "compute_of" not in one.budget else None, 1),
    ("A.table11", "classifier-demo", "test_accuracy", "cifar10",
     lambda one: one.noise["ratio"] if one.loss["name"] == "nll" and "compute_of" not in one.budget
     and (one.noise["kind"] == "cyclic" or not one.noise["ratio"]) else None, 100),
    ("A.table13", "classifier-demo", "marginal_tv", "tv",
     lambda one: one.noise["ratio"] if one.loss["name"] == "nll" and "compute_of" not in one.budget
     and (one.noise["kind"] == "symmetric" or not one.noise["ratio"]) else None, 1),
    ("A.table10", "seq2seq-demo", "test_target_nll", "cnndm_nll",
     lambda one: one.noise["ratio"] if one.data["task"] == "rich" and one.loss["cure"] == "nll" else None, 1),
    ("A.figure1", "gpt2-demo", "train_nll_noisy", "train_nll",
     lambda one: one.noise["ratio"] if one.loss["name"] == "nll" and "compute_of" not in one.budget
     and one.noise["ratio"] in (0, 1) else None, 1),
    ("B.table4", "finetune-demo", "test_accuracy", "rte",
     lambda one: {"l2-sp": "L2-SP", "smart": "SMART", "lnsr": "LNSR"}.get(one.loss["regulariser"])
     if not one.noise["ratio"] else None, 100),
])  # fmt: skip
def test_rows_are_read_of_the_records_that_are_kept(name, folder, metric, column, where, times, kept, tmp_path):
    (found,) = report.outcomes([name], Asked("demo", tmp_path, seeds=3, kept=kept, reuses=True))
    expected = values_of(folder, metric, where)
    told = {key: [*row[column].values()] for key, row in found.rows.items() if row.get(column)}
    assert set(told) == set(expected)
    for key, values in expected.items():
        assert sorted(told[key]) == pytest.approx(sorted(times * value for value in values)), key


def test_rows_of_studies_with_readers_of_their_own(kept, tmp_path):
    names = ["A.figure2", "A.table4", "A.table5", "B.text", "B.table1", "B.table8", "B.figure7", "C.text", "A.figure3"]
    found = {one.table.id: one for one in report.outcomes(names, Asked("demo", tmp_path, kept=kept, reuses=True))}
    nll = {key: [*row["wmt_nll"].values()] for key, row in report.outcomes(
        ["A.table10"], Asked("demo", tmp_path, kept=kept, reuses=True))[0].rows.items()}  # fmt: skip
    rise = [100 * (noisy / clean - 1) for noisy, clean in zip(nll[1.0], nll[0.0])]
    assert [*found["A.figure2"].rows[1.0]["wmt_rise"].values()] == pytest.approx(rise)
    (measured,) = read_records(RESULTS / "gradient-coherence-demo")[1:2]
    assert measured.name == "e0.25-b4-seed0"
    assert found["A.table4"].rows["e0.25-b4"]["clean_cosine"] == {0: measured.metrics["clean_cosine"]["value"]}
    largest = found["A.table4"].rows["e0.25-b4"]["clean_cosine_largest"]
    assert largest == {0: measured.metrics["clean_cosine"]["largest"]}
    losses = found["A.table5"].rows
    assert list(losses) == [480, 960, 1920, 3840, 7680] and losses[480]["noisy_std"][0] > losses[7680]["noisy_std"][0]
    documents = values_of("gpt2-documents-demo", "validation_nll", lambda one: one.name)
    clean, noisy = documents["clean-seed0"][0], documents["random-documents-a0.05-nll-seed0"][0]
    assert found["B.text"].rows[0.05]["loss_rise"] == {0: pytest.approx(100 * (noisy / clean - 1))}
    assert found["B.table8"].rows[0.05]["it_100000"] == {0: pytest.approx(noisy)}
    assert found["B.table8"].rows[0.0]["it_10000"][0] > found["B.table8"].rows[0.0]["it_50000"][0] > clean
    assert found["B.figure7"].rows[0.05]["k_median"][0] >= found["B.figure7"].rows[0.05]["k_smallest"][0] > 1
    heads = [one.metrics["test_accuracy"]["value"]
             for one in read_records(RESULTS / "noisy-backbones-demo" / "heads" / "random-documents-a0.05-nll-seed0")
             if one.model["head"] == "mlp" and one.loss["penalty"]["name"] == "difference"]  # fmt: skip
    averages = found["B.table1"].rows["uniform_5pct+lgm"]["avg_mlp"]
    assert len(heads) == 5 and averages == {0: pytest.approx(100 * mean(heads))}, "one model with five heads"
    assert list(found["C.text"].rows) == ["clean", "dsm", "tdsm"]
    assert all(row.keys() == {"fid", "cw_fid", "consistency"} for row in found["C.text"].rows.values())
    for p, row in found["A.figure3"].rows.items():
        printed = published("A.figure3").printed[p]
        assert all(math.isclose(row[name][0], printed[name][0], abs_tol=6e-5) for name in printed)


def test_claims_of_kept_records_are_decided(kept, tmp_path):
    asked = Asked("demo", tmp_path, kept=kept, reuses=True)
    found = {one.table.id: one for one in report.outcomes(["A.table10", "A.table2", "B.figure2", "A.figure3"], asked)}
    told = {claim: verdict.word for one in found.values() for claim, verdict in one.verdicts.items()}
    assert told["A.table10.c3"] == "held (a part of the table)"
    assert told["B.figure2.c1"] == "held on these test rows (one seed)"
    assert told["A.figure3.c1"] == told["A.figure3.c3"] == "held (one computation)"
    assert "A.table10.c1" not in told, "of the paper's size alone"
    assert {one.id for one in claims_asked(published("A.table10"), "paper")} > {"A.table10.c1"}
    # Two of five ratios are there, and the verdict says of which it is.
    assert found["A.table10"].verdicts["A.table10.c3"].statistic.endswith("; without 0.1, 0.3")
    shown = report.shown(found["A.table2"])
    assert "Measured at demo scale on the 1,797 embedded digits" in shown and "cifar100, percent" not in shown
    assert "| 1.0   | cifar10, percent | 85.35 |" in shown
    assert report.summary([*found.values()]).startswith("9 claims asked, 7 decided: ")


def test_nothing_is_said_where_nothing_is_measured(tmp_path):
    plan = planned("B.table2", Asked("demo", tmp_path))
    (found,) = report.outcomes(["B.table2"], Asked("demo", tmp_path))
    told = report.shown(found, plan)
    assert "Not measured: five models of 1.5 to 8 billion weights" in told
    assert "- B.table2.c1: not measured." in told and "[no figures]" in told


def test_what_a_table_says_of_reading():
    reads = {"row": "noise.ratio", "where": {"loss.name": ["nll", "gce"], "noise.kind": "a", "budget.plan": "steps"},
             "columns": {"x": {"metric": ["best", "loss"], "times": 100}, "y": "other"}}  # fmt: skip
    runs = Runs("reproduce_fakes.tiny", {}, reads=reads)

    def one(ratio, value=0.5, kind="a", plan="steps", loss="nll", **more):
        noise = {"protocol": "p", "ratio": ratio, "error_rate": ratio / (1 + ratio), "kind": kind}
        return record("x", value=value, noise=noise, budget={"plan": plan, **more}, loss={"name": loss})

    told = [one(0.0, kind="b", plan="other"), one(1.0, 0.25), one(1.0, 0.1, kind="b"), one(1.0, 0.1, plan="budget"),
            one(1.0, 0.1, loss="elr"), one(0.0, 0.9, compute_of=1.0), one(0.5, 0.4, loss="gce")]  # fmt: skip
    assert read_rows(runs, told) == {0.0: {"x": {0: 50.0}}, 1.0: {"x": {0: 25.0}}, 0.5: {"x": {0: 40.0}}}


def test_a_table_of_ones_own_is_one_file(tmp_path, monkeypatch):
    """Rates that are written with few digits find their row, and rows that are not printed come last."""
    table = PaperTable(
        "A.table8", "A", "a title", "ratio", ({"ratio": 0.0, "x": 1.0}, {"ratio": 0.667, "x": [2.0, 0.5]}),
        {"x": {"unit": "nats"}},
        runs=(Runs("reproduce_fakes.tiny", {}, reads={"row": "noise.ratio", "columns": {"x": "loss"}}),),
    )  # fmt: skip
    monkeypatch.setattr("hf_noise.studies.reproduce.rows.published", lambda name: table)

    def one(ratio, seed, value):
        return record("x", seed, value, noise={"protocol": "p", "ratio": ratio, "error_rate": ratio / (1 + ratio)})

    records = [one(ratio, seed, ratio + seed) for ratio, seed in itertools.product((3.0, 0.66702, 0.0), (0, 1, 2))]
    found = outcome("A.table8", "demo", {"A.table8": {0: records}})
    assert list(found.rows) == [0.0, 0.667, 3.0]
    lines = report.shown(found).splitlines()
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| 0.667")] == [
        ["0.667", "x, nats", "2 ± 0.5", "1.667", "1", "3"]]  # fmt: skip


def test_list_shows_every_table_with_its_status(tmp_path, capsys, kept):
    told = run(capsys, "--list", "--output", tmp_path)
    for name in paper_table_ids():
        assert told.count(f"| {name} ") == 1
    assert "- B.table2: five models of 1.5 to 8 billion weights, some behind a licence" in told
    assert "cells in all, each made once; to run: " in told
    asked = Asked("demo", tmp_path, kept=kept)
    states = {name: status(planned(name, asked), asked) for name in paper_table_ids()}
    assert states["A.table4"] == "in records" and states["A.table10"] == "18 of 30 in records"
    told = [states[name] for name in ("B.table2", "A.table6", "A.abstract")]
    assert told == ["not built", "settings", "by other tables"]
    assert states["B.table5"] == "to run"


def test_the_newest_record_of_a_name_and_its_settings_counts():
    ages = {value: f"2026-11-{day}T00:00:00+00:00" for value, day in ((1.0, "20"), (2.0, "22"), (3.0, "21"))}
    records = [record("a", value=value, created=created) for value, created in ages.items()]
    other = record("a", value=4.0, created="2026-11-23T00:00:00+00:00", settings={"size": 2, "scale": "demo"})
    kept = Kept(one.to_dict() for one in [*records, other])
    assert kept.of(Part(Path("a"), "a", "tiny", {}, {"size": 1})).metrics["loss"]["value"] == 2.0


def test_records_of_a_clone_are_found_by_an_installed_package_too(tmp_path, monkeypatch):
    monkeypatch.chdir(RESULTS.parents[1])
    monkeypatch.setattr("hf_noise.__file__", str(tmp_path / "site-packages" / "hf_noise" / "__init__.py"))
    assert usual_folder() == RESULTS
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # somebody else's benchmarks
    assert usual_folder() is None


def test_status_of_what_is_made_here(tmp_path):
    asked = Asked("demo", tmp_path)
    plan = planned("A.table8", asked)
    half = plan.every[:2]
    for cell in half:
        for part in cell.parts:
            record(part.name).write(part.file)
            (part.file.parent / "run.json").write_text(json.dumps(part.claim))
    assert status(plan, asked) == "2 of 5 measured here"
    assert status(Planned(plan.table, {0: half}, []), asked) == "measured here"


def test_dry_run_shows_commands_and_makes_nothing(tmp_path, capsys):
    told = run(capsys, "A.table8", "B.table2", "--dry_run", "--output", tmp_path, "--", "--steps", "7").splitlines()
    command = f"--scale demo --plan budget --corrected --no_equal_compute --steps 7 --output {tmp_path}/demo/language"
    assert told[:2] == [f"python -m hf_noise.studies.language {command}", "  r0-seed0 (to run)"]
    assert len(told) == 7 and told[-1].startswith("B.table2: five models") and list(tmp_path.iterdir()) == []
    assert not any("--only" in line for line in told)
    shared = run(capsys, "A.table3", "--seeds", "1", "--only", "r0-seed0", "--dry_run", "--output", tmp_path)
    assert shared.count("--seed 0\n  r0-seed0 (to run)\n  and 1 cell that --only leaves out") == 3
    assert shared.count("--seed ") == 3
    only = run(capsys, "A.table8", "--dry_run", "--only", "r1*", "language/r0-*", "--output", tmp_path).splitlines()
    assert only[1:3] == ["  r0-seed0 (to run)", "  r1-nll-budget-seed0 (to run)"]
    coherence = run(capsys, "A.table4", "--dry_run", "--seeds", "2", "--output", tmp_path)
    assert coherence.count("python -m") == 2 and coherence.count("(to run)") == 8, "one seed a command"


def test_a_table_of_theory_is_made_shown_and_not_made_again(tmp_path, capsys):
    told = run(capsys, "a.FIGURE3", "--output", tmp_path)
    assert "| 0.5      | n2, share     |      1 |        1 |" in told
    assert "3 claims asked, 3 decided: 3 held, 0 did not" in told
    assert (tmp_path / "demo" / "tables.md").read_text() in told
    values = json.loads((tmp_path / "demo" / "tables.json").read_text())
    assert values["scale"] == "demo" and values["summary"] in told
    (table,) = values["tables"]
    assert table["rows"][0] == {"row": 0.05, "column": "n2", "unit": "share", "paper": 0.2864,
                                "by_seed": {"0": pytest.approx(0.2864, abs=5e-5)}}  # fmt: skip
    assert [one["verdict"] for one in table["claims"]] == ["held (one computation)"] * 3
    file = tmp_path / "demo" / "theory" / "theory.json"
    before = file.stat().st_mtime_ns
    run(capsys, "A.figure3", "--output", tmp_path)
    assert file.stat().st_mtime_ns == before


def test_records_of_before_are_taken_where_that_is_asked_for(tmp_path, capsys, monkeypatch):
    version = read_records(RESULTS / "gradient-coherence-demo")[0].versions["python"]
    monkeypatch.setattr("platform.python_version_tuple", lambda: tuple(version.split(".")))
    told = run(capsys, "A.table4", "--reuse", "--records", RESULTS / "gradient-coherence-demo", "--output", tmp_path)
    assert "8 claims asked, 4 decided: 2 held, 2 did not; 4 open" in told
    assert not (tmp_path / "demo" / "gradient_coherence").exists()


def test_a_cell_that_fails_ends_with_status_1(tmp_path, capsys, monkeypatch):
    failure = type("F", (), {"cell": planned("A.table8", Asked("demo", tmp_path)).every[0], "message": "no room",
                             "log": tmp_path / "x.log"})()  # fmt: skip
    monkeypatch.setattr("hf_noise.studies.reproduce.runner.run", lambda *_: [failure])
    with pytest.raises(SystemExit) as stop:
        study.main(["A.abstract", "--output", str(tmp_path)])
    told = capsys.readouterr()
    assert stop.value.code == 1
    assert "1 cell failed; the same command tries again:\n  language/r0-seed0: no room" in told.err
    # A table that others decide brings those with it.
    assert [line.split(":")[0] for line in told.out.splitlines() if line.startswith("## ")] == [
        "## A.figure1", "## A.table1", "## A.abstract"]  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), [
    ([], "which tables? Give ids, such as A.table8, or all"),
    (["A.tabel8"], "there is no table A.tabel8; did you mean A.table8?"),
    (["all", "--seeds", "0"], "takes a number of at least 1, got '0'"),
    (["all", "--jobs", "x"], "takes a number of at least 1, got 'x'"),
    (["A.table8", "--only", "r7"], "--only r7: no cell of these tables has such a name"),
    (["A.table8", "--records", "no/such"], "--records no/such: there is no such folder"),
    (["--list", "--", "--siez", "2"], "-- --siez: no study of these tables has such a flag (backbones, "),
    (["A.table8", "--scale", "huge"], "argument --scale: invalid choice: 'huge'"),
])  # fmt: skip
def test_what_is_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        study.main(flags)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_launcher_of_several_processes_is_refused(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        study.main(["A.figure3"])
    assert "2 processes of this command were launched" in capsys.readouterr().err
    monkeypatch.undo()


def test_without_a_repository_records_have_to_be_named(capsys, monkeypatch):
    monkeypatch.setattr("hf_noise.studies.reproduce.records.usual_folder", lambda: None)
    with pytest.raises(SystemExit):
        study.main(["A.table4", "--reuse"])
    assert "--reuse: no benchmarks/results of a repository here" in capsys.readouterr().err


def test_what_a_study_refuses_is_a_reason(tmp_path):
    assert planned("A.table8", Asked("demo", tmp_path, more=("--steps", "0"))).missing[0].startswith("--steps ")
    assert family("reproduce_fakes.tiny").verdicts([]) == []
