"""Two real processes train and evaluate the time-dependent classifier as one process with twice the batch does."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("time_classifier_processes.py")
SPEC = importlib.util.spec_from_file_location("time_classifier_processes", SCRIPT)
shared = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(shared)


def test_two_processes_equal_one(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, SCRIPT, tmp_path], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "[rank" in line)
    expected, _ = shared.train(tmp_path / "one", 8, "estimated")
    for rank in (0, 1):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found["evaluation"] == pytest.approx(expected["evaluation"], abs=1e-5)
        for ours, one in zip(found["log"], expected["log"], strict=True):
            assert ours == pytest.approx(one, rel=1e-5)
        np.testing.assert_allclose(found["transition"], expected["transition"], atol=1e-5)
