"""What records say beside their figures: the error of test rows, seeds of models, and what theory answers."""

import numpy as np
import pytest
from reproduce_fakes.tiny import record
from stored_records import RESULTS

from hf_noise.analysis.ntp_theory import bilingual, proposition1
from hf_noise.noise import LabelFlips
from hf_noise.reports.paper import published
from hf_noise.studies.report.seeds import tables_in
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.reproduce.families import theory
from hf_noise.studies.reproduce.families.backbones import averages, uncounted
from hf_noise.studies.reproduce.rows import half_widths, outcome, table_rows


def images(ratio, value, seed=0, kind="symmetric", half=0.015):
    told = {"value": value, "n": 355} | ({} if half is None else {"low": value - 2 * half, "high": value + half})
    return record("x", seed, metrics={"test_accuracy": told, "marginal_tv": {"value": 0.01, "n": 355}},
                  noise={"protocol": "p", "kind": kind, "ratio": ratio, "error_rate": ratio / (1 + ratio)})  # fmt: skip


def words(name, **records):
    return {claim: one.word for claim, one in outcome(name, "demo", records).verdicts.items()}


def test_half_widths_are_those_of_the_records_and_of_no_other_figure():
    table, records = published("A.table13"), {0: [images(0.0, 0.98), images(1.0, 0.9, half=None)]}
    assert half_widths(table, records)[0.0]["test_accuracy"] == {0: pytest.approx(3.0)}, "the farther end, in percent"
    assert half_widths(table, records)[1.0]["test_accuracy"] == {} and half_widths(table, records)[0.0]["tv"] == {}
    assert half_widths(table, {0: [images(0.0, 0.98, half=None)]}) == {}
    assert records[0][0].metrics["test_accuracy"]["value"] == 0.98, "records stay as they are"


def test_a_verdict_of_one_seed_within_its_test_error_is_open():
    """One image of 355 more on next-class labels than on uniform ones."""
    both = {"A.table11": {0: [images(0.3, 0.9803, kind="cyclic")]}, "A.table2": {0: [images(0.3, 0.9775)]}}
    assert words("A.table11", **both)["A.table11.c3"] == "open (one seed, a part of the table)"
    both["A.table2"] = {0: [images(0.3, 0.90)]}
    assert words("A.table11", **both)["A.table11.c3"] == "held (one seed, a part of the table)"
    both["A.table2"] = {0: [images(0.3, 0.90, half=None)]}
    assert words("A.table11", **both)["A.table11.c3"] == "held on these test rows (one seed, a part of the table)"


def documents(alpha, seed=0, nll=(5.0, 4.5, 4.001), protocol="random_documents", clean_of=None):
    budget = {"steps": 20} | ({} if clean_of is None else {"clean_of": clean_of})
    followed = {"value": nll[-1], "n": 9, "steps": [5, 10, 20], "values": [*nll]}
    return record("x", seed, task="causal_lm", model={"name": "nano"}, data={"source": "text"}, budget=budget,
                  noise={"protocol": protocol, "alpha": alpha, "boost": "none"}, loss={"name": "nll"},
                  metrics={"validation_nll": followed})  # fmt: skip


def test_a_study_says_what_its_verdicts_are_of():
    """A claim of every share of noise lacks those without a run; one seed is of test rows whose error is unknown."""
    runs = [documents(0.0, nll=(5.0, 4.5, 4.0)), documents(0.01)]
    of = outcome("B.figure2", "demo", {"B.figure2": {0: runs}}).verdicts["B.figure2.c1"]
    assert of.word == "held on these test rows (one seed, a part of the table)"
    assert of.lacks == ("random, alpha = 0.05", "random, alpha = 0.2")
    assert of.statistic.endswith("; without random, alpha = 0.05 and random, alpha = 0.2")
    runs += [documents(0.05), documents(0.2)]
    found = words("B.figure2", **{"B.figure2": {0: runs}})
    assert found.pop("B.figure2.c3") == "not measured", "no run without noise was planned for as much text"
    assert {*found.values()} == {"held on these test rows (one seed)"}
    shorter = documents(0.0, nll=(5.0, 4.5, 4.1), clean_of=0.2)
    assert words("B.figure2", **{"B.figure2": {0: [*runs, shorter]}}) == found | {
        "B.figure2.c3": "held on these test rows (one seed, a part of the table)"}
    seeds = [documents(one.noise["alpha"], seed, one.metrics["validation_nll"]["values"]) for one in runs
             for seed in range(3)]  # fmt: skip
    assert words("B.figure2", **{"B.figure2": {0: seeds}})["B.figure2.c1"] == "held"


def test_a_claim_is_decided_by_verdicts_of_its_own_settings():
    """Of B.text it is 5 and 20 % of noise; what 1 or 50 % cost is told elsewhere, and decides nothing here."""
    clean = documents(0.0, nll=(5.0, 4.5, 4.0))
    others = [documents(alpha, nll=(5.0, 4.5, 4.2)) for alpha in (0.01, 0.5)]
    others += [documents(0.0, nll=(5.0, 4.5, 3.9), clean_of=alpha) for alpha in (0.01, 0.5)]
    own = [documents(0.05), documents(0.2)]
    own += [documents(0.0, nll=(5.0, 4.5, 4.1), clean_of=alpha) for alpha in (0.05, 0.2)]
    found = [outcome("B.text", "demo", {"B.text": {0: [clean, *runs]}}).verdicts["B.text.c3"]
             for runs in (own, [*own, *others], others)]  # fmt: skip
    assert found[0] == found[1] and found[0].word == "held on these test rows (one seed)"
    assert found[0].statistic.count(": ") == 2 and "alpha = 0.01" not in found[0].statistic
    assert found[2].word == "not measured"


def area(head, penalty, value=0.5, seed=0):
    noise = LabelFlips.symmetric(ratio=0.0, num_classes=3)
    return record("x", seed, task="probe", model={"head": head}, loss={"name": "nll", "penalty": {"name": penalty}},
                  data={"source": "a.csv", "labels": "r0", "test_rows": 9, "validation_rows": 9},
                  noise=noise.to_dict() | {"realised": {"rate": 0.0, "n": 90}}, budget={"settings_tried": 1},
                  metrics={name: {"value": value, "n": 9} for name in ("test_accuracy", "correct_area")})  # fmt: skip


def test_settings_of_claims_are_what_studies_begin_their_verdicts_with():
    """A name that no verdict has would tell of every claim that it lacks something."""
    runs = [documents(alpha) for alpha in (0.0, 0.01, 0.05, 0.2)]
    runs += [documents(0.05, protocol="gaussian_documents")]
    runs += [documents(0.0, clean_of=alpha) for alpha in (0.01, 0.05, 0.2)]
    for one in runs:
        trained = {"steps": [2, 5, 20], "values": [9.0, 9.0, 9.0]}
        one.metrics["noise_nll"] = {"value": 9.0, "n": 9, "train": trained}
        one.metrics["validation_nll"]["train"] = trained | {"values": [5.0, 4.5, 4.0]}
    for table in ("B.figure2", "B.figure3", "B.text"):
        for claim in (one for one in published(table).claims if one.settings):
            found = outcome(table, "demo", {table: {0: runs}}).verdicts[claim.id]
            assert found.seeds == 1 and not found.lacks, found
    every = [area(head, penalty) for head in ("linear", "mlp") for penalty in ("none", "difference", "l2")]
    found = outcome("B.figure6", "demo", {"B.figure6": {0: every}}).verdicts["B.figure6.c1"]
    assert found.seeds == 1 and not found.lacks, found
    named = [f"{one}: " for one in published("B.figure6").claims[0].settings]
    assert all(found.statistic.count(one) == 1 for one in named), "each by what tells it from the others"
    found = outcome("B.figure6", "demo", {"B.figure6": {0: every[:5]}}).verdicts["B.figure6.c1"]
    assert found.lacks == ("mlp, no noise added: decisions hold over a larger area than with L2 on outputs",)


def test_of_several_verdicts_of_a_study_one_refutes_a_claim_at_a_level_that_is_theirs_together():
    """Of four comparisons one has a smaller area, p = 0.04 for itself; the others are larger by far."""

    def word(below, at="l2"):
        more = dict.fromkeys((head, penalty) for head in ("linear", "mlp") for penalty in ("none", "l2"))
        lower = {pair: [0.3 + seed / 1000 for seed in range(5)] for pair in more} | {("linear", at): below}
        runs = [area(head, "difference", 0.5, seed) for head in ("linear", "mlp") for seed in range(5)]
        runs += [area(*pair, values[seed], seed) for pair, values in lower.items() for seed in range(5)]
        return outcome("B.figure6", "demo", {"B.figure6": {0: runs}}).verdicts["B.figure6.c1"].word

    slightly = [0.53 + 0.01 * 5**0.5 * one for one in (-1, -1, 0, 1, 1)]
    assert word(slightly) == "open" == word(slightly, "none")
    assert word([0.1 + one for one in slightly]) == "not held on these test rows"
    assert word([one - 0.2 for one in slightly]) == "held on these test rows"


def heads(model, penalty, seed, value, head="linear", task="sst2"):
    metrics, loss = {"test_accuracy": {"value": value / 100, "n": 9}}, {"penalty": {"name": penalty}}
    return record("x", seed, task="probe", model={"head": head}, data={"source": task}, loss=loss, metrics=metrics,
                  settings={"model": f"runs/{model}"})  # fmt: skip


def test_heads_are_averaged_within_a_model_and_models_are_the_seeds():
    """A second model does not overwrite the first one's heads of the same seeds."""
    of = [heads("clean-seed0", "none", 0, 38.0), heads("clean-seed0", "none", 1, 39.8),
          heads("clean-seed1", "none", 0, 90.0), heads("clean-seed1", "none", 1, 91.0),
          heads("gaussian-documents-a0.05-nll-seed1", "difference", 0, 50.0),
          heads("gaussian-documents-a0.05-nll-seed1", "difference", 1, 51.0)]  # fmt: skip
    assert averages(of, {}) == {"clean": {"avg_linear": {0: pytest.approx(38.9), 1: pytest.approx(90.5)}},
                                "gaussian_5pct+lgm": {"avg_linear": {1: pytest.approx(50.5)}}}  # fmt: skip


def test_models_that_the_table_does_not_have_are_left_out():
    of = [heads(f"gaussian-documents-a{alpha}-nll-seed0", "none", 0, 50.0) for alpha in ("0.01", "0.05", "0.2")]
    assert list(averages(of, {})) == ["gaussian_5pct"]


def test_rows_are_averaged_over_the_heads_that_all_have_and_the_others_are_named():
    """A mean over more tasks would be of other tasks."""
    models, penalties = ("clean", "gaussian-documents-a0.05-nll"), ("none", "difference")
    of = [heads(f"{model}-seed0", penalty, seed, 40.0 + seed, head) for model in models for penalty in penalties
          for seed in range(5) for head in ("linear", "mlp")]  # fmt: skip
    whole = averages(of, {})
    assert len(whole) == 4 and {column: {0: 42.0} for column in ("avg_linear", "avg_mlp")} in whole.values()
    assert uncounted(of) == []
    stray = heads("clean-seed0", "none", 5, 99.0)
    assert averages([*of, stray], {}) == whole
    told = "left out of avg_linear as heads that not every model has: "
    assert uncounted([*of, stray]) == [f"{told}sst2 seed 5 on clean seed 0"]
    other = [heads("clean-seed0", "none", seed, 99.0, task="cr") for seed in range(5)]
    assert averages([*of, *other], {}) == whole
    assert uncounted([*of, *other])[0].endswith("cr seed 3 on clean seed 0 and 1 more")
    few = [one for one in of if one.seed < 2 or one.model["head"] == "mlp" or "clean" not in one.settings["model"]]
    assert {**averages(few, {})["gaussian_5pct"]} == {"avg_linear": {0: 40.5}, "avg_mlp": {0: 42.0}}
    alone = [*of, heads("random-documents-a0.05-nll-seed0", "none", 0, 50.0, task="cr")]
    assert [{*row} for row in averages(alone, {}).values()] == [{"avg_mlp"}] * 4, "linear heads have no task in common"
    assert "and 17 more" in uncounted(alone)[0]


def test_a_report_says_which_heads_it_leaves_out():
    every = Stored.read(RESULTS / "noisy-backbones-demo").told
    place, one = next(of for of in every if of[0].endswith("heads/clean-seed0/linear-r0-nll-plain-seed4"))
    stray = (f"{place[:-1]}5", one | {"name": f"{one['name'][:-1]}5", "seed": 5})
    plans, whole, rest = tables_in(Stored(RESULTS, every), "demo")
    assert rest["B.table1"] == []
    _, records, rest = tables_in(Stored(RESULTS, [*every, stray]), "demo")
    assert len(records["B.table1"][0]) == len(whole["B.table1"][0]) + 1
    assert rest["B.table1"] == ["left out of avg_linear as heads that not every model has: embedded/docs-topics seed 5 "
                                "on clean seed 0"]  # fmt: skip
    rows = [table_rows(plans["B.table1"].table, of["B.table1"]) for of in (whole, records)]
    assert rows[0] == rows[1] and len(rows[0]) == 6


def test_what_five_heads_say_of_one_model_is_of_one_model():
    of = [heads(f"{model}-seed0", penalty, seed, value + seed, head) for head in ("linear", "mlp") for seed in range(5)
          for model, value in (("clean", 40.0), ("gaussian-documents-a0.05-nll", 41.0))
          for penalty in ("none", "difference")]  # fmt: skip
    found = outcome("B.table1", "paper", {"B.table1": {0: of}}).verdicts["B.table1.c2"]
    assert found.word == "not held on these test rows (one model, a part of the table)"
    told = "avg_linear, gaussian_5pct less clean: 1.000; without uniform_1pct, uniform_5pct, uniform_20pct"
    assert found.statistic == told


def test_f_of_proposition_1_rises_and_falls_as_promised():
    of = outcome("B.figure7", "demo", {"B.figure7": {0: [], 1: []}}).verdicts["B.figure7.c2"]
    told = ("Proposition 1: f rises up to eta, falls from there, and is 0 again before 2 or 3 eta: in 881 of the 881 "
            "cases that it is promised of, among 8,019 of alpha and k")  # fmt: skip
    assert (of.word, of.statistic) == ("held (one computation)", told)
    assert theory.rises_and_falls(bilingual()).all()
    assert theory.rises_and_falls(proposition1(0.05, 2e-5, 0.05, [1.0, 1e6])).size == 0, "nothing is promised"


@pytest.mark.parametrize("wrong", [lambda u: -u, lambda u: u, lambda u: np.minimum(u, 1.5) - 1])
def test_another_f_does_not(wrong, monkeypatch):
    found = bilingual()
    monkeypatch.setattr(type(found), "f", lambda self, eps: wrong(eps / self.eta))
    assert not theory.rises_and_falls(found).any()
