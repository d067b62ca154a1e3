"""What is refused before anything is estimated, and what is said of probabilities that have seen the labels."""

from __future__ import annotations

import numpy as np
import pytest

from hf_noise.audit.checks import check_labels, looks_in_sample

LABELS = np.array([0, 1, 2, 0, 1, 2])
EVEN = np.full((6, 3), 1 / 3)


def changed(row, values):
    p = EVEN.copy()
    p[row] = values
    return p


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        (LABELS, EVEN[:, :1], r"probabilities must be \[N, C\] with C >= 2 classes, got shape \[6, 1\]"),
        (LABELS, EVEN[0], r"got shape \[3\]"),
        (LABELS[:5], EVEN, r"probabilities are \[6, \d\] and there are 5 labels"),
        (LABELS[:2], EVEN[:2], "labels of 2 rows are too few for 3 classes; give at least 6 rows"),
        (LABELS, changed(2, 0.5), "1 of 6 rows of probabilities are no distributions, the first is row 2"),
        (LABELS, changed(4, [1.5, -0.5, 0]), "first is row 4 with the sum 1 and the smallest entry -0.5"),
        (LABELS, changed(1, np.nan), "first is row 1 with the sum nan"),
        (LABELS, changed(1, [np.inf, 0, 0]), "first is row 1 with the sum inf"),
        (np.array([0, 1, 3, 0, 1, 2]), EVEN, r"labels must lie in \[0, 3\) for 3 columns .* got 3 in row 2"),
        (np.array([0, 1, -1, 0, 1, 2]), EVEN, "got -1 in row 2"),
        (np.array([0, 1, 1, 0, 1, 0]), EVEN, r"labels have no row of class 2 \(1 of 3 classes are empty\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_audited_is_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, probabilities)


def test_what_holds_no_labels_or_numbers_is_refused():
    with pytest.raises(TypeError, match="labels must be integers"):
        check_labels(LABELS / 1.0, EVEN)
    with pytest.raises(TypeError, match="probabilities must be real numbers"):
        check_labels(LABELS, EVEN.astype(str))


def test_rounding_of_float16_is_taken_and_undone():
    p = np.random.default_rng(0).dirichlet(np.ones(10), 200).astype(np.float16)
    labels, found = check_labels(np.arange(200) % 10, p)
    assert labels.dtype == np.int64 and found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(found, p, atol=1e-3)


def test_a_model_that_knows_the_labels_is_noticed():
    labels = np.arange(100) % 2
    assert looks_in_sample(labels, np.eye(2)[labels])
    assert not looks_in_sample(labels[:40], np.eye(2)[labels[:40]])
    assert not looks_in_sample(labels, np.eye(2)[np.where(np.arange(100) < 2, 1 - labels, labels)])
