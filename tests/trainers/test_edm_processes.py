"""Two real processes train the EDM network as one process with twice the batch does."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("edm_two_processes.py")
SPEC = importlib.util.spec_from_file_location("edm_two_processes", SCRIPT)
one_process = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(one_process)


def test_same_losses_and_average(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, SCRIPT, tmp_path], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected, weights = one_process.train(tmp_path / "one", one_process.BATCH)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found["realised"] == expected["realised"]
        assert found["evaluation"] == pytest.approx(expected["evaluation"], rel=1e-5)
        for ours, one in zip(found["log"], expected["log"], strict=True):
            assert ours == pytest.approx(one, rel=1e-5)
    for name, weight in load_file(tmp_path / "average.safetensors").items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-5)
