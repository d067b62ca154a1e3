"""The papers' figures and claims: as printed there, as their collection has them, and as callers read them."""

import importlib
import math
import re
import shlex

import pytest

from hf_noise.reports.claims import KINDS, judge, others_of, with_others
from hf_noise.reports.paper import SCALES, Claim, mean_of, paper_table, paper_table_ids, published

#: What the collection of the papers' figures calls otherwise, table by table, and columns that are named for a reader.
IDS = {"C.seed": "C.text", "C.repo.score_defaults": "C.score_defaults",
       "C.repo.classifier_defaults": "C.classifier_defaults"}  # fmt: skip
COLUMNS = {
    "A.abstract": {"test_nll": "validation_nll", "consistency_relative_drop": "consistency_drop"},
    "A.table2": {"cifar10_acc": "cifar10", "cifar100_acc": "cifar100"},
    "A.table3": {f"imagenet{n}_acc": f"imagenet{n}" for n in (10, 100, 1000)},
    "A.table4": {"cos_clean_clean": "clean_cosine", "cos_corrupt_corrupt": "corrupt_cosine",
                 "cos_clean_corrupt": "cross_cosine", "noise_norm": "corrupt_norm"},
    "A.table5": {"noisy_mean_loss": "noisy_mean", "clean_mean_loss": "clean_mean"},
    "A.table8": {"val_nll": "validation_nll"},
    "A.table9": {"train_acc": "train_accuracy", "test_acc": "test_accuracy"},
    "A.table11": {"cifar10_acc": "cifar10", "cifar100_acc": "cifar100"},
    "A.table13": {"test_acc": "test_accuracy", "tvd": "tv"},
    "A.figure1": {"test_nll": "validation_nll"},
    "B.text": {"ntp_loss_rise": "loss_rise"},
}  # fmt: skip
#: Worked examples that were computed for tests, and a map that is code: `hf_noise.noise.label_maps`.
NO_TABLES = {"C.repo.label_maps", "C.derived.weights3", "C.derived.gmm", "B.derived.lgm"}
#: Tables of which each row is a name and a value.
LISTS = {"A.text", "C.score_defaults", "C.classifier_defaults", "B.table7"}
EVERY = [one for name in paper_table_ids() for one in published(name).claims]


def test_table_8_of_paper_a():
    table = paper_table("A.table8")
    assert {r: row["train_nll"] for r, row in table.items()} == {
        0: 2.7369, 0.1: 3.8744, 0.3: 5.3622, 0.5: 6.2423, 1.0: 7.6048,
    }  # fmt: skip
    assert {r: row["validation_nll"] for r, row in table.items()} == {
        0: 2.8650, 0.1: 2.9758, 0.3: 3.1646, 0.5: 3.3455, 1.0: 3.6525,
    }  # fmt: skip
    # The abstract calls the last one 27.49% above the first.
    assert table[1.0]["validation_nll"] / table[0]["validation_nll"] - 1 == pytest.approx(0.2749, abs=5e-5)


def test_values_of_figure_1_that_the_abstract_states():
    assert paper_table("A.figure1") == {0: {"validation_nll": 2.87}, 1.0: {"validation_nll": 3.59}}


def test_a_table_can_be_changed_without_changing_the_next_reading():
    paper_table("A.table8").clear()
    assert len(paper_table("A.table8")) == 5


def test_of_a_mean_with_its_spread_the_mean_is_told():
    assert paper_table("B.table1")["clean+lgm"]["sst2_linear"] == 87.42
    assert published("B.table1").rows[2]["sst2_linear"] == [87.42, 0.73]
    assert "sst2_mlp" not in paper_table("B.table1")["openai_gpt2_cited"], "the paper leaves it out"


def test_every_table_can_be_read():
    assert {"A.figure1", "A.table8", "B.table14", "C.text"} <= set(paper_table_ids())
    for name in paper_table_ids():
        assert all(isinstance(value, int | float) for row in paper_table(name).values() for value in row.values())


def test_an_unknown_table_is_refused():
    for read in (paper_table, published):
        with pytest.raises(ValueError, match="unknown table 'B.table99'; there are: A.abstract, A.figure1, "):
            read("B.table99")


@pytest.mark.parametrize("name", paper_table_ids())
def test_a_table_is_whole(name):
    table = published(name)
    assert table.id == name and name.startswith(f"{table.paper}.") and table.kind in ("measured", "settings", "facts")
    assert len(set(table.keys)) == len(table.rows) and len({claim.id for claim in table.claims}) == len(table.claims)
    assert all(claim.id.startswith(f"{name}.c") for claim in table.claims)
    for claim in table.claims:
        for test in (*claim.printed, *claim.again):
            assert test["kind"] in KINDS
            columns = {column for column in test["columns"] if ":" not in column}
            assert columns <= set(table.columns), f"{claim.id} looks at columns that are not there"
        assert all(set(paper_table_ids()) >= {other} for other in others_of(claim))
        assert not (claim.of_study and claim.again), "two ways to judge it"
        assert claim.of_study or not (claim.settings or claim.high), "no study reads it"
        assert claim.high is None or f"at most {claim.high:g}" in claim.says
    # What shows it at each scale, or why nothing does.
    assert table.runs or table.not_built or all(others_of(claim) for claim in table.claims)
    assert not (table.runs and table.not_built)
    for runs in table.runs:
        assert set(runs.flags) | set(runs.missing) == set(SCALES) and not set(runs.flags) & set(runs.missing)
        assert set(runs.stand_in) <= set(runs.flags) and all(map(shlex.split, filter(None, runs.flags.values())))


def rows_of(name):
    return published(name).printed


@pytest.mark.parametrize("claim", EVERY, ids=lambda one: one.id)
def test_what_is_said_of_a_claim_is_what_the_printed_figures_say(claim):
    if not claim.printed:
        return
    rows = with_others(claim, rows_of(claim.id.rpartition(".")[0]), rows_of)
    verdict = judge(claim, rows, is_printed=True)
    assert verdict.held is claim.holds, verdict.statistic


#: Kinds that ask for a direction: whatever they are told they can fail.
DIRECTIONS = {"monotone_up", "monotone_down", "greater", "less", "above", "rises_less", "gain"}
ENDS = ("low", "high")


def bounds(test):
    return {end: test[end] for end in ENDS if math.isfinite(test.get(end, math.inf))}


def untold(claim):
    """What new runs are asked for otherwise than the printed figures are, and the claim does not say."""
    if any(not bounds(test) for test in claim.again if test["kind"] not in DIRECTIONS):
        yield "a test without a finite bound, which everything passes"
    if not claim.printed or claim.again == claim.printed:
        return
    _, is_told, words = claim.says.rpartition("(of a new run, ")
    numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", words)}
    for test in (one for one in claim.again if one not in claim.printed):
        alike = [bounds(one) for one in claim.printed if one["kind"] == test["kind"]]
        if not is_told and not any(one.keys() <= bounds(test).keys() for one in alike):
            yield f"a dropped bound, or another kind: {test}"
        moved = {value for end, value in bounds(test).items() if value not in [one.get(end) for one in alike]}
        if not is_told and moved or not moved <= numbers:
            yield f"another threshold: {moved}"
    if len(claim.again) < len(claim.printed) and not is_told:
        yield "fewer tests"


@pytest.mark.parametrize("claim", EVERY, ids=lambda one: one.id)
def test_a_claim_says_what_new_runs_are_asked_for(claim):
    """Thresholds that are not those of the printed figures stand in the claim, and tests of another kind are told."""
    assert [*untold(claim)] == []


#: What a claim may be of.
SUBJECTS = re.compile("language model|encoder-decoder|classifier|generated images|generator|gradients|heads|documents|"
                      "LGM|TDSM|Proposition 1|information in a label|score of images|paper A")  # fmt: skip


@pytest.mark.parametrize("claim", EVERY, ids=lambda one: one.id)
def test_a_claim_can_be_read_without_its_table(claim):
    """In a list of claims: it names what it is of, refers to no other, and no other claim is called alike."""
    assert SUBJECTS.search(claim.says) and "\n" not in claim.says
    assert not re.search(r"^(its?|they|both|these|by) |\b(in|on) both\b|\bof the two\b", claim.says)
    assert [one.id for one in EVERY if one.says == claim.says] == [claim.id]


@pytest.mark.parametrize(("again", "says", "fault"), [
    ([{"low": 7.83, "high": 13.05}], "is lost (of a new run, 7.83 to 13.05%)", None),
    ([{"low": 10.4349, "high": 10.4451}], "10.44% is lost", None),
    ([{"low": 7.83, "high": 13.05}], "is lost (of a new run, 7.83%)", "another threshold"),
    ([{"low": 7.83, "high": 13.05}], "7.83 to 13.05% is lost", "another threshold"),
    ([{"low": 10.4349}], "10.44% is lost", "dropped"), ([{"low": 5}], "is lost (of a new run, 5% at least)", None),
    ([{}], "is lost (of a new run, more or less)", "without"), ([{"low": -math.inf}], "is lost", "without"),
    ([{"kind": "difference", "low": 10.4349, "high": 10.4451}], "10.44% is lost", "another kind"),
    ([{"kind": "greater"}], "10.44% is lost", "another kind"), ([{"kind": "greater"}], "(of a new run, any)", None),
    ([], "10.44% is lost", "fewer"),
], ids=str)  # fmt: skip
def test_what_a_claim_does_not_say_of_new_runs_is_found(again, says, fault):
    printed = {"kind": "relative_drop", "columns": ["x"], "from": 0.0, "to": 1.0, "low": 10.4349, "high": 10.4451}
    plain = {key: value for key, value in printed.items() if key not in ENDS}
    claim = Claim("A.x.c1", says, holds=True, replica=True, printed=(printed,), again=tuple(
        plain | one for one in again))  # fmt: skip
    assert bool(fault) is any((fault or "") in one for one in untold(claim)), [*untold(claim)]


#: Columns that are not printed, or what the paper has no figures of.
NO_FIGURES = {"A.figure1.c1", "B.figure7.c1", "C.text.c1", "C.text.c2", "C.text.c5"}


@pytest.mark.parametrize("claim", [one for one in EVERY if one.again], ids=lambda one: one.id)
def test_a_claim_that_is_true_in_print_is_so_by_the_tests_of_new_runs(claim):
    name = claim.id.rpartition(".")[0]
    found = judge(claim, with_others(claim, rows_of(name), rows_of), keys=published(name).keys)
    assert (found.seeds == 0) is (claim.id in NO_FIGURES)
    assert found.held is (None if claim.id in NO_FIGURES else claim.holds), found.statistic


def changed(name, **figures):
    """Printed figures of a table with some others: `column={row: value}`."""
    rows = rows_of(name)
    for column, values in figures.items():
        for key, value in values.items():
            rows[key][column] = {0: value}
    return rows


@pytest.mark.parametrize(("claim", "held", "figures"), [
    ("A.abstract.c1", False, {"validation_nll": {1.0: 2.8703}}),
    ("A.abstract.c1", False, {"validation_nll": {1.0: 3.26}}),
    ("A.table4.c2", False, {"clean_norm": {"e0.25-b8": 6.13 * 1.59}}),
    ("A.table4.c3", False, {"clean_norm": {"e0.5-b8": 4.19 * 1.57}}),
    ("A.table4.c4", False, {"clean_norm": {"e0.25-b8": 6.13 * 1.43}, "corrupt_norm": {"e0.25-b8": 0.84 * 1.69}}),
    ("A.table4.c5", False, {"clean_norm": {"e0.5-b8": 4.19 * 1.43}, "corrupt_norm": {"e0.5-b8": 1.42 * 1.69}}),
    ("A.table12.c1", True, {"cifar10_fid": {0.0: 1.0, 0.1: 0.94, 0.3: 1.06, 0.5: 1.0, 1.0: 1.0}}),
    ("A.table12.c1", False, {"cifar10_fid": {0.0: 1.0, 0.1: 0.94, 0.3: 1.11, 0.5: 1.0, 1.0: 1.0}}),
    ("A.table3.c1", True, {"imagenet1000": {0.0: 50, 0.1: 49.5, 0.3: 50.9, 0.5: 50, 1.0: 50}}),
    ("A.table3.c1", False, {"imagenet1000": {0.0: 50, 0.1: 49.5, 0.3: 51.1, 0.5: 50, 1.0: 50}}),
    ("B.table8.c3", False, {"it_100000": {0.05: 0.998 * 2.82}}),
    ("B.table8.c3", False, {"it_100000": {0.05: 1.011 * 2.82}}),
    ("B.table9.c3", False, {"it_10m": {0.05: 0.998 * 2.76}}), ("B.table9.c3", False, {"it_10m": {0.05: 1.012 * 2.76}}),
    ("A.table4.c8", False, {"snr": {"e0.25-b8": 3.8}}), ("A.table4.c8", False, {"snr": {"e0.25-b4": 2.9}}),
    ("B.table1.c2", False, {"avg_linear": {"uniform_20pct": 69.7}}),
    ("B.table1.c2", False, {"avg_linear": {"gaussian_5pct": 71.2}}),
    ("B.table1.c3", True, {"avg_linear": {"uniform_20pct": 80.0}}),
    ("B.table1.c3", False, {"avg_linear": {"uniform_20pct": 40.0}}),
    ("B.figure9.c1", False, {"loss_n_drop": {1.9933: 0.01}}), ("B.figure9.c1", False, {"loss_n_drop": {2.0: 0.0911}}),
    ("B.figure9.c1", False, {"loss_c_rise": {1.0: 0.06}}),
    ("A.figure3.c3", False, {"n50257": {0.5: 0.8}}), ("A.table9.c2", True, {"test_accuracy": {1.0: 99.0}}),
], ids=lambda one: one if isinstance(one, str) else None)  # fmt: skip
def test_the_test_of_a_claim_is_what_it_says(claim, held, figures):
    name = claim.rpartition(".")[0]
    (one,) = [one for one in published(name).claims if one.id == claim]
    rows = changed(name, **figures)
    if claim.startswith("A.abstract"):  # new runs are those of figure 1
        rows = with_others(one, {}, lambda _: rows)  # noqa: B023
    assert judge(one, rows, keys=published(name).keys).held is held


def test_what_no_program_judges_is_known_to_be_by_reading():
    """Of those that smaller runs should show: settings, what the noise is drawn from, advice, and what is proved."""
    asked = {one.id for one in EVERY if one.replica and one.by_reading}
    assert asked == {"A.figure1.c2", "A.table6.c1", "B.figure8.c1", "C.text.c6"}
    for ratio, row in paper_table("A.table6").items():
        assert row["batch_multiplier"] * row["iterations"] == pytest.approx((1 + ratio) * 600_000), "A.table6.c1"


def test_as_many_claims_are_computed_as_can_be():
    assert len(EVERY) > 90 and sum(bool(one.printed) for one in EVERY) > 60
    asked = [one for one in EVERY if one.replica]
    assert sum(not one.by_reading for one in asked) / len(asked) > 0.9


def collected(paper_tables):
    for name, table in paper_tables.items():
        if name not in NO_TABLES:
            yield IDS.get(name, name.replace(".fig", ".figure")), table


def test_every_collected_table_is_here(paper_tables):
    assert {name for name, _ in collected(paper_tables)} == set(paper_table_ids())


def test_claims_are_those_of_the_collection(paper_tables):
    for name, table in collected(paper_tables):
        theirs = {IDS.get(name, one["id"]).replace(".fig", ".figure").replace("C.seed", "C.text"): one
                  for one in table["claims"]}  # fmt: skip
        ours = {one.id: one for one in published(name).claims}
        assert set(ours) == set(theirs)
        for key, one in ours.items():
            assert (one.holds, one.replica) == (theirs[key]["holds"], theirs[key]["replica"]), key
            assert one.says != theirs[key]["statement"]


def test_ranges_of_ratios_are_those_of_the_collection(paper_tables):
    """Both of their ends: a claim that leaves one out is another claim."""
    theirs = {one["id"]: (one["lo"], one["hi"]) for _, table in collected(paper_tables) for one in table["claims"]
              if one["kind"] == "ratio_range"}  # fmt: skip
    found = {one.id: one.printed[0] for one in EVERY if one.id in theirs}
    assert found.keys() == theirs.keys() and {"B.table8.c1", "B.table9.c3", "A.table4.c2"} <= {*found}
    for key, (low, high) in theirs.items():
        of_percent = found[key]["kind"] == "relative_rise"
        low, high = (100 * (end - 1) if of_percent else end for end in (low, high))
        assert (found[key].get("low"), found[key].get("high")) == (pytest.approx(low), pytest.approx(high)), key


def test_figures_are_those_of_the_collection(paper_tables):
    compared = 0
    for name, table in collected(paper_tables):
        ours = published(name).rows
        if name in LISTS:
            told = table.get("symbols") or {key: value for row in table["rows"] for key, value in row["values"].items()}
            assert [tuple(row.values()) for row in ours] == [*told.items()]
            continue
        theirs = [row for row in table["rows"] if name != "B.text" or "values" in row]
        assert len(ours) == len(theirs)
        for mine, row in zip(ours, theirs):
            for column, value in row.get("values", {}).items():
                assert figures(mine, name, column) == as_list(value), f"{name} {column}"
                compared += 1
    assert compared > 600


def figures(row, name, column):
    if name == "B.table14":
        heads = [row[f"{column}_{head}"] for head in ("linear", "mlp")] if column != "avg" else [
            row["avg_linear"], row["avg_mlp"]]  # fmt: skip
        return [one for head in heads for one in as_list(head)]
    for theirs, ours in COLUMNS.get(name, {}).items():
        column = ours if column == theirs else column
        for end, told in (("_min", "_smallest"), ("_max", "_largest")):
            column = f"{ours}{told}" if column == f"{theirs}{end}" else column
    return as_list(row[column])


def as_list(value):
    return value if isinstance(value, list) else [value]


def test_no_figure_of_words():
    assert mean_of("4") is mean_of(True) is mean_of(None) is mean_of([]) is None and mean_of([2.5, 1]) == 2.5


def test_facts_are_those_of_the_collection(paper_tables):
    assert published("B.text").facts == paper_tables["B.text"]["facts"]


@pytest.mark.parametrize(("study", "name", "claims", "asked"), [
    ("gradient_coherence.claims", "ABOUT_ZERO", ["A.table4.c1"], lambda x: [{"low": x}, {"low": -x, "high": x}]),
    ("gradient_coherence.claims", "_CORRUPT_GROWTH", ["A.table4.c4", "A.table4.c5"],
     lambda x: [dict(zip(ENDS, x)), {}]),
    ("stability.claims", "ALIKE", ["A.table5.c4", "A.table5.c5"], lambda x: [{"high": 100 * x}]),
])  # fmt: skip
def test_what_the_page_of_a_study_asks_is_what_the_table_asks(study, name, claims, asked):
    value = getattr(importlib.import_module(f"hf_noise.studies.{study}"), name)
    for claim in (one for one in EVERY if one.id in claims):
        assert [bounds(test) for test in claim.again] == asked(value)
