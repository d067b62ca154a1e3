import dataclasses
import json
import pickle
from typing import ClassVar

import numpy as np
import pytest
import torch

from hf_noise.noise import (
    GaussianDocuments,
    HumanLabels,
    LabelFlips,
    Noise,
    RandomDocuments,
    UniformTokens,
    noise_from_description,
    noise_from_dict,
    realised_rate,
)
from hf_noise.noise.base import check_seed
from hf_noise.noise.block import noise_block, noise_sentence

NOISES = [
    UniformTokens(ratio=0.5, vocab_size=50257),
    UniformTokens(error_rate=0.05, vocab_size=65, seed=3, exclude_original=True, redraw="never"),
    UniformTokens(ratio=0, vocab_size=1),
    RandomDocuments(alpha=0.05, vocab_size=50257),
    RandomDocuments(alpha=0.2, vocab_size=2048, exclude=0, boost="random", n_boost=7, boost_mass=0.3, seed=1),
    RandomDocuments(alpha=0.01, vocab_size=50257, boost="low", placement="interleave"),
    GaussianDocuments(alpha=0.05, vocab_size=50257),
    GaussianDocuments(alpha=0.05, vocab_size=100, mean=30, std=2.5, exclude=None, placement="replace"),
    LabelFlips.symmetric(ratio=1.0, num_classes=10),
    LabelFlips.pairs({2: 0, 3: 5}, error_rate=0.4, num_classes=10, seed=3, redraw="never"),
    LabelFlips.from_transition([[0.9, 0.1], [0.25, 0.75]]),
    HumanLabels.from_columns([0, 1, 1], [0, 0, 1], num_classes=2, name="worse"),
]


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_comes_back_from_json_and_pickle(noise):
    stored = json.loads(json.dumps(noise.to_dict()))
    assert stored["protocol"] == noise.protocol and stored["version"] == noise.version
    for copy in (noise_from_dict(stored), pickle.loads(pickle.dumps(noise))):
        assert copy == noise and hash(copy) == hash(noise) and type(copy) is type(noise)
        assert copy.to_dict() == noise.to_dict()


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_is_a_frozen_value_with_readable_rates(noise):
    with pytest.raises(dataclasses.FrozenInstanceError):
        noise.seed = 1
    assert len({noise, noise_from_dict(noise.to_dict())}) == 1
    assert noise.error_rate == pytest.approx(noise.ratio / (1 + noise.ratio))


def test_all_noises_differ():
    assert len(set(NOISES)) == len(NOISES)
    drawn = [noise for noise in NOISES if not isinstance(noise, HumanLabels)]
    assert len({noise.stream for noise in drawn}) == len({noise.protocol for noise in drawn}) == 4


def test_unknown_protocol_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown noise protocol 'pink'; .*gaussian_documents.*uniform_tokens"):
        noise_from_dict({"protocol": "pink", "version": 1})
    with pytest.raises(ValueError, match="unknown noise protocol None"):
        noise_from_dict({})
    with pytest.raises(ValueError, match=r"unknown noise protocol \['uniform_tokens'\]"):
        noise_from_dict({"protocol": ["uniform_tokens"], "version": 1})


@pytest.mark.parametrize("version", [0, 2, None])
def test_another_version_is_refused(version):
    with pytest.raises(ValueError, match="draws version 1; install the hf_noise that wrote it"):
        noise_from_dict({**NOISES[0].to_dict(), "version": version})


def test_unknown_field_is_refused():
    with pytest.raises(ValueError, match="the noise 'uniform_tokens' has no field colour, flavour"):
        noise_from_dict({**NOISES[0].to_dict(), "flavour": 1, "colour": 2})


@pytest.mark.parametrize("noise", [NOISES[0], NOISES[3]], ids=repr)
def test_missing_field_is_refused(noise):
    stored = noise.to_dict()
    del stored["vocab_size"]
    with pytest.raises(ValueError, match=f"the noise '{noise.protocol}' needs the field vocab_size"):
        noise_from_dict(stored)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_comes_back_from_a_description(noise):
    said = json.dumps({"noise": noise.to_dict() | {"realised": {"rate": 0.3, "n": 9}}, "epoch": 0})
    assert noise_from_description(f"Some text.\n\n{said}\n") == noise


@pytest.mark.parametrize("description", ["", None, "Some text.", '{"noise": 1}\nSome text.'])
def test_other_descriptions_state_no_noise(description):
    assert noise_from_description(description) is None


@pytest.mark.parametrize(
    ("description", "error", "message"),
    [
        ('{"noise"', ValueError, "states a noise that cannot be read: "),
        ('{"noise": ' + "[" * 10**5, ValueError, "cannot be"),
        ('{"noise": 3}', ValueError, "states 3 as its noise"), ('{"noise": null}', ValueError, "states None"),
        (b"bytes", TypeError, "a description is a text"), (3, TypeError, "a description is a text, got 3"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_read(description, error, message):
    with pytest.raises(error, match=message):
        noise_from_description(description)


@pytest.mark.parametrize(
    ("realised", "message"),
    [
        ("0.3", "realised must be"), ({"rate": 0.3}, "realised must be"),
        ({"rate": 1.5, "n": 9}, r"must lie in \[0, 1\]"),
        ({"rate": "0.3", "n": 9}, "realised rate must be a real"), ({"rate": 0.3, "n": 0.5}, "n of the realised rate"),
        ({"rate": 0.3, "n": 0}, "n >= 1 units"),
    ],
)  # fmt: skip
def test_a_realised_rate_in_a_card_is_one(realised, message):
    block = noise_block(NOISES[0].to_dict() | {"realised": {"rate": 0.3, "n": 9}})
    assert noise_sentence(block).endswith("Counted in the data: 0.3000 of 9 units.")
    for call in (lambda: noise_block(NOISES[0].to_dict() | {"realised": realised}),
                 lambda: noise_sentence(block | {"realised": realised})):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=message):
            call()


def test_bad_value_is_refused():
    with pytest.raises(ValueError, match="vocab_size must lie in"):
        noise_from_dict({**NOISES[0].to_dict(), "vocab_size": 0})


def test_from_dict_leaves_its_argument_alone():
    stored = NOISES[0].to_dict()
    noise_from_dict(stored)
    assert stored == NOISES[0].to_dict()


def test_two_protocols_cannot_share_a_name():
    with pytest.raises(TypeError, match="two noises are called 'uniform_tokens': UniformTokens and"):

        class Other(Noise):
            protocol: ClassVar[str] = "uniform_tokens"


def test_realised_rate():
    assert realised_rate(np.array([[True, False], [False, False]])) == {"rate": 0.25, "n": 4}
    assert realised_rate(torch.tensor([True, True, False])) == {"rate": pytest.approx(2 / 3), "n": 3}
    assert realised_rate([True, False]) == {"rate": 0.5, "n": 2}


@pytest.mark.parametrize("mask", [[0.1, 0.9], [0, 2], ["True"], [None], np.array([1 + 0j]), None])
def test_a_realised_rate_is_that_of_a_mask(mask):
    assert realised_rate(np.array([0, 1], dtype=np.uint8)) == {"rate": 0.5, "n": 2}
    with pytest.raises(TypeError, match="is_noisy must be a mask of booleans"):
        realised_rate(mask)
    with pytest.raises(ValueError, match="is_noisy is a masked array"):
        realised_rate(np.ma.array([True, False]))


def test_realised_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="empty mask"):
        realised_rate(np.zeros((0, 5), dtype=bool))


@pytest.mark.parametrize("seed", [0, 1, (1 << 63) - 1, np.int32(5)])
def test_seeds(seed):
    assert check_seed(seed) == seed and type(check_seed(seed)) is int


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=r"seed must lie in \[0, 2\^63\)"):
        check_seed(seed)


@pytest.mark.parametrize("seed", [0.0, "1", None, True])
def test_seed_of_another_type(seed):
    with pytest.raises(TypeError, match="seed must be an integer"):
        check_seed(seed)
