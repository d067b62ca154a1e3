"""What studies of language models share: which text, cut into which tokens and rows."""

from __future__ import annotations

from dataclasses import dataclass

from hf_noise.data.embedded import DOCS_TEXT
from hf_noise.studies.ranges import Count, Name, ShareInside, TwoOrMore
from hf_noise.studies.settings import SettingError, setting

__all__ = ["TextSettings"]


@dataclass
class TextSettings:
    """Settings of a study that trains on packed text; `complete_text` belongs into its `complete`."""

    source: Name | None = setting(None, "embedded/docs-text, a path or glob, or a Hub data set", group="data")
    text_column: Name | None = setting(None, "the source's column of text (default: text)", group="data")
    documents: str | None = setting(
        None, "of .txt and .md: what is one document (default: file)", group="data",
        choices=["file", "line", "paragraph"],
    )  # fmt: skip
    validation_source: Name | None = setting(None, "clean text to validate on, else held out", group="data")
    validation_fraction: ShareInside | None = setting(
        None, "share held out of a source without validation split (default: 0.01)", group="data"
    )
    tokenizer: Name = setting(None, "embedded, embedded:<size>, a folder, or a Hub model", group="data")
    block_size: TwoOrMore = setting(None, "tokens per row", group="data")
    streaming: bool = setting(False, "read, tokenise and pack while training, nothing on disk", group="data")
    num_proc: Count | None = setting(None, "processes that tokenise and pack", group="data", in_result=False)

    def complete_text(self) -> None:
        """Raises SettingError: there is no text to train on, or none to validate on."""
        if self.source is None:
            raise SettingError(f"--scale {self.scale} needs a corpus: --source path/*.parquet")
        if self.streaming and self.validation_source is None and self.source != DOCS_TEXT:
            raise SettingError("--streaming needs --validation_source: held-out documents are spread over a stream")
        if self.validation_source is not None and self.validation_fraction is not None:
            raise SettingError(f"--validation_fraction {self.validation_fraction:g}: --validation_source is the whole "
                               "validation split; give one of them")  # fmt: skip
