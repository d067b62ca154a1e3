"""Records that `reproduce` and `report` read: what is none is refused with its file and line."""

import json

import pytest
from reproduce_fakes.tiny import record

from hf_noise.reports.record import DataRecord
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.reproduce import study
from hf_noise.studies.reproduce.reading import read_lines
from hf_noise.studies.reproduce.records import Kept

GOOD = record("a-seed0").to_json(indent=None)


def changed(**fields):
    return json.dumps(json.loads(GOOD) | fields)


def without(field):
    return json.dumps({name: value for name, value in json.loads(GOOD).items() if name != field})


BAD = {
    "a list": ("[1]", "got list"),
    "a text": ('"hf_noise.run/1"', "got str"),
    "cut off": (GOOD[:100], "half-written"),
    "without a field": (without("task"), r"missing fields \['task'\]"),
    "no number": (changed(wall_seconds=float("nan")), "NaN is not JSON"),
    "of another version": (changed(schema="hf_noise.run/0"), "schema is 'hf_noise.run/0'"),
    "without a schema": (without("schema"), "schema is None"),
    "a metric without n": (changed(metrics={"loss": {"value": 1.0}}), "must be {'value': number"),
    "of another kind": (changed(settings=[]), "settings must be a dict"),
    "too deep": ("[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("read", [Kept.read, Stored.read])
def test_what_is_no_record_is_named_with_its_line(kind, read, tmp_path):
    text, message = BAD[kind]
    (tmp_path / "study" / "run").mkdir(parents=True)
    lines, one = tmp_path / "study" / "records.jsonl", tmp_path / "study" / "run" / "record.json"
    lines.write_text(f"{GOOD}\n\n{text}\n")
    with pytest.raises(ValueError, match=f"records.jsonl line 3 is no record .*{message}"):
        read(tmp_path)
    lines.unlink()
    one.write_text(text)
    with pytest.raises(ValueError, match=f"run/record.json is no record .*{message}"):
        read(tmp_path)


def test_a_file_that_is_no_text_or_empty_is_named(tmp_path):
    file = tmp_path / "record.json"
    for told in (b"", b"\n", b"\xff\xfe"):
        file.write_bytes(told)
        with pytest.raises(ValueError, match="record.json is no record"):
            read_lines(tmp_path)


def test_texts_with_ends_of_lines_of_their_own_and_records_of_data_are_no_mistake(tmp_path):
    odd = record("b-seed0", model={"name": "a\u2028b\x85c"})
    noise = {"config_name": "x", "noise": {"protocol": "none"}}
    data = DataRecord(name="./d", builder="b", source="s", data={}, columns={}, configs=[noise], git=None)
    file = tmp_path / "records.jsonl"
    file.write_text("\n".join([data.to_json(indent=None), GOOD, odd.to_json(indent=None), ""]), encoding="utf-8")
    assert [(one.line, one.told["name"]) for one in read_lines(tmp_path)] == [(2, "a-seed0"), (3, "b-seed0")]
    assert [place for place, _ in Stored.read(tmp_path).told] == ["./a-seed0", "./b-seed0"]
    assert read_lines(tmp_path / "none") == []


@pytest.mark.parametrize("below", ["", "/runs/x"])
def test_an_output_that_is_a_file_is_refused_before_anything_runs(below, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_noise.studies.reproduce.runner.run", lambda *_: pytest.fail("it runs"))
    file = tmp_path / "x"
    file.write_text("mine")
    with pytest.raises(SystemExit) as stop:
        study.main(["A.figure3", "--output", f"{file}{below}"])
    assert stop.value.code == 2 and f"{file} is a file, and runs need a folder" in capsys.readouterr().err
    assert file.read_text() == "mine"
