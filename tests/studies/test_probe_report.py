"""Tables and claims of a probe from records that are made here: figures by hand, and when a claim held."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hf_noise.analysis.paired import paired_test
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord
from hf_noise.studies.probe.claims import claims_table, verdicts
from hf_noise.studies.probe.compare import Cell, compared, told
from hf_noise.studies.probe.report import (
    SAW_PASSAGES,
    accuracy_table,
    area_table,
    gain_table,
    noise_table,
    reading,
    show,
)


def record(accuracy, seed=0, penalty="none", head="linear", labels="r0", loss="nll", area=None, gain=None, **changes):
    """A head's record, as the study writes it; accuracy and area in [0, 1]."""
    noise = LabelFlips.symmetric(ratio=0.0 if labels == "r0" else 1.0, num_classes=3)
    metrics = {"test_accuracy": {"value": accuracy, "n": 100}}
    if area is not None:
        metrics["correct_area"] = {"value": area, "n": 10, "reach": 1.0}
    if gain is not None:
        metrics["gain"] = dict(zip(("value", "n", "only_this", "only_plain"), gain))
    values = {
        "name": f"{head}-{labels}-{loss}-{penalty}-{seed}", "task": "probe", "recipe": "recipes/lgm_probe.py",
        "seed": seed,
        "model": {"name": "x", "head": head}, "settings": {}, "wall_seconds": 1.0,
        "data": {"source": "a.csv", "labels": labels, "test_rows": 100, "validation_rows": 9, "feature_keys": {},
                 "at_limit": {"test": 7}},
        "noise": noise.to_dict() | {"realised": {"rate": noise.error_rate, "n": 90}},
        "budget": {"settings_tried": 2}, "loss": {"name": loss, "penalty": {"name": penalty}}, "metrics": metrics,
    }  # fmt: skip
    return RunRecord(**values | changes)


def pair(plain, lgm, **told):
    """Records of heads without a penalty and with LGM, a seed for each accuracy."""
    return [record(one, seed, **told) for seed, one in enumerate(plain)] + [
        record(one, seed, "difference", **told) for seed, one in enumerate(lgm)]  # fmt: skip


CLEAN = Cell("linear", "r0", "nll")


def test_gains_are_paired_by_seed():
    study = compared(pair([0.50, 0.60, 0.70], [0.52, 0.61, 0.73]))
    found = study.against((CLEAN, "difference"), (CLEAN, "none"))
    assert found.mean == pytest.approx(2.0) and (found.wins, found.n) == (3, 3)
    # Differences 2, 1, 3: standard error 1 / sqrt(3), and t_0.975 of two degrees is 4.3027.
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    row = gain_table(study).splitlines()[2]
    assert "60.00 ± 10.00" in row and "+2.00 [-0.48, 4.48]" in row and "3-0-0" in row and "0.25" in row


def test_a_seed_without_its_partner_does_not_count():
    study = compared([*pair([0.5, 0.6], [0.6]), record(0.9, 5, "difference")])
    assert study.against((CLEAN, "difference"), (CLEAN, "none")).n == 1


def test_over_rows_is_mcnemars():
    """11 rows won and 1 lost of 100: gain 10 points, variance (0.12 - 0.01) / 100."""
    study = compared([record(0.5), record(0.6, penalty="difference", gain=(0.1, 100, 11, 1))])
    low, high = study.over_rows(CLEAN, "difference")
    half = 100 * 1.96 * (0.11 / 100) ** 0.5
    assert (low, high) == pytest.approx((10 - half, 10 + half))
    assert study.over_rows(CLEAN, "norm") is None


@pytest.mark.parametrize(
    ("plain", "lgm", "word"),
    [
        ([0.50, 0.60, 0.70], [0.52, 0.62, 0.7201], "held on these test rows"),
        ([0.50, 0.60, 0.70], [0.48, 0.58, 0.6799], "not held on these test rows"),
        ([0.50, 0.60, 0.70], [0.55, 0.58, 0.70], "open"),
        ([0.50, 0.60, 0.70], [0.52, 0.62, 0.72], "open"),  # all alike
        ([0.50, 0.60], [0.52, 0.6201], "open"),
        ([0.50], [0.52], "held on these test rows (one seed)"),
        ([0.50, 0.6], [0.50, 0.6], "not held on these test rows"),
    ],
)
def test_a_claim_held_where_the_whole_interval_says_so(plain, lgm, word):
    (verdict,) = verdicts(compared(pair(plain, lgm)))
    assert verdict.word == word and verdict.source == "table 1"
    assert word in claims_table(compared(pair(plain, lgm)))


@pytest.mark.parametrize(
    ("lgm", "won", "lost", "word"),
    [([0.60, 0.70, 0.801], 11, 1, "held"), ([0.60, 0.70, 0.801], 30, 20, "held on these test rows"),
     ([0.40, 0.50, 0.599], 1, 11, "not held"), ([0.60, 0.70, 0.801], 10, 0, "held")],
)  # fmt: skip
def test_a_gain_is_told_of_other_rows_where_rows_say_so_too(lgm, won, lost, word):
    """10 points of 100 rows: of 12 rows that differ +- 6.5 over rows, of 50 +- 13.7."""
    gain = ((won - lost) / 100, 100, won, lost)
    records = [record(one, seed) for seed, one in enumerate([0.5, 0.6, 0.7])]
    records += [record(one, seed, "difference", gain=gain) for seed, one in enumerate(lgm)]
    (verdict,) = verdicts(compared(records))
    assert verdict.word == word and ", over rows [" in verdict.statistic


def test_rows_that_are_all_alike_have_no_interval():
    study = compared([record(0.5), record(0.5, penalty="difference", gain=(0.0, 100, 0, 0))])
    assert study.over_rows(CLEAN, "difference") is None


def test_wrong_labels_and_correction_side_by_side():
    noisy = {"labels": "r1-symmetric"}
    records = [*pair([0.8, 0.8], [0.8, 0.8]), *pair([0.5, 0.5], [0.51, 0.53], **noisy),
               *pair([0.6, 0.62], [0.61, 0.61], loss="corrected", **noisy)]  # fmt: skip
    study = compared(records)
    row = noise_table(study).splitlines()[2]
    assert "50.0 (symmetric)" in row and "+2.00 [" in row and "+11.00 |" in row and "+0.00 [" in row
    claims = {one.claim for one in verdicts(study)}
    assert "linear, r1-symmetric, corrected: beats LGM without correction" in claims
    assert noise_table(compared(records[:4])) == ""


def test_ablations_and_areas(tmp_path):
    records = [*pair([0.5, 0.6], [0.52, 0.62], area=0.5), *(record(0.4, s, "norm") for s in (0, 1)),
               *(record(0.5, s, "l2", area=0.4 + 0.1 * s) for s in (0, 1))]  # fmt: skip
    study = compared(records)
    assert "norm only" in accuracy_table(study) and "40.00 ± 0.00" in accuracy_table(study)
    assert "+0.00 |" in area_table(study) and "+5.00 [" in area_table(study)
    assert {one.source for one in verdicts(study)} == {"table 1", "table 5", "figure 6"}
    printed = show([*records, record(0.1, 9, head="mlp")], SimpleNamespace(output=tmp_path), records)
    assert "1 more record in " in printed and "mlp" not in printed
    assert "plain 2, LGM 2, norm only 2, L2 on outputs 2" in printed and "7 test texts fill" in printed
    assert (tmp_path / "study.png").stat().st_size > 10_000


def test_the_closing_words_hold_for_heads_that_differ():
    """Two seeds of linear heads, three of MLPs; their grids are of different sizes."""
    records = [*pair([0.5, 0.6], [0.52, 0.62]), *pair([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], head="mlp",
                                                      budget={"settings_tried": 4})]  # fmt: skip
    records[0].budget["settings_tried"] = 3
    records[1].data["validation_rows"] = 12
    said = reading(compared(records), records)
    assert "100 test rows, 2 to 3 seeds, ±" in said and "chosen on 9 to 12 validation rows" in said
    assert "among: linear heads: plain 2 to 3, LGM 2; mlp heads: plain 4, LGM 4." in said
    assert "for 3 seeds at least 0.25" in said


@pytest.mark.parametrize(
    ("source", "settings", "is_said"),
    [("embedded/docs-topics", {"model": None}, True), ("embedded/docs-topics", {"model": "gpt2"}, False),
     ("a.csv", {"model": None}, False), ("embedded/docs-topics", {"model": None, "features": "a.npy"}, False)],
)  # fmt: skip
def test_a_network_that_saw_the_passages_is_told(source, settings, is_said):
    one = record(0.5, settings=settings)
    one.data["source"] = source
    assert (SAW_PASSAGES in reading(compared([one]), [one])) == is_said


def test_records_of_two_studies_are_refused():
    one = record(0.5)
    with pytest.raises(ValueError, match="one head and seed"):
        compared([one, record(0.6)])
    other = record(0.5, 1, data=one.data | {"source": "b.csv"})
    with pytest.raises(ValueError, match="source differ"):
        compared([one, other])
    with pytest.raises(ValueError, match="loss.name"):
        compared([record(0.5, loss="gce")])
    assert "no claim can be judged" in claims_table(compared([one]))


def test_a_small_negative_number_is_not_minus_zero():
    assert told(paired_test([1.0, 1.0], [1.001, 1.001])) == "+0.00" and told(None) == "-"
