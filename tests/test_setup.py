"""What is installed: the files of the wheel, its command and its lowest versions."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from make_constraints import SETUP, constraints, stated  # noqa: E402  (tests are no package)

ROOT = SETUP.parent
_IMPORTED = re.compile(r"^ *(?:import (?=[\w.]+(?: as \w+)?$)|from (?=[\w.]+ import ))(\w+)", re.MULTILINE)
#: Imported, and left to a requirement, with the reason.
BROUGHT = {"fsspec": "datasets takes few versions of it, and bounds them on both sides"}


def files_of_wheel() -> set[str]:
    """What setuptools would put into the wheel, without building one."""
    setuptools = pytest.importorskip("setuptools")
    distribution = setuptools.Distribution({"script_name": "setup.py"})
    distribution.parse_config_files([str(SETUP)])
    command = distribution.get_command_obj("build_py")
    command.ensure_finalized()
    modules = {path for _, _, path in command.find_all_modules()}
    return {Path(path).as_posix() for path in modules} | {
        Path(folder, name).as_posix() for _, folder, _, names in command.data_files for name in names
    }


def test_the_wheel_holds_every_file_of_the_package(monkeypatch):
    monkeypatch.chdir(ROOT)
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hf_noise").rglob("*") if path.is_file()}
    files = {file for file in files if "__pycache__" not in file}
    assert files_of_wheel() == files
    for kind in ("py.typed", "studies/language/__main__", "hub/templates/", "audit/templates/", "reports/paper_tables"):
        assert any(file.startswith(f"hf_noise/{kind}") for file in files), kind


def test_the_constraints_are_the_bounds_of_setup():
    """`python tests/make_constraints.py > tests/constraints-lowest.txt` makes them again."""
    assert (ROOT / "tests" / "constraints-lowest.txt").read_text() == constraints()
    assert len(stated()) > 20 and stated()["transformers"] == "5.18"


@pytest.mark.parametrize(
    "line", ["numpy<3", "numpy", "numpy>=1.9"], ids=["an upper bound", "no bound", "another bound than before"]
)
def test_a_requirement_of_another_form_is_refused(line, tmp_path, monkeypatch):
    setup = tmp_path / "setup.cfg"
    setup.write_text(f"[options]\ninstall_requires =\n    numpy>=2.0\n[options.extras_require]\nmore =\n    {line}\n")
    monkeypatch.setattr("make_constraints.SETUP", setup)
    with pytest.raises(ValueError, match="should be NAME>=VERSION"):
        stated()


def test_what_is_imported_is_required():
    """Of the package itself, whatever the requirements bring beside them."""
    texts = (path.read_text() for path in (ROOT / "hf_noise").rglob("*.py"))
    needed = {name for text in texts for name in _IMPORTED.findall(text)}
    required = {_spelt(name) for name in stated()}
    of_module = metadata.packages_distributions()
    unknown = {name for name in needed - set(sys.stdlib_module_names) - {"hf_noise"}
               if not {_spelt(one) for one in of_module.get(name, ())} & required}  # fmt: skip
    assert unknown == BROUGHT.keys(), f"imported, and not in setup.cfg: {unknown - BROUGHT.keys()}"
    assert {"torch", "transformers", "numpy"} <= needed


def _spelt(name: str) -> str:
    return name.lower().replace("-", "_")
