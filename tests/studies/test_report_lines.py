"""The lines of the report's picture: which runs are compared, and what they were trained on."""

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
from stored_records import RESULTS, copied, more_seeds, records_of, told_of, value, write_records

from hf_noise.reports.paper import paper_table
from hf_noise.studies.report import study
from hf_noise.studies.report.curves import curves, curves_and_rest
from hf_noise.studies.report.efforts import effort, explained
from hf_noise.studies.report.parts import chart
from hf_noise.studies.report.picture import _sizes, digest, spaced
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.report.tables import families_table


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """The lines of the picture by title."""
    return {one.title: one for one in curves(Stored.read(copied(tmp_path_factory.mktemp("records"))), "demo")}


@pytest.fixture(scope="module")
def told():
    return told_of()


def test_costs_and_gaps_are_those_of_the_records(lines, told):
    assert len(lines) == 6
    gpt2 = lines["language model"]
    clean, equal, plain, cured = (
        value(told, f"gpt2-demo/{name}-seed0", "validation_nll")
        for name in ("r0", "r0-compute-of-r1-batch", "r1-nll-batch", "r1-corrected-batch")
    )
    rates = {1 - 1 / (1 + ratio): value(told, f"gpt2-demo/r{ratio:g}-nll-batch-seed0", "validation_nll")
             for ratio in (0.1, 0.3, 0.5, 1.0)}  # fmt: skip
    assert [rate for rate, _ in gpt2.costs(gpt2.plain)] == pytest.approx([*rates])
    assert [cost.mean for _, cost in gpt2.costs(gpt2.plain)] == pytest.approx(
        [100 * (noisy - clean) / clean for noisy in rates.values()]
    )
    assert gpt2.gap_closed().values == pytest.approx(((plain - cured) / (plain - equal),))
    edm = lines["diffusion model"]
    right, wrong = (
        value(told, f"edm-demo/{name}-seed0", "label_consistency") for name in ("r0-dsm", "r1-symmetric-dsm")
    )
    assert edm.cost(edm.plain[0.5]).mean == pytest.approx(100 * (right - wrong) / right)
    assert edm.plain[0.5][0].value == pytest.approx(100 * wrong)
    pairs = lines["encoder-decoder, poor source"]
    each = [100 * (value(told, f"seq2seq-demo/sparse-r1-nll-seed{i}", "test_target_nll")
                   / value(told, f"seq2seq-demo/sparse-clean-seed{i}", "test_target_nll") - 1) for i in range(3)]
    assert pairs.cost(pairs.plain[pairs.worst]).values == pytest.approx(tuple(each))


def test_no_gap_is_told_where_test_images_are_too_few_to_see_one(lines):
    symmetric, cyclic = (lines[f"classifier, labels {kind}"] for kind in ("at random", "of the next class"))
    assert symmetric.gap_closed() is None, "the intervals of 355 images overlap"
    assert cyclic.gap_closed().mean > 0.9


#: Runs of edm-demo by what they are on the line; `equal` has the compute of the noisiest.
EDM = {"clean": "r0-dsm", "equal": "r0-compute-of-r1-dsm", "plain": "r1-symmetric-dsm", "cured": "r1-symmetric-tdsm"}


def edm_line(folder, **seeds):
    """The line of diffusion models with these seeds of its sets, if there is one, and the figures by set and seed."""
    more_seeds(folder, "edm-demo", lambda run: next((of for name, of in seeds.items() if EDM[name] == run), []))
    lines = [json.loads(line) for line in (folder / "edm-demo" / "records.jsonl").open()]
    figures = {(name, one["seed"]): 100 * one["metrics"]["label_consistency"]["value"] for one in lines
               for name, run in EDM.items() if one["name"].startswith(f"{run}-seed")}  # fmt: skip
    return next(iter(curves(Stored.read(folder), "demo")), None), figures


def test_seeds_that_only_some_have_are_not_compared_with_others(tmp_path):
    line, of = edm_line(tmp_path, clean=[0, 1, 2], equal=[0, 1, 2], plain=[0, 1, 2], cured=[2])
    gap = (of["cured", 2] - of["plain", 2]) / (of["equal", 2] - of["plain", 2])
    assert line.gap_closed().values == pytest.approx((gap,))
    for found, name in zip(line.at_worst, EDM):
        assert {seed: one.value for seed, one in found.items()} == {2: pytest.approx(of[name, 2])}
    (_, cost), = line.costs(line.plain)
    assert cost.values == pytest.approx([100 * (1 - of["plain", 2] / of["clean", 2])])


def test_a_gap_of_fewer_seeds_than_its_row_says_so(tmp_path):
    line, of = edm_line(tmp_path, clean=[0, 1], equal=[1], plain=[0, 1], cured=[0, 1])
    closed = (of["cured", 1] - of["plain", 1]) / (of["equal", 1] - of["plain", 1])
    assert line.gap_closed().values == pytest.approx((closed,))
    table = families_table([line])
    mean = (of["plain", 0] + of["plain", 1]) / 2
    assert f"| {mean:.1f} ± " in table and f" {100 * closed:.0f} % (1 seed) |" in table
    assert "| 1 to 2 |" in table and "in brackets" not in table, "one seed has no interval"


@pytest.mark.parametrize(
    ("seeds", "is_drawn"),
    [
        ({"clean": [1], "plain": [0], "cured": [1]}, False),
        ({"clean": [0], "plain": [0, 1], "cured": [1]}, True),
        ({"clean": [0, 1], "plain": [0], "cured": [1]}, True),
        ({"clean": [0], "plain": [0]}, True),
    ],
)
def test_a_line_without_seeds_in_common_is_left_out(tmp_path, seeds, is_drawn):
    line, _ = edm_line(tmp_path, **seeds)
    assert (line is not None) == is_drawn
    study.main(["--records", str(tmp_path), "--output", str(tmp_path / "made")])
    assert (tmp_path / "made" / "overview.png").is_file() == is_drawn
    if is_drawn:
        assert line.gap_closed() is None and not line.cured and {*line.plain[0.5]} == {0}
        assert "% with" not in chart([line])["says"]


def test_lines_are_of_one_scale_and_of_runs_that_were_told_the_same(tmp_path):
    for name in ("edm-demo", "edm-cifar10"):
        lines = (RESULTS / name / "records.jsonl").read_text()
        (tmp_path / name.replace("demo", "own")).mkdir()
        (tmp_path / name.replace("demo", "own") / "records.jsonl").write_text(lines)
    stored = Stored.read(tmp_path)
    assert [one.study for one in curves(stored, "demo")] == ["edm-own"]
    assert [one.study for one in curves(stored, "gpu")] == ["edm-cifar10"]
    assert curves(stored, "paper") == []


def test_runs_of_several_settings_in_a_folder_are_never_one_line(tmp_path):
    shutil.copytree(RESULTS / "classifier-sizes-digits", tmp_path / "sizes")
    (line,) = curves(Stored.read(tmp_path), "demo")
    rows = int(re.fullmatch(r"train_rows (\d+)", line.differs)[1])
    lines = records_of("classifier-sizes-digits")
    for name, found in (("r0", line.clean), ("r1-symmetric-nll-steps", line.plain[0.5])):
        own = {one["seed"]: 100 * one["metrics"]["test_accuracy"]["value"] for one in lines
               if one["name"].startswith(f"{name}-seed") and one["settings"]["train_rows"] == rows}  # fmt: skip
        assert {seed: one.value for seed, one in found.items()} == pytest.approx(own) and len(own) == 3
    assert f"| sizes (train_rows {rows}) |" in families_table([line])


def test_of_runs_that_are_alike_the_newest_counts_and_unlike_ones_make_no_line(tmp_path):
    lines = records_of("edm-demo")
    (plain,) = (one for one in lines if one["name"] == f"{EDM['plain']}-seed0")
    metrics = plain["metrics"] | {"label_consistency": plain["metrics"]["label_consistency"] | {"value": 0.25}}
    again = plain | {"metrics": metrics, "created": "2099-01-01T00:00:00+00:00"}
    write_records(tmp_path / "again", [again, *lines])
    assert curves(Stored.read(tmp_path / "again"), "demo")[0].plain[0.5][0].value == 25
    write_records(tmp_path / "other", [*lines, again | {"name": "r1-symmetric-of-another-kind-seed0"}])
    assert curves(Stored.read(tmp_path / "other"), "demo") == []


def test_what_runs_were_trained_on_is_told_of_their_records(lines, told):
    pairs, edm = effort(lines["encoder-decoder, poor source"]), effort(lines["diffusion model"])
    first = told["seq2seq-demo/sparse-r1-nll-seed0"]["budget"]
    audited = told["seq2seq-demo/sparse-r1-mixture-learned-seed0"]["budget"]["sequences"]
    clean = told["seq2seq-demo/sparse-clean-seed0"]["budget"]["sequences"]
    assert (pairs.clean, pairs.plain) == (first["exposure"], pytest.approx(first["sequences"] / clean))
    assert pairs.helped == pytest.approx(audited / clean) and pairs.told == "1 ×; cure 1 + 1 ×"
    base = told["edm-demo/r0-dsm-seed0"]["budget"]["sequences"]
    cure = told["edm-demo/r1-symmetric-tdsm-seed0"]["budget"]
    assert edm.cured == pytest.approx(cure["sequences"] / base)
    assert edm.helped == pytest.approx(cure["classifier_images"] / base)
    says = " ".join(explained([*lines.values()]))
    assert "0.5 × its clean data at 1 × its compute (encoder-decoder)" in says
    assert "training anew on the right pairs needs the run that was audited, 1 × the rows (encoder-decoder)" in says
    assert says in families_table([*lines.values()])


def test_an_audited_run_that_is_not_there_is_told_as_unknown(tmp_path):
    lines = records_of("seq2seq-demo")
    write_records(tmp_path / "pairs", [one for one in lines if "mixture" not in one["name"]])
    every = curves(Stored.read(tmp_path), "demo")
    assert [effort(one).told for one in every] == ["1 ×; cure 1 + ? ×"] * 2
    assert "needs the run that was audited (encoder-decoder)" in explained(every)[1]


@pytest.mark.parametrize("scale", ["demo", "gpu"])
def test_a_classifier_whose_rows_no_record_says_is_told_as_unknown(tmp_path, scale):
    """As one that was given, or in records of before they were counted."""
    name = {"demo": "edm-demo", "gpu": "edm-cifar10"}[scale]
    lines = [one | {"budget": {key: told for key, told in one["budget"].items() if "classifier" not in key}}
             for one in records_of(name)]  # fmt: skip
    write_records(tmp_path / name, lines)
    (line,) = curves(Stored.read(tmp_path), scale)
    assert effort(line).told.endswith(" + ? ×") and effort(line).helper == "its classifier"
    assert "TDSM needs its classifier (diffusion model)" in explained([line])[1]


def took(line, plain, cured, **on):
    """The line as if whole runs had taken so many seconds, by seed."""
    def told(of, seconds, **more):
        return {0.5: {seed: replace(one, seconds=seconds[seed], **more) for seed, one in of[0.5].items()}}

    return replace(line, plain=told(line.plain, plain), cured=told(line.cured, cured, **on))


def test_a_cure_whose_rows_take_longer_is_told(tmp_path):
    line, _ = edm_line(tmp_path, clean=[0, 1], plain=[0, 1], cured=[0, 1])
    assert effort(took(line, [100, 200], [160, 480])).longer == pytest.approx(2)
    says = explained([took(line, [100, 200], [160, 480])])
    assert [one for one in says if "TDSM 2 × (diffusion model)" in one and one.startswith("Compute counts rows; ")]
    for seconds in ([140, 500], [10, 10]):
        slow = took(line, [100, 200], seconds)
        assert effort(slow).longer is None and not any("clock" in one for one in explained([slow])), "not clearly"
    assert effort(took(line, [100, 200], [160, 480], on={"gpus": ["another"]})).longer is None
    assert effort(took(line, [0, 0], [160, 480])).longer is None
    fewer = took(line, [100, 200], [100, 200])
    half = {0.5: {seed: replace(one, rows=one.rows / 2) for seed, one in fewer.cured[0.5].items()}}
    assert effort(replace(fewer, cured=half)).longer == pytest.approx(2), "it is of a row"


def test_seconds_are_those_of_the_records(lines, told):
    line = lines["diffusion model"]
    plain, cured = (told[f"edm-demo/r1-symmetric-{loss}-seed0"]["wall_seconds"] for loss in ("dsm", "tdsm"))
    assert effort(line).longer == pytest.approx(cured / plain) and cured / plain > 1.5
    assert [effort(one).longer for title, one in lines.items() if one is not line] == [None] * 5


@pytest.mark.parametrize("name", ["edm-demo", "classifier-demo"])
def test_no_line_is_drawn_beside_a_run_without_noise_that_came_to_0(tmp_path, name):
    """Nothing is a percentage of it."""
    metric = {"edm-demo": "label_consistency", "classifier-demo": "test_accuracy"}[name]
    clean = [one for one in records_of(name) if one["name"] in ("r0-dsm-seed0", "r0-seed0")]
    clean[0]["metrics"][metric] |= {"value": 0.0}
    write_records(tmp_path / name, [one for one in records_of(name) if one["name"] != clean[0]["name"]] + clean)
    lines, left_out = curves_and_rest(Stored.read(tmp_path), "demo")
    assert lines == [] and left_out and all(": no line, since what was measured without noise came to 0" in one
                                            and f"{name}/{clean[0]['name']}." in one for one in left_out)  # fmt: skip
    study.main(["--records", str(tmp_path), "--output", str(tmp_path / "made")])
    page, text = ((tmp_path / "made" / file).read_text() for file in ("report.html", "report.md"))
    assert left_out[0] in page and left_out[0] in text.replace("\\", "")


def test_a_run_without_noise_that_came_to_0_and_is_compared_with_nothing_does_no_harm(tmp_path):
    line, _ = edm_line(tmp_path, clean=[0, 10], plain=[0], cured=[0])
    assert line.clean[10].value == 0 and line.cost(line.plain[0.5]).mean > 0


def test_the_picture_tells_the_fewest_test_units_and_seeds_of_a_study(lines):
    line = lines["encoder-decoder, poor source"]

    def of(n):
        return replace(line, clean={seed: replace(one, n=n) for seed, one in line.clean.items()})

    few = replace(of(5), plain={rate: {0: seeds[0]} for rate, seeds in line.plain.items()}, cured={})
    for every in ([of(7), few, of(9)], [few, of(9), of(7)], [of(9), of(7), few]):
        assert _sizes(every) == "records: seq2seq-demo (n = 5, 1 seed)"


def test_no_run_without_noise_at_equal_compute_is_told(tmp_path):
    line, _ = edm_line(tmp_path, clean=[0], plain=[0], cured=[0])
    assert explained([line])[-1] == "No run without noise had the compute of those with (diffusion model)."


def test_the_picture_is_old_when_what_runs_were_trained_on_is_another(lines):
    every = [*lines.values()]
    line = lines["diffusion model"]
    cured = {rate: {seed: replace(one, helped=one.helped * 3) for seed, one in of.items()}
             for rate, of in line.cured.items()}  # fmt: skip
    assert digest(every) != digest([one if one is not line else replace(line, cured=cured) for one in every])


def test_what_the_paper_prints_is_of_its_tables(lines):
    table = paper_table("A.table1")
    assert lines["diffusion model"].of_paper()[0.5] == pytest.approx(
        100 * (1 - table[1.0]["cifar10_consistency"] / table[0.0]["cifar10_consistency"])
    )
    assert all(one.of_paper()[0.0] == 0 and one.of_paper()[0.5] > 5 for one in lines.values())


def test_a_run_with_more_compute_is_no_baseline(lines):
    for one in lines.values():
        assert all("compute-of" not in figure.place for figure in one.clean.values())
        assert all("compute-of" in figure.place for figure in one.equal.values())


def test_names_in_the_picture_stand_apart_in_their_order():
    places = [2.3, 59, 24, 24.1, 13.5]
    moved = spaced(places, 6)
    order = sorted(range(5), key=lambda i: places[i])
    assert all(moved[b] - moved[a] >= 6 - 1e-9 for a, b in pairwise(order))
    assert moved[0] == 2.3 and moved[1] == 59, "what has room stays"


def test_committed_records_leave_nothing_out():
    lines, left_out = curves_and_rest(Stored.read(RESULTS), "demo")
    assert len(lines) == 6 and left_out == []


def is_corrected(one):
    return one["loss"]["name"] == "corrected"


def changed(folder, name, picks, **data):
    """A folder with the records of a study, some of which are of another Python, or say other things of their data."""
    python = {"python": data.pop("python")} if "python" in data else {}
    write_records(folder / name, [one | {"versions": one["versions"] | python, "data": one["data"] | data}
                                  if picks(one) else one for one in records_of(name)])  # fmt: skip
    return Stored.read(folder)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [("gpt2-demo", {"python": "3.9.1"}, "(Python 3.9, not 3.11)"),
     ("gpt2-demo", {"validation_tokens": 77}, "(validation_tokens 77, not 50176)"),
     ("classifier-demo", {"test_rows": 9}, "(test_rows 9, not 355)")],
)  # fmt: skip
def test_a_line_is_of_one_set_of_data_and_says_what_it_leaves_out(tmp_path, name, data, says):
    whole = curves(changed(tmp_path / "whole", name, lambda one: False), "demo")
    lines, left_out = curves_and_rest(changed(tmp_path / "mixed", name, is_corrected, **data), "demo")
    assert all(line.cured for line in whole) and not any(line.cured for line in lines)
    assert [line.plain for line in lines] == [line.plain for line in whole]
    assert len(left_out) == len(lines) and all(f"{name}: left out as of other data" in one for one in left_out)
    assert all(f"the rest {says}: r" in one and one.endswith(".") for one in left_out)
    assert left_out[0] in families_table(lines, left_out=left_out).replace("\\", "")
    assert digest(lines, left_out) != digest(lines)
    study.main(["--records", str(tmp_path / "mixed"), "--output", str(tmp_path / "made")])
    page, text = ((tmp_path / "made" / file).read_text() for file in ("report.html", "report.md"))
    assert left_out[0] in page and left_out[0] in text.replace("\\", "")


def test_a_line_that_is_left_out_whole_is_told(tmp_path):
    """Runs without noise are fewer, and it is they that the others are held against."""
    stored = changed(tmp_path, "gpt2-demo", lambda one: one["noise"]["error_rate"] == 0, python="3.9.1")
    lines, left_out = curves_and_rest(stored, "demo")
    assert lines == [] and len(left_out) == 1 and left_out[0].startswith("Language model, gpt2-demo: left out as of ")
    assert left_out[0].endswith("r0-compute-of-r1-batch-seed0; the others make no line.")
    study.main(["--records", str(tmp_path), "--output", str(tmp_path / "made")])
    page, text = ((tmp_path / "made" / file).read_text() for file in ("report.html", "report.md"))
    assert left_out[0] in page and left_out[0] in text.replace("\\", "")
    told = "Left out as of other data than the rest (Python 3.9, not 3.11): r0-seed0."
    assert text.count(told) >= 1 and page.count(told) >= 1 and "Not measured: left out" not in page + text
