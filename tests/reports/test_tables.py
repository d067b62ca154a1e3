"""Markdown tables that also read well in a terminal."""

import pytest

from hf_noise.reports.tables import figure, markdown_table


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
    assert figure(1.23456) == "1.235"
    assert figure(-0.5, 1) == "-0.5"
    assert figure(0.0) == "0.000"
    assert figure(None) == "-"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a row has 1 cells, the header 2"):
        markdown_table(["a", "b"], [["1"]])
