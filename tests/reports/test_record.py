from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.reports import provenance
from hf_noise.reports.record import (
    DataRecord,
    RunRecord,
    append_record,
    command_line,
    read_records,
    write_atomic,
)

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "aB3" * 11
NOISE = {
    "protocol": "uniform_tokens",
    "version": 1,
    "ratio": 0.5,
    "error_rate": 1 / 3,
    "vocab_size": 2048,
    "seed": 0,
}


def run_record(**changes) -> RunRecord:
    values = {
        "name": "gpt2-docs-r0.5",
        "recipe": "recipes/gpt2_noise.py",
        "model": {"name": "gpt2", "parameters": 1234},
        "data": {"source": "embedded/docs-text"},
        "noise": NOISE | {"realised": {"rate": 0.333, "n": 1000}},
        "budget": {"plan": "steps", "steps": 10, "tokens": 1000},
        "loss": {"name": "nll", "error_rate": None},
        "settings": {"learning_rate": 1e-3},
        "metrics": {"clean_nll": {"value": 4.5, "n": 924}},
        "seed": 0,
        "wall_seconds": 1.5,
    }
    return RunRecord(**values | changes)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(string.printable),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_lowercase), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), plain, max_size=4))
def test_a_record_read_back_is_equal(values):
    record = run_record(settings=values)
    for indent in (None, 2):
        assert RunRecord.from_json(record.to_json(indent)) == record
    assert "\n" not in record.to_json(indent=None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf"), np.float64("nan")])
@pytest.mark.parametrize("field", ["settings", "metrics", "budget", "wall_seconds"])
def test_a_number_that_is_not_finite_is_refused_by_name(field, value):
    nested = {"metrics": {"nll": {"value": value, "n": 3}}, "wall_seconds": value}.get(
        field, {"x": [1.0, value]}
    )
    with pytest.raises(ValueError, match=rf"{field}\S* is -?(nan|inf); a record holds finite numbers only"):
        run_record(**{field: nested})


@pytest.mark.parametrize("constant", ["NaN", "-Infinity", "1e999"])
def test_reading_refuses_numbers_that_are_not_finite(constant):
    text = run_record().to_json().replace("4.5", constant)
    with pytest.raises(ValueError, match="finite numbers only"):
        RunRecord.from_json(text)


def test_reading_refuses_other_schemas_and_incomplete_records():
    values = run_record().to_dict()
    with pytest.raises(ValueError, match=r"'hf_noise.run/2'.*'hf_noise.run/1'"):
        RunRecord.from_dict(values | {"schema": "hf_noise.run/2"})
    with pytest.raises(ValueError, match="schema is None"):
        RunRecord.from_json("{}")
    with pytest.raises(ValueError, match=r"unknown fields \['colour'\]"):
        RunRecord.from_dict(values | {"colour": 1})
    del values["versions"]  # today's versions must not stand in for those of an old run
    with pytest.raises(ValueError, match=r"missing fields \['versions'\]"):
        RunRecord.from_dict(values)
    with pytest.raises(ValueError, match="half-written"):
        RunRecord.from_json(run_record().to_json()[:-5])
    with pytest.raises(ValueError, match="one JSON object, got list"):
        RunRecord.from_json("[]")


@pytest.mark.parametrize(
    "metric", [4.5, {"value": 4.5}, {"value": "4.5", "n": 2}, {"value": 4.5, "n": 0}, {"n": 2}]
)
def test_a_metric_needs_its_n(metric):
    with pytest.raises(ValueError, match=r"metrics\['nll'\] must be"):
        run_record(metrics={"nll": metric})


def test_a_record_needs_a_noise_with_a_protocol():
    with pytest.raises(ValueError, match="noise must be noise.to_dict"):
        run_record(noise={"ratio": 0.5})


def test_values_of_numpy_and_paths_become_plain():
    record = run_record(
        settings={"n": np.int64(3), "x": np.float32(0.5), "path": Path("a/b"), "pair": (1, 2)}
    )
    assert record.settings == {"n": 3, "x": 0.5, "path": "a/b", "pair": [1, 2]}
    with pytest.raises(ValueError, match=r"settings.x is a set"):
        run_record(settings={"x": {1}})
    with pytest.raises(ValueError, match="keys that are not strings"):
        run_record(settings={"x": {1: 2}})


def test_tokens_and_folders_of_the_machine_do_not_enter_a_record():
    inside, outside = os.path.join(os.getcwd(), "runs", "a"), "/home/someone/secret project/corpus.parquet"
    record = run_record(
        settings={
            "output": inside,
            "hub_token": "whatever",
            "eos_token": "<end>",
            "note": f"with {TOKEN}",
            "home": "~/x/y",
            "argv": ["x.py", "--hub_token", "whatever", "--password=whatever", "--lr", 1],
            "env": [{"name": "HF_TOKEN", "value": "whatever"}, {"name": "SEED", "value": "3"}],
        },
        command="python x.py --hub_token=whatever --lr 1",
        data={"source": "/home/someone/data/corpus.parquet", "files": [outside.replace(" ", "-")]},
    )
    text = record.to_json()
    assert TOKEN not in text and "someone" not in text and "whatever" not in text and os.getcwd() not in text
    assert record.settings["output"] == os.path.join("runs", "a")
    assert record.settings["eos_token"] == "<end>"
    assert record.settings["home"] == "y"
    assert record.settings["argv"] == ["x.py", "--lr", 1]
    assert record.settings["env"] == [{"name": "HF_TOKEN"}, {"name": "SEED", "value": "3"}]
    assert record.command == "python x.py --hub_token=<removed> --lr 1"
    assert record.data == {"source": "corpus.parquet", "files": ["corpus.parquet"]}


@pytest.mark.parametrize(
    "text",
    [
        "12 tokens/s",
        "user/gpt2-r0.5",
        "https://host.org/a/b",
        "hf_noise/docs-noisy",
        "../shared/x.parquet",
        "a / b",
    ],
)
def test_text_that_is_no_local_path_stays(text):
    assert provenance.portable(text) == text


def test_the_command_keeps_everything_but_credentials():
    argv = ["recipes/a.py", "--hub_token", "abc", "--token=abc", "--tokens", "100", "--tokenizer", "gpt2",
    "--note", TOKEN,
            "--use-auth-token", "--push", "user/x y", "--output=/home/someone/runs/r"]  # fmt: skip
    assert command_line(argv) == (
        "python recipes/a.py --tokens 100 --tokenizer gpt2 --note '<removed>' --push 'user/x y' --output=r"
    )


def test_writing_replaces_the_file_whole_or_leaves_it(tmp_path, monkeypatch):
    path = run_record().write(tmp_path / "run" / "record.json")
    before = path.read_text()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "half")
    assert path.read_text() == before
    assert os.listdir(path.parent) == ["record.json"]


def test_records_of_a_folder_are_read_once_each(tmp_path):
    first, second = run_record(created="2025-01-01T00:00:00+00:00"), run_record(seed=1)
    first.write(tmp_path / "r0.5" / "record.json")
    for record in (first, second):
        append_record(tmp_path / "records.jsonl", record)
    (tmp_path / "r0.5" / "config.json").write_text("{}")
    assert sorted(r.seed for r in read_records(tmp_path)) == [0, 1]
    assert read_records(tmp_path / "records.jsonl") == [first, second]
    with pytest.raises(FileNotFoundError, match="neither a record file nor a folder"):
        read_records(tmp_path / "absent")
    with open(tmp_path / "records.jsonl", "a") as file:
        file.write('{"schema": "hf_noise.run/1", "na')
    with pytest.raises(ValueError, match=r"records.jsonl line 3: not a complete JSON object"):
        read_records(tmp_path)


COMMITTED = [path for folder in ("benchmarks", "hub_cards") for path in sorted((ROOT / folder).rglob("record*.json*"))]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_committed_records_are_read_as_they_were_written(path):
    """No filter of today takes anything out of yesterday's record."""
    text = path.read_text()
    written = [json.loads(line) for line in (text.splitlines() if path.suffix == ".jsonl" else [text])]
    assert [record.to_dict() for record in read_records(path)] == written


@pytest.mark.parametrize("field", ["metrics", "noise", "model", "versions"])
def test_a_field_of_another_type_is_refused_by_name(field):
    with pytest.raises(ValueError, match=f"{field} must be a dict, got 3"):
        RunRecord.from_dict(run_record().to_dict() | {field: 3})


def test_an_append_that_does_not_fit_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = append_record(tmp_path / "records.jsonl", run_record())
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:20]))
    with pytest.raises(OSError, match="could not be written whole"):
        append_record(path, run_record())
    assert path.read_bytes() == before


def test_a_data_record_needs_distinct_config_names(tmp_path):
    config = {
        "config_name": "r0.5",
        "noise": NOISE,
        "splits": {"train": {"rows": 2, "units": 8, "noisy": True}},
    }
    values = {
        "name": "a/b",
        "builder": "hf_noise/docs-noisy",
        "source": "embedded",
        "data": {},
        "columns": {},
    }
    record = DataRecord(**values, configs=[config])
    record.write(tmp_path / "record.json")
    assert read_records(tmp_path) == [record]
    with pytest.raises(ValueError, match="one distinct config_name each"):
        DataRecord(**values, configs=[config, config])
    with pytest.raises(ValueError, match=r"configs\['r0.5'\].noise must be"):
        DataRecord(**values, configs=[replace(record).configs[0] | {"noise": None}])


def test_the_process_describes_itself_without_heavy_imports():
    code = (
        "import json, sys; from hf_noise.reports.record import versions, hardware, git_commit;"
        "print(json.dumps([versions(), hardware(), git_commit(), 'torch' in sys.modules]))"
    )
    root = Path(provenance.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    versions, hardware, commit, loaded_torch = json.loads(done.stdout)
    assert versions["python"] and versions["numpy"] == np.__version__
    assert hardware["cores"] >= 1 and hardware["cpu"] and "gpus" not in hardware
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
    assert not loaded_torch
