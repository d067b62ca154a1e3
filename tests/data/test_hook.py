"""`load_dataset("hf_noise/...")`: whatever was imported first, once and only for our names."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import datasets
import datasets.inspect
import datasets.load
import pytest
from datasets.exceptions import DatasetNotFoundError

from hf_noise.data import hook


def run(code):
    """Run code in a fresh process; it prints one line of JSON at the end."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_names_come_from_the_modules():
    assert {"hf_noise/docs-noisy", "hf_noise/noisy", "hf_noise/owt-noisy"} <= set(hook.builder_names())


@pytest.mark.parametrize(
    "imports",
    [
        "import hf_noise; from datasets import load_dataset",
        "from datasets import load_dataset; import hf_noise",
    ],
    ids=["hf_noise first", "datasets first"],
)
def test_a_fresh_process(imports):
    code = (
        f"{imports}; import json, datasets; names = datasets.get_dataset_config_names('hf_noise/docs-noisy');"
        "module = datasets.load.dataset_module_factory('hf_noise/docs-noisy');"
        "print(json.dumps([names, module.module_path, module.builder_kwargs]))"
    )
    module = "hf_noise.data.builders.docs_noisy"
    assert run(code) == [["r0.0", "r0.1", "r0.3", "r0.5", "r1.0"], module, {"dataset_name": "docs_noisy"}]


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import json, sys, hf_noise;"
        "print(json.dumps([m for m in ('datasets', 'torch', 'transformers', 'pyarrow', 'numpy') if m in sys.modules]))"
    )
    assert run(code) == []


def test_installing_twice_wraps_once():
    before = datasets.load.dataset_module_factory, datasets.inspect.dataset_module_factory
    hook.install()
    hook.install_on_import()
    hook.install_on_import()
    assert before == (datasets.load.dataset_module_factory, datasets.inspect.dataset_module_factory)
    assert not hasattr(before[0].__wrapped__, hook._MARK)
    assert sum(getattr(finder, hook._MARK, False) for finder in sys.meta_path) == 1


def test_survives_reloads():
    code = (
        "import importlib, json; from hf_noise.data import hook;"
        "import datasets, datasets.load; importlib.reload(hook); hook.install_on_import();"
        "importlib.reload(datasets.load);"
        "print(json.dumps([hasattr(datasets.load.dataset_module_factory, hook._MARK),"
        "datasets.get_dataset_config_names('hf_noise/docs-noisy')[0]]))"
    )
    assert run(code) == [True, "r0.0"]


def test_other_names_go_to_the_original(parquet):
    assert datasets.load_dataset("parquet", data_files=parquet, split="train").num_rows == 300
    with pytest.raises((ConnectionError, DatasetNotFoundError)):
        datasets.load_dataset("nobody/nothing")


def test_the_function_of_the_package():
    stream = hook.load_dataset("hf_noise/docs-noisy", "r0.0", split="validation", streaming=True)
    assert len(next(iter(stream))["labels"]) == 128


def test_unknown_name():
    with pytest.raises(DatasetNotFoundError, match="no data set 'hf_noise/nothing'; it has .*, hf_noise/docs-noisy, "):
        datasets.load_dataset("hf_noise/nothing", r=0.5)


def test_underscores_mean_the_same():
    assert datasets.load_dataset_builder("hf_noise/docs_noisy", r=0.5).dataset_name == "docs_noisy"


def test_the_hash_of_the_code_names_the_cache(monkeypatch):
    before = datasets.load_dataset_builder("hf_noise/docs-noisy", r=0.5).cache_dir
    assert hook.code_hash() in before
    monkeypatch.setattr(hook, "code_hash", lambda: "other")
    after = datasets.load_dataset_builder("hf_noise/docs-noisy", r=0.5).cache_dir
    assert after != before and after.endswith("other")


def test_the_hash_follows_every_source_file(tmp_path, monkeypatch):
    package = tmp_path / "hf_noise"
    for name in ("noise/a.py", "data/hook.py", "data/builders/b.py", "losses/c.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("1")
    monkeypatch.setattr(hook, "__file__", str(package / "data/hook.py"))
    hashes = [hook.code_hash.__wrapped__()]
    for name in ("noise/a.py", "data/builders/b.py", "losses/c.py"):
        (package / name).write_text("2")
        hashes.append(hook.code_hash.__wrapped__())
    assert len(set(hashes)) == 3 and hashes[2] == hashes[3]


def test_import_machinery_is_left_alone():
    finder = next(finder for finder in sys.meta_path if getattr(finder, hook._MARK, False))
    assert finder.find_spec("datasets.arrow_dataset", datasets.__path__) is None
    spec = finder.find_spec("datasets.load", datasets.__path__)
    assert spec.origin == datasets.load.__file__
    assert importlib.util.find_spec("datasets.load").origin == datasets.load.__file__


def test_a_builder_says_what_it_is_of():
    from hf_noise.data.images import NoisyImagesBuilder
    from hf_noise.data.pairs import NoisyPairsBuilder
    from hf_noise.data.text import PackedTextBuilder

    kinds = {name: hook.builder_class(name) for name in hook.builder_names()}
    of_text = {name for name, kind in kinds.items() if issubclass(kind, PackedTextBuilder)}
    assert of_text == {"hf_noise/docs-noisy", "hf_noise/owt-noisy", "hf_noise/packed"}
    of_pairs = {name for name, kind in kinds.items() if issubclass(kind, NoisyPairsBuilder)}
    assert of_pairs == {f"hf_noise/{name}-noisy" for name in ("docs-pairs", "wmt14", "cnn-dailymail")}
    others = kinds.keys() - of_text - of_pairs
    assert {name for name, kind in kinds.items() if issubclass(kind, NoisyImagesBuilder)} == others
    assert kinds["hf_noise/mnist-noisy"].BUILDER_CONFIG_CLASS.NUM_CLASSES == 10
    for wrong in ("hf_noise/none", "hf_noise/docs_noisy", 3):
        with pytest.raises(ValueError, match="hf_noise has no data set .*; it has hf_noise/cifar10-noisy"):
            hook.builder_class(wrong)


@pytest.mark.parametrize("base", ["text", "images"])
def test_a_new_data_set_is_one_file(tmp_path, monkeypatch, base):
    """The whole of a new data set: a file in the folder of builders, which the folder of this test stands in for."""
    from hf_noise.data import builders

    kind = {"text": "PackedText", "images": "NoisyImages"}[base]
    (tmp_path / f"mine_{base}.py").write_text(
        f"from dataclasses import dataclass\nfrom hf_noise.data.{base} import {kind}Builder, {kind}Config\n\n"
        f"@dataclass\nclass MineConfig({kind}Config):\n    source: str = {'docs' if base == 'text' else 'digits'!r}\n\n"
        f"class Mine({kind}Builder):\n    BUILDER_CONFIG_CLASS = MineConfig\n"
    )
    monkeypatch.setattr(builders, "__path__", [*builders.__path__, str(tmp_path)])
    assert f"hf_noise/mine-{base}" in hook.builder_names()
    assert hook.builder_class(f"hf_noise/mine-{base}").__name__ == "Mine"
    source = {"text": "embedded/docs-text", "images": "embedded/digits"}[base]
    rows = hook.load_dataset(f"hf_noise/mine-{base}", r=1, source=source, split="train", streaming=True)
    assert next(iter(rows))
