"""What a study can be told: typed settings, each in the range that its type says, on top of those of a scale."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

from hf_noise.studies.door import FLAGS, program
from hf_noise.studies.help import Full, add_help, is_negation
from hf_noise.studies.ranges import Count, Output, Repo, Seed, fault_of

__all__ = [
    "LEARNING_RATE_SCHEDULES", "CommandSettings", "ComparedSettings", "SettingError", "StudySettings",
    "TrainingSettings", "at_scale", "check_ranges", "parse", "setting",
]  # fmt: skip

Settings = TypeVar("Settings", bound="CommandSettings")

# In the order of `--help`; a setting stands in one of them.
GROUPS = ("study", "data", "noise and loss", "model", "training", "measurement", "machine", "Hub")


#: Schedules of the learning rate in transformers that need nothing but a warm-up.
LEARNING_RATE_SCHEDULES = (
    "cosine", "constant", "constant_with_warmup", "linear", "cosine_with_restarts", "polynomial", "inverse_sqrt"
)  # fmt: skip


class SettingError(ValueError):
    """A setting that cannot be honoured, named as the flag that it is on a command line."""


def setting(
    default: Any = None,
    help: str = "",
    *,
    group: str = "training",
    choices: Sequence[Any] | None = None,
    in_result: bool = True,
    is_later: bool = False,
) -> Any:
    """A field of settings.

    Args:
        default: what it is at every scale that does not say otherwise; a list is copied.
        help: what `--help` says of it.
        group: one of `GROUPS`.
        choices: the values that it takes, all others if None.
        in_result: whether the result of a run depends on it as it stands here. It does not where a run has a value of
            its own (of a list, say), or where nothing in the result changes with it: a study goes on with another one.
        is_later: a flag that folders of before do not know: their runs go on while it is not set.
    """
    assert group in GROUPS, group
    told = {"help": help, "group": group, "in_result": in_result, "is_later": is_later}
    told |= {"choices": list(choices)} if choices else {}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=told)
    return field(default=default, metadata=told)


@dataclass
class CommandSettings:
    """Settings of any command."""

    #: Presets by name, of a command that has any.
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: Lists that may not be empty.
    one_or_more: ClassVar[tuple[str, ...]] = ()
    #: What `--help` explains, beside what it explains of any command.
    usual: ClassVar[tuple[str, ...]] = ()

    output: Output = setting(None, "folder of what is made", group="study", in_result=False)
    dry_run: bool = setting(False, "look at settings and data, then stop", group="study", in_result=False)
    debug: bool = setting(False, "show where in the code an error was raised", group="study", in_result=False)

    def complete(self) -> None:
        """Fill in what other settings decide. Raises SettingError: some make no sense together."""


@dataclass
class StudySettings(CommandSettings):
    """Settings of any study; what is None here comes from the scale."""

    one_or_more: ClassVar[tuple[str, ...]] = ("seed",)

    scale: str = setting("demo", "a preset of all that follows", group="study", in_result=False)
    seed: list[Seed] = setting([0], "of weights, order and all that is drawn", group="study", in_result=False)
    num_processes: Count | None = setting(
        None, "stop unless so many processes work together", group="machine", in_result=False
    )


@dataclass
class TrainingSettings(StudySettings):
    """Settings of a study that trains on `transformers.Trainer`."""

    batch_size: Count = setting(None, "rows per step without noise, all processes together")
    micro_batch: Count = setting(None, "rows per process and forward pass, at most")
    save_steps: Count = setting(None, "optimiser steps between checkpoints", in_result=False)
    logging_steps: Count = setting(None, "optimiser steps between log entries")
    bf16: bool = setting(False, "bfloat16 autocast, float32 weights", group="machine")
    torch_compile: bool = setting(False, "compile model and noise", group="machine")
    push_to_hub: Repo | None = setting(
        None, "owner/name; of several runs each adds its name", group="Hub", in_result=False
    )
    private: bool = setting(False, "make Hub repositories private", group="Hub", in_result=False)


@dataclass
class ComparedSettings:
    """Of a study whose noisy runs may get more compute than the one without noise."""

    equal_compute: bool = setting(
        True, "a run without noise too that gets the compute of the noisiest", group="noise and loss", in_result=False
    )


def at_scale(kind: type[Settings], /, scale: str, **changes: Any) -> Settings:
    """The settings of a scale, complete, with some changed; None changes nothing.

    Raises:
        SettingError: a value is of another type or out of its range, or some make no sense together; there is no such
            scale or setting.
    """
    if not isinstance(scale, str) or scale not in kind.scales:
        raise SettingError(f"--scale must be one of {', '.join(kind.scales)}, got {scale!r:.80}")
    known = [one.name for one in fields(kind)]
    if unknown := [name for name in changes if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        raise SettingError(f"there is no setting {unknown[0]}" + (f"; did you mean {near[0]}?" if near else ""))
    changed = {k: str(v) if isinstance(v, Path) else v for k, v in changes.items() if v is not None}
    made = kind(**{**kind.scales[scale], "scale": scale, **changed})
    check_ranges(made)
    made.complete()
    return made


def check_ranges(settings: Any) -> None:
    """Raises SettingError at the first value outside what its type says."""
    hints = get_type_hints(type(settings), include_extras=True)
    for one in fields(settings):
        if fault := fault_of(hints[one.name], getattr(settings, one.name)):
            raise SettingError(f"--{one.name} {fault}")
    for one in fields(settings):
        if choices := one.metadata.get("choices"):
            given = getattr(settings, one.name)
            for value in given if isinstance(given, list) else [given]:
                if value is not None and value not in choices:
                    raise SettingError(f"--{one.name} must be one of {', '.join(map(str, choices))}, got {value!r:.80}")
    for name in getattr(settings, "one_or_more", ()):
        if not getattr(settings, name):
            raise SettingError(f"--{name} is empty: nothing would be done")


def parse(kind: type[Settings], argv: Sequence[str] | None, description: str) -> Settings:
    """Settings from a command line, on top of those of its `--scale`; it ends the process as argparse does."""
    parser = parser_of(kind, description)
    FLAGS.update(one.name for one in fields(kind))
    if kind.scales:
        first = argparse.ArgumentParser(add_help=False)
        first.add_argument("--scale", default="demo")
        scale = first.parse_known_args(argv)[0].scale
        if scale in kind.scales:  # else the parser itself refuses it; `--help` shows what the scale has
            parser.set_defaults(**kind.scales[scale])
    *parts, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if unknown:
        parser.error(_unknown(unknown, parser))
    made = kind(**{name: value for part in parts for name, value in vars(part).items()})
    try:
        check_ranges(made)
        made.complete()
    except SettingError as error:
        parser.error(str(error))
    return made


def parser_of(kind: type[CommandSettings], description: str) -> argparse.ArgumentParser:
    """The parser of these settings, in groups."""
    from transformers import HfArgumentParser  # not needed by one who makes settings in Python
    from transformers.hf_argparser import string_to_bool

    hints, groups = get_type_hints(kind), {name: [] for name in GROUPS}
    for one in fields(kind):
        choices = {"choices": list(kind.scales)} if one.name == "scale" else {}
        groups[one.metadata["group"]].append((one.name, hints[one.name], _for_parser(one, choices)))
    dataclasses = [
        make_dataclass(name.title().replace(" ", ""), members, namespace={"_argument_group_name": name})
        for name, members in groups.items() if members
    ]  # fmt: skip
    usage = "%(prog)s [--FLAG VALUE ...]"
    told = {"prog": program(), "usage": usage, "description": description, "formatter_class": Full,
            "add_help": False}  # fmt: skip
    parser = HfArgumentParser(dataclasses, **told)
    told = {action.dest: action.help for action in parser._actions if not is_negation(action)}
    for action in parser._actions:
        if action.nargs == "+" and action.dest not in kind.one_or_more:
            action.nargs = "*"
        if action.type is string_to_bool and action.nargs is None:  # `bool | None`, which else would need a value
            action.nargs, action.const = "?", True
        if is_negation(action):  # which is made with the help of what it negates
            action.help, action.default = f"not: {told[action.dest]}", argparse.SUPPRESS
    add_help(parser, kind.usual)
    return parser


def _for_parser(one: Field, changes: Mapping[str, Any]) -> Field:
    told = {name: one.metadata[name] for name in ("help", "choices") if name in one.metadata} | dict(changes)
    if one.default_factory is not MISSING:
        return field(default_factory=one.default_factory, metadata=told)
    return field(default=one.default, metadata=told)


def _unknown(unknown: Sequence[str], parser: argparse.ArgumentParser) -> str:
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    flags = [text.split("=")[0] for text in unknown if text.startswith("-")]
    asked = flags[0].replace("-", "_").replace("__", "--", 1) if flags else ""
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.75)
    hint = f"; did you mean {near[0]}?" if near else "; --help-all lists them all"
    return f"no flag takes {' '.join(unknown)}{hint}"
