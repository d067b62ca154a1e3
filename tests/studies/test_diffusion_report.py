"""The table and figure of a study of generated images, from records made by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord
from hf_noise.studies.diffusion.report import (
    SAMPLES_FILE,
    clean_consistency,
    consistency_table,
    generation_figure,
    generation_table,
    paper_consistency,
    show,
)


def record(ratio, value, loss="dsm", builder="hf_noise/cifar10-noisy", kind="symmetric", epochs=300):
    noise = getattr(LabelFlips, kind)(ratio=ratio, num_classes=10)
    shares = {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 500}
    return RunRecord(
        name=f"r{ratio:g}-{loss}", task="class_conditional_generation", recipe="r", seed=0, settings={},
        model={"name": "edm-cifar"},
        data={"builder": builder, "classes": 10, "train_rows": 50_000},
        budget={"epochs": 3.0, "base_steps": 500 * epochs, "base_batch_size": 100}, wall_seconds=1.0,
        loss={"name": loss},
        noise=noise.to_dict() | {"realised": {"rate": noise.error_rate, "n": 500}},
        metrics={
            "label_consistency": shares, "judge_test_accuracy": {"value": 0.95, "n": 100},
            "test_loss": {"value": 0.31, "n": 100}, "frechet_distance": {"value": 2.5, "n": 500, "name": "distance"},
        },
    )  # fmt: skip


def test_table_holds_the_figures_and_the_reference_line():
    records = [record(0.0, 0.94), record(1.0, 0.41), record(1.0, 0.8, loss="tdsm")]
    lines = generation_table(records, reference=lambda a0, e, classes: (1 - e) * a0 + e * (1 - a0) / (classes - 1))
    header, _, clean, noisy, cured = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()
    )
    found = dict(zip(header, noisy))
    assert found["consistency, %"] == "41.0" and found["its 95% interval"] == "40.0 to 42.0"
    assert found["fits the labels exactly, %"] == "47.3"  # 0.5 * 94 + 0.5 * 6 / 9
    assert found["paper: consistency, %"] == "40.63" and dict(zip(header, cured))["paper: consistency, %"] == "-"
    assert dict(zip(header, clean))["distance"] == "2.500" and found["judge on real test images, %"] == "95.0"


def test_no_reference_line_for_other_than_symmetric_noise():
    """Under cyclic noise the judge's mistakes count where they fall on the next class, and nobody knows how many do."""
    records = [record(0.0, 0.94), record(0.9, 0.41, kind="cyclic")]
    lines = generation_table(records, reference=lambda *_: 0.5).splitlines()
    column = [cell.strip() for cell in lines[0].split("|")].index("fits the labels exactly, %")
    assert [line.split("|")[column].strip() for line in lines[2:]] == ["50.0", "-"]


def test_the_short_table_has_a_line_for_each_run():
    header, _, clean, cured = consistency_table([record(0.0, 0.94), record(1.0, 0.8, loss="tdsm")]).splitlines()
    assert header.split("|")[-2].strip() == "distance"
    assert [cell.strip() for cell in clean.split("|")[1:-1]] == ["e = 0.000, DSM", "94.0", "93.0 to 95.0", "2.50"]
    assert "e = 0.500, TDSM" in cured and "80.0" in cured


def test_seeds_of_a_setting_share_a_line_of_the_short_table():
    seeds = [replace(record(1.0, value), seed=seed) for seed, value in enumerate((0.4, 0.5, 0.6))]
    header, _, clean, noisy = consistency_table([record(0.0, 0.94), *seeds]).splitlines()
    assert [cell.strip() for cell in header.split("|")[3:5]] == ["its 95% interval", "seeds"]
    # Student's t of two degrees: 4.3027 standard errors of 0.1 / sqrt(3).
    assert [cell.strip() for cell in noisy.split("|")[1:5]] == ["e = 0.500, DSM", "50.0", "25.2 to 74.8", "3"]
    assert [cell.strip() for cell in clean.split("|")[3:5]] == ["93.0 to 95.0", "1"], "over images"


def test_paper_figures_are_those_of_the_same_setting():
    assert paper_consistency(record(0.0, 0.9)) == 94.082
    assert paper_consistency(record(0.4, 0.9)) is None
    assert paper_consistency(record(0.0, 0.9, epochs=20)) is None
    assert paper_consistency(record(1.0, 0.9, builder="hf_noise/digits-noisy")) is None


def test_clean_consistency_is_the_mean_over_seeds():
    assert clean_consistency([record(0.0, 0.9), record(0.0, 0.8), record(1.0, 0.2)]) == pytest.approx(0.85)
    assert clean_consistency([record(1.0, 0.2)]) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_figure_shows_each_image_in_its_cell(tmp_path, channels):
    records, folders = [record(0.0, 0.9), record(1.0, 0.4)], []
    for name, grey in (("a", 60), ("b", 200)):
        (tmp_path / name).mkdir()
        images = np.full((6, 8, 8, channels), grey, dtype=np.uint8)
        np.savez(tmp_path / name / SAMPLES_FILE, images=images, labels=np.array([0, 0, 0, 3, 3, 3]))
        folders.append(tmp_path / name)
    path = generation_figure(records, folders, tmp_path / "study.png")
    pixels = np.asarray(Image.open(path).convert("L"))
    first, second = (np.where(pixels == grey)[1] for grey in (60, 200))
    assert min(len(first), len(second)) > 2000
    # Text has a few pixels of any grey.
    assert np.percentile(first, 98) < np.percentile(second, 2)


def study_of(tmp_path, records):
    for one in records:
        (tmp_path / one.name).mkdir()
        images = np.zeros((6, 8, 8, 1), dtype=np.uint8)
        np.savez(tmp_path / one.name / SAMPLES_FILE, images=images, labels=np.array([0, 0, 0, 3, 3, 3]))
    return show(records, SimpleNamespace(output=str(tmp_path)), records)


def test_what_is_shown_fits_a_terminal_and_the_whole_table_is_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    narrow, figure = study_of(tmp_path, [record(0.0, 0.94), record(1.0, 0.41)]).split("\n\n")
    header, *_ = ([cell.strip() for cell in line.strip("|").split("|")] for line in narrow.splitlines())
    assert header == ["run", "e", "consistency, %", "95% interval", "paper, %"]
    assert max(map(len, narrow.splitlines()[:-1])) <= 70
    whole = (tmp_path / "study.md").read_text(encoding="utf-8")
    assert "fits the labels exactly, %" in whole and "| paper: consistency, % |" in whole
    assert narrow.splitlines()[-1].startswith("7 more columns in ") and figure.endswith("study.png")


def with_compute(one, exposure=2.0):
    told = {"budget": one.budget | {"exposure": exposure}, "name": "r0-compute-of-r1"}
    return RunRecord.from_dict(one.to_dict() | told)


def test_more_compute_without_noise_has_a_line_and_is_no_reference(tmp_path, figures):
    records = [record(0.0, 0.9), with_compute(record(0.0, 0.98)), record(1.0, 0.4)]
    assert clean_consistency(records) == 0.9 and clean_consistency(records[1:]) is None
    assert paper_consistency(records[0]) is not None and paper_consistency(records[1]) is None
    exact = generation_table(records, reference=lambda a0, e, classes: a0).splitlines()
    column = exact[0].split("|").index(next(c for c in exact[0].split("|") if "fits the labels" in c))
    assert {line.split("|")[column].strip() for line in exact[2:]} == {"90.0"}
    lines = consistency_table(records).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "e = 0.000, DSM", "no noise, compute of the noisiest, DSM", "e = 0.500, DSM",
    ]  # fmt: skip
    study_of(tmp_path, records)
    titles = [axis.get_title() for axis in figures[0].axes[:3]]
    assert titles[1] == "no noise,\nmore compute, DSM\n98.0% as asked for" and titles[0].startswith("e = 0.00")
