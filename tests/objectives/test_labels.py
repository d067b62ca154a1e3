"""Objectives of classifiers: through which matrix they go, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hf_noise.losses import transition_nll
from hf_noise.noise import LabelFlips
from hf_noise.objectives import CorrectedLabels, CrossEntropy, VolumePlan
from hf_noise.objectives.base import RunContext

NOISE = LabelFlips.symmetric(ratio=1.0, num_classes=3)
LOGITS, LABELS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.5, 3.0]]), torch.tensor([0, 1])


def bound(objective, noise=NOISE, **context):
    return objective.bound(RunContext(noise=noise, num_classes=3, **context))


def test_plain_cross_entropy_smooths_as_torch_does():
    for smoothing in (0.0, 0.2):
        expected = F.cross_entropy(LOGITS, LABELS, reduction="none", label_smoothing=smoothing)
        torch.testing.assert_close(bound(CrossEntropy(), smoothing=smoothing)(LOGITS, LABELS), expected)


@pytest.mark.parametrize(("transition", "source"), [("known", "known"), (NOISE.transition, "given")])
def test_a_fixed_matrix_is_the_noises_or_the_given_one(transition, source):
    objective = bound(CorrectedLabels(transition))
    assert objective.source == source and objective.module is None
    np.testing.assert_array_equal(objective.transition, NOISE.transition)
    expected = transition_nll(LOGITS, LABELS, torch.from_numpy(NOISE.transition).float())
    torch.testing.assert_close(objective(LOGITS, LABELS), expected)


def test_an_estimated_matrix_is_learned_beside_the_classifier():
    objective = bound(CorrectedLabels("estimated", VolumePlan(weight=0.5, initial_diagonal=0.6)))
    np.testing.assert_allclose(np.diag(objective.transition), 0.6, rtol=1e-6)
    assert objective.penalty(4).item() == pytest.approx(2 * np.linalg.slogdet(objective.transition).logabsdet, rel=1e-4)
    error = np.abs(objective.transition - NOISE.transition).mean()
    assert objective.logged() == {"transition_error": pytest.approx(error)}
    assert bound(CorrectedLabels("estimated"), None).logged() == {}
    with pytest.raises(ValueError, match='transition="estimated" is for trainers that learn beside their model'):
        bound(CorrectedLabels("estimated"), can_learn=False)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"transition": "guessed"}, ValueError, 'transition must be "known", "estimated", a matrix or None'),
        ({"transition": np.ones((3, 3))}, ValueError, "row 0 of the transition matrix sums to 3"),
        ({"volume": 3}, TypeError, "volume must be a VolumePlan or None, got 3"),
    ],
)
def test_what_is_no_matrix_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        CorrectedLabels(**given)


@pytest.mark.parametrize(("can_learn", "asked"), [(True, 'transition="known"'), (False, 'loss="corrected"')])
def test_a_matrix_that_is_not_known_is_asked_for(can_learn, asked):
    with pytest.raises(ValueError, match=f"{asked} takes T from the noise"):
        bound(CorrectedLabels(), None, can_learn=can_learn)
    none = LabelFlips.symmetric(ratio=0.0, num_classes=3)
    with pytest.raises(ValueError, match=f"{asked} would .* no noise at all"):
        bound(CorrectedLabels(), none, was_given=False, can_learn=can_learn)
    with pytest.raises(ValueError, match="transition has 4 classes, the model 3"):
        bound(CorrectedLabels(np.eye(4)))
