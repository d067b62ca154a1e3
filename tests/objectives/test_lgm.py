"""Local Gradient Matching as an objective: of a head and features by hand, and in a trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from hf_noise.losses import local_gradient_matching, log_columns
from hf_noise.noise import LabelFlips
from hf_noise.noise.normals_torch import normals
from hf_noise.objectives import LGM
from hf_noise.objectives.base import Forward, RunContext
from hf_noise.trainers import ClassifierTrainer
from hf_noise.trainers.heads_stack import PERTURBATION_STREAM

NOISE = LabelFlips.symmetric(ratio=1.0, num_classes=3)
LABELS, IDS = torch.tensor([0, 2, 1, 1]), torch.tensor([7, 3, 9, 1])


@pytest.fixture
def passed():
    """`passed(**changed)`: a head's forward pass on four rows, as a trainer shows it."""
    torch.manual_seed(0)
    head, features = nn.Linear(5, 3), torch.randn(4, 5, requires_grad=True)

    def make(**changed):
        return Forward(**{"head": head, "features": features, "sample_ids": IDS, "epoch": 2, **changed})

    return make


@pytest.mark.parametrize("transition", [None, "known", NOISE.transition.tolist()], ids=["none", "known", "given"])
def test_the_penalty_is_added_to_each_row(passed, transition):
    objective = LGM(gamma=0.3, lam=0.5, transition=transition, seed=4)
    bound, told = objective.bound(RunContext(noise=NOISE, num_classes=3)), passed()
    logits = told.head(told.features)
    columns = None if transition is None else log_columns(torch.from_numpy(NOISE.transition)).float()
    losses = bound(logits, LABELS, told)
    noise = normals(4, PERTURBATION_STREAM, 2, IDS, 5)
    expected = local_gradient_matching(told.head, told.features, LABELS, gamma=0.3, lam=0.5, noise=noise,
                                       columns=columns)  # fmt: skip
    torch.testing.assert_close(losses.mean(), expected.loss)
    found = torch.autograd.grad(losses.mean(), [told.features, *told.head.parameters()])
    wanted = torch.autograd.grad(expected.loss, [told.features, *told.head.parameters()])
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one, other)
    assert bound.source == {None: "none", "known": "known"}.get(transition if not isinstance(transition, list) else 0,
                                                                "given")  # fmt: skip
    assert bound.logged()["gradient_difference"] == pytest.approx(expected.penalty.item())


@pytest.mark.parametrize("penalty", ["difference", "norm", "cosine"])
def test_what_is_logged_has_the_name_of_the_penalty(passed, penalty):
    bound, told = LGM(gamma=0.3, penalty=penalty).bound(RunContext(num_classes=3)), passed()
    bound(told.head(told.features), LABELS, told)
    (name,) = bound.logged()
    assert name == f"gradient_{penalty}"


def test_noise_is_that_of_sample_and_epoch(passed):
    bound = LGM(gamma=0.3, lam=1.0).bound(RunContext(num_classes=3))
    order = torch.tensor([2, 0, 3, 1])
    told = passed()
    logits = told.head(told.features)
    one = bound(logits, LABELS, told)
    turned = bound(logits[order], LABELS[order], passed(features=told.features[order], sample_ids=IDS[order]))
    torch.testing.assert_close(one[order], turned)
    assert not torch.equal(one, bound(logits, LABELS, passed(epoch=3)))


def test_without_a_weight_it_is_cross_entropy(passed):
    told = passed(head=None)
    logits = torch.randn(4, 3)
    bound = LGM(lam=0).bound(RunContext(num_classes=3))
    torch.testing.assert_close(bound(logits, LABELS, told), F.cross_entropy(logits, LABELS, reduction="none"))
    assert bound.logged() == {}


def test_what_a_run_lacks_is_asked_for(passed):
    bound = LGM().bound(RunContext(num_classes=3))
    logits = torch.randn(4, 3)
    for changed in ({"head": None}, {"features": None}):
        with pytest.raises(ValueError, match="the trainer knows of none; pass head="):
            bound(logits, LABELS, passed(**changed))
    with pytest.raises(ValueError, match="LGM draws perturbations by sample id, and the rows have none"):
        bound(logits, LABELS, passed(sample_ids=None))
    with pytest.raises(ValueError, match="takes T from the noise, and the trainer was given none"):
        LGM(transition="known").bound(RunContext(num_classes=3))
    with pytest.raises(ValueError, match="transition has 2 classes, the model 3"):
        LGM(transition=np.eye(2)).bound(RunContext(num_classes=3))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"gamma": -1}, ValueError, r"gamma must lie in \[0, inf\), got -1"),
        ({"lam": float("nan")}, ValueError, "lam must lie in"), ({"lam": "1"}, TypeError, "lam must be a real number"),
        ({"penalty": "angle"}, ValueError, "penalty must be one of 'difference', 'norm', 'cosine'"),
        ({"transition": "estimated"}, ValueError, 'transition must be None, "known" or a matrix'),
        ({"transition": "guessed"}, ValueError, "transition must be"),
        ({"transition": [[1, 1], [0, 1]]}, ValueError, "row 0 of the transition matrix sums to 2"),
        ({"gamma_relative": 1}, TypeError, "gamma_relative must be True or False"),
        ({"seed": -1}, ValueError, "seed must"),
    ],
)  # fmt: skip
def test_fields_that_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        LGM(**fields)


def test_sentences():
    assert LGM().sentence == (
        "cross-entropy plus 0.15 times the distance of the head's gradients on its features and on perturbed ones "
        "(Local Gradient Matching, gamma = 0.01)."
    )
    assert "through the transition matrix T" in LGM(transition="known").sentence
    assert "gamma = 0.5 mean standard deviations" in LGM(0.5, gamma_relative=True).sentence


def test_a_classifier_of_transformers_is_trained_with_it(tmp_path):
    """Its trainer shows head, features, ids and epoch; the loss that it reports is that of the public function."""
    draw = np.random.default_rng(0)
    rows = Dataset.from_dict({"input_ids": draw.integers(0, 30, (16, 6)).tolist(), "labels": (draw.integers(0, 3, 16)),
                              "sample_id": list(range(16))})  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                        num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # fmt: skip
    model = BertForSequenceClassification(config)
    args = TrainingArguments(tmp_path, max_steps=2, per_device_train_batch_size=16, report_to=[], disable_tqdm=True,
                             logging_steps=1, save_strategy="no", use_cpu=True, learning_rate=1e-3)  # fmt: skip
    ids = torch.tensor(rows["input_ids"])
    pooled = model.bert(ids).pooler_output
    noise = normals(0, PERTURBATION_STREAM, 0, torch.arange(16), 8)
    expected = local_gradient_matching(model.classifier, pooled, torch.tensor(rows["labels"]), gamma=0.2, lam=0.5,
                                       noise=noise).loss.item()  # fmt: skip
    trainer = ClassifierTrainer(model, args, loss=LGM(gamma=0.2, lam=0.5), train_dataset=rows)
    trainer.train()
    first = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert first["loss"] == pytest.approx(expected, rel=1e-3)
    assert first["gradient_difference"] > 0
    assert model.config.hf_noise_objective["name"] == "lgm"
