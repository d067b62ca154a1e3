"""Scores of targets equal what is computed row by row, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_noise.losses import posthoc_nll
from hf_noise.trainers import audit, scoring
from hf_noise.trainers.scoring import TokenScores, score_batches, score_tokens

RAGGED = (16, 3, 9)


def test_scores_worked_out_by_hand(tiny_gpt2, random_rows, noise):
    model, rows = tiny_gpt2().eval(), random_rows(5, RAGGED)
    scores = score_tokens(model, rows, noise=noise, epoch=4, error_rates=(0.5,), batch_size=2)
    n = 0
    for row in rows:
        tokens = torch.as_tensor(row["input_ids"])
        labels, is_noisy = noise(tokens[None], torch.tensor([row["sample_id"]]), 4)
        with torch.no_grad():
            logits = model(input_ids=tokens[None]).logits[0, :-1].double()
        part = slice(n, n := n + len(tokens) - 1)
        targets, log_p = labels[0, 1:], logits.log_softmax(-1)
        own = log_p.gather(-1, targets[:, None])
        np.testing.assert_allclose(scores.nll[part], -own[:, 0], rtol=1e-5, atol=1e-6)
        assert scores.above[part].tolist() == (log_p > own).sum(-1).tolist()
        assert scores.is_noisy[part].tolist() == is_noisy[0, 1:].tolist()
        assert scores.position[part].tolist() == list(range(1, len(tokens)))
        assert set(scores.sample_id[part]) == {row["sample_id"]}
        after = posthoc_nll(logits, targets, error_rate=0.5)
        np.testing.assert_allclose(scores.posthoc[0.5][part], after, rtol=1e-4, atol=1e-4)
    assert n == scores.nll.size == scores.above.size


def test_batch_size_and_chunks_change_nothing(tiny_gpt2, random_rows, noise, monkeypatch):
    model, rows = tiny_gpt2(), random_rows(7, RAGGED)
    one, three = (score_tokens(model, rows, noise=noise, error_rates=(0.3,), batch_size=size) for size in (1, 3))
    monkeypatch.setattr(scoring, "_LOGITS_AT_ONCE", 5 * 64 + 1)  # five tokens
    chunked = score_tokens(model, rows, noise=noise, error_rates=(0.3,), batch_size=7)
    for other in (three, chunked):
        np.testing.assert_allclose(other.nll, one.nll, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(other.posthoc[0.3], one.posthoc[0.3], rtol=1e-4, atol=1e-5)
        for name in ("sample_id", "position", "above", "is_noisy"):
            assert np.array_equal(getattr(other, name), getattr(one, name))


def test_without_ranks_all_else_is_the_same(tiny_gpt2, random_rows, noise):
    model, rows = tiny_gpt2(), random_rows(7, RAGGED)
    with_ranks, without = (
        score_tokens(model, rows, noise=noise, error_rates=(0.3,), batch_size=3, ranks=ranks) for ranks in (True, False)
    )
    assert without.above is None and with_ranks.above.any()
    for name in ("sample_id", "position", "nll", "is_noisy"):
        assert np.array_equal(getattr(without, name), getattr(with_ranks, name))
    assert np.array_equal(without.posthoc[0.3], with_ranks.posthoc[0.3])


def test_an_audit_asks_for_no_ranks(tiny_gpt2, random_rows, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(audit, "score_batches", lambda *args, **kwargs: asked.append(kwargs) or iter(()))
    audit.audit_tokens(tiny_gpt2(), random_rows(2), tmp_path / "audit.parquet", error_rate=0.1)
    assert [kwargs["ranks"] for kwargs in asked] == [False]


def test_rows_may_bring_their_own_noise_or_none(tiny_gpt2, random_rows, noise):
    rows = random_rows(3)
    clean = score_tokens(tiny_gpt2(), rows)
    assert not clean.is_noisy.any()
    stored = []
    for row in rows:
        labels, is_noisy = noise(row["input_ids"][None], np.array([row["sample_id"]]))
        stored.append({**row, "labels": labels[0], "is_noisy": is_noisy[0], "clean_labels": row["input_ids"]})
    as_stored, drawn = (score_tokens(tiny_gpt2(), x, noise=noise) for x in (stored, rows))
    assert np.array_equal(as_stored.is_noisy, drawn.is_noisy)
    np.testing.assert_array_equal(as_stored.nll, drawn.nll)


def test_rows_without_sample_ids_are_numbered_and_carry_no_drawn_noise(tiny_gpt2, random_rows, noise):
    rows = [{"input_ids": row["input_ids"]} for row in random_rows(3)]
    assert sorted(set(score_tokens(tiny_gpt2(), rows, batch_size=2).sample_id)) == [0, 1, 2]
    with pytest.raises(ValueError, match="need the column sample_id; they have: input_ids"):
        score_tokens(tiny_gpt2(), rows, noise=noise)


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_restored(tiny_gpt2, random_rows, training):
    model = tiny_gpt2(resid_pdrop=0.5).train(training)
    once, twice = (score_tokens(model, random_rows(2)).nll for _ in range(2))
    assert model.training == training
    assert np.array_equal(once, twice)  # without dropout
    batches = score_batches(model, random_rows(4), batch_size=2)
    next(batches)
    assert not model.training
    batches.close()
    assert model.training == training


def test_nothing_to_score_is_an_error(tiny_gpt2):
    with pytest.raises(ValueError, match="no rows to score"):
        score_tokens(tiny_gpt2(), [])
    with pytest.raises(ValueError, match="no rows to score"):
        TokenScores.concatenate([])
