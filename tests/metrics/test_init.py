"""The names of `hf_noise.metrics`."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from hf_noise import metrics


def test_every_name_is_found_where_it_is_said_to_be():
    for name, module in metrics._WHERE.items():
        assert getattr(metrics, name).__module__ == f"hf_noise.metrics.{module}"
        assert name in importlib.import_module(f"hf_noise.metrics.{module}").__all__
    assert set(metrics.__all__) <= set(dir(metrics))


def test_no_module_takes_the_place_of_a_function():
    modules = {module.name for module in pkgutil.iter_modules(metrics.__path__)}
    assert {"audit", "calibration", "marginal"} <= modules
    assert not modules & set(metrics.__all__)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'marginal_js'"):
        metrics.marginal_js  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'marginal_js'"):
        from hf_noise.metrics import marginal_js  # noqa: F401
