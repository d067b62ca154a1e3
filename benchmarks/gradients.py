"""Inner products of the gradients of GPT-2's tied embedding against a loop of backward passes: time, memory, accuracy.

    python benchmarks/gradients.py [--quick] [--output benchmarks/results/gradients.json]

GPT-2 124M from its config (no weights are read), rows of 256 random tokens. The loop takes one example after the other,
holds all gradients and multiplies them once. Bars are explained in benchmarks/README.md.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from compare import Report, Spread, arguments, interleave, ratio, start
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from hf_noise.analysis.chosen_parameters import measured
from hf_noise.analysis.example_rows import rows_of
from hf_noise.analysis.gradients import _Gram

EMBEDDING = "transformer.wte.weight"
MIB = 1 << 20
#: Child processes print this before the figure.
GROWTH = "MiB above the start: "


def model_of(is_quick: bool, dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    small = {"n_layer": 1, "n_embd": 32, "n_head": 2, "vocab_size": 1000, "n_positions": 16} if is_quick else {}
    told = {"bos_token_id": 0, "eos_token_id": 0, "loss_type": "ForCausalLM"}
    return GPT2LMHeadModel(GPT2Config(**told | small)).to(dtype).eval()


def batch_of(model: GPT2LMHeadModel, size: int) -> dict[str, Tensor]:
    length, vocab = min(256, model.config.n_positions), model.config.vocab_size
    tokens = torch.randint(0, vocab, (size, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": tokens, "labels": tokens, "is_noisy": torch.arange(size) % 2 == 1}


@lru_cache(maxsize=4)
def gram_of(model: GPT2LMHeadModel) -> _Gram:
    """One for all batches, as in `coherence`: whether the forward is functional is looked at once."""
    return _Gram(model, {EMBEDDING: model.transformer.wte.weight}, "blocks", 256 * MIB)


def blocks(model: GPT2LMHeadModel, batch: dict[str, Tensor]) -> np.ndarray:
    """Ours, as `coherence` does it with each batch."""
    with measured(model):
        return gram_of(model)(rows_of(model, batch, "example", True, "the batch"))


def gradients(model: GPT2LMHeadModel, batch: dict[str, Tensor]) -> list[Tensor]:
    """Of each example, by a backward pass of its own."""
    weight = model.transformer.wte.weight
    return [torch.autograd.grad(model(input_ids=row, labels=row, use_cache=False).loss, weight)[0]
            for row in batch["input_ids"].split(1)]  # fmt: skip


def loop(model: GPT2LMHeadModel, batch: dict[str, Tensor]) -> np.ndarray:
    rows = torch.stack(gradients(model, batch)).flatten(1)
    return (rows @ rows.T).numpy()


def products(model: GPT2LMHeadModel, batch: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Of the loop's gradients, summed in float64 piece by piece, and as one product."""
    rows = torch.stack(gradients(model, batch)).flatten(1)
    total = np.zeros((len(rows), len(rows)))
    for piece in rows.split(1 << 20, dim=1):
        total += (piece.double() @ piece.double().T).numpy()
    return total, (rows @ rows.T).numpy()


WAYS: dict[str, Callable] = {"blocks": blocks, "loop": loop}


@contextmanager
def resident_growth():
    """Yields a list that gets the most MiB of memory above the start, sampled every 2 ms."""
    grown: list[float] = []
    done = threading.Event()
    page = 4096 / MIB

    def now() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    before = now()
    most = [before]

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], now())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield grown
    finally:
        done.set()
        thread.join()
        grown.append(max(most[0], now()) - before)


def child(way: str, size: int, is_quick: bool) -> None:
    """In a process of its own: what a way takes beyond a model that has been used once."""
    model = model_of(is_quick)
    batch = batch_of(model, size)
    with torch.no_grad():
        model(input_ids=batch["input_ids"][:1])
    with resident_growth() as grown:
        WAYS[way](model, batch)
    print(f"{GROWTH}{grown[0]:.1f}")


def growth(way: str, size: int, args) -> float:
    command = [sys.executable, __file__, "--child", way, "--batch", str(size), *["--quick"] * args.quick]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(told.split(GROWTH)[1])


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=4, help="examples; memory is compared with twice as many")
    parser.add_argument("--child", choices=[*WAYS], help="measure the memory of one way in this process, then stop")
    args = parser.parse_args(argv)
    start(args)
    if args.child:
        child(args.child, args.batch, args.quick)
        return 0
    model, rounds = model_of(args.quick), args.rounds or (2 if args.quick else 3)
    batch = batch_of(model, args.batch)
    length, vocab = batch["input_ids"].shape[1], model.config.vocab_size
    settings = {"batch": args.batch, "length": length, "vocab_size": vocab, "rounds": rounds}
    report = Report(f"Gradients of a tied embedding, V = {vocab}, T = {length}", settings)
    (true, theirs), ours = products(model, batch), blocks(model, batch)
    scale = np.sqrt(np.outer(true.diagonal(), true.diagonal()))
    off = {"blocks": float((np.abs(ours - true) / scale).max()), "loop": float((np.abs(theirs - true) / scale).max())}
    report.equal("inner products of both ways", max(off.values()) < 1e-2, f"{max(off.values()):.1g} apart")
    report.add("blocks off float64 sums", off["blocks"], at_most=1e-4, unit="of the lengths")
    report.add("loop off float64 sums", off["loop"], unit="of the lengths")
    times = interleave({way: lambda run=run: run(model, batch) for way, run in WAYS.items()}, rounds)
    for way, seconds in times.items():
        report.add(f"{way}, batch of {args.batch}", Spread.of(seconds), unit="s")
    report.add("blocks / loop", ratio(times["blocks"], times["loop"]), at_most=0.95)
    small, large = (growth("blocks", size, args) for size in (args.batch, 2 * args.batch))
    report.add(f"blocks, memory of a batch of {args.batch}", small, unit="MiB")
    report.add("blocks, memory of a further example", (large - small) / args.batch, at_most=25.0, unit="MiB")
    report.add(f"loop, memory of a batch of {args.batch}", growth("loop", args.batch, args), unit="MiB")
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
