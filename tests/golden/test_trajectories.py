"""What each trainer computes does not change when its code moves: fifty steps against those that were committed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("golden_trajectories", Path(__file__).parent / "trajectories.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

KNOWN = json.loads(golden.FILE.read_text(encoding="utf-8"))
# float32 sums in another order, on another processor, differ in their last digits, and 50 steps carry that on.
SAME = {"rel": 2e-4, "abs": 2e-5}


def test_every_trajectory_is_committed():
    assert set(KNOWN) == set(golden.RUNS)


@pytest.mark.parametrize("name", golden.RUNS)
def test_trajectory_is_the_committed_one(name, tmp_path):
    found, known = golden.trajectory(name, tmp_path), KNOWN[name]
    assert found["realised"] == known["realised"]
    assert [entry.keys() for entry in found["log"]] == [entry.keys() for entry in known["log"]]
    for part in ("evaluation", "weights"):
        assert found[part] == pytest.approx(known[part], **SAME), part
    for step, (entry, was) in enumerate(zip(found["log"], known["log"], strict=True)):
        assert entry == pytest.approx(was, **SAME), f"log entry {step}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("language-nll", "language-corrected"), ("masked-nll", "masked-corrected"), ("pairs-nll", "pairs-mixture"),
        ("text-nll", "text-estimated"), ("text-nll", "text-elr"), ("text-nll", "text-co-teaching"),
        ("classifier-nll", "classifier-corrected-mixup"), ("noisy-images-known", "noisy-images-estimated"),
        ("diffusion-dsm", "diffusion-tdsm"),
    ],
)  # fmt: skip
def test_a_loss_and_its_cure_differ(one, other):
    """A trajectory that did not depend on the loss would hold nothing fast."""
    losses = [[entry["loss"] for entry in KNOWN[name]["log"]] for name in (one, other)]
    assert losses[0] != pytest.approx(losses[1], rel=10 * SAME["rel"])
