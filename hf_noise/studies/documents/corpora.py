"""The text of a study of noise documents, and the other corpora that its models are measured on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import TrainingArguments

import hf_noise
from hf_noise.data.local_files import TEXT, local_files
from hf_noise.data.packing import PackedRows
from hf_noise.data.reading import extension, source_features
from hf_noise.data.sources import find_source
from hf_noise.studies.documents.settings import DocumentSettings, corpora_of
from hf_noise.studies.reading import source_of
from hf_noise.studies.text import Text, options_of

__all__ = ["Corpora", "read_corpora"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpora:
    """The text of a study, and the other corpora that its models are measured on."""

    text: Text
    others: dict[str, PackedRows]

    @property
    def train_rows(self) -> int | None:
        return self.text.train_rows


def read_corpora(settings: DocumentSettings, args: TrainingArguments) -> Corpora:
    """All text that a study needs. Raises CorpusError: some of it is empty."""
    text = Text.load(settings, args, settings.score_rows)
    others = corpora_of(settings).items()
    return Corpora(text, {name: rows_of(settings, args, name, source, column) for name, (source, column) in others})


def rows_of(
    settings: DocumentSettings, args: TrainingArguments, name: str, source: str, column: str | None
) -> PackedRows:
    """Another corpus, packed as the text is, or rows spread evenly over it."""
    warn_of_same(name, settings.source, source)
    with args.main_process_first(desc=f"packing {name}"):
        splits = hf_noise.load_dataset(**corpus_options(settings, source, column), num_proc=settings.num_proc)
    rows = splits["train" if "train" in splits else next(iter(splits))]
    if len(rows) > settings.eval_rows:
        rows = rows.select(np.linspace(0, len(rows) - 1, settings.eval_rows).round().astype(int))
    return PackedRows(rows)


def corpus_options(settings: DocumentSettings, source: str, column: str | None) -> dict:
    """As of the text, without what fits its files alone: its column, and its way to cut files into documents."""
    options = options_of(settings) | {"source": source_of(source), "validation_source": None, "validation_fraction": 0}
    files = files_of(source)
    if "documents" in options and not (files and all(extension(file) in TEXT for file in files)):
        options.pop("documents")
    options.pop("text_column", None)
    column = column or own_column(options["source"], settings.text_column)
    return options | ({} if column is None else {"text_column": column})


def own_column(source: object, of_text: str | None) -> str | None:
    """The column that the text is in, where a corpus has it too; None for the usual one."""
    if of_text is None or isinstance(source, Mapping):
        return of_text
    found = find_source(source)
    columns = source_features(next(iter(found.splits().values())), found.name)
    return of_text if of_text in columns or "text" not in columns else None


def warn_of_same(name: str, trained: str, source: str) -> None:
    """Say so where a corpus is trained on, too: the same source, or a file of it."""
    ours, theirs = ({str(Path(file).resolve()) for file in files_of(one)} for one in (trained, source))
    same = sorted(ours & theirs) or [source] * (source_of(source) == source_of(trained))
    if same:
        logger.warning("--eval %s: %s is trained on too, so this is no measure on other text", name, same[0])


def files_of(source: str) -> list[str]:
    """Files of this machine that a source names."""
    found = source_of(source)
    return local_files(found) or [] if isinstance(found, str) and not found.startswith("embedded/") else []
