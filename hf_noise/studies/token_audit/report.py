"""What a terminal shows of an audit of tokens."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_noise.reports.tables import WIDEST, markdown_table

__all__ = ["SCORES", "Found", "audit_text", "in_context", "rate_words", "worst_tokens"]

#: The scores of a token, as a record calls them, and in words.
SCORES = {"p_wrong": "1 - weight", "loss": "loss", "error_norm": "error norm"}
_TOKENS, _BEFORE, _AFTER = 12, 10, 5
_PERCENT = 100
_MARKS = "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"


@dataclass(frozen=True)
class Found:
    """What an audit says of N rows of L tokens.

    Attributes:
        p_wrong: float [N, L], NaN of the first token of a row, which nothing predicts.
        nll: float [N, L] in nats, NaN likewise.
        texts: of each token.
        is_wrong: bool [N, L], where that is known.
        realised: share of replaced targets and their number, likewise.
        facts: of `hf_noise.trainers.audit.audit_facts`.
    """

    p_wrong: np.ndarray
    nll: np.ndarray
    texts: list[list[str]]
    is_wrong: np.ndarray | None
    realised: dict[str, Any] | None
    facts: dict[str, Any]


def audit_text(found: Found, metrics: dict[str, dict[str, Any]]) -> str:
    """The rate and what it stands on, the scores where the truth is known, and the tokens to look at first."""
    rate = found.facts["error_rate"]
    interval = f"({_PERCENT * rate['confidence']:.0f}% interval)"
    lines = [f"wrong tokens: {rate_words(rate)} of {rate['n']:,} {unit_of(found.facts)} {interval}"]
    lines += [textwrap.fill(f"  - {part}", WIDEST, subsequent_indent="    ") for part in rate["how"].split("; ")]
    parts = ["\n".join(lines)]
    if found.realised is not None:
        true = metrics["true_error_rate"]
        within = "inside" if true["is_covered"] else "outside"
        rows = [[words, *(f"{metrics[f'{of}_{name}']['value']:.3f}" for of in ("auroc", "average_precision"))]
                for name, words in SCORES.items() if f"auroc_{name}" in metrics]  # fmt: skip
        parts.append(f"in truth {_PERCENT * true['value']:.1f}% were replaced, {within} the interval")
        if rows:
            parts[-1] += "\n\n" + markdown_table(["finds wrong tokens by", "AUROC", "average precision"], rows)
    return "\n\n".join([*parts, _worst_table(found)])


def unit_of(facts: dict[str, Any]) -> str:
    """What an audit counts."""
    return "rows" if facts["kind"].endswith("documents") else "tokens"


def rate_words(rate: dict[str, Any]) -> str:
    """A rate with its interval in percent."""
    return f"{_PERCENT * rate['value']:.1f}% [{_PERCENT * rate['low']:.1f}, {_PERCENT * rate['high']:.1f}]"


def worst_tokens(found: Found, most: int) -> list[tuple[int, int]]:
    """Row and position of the tokens that are likeliest wrong, of equals those of the largest loss."""
    p, nll = (np.nan_to_num(of, nan=-1).ravel() for of in (found.p_wrong, found.nll))
    order = np.lexsort((-nll, -p))[: min(most, int(np.isfinite(found.p_wrong).sum()))]
    return [tuple(map(int, np.unravel_index(place, found.p_wrong.shape))) for place in order]


def in_context(texts: list[str], position: int, room: int) -> str:
    """A token in marks between those beside it, on one line of at most so many letters."""
    before = _on_one_line("".join(texts[max(0, position - _BEFORE) : position]))
    after = _on_one_line("".join(texts[position + 1 : position + 1 + _AFTER]))
    token = _MARKS[0] + _on_one_line(texts[position]) + _MARKS[1]
    left = max(room - len(token) - min(len(after), room // 4), 0)
    return (before[len(before) - min(left, len(before)) :] + token + after)[:room]


def _on_one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text).replace("|", "\N{BROKEN BAR}")


def _worst_table(found: Found) -> str:
    heads = ["in its context", "row", "position", "p wrong", "loss"]
    places = worst_tokens(found, _TOKENS)
    rows = [[str(i), str(t), f"{found.p_wrong[i, t]:.3f}", f"{found.nll[i, t]:.1f}"] for i, t in places]
    room = max(20, WIDEST - max(map(len, markdown_table(heads[1:], rows).splitlines())) - 3)
    shown = [[in_context(found.texts[i], t, room), *cells] for (i, t), cells in zip(places, rows)]
    many = int((found.p_wrong > 0.5).sum())
    return f"{markdown_table(heads, shown)}\n{many:,} tokens are more likely wrong than right; the likeliest above"
