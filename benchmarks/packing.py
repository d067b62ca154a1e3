"""Speed and peak memory of tokenising and packing a corpus, once and many times as large, each in its own process.

Part of benchmarks/noise.py. A process of its own, because the peak of a process (`ru_maxrss`) never goes down again.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
from compare import Report

# What caches that grow with the number of distinct words, and page tables, may add; the text itself would add more.
_ALLOWANCE_MIB = 32.0


def measure_packing(report: Report, copies: int, folder: Path) -> None:
    """Pack the embedded text once and `copies` times as large; add tokens/s and the growth of the peak to `report`."""
    from hf_noise.data.embedded import docs_text_files, embedded_tokenizer

    embedded_tokenizer()  # trained and cached before, so that no child does it
    figures = {}
    for times in (1, copies):
        source = folder / f"text-{times}"
        source.mkdir()
        for number in range(times):
            for file in map(Path, docs_text_files("train")):
                pq.write_table(pq.read_table(file), source / f"train-{number}-{file.name}", row_group_size=64)
        figures[times] = _pack_in_child(source, folder / f"cache-{times}")
        size = f"{figures[times]['tokens'] / 1e6:.1f} M tokens of text"
        report.add(f"packing {size}", figures[times]["tokens"] / figures[times]["seconds"] / 1e3, unit="ktoken/s")
        report.add(f"peak memory above start, {size}", figures[times]["growth_mib"], unit="MiB")
    ratio = figures[copies]["tokens"] / figures[1]["tokens"]
    report.equal("tokens of the larger corpus", abs(ratio / copies - 1) < 0.02, f"{ratio:.2f} times as many")
    more = figures[copies]["growth_mib"] - figures[1]["growth_mib"]
    report.add(f"peak memory, {copies} x the text - 1 x", more, at_most=_ALLOWANCE_MIB, unit="MiB")


def _pack_in_child(source: Path, cache: Path) -> dict[str, float]:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, __file__, str(source), str(cache)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"packing {source.name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _pack(source: str, cache: str) -> dict[str, float]:
    """What the child does: `load_dataset` of a local corpus, from text to noisy rows on the disk."""
    import datasets

    import hf_noise
    from hf_noise.data.tokenization import find_tokenizer

    datasets.disable_progress_bars()
    tokenizer = find_tokenizer("embedded")
    tokenizer(["warm up"])
    before, started = _peak_mib(), time.perf_counter()
    rows = hf_noise.load_dataset(
        "hf_noise/docs-noisy", source=source, tokenizer="embedded", ratio=1.0, validation_fraction=0.0, cache_dir=cache,
        split="train",
    )  # fmt: skip
    seconds, growth = time.perf_counter() - started, _peak_mib() - before
    return {"tokens": len(rows) * 128, "seconds": seconds, "growth_mib": growth}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(_pack(*sys.argv[1:])))
