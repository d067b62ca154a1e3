"""Heads fitted together: each as alone, as torch's own optimiser has it, and what is refused."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hf_noise.losses import local_gradient_matching
from hf_noise.models.probe import probe
from hf_noise.noise.normals_torch import normals
from hf_noise.trainers import HeadPlan, HeadSetting, fit_heads, head_grid, heads, heads_stack
from hf_noise.trainers.heads_data import HeadData
from hf_noise.trainers.heads_stack import PERTURBATION_STREAM, Stack, head_shapes

FLIPS = np.array([[0.7, 0.3, 0.0], [0.0, 0.7, 0.3], [0.3, 0.0, 0.7]])


@pytest.fixture(scope="module")
def task():
    """Features [90, 6] of three classes, labels, and as many held out."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 180)
    features = (draw.normal(size=(180, 6)) + 1.5 * np.eye(6)[labels]).astype(np.float32)
    return features[:90], labels[:90], features[90:], labels[90:]


def fit(task, settings, plan=None, **options):
    return fit_heads(task[0], task[1], settings, plan or HeadPlan(epochs=3), progress=False, **options)


def close(one, other, **tolerance):
    for name, values in one.parameters.items():
        torch.testing.assert_close(values, other.parameters[name], **tolerance)


GRID = head_grid(learning_rate=(3e-2, 1e-2), lam=(0.0, 0.3), weight_decay=(0.0, 0.1), gamma=(0.3, 0.6), seed=range(2),
                 batch_size=(16, 32))  # fmt: skip


@pytest.mark.parametrize("plan", [{}, {"head": "mlp", "hidden": 5}, {"bias": False, "schedule": "cosine"}], ids=str)
def test_each_setting_is_its_own_fit(task, plan):
    plan = HeadPlan(epochs=3, **plan)
    together = fit(task, GRID, plan, validation=task[2:])
    assert len(together) == 64 and together.train_loss.shape == (64, 3)
    for index in (0, 5, 22, 41, 63):
        alone = fit(task, [GRID[index]], plan, validation=task[2:])
        for name, values in alone.parameters.items():
            torch.testing.assert_close(values[0], together.parameters[name][index], atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(alone.train_loss[0], together.train_loss[index], rtol=1e-4)
        np.testing.assert_allclose(alone.train_penalty[0], together.train_penalty[index], rtol=1e-3)
        np.testing.assert_allclose(alone.validation_nll[0], together.validation_nll[index], rtol=1e-4)
    without = np.array([setting.lam == 0 for setting in GRID])
    assert np.isnan(together.train_penalty[without]).all() and (together.train_penalty[~without] > 0).all()


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_fit_is_torchs_adamw_on_the_public_loss(task, head, schedule):
    """The same rows and noise, by `local_gradient_matching` and `torch.optim.AdamW` in float64."""
    setting = HeadSetting(learning_rate=1e-2, weight_decay=0.1, gamma=0.2, lam=0.3, batch_size=24, seed=3)
    plan = HeadPlan(head=head, epochs=2, schedule=schedule)
    wide = (task[0].astype(np.float64), task[1])
    found = fit(wide, [setting], plan)
    data = HeadData.read(*wide, None, None, None, None, None)
    stack = Stack([[setting]], plan, data, None, head_shapes(plan, 6, 3))
    own = probe(head, 6, 3).double()
    own.load_state_dict({name: values[0, 0] for name, values in stack.parameters.items()})
    optimiser = torch.optim.AdamW(own.parameters(), lr=1e-2, weight_decay=0.1)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 2 * 4)
    for epoch in range(2):
        assert sorted(stack.order(epoch)[0].tolist()) == list(range(90))
        for batch in stack.order(epoch)[0].split(24):
            noise = normals(3, PERTURBATION_STREAM, epoch, batch, 6).double()
            rows = data.features[batch], data.labels[batch]
            out = local_gradient_matching(own, *rows, gamma=0.2, lam=0.3, noise=noise)
            optimiser.zero_grad()
            out.loss.backward()
            optimiser.step()
            if schedule == "cosine":
                rates.step()
    for name, values in own.state_dict().items():
        torch.testing.assert_close(found.parameters[name][0], values, atol=1e-12, rtol=1e-10)
    own.load_state_dict(found.state_dict(0))
    torch.testing.assert_close(own(data.features), found.logits(wide[0])[0])


def test_first_weights_are_as_nn_linears(task):
    plan = HeadPlan(head="mlp", hidden=400)
    data = HeadData.read(task[0], task[1], None, None, None, None, None)
    stack = Stack([[HeadSetting()], [HeadSetting(seed=1)]], plan, data, None, head_shapes(plan, 6, 3))
    first, second = stack.parameters["0.weight"], stack.parameters["2.weight"]
    for values, width in ((first, 6), (second, 400), (stack.parameters["2.bias"], 400)):
        assert values.abs().max() <= width**-0.5
    # Uniform: variance bound^2 / 3, here within 4 of its standard errors of 2,400 draws (1 in 16,000).
    assert first[0].var().item() * 6 * 3 == pytest.approx(1, abs=4 * math.sqrt(0.8 / 2400))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0, 0, :3, 0], second[0, 0, :, 0] * 400**0.5)


def test_the_best_epoch_is_kept_and_a_fit_stops(task):
    settings = head_grid(learning_rate=(0.3, 1e-3), batch_size=16)
    found = fit(task, settings, HeadPlan(epochs=30, patience=3), validation=task[2:])
    fast, slow = range(2)
    assert found.best_epoch[fast] < found.epochs_run[fast] - 1 < 29, "it gets worse, and stops"
    assert found.epochs_run[fast] - 1 - found.best_epoch[fast] == 3 and found.epochs_run[slow] == 30
    assert found.best_epoch[fast] == np.nanargmin(found.validation_nll[fast])
    assert np.isnan(found.validation_nll[fast, found.epochs_run[fast] :]).all()
    accuracy, nll = found.scores(*task[2:])
    np.testing.assert_allclose(nll, np.nanmin(found.validation_nll, 1), rtol=1e-5)
    expected = F.cross_entropy(found.logits(task[2])[0], torch.from_numpy(task[3])).item()
    assert nll[0] == pytest.approx(expected, rel=1e-5)
    assert accuracy[0] == (found.logits(task[2])[0].argmax(1).numpy() == task[3]).mean()
    shorter = fit(task, [settings[fast]], HeadPlan(epochs=int(found.best_epoch[fast]) + 1))
    torch.testing.assert_close(shorter.parameters["weight"][0], found.parameters["weight"][fast])
    by_accuracy = fit(task, settings, HeadPlan(epochs=8, best_by="accuracy"), validation=task[2:])
    assert (by_accuracy.best_epoch == np.nanargmax(by_accuracy.validation_accuracy, 1)).all()


@pytest.mark.parametrize("relative", [False, True])
def test_weights_of_rows(task, relative):
    """In one batch a weight of 2 is a row given twice (with its own id), and one of 0 a row left out."""
    setting = HeadSetting(learning_rate=1e-2, gamma=0.3, lam=0.5, batch_size=500)
    weights = np.r_[np.zeros(10), np.full(20, 2.0), np.ones(60)]
    features, labels, ids = task[0].astype(np.float64), task[1], np.arange(90)
    plan = HeadPlan(gamma_relative=relative)
    weighted = fit_heads(features, labels, setting, plan, sample_weight=weights, progress=False)
    again = np.repeat(ids, weights.astype(int))
    repeated = fit_heads(features[again], labels[again], setting, plan, sample_ids=again, progress=False)
    close(weighted, repeated, atol=1e-10, rtol=1e-8)
    scaled = fit_heads(features, labels, setting, plan, sample_weight=7 * weights, progress=False)
    close(weighted, scaled, atol=1e-10, rtol=1e-8)


def test_forward_correction_learns_the_clean_labels():
    """30 % of the labels moved one class on: corrected, the probabilities are those of clean labels."""
    draw = np.random.default_rng(1)
    clean = draw.integers(0, 3, 3000)
    features = 3 * np.eye(3)[clean] + draw.normal(size=(3000, 3))
    noisy = np.where(draw.random(3000) < 0.3, (clean + 1) % 3, clean)
    settings = head_grid(learning_rate=0.03, lam=(0.0, 0.1), gamma=0.1, batch_size=100)
    plain = fit_heads(features, noisy, settings, HeadPlan(epochs=5), progress=False)
    corrected = fit_heads(features, noisy, settings, HeadPlan(epochs=5, transition=FLIPS),
                          validation=(features, noisy), progress=False)  # fmt: skip
    for heads_, low, high in ((plain, 0.55, 0.85), (corrected, 0.93, 1.0)):
        given_own = heads_.logits(features).softmax(-1).numpy()[:, np.arange(3000), clean].mean(1)
        assert ((low < given_own) & (given_own < high)).all()
    # The NLL of noisy validation rows goes through T: that of noisy labels under noisy probabilities.
    p = corrected.logits(features)[0].softmax(-1).numpy() @ FLIPS
    best = corrected.validation_nll[0, corrected.best_epoch[0]]
    assert best == pytest.approx(-np.log(p[np.arange(3000), noisy]).mean(), rel=1e-5)
    straight = fit_heads(features, noisy, settings[:1], HeadPlan(epochs=1, transition=FLIPS, validation_is_noisy=False),
                         validation=(features, clean), progress=False)  # fmt: skip
    assert straight.validation_nll[0, 0] == pytest.approx(straight.scores(features, clean)[1][0], rel=1e-6)


def test_what_noise_a_row_gets(task):
    """Perturbations are those of sample ids: another order of rows is the same fit in one batch."""
    setting = HeadSetting(learning_rate=1e-2, gamma=0.5, lam=1.0, batch_size=100)
    wide, order = task[0].astype(np.float64), np.random.default_rng(0).permutation(90)
    one = fit_heads(wide, task[1], setting, progress=False)
    other = fit_heads(wide[order], task[1][order], setting, sample_ids=order, progress=False)
    close(one, other, atol=1e-10, rtol=1e-8)
    moved = fit_heads(wide, task[1], setting, sample_ids=order, progress=False)
    assert (one.parameters["weight"] - moved.parameters["weight"]).abs().max() > 1e-6


def test_relative_gamma_is_a_share_of_the_features_spread(task):
    spread = float(task[0].std(0).mean())
    relative = fit(task, head_grid(gamma=0.1, lam=0.3), HeadPlan(epochs=2, gamma_relative=True))
    absolute = fit(task, head_grid(gamma=0.1 * spread, lam=0.3), HeadPlan(epochs=2))
    torch.testing.assert_close(relative.parameters["weight"], absolute.parameters["weight"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"transition": FLIPS}], ids=str)
def test_few_rows_are_fitted_as_many_are(monkeypatch, options):
    """Batches of 4 rows of 30 features take `FewRowsForm`, and come out as they do without it."""
    draw = np.random.default_rng(2)
    features, labels, weights = draw.normal(size=(42, 30)), draw.integers(0, 3, 42), draw.random(42)
    settings = head_grid(learning_rate=(3e-2, 1e-2), lam=(0.1, 0.3), weight_decay=(0.0, 0.1), gamma=(1e-3, 0.6),
                         seed=range(2), batch_size=4)  # fmt: skip
    taken, form = [], heads_stack.FewRowsForm
    monkeypatch.setattr(heads_stack, "FewRowsForm", lambda *given: taken.append(1) or form(*given))

    def fitted():
        return fit_heads(features, labels, settings, HeadPlan(epochs=2, **options), sample_weight=weights,
                         progress=False)  # fmt: skip

    few = fitted()
    assert len(taken) == 2 * 11, "two epochs of 11 batches, the last of two rows"
    monkeypatch.setattr(heads_stack, "are_few", lambda *given: False)
    many = fitted()
    assert len(taken) == 2 * 11
    close(few, many, atol=1e-8, rtol=1e-6)
    np.testing.assert_allclose(few.train_penalty, many.train_penalty, rtol=1e-6)


@pytest.mark.parametrize("penalty", ["norm", "cosine"])
def test_the_ablations(task, penalty):
    wide = (task[0].astype(np.float64), *task[1:])
    plain, added = (fit(wide, head_grid(lam=lam, gamma=0.5), HeadPlan(penalty=penalty)) for lam in (0.0, 1.0))
    assert (added.train_penalty > 0).all()
    assert (plain.parameters["weight"] - added.parameters["weight"]).abs().max() > 1e-5


def test_stacks_are_of_one_batch_size_and_fit_into_memory(monkeypatch):
    plan, settings = HeadPlan(), head_grid(batch_size=(8, 16), lam=(0.0, 0.1, 0.2), seed=range(3))
    stacks = heads.stacked(settings, plan, 10)
    assert sorted(place for stack in stacks for row in stack for place in row) == list(range(18))
    assert sorted((len(stack), len(stack[0])) for stack in stacks) == [(3, 1), (3, 1), (3, 2), (3, 2)]
    for stack in stacks:
        assert len({settings[place].batch_size for row in stack for place in row}) == 1
        assert all(len({settings[place].seed for place in row}) == 1 for row in stack)
    monkeypatch.setattr(heads, "_MOST_WEIGHTS", 20)
    assert {len(stack) * len(stack[0]) for stack in heads.stacked(settings, plan, 10)} <= {1, 2}
    assert {len(stack) * len(stack[0]) for stack in heads.stacked(settings, plan, 1000)} == {1}


def test_diverged_heads_are_named(task, caplog):
    with caplog.at_level(logging.WARNING):
        fit(task, head_grid(learning_rate=(1e-3, 2e38), lam=0.1))
    assert "1 of 2 heads diverged" in caplog.text and "learning_rate=2e+38" in caplog.text


@pytest.mark.parametrize("kind", ["array", "tensor", "half", "list", "float64"])
def test_kinds_of_features(task, kind):
    features = {"array": task[0], "tensor": torch.from_numpy(task[0]), "half": torch.from_numpy(task[0]).half(),
                "list": task[0].tolist(), "float64": task[0].astype(np.float64)}[kind]  # fmt: skip
    found = fit_heads(features, task[1].tolist(), HeadSetting(), HeadPlan(epochs=1), progress=False)
    wanted = torch.float64 if kind in ("list", "float64") else torch.float32
    assert found.parameters["weight"].dtype == wanted
    assert found.logits(features).shape == (1, 90, 3)


def test_a_bar_shows_epochs(task, capfd):
    fit_heads(*task[:2], head_grid(batch_size=(8, 16)), HeadPlan(epochs=2))
    assert "heads: 100%" in capfd.readouterr().err


NAN = np.array([[1.0, np.nan], [0, 1]])
GOOD = {"features": np.eye(2), "labels": [0, 1], "settings": HeadSetting()}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"features": np.eye(3)}, ValueError, r"labels must be \[3\], one of each row of features, got \[2\]"),
        ({"features": NAN}, ValueError, "features must be finite, and row 0 holds NaN"),
        ({"features": np.ones(2)}, ValueError, r"features must be \[N, D\] with rows, got \[2\]"),
        ({"features": [["a"], ["b"]]}, TypeError, "features must be numbers"),
        ({"features": [np.ma.array([1.0, 2], mask=[0, 1]), [0, 1]]}, ValueError, "features is a masked array"),
        ({"sample_weight": torch.tensor([True, True])}, TypeError, "sample_weight must be real numbers"),
        ({"features": np.eye(2, dtype="f4"), "settings": HeadSetting(gamma=1e300, lam=1)}, ValueError,
         "gamma must be a number that torch.float32 holds"),
        ({"labels": [1, 1]}, ValueError, r"labels hold one class only \(1\)"),
        ({"labels": [0, -1]}, ValueError, r"labels must lie in \[0, C\), got -1"),
        ({"labels": [0, 1.5]}, TypeError, "labels must be integers"),
        ({"labels": [0, 2], "num_classes": 2}, ValueError, r"labels must lie in \[0, 2\), got 2"),
        ({"sample_weight": [1.0, 0.0]}, ValueError, "labels hold one class only"),
        ({"sample_weight": [1.0, -1.0]}, ValueError, "sample_weight must be finite, >= 0 and not all 0"),
        ({"sample_weight": [1.0]}, ValueError, r"sample_weight must be \[2\]"),
        ({"sample_ids": [1]}, ValueError, r"sample_ids must be \[2\]"),
        ({"validation": np.eye(2)}, TypeError, r"validation must be \(features, labels\)"),
        ({"validation": (np.eye(3), [0, 1, 0])}, ValueError, r"features of validation must be \[N, 2\]"),
        ({"validation": (np.eye(2), [0])}, ValueError, "labels of validation must be"),
        ({"settings": []}, ValueError, "settings must name one setting at least"),
        ({"settings": [1]}, TypeError, "settings must be a list of HeadSetting, got 1"),
        ({"settings": {"lam": 1}}, TypeError, "settings must be a list of HeadSetting, got dict"),
        ({"plan": HeadPlan(transition=FLIPS)}, ValueError, "transition has 3 classes, the labels 2"),
        ({"plan": 3}, TypeError, "plan must be a HeadPlan"),
        ({"device": "moon"}, ValueError, "device must be a device that torch can use here"),
    ],
)
def test_what_is_refused(changed, error, message):
    with pytest.raises(error, match=message):
        fit_heads(**GOOD | changed, progress=False)


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda: HeadSetting(gamma=-1), ValueError, "gamma must"),
        (lambda: HeadSetting(lam=-1), ValueError, "lam must"),
        (lambda: HeadSetting(learning_rate=0), ValueError, "learning_rate must"),
        (lambda: HeadSetting(batch_size=0), ValueError, "batch_size must be >= 1"),
        (lambda: HeadSetting(seed=1.0), TypeError, "seed must be an integer"),
        (lambda: HeadPlan(head="tree"), ValueError, "head must be one of 'linear', 'mlp', got 'tree'"),
        (lambda: HeadPlan(hidden=3), ValueError, "hidden=3 is of head=\"mlp\""),
        (lambda: HeadPlan(transition=np.ones((2, 2))), ValueError, "row 0 of the transition matrix sums to 2"),
        (lambda: HeadPlan(epochs=0), ValueError, "epochs must be >= 1"),
        (lambda: HeadPlan(patience=0), ValueError, "patience must be >= 1"),
        (lambda: head_grid(lam=()), ValueError, "lam has no value"),
        (lambda: head_grid(alpha=1), TypeError, "a setting of a head has no alpha; known: learning_rate"),
        (lambda: HeadPlan(patience=3) and fit_heads(**GOOD, plan=HeadPlan(patience=3), progress=False), ValueError,
         "patience=3 stops by validation rows"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(made, error, message):
    with pytest.raises(error, match=message):
        made()
