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
from observe import syncs_per_step
from transformers import PrinterCallback

from hf_noise.noise import UniformTokens
from hf_noise.objectives import Corrected, DocumentMixture, Objective, SequenceMixture, objectives
from hf_noise.trainers import CausalLMTrainer
from hf_noise.trainers.collate import collate_rows

VOCAB_SIZE, HEAD = 50257, 64
AT_MOST = 1.03
#: In place of those with their defaults, the ones that do most and go with noise on tokens.
DEAREST = {
    "corrected": Corrected("learned"), "document-mixture": DocumentMixture("learned", "unigram"),
    "sequence-mixture": SequenceMixture("learned", "unigram"),
}  # fmt: skip
LOSSES = {cls.name: DEAREST.get(cls.name) or cls() for cls in objectives("tokens")}


def trainer_of(setting: Setting, loss: Objective, folder: Path, steps: int = 1) -> CausalLMTrainer:
    rows = make_rows(setting.batch * steps, setting.block, setting.vocab_size)
    noise = UniformTokens(error_rate=0.5, vocab_size=setting.vocab_size)
    args = training_arguments(folder, setting.batch, steps)
    trainer = CausalLMTrainer(gpt2(setting), args, train_dataset=rows, noise=noise, loss=loss)
    trainer.remove_callback(PrinterCallback)
    return trainer


def step_of(setting: Setting, loss: Objective, folder: Path) -> Callable[[], float]:
    """One step on the same rows and weights each time; the loss."""
    trainer = trainer_of(setting, loss, folder)
    model, rows = trainer.model.train(), trainer.train_dataset
    inputs = collate_rows(rows.__getitems__(list(range(setting.batch))))
    count = torch.tensor(setting.batch * (setting.block - 1))

    def step() -> float:
        trainer.objective.before_step(0.5)
        found = trainer.compute_loss(model, dict(inputs), num_items_in_batch=count)
        found.backward()
        trainer.objective.after_step(trainer.accelerator)
        model.zero_grad()
        if trainer.learned is not None:
            trainer.learned.zero_grad()
        return float(found.detach())

    return step


def host_syncs(report: Report, folder: Path) -> None:
    """What the host waits for in a step of the whole training loop beyond what it waits for with the plain loss."""
    setting = Setting(1, 16, 2, 64, 2, 8, steps=0, rounds=0)
    counts = {
        name: syncs_per_step(lambda steps: trainer_of(setting, loss, folder, steps).train())  # noqa: B023
        for name, loss in LOSSES.items()
    }
    for name, n in counts.items():
        if name != "nll":
            report.add(f"host syncs, {name} - plain", n - counts["nll"], at_most=0.0, unit="per step")


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
        host_syncs(report, Path(name))
        steps = {loss: step_of(setting, objective, Path(name)) for loss, objective in LOSSES.items()}
        times = interleave(steps, rounds)
    report.add("plain likelihood", Spread.of(times["nll"] * 1e3), unit="ms/step")
    for loss in steps:
        if loss != "nll":
            report.add(f"{loss} / plain likelihood", ratio(times[loss], times["nll"]), at_most=AT_MOST)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
