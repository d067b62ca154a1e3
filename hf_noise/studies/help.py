"""`--help` of a command: the flags that are used most, a line each, in the groups of all; `--help-all` has the rest."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator

__all__ = ["Full", "add_help", "is_negation"]

#: What studies share, and a first command says. Settings of a study may name more, see `CommandSettings.usual`.
USUAL = {
    "scale", "output", "dry_run", "seed", "data", "source", "column", "text_column", "image_column", "protocol",
    "ratio", "alpha", "loss", "model", "steps", "epochs", "batch_size", "learning_rate", "num_processes", "push_to_hub",
}  # fmt: skip
#: So few flags are all shown.
FEW = 16
_INDENT, _COLUMN, _LONGEST, _MORE = "  ", 28, 32, " ..."


class Full(argparse.ArgumentDefaultsHelpFormatter):
    """Each flag under one name, with its default where it has one."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if not _has_default(action):
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {_default(action)})"
        return super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.option_strings[0] == "-h":
            return super()._format_action_invocation(action)
        return _flag(action)


def add_help(parser: argparse.ArgumentParser, usual: Collection[str] = ()) -> None:
    """`--help`, and `--help-all` where that says more; a parser of few flags shows all of each at once."""
    told = {"nargs": 0, "dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}
    few = len([action for action in parser._actions if not is_negation(action)]) <= FEW
    if few:
        parser.add_argument("-h", "--help", "--help-all", "--help_all", action="help", help="show this and stop")
        return
    parser.add_argument("-h", "--help", action=_Usual, help="show the flags that are used most", **told)
    parser.add_argument("--help-all", "--help_all", action="help", help="show this: all flags, and all of each")
    parser.usual = USUAL | set(usual)


class _Usual(argparse.Action):
    """Prints the flags that are used most, names the others, and stops."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser._print_message("\n".join(_usual_lines(parser)) + "\n", sys.stdout)
        parser.exit()


def _usual_lines(parser: argparse.ArgumentParser) -> Iterator[str]:
    width = max(60, shutil.get_terminal_size().columns - 2)
    yield f"usage: {parser.usage % {'prog': parser.prog}}"
    yield ""
    yield from textwrap.wrap(parser.description, width)
    yield ""
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if not isinstance(one, _Usual | argparse._HelpAction)]
        # Of what is on by itself, the flag that one may want is the other one.
        negated = {one.dest for one in actions if is_negation(one)}
        shown = [one for one in actions if one.dest in parser.usual and not is_negation(one)]
        others = [one.option_strings[0] for one in actions if one.dest not in parser.usual
                  and is_negation(one) == (one.dest in negated)]  # fmt: skip
        if actions:
            yield f"{group.title}:"
        yield from (_line(action, width) for action in shown)
        if others:
            told = f"{'more: ' if shown else ''}{' '.join(others)}"
            yield textwrap.fill(told, width, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False)
    yield ""
    yield "--help-all shows what each of them does, and its default"


def _line(action: argparse.Action, width: int) -> str:
    """A flag, its help and its default in one line; of help that does not fit, the beginning."""
    flag, help = _flag(action), action.help % vars(action)
    if len(flag) > _LONGEST:
        flag = _flag(action, choices=False)
        help = f"{', '.join(map(str, action.choices))}; {help}"
    start = f"{_INDENT}{flag}  ".ljust(_COLUMN)
    default = f" ({_cut(_default(action), width // 3)})" if _has_default(action) else ""
    room = width - len(start + default)
    first = re.split("[;:]", help)[0]
    return start + (help if len(help) <= room else first if len(first) <= room else _cut(help, room)) + default


def _cut(text: str, room: int) -> str:
    """What of a text fits, to the end of a word where there is one."""
    if len(text) <= room:
        return text
    cut = text[: max(room - len(_MORE), 1)]
    return (re.sub(r"[\s,;]+\S*$", "", cut) or cut) + _MORE


def _flag(action: argparse.Action, *, choices: bool = True) -> str:
    """A flag and what its value is called, or may be."""
    if action.nargs == "?" or action.nargs == 0:
        return action.option_strings[0]
    if action.choices is not None and choices:
        return f"{action.option_strings[0]} {' | '.join(map(str, action.choices))}"
    several = " ..." if action.nargs in ("+", "*") else ""
    return f"{action.option_strings[0]} {action.dest.split('_')[-1].upper()}{several}"


def _has_default(action: argparse.Action) -> bool:
    return action.default not in (None, argparse.SUPPRESS, False, [])


def _default(action: argparse.Action) -> str:
    return " ".join(map(str, action.default)) if isinstance(action.default, list) else str(action.default)


def is_negation(action: argparse.Action) -> bool:
    """Whether a flag is the `--no_...` of another one."""
    return action.option_strings[:1] in ([f"--no_{action.dest}"], [f"--no-{action.dest}"])
