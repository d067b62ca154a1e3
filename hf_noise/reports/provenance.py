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

_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}\b")  # `hf_noise` and `hf_noise_x` are no tokens
_SECRET_NAME = re.compile(r"(?:^|_)(?:token|password|secret|api_key)$")
_VOCABULARY_NAME = re.compile(r"(?:^|_)(?:bos|eos|pad|unk|sep|cls|mask|start|text)_token$")
# An absolute path of two parts or more that starts a word: neither `tokens/s`, `user/repo` nor
# `https://host/a/b`.
_ABSOLUTE = re.compile(r"""(?<![\w.:/~\\-])(?:~|/(?=[^\s/'",;]+/)|[A-Za-z]:[\\/])[^\s'",;]+""")


def is_secret_name(name: str) -> bool:
    """Whether a flag or key of this name holds a credential: `hub_token`, but not `eos_token` or `tokens`."""
    name = name.lstrip("-").replace("-", "_").lower()
    return bool(_SECRET_NAME.search(name)) and not _VOCABULARY_NAME.search(name)


def portable(text: str) -> str:
    """The text without tokens and without folders of this machine.

    Paths below the working directory become relative to it, other absolute paths keep their last part only.
    """

    def relative(match: re.Match) -> str:
        path = os.path.expanduser(match[0])
        inside = os.path.relpath(path, os.getcwd()) if os.path.isabs(path) else ".."
        return re.split(r"[\\/]", path.rstrip("\\/"))[-1] if inside.startswith("..") else inside

    return _ABSOLUTE.sub(relative, _TOKEN.sub("<removed>", text))


def command_line(argv: list[str] | None = None) -> str:
    """The command as one shell line that can be typed again: script and arguments, credentials left out."""
    argv = list(sys.argv if argv is None else argv)
    kept: list[str] = []
    skip_value = False
    for argument in argv:
        flag, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
        if skip_value and not flag:
            skip_value = False
            continue
        is_secret = is_secret_name(flag)
        skip_value = is_secret and not equals
        if not is_secret:
            kept.append(flag + equals + portable(value))
    return shlex.join(["python", *kept])


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
