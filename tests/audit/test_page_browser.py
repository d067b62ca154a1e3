"""The page of an audit in a browser, on a phone and on a desk."""

from __future__ import annotations

import html
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hf_noise.audit import audit_labels

_SPEC = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("pages.py"))
pages = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(pages)
ATTACK, LABELS, P, page_of = pages.ATTACK, pages.LABELS, pages.P, pages.page_of
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: Chooses a pair by the button beside the largest confusion, then tells what sticks out and what is shown.
CLICKS = """<script>
document.querySelector(".show").click();
const shown = rows.filter(row => !row.hidden), page = document.documentElement;
const pairs = new Set(shown.map(row => row.dataset.given + row.dataset.suggested));
const count = document.getElementById("count").textContent;
parent.told.push([innerWidth, page.scrollWidth <= page.clientWidth, shown.length, pairs.size, count].join());
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the page in")
def test_the_page_in_a_browser_fits_a_phone_and_filters(tmp_path):
    names = ["Pneumonoultramicroscopicsilicovolcanoconiosis" * 3, "a long name of words " * 4, "c", ATTACK]
    audit = audit_labels(LABELS, probabilities=P, class_names=names)
    page = page_of(tmp_path, audit, texts=["x" * 500] * 600, title="y" * 300, plan=[{"name": "z" * 200, "value": 3}])
    framed = html.escape(page.replace("</body>", CLICKS))
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{framed}"></iframe>' for width in (390, 1280))
    (tmp_path / "frames.html").write_text(
        f"<!doctype html><meta charset=utf-8><script>told = []; onload = () => document.body.append("
        f"Object.assign(document.createElement('pre'), {{textContent: told.sort().join(';')}}))</script>{frames}",
        encoding="utf-8",
    )  # fmt: skip
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--window-size=1400,900", "--dump-dom", (tmp_path / "frames.html").as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    told = [line.split(",") for line in re.search("<pre>(.*?)</pre>", dom)[1].split(";")]
    assert [line[0] for line in told] == ["1280", "390"]
    total = min(200, int(audit.flagged().sum()))
    for _, fits, shown, pairs, count in told:
        assert fits == "true" and 0 < int(shown) < total and pairs == "1" and count == f"{shown} of {total} rows"
