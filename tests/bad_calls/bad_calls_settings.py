"""Bad settings of studies that are made in Python: those of a scale with some changed, or an error that names one."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from bad_calls import Target
from bad_calls_recipes import FLAGS, LISTS, STUDIES, asked
from bad_readers import confirm, same, text
from transformers.hf_argparser import string_to_bool

from hf_noise.studies.settings import at_scale

RECIPES = ("gpt2_noise", "gpt2_noise of documents", "bert_noise", "classifier_noise", "time_classifier", "edm_noise")


def settings_of(recipe: str) -> type:
    return importlib.import_module(f"hf_noise.studies.{STUDIES[recipe]}.study").Settings


def call(recipe: str, draw: np.random.Generator) -> dict[str, Any]:
    return {"scale": "demo", **asked(recipe, draw)}


def made(recipe: str, scale: Any, **changes: Any) -> dict[str, Any]:
    settings = at_scale(settings_of(recipe), scale, **changes)
    return {name: getattr(settings, name) for name in changes}


def check(recipe: str, given: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    text(given["scale"], *settings_of(recipe).scales)
    for name, value in given.items():
        if name == "scale" or value is None:
            continue
        values = value if isinstance(value, list) else [value]
        kind = FLAGS[recipe][name]
        expected = [as_given(kind, one) for one in values]
        confirm(expected or name in (*LISTS, "ratio"), f"{name} is empty")
        found = result[name] if isinstance(result[name], list) else [result[name]]
        confirm(isinstance(result[name], list) == isinstance(value, list), f"{name} is {result[name]!r}")
        same(np.array(len(found)), len(expected))
        confirm(found == expected, f"{name} is {found}")


def as_given(kind: Any, value: Any) -> Any:
    """The value itself, if a command line has it too and it is of Python's own type."""
    types = {int: int, float: (int, float), string_to_bool: bool}.get(kind.read, str)
    confirm(isinstance(value, types) and (types is bool or not isinstance(value, bool)), f"{value!r:.60} was taken")
    confirm(types is str or type(value) in (int, float, bool), f"{value!r:.60} was taken")
    if types is bool:
        return value
    return kind(str(value) if types is str else repr(value))


TARGETS = [
    Target(f"studies.at_scale.{recipe}", functools.partial(made, recipe), functools.partial(call, recipe),
           functools.partial(check, recipe))
    for recipe in RECIPES
]  # fmt: skip
