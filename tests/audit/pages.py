"""An audit with names of all kinds, its page, and what a reader sees of it."""

from __future__ import annotations

import html
import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from hf_noise.audit import audit_labels, write_page

_SPEC = importlib.util.spec_from_file_location("drawn_noise", Path(__file__).with_name("drawn.py"))
noise = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(noise)

NAMES = ["cat", "dog & <b>wolf</b>", 'a "fox", <script>', "\ud800 שלום"]
LABELS, CLEAN, P = noise.drawn(600, spread=0.05)
AUDIT = audit_labels(LABELS, probabilities=P, class_names=NAMES, seed=7)
PLAIN = audit_labels(LABELS, probabilities=P)
FULL = replace(AUDIT, p_wrong=np.full(600, 0.9))
ORDER = np.argsort(-AUDIT.p_wrong, kind="stable")[: AUDIT.flagged().sum()]
ATTACK = "</title><script>alert(1)</script>"


def page_of(folder, audit=AUDIT, **more):
    return write_page(folder / "audit.html", audit, **{"title": "Mine"} | more).read_text(encoding="utf-8")


def words(page):
    """What a reader sees of it, in one line."""
    body = re.sub(r"<(script|style)>.*?</\1>", "", page.partition("<body>")[2], flags=re.DOTALL)
    body = re.sub(r"</?(span|strong|code)\b[^>]*>", "", body)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body)))


def rows_in(page):
    return [int(row) for row in re.findall(r">row (\d+)</span>", page)]
