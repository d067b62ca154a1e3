"""Losses of single rows against the trainer's own and against a loop, for any batch and with the noise of any epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hf_noise.analysis.stability import macro_batch_losses
from hf_noise.noise import RandomDocuments, UniformTokens
from hf_noise.trainers.row_losses import RowLosses

V, L, N = 64, 12, 40
NOISE = UniformTokens(ratio=1.0, vocab_size=V, seed=5)


@pytest.fixture
def rows():
    draw = np.random.default_rng(0)
    return [{"input_ids": draw.integers(V, size=L), "sample_id": 100 + i} for i in range(N)]


class Counted:
    """Rows that know which of them were read, and one at a time."""

    def __init__(self, rows):
        self.rows, self.read = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        self.read.append(i)
        return self.rows[i]


def by_hand(model, row, noise, epoch):
    """Sum over the targets of a row, one by one."""
    tokens = torch.from_numpy(row["input_ids"])
    noisy = row["input_ids"]
    if noise is not None:
        noisy = noise(row["input_ids"][None], np.array([row["sample_id"]]), epoch)[0][0]
    with torch.no_grad():
        logits = model(input_ids=tokens[None]).logits[0].double()
    return sum(-F.log_softmax(logits[t], -1)[int(noisy[t + 1])].item() for t in range(L - 1))


@pytest.mark.parametrize("noise", [None, NOISE], ids=["clean", "noisy"])
def test_each_row_as_it_is_by_hand(noise, rows, tiny_gpt2):
    model = tiny_gpt2()
    losses = RowLosses(model, rows, noise=noise)
    sums, units = losses(np.array([7, 0, 31]), 3)
    assert sums.dtype == units.dtype == np.float64 and units.tolist() == [L - 1] * 3
    assert sums == pytest.approx([by_hand(model, rows[i], noise, 3) for i in (7, 0, 31)], rel=1e-5)
    assert model.training, "its mode is restored"


def test_a_row_has_one_loss_in_every_batch_and_others_in_every_epoch(rows, tiny_gpt2):
    losses = RowLosses(tiny_gpt2(), rows, noise=NOISE)
    whole = losses(np.arange(N), 2)[0]
    alone = np.concatenate([losses(np.array([i]), 2)[0] for i in range(N)])
    assert whole == pytest.approx(alone, rel=1e-5)
    assert (np.abs(whole - losses(np.arange(N), 3)[0]) > 1e-3).all()


@pytest.mark.parametrize(
    "noise", [None, UniformTokens(ratio=0.0, vocab_size=V), UniformTokens(ratio=1.0, vocab_size=V, redraw="never")],
    ids=["none", "r = 0", "static"],
)  # fmt: skip
def test_what_no_epoch_redraws_is_scored_once(noise, rows, tiny_gpt2):
    counted = Counted(rows)
    losses = RowLosses(tiny_gpt2(), counted, noise=noise)
    assert losses.is_fixed
    counted.read.clear()
    found = macro_batch_losses(losses, [4, 8], num_batches=20, batch_size=7)
    assert found.passes == 6 and sorted(counted.read) == list(range(N))
    assert not RowLosses(tiny_gpt2(), rows, noise=NOISE).is_fixed


def test_rows_that_carry_their_noise_are_taken_as_they_are(rows, tiny_gpt2):
    model = tiny_gpt2()
    own = [row | {"labels": (row["input_ids"] + 1) % V, "is_noisy": np.ones(L, dtype=bool)} for row in rows]
    plain = [{name: value for name, value in row.items() if name != "is_noisy"} for row in own]
    carried, stated = RowLosses(model, own, noise=NOISE)(np.arange(N), 1), RowLosses(model, plain)(np.arange(N))
    assert (carried[0] == stated[0]).all()


def test_padding_has_no_loss(rows, tiny_gpt2):
    model = tiny_gpt2()
    short = [{"input_ids": row["input_ids"][: 3 + i % 9]} for i, row in enumerate(rows)]
    sums, units = RowLosses(model, short)(np.arange(N))
    assert units.tolist() == [len(row["input_ids"]) - 1 for row in short]
    alone = [RowLosses(model, short)(np.array([i]))[0][0] for i in range(N)]
    assert sums == pytest.approx(alone, rel=1e-5)


def test_the_spread_over_macro_batches_does_not_depend_on_the_forward_pass(rows, tiny_gpt2):
    losses = RowLosses(tiny_gpt2(), rows, noise=NOISE)
    one, other = (macro_batch_losses(losses, [4, 8], num_batches=20, batch_size=size) for size in (3, 64))
    assert one.losses == pytest.approx(other.losses, rel=1e-5) and (one.sizes == other.sizes).all()


def test_bad_calls_are_refused(rows, tiny_gpt2):
    model = tiny_gpt2()
    for noise in (RandomDocuments(alpha=0.5, vocab_size=V), "uniform"):
        with pytest.raises(ValueError, match="noise must be one on tokens"):
            RowLosses(model, rows, noise=noise)
    with pytest.raises(ValueError, match="ids up to 99, the model knows 64"):
        RowLosses(model, rows, noise=UniformTokens(ratio=1.0, vocab_size=100))
    with pytest.raises(ValueError, match="rows is empty"):
        RowLosses(model, [])
    with pytest.raises(TypeError, match="rows must be stored rows"):
        RowLosses(model, iter(rows))
    nameless = [{"input_ids": row["input_ids"]} for row in rows]
    with pytest.raises(ValueError, match="need the column sample_id"):
        RowLosses(model, nameless, noise=NOISE)(np.arange(2), 0)
    losses = RowLosses(model, rows)
    for bad in ([N], [-1], [[0]], []):
        with pytest.raises((TypeError, ValueError), match="rows must be"):
            losses(bad)
    with pytest.raises(ValueError, match="positions for 16"):
        RowLosses(model, [{"input_ids": np.zeros(17, dtype=int)}] * 2)
