import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import torch

import hf_noise
from hf_noise.noise import HumanLabels, LabelFlips, noise_from_dict

CLEAN = [0, 0, 0, 0, 1, 1, 2, 2, 2, 1]
HUMAN = [0, 0, 0, 2, 1, 0, 2, 2, 2, 1]


def make(clean=CLEAN, human=HUMAN, **changes):
    return HumanLabels.from_columns(clean, human, **{"num_classes": 3, "name": "worse", **changes})


def annotated(n=20_000, num_classes=10, seed=0):
    """True labels and those of annotators who are wrong on hard samples, whatever the class."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(num_classes, size=n)
    hard = rng.random(n) < 0.4
    return clean, np.where(hard, (clean + 1 + (rng.random(n) < 0.3)) % num_classes, clean), hard


def test_is_found_under_its_public_name():
    assert hf_noise.HumanLabels is HumanLabels


# What follows from the two columns


def test_counts_rates_and_matrix_by_hand():
    human = make()
    assert human.counts == ((3, 0, 1), (1, 2, 0), (0, 0, 3)) and human.n == 10
    assert human.error_rate == pytest.approx(0.2) and human.ratio == pytest.approx(0.25)
    np.testing.assert_allclose(human.transition, [[3 / 4, 0, 1 / 4], [1 / 3, 2 / 3, 0], [0, 0, 1]])
    np.testing.assert_allclose(human.error_rates, [1 / 4, 1 / 3, 0])
    np.testing.assert_allclose(human.prior, [0.4, 0.3, 0.3])
    # Overall: of these data, and of data in which the classes are equally frequent.
    assert human.overall_error_rate() == pytest.approx(0.2)
    assert human.overall_error_rate([1 / 3] * 3) == pytest.approx(7 / 36)


def test_posterior_counts_the_columns_of_the_counts():
    # Four samples were labelled 0: three are of class 0, one of class 1.
    np.testing.assert_allclose(make().posterior(make().prior), [[3 / 4, 1 / 4, 0], [0, 1, 0], [1 / 4, 0, 3 / 4]])


def test_inverse_and_breakdown_of_a_matrix_of_annotators():
    human = make()
    assert human.is_invertible and human.condition_number > 1
    # Class 1 errs the most: its own label and the wrong one meet when its rate of 1/3 grows to 1/2.
    assert human.breakdown_point == pytest.approx(0.2 * 1.5) and not human.is_adversarial
    assert make(human=[0, 1, 1, 1, 1, 1, 2, 2, 2, 1]).is_adversarial


def test_perfect_and_useless_annotators():
    assert (make(human=CLEAN).error_rate, make(human=CLEAN).ratio, make(human=CLEAN).breakdown_point) == (0, 0, 1)
    wrong = make(human=[1, 1, 1, 1, 2, 2, 0, 0, 0, 2])
    assert (wrong.error_rate, wrong.ratio) == (1, math.inf)


def test_columns_for_a_data_set():
    noisy, is_noisy = make().columns(CLEAN, HUMAN)
    assert noisy.tolist() == HUMAN and is_noisy.dtype == bool
    assert np.flatnonzero(is_noisy).tolist() == [3, 5]


@pytest.mark.parametrize("convert", [np.array, lambda x: np.array(x, dtype=np.uint8), torch.tensor])
def test_columns_of_any_type(convert):
    human = make(convert(CLEAN), convert(HUMAN))
    assert human == make()
    human.check(convert(CLEAN))
    assert human.columns(convert(CLEAN), convert(HUMAN))[1].sum() == 2


def test_as_flips_has_the_same_matrix_and_other_wrong_samples():
    clean, labels, hard = annotated()
    human = make(clean, labels, num_classes=10)
    flips = human.as_flips(seed=4, redraw="never")
    assert isinstance(flips, LabelFlips) and (flips.seed, flips.redraw) == (4, "never")
    np.testing.assert_allclose(flips.transition, human.transition)
    _, is_noisy = flips(clean, np.arange(clean.size))
    e = human.error_rate
    # Annotators err on the hard samples alone, synthetic noise on any of them: 4 standard errors, 6e-5 each, once.
    assert (labels != clean)[~hard].sum() == 0
    assert abs(is_noisy.mean() - e) < 4 * math.sqrt(e * (1 - e) / clean.size)
    assert abs(is_noisy[~hard].mean() - e) < 4 * math.sqrt(e * (1 - e) / (~hard).sum())


# The value


@pytest.mark.parametrize("human", [make(), make(human=CLEAN), make(human=[1, 1, 1, 1, 2, 2, 0, 0, 0, 2])], ids=repr)
def test_comes_back_from_json_and_pickle(human):
    stored = json.loads(json.dumps(human.to_dict(), allow_nan=False))
    assert stored["protocol"] == "human_labels" and stored["error_rate"] == human.error_rate
    for copy in (noise_from_dict(stored), pickle.loads(pickle.dumps(human)), dataclasses.replace(human, name="worse")):
        assert copy == human and hash(copy) == hash(human) and copy.ratio == human.ratio
        assert copy.to_dict() == human.to_dict() == stored


def test_differs_with_name_and_with_either_column():
    reordered = [0, 0, 2, 0, 1, 0, 2, 2, 2, 1]  # the same counts
    values = [make(), make(name="random1"), make(human=reordered), make(CLEAN[::-1], HUMAN[::-1])]
    assert len(set(values)) == 4 and values[0].counts == values[2].counts == values[3].counts
    with pytest.raises(dataclasses.FrozenInstanceError):
        values[0].name = "x"


def test_nothing_is_drawn():
    assert make().redraw == "never" and not callable(make())


# Errors


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"human": HUMAN[:-1]}, ValueError, "there are 10 clean labels and 9 human ones"),
        ({"human": [3, *HUMAN[1:-1], -1]}, ValueError, r"2 of 10 human labels .* \[0, 3\), the first at index 0: 3"),
        ({"clean": [*CLEAN[:-1], -100]}, ValueError, r"1 of 10 clean labels .*, the first at index 9: -100"),
        ({"clean": [0] * 10}, ValueError, r"class 1 never occurs among the true labels \(2 of 3 classes do not\)"),
        ({"clean": np.zeros(0, int), "human": np.zeros(0, int)}, ValueError, "class 0 never occurs .*3 of 3 classes"),
        ({"clean": np.zeros((2, 5), int)}, ValueError, r"clean labels must be a column \[N\], got shape \[2, 5\]"),
        ({"human": [0.5] * 10}, TypeError, "human labels must be integers"),
        ({"num_classes": 1}, ValueError, r"num_classes must lie in \[2, 2\^14\]"),
        ({"name": ""}, ValueError, 'name must be a text such as "worse"'),
        ({"name": None}, ValueError, "name must be a text"),
    ],
)
def test_bad_columns(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("clean", "message"),
    [
        (CLEAN[:-1], "belong to 10 samples, and the data have 9; use the split and the version"),
        (CLEAN[::-1], "true labels are in another order .*bring the data back into the order"),
        ([1, *CLEAN[1:]], "class 0 occurs 3 times, there 4 times; check the split and the numbering of classes"),
        ([5, *CLEAN[1:]], r"1 of 10 clean labels are outside \[0, 3\)"),
    ],
)
def test_data_with_another_clean_column_are_refused(clean, message):
    make().check(CLEAN)
    for check in (make().check, lambda clean: make().columns(clean, HUMAN)):
        with pytest.raises(ValueError, match=message):
            check(clean)


def test_one_swap_is_seen():
    clean, labels, _ = annotated()
    human = make(clean, labels, num_classes=10)
    first, second = 0, int(np.flatnonzero(clean != clean[0])[-1])
    swapped = clean.copy()
    swapped[[first, second]] = swapped[[second, first]]
    with pytest.raises(ValueError, match="another order"):
        human.check(swapped)


@pytest.mark.parametrize("human", [HUMAN[::-1], CLEAN, [0, 0, 2, 0, 1, 0, 2, 2, 2, 1]])
def test_another_human_column_is_refused(human):
    with pytest.raises(ValueError, match="the human column is not the one that 'worse' was made of"):
        make().columns(CLEAN, human)
    with pytest.raises(ValueError, match="10 clean labels and 9 human ones"):
        make().columns(CLEAN, human[:-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": [[1, 2], [3, 4]]}, r"counts must be \[3, 3\] integers >= 0, got shape \[2, 2\]"),
        ({"counts": [[1, 0, 0], [0, 1, 0], [0, 2, -1]]}, r"counts must be \[3, 3\] integers >= 0"),
        ({"counts": [[1, 0, 0], [0, 1, 0], [0, 0, 0]]}, "class 2 never occurs"),
        ({"clean_sha256": "abc"}, "clean_sha256 must be 64 hexadecimal digits, got 'abc'"),
        ({"human_sha256": None}, "human_sha256 must be 64 hexadecimal digits"),
        ({"error_rate": 0.5}, "error_rate=0.5 contradicts the matrix, by which it is 0.19"),
        ({"ratio": 0.5}, "ratio=0.5 contradicts the matrix"),
    ],
)
def test_bad_stored_values(changes, message):
    with pytest.raises(ValueError, match=message):
        noise_from_dict({**make().to_dict(), **changes})
