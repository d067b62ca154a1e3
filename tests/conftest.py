"""Every test runs offline, with empty caches of its own, on one thread per operation.

The environment is set while this file is imported: the libraries read it once, when they are imported.
"""

from __future__ import annotations

import atexit
import gc
import html
import ipaddress
import os
import re
import shutil
import socket
import subprocess
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


@pytest.fixture
def browsed(tmp_path):
    """A file -> its document after all scripts ran, in a real browser of that width."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine to open the page in")

    def document(file: Path, width: int = 1400) -> str:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
                   f"--window-size={width},900", "--dump-dom", file.as_uri()]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout

    return document


@pytest.fixture
def told_at_widths(browsed, tmp_path):
    """A page, and a script that pushes words to `parent.told` -> these words of a desk and of a phone, in this order.

    Frames have the widths, because a window has a least one.
    """

    def told(page: str, script: str) -> list[list[str]]:
        framed = html.escape(page.replace("</body>", f"<script>{script}</script></body>"))
        frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{framed}"></iframe>' for width in (390, 1280))
        file = tmp_path / "frames.html"
        file.write_text(
            f"<!doctype html><meta charset=utf-8><script>told = []; onload = () => document.body.append("
            f"Object.assign(document.createElement('pre'), {{textContent: told.sort().join(';')}}))</script>{frames}",
            encoding="utf-8",
        )
        found = re.search("<pre>(.*?)</pre>", browsed(file))[1]
        return [line.split(",") for line in found.split(";")]

    return told
