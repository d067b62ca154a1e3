"""GPT-2 among noise documents, from the command line to its table: tiny networks on the embedded text."""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path

import pytest
from printed import printed_by

import hf_noise
from hf_noise.data.embedded import docs_text
from hf_noise.data.reading import CorpusError
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.documents.study import STUDY
from hf_noise.studies.language import study as gpt2_noise

main = functools.partial(printed_by, gpt2_noise.main, "--protocol")
UNIFORM, GAUSSIAN = "random-documents", "gaussian-documents"
RUNS = {
    "clean-seed0": (0.0, 8), "clean-text-of-a0.25-seed0": (0.0, 6), f"{UNIFORM}-a0.25-nll-seed0": (0.25, 8),
    f"{UNIFORM}-a0.25-mixture-known-seed0": (0.25, 8), f"{GAUSSIAN}-a0.25-nll-seed0": (0.25, 8),
    f"{GAUSSIAN}-a0.25-mixture-known-seed0": (0.25, 8),
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[str]:
    """Settings of a run that takes a second: few steps, and a short text to validate on."""
    text = tmp_path_factory.mktemp("text") / "validation.txt"
    text.write_text("\n".join(docs_text("validation"))[:8000], encoding="utf-8")
    return [
        "--validation_source", str(text), "--tokenizer", "embedded:300", "--block_size", "16", "--batch_size", "8",
        "--steps", "8", "--save_steps", "8", "--logging_steps", "2", "--evaluations", "4", "--noise_rows", "64",
        "--score_rows", "64",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, tiny) -> list:
    folder = tmp_path_factory.mktemp("study")
    other = folder.parent / "other.txt"
    other.write_text("\n".join(docs_text("validation"))[8000:20_000], encoding="utf-8")
    return [UNIFORM, GAUSSIAN, "--output", folder, *tiny, "--alpha", "0.25", "--cure", "known", "--eval",
            f"other={other}", "--eval_rows", "20"]  # fmt: skip


@pytest.fixture(scope="module")
def study(arguments) -> tuple[Path, str, dict[str, RunRecord]]:
    """Folder of a finished study, what was printed, and its records."""
    folder, printed = Path(arguments[3]), main(*arguments)
    return folder, printed, {record.name: record for record in read_records(folder)}


def test_every_run_has_its_folder_record_and_card(study):
    folder, _, records = study
    assert sorted(path.name for path in folder.iterdir()) == sorted([*RUNS, "study.md", "study.png"])
    for name, (alpha, steps) in RUNS.items():
        record, noise = records[name], hf_noise.load_noise(folder / name)
        assert (noise.alpha, noise.vocab_size, noise.exclude, record.budget["steps"]) == (alpha, 300, 0, steps)
        assert record.budget.get("clean_of") == (0.25 if steps == 6 else None)
        card = (folder / name / "README.md").read_text(encoding="utf-8")
        assert ("alpha = 0.25 of the mixture is noise" in card) == (alpha > 0) and "NLL, clean validation" in card
        assert "Masking" not in card
        # Five standard deviations, rows being noise as a whole.
        rows = 8 * steps
        assert abs(record.noise["realised"]["rate"] - alpha) <= 5 * math.sqrt(alpha * (1 - alpha) / rows)


def test_curves_along_training_end_where_the_run_does(study):
    _, _, records = study
    for name, (alpha, steps) in RUNS.items():
        metrics, at = records[name].metrics, list(range(2, steps + 1, 2))
        own = ["noise_nll"] if alpha else ["noise_random_documents_nll", "noise_gaussian_documents_nll"]
        for key in ("validation_nll", "nll_other", *own):
            assert metrics[key]["steps"] == at, (name, key)
            assert metrics[key]["values"][-1] == metrics[key]["value"] and len(metrics[key]["values"]) == len(at)
        assert metrics["nll_other"]["n"] == 20 * 15 and metrics[own[0]]["n"] == 64 * 15
        for key in ("validation_nll", *own) if alpha else ("validation_nll",):
            assert set(metrics[key]["train"]["steps"]) <= set(at) and metrics[key]["train"]["steps"]
        assert ("row_auroc" in metrics) == (alpha > 0)
    clean = records["clean-seed0"].metrics
    assert clean["noise_random_documents_nll"]["entropy"] == pytest.approx(math.log(299))
    assert clean["noise_gaussian_documents_nll"]["entropy"] < 3


def test_tables_claims_and_figure(study):
    folder, printed, _ = study
    for start in (r"none +\| +0 \|", r"none, 0\.75 of the steps +\|", rf"{UNIFORM} +\| +0\.25 \|", "claim +"):
        assert re.search(rf"^\| {start}", printed, re.MULTILINE), start
    assert "validation NLL, clean" in printed and "other: rise, %" in printed and "mixture, alpha known" in printed
    assert "the clean loss falls throughout training" in printed
    assert re.search(r"\| +((not )?held on these test rows|open) \(one seed\) +\|$", printed, re.M)
    assert printed.rstrip().endswith(f"tables: {folder / 'study.md'}")
    assert (folder / "study.md").read_text(encoding="utf-8").strip() in printed
    assert (folder / "study.png").stat().st_size > 10_000


def test_started_again_it_trains_nothing_and_prints_the_same(study, arguments, monkeypatch):
    monkeypatch.setattr("hf_noise.studies.engine.make", lambda *_: pytest.fail("made a finished run"))
    assert main(*arguments) == study[1]


@pytest.mark.parametrize("flags", [[], ["--streaming"]], ids=["stored", "streamed"])
def test_noise_among_the_text(tiny, tmp_path, flags):
    """Appended noise is not reached in a stream, which is read in order."""
    few = ["--steps", "4", "--evaluations", "1", "--no_equal_clean", "--cure"]
    main(UNIFORM, "--output", tmp_path, *tiny, *few, "--alpha", "0.5", "--placement", "interleave", *flags)
    noisy = {record.name: record for record in read_records(tmp_path)}[f"{UNIFORM}-a0.5-nll-seed0"]
    assert noisy.noise["placement"] == "interleave" and 0.15 < noisy.noise["realised"]["rate"] < 0.85
    assert (noisy.data["train_rows"] is None) == bool(flags)


def test_a_dry_run_looks_at_data_and_time(tiny, tmp_path):
    printed = main(UNIFORM, "--output", tmp_path / "none", *tiny, "--alpha", "0.25", "--cure", "--dry_run", "--eval",
                   f"own={tiny[1]}")  # fmt: skip
    settings, end = json.JSONDecoder().raw_decode(printed)
    assert settings["protocol"] == [UNIFORM] and settings["cure"] == []
    assert "clean-text-of-a0.25-seed0: e = 0.0000, 6 steps x 8 rows = 768 tokens" in printed[end:]
    assert re.search(r"^own: \d+ rows$", printed, re.MULTILINE) and "a step takes" in printed
    assert not (tmp_path / "none").exists()


def test_a_corpus_that_is_trained_on_is_named(tiny, tmp_path, caplog):
    own = tmp_path / "own.txt"
    own.write_text("\n".join(docs_text("train"))[:40_000], encoding="utf-8")
    flags = [UNIFORM, "--output", tmp_path / "none", *tiny, "--source", own, "--alpha", "0.25", "--cure", "--dry_run"]
    main(*flags, "--eval", f"same={own}")
    assert f"--eval same: {own} is trained on too" in caplog.text


def test_an_empty_corpus_is_refused(tiny, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(CorpusError, match="empty"):
        main(UNIFORM, "--output", tmp_path / "none", *tiny, "--eval", f"none={empty}")
    assert not list(tmp_path.glob("none/*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["random-documents", "--eval", "wiki.txt"], "--eval takes name=source, such as wiki=wiki.parquet"),
        (["random-documents", "--eval", "a b=x.txt"], "--eval takes name=source"),
        (["random-documents", "--eval", "a=x.txt", "a=y.txt"], "--eval a: the name is taken"),
        (["random-documents", "--eval", "noise=x.txt"], "--eval noise: the name is taken"),
        (["random-documents", "--ratio", "1"], "no flag takes --ratio 1"),
        (["uniform-tokens", "--alpha", "0.2"], "--alpha 0.2: the share of documents of noise; add --protocol"),
        (["uniform-tokens", "random-documents"], "invalid choice: 'uniform-tokens'"),
        (["random-documents", "--alpha", "0.2", "0.2"], "--alpha and --protocol: each value once"),
        (["random-documents", "--streaming", "--validation_source", "x"], "add --placement interleave"),
        (["random-documents", "--streaming", "--validation_source", "x", "--placement", "interleave", "--cure",
          "known"], "--cure: the rows that are found are read again"),
        (["random-documents", "--alpha", "1"], "--alpha must be >= 0 and < 1, got 1"),
    ],
)  # fmt: skip
def test_what_cannot_work_stops_before_any_work(flags, message, capsys):
    with pytest.raises(SystemExit):
        main(*flags)
    assert message in capsys.readouterr().err


def test_a_vocabulary_too_small_for_the_boost_stops_before_anything_is_trained(tiny, tmp_path):
    with pytest.raises(ValueError, match="vocab_size=300 is too small for boost='low'"):
        main("low-documents", "--output", tmp_path / "none", *tiny, "--alpha", "0.25")
    assert not list(tmp_path.glob("none/*"))


def test_the_door_of_language_models_leads_here(capsys):
    for flags, is_here in ((["random-documents"], True), (["uniform-tokens"], False)):
        with pytest.raises(SystemExit):
            gpt2_noise.main(["--protocol", *flags, "--help"])
        assert ("--alpha" in capsys.readouterr().out) == is_here
    assert {run.protocol for run in STUDY.runs(STUDY.parse(["--protocol", GAUSSIAN]))} == {"none", GAUSSIAN}
