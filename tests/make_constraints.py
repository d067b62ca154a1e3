"""The lowest versions that setup.cfg states, as constraints for pip; `tests/test_setup.py` holds the file to them.

    python tests/make_constraints.py > tests/constraints-lowest.txt
    pip install -c tests/constraints-lowest.txt ".[test]"                # then the suite, on these
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

SETUP = Path(__file__).parents[1] / "setup.cfg"
_BOUND = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")


def stated() -> dict[str, str]:
    """Requirements and their lowest versions, of the package and of all its extras.

    Raises ValueError for one that is written in another way.
    """
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(SETUP)
    texts = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    found: dict[str, str] = {}
    for line in "\n".join(texts).split():
        if re.fullmatch(r"%\(\w+\)s", line):  # another extra, which has its own turn
            continue
        bound = _BOUND.fullmatch(line)
        if bound is None or found.get(bound[1], bound[2]) != bound[2]:
            raise ValueError(f"setup.cfg: {line} should be NAME>=VERSION, the same wherever it stands")
        found[bound[1]] = bound[2]
    return found


def constraints() -> str:
    """The text of the file."""
    lines = (f"{name}=={version}" for name, version in sorted(stated().items(), key=lambda one: one[0].lower()))
    return "\n".join(["# Made by tests/make_constraints.py: the lowest versions that setup.cfg states.", *lines, ""])


if __name__ == "__main__":
    print(constraints(), end="")
