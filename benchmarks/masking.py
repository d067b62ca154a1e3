"""BERT's masking against transformers' `DataCollatorForLanguageModeling`, on the same rows in one process.

    python benchmarks/masking.py                       # all figures, about two minutes
    python benchmarks/masking.py --quick               # does it run?
    python benchmarks/masking.py --threads 4           # with torch's threads: wall time

The bar is the rate of the whole way from rows to a masked batch, of rows as data sets give them. Beside it the masking
alone, of tensors that are there, where the collator is also spared the search for special tokens.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from compare import Report, Spread, arguments, interleave, ratio, start
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from hf_noise.noise import Masking, counter
from hf_noise.noise.masking_torch import mask
from hf_noise.trainers.collate import collate_rows

#: BERT's vocabulary, its batch, and the ids of its special tokens.
VOCABULARY, ROWS, LENGTH = 30522, 256, 512
SPECIAL = {"pad_token": "0", "unk_token": "100", "cls_token": "101", "sep_token": "102", "mask_token": "103"}


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """The ids of BERT's tokenizer, without its words."""
    words = Tokenizer(WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="100"))
    return PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL)


def token_by_token(masking: Masking, tokens: np.ndarray, sample: np.ndarray) -> tuple[list, list]:
    """`masking(tokens, sample)` from the counter's definition, one token after another."""
    key, inputs, targets = counter.stream_key(masking.seed, masking.stream, 0), [], []
    p = masking.probability * 2**32
    for row, number in zip(tokens.tolist(), sample.tolist()):
        start_of_row, read, predicted = counter.mix((key ^ number) + counter.GOLDEN), [], []
        for index, token in enumerate(row):
            upper, lower = divmod(counter.mix(start_of_row + (index + 1) * counter.GOLDEN), 2**32)
            is_target = upper < round(p) and token not in masking.never
            other = lower * masking.vocab_size >> 32 if upper < round(p * 0.9) else token
            read.append((masking.mask_token if upper < round(p * 0.8) else other) if is_target else token)
            predicted.append(token if is_target else -100)
        inputs.append(read)
        targets.append(predicted)
    return inputs, targets


def check(report: Report, masking: Masking, tokens: np.ndarray, compiles: bool) -> None:
    """State that all routes mask the same, and that as much is masked as in BERT."""
    sample = np.arange(len(tokens))
    inputs, targets = masking(tokens, sample)
    slow = token_by_token(masking, tokens[:4], sample[:4])
    agrees = (inputs[:4].tolist(), targets[:4].tolist()) == slow
    report.equal("masking and its definition", agrees, "equal, the tokens of 4 rows")
    tensors = torch.from_numpy(tokens), torch.from_numpy(sample)
    for name, compiled in (("torch", False), ("compiled", True))[: 1 + compiles]:
        found = mask(masking, *tensors, compiled=compiled)
        same = all(np.array_equal(one, other.numpy()) for one, other in zip((inputs, targets), found, strict=True))
        report.equal(f"NumPy and {name}", same, f"bit-equal, {tokens.size} tokens")
    free = ~np.isin(tokens, masking.never)
    off = abs((targets[free] != -100).mean() - 0.15) / math.sqrt(0.15 * 0.85 / free.sum())
    report.add("share of masked tokens off 0.15", float(off), at_most=5.0, unit="standard errors")


def time_rows(report: Report, masking: Masking, collator: Any, tokens: np.ndarray, rounds: int) -> None:
    """From rows to a masked batch, as a trainer does it and as the collator does."""
    ids = itertools.count()
    kinds: dict[str, Callable[[np.ndarray], Any]] = {"lists": np.ndarray.tolist, "arrays": np.asarray}
    for kind, convert in kinds.items():
        theirs = [{"input_ids": convert(row)} for row in tokens]
        ours = [{"input_ids": convert(row), "sample_id": i} for i, row in enumerate(tokens)]

        def masked(rows: list[dict] = ours) -> None:
            batch = collate_rows(rows)
            columns = (batch[name].numpy() for name in ("input_ids", "sample_id"))
            masking(*columns, next(ids), targets=batch["labels"].numpy())  # another epoch's masks in every call

        times = interleave({"collator": lambda rows=theirs: collator(rows), "ours": masked}, rounds)
        report.add(f"collator, rows of {kind}", Spread.of(tokens.size / times["collator"] / 1e6), unit="Mtoken/s")
        report.add(f"rows to a masked batch / collator, rows of {kind}", ratio(times["collator"], times["ours"]),
                   at_least=5.0)  # fmt: skip


def time_masking(
    report: Report, masking: Masking, collator: Any, tokens: np.ndarray, rounds: int, compiles: bool
) -> None:
    """The masking alone, of int64 tokens that are there."""
    sample, tensor, epochs = np.arange(len(tokens)), torch.from_numpy(tokens), itertools.count()
    ids, known = torch.from_numpy(sample), torch.from_numpy(np.isin(tokens, masking.special_tokens).astype(np.int64))
    # The collator changes its argument, which a batch made for it may be.
    theirs = {
        "collator": lambda: collator.torch_mask_tokens(tensor.clone()),
        "known": lambda: collator.torch_mask_tokens(tensor.clone(), special_tokens_mask=known),
    }
    ours = {
        "NumPy": lambda: masking(tokens, sample, next(epochs)),
        "torch": lambda: mask(masking, tensor, ids, next(epochs)),
    }
    if compiles:
        ours["compiled"] = lambda: mask(masking, tensor, ids, next(epochs), compiled=True)
    times = interleave(theirs | ours, rounds)
    for name in ours:
        report.add(f"{name}, masking alone", Spread.of(tokens.size / times[name] / 1e6), unit="Mtoken/s")
        bar = 5.0 if name == "NumPy" else None
        report.add(f"{name} / torch_mask_tokens", ratio(times["collator"], times[name]), at_least=bar)
        report.add(f"{name} / torch_mask_tokens, told which are special", ratio(times["known"], times[name]))


def main(argv: list[str] | None = None) -> int:
    args = arguments(__doc__).parse_args(argv)
    start(args)
    rows, length = (8, 32) if args.quick else (ROWS, LENGTH)
    rounds = args.rounds or (2 if args.quick else 15)
    tokens = np.random.default_rng(0).integers(1000, VOCABULARY, (rows, length))
    tokens[:, 0], tokens[:, -1] = 101, 102
    tokenizer = bert_tokenizer()
    masking, collator = Masking.of_tokenizer(tokenizer), DataCollatorForLanguageModeling(tokenizer)
    report = Report("Masking", {"rows": rows, "length": length, "vocab_size": VOCABULARY, "rounds": rounds})
    check(report, masking, tokens, not args.quick)  # which takes ten seconds
    time_rows(report, masking, collator, tokens, rounds)
    time_masking(report, masking, collator, tokens, rounds, not args.quick)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(main())
