"""Which records count for a cell: of its own settings, on its own model, and of the data of the rest of its table."""

import json
from pathlib import Path

import pytest
from reproduce_fakes.tiny import record

from hf_noise.studies.report.seeds import tables_in
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.reproduce.alike import newest_of_one_data
from hf_noise.studies.reproduce.cells import Part
from hf_noise.studies.reproduce.families.backbones import FAMILY as BACKBONES
from hf_noise.studies.reproduce.plan import Asked, planned, records_and_rest
from hf_noise.studies.reproduce.records import Kept
from hf_noise.studies.reproduce.study import main

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def kept():
    return Kept.read(RESULTS / "reproduce-demo")


def cells_of_table(output, *flags):
    (argv,) = BACKBONES.commands(["--scale", "demo", "--alpha", "0.05", *flags], output, None)
    return dict(BACKBONES.cells(BACKBONES.settings(argv)))


def test_heads_count_only_on_models_of_the_settings_that_are_asked_for(kept, tmp_path):
    for name, parts in cells_of_table(tmp_path).items():
        assert all(kept.of(part) is not None for part in parts), name
    for name, parts in cells_of_table(tmp_path, "--steps", "5").items():
        assert not any(kept.of(part) for part in parts), name
    (*_, heads) = cells_of_table(tmp_path).values()
    alone = Kept([kept.of(part).to_dict() for part in heads])
    assert not any(alone.of(part) for part in heads), "nothing is known of their model"


def test_heads_are_of_the_models_that_lie_beside_them(kept, tmp_path):
    """Two studies whose outputs are called alike, one of them of other settings and older."""
    cells = cells_of_table(tmp_path)
    every = [kept.of(part).to_dict() for parts in cells.values() for part in parts]
    others = [one | {"settings": one["settings"] | {"steps": 800}, "created": "2020-01-01T00:00:00+00:00"}
              for one in every if one["task"] == "causal_lm"]  # fmt: skip
    places = [Path(folder) / ("heads" if one["task"] == "probe" else "backbones") / "records.jsonl"
              for folder, of in (("one", every), ("two", others)) for one in of]  # fmt: skip
    both = Kept(every + others, places=places)
    assert all(both.of(part) is not None for parts in cells.values() for part in parts)
    for parts in cells_of_table(tmp_path, "--steps", "800").values():
        assert not any(both.of(part) for part in parts if part.task == "probe")
    nameless = [one | {"settings": {name: of for name, of in one["settings"].items() if name != "output"}}
                for one in every]  # fmt: skip
    assert not any(Kept(nameless).of(part) for parts in cells.values() for part in parts if part.task == "probe")


def test_a_report_reads_every_model_of_the_table_of_heads():
    records = tables_in(Stored.read(RESULTS / "reproduce-demo" / "backbones"), "demo")[1]["B.table1"][0]
    assert len(records) == 9 + 180 and {one.seed for one in records if one.task == "causal_lm"} == {0, 1, 2}


def test_heads_that_were_made_here_count_only_with_their_model(kept, tmp_path):
    def write(parts):
        for part in parts:
            part.file.parent.mkdir(parents=True)
            kept.of(part).write(part.file)
            (part.file.parent / "run.json").write_text(json.dumps(part.claim))

    cells = cells_of_table(tmp_path)
    heads = cells["heads-on-clean-seed0-docs-topics"]
    write(heads)
    assert not any(part.is_done for part in heads)
    write(cells["clean-seed0"])
    assert all(part.is_done for part in heads)
    claim = tmp_path / "backbones" / "clean-seed0" / "run.json"
    claim.write_text(json.dumps(json.loads(claim.read_text()) | {"seed": 7}))
    assert not any(part.is_done for part in heads)


def test_seeds_of_the_table_of_heads_are_those_of_models(tmp_path):
    (argv,) = BACKBONES.commands(["--scale", "demo"], tmp_path, 3)
    settings = BACKBONES.settings(argv)
    assert settings.model_seed == [0, 1, 2] and settings.seed == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("claim", [None, "", '{"size": 1, "nam', "[" * 100_000])
def test_a_record_without_a_readable_claim_is_held_against_its_own_settings(claim, tmp_path):
    file = tmp_path / "a-seed0" / "record.json"
    file.parent.mkdir()
    record("a-seed0", settings={"size": 1, "source": "mine.txt"}).write(file)
    if claim is not None:
        (file.parent / "run.json").write_text(claim)
    own = Part(file, "a-seed0", "tiny", {"size": 1}, {"size": 1, "source": "mine.txt"})
    assert own.is_done and own.differs == []
    for settings, names in (({"size": 2, "source": "mine.txt"}, ["size"]), ({"source": None, "size": 1}, ["source"])):
        other = Part(file, "a-seed0", "tiny", {"size": 1}, settings)
        assert not other.is_done and other.differs == names


@pytest.mark.parametrize("claim", ["[]", "null", "3", '"size"'])
def test_a_claim_that_is_no_object_is_of_another_run(claim, tmp_path):
    record("a-seed0").write(tmp_path / "record.json")
    (tmp_path / "run.json").write_text(claim)
    part = Part(tmp_path / "record.json", "a-seed0", "tiny", {"size": 1}, {"size": 1})
    assert not part.is_done and part.differs == ["run.json"]


def of_python(name, python, day):
    data = {"source": "embedded/docs-text", "train_tokens": {"3.11": 700, "3.12": 600}[python]}
    return record(name, data=data, versions={"python": f"{python}.1"}, created=f"2026-01-0{day}T00:00:00+00:00")


def test_a_newer_set_that_is_not_whole_does_not_hide_an_older_one():
    old = [of_python(name, "3.11", 1) for name in ("r0", "r1")]
    again, new = of_python("r0", "3.11", 2), of_python("r0", "3.12", 3)
    assert newest_of_one_data({0: [[new, again, old[0]], [old[1]]], 1: [[]]}) == {0: [again, old[1]], 1: []}
    # The data of what was made here count, and a part without such a record keeps its newest, to be told of.
    assert newest_of_one_data({0: [[new], [old[1]]]}, {id(new)}) == {0: [new, old[1]]}
    # A set that is as whole and newer is the one that counts.
    whole = [of_python(name, "3.12", 3) for name in ("r0", "r1")]
    assert newest_of_one_data({0: [[whole[0], again], [whole[1], old[1]]]}) == {0: whole}


def test_a_table_is_read_from_the_whole_set(tmp_path):
    asked = Asked("demo", tmp_path, kept=Kept.read(RESULTS), reuses=True)
    plan = planned("A.figure1", asked)
    records, _ = records_and_rest(plan, asked)
    told = [one.to_dict() for of in records.values() for one in of]
    newer = [one | {"created": "2099-01-01T00:00:00+00:00", "versions": one["versions"] | {"python": "3.99.1"}}
             for one in told if one["noise"]["ratio"] == 0]  # fmt: skip
    assert 0 < len(newer) < len(told)
    again = Asked("demo", tmp_path, kept=Kept(told + newer), reuses=True)
    assert records_and_rest(plan, again) == (records, [])
    _, of_report, rest = tables_in(Stored(tmp_path, [(one["name"], one) for one in told + newer]), "demo")
    assert of_report["A.figure1"] == records and rest["A.figure1"] == []


@pytest.mark.parametrize("flag", [["--seed", "7"], ["--seed=7"], ["--output", "x"], ["--scale", "gpu"], ["--dry_run"],
                                  ["--see", "7"], ["--sca=gpu"]])
def test_what_the_command_says_itself_is_refused_behind_the_dashes(flag, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["A.table4", "--output", str(tmp_path), "--dry_run", "--", *flag])
    name = flag[0].partition("=")[0]
    assert stop.value.code == 2 and f"-- {name}: give {name}" in capsys.readouterr().err, flag
