"""`plan_tokens`: clean NLL from noisy NLL and e, against runs that paper A publishes and a model that is exact."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from hf_noise.analysis.nll_floor import calibration_floor
from hf_noise.audit import Measured, plan_tokens
from hf_noise.audit.token_plan import LAW_MISS
from hf_noise.noise.rates import error_rate
from hf_noise.objectives import NLL, Corrected

#: Paper A, table 8, GPT-2 at fixed compute: r, NLL on noisy training batches, NLL on clean text.
TABLE_8 = ((0.1, 3.8744, 2.9758), (0.3, 5.3622, 3.1646), (0.5, 6.2423, 3.3455), (1.0, 7.6048, 3.6525))


def test_paper_a_is_inside_and_no_wider_than_it_must_be():
    misses = []
    for r, noisy, clean in TABLE_8:
        given = plan_tokens(error_rate(r), nll=noisy, vocab_size=50257).options[0].nll
        assert given.low <= clean <= given.high
        misses.append(abs(given.value - clean))
    assert 0.95 * LAW_MISS < max(misses) <= LAW_MISS


def test_an_exact_model_reaches_what_is_promised():
    """Of one context with likely tokens: q = (1 - e) p + e / V, whose NLL on noisy and clean targets is summed out."""
    size, e = 4000, 0.3
    p = np.r_[np.full(10, 0.1), np.zeros(size - 10)]
    noisy = (1 - e) * p + e / size
    plan = plan_tokens(e, nll=float(-(noisy * np.log(noisy)).sum()), vocab_size=size)
    given, corrected, more = plan.options
    assert given.nll.value == pytest.approx(-(p[:10] * np.log(noisy[:10])).sum(), abs=0.01)
    assert corrected.nll.value == pytest.approx(math.log(10), abs=0.01)
    assert corrected.difference.value == pytest.approx(-calibration_floor(e))
    assert more.tokens == pytest.approx(1 / 0.7) and more.nll is None
    assert plan.best == "corrected" and plan.is_clear and plan.objective() == Corrected(error_rate=0.3)


def test_the_interval_of_e_is_in_that_of_the_nll():
    sure = plan_tokens(0.3, nll=6.0, vocab_size=50257)
    wide = plan_tokens(Measured(0.3, 0.0, 0.45, "counted"), nll=6.0, vocab_size=50257)
    for one, other in zip(sure.options[:2], wide.options[:2], strict=True):
        assert other.nll.low < one.nll.low < one.nll.value == other.nll.value
    assert not wide.is_clear and "no option is clearly better" in wide.summary()
    assert wide.options[1].nll.high == pytest.approx(6.0 + LAW_MISS)  # were no token wrong, the model would be that bad
    unknown = plan_tokens(Measured(0.3, 0.0, 1.0, "nothing is known"), nll=6.0, vocab_size=50257)
    assert all(np.isfinite(one.nll).all() for one in unknown.options[:2])


def test_little_noise_is_no_clear_case():
    """Of a twentieth of wrong tokens plain training costs 0.05 nats at most, and the laws were wrong by more."""
    few, many = (plan_tokens(e, nll=6.5, vocab_size=50257) for e in (0.05, 0.2))
    assert few.best == many.best == "corrected" and not few.is_clear and many.is_clear
    assert few.options[1].difference.low == few.options[1].difference.value == -calibration_floor(0.05)
    assert few.options[1].difference.high == pytest.approx(LAW_MISS - calibration_floor(0.05))


def test_no_noise_needs_no_cure():
    plan = plan_tokens(0.0, nll=3.0, vocab_size=100)
    assert plan.best == "given" and not plan.is_clear and plan.objective() == NLL()
    assert plan.options[0].nll.value == plan.options[1].nll.value == 3.0
    told = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    assert told["best"] == "given" and told["options"][2]["nll"] is None
    assert "not predicted" in plan.summary() and "table 8" not in plan.best


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"error_rate": 1.0}, ValueError, "error_rate must lie in"), ({"error_rate": "a"}, TypeError, "error_rate"),
        ({"nll": 1.0}, ValueError, "is below 3.858, what 30.0% of wrong tokens among 50257 cost a perfect model"),
        ({"nll": math.inf}, ValueError, "nll must be finite"), ({"nll": None}, TypeError, "nll"),
        ({"vocab_size": 1}, ValueError, "vocab_size"), ({"vocab_size": 5.0}, TypeError, "vocab_size"),
    ],
)  # fmt: skip
def test_bad_calls_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        plan_tokens(**{"error_rate": 0.3, "nll": 6.0, "vocab_size": 50257} | changes)
