"""The table of label audits beside cleanlab says what the benchmark's record holds."""

from __future__ import annotations

import json

import pytest

from hf_noise.studies.report.audits import BENCHMARK, audits_table


def row(what, figure, bar="", passed=None, text=""):
    return {"what": f"a set: {what}", "figure": figure, "bar": bar, "passed": passed, "text": text}


ROWS = [
    row("true rate", 0.2), row("rate, agreement", 0.25, text="0.25 [0.21, 0.3]"),
    row("interval holds the rate", 0.0, ">= 1", False), row("error of the rate", 0.05, "<= 0.06", True),
    row("T, L1 per row", 0.1, "<= 0.2", True), row("AUROC", 0.9, ">= 0.95", False),
    row("F1 of the list, against one", 0.8, ">= 0.7", True),
]  # fmt: skip


def write(folder, rows):
    (folder / BENCHMARK).write_text(json.dumps({"settings": {"sets": ["a set"]}, "rows": rows}), encoding="utf-8")


def test_a_line_for_each_set_names_what_was_missed(tmp_path):
    write(tmp_path, ROWS)
    cells = [cell.strip() for cell in audits_table(tmp_path).splitlines()[-1].strip("|").split("|")]
    assert cells == ["a set", "20.0", "25.0 [21.0, 30.0], missed", "5.0 (6.0)", "0.100 (0.200)",
                     "0.900 (0.950), missed", "0.800 (0.700)"]  # fmt: skip


def test_a_record_without_cleanlab_is_refused(tmp_path):
    write(tmp_path, [one for one in ROWS if "error" not in one["what"]])
    with pytest.raises(ValueError, match="where cleanlab is installed"):
        audits_table(tmp_path)
    with pytest.raises(FileNotFoundError):
        audits_table(tmp_path / "nowhere")
