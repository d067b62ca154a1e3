"""`audit_labels`: from labels and probabilities, features or a data set to rate, lists, files, and verified rows."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields, is_dataclass

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

import hf_noise
from hf_noise.audit import LabelAudit, audit_labels
from hf_noise.audit.out_of_fold import out_of_fold

NAMES = ["cat", "dog", "owl"]


def labelled(rows: int = 900, rate: float = 0.2, seed: int = 0):
    """True classes, given labels and the probabilities of a good classifier of the given labels."""
    draw = np.random.default_rng(seed)
    true = draw.integers(0, 3, rows)
    given = np.where(draw.random(rows) < rate, (true + 1) % 3, true)
    scores = np.exp(draw.normal(size=(rows, 3)) + 6 * np.eye(3)[true])
    clean = scores / scores.sum(1, keepdims=True)
    transition = (1 - rate) * np.eye(3) + rate * np.roll(np.eye(3), 1, axis=1)
    return true, given, clean @ transition


@pytest.fixture(scope="module")
def found():
    true, given, p = labelled()
    return true, given, audit_labels(given, probabilities=p, class_names=NAMES)


def test_rate_rows_and_confusions(found):
    true, given, audit = found
    wrong = true != given
    assert audit.error_rate.low <= wrong.mean() <= audit.error_rate.high and len(audit) == 900
    flagged = audit.flagged()
    assert (flagged & wrong).sum() >= 0.95 * wrong.sum() and (flagged & ~wrong).sum() <= 0.1 * flagged.sum()
    assert (audit.suggested == true).mean() > 0.95
    assert audit.flagged(0.0).sum() <= audit.flagged(0.1).sum() <= audit.flagged(0.5).sum()
    told = audit.summary()
    assert "cat labelled dog" in told and "dog labelled cat" not in told and max(map(len, told.splitlines())) <= 120
    for part in audit.error_rate.how.split("; "):
        assert " ".join(told.split()).count(part) == 1
    assert re.fullmatch(r"LabelAudit\(900 rows, 3 classes, wrong labels: [^,]+, [^,]+(, 1 warning)?\)", repr(audit))


def test_of_a_data_set_with_its_columns_and_names(found):
    _, given, audit = found
    texts = [f"row {i}" for i in range(len(given))]
    features = Features({"text": Value("string"), "kind": ClassLabel(names=NAMES)})
    rows = Dataset.from_dict({"text": texts, "kind": given}, features=features)
    made = hf_noise.audit_labels(rows, column="kind", probabilities=labelled()[2])
    assert made.class_names == tuple(NAMES) and np.array_equal(made.p_wrong, audit.p_wrong)
    shown = made.rows()
    assert shown.column_names == ["text", "kind", "p_wrong", "suggested"] and shown[7]["text"] == "row 7"
    assert shown.features["suggested"].names == NAMES
    words = Dataset.from_dict({"kind": [NAMES[i] for i in given]})
    assert np.array_equal(audit_labels(words, column="kind", probabilities=labelled()[2]).labels, given)
    with pytest.raises(ValueError, match="has a column 'p_wrong' already"):
        audit_labels(shown, column="kind", probabilities=labelled()[2]).rows()


def test_saved_and_read_again(found, tmp_path):
    *_, audit = found
    folder = audit.save(tmp_path / "audit")
    told = json.loads((folder / "audit.json").read_text())
    assert told["rows"] == 900 and told["error_rate"]["value"] == audit.error_rate.value and told["verified"] is None
    rows = Dataset.from_parquet(str(folder / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    assert np.array_equal(rows["p_wrong"], audit.p_wrong)
    assert np.array_equal(rows["suggested"], audit.suggested)
    assert_same(LabelAudit.load(folder), audit)


def assert_same(left, right):
    """All fields, to the last bit."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype and np.array_equal(left, right)
    elif isinstance(left, Dataset):
        assert left.features == right.features and left[:] == right[:]
    elif is_dataclass(left):
        for one in fields(left):
            assert_same(getattr(left, one.name), getattr(right, one.name))
    elif isinstance(left, tuple):
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def test_an_audit_of_a_data_set_goes_on_where_it_was_saved(tmp_path):
    """Rows are drawn, verified and saved once more by the audit that was loaded."""
    true, given, p = labelled(300)
    features = Features({"text": Value("string"), "kind": ClassLabel(names=NAMES)})
    rows = Dataset.from_dict({"text": [f"row {i}" for i in range(300)], "kind": given}, features=features)
    audit = audit_labels(rows, column="kind", probabilities=p, seed=3)
    loaded = LabelAudit.load(audit.save(tmp_path / "first"))
    assert_same(loaded, audit)
    loaded.to_verify(60, tmp_path / "sheet")
    assert "row " in (tmp_path / "sheet" / "to_verify.csv").read_text()
    sure = loaded.verified(fill(tmp_path / "sheet", true))
    again = LabelAudit.load(sure.save(tmp_path / "second"))
    assert_same(again, sure)
    assert again.verified(tmp_path / "sheet").error_rate == sure.error_rate
    assert loaded.posterior is loaded.estimate.chosen.posterior


def test_what_is_no_saved_audit_is_refused(found, tmp_path):
    *_, audit = found
    with pytest.raises(FileNotFoundError, match="give the folder that LabelAudit.save returned"):
        LabelAudit.load(tmp_path)
    folder = audit.save(tmp_path / "audit")
    kept = (folder / "audit.safetensors").read_bytes()
    (folder / "audit.safetensors").write_bytes(kept[: len(kept) // 2])
    with pytest.raises(ValueError, match="is not what LabelAudit.save wrote"):
        LabelAudit.load(folder)
    save_file({"x": np.zeros(2)}, folder / "audit.safetensors", metadata={"version": "1", "audit": "{}"})
    with pytest.raises(ValueError, match="does not hold what LabelAudit.save wrote"):
        LabelAudit.load(folder)
    rows = Dataset.from_dict({"kind": audit.labels})
    first, second = (audit_labels(rows, column="kind", probabilities=labelled(seed=seed)[2]) for seed in (0, 1))
    first.save(tmp_path / "one")
    other = second.save(tmp_path / "two")
    (tmp_path / "one" / "rows.parquet").rename(other / "rows.parquet")
    with pytest.raises(ValueError, match="is not of the same audit"):
        LabelAudit.load(other)


def fill(folder, true, names=NAMES):
    file = folder / "to_verify.csv"
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        row["true_label"] = names[true[int(row["row"])]]
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_verified_rows_make_it_sure(found, tmp_path):
    true, given, audit = found
    page = audit.to_verify(120, tmp_path)
    assert page.name == "to_verify.html" and page.is_file()
    with pytest.raises(ValueError, match="nothing is filled in"):
        audit.verified(tmp_path)
    sure = audit.verified(fill(tmp_path, true))
    assert sure.verified_by.answered == 120 and "120 verified rows" in sure.error_rate.how
    assert sure.error_rate.low <= (true != given).mean() <= sure.error_rate.high
    again = sure.verified(tmp_path)  # of the same first estimate, and not of the corrected one
    assert again.error_rate == sure.error_rate and np.array_equal(again.p_wrong, sure.p_wrong)
    same = audit_labels(given, probabilities=labelled()[2], class_names=NAMES, verified=tmp_path)
    assert same.error_rate == sure.error_rate and same.to_dict()["verified"] == 120
    with pytest.raises(FileExistsError, match="to_verify.csv, in which something is filled in"):
        audit.to_verify(120, tmp_path)
    with pytest.raises(ValueError, match="was verified already; draw further rows from the audit before"):
        sure.to_verify(200, tmp_path / "more")
    with pytest.raises(FileNotFoundError, match="there is no file .*nope.csv; give the CSV that was filled in"):
        audit.verified(tmp_path / "nope.csv")
    with pytest.raises(FileNotFoundError, match="no sample.parquet beside .*moved.csv, .* into the folder that to_ver"):
        audit.verified((tmp_path / "to_verify.csv").rename(tmp_path.parent / "moved.csv"))


def test_an_open_sheet_of_other_rows_is_not_replaced(found, tmp_path):
    """Somebody may be filling it in in a browser, which keeps the answers by the draw."""
    *_, audit = found
    audit.to_verify(60, tmp_path)
    kept = (tmp_path / "to_verify.csv").read_bytes()
    for n, seed in ((40, None), (60, 1)):
        with pytest.raises(FileExistsError, match="to_verify.csv of other rows than these"):
            audit.to_verify(n, tmp_path, seed=seed)
    assert (tmp_path / "to_verify.csv").read_bytes() == kept
    audit.to_verify(60, tmp_path, blind=False)
    assert b"given_label" in (tmp_path / "to_verify.csv").read_bytes()


@pytest.mark.parametrize("kind", [Value("string"), Value("int8"), Value("bool"), ClassLabel(names=NAMES)])
def test_suggestions_are_of_the_columns_own_kind(kind, tmp_path):
    """So that a column can be compared with them, and be made of them."""
    _, given, p = labelled()
    values = [NAMES[i] for i in given] if kind == Value("string") else given.tolist()
    if kind == Value("bool"):
        values, p = [bool(i) for i in given], np.c_[p[:, 0], p[:, 1:].sum(1)]
    rows = Dataset.from_dict({"kind": values}, features=Features({"kind": kind}))
    audit = audit_labels(rows, column="kind", probabilities=p)
    for made in (audit.rows(), LabelAudit.load(audit.save(tmp_path)).rows()):
        assert made.features["suggested"] == made.features["kind"] == kind
        frame = made.to_pandas()
        assert np.array_equal(frame.kind != frame.suggested, audit.suggested != audit.labels)
        assert 0 < (frame.kind != frame.suggested).sum() < 300


def test_a_verified_audit_is_of_one_mind(found, tmp_path):
    """p_wrong, posterior and suggestions say the same, and verified rows are known."""
    true, given, audit = found
    audit.to_verify(150, tmp_path)
    sure = audit_labels(given, probabilities=labelled()[2], class_names=NAMES, confidence=0.8)
    sure = sure.verified(fill(tmp_path, true))
    assert sure.error_rate.confidence == 0.8
    rows = np.arange(len(given))
    assert np.allclose(sure.posterior.sum(1), 1) and np.allclose(1 - sure.posterior[rows, given], sure.p_wrong)
    assert not ((sure.p_wrong > 0.5) & (sure.suggested == given) & (sure.posterior.max(1) > 0.5)).any()
    looked_at = np.isin(sure.posterior, [0, 1]).all(1)
    assert looked_at.sum() >= 150 and (sure.suggested[looked_at] == true[looked_at]).all()


def test_what_still_stands_on_the_classifier_is_told_after_verification(tmp_path):
    """Warnings of the rate go, those of T and of single rows stay."""
    true, given, p = labelled()
    p[:] = np.eye(3)[given] * 0.7 + 0.1  # knows the given labels and nothing else
    audit = audit_labels(given, probabilities=p, class_names=NAMES)
    assert any("was trained on the very rows" in one for one in audit.warnings)
    audit.to_verify(60, tmp_path)
    sure = audit.verified(fill(tmp_path, np.where(true == 2, 0, true)))
    assert "lean on the classifier" in sure.warnings[0] and "owl (0)" in sure.warnings[0]
    assert any("was trained on the very rows" in one for one in sure.warnings)
    assert sure.warnings[0] in " ".join(sure.summary().split()) and "60 verified, " in repr(sure)
    assert not any("tell the rate" in one or "estimators read" in one for one in sure.warnings)
    audit.to_verify(900, tmp_path / "all")
    assert not audit.verified(fill(tmp_path / "all", true)).warnings


def test_the_sheet_outlives_small_changes_of_the_probabilities(found, tmp_path):
    """What was filled in is not lost because a later run rounds otherwise; the page's own CSV will do."""
    true, given, audit = found
    audit.to_verify(120, tmp_path)
    fill(tmp_path, true).rename(tmp_path / "verified-of-the-page.csv")
    later = audit_labels(given, probabilities=labelled()[2].astype(np.float16), class_names=NAMES)
    assert later.verified(tmp_path).verified_by.answered == 120
    with pytest.raises(ValueError, match="is of 900 rows of data, and this audit has 899"):
        audit_labels(given[:-1], probabilities=labelled()[2][:-1], class_names=NAMES).verified(tmp_path)


def test_names_of_words_are_the_order_of_their_classes():
    _, given, p = labelled()
    words = Dataset.from_dict({"kind": [NAMES[i] for i in given]})
    turned = ("owl", "cat", "dog")
    audit = audit_labels(words, column="kind", probabilities=p[:, [2, 0, 1]], class_names=turned)
    assert audit.class_names == turned and [turned[i] for i in audit.labels] == words["kind"][:]
    assert np.allclose(audit.p_wrong, audit_labels(words, column="kind", probabilities=p).p_wrong, atol=1e-6)
    named = Dataset.from_dict({"kind": given}, features=Features({"kind": ClassLabel(names=NAMES)}))
    for rows, names in ((words, ["cat", "dog", "cow"]), (named, turned)):
        with pytest.raises(ValueError, match="has the classes cat, dog, owl, and class_names are"):
            audit_labels(rows, column="kind", probabilities=p, class_names=names)
    with pytest.raises(ValueError, match="holds 1 rows without a label"):
        audit_labels(Dataset.from_dict({"kind": [None, *given[1:].tolist()]}), column="kind", probabilities=p)


def test_names_of_a_column_are_those_that_a_sheet_can_hold():
    _, given, p = labelled()
    for names, said in (
        (["a", "b", "a "], "must differ, got 'a' twice"), (["a", "unsure", "b"], "must not hold 'unsure'"),
        (["a", " ", "b"], "must be 2 texts or more, none of them empty"),
    ):  # fmt: skip
        rows = Dataset.from_dict({"kind": given}, features=Features({"kind": ClassLabel(names=names)}))
        with pytest.raises(ValueError, match=f"classes of column 'kind' {said}"):
            audit_labels(rows, column="kind", probabilities=p)


def test_labels_are_the_audits_own():
    _, given, p = labelled()
    mine = given.astype(np.int8)
    audit = audit_labels(mine, probabilities=p)
    mine[:] = 0
    assert audit.labels.dtype == np.int64 and np.array_equal(audit.labels, given)


def test_from_features_of_digits():
    """Cyclic errors in a fifth of the labels, pixels alone: the rate is inside, most wrong rows are listed."""
    digits = load_digits()
    noise = hf_noise.LabelFlips.cyclic(error_rate=0.2, num_classes=10, seed=3)
    given, is_noisy = noise(digits.target, np.arange(len(digits.target)))
    audit = audit_labels(given, features=digits.data)
    listed = audit.flagged()
    assert audit.error_rate.low <= is_noisy.mean() <= audit.error_rate.high
    precision, recall = (listed & is_noisy).sum() / listed.sum(), (listed & is_noisy).sum() / is_noisy.sum()
    assert precision > 0.8 and recall > 0.8


def test_out_of_fold_judges_no_row_by_itself():
    """Of labels that say nothing of the features, no more than chance is found again."""
    draw = np.random.default_rng(0)
    p = out_of_fold(draw.normal(size=(400, 300)), draw.integers(0, 2, 400))
    assert np.allclose(p.sum(1), 1) and p.shape == (400, 2) and np.abs(p - 0.5).max() < 0.45


def test_copies_of_a_row_are_judged_by_none_of_them():
    """More features than rows are learned by heart: a copy in another fold would find its label again."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(150, 300)), draw.integers(0, 2, 150)
    p = out_of_fold(np.vstack([x, x]), np.r_[y, y])
    assert (p.argmax(axis=1) == np.r_[y, y]).mean() < 0.65
    np.testing.assert_allclose(p[:150], p[150:])
    with pytest.raises(ValueError, match="features have 2 distinct rows among 40, too few for 5 folds"):
        out_of_fold(np.repeat(np.eye(2), 20, axis=0), np.arange(40) % 2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"probabilities": None}, ValueError, "give out-of-fold probabilities .* or features"),
        ({"features": np.zeros((900, 2))}, ValueError, "and not two of them"), ({"seed": -1}, ValueError, "seed"),
        ({"class_names": ["a", "b"]}, ValueError, "class_names are 2, and there are 3 columns"),
        ({"probabilities": labelled()[2][:, :2], "class_names": NAMES}, ValueError, "3, and there are 2 .* cat, dog"),
        ({"probabilities": labelled()[2][:, :2]}, ValueError, r"lie in \[0, 2\) for 2 columns .* one column for each"),
        ({"data": pd.DataFrame({"kind": [0, 1]})}, TypeError, r"datasets.Dataset.from_pandas\(data\)"),
        ({"class_names": ["a", "b", "a "]}, ValueError, "class_names must differ, got 'a' twice"),
        ({"class_names": ["a", "b", ""]}, ValueError, "none of them empty"),
        ({"class_names": ["a", "b", "Unsure"]}, ValueError, "class_names must not hold 'unsure'"),
        ({"class_names": "abc"}, TypeError, "class_names must be a sequence of str"),
        ({"column": "x"}, ValueError, "leave it out"),
        ({"probabilities": np.full((900, 3), 0.5)}, ValueError, "no distributions"),
        ({"probabilities": np.full((899, 3), 1 / 3)}, ValueError, r"are \[899, 3\] and there are 900 labels"),
        ({"confidence": 1.0}, ValueError, "confidence must lie in"), ({"data": ["cat"] * 900}, TypeError, "labels"),
        ({"data": {"a": 1}}, TypeError, "labels"),
    ],
)
def test_bad_calls_are_refused(changes, error, message):
    _, given, p = labelled()
    options = {"data": given, "probabilities": p} | changes
    with pytest.raises(error, match=message):
        audit_labels(options.pop("data"), **options)


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="each class must be in at least 5 rows.*class 1 is in 2"):
        out_of_fold(np.zeros((10, 1)), np.r_[np.zeros(8, int), 1, 1])
    with pytest.raises(ValueError, match="features must be finite, row 3 is not"):
        out_of_fold(np.where(np.arange(20)[:, None] == 3, np.nan, 0.0), np.arange(20) % 2)
