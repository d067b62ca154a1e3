"""The objective that a trainer's arguments name."""

from __future__ import annotations

import pytest
import torch

from hf_noise.losses import clean_posterior, corrected_nll
from hf_noise.noise import UniformTokens
from hf_noise.trainers.objective import INITIAL_ERROR_RATE, LearnedErrorRate, make_objective

NLL = torch.tensor([0.1, 4.0, 9.0])


def test_plain_loss_trusts_every_token():
    objective = make_objective("nll", "known", None, 100)
    assert objective(NLL) is NLL
    assert objective.clean_posterior(NLL).tolist() == [1, 1, 1]
    assert (objective.name, objective.error_rate, objective.source) == ("nll", 0.0, "none")


@pytest.mark.parametrize(
    ("stated", "rate", "source"), [("known", 0.5, "known"), (0.2, 0.2, "assumed"), ("learned", 0.1, "learned")]
)
def test_corrected_loss_with_each_source_of_the_rate(stated, rate, source):
    noise = UniformTokens(error_rate=0.5, vocab_size=80)  # of a model with 100 tokens: noise draws from 80
    objective = make_objective("corrected", stated, noise, 100)
    assert (objective.name, objective.source) == ("corrected", source)
    assert objective.error_rate == pytest.approx(rate)
    torch.testing.assert_close(objective(NLL), corrected_nll(NLL, error_rate=rate, vocab_size=80))
    torch.testing.assert_close(objective.clean_posterior(NLL), clean_posterior(NLL, error_rate=rate, vocab_size=80))


def test_vocabulary_is_the_models_where_no_noise_names_one():
    objective = make_objective("corrected", 0.5, None, 100)
    torch.testing.assert_close(objective(NLL), corrected_nll(NLL, error_rate=0.5, vocab_size=100))


def test_learned_rate_is_one_trainable_number():
    rate = LearnedErrorRate()
    assert rate().item() == pytest.approx(INITIAL_ERROR_RATE)
    objective = make_objective("corrected", "learned", None, 100)
    objective(torch.full((10,), 12.0)).sum().backward()  # less likely than a uniform draw: more noise than assumed
    assert objective.rate.logit.grad < 0


@pytest.mark.parametrize("initial", [0.0, 1.0, -0.1, 1e-320, 1 - 1e-16, float("nan"), "0.1", True])
def test_a_learned_rate_starts_inside_its_range(initial):
    """Also in float32, in which the sigmoid of its logit would be 0 or 1 and never move."""
    with pytest.raises((TypeError, ValueError), match="error.rate"):
        LearnedErrorRate(initial)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(ValueError, match="error_rate"):
        make_objective("corrected", rate, None, 100)
