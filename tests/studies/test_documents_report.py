"""Tables, claims and figure of the study of noise documents, from records made up so that every figure is known."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
from PIL import Image

from hf_noise.noise import GaussianDocuments, RandomDocuments
from hf_noise.reports.paper import published
from hf_noise.reports.record import RunRecord
from hf_noise.reports.verdicts import Spread, Verdict, lies_in
from hf_noise.studies.documents.claims import claims_table, verdicts
from hf_noise.studies.documents.compare import Setting, compared, setting_of
from hf_noise.studies.documents.report import corpora_table, cure_table, settings_table, study_figure

STEPS = [25, 50, 75, 100]
NOISES = {
    "random-documents": RandomDocuments(alpha=0.05, vocab_size=300),
    "gaussian-documents": GaussianDocuments(alpha=0.05, vocab_size=300),
}


def followed(values: list[float], n: int = 1000, **more) -> dict:
    return {"value": values[-1], "n": n, "steps": STEPS, "values": values, **more}


def record(
    protocol="random-documents", alpha=0.05, loss="nll", seed=0, nll=(5.0, 4.6, 4.3, 4.2),
    noise=(5.75, 5.72, 5.71, 5.71), clean_of=None, **metrics,
) -> RunRecord:  # fmt: skip
    made = dataclasses.replace(NOISES.get(protocol, NOISES["random-documents"]), alpha=alpha)
    figures = {"validation_nll": followed(list(nll), train={"steps": STEPS, "values": list(nll)})} | metrics
    if alpha:
        trained = {"steps": STEPS, "values": list(noise)}
        figures["noise_nll"] = followed(list(noise), entropy=made.entropy, train=trained)
    return RunRecord(
        name=f"{protocol}-{alpha}-{loss}-{clean_of}-{seed}", recipe="recipes/gpt2_noise.py", command="",
        model={"name": "nano"}, data={"source": "embedded/docs-text"}, settings={}, seed=seed, wall_seconds=1.0,
        git=None, versions={}, hardware={}, noise=made.to_dict(),
        budget={"plan": "budget", "steps": 100} | ({} if clean_of is None else {"clean_of": clean_of}),
        loss={"name": "nll", "source": "none"} if loss == "nll" else {"name": "document-mixture", "source": loss},
        metrics=figures,
    )  # fmt: skip


def clean(seed=0, nll=(4.9, 4.5, 4.2, 4.0), **more) -> RunRecord:
    return record(alpha=0.0, nll=nll, seed=seed, **more)


def test_rises_worked_by_hand():
    study = compared([clean(), record(), clean(clean_of=0.05, nll=(4.9, 4.5, 4.2, 4.05))])
    setting = Setting("random-documents", 0.05, "nll")
    assert study.rise(setting).values == pytest.approx((100 * (4.2 / 4.0 - 1),))
    # At 95 of 100 steps the clean run has 4.0 + (5 / 25) * 0.2.
    assert study.rise_at_equal_text(setting).values == pytest.approx((100 * (4.2 / 4.04 - 1),))
    assert study.rise_over_shorter_run(setting).values == pytest.approx((100 * (4.2 / 4.05 - 1),))
    row = settings_table(study).splitlines()[-1]
    assert "5.00" in row and "3.96" in row and "3.70" in row and f"{NOISES['random-documents'].entropy:.3f}" in row


def test_only_runs_of_one_seed_are_compared():
    study = compared([clean(seed=0), record(seed=0, nll=(5, 5, 5, 4.4)), record(seed=1, nll=(9, 9, 9, 9.0))])
    assert study.rise(Setting("random-documents", 0.05, "nll")).values == pytest.approx((10.0,))


def test_an_interval_is_students_t():
    assert Spread((1.0,)).interval is None
    low, high = Spread((1.0, 2.0, 3.0)).interval
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)


@pytest.mark.parametrize(
    ("values", "held"),
    [((1.0,), True), ((-1.0,), False), ((1.0, 1.001), None), ((1.0, 1.001, 1.002), True),
     ((-1.0, -1.001, -1.002), False), ((1.0, 1.0, 1.0), None), ((1.0, 1.0 + 1e-14, 1.0), None), ((-1.0,) * 3, None),
     ((0.0, 0.0), False), ((0.0,), False)],
)  # fmt: skip
def test_seeds_that_are_few_or_all_alike_say_nothing(values, held):
    """Of two seeds nothing is told apart, and equal values are no certainty, unless all of them are no difference."""
    found = Spread(values)
    assert lies_in(found, 0.5)[:2] == (held, len(values))
    assert (found.interval is None) == (max(values) - min(values) < 1e-9)
    assert Spread((1.0, 1.0)).told() == "1.00"


def test_a_verdict_says_what_it_is_of():
    assert Verdict("", "", "", True, 3).word == "held" and Verdict("", "", "", None, 1).word == "open (one seed)"
    assert Verdict("", "", "", False, 1, of="model").word == "not held (one model)"
    assert Verdict("", "", "", True, 3, on_rows=True).word == "held on these test rows"
    assert Verdict("", "", "", None, 3, on_rows=True).word == "open"


@pytest.mark.parametrize("boost, name", [("none", "random-documents"), ("random", "boosted-documents"),
                                         ("low", "low-documents")])  # fmt: skip
def test_a_setting_has_the_name_of_its_flag(boost, name):
    made = record()
    noise = RandomDocuments(alpha=0.05, vocab_size=3000, boost=boost).to_dict()
    assert setting_of(RunRecord.from_dict(made.to_dict() | {"noise": noise})) == Setting(name, 0.05, "nll")


def held(study, claim: str) -> list[bool]:
    return [one.held for one in verdicts(compared(study), "causal_lm") if claim in one.claim]


def test_claims_that_hold_and_that_do_not():
    small = record(nll=(4.901, 4.501, 4.201, 4.006))
    assert held([clean(), small], "by at most 0.2 %") == [True]
    assert held([clean(), record()], "by at most 0.2 %") == [False]
    assert held([clean(), record(nll=(4.9, 4.5, 4.2, 2.0))], "by at most 0.2 %") == [False]  # it does not rise
    assert held([clean(), small], "at most 0.2 of alpha") == [True]
    assert held([clean(), record()], "at most 0.2 of alpha") == [False]
    assert held([clean(), record(nll=(4.9, 4.5, 4.2, 3.9))], "positive") == [False]
    assert held([clean(), small], "falls throughout") == [True]
    assert held([clean(), record(nll=(5.0, 4.6, 4.7, 4.2))], "falls throughout") == [False]
    assert held([clean(), small], "hardly falls") == [True]
    assert held([clean(), record(noise=(5.9, 5.8, 5.7, 5.3))], "hardly falls") == [False]
    assert held([clean(), small], "training the clean loss is raised") == [True, True]  # no figures at a tenth
    assert held([clean(), record()], "training the clean loss is raised") == [False, False]
    fallen = record(nll=(4.9, 4.49, 4.19, 3.99))  # by less than the threshold, but in the other direction
    assert held([clean(), fallen], "training the clean loss is raised") == [False, False]


def test_at_equal_text_a_run_planned_for_that_text_decides():
    """The clean loss along the longer run falls, so that the rise over a point before its end is smaller anyhow."""
    study = [clean(), record()]
    assert held(study, "at equal text") == [], "no shorter run was made"
    assert held([*study, clean(clean_of=0.2, nll=(4.9, 4.5, 4.2, 4.3))], "at equal text") == [], "of another text"
    for last, is_smaller in ((4.05, True), (4.0, False), (3.99, False)):
        every = [*study, clean(clean_of=0.05, nll=(4.9, 4.5, 4.2, last))]
        assert held(every, "at equal text") == [is_smaller]
    (one,) = (one for one in verdicts(compared(every), "causal_lm") if one.source == "figure 2c")
    assert one.statistic == "rise 5.26 %, smaller by -0.26 points"
    assert "figure 2c, GPT-2" in claims_table(compared(every), "masked_lm")


@pytest.mark.parametrize("source, asked, run", [
    ("section 3.1", (0.2, 0.4), {"nll": (4.9, 4.5, 4.2, 4.012)}),  # a rise of 0.3 %
    ("figure 2b", (0.2, 0.4), {"nll": (4.9, 4.5, 4.2, 4.06)}),  # 1.5 % of 5 %
    ("table 8", (1.05, 2.1), {"nll": (4.9, 4.5675, 4.3, 4.06)}),  # 1.5 %, in the middle and at the end
    ("figure 3a", (0.1, 0.2), {"nll": (5.0, 4.6, 4.3, 4.0), "noise": (5.85, 5.8, 5.75, 5.7)}),  # 0.15 of a fall of 1
])  # fmt: skip
def test_thresholds_are_those_of_the_tables(source, asked, run, monkeypatch):
    """Where a table's file had twice the threshold the study would say so, and judge by it."""

    def doubled(name):
        claims = [dataclasses.replace(one, high=one.high and 2 * one.high, again=tuple(
            test | {"high": 2 * test["high"]} for test in one.again)) for one in published(name).claims]  # fmt: skip
        return dataclasses.replace(published(name), claims=tuple(claims))

    for high, is_so in zip(asked, (False, True)):
        found = [one for one in verdicts(compared([clean(), record(**run)]), "causal_lm") if one.source == source]
        assert found and {one.held for one in found} == {is_so}
        assert all(f"at most {high:g} " in one.claim for one in found)
        monkeypatch.setattr("hf_noise.studies.documents.claims.published", doubled)


@pytest.mark.parametrize("nll, noise, verdict", [(4.1, 4.2, [True, True]), (4.3, 5.9, [False, False])])
def test_gaussian_noise_against_uniform(nll, noise, verdict):
    gaussian = record("gaussian-documents", nll=(5.0, 4.6, 4.3, nll), noise=(5, 5, 5, noise))
    study = [clean(), record(), gaussian]
    assert held(study, "lower loss than uniform") + held(study, "costs less clean loss") == verdict


def test_seeds_that_disagree_do_not_show_a_direction():
    study = [clean(), record(nll=(5, 5, 5, 4.1)), clean(1), record(seed=1, nll=(5, 5, 5, 3.95))]
    assert held(study, "positive") == [None]
    assert re.search(r"\| +open \|", claims_table(compared(study), "causal_lm"))


def test_without_a_clean_run_no_claim_of_size_is_judged():
    assert "no claim" in claims_table(compared([clean()]), "causal_lm")
    assert not held([record()], "rises")


def test_tables_of_cure_and_corpora():
    study = compared([
        clean(nll_wiki=followed([5, 5, 5, 5.0])),
        record(nll_wiki=followed([6, 6, 6, 5.5]), row_auroc={"value": 0.9, "n": 9}),
        record(loss="learned", nll=(5, 5, 5, 4.1), row_auroc={"value": 0.99, "n": 9},
               learned_alpha={"value": 0.05, "low": 0.04, "high": 0.06, "in_loss": 0.03, "n": 9}),
    ])  # fmt: skip
    assert "10.00" in corpora_table(study) and "5.000 nats" in corpora_table(study)
    cured = cure_table(study).splitlines()[-1]
    assert "mixture, alpha learned" in cured and "0.030; 0.050 [0.040, 0.060]" in cured and "2.38" in cured
    assert cure_table(compared([clean(), record()])) == corpora_table(compared([clean(), record()])) == ""


def test_the_figure_wraps_and_has_a_panel_for_all_there_is(tmp_path, figures):
    every = [
        clean(nll_wiki=followed([5, 5, 5, 5.0])), clean(clean_of=0.05), record(nll_wiki=followed([6, 6, 6, 5.5])),
        record("gaussian-documents"), record(loss="learned"),
    ]  # fmt: skip
    width, height = Image.open(study_figure(every, tmp_path / "study.png")).size
    assert width < 2000 and height > width
    assert len(figures[0].axes) == 6
    study_figure([clean(), record()], tmp_path / "few.png")
    assert len(figures[1].axes) == 4


def test_records_of_before_are_refused_by_name(tmp_path):
    bare = clean()
    old = RunRecord.from_dict(bare.to_dict() | {"metrics": {"validation_nll": {"value": 4.0, "n": 9}}})
    with pytest.raises(ValueError, match="no curve of validation_nll"):
        study_figure([old], tmp_path / "none.png")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"name": "again"}, "both of .*seed 0"),
     ({"seed": 1, "model": {"name": "mini"}}, "model.name is 'nano' and 'mini'"),
     ({"seed": 1, "data": {"source": "else"}}, "data.source is"), ({"seed": 1, "task": "masked_lm"}, "task is")],
)  # fmt: skip
def test_two_studies_are_not_shown_as_one(changes, message):
    with pytest.raises(ValueError, match=message):
        compared([clean(), dataclasses.replace(clean(), **changes)])
