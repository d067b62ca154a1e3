"""The pages under `docs` print code that works as it stands there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Value

import hf_noise
from hf_noise.data import builders
from hf_noise.data.hook import builder_names
from hf_noise.noise import base, noise_from_dict
from hf_noise.objectives import objective_from_dict
from hf_noise.objectives.base import _OBJECTIVES, objective_named
from hf_noise.reports import paper
from hf_noise.reports.claims import judge
from hf_noise.studies.reproduce.study import main as reproduce

DOCS = Path(__file__).parents[1] / "docs"


def code(page: str, mark: str, language: str = "python") -> str:
    """What stands between marks."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.search(rf"<!-- {mark} -->\n```{language}\n(.*?)```\n<!-- /{mark} -->", text, re.DOTALL)[1]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Import the code of a mark as a module of its own, of which nothing is left afterwards."""

    def made(mark: str, name: str):
        (tmp_path / f"{name}.py").write_text(code("extending.md", mark), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return __import__(name)

    return made


def test_a_noise_of_the_page_is_a_noise_everywhere(module, monkeypatch):
    monkeypatch.setattr(base, "_PROTOCOLS", dict(base._PROTOCOLS))
    noise = module("noise", "next_tokens").NextTokens(ratio=1.0, vocab_size=1024, seed=3)
    tokens, sample = np.arange(4000).reshape(4, 1000) % 1024, np.arange(4)
    tokens[0, :10] = -100
    noisy, is_noisy = noise(tokens, sample)
    assert (noisy[is_noisy] == (tokens[is_noisy] + 1) % 1024).all() and (noisy[~is_noisy] == tokens[~is_noisy]).all()
    assert not is_noisy[0, :10].any()
    # 3,990 draws at e = 1/2: six standard errors, a false alarm in 5e8 seeds.
    assert abs(is_noisy.sum() / 3990 - 0.5) < 6 * 0.5 / 3990**0.5
    there = noise(torch.from_numpy(tokens), torch.from_numpy(sample))
    assert (there[0].numpy() == noisy).all() and noise_from_dict(noise.to_dict()) == noise
    rows = hf_noise.load_dataset("hf_noise/docs-noisy", protocol="next-tokens", r=1.0, split="train", streaming=True)
    row = next(iter(rows))
    is_other = np.array(row["labels"]) != np.array(row["clean_labels"])
    assert 0 < is_other.mean() < 1 and (is_other == np.array(row["is_noisy"])).all()


def test_a_data_set_of_the_page_is_loaded_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "kmnist_noisy.py").write_text(code("extending.md", "data set"), encoding="utf-8")
    monkeypatch.setattr(builders, "__path__", [*builders.__path__, str(tmp_path)])
    digits = hf_noise.load_dataset("hf_noise/digits-noisy", r=0.0)
    rows = {name: digits[name].select(range(200)).select_columns(["image", "label"]) for name in digits}
    source = {name: of.cast_column("label", Value("int64")) for name, of in rows.items()}
    assert "hf_noise/kmnist-noisy" in builder_names()
    data = hf_noise.load_dataset("hf_noise/kmnist-noisy", r=1.0, source=source)
    train = data["train"]
    assert train.features["label"].names[1] == "ki" and len(train) == 200
    assert 0.3 < np.mean(train["is_noisy"]) < 0.7 and not any(data["test"]["is_noisy"])  # 5.7 standard errors


def test_an_objective_of_the_page_is_found_and_trains(module, monkeypatch):
    monkeypatch.setattr("hf_noise.objectives.base._OBJECTIVES", dict(_OBJECTIVES))
    objective = module("objective", "absolute_error").AbsoluteError()
    assert objective_named("absolute-error", "labels") == objective == objective_from_dict(objective.to_dict())
    logits, labels = torch.tensor([[0.0, 0.0], [np.log(3.0), 0.0]], dtype=torch.float64), torch.tensor([0, 1])
    assert torch.allclose(objective(logits, labels), torch.tensor([0.5, 0.75], dtype=torch.float64))
    assert objective.sentence.startswith("one minus the probability")


def test_a_table_of_the_page_is_that_of_the_package_and_one_of_its_kind_is_listed(tmp_path, monkeypatch, capsys):
    told = json.loads(code("extending.md", "table", "json"))
    assert told == json.loads((paper._FOLDER / "A.table8.json").read_text(encoding="utf-8"))
    new = json.loads(json.dumps(told).replace("A.table8", "Z.table1"))
    (tmp_path / "Z.table1.json").write_text(json.dumps(new), encoding="utf-8")
    monkeypatch.setattr(paper, "_FOLDER", tmp_path)
    assert [judge(claim, paper.published("Z.table1").printed, is_printed=True).held
            for claim in paper.published("Z.table1").claims] == [True, True, True]  # fmt: skip
    reproduce(["--list", "--output", str(tmp_path / "runs")])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| Z.table1"))
    assert [cell.strip() for cell in line.split("|")][4] == "5"  # cells: rows of the table, at one seed
    reproduce(["Z.table1", "--dry_run", "--output", str(tmp_path / "runs")])
    assert "hf_noise.studies.language --scale demo --plan budget" in capsys.readouterr().out
