"""The report of all records: what noise costs each family, pages whose figures name their records, tables of README."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from stored_records import copied, more_seeds, records_of, told_of, value, write_records

from hf_noise.reports.paper import paper_table_ids, published
from hf_noise.studies.report import marks, study
from hf_noise.studies.report.curves import curves
from hf_noise.studies.report.efforts import explained
from hf_noise.studies.report.picture import digest
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.report.tables import families_table, recipes_table

ROOT = Path(__file__).parents[2]

@pytest.fixture(scope="module")
def some(tmp_path_factory):
    return copied(tmp_path_factory.mktemp("records"))


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


def test_records_of_one_name_are_told_apart(some):
    places = [place for place, _ in Stored.read(some).told]
    assert len(set(places)) == len(places) and any("(line" in place for place in places)


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
def test_figures_stand_on_the_page_as_in_their_records(report, place, metric, times, shown):
    page = (report / "report.html").read_text()
    figures = re.findall(rf'title="{re.escape(place)}">([^<]*)<', page)
    assert shown.format(times * value(told_of(), place, metric)) in figures


def test_the_page_needs_nothing_from_outside(report):
    page = (report / "report.html").read_text()
    assert not re.search(r"<script|<link|https?://(?!www\.w3\.org)|@import|url\(", page)
    assert page.count("data:image/png;base64,") == 1, "the figure of the one study that has drawn one"
    ids, targets = set(re.findall(r' id="([^"]+)"', page)), set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= ids and len(targets) > 20
    assert "prefers-color-scheme: dark" in page


def test_links_lead_to_the_study_that_they_name(tmp_path):
    for name in ("a/b", "a-b", "a b"):
        more_seeds(tmp_path / name, "edm-demo", lambda run: [0])
        (tmp_path / name / "edm-demo").rename(tmp_path / name / "c")
    study.main(["--records", str(tmp_path), "--output", str(tmp_path / "made")])
    page = (tmp_path / "made" / "report.html").read_text()
    ids = re.findall(r'class="here" id="(runs-[^"]+)"', page)
    assert len(ids) == 3 == len({*ids}) and not any(" " in one for one in ids)
    assert {*re.findall(r'<a href="#(runs-[^"]+)"', page)} <= {*ids}


def test_what_a_record_says_breaks_no_page(tmp_path):
    bad = "a | b\n| c <script>alert(1)</script>"
    lines = records_of("edm-demo")
    write_records(tmp_path / "edm", [one | {"recipe": bad, "name": f"{one['name']}-<script>|"} for one in lines])
    study.main(["--records", str(tmp_path), "--output", str(tmp_path / "made")])
    text, page = ((tmp_path / "made" / name).read_text() for name in ("report.md", "report.html"))
    assert "<script" not in text and "<script" not in page and "&lt;script&gt;" in text
    head, rule, *rows = text.partition("## Runs")[2].strip().splitlines()
    assert len(rows) == 1, "a line for the one study"
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in (head, rule, *rows)}) == 1


def test_the_same_records_make_the_same_report(repository):
    made = []
    for name in ("one", "other"):
        study.main(["--records", str(repository / marks.RESULTS), "--output", str(repository / name)])
        made.append([(repository / name / file).read_bytes() for file in ("report.html", "report.md")])
    assert made[0] == made[1]


def test_what_runs_were_trained_on_is_told_beside_the_picture(report, some):
    says = " ".join(explained(curves(Stored.read(some), "demo")))
    assert says in (report / "report.md").read_text()
    assert says in html.unescape((report / "report.html").read_text())


def test_the_markdown_names_claims_and_records(report):
    text = (report / "report.md").read_text()
    assert "A.table11.c1: held" in text and "edm-demo/r1-symmetric-tdsm-seed0" in text
    assert (report / "overview.png").is_file() and "(overview.png)" in text
    assert "](benchmarks" not in text, "the records lie elsewhere"


def test_every_measured_table_has_a_recipe():
    table = recipes_table(ROOT / "recipes")
    named = {name for line in table.splitlines()[2:] for name in line.strip("| ").split(" | ")[-1].split(", ")} - {"-"}
    assert named == {name for name in paper_table_ids() if published(name).runs}
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
    table = families_table(curves(Stored.read(repository / marks.RESULTS), "demo"), marks.RESULTS)
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
        assert image.info["Description"] == digest(curves(Stored.read(repository / marks.RESULTS), "demo"))


#: Opens all that is folded, then tells what sticks out of the page.
OPENED = """
const page = document.documentElement, folded = [...document.querySelectorAll("details")];
for (const one of folded) one.open = true;
const out = [...document.querySelectorAll("main *")].filter(one => !one.closest(".scroll, svg") &&
  one.getBoundingClientRect().right > page.clientWidth + 1);
const marks = document.querySelectorAll(".chart svg svg title").length;
parent.told.push([innerWidth, page.scrollWidth <= page.clientWidth, out.length, folded.length > 40, marks].join());
"""


def test_the_page_in_a_browser_fits_a_phone_with_all_of_it_open(told_at_widths, report, some):
    page = (report / "report.html").read_text().replace("style-src", "script-src 'unsafe-inline'; style-src")
    told = told_at_widths(page, OPENED)
    lines = curves(Stored.read(some), "demo")
    marks_drawn = sum(len(one.plain) + len(one.cured) + bool(one.of_paper()) for one in lines)
    assert told == [[width, "true", "0", "true", str(marks_drawn)] for width in ("1280", "390")]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--check"], "--check looks at what --readme would write"),
        (["--readme", "--", "--source", "own.txt"], "-- --source own.txt: the tables of --readme are of the demos"),
        (["--", "--siez", "2"], "-- --siez: no study of these tables has such a flag (backbones, "),
        (["--", "--scale", "gpu"], "-- --scale: give --scale before --"),
        (["--", "--output=mine"], "-- --output: give --records before --"),
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
