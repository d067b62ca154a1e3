"""Run a recipe in this process."""

import contextlib
import io
from collections.abc import Callable

import torch


def printed_by(main: Callable[[list[str]], object], *arguments) -> str:
    """What a recipe prints; torch gets its number of threads back afterwards."""
    threads, printed = torch.get_num_threads(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            main([str(argument) for argument in arguments])
    finally:
        torch.set_num_threads(threads)
    return printed.getvalue()
