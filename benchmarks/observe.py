"""What a training step does behind its operators: host synchronisations and large allocations. Counted on a CPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["large_allocations", "syncs_per_step"]

# Operators whose result, or its shape, the host has to wait for on a GPU: `.item()`, `float(tensor)`, `if tensor:`,
# `nonzero`, `masked_select`, `equal`, `unique`.
_SYNCS = {
    "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select", "aten::equal",
    "aten::_unique2", "aten::unique_dim",
}  # fmt: skip


class _CountSyncs(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        indices = args[1] if func._schema.name in ("aten::index", "aten::index_put", "aten::index_put_") else ()
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        self.count += func._schema.name in _SYNCS or by_mask
        return func(*args, **(kwargs or {}))


def syncs_per_step(train: Callable[[int], Any], steps: int = 4) -> float:
    """Host synchronisations that one more step of `train(steps)` makes, in whatever part of the loop.

    `Tensor.numpy()` is not counted: it raises on a GPU, so code that runs there does not call it.
    """
    counts = []
    for n in (steps, 2 * steps):
        counter, tolist = _CountSyncs(), torch.Tensor.tolist

        def counted(tensor, counter=counter, tolist=tolist):
            counter.count += 1  # reads the memory of a CPU tensor without an operator
            return tolist(tensor)

        with counter, patch.object(torch.Tensor, "tolist", counted):
            train(n)
        counts.append(counter.count)
    return (counts[1] - counts[0]) / steps


def large_allocations(step: Callable[[], Any], size: int) -> tuple[Any, int, int]:
    """`(step(), number of allocations of at least `size` bytes, peak bytes above the start)`.

    The profiler sees the allocator itself, so also the buffers inside fused operators, which no dispatch mode sees.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = step()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        trace = json.loads(file.read_text())["traceEvents"]
    events = sorted((event for event in trace if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    if not events:
        raise RuntimeError(f"the profiler of torch {torch.__version__} recorded no allocation")
    changes = [event["args"]["Bytes"] for event in events]
    now = peak = 0
    for change in changes:
        now += change
        peak = max(peak, now)
    return result, sum(change >= size for change in changes), peak
