"""`hf_noise/docs-pairs-noisy`: first sentences of docstrings from a rich or a sparse source, offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_noise.data.builder import ratio_grid
from hf_noise.data.pairs import NoisyPairsBuilder
from hf_noise.data.pairs_embedded import CONTEXTS, DOCS_PAIRS
from hf_noise.data.pairs_settings import NoisyPairsConfig
from hf_noise.data.source_names import SourceLike
from hf_noise.noise.checks import check_choice


@dataclass
class DocsPairsNoisyConfig(NoisyPairsConfig):
    """As `NoisyPairsConfig`; the source is embedded.

    Args:
        context: what the source is: "rich", the docstring without its first sentence, or "sparse", the bare qualified
            name. Rows and targets of both are the same.
    """

    source: SourceLike | Mapping[str, SourceLike] | None = DOCS_PAIRS
    vocab_size: int = 2048
    context: str = "rich"

    @property
    def task(self) -> str:
        return f"{DOCS_PAIRS}, {self.columns[0]} -> {self.columns[1]}"

    def check(self) -> None:
        self.context = check_choice("context", self.context, CONTEXTS, '"rich" or "sparse"')
        if tuple(self.columns) not in (NoisyPairsConfig.columns, (CONTEXTS[self.context], "target")):
            raise ValueError(f"columns={self.columns!r} means nothing here; choose the source with context=")
        self.columns = (CONTEXTS[self.context], "target")
        super().check()

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in super().identity().items() if name != "columns"}


class DocsPairsNoisy(NoisyPairsBuilder):
    """First sentences of the docstrings in the running Python's standard library, each with two sources."""

    DESCRIPTION = """
The first sentence of each docstring in the running Python's standard library (`target`), and as `source` what follows
it (rich) or the bare qualified name (sparse). Whole targets of the train split are those that a teacher wrote, at rate
e = r / (1 + r) (paper A, K.3); the true ones are in `clean_target`."""
    BUILDER_CONFIG_CLASS = DocsPairsNoisyConfig
    BUILDER_CONFIGS = ratio_grid(DocsPairsNoisyConfig)
