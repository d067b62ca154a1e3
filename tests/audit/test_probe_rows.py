"""What probe runs are made of: heads beside those of a peer, and which of many rows they are fitted on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad, minimize
from sklearn.linear_model import LogisticRegression

from hf_noise.audit.probe_fit import fit_head
from hf_noise.audit.probe_rows import fitted_rows, read_features
from hf_noise.losses import transition_nll

T = np.array([[3, 1, 0], [0, 2, 2], [1, 0, 3]]) / 4


def test_heads_are_those_of_scikit_learn_and_corrected_ones_minimise_our_own_loss():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(200, 4)), draw.integers(0, 3, 200)
    head = fit_head(x, np.eye(3)[y], ridge=0.01)
    peer = LogisticRegression(C=1 / (0.01 * 200), tol=1e-8, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(head.probabilities(x), peer.predict_proba(x), atol=1e-3)

    def loss(flat):
        weights = torch.tensor(flat.reshape(5, 3), requires_grad=True)
        value = transition_nll(torch.tensor(x) @ weights[:-1] + weights[-1], torch.tensor(y), torch.tensor(T)).mean()
        value = value + 0.01 * (weights[:-1] ** 2).sum() / 2
        value.backward()
        return value.item(), weights.grad.numpy().ravel()

    assert check_grad(lambda w: loss(w)[0], lambda w: loss(w)[1], draw.normal(size=15)) < 1e-5
    corrected = fit_head(x, np.eye(3)[y], ridge=0.01, transition=T)
    best = minimize(loss, corrected.weights.ravel(), jac=True, method="BFGS")
    assert loss(corrected.weights.ravel())[0] - best.fun < 1e-4


@pytest.mark.parametrize("most", [60, 149])
def test_of_many_rows_heads_are_fitted_on_a_share_of_each_class_and_fold(most):
    draw = np.random.default_rng(0)
    given = np.r_[np.zeros(90, int), np.ones(55, int), np.full(5, 2)]
    _, split = read_features(draw.normal(size=(150, 2)), given, 0)
    known = np.array([3, 88, 120])
    rows = fitted_rows(given, split, known, most, 1)
    assert np.array_equal(rows, np.unique(rows)) and np.isin(known, rows).all() and most <= len(rows) <= most + 18
    assert np.array_equal(rows, fitted_rows(given, split, known, most, 1))
    for _, judged in split:
        for number in range(3):
            cell = judged[given[judged] == number]
            others = np.setdiff1d(np.intersect1d(rows, cell), known)
            share = int(np.ceil(len(cell) * most / 150))
            assert share - len(known) <= len(others) <= share and (share <= len(known) or len(others))
    assert np.array_equal(fitted_rows(given, split, known, 150, 1), np.arange(150))
    if most == 60:
        assert not np.array_equal(rows, fitted_rows(given, split, known, most, 2))
