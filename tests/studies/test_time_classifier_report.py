"""Table and figure of the study of classifiers of noisy images, from records made by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hf_noise.noise import HumanLabels, LabelFlips, UniformTokens
from hf_noise.reports.record import RunRecord
from hf_noise.studies.time_classifier.report import (
    matrix_figure,
    show,
    table_of_runs,
    true_transition,
    used_transition,
)

SIGMAS = ("2", "0.05", "0.5")


def record(source="known", kind="symmetric", ratio=1.0, seed=0, accuracy=0.8, off=0.0, noise=None):
    noise = noise or getattr(LabelFlips, kind)(ratio=ratio, num_classes=3, seed=seed)
    used = None
    if source != "none":
        used = np.array(noise.transition)
        used[0, :2] += (-off, off)
    shares = {"accuracy": accuracy} | {f"accuracy_sigma{s}": accuracy - 0.1 * float(s) for s in SIGMAS}
    metrics = {"nll": {"value": 0.5, "n": 100}} | {name: {"value": value, "n": 100} for name, value in shares.items()}
    if used is not None:
        metrics["transition_mean_absolute_error"] = {"value": 2 * off / 9, "n": 9, "largest": off}
        metrics["transition_worst_row"] = {"value": off, "n": 3}
    return RunRecord(
        name=f"{kind}-{source}-seed{seed}", task="noisy_classification", recipe="r", seed=seed, settings={}, data={},
        model={"name": "cnn", "config": {"transition": None if used is None else used.tolist()}}, budget={},
        noise=noise.to_dict() | {"realised": {"rate": 0.5, "n": 100}}, wall_seconds=1.0,
        loss={"name": "corrected", "source": source}, metrics=metrics,
    )  # fmt: skip


@pytest.fixture
def drawn(figures, tmp_path):
    def draw(records):
        with Image.open(matrix_figure(records, tmp_path / "study.png")) as picture:
            assert picture.format == "PNG" and picture.width > picture.height > 400
        return figures[0]

    return draw


def test_a_line_for_each_run_with_the_levels_in_their_order():
    table = table_of_runs([record("estimated", off=0.03), record("none")])
    headings = [column.heading for column in table.columns]
    rows = [dict(zip(headings, row)) for row in table.rows]
    assert headings[-3:] == ["at sigma 0.05", "at sigma 0.5", "at sigma 2"]
    assert rows[0] == {
        "run": "symmetric-estimated-seed0", "e": "0.500", "T: mean error": "0.0067", "T: largest": "0.0300",
        "T: worst row (TV)": "0.0300", "NLL": "0.500", "accuracy, %": "80.0", "at sigma 0.05": "79.5",
        "at sigma 0.5": "75.0", "at sigma 2": "60.0",
    }  # fmt: skip
    assert rows[1]["T: mean error"] == rows[1]["T: worst row (TV)"] == "-"


def test_what_is_shown_fits_a_terminal_and_the_whole_table_is_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    narrow, figure = show([record()], SimpleNamespace(output=str(tmp_path)), ()).split("\n\n")
    header, _, line, more = narrow.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["run", "e", "T: error", "accuracy, %"]
    assert len(header) <= 60 and more == f"6 more columns in {tmp_path / 'study.md'}"
    assert "at sigma 2" in (tmp_path / "study.md").read_text(encoding="utf-8")
    assert figure == f"figure: {tmp_path / 'study.png'}"


def test_the_true_matrix_stands_beside_those_that_were_found(drawn):
    records = [
        record("anchor", off=0.1), record("estimated", seed=1, off=0.2), record("estimated", off=0.03),
        record("known"), record("none"), record("estimated", "cyclic", 0.5, off=0.01),
    ]  # fmt: skip
    figure = drawn(records)
    pictures = [axis for axis in figure.axes if axis.images and axis.get_title()]
    titles = [axis.get_title().split("\n") for axis in pictures]
    assert titles == [
        ["true T", "symmetric, e = 0.50"], ["of anchor points", "mean error 0.0222"],
        ["estimated, seed 0", "mean error 0.0067"], ["true T", "cyclic, e = 0.33"],
        ["estimated", "mean error 0.0022"],
    ]  # fmt: skip
    shown = [np.asarray(axis.images[0].get_array()) for axis in pictures]
    truth = LabelFlips.symmetric(ratio=1.0, num_classes=3).transition
    assert np.allclose(shown[0], truth) and np.allclose(shown[2][0] - truth[0], [-0.03, 0.03, 0])
    assert np.allclose(shown[3], LabelFlips.cyclic(ratio=0.5, num_classes=3).transition)


def test_accuracy_is_drawn_against_sigma_with_the_mean_over_seeds(drawn):
    records = [record(accuracy=0.8), record(seed=1, accuracy=0.7), record("estimated", accuracy=0.6)]
    axis = drawn(records).axes[-1]
    found = {line.get_label(): line.get_xydata().tolist() for line in axis.lines if line.get_label()[0] != "_"}
    assert found["T known"] == [[s, pytest.approx(75 - 10 * s)] for s in (0.05, 0.5, 2.0)]
    assert found["T estimated"][0] == [0.05, pytest.approx(59.5)]
    assert found["chance"][0][1] == pytest.approx(100 / 3) and axis.get_xscale() == "log"


@pytest.mark.parametrize("records", [[], [record()], [record("none")]], ids=["nothing", "known", "without"])
def test_a_part_of_a_study_can_be_drawn(records, drawn):
    drawn(records)


def test_the_matrix_of_people_s_labels_is_counted():
    people = HumanLabels.from_columns([0, 0, 1, 2], [0, 1, 1, 2], num_classes=3, name="worse")
    one = record("human", noise=people)
    assert true_transition(one).tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]] == used_transition(one).tolist()


def test_records_of_others_are_left_out_or_refused(tmp_path):
    other = RunRecord.from_dict(record().to_dict() | {"task": "image_classification"})
    assert table_of_runs([other]).rows == []
    broken = RunRecord.from_dict(record().to_dict() | {"loss": {"name": "corrected", "source": "guessed"}})
    with pytest.raises(ValueError, match="loss.source = 'guessed', which must be one of none, known"):
        table_of_runs([broken])
    tokens = UniformTokens(ratio=1.0, vocab_size=9).to_dict() | {"error_rate": 0.5}
    with pytest.raises(ValueError, match="has noise of the protocol uniform_tokens, which has no T"):
        matrix_figure([RunRecord.from_dict(record().to_dict() | {"noise": tokens})], tmp_path / "study.png")
