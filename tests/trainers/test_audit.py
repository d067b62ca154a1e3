"""The audit of a corpus: one line per target, complete or absent."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom

import hf_noise
from hf_noise.noise import RandomDocuments
from hf_noise.trainers.audit import _rate_of_documents, audit_facts, audit_tokens, posterior, token_rate
from hf_noise.trainers.scoring import score_tokens


@pytest.mark.parametrize("trained", ["corrected", "nll"])
def test_a_line_per_target_with_its_posterior(tiny_gpt2, random_rows, noise, tmp_path, trained):
    model, rows, file = tiny_gpt2(), random_rows(7, (16, 3, 9)), tmp_path / "deep" / "audit.parquet"
    assert audit_tokens(model, rows, file, error_rate=0.5, trained=trained, noise=noise, batch_size=3) == file
    table, scores = pq.read_table(file).to_pydict(), score_tokens(model, rows, noise=noise)
    assert table["sample_id"] == scores.sample_id.tolist()
    assert table["position"] == scores.position.tolist()
    np.testing.assert_allclose(table["nll"], scores.nll, rtol=1e-5, atol=1e-6)
    q = np.exp(-scores.nll.astype(np.float64))
    if trained == "corrected":
        expected = 0.5 * q / (0.5 * q + 0.5 / 64)
    else:
        expected = np.maximum(1 - 0.5 / 64 / q, 0)
    np.testing.assert_allclose(table["clean_posterior"], expected, atol=1e-5)
    np.testing.assert_allclose(
        posterior(scores.nll, error_rate=0.5, vocab_size=64, trained=trained), expected, atol=1e-5
    )


def test_without_noise_the_corpus_is_audited_as_it_is(tiny_gpt2, random_rows, tmp_path):
    rows = random_rows(2)
    table = pq.read_table(hf_noise.audit_tokens(tiny_gpt2(), rows, tmp_path / "a.parquet", error_rate=0.1))
    np.testing.assert_array_equal(table["nll"], score_tokens(tiny_gpt2(), rows).nll)


def test_an_audit_that_breaks_off_leaves_the_old_file_and_no_other(tiny_gpt2, random_rows, tmp_path):
    file = tmp_path / "audit.parquet"
    audit_tokens(tiny_gpt2(), random_rows(2), file, error_rate=0.5)
    before = file.read_bytes()
    rows = random_rows(9)
    rows[7]["input_ids"] = [5, 640]  # no token of the model's
    with pytest.raises((IndexError, ValueError)):
        audit_tokens(tiny_gpt2(), rows, file, error_rate=0.5, batch_size=2)
    assert [path.name for path in tmp_path.iterdir()] == ["audit.parquet"]
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("rows", "error_rate", "message"), [(0, 0.5, "no rows to audit"), (2, 1.0, r"\[0, 1\)"), (2, -0.5, r"\[0, 1\)")]
)
def test_bad_input_writes_nothing(tiny_gpt2, random_rows, tmp_path, rows, error_rate, message):
    with pytest.raises(ValueError, match=message):
        audit_tokens(tiny_gpt2(), random_rows(rows), tmp_path / "audit.parquet", error_rate=error_rate)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nll": [1, 2]}, "nll must be floating-point, .* got int64"),
        ({"nll": np.ma.array([1.0])}, "nll is a masked array"),
        ({"nll": ["1"]}, "nll must be"), ({"error_rate": 1.5}, "error_rate must lie in"),
        ({"vocab_size": 0}, "vocab_size must"),
        ({"error_rate": "0"}, "error_rate must be"), ({"trained": ["nll"]}, "trained must be one of corrected, nll"),
    ],
)  # fmt: skip
def test_a_posterior_of_what_is_none(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        posterior(**{"nll": np.array([1.0, 2.0]), "error_rate": 0.1, "vocab_size": 9, **change})
    assert posterior(np.float32([[0.0]]), error_rate=0, vocab_size=9).dtype == np.float32
    assert posterior([0.0, np.inf], error_rate=0.1, vocab_size=9, trained="nll").shape == (2,)


def test_others_may_read_the_file(tiny_gpt2, random_rows, tmp_path):
    (tmp_path / "usual").touch()
    file = audit_tokens(tiny_gpt2(), random_rows(1), tmp_path / "audit.parquet", error_rate=0.5)
    assert file.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_rate_that_is_not_stated_is_estimated_and_told(tiny_gpt2, random_rows, tmp_path):
    """Of noise alone: the model knows nothing, so the interval leaves all open; the file says what it rests on."""
    rows = random_rows(30)
    file = audit_tokens(tiny_gpt2(), rows, tmp_path / "a.parquet")
    facts, rate = audit_facts(file), token_rate(tiny_gpt2(), rows)
    assert facts["error_rate"] == rate.to_dict() | {"parts": {k: list(v) for k, v in rate.parts.items()}}
    assert rate.high > 0.9 and rate.low <= rate.value <= rate.high and rate.n == 30 * 15
    table = pq.read_table(file)
    expected = posterior(table["nll"].to_numpy(), error_rate=min(rate.value, 1 - 1e-6), vocab_size=64)
    np.testing.assert_allclose(table["clean_posterior"], expected, atol=1e-4)
    pq.write_table(table.replace_schema_metadata(), file)
    with pytest.raises(ValueError, match="does not say what its audit rests on"):
        audit_facts(file)


@pytest.mark.parametrize("trained", ["corrected", "nll"])
def test_a_law_that_is_not_uniform(tiny_gpt2, random_rows, tmp_path, trained):
    q = np.arange(64) / np.arange(64).sum()
    rows = random_rows(4)
    table = pq.read_table(audit_tokens(tiny_gpt2(), rows, tmp_path / "a", error_rate=0.3, kind=q, trained=trained))
    targets = np.concatenate([np.asarray(row["input_ids"])[1:] for row in rows])
    p = np.exp(-table["nll"].to_numpy().astype(np.float64))
    wrong = 0.3 * q[targets]
    clean = 0.7 * p / (0.7 * p + wrong) if trained == "corrected" else np.clip(1 - wrong / p, 0, 1)
    np.testing.assert_allclose(table["clean_posterior"], clean, atol=1e-4)
    assert audit_facts(tmp_path / "a")["kind"] == "given"


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2, 0.5])
def test_the_interval_of_documents_holds_among_few_rows(share):
    """Rows that are certain either way, 48 of them: over all counts that may come, each with its probability."""
    ends = []
    for count in range(49):
        rate = _rate_of_documents(np.r_[np.full(count, -500.0), np.full(48 - count, 500.0)], 0.95)
        assert rate.low <= rate.value <= rate.high and rate.value == pytest.approx(count / 48, abs=1e-6)
        ends.append((rate.low, rate.high))
    ends = np.array(ends)
    holds = (ends[:, 0] <= share) & (share <= ends[:, 1])
    assert binom.pmf(np.arange(49), 48, share)[holds].sum() >= 0.95


def test_documents_are_noise_as_a_whole(tiny_gpt2, tmp_path):
    """All targets of a row share a posterior, that of the likelihoods of the row; alpha comes from document_share."""
    noise = RandomDocuments(alpha=0.5, vocab_size=64, boost="low", n_boost=4, boost_mass=0.999)
    draw = np.random.default_rng(0)
    noisy = [{"input_ids": draw.choice(64, size=16, p=noise.probabilities())} for _ in range(8)]
    rows = noisy + [{"input_ids": draw.integers(4, 64, size=16)} for _ in range(8)]
    file = audit_tokens(tiny_gpt2(), rows, tmp_path / "a", kind=noise, batch_size=3)
    table, facts = pq.read_table(file).to_pandas(), audit_facts(file)
    by_row = table.groupby("sample_id")["clean_posterior"]
    assert (by_row.nunique() == 1).all() and (by_row.first().to_numpy() > 0.5).tolist() == [False] * 8 + [True] * 8
    assert facts["kind"] == "random_documents" and facts["error_rate"]["low"] < 0.5 < facts["error_rate"]["high"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": np.eye(64), "trained": "nll"}, "confusions needs a model that predicts clean text"),
        ({"kind": RandomDocuments(alpha=0.1, vocab_size=64), "trained": "nll"}, "documents needs a model"),
        ({"kind": RandomDocuments(alpha=0.1, vocab_size=64), "particles": 4}, "replaced one by one"),
        ({"kind": "gauss"}, "kind must be"), ({"trained": "n"}, "trained must be one of"), ({"seed": -1}, "seed must"),
        ({"error_rate": None}, "at least 50 targets"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_writes_nothing(tiny_gpt2, random_rows, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        audit_tokens(tiny_gpt2(), random_rows(2), tmp_path / "a", **{"error_rate": 0.1, **change})
    assert not list(tmp_path.iterdir())


def test_the_unigram_is_that_of_the_rows(tiny_gpt2, random_rows, tmp_path):
    rows = random_rows(4)
    counts = np.bincount(np.concatenate([row["input_ids"] for row in rows]), minlength=64)
    files = [audit_tokens(tiny_gpt2(), rows, tmp_path / name, error_rate=0.1, kind=kind)
             for name, kind in (("a", "unigram"), ("b", counts / counts.sum()))]  # fmt: skip
    first, second = (pq.read_table(file)["weight"].to_numpy() for file in files)
    np.testing.assert_allclose(first, second, atol=1e-6)
