"""`hf_noise/packed`: clean rows of tokens, for a trainer that draws the noise itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import DatasetInfo, Features, List, Value

from hf_noise.data.builders.owt_noisy import OwtNoisyConfig
from hf_noise.data.text import PackedTextBuilder
from hf_noise.data.tokens import token_lists


@dataclass
class PackedConfig(OwtNoisyConfig):
    """As `OwtNoisyConfig`, without noise."""

    r: float | None = 0.0

    def check(self) -> None:
        super().check()
        if self.ratio != 0:
            raise ValueError(f"hf_noise/packed holds clean rows, got r={self.ratio}; use hf_noise/owt-noisy for noise")


class Packed(PackedTextBuilder):
    """Columns: `input_ids` [L] int32 and `sample_id` int64; a third of the size of the noisy data sets."""

    DESCRIPTION = """
Text (OpenWebText unless another source is named), tokenised and packed into rows of equal length, clean."""
    BUILDER_CONFIG_CLASS = PackedConfig

    def _info(self) -> DatasetInfo:
        self.config.check()
        tokens = List(Value("int32"), length=self.config.block_size)
        return self.describe(Features({"input_ids": tokens, "sample_id": Value("int64")}))

    def columns(self, block: np.ndarray, ids: np.ndarray, split: str) -> dict[str, pa.Array]:
        return {"input_ids": token_lists(block), "sample_id": pa.array(ids)}

    def _realised(self, split: str) -> dict[str, Any]:
        return {"rate": 0.0, "n": self.info.splits[split].num_examples * self.config.block_size}
