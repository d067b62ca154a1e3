"""Objectives of language models: what they minimise, and where their rate is from."""

from __future__ import annotations

import pytest
import torch

from hf_noise.losses import clean_posterior, corrected_nll
from hf_noise.losses.learned_rate import INITIAL_ERROR_RATE, LearnedErrorRate
from hf_noise.noise import UniformTokens
from hf_noise.objectives import NLL, Corrected
from hf_noise.objectives.base import RunContext

GIVEN = torch.tensor([0.1, 4.0, 9.0])


def bound(objective, noise=None, was_given=True):
    return objective.bound(RunContext(noise=noise, was_given=was_given, num_classes=100))


def test_plain_loss_trusts_every_token():
    objective = bound(NLL())
    assert objective(GIVEN) is GIVEN
    assert objective.clean_posterior(GIVEN).tolist() == [1, 1, 1]
    assert objective.facts() == {"error_rate": 0.0, "source": "none"}


@pytest.mark.parametrize(
    ("stated", "rate", "source"), [("known", 0.5, "known"), (0.2, 0.2, "assumed"), ("learned", 0.1, "learned")]
)
def test_corrected_loss_with_each_source_of_the_rate(stated, rate, source):
    noise = UniformTokens(error_rate=0.5, vocab_size=80)  # of a model with 100 tokens: noise draws from 80
    objective = bound(Corrected(stated), noise)
    assert objective.facts() == {"error_rate": pytest.approx(rate), "source": source}
    assert ("learned_error_rate" in objective.logged()) == (objective.module is not None) == (stated == "learned")
    torch.testing.assert_close(objective(GIVEN), corrected_nll(GIVEN, error_rate=rate, vocab_size=80))
    torch.testing.assert_close(objective.clean_posterior(GIVEN), clean_posterior(GIVEN, error_rate=rate, vocab_size=80))


def test_vocabulary_is_the_models_where_no_noise_names_one():
    objective = bound(Corrected(0.5))
    torch.testing.assert_close(objective(GIVEN), corrected_nll(GIVEN, error_rate=0.5, vocab_size=100))


def test_learned_rate_is_one_trainable_number():
    rate = LearnedErrorRate()
    assert rate().item() == pytest.approx(INITIAL_ERROR_RATE)
    objective = bound(Corrected("learned"))
    objective(torch.full((10,), 12.0)).sum().backward()  # less likely than a uniform draw: more noise than assumed
    assert objective.module.logit.grad < 0


@pytest.mark.parametrize("initial", [0.0, 1.0, -0.1, 1e-320, 1 - 1e-16, float("nan"), "0.1", True])
def test_a_learned_rate_starts_inside_its_range(initial):
    """Also in float32, in which the sigmoid of its logit would be 0 or 1 and never move."""
    with pytest.raises((TypeError, ValueError), match="error.rate"):
        LearnedErrorRate(initial)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), "guessed", None, True])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises((TypeError, ValueError), match="error_rate"):
        Corrected(rate)


def test_a_rate_that_is_not_known_is_asked_for():
    none = UniformTokens(error_rate=0, vocab_size=80)
    with pytest.raises(ValueError, match='"known" takes e from the noise'):
        bound(Corrected())
    with pytest.raises(ValueError, match="would correct for e = 0"):
        bound(Corrected(), none, was_given=False)
    assert bound(Corrected(), none).error_rate == 0  # where it was asked for by name
