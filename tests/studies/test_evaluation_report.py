"""The table of an evaluation, from records made by hand."""

import pytest

from hf_noise.hub.card import model_card
from hf_noise.metrics import mixture_reference
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord
from hf_noise.studies.evaluation.report import METRIC_KEYS, REAL, TASK, evaluation_table


def record(name, value, noise, task=TASK, **metrics):
    shares = {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 1500}
    return RunRecord(
        name=name, task=task, recipe="r", seed=0, settings={}, model={}, data={"classes": 10}, budget={},
        wall_seconds=1.0, loss={"name": "none"}, noise=noise,
        metrics={"label_consistency": shares, "judge_test_accuracy": {"value": 0.95, "n": 100}, **metrics},
    )  # fmt: skip


def symmetric(ratio):
    return LabelFlips.symmetric(ratio=ratio, num_classes=10).to_dict()


def table(records, **options):
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in
                        evaluation_table(records, **options).splitlines())  # fmt: skip
    return {row[0]: dict(zip(header, row)) for row in rows}


def test_reference_is_of_the_mean_over_clean_sets_and_for_symmetric_noise():
    cyclic = LabelFlips.cyclic(ratio=0.9, num_classes=10).to_dict()
    records = [
        record("noisy", 0.4, symmetric(1.0)),
        record("cyclic", 0.4, cyclic),
        record("found", 0.5, {"protocol": "unknown"}),
        record("a", 0.96, symmetric(0.0)),
        record("b", 0.92, symmetric(0.0)),
        record(REAL, 0.99, {"protocol": "none"}),
        record("judge", 0.99, symmetric(0.0), task="image_classification"),
    ]
    found = table(records, reference=mixture_reference)
    assert list(found) == [REAL, "a", "b", "cyclic", "noisy", "found"]  # the real ones, then by e, unknown last
    exact = {name: row["fits the labels exactly, %"] for name, row in found.items()}
    # 0.5 * 94 + 0.5 * 6 / 9
    assert exact == {REAL: "-", "a": "94.0", "b": "94.0", "cyclic": "-", "noisy": "47.3", "found": "-"}
    assert found["noisy"]["consistency, %"] == "40.0" and found["noisy"]["its 95% interval"] == "39.0 to 41.0"
    assert found["noisy"]["n"] == "1,500" and found["found"]["e"] == "-"
    assert table(records)["noisy"]["fits the labels exactly, %"] == "-"


def test_metrics_in_their_order_with_their_names():
    named = {key: {"value": 1.5, "n": 9, "name": f"<{key}>"} for pair in METRIC_KEYS.values() for key in pair}
    cas = {"value": 0.7, "n": 9, "name": "CAS (resnet50)"}
    found = table([record("a", 0.9, symmetric(0.0), cas=cas, **named), record("b", 0.9, symmetric(1.0))])
    distances = [f"<{key}>" for pair in METRIC_KEYS.values() for key in dict.fromkeys(pair)]
    assert list(found["a"])[7:] == [*distances, "CAS (resnet50), %"]
    assert found["a"]["<fid>"] == "1.500" and found["a"]["CAS (resnet50), %"] == "70.0" and found["b"]["<fid>"] == "-"


def test_there_is_no_card_of_it():
    with pytest.raises(ValueError, match="no model card for the task 'generation_evaluation'"):
        model_card(record("a", 0.9, symmetric(0.0)))
