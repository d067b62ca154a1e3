"""GPT-2 among noise documents: does a share alpha of gibberish in the corpus hurt, and is there anything to win back?

Trains one model per setting at equal steps, then prints tables and draws `<output>/study.png`. Every setting has a
folder with its checkpoint, `record.json` and card. Started again, it skips what is finished and goes on where it was
killed. `--dry_run` looks at settings and data. Any flag overrides the scale's preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_noise.models.names import GPT2_SIZES
from hf_noise.studies.documents.settings import DocumentSettings, plan_of, runs_of
from hf_noise.studies.reading import is_elsewhere
from hf_noise.studies.settings import setting
from hf_noise.studies.study import Study

SCALES: dict[str, dict] = {
    "demo": dict(
        output="runs/gpt2-documents-demo", source="embedded/docs-text", tokenizer="embedded:1024", block_size=64,
        model="nano", alpha=[0.01, 0.05, 0.2], steps=500, batch_size=32, micro_batch=64,
        learning_rate=2e-3, warmup=0.05, save_steps=300, logging_steps=25,
    ),  # fmt: skip
    # About 25 minutes of one H200: eight runs of 124 M weights, 0.4 G tokens together.
    "gpu": dict(
        output="runs/gpt2-documents-gpu", source=None, tokenizer="openai-community/gpt2", block_size=1024,
        model="gpt2", alpha=[0.01, 0.05, 0.2], steps=400, batch_size=128, micro_batch=32,
        learning_rate=6e-4, warmup=0.1, save_steps=200, logging_steps=10, bf16=True, torch_compile=True,
    ),  # fmt: skip
    # Paper B, section 3.1; table 8 with --model gpt2-large --alpha 0.05. The warm-up is that of the public recipe.
    "paper": dict(
        output="runs/gpt2-documents-paper", source="Skylion007/openwebtext", tokenizer="openai-community/gpt2",
        block_size=1024, model="gpt2", alpha=[0.01, 0.05, 0.2], cure=[], equal_clean=False, steps=300_000,
        batch_size=640, micro_batch=16, learning_rate=6e-4, warmup=2000, save_steps=5000, logging_steps=100,
        evaluations=60, bf16=True, torch_compile=True,
    ),  # fmt: skip
}


@dataclass
class Settings(DocumentSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES

    model: str = setting(None, "size: gpt2 has 124 M weights, gpt2-large 774 M", group="model", choices=GPT2_SIZES)


STUDY = Study(
    package=__package__,
    recipe="recipes/gpt2_noise.py",
    task="causal_lm",
    description=__doc__.split("\n\n")[0],
    settings=Settings,
    runs=runs_of,
    plan=plan_of,
    elsewhere=lambda settings: settings.source if is_elsewhere(settings.source) else None,
    derived=lambda settings, plan, rows: f"rows = {plan.tokens(settings.block_size):,} tokens",
)
main = STUDY.main
