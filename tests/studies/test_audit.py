"""recipes/audit.py from a user's file to rate, list, figure, page, record, card, sheet and training."""

from __future__ import annotations

import functools
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCard
from printed import printed_by
from sklearn.metrics import roc_auc_score

from hf_noise.audit import audit_labels
from hf_noise.data.digits import digits
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord
from hf_noise.studies.audit import evidence, study
from hf_noise.studies.audit.data import read_data
from hf_noise.studies.audit.judge import judge_of
from hf_noise.studies.audit.training import doubts_without, ways_of, ways_without
from hf_noise.studies.settings import SettingError, at_scale

main = functools.partial(printed_by, study.main)
WORDS = {
    "food": ["bread", "soup", "taste", "cook", "salt", "oven"],
    "law": ["court", "judge", "rule", "trial", "case", "appeal"],
    "sport": ["goal", "match", "team", "win", "player", "coach"],
}  # fmt: skip
N = 180


@pytest.fixture(scope="module")
def news() -> pd.DataFrame:
    """Short texts of three classes, a sixth of them labelled as another."""
    draw, names = np.random.default_rng(0), sorted(WORDS)
    true = draw.integers(0, 3, N)
    texts = [" ".join([*draw.choice(WORDS[names[c]], 5), *draw.choice(["the", "a", "of"], 4)]) for c in true]
    given = np.where(np.arange(N) % 6 == 0, (true + 1) % 3, true)
    return pd.DataFrame({
        "key": [f"n{i}" for i in range(N)], "text": texts, "topic": [names[c] for c in given],
        "truth": [names[c] for c in true],
    })  # fmt: skip


@pytest.fixture(scope="module")
def source(news, tmp_path_factory):
    place = tmp_path_factory.mktemp("news") / "news.csv"
    news.to_csv(place, index=False)
    return place


def asked(source, output, *more):
    return ["--source", source, "--column", "topic", "--clean_column", "truth", "--output", output, *more]


@pytest.fixture(scope="module")
def done(source, tmp_path_factory):
    """The folder of an audit that trains, and what it printed."""
    folder = tmp_path_factory.mktemp("audit") / "news"
    return folder, main(*asked(source, folder, "--train", "--verify", "60"))


def record_in(folder) -> RunRecord:
    return RunRecord.from_json((folder / "record.json").read_text())


def test_rows_keep_the_users_columns_and_say_what_is_doubted(done, news):
    rows = pq.read_table(done[0] / "rows.parquet").to_pandas()
    pd.testing.assert_frame_equal(rows[list(news)], news)
    assert list(rows) == [*news, "p_wrong", "suggested"] and rows.p_wrong.between(0, 1).all()
    assert set(rows.suggested) <= set(WORDS) and 0 < (rows.topic != rows.suggested).sum() < len(rows) / 2


def test_the_record_measures_the_audit_beside_the_truth(done, news):
    folder, printed = done
    record, rows = record_in(folder), pq.read_table(folder / "rows.parquet").to_pandas()
    wrong, metrics = (news.topic != news.truth).to_numpy(), record.metrics
    assert metrics["true_error_rate"]["value"] == pytest.approx(wrong.mean()) == 1 / 6
    assert metrics["auroc"]["value"] == pytest.approx(roc_auc_score(wrong, rows.p_wrong))
    assert metrics["auroc"]["value"] > 0.9 and metrics["error_rate"]["low"] <= 1 / 6 <= metrics["error_rate"]["high"]
    listed = rows.p_wrong >= np.sort(rows.p_wrong)[-metrics["listed"]["rows"]]
    hits = int((listed & wrong).sum())
    assert metrics["list_precision"] == {"value": hits / listed.sum(), "n": int(listed.sum())}
    assert metrics["list_recall"] == {"value": hits / wrong.sum(), "n": int(wrong.sum())}
    true = pd.crosstab(news.truth, news.topic, normalize="index").to_numpy()
    told = np.array(record.data["audit"]["transition"])
    assert metrics["transition_l1"]["value"] == pytest.approx(np.abs(told - true).sum(1).mean())
    assert record.task == "label_audit" and record.noise == {"protocol": "unknown"} and record.model["way"] == "words"
    for text in (f"{100 * metrics['error_rate']['value']:.1f}%", "AUROC of p_wrong", "16.7 (inside", "by TF-IDF"):
        assert text in printed


def test_training_follows_the_plan_and_is_measured_beside_it(done):
    folder, printed = done
    metrics = record_in(folder).metrics
    trained = {name.rpartition("_")[2]: of for name, of in metrics.items() if name.startswith("test_accuracy_")}
    assert list(trained)[0] == "given" and {"drop", "relabel"} <= set(trained)
    expected = {one["name"]: one["accuracy"] for one in record_in(folder).data["plan"]["options"]}
    assert all(one["predicted"]["value"] == expected[name]["value"] for name, one in trained.items())
    held = trained["given"]["n"]
    given = trained["given"]
    assert given["trained_on"] + given["chosen_by"] == N - held and given["chosen_by"] == round((N - held) / 10)
    assert trained["drop"]["trained_on"] < given["trained_on"]
    for one in trained.values():
        assert one["predicted"]["low"] <= one["predicted"]["value"] <= one["predicted"]["high"]
        assert one["value"] * held == pytest.approx(round(one["value"] * held))
    drop = trained["drop"]
    assert drop["gain"] == pytest.approx(drop["value"] - trained["given"]["value"])
    assert drop["only_this"] - drop["only_given"] == pytest.approx(drop["gain"] * held)
    assert f"measured on {held} held-out rows with their true labels" in printed and "predicted, %" in printed


def test_figure_page_and_card_are_written(done):
    folder, _ = done
    assert (folder / "audit.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (folder / "audit.html").read_text()
    card, record = DatasetCard.load(folder / "README.md"), record_in(folder)
    told = card.data.to_dict()
    rate = record.metrics["error_rate"]
    assert told["audit"]["error_rate"]["value"] == pytest.approx(rate["value"], abs=1e-6)
    assert told["audit"]["transition"] == np.round(record.data["audit"]["transition"], 4).tolist()
    assert f"**{100 * rate['value']:.1f}% [" in card.text and "labels are an example" not in card.text
    rows = load_dataset(str(folder), split="train")
    assert len(rows) == N and "p_wrong" in rows.column_names


def test_nothing_is_made_twice_and_other_settings_are_refused(done, source, monkeypatch):
    folder, printed = done

    def never(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(evidence, "out_of_fold", never)
    monkeypatch.setattr(evidence, "word_features", never)
    again = main(*asked(source, folder, "--fdr", "0.5"))
    assert again.splitlines()[0] == printed.splitlines()[0] and "to fill in" not in again
    assert record_in(folder).metrics["listed"]["rows"] > 0
    with pytest.raises(FileExistsError, match=r"other settings \(folds\)"):
        main(*asked(source, folder, "--folds", "3"))


def test_verified_rows_replace_the_assumption(done, source, news):
    folder, _ = done
    sheet = pd.read_csv(folder / "verify" / "to_verify.csv")
    sheet["true_label"] = news.truth.to_numpy()[sheet.row]
    sheet.to_csv(folder / "verify" / "to_verify.csv", index=False)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(FileExistsError, match="holds to_verify.csv, in which something is filled in.*--sheet"):
        main(*asked(source, folder, "--verify", "80"))
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    printed = main(*asked(source, folder, "--verified", folder / "verify"))
    rate = record_in(folder).metrics["error_rate"]
    assert rate["verified"] == 60 and rate["low"] <= 1 / 6 <= rate["high"] and "verified" in rate["how"]
    assert "to know the rate" not in printed


def test_hidden_noise_is_all_that_the_audit_sees(tmp_path):
    """Without a source: digits, a fifth of whose labels are made wrong."""
    printed = main("--output", tmp_path, "--rows", "500", "--train", "False", "--no_plan")
    record, rows = record_in(tmp_path), pq.read_table(tmp_path / "rows.parquet").to_pandas()
    _, labels = digits("train")
    chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:500])
    noise = LabelFlips.named("cyclic", ratio=0.25, num_classes=10, seed=0, redraw="never")
    noisy, wrong = noise(labels[chosen], sample=chosen, epoch=0)
    np.testing.assert_array_equal(rows.label, noisy)
    assert record.noise["realised"] == {"rate": wrong.mean(), "n": 500} and record.model["way"] == "pixels"
    assert record.metrics["auroc"]["value"] > 0.9 and "true rate, %" in printed
    assert "what to do" not in printed
    assert "labels are an example" in (tmp_path / "README.md").read_text()


def test_labels_as_given_are_no_accuracy(source, tmp_path):
    printed = main("--source", source, "--column", "topic", "--train", "--output", tmp_path)
    metrics = record_in(tmp_path).metrics
    assert "given_label_accuracy_given" in metrics and not any(name.startswith("test_") for name in metrics)
    assert "so this is no accuracy" in printed and "auroc" not in metrics
    assert "to know the rate without an assumption: --verify 200" in printed


def test_clean_test_rows_are_measured_on(source, news, tmp_path):
    """They hold a class that no given label has, copies of audited rows, and a column of another name."""
    new = [f"{text} yesterday" for text in news.text[:40]]
    copies = [f" {text.upper()}" for text in news.text[:3]]
    test = pd.DataFrame({"text": [*new, "stars moon", *copies], "right": [*news.truth[:40], "space", *news.truth[:3]]})
    test.to_csv(tmp_path / "test.csv", index=False)
    told = ["--test_source", tmp_path / "test.csv", "--test_column", "right", "--train", "--output", tmp_path / "out"]
    printed = main("--source", source, "--column", "topic", *told)
    record, told = record_in(tmp_path / "out"), " ".join(printed.split())
    assert "40 test rows with clean labels; 3 others are copies of audited rows and left out; 1 others are of " in told
    assert record.metrics["test_accuracy_given"]["n"] == 40 and "left out" in record.data["measured_on"]


def test_the_rows_under_audit_are_no_test_rows(source, news, tmp_path):
    with pytest.raises(ValueError, match="names the rows under audit, split train"):
        main("--source", source, "--column", "topic", "--test_source", source, "--dry_run")
    same = source.parent / "." / ".." / source.parent.name / source.name
    with pytest.raises(ValueError, match="names the rows under audit, split train"):
        main("--source", source, "--column", "topic", "--test_source", same, "--dry_run")
    news[["topic", "text"]].sample(frac=0.5, random_state=0).to_parquet(tmp_path / "copy.parquet")
    with pytest.raises(ValueError, match="all 90 rows are copies of rows under audit"):
        main(*asked(source, tmp_path / "out", "--train", "--dry_run", "--test_source", tmp_path / "copy.parquet"))
    (tmp_path / "copy.parquet").unlink()
    for split, rows in (("train", news[:120]), ("test", news[120:])):
        rows.to_csv(tmp_path / f"{split}.csv", index=False)
    told = ["--source", tmp_path, "--column", "topic", "--test_source", tmp_path, "--train", "--dry_run"]
    printed = main(*told)
    assert "120 rows of" in printed and "measured on 60 test rows with clean labels" in printed
    with pytest.raises(ValueError, match="names the rows under audit, split test"):
        main(*told, "--split", "test")


def settings_of(source, **more):
    return at_scale(study.Settings, "demo", source=str(source), column="topic", train=True, **more)


def test_copies_are_held_out_together(news, tmp_path):
    twice = pd.concat([news, news.assign(text=news.text.str.upper())]).drop(columns="truth")
    twice.to_csv(tmp_path / "twice.csv", index=False)
    settings = settings_of(tmp_path / "twice.csv")
    judge = judge_of(settings, read_data(settings))
    np.testing.assert_array_equal(judge.held[:N], judge.held[N:])
    assert 0.1 < judge.held.mean() < 0.3 and not judge.is_clean and not judge.is_audited
    np.testing.assert_array_equal(judge.rows, np.flatnonzero(judge.held))


def test_no_way_depends_on_labels_that_measure_it(news):
    """Other labels of held-out rows change neither list nor T nor suggestions of what is trained on."""
    names, draw = sorted(WORDS), np.random.default_rng(0)
    true, given = (np.array([names.index(one) for one in news[column]]) for column in ("truth", "topic"))
    x, held = np.eye(3)[true] + draw.normal(0, 0.3, (N, 3)), np.arange(N) % 5 == 0
    found = []
    for labels in (given, np.where(held, (given + 1) % 3, given)):
        audit = audit_labels(labels, features=x)
        doubts = doubts_without(audit, x, held, 5, 0)
        ways = ways_without(audit, ways_of(audit, audit.flagged()), doubts, None, 0.2, 0)
        found.append({way.name: way for way in ways})
    one, other = found
    assert list(one) == ["given", "drop", "relabel", "corrected"]
    np.testing.assert_array_equal(one["drop"].keep, other["drop"].keep)
    assert (~one["drop"].keep).sum() > 0 and one["drop"].keep[held].all()
    np.testing.assert_array_equal(one["relabel"].labels[~held], other["relabel"].labels[~held])
    assert (one["relabel"].labels != given)[~held].any()
    np.testing.assert_array_equal(one["corrected"].transition, other["corrected"].transition)
    wrong = (given != true)[~held]
    assert (wrong & ~one["drop"].keep[~held]).sum() > 0.8 * wrong.sum()


@pytest.mark.parametrize("kind", ["columns", "column", "npy", "parquet"])
def test_given_probabilities_are_taken_as_they_are(kind, news, tmp_path):
    names = sorted(WORDS)
    p = np.where(news.truth.to_numpy()[:, None] == names, 0.9, 0.05)
    table, told = {"topic": news.topic, "truth": news.truth}, []
    if kind == "columns":
        table, told = table | dict(zip("xyz", p.T)), ["--probability_columns", *"xyz"]
    elif kind == "column":
        table, told = table | {"p": p.tolist()}, ["--probability_columns", "p"]
    elif kind == "npy":
        np.save(tmp_path / "p.npy", p)
        told = ["--probabilities", tmp_path / "p.npy"]
    else:
        pd.DataFrame(p, columns=names).to_parquet(tmp_path / "p.parquet")
        told = ["--probabilities", tmp_path / "p.parquet"]
    pd.DataFrame(table).to_parquet(tmp_path / "rows.parquet")
    printed = " ".join(main(*asked(tmp_path / "rows.parquet", tmp_path / "out", *told)).split())
    record = record_in(tmp_path / "out")
    assert record.model["way"] == "probabilities" and record.model["folds"] is None
    assert record.metrics["list_f1"]["value"] == 1 and record.model["agreement"] == pytest.approx(5 / 6)
    assert "no plan of ways to train: it needs features" in printed and "foretells 83.3% of the given" in printed
    assert "taken as given" in (tmp_path / "out" / "README.md").read_text()
    np.save(tmp_path / "x.npy", p + np.random.default_rng(0).normal(0, 0.1, p.shape))
    told += ["--features", tmp_path / "x.npy", "--train"]
    printed = main(*asked(tmp_path / "rows.parquet", tmp_path / "two", *told))
    record = record_in(tmp_path / "two")
    assert record.metrics["list_f1"]["value"] == 1 and record.data["plan"] is not None
    assert record.metrics["test_accuracy_given"]["n"] > 0 and "no plan" not in printed


def test_given_features_of_some_rows(news, tmp_path):
    names = sorted(WORDS)
    x = np.eye(3)[[names.index(name) for name in news.truth]] + np.random.default_rng(0).normal(0, 0.2, (N, 3))
    np.save(tmp_path / "x.npy", x)
    news[["topic", "truth"]].to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    told = asked(tmp_path / "rows.jsonl", tmp_path / "out", "--features", tmp_path / "x.npy")
    main(*told, "--rows", "150")
    assert record_in(tmp_path / "out").metrics["auroc"] == {"value": 1.0, "n": 150}
    np.save(tmp_path / "x.npy", x[:-1])
    with pytest.raises(ValueError, match="has 179 rows, and train has 180"):
        main(*told)
    np.save(tmp_path / "x.npy", x[::-1])
    with pytest.raises(FileExistsError, match=r"other settings \(content\)"):
        main(*told, "--rows", "150")


def test_a_dry_run_looks_and_writes_nothing(source, tmp_path):
    printed = main(*asked(source, tmp_path / "out", "--dry_run"))
    assert "180 rows of" in printed and "texts by '{text}'" in printed and "judged by TF-IDF" in printed
    assert "null" not in printed and "letters are read" not in printed
    assert json.loads(printed[: printed.index("\n}") + 2])["folds"] == 5 and not (tmp_path / "out").exists()


REFUSED = {
    "one class": ({"topic": "food"}, [], "one class only, 'food'"),
    "two rows": (slice(2), [], "is in 1 of 2 rows, and 5 are needed"),
    "a rare class": ({"topic": ["rare", *["food", "law"] * 89, "food"]}, [], "class 'rare' is in 1 of 180 rows"),
    "a class with a space": ({"topic": ["food ", "food", "law"] * 60}, [],
                             "labels in 'topic' must differ, got 'food' twice; spaces do not tell them apart; write"),
    "nulls": ({"topic": [None, *["food", "law"] * 89, "food"]}, [],
              "1 of 180 rows have no label in 'topic', the first is row 0"),
    "a blank text": ({"text": [" ", *[f"a b {i}" for i in range(179)]]}, [],
                     "1 of 180 rows have a blank text in 'text', the first is row 0"),
    "a text that is none": ({"text": [*[f"a b {i}" for i in range(179)], None]}, [], "nothing in 'text', the first is"),
    "floats": ({"topic": [0.0, 1.0] * 90}, [], "numbers with a decimal point, as 1.0"),
    "texts for labels": ({}, ["--column", "text"], "--column text holds texts of several words, and .* no other"),
    "no such column": ({}, ["--column", "label"], "no column 'label'; it has 'key', 'text', 'topic', 'truth'"),
    "no such split": ({}, ["--split", "test"], "has the splits train; none is called 'test'"),
    "a column of ours": ({"p_wrong": 0.5}, [], "has a column 'p_wrong', which the audit adds"),
    "too many rows": ({}, ["--rows", "181"], "--rows 181, but there are 180 rows"),
    "no texts in it": ({}, ["--text_column", "number"], "column 'number'"),
}  # fmt: skip


def test_rows_that_cannot_be_used_are_left_out_where_a_user_asks(news, tmp_path):
    names = sorted(WORDS)
    numbers = [float(names.index(name)) for name in news.topic]
    places = [2.5, 3.5, 60.5, 99.5]  # among the others
    more = pd.DataFrame({"text": [None, "  ", "a b c", "d e f"], "topic": [0, 1, None, 7]}, index=places)
    among = pd.concat([more, news.assign(topic=numbers)]).sort_index()[["text", "topic"]]
    among.to_csv(tmp_path / "rows.csv", index=False)
    told = ["--source", tmp_path / "rows.csv", "--column", "topic", "--output", tmp_path / "out", "--no_plan"]
    printed = main(*told, "--drop_unusable")
    record, rows = record_in(tmp_path / "out"), pq.read_table(tmp_path / "out" / "rows.parquet").to_pandas()
    assert record.data["rows"] == N and rows.text.tolist() == news.text.tolist()
    assert rows.topic.tolist() == numbers
    news.assign(topic=numbers)[["text", "topic"]].astype({"topic": int}).to_csv(tmp_path / "usable.csv", index=False)
    main("--source", tmp_path / "usable.csv", "--column", "topic", "--output", tmp_path / "usable", "--no_plan")
    found = pq.read_table(tmp_path / "usable" / "rows.parquet").to_pandas()
    assert rows.p_wrong.tolist() == found.p_wrong.tolist() and rows.suggested.tolist() == found.suggested.tolist()
    for left in ("1 rows with no label in 'topic'", "1 rows with nothing in 'text'", "1 rows with a blank text",
                 "1 rows of 1 classes in fewer than 5 rows each are left out: 7"):  # fmt: skip
        assert left in printed


def test_classes_in_fewer_rows_than_a_plan_takes_are_audited_without_one(news, tmp_path):
    rare = news.iloc[[0, 60]].assign(topic="rare", text=["a b seldom word", "another seldom word"])
    pd.concat([news, rare]).to_parquet(tmp_path / "rows.parquet", index=False)
    printed = main("--source", tmp_path / "rows.parquet", "--column", "topic", "--folds", "2", "--output",
                   tmp_path / "out")  # fmt: skip
    assert "no plan of ways to train: its probe runs take 5 rows of each class, and 'rare' is in 2" in printed
    assert record_in(tmp_path / "out").data["plan"] is None


def test_a_class_of_copies_is_audited_without_a_plan(tmp_path):
    labels, draw = np.repeat([0, 1, 2], (60, 60, 5)), np.random.default_rng(0)
    p = np.full((125, 3), 0.1) + 0.7 * np.eye(3)[labels]
    x = np.where(labels[:, None] == 2, 9.0, 3 * np.eye(3)[labels] + draw.normal(size=(125, 3)))
    pd.DataFrame({"label": labels, "at": range(125)}).to_parquet(tmp_path / "rows.parquet", index=False)
    np.save(tmp_path / "p.npy", p / p.sum(1, keepdims=True))
    np.save(tmp_path / "x.npy", x)
    printed = main("--source", tmp_path / "rows.parquet", "--column", "label", "--probabilities", tmp_path / "p.npy",
                   "--features", tmp_path / "x.npy", "--output", tmp_path / "out")  # fmt: skip
    assert "no plan of ways to train: its probe runs take 5 folds, and features have 121 distinct rows" in printed


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_audited_is_refused_at_once(case, news, tmp_path):
    change, more, message = REFUSED[case]
    table = news[change] if isinstance(change, slice) else news.assign(**change)
    table.to_parquet(tmp_path / "rows.parquet")
    told = ["--source", tmp_path / "rows.parquet", "--output", tmp_path / "out"]
    with pytest.raises(ValueError, match=message):
        main(*told, *([] if "--column" in more else ["--column", "topic"]), *more)
    assert not (tmp_path / "out" / "record.json").exists()


def test_columns_are_guessed_only_where_one_can_be_meant(news, tmp_path):
    news.to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(ValueError, match="key, text, topic, truth 'topic', 'truth' can be; name it with --column"):
        main("--source", tmp_path / "two.csv", "--dry_run")
    news.drop(columns="truth").to_csv(tmp_path / "one.csv", index=False)
    news.drop(columns="truth").sample(frac=1, random_state=0).to_parquet(tmp_path / "index.parquet")
    assert "labels of 'topic'" in main("--source", tmp_path / "index.parquet", "--dry_run"), "with its index"
    assert "labels of 'topic', texts by '{text}'" in main("--source", tmp_path / "one.csv", "--dry_run")
    news.rename(columns={"text": "body"}).to_csv(tmp_path / "texts.csv", index=False)
    assert "texts by '{body}'" in main("--source", tmp_path / "texts.csv", "--column", "topic", "--dry_run")
    news.assign(more=news.text[::-1].to_numpy()).rename(columns={"text": "body"}).to_csv(
        tmp_path / "texts.csv", index=False
    )
    with pytest.raises(ValueError, match="has the columns 'body', 'more', and one of them is judged"):
        main("--source", tmp_path / "texts.csv", "--column", "topic", "--dry_run")
    told = ["--source", tmp_path / "texts.csv", "--column", "topic", "--dry_run", "--prompt", "{more} -- {body}"]
    assert f"first text: '{news.text.iloc[-1]} -- {news.text[0]}" in main(*told)
    pd.DataFrame({"x": np.arange(N) / 7, "topic": news.topic}).to_csv(tmp_path / "numbers.csv", index=False)
    with pytest.raises(ValueError, match="neither texts of .* nor images, only 'x', 'topic': name a column"):
        main("--source", tmp_path / "numbers.csv", "--dry_run")


def test_a_class_that_nobody_gives_is_left_out_and_told(news, tmp_path):
    names = ["art", *sorted(WORDS)]
    from datasets import ClassLabel, Features, Value

    of = {"text": Value("string"), "topic": ClassLabel(names=names), "truth": ClassLabel(names=names)}
    rows = Dataset.from_dict(
        {"text": news.text, "topic": news.topic, "truth": ["art", *news.truth[1:]]}, features=Features(of)
    )
    rows.to_parquet(tmp_path / "rows.parquet")
    printed = main(*asked(tmp_path / "rows.parquet", tmp_path / "out"))
    record = record_in(tmp_path / "out")
    assert "no row is labelled art: 1 class(es) are left out" in printed and record.data["classes"] == 3
    assert record.metrics["true_error_rate"]["value"] == pytest.approx(1 / 6), "row 0 was wrong before"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": "x.npy", "feature_column": "x"}, "--features and --feature_column: .* comes one way"),
        ({"sheet": "more"}, "--sheet goes with --verify"),
        ({"features": "x.npy", "model": "m"}, "--model m would not be used"),
        ({"text_column": "a", "image_column": "b"}, "--text_column and --image_column"),
        ({"probabilities": "p.npy", "train": True}, "--train needs something to train on"),
        ({"verify": 10, "verified": "v"}, "--verify draws a new sheet and --verified reads"),
        ({"ratio": 0.5, "clean_column": "truth"}, "--ratio 0.5 hides noise"),
        ({"test_column": "right"}, "--test_column goes with --test_source"),
        ({"source": None, "scale": "gpu"}, "--scale gpu needs --source"),
        ({"folds": 1}, "--folds must be >= 2"),
        ({"model": "no/such/place"}, "--model no/such/place"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    changes = {"source": "rows.csv", "scale": "demo"} | changes
    with pytest.raises(SettingError, match=message):
        at_scale(study.Settings, changes.pop("scale"), **changes)


def test_weak_labels_of_rules_are_doubted(shared_data, tmp_path):
    """A classifier gives the labels of rules again, so that the rate cannot be told: the audit says so."""
    told = ["--source", shared_data / "hausa_newsclass-weak.parquet", "--rows", "600", "--no_plan"]
    printed = main(*told, "--output", tmp_path)
    record = record_in(tmp_path)
    assert record.data["column"] == "weak_label" and record.data["rows"] == 600 and record.model["way"] == "words"
    assert record.metrics["error_rate"]["low"] < 0.1 and "verify" in printed
