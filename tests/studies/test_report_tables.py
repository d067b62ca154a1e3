"""The papers' tables in the report: of which records they are, and how their claims are counted."""

import html
import json
import re
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

import pytest
from stored_records import RESULTS, copied, more_seeds, records_of, write_records

from hf_noise.reports.paper import paper_table_ids, published
from hf_noise.reports.verdicts import Verdict
from hf_noise.studies.report import marks, study
from hf_noise.studies.report.cells import Found, found_in
from hf_noise.studies.report.curves import curves
from hf_noise.studies.report.judged import chip
from hf_noise.studies.report.parts import claims, tiles
from hf_noise.studies.report.seeds import outcomes_in
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.report.tables import claims_table, families_table
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
    assert cell.values == (50.0,) * 3, "three models"
    folders = [f"backbones/heads/gaussian-documents-a0.05-nll-seed{model}/docs-topics" for model in range(3)]
    heads = [f"linear-r0-nll-lgm-seed{seed}" for seed in range(5)]
    assert {*cell.places} == {f"{folder}/{head}" for folder in folders for head in heads} and len(cell.places) == 15


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
    *rows, total = rows_of(table)
    replica = [claim for name in paper_table_ids() for claim in published(name).claims if claim.replica]
    assert total[0] == "all" and int(total[1]) == len(replica)
    for column in range(1, 11):
        assert int(total[column]) == sum(int(row[column]) for row in rows)
    for _, replicas, decided, computed, held, fell, undecided, nothing, reading, one, part, _ in [*rows, total]:
        assert int(replicas) == int(held) + int(fell) + int(undecided) + int(nothing) + int(reading)
        assert max(int(one) + int(computed), int(part)) <= int(decided) == int(held) + int(fell)
    assert int(total[8]) == sum(claim.by_reading for claim in replica) > 0


def rows_of(table):
    """Cells of a table of claims, without its head and what stands below."""
    return [row.strip("| ").split(" | ") for row in table.partition("\n\n")[0].splitlines()[2:]]


def test_what_no_run_shows_is_counted_as_computed(tmp_path):
    write_records(tmp_path / "elsewhere", records_of("edm-cifar10"))
    study.main(["--records", str(tmp_path), "--output", str(tmp_path / "made")])
    page, text = ((tmp_path / "made" / name).read_text() for name in ("report.html", "report.md"))
    says = "Of those decided 5 are computed from formulas alone, of no run, 0 are by one seed and 0 by a part"
    assert ", 5 decided: 5 held, 0 did not; " in text and says in text
    assert "<dt>computed, of no run</dt><dd>5</dd>" in page and "5 of those decided are computed" in page
    rows = {row[0]: row[2:5] for row in rows_of(claims_table(outcomes_in(Stored.read(tmp_path), "demo")))}
    assert {name: of for name, of in rows.items() if of[0] != "0"} == {
        "A.figure3": ["3"] * 3, "B.figure7": ["1"] * 3, "B.figure9": ["1"] * 3, "all": ["5"] * 3}  # fmt: skip


@pytest.fixture(scope="module")
def every():
    return found_in(Stored.read(RESULTS), "demo")


def test_a_claim_that_did_not_hold_names_what_it_was_measured_on(every):
    found = {one.table.id: one.outcome for one in every}
    which = {row[0]: row[-1] for row in rows_of(claims_table([*found.values()]))}
    of_figure1, of_table12, of_table4 = (found[name].stand_in[0] for name in ("A.figure1", "A.table12", "A.table4"))
    assert which["A.table12"].startswith(f"c1 (measured on {of_table12}): on CIFAR-10 ")
    assert which["A.abstract"].startswith(f"c1 (measured on {of_figure1}): "), "it is judged by the other table"
    assert which["A.table4"].startswith(f"c2 (measured on {of_table4}): ")
    assert "; c3 (on the same): " in which["A.table4"]
    told = claims(every)
    assert told["not held"] and all(one["measured_on"] for one in told["not held"])
    computed = [one for one in told["held"] if "computation" in one["word"]]
    assert len(computed) == 5 and not any(one["measured_on"] for one in computed)
    text = markdown(Stored.read(RESULTS), [], every, "demo")
    assert re.search(rf"^- A.abstract.c1: .* \(measured on {of_figure1}\) \[", text, re.MULTILINE)
    assert f"(measured on {of_table4}) [" not in text, "it stands above the claims of its own table"


def test_a_stand_in_of_ones_own_stays_text(every):
    """It holds what was told behind `--`."""
    own = [replace(one.outcome, stand_in=["<script>a|b</script>"]) for one in every if one.table.id == "A.table12"]
    assert "c1 (measured on &lt;script&gt;a\\|b&lt;/script&gt;): " in claims_table(own)


def test_what_the_columns_mean_and_which_tables_share_runs_stands_below(every):
    found = [one.outcome for one in every]
    below = claims_table(found).partition("\n\n")[2]
    assert {"computed", "open", "by reading", "of one seed", "of a part"} <= {*re.findall(r"“([^”]*)”", below.lower())}
    read = {one.table.id: {id_of(record) for record in one.records} for one in found}
    groups = re.search(r"not independent: (.*?)\. ", below + " ")[1].split("; ")
    groups = [re.split(", | and ", group) for group in groups]
    assert ["A.figure2", "A.table10"] in groups and any({"B.figure2", "B.figure3", "B.table8", "B.text"} <= {*group}
                                                        for group in groups)  # fmt: skip
    of = {name: at for at, group in enumerate(groups) for name in group}
    for one, other in combinations(read, 2):
        if read[one] & read[other]:
            assert of[one] == of[other], "they share runs"
    assert all(any(read[one] & read[other] for other in group if other != one) for group in groups for one in group)
    assert "Claims of A.abstract look at A.figure1 and A.table1" in below


def test_tables_of_other_runs_share_none(tmp_path):
    more_seeds(tmp_path, "gradient-coherence-demo", lambda run: [0])
    assert "not independent" not in claims_table(outcomes_in(Stored.read(tmp_path), "demo"))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"held": True}, "held"),
        ({"held": None, "seeds": 3, "lacks": ("cifar100",)}, "open (a part)"),
        ({"held": False, "seeds": 1, "on_rows": True}, "not held (one seed, these rows)"),
        ({"held": True, "seeds": 1, "on_rows": True, "lacks": ("a",)}, "held (one seed, these rows, a part)"),
        ({"held": True, "seeds": 1, "of": "computation"}, "held (computed)"),
        ({"held": None, "seeds": 1, "of": "model", "on_rows": True}, "open (one model)"),
        ({"held": None, "seeds": 0, "lacks": ("a",)}, "not measured"),
    ],
)
def test_a_chip_says_what_its_verdict_is_limited_by(told, says):
    assert chip(Verdict("says", "A.table1.c1", "0", **told)) == says


def test_chips_of_a_table_are_those_of_its_verdicts(some, tmp_path):
    study.main(["--records", str(some), "--output", str(tmp_path)])
    found = found_in(Stored.read(some), "demo")
    page = html.unescape((tmp_path / "report.html").read_text())
    for one in found:
        for name, verdict in one.outcome.verdicts.items():
            of_table = re.search(rf"<summary><strong>{re.escape(one.table.id)}</strong>.*?</summary>", page)[0]
            says = f">{name.rpartition('.')[2]} {chip(verdict)}</span>"
            assert (says in of_table) == bool(verdict.seeds), name
    assert page.count("(one seed") > 5 < page.count("a part)")
    told = [one for kind in ("not held", "open") for one in claims(found)[kind]]
    assert told and all(f"(measured on {one['measured_on']})" in page for one in told)


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
    assert rows_of(claims_table([one.outcome for one in found]))[-1][:3] == ["all", str(asked), str(counted["decided"])]


def test_a_gap_is_told_with_its_interval_over_seeds(tmp_path):
    """By hand: Student's t of three seeds is 4.303."""
    shutil.copytree(RESULTS / "gpt2-demo", tmp_path / "gpt2-demo")
    stored = Stored.read(tmp_path)
    (line,) = curves(stored, "demo")
    told = {place: one["metrics"]["validation_nll"]["value"] for place, one in stored.told}
    each = []
    for seed in range(3):
        runs = ("r0-compute-of-r1-batch", "r1-nll-batch", "r1-corrected-batch")
        equal, plain, cured = (told[f"gpt2-demo/{name}-seed{seed}"] for name in runs)
        each.append(100 * (plain - cured) / (plain - equal))
    half = 4.303 * stdev(each) / 3**0.5
    says = f"{mean(each):.0f} % [{mean(each) - half:.0f}, {mean(each) + half:.0f}]"
    table = families_table([line])
    assert f"| {says.replace('[', chr(92) + '[').replace(']', chr(92) + ']')} |" in table
    assert "Gap closed: mean of the seeds' own shares, in brackets its 95 % interval over seeds." in table
    study.main(["--records", str(tmp_path), "--output", str(tmp_path / "made")])
    assert ">" + says.replace(" [", "\n[") + "<" in (tmp_path / "made" / "report.html").read_text()
