"""The examples in the docstrings of `hf_noise.analysis` run as printed."""

import doctest
import importlib
import pkgutil

import pytest

import hf_noise.analysis

MODULES = [f"hf_noise.analysis.{module.name}" for module in pkgutil.iter_modules(hf_noise.analysis.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
