"""What all objectives have in common: names, dictionaries, sentences, and that they are found by their files."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

import hf_noise
from hf_noise import objectives
from hf_noise.objectives import (
    DSM,
    GCE,
    LGM,
    NLL,
    TDSM,
    Corrected,
    CorrectedLabels,
    CrossEntropy,
    DocumentMixture,
    ErrorNorm,
    Objective,
    SequenceMixture,
    Smoothed,
    Truncated,
    VolumePlan,
    objective_from_dict,
)
from hf_noise.objectives.base import objective_named, objective_of_record

ALL = [
    NLL(), Corrected(), Corrected("learned"), Corrected(0.25), CrossEntropy(), CorrectedLabels(),
    CorrectedLabels(np.full((3, 3), 1 / 3)), CorrectedLabels("estimated", VolumePlan.paper()), DSM(),
    TDSM(tau=0.1, weights="inverse", transition=[[0.9, 0.1], [0.2, 0.8]]), TDSM(chunk=4, grad_classes="all"),
    DocumentMixture(), DocumentMixture("learned", "unigram"), DocumentMixture(0.05, start=0), Smoothed(), Smoothed(0),
    SequenceMixture(), SequenceMixture("learned", "learned"), SequenceMixture(0.5, "teacher", "scores", memory=7),
    Truncated(0.25), Truncated(drops="rows", memory=3), ErrorNorm(1.3, start=0), GCE(0.3),
    LGM(), LGM(0.1, 0.0, True, [[0.9, 0.1], [0.2, 0.8]], "cosine", 3), LGM(transition="known", penalty="norm"),
]  # fmt: skip


@pytest.fixture
def shrunk(monkeypatch):
    """An objective of a user's own, known while the test runs."""
    known = dict(objectives.base._OBJECTIVES)
    monkeypatch.setattr(objectives.base, "_OBJECTIVES", known)

    @dataclass(frozen=True)
    class Shrunk(Objective):
        """Half the likelihood of each target, for a test."""

        share: float = 0.5

        name = "shrunk"
        unit = "tokens"

        def __call__(self, nll):
            return self.share * nll

    return Shrunk


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_an_objective_travels_as_json_and_as_a_pickle(objective):
    stored = json.loads(json.dumps(objective.to_dict()))
    assert (stored["unit"], stored["name"]) == (objective.unit, objective.name)
    for again in (objective_from_dict(stored), pickle.loads(pickle.dumps(objective))):
        assert again == objective and hash(again) == hash(objective)
    assert objective.sentence.endswith(".") and "\n" not in objective.sentence


def test_all_objectives_of_the_package_are_found_by_their_files():
    found = {cls.__name__ for cls in objectives.objectives() if cls.__module__.startswith("hf_noise.")}
    assert found >= {type(objective).__name__ for objective in ALL}
    assert found <= set(objectives.__all__)
    assert hf_noise.Corrected is Corrected and "TDSM" in dir(hf_noise)
    with pytest.raises(AttributeError, match="Correct"):
        hf_noise.Correct  # noqa: B018


def test_an_objective_of_ones_own_needs_no_edit(shrunk):
    assert objective_named("shrunk", "tokens") == shrunk() == objective_from_dict(shrunk().to_dict())
    record = {"name": "shrunk", "objective": shrunk(0.25).to_dict()}
    assert objective_of_record("causal_lm", record) == shrunk(0.25)
    assert shrunk().told(record, "causal_lm") == "half the likelihood of each target, for a test."
    assert shrunk().bound(None) is not None and shrunk().claims()["objective"]["share"] == 0.5
    with pytest.raises(TypeError, match="two objectives on tokens are called 'shrunk'"):

        class Other(Objective):
            name = "shrunk"
            unit = "tokens"


@pytest.mark.parametrize(
    ("loss", "unit", "error", "message"),
    [
        ("huber", "tokens", ValueError, 'loss must be .*"nll".* "corrected".*, got \'huber\''),
        (None, "images", ValueError, 'loss must be .*"dsm".* "tdsm".*, got None'),
        (NLL(), "labels", TypeError, "must be an objective on labels, NLL is one on tokens; known: .*CrossEntropy"),
        (NLL, "tokens", TypeError, r"got the class NLL; call it: NLL\(\)"),
    ],
)
def test_a_loss_that_is_none_is_named(loss, unit, error, message):
    with pytest.raises(error, match=message):
        objective_named(loss, unit)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ([], TypeError, "an objective is stored as a dictionary"),
        ({"unit": "tokens", "name": "huber"}, ValueError, r"unknown objective 'huber' on 'tokens'.*nll \(tokens\)"),
        ({"unit": "tokens", "name": ["nll"]}, ValueError, "unknown objective"),
        ({"unit": "tokens", "name": "nll", "rate": 1}, ValueError, "'nll' has no field rate"),
        ({"unit": "images", "name": "tdsm", "tau": 2}, ValueError, r"tau must lie in \[0, 1\), got 2"),
    ],
)
def test_a_dictionary_that_is_no_objective_is_named(config, error, message):
    with pytest.raises(error, match=message):
        objective_from_dict(config)


@pytest.mark.parametrize(
    ("knob", "error"),
    [
        ({"tau": 1.0}, "tau must lie in"), ({"temperature": 0}, "temperature must be finite and > 0"),
        ({"renormalise": 1}, "renormalise must be True or False"), ({"chunk": 0}, "chunk must lie in"),
        ({"weights": "best"}, "weights must be"), ({"grad_classes": "none"}, "grad_classes must be"),
    ],
)  # fmt: skip
def test_knobs_of_tdsm_out_of_range_are_named(knob, error):
    with pytest.raises((TypeError, ValueError), match=error):
        TDSM(**knob)


def test_records_without_an_objective_name_one():
    """As records were before objectives were values."""
    assert objective_of_record("causal_lm", {"name": "corrected", "error_rate": 0.5}) == Corrected()
    assert objective_of_record("noisy_classification", {"name": "nll"}) == CrossEntropy()
    assert objective_of_record("class_conditional_generation", {"name": "tdsm", "tau": 0.5}) == TDSM()
    assert objective_of_record("causal_lm", {"name": "of another version"}) is None
    assert objective_of_record("causal_lm", {"name": "x", "objective": {"unit": "tokens", "name": "x"}}) is None
    with pytest.raises(ValueError, match="has no field"):
        objective_of_record("causal_lm", {"name": "nll", "objective": {**NLL().to_dict(), "rate": 1}})


def test_sentences_say_where_the_rate_is_from():
    told = Corrected().told
    assert told({"error_rate": 0.5, "source": "known"}, "causal_lm").endswith("with e = 0.5 (known).")
    assert told({"error_rate": None, "source": "learned"}, "causal_lm").endswith("e learned with the model (learned).")
    assert Corrected(0.25).sentence.endswith("with e = 0.25 (assumed).")
    of_noisy = CorrectedLabels().told({"source": "estimated"}, "noisy_classification")
    assert "T is estimated" in of_noisy and "every level" in of_noisy
    assert NLL().told({}, "causal_lm", 0) == CrossEntropy().told({}, "image_classification", 0)
    assert "no noise to be told of" in NLL().told({}, "causal_lm", 0)
