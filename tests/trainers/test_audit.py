"""The audit of a corpus: one line per target, complete or absent."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

import hf_noise
from hf_noise.trainers.audit import audit_tokens, posterior
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
