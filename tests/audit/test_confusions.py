"""Confusions by hand, and parts of what is told."""

from __future__ import annotations

import numpy as np

from hf_noise.audit.confusions import largest_confusions
from hf_noise.audit.measured import parts_of, told_parts


def test_confusions_by_hand():
    transition, prior = [[0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.25, 0.25, 0.5]], [0.5, 0.3, 0.2]
    found = largest_confusions(transition, prior, 10)
    assert [(one.true, one.given) for one in found] == [(0, 1), (2, 0), (2, 1), (1, 0)]
    np.testing.assert_allclose([one.share for one in found], [0.1, 0.05, 0.05, 0.03])
    assert largest_confusions(np.array(transition), prior, 2) == found[:2]
    assert largest_confusions(transition, prior, 10, least=0.04) == found[:3]
    assert largest_confusions(np.eye(3), prior, 10) == []
    every = largest_confusions(np.eye(3), prior, 100, least=0)
    assert len(every) == 6 and not any(one.true == one.given for one in every)


def test_parts_are_told_and_read():
    assert parts_of(told_parts(["a", "b", "c"])) == ["a", "b", "c"]
    assert parts_of(told_parts(["a", "mind; this", "b"]), ["mind; this"]) == ["a", "b"]
