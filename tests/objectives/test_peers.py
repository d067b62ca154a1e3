"""Objectives that others published for noisy text, bound to a run without a trainer."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from hf_noise import losses
from hf_noise.objectives import GCE, DocumentMixture, ErrorNorm, Smoothed, Truncated, objectives
from hf_noise.objectives.base import RunContext

LOGITS = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
TARGETS = torch.tensor([[0, 2, 1, -100]])  # sure and right, sure and wrong, undecided, none
NLL = F.cross_entropy(LOGITS[0], TARGETS[0], reduction="none")[None]


def bound(objective):
    return objective.bound(RunContext(num_classes=3))


class OneProcess:
    """What an objective asks of an accelerator."""

    @staticmethod
    def reduce(values):
        return values


def test_those_without_a_state_are_their_losses():
    assert torch.equal(bound(GCE(0.3))(NLL), losses.generalised_cross_entropy(NLL, 0.3))
    torch.testing.assert_close(
        bound(Smoothed(0.2))(NLL, LOGITS, TARGETS), losses.smoothed_nll(NLL, LOGITS, TARGETS, 0.2)
    )


def test_error_norms_drop_what_the_model_is_sure_is_wrong_and_not_what_it_does_not_know():
    objective = bound(ErrorNorm(threshold=1.2, start=0.5))
    assert objective(NLL, LOGITS, TARGETS).tolist() == [[*NLL[0, :1].tolist(), 0, *NLL[0, 2:].tolist()]]
    objective.after_step(OneProcess)
    assert objective.facts() == {"source": "none", "dropped": 1 / 3} and objective.logged() == {"dropped": 1 / 3}
    objective.before_step(0.25)  # the start is still to come
    assert torch.equal(objective(NLL, LOGITS, TARGETS), NLL)
    objective.module.eval()
    objective(NLL, LOGITS, TARGETS)
    objective.after_step(OneProcess)
    assert objective.facts()["dropped"] == 1 / 6, "an evaluation does not count"


@pytest.mark.parametrize(("drops", "kept"), [("tokens", [[1, 0], [2, 3]]), ("rows", [[0, 0], [2, 3]])])
def test_truncation_waits_for_its_start_and_for_what_it_knows(drops, kept):
    """Half of four losses lie above 2.5; of two rows the one with the mean of 5."""
    nll, targets = torch.tensor([[1.0, 9.0], [2.0, 3.0]]), torch.tensor([[0, 0], [0, 0]])
    objective = bound(Truncated(0.5 if drops == "rows" else 0.25, drops=drops, start=0.5))
    for progress in (0.0, 0.25):
        objective.before_step(progress)
        assert torch.equal(objective(nll, targets), nll) and objective.logged() == {"dropped": 0}
        objective.after_step(OneProcess)
    objective.before_step(0.5)
    for _ in range(2):  # micro-batches of one step, under one threshold
        assert objective(nll, targets).tolist() == kept
    objective.after_step(OneProcess)
    dropped = sum(row.count(0) for row in kept)
    assert objective.facts()["dropped"] == dropped * 2 / 16
    assert objective.logged()["loss_threshold"] == pytest.approx(3 if drops == "tokens" else 2.5, abs=1 / 32)
    fresh = bound(Truncated(0.5, start=0))
    fresh.before_step(0.0)
    assert torch.equal(fresh(nll, targets), nll), "nothing is known yet"


def test_a_fraction_of_nothing_is_the_likelihood():
    objective = bound(Truncated(0, start=0))
    objective(NLL, TARGETS)
    objective.after_step(OneProcess)
    objective.before_step(0.9)
    assert torch.equal(objective(10 * NLL, TARGETS), 10 * NLL)


@pytest.mark.parametrize("cls", [GCE, Smoothed, Truncated, ErrorNorm])
def test_a_study_can_try_three_settings_of_each(cls):
    field, values = cls.tuned
    made = {dataclasses.replace(cls(), **{field: value}) for value in values}
    assert len(made) == 3 and sorted(values) == list(values)
    assert len({objective.sentence for objective in made}) == 3


def test_only_what_is_a_likelihood_may_be_logged_as_one():
    assert {cls.name for cls in objectives("tokens") if cls.is_nll} == {"nll", "corrected"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda value: GCE(value), r"q must .*\[0, 1\]"),
        (lambda value: Smoothed(value), r"smoothing must .*\[0, 1\)"),
        (lambda value: Truncated(value), r"fraction must .*\[0, 1\)"),
        (lambda value: Truncated(start=value), r"start must .*\[0, 1\)"),
        (lambda value: ErrorNorm(start=value), r"start must .*\[0, 1\)"),
        (lambda value: ErrorNorm(value), r"threshold must .*\(0, 1.4142"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    for value in (-0.1, 1.5, math.nan, math.inf):
        with pytest.raises(ValueError, match=message):
            make(value)
    for value in (True, "0.5", None):
        with pytest.raises(TypeError, match="must be a real number"):
            make(value)


def test_settings_of_a_document_mixture_are_refused():
    for alpha in ("guessed", 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="alpha must"):
            DocumentMixture(alpha)
    with pytest.raises(ValueError, match='noise must be "known" or "unigram", got \'bigram\''):
        DocumentMixture(noise="bigram")
    assert DocumentMixture("learned", "unigram").learns == 'alpha="learned" and noise="unigram"'
    assert DocumentMixture(0.1).learns is None
    assert DocumentMixture(0.1, "unigram").sentence.endswith(
        "a unigram model that is learned), alpha = 0.1 (assumed), after 10% of the steps."
    )


def test_other_settings_of_truncation_are_refused():
    with pytest.raises(ValueError, match='drops must be "tokens" or "rows", got \'words\''):
        Truncated(drops="words")
    for memory, error in ((0, ValueError), (1 << 16, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="memory must"):
            Truncated(memory=memory)
