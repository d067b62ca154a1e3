"""Fifty steps of each trainer on small data, and the file that they are held against.

    python tests/golden/trajectories.py [name ...]  # writes trajectories.json: only where figures are meant to change
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    TrainingArguments,
)

from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.image import image_classifier
from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips, Masking, NoisyTeacher, UniformTokens
from hf_noise.noise.teacher import Teacher
from hf_noise.objectives import ELR, CoTeaching, SequenceMixture
from hf_noise.trainers import (
    CausalLMTrainer,
    ClassifierTrainer,
    EDMTrainer,
    ImageClassifierTrainer,
    MaskedLMTrainer,
    Seq2SeqTrainer,
    TimeClassifierTrainer,
)
from hf_noise.trainers.images import CropFlip, DeviceImages

FILE = Path(__file__).with_suffix(".json")
STEPS, LOGGED = 50, 5
CLASSES, VOCABULARY, LENGTH = 4, 64, 16
FLIPS = LabelFlips.symmetric(ratio=1.0, num_classes=CLASSES, seed=3)
TOKENS = UniformTokens(ratio=0.5, vocab_size=VOCABULARY, seed=3)
WRITTEN = NoisyTeacher(ratio=0.5, teacher=Teacher(name="half-trained", sha256="0" * 64, steps=5), seed=3)


def token_rows(n: int) -> list[dict]:
    draw = np.random.default_rng(n)
    return [{"input_ids": draw.integers(0, VOCABULARY, LENGTH), "sample_id": 1000 + 7 * i} for i in range(n)]


def pair_rows(n: int, *, is_written: bool = False) -> list[dict]:
    """Pairs of several lengths; a row that the teacher wrote repeats its first token, as half-trained models do."""
    draw, rows = np.random.default_rng(n), []
    for i in range(n):
        source, clean = (draw.integers(2, VOCABULARY, size=draw.integers(3, LENGTH)).tolist() for _ in range(2))
        row = {"input_ids": [*source, 1], "labels": [*clean, 1], "sample_id": 1000 + 7 * i}
        if is_written:
            is_noisy = bool(WRITTEN.is_noisy(np.array([row["sample_id"]]))[0])
            labels = [*clean[:1] * len(clean), 1] if is_noisy else row["labels"]
            row |= {"labels": labels, "clean_labels": row["labels"], "is_noisy": is_noisy}
        rows.append(row)
    return rows


def images(n: int, mean: float = 0.5, augment: CropFlip | None = None) -> DeviceImages:
    draw = np.random.default_rng(n)
    labels = torch.from_numpy(draw.integers(0, CLASSES, n))
    pixels = torch.from_numpy(draw.integers(0, 128, (n, 1, 8, 8))) + 40 * labels[:, None, None, None]
    columns = {"labels": labels, "sample_id": torch.arange(n) * 3}
    return DeviceImages(pixels.to(torch.uint8), columns, mean=[mean], std=[0.5], augment=augment)


def language(folder: Path, **options: Any):
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
                        eos_token_id=0)  # fmt: skip
    options |= {"noise": TOKENS, "train_dataset": token_rows(60), "eval_dataset": token_rows(9)}
    # The weights of so small a network hardly move at the rate of the others.
    return CausalLMTrainer(GPT2LMHeadModel(config), arguments(folder, learning_rate=0.5), **options)


def masked(folder: Path, **options: Any):
    config = BertConfig(vocab_size=VOCABULARY + 1, max_position_embeddings=LENGTH, hidden_size=16, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=32)  # fmt: skip
    masking = Masking(vocab_size=VOCABULARY, mask_token=VOCABULARY, seed=3)
    options |= {"noise": TOKENS, "train_dataset": token_rows(60), "eval_dataset": token_rows(9)}
    return MaskedLMTrainer(BertForMaskedLM(config), arguments(folder, learning_rate=0.5), masking=masking, **options)


def pairs(folder: Path, **options: Any):
    # Without dropout, which versions of transformers draw in another order.
    model = encoder_decoder(VOCABULARY, pad_token=0, eos_token=1, layers=1, d_model=16, heads=2, feed_forward=32,
                            dropout=0.0, positions=LENGTH)  # fmt: skip
    options |= {"noise": WRITTEN, "train_dataset": pair_rows(60, is_written=True), "eval_dataset": pair_rows(9)}
    return Seq2SeqTrainer(model, arguments(folder, learning_rate=0.5), tokens_per_batch=160, **options)


def of_text(folder: Path, **options: Any):
    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=LENGTH, hidden_size=16, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=32, num_labels=CLASSES)  # fmt: skip
    rows, held = ([row | {"labels": int(row["input_ids"][0]) % CLASSES} for row in token_rows(n)] for n in (60, 9))
    options |= {"noise": FLIPS, "train_dataset": rows, "eval_dataset": held}
    return ClassifierTrainer(BertForSequenceClassification(config), arguments(folder, learning_rate=0.5), **options)


def classifier(folder: Path, **options: Any):
    model = image_classifier("resnet10-digits", labels=CLASSES, image_size=8, num_channels=1)
    rows = images(60, augment=CropFlip(padding=1, flip=True, seed=2))
    return ImageClassifierTrainer(
        model, arguments(folder), noise=FLIPS, train_dataset=rows, eval_dataset=images(13), **options
    )


def of_noisy_images(folder: Path, **options: Any):
    model = TimeDependentClassifier(num_classes=CLASSES, image_size=8, num_channels=1, architecture="cnn-digits")
    rows, args = images(60), arguments(folder)
    return TimeClassifierTrainer(model, args, noise=FLIPS, train_dataset=rows, eval_dataset=images(13), **options)


def diffusion(folder: Path, loss: str):
    unet = edm_unet("edm-digits", num_classes=CLASSES, image_size=8, num_channels=1)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1)
    through = None
    if loss == "tdsm":
        through = TimeDependentClassifier(
            CLASSES, 8, 1, "cnn-digits", transition=FLIPS.transition.tolist(), transition_source="known"
        )
    return EDMTrainer(
        unet, arguments(folder), noise=FLIPS, loss=loss, classifier=through, label_dropout=0.2, ema_decay=0.9,
        train_dataset=images(60), eval_dataset=images(13),
    )  # fmt: skip


def arguments(folder: Path, learning_rate: float = 0.02) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", seed=5,
        max_steps=STEPS, logging_steps=LOGGED, per_device_train_batch_size=8, gradient_accumulation_steps=2,
        per_device_eval_batch_size=4, optim="sgd", learning_rate=learning_rate, warmup_steps=5, weight_decay=0.1,
        dataloader_pin_memory=False,
    )  # fmt: skip


RUNS: dict[str, Callable[[Path], Any]] = {
    "language-nll": lambda folder: language(folder, loss="nll"),
    "language-corrected": lambda folder: language(folder, loss="corrected"),
    "language-learned": lambda folder: language(folder, loss="corrected", error_rate="learned"),
    "masked-nll": lambda folder: masked(folder, loss="nll"),
    "masked-corrected": lambda folder: masked(folder, loss="corrected"),
    "pairs-nll": lambda folder: pairs(folder, loss="nll"),
    "pairs-mixture": lambda folder: pairs(
        folder, loss=SequenceMixture(error_rate="learned", other="learned", start=0.2)
    ),
    "text-nll": lambda folder: of_text(folder, loss="nll"),
    "text-estimated": lambda folder: of_text(folder, loss="corrected", transition="estimated"),
    "text-elr": lambda folder: of_text(folder, loss=ELR(0.5, 1.0)),
    "text-co-teaching": lambda folder: of_text(folder, loss=CoTeaching()),
    "classifier-nll": lambda folder: classifier(folder, loss="nll"),
    "classifier-corrected-mixup": lambda folder: classifier(folder, loss="corrected", mixup=0.4),
    "noisy-images-known": lambda folder: of_noisy_images(folder, transition="known"),
    "noisy-images-estimated": lambda folder: of_noisy_images(folder, transition="estimated"),
    "diffusion-dsm": lambda folder: diffusion(folder, "dsm"),
    "diffusion-tdsm": lambda folder: diffusion(folder, "tdsm"),
}


def trajectory(name: str, folder: Path) -> dict[str, Any]:
    """What is logged every fifth step, the evaluation and sums over the weights after the last, and the noise."""
    torch.manual_seed(1)
    torch.set_num_threads(1)  # sums stay in one order
    trainer = RUNS[name](folder)
    before = weights_of(trainer)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    evaluation = {key: value for key, value in trainer.evaluate().items() if not key.endswith(("second", "runtime"))}
    weights = weights_of(trainer)
    return {
        "log": [{key: value for key, value in entry.items() if key != "epoch"} for entry in logs],
        "evaluation": evaluation,
        "weights": {"norm": float(weights.norm()), "moved": float((weights - before).norm())},
        "realised": trainer.realised_noise(),
    }


def weights_of(trainer: Any) -> torch.Tensor:
    parts = [trainer.model, *([] if trainer.learned is None else [trainer.learned])]  # and what is learned beside it
    return torch.cat([p.detach().double().flatten() for p in torch.nn.ModuleList(parts).parameters()])


def main() -> None:
    """All of them, or those that are named on the command line, beside the others as they stand."""
    named = sys.argv[1:]
    found = json.loads(FILE.read_text(encoding="utf-8")) if named else {}
    for name in named or RUNS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = trajectory(name, Path(folder))
    found = {name: found[name] for name in RUNS}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {FILE}", file=sys.stderr)


if __name__ == "__main__":
    main()
