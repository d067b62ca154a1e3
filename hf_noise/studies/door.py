"""How a study is run as a command: a user's mistake ends in one line, as its parser's own refusals do."""

from __future__ import annotations

import linecache
import os
import re
import select
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_noise
from hf_noise.reports.provenance import CONSOLE_SCRIPT, started_module

# Where the code of this project lies.
_OURS = str(Path(hf_noise.__file__).parent.resolve())
# As a shell tells it of a command that Ctrl-C ended.
INTERRUPTED = 130
# As a shell tells it of a command whose reader has gone, as `head` does.
UNREAD = 141


#: Names of the flags of the command that runs, once they are read.
FLAGS: set[str] = set()
# An argument as Python writes it, without a value or with one that is a word: `text_column=`, `test_fraction=0.1`.
_ARGUMENT = re.compile(r"(?<![\w.=-])(\w+)=(?!['\"\[({=])(?=(\w?))")


class Stopped(KeyboardInterrupt):
    """Ctrl-C in a study; the message says how far it had come."""


def door(main: Callable[[], Any]) -> None:
    """Run a study as a command: what our checks refuse ends with its message and status 2, Ctrl-C with status 130.

    As the parser's own: `recipe.py: error: <message>`. Any other error keeps its traceback, and with `--debug` all do.
    """
    try:
        main()
        leave_processes()
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        where = f" {error}" if str(error) else ""
        _end(f"stopped{where}; the same command again goes on from what was saved", INTERRUPTED)
    except (ArithmeticError, OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            sys.exit(UNREAD)
        if _wants_traceback() or not is_refusal(error):
            raise
        _end(f"error: {as_flags(str(error))}", 2)


def _is_unread() -> bool:
    """Whether nobody reads what is printed any more, which is no error; what is left of it then goes nowhere."""
    if not hasattr(select, "poll"):
        return False
    looks = select.poll()
    looks.register(sys.__stdout__.fileno(), 0)
    if not any(event & select.POLLERR for _, event in looks.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
    return True


def program() -> str:
    """What was started: the name of a file, or of a module (`python -m hf_noise.studies.language`)."""
    if (module := started_module()) is not None:
        return module
    return " ".join(sys.argv[:2]) if sys.argv[0] == CONSOLE_SCRIPT and sys.argv[1:] else Path(sys.argv[0]).name


def as_flags(message: str) -> str:
    """A message whose arguments of Python are flags, where the command has such a flag."""

    def flag(found: re.Match[str]) -> str:
        return f"--{found[1]}{' ' * bool(found[2])}" if found[1] in FLAGS else found[0]

    return _ARGUMENT.sub(flag, message)


def _end(message: str, status: int) -> None:
    _close_bars()
    print(f"{program()}: {message}", file=sys.stderr)
    sys.exit(status)


def _close_bars() -> None:
    """Let each bar of progress end its line, which it else would do after the message."""
    if "tqdm" in sys.modules:
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()


def _wants_traceback() -> bool:
    return any(text == "--debug" or text.lower() in ("--debug=true", "--debug=1", "--debug=yes") for text in sys.argv)


def leave_processes() -> None:
    """End the process group, if there is one: its threads may abort a process that ends with them still running."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def is_refusal(error: Exception) -> bool:
    """Whether a check of ours (or of a file or the Hub) raised this, and no slip in the code did."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    # Those of processes that build data arrive from `multiprocess`.
    if type(error).__module__.startswith("hf_noise.") or isinstance(error, OSError):
        return True
    frame, line = frames[-1]
    file = frame.f_code.co_filename
    return os.path.realpath(file).startswith(_OURS) and linecache.getline(file, line).lstrip().startswith("raise")
