"""Bad calls to the page of an audit: what stands on it is what it was given, and nothing of that runs."""

from __future__ import annotations

import functools
import html
import re
from typing import Any

import numpy as np
import PIL.Image
from bad_calls import Target
from bad_places import FOLDER
from bad_readers import confirm, ints, same, whole
from bad_values import pick

from hf_noise.audit import LabelAudit, audit_labels, write_page

N, C = 18, 3


@functools.cache
def audit_of(seed: int) -> LabelAudit:
    draw = np.random.default_rng(seed)
    labels = np.arange(N) % C
    p = draw.dirichlet(np.ones(C), N) * 0.4
    p[np.arange(N), np.where(draw.random(N) < 0.3, draw.integers(0, C, N), labels)] += 0.6
    return audit_labels(labels, probabilities=p)


def make(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "audit": audit_of(int(draw.integers(3))),
        "title": pick(draw, "Mine", "<b>"),
        "source": pick(draw, None, "a & b"),
        "texts": pick(draw, None, [f"text {i}" for i in range(N)], np.array(["<i>"] * N), [None] * N),
        "images": pick(draw, None, draw.integers(0, 256, (N, 3, 3), dtype=np.uint8)),
        "rows": int(draw.integers(0, 9)),
        "plan": pick(draw, None, [{"name": "drop", "value": 0.5, "low": 0.2, "high": 0.9, "how": "so"}]),
        "clean": pick(draw, None, draw.integers(0, C, N)),
    }


def written(**given: Any) -> dict[str, Any]:
    """What stands on the page."""
    page = write_page(FOLDER / "page.html", **given).read_text(encoding="utf-8")

    def all_of(pattern: str) -> list[str]:
        return [html.unescape(found) for found in re.findall(pattern, page, re.DOTALL)]

    return {
        "scripts": page.count("<script"), "title": all_of("<title>(.*?)</title>\n")[0],
        "source": all_of(r', from <span dir="auto">(.*?)</span>'), "rows": [int(row) for row in all_of(r">row (\d+)<")],
        "texts": all_of(r'<div class="text" dir="auto">(.*?)</div>'), "images": page.count('src="data:image/'),
        "known": re.findall(r'class="is-(wrong|right)"', page), "plans": page.count("<caption>What each way"),
    }  # fmt: skip


def listed(audit: LabelAudit) -> list[int]:
    """The rows of the list of the largest expected F1, by trying each length."""
    p = audit.p_wrong.tolist()
    order = sorted(range(N), key=lambda i: (-p[i], i))
    scores = [2 * sum(p[i] for i in order[:k]) / (k + sum(p)) for k in range(N + 1)]
    return order[: max(range(N + 1), key=lambda k: (scores[k], -k))]


def check(given: dict[str, Any], found: dict[str, Any]) -> None:
    audit, title, source = given["audit"], given["title"], given["source"]
    confirm(isinstance(audit, LabelAudit) and isinstance(title, str) and title.strip(), "audit or title")
    confirm(source is None or isinstance(source, str), "source")
    shown = listed(audit)[: whole(given["rows"], 0, 1 << 14)]
    same(found["rows"], shown, "rows")
    same(found["scripts"], int(bool(shown)), "scripts")
    same(found["title"], cut(title, 200), "title")
    same(found["source"], [] if source is None else [cut(source, 200)], "source")
    for name in ("texts", "images"):
        confirm(given[name] is None or not isinstance(given[name], str | bytes | dict) and len(given[name]) == N, name)
    texts, images = ([] if given[name] is None else [given[name][row] for row in shown] for name in ("texts", "images"))
    confirm(all(text is None or isinstance(text, str) for text in texts), "texts")
    for image in images:
        is_array = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3)
        confirm(image is None or isinstance(image, PIL.Image.Image) or is_array and image.size, "images")
    same(found["texts"], [cut(text or "", 400) or ("" if images else "(empty)") for text in texts], "texts")
    same(found["images"], sum(image is not None for image in images), "images")
    if given["clean"] is not None:
        clean = ints(given["clean"], 1).tolist()
        confirm(len(clean) == N and all(0 <= label < C for label in clean), "clean")
        same(found["known"], ["right" if clean[row] == audit.labels[row] else "wrong" for row in shown], "known")
    else:
        same(found["known"], [], "known")
    plan = given["plan"]["options"] if isinstance(given["plan"], dict) else given["plan"]
    same(found["plans"], int(plan is not None and len(plan) > 0), "plan")
    if plan is not None:
        confirm(isinstance(plan, list | tuple) and all(isinstance(one["name"], str) for one in plan), "plan")


def cut(text: str, most: int) -> str:
    text = text.replace("\0", "\ufffd")
    return text if len(text) <= most else f"{text[:most]} …"


TARGETS = [Target("audit.write_page", written, make, check, weight=0.3)]
