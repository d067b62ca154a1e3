"""The papers' tables in the report: of which records they are, and how their claims are counted."""

import json
import shutil
from pathlib import Path

import pytest
from stored_records import RESULTS, copied, more_seeds

from hf_noise.reports.paper import paper_table_ids, published
from hf_noise.studies.report import marks, study
from hf_noise.studies.report.cells import Found, found_in
from hf_noise.studies.report.curves import curves
from hf_noise.studies.report.parts import claims, tiles
from hf_noise.studies.report.seeds import outcomes_in
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.report.tables import claims_table
from hf_noise.studies.report.text import markdown
from hf_noise.studies.reproduce.plan import Asked
from hf_noise.studies.reproduce.report import outcomes, shown, values_of
from hf_noise.studies.reproduce.rows import outcome


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    return copied(tmp_path_factory.mktemp("records"))


@pytest.mark.parametrize(
    ("name", "study", "seeds"),
    [("A.table4", "gradient-coherence-demo", [0, 1, 2]), ("A.table1", "edm-demo", [0, 7]),
     ("A.table1", "edm-demo", [0])],
)
def test_tables_are_of_every_seed_that_there_are_records_of(tmp_path, name, study, seeds):
    more_seeds(tmp_path, study, lambda run: seeds)
    stored = Stored.read(tmp_path)
    (found,) = (one for one in found_in(stored, "demo") if one.table.id == name)
    each = {(row, column): {*values} for row, of in found.outcome.rows.items() for column, values in of.items()}
    assert each and all(of == {*seeds} for of in each.values())
    assert {len(cell.values) for cell in found.cells if cell.values} == {len(of) for of in each.values()}
    told = [verdict for verdict in found.outcome.verdicts.values() if verdict.seeds]
    assert told and max(verdict.seeds for verdict in told) == len(seeds)
    every = [one.outcome for one in found_in(stored, "demo")]
    assert marks.rendered(tmp_path, stored, ["claims"])["claims"] == claims_table(every)


def test_flags_behind_two_dashes_are_those_that_the_runs_were_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text("words\n")
    more_seeds(tmp_path, "gradient-coherence-demo", lambda run: [0])
    file = tmp_path / "gradient-coherence-demo" / "records.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(one | {"settings": one["settings"] | {"source": "own.txt"}}) + "\n"
                            for one in lines))  # fmt: skip
    measured = {}
    for more in ([], ["--", "--source", "own.txt"]):
        study.main(["--records", str(tmp_path), "--output", "made", *more])
        text = Path("made/report.md").read_text()
        measured[bool(more)] = "A.table4.c1: held" in text
        assert ("but for --source own.txt." in text) == bool(more), "the data are not those of the table's own flags"
        assert "A.figure3.c1: held" in text and "B.figure9.c1: held" in text, "these are computed"
    assert measured == {False: False, True: True}


def test_a_mean_is_of_all_its_records_also_where_one_is_alike(tmp_path):
    """Of three heads the middle one is as their mean."""
    shutil.copytree(RESULTS / "reproduce-demo" / "backbones", tmp_path / "backbones")
    for file in tmp_path.rglob("records.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for one in lines:
            if one["task"] == "probe":
                one["metrics"]["test_accuracy"]["value"] = 0.25 + one["seed"] / 8
        file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    (found,) = (one for one in found_in(Stored.read(tmp_path), "demo") if one.table.id == "B.table1")
    (cell,) = (one for one in found.cells if (one.key, one.column) == ("gaussian_5pct+lgm", "avg linear"))
    assert cell.values == (50.0,)
    folder = "backbones/heads/gaussian-documents-a0.05-nll-seed0/docs-topics"
    assert cell.places == tuple(f"{folder}/linear-r0-nll-lgm-seed{seed}" for seed in range(5))


def test_a_flag_that_some_studies_have_is_fine_and_the_others_are_named(tmp_path, capsys):
    more_seeds(tmp_path / "records", "edm-demo", lambda run: [0])
    study.main(["--records", str(tmp_path / "records"), "--output", str(tmp_path), "--", "--tau", "0.01"])
    told = capsys.readouterr().err
    assert "--tau is not known to " in told and "of which no runs are read" in told and "theory" not in told
    assert "A.table1.c" in (tmp_path / "report.md").read_text()


def test_nothing_is_lost_that_the_tables_own_seeds_have():
    stored = Stored.read(RESULTS)
    asked = Asked("demo", RESULTS, kept=stored.kept, reuses=True)
    ours = {one.table.id: {id_of(record) for record in one.records} for one in outcomes_in(stored, "demo")}
    theirs = {one.table.id: {id_of(record) for record in one.records} for one in outcomes(paper_table_ids(), asked)}
    assert [name for name in theirs if not theirs[name] <= ours[name]] == [] and sum(map(len, theirs.values())) > 100


def id_of(record):
    return record.task, record.name, record.created


def test_claims_are_counted_once_each(some):
    found = found_in(Stored.read(some), "demo")
    table = claims_table([one.outcome for one in found])
    *rows, total = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    replica = [claim for name in paper_table_ids() for claim in published(name).claims if claim.replica]
    assert total[0] == "all" and int(total[1]) == len(replica)
    for column in range(1, 10):
        assert int(total[column]) == sum(int(row[column]) for row in rows)
    for _, replicas, decided, held, fell, undecided, nothing, reading, one, part, _ in [*rows, total]:
        assert int(replicas) == int(held) + int(fell) + int(undecided) + int(nothing) + int(reading)
        assert max(int(one), int(part)) <= int(decided) == int(held) + int(fell)
    assert int(total[7]) == sum(claim.by_reading for claim in replica) > 0


@pytest.mark.parametrize("is_left", ["without noise", "with noise"])
def test_tables_go_on_without_their_clean_or_their_noisy_runs(is_left):
    """As where runs failed, or were left out as of other data."""
    every = Stored.read(RESULTS)
    left = Stored(RESULTS, [(place, one) for place, one in every.told if is_clean(one) == (is_left == "without noise")])
    assert 100 < len(left.told) < len(every.told) - 100
    found = found_in(left, "demo")
    told = values_of([one.outcome for one in found])
    assert json.dumps(told, allow_nan=False) and markdown(left, curves(left, "demo"), found, "demo")
    measured = {one["id"] for one in told["tables"] if one["rows"]}
    assert {"B.table8", "B.table9"} <= measured, "these are read of each run alone"
    for one in found:
        assert published(one.table.id).title in shown(one.outcome)


def is_clean(record):
    return not record["noise"].get("error_rate", record["noise"].get("alpha", 0))


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_as_many_claims_are_counted_as_are_listed(scale):
    found = [Found(outcome(name, scale, {}), [], [], []) for name in paper_table_ids()]
    listed = {kind: len(of) for kind, of in claims(found).items()}
    counted, every = tiles(found), [claim for name in paper_table_ids() for claim in published(name).claims]
    asked = sum(claim.replica or scale == "paper" for claim in every)
    assert {kind: counted[kind] for kind in listed} == listed and counted["asked"] == sum(listed.values()) == asked
    total = claims_table([one.outcome for one in found]).splitlines()[-1]
    assert total.startswith(f"| all | {asked} | {counted['decided']} |")
