"""The table and figure of a study of generated images, from records made by hand."""

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
