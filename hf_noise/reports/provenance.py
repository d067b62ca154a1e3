"""Where a figure comes from: command, versions, hardware, commit; and what must never stand in a record.

A record is published with the checkpoint, so every string that enters one goes through `portable`: no token,
no folder of the user's machine. Nothing here imports a heavy package or reads an environment variable.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from .secrets import REMOVED, is_secret_name, portable, without_secret_arguments

# NAME=value, also of Hydra's overrides; Name: value. A value goes whole, with all spaces and quotes in it.
_NAMED = re.compile(r"([+~]*([A-Za-z_][\w./-]*)\s*(?:=|:(?!//))\s*)(.+)", re.DOTALL)

#: What setup.cfg calls the command of the package, which is started without `python`.
CONSOLE_SCRIPT = "hf-noise"

PACKAGES = (
    "hf_noise",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "huggingface_hub",
    "tokenizers",
    "safetensors",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "diffusers",
    "timm",
    "evaluate",
)


def command_line(argv: list[str] | None = None) -> str:
    """The command as one shell line that can be typed again: script and arguments, credentials left out.

    A flag whose name says that it takes a credential goes with all its values, `NAME=value` keeps its name.
    """
    if argv is None:
        module = started_module()
        argv = sys.argv if module is None else ["-m", module, *sys.argv[1:]]
    if not isinstance(argv, list | tuple) or not all(isinstance(argument, str) for argument in argv):
        raise TypeError(f"argv must be a list of texts, as sys.argv is, got {argv!r:.80}")
    before = [] if [*argv[:1]] == [CONSOLE_SCRIPT] else ["python"]
    return shlex.join([*before, *map(_shown, without_secret_arguments(argv))])


def started_module() -> str | None:
    """The package that was started, as of `python -m hf_noise.studies.language`; None where it was a file."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    is_module = spec is not None and spec.name.endswith(".__main__") and Path(sys.argv[0]).name == "__main__.py"
    return spec.parent if is_module else None


def _shown(argument: str) -> str:
    """An argument without credentials and folders; one that gives a secret its value keeps the name alone."""
    flag, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    named = _NAMED.fullmatch(value)
    if named and is_secret_name(named[2]):
        return f"{flag}{equals}{named[1]}{REMOVED}"
    return flag + equals + portable(value) if equals else portable(argument)


def versions() -> dict[str, str]:
    """Python and the installed ones among `PACKAGES`, read from package metadata without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> dict[str, object]:
    """CPU model, usable cores, memory in GiB and the names of visible GPUs; no host or user name.

    GPUs are asked of torch only if the run has imported it: a record must not be the reason to load torch.
    """
    found: dict[str, object] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": available_cores(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Commit of the source tree hf_noise runs from, with `-dirty` if files differ; None if installed.

    A virtual environment may lie inside somebody else's repository: the commit counts only if git tracks this
    file.
    """
    here = Path(__file__).resolve()
    try:
        for arguments in (["ls-files", "--error-unmatch", here.name],
                          ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]):  # fmt: skip
            done = subprocess.run(
                ["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10
            )
            if done.returncode:
                return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()


def now() -> str:
    """Time in UTC, ISO 8601, whole seconds: `2025-01-31T12:00:00+00:00`."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
