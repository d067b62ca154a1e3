"""Names in cards stay text: read as Markdown, as HTML, as a table, and as Python."""

import ast
import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.reports.markdown import Code, code, fenced, quoted, table, text

EVIL = [
    "<script>alert(1)</script>", "a|b", r"a\|b", "```\nrm -rf /\n```", "`x`", "# title", "[x](javascript:y)", "a\nb",
    "*bold* _it_ __b__ ~~s~~ $$x$$", '"quotes" and \'more\'', "\\", "&lt;", "<!-- x", "-->", "\u202eabc", "a\x00b",
    *("# x", "- x", "+ x", "1. x", "1) x", "x #", "x ##", "=== ", "- - -"),
    "]]>", "{{ x }}", "---", "<br>", "![x](http://x/y.png)", "x_y_z",
]  # fmt: skip
#: Lines that Markdown takes for something else.
LINES = ["# x", "###### x", "#", "- x", "+ x", "-", "1. x", "12) x", "3.", "---", "- - -", "===", "=", "x #", "x ##",
         "## #"]  # fmt: skip
names = st.sampled_from(EVIL) | st.text(max_size=20)


def unescaped(line: str) -> str:
    """What a reader of Markdown sees of plain text."""
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", line))


@settings(max_examples=200, deadline=None)
@given(names)
def test_text_is_read_as_it_was_meant(name):
    shown = text(name)
    assert "\n" not in shown and "<" not in shown and ">" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*\[\]|]", shown)
    assert unescaped(shown) == " ".join("".join(c if c.isprintable() else " " for c in name).split())


@pytest.mark.parametrize("line", LINES)
def test_no_line_is_a_heading_a_list_or_a_rule(line):
    shown = text(line)
    assert unescaped(shown) == line
    assert not re.match(r"#{1,6}(\s|$)|[-+](\s|$)|\d+[.)](\s|$)|[-= ]+$", shown)
    assert not re.search(r"(^|\s)#+$", f"# {shown}")  # which would close the heading
    for usual in ("-0.5", "+1", "#5 of 6", "1.5", "r0.5", "x#", "a - b", "C# x"):
        assert text(usual) == usual


@settings(max_examples=200, deadline=None)
@given(names)
def test_code_and_fences_cannot_be_closed_from_within(name):
    span = code(name)
    ticks = re.match("`+", span)[0]
    assert span.endswith(ticks) and "\n" not in span and ticks not in re.findall("`+", span[len(ticks) : -len(ticks)])
    fence, *lines, last = fenced("bash", name).split("\n")
    assert fence == f"{last}bash" and "\n".join(lines) == name and not any(last in line for line in lines)


@settings(max_examples=200, deadline=None)
@given(names)
def test_quoted_is_the_same_string_in_python_on_one_line(name):
    assert ast.literal_eval(quoted(name)) == name and "\n" not in quoted(name)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(names, names), min_size=1, max_size=3))
def test_a_table_has_as_many_cells_as_it_was_given(rows):
    lines = table(("a", "b"), [(Code(first), second) for first, second in rows]).split("\n")
    assert len(lines) == 2 + len(rows)
    for line in lines[2:]:
        # GitHub cuts cells at every `|` that no backslash escapes, within code as well.
        cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)
        assert len(cells) == 4


@pytest.mark.parametrize("plain", ["gpt2-nano_r0.5", "share of images equal to (y + 1) mod C", "3.5 %", "a/b", "é"])
def test_ordinary_text_stays(plain):
    assert text(plain) == plain and code(plain) == f"`{plain}`"
