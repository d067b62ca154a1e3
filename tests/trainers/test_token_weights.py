"""Weights of an audit reach a stock Trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
from transformers.modeling_outputs import CausalLMOutput

from hf_noise.trainers.audit import audit_tokens
from hf_noise.trainers.token_weights import split_labels, weighted_labels, weighted_loss, with_weights


class Padding:
    """What the collator asks of a tokenizer."""

    padding_side, pad_token_id = "right", 0

    def pad(self, features, **_):
        longest = max(len(row["input_ids"]) for row in features)
        ids = [list(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in features]
        return {"input_ids": torch.tensor(ids)}


@pytest.fixture
def audited(tiny_gpt2, tmp_path):
    draw = np.random.default_rng(0)
    rows = Dataset.from_dict({"input_ids": draw.integers(64, size=(6, 9)).tolist(), "sample_id": [5, 3, 9, 1, 0, 7]})
    return rows, audit_tokens(tiny_gpt2(), rows, tmp_path / "a.parquet", error_rate=0.6)


def test_labels_carry_weights_and_give_them_back():
    labels, weights = np.array([[0, 7, -100, 1 << 31]]), np.array([[0.0, 0.5, 0.3, 1.0]])
    tokens, found = split_labels(torch.from_numpy(weighted_labels(labels, weights)))
    assert tokens.tolist() == labels.tolist() and found.tolist() == [[0.0, 0.5, 0.0, 1.0]]
    plain, ones = split_labels(torch.tensor([3, -100]))
    assert plain.tolist() == [3, -100] and ones.tolist() == [1.0, 0.0]


def test_each_row_gets_its_own_weights(audited):
    import pyarrow.parquet as pq

    rows, file = audited
    joined = with_weights(rows, file)
    table = pq.read_table(file).to_pylist()
    for row in joined:
        own = {line["position"]: line["weight"] for line in table if line["sample_id"] == row["sample_id"]}
        assert len(own) == 8 and row["weights"][0] == 1
        assert row["weights"][1:] == pytest.approx([own[t] for t in range(1, 9)])
    cut = float(np.median([line["weight"] for line in table]))
    dropped = with_weights(rows, file, threshold=cut)
    for row in dropped:
        expected = np.where(np.array(row["weights"]) < cut, -100, row["input_ids"])
        assert row["labels"] == expected.tolist()
    assert 0 < sum(label == -100 for row in dropped for label in row["labels"]) < 48


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_stock_trainer_learns_by_the_weights(audited, tiny_gpt2, tmp_path, accumulate):
    """One step of SGD is that of the weighted mean NLL, however the batch is cut."""
    rows, file = audited
    joined = with_weights(rows, file).select_columns(["input_ids", "labels"])
    model, twin = tiny_gpt2().eval(), tiny_gpt2().eval()
    twin.load_state_dict(model.state_dict())
    options = TrainingArguments(
        tmp_path / "run", per_device_train_batch_size=6 // accumulate, gradient_accumulation_steps=accumulate,
        max_steps=1, learning_rate=0.1, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    collator = DataCollatorForSeq2Seq(Padding(), model=None)
    Trainer(model, options, train_dataset=joined, data_collator=collator, compute_loss_func=weighted_loss).train()
    inputs = torch.tensor(joined["input_ids"])
    weights = torch.tensor(with_weights(rows, file)["weights"], dtype=torch.float64)[:, 1:]
    nll = torch.nn.functional.cross_entropy(
        twin(inputs).logits[:, :-1].flatten(0, 1).double(), inputs[:, 1:].flatten(), reduction="none"
    )
    ((nll * weights.flatten()).sum() / inputs.numel()).backward()
    for (name, moved), own in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(moved, own - 0.1 * own.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_plain_labels_are_the_plain_loss():
    logits, labels = torch.randn(2, 5, 11), torch.randint(11, (2, 5))
    labels[0, 3:] = -100
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    assert weighted_loss(CausalLMOutput(logits=logits), labels, 8) == pytest.approx(nll.item() / 8, rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "threshold", "message"),
    [
        ({"input_ids": [[1, 2]]}, None, "it is of other rows|not among these"),
        ({"text": ["a"]}, None, "need the column input_ids"), ({"input_ids": [[1] * 9] * 10}, 0, "threshold must lie"),
    ],
)  # fmt: skip
def test_other_rows_are_refused(audited, rows, threshold, message):
    with pytest.raises(ValueError, match=message):
        with_weights(Dataset.from_dict(rows), audited[1], threshold=threshold)
    with pytest.raises(TypeError, match="must be a datasets.Dataset, got list"):
        with_weights([{"input_ids": [1, 2]}], audited[1])


@pytest.mark.parametrize(
    ("labels", "weights", "message"),
    [
        ([1], [0.5, 0.5], "as labels"), ([1], [1.5], r"\[0, 1\]"), ([-3], [1.0], "-100, got -3"),
        ([1], ["a"], "numbers"), ([1.5], [1.0], "integers"),
    ],
)  # fmt: skip
def test_what_no_label_can_carry(labels, weights, message):
    with pytest.raises((TypeError, ValueError), match=message):
        weighted_labels(labels, weights)
