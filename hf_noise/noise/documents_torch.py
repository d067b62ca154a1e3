"""Document noise on tensors: the same draws as on NumPy arrays, on a CPU or a GPU."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from hf_noise.noise import counter, counter_torch
from hf_noise.noise.arrays import IGNORE_INDEX, check_dtype, check_rows, ignored_positions

if TYPE_CHECKING:
    from hf_noise.noise.documents import _Documents

__all__ = ["replace", "rows"]
