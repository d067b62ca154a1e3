"""Markdown tables that also read well in a terminal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.reports.tables import WIDEST, Column, Table, fixed, markdown_table, percent, shown_table


def test_columns_are_aligned():
    assert markdown_table(["run", "NLL"], [["a long name", "1.5"], ["b", "10.25"]]) == (
        "| run         |   NLL |\n"
        "| ----------- | ----: |\n"
        "| a long name |   1.5 |\n"
        "| b           | 10.25 |"
    )  # fmt: skip


def test_a_table_without_rows_and_with_narrow_columns():
    assert markdown_table(["a", "b"], []) == "| a  |  b |\n| -- | -: |"


def test_figures_have_fixed_digits_and_a_dash_for_none():
    assert fixed(1.23456) == "1.235"
    assert fixed(-0.5, 1) == "-0.5"
    assert fixed(0.0) == "0.000"
    assert fixed(None) == "-"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a row has 1 cells, the header 2"):
        markdown_table(["a", "b"], [["1"]])


def test_a_cell_cannot_break_the_table():
    table = markdown_table(["run", "value"], [["a | b", "1"], ["two\nlines", "2"]])
    assert table.splitlines()[2:] == ["| a \\| b    |     1 |", "| two lines |     2 |"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fixed("1"), "value must be a real number or None, got '1'"), (lambda: fixed(True), "value must be"),
        (lambda: fixed(1j), "value must be"), (lambda: fixed(10**400), "a float can hold"),
        (lambda: fixed(1.0, 2**31), r"digits must be an integer in \[0, 17\]"), (lambda: fixed(1.0, 1.5), "digits"),
        (lambda: percent(94.1), r"share must lie in \[0, 1\], got 94.1; it is no percentage"),
        (lambda: percent("0.5"), "share must be"), (lambda: markdown_table([], []), "one column at least"),
        (lambda: markdown_table(["a"], [[1]]), "a cell of header or rows must be a text, got 1"),
        (lambda: markdown_table("ab", []), "must be sequences of texts"),
        (lambda: markdown_table(["a"], None), "sequences"),
    ],
)  # fmt: skip
def test_what_is_no_figure_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
    assert percent(0.5) == "50.0" and percent(None) == "-" and percent(float("nan")) == "nan"


NAMES = ("run", "e", "wrong labels", "epochs", "test accuracy, %", "its 95% interval", "paper: accuracy, %")
PRIORITIES, SHORT = (0, 0, 2, 3, 0, 1, 3), ("", "", "wrong", "", "accuracy, %", "95%", "paper, %")
WIDE = Table(
    [Column(*column) for column in zip(NAMES, PRIORITIES, SHORT)],
    [["resnet10-r1-corrected-s0", "0.500", "0.499", "40.0", "99.7", "98.4 to 99.9", "98.21"],
     ["clean", "0.000", "0.000", "40.0", "100.0", "99.0 to 100.0", "-"]],
)  # fmt: skip


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (200, list(NAMES)), (119, list(NAMES)),
        (118, ["run", "e", "wrong", "epochs", "accuracy, %", "95%", "paper, %"]),
        (94, ["run", "e", "wrong", "epochs", "accuracy, %", "95%", "paper, %"]),
        (93, ["run", "e", "wrong", "epochs", "accuracy, %", "95%"]), (80, ["run", "e", "wrong", "accuracy, %", "95%"]),
        (70, ["run", "e", "accuracy, %", "95%"]), (55, ["run", "e", "accuracy, %"]), (1, ["run", "e", "accuracy, %"]),
    ],
)  # fmt: skip
def test_a_narrow_table_keeps_what_matters_most(width, headings):
    fitted = WIDE.fitted(width)
    assert [column.heading for column in fitted.columns] == headings
    assert width == 1 or max(map(len, fitted.markdown().splitlines())) <= width


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 150),
    st.lists(st.tuples(st.text(min_size=1, max_size=20), st.integers(0, 3)), min_size=1, max_size=8),
)
def test_no_figure_is_cut_and_no_more_is_left_out_than_must_be(width, columns):
    table = Table([Column(*column) for column in columns], [[f"{i}.2345" for i in range(len(columns))]])
    fitted = table.fitted(width)
    assert set(fitted.rows[0]) <= set(table.rows[0]) and list(fitted.rows[0]) == sorted(fitted.rows[0])
    left_out = set(range(len(columns))) - {int(cell[0]) for cell in fitted.rows[0]}
    assert all(columns[i][1] for i in left_out)
    kept = [columns[int(cell[0])][1] for cell in fitted.rows[0]]
    assert not left_out or min(columns[i][1] for i in left_out) >= max(kept)
    assert len(fitted.markdown().splitlines()[0]) <= width or not any(kept) or len(kept) == 1


def test_the_width_is_the_terminals_but_not_more_than_a_page(monkeypatch):
    for columns, most in (("60", 60), ("400", WIDEST)):
        monkeypatch.setenv("COLUMNS", columns)
        assert len(WIDE.fitted().markdown().splitlines()[0]) <= most
        assert WIDE.fitted() == WIDE.fitted(most)


def test_the_whole_table_goes_to_a_file(tmp_path):
    path = tmp_path / "study.md"
    shown = shown_table(WIDE, path, width=70)
    assert path.read_text() == WIDE.markdown() + "\n"
    assert shown == f"{WIDE.fitted(70).markdown()}\n3 more columns in {path}"
    assert shown_table(WIDE, path, width=200) == WIDE.markdown()


def test_columns_without_a_figure_are_left_out():
    table = Table([Column("run"), Column("paper"), Column("NLL")], [["a", "-", "1"], ["b", "-", "-"]])
    assert [column.heading for column in table.measured().columns] == ["run", "NLL"]
    assert Table(table.columns, []).measured().markdown() == Table(table.columns, []).markdown()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WIDE.fitted(0), "width must be an integer >= 1, got 0"), (lambda: WIDE.fitted(True), "width must be"),
        (lambda: Column("a", -1), "priority of the column 'a' must be an integer >= 0, got -1"),
        (lambda: Column("a", 0.5), "priority"), (lambda: Column(5), "must be a text, got 5"),
        (lambda: Table([Column("a")], [["1", "2"]]), "a row has 2 cells, the header 1"),
        (lambda: Table([], []), "one column at least"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
