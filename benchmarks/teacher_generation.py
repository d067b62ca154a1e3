"""Writing a teacher's targets against a loop over `generate` with sorted batches, tuned by hand.

    python benchmarks/teacher_generation.py                    # a small network on embedded pairs, on a CPU
    python benchmarks/teacher_generation.py --teacher FOLDER --rows 4000 --tokens_per_batch 65536   # on a GPU

The loop has the batches that `write_targets` makes, of rows sorted by their length and of equal padded size, and keeps
what comes out in memory. What `write_targets` costs beside it is what it does for a run that may be killed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time

import torch
from datasets import Dataset, disable_progress_bars

from hf_noise.data import teacher_targets
from hf_noise.data.pair_tokens import pair_tokenizer
from hf_noise.data.pairs_embedded import docs_pairs
from hf_noise.data.teacher_files import LoadedTeacher, load_teacher
from hf_noise.models.seq2seq import encoder_decoder
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


def small_teacher(sources: list[str], targets: list[str], folder: str) -> str:
    """A network of random weights, which writes until it is cut: every row costs the same."""
    torch.manual_seed(0)
    tokenizer = pair_tokenizer(zip(sources, targets, strict=True), 1024)
    ids = {"pad_token": tokenizer.pad_token_id, "eos_token": tokenizer.eos_token_id}
    encoder_decoder(1024, **ids, layers=2, d_model=128, heads=4, feed_forward=256).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def generation(
    teacher: str | None = None, rows: int = 400, tokens_per_batch: int = 8192, max_new_tokens: int = 32,
    repeats: int = 3,
) -> dict[str, float | int | str]:  # fmt: skip
    """Seconds of both, in turns; the ratio is the median of those of each turn."""
    disable_progress_bars()
    sources, targets = (column[:rows] for column in docs_pairs("train", "sparse"))
    with tempfile.TemporaryDirectory() as folder:
        place = teacher or small_teacher(sources, targets, f"{folder}/teacher")
        loaded = load_teacher(place, decoding=Decoding(max_new_tokens=max_new_tokens))
        loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
        dataset, times = Dataset.from_dict({"source": sources}), []
        bare_loop(loaded, sources[:20], tokens_per_batch)  # what is done once
        for turn in range(repeats):
            start = time.perf_counter()
            expected = bare_loop(loaded, sources, tokens_per_batch)
            between = time.perf_counter()
            cache = f"{folder}/{turn}"
            written = teacher_targets.write_targets(dataset, loaded, cache=cache, tokens_per_batch=tokens_per_batch)
            times.append((between - start, time.perf_counter() - between))
            same = sum(one == other for one, other in zip(written, expected, strict=True))
    bare, ours = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "rows": rows, "bare_seconds": round(bare, 3), "write_targets_seconds": round(ours, 3),
        "ratio": round(statistics.median(b / a for a, b in times), 3), "same_targets": same,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", help="folder of a teacher; by default a small network of random weights")
    for name, default in (("rows", 400), ("tokens_per_batch", 8192), ("max_new_tokens", 32), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    print(json.dumps(generation(**vars(parser.parse_args())), indent=1))
