"""The floors of the package: which part may import which."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hf_noise"

#: What each floor may import of ours, besides itself. `hf_noise/__init__.py` joins them all.
ALLOWED = {
    "noise": set(),
    "data": {"noise", "models"},
    "analysis": {"noise"},
    "losses": set(),
    "objectives": {"noise", "losses"},
    "models": set(),
    "metrics": set(),
    "diffusion": {"models"},
    "trainers": {"noise", "analysis", "losses", "objectives", "diffusion", "reports"},
    "estimators": {"losses", "models", "trainers"},
    "audit": {"noise", "data", "analysis", "metrics", "models", "objectives", "trainers"},
    "reports": {"analysis", "metrics.words"},
    "hub": {"noise", "objectives", "reports", "metrics.words"},
}
ALLOWED["studies"] = set(ALLOWED)

#: Modules that a floor may import without the rest of their floor: names, which cost nothing.
NAMES = {"hf_noise.metrics.words": "metrics.words"}

#: What lies below all floors and imports nothing of ours: the version, how a file is written, how names load what they
#: stand for, a network's positions and tokens.
GROUND = {"__version__", "atomic", "evaluation_mode", "lazy_names", "pair_sizes", "positions"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(tree, package):
    """Names of the modules that code in `package` imports, in functions too, relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def floors(names):
    found = set()
    for name in names:
        of_names = [words for module, words in NAMES.items() if f"{name}.".startswith(f"{module}.")]
        found |= {*of_names} or {name.split(".")[1]} if name.startswith("hf_noise.") else set()
    return found


def package_of(path):
    return ".".join(path.relative_to(PACKAGE.parent).parent.parts)


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != PACKAGE], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_lower_floors(path):
    package = package_of(path)
    floor = package.split(".")[1]
    ours = floors(imported(ast.parse(path.read_text()), package)) - {floor, *GROUND}
    ours -= {words for words in NAMES.values() if words.split(".")[0] in {floor, *ALLOWED[floor]}}
    assert ours <= ALLOWED[floor], f"hf_noise.{floor} must not import {sorted(ours - ALLOWED[floor])}"


RECIPES = sorted((PACKAGE.parent / "recipes").glob("*.py"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_a_door(path):
    """Of 10 to 20 lines, which open on a study and hold nothing themselves."""
    code = path.read_text()
    assert 10 <= len(code.splitlines()) <= 20
    assert all(name.startswith("hf_noise.studies.") for name in imported(ast.parse(code), "recipes"))
    kinds = {type(node) for node in ast.parse(code).body}
    assert kinds == {ast.Expr, ast.ImportFrom, ast.If}


def test_studies_do_not_go_in_circles():
    """A study may use another, which then does not use it."""
    studies = {path.parent.name for path in PACKAGE.glob("studies/*/study.py")}
    needs = {}
    for study in studies:
        names = set()
        for path in (PACKAGE / "studies" / study).glob("*.py"):
            names |= set(imported(ast.parse(path.read_text()), package_of(path)))
        ours = {name.split(".")[2] for name in names if name.startswith("hf_noise.studies.")}
        needs[study] = ours & studies - {study}
    before = set()
    while ready := {study for study, of in needs.items() if of <= before} - before:
        before |= ready
    assert len(studies) >= 7 and before == studies


def test_every_folder_is_a_known_floor():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(ALLOWED)
    assert len(folders) >= 5 and len(MODULES) > 20, "the package was not found"


def test_no_circle():
    """The floors can be put in an order in which each imports only those before it."""
    left, before = {floor: {need.split(".")[0] for need in needs} for floor, needs in ALLOWED.items()}, set()
    while ready := {floor for floor, needs in left.items() if needs <= before}:
        before |= ready
        left = {floor: needs for floor, needs in left.items() if floor not in ready}
    assert not left


@pytest.mark.parametrize(
    "path",
    sorted(path for floor in ("noise", "objectives") for path in (PACKAGE / floor).glob("*.py")),
    ids=lambda p: f"{p.parent.name}/{p.name}",
)
def test_values_are_numpy_except_for_their_torch_twins(path):
    if path.stem.endswith("_torch"):
        return
    at_import = ast.Module(
        [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)], []
    )
    outside = {name.split(".")[0] for name in imported(at_import, package_of(path))}
    assert not outside & {"torch", "transformers", "datasets"}


@pytest.mark.parametrize("module", ["atomic", "metrics/words"])
def test_what_everyone_may_import_imports_the_standard_library_alone(module):
    names = imported(ast.parse((PACKAGE / f"{module}.py").read_text()), package_of(PACKAGE / f"{module}.py"))
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_the_reader_of_imports_sees_all_kinds():
    code = (
        "import hf_noise.data.hook\n"
        "from . import a\nfrom .. import hub\nfrom ..losses import nll\nfrom ...models.gpt2 import x\n"
        "def f():\n    from hf_noise import trainers\n"
    )
    names = set(imported(ast.parse(code), "hf_noise.reports.deep"))
    assert names == {
        "hf_noise.data.hook", "hf_noise.reports.deep.a", "hf_noise.reports.hub", "hf_noise.reports.losses.nll",
        "hf_noise.models.gpt2.x", "hf_noise.trainers",
    }
    assert floors(names) == {"data", "reports", "models", "trainers"}
    assert floors({"hf_noise.metrics.words.METRICS", "hf_noise.metrics.wordsmith"}) == {"metrics.words", "metrics"}
