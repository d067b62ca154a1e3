"""The papers' figures, as printed there."""

import pytest

from hf_noise.reports.paper import paper_table, paper_table_ids


def test_table_8_of_paper_a():
    table = paper_table("A.table8")
    assert {r: row["train_nll"] for r, row in table.items()} == {
        0: 2.7369, 0.1: 3.8744, 0.3: 5.3622, 0.5: 6.2423, 1.0: 7.6048,
    }  # fmt: skip
    assert {r: row["validation_nll"] for r, row in table.items()} == {
        0: 2.8650, 0.1: 2.9758, 0.3: 3.1646, 0.5: 3.3455, 1.0: 3.6525,
    }  # fmt: skip
    # The abstract calls the last one 27.49% above the first.
    assert table[1.0]["validation_nll"] / table[0]["validation_nll"] - 1 == pytest.approx(0.2749, abs=5e-5)


def test_values_of_figure_1_that_the_abstract_states():
    assert paper_table("A.figure1") == {0: {"validation_nll": 2.87}, 1.0: {"validation_nll": 3.59}}


def test_a_table_can_be_changed_without_changing_the_next_reading():
    paper_table("A.table8").clear()
    assert len(paper_table("A.table8")) == 5


def test_every_table_can_be_read():
    assert {"A.figure1", "A.table8"} <= set(paper_table_ids())
    for name in paper_table_ids():
        assert all(isinstance(value, int | float) for row in paper_table(name).values() for value in row.values())


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="unknown table 'B.table99'; there are: A.figure1, A.table1, A.table10, "):
        paper_table("B.table99")
