"""Speed and peak memory of tokenising and packing a corpus, once and many times as large, each in its own process.

Part of benchmarks/noise.py. A process of its own, because what one corpus left in the heap would serve the next.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from compare import Report, ratio

# What fragmentation of the heap may add. The larger corpus, 5 M tokens, is 20 MiB of text and 65 MiB of rows.
_ALLOWANCE_MIB = 32.0
_BLOCK_SIZE = 128
# Of the mixtures: the share of noise, rounds, and what building one may cost against packing its text clean.
_ALPHA, _ROUNDS, _MOST_FOR_NOISE = 0.2, 5, 1.3
_KINDS = {"clean": {}} | {
    placement: {"protocol": "random-documents", "alpha": _ALPHA, "protocol_kwargs": {"placement": placement}}
    for placement in ("append", "interleave")
}


def measure_packing(report: Report, copies: int, folder: Path) -> None:
    """Pack the embedded text once and `copies` times as large; add tokens/s and the growth of the peak to `report`."""
    from hf_noise.data.embedded import docs_text_files, embedded_tokenizer

    embedded_tokenizer()  # trained and cached before, so that no child does it
    figures = {}
    for times in sorted({1, copies}):
        source = folder / f"text-{times}"
        source.mkdir()
        for number, file in enumerate(docs_text_files("train") * times):
            pq.write_table(pq.read_table(file), source / f"part-{number}.parquet", row_group_size=64)
        figures[times] = _pack_in_child(source, folder / f"cache-{times}")
        size = f"{figures[times]['tokens'] / 1e6:.1f} M tokens of text"
        report.add(f"packing {size}", figures[times]["tokens"] / figures[times]["seconds"] / 1e3, unit="ktoken/s")
        report.add(f"peak memory above start, {size}", figures[times]["growth_mib"], unit="MiB")
    _measure_mixing(report, copies, folder)
    if copies > 1:
        size = figures[copies]["tokens"] / figures[1]["tokens"]
        report.equal("tokens of the larger corpus", abs(size / copies - 1) < 0.02, f"{size:.2f} times as many")
        more = figures[copies]["growth_mib"] - figures[1]["growth_mib"]
        report.add(f"peak memory, {copies} x the text - 1 x", more, at_most=_ALLOWANCE_MIB, unit="MiB")


def _measure_mixing(report: Report, copies: int, folder: Path) -> None:
    """Build mixtures with a fifth of noise, against packing the same text clean, in turns, each in its own process."""
    rounds, found, seconds = (_ROUNDS if copies > 1 else 1), {}, {kind: [] for kind in _KINDS}
    for number in range(rounds):
        for kind in list(_KINDS) if number % 2 == 0 else reversed(_KINDS):
            cache = folder / f"cache-{kind}"
            found[kind] = _pack_in_child(folder / "text-1", cache, kind)
            seconds[kind].append(found[kind]["cpu_seconds"])
            shutil.rmtree(cache)
    text = found["clean"]["tokens"]
    for kind in ("append", "interleave"):
        kept = found[kind]["tokens"] - found[kind]["noisy"]
        exact = abs(found[kind]["noisy"] / found[kind]["tokens"] - _ALPHA) < 1e-3 and abs(kept / text - 1) < 1e-2
        report.equal(f"text of the mixture, {kind}", exact, f"{kept / text:.4f} of the clean rows', alpha {_ALPHA}")
        measured = ratio(np.array(seconds[kind]), np.array(seconds["clean"]))
        report.add(f"CPU time of a mixture with alpha = {_ALPHA}, {kind} / packing clean", measured,
                   at_most=_MOST_FOR_NOISE if copies > 1 else None)  # fmt: skip
        if copies > 1:
            larger = _pack_in_child(folder / f"text-{copies}", folder / f"cache-{kind}-{copies}", kind)
            more = larger["growth_mib"] - found[kind]["growth_mib"]
            report.add(f"peak memory of a mixture, {kind}, {copies} x the text - 1 x", more, at_most=_ALLOWANCE_MIB,
                       unit="MiB")  # fmt: skip


def _pack_in_child(source: Path, cache: Path, kind: str = "noisy") -> dict[str, float]:
    # The same hf_noise as here, installed or not.
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, __file__, str(source), str(cache), kind], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"packing {source.name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _memory_mib() -> float:
    """Memory of this process without pages of mapped files, which the system takes back at will (elsewhere: its peak).

    Not `ru_maxrss` on Linux: that counts mapped files, and starts with the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"RssAnon:\s+(\d+) kB", status.read_text())[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class _Peak(threading.Thread):
    """Looks at the memory of this process fifty times a second until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib, self.done = _memory_mib(), threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.mib = max(self.mib, _memory_mib())


def _pack(source: str, cache: str, kind: str) -> dict[str, float]:
    """What the child does: `load_dataset` of a local corpus, from text to rows on the disk."""
    import datasets

    import hf_noise
    from hf_noise.data.tokenization import find_tokenizer

    datasets.disable_progress_bars()
    find_tokenizer("embedded")(["what is loaded at first use"])
    name, noise = ("hf_noise/docs-noisy", {"r": 1.0}) if kind == "noisy" else ("hf_noise/packed", _KINDS[kind])
    peak, before = _Peak(), _memory_mib()
    started, cpu = time.perf_counter(), time.process_time()
    peak.start()
    rows = hf_noise.load_dataset(
        name, source=source, tokenizer="embedded", validation_fraction=0.0, block_size=_BLOCK_SIZE, cache_dir=cache,
        split="train", **noise,
    )  # fmt: skip
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak.done.set()
    peak.join()
    tokens = len(rows) * _BLOCK_SIZE
    noisy = round(_realised_rate(rows) * tokens) if kind in ("append", "interleave") else 0
    return {"tokens": tokens, "noisy": noisy, "seconds": seconds, "cpu_seconds": cpu, "growth_mib": peak.mib - before}


def _realised_rate(rows: Any) -> float:
    """The share of noise that the data set states, which was counted in its rows."""
    from hf_noise.noise.describe import noise_dict_from_description

    return noise_dict_from_description(rows.info.description)["realised"]["rate"]


if __name__ == "__main__":
    print(json.dumps(_pack(*sys.argv[1:])))
