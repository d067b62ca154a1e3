"""Both sides of a token: against the sum over all ways to read a row, and where one side alone is blind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import sparse

from hf_noise.trainers.audit import audit_facts, audit_tokens
from hf_noise.trainers.token_filter import clean_posterior_of_rows, resampled
from hf_noise.trainers.token_laws import token_law

V = 4


@pytest.fixture
def small(tiny_gpt2):
    """A model of four tokens that is sure of some."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=V, n_positions=8, n_layer=1, n_embd=16, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.wte.weight.mul_(60)
    return model


def every_reading(model, row, law, e):
    """Exact p(clean | tokens to `upto`) by enumeration: readings z, clean where z is kept as itself."""
    found, length = {}, len(row)
    for choice in itertools.product([None, *range(V)], repeat=length - 1):
        z = [row[0]] + [row[t] if choice[t - 1] is None else choice[t - 1] for t in range(1, length)]
        log_p = torch.log_softmax(model(torch.tensor([z])).logits[0].double(), -1)
        total = 0.0
        for t in range(1, length):
            total += float(log_p[t - 1, z[t]])
            total += np.log(1 - e) if choice[t - 1] is None else np.log(e) + float(law[z[t], row[t]])
        found[choice] = np.exp(total)
    return found


@pytest.mark.parametrize("kind", ["uniform", "confusions"])
@torch.no_grad()
def test_many_particles_come_to_the_sum_over_all_readings(small, kind):
    """The share of kept tokens at the end of a short row, where no particle has to go: the exact posterior."""
    if kind == "uniform":
        given, table = "uniform", np.full((V, V), -np.log(V))
    else:
        matrix = np.array([[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0.2, 0.8], [0.4, 0, 0.6, 0]])
        given = sparse.csr_matrix(matrix)
        with np.errstate(divide="ignore"):
            table = np.log(matrix)
    row, e = [1, 3, 0, 2], 0.4
    readings = every_reading(small, row, table, e)
    total = sum(readings.values())
    # Right: not replaced, or, of a confusion, by itself.
    same = [lambda choice, t=t: choice[t] is None or kind == "confusions" and choice[t] == row[t + 1] for t in range(3)]
    exact = [sum(p for choice, p in readings.items() if same[t](choice)) / total for t in range(3)]
    law = token_law(given, V)
    found = [clean_posterior_of_rows(small, torch.tensor([row]), law, error_rate=e, particles=512, seed=seed)
             for seed in range(4)]  # fmt: skip
    # Without smoothing by what comes after, the last token's is that of the tokens before, which is exact too.
    assert float(torch.stack(found)[:, 0, 3].mean()) == pytest.approx(exact[2], abs=0.02)
    assert found[0][0, 0] == 1


def test_what_stays_is_right_on_average_and_never_twice():
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.06, 0.04]], dtype=torch.float64).repeat(4000, 1)
    chosen, left = resampled(weights, 3, generator)
    assert all(len(set(row)) == 3 for row in chosen[:200].tolist())
    mean = torch.zeros(6, dtype=torch.float64).scatter_add_(0, chosen.flatten(), left.flatten()) / 4000
    torch.testing.assert_close(mean, weights[0], atol=0.01, rtol=0)
    assert (chosen == 0).any(-1).all() and torch.allclose(left.sum(-1), torch.ones(4000, dtype=torch.float64))
    alone, whole = resampled(torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64), 2, generator)
    assert whole[alone == 0].item() == pytest.approx(1)


def test_the_file_has_weights_of_both_sides(tiny_gpt2, random_rows, tmp_path):
    import pyarrow.parquet as pq

    model, rows = tiny_gpt2(), random_rows(5, (16, 3, 9))
    files = [audit_tokens(model, rows, tmp_path / f"{n}", error_rate=0.3, particles=4, batch_size=2, seed=n)
             for n in (0, 0, 1)]  # fmt: skip
    first, again, other = (pq.read_table(file)["weight"].to_numpy() for file in files)
    plain = pq.read_table(audit_tokens(model, rows, tmp_path / "p", error_rate=0.3))
    assert ((first >= 0) & (first <= 1)).all() and np.array_equal(first, again) and not np.array_equal(first, other)
    np.testing.assert_allclose(pq.read_table(files[0])["clean_posterior"], plain["clean_posterior"], atol=1e-5)
    assert np.array_equal(plain["weight"], plain["clean_posterior"])
    assert audit_facts(files[0]) == {"error_rate": {"value": 0.3, "how": "stated"}, "kind": "uniform",
                                     "trained": "corrected", "particles": 4}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"particles": 1}, "particles must lie in"), ({"trained": "nll"}, "particles need a model that predicts clean"),
        ({"noise": True}, "replaced one by one in the rows themselves"),
    ],
)  # fmt: skip
def test_what_particles_cannot_read(tiny_gpt2, random_rows, noise, tmp_path, change, message):
    change = {**change, **({"noise": noise} if "noise" in change else {})}
    with pytest.raises(ValueError, match=message):
        audit_tokens(tiny_gpt2(), random_rows(2), tmp_path / "a", **{"error_rate": 0.5, "particles": 4, **change})
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 4]}]
    with pytest.raises(ValueError, match="labels of their own"):
        audit_tokens(tiny_gpt2(), rows, tmp_path / "a", error_rate=0.5, particles=4)
    assert not list(tmp_path.iterdir())
