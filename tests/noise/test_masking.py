"""BERT's masking: which tokens are predicted and what stands there, a pure function, on arrays and tensors alike."""

import dataclasses
import json
import math
import os
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from hf_noise.noise import Masking, UniformTokens, counter
from hf_noise.noise.base import known_noises
from hf_noise.noise.masking import BLOCK
from hf_noise.noise.masking_torch import mask

IGNORED = -100
GOLDEN = (
    [1000, 1, 2, 1000, 4, 5, 1000, 7, 8, 9, 10, 1000],
    [0, -100, -100, 3, -100, -100, 6, -100, -100, -100, 10, 11],
)
EVALUATION = (
    [1000, 1000, 2, 1000, 128, 5, 6, 1000, 8, 1000, 1000, 11],
    [0, 1, -100, 3, 4, -100, 6, 7, -100, 9, 10, -100],
)
HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))
FALSE_ALARMS = 1e-6  # of each test of a rate, were its seed not fixed


def by_hand(masking, tokens, targets, sample, epoch=0, evaluation=False):
    """The algorithm token by token in Python integers: (inputs, targets)."""
    seed, stream, of = (0, 49, 0) if evaluation else (masking.seed, 48, epoch)
    row = counter.mix((counter.stream_key(seed, stream, of) ^ (sample % 2**64)) + counter.GOLDEN)
    p, mask_share, random_share = masking.probability, masking.mask_share, masking.random_share
    read, predicted = [], []
    for index, (token, target) in enumerate(zip(tokens, targets, strict=True)):
        word = counter.mix(row + (index + 1) * counter.GOLDEN)
        upper, lower = divmod(word, 2**32)
        special = token in masking.special_tokens or token == masking.mask_token
        if upper >= round(p * 2**32) or target == IGNORED or special:
            read.append(token)
            predicted.append(IGNORED)
            continue
        predicted.append(target)
        if upper < round(p * mask_share * 2**32):
            read.append(masking.mask_token)
        elif upper < min(round(p * 2**32), round(p * (mask_share + random_share) * 2**32)):
            read.append(lower * masking.vocab_size >> 32)
        else:
            read.append(token)
    return read, predicted


@st.composite
def maskings(draw):
    size = draw(st.sampled_from([1, 2, 65, 1 << 20]))
    shares = draw(st.sampled_from([(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.25)]))
    return Masking(
        vocab_size=size, mask_token=draw(st.sampled_from([0, size // 2, size])),
        probability=draw(st.sampled_from([0.01, 0.15, 0.5, 0.99])), mask_share=shares[0], random_share=shares[1],
        special_tokens=draw(st.sampled_from([(), (0,), (0, size)])), seed=draw(st.sampled_from([0, 1, 2**63 - 1])),
    )  # fmt: skip


def rows(masking, shape, seed=0, dtype=np.int64):
    """Tokens, and targets of which some are other tokens and some are none."""
    draw = np.random.default_rng(seed)
    tokens, targets = (draw.integers(0, masking.vocab_size, shape).astype(dtype) for _ in range(2))
    targets = np.where(draw.random(shape) < 0.2, targets, tokens).astype(np.int64)
    return tokens, np.where(draw.random(shape) < 0.1, IGNORED, targets)


def test_golden_values():
    # Committed draws: if they change, so does what every published model was trained on and measured at; then
    # `Masking.version` must rise.
    masking = Masking(vocab_size=1000, mask_token=1000, probability=0.5, special_tokens=[2], seed=7)
    inputs, targets = masking(np.arange(12), sample=3, epoch=2)
    assert (inputs.tolist(), targets.tolist()) == GOLDEN
    inputs, targets = masking(np.arange(12), sample=3, epoch=2, evaluation=True)
    assert (inputs.tolist(), targets.tolist()) == EVALUATION


@settings(max_examples=60, deadline=None)
@given(maskings(), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 5), st.booleans())
def test_numpy_equals_the_algorithm_by_hand(masking, sample, epoch, evaluation):
    tokens, targets = rows(masking, 40)
    found = masking(tokens, sample, epoch, targets=targets, evaluation=evaluation)
    expected = by_hand(masking, tokens.tolist(), targets.tolist(), sample, epoch, evaluation)
    assert tuple(one.tolist() for one in found) == expected


@settings(max_examples=40, deadline=None)
@given(
    maskings(), st.sampled_from(["int32", "int64", "uint16"]), st.lists(st.integers(0, 4), max_size=2),
    st.integers(0, 3), st.booleans(), st.booleans(),
)  # fmt: skip
def test_numpy_equals_torch(masking, dtype, shape, epoch, evaluation, others):
    if masking.num_tokens - 1 > np.iinfo(dtype).max:
        dtype = "int32"
    tokens, targets = rows(masking, (*shape, 19), dtype=dtype)
    targets = targets if others else None
    sample = np.arange(0, 1009 * math.prod(shape), 1009).reshape(shape)
    ours = masking(tokens, sample, epoch, targets=targets, evaluation=evaluation)
    tensors = [None if one is None else torch.from_numpy(one) for one in (tokens, sample, targets)]
    theirs = masking(*tensors[:2], epoch, targets=tensors[2], evaluation=evaluation)
    assert ours[0].dtype == dtype and theirs[0].dtype == getattr(torch, dtype)
    assert ours[1].dtype == np.int64 and theirs[1].dtype == torch.int64
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == tokens.shape
        np.testing.assert_array_equal(one, other.numpy())


@settings(max_examples=25, deadline=None)
@given(maskings(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_masks_depend_on_no_batch_or_order(masking, epoch, random):
    tokens, targets = rows(masking, (9, 33))
    sample = np.arange(9) * 7 - 20
    whole = masking(tokens, sample, epoch, targets=targets)
    order = list(range(9))
    random.shuffle(order)
    cut = random.randrange(10)
    for part in (order[:cut], order[cut:]):
        found = masking(tokens[part], sample[part], epoch, targets=targets[part])
        for one, other in zip(found, whole, strict=True):
            np.testing.assert_array_equal(one, other[part])
    # The beginning of a row does not know its end, so that padding changes nothing.
    for one, other in zip(masking(tokens[:, :20], sample, epoch, targets=targets[:, :20]), whole, strict=True):
        np.testing.assert_array_equal(one, other[:, :20])


@pytest.mark.parametrize("length", [BLOCK - 1, 2 * BLOCK + 5])
def test_rows_longer_than_a_block(length):
    masking = Masking(vocab_size=50, mask_token=50, special_tokens=[4], seed=5)
    tokens, targets = rows(masking, (2, length))
    for i, found in enumerate(zip(*masking(tokens, np.array([8, 9]), targets=targets), strict=True)):
        expected = by_hand(masking, tokens[i].tolist(), targets[i].tolist(), 8 + i)
        assert tuple(one.tolist() for one in found) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_gpu_equals_numpy(compiled):
    masking = Masking(vocab_size=30522, mask_token=103, special_tokens=[0, 101, 102], seed=5)
    tokens, targets = rows(masking, (64, 500))
    sample = np.arange(64) * (1 << 40)
    on_gpu = [torch.from_numpy(one).cuda() for one in (tokens, sample, targets)]
    found = mask(masking, *on_gpu[:2], 3, targets=on_gpu[2], compiled=compiled)
    for one, other in zip(masking(tokens, sample, 3, targets=targets), found, strict=True):
        assert other.is_cuda
        np.testing.assert_array_equal(one, other.cpu().numpy())


@pytest.mark.skipif(not HAS_COMPILER, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_equals_numpy():
    masking = Masking(vocab_size=30522, mask_token=103, special_tokens=[0, 101, 102], seed=5)
    tokens, targets = rows(masking, (3, 64))
    sample = np.array([4, -1, 1 << 40])
    for epoch, evaluation in ((0, False), (7, False), (7, True)):
        expected = masking(tokens, sample, epoch, targets=targets, evaluation=evaluation)
        tensors = [torch.from_numpy(one) for one in (tokens, sample, targets)]
        found = mask(masking, *tensors[:2], epoch, targets=tensors[2], evaluation=evaluation, compiled=True)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other.numpy())


@pytest.mark.parametrize("of_tensors", [False, True])
def test_shares_are_those_asked_for(of_tensors):
    """Each share of a million tokens, which are no mask token and so show what became of them."""
    masking = Masking(vocab_size=30000, mask_token=30000, seed=11)
    tokens, sample = np.full((1000, 1000), 12345), np.arange(1000)
    if of_tensors:
        found = masking(torch.from_numpy(tokens), torch.from_numpy(sample), 4)
        inputs, targets = (one.numpy() for one in found)
    else:
        inputs, targets = masking(tokens, sample, 4)
    predicted = targets != IGNORED
    n = int(predicted.sum())
    assert (targets[predicted] == 12345).all() and (inputs[~predicted] == 12345).all()
    read = inputs[predicted]
    is_mask, is_kept = read == 30000, read == 12345
    random = read[~is_mask & ~is_kept]
    shares = [(n, tokens.size, 0.15), (is_mask.sum(), n, 0.8), (random.size, n, 0.1 * (1 - 1 / 30000)),
              (is_kept.sum(), n, 0.1 + 0.1 / 30000), ((random < 15000).sum(), random.size, 0.5)]  # fmt: skip
    for found, of, share in shares:
        assert binomtest(int(found), int(of), share).pvalue > FALSE_ALARMS
    # No position or row has more of them: the largest of 1000 sums of 1000 draws each is within Bonferroni's bound.
    for axis in (0, 1):
        most = int(predicted.sum(axis).max())
        assert binomtest(most, 1000, 0.15, alternative="greater").pvalue > FALSE_ALARMS / 1000


def test_epochs_seeds_streams_and_evaluations_draw_apart():
    masking, tokens, sample = Masking(vocab_size=9, mask_token=9, seed=3), np.zeros((50, 400), int), np.arange(50)
    other = dataclasses.replace(masking, seed=4)
    drawn = {
        "first": masking(tokens, sample)[1] == 0, "next epoch": masking(tokens, sample, 1)[1] == 0,
        "seed": other(tokens, sample)[1] == 0, "evaluation": masking(tokens, sample, evaluation=True)[1] == 0,
        "noise": UniformTokens(error_rate=0.15, vocab_size=9, seed=3)(tokens, sample)[1],
    }  # fmt: skip
    names = list(drawn)
    for i, one in enumerate(names):
        for two in names[:i]:
            both = int((drawn[one] & drawn[two]).sum())
            assert binomtest(both, tokens.size, 0.15**2).pvalue > FALSE_ALARMS, (one, two)
    # Models of any seed and after any epoch are measured at the same positions.
    for one, epoch in ((masking, 7), (other, 0), (other, 9)):
        again = one(tokens, sample, epoch, evaluation=True)[1] == 0
        np.testing.assert_array_equal(again, drawn["evaluation"])


def test_what_is_never_masked():
    masking = Masking(vocab_size=10, mask_token=3, probability=0.99, special_tokens=[0, 5])
    assert masking.never == (0, 3, 5)
    tokens = np.tile(np.arange(10), (20, 20))
    inputs, targets = masking(tokens, np.arange(20))
    kept = np.isin(tokens, masking.never)
    assert (targets[kept] == IGNORED).all() and (inputs[kept] == tokens[kept]).all()
    assert (targets[~kept] != IGNORED).mean() > 0.9
    none = masking(tokens, np.arange(20), targets=np.full_like(tokens, IGNORED))
    np.testing.assert_array_equal(none[0], tokens)
    assert (none[1] == IGNORED).all()


def test_noisy_targets_leave_what_is_read_alone():
    masking, draw = Masking(vocab_size=40, mask_token=40, probability=0.4), np.random.default_rng(0)
    tokens, sample = draw.integers(0, 40, (30, 50)), np.arange(30)
    noisy, is_noisy = UniformTokens(error_rate=0.5, vocab_size=40, exclude_original=True)(tokens, sample)
    clean, with_noise = masking(tokens, sample), masking(tokens, sample, targets=noisy)
    np.testing.assert_array_equal(clean[0], with_noise[0])
    predicted = clean[1] != IGNORED
    np.testing.assert_array_equal(with_noise[1], np.where(predicted, noisy, IGNORED))
    # Noise of a position does not look at its neighbours: drawn before or after masking, it is the same.
    after, mark = UniformTokens(error_rate=0.5, vocab_size=40, exclude_original=True)(clean[1], sample)
    np.testing.assert_array_equal(after, with_noise[1])
    np.testing.assert_array_equal(mark, is_noisy & predicted)


def test_arrays_are_left_as_they_were_and_may_be_read_only_views():
    masking = Masking(vocab_size=10, mask_token=10, probability=0.9)
    tokens = np.arange(80).reshape(8, 10)[::2, ::-1] % 10
    before = tokens.copy()
    tokens.flags.writeable = False
    inputs, _ = masking(tokens, np.arange(4))
    np.testing.assert_array_equal(tokens, before)
    np.testing.assert_array_equal(inputs, masking(before, np.arange(4))[0])
    for empty in (np.zeros((0, 5), int), np.zeros((3, 0), int)):
        assert [one.shape for one in masking(empty, np.arange(len(empty)))] == [empty.shape] * 2


@given(maskings())
@settings(max_examples=30, deadline=None)
def test_it_comes_back_from_json_and_pickle(masking):
    again = Masking.from_dict(json.loads(json.dumps(masking.to_dict())))
    assert again == masking == pickle.loads(pickle.dumps(masking)) and hash(again) == hash(masking)
    assert again.to_dict() == masking.to_dict()


def test_it_is_a_value_beside_the_noises():
    masking = Masking(vocab_size=10, mask_token=np.int64(10), special_tokens=np.array([5, 0, 5]), seed=2)
    assert masking.special_tokens == (0, 5) and type(masking.mask_token) is int and masking.num_tokens == 11
    assert Masking(vocab_size=10, mask_token=4).num_tokens == 10
    assert masking.sentence == (
        "0.15 of the tokens are masked and predicted, drawn anew in every epoch (seed 2): 0.8 of these are read as the "
        "mask token, 0.1 as a random token, 0.1 as they are."
    )
    streams = {noise.stream for noise in known_noises() if hasattr(noise, "stream")}
    assert not streams & {Masking.stream, Masking.evaluation_stream}


def test_of_a_tokenizer():
    def words():
        model = WordLevel({str(i): i for i in range(300)}, unk_token="0")
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), eos_token="7")

    tokenizer = words()
    with pytest.raises(ValueError, match='has no mask token; give mask_token="beyond" for the id 300, which is free'):
        Masking.of_tokenizer(tokenizer)
    masking = Masking.of_tokenizer(tokenizer, mask_token="beyond", seed=3)
    assert (masking.vocab_size, masking.mask_token, masking.num_tokens, masking.seed) == (300, 300, 301, 3)
    assert masking.special_tokens == (tokenizer.eos_token_id,)
    assert Masking.of_tokenizer(tokenizer, mask_token=7).mask_token == 7

    named = words()
    named.add_special_tokens({"mask_token": "<mask>"})
    masking = Masking.of_tokenizer(named, probability=0.3)
    assert (masking.mask_token, masking.vocab_size, masking.probability) == (300, 301, 0.3)
    assert masking.special_tokens == (named.eos_token_id, 300)
    with pytest.raises(ValueError, match='has a mask token, 300; leave mask_token="beyond" out'):
        Masking.of_tokenizer(named, mask_token="beyond")
    with pytest.raises(ValueError, match='mask_token must be "beyond", an id or None, got \'after\''):
        Masking.of_tokenizer(tokenizer, mask_token="after")
    with pytest.raises(TypeError, match="tokenizer must be one of transformers, got namespace"):
        Masking.of_tokenizer(SimpleNamespace(mask_token_id=3))


VALID = {"vocab_size": 10, "mask_token": 10}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_token": 11}, r"mask_token must lie in \[0, 10\], got 11: one of the ids 0 to 9 .*or 10 for one"),
        ({"mask_token": -1}, r"mask_token must lie in \[0, 10\], got -1"),
        ({"mask_token": None}, "mask_token must be an integer, got None"),
        ({"vocab_size": 0}, r"vocab_size must lie in \[1, 2\^20\], got 0"),
        ({"vocab_size": (1 << 20) + 1}, r"vocab_size must lie in \[1, 2\^20\]"),
        *(({"probability": p}, r"probability must lie in \(0, 1\), got ") for p in (0, 1, -0.1, 2**-40, math.nan, 1.5)),
        ({"probability": "0.15"}, "probability must be a real number"),
        ({"mask_share": 1.1}, r"mask_share must lie in \[0, 1\], got 1.1"),
        ({"random_share": math.nan}, r"random_share must lie in \[0, 1\], got nan"),
        ({"mask_share": 0.8, "random_share": 0.3}, "at most 1 together, got 0.8 and 0.3"),
        ({"special_tokens": [11]}, r"special_tokens must be ids in \[0, 10\], got 11"),
        ({"special_tokens": [-1]}, r"special_tokens must be ids in \[0, 10\], got -1"),
        *(({"special_tokens": s}, "special_tokens must be a list of ids, got ") for s in (3, b"1", np.array(1), "1")),
        ({"special_tokens": [1.0]}, "each of special_tokens must be an integer, got 1.0"),
        ({"seed": -1}, r"seed must lie in \[0, 2\^63\), got -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Masking(**(VALID | changes))


@pytest.mark.parametrize("of_tensors", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": np.full((2, 3), 11)}, r"token 11 is outside \[0, 11\)"),
        ({"tokens": np.full((2, 3), -100)}, "tokens hold -100, which no model can read"),
        ({"tokens": np.zeros((2, 3), np.int8), "masking": Masking(vocab_size=200, mask_token=0)}, "int8 cannot hold"),
        ({"tokens": np.zeros((2, 3))}, "tokens must be integers, got"),
        ({"sample": np.arange(3)}, r"tokens have shape \[2, 3\], sample has \[3\]"),
        ({"sample": np.zeros(2)}, "sample must be integers"),
        ({"targets": np.zeros((2, 4), int)}, r"targets must have the shape of the tokens, \[2, 3\], got \[2, 4\]"),
        ({"targets": np.full((2, 3), 99)}, r"token 99 is outside \[0, 11\)"),
        ({"targets": np.full((2, 3), -7, np.int8), "masking": Masking(vocab_size=200, mask_token=0)}, "int8 cannot"),
        ({"targets": np.zeros((2, 3))}, "targets must be integers"),
        ({"epoch": -1}, r"epoch must lie in \[0, 2\^63\), got -1"),
        ({"evaluation": 1}, "evaluation must be True or False, got 1"),
    ],
)
def test_rows_that_cannot_be_masked_are_refused(changes, message, of_tensors):
    call = {"tokens": np.zeros((2, 3), int), "sample": np.arange(2)} | changes
    masking = call.pop("masking", Masking(**VALID))
    if of_tensors:
        call = {name: torch.from_numpy(one) if isinstance(one, np.ndarray) else one for name, one in call.items()}
    with pytest.raises((ValueError, TypeError), match=message):
        masking(**call)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "a masking is stored as a dictionary"),
        ({"version": 2}, "written in version 2 and this hf_noise draws version 1"),
        ({"share": 1}, "a masking has no field share"),
        ({"seed": None}, "seed must be an integer, got None"),
    ],
)
def test_dictionaries_that_are_none_are_refused(config, message):
    if isinstance(config, dict):
        config = Masking(**VALID).to_dict() | config
    with pytest.raises((ValueError, TypeError), match=message):
        Masking.from_dict(config)
    with pytest.raises(ValueError, match="the masking needs the field vocab_size"):
        Masking.from_dict({"version": 1, **{k: v for k, v in Masking(**VALID).to_dict().items() if k != "vocab_size"}})
