"""What the study of teacher noise says of its records, with figures that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from hf_noise.noise import NoisyTeacher, rates
from hf_noise.reports.record import RunRecord
from hf_noise.studies.seq2seq.claims import claims_table, verdicts
from hf_noise.studies.seq2seq.compare import Setting, clean_of, compared, paper_rise
from hf_noise.studies.seq2seq.pictures import study_figure
from hf_noise.studies.seq2seq.report import run_table, settings_table, show, teacher_table

TEACHER = {"name": "t", "sha256": "0" * 64, "steps": 30}
#: Added to the clean NLL by what is not known of a seed, so that intervals have a width.
JITTER = [0.0, 0.01, -0.01]


def record(task, ratio, nll, seed=0, cure="nll", targets="same", source="embedded/docs-pairs", **metrics):
    noise = NoisyTeacher(ratio=ratio, teacher=TEACHER if ratio else None, num_rows=100, seed=seed)
    return RunRecord(
        name=f"{task}-r{ratio:g}-{cure}-seed{seed}", task="seq2seq", recipe="r", seed=seed, settings={},
        model={"name": "m", "parameters": 7}, noise=noise.to_dict() | {"realised": {"rate": noise.error_rate, "n": 9}},
        data={"task": task, "source": source, "targets": targets, "tokenizer": "t", "teacher": TEACHER,
              "source_tokens": 15.0, "target_tokens": 20.0},
        budget={"plan": "budget", "steps": 9}, loss={"name": cure, "cure": cure}, wall_seconds=7.0,
        metrics={
            "test_target_nll": {"value": nll, "n": 50}, "teacher_nll": {"value": 5.0, "n": 50},
            "written_nll": {"value": 1.5, "n": 50}, "padding_share": {"value": 0.25, "n": 50},
            **{name: {"value": value, "n": 9} for name, value in metrics.items()},
        },
    )  # fmt: skip


def runs(task, ratio, nll, cure="nll", jitter=JITTER, **more):
    return [record(task, ratio, nll + extra, seed, cure, **more) for seed, extra in enumerate(jitter)]


STEPPED, MORE = [0.0, 0.02, -0.03], [0.01, 0.0, -0.01]  # beside JITTER, so that differences differ by seed, too
RECORDS = [
    *runs("sparse", 0.0, 4.0), *runs("sparse", 0.5, 4.4, jitter=MORE), *runs("sparse", 1.0, 5.0, jitter=STEPPED),
    *runs("rich", 0.0, 2.0), *runs("rich", 0.5, 2.1, jitter=MORE), *runs("rich", 1.0, 2.2, jitter=STEPPED),
    *runs("sparse", 1.0, 4.2, "mixture-teacher", row_auroc=0.99),
    *runs("sparse", 1.0, 4.3, "mixture-learned", row_auroc=0.9, audited_error_rate=0.45),
    *runs("sparse", 1.0, 5.5, "truncated-0.5", MORE, row_auroc=0.1, dropped_share=0.5),
    *runs("sparse", 1.0, 5.4, "truncated-0.3", MORE, row_auroc=0.1, dropped_share=0.3),
    *runs("sparse", 1.0, 4.9, "error-norm-1.15", MORE, row_auroc=0.1),
    *runs("sparse", 1.0, 4.1, "oracle", MORE, kept_share=0.5),
]  # fmt: skip


def test_rises_are_paired_by_seed():
    study = compared(RECORDS)
    rise = study.rise(Setting("sparse", 1.0))
    # Differences are 1, 1.01 and 0.98.
    assert rise.values == pytest.approx((1.0, 1.01, 0.98))
    assert study.relative_rise(Setting("rich", 0.5)).values[0] == pytest.approx(5.5)
    assert study.sparse_less_rich(1.0, is_relative=False).values == pytest.approx((0.8, 0.8, 0.8))
    assert study.sparse_less_rich(1.0, is_relative=True).values[0] == pytest.approx(25 - 10)
    assert study.gap_closed(Setting("sparse", 1.0, "mixture-teacher")).values[0] == pytest.approx(0.8)
    assert study.gap_closed(Setting("sparse", 1.0, "truncated-0.3")).values[0] == pytest.approx(-0.41)
    assert study.best("sparse", 1.0, "truncated") == (Setting("sparse", 1.0, "truncated-0.3"), 2)
    # Of a gap of 1 the cure closes 0.8 and the right pairs, 0.01 above 4.1 in this seed, 0.89.
    assert study.of_oracle(Setting("sparse", 1.0, "mixture-teacher")).values[0] == pytest.approx(0.8 / 0.89)
    assert study.of_oracle(Setting("sparse", 1.0, "oracle")) is None and study.of_oracle(Setting("rich", 1.0)) is None
    assert study.best("rich", 1.0, "truncated") == (None, 0)
    assert study.gap_closed(Setting("sparse", 1.0)) is None and study.gap_closed(clean_of("sparse")) is None
    assert [one.cure for one in study.cures("sparse", 1.0)] == ["nll", "mixture-teacher", "mixture-learned",
                                                                "truncated-0.3", "truncated-0.5", "error-norm-1.15",
                                                                "oracle"]  # fmt: skip


def test_where_nothing_is_lost_no_share_of_it_is_closed():
    better = [*runs("rich", 0.0, 2.0), *runs("rich", 1.0, 1.9), *runs("rich", 1.0, 1.8, "mixture-teacher")]
    assert compared(better).gap_closed(Setting("rich", 1.0, "mixture-teacher")) is None
    (goal,) = (one for one in verdicts(compared(better)) if "at least 50%" in one.claim)
    assert (goal.word, goal.statistic) == ("open", "a seed loses nothing to the noise, or has no clean or plain run")


def test_claims_of_the_paper_are_held_against_the_records():
    found = {one.claim: one for one in verdicts(compared(RECORDS))}
    assert found["sparse: NLL rises at every step of e = 0, 0.33, 0.5"].word == "held"
    assert found["e = 0.5: the relative rise is smaller with the rich source, same targets"].word == "held"
    alike = found["e = 0.5: the absolute rise is smaller with the rich source, same targets"]
    assert alike.word == "open", "all seeds alike to the last digit give no interval"
    goal = found["sparse, e = 0.5: sequence mixture, q of the teacher, closes at least 50% of the gap"]
    assert goal.word == "held" and "the right pairs alone 9" in goal.statistic
    beats = found["sparse, e = 0.5: sequence mixture, q learned, beats both baselines"]
    assert beats.word == "held"
    assert "loss truncation, 0.3 (the best of 2 on the test targets), which left out 30%" in beats.statistic
    beside = found["sparse, e = 0.5: sequence mixture, q of the teacher, closes at least 50% of what the right pairs "
                   "alone close"]  # fmt: skip
    assert beside.word == "held" and beside.source == "beside the goal"
    assert len(found) == 2 + 4 + 3
    turned = [*runs("sparse", 0.0, 2.0), *runs("sparse", 1.0, 2.1, jitter=STEPPED),
              *runs("rich", 0.0, 2.0, targets="others"), *runs("rich", 1.0, 2.6, jitter=[0.0, 0.1, -0.1],
                                                               targets="others")]  # fmt: skip
    found = {one.claim: one.word for one in verdicts(compared(turned))}
    assert found["e = 0.5: the relative rise is smaller with the rich source"] == "not held"


@pytest.mark.parametrize("dropped, is_told", [(0.002, True), (0.02, False)])
def test_a_baseline_that_leaves_out_nothing_is_named(dropped, is_told):
    rest = [one for one in RECORDS if one.loss["cure"] != "error-norm-1.15"]
    study = compared([*rest, *runs("sparse", 1.0, 4.95, "error-norm-1.3", MORE, dropped_share=dropped)])
    (gain,) = (one for one in verdicts(study) if "q learned, beats both" in one.claim)
    assert ("error norm truncation, 1.3, which left out 0.2% and is inactive" in gain.statistic) == is_told
    assert gain.statistic.count("inactive") == is_told, "loss truncation left out 30 %"


def test_few_seeds_are_told_as_such():
    alone = [one for one in RECORDS if one.seed == 0]
    assert {one.word for one in verdicts(compared(alone))} == {"held on these test rows (one seed)"}
    two = [one for one in RECORDS if one.seed < 2]
    assert {one.word for one in verdicts(compared(two))} == {"open"}
    assert "no claim of paper A" in claims_table(compared([record("rich", 0.0, 2.0)]))


def test_tables():
    study = compared(RECORDS)
    table = settings_table(study).markdown()
    row = next(line for line in table.splitlines() if "q of the teacher" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["sparse", "sequence mixture, q of the teacher", "0.500", "3"]
    assert "4.200 ± 0.010" in row and "0.990 ± 0.000" in row and "+80 (" in row
    (plain,) = (line for line in table.splitlines() if "| sparse" in line and "plain NLL" in line and "0.500" in line)
    assert "31.5" in plain, "the paper's beside it"
    assert "5.000" in teacher_table(study).markdown() and "1.500 ± 0.000" in teacher_table(study).markdown()
    assert len(run_table(study).markdown().splitlines()) == 2 + len(RECORDS)


def test_a_mixture_that_never_began_is_told(tmp_path):
    told = show(RECORDS, SimpleNamespace(output=tmp_path), [])
    assert "never began" not in told
    idle = [replace(one, loss=one.loss | {"has_begun": 0.0}) if one.loss["cure"] == "mixture-teacher" else one
            for one in RECORDS]  # fmt: skip
    names = ", ".join(f"sparse-r1-mixture-teacher-seed{seed}" for seed in range(3))
    assert f"The mixture of {names} never began" in show(idle, SimpleNamespace(output=tmp_path), [])


def test_the_figure_shows_each_seed_the_paper_and_the_cures(tmp_path, figures):
    path = study_figure(compared(RECORDS), tmp_path / "study.png")
    assert path.stat().st_size > 20_000
    relative, absolute, losses = figures[0].axes
    points = {(round(float(x), 2), round(float(y), 2)) for line in relative.lines
              for x, y in zip(line.get_xdata(), line.get_ydata())}  # fmt: skip
    assert {(0.5, 25.0), (0.33, 5.5), (0.5, 31.53)} <= points, "sparse, rich, and the paper's figure"
    assert {"sparse source", "rich source"} <= {text.get_text() for text in relative.get_legend().get_texts()}
    assert {round(float(y), 2) for line in absolute.lines for y in line.get_ydata()} >= {1.0, 1.01, 0.98, 0.11}
    names = [tick.get_text() for tick in losses.get_yticklabels()]
    assert names == ["plain NLL", "sequence mixture,\nq of the teacher", "sequence mixture,\nq learned",
                     "loss truncation,\n0.3", "loss truncation,\n0.5", "error norm truncation,\n1.15",
                     "the right pairs alone"]  # fmt: skip
    told = [text for text in losses.texts if "gap closed" in text.get_text()]
    assert any("gap closed 80%" in text.get_text() for text in told)
    assert {text.xy[0] for text in told} == {1}, "in a column of their own, wherever a bar ends"


def test_of_ones_own_pairs_the_paper_says_nothing(tmp_path, figures):
    study = compared([*runs("rich", 0.0, 2.0, source="my.parquet"), *runs("rich", 1.0, 2.2, source="my.parquet")])
    assert "paper A" not in settings_table(study).markdown()
    study_figure(study, tmp_path / "study.png")
    relative = figures[0].axes[0]
    assert relative.get_title(loc="left") == "relative rise"
    assert [text.get_text() for text in relative.get_legend().get_texts()] == ["rich source"]


def test_cures_without_a_clean_run_are_shown_without_rises(tmp_path):
    """They have nothing to rise over, which is said by empty cells."""
    study = compared([one for one in RECORDS if one.noise["ratio"]])
    assert study_figure(study, tmp_path / "study.png").is_file()
    rows = [line for line in settings_table(study).markdown().splitlines() if "truncation" in line]
    assert rows and all("%" not in row for row in rows)


def test_the_papers_figure_two_follows_from_its_table():
    assert {ratio: round(rise, 2) for ratio, rise in paper_rise("sparse").items()} == {
        0.0: 0.0, 0.1: 8.25, 0.3: 16.23, 0.5: 20.75, 1.0: 31.53,
    }  # fmt: skip
    assert round(paper_rise("rich")[1.0], 2) == 17.93 and rates.error_rate(1.0) == 0.5


def test_records_of_other_studies_are_refused():
    with pytest.raises(TypeError, match="records must be a list of RunRecord"):
        compared("records")
    broken = record("rich", 0.0, 2.0)
    del broken.loss["cure"]
    with pytest.raises(ValueError, match="has no loss.cure"):
        compared([broken])
    with pytest.raises(ValueError, match="are both of rich, r = 1, nll, seed 0"):
        compared([record("rich", 1.0, 2.0), record("rich", 1.0, 2.1)])
    with pytest.raises(ValueError, match="are of two studies: data.targets is 'same' and 'others'"):
        compared([record("rich", 1.0, 2.0), record("rich", 1.0, 2.1, 1, targets="others")])
