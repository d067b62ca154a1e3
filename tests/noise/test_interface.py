"""What every noise declares, so that nobody has to ask which class it is; and a bare noise that needs no more."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise import (
    GaussianDocuments,
    HumanLabels,
    LabelFlips,
    Noise,
    NoisyTeacher,
    RandomDocuments,
    Teacher,
    UniformTokens,
    counter_torch,
    draws,
    draws_torch,
    noise_from_description,
    noise_from_dict,
)
from hf_noise.noise.base import Redraw, known_noises
from hf_noise.noise.block import noise_block, noise_sentence
from hf_noise.noise.describe import describe_noise, noise_dict_from_description
from hf_noise.noise.token_noise import TokenNoise

T = [[0.9, 0.1], [0.25, 0.75]]


@dataclass(frozen=True, kw_only=True)
class MirroredTokens(TokenNoise):
    """Replace each token by its mirror image in the vocabulary, V - 1 - id."""

    protocol: ClassVar[str] = "test_mirrored_tokens"
    stream: ClassVar[int] = 901
    names: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    redraw: Redraw = "epoch"

    def replace_block(self, tokens, is_noisy, words, scratch, ignored) -> None:
        draws.mask(words, self.threshold, ignored, out=is_noisy)
        draws.put(tokens, (self.vocab_size - 1 - tokens).astype(np.int64), is_noisy)


NOISES = [
    UniformTokens(ratio=0.5, vocab_size=64), UniformTokens(ratio=1.0, vocab_size=64, exclude_original=True),
    RandomDocuments(alpha=0.2, vocab_size=64), RandomDocuments(alpha=0.2, vocab_size=64, placement="replace"),
    RandomDocuments(alpha=0.2, vocab_size=64, placement="interleave", boost="random", n_boost=5),
    GaussianDocuments(alpha=0.2, vocab_size=64), LabelFlips.symmetric(1.0, num_classes=4),
    LabelFlips.pairs({0: 1}, 0.5, num_classes=4), LabelFlips.from_transition(T),
    HumanLabels.from_columns([0, 1, 1], [0, 0, 1], num_classes=2, name="worse"),
    MirroredTokens(ratio=0.5, vocab_size=64),
    NoisyTeacher(ratio=0.5, teacher=Teacher(name="runs/teacher", sha256="a" * 64), num_rows=10),
]  # fmt: skip
#: unit, is_drawn, draws_targets, is_spread, mixture_rate, stay_rate of the above.
DECLARED = [
    ("tokens", True, True, True, 1 / 3, 1 / 64), ("tokens", True, True, True, 0.5 * 64 / 63, 0.0),
    ("documents", False, False, False, None, 0.0), ("documents", True, False, True, None, 0.0),
    ("documents", False, False, False, None, 0.0), ("documents", False, False, False, None, 0.0),
    ("labels", True, True, True, None, 0.0), ("labels", True, True, True, None, 0.0),
    ("labels", True, True, True, None, 0.0), ("labels", False, False, True, None, 0.0),
    ("tokens", True, True, True, None, 0.0), ("sequences", False, False, True, None, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("noise", "declared"), list(zip(NOISES, DECLARED, strict=True)), ids=repr)
def test_what_a_noise_declares(noise, declared):
    found = (noise.unit, noise.is_drawn, noise.draws_targets, noise.is_spread, noise.mixture_rate, noise.stay_rate)
    assert found == pytest.approx(declared) if declared[4] is not None else found == declared
    assert noise.redraw in ("epoch", "never") and noise.noisy_columns and noise.rate_names
    assert 0 <= noise.overall_error_rate() <= 1 and (noise.error_rates is None) == (noise.unit != "labels")
    if not noise.is_drawn:
        assert noise.if_not_drawn


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_without_noise_is_the_same_kind_at_a_rate_of_0(noise):
    silent = noise.without_noise()
    assert silent.error_rate == 0 and silent.unit == noise.unit
    assert silent.to_dict().get("seed", 0) == noise.to_dict().get("seed", 0)
    assert noise.unit == "labels" or type(silent) is type(noise)
    if noise.unit in ("tokens", "documents"):
        assert silent.vocab_size == noise.vocab_size
    if noise.unit == "tokens":
        tokens = np.arange(64)[None]
        noisy, is_noisy = silent(tokens, [3])
        assert (noisy == tokens).all() and not is_noisy.any()


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_every_kind_comes_back_from_dictionary_description_pickle_and_card(noise):
    assert noise_from_dict(json.loads(json.dumps(noise.to_dict()))) == noise == pickle.loads(pickle.dumps(noise))
    told = describe_noise("About the data.", noise, 3, {"train": {"rate": 0.25, "n": 8}})
    assert noise_from_description(told) == noise
    assert noise_dict_from_description(told) == noise.to_dict() | {"realised": {"rate": 0.25, "n": 8}}
    block = noise_block(noise_dict_from_description(told))
    assert noise_from_dict(block["config"]) == noise
    units = "pairs" if noise.unit == "sequences" else "units"
    assert noise_sentence(block).startswith(noise.summary) and f"0.2500 of 8 {units}" in noise_sentence(block)
    once = noise_from_description(describe_noise(None, noise))
    assert once.redraw == "never" and type(once) is type(noise)


@pytest.mark.parametrize("noise", [noise for noise in NOISES if noise.redraw == "epoch"], ids=repr)
def test_noise_that_is_drawn_once_has_the_draws_of_epoch_0(noise):
    once = noise_from_dict(noise.to_dict() | {"redraw": "never"})
    assert [noise.epoch_drawn(epoch) for epoch in (0, 5)] == [0, 5]
    assert [once.epoch_drawn(epoch) for epoch in (0, 5)] == [0, 0]


def test_a_noise_has_to_say_what_it_falls_on():
    with pytest.raises(TypeError, match="Mute must declare its unit, one of tokens, documents, labels, sequences"):

        class Mute(Noise):
            protocol: ClassVar[str] = "test_mute"

    assert "test_mute" not in {noise.protocol for noise in known_noises()}
    with pytest.raises(ValueError, match="unknown noise protocol 'test_mute'"):
        noise_from_dict({"protocol": "test_mute", "version": 1})


def test_names_and_streams_belong_to_one_noise():
    ours = [noise for noise in known_noises() if noise.__module__.startswith("hf_noise.")]
    names = [name for noise in ours for name in noise.names]
    assert len(names) == len(set(names)) and len({noise.stream for noise in ours if hasattr(noise, "stream")}) == 5


@given(
    vocab_size=st.integers(1, 300), error_rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 9), lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6), data=st.data(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_bare_noise_draws_alike_in_every_form(vocab_size, error_rate, seed, epoch, lengths, data):
    """It says what a token becomes, and is served in rows, ragged rows, columns and tensors, with -100 left alone."""
    noise = MirroredTokens(error_rate=error_rate, vocab_size=vocab_size, seed=seed)
    longest = max(lengths)
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    tokens = draw.integers(0, vocab_size, (len(lengths), longest))
    tokens[draw.random(tokens.shape) < 0.1] = -100
    sample = draw.integers(0, 1 << 40, len(lengths))
    noisy, is_noisy = noise(tokens, sample, epoch)
    expected = np.where(is_noisy, vocab_size - 1 - tokens, tokens)
    assert (noisy == expected).all() and not is_noisy[tokens == -100].any()
    for row, length in enumerate(lengths):
        flat, mask = noise.flat(tokens[row, :length], [length], sample[row : row + 1], epoch)
        assert (flat == noisy[row, :length]).all() and (mask == is_noisy[row, :length]).all()
    found = noise(torch.from_numpy(tokens), torch.from_numpy(sample), epoch)
    assert torch.equal(found[0], torch.from_numpy(noisy)) and torch.equal(found[1], torch.from_numpy(is_noisy))
    columns = noise({"labels": list(tokens)}, sample, epoch)
    assert all((row == other).all() for row, other in zip(columns["labels"], noisy))


@given(rows=st.lists(st.integers(0, 30), min_size=1, max_size=8), seed=st.integers(0, 99), dtype=st.sampled_from("ilh"))
@settings(max_examples=40, deadline=None)
def test_documents_replace_ragged_rows_as_they_do_single_ones(rows, seed, dtype):
    noise = RandomDocuments(alpha=0.5, vocab_size=50, placement="replace", seed=seed)
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 50, sum(rows)).astype(dtype)
    values[draw.random(values.size) < 0.1] = -100
    sample = draw.integers(0, 1 << 40, len(rows))
    noisy, is_noisy = noise.flat(values, rows, sample)
    assert noisy.dtype == values.dtype
    for part, number, found, mask in zip(
        np.split(values, np.cumsum(rows)[:-1]), sample, np.split(noisy, np.cumsum(rows)[:-1]),
        np.split(is_noisy, np.cumsum(rows)[:-1]),
    ):  # fmt: skip
        alone = noise(part, number)
        assert (found == alone[0]).all() and (mask == alone[1]).all()


def test_documents_that_add_rows_replace_none():
    noise = RandomDocuments(alpha=0.5, vocab_size=50)
    with pytest.raises(ValueError, match='placement is "append", which adds rows'):
        noise.flat(np.zeros(3, dtype=np.int64), [3], [0])
    with pytest.raises(ValueError, match="the rows hold 4 tokens together, but 3 values came"):
        RandomDocuments(alpha=0.5, vocab_size=50, placement="replace").flat(np.zeros(3, dtype=np.int64), [4], [0])


def test_people_are_not_drawn():
    assert not callable(NOISES[9]) and "were given by people" in NOISES[9].if_not_drawn


@given(ratio=st.floats(0.01, 2.0), seed=st.integers(0, 2**63 - 1), redraw=st.sampled_from(["epoch", "never"]))
@settings(max_examples=30, deadline=None)
def test_a_kind_of_label_noise_by_name_is_that_of_its_class_method(ratio, seed, redraw):
    common = {"ratio": ratio, "num_classes": 4, "seed": seed, "redraw": redraw}
    known = {"mapping": {0: 1, 2: 3}}
    for kind in ("symmetric", "uniform_resample", "cyclic"):
        made = getattr(LabelFlips, kind)(**common)
        assert LabelFlips.named(kind, known=known, **common) == made == LabelFlips.named(kind, mapping=None, **common)
    assert LabelFlips.named("uniform-resample", **common).kind == "uniform_resample"
    assert LabelFlips.named("pairs", known=known, **common) == LabelFlips.pairs({0: 1, 2: 3}, **common)
    assert LabelFlips.named("pairs", known=known, mapping={1: 0}, **common) == LabelFlips.pairs({1: 0}, **common)
    assert LabelFlips.named("transition", matrix=T, seed=seed) == LabelFlips.from_transition(T, seed=seed)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"protocol": "pink"}, ValueError, "protocol must be one of symmetric, .*, transition, got 'pink'"),
        ({"protocol": 3}, ValueError, "protocol must be one of .*, got 3"),
        ({"protocol": "pairs"}, ValueError, "protocol 'pairs' needs mapping="),
        ({"protocol": "pairs", "known": {"mapping": None}}, ValueError, "protocol 'pairs' needs mapping="),
        ({"protocol": "transition"}, ValueError, "protocol 'transition' needs matrix="),
        ({"protocol": "cyclic", "mapping": {0: 1}}, ValueError, "mapping belongs to kind='pairs' and to no other"),
        ({"protocol": "cyclic", "colour": 1}, TypeError, "protocol 'cyclic' has no setting colour"),
        ({"protocol": "cyclic", "kind": "pairs"}, TypeError, "protocol 'cyclic' has no setting kind"),
        ({"protocol": "cyclic", "ratio": None}, ValueError, "give the amount of noise"),
    ],
)  # fmt: skip
def test_a_name_without_what_it_needs(given, error, message):
    with pytest.raises(error, match=message):
        LabelFlips.named(**{"ratio": 1.0, "num_classes": 4, **given})


def test_the_matrix_is_made_once_and_given_away_as_a_copy():
    noise = LabelFlips.from_transition(T)
    noise.transition[0, 0] = 5.0
    assert noise.transition.tolist() == T and noise.probability([0, 1], [1, 1]).tolist() == [0.1, 0.75]
    assert noise._matrix is noise._matrix and not noise._matrix.flags.writeable


def test_a_twin_draws_on_tensors_what_the_noise_draws_on_arrays(monkeypatch):
    """Found by the name of its module; an array among its arguments comes as a tensor, and is put there once."""
    given_to_twin = []

    def replace(tokens, sample, key, offsets, threshold, table):
        given_to_twin.append(table)
        words = counter_torch.words(counter_torch.row_keys(key, sample).unsqueeze(-1), offsets)
        is_noisy = draws_torch.mask(words, threshold, tokens)
        known = torch.where(tokens == -100, 0, tokens)
        return draws_torch.put(tokens, table[known], is_noisy), (-is_noisy).to(torch.uint8)

    monkeypatch.setitem(sys.modules, "hf_noise_test_twin", SimpleNamespace(replace=replace))
    monkeypatch.setattr(MirroredTokens, "twin", "hf_noise_test_twin")
    arguments = property(lambda noise: (noise.threshold, np.arange(noise.vocab_size)[::-1].copy()))
    monkeypatch.setattr(MirroredTokens, "draw_arguments", arguments)
    noise = MirroredTokens(ratio=1.0, vocab_size=50, seed=5)
    tokens = np.random.default_rng(0).integers(0, 50, (7, 33))
    tokens[0, :4] = -100
    for epoch in (0, 3):
        expected = noise(tokens, np.arange(7), epoch)
        found = noise.on_device(torch.from_numpy(tokens), np.arange(7), epoch)
        assert all((one == other.numpy()).all() for one, other in zip(expected, found))
    assert len(given_to_twin) == 2 and given_to_twin[0] is given_to_twin[1]
    with pytest.raises(ValueError, match="token 50 is outside"):
        noise(torch.full((1, 3), 50), [0])
