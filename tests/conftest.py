"""Every test runs offline, with empty caches of its own, on one thread per operation.

The environment is set while this file is imported: the libraries read it once, when they are imported.
"""

from __future__ import annotations

import atexit
import gc
import ipaddress
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_CACHE = tempfile.mkdtemp(prefix="hf_noise-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

os.environ.update(
    HF_HOME=f"{_CACHE}/hf",
    HF_NOISE_CACHE=f"{_CACHE}/hf_noise",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)
for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_TOKEN", "HF_ENDPOINT"):
    os.environ.pop(name, None)
# Tiny networks: a second thread costs more than it gains, and sums stay in one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """What imports made stays: accelerate collects garbage before each training, which takes 0.3 s of a tiny one."""
    gc.collect()
    gc.freeze()


class OutsideNetworkError(OSError):
    """A test tried to leave this machine."""


def _check_address(address: object) -> None:
    if not isinstance(address, tuple):  # a path: a Unix socket
        return
    host = str(address[0])
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host in ("localhost", "")
    if not is_local:
        raise OutsideNetworkError(f"tests do not use the network, and this one asked for {host}")


def _guarded(connect):
    def checked(self, address):
        _check_address(address)
        return connect(self, address)

    return checked


@pytest.fixture(scope="session", autouse=True)
def no_outside_network():
    """Sockets of this process reach this machine alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))
        yield


#: What launchers tell a process of its place among others; accelerate writes them too, where one of them says so.
_OF_PROCESSES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone_among_processes():
    """A test that leaves word of other processes behind fails, and not all those after it."""
    before = {name: os.environ.get(name) for name in _OF_PROCESSES}
    yield
    left = {name: os.environ.get(name) for name in _OF_PROCESSES if os.environ.get(name) != before[name]}
    for name in left:
        os.environ.pop(name, None)
        if before[name] is not None:
            os.environ[name] = before[name]
    if left:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        pytest.fail(f"the environment of the process says {left} after this test and {before} before")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real corpora and tokenizers: HF_NOISE_TEST_DATA, else `../shared/data` beside the repository."""
    folder = Path(os.environ.get("HF_NOISE_TEST_DATA") or _ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; HF_NOISE_TEST_DATA names the folder with the test corpora")
    return folder


@pytest.fixture(scope="session")
def paper_tables(shared_data: Path) -> dict:
    """Tables of the papers by their id, from `papers/tables.yaml` beside the folder with the test corpora."""
    import yaml

    path = shared_data.parent / "papers" / "tables.yaml"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return {table["id"]: table for table in yaml.safe_load(path.read_text(encoding="utf-8"))["tables"]}
