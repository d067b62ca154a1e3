"""BERT among noise documents, from the command line to its table: tiny networks on the embedded text."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import pytest
from printed import printed_by
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertTokenizerFast

import hf_noise
from hf_noise.analysis.nll_floor import masked_entropy
from hf_noise.data.embedded import docs_text
from hf_noise.hub.card import model_card
from hf_noise.noise import Masking
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.documents.claims import verdicts
from hf_noise.studies.documents.compare import compared
from hf_noise.studies.masked_language import study as bert_noise
from hf_noise.studies.progress import FigureProgress

main = functools.partial(printed_by, bert_noise.main)
PLAIN = "random-documents-a0.2-nll-seed0"
STEPS = [2, 4, 6, 8]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[str]:
    """Settings of a run that takes a second: few steps, and a short text to validate on."""
    text = tmp_path_factory.mktemp("text") / "validation.txt"
    text.write_text("\n".join(docs_text("validation"))[:8000], encoding="utf-8")
    return [
        "--validation_source", str(text), "--tokenizer", "embedded:300", "--block_size", "16", "--batch_size", "8",
        "--steps", "8", "--save_steps", "4", "--logging_steps", "2", "--evaluations", "4", "--noise_rows", "64",
        "--score_rows", "64", "--no_equal_clean",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny) -> tuple[Path, str, dict[str, RunRecord]]:
    """Folder of a finished study, what was printed, and its records."""
    folder = tmp_path_factory.mktemp("study")
    printed = main("--output", folder, *tiny, "--alpha", "0.2",
                   "--mask_probability", "0.3", "--eval", f"own={tiny[1]}")  # fmt: skip
    return folder, printed, {record.name: record for record in read_records(folder)}


def test_records_say_masking_noise_and_what_was_measured(study):
    folder, _, records = study
    assert sorted(records) == ["clean-seed0", PLAIN]
    masking = Masking(vocab_size=300, mask_token=300, special_tokens=(0,), probability=0.3)
    for record in records.values():
        assert record.task == "masked_lm" and record.recipe == "recipes/bert_noise.py"
        assert Masking.from_dict(record.loss["masking"]) == masking
        assert record.model["config"]["vocab_size"] == 301 and record.noise["vocab_size"] == 300
        nll = record.metrics["validation_nll"]
        assert nll["steps"] == nll["train"]["steps"] == STEPS and nll["values"][-1] == nll["value"]
        assert nll["values"][0] > nll["values"][-1] > 0
        tokens = record.data["validation_tokens"]
        # Five standard deviations, and end-of-text tokens, which are never masked.
        assert abs(nll["n"] - 0.3 * tokens) < 5 * math.sqrt(0.21 * tokens) + 0.01 * tokens
        # The same text under other masks.
        assert record.metrics["nll_own"]["value"] == pytest.approx(nll["value"], abs=0.1)
    assert len({record.metrics["validation_nll"]["n"] for record in records.values()}) == 1


def test_the_loss_on_noise_tends_to_what_can_be_known_of_a_masked_token(study):
    _, _, records = study
    noise = hf_noise.load_noise(study[0] / PLAIN)
    floor = masked_entropy(Masking.from_dict(records[PLAIN].loss["masking"]), noise.probabilities())
    assert records[PLAIN].metrics["noise_nll"]["entropy"] == floor < noise.entropy - 0.4
    assert records["clean-seed0"].metrics["noise_random_documents_nll"]["entropy"] == floor
    assert noise.entropy == pytest.approx(math.log(299))


def test_rows_of_noise_are_told_by_their_masked_tokens(study):
    _, _, records = study
    assert "row_auroc" not in records["clean-seed0"].metrics
    assert records[PLAIN].metrics["row_auroc"]["value"] > 0.6


def test_checkpoints_load_and_cards_say_the_masking(study):
    folder, _, records = study
    for name, record in records.items():
        model = AutoModelForMaskedLM.from_pretrained(folder / name)
        assert len(AutoTokenizer.from_pretrained(folder / name)) == model.config.vocab_size - 1 == 300
        card = (folder / name / "README.md").read_text(encoding="utf-8")
        assert "Masking: 0.3 of the tokens are masked and predicted" in card and "pipeline_tag: fill-mask" in card
        assert "The mask token has the id 300, which is none of the tokenizer's." in card
        assert "AutoModelForMaskedLM" in str(model_card(record, repo_id="user/name"))
    plain = records[PLAIN].to_dict()
    without = RunRecord.from_dict(plain | {"loss": {k: v for k, v in plain["loss"].items() if k != "masking"}})
    assert "Masking" not in str(model_card(without))


def test_the_table_speaks_of_masked_tokens_and_the_claims_of_bert(study):
    folder, printed, records = study
    assert "| loss of masked tokens, clean |" in printed and "figure 2a, GPT-2" in printed
    assert "own: rise, %" in printed
    assert "section 3.1" not in printed and (folder / "study.png").stat().st_size > 10_000
    made = compared([
        RunRecord.from_dict(record.to_dict() | {"noise": record.noise | {"alpha": 0.05}} if record.noise["alpha"]
                            else record.to_dict())
        for record in records.values()
    ])  # fmt: skip
    told = [one for one in verdicts(made, made.task) if one.source == "table 9"]
    assert [one.claim.split(" % ")[0].split()[-1] for one in told] == ["50", "100"]
    assert all("of training the clean loss is raised, by at most 1.1 %" in one.claim for one in told)


def test_stopped_and_started_again_it_ends_with_the_same_weights(study, tiny, tmp_path, monkeypatch):
    folder, _, records = study
    arguments = ["--output", tmp_path, *tiny, "--alpha", "0", "--mask_probability", "0.3", "--eval", f"own={tiny[1]}"]

    def ctrl_c(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="clean-seed0"):
        patch.setattr(FigureProgress, "on_save", ctrl_c)
        main(*arguments)
    assert (tmp_path / "clean-seed0" / "checkpoint-4").is_dir()
    main(*arguments)
    weights = [(place / "clean-seed0" / "model.safetensors").read_bytes() for place in (folder, tmp_path)]
    assert weights[0] == weights[1]
    (again,) = read_records(tmp_path)
    assert again.metrics == records["clean-seed0"].metrics
    monkeypatch.setattr("hf_noise.studies.engine.make", lambda *_: pytest.fail("made a finished run"))
    assert "none" in main(*arguments)


def test_a_stream_is_masked_too(tiny, tmp_path):
    flags = [*tiny, "--alpha", "0.5", "--streaming", "--placement", "interleave", "--cure", "--evaluations", "1"]
    printed = main("--output", tmp_path, *flags)
    clean, noisy = read_records(tmp_path)
    assert clean.data["train_rows"] is None and noisy.loss["masking"]["mask_token"] == 300
    assert 0.2 < noisy.noise["realised"]["rate"] < 0.8 and "random-documents" in printed


def test_a_dry_run_times_steps_and_leaves_nothing(tiny, tmp_path):
    printed = main("--output", tmp_path / "none", *tiny, "--alpha", "0.2", "--cure", "--dry_run")
    settings, end = json.JSONDecoder().raw_decode(printed)
    assert (settings["mask_probability"], settings["dropout"], settings["model"]) == (0.15, 0.0, "nano")
    assert "clean-seed0: e = 0.0000, 8 steps x 8 rows = 1,024 tokens" in printed[end:]
    assert "a step takes" in printed and not (tmp_path / "none").exists()


def test_the_tokenizer_s_own_mask_token_is_taken(tmp_path, tiny):
    """Of BERT's own tokenizer, whose documents end with [SEP]."""
    words = sorted({word for text in docs_text("validation") for word in text.lower().split() if word.isalpha()})[:80]
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]), encoding="utf-8")
    BertTokenizerFast(vocab=str(vocab)).save_pretrained(tmp_path / "bert")
    flags = [*tiny, "--tokenizer", tmp_path / "bert", "--alpha", "0", "--steps", "2", "--evaluations", "1"]
    main("--output", tmp_path / "runs", *flags)
    (record,) = read_records(tmp_path / "runs")
    assert record.loss["masking"]["mask_token"] == 4 and record.model["config"]["vocab_size"] == 85
    assert record.noise["exclude"] == 3  # no document of noise ends by itself


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mask_probability", "1"], "--mask_probability must be > 0 and < 1, got 1"),
        (["--dropout", "1"], "--dropout must be >= 0 and < 1, got 1"), (["--model", "gpt2"], "invalid choice: 'gpt2'"),
        (["--streaming", "--validation_source", "x"], "add --placement interleave"),
        (["--ratio", "1"], "no flag takes --ratio"), (["--cure", "learned"], "--cure: the mixture's likelihood takes"),
        (["--scale", "gpu"], "--scale gpu needs a corpus"), (["--alpha", "1"], "--alpha must be >= 0 and < 1"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_named(flags, message, capsys):
    with pytest.raises(SystemExit):
        main(*flags)
    assert message in capsys.readouterr().err


def test_paper_scale_is_table_9_with_berts_own_recipe():
    settings = bert_noise.STUDY.parse(["--scale", "paper"])
    runs, plans, _ = bert_noise.STUDY.planned(settings)
    assert [run.alpha for run in runs] == [0, 0.05]
    assert {(plan.steps, plan.batch_size) for plan in plans} == {(10_000_000, 256)}
    told = ("block_size", "learning_rate", "weight_decay", "dropout", "mask_probability", "warmup")
    assert [getattr(settings, name) for name in told] == [512, 1e-4, 0.01, 0.1, 0.15, 10_000]
