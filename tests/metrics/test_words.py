"""Every metric has one name, and the records that lie here use no key that has none."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hf_noise.metrics.words import FEATURE_METRICS, METRICS, Metric, name_of, split_of
from hf_noise.reports.record import RunRecord, read_records

ROOT = Path(__file__).parents[2]
COMMITTED = [path for folder in ("benchmarks", "hub_cards") for path in sorted((ROOT / folder).rglob("record*.json*"))]


def test_a_metric_in_all_its_words():
    metric = METRICS["test_accuracy"]
    assert (metric.name, metric.label, metric.heading) == (
        "accuracy, clean test labels", "test accuracy", "test accuracy, %"
    )  # fmt: skip
    assert (metric.split, metric.unit, metric.better) == ("test", "share", "higher")
    assert METRICS["test_nll"].heading == "test NLL" and METRICS["marginal_kl"].better == "lower"
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.name = "another"


def test_words_are_whole_and_names_differ():
    assert len({metric.name for metric in METRICS.values()}) == len(METRICS)
    for key, metric in METRICS.items():
        assert isinstance(metric, Metric) and metric.key == key and metric.name and metric.label
        assert metric.split in ("train", "validation", "test", None)
        assert metric.unit in ("nats", "nats per token", "images", "share", "")
        assert metric.better in ("lower", "higher", "")
        # A beginning tells the split of keys that are not listed, and must tell the same of those that are.
        assert split_of(f"{key}_more") == metric.split, key
        assert name_of(key, {"name": "another"}) == metric.name
    for words in FEATURE_METRICS.values():
        assert "{" not in words.of_inception and words.of_other.count("{") == 1 and len(words.keys) == 2
        assert not set(words.keys) & set(METRICS)


@pytest.mark.parametrize(
    ("key", "metric", "name", "split"),
    [
        ("accuracy_sigma0.5", None, "accuracy sigma0.5", "test"), ("my_own_score", {}, "my own score", "train"),
        ("fid", {"name": "FID"}, "FID", "train"), ("label_consistency", None, METRICS["label_consistency"].name, None),
    ],
)  # fmt: skip
def test_of_keys_that_are_not_listed(key, metric, name, split):
    assert (name_of(key, metric), split_of(key)) == (name, split)


def test_every_metric_of_a_committed_record_has_a_name():
    records = [record for path in COMMITTED for record in read_records(path) if isinstance(record, RunRecord)]
    assert len(records) > 5, "no records were found"
    units = [(key, metric.get("unit")) for record in records for key, metric in record.metrics.items()]
    for key, unit in units:
        assert unit in (None, METRICS[key].unit) if key in METRICS else unit is None, (key, unit)
    unknown = {key for record in records for key, metric in record.metrics.items()
               if key not in METRICS and "name" not in metric and "_sigma" not in key}  # fmt: skip
    assert not unknown


def test_words_need_nothing_else():
    code = "import json, sys, hf_noise.metrics.words; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "scipy", "sklearn", "numpy", "huggingface_hub"} & set(json.loads(done.stdout))
