"""`hf-noise`: every study under one command, for those who have the package and not the repository.

A study is started as `accelerate launch -m hf_noise.studies.<folder>` would, arguments of the launcher among its own.
Where one process is all that this would start, it is this one: torch is loaded once.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from types import ModuleType

import hf_noise
from hf_noise.reports.provenance import CONSOLE_SCRIPT
from hf_noise.studies.catalogue import Entry, catalogue, find
from hf_noise.studies.door import INTERRUPTED, door

__all__ = ["main"]

HELP = """\
usage: hf-noise STUDY [--FLAG VALUE ...]

What bad training data does to a model, and how to survive it.

  hf-noise list                                  the studies, and what each of them shows
  hf-noise gpt2-noise                            one of them, offline, in minutes on two cores
  hf-noise gpt2-noise my.txt --dry_run           with data of one's own; look first, then run
  hf-noise audit my.csv --column label           which labels of one's own are wrong
  hf-noise reproduce --list                      the papers' tables, each from one command
  hf-noise gpt2-noise --scale paper --help       its flags that are used most; --help-all has all of them
  hf-noise gpt2-noise --num_processes 2          on several devices; all flags of `accelerate launch` are known
  hf-noise --version
"""

#: Arguments of the launcher that are none here: what is started is known, and the study has a --debug of its own.
NOT_THE_LAUNCHERS = {"help", "module", "no_python", "debug"}
#: What says how the processes work together.
PARADIGMS = {
    "config_file", "cpu", "multi_gpu", "tpu", "use_deepspeed", "use_fsdp", "use_megatron_lm", "use_parallelism_config"
}  # fmt: skip
#: What accelerate else warns that it was not told.
NOT_TOLD = {"num_machines": "1", "mixed_precision": "no", "dynamo_backend": "no"}


def main(argv: Sequence[str] | None = None) -> None:
    """The console script `hf-noise`, and `python -m hf_noise`."""
    given = list(sys.argv[1:] if argv is None else argv)
    sys.argv = [CONSOLE_SCRIPT]
    door(lambda: command(given))


def command(argv: list[str]) -> None:
    """List studies, or start one."""
    first = argv[0] if argv else "--help"
    if first in ("-h", "--help", "help"):
        print("\n".join(help_lines()))
    elif first in ("--version", "-V"):
        print(f"{CONSOLE_SCRIPT} {hf_noise.__version__}")
    elif first == "list":
        print("\n".join(lines(list(catalogue().values()), shutil.get_terminal_size().columns)))
    elif first.startswith("-"):
        raise ValueError(f"{first} stands before the study; the name of the study comes first, as in "
                         f"{CONSOLE_SCRIPT} gpt2-noise {first}")  # fmt: skip
    else:
        start(find(first), argv[1:])


def help_lines() -> list[str]:
    """HELP, without the studies that there are not."""
    known = {"list", "STUDY", "--version", *catalogue()}
    return [line for line in HELP.splitlines() if not line.startswith("  hf-noise ") or line.split()[1] in known]


def lines(entries: Sequence[Entry], width: int) -> list[str]:
    """A table of the studies, each wrapped to a terminal of so many columns."""
    longest = max(len(entry.name) for entry in entries)
    told = [f"{'study':<{longest}}  minutes  what it shows"]
    for entry in entries:
        minutes = "" if entry.demo_minutes is None else f"{entry.demo_minutes:g}"
        start = f"{entry.name:<{longest}}  {minutes:>7}  "
        told += textwrap.wrap(entry.shows, max(width - 1, len(start) + 20), initial_indent=start,
                              subsequent_indent=" " * len(start))  # fmt: skip
    return [*told, "", f"minutes of --scale demo on two cores; {CONSOLE_SCRIPT} STUDY --help shows its flags"]


def start(entry: Entry, argv: list[str]) -> None:
    """Run a study, here or in processes that accelerate starts."""
    sys.argv = [CONSOLE_SCRIPT, entry.name, *argv]
    study = import_module(f"{entry.package}.study")
    own = with_source(study, argv)
    # Without settings it reads its arguments itself, and starts what it needs.
    if hasattr(study, "Settings") and not {"-h", "--help", "--help-all", "--help_all"} & set(own):
        launcher, own = split(own, study)
        if needs_launcher(entry, launcher):
            launch(entry, launcher, own)
            return
    study.main(own)


def names_of(study: ModuleType) -> set[str]:
    """Names of the settings of a study, none where it has no such thing."""
    return {one.name for one in fields(study.Settings)} if hasattr(study, "Settings") else set()


def with_source(study: ModuleType, argv: list[str]) -> list[str]:
    """Values before the first flag are the source, where a study has one: `hf-noise audit my.csv`."""
    is_value = bool(argv) and not argv[0].startswith("-")
    return ["--source", *argv] if is_value and "source" in names_of(study) else argv


def split(argv: Sequence[str], study: ModuleType) -> tuple[dict[str, list[str]], list[str]]:
    """Flags of `accelerate launch` with their values, and all other arguments, which are the study's.

    `--num_processes` belongs to both: the study stops unless it finds so many.
    """
    from accelerate.commands.launch import launch_command_parser

    actions = launch_command_parser()._option_string_actions
    launcher, own, left = {}, [], list(argv)
    while left:
        flag, equals, _ = left[0].partition("=")
        action = actions.get(flag) if flag.startswith("--") else None
        if action is None or action.dest in NOT_THE_LAUNCHERS:
            own.append(left.pop(0))
            continue
        used = 1 if equals or action.nargs == 0 else 2
        launcher.setdefault(action.dest, []).extend(left[:used])
        if action.dest == "num_processes" and action.dest in names_of(study):
            own += left[:used]
        del left[:used]
    return launcher, own


def needs_launcher(entry: Entry, launcher: dict[str, list[str]]) -> bool:
    """Whether anything but one plain process is asked for, or to be had.

    Raises ValueError: a study of one process was told how to work in several.
    """
    is_one = launcher.keys() == {"num_processes"} and launcher["num_processes"][-1].rpartition("=")[2] == "1"
    if entry.is_alone and launcher and not is_one:
        raise ValueError(f"{', '.join(f'--{name}' for name in launcher)}: {entry.name} works in one process alone")
    if launcher or entry.is_alone:
        return not is_one and not entry.is_alone
    import torch
    from accelerate.commands.config import default_config_file

    return os.path.isfile(default_config_file) or torch.accelerator.device_count() > 1


def launch(entry: Entry, launcher: dict[str, list[str]], own: Sequence[str]) -> None:
    """Start the processes of a study and wait for them; what ends one of them with a status ends this one so."""
    import torch
    from accelerate.commands.config import default_config_file
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    told = [part for parts in launcher.values() for part in parts]
    has_config = "config_file" in launcher or os.path.isfile(default_config_file)
    if not has_config:
        said = {"num_processes": max(1, torch.accelerator.device_count())} | NOT_TOLD
        told += [part for name, value in said.items() if name not in launcher for part in (f"--{name}", str(value))]
    args = launch_command_parser().parse_args([*told, "-m", entry.package, *own])
    if not PARADIGMS & launcher.keys() and not has_config and args.num_processes > 1:
        args.multi_gpu = True  # which is torchrun, and right for processes on a CPU too
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C ends what was started, which says so itself
    try:
        launch_command(args)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except ChildFailedError as error:
        sys.exit(error.get_first_failure()[1].exitcode)
    except SignalException:
        sys.exit(INTERRUPTED)
