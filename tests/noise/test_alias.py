import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise import alias
from hf_noise.noise.alias import ALIAS_BITS, alias_table, integer_weights

CELL = 1 << 32


def weights_of(table):
    """What a table draws, counted cell by cell: integers that sum to C * 2^32 in each row."""
    weights = np.zeros_like(table)
    for row, cells in enumerate(table):
        for column, cell in enumerate(cells):
            weights[row, column] += cell >> ALIAS_BITS
            weights[row, cell & (1 << ALIAS_BITS) - 1] += CELL - (cell >> ALIAS_BITS)
    return weights


def check(matrix):
    table, weights = alias_table(matrix), integer_weights(matrix)
    assert table.dtype == np.int64 and table.shape == matrix.shape
    threshold = table >> ALIAS_BITS
    assert threshold.min() >= 0 and threshold.max() <= CELL
    np.testing.assert_array_equal(weights_of(table), weights)
    assert (weights.sum(axis=1) == matrix.shape[1] * CELL).all()
    assert (weights[matrix == 0] == 0).all()
    # Rounding: half a unit for each entry, and what is left over for the largest.
    assert np.abs(weights / (matrix.shape[1] * CELL) - matrix).max() <= 2**-32


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.sampled_from([0.01, 0.3, 1.0, 100.0]), st.integers(0, 10**6))
def test_a_table_draws_its_matrix_exactly(n, rows, concentration, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.gamma(concentration, size=(rows, n)) * (rng.random((rows, n)) < 0.7)
    matrix[np.arange(rows), rng.integers(n, size=rows)] += 0.1
    check(matrix / matrix.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(5),
        np.full((4, 4), 0.25),
        np.eye(6)[[1, 2, 3, 4, 5, 0]],
        np.array([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [1e-12, 1 - 1e-12, 0, 0], [0.3, 0.3, 0.3, 0.1]]),
    ],
    ids=["identity", "uniform", "permutation", "mixed"],
)
def test_edges(matrix):
    check(matrix)


def test_a_thousand_classes():
    matrix = np.random.default_rng(0).dirichlet(np.full(1000, 0.1), size=1000)
    table, weights = alias_table(matrix), integer_weights(matrix)
    got = table >> ALIAS_BITS
    rows = np.repeat(np.arange(1000), 1000)
    np.add.at(got, (rows, (table & (1 << ALIAS_BITS) - 1).ravel()), CELL - (table >> ALIAS_BITS).ravel())
    np.testing.assert_array_equal(got, weights)


def test_draw_reads_cell_and_threshold():
    # Row 0 has cells of 3/4 and 1/4: class 0 fills its own cell and half of the other one.
    table = alias_table(np.array([[0.75, 0.25], [0.0, 1.0]]))
    assert table.tolist() == [[CELL << ALIAS_BITS, CELL // 2 << ALIAS_BITS], [1, CELL << ALIAS_BITS | 1]]
    high = np.array([0, 2**31 - 1, 2**31, 2**32 - 1], dtype=np.uint64)
    rows, columns = np.zeros(4, dtype=np.int32), np.ones(4, dtype=np.int64)
    assert alias.draw(table, rows, columns, high << np.uint64(32)).tolist() == [1, 1, 0, 0]
    assert alias.draw(table, rows + 1, columns * 0, high << np.uint64(32)).tolist() == [1, 1, 1, 1]
