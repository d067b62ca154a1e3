"""recipes/theory.py: its figures, table and values, and k of a pair of runs whose records are made here."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from hf_noise.analysis.ntp_theory import REGIMES, k_from_losses, proposition1
from hf_noise.noise import RandomDocuments, UniformTokens
from hf_noise.reports.record import RunRecord
from hf_noise.studies.theory import study
from hf_noise.studies.theory.pair import read_pair

STEPS = [0, 10, 20, 40, 60, 80, 100]
CLEAN = [7.6, 6.0, 5.0, 4.0, 3.5, 3.2, 3.0]
MIXED = [7.6, 6.1, 5.1, 4.05, 3.54, 3.2, 3.03]
NOISE = [8.0, 7.8, 7.7, 7.65, 7.85, 7.6, 7.58]


def record(folder, alpha=0.0, validation=(STEPS, MIXED), noise=(STEPS, NOISE), protocol=None, **changes):
    """A run's record, as a study writes it, in a folder of its own; returns the folder."""

    def curve(told):
        return {"value": told[1][-1], "n": 1000, "steps": list(told[0]), "values": list(told[1])}

    metrics = {name: curve(told) for name, told in (("validation_nll", validation), ("noise_nll", noise)) if told}
    values = {
        "name": folder.name, "recipe": "recipes/gpt2_noise.py", "model": {"name": "nano"}, "seed": 0,
        "data": {"source": "embedded/docs-text", "block_size": 64}, "budget": {"steps": 100}, "loss": {"name": "nll"},
        "noise": (protocol or RandomDocuments(alpha=alpha, vocab_size=300)).to_dict(), "settings": {},
        "metrics": metrics, "wall_seconds": 1.0,
    }  # fmt: skip
    RunRecord(**values | changes).write(folder / "record.json")
    return folder


@pytest.fixture
def pair(tmp_path):
    clean = record(tmp_path / "clean-seed0", validation=(STEPS, CLEAN), noise=None)
    return clean, record(tmp_path / "mixed-seed0", 0.05)


def run(capsys, *flags):
    study.main([str(flag) for flag in flags])
    return capsys.readouterr().out


def test_without_a_pair_there_is_no_k_over_training(tmp_path, capsys, figures):
    out = run(capsys, "--output", tmp_path)
    assert out.count("k over training (figure 7a) is left out: it takes --clean and --mixed") == 1
    assert [axis.get_title(loc="left")[:3] for axis in figures[0].axes] == ["(b)", "(c)"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "figure3-paper-a.png", "figure7.png", "figure9.png", "pac-paper-a.png", "theory.json", "theory.md",
    ]  # fmt: skip
    values = json.loads((tmp_path / "theory.json").read_text())
    assert values["figure_7a"] is None and values["statements"] == REGIMES
    assert values["figure_9"]["eta"] == pytest.approx(0.00289824, abs=5e-9)
    assert values["figure_9"]["clean_loss_rise"]["2 eta"] == pytest.approx(0.111318, abs=1e-6)
    lost = values["figure_3_of_paper_a"]
    assert lost["relative_information_loss"]["10"][lost["error_rate"].index(0.5)] == pytest.approx(0.7782, abs=5e-5)
    for name in ("figure7.png", "figure9.png", "figure3-paper-a.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert all(figure.get_size_inches()[0] <= 9 for figure in figures), "legible where the README is read"


def test_the_table_says_which_statement_holds(tmp_path, capsys):
    grid = ["--alpha", 0.05, 0.4, "--k", 16, 100, 1000]
    out = run(capsys, "--output", tmp_path, *grid, "--noise_loss", math.log(50_000))
    header, _, *lines = (tmp_path / "theory.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    found = proposition1(math.exp(-2.9), 1 / 50_000, [[0.05], [0.4]], [16, 100, 1000])
    assert [row[4] for row in rows] == found.regime.ravel().tolist()
    assert [row[4] for row in rows] == ["eta only", "below 3 eta", "never pays", "eta only", "eta only", "eta only"]
    assert [float(row[2]) for row in rows] == pytest.approx(found.eta.ravel(), rel=5e-3)
    assert rows[2][5:] == ["-", "-", "-"] and 2 < float(rows[1][5]) < 3 < float(rows[0][5])
    assert "below 3 eta: f > 0 up to eta" in out and "below 2 eta:" not in out, "only what the table speaks of"
    values = json.loads((tmp_path / "theory.json").read_text())["regimes"]
    assert values["bound"] == [[None, pytest.approx(3 * found.eta[0, 1]), 0], [None, None, None]]


def test_k_of_a_pair_of_runs(pair, tmp_path, capsys, figures):
    """p_n at 3/10 of 100 steps: as near to step 20 as to 40, and the first one counts."""
    flags = ["--clean", pair[0], "--mixed", pair[1] / "record.json", "--early", 0.3]
    out = run(capsys, "--output", tmp_path / "out", *flags)
    told = json.loads((tmp_path / "out" / "theory.json").read_text())["figure_7a"]
    assert told["runs"] == ["clean-seed0", "mixed-seed0"] and told["alpha"] == 0.05
    assert (told["early_step"], told["early_noise"], told["steps"]) == (20, 7.7, [40, 60, 80, 100])
    # At 60 the noise is known worse than at 20, at 80 the clean loss is no higher.
    expected = [k_from_losses(CLEAN[i], MIXED[i], 7.7, NOISE[i]) for i in (3, 5, 6)]
    assert told["k"][1] is None and told["k"][0] == pytest.approx(expected[0]) and told["k"][2] == 0
    assert told["k"][3] == pytest.approx(expected[2]) and (told["without_gain"], told["without_loss"]) == (1, 1)
    p_n, ratio = math.exp(-7.7), 0.05 / 0.95
    assert told["pays_below"] == pytest.approx([ratio * math.exp(-loss) / p_n for loss in CLEAN[3:]])
    assert "k at 2 of 4 steps, 1 without one, where the noise is known no better than at step 20, 1 without one" in out
    assert "above 1 at 2 of 2 steps" in out and "h* has 3.000 nats per token on clean text, 7.700 on noise" in out
    assert "left out" not in out
    axis = figures[0].axes[0]
    assert axis.get_title(loc="left").startswith("(a)")
    measured = next(line for line in axis.lines if line.get_label() == "k, measured")
    assert np.isnan(measured.get_ydata()).tolist() == [False, True, True, False], "gaps, not invented"
    assert any(line.get_label() == "no rate, 2 of 4 steps" for line in axis.lines)


def test_steps_that_differ_are_interpolated_and_nothing_beyond_both_runs(tmp_path):
    clean = record(tmp_path / "clean", validation=([10, 50], [6.0, 4.0]), noise=None)
    mixed = record(tmp_path / "mixed", 0.2, ([5, 20, 30, 60], [6.5, 5.6, 5.1, 4]), ([0, 25, 75], [9.0, 8.0, 7.0]))
    pair = read_pair(str(clean), str(mixed), 0.01)
    assert pair.early_step == 0 and pair.steps.tolist() == [20, 30]
    assert pair.clean_star == pytest.approx([5.5, 5.0]) and pair.noise == pytest.approx([8.2, 7.9])
    assert pair.k == pytest.approx(k_from_losses([5.5, 5.0], [5.6, 5.1], 9.0, [8.2, 7.9]))


def test_a_pair_that_has_no_rate_anywhere_is_drawn_too(tmp_path, capsys):
    clean = record(tmp_path / "clean", validation=(STEPS, MIXED), noise=None)
    mixed = record(tmp_path / "mixed", 0.05, (STEPS, CLEAN))
    out = run(capsys, "--output", tmp_path / "out", "--clean", clean, "--mixed", mixed)
    assert "k at 0 of 6 steps" in out and "median" not in out and (tmp_path / "out" / "figure7.png").is_file()


@pytest.mark.parametrize("flags", [["--alpha", 0, "--k", 1e-200], ["--alpha", 0.999999, "--k", 1e200],
                                   ["--clean_loss", 0, "--noise_loss", 230]])
def test_figures_at_the_ends_of_all_ranges(flags, tmp_path, capsys, recwarn):
    assert "figures: " in run(capsys, "--output", tmp_path, *flags)
    assert not [str(one.message) for one in recwarn if "hf_noise" in str(one.filename)]


def test_a_model_that_knows_no_clean_text_from_noise_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="--clean_loss 12 is not below --noise_loss 10.82: a model that"):
        run(capsys, "--output", tmp_path, "--clean_loss", 12)


def test_a_dry_run_reads_the_pair_and_writes_nothing(pair, tmp_path, capsys):
    out = run(capsys, "--output", tmp_path / "out", "--clean", pair[0], "--mixed", pair[1], "--dry_run")
    assert "pair of runs: clean-seed0 and mixed-seed0 (alpha = 0.05): k at" in out and not (tmp_path / "out").exists()
    assert "none, so no k over training" in run(capsys, "--output", tmp_path / "out", "--dry_run")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--clean", "x"], "--clean is one of a pair of runs; give --mixed too"),
        (["--mixed", "x"], "--mixed is one of a pair of runs; give --clean too"),
        (["--alpha", "1"], "--alpha must be >= 0 and < 1, got 1"), (["--k", "0"], "--k must be >= 1e-200"),
        (["--early", "0"], "--early must be > 0 and < 1"), (["--noise_loss", "-1"], "--noise_loss must be >= 0"),
    ],
)  # fmt: skip
def test_bad_flags_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        study.main(flags)
    assert message in capsys.readouterr().err


def test_records_that_are_no_pair_are_refused(pair, tmp_path):
    clean, mixed = map(str, pair)
    tokens = str(record(tmp_path / "tokens-seed0", protocol=UniformTokens(ratio=1.0, vocab_size=300)))
    record(tmp_path / "clean-seed1")
    for one, two, message in (
        (mixed, mixed, "--clean .*mixed-seed0: there is no run on clean text, only mixed-seed0"),
        (clean, clean, "--mixed .*clean-seed0: there is no run with noise documents .*, only clean-seed0"),
        (tokens, mixed, "--clean .*: there is no run on clean text, only tokens-seed0"),
        (clean, tokens, "--mixed .*: there is no run with noise documents"),
        (str(tmp_path), mixed, "--clean .*: there are 2 runs on clean text, .*name the folder of one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            read_pair(one, two, 0.1)
    with pytest.raises(FileNotFoundError, match="no/such"):
        read_pair("no/such", mixed, 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "gpt2"}}, "model.name = 'nano' and --mixed mixed has 'gpt2'; k compares two runs"),
        ({"seed": 1}, "seed = 0"), ({"budget": {"steps": 200}}, "budget.steps = 100"),
        ({"loss": {"name": "document-mixture"}}, "loss.name = 'nll'"),
        ({"data": {"source": "other.txt"}}, "data.source = 'embedded/docs-text'"),
        ({"noise": None}, "'mixed' has no metrics.noise_nll along training"),
        ({"validation": ([0, 1], [3.0])}, "2 steps and 1 values of validation_nll"),
        ({"validation": ([0, 5, 5], [3.0, 3.0, 3.0])}, "must be integers that rise"),
        ({"noise": ([0, 5], [8.0, -1.0])}, r"values of noise_nll .* \[0, 230\], got -1.0"),
        ({"validation": ([0, 3], [8.0, 7.0])}, "no step of validation_nll lies after step 10, where p_n is taken"),
    ],
)  # fmt: skip
def test_records_that_cannot_be_held_against_each_other_are_refused(changes, message, pair, tmp_path):
    mixed = record(tmp_path / "again" / "mixed", 0.05, **changes)
    with pytest.raises(ValueError, match=message):
        read_pair(str(pair[0]), str(mixed), 0.1)
