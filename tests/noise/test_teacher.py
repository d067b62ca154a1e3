"""Whole targets that a teacher wrote: which rows they are in, and what the value remembers of the teacher."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise import Decoding, NoisyTeacher, Teacher, counter, noise_from_dict

TEACHER = Teacher(name="runs/teacher", sha256="0f" * 32, steps=500)


def noise(e=0.5, **fields):
    return NoisyTeacher(**{"error_rate": e, "teacher": TEACHER, **fields})


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 300), e=st.floats(0, 0.99), seed=st.integers(0, 2**63 - 1), first=st.integers(-(2**62), 2**62),
    step=st.integers(1, 2**40), order=st.randoms(use_true_random=False),
)  # fmt: skip
def test_exactly_the_share_asked_for_in_any_order_and_batches(n, e, seed, first, step, order):
    if 0 < e < 1e-9:
        return
    ids = first + step * np.arange(n)
    one = noise(e, seed=seed).exactly(ids)
    found = one.is_noisy(ids)
    assert found.sum() == round(e * n) == one.num_noisy
    shuffled = list(range(n))
    order.shuffle(shuffled)
    assert (one.is_noisy(ids[shuffled]) == found[shuffled]).all()
    halves = [one.is_noisy(part) for part in np.array_split(ids, 3) if part.size]
    assert (np.concatenate(halves) == found).all()
    assert noise_from_dict(json.loads(json.dumps(one.to_dict()))) == one == pickle.loads(pickle.dumps(one))


def test_those_with_the_smallest_words_and_so_a_part_of_those_at_a_larger_rate():
    ids = np.arange(10)
    words = counter.words_at(counter.stream_key(3, NoisyTeacher.stream, 0), ids)
    small, large = (noise(e, num_rows=10, seed=3).is_noisy(ids) for e in (0.3, 0.7))
    assert set(np.flatnonzero(small)) == set(np.argsort(words)[:3])
    assert set(np.flatnonzero(large)) == set(np.argsort(words)[:7])


def test_each_row_on_its_own_where_no_number_is_given():
    found = noise(0.3, seed=1).is_noisy(np.arange(20_000))
    # 4.9 standard errors: a false alarm in a million.
    assert abs(found.mean() - 0.3) < 4.9 * (0.3 * 0.7 / 20_000) ** 0.5
    assert (noise(0.3, seed=2).is_noisy(np.arange(20_000)) != found).any()
    assert not noise(0.0).is_noisy(np.arange(100)).any()


def test_what_stands_in_the_rows():
    one = noise(num_rows=4)
    noisy, mask = one.replaced(["a", "b", "c", "d"], ["A", "B", "C", "D"], np.arange(4))
    assert mask.sum() == 2 and noisy == [x.upper() if m else x for x, m in zip("abcd", mask, strict=True)]
    written = [x if m else None for x, m in zip("ABCD", mask, strict=True)]
    assert one.replaced(["a", "b", "c", "d"], written, np.arange(4))[0] == noisy
    with pytest.raises(ValueError, match=f"2 rows to be replaced have nothing .* the first is row {mask.argmax()}"):
        one.replaced(["a", "b", "c", "d"], [None] * 4, np.arange(4))
    with pytest.raises(ValueError, match="4 targets, 3 written ones and 4 sample ids"):
        one.replaced(["a", "b", "c", "d"], ["A"] * 3, np.arange(4))


def test_rows_with_other_ids_than_it_was_made_for_are_refused():
    ids = np.arange(2**40, 2**40 + 1000)
    with pytest.raises(ValueError, match=r"of 1000 rows would .*, where exactly 500 .* noise.exactly\(sample\)"):
        noise(num_rows=1000).is_noisy(ids)


def test_a_value_says_who_wrote_the_targets():
    one = noise(num_rows=8, seed=3)
    told = "a teacher of 500 steps (0f0f0f0f), greedy, at most 256 tokens"
    assert one.summary == f"Whole target sequences replaced by those of {told}"
    assert one.unit == "sequences" and one.redraw == "never" and not one.is_drawn and not one.draws_targets
    assert one.without_noise().error_rate == 0 and one.without_noise().teacher == TEACHER
    elsewhere = Teacher(name="elsewhere", sha256="0f" * 32, steps=500)
    assert noise(teacher=elsewhere) == noise() and hash(noise(teacher=elsewhere)) == hash(noise())
    for other in ({"steps": 501}, {"sha256": "0e" * 32}, {"decoding": Decoding(method="beam")}):
        assert noise(teacher=Teacher(**{"name": "a", "sha256": "0f" * 32, "steps": 500, **other})) != noise()
    assert Decoding(method="beam").num_beams == 4
    assert Decoding(method="sample", temperature=0.5).summary == "sampled at temperature 0.5, at most 256 tokens"
    assert NoisyTeacher(ratio=0).teacher is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: NoisyTeacher(ratio=0.5), ValueError, "teacher= has to say who wrote the noisy targets"),
        (lambda: noise(teacher="runs/teacher"), TypeError, "teacher must be a Teacher or its fields, got 'runs"),
        (lambda: noise(teacher={"name": "a"}), ValueError, "teacher needs the field sha256"),
        (lambda: noise(teacher={"name": "a", "sha": "b"}), ValueError, "teacher has no field 'sha'"),
        (lambda: noise(num_rows=0), ValueError, r"num_rows must lie in \[1, 2\^28\], got 0"),
        (lambda: noise(num_rows=2.0), TypeError, "num_rows must be an integer"),
        (lambda: noise(cut=-1), ValueError, r"cut must lie in \[0, 2\^62\]"),
        (lambda: noise(0.0, cut=1), ValueError, "be 0 for e = 0, got 1"),
        (lambda: noise().is_noisy([0.5]), TypeError, "sample must be integers, got float64"),
        (lambda: noise().is_noisy([[1]]), ValueError, r"sample must hold one id a row, \[N\]"),
        (lambda: noise().exactly([1, 1]), ValueError, "sample must hold ids of rows, each once"),
        (lambda: Teacher(name="", sha256="0" * 64), TypeError, "name must be that of a folder"),
        (lambda: Teacher(name="a", sha256="0F" * 32), ValueError, "sha256 must be 64 hexadecimal digits"),
        (lambda: Teacher(name="a", sha256="0" * 64, steps=0), ValueError, "steps must lie in"),
        (lambda: Decoding(method="nucleus"), ValueError, "method must be one of greedy, sample, beam, got 'nucleus'"),
        (lambda: Decoding(temperature=0.5), ValueError, 'and 1 unless method="sample", got 0.5'),
        (lambda: Decoding(method="sample", temperature=0), ValueError, "temperature must be > 0"),
        (lambda: Decoding(num_beams=3), ValueError, r"num_beams must be >= 2 for method=\"beam\" .* got 3 \(greedy\)"),
        (lambda: Decoding(max_new_tokens=0), ValueError, r"max_new_tokens must lie in \[1, 2\^16\]"),
    ],
)
def test_bad_values_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
