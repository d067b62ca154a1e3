"""The README quotes figures from records only, and its commands are the project's contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from datasets import Dataset

from hf_noise.studies.report.marks import OF_STUDIES, texts, update

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: A newcomer reads it at one go; what is longer belongs to docs.
MOST_LINES = 250


#: What makes the run of its own pairs a matter of a second.
SMALL = {
    "8000": "270", "layers=3, d_model=256, heads=4, feed_forward=1024": "layers=1, d_model=8, heads=2, feed_forward=8",
    "max_steps=2000": "max_steps=8, logging_steps=2, use_cpu=True, report_to='none'",
    "tokens_per_batch=8192": "tokens_per_batch=900",
}  # fmt: skip


def between_marks(page: str, name: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)[1].strip()


def test_the_readme_stays_short():
    assert len(README.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", texts(ROOT), ids=lambda page: page.name)
def test_links_of_the_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_tables_cards_and_the_first_picture_are_rendered_from_their_records():
    old = [file.relative_to(ROOT).as_posix() for file in update(ROOT, writes=False)]
    assert not old, "python recipes/report.py --readme renders them again"


@pytest.mark.parametrize("name", [*OF_STUDIES, "families", "claims", "recipes", "audits"])
def test_each_table_of_a_study_stands_somewhere(name):
    assert sum(f"<!-- {name} -->" in file.read_text(encoding="utf-8") for file in texts(ROOT)) == 1


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


@pytest.mark.parametrize("knows", [False, True], ids=["nobody knows", "a column says who wrote"])
def test_pairs_of_ones_own_are_trained_on_and_audited_as_told(tmp_path, monkeypatch, knows):
    words, is_noisy = [f"word {i}" for i in range(24)], [i % 3 == 0 for i in range(24)]
    rows = {"source": words, "target": [f"of {one}" for one in words], "other": words}
    Dataset.from_dict(rows | ({"is_noisy": is_noisy} if knows else {})).to_parquet(tmp_path / "pairs.parquet")
    monkeypatch.chdir(tmp_path)
    code, made = between_marks("docs/seq2seq.md", "own pairs").removeprefix("```python").removesuffix("```"), {}
    for large, small in SMALL.items():
        assert large in code
        code = code.replace(large, small)
    exec(code, made)  # noqa: S102 - the README's own
    scores, audit = made["scores"], Dataset.from_parquet("audit.parquet")
    assert audit["sample_id"][:] == list(range(24)) and len(made["right"]) == (scores.p_clean >= 0.5).sum()
    assert (scores.is_noisy is None) if not knows else (scores.is_noisy.tolist() == is_noisy)
    assert made["trainer"].noise is None, "nobody knows how much there is"
    logs = made["trainer"].state.log_history
    assert knows == any("nll_corrupted_targets" in one for one in logs)
