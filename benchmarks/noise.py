"""Noise on tokens and labels against the usual ways to make it: draws, batches, `datasets.map`; and packing.

    python benchmarks/noise.py [--quick] [--only labels] [--output benchmarks/results/noise.json]

Every comparison first checks that both sides do the same thing. See benchmarks/README.md for what each bar means.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from compare import Report, Spread, arguments, interleave, ratio, start
from labels import IMAGENET, measure_labels
from packing import measure_packing

import hf_noise
from hf_noise.data.packing import PackedRows
from hf_noise.noise import UniformTokens, counter
from hf_noise.noise.tokens_torch import corrupt
from hf_noise.trainers.collate import collate_rows

VOCAB, LENGTH, BATCH = 50257, 1024, 32
ERROR_RATE, RARE = 0.5, 0.1


@dataclass(frozen=True)
class Scale:
    """How much is measured: rounds, calls per turn, rows of the larger batch and of the data sets, copies, labels."""

    rounds: int
    repeats: int
    large: int
    rows: int
    copies: int
    labels: int


FULL = Scale(rounds=15, repeats=20, large=256, rows=8000, copies=8, labels=IMAGENET)
QUICK = Scale(rounds=2, repeats=2, large=BATCH, rows=64, copies=1, labels=5000)


def recipe(
    tokens: np.ndarray, generator: np.random.Generator, error_rate: float = ERROR_RATE
) -> tuple[np.ndarray, np.ndarray]:
    """What everybody writes: a random mask, random tokens, an assignment. Tokens [...] -> (noisy, is_noisy)."""
    is_noisy = generator.random(tokens.shape) < error_rate
    noisy = tokens.copy()
    noisy[is_noisy] = generator.integers(VOCAB, size=int(is_noisy.sum()))
    return noisy, is_noisy


def word_by_word(noise: UniformTokens, tokens: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """`noise(tokens, sample)[0]` for V <= 2^20 from the counter's definition, one token after another."""
    key = counter.stream_key(noise.seed, noise.stream, 0)
    noisy = tokens.copy()
    for row, position in np.ndindex(tokens.shape):
        start_of_row = counter.mix((int(sample[row]) ^ key) + counter.GOLDEN)
        word = counter.mix(start_of_row + (position + 1) * counter.GOLDEN)
        if (word >> 32) < noise.error_rate * 2**32:
            noisy[row, position] = (word & (2**32 - 1)) * VOCAB >> 32
    return noisy


def draws(report: Report, scale: Scale) -> None:
    """The draws alone: NumPy and compiled torch against the recipe, at the size of a batch and a larger one."""
    noise, generator = UniformTokens(error_rate=ERROR_RATE, vocab_size=VOCAB, seed=1), np.random.default_rng(0)
    tokens = generator.integers(VOCAB, size=(scale.large, LENGTH))
    sample = generator.integers(2**40, size=scale.large)
    expected, mask = noise(tokens, sample)
    slow = word_by_word(noise, tokens[:2], sample[:2])
    report.equal("NumPy noise and its definition", bool((slow == expected[:2]).all()), "bit-equal, 2 rows")
    width = 4 * (2 * ERROR_RATE * (1 - ERROR_RATE) / tokens.size) ** 0.5
    rates = mask.mean(), recipe(tokens, generator)[1].mean()
    report.equal("rates of noise and recipe", abs(rates[0] - rates[1]) < width, f"{rates[0]:.4f} and {rates[1]:.4f}")

    for rows in sorted({BATCH, scale.large}):
        x = tokens[:rows]
        x16, tensor = x.astype(np.uint16), torch.from_numpy(x)
        drawn, drawn_mask = corrupt(noise, tensor, torch.from_numpy(sample[:rows]), compiled=True)
        same = torch.equal(drawn, torch.from_numpy(expected[:rows])) and torch.equal(
            drawn_mask, torch.from_numpy(mask[:rows])
        )
        size = f"{rows} x {LENGTH}"
        report.equal(f"compiled and NumPy noise, {size}", same, f"bit-equal, {x.size} tokens")
        out, rare = torch.empty_like(tensor), UniformTokens(error_rate=RARE, vocab_size=VOCAB)
        # Every call draws other noise, else the processor learns the mask by heart and predicts its branches.
        ids = itertools.cycle([sample[:rows] + shift for shift in range(64)])
        tensor_ids = itertools.cycle([torch.from_numpy(sample[:rows] + shift) for shift in range(64)])
        times = interleave(
            {
                "recipe": lambda: recipe(x, generator),  # noqa: B023
                "numpy": lambda: noise(x, next(ids)),  # noqa: B023
                "recipe, uint16": lambda: recipe(x16, generator),  # noqa: B023
                "numpy, uint16": lambda: noise(x16, next(ids)),  # noqa: B023
                "recipe, rare": lambda: recipe(x, generator, RARE),  # noqa: B023
                "numpy, rare": lambda: rare(x, next(ids)),  # noqa: B023
                "compiled": lambda: corrupt(noise, tensor, next(tensor_ids), compiled=True),  # noqa: B023
                "copy": lambda: out.copy_(tensor),  # noqa: B023
            },
            scale.rounds,
            repeats=max(1, scale.repeats * BATCH // rows),
        )
        base = times["recipe"]
        report.add(f"recipe, int64, {size}", Spread.of(x.size / base / 1e6), unit="Mtoken/s")
        report.add(f"NumPy noise / recipe, int64, {size}", ratio(base, times["numpy"]), at_least=1.0)
        uint16 = ratio(times["recipe, uint16"], times["numpy, uint16"])
        report.add(f"NumPy noise / recipe, uint16, {size}", uint16)
        at_rare = ratio(times["recipe, rare"], times["numpy, rare"])
        report.add(f"NumPy noise / recipe, int64, e = {RARE}, {size}", at_rare)
        # A batch of 32 rows takes microseconds, of which the call is a part; the bar is about the loop over tokens.
        bar = 8.0 if rows == scale.large else None
        report.add(f"compiled noise / recipe, int64, {size}", ratio(base, times["compiled"]), at_least=bar)
        report.add(f"compiled noise / copy (the limit), {size}", ratio(times["copy"], times["compiled"]))


def batches(report: Report, scale: Scale, folder: Path) -> None:
    """Batches with and without noise, as nanoGPT reads them and from packed rows."""
    noise, generator = UniformTokens(error_rate=ERROR_RATE, vocab_size=VOCAB), np.random.default_rng(0)
    generator.integers(VOCAB, size=scale.rows * LENGTH).astype(np.uint16).tofile(folder / "train.bin")
    data = np.memmap(folder / "train.bin", dtype=np.uint16, mode="r")

    def read() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        starts = torch.randint(len(data) - LENGTH, (BATCH,))
        x = torch.stack([torch.from_numpy(data[i : i + LENGTH].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + LENGTH].astype(np.int64)) for i in starts])
        return x, y, starts

    def read_noisy() -> tuple[torch.Tensor, torch.Tensor]:
        x, y, starts = read()
        return x, corrupt(noise, y, starts, compiled=True)[0]

    rows = datasets.Dataset.from_dict({"input_ids": np.array(data).reshape(-1, LENGTH).astype(np.int32)})
    rows.add_column("sample_id", np.arange(len(rows))).save_to_disk(folder / "packed")
    packed = PackedRows(datasets.load_from_disk(folder / "packed"))

    def take() -> dict[str, torch.Tensor]:
        return collate_rows(packed.__getitems__(generator.integers(len(packed), size=BATCH)))

    def take_noisy() -> dict[str, torch.Tensor]:
        batch = take()
        batch["labels"] = corrupt(noise, batch["labels"], batch["sample_id"], compiled=True)[0]
        return batch

    torch.manual_seed(0)
    clean = read()
    torch.manual_seed(0)
    noisy = read_noisy()
    by_numpy = noise(clean[1].numpy(), clean[2].numpy(), 0)[0]
    same = torch.equal(clean[0], noisy[0]) and bool((noisy[1].numpy() == by_numpy).all())
    report.equal("batches with and without noise", same, "same inputs, targets as NumPy noise")
    times = interleave(
        {"read": read, "read, noise": read_noisy, "packed": take, "packed, noise": take_noisy},
        scale.rounds, repeats=scale.repeats,
    )  # fmt: skip
    what = f"{BATCH} x {LENGTH}, with noise / without"
    report.add(f"get_batch of a uint16 file, {what}", ratio(times["read"], times["read, noise"]), at_least=0.75)
    report.add(f"PackedRows and collate, {what}", ratio(times["packed"], times["packed, noise"]))
    # What a step pays, since the packed rows are read so fast that their ratio says little.
    added = Spread.of((times["packed, noise"] - times["packed"]) * 1e6)
    report.add(f"noise of one batch of {BATCH} x {LENGTH}", added, unit="us")


def by_lists(batch: dict[str, list], indices: list[int], seed: int) -> dict[str, list]:
    """A `map` function as most are written: the columns come as Python lists and go back as such."""
    noisy, is_noisy = recipe(np.array(batch["labels"]), np.random.default_rng(seed + indices[0]))
    return {
        "labels": noisy.tolist(), "clean_labels": batch["labels"], "is_noisy": is_noisy.tolist(), "sample_id": indices,
    }  # fmt: skip


def by_arrays(batch: dict[str, np.ndarray], indices: list[int], seed: int) -> dict[str, Any]:
    """The same on a data set in NumPy format."""
    noisy, is_noisy = recipe(batch["labels"], np.random.default_rng(seed + indices[0]))
    return {"labels": noisy, "clean_labels": batch["labels"], "is_noisy": is_noisy, "sample_id": np.array(indices)}


def maps(report: Report, scale: Scale, folder: Path) -> None:
    """`hf_noise.corrupt` against `datasets.map`; all three write the same four columns."""
    # Lists in, a fixed length out: what a tokenised and packed data set on a disk looks like.
    kind = datasets.Features({"labels": datasets.List(datasets.Value("int32"), length=LENGTH)})
    tokens = np.random.default_rng(0).integers(VOCAB, size=(scale.rows, LENGTH), dtype=np.int32)
    datasets.Dataset.from_dict({"labels": tokens}, features=kind).save_to_disk(folder / "clean")
    dataset = datasets.load_from_disk(folder / "clean")
    out = datasets.Features(
        {
            **kind, "clean_labels": kind["labels"], "sample_id": datasets.Value("int64"),
            "is_noisy": datasets.List(datasets.Value("bool"), length=LENGTH),
        }
    )  # fmt: skip
    seeds = itertools.count(1)  # another seed each time, or the cache of `datasets` would answer

    def map_with(function: Callable, source: datasets.Dataset) -> datasets.Dataset:
        return source.map(
            function, with_indices=True, batched=True, features=out, fn_kwargs={"seed": next(seeds) * 10**9}
        )

    def ours() -> datasets.Dataset:
        return hf_noise.corrupt(dataset, UniformTokens(error_rate=ERROR_RATE, vocab_size=VOCAB, seed=next(seeds)))

    def by_callable() -> datasets.Dataset:
        noise = UniformTokens(error_rate=ERROR_RATE, vocab_size=VOCAB, seed=next(seeds))
        return dataset.with_format("numpy").map(noise, with_indices=True, batched=True, features=out)

    variants = {
        "lists": lambda: map_with(by_lists, dataset),
        "arrays": lambda: map_with(by_arrays, dataset.with_format("numpy")),
        "corrupt": ours,
        "callable": by_callable,
    }
    for name, variant in variants.items():
        made = variant().with_format("numpy")[: min(256, scale.rows)]
        clean, kept = tokens[: min(256, scale.rows)], ~made["is_noisy"]
        same = (made["clean_labels"] == clean).all() and (made["labels"][kept] == clean[kept]).all()
        rate = made["is_noisy"].mean()
        same = same and abs(rate - ERROR_RATE) < 4 * (ERROR_RATE * (1 - ERROR_RATE) / clean.size) ** 0.5
        report.equal(f"columns of the map route {name!r}", bool(same), f"clean where not noisy, rate {rate:.4f}")

    def clear() -> None:
        for file in (folder / "clean").glob("cache-*.arrow"):
            file.unlink()

    times = interleave(variants, max(2, min(scale.rounds, 7)), after=clear)
    report.add("map over lists", Spread.of(tokens.size / times["lists"] / 1e6), unit="Mtoken/s")
    report.add("hf_noise.corrupt / map over lists", ratio(times["lists"], times["corrupt"]), at_least=5.0)
    report.add("hf_noise.corrupt / map in NumPy format", ratio(times["arrays"], times["corrupt"]), at_least=0.8)
    report.add("map(noise) in NumPy format / map over lists", ratio(times["lists"], times["callable"]))
    report.add("map(noise) in NumPy format / map in NumPy format", ratio(times["arrays"], times["callable"]))


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=("tokens", "labels"), help="measure these alone")
    args = parser.parse_args(argv)
    start(args)
    scale = QUICK if args.quick else FULL
    scale = Scale(**{**vars(scale), "rounds": args.rounds or scale.rounds})
    report = Report("Noise", {**vars(scale), "only": args.only, "error_rate": ERROR_RATE, "vocab_size": VOCAB})
    datasets.disable_progress_bars()
    if args.only != "labels":
        with tempfile.TemporaryDirectory() as folder:
            draws(report, scale)
            batches(report, scale, Path(folder))
            maps(report, scale, Path(folder))
            measure_packing(report, scale.copies, Path(folder))
    if args.only != "tokens":
        measure_labels(report, scale.rounds, scale.labels)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
