"""Recipes are scripts: they are imported as Python would import them when it runs one."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))


@pytest.fixture(scope="session", autouse=True)
def one_core():
    """Tests run beside each other, so a recipe must not take all cores for its tiny network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.take_back_cores", lambda: 1)
        yield
