"""The page of an audit: its figures are the audit's, users' data stay data, and it can be read anywhere."""

import csv
import html
import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from hf_noise import __version__
from hf_noise.audit import audit_labels, write_page
from hf_noise.audit.measured import Measured
from hf_noise.audit.page_parts import answer, cell, histogram, percent, probability

_SPEC = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("pages.py"))
pages = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(pages)
noise, page_of, words, rows_in = pages.noise, pages.page_of, pages.words, pages.rows_in
NAMES, LABELS, CLEAN, P = pages.NAMES, pages.LABELS, pages.CLEAN, pages.P
AUDIT, PLAIN, FULL, ORDER, ATTACK = pages.AUDIT, pages.PLAIN, pages.FULL, pages.ORDER, pages.ATTACK


class Read:
    """A column that knows which of its rows were asked for, as one that decodes them would."""

    def __init__(self, values):
        self.values, self.rows = values, []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, row):
        self.rows.append(row)
        return self.values[row]


def test_the_answer_comes_first_and_is_the_audits(tmp_path):
    audit = replace(AUDIT, error_rate=Measured(0.2034, 0.151, 0.262, AUDIT.error_rate.how, 0.9))
    said = words(page_of(tmp_path, audit, source="my.csv"))
    assert "Label audit of 600 rows in 4 classes, from my.csv" in said
    begin = said.index("How many labels are wrong?")
    assert said[begin:].startswith(
        "How many labels are wrong? 20.3 % of the labels are wrong 90 % interval [15.1, 26.2]: about 122 of 600 rows, "
        "91 at least and 157 at most."
    )
    assert AUDIT.estimate.chosen.assumption in said
    assert f"hf_noise {__version__}, seed 7." in said
    said = said[begin:]
    assert said.index("What is taken for what") < said.index("Rows to look at") < said.index("What to do next")


@pytest.mark.parametrize(
    ("ends", "kind", "said"),
    [
        ((0.2, 0.1, 0.3), "value", "20.0 % of the labels are wrong"),
        ((0.2, 0.1, 0.31), "range", "10.0 to 31.0 % of the labels are wrong The best single guess is 20.0 %"),
        ((0.01, 0.0, 0.049), "value", "1.0 % of the labels are wrong"),
        ((0.0068, 0.0, 0.192), "range", "0 to 19.2 % of the labels are wrong The best single guess is 0.68 %"),
        ((0.3, 0.0, 1.0), "nothing", "These labels and this classifier do not tell."),
    ],
)
def test_a_rate_that_is_not_known_is_not_the_headline(tmp_path, ends, kind, said):
    audit = replace(AUDIT, error_rate=Measured(*ends, "how"))
    assert answer(audit)["kind"] == kind and said in words(page_of(tmp_path, audit, rows=0))


def test_bars_are_drawn_where_the_figures_are():
    bar = answer(replace(AUDIT, error_rate=Measured(0.2, 0.1, 0.3, "how")))["bar"]
    assert (bar["left"], bar["at"], bar["width"]) == (25, 50, 50) and bar["ticks"][-1] == {"at": 100, "text": "40"}


def test_warnings_are_told_once(tmp_path):
    how = f"{AUDIT.error_rate.how}; mind the <gap>"
    audit = replace(AUDIT, warnings=("mind the <gap>",), error_rate=replace(AUDIT.error_rate, how=how))
    assert page_of(tmp_path, audit).lower().count("mind the &lt;gap&gt;.") == 1
    assert "Before you rely on this" not in page_of(tmp_path, replace(AUDIT, warnings=()))


def test_rows_are_the_default_list_the_likeliest_wrong_first(tmp_path):
    texts = Read([f"text {i}." for i in range(600)])
    page = page_of(tmp_path, texts=texts, rows=25)
    assert rows_in(page) == ORDER[:25].tolist() == texts.rows, "no other row is read"
    said = words(page)
    assert f"The first 25 of {len(ORDER)} listed rows" in said
    for row in ORDER[:25]:
        assert f"text {row}." in said
    page = html.unescape(page)
    shown = re.findall(r'<li data-given="(\d)" data-suggested="(\d)">.*?>p ([=>] [0-9.]+)<', page, re.DOTALL)
    expected = zip(AUDIT.labels[ORDER], AUDIT.suggested[ORDER], map(probability, AUDIT.p_wrong[ORDER[:25]]))
    assert shown == [(str(given), str(suggested), p) for given, suggested, p in expected]


def test_a_column_of_pandas_is_read_by_place(tmp_path):
    import pandas

    texts, images = [f"text {i}." for i in range(600)], [np.full((4, 4), i % 256, np.uint8) for i in range(600)]
    shuffled = np.random.default_rng(0).permutation(600)
    made = page_of(tmp_path, texts=pandas.Series(texts, shuffled), images=pandas.Series(images, shuffled), rows=25)
    assert made == page_of(tmp_path, texts=texts, images=images, rows=25)


def test_all_rows_some_and_none(tmp_path):
    assert rows_in(page_of(tmp_path, rows=1 << 14)) == ORDER.tolist()
    none = page_of(tmp_path, rows=0)
    assert not rows_in(none) and f"None of the {len(ORDER)} listed rows is shown here." in words(none)
    sure = replace(AUDIT, p_wrong=np.zeros(600))
    assert "No row is likely enough wrong to be listed." in words(page_of(tmp_path, sure, clean=CLEAN))


def test_figures_of_classes_and_pairs_are_the_audits(tmp_path):
    page = page_of(tmp_path)
    titles = [html.unescape(title) for title in re.findall(r'<td class="[a-z ]*" style="[^"]*" title="([^"]*)"', page)]
    seen = [*NAMES[:3], "? שלום"]
    assert titles == [
        f"{seen[i]} labelled {seen[j]}: {percent(AUDIT.transition[i, j])}% "
        f"[{percent(AUDIT.transition_low[i, j])}, {percent(AUDIT.transition_high[i, j])}]"
        for i in range(4) for j in range(4)
    ]  # fmt: skip
    said = words(page)
    for i, name in enumerate(seen):
        ours = AUDIT.labels == i
        wrong, listed = AUDIT.p_wrong[ours].mean(), AUDIT.flagged()[ours].sum()
        line = f"{name} {ours.sum()} {percent(wrong)} % {listed} {round(600 * AUDIT.prior[i])} "
        assert line in said
    wrong = AUDIT.transition * AUDIT.prior[:, None] * (1 - np.eye(4))
    i, j = np.unravel_index(wrong.argmax(), (4, 4))
    first = said[said.index("The largest confusions") :]
    first = first[first.index(" about ") + len(" about ") :].strip()
    assert first.startswith(f"{seen[i]} {seen[j]} {percent(AUDIT.transition[i, j])} %")
    assert f"{round(600 * wrong[i, j])} rows" in first[:80]


def test_many_classes_have_no_table_of_pairs(tmp_path):
    labels, _, p = noise.drawn(800, 13)
    page = page_of(tmp_path, audit_labels(labels, probabilities=p), rows=0)
    assert 'class="heat' not in page and "The largest confusions" in page


def test_the_histogram_holds_every_row_and_its_line_divides_the_list():
    listed = AUDIT.flagged()
    made = histogram(AUDIT.p_wrong, listed)
    assert made["threshold"] == AUDIT.p_wrong[listed].min() > AUDIT.p_wrong[~listed].max()
    counted = {bar["of"]: bar["rows"] for bar in made["bars"]}
    assert sum(counted.values()) == 600 == sum(made["quarters"])
    for bar in made["bars"]:
        middle = bar["x"] + bar["width"] / 2
        assert bar["is_listed"] == (middle > 100 * made["threshold"]) and 0 < bar["height"] <= 100
        assert bar["x"] >= 0 and bar["x"] + bar["width"] <= 100
    none = histogram(np.zeros(5), np.zeros(5, bool))
    assert none["threshold"] is None and [bar["rows"] for bar in none["bars"]] == [5]
    every = histogram(np.ones(5), np.ones(5, bool))
    assert every["threshold"] == 1 and [bar["is_listed"] for bar in every["bars"]] == [True]


def test_estimators_stand_side_by_side(tmp_path):
    said = words(page_of(tmp_path, rows=0))
    said = said[said.index("How it was estimated") :]
    for one in (AUDIT.estimate.chosen, *AUDIT.estimate.others):
        assert f"{one.method} {percent(one.error_rate)} %" in said and one.assumption in said


def test_known_labels_say_how_right_it_is(tmp_path):
    page = page_of(tmp_path, clean=CLEAN)
    said, is_wrong, listed = words(page), CLEAN != LABELS, AUDIT.flagged()
    hits = int((is_wrong & listed).sum())
    assert f"Of the {listed.sum()} listed rows {hits} ({percent(hits / listed.sum())} %) are truly wrong" in said
    assert f"of the {is_wrong.sum()} wrong labels the list holds {percent(hits / is_wrong.sum())} %" in said
    assert f"{percent(is_wrong.mean())} % of the given ones are wrong ({is_wrong.sum()} rows), which" in said
    marks = re.findall(r'<li [^>]*class="is-(wrong|right)"', page)
    assert marks == ["wrong" if is_wrong[row] else "right" for row in ORDER[:200]]
    for rate, word in ((is_wrong.mean(), "holds"), (1.0, "misses")):
        audit = replace(AUDIT, error_rate=Measured(rate, rate, rate, "how"))
        assert f"which the interval {word}." in words(page_of(tmp_path, audit, clean=CLEAN))
    assert "truly wrong" not in page_of(tmp_path)


def test_verified_rows_are_told(tmp_path):
    page = PLAIN.to_verify(60, tmp_path)
    path = page.with_suffix(".csv")
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(line | {"true_label": str(CLEAN[int(line["row"])])} for line in lines)
    verified = PLAIN.verified(path)
    said = words(page_of(tmp_path, verified, rows=0))
    assert "It stands on this: the filled labels are true." in said and "60 rows are verified." in said
    assert f"verified rows {percent(verified.error_rate.value)} %" in said
    page = page_of(tmp_path, verified, rows=1 << 14)
    listed, known = verified.flagged(), np.isin(np.arange(600), verified.verified_by.rows)
    assert sorted(rows_in(page)) == np.flatnonzero(listed & ~known).tolist() and (listed & known).any()
    seen, left = int((listed & known).sum()), int((listed & ~known).sum())
    told = words(page)
    assert f"All {left} listed rows that nobody has looked at, the likeliest wrong first. {seen} listed rows" in told
    assert "are invisible to it" not in said[: said.index("How it was estimated", 200)]
    assert "Verify 200 rows." in words(page_of(tmp_path, rows=0))


def test_nothing_of_the_users_runs_and_nothing_comes_from_outside(tmp_path):
    texts, images = [ATTACK] * 600, [np.zeros((4, 4), np.uint8)] * 600
    plan = [{"name": ATTACK, "does": ATTACK, "how": ATTACK}]
    page = page_of(tmp_path, title=ATTACK, source=ATTACK, texts=texts, images=images, plan=plan, clean=CLEAN)
    assert page.count("<script") == page.count("</script>") == 1 and page.count("</title>") == 1 + page.count("<rect")
    assert "<b>wolf" not in page and "default-src 'none'" in page
    assert words(page).count(ATTACK) == len(ORDER) + 6, "shown as it is: title, source, plan (four times), rows"
    links = re.findall(r"""(?:src|href|action|srcset)\s*=\s*["']?([^"'> ]*)""", page)
    assert set(links) - {link for link in links if link.startswith("data:image/")} <= {
        "#confusions", "#classes", "#rows", "#next", "#how"}  # fmt: skip
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<iframe|<object|fetch\(|XMLHttp|innerHTML", page)


def test_the_page_is_well_formed_for_those_who_listen_to_it(tmp_path):
    page = page_of(tmp_path, images=[np.zeros((4, 4), np.uint8)] * 600, clean=CLEAN, plan=[{"name": "a", "value": 1}])
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    assert '<html lang="en">' in page and all(' alt="row ' in tag for tag in re.findall("<img [^>]*>", page))
    assert all("scope=" in tag for tag in re.findall("<th[ >][^>]*>?", page))
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names)) and set(re.findall(r'(?:labelledby|describedby)="([^"]+)"', page)) <= {*names}
    for tag in ("section", "table", "tr", "td", "div", "span", "li", "ol", "ul", "p", "svg", "details", "main"):
        assert len(re.findall(f"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def test_texts_are_cut_and_may_be_missing(tmp_path):
    page = page_of(tmp_path, texts=["x" * 900] * 599 + [None])
    assert "x" * 400 + " …" in page and "x" * 401 not in page
    assert "(empty)" in page_of(tmp_path, texts=[None] * 600)


def test_pictures_are_small(tmp_path):
    draw = np.random.default_rng(0)
    large, small = (draw.integers(0, 256, shape, dtype=np.uint8) for shape in ((300, 200, 3), (40, 40, 4)))
    for image, kind in ((large, "jpeg"), (small, "png"), (PIL.Image.fromarray(small).resize((90, 90)), "jpeg")):
        page = page_of(tmp_path, FULL, images=[image] * 600)
        assert page.count(f"data:image/{kind};base64,") == 200 and len(page) < 2_000_000, "noise is the worst case"
    assert page_of(tmp_path, images=[None] * 600).count("no picture") == min(len(ORDER), 200)


def test_equal_audits_make_equal_bytes_and_a_failure_leaves_the_old_page(tmp_path):
    first = page_of(tmp_path / "new" / "folder")
    assert first == page_of(tmp_path), "the folder is made"
    with pytest.raises(ValueError, match=r"images\[\d+\] must be uint8"):
        page_of(tmp_path, images=[np.zeros((2, 2))] * 600)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["audit.html"]
    assert (tmp_path / "audit.html").read_text(encoding="utf-8") == first


def test_figures_have_the_digits_they_need():
    assert [percent(p) for p in (0, 0.00004, 0.0068, 0.01, 0.21, 0.9999, 1)] == [
        "0", "0.00", "0.68", "1.0", "21.0", "100.0", "100"]  # fmt: skip
    assert [cell(p) for p in (0, 0.0004, 0.002, 0.099, 0.0996, 1)] == ["0", "0", "0.2", "9.9", "10", "100"]
    assert [probability(p) for p in (0.5, 0.994, 0.9995, 1.0)] == ["= 0.50", "= 0.994", "> 0.999", "= 1"]


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"audit": "audit"}, TypeError, "audit must be a LabelAudit"),
        ({"title": None}, TypeError, "title must be a text"),
        ({"title": " "}, ValueError, "title must say what the page is about"),
        ({"source": 3}, TypeError, "source must be a text"),
        ({"texts": ["a"]}, ValueError, "texts must be as many as the audit's 600 rows, in their order, got 1"),
        ({"texts": "a" * 600}, TypeError, "texts must be a sequence"),
        ({"texts": iter("a")}, TypeError, "texts must be a sequence"),
        ({"texts": [3] * 600}, TypeError, r"texts\[\d+\] must be a str"),
        ({"images": [np.zeros((2, 2), np.uint8)]}, ValueError, "images must be as many as the audit's 600 rows"),
        ({"images": ["a.png"] * 600}, TypeError, r"images\[\d+\] must be a PIL image or an array"),
        ({"images": [np.zeros((0, 2), np.uint8)] * 600}, ValueError, r"images\[\d+\] has no pixel"),
        ({"images": memoryview(b"a" * 600)}, TypeError, "images must be a sequence"),
        ({"rows": -1}, ValueError, r"rows must lie in \[0, 2\^14\], got -1"),
        ({"rows": 1 << 15}, ValueError, r"rows must lie in \[0, 2\^14\]"),
        ({"rows": 2.0}, TypeError, "rows must be an integer"),
        ({"clean": [0, 1]}, ValueError, "clean must be the true labels of all 600 rows, got 2"),
        ({"clean": np.full(600, 4)}, ValueError, r"clean lie outside \[0, 4\)"),
        ({"plan": 3}, TypeError, "plan must be a list of options"),
        ({"plan": [{"value": 3}]}, TypeError, "an option of the plan must have a name"),
        ({"file": 3}, TypeError, "file must be a path"),
        ({"file": "."}, IsADirectoryError, "file '.' is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch, changed, error, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said):
        write_page(**{"file": "audit.html", "audit": AUDIT, "title": "Mine"} | changed)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OSError, match="taken"):
        page_of(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"
