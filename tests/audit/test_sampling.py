import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.audit.sampling import draw_sample, frame


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), st.integers(0, 5), st.data())
def test_a_sample_holds_n_different_rows_whose_chances_are_known(rows, kinds, data):
    p_wrong = np.random.default_rng(rows).integers(0, kinds + 1, rows) / max(kinds, 1)  # ties, constants, 0 and 1
    n = data.draw(st.integers(2, rows))
    sample = draw_sample(p_wrong, n, given=np.arange(rows) % 3, seed=data.draw(st.integers(0, 2**63 - 1)))
    assert len(set(sample.rows.tolist())) == n == len(sample) and 0 <= sample.rows.min() <= sample.rows.max() < rows
    drawn = np.bincount(sample.stratum[sample.rows], minlength=len(sample.sizes))
    np.testing.assert_array_equal(sample.probability, (drawn / sample.sizes)[sample.stratum])
    assert (sample.probability > 0).all() and sample.probability.sum() == pytest.approx(n)
    # Strata are ranges of p_wrong.
    ends = [(p_wrong[sample.stratum == h].min(), p_wrong[sample.stratum == h].max()) for h in range(len(sample.sizes))]
    assert all(before[1] <= after[0] for before, after in zip(ends, ends[1:]))


def test_every_row_is_drawn_as_often_as_its_chance_says():
    """4,000 draws of 100 of 300 rows: of 300 standardised counts, |z| > 4.5 has the chance 0.2% if all is right."""
    p_wrong = np.random.default_rng(0).random(300) ** 3
    design = frame(p_wrong, 100, given=np.arange(300) % 7)
    samples = [design.draw(seed) for seed in range(4000)]
    counts, chance = np.zeros(300), samples[0].probability
    for sample in samples:
        counts[sample.rows] += 1
    z = (counts - 4000 * chance) / np.sqrt(4000 * chance * (1 - chance))
    assert len(set(chance)) > 1 and np.abs(z).max() < 4.5


def test_doubtful_rows_are_drawn_more_often_and_no_class_is_forgotten():
    p_wrong = np.r_[np.zeros(9000), np.full(1000, 0.5)]
    classes = np.arange(10_000) % 10
    sample = draw_sample(p_wrong, 200, given=classes)
    assert 2 < sample.probability[-1] / sample.probability[0] < 3, "sqrt(0.29 / 0.04)"
    assert np.bincount(classes[sample.rows]).min() >= 14


def test_the_draw_depends_on_seed_and_ids_alone():
    draw = np.random.default_rng(1)
    p_wrong, ids = draw.random(500).round(2), draw.permutation(10_000)[:500]
    sample = draw_sample(p_wrong, 100, sample_ids=ids, seed=5)
    order = draw.permutation(500)
    moved = draw_sample(p_wrong[order], 100, sample_ids=ids[order], seed=5)
    np.testing.assert_array_equal(ids[order][moved.rows], ids[sample.rows])
    assert draw_sample(p_wrong, 100, sample_ids=ids, seed=6).rows.tolist() != sample.rows.tolist()


def test_every_beginning_of_the_list_is_a_sample_of_all_strata():
    sample = draw_sample(np.linspace(0, 1, 5000), 400, seed=3)
    for n in (50, 100, 250):
        counts = np.bincount(sample.stratum[sample.rows[:n]], minlength=len(sample.sizes))
        assert counts.max() - counts.min() <= 2


def test_all_rows_may_be_looked_at():
    sample = draw_sample([0.5, 0.5, 0.1], 3)
    assert sorted(sample.rows.tolist()) == [0, 1, 2] and sample.probability.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"n": 1}, ValueError, r"n must lie in \[2, 4\], got 1"),
        ({"n": 5}, ValueError, r"n must lie in \[2, 4\], got 5"),
        ({"n": 2.0}, TypeError, "n must be an integer"),
        ({"p_wrong": [0.1, np.nan, 0.2, 0.3]}, ValueError, r"p_wrong must lie in \[0, 1\], got nan at row 1"),
        ({"p_wrong": [[0.1]]}, ValueError, "p_wrong must be one probability per row"),
        ({"given": [0, 1]}, ValueError, "given has 2 classes, and p_wrong 4 rows"),
        ({"sample_ids": [1, 1, 2, 3]}, ValueError, "sample_ids must differ, 1 occurs 2 times"),
        ({"sample_ids": [0.5, 1, 2, 3]}, TypeError, "sample_ids must be integers"),
        ({"seed": -1}, ValueError, "seed must lie in"),
    ],
)
def test_what_is_refused(changed, error, words):
    with pytest.raises(error, match=words):
        draw_sample(**({"p_wrong": [0.1, 0.2, 0.3, 0.4], "n": 2} | changed))
