"""Training with `DocumentMixture`: noise documents are found, and do not teach; what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_noise.analysis.document_share import document_share
from hf_noise.losses.nll import HAS_FUSED
from hf_noise.metrics import audit_metrics
from hf_noise.noise import GaussianDocuments, RandomDocuments, UniformTokens
from hf_noise.objectives import DocumentMixture
from hf_noise.objectives.base import RunContext
from hf_noise.trainers.row_scores import score_rows

V, L, N_CLEAN = 64, 16, 256
UNIFORM = RandomDocuments(alpha=0.2, vocab_size=V)
NOISES = [UNIFORM, GaussianDocuments(alpha=0.2, vocab_size=V, std=6.0)]


def mixture(noise, n_clean=N_CLEAN):
    """Text in which each token follows from the one before, t -> 5 t + 3 (mod 63), and documents of noise."""
    clean = [[i % 63] for i in range(n_clean)]
    for row in clean:
        while len(row) < L:
            row.append((5 * row[-1] + 3) % 63)
    n = noise.number_of_noise_rows(n_clean)
    sample = [*range(n_clean), *(int(i) for i in (1 << 40) + np.arange(n))]
    tokens = np.concatenate([np.array(clean), noise.rows(np.array(sample[n_clean:], dtype=np.int64), L)])
    return [
        {"input_ids": row, "labels": row, "is_noisy": np.full(L, i >= n_clean), "sample_id": sample[i]}
        for i, row in enumerate(tokens)
    ]


@pytest.fixture
def learn(make_trainer, tiny_gpt2):
    """Train on a mixture."""

    def run(noise, loss, steps=120, **settings):
        model = tiny_gpt2(n_embd=32)
        with torch.no_grad():
            model.transformer.wte.weight.div_(20)
        usual = {"per_device_train_batch_size": 32, "learning_rate": 1e-2, "logging_steps": 40}
        trainer = make_trainer(mixture(noise), model=model, noise=noise, loss=loss, max_steps=steps, **usual | settings)
        trainer.train()
        return trainer

    return run


@pytest.mark.parametrize("noise", NOISES, ids=["uniform", "gaussian"])
def test_noise_rows_are_found_and_their_share_is_learned(learn, noise):
    trainer = learn(noise, DocumentMixture("learned"))
    scores = score_rows(trainer.model, mixture(noise), noise)
    is_noise = scores.noise_share > 0.5
    assert audit_metrics(scores.clean_posterior(0.05), is_noise)["auroc"] > 0.99
    share = document_share(scores.log_odds)
    assert share.low < is_noise.mean() < share.high and share.high - share.low < 0.1
    facts = trainer.objective.facts()
    assert facts == {"source": "learned", "alpha": pytest.approx(0.2, abs=0.05), "noise": "known"}
    logged = [entry["learned_alpha"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 3 and logged[-1] == facts["alpha"] != logged[0]
    assert "alpha = 0.2" in trainer.loss.told({"alpha": 0.2, "source": "learned"}, "causal_lm")


def test_the_mixture_learns_no_noise_and_text_better_than_the_plain_loss(learn):
    plain, ours = (learn(UNIFORM, loss) for loss in ("nll", DocumentMixture()))
    rows = mixture(UNIFORM)
    text, noise = rows[:N_CLEAN], rows[N_CLEAN:]
    nll = [[score_rows(one.model, part, UNIFORM).mean_nll.mean() for part in (text, noise)] for one in (plain, ours)]
    assert nll[1][0] < nll[0][0] and nll[1][1] > nll[0][1] + 1


def test_an_unknown_noise_is_learned_as_a_unigram(learn):
    trainer = learn(UNIFORM, DocumentMixture("learned", noise="unigram"))
    scores = score_rows(trainer.model, mixture(UNIFORM), trainer.objective)
    assert audit_metrics(scores.clean_posterior(0.2), scores.noise_share > 0.5)["auroc"] > 0.99
    p = torch.exp(-trainer.objective.module.table().detach())
    assert trainer.objective.alpha == pytest.approx(0.2, abs=0.05) and 0.5 / V < p[:-1].median() < 2 / V


@pytest.mark.parametrize("loss", [DocumentMixture(0.1, start=0.5), DocumentMixture("learned", "unigram")], ids=repr)
def test_micro_batches_change_nothing(learn, loss):
    def run(batch, accumulation):
        trainer = learn(
            UNIFORM, loss, 4, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, optim="sgd",
            learning_rate=0.1,
        )  # fmt: skip
        beside = {} if trainer.learned is None else dict(trainer.learned.named_parameters())
        return {name: p.detach().clone() for name, p in (dict(trainer.model.named_parameters()) | beside).items()}

    whole, parts = run(8, 1), run(2, 4)
    assert ("unigram" in whole) == (loss.noise == "unigram")
    for name, weight in parts.items():
        torch.testing.assert_close(weight, whole[name], rtol=0, atol=1e-5)


def test_a_restart_goes_on_as_it_would_have(make_trainer, tmp_path):
    settings = {"noise": UNIFORM, "loss": DocumentMixture("learned", "unigram", start=0.3), "save_strategy": "steps",
                "save_steps": 1, "max_steps": 5}  # fmt: skip
    whole = make_trainer(mixture(UNIFORM, 16), **settings)
    whole.train()
    again = make_trainer(mixture(UNIFORM, 16), output_dir=str(tmp_path / "again"), **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    for of in (lambda trainer: trainer.model, lambda trainer: trainer.learned):
        for (name, ours), theirs in zip(of(again).named_parameters(), of(whole).parameters(), strict=True):
            assert torch.equal(ours, theirs), name


@pytest.mark.skipif(not HAS_FUSED, reason="this torch has no fused linear cross-entropy")
def test_it_goes_with_the_fused_head(learn):
    one, other = (learn(UNIFORM, DocumentMixture(start=0), 3, fused_loss=fused) for fused in (False, True))
    for ours, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_scores_of_rows_by_hand(tiny_gpt2, nll_by_hand):
    """Also of a row that is half noise, of one that noise cannot have made (its token 63), and without a mask."""
    model, draw = tiny_gpt2(), np.random.default_rng(0)
    tokens = [draw.integers(0, 63, n) for n in (16, 9, 16)]
    tokens[2][5] = 63
    rows = [{"input_ids": row, "labels": row, "is_noisy": np.arange(len(row)) >= 9, "sample_id": 7 * i}
            for i, row in enumerate(tokens)]  # fmt: skip
    scores = score_rows(model, rows, UNIFORM, batch_size=2)
    assert scores.sample_id.tolist() == [0, 7, 14] and scores.targets.tolist() == [15, 8, 15]
    np.testing.assert_allclose(scores.nll, [nll_by_hand(model, row).sum() for row in tokens], rtol=1e-5)
    np.testing.assert_allclose(scores.noise_nll, [15 * np.log(63), 8 * np.log(63), np.inf], rtol=1e-6)
    assert scores.noise_share.tolist() == [7 / 15, 0, 7 / 15]
    assert scores.clean_posterior(0.5)[2] == 1 and (scores.clean_posterior(0) == 1).all()
    np.testing.assert_allclose(scores.clean_posterior(0.5)[:2], 1 / (1 + np.exp(-scores.log_odds[:2])))
    np.testing.assert_allclose(scores.mean_nll, scores.nll / scores.targets)
    bare = score_rows(model, [{"input_ids": row} for row in tokens], UNIFORM)
    assert bare.sample_id.tolist() == [0, 1, 2] and (bare.noise_share == 0).all()
    with pytest.raises(TypeError, match="noise must be a noise of documents.*got UniformTokens"):
        score_rows(model, rows, UniformTokens(ratio=1, vocab_size=V))
    with pytest.raises(ValueError, match="rows is empty"):
        score_rows(model, [], UNIFORM)
    with pytest.raises(ValueError, match="the noise draws ids up to 99 .*, the model knows 64 tokens"):
        score_rows(model, rows, RandomDocuments(alpha=0.2, vocab_size=100))


def bound(objective, noise, **context):
    return objective.bound(RunContext(noise=noise, num_classes=V, **context))


@pytest.mark.parametrize(
    ("loss", "noise", "context", "message"),
    [
        (DocumentMixture(), None, {}, 'alpha="known" takes the share from a noise of documents, and the trainer was'),
        (DocumentMixture(0.1), UniformTokens(ratio=1, vocab_size=V), {},
         'noise="known" takes the distribution of a noise of documents, and UniformTokens is noise on tokens'),
        (DocumentMixture(), UNIFORM.without_noise(), {"was_given": False}, "would look for no noise at all"),
        (DocumentMixture(), RandomDocuments(alpha=0.1, vocab_size=100), {}, "the model knows 64 tokens"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_run_is_refused_by_name(loss, noise, context, message):
    with pytest.raises(ValueError, match=message):
        bound(loss, noise, **context)


def test_masked_rows_and_a_share_of_nothing():
    """Targets at a few positions, as of a masked model; with alpha = 0 it is the likelihood."""
    targets = torch.tensor([[-100, 3, -100, 7], [-100, -100, -100, -100]])
    nll = torch.tensor([[9.0, 2.0, 9.0, 4.0], [9.0] * 4])
    known = bound(DocumentMixture(), UNIFORM)(nll, targets)
    both = 0.8 * np.exp(-6) + 0.2 / 63**2
    assert known.sum().item() == pytest.approx(-np.log(both)) and (known[targets < 0] == 0).all()
    nothing = bound(DocumentMixture(), UNIFORM.without_noise())(nll, targets)
    assert nothing.sum(-1).tolist() == [6, 0]
    assert bound(DocumentMixture(0.3), UNIFORM).facts() == {"source": "assumed", "alpha": 0.3, "noise": "known"}
