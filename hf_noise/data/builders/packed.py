"""`hf_noise/packed`: rows of tokens alone, clean for a trainer that draws noise itself, or with documents of noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import DatasetInfo, Features, List, Value

from hf_noise.data.builders.owt_noisy import OwtNoisyConfig
from hf_noise.data.settings import check_names
from hf_noise.data.text import PackedTextBuilder
from hf_noise.data.tokens import token_lists


@dataclass
class PackedConfig(OwtNoisyConfig):
    """As `OwtNoisyConfig`, without noise on targets: clean, or with documents of noise (`protocol` and `alpha`)."""

    r: float | None = 0.0

    def check(self) -> None:
        check_names(self, "protocol")
        if self.protocol is not None and self.takes_alpha and self.r == 0:
            self.r = None  # the default of rows without documents of noise
        super().check()
        if not self.takes_alpha and self.ratio != 0:
            raise ValueError(f"hf_noise/packed holds clean rows, got r={self.ratio}; use hf_noise/owt-noisy for noise")


class Packed(PackedTextBuilder):
    """Columns: `input_ids` [L] int32 and `sample_id` int64; a third of the size of the noisy data sets. With documents
    of noise also `is_noisy` [L] bool and `noise_share` float32; `clean_input_ids` where they replace rows."""

    TEXT = """
Text (OpenWebText unless another source is named), tokenised and packed into rows of equal length."""
    BUILDER_CONFIG_CLASS = PackedConfig

    @property
    def token_columns(self) -> tuple[str, ...]:
        return ("input_ids",)

    def _info(self) -> DatasetInfo:
        self.config.check()
        if self.config.takes_alpha:
            return super()._info()
        tokens = List(Value("int32"), length=self.config.block_size)
        return self.describe(Features({"input_ids": tokens, "sample_id": Value("int64")}))

    def text_of_description(self) -> str:
        return super().text_of_description() if self.config.takes_alpha else f"{self.TEXT} All of it is clean."

    def columns(self, block: np.ndarray, ids: np.ndarray, split: str) -> dict[str, pa.Array]:
        if self.config.takes_alpha:
            return super().columns(block, ids, split)
        return {"input_ids": token_lists(block), "sample_id": pa.array(ids)}

    def _realised(self, split: str) -> dict[str, Any]:
        if self.config.takes_alpha:
            return super()._realised(split)
        return {"rate": 0.0, "n": self.info.splits[split].num_examples * self.config.block_size}
