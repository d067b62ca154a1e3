"""What each objective on tokens costs beside the plain likelihood: one training step, in turns in one run.

    python benchmarks/objectives.py [--width 384] [--quick] [--output benchmarks/results/objectives.json]

A step is forward, loss and backward of a GPT-2 with GPT-2's vocabulary, as `CausalLMTrainer` makes it, and what it
tells the objective before and after. Its optimiser, the same for all, is left out, so that a ratio here is larger than
that of whole steps. Objectives are past their start, and have seen losses. Bars are explained in benchmarks/README.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from compare import Report, Spread, arguments, interleave, ratio, start
from gpt2 import Setting, gpt2, make_rows, training_arguments

from hf_noise.noise import UniformTokens
from hf_noise.objectives import Objective, objectives
from hf_noise.trainers import CausalLMTrainer
from hf_noise.trainers.collate import collate_rows

VOCAB_SIZE, HEAD = 50257, 64
AT_MOST = 1.03


def step_of(setting: Setting, loss: Objective, folder: Path) -> Callable[[], float]:
    """One step on the same rows and weights each time; the loss."""
    rows = make_rows(setting.batch, setting.block, setting.vocab_size)
    args = training_arguments(folder, setting.batch, 1)
    noise = UniformTokens(error_rate=0.5, vocab_size=setting.vocab_size)
    trainer = CausalLMTrainer(gpt2(setting), args, train_dataset=rows, noise=noise, loss=loss)
    model, inputs = trainer.model.train(), collate_rows(rows.__getitems__(list(range(setting.batch))))
    count = torch.tensor(setting.batch * (setting.block - 1))

    def step() -> float:
        trainer.objective.before_step(0.5)
        found = trainer.compute_loss(model, dict(inputs), num_items_in_batch=count)
        found.backward()
        trainer.objective.after_step(trainer.accelerator)
        model.zero_grad()
        return float(found.detach())

    return step


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--width", type=int, default=384, help="of the hidden states, a multiple of 64")
    args = parser.parse_args(argv)
    start(args)
    if args.width < HEAD or args.width % HEAD:
        raise SystemExit(f"--width must be a multiple of {HEAD}, got {args.width}")
    vocab_size, batch = (2048, 1) if args.quick else (VOCAB_SIZE, 2)
    setting = Setting(4, args.width, args.width // HEAD, vocab_size, batch, 128, steps=1, rounds=15)
    rounds = args.rounds or (2 if args.quick else setting.rounds)
    report = Report(f"objectives on tokens, width {args.width}", {**vars(setting), "rounds": rounds})
    with tempfile.TemporaryDirectory() as name:
        steps = {cls.name: step_of(setting, cls(), Path(name)) for cls in objectives("tokens")}
        times = interleave(steps, rounds)
    report.add("plain likelihood", Spread.of(times["nll"] * 1e3), unit="ms/step")
    for loss in steps:
        if loss != "nll":
            report.add(f"{loss} / plain likelihood", ratio(times[loss], times["nll"]), at_most=AT_MOST)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
