"""How a study is run as a command: what it is refused ends in a message, as its parser's own refusals do."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_noise

# Where the code of this project lies.
_OURS = str(Path(hf_noise.__file__).parent.resolve())


def door(main: Callable[[], Any]) -> None:
    """Run a recipe as a command: what is refused before anything is trained ends with its message and status 2.

    As the parser's own: `recipe.py: error: <message>`. Any other error, and all in a run, keeps its traceback.
    """
    try:
        main()
        leave_processes()
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        if not is_refusal(error):
            raise
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)


def leave_processes() -> None:
    """End the process group, if there is one: its threads may abort a process that ends with them still running."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def is_refusal(error: Exception) -> bool:
    """Whether a check of ours (or of a file or the Hub) raised this, and no run had begun."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or any(frame.f_code.co_name == "make_run" for frame in frames):
        return False
    # Those of processes that build data arrive from `multiprocess`.
    is_ours = type(error).__module__.startswith("hf_noise.")
    is_ours |= os.path.realpath(frames[-1].f_code.co_filename).startswith(_OURS)
    return is_ours or isinstance(error, OSError)
