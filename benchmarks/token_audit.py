"""Scores that tell wrong tokens from right ones, and the interval for their share, on noise that is known.

    python benchmarks/token_audit.py [--model folder [--gguf_file name]] [--text file.parquet] [--rows 48] [--draws 40]
        [--only scores|rates] [--kinds uniform unigram look-alikes documents] [--quick]
        [--output benchmarks/results/token_audit.json]

Without --model a nano GPT-2 is trained on the embedded text first, and another one to be its reference; held-out rows
are corrupted, inputs and all, as a corpus would be. See benchmarks/README.md for the bars.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from compare import Report, arguments, clock, start
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel

from hf_noise.data.embedded import docs_text, embedded_tokenizer
from hf_noise.data.packing import Packing
from hf_noise.losses.error_norm import error_norms
from hf_noise.models.gpt2 import gpt2
from hf_noise.noise import RandomDocuments, UniformTokens
from hf_noise.trainers.audit import audit_facts, audit_tokens, token_rate
from hf_noise.trainers.token_laws import look_alikes, token_law

KINDS = ("uniform", "unigram", "look-alikes", "documents")
RATES = (0.01, 0.05, 0.2, 0.5)
BLOCK, BATCH, LEARNING_RATE = 128, 24, 2e-3
PARTICLES = 16


def packed(tokenizer: Any, texts: list[str], rows: int | None = None, block: int = BLOCK) -> np.ndarray:
    """Tokens int64 [N, block]."""
    made = np.concatenate(list(Packing(tokenizer, block).rows([texts])))
    return made[:rows].astype(np.int64)


def trained(rows: np.ndarray, vocab_size: int, steps: int, seed: int) -> torch.nn.Module:
    """A nano GPT-2 after so many steps of AdamW on clean rows."""
    torch.manual_seed(seed)
    model = gpt2("nano", vocab_size=vocab_size, block_size=BLOCK, end_of_text=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    draw = np.random.default_rng(seed)
    for _ in range(steps):
        batch = torch.from_numpy(rows[draw.integers(len(rows), size=BATCH)])
        loss = cross_entropy(model(batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    return model.eval()


def nano(tokenizer: Any, steps: int, seed: int, keep: Path | None) -> torch.nn.Module:
    """A trained nano model, the one that was kept if there is one."""
    folder = None if keep is None else keep / f"nano-{len(tokenizer)}-{steps}-{seed}"
    if folder is not None and folder.is_dir():
        return GPT2LMHeadModel.from_pretrained(folder).eval()
    model = trained(packed(tokenizer, docs_text("train")), len(tokenizer), steps, seed)
    if folder is not None:
        model.save_pretrained(folder)
    return model


def corrupted(kind: str, clean: np.ndarray, rate: float, law: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N, L] with that share replaced, and which tokens are wrong; the first token of a row counts for nothing."""
    sample = np.arange(len(clean))
    if kind == "uniform":
        return UniformTokens(error_rate=rate, vocab_size=law.vocab_size, seed=seed)(clean, sample=sample)
    if kind == "documents":
        noise = RandomDocuments(alpha=rate, vocab_size=law.vocab_size, seed=seed, placement="replace")
        noisy, is_noisy = noise(clean, sample=sample)
        return noisy, np.broadcast_to(np.reshape(is_noisy, (len(clean), -1)), clean.shape)
    draw = np.random.default_rng(seed)
    chosen = draw.random(clean.shape) < rate
    noisy = clean.copy()
    if kind == "unigram":
        noisy[chosen] = draw.choice(law.vocab_size, size=chosen.sum(), p=law.probabilities)
    else:
        matrix = law.matrix
        for place in np.argwhere(chosen):
            token = clean[tuple(place)]
            span = slice(matrix.indptr[token], matrix.indptr[token + 1])
            noisy[tuple(place)] = draw.choice(matrix.indices[span], p=matrix.data[span])
    return noisy, chosen


def stored(rows: np.ndarray) -> list[dict[str, Any]]:
    return [{"input_ids": row, "sample_id": i} for i, row in enumerate(rows)]


@torch.no_grad()
def scores_of(model: torch.nn.Module, rows: np.ndarray, batch: int = 8) -> dict[str, np.ndarray]:
    """Loss and error norm [N, L - 1] of each target, high where it is suspicious."""
    losses, norms = [], []
    for part in torch.from_numpy(rows).split(batch):
        logits, targets = model(part).logits[:, :-1].float(), part[:, 1:]
        nll = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        losses.append(nll.numpy())
        norms.append(error_norms(nll, logits, targets).numpy())
    return {"loss": np.concatenate(losses), "error norm": np.concatenate(norms)}


def compare(report: Report, name: str, kind: str, rate: float, setting: dict[str, Any], clean: np.ndarray) -> None:
    """All scores at one rate; ours knows the kind and not the rate."""
    law, model, reference = setting["laws"][kind], setting["model"], setting["reference"]
    noisy, _ = corrupted(kind, clean, rate, law, seed=1)
    wrong = (noisy != clean)[:, 1:].ravel()
    scores = scores_of(model, noisy)
    if reference is not None:
        # Rho-1 keeps the tokens whose loss exceeds that of the reference most; the others are dropped.
        scores["excess loss"] = scores_of(reference, noisy)["loss"] - scores["loss"]
    given = {"uniform": "uniform", "unigram": law.probabilities if kind == "unigram" else None,
             "look-alikes": getattr(law, "matrix", None),
             "documents": RandomDocuments(alpha=0.1, vocab_size=law.vocab_size)}[kind]  # fmt: skip
    started = clock()
    particles = 0 if kind == "documents" else setting["particles"]
    file = audit_tokens(model, stored(noisy), setting["file"], kind=given, particles=particles, batch_size=16)
    seconds = clock() - started
    told = audit_facts(file)["error_rate"]
    report.add(f"{name}: rate", told["value"], unit=f"[{told['low']:.4g}, {told['high']:.4g}]")
    table = pq.read_table(file)
    scores["clean_posterior"] = 1 - table["clean_posterior"].to_numpy()
    scores["ours"] = 1 - table["weight"].to_numpy()
    measures = (("AUROC", roc_auc_score), ("AP", average_precision_score))
    for measure, function in measures:
        found = {other: float(function(wrong, values.ravel())) for other, values in scores.items()}
        if "excess loss" in found:  # in the better direction
            found["excess loss"] = max(found["excess loss"], float(function(wrong, -scores["excess loss"].ravel())))
        others = {key: value for key, value in found.items() if key not in ("ours", "clean_posterior")}
        for other, value in {**others, "clean_posterior": found["clean_posterior"]}.items():
            report.add(f"{name}: {measure}, {other}", value, unit="")
        report.add(f"{name}: {measure}, weight", found["ours"], at_least=round(max(others.values()), 4), unit="")
    p = scores["ours"]
    bins = np.minimum((p * 15).astype(int), 14)
    report.add(f"{name}: calibration error of the weight",
               float(np.abs(np.bincount(bins, p - wrong, 15)).sum() / len(p)), unit="")  # fmt: skip
    report.add(f"{name}: seconds", float(seconds), unit="s")


def coverage(report: Report, name: str, kind: str, rate: float, setting: dict[str, Any], pool: np.ndarray) -> None:
    """How often the interval holds the rate, over draws of rows and of noise."""
    law, found = setting["laws"][kind], []
    given = {"look-alikes": getattr(law, "matrix", None), "unigram": "unigram",
             "documents": RandomDocuments(alpha=0.1, vocab_size=law.vocab_size)}.get(kind, "uniform")  # fmt: skip
    for draw in range(setting["draws"]):
        chosen = np.random.default_rng(1000 + draw).integers(len(pool), size=setting["rows"])
        noisy, _ = corrupted(kind, pool[chosen], rate, law, seed=2000 + draw)
        found.append(token_rate(setting["model"], stored(noisy), kind=given))
    ends = np.array([[one.low, one.value, one.high] for one in found])
    covers = ((ends[:, 0] <= rate) & (rate <= ends[:, 2])).mean()
    low, value, high = ends.mean(axis=0)
    report.add(f"{name}: rate, mean of {len(ends)} draws", float(value), unit=f"[{low:.4g}, {high:.4g}]")
    report.add(f"{name}: interval holds the rate", float(covers), at_least=0.93, unit="")


def setting_of(args: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Models, laws and rows."""
    if args.model:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        more = {"gguf_file": args.gguf_file} if args.gguf_file else {}
        tokenizer = AutoTokenizer.from_pretrained(args.model, **more)
        model, reference = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, **more).eval(), None
    else:
        tokenizer = embedded_tokenizer(257 + 255 if args.quick else 2048)
        model, reference = (nano(tokenizer, args.steps // (1 + seed), seed, args.keep) for seed in (0, 1))
    texts = pq.read_table(args.text)["text"].to_pylist() if args.text else docs_text("validation")
    pool = packed(tokenizer, texts, None if args.draws else args.rows, args.block)
    size = model.config.vocab_size
    counts = np.bincount(pool.ravel(), minlength=size)
    laws = {"uniform": token_law("uniform", size), "unigram": token_law("unigram", size, counts),
            "look-alikes": token_law(look_alikes(tokenizer.get_vocab(), size), size)}  # fmt: skip
    laws["documents"] = laws["uniform"]
    return {"model": model, "reference": reference, "laws": laws, "rows": args.rows, "draws": args.draws,
            "particles": args.particles, "file": args.file}, pool  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--model", help="folder or Hub id of a causal language model")
    parser.add_argument("--gguf_file", help="name of the model's file in it, of GGUF weights")
    parser.add_argument("--text", type=Path, help="Parquet file with a column text to corrupt")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="what replaces tokens")
    parser.add_argument("--rates", nargs="+", type=float, default=RATES, help="shares of tokens that are replaced")
    parser.add_argument("--rows", type=int, default=48, help="rows that scores and intervals are made of")
    parser.add_argument("--block", type=int, default=BLOCK, help="tokens of a row")
    parser.add_argument("--draws", type=int, default=40, help="draws of rows and noise for each interval; 0 for none")
    parser.add_argument("--particles", type=int, default=PARTICLES, help="ways to read a row")
    parser.add_argument("--only", choices=("scores", "rates"), help="one half of it")
    parser.add_argument("--keep", type=Path, help="folder where trained nano models are kept and looked for")
    parser.add_argument("--steps", type=int, default=300, help="of training, without --model")
    args = parser.parse_args(argv)
    start(args)
    if args.quick:
        args.rates, args.rows, args.draws, args.steps, args.particles = (0.2,), 6, 2, 4, 4
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        args.file = Path(folder, "audit.parquet")
        setting, pool = setting_of(args)
        named = {"model": args.model and Path(args.model).name or f"nano, {args.steps} steps", "rows": args.rows,
                 "block": args.block, "draws": args.draws, "particles": args.particles, "rates": list(args.rates),
                 "text": args.text.name if args.text else "embedded/docs-text"}  # fmt: skip
        report = Report("Audit of tokens", named)
        for kind in args.kinds if args.only != "rates" else ():
            for rate in args.rates:
                compare(report, f"{kind} {rate:g}", kind, rate, setting, pool[: args.rows])
        for kind in args.kinds if args.draws and args.only != "scores" else ():
            for rate in args.rates:
                coverage(report, f"{kind} {rate:g}", kind, rate, setting, pool)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
