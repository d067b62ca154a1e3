"""The generator of bad calls: what it takes for a finding, that its checkers can fail, and some of its calls."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import bad_calls  # noqa: E402  (tests are no package: the line above makes it importable)
from bad_readers import Unconfirmed, close, confirm, ints, number, reals, same, whole  # noqa: E402

from hf_noise.noise.checks import check_real  # noqa: E402

CALLS = 2000
PARTS = 4
TARGETS = bad_calls.load()
MASKED = np.ma.array([1], mask=[True])


@pytest.mark.parametrize("part", range(PARTS))
def test_a_bad_call_ends_in_a_right_result_or_in_an_error_that_says_what_is_wrong(part):
    each = CALLS // PARTS
    found = bad_calls.run(TARGETS, each, seed=0, start=part * each)
    assert not [bad_calls.shown(outcome) for outcome in found if outcome.kind in bad_calls.FINDINGS]
    # Neither is everything refused, nor everything as good as before.
    assert 0.05 < sum(outcome.kind == "result" for outcome in found) / each < 0.4


def nudged(result):
    """Results that are a little wrong: one number or text of it changed."""
    if isinstance(result, bool | np.bool_):
        yield not result
    elif isinstance(result, int | np.integer):
        yield result + 1
    elif isinstance(result, float | np.floating):
        yield result + 1e-2 if np.isfinite(result) else 0.5
    elif isinstance(result, str):
        yield result + "|"
    elif isinstance(result, np.ndarray | torch.Tensor) and len(result.reshape(-1)):
        changed = result.detach().clone() if isinstance(result, torch.Tensor) else result.copy()
        changed.reshape(-1)[0] = next(nudged(changed.reshape(-1)[0].item()))
        yield changed
    elif isinstance(result, dict | list | tuple):
        names = list(result) if isinstance(result, dict) else range(len(result))
        for name in names:
            for value in nudged(result[name]):
                changed = dict(result) if isinstance(result, dict) else list(result)
                changed[name] = value
                yield tuple(changed) if isinstance(result, tuple) else changed
    elif hasattr(result, "__dict__") and not isinstance(result, torch.nn.Module):
        for name, value in vars(result).items():
            for other in nudged(value) if not name.startswith("_") else ():
                changed = copy.copy(result)
                object.__setattr__(changed, name, other)
                yield changed


#: Targets of which more than their results is looked at: files, weights, the arguments alone.
OPAQUE = (
    "metrics.inception_name", "metrics.weights_hash", "metrics.FeatureStatistics.merge", "metrics.judge_extractor",
    "recipes.sample_edm", "recipes.publish_dataset",
)  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_valid_calls_are_confirmed_and_nothing_near_their_results(target):
    near, refuted = 0, 0
    for index in range(6):
        arguments = target.make(np.random.default_rng(index))
        try:
            result = target.call(**arguments)
        except (ValueError, RuntimeError):
            assert target.name in ("metrics.FeatureStatistics.load", "losses.token_nll")
            return
        target.check(arguments, result)
        for wrong in nudged(result):
            near, refuted = near + 1, refuted + _refuted(target, arguments, wrong)
    assert near == 0 or target.name in OPAQUE or refuted >= 0.7 * near, f"{refuted} of {near}"


def _refuted(target, arguments, result):
    try:
        with bad_calls.quiet():
            target.check(arguments, result)
    except Exception:  # as the generator counts it
        return True
    return False


def judged(call, check=lambda given, result: None, value=1, **options):
    target = bad_calls.Target("t", call, lambda draw: {"share": 0.5}, check, **options)
    return bad_calls.judge(target, {"share": value}, {"share": value}).kind


def raise_without_name(share):
    raise ValueError("no")


def test_what_counts_as_a_finding():
    assert judged(lambda share: share) == "result"
    assert judged(lambda share: check_real("share", share)) == "result"
    assert judged(lambda share: check_real("share", share), value="x") == "refused"
    assert judged(lambda share: check_real("rate", share), value=[]) == "refused", "the value is in the message"
    assert judged(lambda share: check_real("rate", {}), value=[7]) == "unnamed"
    assert judged(lambda share: check_real("rate", {}), value=[7], words={"share": ("rate",)}) == "refused"
    assert judged(raise_without_name) == "raw", "a raise of another file than the package's"
    assert judged(lambda share: np.zeros(2) @ np.zeros(3)) == judged(lambda share: torch.zeros(2)[5]) == "raw"
    assert judged(lambda share: {}["share"]) == "raw"
    assert judged(lambda share: share, check=lambda given, result: confirm(False, "wrong")) == "silent"
    assert judged(lambda share: share.sort(), value=[2, 1], check=lambda given, result: None) == "silent", "changed"


def test_limits():
    with pytest.raises(bad_calls.TookTooLong), bad_calls.limits(seconds=0.05):
        while True:
            pass
    with pytest.raises(MemoryError), bad_calls.limits(memory=1 << 28):
        np.ones(1 << 27)
    np.ones(1 << 10)


def test_a_call_can_be_made_again():
    one, other = (bad_calls.drawn_call(TARGETS, 3, 17) for _ in range(2))
    assert one[0].name == other[0].name and repr(one[1]) == repr(other[1]) and list(one[2]) == list(other[2])
    names = [bad_calls.drawn_call(TARGETS, 3, index)[0].name for index in range(60)]
    assert len(set(names)) > 30
    kept = dataclasses.replace(TARGETS[0], make=lambda draw: {"_noise": 1, "epoch": 2})
    assert all(set(bad_calls.drawn_call([kept], 0, index)[2]) == {"epoch"} for index in range(20))


def test_main_counts_and_repeats(capsys):
    assert bad_calls.main(["--calls", "40", "--targets", "noise.rates"]) == 0
    assert "seed 0, 40 calls of 4 targets" in capsys.readouterr().out
    with pytest.raises((TypeError, ValueError)):
        for index in range(40):
            bad_calls.main(["--only", str(index), "--targets", "noise.rates"])
    assert "noise.rates" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value", [1.0, True, "1", 1j, None, np.array(1.0), MASKED, [1, [2]], [1.5], [True], torch.tensor(True)]
)
def test_strict_readers_refuse_what_is_no_integer(value):
    with pytest.raises(Unconfirmed):
        ints(value)
    with pytest.raises(Unconfirmed):
        whole(value)


def test_strict_readers_read():
    unsigned = torch.tensor([[1, 2]], dtype=torch.uint64)
    for value in ([[1, 2]], np.array([[1, 2]], dtype=">u2"), unsigned, [np.array([1, 2])]):
        assert ints(value).tolist() == [[1, 2]]
    assert ints(np.array([2**64 - 1], dtype=np.uint64)).tolist() == [2**64 - 1]
    assert reals(torch.tensor([0.5], dtype=torch.bfloat16)).tolist() == [0.5] and number(np.float16(0.5)) == 0.5
    same({"a": [1, np.nan]}, {"a": np.array([1, np.nan])})
    close([1.0, np.inf], [1.0 + 1e-9, np.inf])
    for found, expected in (([1], [2]), ({"a": 1}, {"b": 1}), ([1], [1, 1]), ([np.nan], [1.0])):
        with pytest.raises(Unconfirmed):
            same(found, expected)
