"""recipes/lgm_probe.py: heads on given vectors and on a tiny network's, records, what is refused, and the first run."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from printed import printed_by
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import feature_backbones as tiny  # noqa: E402  (tests are no package: the line above makes it importable)

from hf_noise.reports.record import read_records  # noqa: E402
from hf_noise.studies.engine import identity  # noqa: E402
from hf_noise.studies.probe import fits, study  # noqa: E402
from hf_noise.studies.probe.baseline import fit_still_heads  # noqa: E402
from hf_noise.studies.probe.data import extracted, read_rows  # noqa: E402
from hf_noise.studies.settings import GROUPS, SettingError, at_scale, parser_of  # noqa: E402
from hf_noise.trainers import HeadPlan, fit_heads, head_grid  # noqa: E402

CLASSES = ["cat", "dog", "owl"]
QUICK = ["--batch_size", "16", "--learning_rate", "0.01", "--epochs", "3", "--area_rows", "4", "--area_steps", "5"]


def written(folder, rows=90, test=30, **columns):
    """Labels as CSV and features as .npy around three centres, of train and test rows; returns their flags."""
    draw = np.random.default_rng(0)
    for split, n in (("train", rows), ("test", test)):
        labels = draw.integers(0, 3, n)
        np.save(folder / f"{split}.npy", np.eye(3, 6)[labels] * 3 + draw.normal(size=(n, 6)))
        told = {"label": [CLASSES[i] for i in labels]} | {name: make(labels, draw) for name, make in columns.items()}
        with open(folder / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([list(told), *zip(*told.values())])
    return ["--source", folder / "train.csv", "--test_source", folder / "test.csv", "--features", folder / "train.npy",
            "--test_features", folder / "test.npy"]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of MLP heads on right and wrong labels, two seeds, all penalties."""
    folder = tmp_path_factory.mktemp("probe")
    flags = [*written(folder), *QUICK, "--output", folder / "out", "--ratio", "0", "0.5", "--seed", "0", "1", "--head",
             "mlp", "--mlp_learning_rate", "0.01", "--penalty", "difference", "norm", "cosine", "l2"]  # fmt: skip
    return folder, flags, printed_by(study.main, *flags)


def test_the_records_say_what_was_done(finished):
    folder, flags, printed = finished
    records = {one.name: one for one in read_records(folder / "out")}
    assert len(records) == 3 * 2 * 5  # labels and losses, seeds, penalties
    one = records["mlp-r0.5-symmetric-corrected-lgm-seed1"]
    assert one.task == "probe" and one.noise["realised"]["n"] == 90 and one.data["classes"] == 3
    assert 0.15 < one.noise["realised"]["rate"] < 0.55
    assert (one.data["train_rows"], one.data["validation_rows"], one.data["test_rows"]) == (81, 9, 30)
    assert one.loss["penalty"]["name"] == "difference" and one.loss["penalty"]["gamma"] in (0.1, 0.3)
    assert one.metrics["test_accuracy"]["n"] == 30 and one.budget["settings_tried"] == 2
    assert "memorised" in one.metrics and "memorised" not in records["mlp-r0-nll-lgm-seed1"].metrics
    weights = load_file(folder / "out" / one.name / "head.safetensors")
    assert {name: list(value.shape) for name, value in weights.items()} == {
        "0.weight": [6, 6], "0.bias": [6], "2.weight": [3, 6], "2.bias": [3],
    }  # fmt: skip
    for text in ("| head ", "won-tied-lost", "LGM beside corrected", "table 5", "figure 6", "9 validation rows"):
        assert text in printed
    assert (folder / "out" / "study.png").is_file() and (folder / "out" / "study.md").read_text() in f"{printed}\n\n"


def test_a_record_is_what_its_head_does(finished):
    folder, _, _ = finished
    features, labels = np.load(folder / "test.npy").astype(np.float32), _labels(folder / "test.csv")
    plain = None
    for name in ("mlp-r0-nll-plain-seed0", "mlp-r0-nll-lgm-seed0"):
        record = next(one for one in read_records(folder / "out") if one.name == name)
        weights = load_file(folder / "out" / name / "head.safetensors")
        hidden = torch.relu(torch.from_numpy(features) @ weights["0.weight"].T + weights["0.bias"])
        right = ((hidden @ weights["2.weight"].T + weights["2.bias"]).argmax(1).numpy() == labels)
        assert record.metrics["test_accuracy"]["value"] == pytest.approx(right.mean())
        if plain is not None:
            found = record.metrics["gain"]
            assert (found["only_this"], found["only_plain"]) == ((right & ~plain).sum(), (plain & ~right).sum())
            assert found["value"] == pytest.approx(right.mean() - plain.mean())
        plain = right


def _labels(path):
    with open(path) as file:
        return np.array([CLASSES.index(row["label"]) for row in csv.DictReader(file)])


def test_finished_heads_are_kept_and_other_settings_refused(finished, monkeypatch):
    folder, flags, printed = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("record.json")}
    monkeypatch.setattr("hf_noise.studies.probe.run.fit_all", None)  # nothing is fitted
    monkeypatch.setattr("hf_noise.studies.probe.report.study_figure", lambda study, output: output / "study.png")
    assert printed_by(study.main, *flags) == printed
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("record.json")}
    with pytest.raises(FileExistsError, match="epochs"):
        printed_by(study.main, *flags, "--epochs", "4")
    np.save(folder / "other.npy", np.load(folder / "test.npy") + 1)
    with pytest.raises(FileExistsError, match="feature_keys"):
        printed_by(study.main, *flags, "--test_features", folder / "other.npy")


def test_a_group_that_lost_a_record_gets_it_again(finished, monkeypatch):
    folder, flags, _ = finished
    monkeypatch.setattr("hf_noise.studies.probe.report.study_figure", lambda study, output: output / "study.png")
    path = folder / "out" / "mlp-r0-nll-lgm-seed1" / "record.json"
    before = json.loads(path.read_text())
    path.unlink()
    printed_by(study.main, *flags)
    after = json.loads(path.read_text())
    assert after["metrics"] == before["metrics"] and after["loss"] == before["loss"]


def made(folder, *flags):
    settings = study.parse(study.Settings, [str(one) for one in (*written(folder), *QUICK, *flags)], "")
    return settings, extracted(read_rows(settings), settings, None)


def test_validation_rows_are_apart_and_as_wrong(tmp_path):
    settings, data = made(tmp_path, "--ratio", "1", "--seed", "0", "1")
    runs = study.runs_of(settings)
    problems = {run.seed: fits.problem_of(settings, run, data) for run in runs}
    for problem in problems.values():
        held = np.setdiff1d(np.arange(90), problem.train)
        assert len(held) == 9 and (problem.validation[0] == data.train.features[held]).all()
        assert (problem.validation[1] == problem.labels[held]).all()  # the noisy ones
        assert problem.realised["rate"] == pytest.approx((problem.labels != data.train.labels).mean())
        assert (problem.clean == data.train.labels).all()
    assert (problems[0].train != problems[1].train).any() and (problems[0].labels != problems[1].labels).any()


def test_the_choice_is_by_validation_accuracy_then_loss(tmp_path):
    settings, data = made(tmp_path, "--head", "linear", "--learning_rate", "1e-6", "0.01")
    (run,) = study.runs_of(settings)[:1]
    problem, chosen = fits.fit_all(settings, [run], data, torch.device("cpu"))[run]
    assert chosen.setting.learning_rate == 0.01 and chosen.tried == 2
    assert chosen.worst_accuracy < chosen.validation_accuracy
    features, labels = problem.validation
    assert chosen.validation_accuracy == pytest.approx((chosen.logits(features).argmax(1).numpy() == labels).mean())


def test_seeds_that_share_their_rows_come_out_as_alone(tmp_path):
    """With validation rows of their own all seeds are one fit, without they are not: a seed's head is the same."""
    written(tmp_path)
    flags = ["--validation_source", tmp_path / "test.csv", "--validation_features", tmp_path / "test.npy", "--head",
             "linear", "--seed", "0", "1"]  # fmt: skip
    settings, data = made(tmp_path, *flags)
    runs = study.runs_of(settings)
    together = fits.fit_all(settings, runs, data, torch.device("cpu"))
    for seed in (0, 1):
        alone = fits.fit_all(settings, [run for run in runs if run.seed == seed], data, torch.device("cpu"))
        for run, (_, chosen) in alone.items():
            weights = together[run][1].parameters
            assert all(torch.allclose(weights[name], value, atol=1e-5) for name, value in chosen.parameters.items())


def test_labels_that_come_wrong_are_counted(tmp_path):
    """20 % of the weak labels are another class; T is counted, and the test rows are measured on true labels."""

    def weak(labels, draw):
        return [CLASSES[(i + (u < 0.2)) % 3] for i, u in zip(labels, draw.random(len(labels)))]

    flags = [*written(tmp_path, weak=weak), *QUICK, "--column", "weak", "--clean_column", "label", "--ratio", "0",
             "--head", "linear", "--seed", "0", "--penalty", "difference", "--output", tmp_path / "out"]  # fmt: skip
    printed = printed_by(study.main, *flags)
    records = {one.name: one for one in read_records(tmp_path / "out")}
    kinds = [("r0", "nll"), ("column-weak", "nll"), ("column-weak", "corrected")]
    assert set(records) == {f"linear-{labels}-{loss}-{penalty}-seed0" for labels, loss in kinds
                            for penalty in ("plain", "lgm")}  # fmt: skip
    assert records["linear-r0-nll-lgm-seed0"].noise["realised"]["rate"] == 0
    noise = records["linear-column-weak-nll-plain-seed0"].noise
    assert noise["protocol"] == "human_labels" and noise["name"] == "weak"
    with open(tmp_path / "train.csv") as file:
        wrong = np.mean([row["weak"] != row["label"] for row in csv.DictReader(file)])
    assert noise["realised"] == {"rate": pytest.approx(wrong), "n": 90}
    assert f"{100 * wrong:.1f} (weak)" in printed


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_texts_go_through_a_prompt_and_a_network(tmp_path, pooling):
    words = {0: "a b", 1: "c d", 2: "e f"}
    written(tmp_path, review=lambda labels, draw: [f"{words[i]} {'f' * (n % 3)}" for n, i in enumerate(labels)])
    flags = ["--source", tmp_path / "train.csv", "--test_source", tmp_path / "test.csv", "--prompt",
             "{review} this movie is", "--model", tiny.gpt2(tmp_path / "gpt2"), "--pooling", pooling, "--head",
             "linear", "--seed", "0", "--output", tmp_path / "out", *QUICK]  # fmt: skip
    looked = printed_by(study.main, *flags, "--dry_run")
    assert "this movie is'" in looked and "90 train" in looked and not (tmp_path / "out").exists()
    printed_by(study.main, *flags)
    record = read_records(tmp_path / "out")[0]
    assert record.model["backbone"]["pooling"] == pooling and record.model["features"] == 8
    assert record.data["prompt"] == "{review} this movie is" and len(record.data["feature_keys"]["train"]) == 32


def test_the_embedded_task_trains_its_own_network(tmp_path, monkeypatch):
    """As a new user runs it, but shorter; the network is a checkpoint with a record of its own."""
    monkeypatch.setitem(study.SCALES["demo"], "epochs", 1)
    flags = ["--pretrain_steps", "2", "--train_rows", "60", "--test_rows", "40", "--head", "linear", "--ratio", "0",
             "--no_corrected", "--seed", "0", "--area_rows", "2", "--area_steps", "3", "--output",
             tmp_path / "out"]  # fmt: skip
    printed = printed_by(study.main, *flags)
    assert "40 test rows, 1 seed;" in printed and "open" in printed or "held" in printed
    backbone = read_records(tmp_path / "out" / "backbone")
    assert [one.task for one in backbone] == ["causal_lm"] and backbone[0].budget["steps"] == 2
    probe = [one for one in read_records(tmp_path / "out") if one.task == "probe"]
    assert len(probe) == 5 and probe[0].data["source"] == "embedded/docs-topics"


def test_one_file_of_vectors_may_hold_all(tmp_path):
    """Vectors beside the labels or in a file of their own, with test rows held out: the same rows and features."""
    written(tmp_path)
    vectors = np.load(tmp_path / "train.npy").astype(np.float32)
    table = pa.table({"label": pa.array([CLASSES[i] for i in _labels(tmp_path / "train.csv")]), "v": list(vectors)})
    pq.write_table(table, tmp_path / "both.parquet")
    held = ["--test_fraction", "0.3"]
    found = []
    for flags in (
        ["--source", tmp_path / "train.csv", "--features", tmp_path / "train.npy", *held],
        ["--source", tmp_path / "both.parquet", "--feature_column", "v", *held],
    ):
        settings = study.parse(study.Settings, [str(one) for one in flags], "")
        found.append(extracted(read_rows(settings), settings, None))
    one, other = found
    assert 10 < len(one.test) < 45 and len(one.train) + len(one.test) == 90
    for split in ("train", "test"):
        a, b = one.splits[split], other.splits[split]
        assert (a.features == b.features).all() and (a.labels == b.labels).all() and (a.ids == b.ids).all()
        assert (a.features == vectors[a.ids]).all()
    assert not set(one.train.ids) & set(one.test.ids)
    assert one.identity == other.identity


def test_images_go_through_a_network_of_timm(tmp_path):
    import io

    import PIL.Image
    from datasets import ClassLabel, Features, Image

    draw, rows = np.random.default_rng(0), []
    for label in range(40):
        stream = io.BytesIO()
        shade = 60 + 120 * (label % 2)
        PIL.Image.fromarray(draw.integers(shade, shade + 60, (16, 16, 3), dtype=np.uint8)).save(stream, "PNG")
        rows.append({"bytes": stream.getvalue(), "path": None})
    schema = Features({"picture": Image(), "kind": ClassLabel(names=["dark", "light"])}).arrow_schema
    columns = {"picture": rows, "kind": [label % 2 for label in range(40)]}
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "images.parquet")
    flags = ["--source", tmp_path / "images.parquet", "--image_column", "picture", "--column", "kind", "--ratio", "0",
             "--test_fraction", "0.3", "--model", tiny.timm_network(tmp_path / "timm"), "--image_size", "32", "--head",
             "linear", "--seed", "0", "--penalty", "norm", "--output", tmp_path / "out", *QUICK, "--epochs",
             "60"]  # fmt: skip
    printed_by(study.main, *flags)
    record = read_records(tmp_path / "out")[0]
    assert record.model["backbone"]["image_size"] == 32 and record.data["prompt"] is None
    assert record.metrics["test_accuracy"]["value"] > 0.8  # light and dark are told apart by any network


# ---- refusals


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--scale", "gpu"], "needs --source"),
        (["--source", "a.csv", "--features", "a.npy", "--image_column", "image"], "--features and --image_column"),
        (["--source", "a.csv", "--features", "a.npy", "--prompt", "{text}"], "--prompt is for texts"),
        (["--source", "a.csv", "--features", "a.npy", "--model", "gpt2"], "--model gpt2 would not be used"),
        (["--source", "a.csv", "--test_features", "a.npy"], "goes with --features"),
        (["--source", "a.csv", "--image_column", "image"], "needs --model"),
        (["--protocol", "pairs"], "unknown --protocol pairs"),
        (["--area_steps", "4"], "odd"),
        (["--gamma", "0"], "--gamma must be > 0"),
        (["--lam", "-1"], "--lam must be > 0"),
        (["--learning_rate"], "expected at least one argument"),
        (["--ratio"], "nothing would be fitted"),
        (["--penalty", "l3"], "l3"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_settings_that_make_no_sense(flags, said, capsys):
    with pytest.raises(SystemExit):
        study.main(flags)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("case", ["counts", "nan", "one class", "column", "prompt", "test", "sizes", "empty", "weak"])
def test_data_that_cannot_be_used(tmp_path, case):
    flags = [*written(tmp_path), "--output", tmp_path / "out", *QUICK, "--seed", "0"]
    said = {
        "counts": r"train.npy has features of 89 rows, and 90 rows of the train split have labels",
        "nan": r"1 of 90 rows of .*train.npy hold NaN or inf .*first is row 7",
        "one class": "train split .* one class only, 'cat'", "column": "no column 'kind'.*'label'",
        "prompt": "no column 'review'.*'label'", "test": "no test split",
        "sizes": "different sizes.*'train': 6, 'test': 5", "empty": "empty", "weak": "no column 'truth'",
    }  # fmt: skip
    train = np.load(tmp_path / "train.npy")
    if case == "counts":
        np.save(tmp_path / "train.npy", train[1:])
    elif case == "nan":
        train[7, 2] = np.nan
        np.save(tmp_path / "train.npy", train)
    elif case == "one class":
        (tmp_path / "train.csv").write_text("label\n" + "cat\n" * 90)
    elif case == "column":
        flags += ["--column", "kind"]
    elif case == "prompt":
        flags = ["--source", tmp_path / "train.csv", "--test_source", tmp_path / "test.csv", "--prompt", "{review} is",
                 "--model", tiny.bert(tmp_path / "bert"), "--output", tmp_path / "out"]  # fmt: skip
    elif case == "test":
        flags = ["--source", tmp_path / "train.csv", "--features", tmp_path / "train.npy", "--output", tmp_path / "out"]
    elif case == "sizes":
        np.save(tmp_path / "test.npy", np.load(tmp_path / "test.npy")[:, 1:])
    elif case == "empty":
        (tmp_path / "train.csv").write_text("label\n")
    elif case == "weak":
        flags += ["--clean_column", "truth"]
    with pytest.raises((ValueError, OSError), match=said[case]):
        printed_by(study.main, *flags)


def test_labels_that_say_nothing_cannot_be_corrected(tmp_path):
    """Of three classes, two thirds wrong (r = 2) are drawn as often as the right one."""
    flags = [*written(tmp_path), *QUICK, "--ratio", "2", "--output", tmp_path / "out", "--dry_run"]
    with pytest.raises(ValueError, match="r2-symmetric cannot be corrected.*--no_corrected"):
        printed_by(study.main, *flags)
    assert "heads" in printed_by(study.main, *flags, "--no_corrected")


def test_a_network_is_needed_for_own_texts(tmp_path):
    flags = [*written(tmp_path, text=lambda labels, draw: ["a"] * len(labels))][:4]
    with pytest.raises(SettingError, match="--model is missing"):
        printed_by(study.main, *flags, "--output", tmp_path / "out")


def test_a_row_without_a_text_is_told_by_its_number_in_the_source(tmp_path):
    """Also where others are held out, and by a dry run."""
    written(tmp_path, review=lambda labels, draw: ["a" if n != 61 else None for n in range(len(labels))])
    flags = ["--source", tmp_path / "train.csv", "--test_fraction", "0.5", "--text_column", "review", "--model",
             tiny.gpt2(tmp_path / "gpt2"), "--output", tmp_path / "out", "--dry_run"]  # fmt: skip
    with pytest.raises(ValueError, match="the train split: column 'review' holds None in row 61"):
        printed_by(study.main, *flags)


def test_more_noise_than_chance_has_to_be_asked_for(tmp_path):
    flags = [*written(tmp_path), *QUICK, "--ratio", "3", "--output", tmp_path / "out", "--dry_run"]
    with pytest.raises(ValueError, match="allow_adversarial"):
        printed_by(study.main, *flags)
    assert "heads" in printed_by(study.main, *flags, "--allow_adversarial")


# ---- settings, and the heads of figure 6


def test_each_setting_has_help_and_a_group():
    for one in fields(study.Settings):
        assert one.metadata["help"] and one.metadata["group"] in GROUPS, one.name
    shown = parser_of(study.Settings, "what it shows").format_help()
    assert all(f"--{one.name}" in shown for one in fields(study.Settings)) and "None" not in shown


@pytest.mark.parametrize("scale", study.SCALES)
def test_at_each_scale_python_and_the_command_line_agree(scale):
    made = at_scale(study.Settings, scale, source="a.csv")
    assert made == study.parse(study.Settings, ["--scale", scale, "--source", "a.csv"], "")
    runs = study.runs_of(made)
    assert len({run.name for run in runs}) == len(runs) > 0
    for name in ("output", "seed", "scale", "ratio", "protocol", "penalty", "head", "corrected"):
        assert identity(replace(made, **{name: "another"}), runs[0]) == identity(made, runs[0]), name
    for name in ("gamma", "lam", "learning_rate", "batch_size", "epochs", "prompt", "model", "best_epoch"):
        assert identity(replace(made, **{name: "another"}), runs[0]) != identity(made, runs[0]), name


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("transition", [None, [[0.8, 0.2], [0.1, 0.9]]])
def test_still_heads_are_plain_ones_without_a_penalty_and_stiller_with_one(head, transition):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 60)
    features = (labels[:, None] * 1.5 + draw.normal(size=(60, 4))).astype(np.float32)
    plan = HeadPlan(head=head, epochs=3, transition=transition)
    told = {"learning_rate": [0.01, 0.03], "batch_size": 16, "seed": [0, 1]}
    plain = fit_heads(features, labels, head_grid(**told), plan, progress=False)
    still = fit_still_heads(features, labels, head_grid(**told, gamma=0.5, lam=1e-9), plan, num_classes=2)
    for name, value in plain.parameters.items():
        torch.testing.assert_close(still.parameters[name], value, rtol=1e-3, atol=1e-4)
    strong = fit_still_heads(features, labels, head_grid(**told, gamma=0.5, lam=2.0), plan, num_classes=2)
    moved = features + 0.5 * draw.normal(size=features.shape).astype(np.float32)
    shifts = [(one.logits(features) - one.logits(moved)).norm(dim=-1).mean(-1) for one in (plain, strong)]
    assert (shifts[1] < shifts[0]).all()
    with pytest.raises(ValueError, match="above 0"):
        fit_still_heads(features, labels, head_grid(lam=0.0), plan, num_classes=2)
