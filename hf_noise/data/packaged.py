"""What comes with the package: data by name, the files of each, what identifies them, and their splits."""

from __future__ import annotations

from collections.abc import Callable

from hf_noise.data.digits import DIGITS, digits_files, digits_identity
from hf_noise.data.embedded import DOCS_TEXT, docs_text_files, docs_text_identity
from hf_noise.data.pairs_embedded import DOCS_PAIRS, docs_pairs_files, docs_pairs_identity
from hf_noise.data.passages import DOCS_TOPICS, docs_topics_files, docs_topics_identity

__all__ = ["DOCS_TEXT", "PACKAGED"]

PACKAGED: dict[str, tuple[Callable[[str], list[str]], Callable[[], str], tuple[str, ...]]] = {
    DOCS_TEXT: (docs_text_files, docs_text_identity, ("train", "validation")),
    DIGITS: (digits_files, digits_identity, ("train", "test")),
    DOCS_PAIRS: (docs_pairs_files, docs_pairs_identity, ("train", "validation", "test")),
    DOCS_TOPICS: (docs_topics_files, docs_topics_identity, ("train", "test")),
}
