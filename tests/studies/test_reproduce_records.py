"""Records that `reproduce` and `report` read: what is none is refused with its file and line."""

import json
from pathlib import Path

import pytest
from reproduce_fakes.tiny import record

from hf_noise.reports.paper import paper_table_ids
from hf_noise.reports.record import DataRecord
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.reproduce import study
from hf_noise.studies.reproduce.alike import of_one_data
from hf_noise.studies.reproduce.cells import Cell, Part
from hf_noise.studies.reproduce.plan import Asked, planned, records_and_rest
from hf_noise.studies.reproduce.reading import read_lines
from hf_noise.studies.reproduce.records import Kept

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
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


def of_docs(name, tokens, python, **changes):
    data = {"source": "embedded/docs-text", "train_tokens": tokens}
    return record(name, **{"data": data, "versions": {"python": python}} | changes)


def test_records_of_the_text_of_another_python_do_not_count_as_made_here(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.python_version_tuple", lambda: ("3", "12", "3"))
    part = Part(tmp_path / "record.json", "a-seed0", "tiny", settings={"size": 1})
    cell = Cell("x", (), "a-seed0", tmp_path, (part,))
    for python, counts in (("3.12.9", True), ("3.11.7", False), ("3.1.2", False)):
        told = [of_docs("a-seed0", 796_672, python).to_dict()]
        assert Kept(told, is_strict=True).covers(cell) is counts
        assert (Kept(told, is_strict=True).of(part) is not None) is counts
        assert Kept(told).covers(cell), "a report is of any Python"
        assert Kept(told, is_strict=True).seconds(cell, "demo") == 60, "and so is what it took"
    assert Kept([record("a-seed0", versions={"python": "3.11.7"}).to_dict()], is_strict=True).covers(cell)


def test_a_file_of_the_same_name_is_not_known_to_be_the_same(tmp_path, monkeypatch):
    (there := tmp_path / "text.parquet").write_text("other rows")
    monkeypatch.chdir(tmp_path)
    told = [record("a-seed0", settings={"source": "/a/text.parquet"}).to_dict()]
    for source in (str(there), "text.parquet"):
        part = Part(tmp_path / "record.json", "a-seed0", "tiny", settings={"source": source})
        assert Kept(told, is_strict=True).of(part) is None and Kept(told).of(part) is not None


@pytest.mark.parametrize(
    ("name", "named"),
    [("source", "corpus"), ("source", "corpus/a.txt"), ("source", "corpus/*.txt"), ("source", "**/a.txt"),
     ("source", '{"train": "corpus/a.txt", "test": "other/b.txt"}'), ("model", "corpus"),
     ("task", "topics=corpus/a.txt"), ("task", "topics=other/b.txt,corpus/a.txt"), ("model", "x/backbones/own")],
)  # fmt: skip
@pytest.mark.parametrize("is_list", [False, True])
def test_what_is_on_this_machine_is_not_known_to_be_the_same(name, named, is_list, tmp_path, monkeypatch):
    value = [named] if is_list else named
    told = [record("a-seed0", settings={name: value}).to_dict()]
    part = Part(tmp_path / "out" / "run" / "record.json", "a-seed0", "tiny", settings={name: value})
    monkeypatch.chdir(tmp_path)
    assert Kept(told, is_strict=True).of(part) is not None, "it can only be of the Hub"
    for folder in ("corpus", "x/backbones/own"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text("other rows")
    assert Kept(told, is_strict=True).of(part) is None and Kept(told).of(part) is not None


def test_names_of_columns_words_and_models_that_a_study_made_itself_stay_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("text", "out/backbones/clean-seed0"):
        (tmp_path / name).mkdir(parents=True)
    made = str(tmp_path / "out" / "backbones" / "clean-seed0")
    ours = {"text_column": "text", "source": "embedded/docs-text", "prompt": "{text} is [a-", "model": made}
    theirs = ours | {"model": "runs/x/backbones/clean-seed0"}
    part = Part(tmp_path / "out" / "heads" / "record.json", "a-seed0", "tiny", settings=ours)
    assert Kept([record("a-seed0", settings=theirs).to_dict()], is_strict=True).of(part) is not None
    theirs["model"] = "runs/x/backbones/clean-seed1"
    assert Kept([record("a-seed0", settings=theirs).to_dict()]).of(part) is None


def test_records_of_one_table_are_of_one_set_of_data():
    one, two, more = (of_docs(f"r{i}", 796_672, "3.11.7") for i in range(3))
    other = of_docs("r3", 667_200, "3.12.3")
    same_python = of_docs("r4", 600_000, "3.11.9")
    found, told = of_one_data({0: [one, two, other], 1: [more]})
    assert found == {0: [one, two], 1: [more]}
    assert told == ["left out as of other data than the rest (Python 3.12, not 3.11): r3"]
    # What was made here counts, however little it is.
    found, told = of_one_data({0: [one, two, other], 1: [more]}, {id(other)})
    assert found == {0: [other], 1: []}
    assert told == ["left out as of other data than the rest (Python 3.11, not 3.12): r0, r1, r2"]
    # Of one version, and of files, what they say of their size.
    fewer = of_docs("r4", 600_000, "3.11.9")
    found, told = of_one_data({0: [one, two, same_python], 1: [fewer]})
    assert found == {0: [one, two], 1: [fewer]}, "other flags may take fewer rows"
    assert told == ["left out as of other data than the rest (train_tokens 600000, not 796672): r4"]
    files = [record(f"f{i}", data={"source": "x.parquet", "train_rows": rows}) for i, rows in enumerate((5, 5, 6))]
    assert of_one_data({0: files})[0] == {0: files[:2]}
    tasks = [record(task, data={"source": "x", "task": task, "test_rows": rows}) for task, rows in (("a", 5), ("b", 6))]
    assert of_one_data({0: tasks}) == ({0: tasks}, []), "pairs of one source for two tasks"
    assert of_one_data({0: [one, record("none"), record("b", data={"source": "other"})], 2: []})[1] == []


def test_committed_records_of_each_table_are_of_one_set_of_data(tmp_path):
    kept, found = Kept.read(RESULTS), 0
    for name in paper_table_ids():
        asked = Asked("demo", tmp_path, kept=kept, reuses=True)
        records, rest = records_and_rest(planned(name, asked), asked)
        found += sum(map(len, records.values()))
        assert rest == []
    assert found > 100
