"""The laws of replacements: their probabilities, their tails, and what is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from hf_noise.noise import GaussianDocuments, LabelFlips, UniformTokens
from hf_noise.trainers.token_laws import look_alikes, token_law

LOGITS = torch.tensor([[2.0, 0.0, 1.0, -1.0]])


def test_the_share_of_the_law_above_a_target_counts_half_of_the_target():
    uniform = token_law("uniform", 4)
    assert [uniform.tails(LOGITS, torch.tensor([y])).item() for y in (0, 2, 3)] == [0.125, 0.375, 0.875]
    given = token_law([0.1, 0.6, 0.0, 0.3], 4)
    # By logits beside log q: token 2 cannot be drawn, then 0, 1 (0 + 0.51), 3 (-1 + 1.2).
    assert [given.tails(LOGITS, torch.tensor([y])).item() for y in (2, 0, 1, 3)] == pytest.approx([0, 0.05, 0.4, 0.85])
    assert given.log_noise(LOGITS, torch.tensor([1])).exp().item() == pytest.approx(0.6)


def test_tails_of_what_the_law_draws_are_uniform():
    """Whatever the model says."""
    draw, q = np.random.default_rng(0), np.array([0.05, 0.25, 0.3, 0.4])
    logits = torch.from_numpy(draw.normal(size=(20000, 4))).float()
    tails = token_law(q, 4).tails(logits, torch.from_numpy(draw.choice(4, size=20000, p=q)))
    assert tails.mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_confusion_is_as_likely_as_what_it_may_stand_for():
    matrix = np.array([[0, 1, 0], [0.5, 0, 0.5], [0, 0, 1.0]])
    for given in (matrix, sparse.csr_matrix(matrix)):
        law, log_p = token_law(given, 3), torch.log(torch.tensor([[[0.2, 0.5, 0.3]]]))
        found = [law.log_noise(log_p, torch.tensor([[y]])).exp().item() for y in range(3)]
        assert found == pytest.approx([0.25, 0.2, 0.55])
        wrong = [law.log_wrong(log_p, torch.tensor([[y]])).exp().item() for y in range(3)]
        assert wrong == pytest.approx([0.25, 0.2, 0.25]) and law.stays(torch.arange(3)).tolist() == [0, 0, 1]
        drawn = law.sources(log_p.expand(1, 4000, 3), torch.full((1, 4000), 2), torch.Generator().manual_seed(0))
        assert (drawn == 1).all(), "2 in its own place is not wrong"
    both = token_law(np.array([[0.5, 0, 0.5], [0, 0, 1.0], [0.5, 0.5, 0]]), 3)
    drawn = both.sources(log_p.expand(1, 4000, 3), torch.full((1, 4000), 2), torch.Generator().manual_seed(0))
    assert (drawn == 1).float().mean().item() == pytest.approx(0.5 / 0.6, abs=0.03) and not (drawn == 2).any()


def test_look_alikes_share_one_character():
    vocabulary = {"cat": 0, "eat": 1, "dog": 2, "oat": 3, "clog": 4}
    matrix = look_alikes(vocabulary, 6, ("ce", "eo")).toarray()
    expected = np.eye(6)
    expected[[0, 1, 3]] = 0
    expected[0, 1] = expected[3, 1] = 1
    expected[1, [0, 3]] = 0.5
    np.testing.assert_allclose(matrix, expected)


def test_noises_stand_for_their_draws():
    assert token_law(UniformTokens(ratio=1.0, vocab_size=9), 9).name == "uniform"
    narrow = token_law(UniformTokens(ratio=1.0, vocab_size=3), 4)
    np.testing.assert_allclose(narrow.probabilities, [1 / 3, 1 / 3, 1 / 3, 0])
    noise = GaussianDocuments(alpha=0.1, vocab_size=300)
    np.testing.assert_allclose(token_law(noise, 300).probabilities, noise.probabilities(), atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gauss", 'kind must be "uniform"'), ("unigram", "needs counts"), ([0.5, 0.6, 0], "sum to 1"),
        ([0.5, 0.5], r"must be \[3\]"), (np.eye(2), r"\[3, 3\]"), (np.eye(3) / 2, "row 0 sums to 0.5"),
        (LabelFlips.symmetric(ratio=1.0, num_classes=3), "cannot be LabelFlips"), ([-1, 1, 1], ">= 0"),
        (UniformTokens(ratio=1.0, vocab_size=9), "draws from 9 tokens"), ({}, "kind must be a word"), (None, "a word"),
        (["a"], "must be real numbers"), ([np.nan, 1, 0], "sum to 1"),
    ],
)  # fmt: skip
def test_what_is_no_law(kind, message):
    with pytest.raises((TypeError, ValueError), match=message):
        token_law(kind, 3)


@pytest.mark.parametrize(("tokens", "pairs"), [({"a": 9}, ("ab",)), ({"a": 0}, ("abc",)), ({"a": 0}, (3,))])
def test_what_is_no_look_alike(tokens, pairs):
    with pytest.raises(ValueError, match="token ids must|two characters"):
        look_alikes(tokens, 3, pairs)
