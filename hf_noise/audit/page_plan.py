"""What the page of an audit shows of a plan, be it one of `LabelAudit.plan`, what its `to_dict()` wrote or a list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hf_noise.audit.page_parts import percent

__all__ = ["planned"]

_ENDS = ("low", "value", "high")
_OF_ROWS = ("drop", "relabel")  # options of `LabelAudit.plan` that are but other rows or labels


def planned(plan: Any) -> dict[str, Any]:
    """What may be done and what to expect of it.

    Args:
        plan: a list of options, or what has one as its `options`, or returns one by `to_dict()`. An option has a name
            and, where they are known, what it `does`, its value with the ends low and high of an interval, and how that
            is known, as keys or as attributes; an `accuracy` in [0, 1] with these three stands for the value and is
            shown in percent, a `difference` of shares with these three in points.

    Returns:
        `options`, each with texts and with a bar where there is something to draw; `best`, the name of one or None, and
        `step`, that option as a step to take; `advice` in words or None; `how`, the ways in which the figures are known
        with the names that they are of.

    Raises TypeError: there are no options in it, or one has no name.
    """
    made = plan.to_dict() if hasattr(plan, "to_dict") else plan
    found = made if isinstance(made, list | tuple) else _of(made, "options")
    if not isinstance(found, list | tuple):
        raise TypeError(f"plan must be a list of options, or have them as options, got {type(plan).__name__}")
    options, hows = [], {}
    for one in found:
        name, how = _of(one, "name"), _of(one, "how")
        if not isinstance(name, str):
            raise TypeError(f"an option of the plan must have a name, a text, got {name!r:.80}")
        accuracy = _of(one, "accuracy")
        said = one if accuracy is None else accuracy
        at = {key: _number(_of(said, key)) for key in _ENDS}
        shown = percent if accuracy is not None else "{:.4g}".format
        sign = "" if accuracy is None else "\N{NO-BREAK SPACE}%"
        options.append({
            "name": name, "does": _words(one, "does"), "at": at, "is_share": accuracy is not None, "bar": None,
            "value": None if at["value"] is None else shown(at["value"]) + sign,
            "apart": _apart(_of(one, "difference")),
            "ends": None if None in at.values() else f"[{shown(at['low'])}, {shown(at['high'])}]",
        })  # fmt: skip
        if how is not None:
            hows.setdefault(str(how), []).append(name)
    for is_share in (True, False):
        _draw([one for one in options if one["is_share"] == is_share and one["ends"] is not None])
    best = _words(made, "best")
    step = next(({"name": one["name"], "does": one["does"], "is_rows": one["name"] in _OF_ROWS}
                 for one in options if one["name"] == best), None)  # fmt: skip
    return {
        "options": options, "best": best, "step": step, "advice": _words(plan, "advice"),
        "how": [{"of": ", ".join(names), "how": how} for how, names in hows.items()],
    }  # fmt: skip


def _draw(options: list[dict[str, Any]]) -> None:
    """Give options whose figures can be compared a bar, in percent of the width between the least and the largest."""
    least, most = (end(place(one["at"].values()) for one in options) if options else 0.0
                   for end, place in ((min, min), (max, max)))  # fmt: skip
    for one in options if 0 < most - least < math.inf else ():
        low, value, high = (100 * (one["at"][key] - least) / (most - least) for key in _ENDS)
        one["bar"] = {"left": round(low, 2), "width": round(max(high - low, 0.4), 2), "at": round(value, 2)}


def _apart(difference: Any) -> str | None:
    """A difference of shares with its interval, in points."""
    value, low, high = (_number(_of(difference, key)) for key in ("value", "low", "high"))
    return None if None in (value, low, high) else f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _of(one: Any, key: str) -> Any:
    return one.get(key) if isinstance(one, Mapping) else getattr(one, key, None)


def _words(one: Any, key: str) -> str | None:
    words = _of(one, key)
    return words if isinstance(words, str) else None


def _number(value: Any) -> float | None:
    try:
        return float(value) if math.isfinite(value) else None
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's, of several numbers
        return None
