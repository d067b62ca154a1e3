import numpy as np
import pytest
import torch

from hf_noise.noise import draws, draws_torch

WORDS = np.array([0, 2**31, 2**32 - 1, 2**32, 5 << 32 | 7, 2**63, 2**64 - 1], dtype=np.uint64)


def signed(words):
    return torch.from_numpy(words.view(np.int64).copy())


def test_threshold():
    assert [draws.threshold(e) for e in (0, 0.5, 2**-32, 1 - 2**-40)] == [0, 1 << 31, 1, 1 << 32]
    with pytest.raises(ValueError, match="error_rate 1e-12 is below the finest rate that can be drawn, 2\\^-33"):
        draws.threshold(1e-12)


@pytest.mark.parametrize("threshold", [0, 1, 6, 1 << 31, (1 << 31) + 1, (1 << 32) - 1])
def test_mask_reads_the_upper_half(threshold):
    expected = [int(word) >> 32 < threshold for word in WORDS]
    out = np.empty(WORDS.size, dtype=bool)
    assert draws.mask(WORDS, threshold, None, out=out).tolist() == expected and out.tolist() == expected
    values = torch.arange(WORDS.size)
    assert draws_torch.mask(signed(WORDS), threshold, values).tolist() == [-flag for flag in expected]


def test_mask_spares_what_is_ignored():
    ignored = np.arange(WORDS.size) % 2 == 0
    out = draws.mask(WORDS, 1 << 32, ignored, out=np.empty(WORDS.size, dtype=bool))
    # The largest word alone would not be below the threshold of a rate of 1.
    assert out.tolist() == [False, True] * 3 + [False]
    values = torch.from_numpy(np.where(ignored, -100, 3))
    assert draws_torch.mask(signed(WORDS), 1 << 32, values).tolist() == [0, -1] * 3 + [0]


@pytest.mark.parametrize("choices", [1, 2, 9, 1000, 1 << 20])
def test_scale_one_word_reads_the_lower_half(choices):
    expected = [(int(word) % 2**32) * choices >> 32 for word in WORDS]
    words = WORDS.copy()
    assert draws.scale_one_word(words, choices, out=np.empty_like(words)).tolist() == expected
    np.testing.assert_array_equal(words, WORDS)
    assert draws.scale(words, np.empty_like(words), choices).tolist() == expected
    assert draws_torch.scale_one_word(signed(WORDS), choices).tolist() == expected


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_put(dtype):
    values = np.array([1, 2, 3, 4], dtype=dtype)
    draws.put(values, np.array([9, 8, 7, 6]), np.array([True, False, True, False]))
    assert values.tolist() == [9, 2, 7, 4]


def test_integers_are_asked_for():
    draws_torch.check_integers("labels", torch.tensor([1], dtype=torch.uint8))
    for values in (torch.tensor([0.5]), torch.tensor([True]), torch.tensor([1j])):
        with pytest.raises(TypeError, match="labels must be integers, got torch"):
            draws_torch.check_integers("labels", values)
