"""BERT among noise documents: does a share alpha of gibberish in the corpus hurt a model that fills in masked tokens?

Trains one model per setting at equal steps, then prints tables and draws `<output>/study.png`. Every setting has a
folder with its checkpoint, `record.json` and card. Started again, it skips what is finished and goes on where it was
killed. `--dry_run` looks at settings and data. Any flag overrides the scale's preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_noise.models.names import BERT_SIZES
from hf_noise.studies.documents.settings import DocumentSettings, plan_of, runs_of
from hf_noise.studies.ranges import NotNegative, Positive, ShareBelowOne, ShareInside
from hf_noise.studies.reading import is_elsewhere
from hf_noise.studies.settings import SettingError, setting
from hf_noise.studies.study import Study

SCALES: dict[str, dict] = {
    # Short tokens and rows, and no dropout: what a masked model learns in minutes is which token stands between two.
    "demo": dict(
        output="runs/bert-documents-demo", source="embedded/docs-text", tokenizer="embedded:300", block_size=32,
        model="nano", dropout=0.0, alpha=[0.05, 0.2], steps=1000, batch_size=32, micro_batch=64,
        learning_rate=1e-3, warmup=0.1, save_steps=500, logging_steps=50,
    ),  # fmt: skip
    # Five runs of 110 M weights, 0.3 G tokens together; rows of 128 tokens, as of most of BERT's own training.
    "gpu": dict(
        output="runs/bert-documents-gpu", source=None, tokenizer="google-bert/bert-base-uncased", block_size=128,
        model="bert-base", alpha=[0.01, 0.05, 0.2], steps=4000, batch_size=128, micro_batch=128,
        learning_rate=3e-4, warmup=0.1, save_steps=1000, logging_steps=50, bf16=True,
    ),  # fmt: skip
    # Paper B, table 9, which says no more than BERT-base, alpha and 10 M iterations. The text is that of the paper's
    # GPT-2; all else, batch, rows, tokenizer, dropout and the learning rate, is BERT's (Devlin et al. 2019, appendix
    # A.2), without its second task and its shorter rows. BERT itself took 1 M iterations: --steps 1000000.
    "paper": dict(
        output="runs/bert-documents-paper", source="Skylion007/openwebtext", tokenizer="google-bert/bert-base-uncased",
        block_size=512, model="bert-base", alpha=[0.05], equal_clean=False, steps=10_000_000, batch_size=256,
        micro_batch=32, learning_rate=1e-4, warmup=10_000, save_steps=10_000, logging_steps=500, evaluations=60,
        bf16=True,
    ),  # fmt: skip
}


@dataclass
class Settings(DocumentSettings):
    """Settings of the study; the defaults of most are those of the scale."""

    scales: ClassVar = SCALES

    model: str = setting(None, "size: bert-base has 110 M weights, bert-large 335 M", group="model", choices=BERT_SIZES)
    dropout: ShareBelowOne = setting(0.1, "of hidden layers and attention", group="model")
    mask_probability: ShareInside = setting(0.15, "share of the tokens that are masked and predicted", group="training")
    learning_rate: Positive = setting(None, "peak; linear to zero")
    weight_decay: NotNegative = setting(0.01, "on matrices only")

    cure: list[str] | None = setting(
        None, "not of masked models: noise that is read in part is taken for text", group="noise and loss",
        in_result=False,
    )  # fmt: skip

    def complete(self) -> None:
        if self.cure:
            raise SettingError("--cure: the mixture's likelihood takes the noise as if nothing were read at a masked "
                               "position, and a fifth of them is read; the study of GPT-2 has it")  # fmt: skip
        self.cure = []
        super().complete()


STUDY = Study(
    package=__package__,
    recipe="recipes/bert_noise.py",
    task="masked_lm",
    description=__doc__.split("\n\n")[0],
    settings=Settings,
    runs=runs_of,
    plan=plan_of,
    elsewhere=lambda settings: settings.source if is_elsewhere(settings.source) else None,
    derived=lambda settings, plan, rows: f"rows = {plan.tokens(settings.block_size):,} tokens",
)
main = STUDY.main
