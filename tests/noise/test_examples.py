"""The examples in the docstrings of `hf_noise.noise` run as printed."""

import doctest
import importlib
import pkgutil

import pytest

import hf_noise.noise

MODULES = [f"hf_noise.noise.{module.name}" for module in pkgutil.iter_modules(hf_noise.noise.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= 8
