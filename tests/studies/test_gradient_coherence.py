"""recipes/gradient_coherence.py: what is drawn, measured, recorded and shown, on a tiny model of the embedded text."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hf_noise.analysis.gradients import Estimate, coherence
from hf_noise.data.tokenization import find_tokenizer
from hf_noise.models.gpt2 import gpt2
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import read_records
from hf_noise.studies.gradient_coherence import study
from hf_noise.studies.gradient_coherence.claims import expected_length, verdicts
from hf_noise.studies.gradient_coherence.report import coherence_table, found_in, show
from hf_noise.studies.gradient_coherence.run import batches_of, corrupt, load
from hf_noise.studies.gradient_coherence.study import Cell, Settings
from hf_noise.studies.settings import SettingError, at_scale

SMALL = {"tokenizer": "embedded:300", "block_size": 16, "batch_size": [2, 4], "batches": 3, "corruption": [0.5]}


def small(output, **changes) -> Settings:
    return at_scale(Settings, "demo", **{"output": str(output), **SMALL, **changes})


def run(capsys, output, *more) -> str:
    flags = [str(part) for name, value in SMALL.items()
             for part in (f"--{name}", *(value if isinstance(value, list) else [value]))]  # fmt: skip
    study.main(["--output", str(output), *flags, *map(str, more)])
    return capsys.readouterr().out


def test_the_study_ends_in_table_claims_figure_and_records(tmp_path, capsys, figures):
    out = run(capsys, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "e0.5-b2-seed0", "e0.5-b4-seed0", "study.md", "study.png"
    ]  # fmt: skip
    for told in ("cosine, clean", "| 50", "verdict", "SNR rises from a batch of 2 to one of 4", "a sum of 0"):
        assert told in out, told
    assert all(len(line) <= 100 for line in out.splitlines() if line.startswith("| 50 "))
    assert [axis.get_title(loc="left")[:3] for axis in figures[0].axes] == ["(a)", "(b)", "(c)"]
    two, four = read_records(tmp_path)
    assert (two.budget["batches"], four.budget["batches"], two.data["rows"], four.data["rows"]) == (3, 3, 6, 12)
    assert two.noise["protocol"] == "uniform_examples" and four.noise["realised"] == {"rate": 0.5, "n": 12}
    assert two.model["gradients_of"] == ["transformer.wte.weight"] and two.loss["method"] == "blocks"
    assert set(two.metrics) >= {"clean_norm", "corrupt_norm", "snr", "example_square", "batch_square"}
    assert run(capsys, tmp_path) == out, "nothing is measured again"
    again, _ = read_records(tmp_path)
    assert again == two


def test_what_is_measured_is_what_the_batches_say(tmp_path):
    settings = small(tmp_path)
    work, cell = load(settings), Cell(0.5, 4, 0)
    batches = list(batches_of(work, cell))
    assert len(batches) == 3 and all(list(one["labels"].shape) == [4, 16] for one in batches)
    for batch in batches:
        same = (batch["input_ids"] == batch["labels"]).all(1)
        assert torch.equal(same, ~batch["is_noisy"]), "an example is corrupt as a whole, its inputs stay clean"
    halves = list(batches_of(work, Cell(0.5, 2, 0)))
    assert torch.equal(torch.cat([halves[0]["labels"], halves[1]["labels"]]), batches[0]["labels"])
    torch.manual_seed(0)
    model = gpt2("nano", vocab_size=300, block_size=16, end_of_text=work.text.tokenizer.eos_token_id)
    assert all(map(torch.equal, model.parameters(), work.model.parameters())), "fresh, by its seed"
    found = coherence(model, batches, one_sided="zero", method="loop")
    study.main(["--output", str(tmp_path), "--tokenizer", "embedded:300", "--block_size", "16", "--batches", "3",
                "--batch_size", "4", "--corruption", "0.5"])  # fmt: skip
    (record,) = read_records(tmp_path)
    assert record.metrics["snr"]["value"] == pytest.approx(found.estimates["snr"].value, rel=1e-4)


def test_corruption_has_its_rate_and_is_uniform():
    settings, tokens = small("x"), np.full((4000, 16), 7)
    labels, is_noisy = corrupt(settings, Cell(0.25, 4, 3), tokens, np.arange(4000), 300)
    assert abs(is_noisy.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    assert (labels[~is_noisy] == 7).all() and labels.min() >= 0 and labels.max() == 299
    assert abs(labels[is_noisy].mean() - 149.5) < 4 * 300 / np.sqrt(12 * 16_000)
    alone, _ = corrupt(settings, Cell(0.25, 4, 3), tokens[:3], np.arange(5, 8), 300)
    assert (alone == labels[5:8]).all(), "by the example, not the batch"


def test_single_targets_and_other_parameters(tmp_path, capsys):
    named = "transformer.h.0.mlp.c_fc.weight"
    out = run(capsys, tmp_path, "--unit", "token", "--parameters", named)
    one, _ = read_records(tmp_path)
    assert one.noise["protocol"] == "uniform_tokens" and one.model["gradients_of"] == [named]
    assert f"Gradients of {named}" in out and "Single targets are corrupt" in out
    assert {one.loss["method"]} == {"vmap"}


def test_a_checkpoint_of_ones_own(tmp_path, capsys):
    torch.manual_seed(5)
    gpt2("nano", vocab_size=320, block_size=16, end_of_text=0).save_pretrained(tmp_path / "mine")
    out = run(capsys, tmp_path / "out", "--model", tmp_path / "mine")
    assert "as it was loaded" in out and not read_records(tmp_path / "out")[0].model["is_fresh"]
    for changes, message in (
        ({"tokenizer": "embedded:400"}, "has 400 tokens, --model .*mine knows 320; give the tokenizer of the model"),
        ({"tokenizer": "embedded:260"}, "has 260 tokens, --model .*mine knows 320: its ids are others"),
        ({"block_size": 32}, "--block_size 32: .*mine has positions for 16 tokens"),
        ({"parameters": ["transformer.nope"]}, "there is none called 'transformer.nope' in GPT2LMHeadModel; near it"),
        ({"tokenizer": None}, "there is no tokenizer in '.*mine'"),
    ):
        with pytest.raises((OSError, ValueError), match=message):
            load(small(tmp_path / "more", model=str(tmp_path / "mine"), **changes))


def test_a_checkpoint_brings_its_tokenizer(tmp_path):
    torch.manual_seed(5)
    mine = str(tmp_path / "mine")
    gpt2("nano", vocab_size=320, block_size=16, end_of_text=0).save_pretrained(mine)
    find_tokenizer("embedded:320").save_pretrained(mine)
    work = load(small(tmp_path / "out", model=mine, tokenizer=None))
    assert (work.settings.tokenizer, work.vocab_size) == (mine, 320)
    with pytest.raises(SettingError, match="--tokenizer embedded:300 is not that of --model .*; leave it out"):
        load(small(tmp_path / "out", model=mine, tokenizer="embedded:300"))


def test_the_papers_figures_stand_beside_the_same_thing_alone(tmp_path, capsys, figures):
    out = run(capsys, tmp_path / "example", "--parameters", "transformer.wpe.weight")
    assert "| paper A" not in out
    texts = [text.get_text() for axis in figures[0].axes for text in axis.get_legend().get_texts()]
    assert not any("paper" in text for text in texts)


def test_other_settings_do_not_go_on_in_the_same_folder(tmp_path, capsys):
    run(capsys, tmp_path)
    with pytest.raises(FileExistsError, match="batches"):
        run(capsys, tmp_path, "--batches", 4)


def test_a_dry_run_looks_and_writes_nothing(tmp_path, capsys):
    out = run(capsys, tmp_path / "out", "--dry_run")
    assert "2 settings, e0.5-b2-seed0, e0.5-b4-seed0; 12 rows of 16 tokens" in out
    assert "gradients of the output layer" in out and not (tmp_path / "out" / "e0.5-b2-seed0").exists()
    study.main(["--scale", "paper", "--dry_run"])
    assert "Skylion007/openwebtext on the Hub, which a run downloads" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corruption": [1.0]}, "--corruption must be > 0 and < 1"), ({"corruption": []}, "--corruption is empty"),
        ({"batch_size": [1]}, "--batch_size must be >= 2"), ({"batch_size": [4, 4]}, "--batch_size names one twice"),
        ({"batches": 1}, "--batches must be >= 2"), ({"model": "no/such/model"}, "--model no/such/model: neither a"),
        ({"unit": "word"}, "--unit must be one of example, token"), ({"num_processes": 2}, "this study works in one"),
        ({"memory_mib": 0}, "--memory_mib must be >= 1"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        small("x", **changes)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="--batches 9999999 of up to 4 take 39,999,996 rows, the text has"):
        load(small("x", batches=9999999))


# ---- what is said of the figures


def measured(clean=0.5, corrupt=0.0, cross=0.0, unit=1.0, width=0.001) -> dict:
    """Estimates as the cosines predict them, at the rates and sizes of the paper."""
    made = {}
    for rate in (0.25, 0.5):
        for size in (4, 8):
            sums = 2.4 * expected_length(size, 1 - rate, clean), unit * expected_length(size, rate, corrupt)
            values = {"clean_cosine": clean, "corrupt_cosine": corrupt, "cross_cosine": cross, "clean_norm": sums[0],
                      "corrupt_norm": sums[1], "snr": sums[0] / sums[1]}  # fmt: skip
            made[rate, size] = {
                name: Estimate(value, value - width, value + width, 200, value, value) for name, value in values.items()
            }
    return made


def test_the_lengths_of_sums_are_those_of_the_paper():
    """Spec: E sqrt(n) of table 4's four corrupt sums, and of its clean ones at a cosine of 0.52."""
    cells = [(4, 0.25), (8, 0.25), (4, 0.5), (8, 0.5)]
    corrupt = [expected_length(size, e, 0) for size, e in cells]
    assert corrupt == pytest.approx([0.8092, 1.3021, 1.3383, 1.9625], abs=5e-5)
    clean = [expected_length(size, 1 - e, 0.52) for size, e in cells]
    assert clean == pytest.approx([2.4708, 4.6470, 1.7223, 3.1965], abs=5e-5)


def test_all_claims_hold_of_figures_like_the_papers():
    found = verdicts(measured(clean=0.52))
    assert {one.word for one in found} == {"held"} and len(found) == 4 + 2 * 3 + 2
    assert "x 1.61 [1.61, 1.61]" in {one.statistic for one in found}


@pytest.mark.parametrize(
    ("changes", "claim", "word"),
    [
        ({"clean": 0.02}, "clean gradients agree", "not held"), ({"clean": 0.05}, "clean gradients agree", "open"),
        ({"corrupt": 0.2}, "corrupt gradients do not", "not held"), ({"cross": -0.2}, "nor a clean", "not held"),
        ({"corrupt": 0.9, "clean": 0.5}, "SNR rises", "not held"), ({"width": 1.0}, "SNR rises", "open"),
        ({"corrupt": 0.9}, "the corrupt sum grows", "not held"), ({"clean": -0.05}, "the clean sum grows", "not held"),
    ],
)  # fmt: skip
def test_claims_that_do_not_hold(changes, claim, word):
    assert {one.word for one in verdicts(measured(**changes)) if claim in one.claim} == {word}


def test_of_several_settings_one_refutes_at_a_level_that_is_theirs_together():
    """0.1 is beyond 0.05 with p = 0.02: of one setting that is not about 0, of four it may be by chance."""

    def word(found):
        return next(one.word for one in verdicts(found) if one.claim.startswith("nor a clean"))

    near, far = measured(width=0.0421), measured(cross=0.1, width=0.0421)
    assert word({(0.25, 4): far[0.25, 4]}) == "not held" and word(near | {(0.25, 4): far[0.25, 4]}) == "open"
    assert word(near | {(0.25, 4): measured(cross=0.2, width=0.0421)[0.25, 4]}) == "not held"


def test_that_the_cosine_stays_is_told_by_its_interval():
    """Wide intervals tell nothing, however near the values are."""

    def word(found):
        return next(one.word for one in verdicts(found) if one.claim.startswith("their cosine depends"))

    near = measured()
    far = near | {(0.25, 4): near[0.25, 4] | {"clean_cosine": Estimate(0.9, 0.899, 0.901, 200, 0.9, 0.9)}}
    assert (word(near), word(far), word(measured(width=0.6))) == ("held", "not held", "open")


def test_the_table_stands_beside_the_papers():
    table = coherence_table(measured(clean=0.52))
    assert [row[:2] for row in table.rows] == [["25", "4"], ["25", "8"], ["50", "4"], ["50", "8"]]
    paper = paper_table("A.table4")
    assert [row[-1] for row in table.rows] == [f"{cell['snr']:.2f}" for cell in paper.values()] == [
        "7.31", "8.34", "2.96", "3.83"
    ]  # fmt: skip


def test_settings_without_some_pairs_are_shown_too(tmp_path, capsys):
    """Two batches of two examples: there may be no pair of corrupt ones."""
    run(capsys, tmp_path, "--batches", 2, "--corruption", 0.01, "--batch_size", 2, 4, "--seed", 1)
    record = json.loads((tmp_path / "e0.01-b2-seed1" / "record.json").read_text())
    assert "corrupt_cosine" not in record["metrics"] and "snr" not in record["metrics"]
    found = found_in(read_records(tmp_path))
    assert coherence_table(found).rows[0][5] == "-" and "figure: " in show(small(tmp_path))
