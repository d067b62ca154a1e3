"""The README quotes figures from records only, and its commands are the project's contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hf_noise.reports.record import read_records
from hf_noise.studies.classifier.report import accuracy_table
from hf_noise.studies.diffusion.report import consistency_table
from hf_noise.studies.documents.compare import compared
from hf_noise.studies.documents.report import settings_table
from hf_noise.studies.language.report import methods_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between_marks(name: str) -> str:
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README, re.DOTALL)[1].strip()


def documents_table(records) -> str:
    return settings_table(compared(records))


@pytest.mark.parametrize(
    ("marks", "study", "table"),
    [
        ("headline", "gpt2-peers", methods_table), ("digits", "classifier-demo", accuracy_table),
        ("edm", "edm-demo", consistency_table), ("documents", "gpt2-documents-h200", documents_table),
    ],
)  # fmt: skip
def test_tables_are_rendered_from_their_records(marks, study, table):
    records = read_records(ROOT / "benchmarks" / "results" / study / "records.jsonl")
    assert between_marks(marks) == table(records)


@pytest.mark.parametrize(
    "command",
    [
        "pip install . && accelerate launch recipes/gpt2_noise.py",
        'pip install ".[test]" && pytest',
        "accelerate launch recipes/classifier_noise.py",
        "accelerate launch recipes/edm_noise.py --data hf_noise/cifar10-noisy --ratio 1.0 --loss tdsm",
        "accelerate launch recipes/gpt2_noise.py --scale paper --ratio 0.5 --output runs/r0.5 "
        "--push_to_hub user/gpt2-owt-r0.5",
    ],
)
def test_commands_of_the_contract_stand_in_the_readme(command):
    assert command in README
