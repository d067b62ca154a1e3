"""The causal LM trainer against a bare PyTorch loop, with noise against without, and what it measures on the way.

    python benchmarks/gpt2.py [--model nano] [--quick] [--output benchmarks/results/gpt2-nano.json]

All variants train the same model on the same rows in turns. See benchmarks/README.md for what each bar means.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import torch
from compare import Report, Spread, arguments, clock, interleave, ratio, start
from observe import large_allocations, syncs_per_step
from steps import by_trainer
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments
from transformers import get_cosine_schedule_with_warmup as cosine_schedule
from transformers.modeling_outputs import CausalLMOutput

from hf_noise.data.packing import PackedRows
from hf_noise.losses.nll import HAS_FUSED
from hf_noise.noise import UniformTokens
from hf_noise.trainers import CausalLMTrainer, NoiseScaleCallback
from hf_noise.trainers.collate import collate_rows


@dataclass(frozen=True)
class Setting:
    """A GPT-2 of `layers` blocks and `width`, its batches [batch, block], and steps and rounds that take minutes."""

    layers: int
    width: int
    heads: int
    vocab_size: int
    batch: int
    block: int
    steps: int
    rounds: int


SETTINGS = {
    "nano": Setting(2, 128, 4, 2048, 32, 64, steps=11, rounds=15),  # the recipe's demo
    "small-vocab50257": Setting(2, 768, 12, 50257, 4, 256, steps=3, rounds=4),  # GPT-2's width, vocabulary and head
}
LEARNING_RATE, BETAS, WEIGHT_DECAY, CLIP, WARMUP = 6e-4, (0.9, 0.95), 0.1, 1.0, 2
EMPTY_STEPS = 150
MIB = 2**20


def gpt2(setting: Setting) -> GPT2LMHeadModel:
    """The model, always with the same weights."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=setting.vocab_size, n_positions=setting.block, n_layer=setting.layers, n_embd=setting.width,
        n_head=setting.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


class Empty(nn.Module):
    """A model that computes almost nothing, so that a step shows what the trainer itself costs."""

    def __init__(self) -> None:
        super().__init__()
        self.config = GPT2Config(vocab_size=8, n_layer=1, n_embd=8, n_head=1)
        self.scores = nn.Parameter(torch.zeros(8))

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None, **kwargs) -> CausalLMOutput:
        logits = self.scores.expand(*input_ids.shape, -1)
        loss = None if labels is None else nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return CausalLMOutput(loss=loss, logits=logits)


def make_rows(n: int, block: int, vocab_size: int) -> PackedRows:
    """Random rows, read as packed text is."""
    tokens = np.random.default_rng(0).integers(vocab_size, size=(n, block), dtype=np.int32)
    return PackedRows(datasets.Dataset.from_dict({"input_ids": tokens, "sample_id": np.arange(n)}))


def training_arguments(folder: Path, batch: int, steps: int) -> TrainingArguments:
    """What the bare loop does too; nothing is written or shown."""
    return TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=batch, max_steps=steps, learning_rate=LEARNING_RATE,
        adam_beta1=BETAS[0], adam_beta2=BETAS[1], weight_decay=WEIGHT_DECAY, max_grad_norm=CLIP, warmup_steps=WARMUP,
        lr_scheduler_type="cosine", optim="adamw_torch_fused", save_strategy="no", report_to="none", use_cpu=True,
        disable_tqdm=True, logging_steps=10**9, remove_unused_columns=False, seed=0,
    )  # fmt: skip


def bare_loop(model: nn.Module, rows: PackedRows, order: list[list[int]]) -> tuple[float, nn.Module]:
    """The same training without a trainer, over the batches in `order`; (median seconds per step, model)."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)
    schedule = cosine_schedule(optimizer, WARMUP, len(order))
    ends = []
    model.train()
    for indices in order:
        batch = collate_rows(rows.__getitems__(indices))
        model(input_ids=batch["input_ids"], labels=batch["labels"]).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        ends.append(clock())
    return float(np.median(np.diff(ends))), model


def time_steps(report: Report, setting: Setting, rounds: int, folder: Path) -> None:
    """Seconds per step: bare loop, stock trainer, ours without noise, with noise, with the corrected loss."""
    rows = make_rows(setting.batch * setting.steps, setting.block, setting.vocab_size)
    noise = UniformTokens(error_rate=0.5, vocab_size=setting.vocab_size)
    args = training_arguments(folder, setting.batch, setting.steps)

    def ours(**kwargs) -> Callable[[], tuple[float, Trainer]]:
        return by_trainer(lambda **more: CausalLMTrainer(gpt2(setting), args, train_dataset=rows, **kwargs, **more))

    def stock(**more) -> Trainer:
        return Trainer(gpt2(setting), args, train_dataset=_Inputs(rows), data_collator=collate_rows, **more)

    order = list(itertools.islice(iter(ours()()[1].get_train_dataloader().batch_sampler), setting.steps))
    variants = {
        "bare": lambda: bare_loop(gpt2(setting), rows, order),
        "stock": by_trainer(stock),
        "clean": ours(),
        "noise": ours(noise=noise),
        "corrected": ours(noise=noise, loss="corrected"),
    }
    reference = variants["bare"]()[1].state_dict()
    trained = variants["clean"]()[1].model.state_dict()
    start_weights = gpt2(setting).state_dict()
    moved = max(float((reference[k] - start_weights[k]).abs().max()) for k in reference)
    apart = max(float((reference[k] - trained[k]).abs().max()) for k in reference)
    # Adam divides by the size of a gradient, so rounding shows where a gradient is almost zero.
    report.equal("weights after the bare loop and the trainer", apart < 0.02 * moved, f"{apart:.1e}, moved {moved:.1e}")

    times = interleave(variants, rounds, timer=lambda variant: variant()[0])
    tokens = setting.batch * setting.block
    report.add("bare loop", Spread.of(times["bare"] * 1e3), unit="ms/step")
    report.add("bare loop", Spread.of(tokens / times["bare"]), unit="token/s")
    report.add("trainer with noise", Spread.of(tokens / times["noise"]), unit="token/s")
    report.add("trainer without noise / bare loop", ratio(times["clean"], times["bare"]), at_most=1.02)
    report.add("stock Trainer / bare loop", ratio(times["stock"], times["bare"]))
    report.add("trainer with noise / without", ratio(times["noise"], times["clean"]), at_most=1.01)
    report.add("trainer with noise / stock Trainer", ratio(times["noise"], times["stock"]), at_most=1.01)
    report.add("corrected / plain loss, both with noise", ratio(times["corrected"], times["noise"]), at_most=1.02)


def noise_scale(report: Report, setting: Setting, rounds: int, folder: Path) -> None:
    """What a step costs that the noise scale is measured in, against one without; and so the callback, as it is."""
    for passes, every, what in ((1, 64, "one pass a step"), (2, 8, "two passes a step")):
        rows = make_rows(setting.batch * setting.steps, setting.block, setting.vocab_size)
        args = replace(training_arguments(folder, setting.batch // passes, setting.steps),
                       gradient_accumulation_steps=passes)  # fmt: skip

        def ours(measured: bool, rows=rows, args=args) -> Callable[[], tuple[float, Trainer]]:
            own = [NoiseScaleCallback(every=1)] if measured else []
            return by_trainer(lambda callbacks: CausalLMTrainer(
                gpt2(setting), args, train_dataset=rows, callbacks=[*callbacks, *own]
            ))  # fmt: skip

        variants = {"with": ours(True), "without": ours(False)}
        weights = [variant()[1].model.state_dict() for variant in variants.values()]
        same = all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())
        report.equal(f"weights with and without NoiseScaleCallback, {what}", same, "bit by bit")
        times = interleave(variants, rounds, timer=lambda variant: variant()[0])
        measured = times["with"] / times["without"]
        report.add(f"step that measures the noise scale / without, {what}", Spread.of(measured))
        report.add(f"NoiseScaleCallback, every {every} steps / without, {what}", Spread.of(1 + (measured - 1) / every),
                   at_most=1.02)  # fmt: skip


class _Inputs(torch.utils.data.Dataset):
    """The rows for a stock Trainer: GPT-2 does not take `sample_id`."""

    def __init__(self, rows: PackedRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> dict[str, np.ndarray]:
        return {"input_ids": self.rows.__getitems__(indices)["input_ids"]}


def machinery(report: Report, rounds: int, steps: int, folder: Path) -> None:
    """What a step costs besides the model."""
    rows, args = make_rows(steps, 8, 8), training_arguments(folder, 1, steps)
    noise = UniformTokens(error_rate=0.5, vocab_size=8)
    variants = {
        "stock": by_trainer(
            lambda **more: Trainer(Empty(), args, train_dataset=_Inputs(rows), data_collator=collate_rows, **more)
        ),
        "clean": by_trainer(lambda **more: CausalLMTrainer(Empty(), args, train_dataset=rows, **more)),
        "noise": by_trainer(lambda **more: CausalLMTrainer(Empty(), args, train_dataset=rows, noise=noise, **more)),
    }
    times = interleave(variants, rounds, timer=lambda variant: variant()[0])
    report.add("empty model, stock Trainer", Spread.of(times["stock"] * 1e3), unit="ms/step")
    report.add("empty model, trainer without noise", Spread.of(times["clean"] * 1e3), at_most=1.0, unit="ms/step")
    for name, most in (("clean", 0.25), ("noise", 0.3)):
        what = "without noise" if name == "clean" else "with noise"
        more = Spread.of((times[name] - times["stock"]) * 1e3)
        report.add(f"empty model, trainer {what} - stock Trainer", more, at_most=most, unit="ms/step")


def host_syncs(report: Report, folder: Path) -> None:
    """Host synchronisations per step of the whole training loop; they do not depend on the size of the model."""
    setting = Setting(1, 16, 2, 64, 2, 8, steps=0, rounds=0)
    rows, noise = make_rows(64, setting.block, setting.vocab_size), UniformTokens(error_rate=0.5, vocab_size=64)

    def count(make: Callable[[TrainingArguments], Trainer]) -> float:
        def train(steps: int) -> None:
            trainer = make(training_arguments(folder, setting.batch, steps))
            trainer.remove_callback(PrinterCallback)
            trainer.train()

        return syncs_per_step(train)

    stock = count(
        lambda args: Trainer(gpt2(setting), args, train_dataset=_Inputs(rows), data_collator=collate_rows)
    )
    counts = {
        name: count(lambda args: CausalLMTrainer(gpt2(setting), args, train_dataset=rows, **kwargs))  # noqa: B023
        for name, kwargs in {
            "without noise": {},
            "with noise": {"noise": noise},
            "corrected loss": {"noise": noise, "loss": "corrected"},
            "learned e": {"noise": noise, "loss": "corrected", "error_rate": "learned"},
        }.items()
    }
    report.add("host syncs, stock Trainer", stock, unit="per step")
    for name, n in counts.items():
        report.add(f"host syncs, trainer {name} - stock", n - stock, at_most=0.0, unit="per step")
    report.add("host syncs, with noise - without", counts["with noise"] - counts["without noise"], at_most=0.0,
               unit="per step")  # fmt: skip


def memory(report: Report, setting: Setting, folder: Path) -> None:
    """Allocations of the size of the float32 logits in one step, forward and backward, and the peak."""
    tokens = setting.batch * setting.block
    size = 4 * tokens * setting.vocab_size
    rows = make_rows(setting.batch, setting.block, setting.vocab_size)
    noise = UniformTokens(error_rate=0.5, vocab_size=setting.vocab_size)
    losses = {}
    for fused in (False, True) if HAS_FUSED else (False,):
        args = training_arguments(folder, setting.batch, 1)
        trainer = CausalLMTrainer(gpt2(setting), args, train_dataset=rows, noise=noise, fused_loss=fused)
        model, inputs = trainer.model.train(), collate_rows(rows.__getitems__(list(range(setting.batch))))

        def step(trainer=trainer, model=model, inputs=inputs) -> float:
            loss = trainer.compute_loss(model, inputs)
            loss.backward()
            return float(loss.detach())

        losses[fused], n, peak = large_allocations(step, size)
        name = "fused loss" if fused else "plain loss"
        at_most = 0.0 if fused else None
        report.add(f"{name}, allocations of tokens x vocabulary float32 ({size / MIB:.0f} MiB) or more", float(n),
                   at_most=at_most, unit="per step")  # fmt: skip
        report.add(f"{name}, peak of a step", peak / MIB, unit="MiB")
    if HAS_FUSED:
        agrees = abs(losses[True] - losses[False]) < 1e-5 * losses[False]
        report.equal("fused and plain loss", agrees, f"{losses[True]:.6f} and {losses[False]:.6f}")


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=list(SETTINGS), default="nano")
    args = parser.parse_args(argv)
    start(args)
    setting = SETTINGS[args.model]
    if args.quick:
        setting = Setting(**{**vars(setting), "layers": 1, "batch": 4, "steps": 3, "rounds": 2})
    rounds = args.rounds or setting.rounds
    report = Report(f"GPT-2 training, {args.model}", {"model": args.model, **vars(setting), "rounds": rounds})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        host_syncs(report, folder)
        memory(report, setting, folder)
        machinery(report, min(rounds, 7), 10 if args.quick else EMPTY_STEPS, folder)
        time_steps(report, setting, rounds, folder)
        noise_scale(report, setting, min(rounds, 7), folder)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
