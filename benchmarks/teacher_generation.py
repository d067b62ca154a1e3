"""Writing a teacher's targets against a loop over `generate` with sorted batches, tuned by hand; part of seq2seq.py.

The loop has the batches that `write_targets` makes, of rows sorted by their length and of equal padded size, and keeps
what comes out in memory. What `write_targets` costs beside it is what it does for a run that may be killed.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import torch
from compare import Report, Spread, interleave, ratio
from datasets import Dataset, disable_progress_bars

from hf_noise.data import teacher_targets
from hf_noise.data.pair_tokens import pair_tokenizer
from hf_noise.data.pairs_embedded import docs_pairs
from hf_noise.data.teacher_files import LoadedTeacher, load_teacher
from hf_noise.data.teacher_training import train_teacher
from hf_noise.noise import Decoding


def bare_loop(teacher: LoadedTeacher, sources: list[str], tokens_per_batch: int) -> list[str]:
    """Targets in the order of the sources."""
    longest, device = teacher.identity.decoding.max_new_tokens, teacher.model.device
    rows = teacher.tokenizer(sources).input_ids
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    written, start = [""] * len(rows), 0
    while start < len(order):
        size = max(1, tokens_per_batch // (len(rows[order[start]]) + longest))
        batch = order[start : start + size]
        inputs = teacher.tokenizer.pad({"input_ids": [rows[row] for row in batch]}, return_tensors="pt").to(device)
        with torch.inference_mode():
            tokens = teacher.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=longest)
        for row, text in zip(batch, teacher.tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
            written[row] = text
        start += size
    return written


def small_teacher(pairs: Dataset, folder: str, quick: bool) -> str:
    """A network that was trained for so long that it writes words, as the half-trained do."""
    tokenizer = pair_tokenizer(zip(pairs["source"], pairs["target"], strict=True), 512 if quick else 1024)
    return train_teacher(
        pairs, tokenizer, steps=2 if quick else 60, output=folder, batch_size=32, learning_rate=3e-3,
        model={"layers": 2, "d_model": 128, "heads": 4, "feed_forward": 256, "dropout": 0.0},
    )  # fmt: skip


def generation(report: Report, rounds: int, folder: Path, quick: bool) -> None:
    """Seconds for the targets of the same sources, and whether they are the same."""
    disable_progress_bars()
    rows, budget, longest = (40, 1024, 8) if quick else (2400, 8192, 32)
    sources, targets = (column[:rows] for column in docs_pairs("train", "sparse"))
    dataset, turn = Dataset.from_dict({"source": sources, "target": targets}), count()
    teacher = small_teacher(dataset, str(folder / "teacher"), quick)
    loaded = load_teacher(teacher, decoding=Decoding(max_new_tokens=longest))
    loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def ours() -> list[str]:
        return teacher_targets.write_targets(
            dataset, loaded, cache=folder / f"targets-{next(turn)}", tokens_per_batch=budget
        )

    def bare() -> list[str]:
        return bare_loop(loaded, sources, budget)

    different = sum(one != other for one, other in zip(ours(), bare(), strict=True))
    report.equal("targets of both ways of writing", different == 0, f"{rows - different} of {rows}")
    times = interleave({"bare": bare, "ours": ours}, rounds)
    report.add("a teacher's targets", Spread.of(rows / times["ours"]), unit="rows/s")
    report.add("a teacher's targets / bare loop", ratio(times["ours"], times["bare"]), at_most=1.1)
