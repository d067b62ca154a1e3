"""The names of `hf_noise.diffusion`."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

from hf_noise import diffusion


def test_every_name_is_found_where_it_is_said_to_be():
    for name, module in diffusion._WHERE.items():
        found = importlib.import_module(f"hf_noise.diffusion.{module}")
        assert getattr(diffusion, name) is getattr(found, name) and name in found.__all__
    assert set(diffusion.__all__) <= set(dir(diffusion))
    modules = {module.name for module in pkgutil.iter_modules(diffusion.__path__)}
    assert "pipeline_edm" in modules and not modules & set(diffusion.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'EDMPipelines'"):
        diffusion.EDMPipelines  # noqa: B018


def test_naming_the_floor_loads_no_framework():
    code = "import hf_noise, sys; dir(hf_noise.diffusion); print(*sorted({'torch', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
