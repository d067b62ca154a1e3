"""An encoder-decoder that is trained on pairs of two writers, and its audit of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import TrainingArguments

from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.objectives import SequenceMixture
from hf_noise.trainers import Seq2SeqTrainer
from hf_noise.trainers.sequence_audit import score_sequences

V, ROWS = 24, 240


def pairs() -> list[dict]:
    """Targets that count on from the source in sevens; three of eight are another's, which knows the tokens alone."""
    draw, rows = np.random.default_rng(0), []
    for i in range(ROWS):
        token, length, by_other = int(draw.integers(3, V)), int(draw.integers(4, 12)), i % 8 < 3
        right = [3 + (token + 7 * place) % (V - 3) for place in range(length)]
        target = draw.integers(3, V, length).tolist() if by_other else right
        rows.append({"input_ids": [token, 1], "labels": [*target, 1], "sample_id": i, "is_noisy": by_other})
    return rows


@pytest.mark.parametrize("bf16", [False, True])
def test_an_audit_finds_the_rows_of_another(tmp_path, bf16):
    torch.manual_seed(0)
    model = encoder_decoder(V, pad_token=0, eos_token=1, layers=1, d_model=32, heads=2, feed_forward=32, dropout=0.1,
                            positions=16)  # fmt: skip
    args = TrainingArguments(
        str(tmp_path), max_steps=120, learning_rate=1e-2, per_device_train_batch_size=16, use_cpu=True, bf16=bf16,
        report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    loss = SequenceMixture("learned", "learned", start=0.2)
    trainer = Seq2SeqTrainer(model, args, loss=loss, train_dataset=pairs())
    trainer.train()
    scores = score_sequences(trainer)
    assert scores.sample_id.tolist() == list(range(ROWS)), "in the order of the rows, though the longest were first"
    assert roc_auc_score(scores.is_noisy, -scores.log_odds) > 0.95
    assert scores.doubt is None and scores.error_rate == pytest.approx(3 / 8, abs=0.06)
    assert (scores.is_noisy == (scores.p_clean < 0.5)).mean() > 0.93
    again = score_sequences(trainer, batch_size=7)
    np.testing.assert_allclose(again.nll, scores.nll, rtol=0.02 if bf16 else 1e-4)
    # The copy is asked without dropout: its NLL of a row is that of a model in evaluation mode.
    early = trainer.learned.early.network
    assert not early.training and any(one.p for one in early.modules() if isinstance(one, torch.nn.Dropout)) is False
