"""Studies run in this process, on one core."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def one_core():
    """A recipe takes all cores it finds; beside other tests that is one for it and for the processes it starts."""
    if not hasattr(os, "sched_setaffinity"):  # only Linux has it
        yield
        return
    before = sorted(os.sched_getaffinity(0))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {before[worker % len(before)]})
    yield
    os.sched_setaffinity(0, before)
