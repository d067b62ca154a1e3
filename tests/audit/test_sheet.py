import csv
import html
import re

import numpy as np
import PIL.Image
import pytest

from hf_noise.audit.sampling import draw_sample
from hf_noise.audit.sheet import fingerprint, read_sheet, write_sheet

NAMES = ["cat", "dog & <b>wolf</b>", 'a "fox", red']
GIVEN = np.arange(30) % 3
SAMPLE = draw_sample(np.linspace(0, 1, 30), 6, given=GIVEN, seed=1)
AUDIT = fingerprint(SAMPLE, GIVEN, NAMES)
TEXTS = ["<script>alert(1)</script>", "=1+1", "שלום", "a\nb", "x" * 9000, "\ud800 & ' \" \0"]


def write(folder, **more):
    return write_sheet(folder, SAMPLE, given=GIVEN, suggested=(GIVEN + 1) % 3, class_names=NAMES, **more)


def read(path, sample=SAMPLE, given=GIVEN, names=NAMES):
    return read_sheet(path, sample, given=given, class_names=names)


def filled(folder, rows, columns=("row", "true_label", "audit"), delimiter=",", encoding="utf-8"):
    path = folder / "filled.csv"
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_is_written_and_filled_in_is_read_back(tmp_path, delimiter, encoding):
    path, _ = write(tmp_path, texts=TEXTS, blind=False)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == SAMPLE.rows.tolist() and {row["audit"] for row in rows} == {AUDIT}
    assert [row["given_label"] for row in rows] == [NAMES[GIVEN[row]] for row in SAMPLE.rows]
    assert rows[1]["text"] == "'=1+1", "a spreadsheet runs no cell"
    answers = ["cat", "", "Unsure", ' a "fox",  red ', NAMES[1], "cat"]
    lines = [row | {"true_label": answer} for row, answer in zip(rows, answers)]
    back = filled(tmp_path, [list(line.values()) for line in lines[::-1]], list(rows[0]), delimiter, encoding)
    assert read(back).tolist() == [0, -1, -1, 2, 1, 0]


def test_a_blind_sheet_names_no_label_that_could_sway_a_person(tmp_path):
    path, page = write(tmp_path, texts=TEXTS)
    assert path.read_text(encoding="utf-8").splitlines()[0] == "row,true_label,audit,text"
    seen, told = (re.sub(r"<script>.*</script>", "", one.read_text(encoding="utf-8"), flags=re.DOTALL) for one in (
        page, write(tmp_path / "seen", texts=TEXTS, blind=False)[1]))  # fmt: skip
    assert seen.count('<dl class="later">') == len(SAMPLE) and "li:not(.done) .later { display: none; }" in seen
    assert "given is right" not in seen and "so that it does not sway you" in seen
    assert "given is right" in told and 'class="later"' not in told and "sway" not in told
    for one in (seen, told):
        assert "put it into the folder that this page lies in" in one
    many = [str(i) for i in range(13)]
    page = write_sheet(tmp_path, SAMPLE, given=GIVEN, suggested=GIVEN, class_names=many)[1].read_text(encoding="utf-8")
    assert page.count("<button") == 1 + len(SAMPLE) and " hidden>" not in page, "a list of many classes"


def test_rows_that_are_not_there_are_open_and_equal_ones_count_once(tmp_path):
    row = SAMPLE.rows[2]
    found = read(filled(tmp_path, [[row, "cat", AUDIT], [], [row, "cat", AUDIT], [row, "unsure", AUDIT]]))
    assert found.tolist() == [-1, -1, 0, -1, -1, -1]


OUTSIDE = int(np.setdiff1d(np.arange(30), SAMPLE.rows)[0])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[OUTSIDE, "cat", AUDIT]], f"line 2: row '{OUTSIDE}' is not in the sample of 6 rows"),
        ([["x", "cat", AUDIT]], "row 'x' is not in the sample"),
        ([["9" * 40, "cat", AUDIT]], "is not in the sample"),
        ([["-1", "cat", AUDIT]], "row '-1' is not in the sample"),
        ([[SAMPLE.rows[0], "cat", AUDIT], [SAMPLE.rows[0], NAMES[1], AUDIT]], "lines 2 and 3: row .* is 'cat' and"),
        ([[SAMPLE.rows[0], "cow", AUDIT]], "unknown class 'cow'; classes are 'cat', "),
        ([[SAMPLE.rows[0], "", AUDIT], [SAMPLE.rows[1], "unsure", AUDIT]], "nothing is filled in"),
        ([], "nothing is filled in"),
        ([[SAMPLE.rows[0], "cat", "0" * 16]], "of the audit '0000000000000000', and this one is"),
        ([[SAMPLE.rows[0], "cat"]], "of the audit ''"),
        ([[SAMPLE.rows[0], "cat", AUDIT, "more"]], "4 fields for 3 columns"),
    ],
)
def test_what_is_filled_in_wrongly_is_refused(tmp_path, rows, words):
    with pytest.raises(ValueError, match=words):
        read(filled(tmp_path, rows))


@pytest.mark.parametrize(
    "content", [b"", b"row,audit\n1,2\n", b"row,row,true_label,audit\n", b"PK\3\4\xff\xfe\0", b'row,"a\n']
)
def test_what_is_no_sheet_is_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match="a.csv"):
        read(tmp_path / "a.csv")


def test_paths_that_are_no_files(tmp_path):
    for path, error in ((tmp_path, FileNotFoundError), (tmp_path / "none.csv", FileNotFoundError), (3, TypeError)):
        with pytest.raises(error, match="path"):
            read(path)


def test_another_audit_has_another_fingerprint():
    others = [
        fingerprint(draw_sample(np.linspace(0, 1, 30), 6, given=GIVEN, seed=2), GIVEN, NAMES),
        fingerprint(SAMPLE, (GIVEN + 1) % 3, NAMES), fingerprint(SAMPLE, GIVEN, [*NAMES[:2], "hen"]),
    ]  # fmt: skip
    assert len({AUDIT, *others}) == 4 and re.fullmatch("audit-[0-9a-f]{16}", AUDIT)


def test_the_page_needs_nothing_and_runs_no_data(tmp_path):
    images = [np.full((9, 7), 40 * i, np.uint8) for i in range(5)] + [PIL.Image.new("RGB", (900, 500), "red")]
    _, path = write(tmp_path, texts=TEXTS, images=images, title="</title><script>1</script>")
    page = path.read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 1, "ours alone"
    assert not re.search(r"(src|href)=\"(?!data:image/)", page) and "http://" not in page and "https://" not in page
    assert page.count("data:image/png;base64,") == 5 and page.count("data:image/jpeg;base64,") == 1
    for text in (*NAMES, "<script>alert(1)</script>"):
        assert html.escape(text, quote=False) in page.replace("&#34;", '"').replace("&#39;", "'")
    assert "x" * 4000 in page and "x" * 4001 not in page and "default-src 'none'" in page


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"class_names": ["a", "a", "b"]}, ValueError, "class_names must differ, got 'a' twice"),
        ({"class_names": ["a", "b", "Unsure"]}, ValueError, "class_names must not hold 'unsure'"),
        ({"class_names": ["a", " ", "b"]}, ValueError, "class_names must be 2 texts or more, none of them empty"),
        ({"class_names": "abc"}, TypeError, "class_names must be a sequence of str"),
        ({"class_names": ["a", "b"]}, ValueError, r"given lie outside \[0, 2\)"),
        ({"given": [0, 1]}, ValueError, r"given must be \[30\]"),
        ({"texts": ["a"]}, ValueError, "texts must be as many as the 6 rows"),
        ({"texts": [1] * 6}, TypeError, "texts must all be str"),
        ({"images": [np.zeros((2, 2))] * 6}, ValueError, r"images\[0\] must be uint8"),
        ({"images": ["a.png"] * 6}, TypeError, r"images\[0\] must be a PIL image or an array"),
        ({"title": 3}, TypeError, "title must be a text"), ({"blind": 3}, TypeError, "blind"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, changed, error, words):
    arguments = {"given": GIVEN, "suggested": GIVEN, "class_names": NAMES} | changed
    with pytest.raises(error, match=words):
        write_sheet(tmp_path, SAMPLE, **arguments)
    assert not list(tmp_path.iterdir())


#: Clicks "given is right", "suggested is right", "unsure" and chooses a class; then puts what would be saved in a
#: <pre>.
CLICKS = """<script>
for (const [item, button] of [[0, 0], [1, 1], [2, 2]]) items[item].querySelectorAll("button")[button].click();
const chosen = items[3].querySelector("select");
chosen.value = chosen.options[2].value;
chosen.dispatchEvent(new Event("change"));
items[4].querySelectorAll("button")[0].click();
items[4].querySelectorAll("button")[0].click();  // taken back
const wide = document.createElement("pre");
wide.id = "wide";
wide.textContent = document.documentElement.scrollWidth <= document.documentElement.clientWidth;
document.body.append(wide);
const shown = document.createElement("pre");
shown.id = "shown";
shown.textContent = items.map(item => item.querySelector("dl").offsetHeight > 0).join(",");
document.body.append(shown);
const saved = document.createElement("pre");
saved.id = "saved";
saved.textContent = csv() + "|" + document.getElementById("count").textContent;
document.body.append(saved);
</script></body>"""


@pytest.mark.parametrize(("width", "blind"), [(400, False), (1200, True)])
def test_the_page_in_a_browser_saves_what_was_clicked(browsed, tmp_path, width, blind):
    _, path = write(tmp_path, texts=TEXTS, blind=blind)
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", CLICKS), encoding="utf-8")
    page = browsed(path, width)
    saved, count = html.unescape(re.search('<pre id="saved">(.*?)</pre>', page, re.DOTALL)[1]).split("|")
    assert count == "4 of 6" and re.search('<pre id="wide">true</pre>', page), "nothing sticks out"
    (tmp_path / "saved.csv").write_text(saved, encoding="utf-8", newline="")
    # A blind page has a button for each class and one for "unsure".
    first = [0, 1, 2] if blind else [GIVEN[SAMPLE.rows[0]], (GIVEN[SAMPLE.rows[1]] + 1) % 3, -1]
    assert read(tmp_path / "saved.csv").tolist() == [*first, 1, -1, -1]
    shown = [word == "true" for word in re.search('<pre id="shown">(.*?)</pre>', page)[1].split(",")]
    assert shown == ([True] * 4 + [False] * 2 if blind else [True] * 6), "labels are told once a row was answered"
