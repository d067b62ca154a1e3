"""How large anything in the house may be: functions, signatures, files."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATHS = [path for folder in ("hf_noise", "recipes") for path in sorted((ROOT / folder).rglob("*.py"))]
FILES = {str(path.relative_to(ROOT)): path for path in PATHS}

LONGEST_FUNCTION = 60  # lines of code
MOST_ARGUMENTS = 12  # of a public function, without self and cls
LONGEST_FILE = 350  # lines of any kind

#: Signatures that are as long as what they describe, with the reason.
LONG_SIGNATURES = {
    "hf_noise/diffusion/pipeline_edm.py:EDMPipeline.__call__()": "pipelines of diffusers take settings as arguments",
    "hf_noise/estimators/lgm.py:LGMClassifier.__init__()": "scikit-learn reads an estimator's settings off it",
    "hf_noise/models/time_classifier.py:TimeDependentClassifier.__init__()": "diffusers reads the config's keys off it",
}

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def functions(tree: ast.AST, within: str = "") -> list[tuple[str, ast.FunctionDef]]:
    """All functions with their names, such as `Class.method` and `function.inner`."""
    found = []
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        name = f"{within}{node.name}" if is_function or isinstance(node, ast.ClassDef) else within
        if is_function:
            found.append((name, node))
        found += functions(node, f"{name}." if name != within else within)
    return found


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code: neither blank nor comment alone; a text of several lines counts whole."""
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in _NO_CODE]
    return {number for token in tokens for number in range(token.start[0], token.end[0] + 1)}


def body_length(function: ast.FunctionDef, lines: set[int]) -> int:
    """Lines of code of the body: without signature, decorators and docstring; functions within it count."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return len(lines & set(range(body[0].lineno, body[-1].end_lineno + 1))) if body else 0


def arguments(function: ast.FunctionDef) -> list[str]:
    """Names of the arguments that a caller may pass, without `*args` and `**kwargs`."""
    taken = function.args
    names = [argument.arg for argument in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def is_public(name: str) -> bool:
    """Whether users see it: no part begins with an underscore, but for `__init__` and `__call__` of a class."""
    return all(not part.startswith("_") or part in ("__init__", "__call__", "__new__") for part in name.split("."))


def too_large(place: str, source: str) -> set[str]:
    """What is larger than it may be: a file, a function `file:name`, a signature `file:name()`."""
    tree, lines = ast.parse(source), code_lines(source)
    found = {place} if len(source.splitlines()) > LONGEST_FILE else set()
    for name, function in functions(tree):
        if body_length(function, lines) > LONGEST_FUNCTION:
            found.add(f"{place}:{name}")
        if is_public(name) and len(arguments(function)) > MOST_ARGUMENTS:
            found.add(f"{place}:{name}()")
    return found


@pytest.mark.parametrize("place", FILES)
def test_nothing_is_too_large(place):
    found = too_large(place, FILES[place].read_text()) - set(LONG_SIGNATURES)
    assert not found, f"split what does two things, or take settings as one value: {sorted(found)}"


def test_exceptions_are_needed_still():
    found = {name for place, path in FILES.items() for name in too_large(place, path.read_text())}
    assert set(LONG_SIGNATURES) <= found and all(LONG_SIGNATURES.values())


def test_what_is_counted():
    body = "\n".join(f"    x = {i}" for i in range(LONGEST_FUNCTION))
    fits = f'def f(\n    a,\n):\n    """One.\n\n    More.\n    """\n    # why\n\n{body}  # and this\n'
    assert too_large("a.py", fits) == set() and too_large("a.py", f"{fits}    y = 1\n") == {"a.py:f"}
    assert too_large("a.py", f'{fits}    y = """\n    """\n') == {"a.py:f"}
    many = ", ".join(f"a{i}" for i in range(MOST_ARGUMENTS))
    assert too_large("a.py", f"class A:\n    def __init__(self, {many}, *args, **kwargs): ...\n") == set()
    assert too_large("a.py", f"class A:\n    def __init__(self, {many}, *, b): ...\n") == {"a.py:A.__init__()"}
    assert too_large("a.py", f"def _f({many}, b): ...\nclass _A:\n    def f({many}, b): ...\n") == set()
    assert too_large("a.py", "\n" * LONGEST_FILE) == set() and too_large("a.py", "\n" * 351) == {"a.py"}
    inner = f"def f():\n    def g({many}, b):\n        pass\n"
    assert too_large("a.py", f"if True:\n    {inner.replace(chr(10), chr(10) + '    ')}\n") == {"a.py:f.g()"}
