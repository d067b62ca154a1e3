"""Table and figure of the classifier study, from records made up so that every figure is known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image

from hf_noise.reports.record import RunRecord
from hf_noise.studies.classifier.report import (
    accuracy_table,
    curves,
    label_figure,
    label_table,
    paper_accuracy,
    show,
)


def record(ratio=0.5, kind="symmetric", loss="nll", seed=0, accuracy=0.8, kl=0.001, plan="steps", data="cifar10",
           classes=10, epochs=None, **noise):  # fmt: skip
    network, usual = ("vit_base_patch16_224", 300) if data == "imagenet" else ("resnet18-cifar", 200)
    rate = None if ratio is None else ratio / (1 + ratio)
    noise = {"protocol": "label_flips", "kind": kind, "ratio": ratio, "error_rate": rate} | noise
    shares = {"successor_rate": 0.05, "train_accuracy_trained_labels": 0.6, "train_accuracy_clean_labels": 0.9}
    shares |= {} if ratio == 0 else {"memorised": 0.02}
    metrics = {name: {"value": value, "n": 100} for name, value in shares.items()}
    return RunRecord(
        name=f"r{ratio}-{kind}-{loss}-{seed}", task="image_classification", recipe="recipes/classifier_noise.py",
        command="", model={"name": network}, seed=seed, wall_seconds=1.0, git=None, versions={}, hardware={},
        settings={},
        data={"builder": f"hf_noise/{data}-noisy", "source": "x", "classes": classes, "train_rows": 50_000},
        noise=noise | {"realised": {"rate": noise["error_rate"], "n": 1000}},
        budget={"plan": plan, "steps": 100, "epochs": 12.5, "base_steps": 500 * (epochs or usual),
                "base_batch_size": 100}, loss={"name": loss},
        metrics=metrics | {
            "test_accuracy": {"value": accuracy, "low": accuracy - 0.1, "high": min(accuracy + 0.1, 1.0), "n": 100},
            "test_nll": {"value": 0.5, "n": 100}, "test_ece": {"value": 0.125, "n": 100},
            "marginal_kl": {"value": kl, "n": 100, "of_sampling_alone": 0.00045},
            "marginal_tv": {"value": 0.01, "n": 100},
        },
    )  # fmt: skip


@pytest.fixture
def study():
    human = {"protocol": "human_labels", "name": "worse", "error_rate": 0.4}
    people = record(None, accuracy=0.7, **human)
    noise = {key: value for key, value in people.noise.items() if key != "kind"}
    return [
        record(0.0, accuracy=0.95), record(0.0, accuracy=0.93, seed=1), record(0.5, accuracy=0.9),
        record(1.0, accuracy=0.8), record(1.0, accuracy=0.82, seed=1), record(1.0, "cyclic", accuracy=0.4),
        record(1.0, "cyclic", "corrected", accuracy=0.45), RunRecord.from_dict(people.to_dict() | {"noise": noise}),
    ]  # fmt: skip


def cells(table, row):
    return [cell.strip() for cell in table.splitlines()[row].strip("|").split("|")]


def test_curves_start_at_the_runs_without_noise(study):
    assert {curve.plan for curve in curves(study, "test_accuracy")} == {"steps"}
    found = {(curve.protocol, curve.loss): curve.points for curve in curves(study, "test_accuracy")}
    clean = {0.0: (0.95, 0.93)}
    assert found == {
        ("symmetric", "nll"): clean | {1 / 3: (0.9,), 0.5: (0.8, 0.82)},
        ("cyclic", "nll"): clean | {0.5: (0.4,)},
        ("cyclic", "corrected"): clean | {0.5: (0.45,)},
        ("human:worse", "nll"): clean | {0.4: (0.7,)},
    }


def test_runs_of_two_plans_are_two_curves(study):
    study.append(record(1.0, accuracy=0.7, plan="budget"))
    found = {curve.plan: curve.points[0.5] for curve in curves(study, "test_accuracy")
             if (curve.protocol, curve.loss) == ("symmetric", "nll")}  # fmt: skip
    assert found == {"steps": (0.8, 0.82), "budget": (0.7,)}
    assert paper_accuracy(study[-1]) is None


def test_a_line_of_the_table(study):
    table = label_table(study)
    line = dict(zip(cells(table, 0), cells(table, 2 + 2)))
    assert line == {
        "run": "r0.5-symmetric-nll-0", "e": "0.333", "wrong labels": "0.333", "epochs": "12.5",
        "test accuracy, %": "90.0", "its 95% interval": "80.0 to 100.0", "test NLL": "0.500", "ECE": "0.125",
        "predicts y + 1, %": "5.0", "train: as trained, %": "60.0", "train: clean labels, %": "90.0",
        "memorised, %": "2.0", "KL of marginal": "0.00100", "its sampling level": "0.00045", "TV": "0.0100",
        "paper: accuracy, %": "89.19", "paper: KL": "0.00015", "paper: TV": "0.0076",
    }  # fmt: skip
    assert cells(table, 2)[11] == "-"  # nothing to memorise without noise


def test_columns_without_a_figure_are_left_out():
    header = cells(label_table([record(0.0, data="digits"), record(1.0, data="digits")]), 0)
    assert "memorised, %" in header and not any(name.startswith("paper") for name in header)


def test_accuracies_stand_in_a_grid(study):
    table = accuracy_table(study)
    assert cells(table, 0) == ["labels and loss", "e = 0.000", "e = 0.333", "e = 0.400", "e = 0.500"]
    lines = {line[0]: line[1:] for line in (cells(table, row) for row in range(2, 6))}
    assert lines["symmetric, cross-entropy"] == ["94.0", "90.0", "-", "81.0"]
    assert lines["cyclic, corrected through T"] == ["94.0", "-", "-", "45.0"]
    assert lines["human:worse, cross-entropy"] == ["94.0", "-", "70.0", "-"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ratio": 1.0}, 85.35), ({"ratio": 1.0, "kind": "cyclic"}, 40.72),
        ({"ratio": 0.0, "data": "cifar100"}, 78.96), ({"ratio": 0.3, "kind": "cyclic", "data": "cifar100"}, 74.05),
        ({"ratio": 1.0, "epochs": 2}, None),
        ({"ratio": 1.0, "loss": "corrected"}, None), ({"ratio": 0.2}, None), ({"data": "digits"}, None),
        ({"ratio": 0.5, "data": "imagenet", "classes": 100}, 57.22),
        ({"ratio": 1.0, "data": "imagenet", "classes": 1000}, 74.778),
        ({"ratio": 1.0, "data": "imagenet", "classes": 1000, "plan": "budget"}, 71.093),
    ],
)  # fmt: skip
def test_the_paper_s_figure_is_that_of_the_same_setting(options, expected):
    assert paper_accuracy(record(**options)) == expected


def test_the_clean_baseline_of_a_table_is_its_own():
    assert (paper_accuracy(record(0.0), "symmetric"), paper_accuracy(record(0.0), "cyclic")) == (95.30, 94.17)


def test_the_figure_is_a_picture(study, tmp_path):
    path = label_figure(study, tmp_path / "study.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width > 1200
    assert [file.name for file in tmp_path.iterdir()] == ["study.png"]


def test_a_study_of_one_run_can_be_drawn(tmp_path):
    assert label_figure([record(0.0)], tmp_path / "one.png").stat().st_size > 5000


def test_what_is_shown_fits_a_terminal_and_the_whole_table_is_in_a_file(study, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "95")
    narrow, figure = show(study, SimpleNamespace(output=str(tmp_path), advise=False), ()).split("\n\n")
    assert cells(narrow, 0) == ["run", "e", "accuracy, %", "95% interval", "test NLL", "paper, %"]
    assert max(map(len, narrow.splitlines()[:-1])) <= 95
    assert narrow.splitlines()[-1] == f"12 more columns in {tmp_path / 'study.md'}"
    assert (tmp_path / "study.md").read_text(encoding="utf-8") == label_table(study) + "\n"
    assert figure == f"figure: {tmp_path / 'study.png'}" and (tmp_path / "study.png").is_file()


def with_compute(one, exposure, plan="steps"):
    told = {"budget": one.budget | {"exposure": exposure, "plan": plan}, "name": f"{one.name}-{exposure}-{plan}"}
    return RunRecord.from_dict(one.to_dict() | told)


def test_more_compute_without_noise_is_a_line_and_no_point_of_a_curve(study):
    more = [with_compute(record(0.0, accuracy=accuracy), 2.0) for accuracy in (0.97, 0.99)]
    assert curves([*study, *more], "test_accuracy") == curves(study, "test_accuracy")
    table = accuracy_table([*study, *more]).splitlines()
    first = ["no noise, compute of the noisiest", "98.0", "-", "-", "-"]
    assert cells("\n".join(table), 2) == first and len(table) == len(accuracy_table(study).splitlines()) + 1
    # Those made up for a run with less noise are not those of the noisiest.
    assert accuracy_table([*study, *more, with_compute(record(0.0, accuracy=0.1), 1.5)]).splitlines() == table
    # At e = 0 and nowhere else, whatever else is there.
    assert cells(accuracy_table(more), 0) == ["labels and loss", "e = 0.000"]
    alone = accuracy_table([record(1.0), *more])
    assert cells(alone, 0)[1:] == ["e = 0.000", "e = 0.500"] and cells(alone, 2)[1:] == ["98.0", "-"]
    assert cells(alone, 3)[1:] == ["-", "80.0"]


def test_more_compute_of_several_plans_says_which(study):
    more = [with_compute(record(0.0, accuracy=0.97), 2.0), with_compute(record(0.0, accuracy=0.9), 2.0, "batch")]
    table = accuracy_table([*study, *more])
    assert [cells(table, row)[:2] for row in (2, 3)] == [
        ["no noise, compute of the noisiest, steps", "97.0"], ["no noise, compute of the noisiest, batch", "90.0"],
    ]  # fmt: skip


def test_more_compute_is_a_marker_beside_the_curves(study, tmp_path, figures):
    label_figure([*study, with_compute(record(0.0, accuracy=0.97), 2.0)], tmp_path / "study.png")
    for axis, value in zip(figures[0].axes, (97.0, 0.001)):
        (marker,) = (line for line in axis.lines if line.get_label() == "no noise, compute of the noisiest")
        assert marker.get_xydata().tolist() == [[0.0, pytest.approx(value)]] and marker.get_marker() == "D"
    starts = {tuple(line.get_xydata()[0]) for line in figures[0].axes[0].lines if line.get_linestyle() in ("-", "--")}
    assert starts == {(0.0, 94.0)}


def test_another_loss_has_a_curve_under_its_name(study, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_noise.studies.classifier.report.names_of_losses", lambda unit: ["nll", "corrected", "new"])
    records = [*study, record(1.0, loss="new", accuracy=0.6)]
    table = accuracy_table(records)
    assert "symmetric, new" in table and label_figure(records, tmp_path / "study.png").is_file()
