"""Training with `SequenceMixture`: what a trainer on tokens hands over, rows told apart, refusals by name."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hf_noise.losses import sequence_mixture_nll
from hf_noise.noise.teacher import Decoding, Teacher
from hf_noise.objectives import SequenceMixture
from hf_noise.objectives.base import Forward, RunContext
from hf_noise.trainers.collate import collate_rows
from hf_noise.trainers.sequence_audit import audit_sequences, doubt_of, score_sequences

V, L = 64, 16


class Sequences:
    """As much of a noise on whole sequences as an objective asks for."""

    unit, error_rate = "sequences", 0.4
    teacher = Teacher(name="t", sha256="0" * 64, decoding=Decoding(method="sample"))


def bound(objective, noise=None, **context):
    return objective.bound(RunContext(noise=noise, num_classes=V, **context))


def forward(teacher_nll, **inputs):
    return Forward(inputs={"teacher_nll": torch.tensor(teacher_nll), **inputs}, sample_ids=torch.tensor([7, 9]))


TARGETS = torch.tensor([[3, 5, -100], [-100, -100, -100]])
NLL = torch.tensor([[2.0, 4.0, 9.0], [9.0, 9.0, 9.0]])


class OneProcess:
    reduce = staticmethod(lambda values: values)


def test_the_likelihood_of_the_teachers_rows_by_hand():
    loss = bound(SequenceMixture(other="teacher"), Sequences())
    seen = forward([5.0, 3.0])
    assert torch.equal(loss(NLL, TARGETS, seen), NLL), "the model is still behind the teacher"
    assert loss.facts() == {
        "source": "known", "error_rate": 0.4, "other": "teacher", "evidence": "likelihood", "has_begun": 0,
    }  # fmt: skip
    assert "did not come to find rows likelier" in loss.told_apart(np.ones(1), np.ones(1), np.ones(1)).doubt
    assert "It never began" in SequenceMixture().told(loss.facts(), "seq2seq")
    loss.module.scores.has_begun.fill_(True)
    assert "It never began" not in SequenceMixture().told(loss.facts(), "seq2seq")
    parts = loss(NLL, TARGETS, seen)
    assert parts[0].sum().item() == pytest.approx(-np.log(0.6 * np.exp(-6) + 0.4 * np.exp(-5)))
    assert (parts[TARGETS < 0] == 0).all()
    told = loss.told_apart(np.array([6.0, 0.0]), np.array([5.0, 0.0]), np.array([2, 0]))
    np.testing.assert_allclose(told.log_odds, [np.log(0.6 / 0.4) - 1, np.log(0.6 / 0.4)])
    assert told.doubt is None
    loss.before_step(0.05)
    assert torch.equal(loss(NLL, TARGETS, seen), NLL), "the start is still to come"


@pytest.mark.parametrize("evidence", ["auto", "likelihood", "scores"])
def test_a_rate_of_nothing_is_the_likelihood(evidence):
    loss = bound(SequenceMixture(0, evidence=evidence))
    assert loss.module is None and torch.equal(loss(NLL, TARGETS, forward([5.0, 3.0])), NLL)


@pytest.mark.parametrize("other", ["learned", "unigram"])
def test_at_a_rate_of_nothing_all_rows_are_clean(other):
    loss, seen = bound(SequenceMixture(0.0, other=other)), forward([5.0, 3.0])
    assert loss.of_other(TARGETS, seen).isnan().all()
    told = loss.told_apart(np.ones(2), np.full(2, np.nan), np.ones(2))
    assert told.log_odds.tolist() == [np.inf, np.inf] and told.doubt is None


def test_rows_weigh_what_their_scores_say():
    """Rows of two targets: half are 2 nats a token likelier under the teacher, and are left out when it starts."""
    loss = bound(SequenceMixture(0.5, evidence="scores", start=0.5))
    draw = torch.Generator().manual_seed(0)
    nll = (3 + 0.1 * torch.randn(64, 2, generator=draw)).requires_grad_()
    is_others = torch.arange(64) % 2 == 1
    seen = Forward(inputs={"teacher_nll": 2 * torch.where(is_others, 1.0, 5.0)})
    targets = torch.zeros(64, 2, dtype=torch.long)
    loss.before_step(0.4)
    assert torch.equal(loss(nll, targets, seen), nll)
    loss.after_step(OneProcess)
    loss.before_step(0.5)
    (found,) = torch.autograd.grad(loss(nll, targets, seen).sum(), nll)
    torch.testing.assert_close(found, (~is_others).float().unsqueeze(-1).expand(64, 2), rtol=0, atol=1e-3)
    weights = loss.module.scores.clean_posterior(-seen.inputs["teacher_nll"] / 2)
    assert ((weights > 0.5) == ~is_others).all()
    loss.after_step(OneProcess)
    loss.module.eval()
    before = loss.module.scores.counts.clone()
    loss(nll, targets, seen)
    loss.after_step(OneProcess)
    assert torch.equal(before, loss.module.scores.counts), "an evaluation does not count"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_teacher_nll_that_is_none_is_refused(value):
    loss = bound(SequenceMixture(0.5, evidence="scores"))
    with pytest.raises(ValueError, match=r"teacher_nll must be finite and >= 0, got .* \(sample_id 9\)"):
        loss(NLL, TARGETS, forward([5.0, value]))


@pytest.mark.parametrize(
    ("noise", "context", "message"),
    [
        (None, {}, 'error_rate="known" takes e from a noise of sequences, and the trainer was given none'),
        (type("Other", (), {"unit": "tokens"})(), {}, "and Other is noise on tokens"),
        (type("Clean", (), {"unit": "sequences", "error_rate": 0})(), {"was_given": False}, "would look for no noise"),
    ],
)
def test_a_rate_that_is_not_known_is_refused(noise, context, message):
    with pytest.raises(ValueError, match=message):
        bound(SequenceMixture(), noise, **context)


def rows(n=32):
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, V, (n, L))
    return [{"input_ids": row, "labels": row, "sample_id": 3 * i} for i, row in enumerate(tokens)]


def test_a_trainer_hands_over_the_columns_of_the_batch(make_trainer):
    trainer = make_trainer(rows(), loss=SequenceMixture(0.3, evidence="likelihood"))
    batch = collate_rows(rows()[:4])
    with pytest.raises(ValueError, match="rows have no column teacher_nll, which SequenceMixture reads"):
        trainer.compute_loss(trainer.model, batch)
    teacher = torch.tensor([10.0, 20.0, 60.0, 90.0])
    trainer.learned.scores.has_begun.fill_(True)
    found, output = trainer.compute_loss(trainer.model, {**batch, "teacher_nll": teacher}, return_outputs=True)
    targets, _ = trainer.aligned(batch["labels"], None)
    expected = sequence_mixture_nll(output["nll"], teacher, targets >= 0, 0.3).sum() / (targets >= 0).sum()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "loss",
    [
        SequenceMixture("learned", "unigram", start=0.25),
        SequenceMixture("learned", "learned", start=0.5),
        SequenceMixture(0.3, "learned", start=0.5),
    ],
    ids=repr,
)
def test_micro_batches_and_a_restart_change_nothing(make_trainer, tmp_path, loss):
    def run(batch, accumulation, folder, resume=None, **more):
        trainer = make_trainer(
            rows(), loss=loss, max_steps=4, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
            optim="sgd", learning_rate=0.05, output_dir=str(tmp_path / folder), **more,
        )  # fmt: skip
        torch.manual_seed(0)
        for values in trainer.learned.parameters():
            if values.requires_grad:
                torch.nn.init.normal_(values, std=0.1)
        trainer.train(resume_from_checkpoint=resume)
        return {**trainer.model.state_dict(), **trainer.learned.state_dict()}

    whole = run(8, 1, "whole", save_strategy="steps", save_steps=2)
    for other in (run(2, 4, "parts"), run(8, 1, "again", str(tmp_path / "whole" / "checkpoint-2"))):
        assert other.keys() == whole.keys()
        for name, weight in other.items():
            torch.testing.assert_close(weight, whole[name], rtol=0, atol=1e-5, msg=name)


def test_an_audit_of_rows_is_what_the_model_and_its_early_copy_say_of_each(make_trainer, tmp_path, caplog):
    marked = [{**row, "is_noisy": np.full(L, i % 4 == 0)} for i, row in enumerate(rows())]
    trainer = make_trainer(rows(), loss=SequenceMixture("learned", "learned", start=0.4), max_steps=5)
    assert "separation" not in trainer.objective.facts() and trainer.objective.error_rate is None
    with pytest.raises(ValueError, match="an early copy .* this trainer has none: it is taken after 20% of the steps"):
        score_sequences(trainer)
    trainer.train()
    assert trainer.objective.error_rate is None, "a weight that is drawn to 0.3 is no estimate"
    assert 0 < trainer.objective.facts()["other_weight"] < 1 and "separation" in trainer.state.log_history[4]
    assert trainer.learned.training and not trainer.learned.early.network.training, "a copy is asked, not trained"
    scores = audit_sequences(trainer, tmp_path / "audit.parquet", marked)
    assert scores.is_noisy.tolist() == [i % 4 == 0 for i in range(32)] and scores.targets.tolist() == [L - 1] * 32
    stored = pq.read_table(tmp_path / "audit.parquet").to_pydict()
    assert list(stored) == ["sample_id", "targets", "nll", "other_nll", "p_clean", "log_odds", "is_noisy"]
    assert stored["sample_id"] == [3 * i for i in range(32)] and stored["log_odds"] == scores.log_odds.tolist()
    assert np.isnan(stored["p_clean"]).all() and np.isnan(scores.p_clean).all(), "no figure where there is doubt"
    with pytest.raises(IsADirectoryError, match="output is a folder"):
        audit_sequences(trainer, tmp_path)
    batch = collate_rows(rows())
    targets, _ = trainer.aligned(batch["labels"], None)
    trainer.model.eval()
    with torch.no_grad():
        nll, *_ = trainer.token_nll(trainer.model, batch, targets)
    np.testing.assert_allclose(scores.nll, nll.sum(-1), rtol=1e-5)
    early = trainer.nll_under(trainer.learned.early.network, batch, targets)
    np.testing.assert_allclose(scores.other_nll, early.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(scores.mean_nll, scores.nll / (L - 1))
    # Random tokens are all one writer's, and an audit says so.
    assert scores.log_odds.min() > 9 and scores.error_rate is None and "tells nothing of single ones" in caplog.text
    assert scores.doubt == "two groups cannot be told apart: 32 rows are too few, it takes 50"
    assert doubt_of(tmp_path / "audit.parquet") == scores.doubt
    assert score_sequences(trainer, batch_size=5).is_noisy is None and trainer.learned.training


def test_an_audit_finds_two_writers_among_its_rows():
    """Half of 400 rows gained 1.5 nats a token over the early copy, give or take 1.2 / sqrt(n)."""
    loss = bound(SequenceMixture("learned", "learned"), model=torch.nn.Linear(1, 1))
    loss._copy.take(loss._model)
    draw = np.random.default_rng(0)
    targets, is_clean = draw.integers(4, 40, 400), np.arange(400) % 2 == 0
    gained = targets * np.where(is_clean, 1.5, 0.0) + 1.2 * np.sqrt(targets) * draw.normal(size=400)
    told = loss.told_apart(np.full(400, 90.0), 90.0 + gained, targets)
    assert ((told.log_odds > 0) == is_clean).mean() > 0.95 and told.doubt is None
    assert told.groups["share"] == pytest.approx(0.5, abs=0.05) and told.groups["valley"] > 0.3
    told = loss.told_apart(np.full(401, 90.0), np.append(90.0 + gained, 90), np.append(targets, 0))
    assert abs(told.log_odds[-1]) < 0.3, "of a row without a target nothing is known but the share"
    told = loss.told_apart(np.full(400, 90.0), 90.0 + 10 * draw.normal(size=400), np.full(400, 10))
    assert told.doubt.startswith("two groups cannot be told apart: ") and not told.groups
    assert loss.told_apart(np.ones(2), np.ones(2), np.zeros(2)).doubt == "no row has a target"


def test_a_mixture_whose_start_never_comes_says_so():
    """Of 10 steps the last one begins at 0.9."""
    objective = SequenceMixture("learned", "learned", start=0.95)
    loss = bound(objective, model=torch.nn.Linear(1, 1))
    for step in range(10):
        loss.before_step(step / 10)
    assert loss.facts()["has_begun"] == 0
    told = objective.told(loss.facts(), "seq2seq")
    assert "e not known" in told and "no step came after that. What was minimised is the plain likelihood." in told


def test_an_audit_without_a_mixture_or_rows_is_refused(make_trainer):
    with pytest.raises(TypeError, match="loss that tells rows apart, SequenceMixture, got NLL"):
        score_sequences(make_trainer(rows(4)))
    with pytest.raises(ValueError, match="rows is empty"):
        score_sequences(make_trainer(rows(4), loss=SequenceMixture(0.5, "unigram")), [])
