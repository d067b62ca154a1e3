"""What each of two processes does in `test_two_processes.py`: `torchrun --nproc_per_node 2 two_processes.py folder`.

The test calls `train` itself for the run of one process that this one has to equal.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    TrainerCallback,
    TrainingArguments,
)

from hf_noise.data import teacher_steps
from hf_noise.data.pair_tokens import pair_tokenizer
from hf_noise.data.teacher_steps import TeacherTrainer
from hf_noise.data.teacher_training import train_teacher
from hf_noise.models.image import image_classifier
from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.noise import LabelFlips, Masking, UniformTokens
from hf_noise.objectives import Corrected, Truncated
from hf_noise.studies.launch import check_world
from hf_noise.trainers import CausalLMTrainer, ImageClassifierTrainer, MaskedLMTrainer, Seq2SeqTrainer
from hf_noise.trainers.folders import LOCK_FILE
from hf_noise.trainers.images import CropFlip, DeviceImages
from hf_noise.trainers.manifest import read_manifest

VOCABULARY, LENGTH, STEPS, BATCH = 64, 16, 5, 8
NOISE = UniformTokens(error_rate=0.5, vocab_size=VOCABULARY, seed=3)
LOSSES = {"known": Corrected(), "learned": Corrected("learned"), "truncated": Truncated(0.3, start=0.2)}


def rows(n: int, lengths: tuple[int, ...]) -> list[dict]:
    draw = np.random.default_rng(n)
    return [
        {"input_ids": draw.integers(0, VOCABULARY, lengths[i % len(lengths)]), "sample_id": 100 + i} for i in range(n)
    ]


def train(folder: Path, batch_size: int, loss: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Train with one of `LOSSES`, and evaluate on rows that fill no batch; (figures, weights)."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=STEPS, logging_steps=1,
        per_device_train_batch_size=batch_size, per_device_eval_batch_size=2, optim="sgd", learning_rate=0.1,
        save_strategy="steps", save_steps=STEPS, dataloader_pin_memory=False,
        # 20 rows: accelerate would fill the last batch of a second process with rows that were seen already.
        dataloader_drop_last=True,
    )  # fmt: skip
    check_world(args)
    trainer = CausalLMTrainer(
        GPT2LMHeadModel(config), args, noise=NOISE, loss=LOSSES[loss],
        train_dataset=rows(20, (16, 9, 12)), eval_dataset=rows(7, (16, 3, 9)),
    )  # fmt: skip
    drawn, original = {}, trainer.targets

    def targets(inputs, *, draw):
        labels, is_noisy = original(inputs, draw=draw)
        if draw:
            for sample, row, mask in zip(inputs["sample_id"], labels, inputs["labels"] != -100):
                drawn[f"{trainer.epoch}/{int(sample)}"] = row[mask].tolist()
        return labels, is_noisy

    trainer.targets = targets
    trainer.train()
    figures = {
        "evaluation": {k: v for k, v in trainer.evaluate().items() if k in ("eval_nll", "eval_tokens")},
        "log": [{k: v for k, v in entry.items() if k == "loss" or "nll" in k or "rate" in k}
                for entry in trainer.state.log_history if "loss" in entry],
        "realised": trainer.realised_noise(),
        "learned": {k: v for k, v in trainer.objective.facts().items() if k != "source"},
        "drawn": drawn,
    }  # fmt: skip
    return figures, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def train_masked(folder: Path, batch_size: int) -> tuple[dict, dict[str, torch.Tensor]]:
    """The same of a masked language model, on rows of which some have no masked token; two passes to a step."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY + 1, max_position_embeddings=LENGTH, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=STEPS, logging_steps=1,
        per_device_train_batch_size=batch_size, per_device_eval_batch_size=2, optim="sgd", learning_rate=0.1,
        gradient_accumulation_steps=2, save_strategy="no", dataloader_drop_last=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = MaskedLMTrainer(
        BertForMaskedLM(config), args, noise=NOISE, masking=Masking(vocab_size=VOCABULARY, mask_token=VOCABULARY),
        train_dataset=rows(20, (16, 9, 3)), eval_dataset=rows(7, (16, 3, 9)),
    )  # fmt: skip
    trainer.train()
    evaluation = trainer.evaluate()
    figures = {
        "evaluation": {name: evaluation[f"eval_{name}"] for name in ("nll", "tokens")},
        "log": [{k: v for k, v in entry.items() if k == "loss" or "nll" in k or "rate" in k}
                for entry in trainer.state.log_history if "loss" in entry],
        "realised": trainer.realised_noise(),
    }  # fmt: skip
    return figures, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def pairs(n: int) -> list[dict]:
    draw = np.random.default_rng(n)
    lengths = draw.integers((2, 2), (14, 8), (n, 2))
    return [
        {"input_ids": [*draw.integers(2, VOCABULARY, s), 1], "labels": [*draw.integers(2, VOCABULARY, t), 1],
         "sample_id": 100 + i} for i, (s, t) in enumerate(lengths)
    ]  # fmt: skip


def train_pairs(folder: Path, batch_size: int) -> tuple[dict, dict[str, torch.Tensor]]:
    """The same of an encoder-decoder, in two passes to a step; and what it writes for rows that fill no batch."""
    torch.manual_seed(0)
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=STEPS, logging_steps=1,
        per_device_train_batch_size=batch_size, per_device_eval_batch_size=2, optim="sgd", learning_rate=0.1,
        gradient_accumulation_steps=2, save_strategy="no", dataloader_drop_last=True, dataloader_pin_memory=False,
    )  # fmt: skip
    model = encoder_decoder(
        VOCABULARY, pad_token=0, eos_token=1, layers=1, d_model=16, heads=2, feed_forward=32, dropout=0.0, positions=16
    )
    trainer = Seq2SeqTrainer(model, args, noise=NOISE, train_dataset=pairs(32), eval_dataset=pairs(7))
    trainer.train()
    evaluation = trainer.evaluate()
    figures = {
        "evaluation": {name: evaluation[f"eval_{name}"] for name in ("nll", "tokens")},
        "log": [{k: v for k, v in entry.items() if k == "loss" or "nll" in k or "rate" in k}
                for entry in trainer.state.log_history if "loss" in entry],
        "realised": trainer.realised_noise(), "written": trainer.generate(max_new_tokens=4, min_new_tokens=3),
    }  # fmt: skip
    return figures, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def budget_of_pairs(folder: Path) -> list[list[list[int]]]:
    """Ids and places of the batches that this process gets in an epoch, by a budget of tokens."""
    args = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", dataloader_pin_memory=False)
    model = encoder_decoder(VOCABULARY, pad_token=0, eos_token=1, layers=1, d_model=16, heads=2, feed_forward=32)
    trainer = Seq2SeqTrainer(model, args, train_dataset=pairs(61), tokens_per_batch=60)
    loader = trainer.get_train_dataloader()
    trainer.draw_epoch(1)
    return [
        [batch["sample_id"].tolist(), [batch["input_ids"].numel() + batch["labels"].numel()]] for batch in loader
    ]


def train_budget(folder: Path, passes: int) -> tuple[dict, dict[str, torch.Tensor]]:
    """Eight steps by a budget of tokens; (ids of each pass, and of a run that goes on from step 6, and weights)."""

    def run(resume: str | None = None) -> tuple[list[list[int]], Seq2SeqTrainer]:
        torch.manual_seed(0)
        args = TrainingArguments(
            output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=8, optim="sgd",
            learning_rate=0.1, gradient_accumulation_steps=passes, save_strategy="steps", save_steps=6,
            dataloader_pin_memory=False,
        )  # fmt: skip
        model = encoder_decoder(
            VOCABULARY, pad_token=0, eos_token=1, layers=1, d_model=16, heads=2, feed_forward=32, dropout=0.0
        )
        trainer, seen = Seq2SeqTrainer(model, args, noise=NOISE, train_dataset=pairs(61), tokens_per_batch=60), []
        step = trainer.training_step

        def training_step(model, inputs, *others):
            seen.append(inputs["sample_id"].tolist())
            return step(model, inputs, *others)

        trainer.training_step = training_step
        trainer.train(resume)
        return seen, trainer

    seen, whole = run()
    later, again = run(str(folder / "checkpoint-6"))
    same = all(torch.equal(ours, one) for ours, one in zip(again.model.parameters(), whole.model.parameters()))
    figures = {"seen": seen, "later": later, "same": same, "batches": len(whole._budget)}
    return figures, {name: p.detach().clone() for name, p in whole.model.named_parameters()}


def rows_of_a_teacher(folder: Path) -> list[str]:
    """Sources that this process learns from in two epochs of 19 pairs, with dropout that draws from the CPU."""
    rows, seen = Dataset.from_dict({name: [f"{name[0]} {i} " * (i % 5 + 1) for i in range(19)]
                                    for name in ("source", "target")}), []  # fmt: skip
    tokenizer = pair_tokenizer(zip(rows["source"], rows["target"]), 258)

    class Looks(TeacherTrainer):
        def compute_loss(self, model, inputs, *others, **named):
            new = inputs["input_ids"][: self._own_rows(len(inputs["labels"]))]
            seen.extend(tokenizer.decode(row, skip_special_tokens=True) for row in new)
            return super().compute_loss(model, inputs, *others, **named)

    original, teacher_steps.TeacherTrainer = teacher_steps.TeacherTrainer, Looks
    network = {"layers": 1, "d_model": 16, "heads": 2, "feed_forward": 32, "dropout": 0.5}
    train_teacher(rows, tokenizer, steps=6, model=network, batch_size=8, output=folder)
    teacher_steps.TeacherTrainer = original
    return seen


def restart(folder: Path) -> dict:
    """Stop a run of dropout after step 3, hurt its last checkpoint, and start again; what each process sees of it."""
    is_main, began = int(os.environ["RANK"]) == 0, []

    class Began(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            began.append(state.global_step)

    def trainer(**changes) -> CausalLMTrainer:
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
                            eos_token_id=0, resid_pdrop=0.5)  # fmt: skip
        args = TrainingArguments(**{
            "output_dir": str(folder), "use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_steps": 4,
            "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 1, "dataloader_drop_last": True,
            "dataloader_pin_memory": False, **changes,
        })  # fmt: skip
        made = CausalLMTrainer(GPT2LMHeadModel(config), args, noise=NOISE, train_dataset=rows(20, (16, 9, 12)))
        made.add_callback(Began())
        return made

    def start(**changes) -> str:
        torch.distributed.barrier()
        again = trainer(**changes)
        try:
            again.train(resume_from_checkpoint=True)
        except (OSError, ValueError, RuntimeError) as error:
            return f"{type(error).__name__}: {error}"
        weights = zip(again.model.parameters(), whole.model.parameters())
        return f"from {began[-1]}, same: {all(torch.equal(ours, one) for ours, one in weights)}"

    whole = trainer()
    whole.train()
    manifest = read_manifest(folder / "checkpoint-4")
    seen = {"files": sorted(manifest.files), "processes": manifest.processes}
    torch.distributed.barrier()
    if is_main:
        shutil.rmtree(folder / "checkpoint-4")
        (folder / "checkpoint-3" / "rng_state_1.pth").unlink()
    seen["hurt"] = start()
    if is_main:  # what another process would do, which this one cannot be for itself
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, b'{"process": 7, "machine": "node-3"}')
    seen["in use"] = start()
    # Each machine with files of its own: this run has two of one process each.
    os.environ["LOCAL_RANK"] = "0"
    own = {"output_dir": str(folder / f"machine{os.environ['RANK']}"), "save_on_each_node": True}
    torch.distributed.barrier()
    each = trainer(**own)
    each.train()
    seen["each"] = sorted(read_manifest(Path(each.args.output_dir, "checkpoint-4")).files)
    if not is_main:
        Path(each.args.output_dir, "checkpoint-4", "optimizer.pt").write_bytes(b"")
    seen["hurt on one machine"] = start(**own)
    return seen


def images(n: int) -> DeviceImages:
    draw = np.random.default_rng(n)
    pixels = torch.from_numpy(draw.integers(0, 256, (n, 1, 32, 32), dtype=np.uint8))
    columns = {"labels": torch.from_numpy(draw.integers(0, 3, n)), "sample_id": torch.arange(100, 100 + n)}
    return DeviceImages(pixels, columns, mean=[0.5], std=[0.3], augment=CropFlip(seed=1))


def train_classifier(folder: Path, batch_size: int) -> tuple[dict, dict[str, torch.Tensor]]:
    """The same of a classifier that has no batch normalisation, whose statistics would be those of each process."""
    torch.manual_seed(0)
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=STEPS, logging_steps=1,
        per_device_train_batch_size=batch_size, per_device_eval_batch_size=2, optim="sgd", learning_rate=0.01,
        save_strategy="no", dataloader_drop_last=True,
    )  # fmt: skip
    trainer = ImageClassifierTrainer(
        image_classifier("test_vit", labels=3, image_size=32, num_channels=1), args, loss="corrected",
        noise=LabelFlips.cyclic(error_rate=0.4, num_classes=3, seed=3), train_dataset=images(20),
        eval_dataset=images(7),
    )  # fmt: skip
    trainer.train()
    evaluation = trainer.evaluate()
    figures = {
        "evaluation": {name: evaluation[f"eval_{name}"] for name in ("nll", "accuracy", "images")},
        "log": [{k: v for k, v in entry.items() if k == "loss" or "nll" in k or "rate" in k or "accuracy" in k}
                for entry in trainer.state.log_history if "loss" in entry],
        "realised": trainer.realised_noise(),
    }  # fmt: skip
    return figures, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def main(folder: Path) -> None:
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    results = {}
    for loss in LOSSES:
        results[loss], weights = train(folder / loss, BATCH // world, loss)
        if rank == 0:
            save_file(weights, folder / f"{loss}.safetensors")
    runs = {"classifier": train_classifier, "masked": train_masked, "pairs": train_pairs}
    for name, run in runs.items():
        results[name], weights = run(folder / name, BATCH // world)
        if rank == 0:
            save_file(weights, folder / f"{name}.safetensors")
    results["budget"] = budget_of_pairs(folder / "budget")
    results["teacher"] = rows_of_a_teacher(folder / "teacher")
    results["steps"], weights = train_budget(folder / "steps", passes=4 // world)
    if rank == 0:
        save_file(weights, folder / "steps.safetensors")
    from classifier_processes import train_all  # beside this file, which is run as a script

    results["peers"] = train_all(folder)
    results["restart"] = restart(folder / "restart")
    try:
        check_world(TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none"), expected=4)
    except RuntimeError as error:
        results["world"] = str(error)
    (folder / f"rank{rank}.json").write_text(json.dumps(results))
    # A process that leaves first would break the connection under the other one.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
