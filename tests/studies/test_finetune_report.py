"""What the study of fine-tuning says of its records, with figures that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord
from hf_noise.studies.finetune.compare import Cell, Group, claims, groups_of, over_plain
from hf_noise.studies.finetune.report import cure_table, finetune_figure, run_table, saw_passages
from hf_noise.studies.finetune.runs import EMBEDDED_MODEL
from hf_noise.studies.probe.report import SAW_PASSAGES

NOISE = LabelFlips.symmetric(error_rate=0.4, num_classes=4)
GROUP = Group("symmetric, e = 0.40", "lora")


def record(seed, accuracy, cure="nll", regulariser="none", lgm=False, noise=NOISE, **metrics):
    return RunRecord(
        name=f"{noise.error_rate:.1f}-{cure}-{regulariser}-{lgm}-{seed}", task="text_classification", recipe="r",
        seed=seed, settings={}, model={"name": "m", "method": "lora"}, data={"source": "s", "classes": 4},
        noise=noise.to_dict() | {"realised": {"rate": noise.error_rate, "n": 100}}, budget={"plan": "budget"},
        loss={"name": cure, "cure": cure, "regulariser": regulariser, "lgm": lgm}, wall_seconds=7.0,
        metrics={
            "test_accuracy": {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "n": 50},
            "test_nll": {"value": 1.0, "n": 50}, "train_accuracy_trained_labels": {"value": 0.5, "n": 9},
            "train_accuracy_clean_labels": {"value": 0.5, "n": 9},
            **{name: {"value": value, "n": 9} for name, value in metrics.items()},
        },
    )  # fmt: skip


RECORDS = [
    *(record(seed, value, memorised=0.8) for seed, value in enumerate([0.50, 0.52, 0.54])),
    # 10 points more for each seed, but for 1, 0 and 2 tenths.
    *(record(seed, value, "corrected", memorised=0.2) for seed, value in enumerate([0.601, 0.62, 0.642])),
    *(record(seed, value, "gce") for seed, value in enumerate([0.40, 0.42, 0.441])),
    *(record(seed, value, regulariser="smart", lgm=True) for seed, value in enumerate([0.45, 0.57, 0.54])),
    record(0, 0.7, noise=LabelFlips.symmetric(ratio=0.0, num_classes=4)),
]


def test_differences_are_paired_by_seed():
    by_cell = groups_of(RECORDS)[GROUP]
    found = over_plain(by_cell, Cell("corrected"))
    assert (found.n, found.wins, found.mean) == (3, 3, pytest.approx(10.1))
    # The standard error of 10.1, 10, 10.2 is 0.1 / sqrt(3); t of two degrees of freedom is 4.3027.
    assert found.high - found.mean == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert over_plain(by_cell, Cell("nll")) is None
    titles = {cell.title for cell in by_cell}
    assert titles == {"corrected, T known", "GCE", "cross-entropy", "cross-entropy + SMART + LGM"}


def test_claims_say_what_beats_cross_entropy():
    first, last = claims(RECORDS)
    assert first.startswith("symmetric, e = 0.40, LoRA: better than cross-entropy: corrected, T known +10.1 (+9.9 to ")
    assert "Worse: GCE -10.0 (" in first and "Not told apart: cross-entropy + SMART + LGM +0.0 (-12." in first
    assert "paired by seed: mean and 95% interval of Student's t, 3 seeds; ±" in last
    assert "of 3 comparisons 1 may" in last and "Student's t, 3 seeds;" in claims(RECORDS[:-1])[-1]
    assert claims([record(0, 0.5)]) == [], "nothing to compare with"
    of_two = [one for one in RECORDS if one.seed < 2 and one.loss["cure"] != "corrected"]
    assert "Not told apart: " in claims(of_two)[0] and "GCE -10.0 (all seeds alike)" in claims(of_two)[0]
    assert "no cure beats" in claims(of_two)[0] and "Worse" not in claims(of_two)[0]
    alike = [*RECORDS[:3], *(record(seed, value, "elr") for seed, value in enumerate([0.51, 0.53, 0.55]))]
    assert "no cure beats cross-entropy. Not told apart: ELR +1.0 (all seeds alike)." in claims(alike)[0]
    (alone, _) = claims([record(0, 0.5), record(0, 0.6, "elr")])
    assert "no cure beats cross-entropy. Not told apart: ELR +10.0 (one seed)." in alone


def test_claims_count_pairs_and_say_what_costs_more():
    """Of five seeds of one cure and three of cross-entropy, three are pairs."""
    more = [*RECORDS[:3], *(record(seed, 0.6 + seed / 100, "co-teaching") for seed in range(5))]
    assert "Student's t, 3 seeds;" in claims(more)[-1]
    assert "Student's t, 1 to 3 seeds;" in claims([*more, record(0, 0.5, "elr")])[-1]
    for one in more:
        one.loss["passes"] = 2 if one.loss["cure"] == "co-teaching" else 1
    try:
        assert claims(more)[-1].endswith("back through a network are co-teaching 2; 1 of the others.")
    finally:
        for one in RECORDS:
            one.loss.pop("passes", None)


def test_tables():
    table = cure_table(RECORDS).markdown()
    row = next(line for line in table.splitlines() if "corrected, T known" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:6] == ["symmetric, e = 0.40, LoRA", "corrected, T known", "3", "62.1 ± 2.1", "+10.1 (+9.9 to +10.3)",
                         "0.250"]  # fmt: skip
    assert "20.0 ± 0.0" in row and "right labels, LoRA" in table
    runs = run_table(RECORDS).markdown()
    assert len(runs.splitlines()) == 2 + len(RECORDS) and "0.4-corrected-none-False-2" in runs


def test_an_encoder_that_saw_the_passages_is_told():
    one = record(0, 0.5)
    assert saw_passages([one]) == []
    one.settings.update(model="roberta-base", source="embedded/docs-topics")
    assert saw_passages([one]) == []
    one.settings.update(model=EMBEDDED_MODEL)
    assert saw_passages([record(1, 0.5), one]) == [SAW_PASSAGES]


def test_the_figure_shows_each_seed_and_the_clean_run(tmp_path, figures):
    path = finetune_figure(RECORDS, tmp_path / "study.png")
    assert path.stat().st_size > 10_000
    left, right = figures[0].axes
    assert [tick.get_text() for tick in left.get_yticklabels()][:2] == ["cross-entropy", "corrected, T known"]
    assert {round(x, 1) for line in left.lines for x in line.get_xdata()} >= {50.0, 52.0, 54.0, 60.1, 70.0}
    (legend,) = figures[0].legends
    assert {text.get_text() for text in legend.get_texts()} == {
        "cross-entropy on right labels", "cross-entropy on these labels", "95% interval over test rows"
    }  # fmt: skip
    assert {round(x) for line in right.lines for x in line.get_xdata()} == {20, 80}


def test_the_figure_has_room_for_its_words_and_says_how_few_rows_it_is_of(tmp_path, figures):
    """One panel row is the least room that there is."""
    finetune_figure([*RECORDS[:3], *RECORDS[3:6], RECORDS[-1]], tmp_path / "study.png")
    (figure,), (legend,) = figures, figures[0].legends
    left = figure.axes[0]
    boxes = [one.get_window_extent() for one in (legend, left._left_title)]
    assert not boxes[0].overlaps(boxes[1]) and not boxes[0].overlaps(left.get_window_extent())
    assert left.get_xlabel() == "accuracy on right test labels (%), 50 rows"
    # Wilson of 26 of 50: (26 + 1.92) / 53.84 less and more sqrt(26 * 24 / 50 + 0.96) * 1.96 / 53.84.
    assert any(line.get_xdata() == pytest.approx([38.5, 65.2], abs=0.05) for line in left.lines)


def test_labels_that_nobody_knows_are_not_called_right(tmp_path, figures):
    made = [record(seed, 0.5 + seed / 50, cure) for seed in range(3) for cure in ("nll", "elr")]
    made = [replace(one, noise={"protocol": "unknown"}, name=f"{one.name}-u") for one in made]
    for one in made:
        del one.metrics["train_accuracy_clean_labels"]
    assert {group.labels for group in groups_of(made)} == {"labels as they come"}
    words = "\n".join([*claims(made), cure_table(made).markdown(), run_table(made).markdown()])
    assert "test labels as given over cross-entropy" in words and "right test labels" not in words
    finetune_figure([*made, RECORDS[-1]], tmp_path / "study.png")
    left, right = figures[0].axes
    assert left.get_xlabel().startswith("accuracy on test labels as given (%)")
    assert right.get_xlabel() == "training labels given back (%)" and right.lines
    assert next(iter(groups_of([*made, RECORDS[-1]]))).labels == "right labels", "first"


def test_records_of_other_studies_are_refused():
    with pytest.raises(TypeError, match="records must be a list of RunRecord"):
        claims("records")
    broken = record(0, 0.5)
    del broken.loss["cure"]
    with pytest.raises(ValueError, match="has no loss.cure"):
        cure_table([broken])
