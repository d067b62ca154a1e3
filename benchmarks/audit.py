"""The audit of a corpus against an evaluation of the same rows, which computes the same NLL and keeps its sum alone.

    python benchmarks/audit.py [--quick] [--output benchmarks/results/audit.json]

The rows are of the embedded text. See benchmarks/README.md for the bar.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from compare import Report, Spread, arguments, interleave, ratio, start
from torch.utils.data import Subset
from transformers import PrinterCallback, TrainingArguments

import hf_noise
from hf_noise.data.packing import PackedRows
from hf_noise.models.gpt2 import gpt2
from hf_noise.trainers import CausalLMTrainer
from hf_noise.trainers.audit import audit_tokens

# Model, its number of tokens, rows and rows of a batch: some seconds a turn. The text has ids below 1,024.
SETTINGS = (("nano", 1024, 256, 32), ("nano", 50257, 64, 32), ("mini", 1024, 64, 16), ("mini", 50257, 32, 16))
VOCABULARY, BLOCK = 1024, 64


def compare(report: Report, rows, name: str, vocab_size: int, batch: int, rounds: int, folder: Path) -> None:
    """Audit and evaluation of one model, which must agree on the NLL."""
    torch.manual_seed(0)
    model, file = gpt2(name, vocab_size=vocab_size, block_size=BLOCK, end_of_text=0), folder / "audit.parquet"
    args = TrainingArguments(output_dir=str(folder), per_device_eval_batch_size=batch, use_cpu=True, report_to="none",
                             disable_tqdm=True)  # fmt: skip
    trainer = CausalLMTrainer(model, args, eval_dataset=rows)
    trainer.remove_callback(PrinterCallback)
    variants = {
        "evaluate": trainer.evaluate,
        "audit": lambda: audit_tokens(model, rows, file, error_rate=0.5, batch_size=batch),
    }
    of_trainer = variants["evaluate"]()["eval_nll"]
    apart = abs(float(np.mean(pq.read_table(variants["audit"]())["nll"].to_numpy(), dtype=np.float64)) / of_trainer - 1)
    what = f"{name}, V = {vocab_size}"
    report.equal(f"mean NLL, {what}", apart < 1e-6, f"{apart:.1e}")
    times = interleave(variants, rounds)
    report.add(f"audit, {what}", Spread.of(len(rows) * (BLOCK - 1) / times["audit"]), unit="target/s")
    report.add(f"audit / evaluate, {what}", ratio(times["audit"], times["evaluate"]), at_most=1.3)


def main(argv: list[str] | None = None) -> int:
    args = arguments(__doc__).parse_args(argv)
    start(args)
    rounds = args.rounds or (2 if args.quick else 9)
    report = Report("Audit of tokens", {"vocabulary": VOCABULARY, "block": BLOCK, "rounds": rounds})
    packed = hf_noise.load_dataset(
        "hf_noise/packed", source="embedded/docs-text", tokenizer=f"embedded:{VOCABULARY}", block_size=BLOCK,
        split="validation",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, vocab_size, n, batch in SETTINGS[:1] if args.quick else SETTINGS:
            rows = Subset(PackedRows(packed), range(16 if args.quick else n))
            compare(report, rows, name, vocab_size, batch, rounds, Path(folder))
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
