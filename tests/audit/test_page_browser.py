"""The page of an audit in a browser, on a phone and on a desk."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hf_noise.audit import audit_labels

_SPEC = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("pages.py"))
pages = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(pages)
ATTACK, LABELS, P, page_of = pages.ATTACK, pages.LABELS, pages.P, pages.page_of

#: Chooses a pair by the button beside the largest confusion, then tells what sticks out and what is shown.
CLICKS = """
document.querySelector(".show").click();
const shown = rows.filter(row => !row.hidden), page = document.documentElement;
const pairs = new Set(shown.map(row => row.dataset.given + row.dataset.suggested));
const count = document.getElementById("count").textContent;
parent.told.push([innerWidth, page.scrollWidth <= page.clientWidth, shown.length, pairs.size, count].join());
"""


def test_the_page_in_a_browser_fits_a_phone_and_filters(told_at_widths, tmp_path):
    names = ["Pneumonoultramicroscopicsilicovolcanoconiosis" * 3, "a long name of words " * 4, "c", ATTACK]
    audit = audit_labels(LABELS, probabilities=P, class_names=names)
    page = page_of(tmp_path, audit, texts=["x" * 500] * 600, title="y" * 300, plan=[{"name": "z" * 200, "value": 3}])
    told = told_at_widths(page, CLICKS)
    assert [line[0] for line in told] == ["1280", "390"]
    total = min(200, int(audit.flagged().sum()))
    for _, fits, shown, pairs, count in told:
        assert fits == "true" and 0 < int(shown) < total and pairs == "1" and count == f"{shown} of {total} rows"
