"""The report of all records: what noise costs each family, pages whose figures name their records, tables of README."""

import html
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from hf_noise.reports.paper import paper_table, paper_table_ids, published
from hf_noise.studies.report import marks, study
from hf_noise.studies.report.cells import found_in
from hf_noise.studies.report.families import curves
from hf_noise.studies.report.picture import digest, spaced
from hf_noise.studies.report.seeds import outcomes_in
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.report.tables import claims_table, families_table, recipes_table
from hf_noise.studies.reproduce.plan import Asked
from hf_noise.studies.reproduce.report import outcomes

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
#: Enough of all records to have every family, and a study whose records share names.
SOME = ("gpt2-demo", "seq2seq-demo", "classifier-demo", "edm-demo", "classifier-sizes-digits")


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """A folder with a few studies' records, and the figure of one."""
    folder = tmp_path_factory.mktemp("records")
    for name in SOME:
        (folder / name).mkdir()
        shutil.copy(RESULTS / name / "records.jsonl", folder / name)
    shutil.copy(RESULTS / "edm-demo" / "study.png", folder / "edm-demo")
    return folder


@pytest.fixture(scope="module")
def lines(some):
    """The lines of the picture by title."""
    return {one.title: one for one in curves(Stored.read(some))}


@pytest.fixture(scope="module")
def told(some):
    """Raw fields of all records by study and name, without the code that is tested."""
    lines = [(name, json.loads(line)) for name in SOME for line in (some / name / "records.jsonl").open()]
    return {f"{name}/{one['name']}": one for name, one in lines}


@pytest.fixture(scope="module")
def report(some, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    study.main(["--records", str(some), "--output", str(output)])
    return output


@pytest.fixture
def repository(some, tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("classifier-demo", "edm-demo"):
        shutil.copytree(some / name, tmp_path / marks.RESULTS / name)
    families = "<!-- families -->\n<!-- /families -->\n"
    (tmp_path / "README.md").write_text(f"# A\n\n{families}kept\n<!-- own -->\nmine\n<!-- /own -->\n")
    (tmp_path / "docs" / "labels.md").write_text(f"<!-- digits -->\nold\n<!-- /digits -->\n{families}")
    return tmp_path


def value(told, place, metric):
    return told[place]["metrics"][metric]["value"]


def test_costs_and_gaps_are_those_of_the_records(lines, told):
    assert len(lines) == 6
    gpt2 = lines["language model"]
    clean, equal, plain, cured = (
        value(told, f"gpt2-demo/{name}-seed0", "validation_nll")
        for name in ("r0", "r0-compute-of-r1-batch", "r1-nll-batch", "r1-corrected-batch")
    )
    assert gpt2.costs(gpt2.plain)[-1] == (0.5, pytest.approx(gpt2.cost(gpt2.plain[0.5])))
    assert gpt2.cost(gpt2.plain[0.5]).mean == pytest.approx(100 * (plain - clean) / clean)
    assert gpt2.gap_closed() == pytest.approx((plain - cured) / (plain - equal))
    edm = lines["diffusion model"]
    right, wrong = (
        value(told, f"edm-demo/{name}-seed0", "label_consistency") for name in ("r0-dsm", "r1-symmetric-dsm")
    )
    assert edm.cost(edm.plain[0.5]).mean == pytest.approx(100 * (right - wrong) / right)
    assert edm.plain[0.5][0].value == pytest.approx(100 * wrong)
    pairs = lines["encoder-decoder, poor source"]
    each = [100 * (value(told, f"seq2seq-demo/sparse-r1-nll-seed{i}", "test_target_nll")
                   / value(told, f"seq2seq-demo/sparse-clean-seed{i}", "test_target_nll") - 1) for i in range(3)]
    assert pairs.cost(pairs.plain[pairs.worst]).values == pytest.approx(tuple(each))


def test_no_gap_is_told_where_test_images_are_too_few_to_see_one(lines):
    symmetric, cyclic = (lines[f"classifier, labels {kind}"] for kind in ("at random", "of the next class"))
    assert symmetric.gap_closed() is None, "the intervals of 355 images overlap"
    assert cyclic.gap_closed() > 0.9


def test_what_the_paper_prints_is_of_its_tables(lines):
    table = paper_table("A.table1")
    assert lines["diffusion model"].of_paper()[0.5] == pytest.approx(
        100 * (1 - table[1.0]["cifar10_consistency"] / table[0.0]["cifar10_consistency"])
    )
    assert all(one.of_paper()[0.0] == 0 and one.of_paper()[0.5] > 5 for one in lines.values())


def test_a_run_with_more_compute_is_no_baseline(lines):
    for one in lines.values():
        assert all("compute-of" not in figure.place for figure in one.clean.values())
        assert all("compute-of" in figure.place for figure in one.equal.values())


def test_records_of_one_name_are_told_apart(some):
    places = [place for place, _ in Stored.read(some).told]
    assert len(set(places)) == len(places) and any("(line" in place for place in places)


def test_names_in_the_picture_stand_apart_in_their_order():
    places = [2.3, 59, 24, 24.1, 13.5]
    moved = spaced(places, 6)
    order = sorted(range(5), key=lambda i: places[i])
    assert all(moved[b] - moved[a] >= 6 - 1e-9 for a, b in pairwise(order))
    assert moved[0] == 2.3 and moved[1] == 59, "what has room stays"


def test_each_measured_figure_of_the_page_names_records_that_are_there(report, some):
    page, places = (report / "report.html").read_text(), {place for place, _ in Stored.read(some).told}
    rows = re.findall(r"<tr><td>.*?</tr>", page)
    assert len(rows) > 30
    for row in rows:
        measured = re.findall(r'<td class="num">(.*?)</td>', row)[1]
        title = re.search(r'title="([^"]*)"', measured)
        assert title or ">-<" in measured, row
        if title and not title[1].startswith("computed"):
            named = html.unescape(re.sub(r" and \d+ more$", "", title[1])).split(", ")
            assert set(named) <= places, row


@pytest.mark.parametrize(
    ("place", "metric", "times", "shown"),
    [
        ("edm-demo/r1-symmetric-dsm-seed0", "label_consistency", 100, "{:.5g}"),
        ("classifier-demo/r1-cyclic-nll-steps-seed0", "test_accuracy", 100, "{:.5g}"),
        ("gpt2-demo/r1-nll-batch-seed0", "validation_nll", 1, "{:.5g}"),
        ("gpt2-demo/r1-corrected-batch-seed0", "validation_nll", 1, "{:.3f}"),
    ],
)
def test_figures_stand_on_the_page_as_in_their_records(report, told, place, metric, times, shown):
    page = (report / "report.html").read_text()
    figures = re.findall(rf'title="{re.escape(place)}">([^<]*)<', page)
    assert shown.format(times * value(told, place, metric)) in figures


def test_the_page_needs_nothing_from_outside(report):
    page = (report / "report.html").read_text()
    assert not re.search(r"<script|<link|https?://(?!www\.w3\.org)|@import|url\(", page)
    assert page.count("data:image/png;base64,") == 1, "the figure of the one study that has drawn one"
    ids, targets = set(re.findall(r' id="([^"]+)"', page)), set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= ids and len(targets) > 20
    assert "prefers-color-scheme: dark" in page


def test_the_same_records_make_the_same_report(repository):
    made = []
    for name in ("one", "other"):
        study.main(["--records", str(repository / marks.RESULTS), "--output", str(repository / name)])
        made.append([(repository / name / file).read_bytes() for file in ("report.html", "report.md")])
    assert made[0] == made[1]


def test_the_markdown_names_claims_and_records(report):
    text = (report / "report.md").read_text()
    assert "A.table11.c1: held" in text and "edm-demo/r1-symmetric-tdsm-seed0" in text
    assert (report / "overview.png").is_file() and "(overview.png)" in text
    assert "](benchmarks" not in text, "the records lie elsewhere"


def test_claims_are_counted_once_each(some):
    found = found_in(Stored.read(some), "demo")
    table = claims_table([one.outcome for one in found])
    *rows, total = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    replica = [claim for name in paper_table_ids() for claim in published(name).claims if claim.replica]
    assert total[0] == "all" and int(total[1]) == len(replica)
    for column in range(1, 8):
        assert int(total[column]) == sum(int(row[column]) for row in rows)
    for _, claims, decided, held, fell, undecided, nothing, one, _ in [*rows, total]:
        assert int(claims) == int(held) + int(fell) + int(undecided) + int(nothing)
        assert int(one) <= int(decided) == int(held) + int(fell)


def more_seeds(folder, name, seeds):
    """Records of a study, and the same of more seeds with figures that are a little larger."""
    first = [json.loads(line) for line in (RESULTS / name / "records.jsonl").open()]
    lines = [*first]
    for seed in seeds:
        for one in first:
            assert one["seed"] == 0 and one["name"].endswith("-seed0")
            own = [seed] if isinstance(one["settings"]["seed"], list) else seed
            metrics = {key: {**told, "value": told["value"] * (1 + seed / 1000)} for key, told in one["metrics"].items()
                       if isinstance(told.get("value"), float)}  # fmt: skip
            lines.append(one | {"seed": seed, "name": one["name"].removesuffix("0") + str(seed), "metrics": metrics,
                                "settings": one["settings"] | {"seed": own}})  # fmt: skip
    (folder / name).mkdir(parents=True)
    (folder / name / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


@pytest.mark.parametrize(
    ("name", "study", "seeds"),
    [("A.table4", "gradient-coherence-demo", [1, 2]), ("A.table1", "edm-demo", [1, 7]), ("A.table1", "edm-demo", [])],
)
def test_tables_are_of_every_seed_that_there_are_records_of(tmp_path, name, study, seeds):
    more_seeds(tmp_path, study, seeds)
    stored = Stored.read(tmp_path)
    (found,) = (one for one in found_in(stored, "demo") if one.table.id == name)
    each = {(row, column): {*values} for row, of in found.outcome.rows.items() for column, values in of.items()}
    assert {0, *seeds} in each.values() and all(of <= {0, *seeds} for of in each.values())
    assert {len(cell.values) for cell in found.cells if cell.values} == {len(of) for of in each.values()}
    told = [verdict for verdict in found.outcome.verdicts.values() if verdict.seeds]
    assert told and max(verdict.seeds for verdict in told) == 1 + len(seeds)
    (row,) = (line for line in marks.rendered(tmp_path, stored, ["claims"])["claims"].splitlines()
              if line.startswith(f"| {name} |"))  # fmt: skip
    assert int(row.split(" | ")[7]) == sum(verdict.seeds == 1 for verdict in told)


def test_flags_behind_two_dashes_are_those_that_the_runs_were_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text("words\n")
    more_seeds(tmp_path, "gradient-coherence-demo", [])
    file = tmp_path / "gradient-coherence-demo" / "records.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(one | {"settings": one["settings"] | {"source": "own.txt"}}) + "\n"
                            for one in lines))  # fmt: skip
    measured = {}
    for more in ([], ["--", "--source", "own.txt"]):
        study.main(["--records", str(tmp_path), "--output", "made", *more])
        text = Path("made/report.md").read_text()
        measured[bool(more)] = "A.table4.c1: held" in text
    assert measured == {False: False, True: True}


def test_nothing_is_lost_that_the_tables_own_seeds_have():
    stored = Stored.read(RESULTS)
    asked = Asked("demo", RESULTS, kept=stored.kept, reuses=True)
    ours = {one.table.id: {id_of(record) for record in one.records} for one in outcomes_in(stored, "demo")}
    theirs = {one.table.id: {id_of(record) for record in one.records} for one in outcomes(paper_table_ids(), asked)}
    assert [name for name in theirs if not theirs[name] <= ours[name]] == [] and sum(map(len, theirs.values())) > 100


def id_of(record):
    return record.task, record.name, record.created


def test_every_measured_table_has_a_recipe():
    table = recipes_table(ROOT / "recipes")
    assert all(name in table for name in paper_table_ids() if published(name).runs)
    assert all(f"recipes/{file.name}" in table for file in (ROOT / "recipes").glob("*.py"))


def test_a_recipe_that_opens_on_nothing_is_refused(tmp_path):
    (tmp_path / "odd.py").write_text("import os\n")
    with pytest.raises(ValueError, match="odd.py opens on no study"):
        recipes_table(tmp_path)


def test_tables_are_put_between_their_marks_and_nowhere_else(repository, capsys):
    with pytest.raises(SystemExit) as end:
        study.main(["--readme", str(repository), "--check"])
    assert end.value.code == 1 and "old: " in capsys.readouterr().out
    readme = (repository / "README.md").read_text()
    assert "kept\n" in readme and "| model" not in readme, "nothing is written"
    study.main(["--readme", str(repository)])
    table = families_table(curves(Stored.read(repository / marks.RESULTS)), marks.RESULTS)
    filled = readme.replace("<!-- families -->\n", f"<!-- families -->\n{table}\n")
    assert (repository / "README.md").read_text() == filled
    docs = (repository / "docs" / "labels.md").read_text()
    assert "cyclic, corrected through T" in docs and "](../benchmarks/results/edm-demo)" in docs and "old" not in docs
    assert marks.update(repository, writes=False) == []


def test_other_records_make_it_old(repository):
    marks.update(repository)
    file = repository / marks.RESULTS / "edm-demo" / "records.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    (noisy,) = (one for one in lines if one["name"] == "r1-symmetric-dsm-seed0")
    noisy["metrics"]["label_consistency"]["value"] = 0.25
    file.write_text("\n".join(map(json.dumps, lines)))
    old = [path.relative_to(repository).as_posix() for path in marks.update(repository, writes=False)]
    assert old == ["README.md", "docs/labels.md", marks.PICTURE]
    marks.update(repository)
    with Image.open(repository / marks.PICTURE) as image:
        assert image.info["Description"] == digest(curves(Stored.read(repository / marks.RESULTS)))



#: Opens all that is folded, then tells what sticks out of the page.
OPENED = """
const page = document.documentElement, folded = [...document.querySelectorAll("details")];
for (const one of folded) one.open = true;
const out = [...document.querySelectorAll("main *")].filter(one => !one.closest(".scroll, svg") &&
  one.getBoundingClientRect().right > page.clientWidth + 1);
const marks = document.querySelectorAll(".chart svg svg title").length;
parent.told.push([innerWidth, page.scrollWidth <= page.clientWidth, out.length, folded.length > 40, marks].join());
"""


def test_the_page_in_a_browser_fits_a_phone_with_all_of_it_open(told_at_widths, report, lines):
    page = (report / "report.html").read_text().replace("style-src", "script-src 'unsafe-inline'; style-src")
    told = told_at_widths(page, OPENED)
    marks_drawn = sum(len(one.plain) + len(one.cured) + bool(one.of_paper()) for one in lines.values())
    assert told == [[width, "true", "0", "true", str(marks_drawn)] for width in ("1280", "390")]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--check"], "--check looks at what --readme would write"),
        (["--readme", "--", "--source", "own.txt"], "-- --source own.txt: the tables of --readme are of the demos"),
        (["--records", "nowhere"], "--records nowhere: there is no such folder"),
        (["--readme", "nowhere"], "--readme nowhere: there is no README.md"),
    ],
)
def test_what_makes_no_sense_is_refused(flags, says, capsys):
    with pytest.raises(SystemExit) as end:
        study.main(flags)
    assert end.value.code == 2 and says in capsys.readouterr().err


def test_a_folder_without_records_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no records of runs"):
        study.main(["--records", str(tmp_path)])
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(ValueError, match="record.json is no record"):
        study.main(["--records", str(tmp_path)])
