"""The line with the noise at the end of a description."""

from __future__ import annotations

import json

import pytest

from hf_noise.noise import HumanLabels, LabelFlips, UniformTokens, noise_from_description
from hf_noise.noise.describe import describe_noise, noise_dict_from_description

NOISES = [
    UniformTokens(ratio=0.5, vocab_size=100, seed=3),
    UniformTokens(ratio=0.5, vocab_size=100, redraw="never"),
    LabelFlips.cyclic(ratio=1.0, num_classes=4),
    HumanLabels.from_columns([0, 1], [0, 0], num_classes=2, name="some"),
]


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.protocol)
@pytest.mark.parametrize("epoch", [0, 2])
def test_it_is_read_back(noise, epoch):
    told = describe_noise("Some text.", noise, epoch)
    text, _, line = told.partition("\n\n")
    record = json.loads(line)
    assert text == "Some text." and record["epoch"] == epoch and "realised" not in record
    read = noise_from_description(told)
    # Noise of epoch 0 is drawn once, and a trainer must not renew it.
    assert read.redraw == ("never" if epoch == 0 else noise.redraw)
    assert {**read.to_dict(), "redraw": None} == {**noise.to_dict(), "redraw": None}


def test_realised_rates_are_those_of_the_splits_and_of_the_first_as_a_whole():
    rates = {"test": {"rate": 0.0, "n": 5}, "train": {"rate": 0.5, "n": 10}}
    for splits, whole in ((["test", "train"], "train"), (["test"], "test")):
        realised = {split: rates[split] for split in splits}
        told = describe_noise("", NOISES[0], realised=realised, skipped={"train": 2})
        assert told.startswith('{"noise"') and noise_dict_from_description(told)["realised"] == rates[whole]
        assert json.loads(told)["realised"] == realised and json.loads(told)["skipped"] == {"train": 2}


@pytest.mark.parametrize("before", ["", None, "Some text.", "One.\n\nTwo.\n"])
def test_an_earlier_noise_goes_and_the_text_stays(before):
    first = describe_noise(before, NOISES[2])
    joined = f"{first}\n\nMore text.\n\n{first}"
    for description in (first, joined):
        told = describe_noise(description, NOISES[0])
        assert told.count('{"noise"') == 1 and noise_from_description(told).protocol == NOISES[0].protocol
        assert all(line in told for line in (before or "").split("\n"))
    assert "More text." in told


def test_several_noises_are_none_and_a_rate_is_of_all_rows_or_of_none():
    half, all_of_it = ({"train": {"rate": rate, "n": 10}} for rate in (0.5, 1.0))
    one = describe_noise("Some text.", NOISES[0], realised=half)
    again, other = describe_noise("", NOISES[0], realised=all_of_it), describe_noise("", NOISES[1], realised=half)
    assert noise_dict_from_description(f"{one}\n\n{one}")["realised"] == half["train"]
    assert "realised" not in noise_dict_from_description(f"{one}\n\n{again}")
    for joined in (f"{one}\n\n{other}", f"{other}\n\n{one}\n\nMore text."):
        with pytest.raises(ValueError, match="states several noises"):
            noise_dict_from_description(joined)
