"""recipes/audit_tokens.py: rows, hidden noise, what is measured and written, on a tiny model of the embedded text."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCard
from printed import printed_by
from sklearn.metrics import roc_auc_score

from hf_noise.data.tokenization import find_tokenizer
from hf_noise.hub.token_audit_card import token_audit_card
from hf_noise.models.gpt2 import gpt2
from hf_noise.reports.record import RunRecord
from hf_noise.studies.settings import SettingError, at_scale
from hf_noise.studies.token_audit import study
from hf_noise.studies.token_audit.data import hide, pieces
from hf_noise.studies.token_audit.report import Found, audit_text, in_context, worst_tokens
from hf_noise.studies.token_audit.study import KINDS, Settings
from hf_noise.trainers.token_weights import with_weights

main = functools.partial(printed_by, study.main)
V, BLOCK, ROWS = 320, 24, 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of random weights with its tokenizer, in a folder."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    gpt2("nano", vocab_size=V, block_size=BLOCK, end_of_text=0).save_pretrained(folder)
    find_tokenizer(f"embedded:{V}").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Text that would break a page in which it was not escaped."""
    file = tmp_path_factory.mktemp("text") / "mine.txt"
    lines = [f"Line {i} of <b>bold</b> & plain text, {{{{ 7 * 7 }}}} | {chr(0x1F600 + i % 40)}" for i in range(120)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


def asked(source, model, output, *more):
    return ["--source", source, "--model", model, "--output", output, "--rows", ROWS, "--block_size", BLOCK,
            "--documents", "line", "--batch_size", 4, "--particles", 2, *more]  # fmt: skip


@pytest.fixture(scope="module")
def done(source, model, tmp_path_factory):
    """The folder of an audit of hidden noise, and what it printed."""
    folder = tmp_path_factory.mktemp("audit") / "mine"
    return folder, main(*asked(source, model, folder, "--ratio", 1.0))


def record_in(folder) -> RunRecord:
    return RunRecord.from_json((folder / "record.json").read_text())


def test_the_record_measures_the_audit_beside_the_truth(done):
    folder, printed = done
    record, tokens = record_in(folder), pq.read_table(folder / "tokens.parquet").to_pandas()
    n = ROWS * (BLOCK - 1)
    assert len(tokens) == n == record.metrics["error_rate"]["n"] == record.metrics["true_error_rate"]["n"]
    assert record.task == "token_audit" and record.noise["protocol"] == "uniform_tokens"
    assert record.metrics["true_error_rate"]["value"] == record.noise["realised"]["rate"]
    assert abs(record.noise["realised"]["rate"] - 0.5) < 4 * np.sqrt(0.25 / n)
    rate = record.metrics["error_rate"]
    assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
    true = record.metrics["true_error_rate"]
    assert true["is_covered"] == (rate["low"] <= true["value"] <= rate["high"])
    for text in (f"wrong tokens: {100 * rate['value']:.1f}%", "in truth", "AUROC", "error norm", "in its context"):
        assert text in printed


def test_scores_are_those_of_the_files(done, source, model):
    """The AUROC again, from the files and the rows as they were before."""
    folder, _ = done
    rows, tokens = (pq.read_table(folder / f"{name}.parquet").to_pandas() for name in ("rows", "tokens"))
    clean_folder = folder.with_name("clean")
    main(*asked(source, model, clean_folder))
    clean = pq.read_table(clean_folder / "rows.parquet").to_pandas()
    assert rows.sample_id.tolist() == clean.sample_id.tolist()
    noisy, before = np.stack(rows.input_ids), np.stack(clean.input_ids)
    order = np.searchsorted(rows.sample_id, tokens.sample_id)
    wrong = (noisy != before)[order, tokens.position]
    metrics = record_in(folder).metrics
    assert metrics["auroc_p_wrong"]["value"] == pytest.approx(roc_auc_score(wrong, -tokens.weight), abs=1e-6)
    assert metrics["auroc_loss"]["value"] == pytest.approx(roc_auc_score(wrong, tokens.nll), abs=1e-6)
    told = record_in(clean_folder)
    assert told.noise == {"protocol": "unknown"} and set(told.metrics) == {"error_rate"}
    assert "in truth" not in (clean_folder / "audit.md").read_text()


def test_a_trainer_takes_what_was_written(done):
    rows = Dataset.from_parquet(str(done[0] / "rows.parquet"))
    train = with_weights(rows.select_columns(["sample_id", "input_ids"]), done[0] / "tokens.parquet")
    assert len(train) == ROWS and {len(one) for one in train["weights"]} == {BLOCK}
    assert all(one[0] == 1 for one in train["weights"]), "the first token of a row is no target"


def test_the_page_is_whole_and_escaped(done):
    page = (done[0] / "audit.html").read_text(encoding="utf-8")
    assert "<script" not in page and "http-equiv" in page and not re.search(r"(src|href)=\"http", page)
    body = page.partition('<ol class="text-rows">')[2]
    shown = re.sub(r"<[^>]+>", "", body)
    assert "<b>" not in body and "&lt;" in shown and "&amp;" in shown, "text is text, not markup"
    shades = [float(s) for s in re.findall(r"--s:([\d.]+)", body)]
    assert shades and max(shades) <= 0.85 and body.count("<li>") == ROWS
    weights = pq.read_table(done[0] / "tokens.parquet")["weight"].to_numpy()
    assert len(shades) == (1 - weights.astype(float) >= 0.02).sum()
    assert body.count('class="is-wrong"') == sum(
        int(found) for found in re.findall(r"should be wrong, (\d+) are", body)
    ) > 0  # fmt: skip


def test_figure_and_card(done):
    folder, record = done[0], record_in(done[0])
    assert (folder / "study.png").read_bytes().startswith(b"\x89PNG")
    card = DatasetCard.load(folder / "README.md")
    rate = record.metrics["error_rate"]
    assert card.data.to_dict()["audit"]["error_rate"]["value"] == pytest.approx(rate["value"], abs=1e-6)
    assert f"**{100 * rate['value']:.1f}% [" in card.text and "replaced on purpose" in card.text
    assert len(load_dataset(str(folder), "rows", split="train")) == ROWS
    with pytest.raises(ValueError, match="needs the record of an audit of tokens"):
        token_audit_card(RunRecord.from_dict(record.to_dict() | {"task": "causal_lm"}))


def test_a_finished_audit_is_shown_anew_and_other_settings_are_refused(done, source, model, monkeypatch):
    monkeypatch.setattr("hf_noise.studies.token_audit.run.audit_tokens", None)
    assert main(*asked(source, model, done[0], "--ratio", 1.0)) == done[1]
    with pytest.raises(FileExistsError, match="ratio"):
        main(*asked(source, model, done[0], "--ratio", 0.5))


def test_what_was_audited_is_not_audited_again(done, source, model, monkeypatch):
    before = (done[0] / "tokens.parquet").stat().st_mtime_ns
    (done[0] / "record.json").unlink()
    monkeypatch.setattr("hf_noise.studies.token_audit.run.audit_tokens", None)
    assert main(*asked(source, model, done[0], "--ratio", 1.0)) == done[1]
    assert (done[0] / "tokens.parquet").stat().st_mtime_ns == before


def test_the_demo_trains_a_model_once(tmp_path, monkeypatch):
    flags = ["--output", tmp_path, "--rows", 4, "--block_size", 16, "--steps", 2, "--particles", 2]
    printed = main(*flags)
    record = record_in(tmp_path)
    assert record.model["trained_here"] and record.budget["steps"] == 2 and record.data["split"] == "validation"
    assert record.noise["ratio"] == 0.25 and "AUROC" in printed
    (tmp_path / "record.json").unlink()
    (tmp_path / "tokens.parquet").unlink()
    monkeypatch.setattr("hf_noise.studies.token_audit.models.CausalLMTrainer", None)
    main(*flags)
    assert record_in(tmp_path).metrics == record.metrics


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_noise_has_its_rate_and_kind(kind):
    tokenizer = find_tokenizer(f"embedded:{V}")
    letters = [token for text, token in tokenizer.get_vocab().items() if len(text) == 1 and text.isalpha()]
    clean = np.random.default_rng(0).choice(letters, (200, 50))
    settings = at_scale(Settings, "demo", ratio=0.25, kind=kind, output="x")
    found = hide(settings, clean, np.arange(200), tokenizer, V)
    units = 200 if kind == "documents" else clean.size
    assert abs(found.is_replaced.mean() - 0.2) < 4 * np.sqrt(0.16 / units)
    assert (found.tokens[~found.is_replaced] == clean[~found.is_replaced]).all() and (found.tokens < V).all()
    assert found.told["realised"]["rate"] == found.is_replaced[:, 1:].mean()
    if kind in ("unigram", "look-alikes"):
        assert set(np.unique(found.tokens)) <= set(letters) | set(range(V) if kind == "look-alikes" else ())
    if kind == "documents":
        assert set(found.is_replaced.mean(axis=1)) == {0.0, 1.0}
    again = hide(settings, clean, np.arange(200), tokenizer, V)
    assert (again.tokens == found.tokens).all()


@pytest.mark.parametrize("kind", ["unigram", "look-alikes", "documents"])
def test_other_kinds_of_noise_are_audited(kind, source, model, tmp_path):
    main("--source", source, "--model", model, "--output", tmp_path, "--rows", 6, "--block_size", 24,
         "--documents", "line", "--kind", kind, "--ratio", 0.5, "--particles", 0)  # fmt: skip
    record = record_in(tmp_path)
    assert record.settings["kind"] == kind and "p_wrong" in json.dumps(record.metrics)
    assert record.data["audit"]["particles"] == 0
    unit = "rows" if kind == "documents" else "tokens"
    assert f"{record.metrics['error_rate']['n']:,} {unit}" in (tmp_path / "audit.md").read_text()
    assert DatasetCard.load(tmp_path / "README.md").data.to_dict()["audit"][unit] == record.metrics["error_rate"]["n"]


def test_a_dry_run_looks_and_writes_nothing(source, model, tmp_path):
    out = main(*asked(source, model, tmp_path / "out", "--dry_run", "--ratio", 1))
    assert "data: 6 of " in out and "rows of 24 tokens, train of" in out and "weights" in out and "r = 1" in out
    assert not (tmp_path / "out" / "tokens.parquet").exists()
    assert "trained first for 300 steps" in main("--dry_run", "--output", tmp_path / "out")
    out = main("--dry_run", "--source", "user/text", "--model", model)
    assert "data: user/text on the Hub, which a run downloads" in out
    assert "model: user/model on the Hub" in main("--dry_run", "--source", source, "--model", "user/model")


def found_of(p, nll, texts) -> Found:
    rate = {"value": 0.2, "low": 0.1, "high": 0.3, "how": "a; b", "n": 5, "confidence": 0.95, "parts": {}}
    return Found(np.array(p), np.array(nll), texts, None, None, {"error_rate": rate, "kind": "uniform", "particles": 0})


def test_the_worst_tokens_come_first_in_their_context():
    nan = np.nan
    found = found_of([[nan, 0.9, 0.1], [nan, 0.9, 0.95]], [[nan, 3.0, 1.0], [nan, 4.0, 1.0]],
                     [["a", " b", " c"], ["x", " y", "\n|z"]])  # fmt: skip
    assert worst_tokens(found, 3) == [(1, 2), (1, 1), (0, 1)] and len(worst_tokens(found, 99)) == 4
    assert in_context(found.texts[1], 2, 40) == "x y« ¦z»" and in_context(found.texts[0], 1, 40) == "a« b» c"
    assert len(in_context(["word "] * 40, 20, 25)) <= 25 and "«word »" in in_context(["word "] * 40, 20, 25)
    out = audit_text(found, {})
    assert "wrong tokens: 20.0% [10.0, 30.0] of 5 tokens (95% interval)" in out
    assert "3 tokens are more likely wrong" in out


def test_the_text_of_single_tokens():
    tokenizer = find_tokenizer(f"embedded:{V}")
    text = "Some words, and a smile: é"
    ids = np.array([tokenizer(text)["input_ids"]])
    assert "".join(pieces(tokenizer, ids)[0]).rstrip("\N{REPLACEMENT CHARACTER}") == text.rstrip("é")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "a.txt"}, "--source a.txt needs --model"), ({"model": "./nope"}, "--model ./nope: there is no"),
        ({"gguf_file": "w.gguf"}, "--gguf_file w.gguf is a file of --model"), ({"rows": 1}, "--rows must be >= 2"),
        ({"particles": 1}, "--particles 1 would read"), ({"particles": -1}, "--particles must be >= 0"),
        ({"kind": "documents", "particles": 4}, "--particles 4 read token by"), ({"kind": "typos"}, "--kind must"),
        ({"num_processes": 2}, "this study works in one"), ({"ratio": -0.1}, "--ratio must be >= 0"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        at_scale(Settings, "demo", **changes)


def test_what_does_not_fit_is_refused(source, model, tmp_path):
    with pytest.raises(ValueError, match="has positions for 24 tokens"):
        main(*asked(source, model, tmp_path / "a", "--block_size", 48))
    short = tmp_path / "short.txt"
    short.write_text("Too short to be cut into two rows, but long enough for one.")
    with pytest.raises(ValueError, match="an audit needs two"):
        main(*asked(str(short), model, tmp_path / "b"))
    with pytest.raises(ValueError, match="no validation split|no test split"):
        main(*asked(source, model, tmp_path / "c", "--split", "test"))
