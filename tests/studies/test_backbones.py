"""recipes/noisy_backbones.py: tasks by name, its claims on records made here, and a whole run, as small as they get."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_noise.reports.verdicts import spread
from hf_noise.studies.backbones import report, study
from hf_noise.studies.backbones import run as work
from hf_noise.studies.backbones.compare import LGM, PLAIN, Backbone, Heads
from hf_noise.studies.finetune import study as finetune
from hf_noise.studies.probe import study as probe
from hf_noise.studies.probe.fits import grid_of
from hf_noise.studies.probe.report import SAW_PASSAGES
from hf_noise.studies.settings import SettingError, at_scale

CLEAN, UNIFORM, GAUSSIAN = (
    Backbone("none", 0.0), Backbone("random-documents", 0.2), Backbone("gaussian-documents", 0.05)
)  # fmt: skip


def heads(plain, ours, tasks=("a", "b"), models=(0,)):
    """Linear heads: accuracies [backbone][task][seed of heads], and what each Gaussian model has more."""
    values = {}
    for one, of_plain, of_ours in zip((CLEAN, UNIFORM, GAUSSIAN), plain, ours, strict=True):
        for task, two, other in zip(tasks, of_plain, of_ours, strict=True):
            for penalty, cell in ((PLAIN, two), (LGM, other)):
                values[one, task, "linear", penalty] = {
                    (model, seed): value + (more if one == GAUSSIAN else 0)
                    for model, more in enumerate(models) for seed, value in enumerate(cell)
                }  # fmt: skip
    nll = {one: spread([4.0]) for one in (CLEAN, UNIFORM, GAUSSIAN)}
    return Heads(values, nll, [CLEAN, UNIFORM, GAUSSIAN], tasks, ["linear"])


PLAIN_VALUES = [[(80, 81), (60, 61)], [(80, 82), (60, 61)], [(70, 71), (50, 51)]]
#: Of three seeds.
MORE = [[(*one, one[0] + 4) for one in tasks] for tasks in PLAIN_VALUES]
WORSE = "gaussian 0.05: linear heads are worse than without noise"


def verdicts(found):
    return {one.claim: (one.word, one.statistic) for one in report.claims(found)}


def test_means_are_over_tasks_and_gains_are_paired_by_seed():
    ours = [[(81, 82), (62, 63)], [(81, 83), (60, 61)], [(71, 72), (53, 54)]]
    found = heads(PLAIN_VALUES, ours)
    assert found.accuracy(CLEAN, None, "linear", PLAIN).values == (70, 71)
    assert found.gain(CLEAN, None, "linear").values == (1.5, 1.5)
    assert found.gain(UNIFORM, "b", "linear").values == (0, 0)
    assert found.raised("linear") == (5, 6)
    assert found.mean_gain("linear").values == pytest.approx([4 / 3] * 2)
    assert found.over_clean(GAUSSIAN, "linear").values == (-10,)
    assert verdicts(found)["LGM raises the accuracy of linear heads"] == ("open", "5 of 6 cells, 1.33 points")


def test_a_gain_of_three_seeds_holds_on_these_rows():
    ours = [[tuple(value + 1 + 0.1 * seed for seed, value in enumerate(one)) for one in tasks] for tasks in MORE]
    told = verdicts(heads(MORE, ours))
    assert told["LGM raises the accuracy of linear heads"] == (
        "held on these test rows", "6 of 6 cells, 1.10 [0.85, 1.35] points")  # fmt: skip


@pytest.mark.parametrize(
    ("models", "word"),
    [((0,), "held on these test rows (one model)"), ((0, 1), "open"), ((0, 1, 2), "held on these test rows"),
     ((0, 9, 18), "open"), ((0, 0, 0), "open")],
)  # fmt: skip
def test_what_noise_does_to_models_is_told_of_models(models, word):
    """Three heads on one model are of one model all the same; three models that agree to the last row are no proof."""
    found = heads(MORE, MORE, models=models)
    assert found.over_clean(GAUSSIAN, "linear").values == pytest.approx([-10 + more for more in models])
    assert verdicts(found)[WORSE][0] == word


@pytest.mark.parametrize(("lost", "word"), [(0.1, "held"), (0.3, "not held")])
def test_what_uniform_noise_may_cost_is_what_the_table_says(lost, word):
    plain = [[(80, 81), (60, 61)], [(80 - lost, 81 - lost), (60 - lost, 61 - lost)], [(70, 71), (50, 51)]]
    told = verdicts(heads(plain, plain))["random 0.2: linear heads lose no more than 0.2 points"]
    assert told == (f"{word} on these test rows (one model)", f"-{lost:.2f} points")


def test_heads_that_come_out_the_same_are_no_better_and_no_worse():
    flat = [[(80, 81), (60, 61)]] * 3
    told = verdicts(heads(flat, flat))
    assert told["LGM raises the accuracy of linear heads"] == (
        "not held on these test rows", "0 of 6 cells, 0.00 points")  # fmt: skip
    assert told[WORSE][0] == "not held on these test rows (one model)"
    assert verdicts(heads(flat, flat, models=(0, 0)))[WORSE][0] == "not held on these test rows"


def test_a_table_for_the_mean_and_for_each_task():
    ours = [[(81, 82), (62, 63)]] * 3
    mean, first, second = report.tables(heads(PLAIN_VALUES, ours))
    assert "mean of tasks" in mean and "noise; a" in first and "noise; b" in second
    assert "| no noise " in mean and "70.5 [64.1, 76.9]" in mean
    (only,) = report.tables(heads([one[:1] for one in PLAIN_VALUES], [one[:1] for one in ours], ["a"]))
    assert "noise; a" in only


@pytest.mark.parametrize(
    ("settings", "is_said"),
    [({}, True), ({"task": ["cr", "mine=embedded/docs-topics"]}, True), ({"task": ["cr"]}, False),
     ({"source": "text.parquet"}, False)],
)  # fmt: skip
def test_models_that_saw_the_passages_are_told(settings, is_said):
    said = report.reading(at_scale(study.Settings, "demo", **settings))
    assert (SAW_PASSAGES in said) == is_said and report.ONE_MODEL in said
    assert report.ONE_MODEL not in report.reading(at_scale(study.Settings, "demo", model_seed=[0, 1, 2]))


def test_a_task_has_the_prompt_of_its_name_wherever_its_rows_are():
    settings = at_scale(study.Settings, "demo", task=["sst2=a.csv,b.csv", "cr", "own=c.parquet"])
    first, second, third = study.tasks_of(settings)
    assert (first.source, first.test_source, first.prompt) == ("a.csv", "b.csv", "{text} this movie is")
    assert (second.source, second.test_source) == ("SetFit/CR", None)
    assert (third.source, third.test_source, third.prompt) == ("c.parquet", None, None)


@pytest.mark.parametrize("task", [["unknown"], ["a=x,y,z"], ["a="], ["a=x,"], ["a b=x"], ["cr", "cr=x"]])
def test_a_task_that_is_none_is_refused(task):
    with pytest.raises(SettingError, match="--task"):
        at_scale(study.Settings, "demo", task=task)


def test_what_models_and_heads_would_refuse_is_refused_at_once():
    with pytest.raises(SettingError, match="alpha"):
        at_scale(study.Settings, "demo", alpha=[0.05, 0.05])
    with pytest.raises(SettingError, match="learning_rate"):
        at_scale(study.Settings, "demo", learning_rate=[])


def rates(settings):
    """Learning rates of the grid of linear and of MLP heads."""
    own = study.probe_settings(settings, "model", study.tasks_of(settings)[0])
    return [sorted({one.learning_rate for one in grid_of(own, head, "none", 0)}) for head in ("linear", "mlp")]


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_a_learning_rate_reaches_mlp_heads(scale):
    told = {"source": "text.parquet", "learning_rate": [0.5]}
    assert rates(at_scale(study.Settings, scale, **told)) == [[0.5], [0.5]]
    assert rates(at_scale(study.Settings, scale, **told, mlp_learning_rate=[0.25])) == [[0.5], [0.25]]


def test_mlp_heads_of_the_demo_have_rates_of_their_own():
    assert rates(at_scale(study.Settings, "demo")) == [[3e-3, 1e-2], [1e-3, 3e-3]]
    assert rates(at_scale(study.Settings, "demo", mlp_learning_rate=[])) == [[3e-3, 1e-2]] * 2


@pytest.mark.parametrize(("kind", "gamma"), [(study, 0.0), (probe, [0.1, 0.0]), (finetune, 0.0)])
def test_lgm_that_perturbs_nothing_is_refused(kind, gamma):
    with pytest.raises(SettingError, match="gamma"):
        at_scale(kind.Settings, "demo", gamma=gamma)


@pytest.mark.parametrize(("world", "is_main"), [(1, True), (2, True), (2, False)])
def test_several_processes_make_all_features_before_one_fits(world, is_main, monkeypatch, tmp_path):
    """Extraction has barriers: where one process fits heads in between, all others wait there for hours."""
    done = []
    monkeypatch.setattr(work, "world_of", lambda settings: SimpleNamespace(world_size=world, device="cpu"))
    monkeypatch.setattr(work, "checked", lambda job: None)
    monkeypatch.setattr(work, "train", lambda *args: is_main)
    monkeypatch.setattr(work, "prepared", lambda job: done.append(("features", job.output)) or job.output)
    monkeypatch.setattr(work, "fit", lambda job, data, device: done.append(("heads", data)))
    settings = at_scale(study.Settings, "demo", output=str(tmp_path), protocol=["random-documents"], alpha=[0.05, 0.2])
    assert work.work(settings) == is_main
    kinds, places = zip(*done)
    made, fitted = (["features"] * 3, ["heads"] * 3)
    assert list(kinds) == (["features", "heads"] * 3 if world == 1 else made + fitted * is_main)
    assert len(set(places)) == 3 and all(str(tmp_path) in place for place in places)


def test_a_whole_run_and_the_same_again(tmp_path, capsys):
    files = []
    for name, rows in (("train", 40), ("test", 20)):
        columns = {"text": [f"a text of number {i}" for i in range(rows)], "label": [i % 2 for i in range(rows)]}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        files.append(str(tmp_path / f"{name}.parquet"))
    corpus = tmp_path / "text.txt"
    corpus.write_text("\n\n".join(f"{i} words and more words of a small corpus " * 8 for i in range(60)))
    output = tmp_path / "runs"
    flags = [
        "--output", output, "--source", corpus, "--tokenizer", "embedded:300", "--block_size", 16, "--steps", 1,
        "--alpha", 0.2, "--protocol", "random-documents", "--task", f"mine={','.join(files)}", "--seed", 0, 1,
        "--head", "linear", "--epochs", 1,
    ]  # fmt: skip
    study.main([str(flag) for flag in flags])
    told = capsys.readouterr().out
    assert "| no noise " in told and "| random 0.2 " in told and "noise; mine" in told
    assert (output / "study.png").stat().st_size > 10_000
    record = json.loads((output / "heads/clean-seed0/mine/linear-r0-nll-lgm-seed1/record.json").read_text())
    assert record["metrics"]["test_accuracy"]["n"] == 20 and record["loss"]["penalty"]["lam"] == 0.15
    made = {path: path.stat().st_mtime_ns for path in output.rglob("record.json")}
    study.main([str(flag) for flag in flags])
    assert capsys.readouterr().out == told
    assert len(made) == 2 + 2 * 2 * 2
    assert made == {path: path.stat().st_mtime_ns for path in output.rglob("record.json")}


def test_a_dry_run_trains_nothing(tmp_path, capsys):
    study.main(["--dry_run", "--output", str(tmp_path / "runs")])
    told = capsys.readouterr().out
    assert "model gaussian-documents-a0.2-nll-seed0: 400 steps of 32 rows" in told and "10 classes" in told
    assert not (tmp_path / "runs").exists()
