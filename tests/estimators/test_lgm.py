"""LGMClassifier: scikit-learn's own checks, all of them, and what it does beyond them."""

from __future__ import annotations

import pickle
import unittest

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import hf_noise
from hf_noise import LGMClassifier

CHECKS = [(name, check) for estimator, check in estimator_checks_generator(LGMClassifier())
          for name in [getattr(check, "func", check).__name__]]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("check", [check for _, check in CHECKS], ids=[name for name, _ in CHECKS])
def test_scikit_learns_checks(check, monkeypatch):
    """All that `check_estimator` runs; none is left out or expected to fail, and none skipped."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else the check of array namespaces would skip itself
    try:
        check(LGMClassifier())
    except unittest.SkipTest as error:
        pytest.fail(f"the check skipped itself: {error}")


def test_no_check_is_left_out():
    assert len(CHECKS) > 50
    assert {"check_classifiers_train", "check_sample_weight_equivalence_on_dense_data"} <= {name for name, _ in CHECKS}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.data / 16, data.target


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_it_learns_digits(digits, head):
    features, labels = digits
    classifier = LGMClassifier(head, epochs=10, learning_rate=1e-2, random_state=0).fit(features[:1200], labels[:1200])
    assert classifier.score(features[1200:], labels[1200:]) > 0.88  # 0.92 and 0.94
    shares = classifier.predict_proba(features[1200:])
    np.testing.assert_allclose(shares.sum(1), 1)
    own = classifier.torch_head()(torch.from_numpy(features[1200:])).softmax(-1).detach().numpy()
    np.testing.assert_allclose(own, shares, atol=1e-12)
    assert len(classifier.loss_curve_) == len(classifier.penalty_curve_) == classifier.n_iter_ == 10
    assert classifier.loss_curve_[0] > classifier.loss_curve_[-1] > 0 and min(classifier.penalty_curve_) > 0
    assert classifier.validation_scores_ is None and classifier.best_epoch_ == 9


def test_it_is_the_same_every_time_and_after_a_pickle(digits):
    features, labels = digits[0][:300], digits[1][:300]
    one, again = (LGMClassifier(epochs=3, random_state=5).fit(features, labels) for _ in range(2))
    np.testing.assert_array_equal(one.decision_function(features), again.decision_function(features))
    other = LGMClassifier(epochs=3, random_state=6).fit(features, labels)
    assert np.abs(one.decision_function(features) - other.decision_function(features)).max() > 1e-3
    stored = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(stored.predict_proba(features), one.predict_proba(features))
    assert clone(one).get_params() == one.get_params() and not hasattr(clone(one), "coefs_")
    plain = LGMClassifier(epochs=3, random_state=5, lam=0).fit(features, labels)
    assert np.isnan(plain.penalty_curve_).all()
    assert np.abs(plain.decision_function(features) - one.decision_function(features)).max() > 1e-6


def test_early_stopping_keeps_the_best_epoch(digits):
    features, labels = digits[0][:300], digits[1][:300].astype(str)
    options = {"early_stopping": True, "learning_rate": 0.3, "patience": 4, "random_state": 0}
    found = LGMClassifier(**options, validation_fraction=0.2).fit(features, labels)
    assert found.n_iter_ == found.best_epoch_ + 1 + 4 < 100
    assert found.best_epoch_ == np.argmin(found.validation_loss_) and len(found.validation_scores_) == found.n_iter_
    assert found.classes_.tolist() == list("0123456789") and found.predict(features[:2]).tolist() == ["0", "1"]
    weighted = LGMClassifier(**options).fit(features, labels, sample_weight=np.arange(1.0, 301))
    assert weighted.validation_loss_ != found.validation_loss_


def test_in_a_pipeline_and_a_search(digits):
    features, labels = digits[0][:300], digits[1][:300]
    pipe = make_pipeline(StandardScaler(), LGMClassifier(epochs=8, learning_rate=2e-2, random_state=0))
    grid = {"lgmclassifier__gamma": [0.01, 0.1], "lgmclassifier__lam": [0.0, 0.15]}
    search = GridSearchCV(pipe, grid, cv=2).fit(features, labels)
    assert search.best_score_ > 0.7 and set(search.best_params_) == set(grid)
    assert cross_val_score(pipe, features, labels, cv=2).mean() > 0.7


def test_a_transition_corrects_forward():
    """40 % of the second class's labels say the first: the plain fit believes them, the corrected one does not."""
    features, clean = make_blobs(2000, centers=[[0, 0], [2, 2]], cluster_std=1.0, random_state=0)
    draw = np.random.default_rng(0)
    noisy = np.where((clean == 1) & (draw.random(2000) < 0.4), "a", np.array(["a", "b"])[clean])
    truth = np.array(["a", "b"])[clean]
    options = {"epochs": 20, "learning_rate": 2e-2, "random_state": 0}
    plain = LGMClassifier(**options).fit(features, noisy)
    corrected = LGMClassifier(**options, transition=[[1.0, 0.0], [0.4, 0.6]]).fit(features, noisy)
    ours, theirs = corrected.score(features, truth), plain.score(features, truth)
    assert ours > 0.9 and ours > theirs + 0.02
    assert corrected.predict_proba(features)[clean == 1, 1].mean() > 0.8 > 0.6 > plain.predict_proba(features)[
        clean == 1, 1].mean()  # fmt: skip


def test_features_of_float32_stay_so():
    features, labels = make_blobs(40, random_state=0)
    found = LGMClassifier(epochs=2).fit(features.astype(np.float32), labels)
    assert found.coefs_[0].dtype == np.float32 and found.predict_proba(features).dtype == np.float64


X, Y = np.eye(4), [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gamma": -1}, ValueError, "gamma must lie in"), ({"lam": -0.1}, ValueError, "lam must lie in"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate must be a real number"),
        ({"head": "tree"}, ValueError, "head must be one of 'linear', 'mlp'"),
        ({"hidden": 4}, ValueError, 'hidden=4 is of head="mlp"'),
        ({"transition": np.eye(3)}, ValueError, "transition has 3 classes, the labels 2"),
        ({"transition": np.ones((2, 2))}, ValueError, "row 0 of the transition matrix sums to 2"),
        ({"early_stopping": 1}, TypeError, "early_stopping must be True or False"),
        ({"early_stopping": True, "validation_fraction": 1.0}, ValueError, r"validation_fraction must lie in \(0, 1\)"),
        ({"early_stopping": True, "validation_fraction": 0.9}, ValueError, "early_stopping holds out rows of each"),
        ({"verbose": 2}, TypeError, "verbose must be True or False"),
        ({"learning_rate": 1e300, "weight_decay": 1e300}, ValueError, "the fit diverged at learning_rate=1e"),
        ({"device": "moon"}, ValueError, "device must be a device"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        LGMClassifier(epochs=2).set_params(**options).fit(X, Y)


def test_rows_that_are_refused():
    with pytest.raises(ValueError, match="y holds one class only"):
        LGMClassifier().fit(X, [1, 1, 1, 1])
    with pytest.raises(ValueError, match="y holds one class only"):
        LGMClassifier().fit(X, Y, sample_weight=[1, 0, 1, 0])
    with pytest.raises(ValueError, match="at least one non-zero number"):
        LGMClassifier().fit(X, Y, sample_weight=np.zeros(4))
    with pytest.raises(ValueError, match="Negative values"):
        LGMClassifier().fit(X, Y, sample_weight=[1, -1, 1, 1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LGMClassifier().fit(X, Y[:3])
    with pytest.raises(NotFittedError):
        LGMClassifier().predict(X)


def test_it_is_a_name_of_the_package():
    assert hf_noise.LGMClassifier is LGMClassifier and "LGMClassifier" in dir(hf_noise)
