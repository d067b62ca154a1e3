"""Pairs: batches by a budget of tokens, the trainer's steps against a bare loop, and what a teacher writes.

    python benchmarks/seq2seq.py [--quick] [--only batches|steps|generation] [--output benchmarks/results/seq2seq.json]

Sources and targets have the lengths of a summarisation task (CNN/DailyMail's, an eighth of them). See
benchmarks/README.md for what each bar means.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from compare import Report, Spread, arguments, clock, interleave, ratio, start
from steps import by_trainer
from teacher_generation import generation
from torch import nn
from transformers import PrinterCallback, TrainingArguments

from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.noise import UniformTokens
from hf_noise.trainers import Seq2SeqTrainer
from hf_noise.trainers.seq2seq_batches import collate_pairs
from hf_noise.trainers.token_budget import pair_lengths

VOCABULARY, PAD, END = 2048, 0, 1
LEARNING_RATE, BETAS, CLIP = 1e-4, (0.9, 0.98), 1.0


def summaries(n: int) -> datasets.Dataset:
    """Pairs of random tokens: sources of 98 tokens on average, 10 to 256; targets of 8, 3 to 32."""
    draw = np.random.default_rng(0)
    sources = np.clip(draw.lognormal(np.log(98) - 0.125, 0.5, n), 10, 256).astype(int)
    targets = np.clip(draw.lognormal(np.log(8) - 0.08, 0.4, n), 3, 32).astype(int)

    def tokens(length: int) -> list[int]:
        return [*draw.integers(2, VOCABULARY, length - 1).tolist(), END]

    return datasets.Dataset.from_list([
        {"input_ids": tokens(s), "labels": tokens(t), "sample_id": i} for i, (s, t) in enumerate(zip(sources, targets))
    ])  # fmt: skip


def model(quick: bool) -> nn.Module:
    """Always with the same weights, and without dropout, so that two ways of training can be compared."""
    torch.manual_seed(0)
    layers, width = (1, 32) if quick else (2, 128)
    return encoder_decoder(
        VOCABULARY, pad_token=PAD, eos_token=END, layers=layers, d_model=width, heads=4, feed_forward=4 * width,
        dropout=0.0,
    )  # fmt: skip


def training_arguments(folder: Path, **changes) -> TrainingArguments:
    """What the bare loop does too; nothing is written or shown."""
    return TrainingArguments(**{
        "output_dir": str(folder), "learning_rate": LEARNING_RATE, "adam_beta1": BETAS[0], "adam_beta2": BETAS[1],
        "max_grad_norm": CLIP, "lr_scheduler_type": "constant", "optim": "adamw_torch_fused", "save_strategy": "no",
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "logging_steps": 10**9, "seed": 0, **changes,
    })  # fmt: skip


def batches(report: Report, rounds: int, folder: Path, quick: bool) -> None:
    """One pass over the same pairs: in batches by length within a budget, and in random ones of as many places."""
    rows, size = summaries(64 if quick else 768), 8 if quick else 32
    sources, targets = pair_lengths(rows)
    order = np.random.default_rng(1).permutation(len(rows)).reshape(-1, size)
    places = size * (sources[order].max(1) + targets[order].max(1))
    budget = int(places.mean())  # as much memory
    args = training_arguments(folder, num_train_epochs=1, per_device_train_batch_size=size)

    def passes(**options) -> Callable[[], tuple[float, float]]:
        def run() -> tuple[float, float]:
            trainer = Seq2SeqTrainer(model(quick), args, train_dataset=rows, **options)
            trainer.remove_callback(PrinterCallback)
            started = clock()
            trainer.train()
            seconds = clock() - started
            found = trainer.padding()
            real = round((1 - found["share"]) * found["n"])
            return seconds / real, found["share"]

        return run

    variants = {"plain": passes(), "bucketed": passes(tokens_per_batch=budget)}
    report.add("padding, plain", 100 * variants["plain"]()[1], unit="%")
    report.add("padding, by a budget of tokens", 100 * variants["bucketed"]()[1], unit="%")
    times = interleave(variants, rounds, timer=lambda variant: variant()[0])
    report.add("real tokens, by a budget", Spread.of(1 / times["bucketed"]), unit="token/s")
    faster = ratio(times["plain"], times["bucketed"])
    report.add("real tokens a second, by a budget / plain padding", faster, at_least=1.5)


def bare_loop(network: nn.Module, rows: datasets.Dataset, order: list[list[int]]) -> tuple[float, nn.Module]:
    """The same training without a trainer, over the batches in `order`; (median seconds per step, model)."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0, fused=True)
    ends = []
    network.train()
    for indices in order:
        batch = collate_pairs(rows.__getitems__(indices), pad_token=PAD)
        labels = batch["labels"]
        read = F.pad(labels, (1, -1), value=END)
        logits = network(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
            decoder_input_ids=read.masked_fill(read == -100, PAD), use_cache=False,
        ).logits  # fmt: skip
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100).backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ends.append(clock())
    return float(np.median(np.diff(ends))), network


def steps(report: Report, rounds: int, folder: Path, quick: bool) -> None:
    """Seconds per step over the same batches: a bare loop, the trainer, the trainer with noise on targets."""
    rows, budget = summaries(64 if quick else 400), 1024 if quick else 4096
    args = training_arguments(folder, num_train_epochs=1)
    noise = UniformTokens(error_rate=0.5, vocab_size=VOCABULARY)

    def ours(**options) -> Callable:
        return by_trainer(lambda **more: Seq2SeqTrainer(
            model(quick), args, train_dataset=rows, tokens_per_batch=budget, **options, **more
        ))  # fmt: skip

    of_budget = Seq2SeqTrainer(model(quick), args, train_dataset=rows, tokens_per_batch=budget)
    order = list(of_budget.get_train_dataloader().batch_sampler)
    variants = {"bare": lambda: bare_loop(model(quick), rows, order), "clean": ours(), "noise": ours(noise=noise)}
    reference, trained = (variants[name]()[1] for name in ("bare", "clean"))
    reference, trained, before = reference.state_dict(), trained.model.state_dict(), model(quick).state_dict()
    moved = max(float((reference[k] - before[k]).abs().max()) for k in reference)
    apart = max(float((reference[k] - trained[k]).abs().max()) for k in reference)
    # Adam divides by the size of a gradient, so rounding shows where a gradient is almost zero.
    report.equal("weights after the bare loop and the trainer", apart < 0.02 * moved, f"{apart:.1e}, moved {moved:.1e}")
    times = interleave(variants, rounds, timer=lambda variant: variant()[0])
    report.add("bare loop", Spread.of(times["bare"] * 1e3), unit="ms/step")
    report.add("trainer / bare loop", ratio(times["clean"], times["bare"]), at_most=1.02)
    report.add("trainer with noise on targets / without", ratio(times["noise"], times["clean"]), at_most=1.01)


PARTS = {"batches": batches, "steps": steps, "generation": generation}


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    args = parser.parse_args(argv)
    start(args)
    rounds = args.rounds or (2 if args.quick else 7)
    report = Report("Pairs", {"rounds": rounds, "vocab_size": VOCABULARY})
    with tempfile.TemporaryDirectory() as name:
        for part in [args.only] if args.only else PARTS:
            PARTS[part](report, rounds, Path(name), args.quick)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
