"""Bad calls over the public functions: each must end in a right result, or in an error of ours that says what is wrong.

    python tests/bad_calls/bad_calls.py --calls 10000 --seed 0
    python tests/bad_calls/bad_calls.py --seed 0 --only 4711           # one call again, with its traceback
    python tests/bad_calls/bad_calls.py --targets losses --calls 500   # those whose name holds this

A call starts from valid arguments and has one or two of them replaced (see `bad_values`). It is right if

- it returns, and the target's checker confirms the result for these very arguments (a slow twin, or an invariant), and
  the arguments are as they were: "result"; or
- it raises ValueError, TypeError, OSError, RuntimeError or ArithmeticError, in a `raise` of a file of hf_noise or of a
  recipe, with a message that names the argument or the value: "refused".

All else is a finding: "silent" (a result that nobody confirms), "raw" (an error from inside NumPy, torch, ...),
"unnamed" (an error of ours that does not say which argument), "slow" (past the time limit).

To add targets, write `bad_calls_<floor>.py` beside this file with a list `TARGETS = [Target(...), ...]`; it is found.

    def check(given, result):                                # raises Unconfirmed unless given is valid and result right
        close(result, number(given["error_rate"]) ** 2)

    TARGETS = [Target("floor.square", square, lambda draw: {"error_rate": 0.5}, check)]

- `make` draws valid keyword arguments with a NumPy generator, several kinds of them (arrays, lists, tensors).
- `check` reads the arguments with the strict readers of `bad_readers`, which share nothing with the code under test.
- An argument whose name begins with _ is never replaced (an object whose method is called).
- `words` are what messages call an argument besides its name; `extra` has values of a target's own for an argument.
- `weight` is how often it is called, beside 1 for all others.

A call depends on the seed, its number and the list of targets alone; --targets makes another list.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dis
import functools
import importlib.util
import re
import resource
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

if __name__ == "__main__":  # else targets would import a second copy of this module, with classes of its own
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    import conftest  # noqa: F401  (offline, and with caches of its own, as tests are)

from bad_readers import confirm
from bad_values import spoiled

ALLOWED = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError)
SECONDS, MEMORY = 10, 6 << 30
FINDINGS = ("silent", "raw", "unnamed", "slow")


class TookTooLong(BaseException):
    """A call took more than its time; no Exception, so that no code under test can catch it."""


@dataclass(frozen=True)
class Target:
    """What is called, how it is called rightly, and what confirms a result; see the module."""

    name: str
    call: Callable[..., Any]
    make: Callable[[np.random.Generator], dict[str, Any]]
    check: Callable[[dict[str, Any], Any], None]
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    extra: Mapping[str, Sequence[Callable[[], Any]]] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """Of one call: "result" or "refused" where it is right, else one of FINDINGS."""

    kind: str
    target: str
    index: int
    changed: Mapping[str, Any]
    said: str


# ---- running


@functools.cache
def load(floors: str = "") -> tuple[Target, ...]:
    """The targets of all files beside this one, those whose name holds `floors`."""
    found = []
    for path in sorted(Path(__file__).parent.glob("bad_calls_*.py")):
        found += importlib.import_module(path.stem).TARGETS
    names = Counter(target.name for target in found)
    assert max(names.values()) == 1, [name for name, n in names.items() if n > 1]
    return tuple(target for target in found if floors in target.name)


@functools.cache
def _package() -> str:
    return str(Path(importlib.util.find_spec("hf_noise").origin).parent)


def is_ours(error: BaseException) -> bool:
    """Whether the innermost frame of the traceback is of the package or a recipe, at a `raise` statement."""
    last = error.__traceback__
    while last.tb_next:
        last = last.tb_next
    code = last.tb_frame.f_code
    at_raise = code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return at_raise and code.co_filename.startswith(_package())


def is_named(error: BaseException, target: Target, changed: Mapping[str, Any]) -> bool:
    """Whether the message holds one of the changed arguments, by its name or its value."""
    message = str(error)
    words = [word for name in changed for word in (name, name.replace("_", " "), *target.words.get(name, ()))]
    words += [key for value in changed.values() if isinstance(value, Mapping) for key in value if isinstance(key, str)]
    if any(re.search(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])", message) for word in words):
        return True
    return any(repr(value)[:30] in message for value in changed.values())


def _twin(value: Any) -> Any:
    """A copy that shows whether the value was changed."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list | dict):
        return copy.copy(value)
    return value


def _unchanged(before: Any, after: Any) -> bool:
    if isinstance(before, torch.Tensor):
        return before.shape == after.shape and (before.is_sparse or _bits(before) == _bits(after))
    if isinstance(before, np.ma.MaskedArray):
        return True  # refused, or never looked at
    if isinstance(before, np.ndarray):
        return before.dtype == object or before.tobytes() == after.tobytes()
    if isinstance(before, dict):
        return list(before) == list(after) and _unchanged(list(before.values()), list(after.values()))
    if isinstance(before, list):
        return len(before) == len(after) and all(one is other for one, other in zip(before, after))
    return True


def _bits(values: torch.Tensor) -> bytes:
    flat = values.detach().resolve_conj().reshape(-1).clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().tobytes()


@contextlib.contextmanager
def limits(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Limit the time of what is inside, and this process to so much more memory than it has."""

    def stop(*_: Any) -> None:
        raise TookTooLong

    old, (soft, hard) = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def drawn_call(targets: Sequence[Target], seed: int, index: int) -> tuple[Target, dict[str, Any], dict[str, Any]]:
    """The target of a call, all its arguments, and those of them that were replaced."""
    draw = np.random.default_rng([seed, index])
    weights = np.array([target.weight for target in targets])
    target = targets[int(draw.choice(len(targets), p=weights / weights.sum()))]
    arguments = target.make(draw)
    names = draw.permutation(sorted(name for name in arguments if not name.startswith("_")))[
        : 1 + (draw.random() < 0.25)
    ]
    changed = {}
    for name in map(str, names):
        own = target.extra.get(name, ())
        take_own = own and draw.random() < 0.3
        with quiet():
            changed[name] = own[int(draw.integers(len(own)))]() if take_own else spoiled(draw, arguments[name])
    return target, {**arguments, **changed}, changed


def judge(target: Target, arguments: dict[str, Any], changed: Mapping[str, Any], index: int = 0) -> Outcome:
    """Make the call and say how it ended."""
    before = {name: _twin(value) for name, value in arguments.items()}

    def outcome(kind: str, said: Any = "") -> Outcome:
        return Outcome(kind, target.name, index, changed, f"{type(said).__name__}: {said}" if said else "")

    try:
        with limits(), quiet():
            result = target.call(**arguments)
    except TookTooLong:
        return outcome("slow")
    except ALLOWED as error:
        if not is_ours(error):
            return outcome("raw", error)
        return outcome("refused" if is_named(error, target, changed) else "unnamed", error)
    except Exception as error:  # noqa: BLE001
        return outcome("raw", error)
    try:
        with quiet():
            target.check(arguments, result)
        for name, value in before.items():
            confirm(_unchanged(value, arguments[name]), f"{name} was changed")
    except Exception as error:  # noqa: BLE001  (a checker that cannot even read the arguments does not confirm)
        return outcome("silent", error)
    return outcome("result")


def run(targets: Sequence[Target], calls: int, seed: int, start: int = 0) -> list[Outcome]:
    """That many calls, each of which depends on seed and index alone."""
    return [judge(*drawn_call(targets, seed, index), index) for index in range(start, start + calls)]


def shown(outcome: Outcome) -> str:
    changed = ", ".join(f"{name}={value!r:.150}" for name, value in outcome.changed.items())
    return f"{outcome.kind:8} #{outcome.index} {outcome.target}({changed})\n         {outcome.said:.300}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default="", help="of which the name holds this")
    parser.add_argument("--only", type=int, help="number of one call, to make it again")
    parser.add_argument("--quiet", action="store_true", help="no counts by target")
    chosen = parser.parse_args(arguments)
    targets = load(chosen.targets)
    if chosen.only is not None:
        target, given, changed = drawn_call(targets, chosen.seed, chosen.only)
        print(f"{target.name}\n  replaced: {changed!r}\n  all: {given!r}")
        print(shown(judge(target, given, changed, chosen.only)))
        target.call(**given)
        return 0
    found = run(targets, chosen.calls, chosen.seed)
    by_target: dict[str, Counter] = {target.name: Counter() for target in targets}
    for outcome in found:
        by_target[outcome.target][outcome.kind] += 1
    for name, counts in by_target.items() if not chosen.quiet else ():
        print(f"{name:45} " + ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items())))
    findings = [outcome for outcome in found if outcome.kind in FINDINGS]
    for outcome in findings:
        print(shown(outcome))
    total = Counter(outcome.kind for outcome in found)
    kinds = ("result", "refused", *FINDINGS)
    print(f"seed {chosen.seed}, {len(found)} calls of {len(targets)} targets: "
          + ", ".join(f"{total[kind]} {kind}" for kind in kinds))  # fmt: skip
    return 1 if findings else 0


if __name__ == "__main__":
    import bad_calls

    sys.exit(bad_calls.main())
