"""Models trained on a teacher's targets, and the pairs themselves, on a running Hub and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub import DatasetCard, ModelCard
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, TrainingArguments

from hf_noise.data.pair_tokens import pair_tokenizer, tokenize_pairs
from hf_noise.hub.load import load_noise
from hf_noise.hub.push import push_checkpoint, push_dataset
from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.noise import Decoding, NoisyTeacher, Teacher
from hf_noise.trainers import Seq2SeqTrainer

REPO, DATA, IDS = "user/seq2seq", "user/pairs", np.arange(40)
DECODING = Decoding(method="sample", temperature=0.7, max_new_tokens=9)
TEACHER = Teacher(name="runs/teacher", sha256="0f" * 32, steps=500, decoding=DECODING)
NOISE = NoisyTeacher(ratio=1.0, teacher=TEACHER, num_rows=40, seed=4)


@pytest.fixture
def texts() -> Dataset:
    """Pairs of which the teacher wrote half of the targets, as builders leave them."""
    clean = [f"target {i}" for i in IDS]
    noisy, is_noisy = NOISE.replaced(clean, ["what it wrote"] * 40, IDS)
    return Dataset.from_dict({"source": [f"source {i}" for i in IDS], "target": noisy, "clean_target": clean,
                              "is_noisy": is_noisy, "sample_id": IDS})  # fmt: skip


@pytest.fixture
def tokenizer(texts):
    return pair_tokenizer(texts, 260)


@pytest.fixture
def train(tokenizer, tmp_path):
    """Train two steps on rows, with a noise that is given or theirs, and leave the model in a folder."""

    def run(rows: Dataset, noise: NoisyTeacher | None = None):
        torch.manual_seed(0)
        model = encoder_decoder(260, pad_token=0, eos_token=1, layers=1, d_model=16, heads=2, feed_forward=16)
        args = TrainingArguments(
            str(tmp_path / "model"), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=2,
            per_device_train_batch_size=4, save_strategy="no", dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Seq2SeqTrainer(model, args, noise=noise, train_dataset=rows, processing_class=tokenizer)
        trainer.train()
        trainer.save_model()
        return tmp_path / "model", trainer

    return run


def test_a_model_comes_back_with_the_teacher_of_its_noise(client, texts, tokenizer, train):
    folder, trainer = train(tokenize_pairs(texts, tokenizer), NOISE)
    push_checkpoint(folder, REPO)
    noise = load_noise(REPO)
    assert noise == NOISE and noise.teacher == TEACHER and noise.teacher.name == "runs/teacher"
    assert (noise.num_noisy, noise.teacher.decoding.temperature) == (20, 0.7)
    assert noise.is_noisy(IDS).tolist() == texts["is_noisy"][:]
    card = ModelCard(client.files(REPO)["README.md"].decode())
    assert "a teacher of 500 steps (0f0f0f0f), sampled at temperature 0.7" in card.text
    model, trained = AutoModelForSeq2SeqLM.from_pretrained(REPO), trainer.model.state_dict()
    assert all(torch.equal(weight, trained[name]) for name, weight in model.state_dict().items())
    tokens = AutoTokenizer.from_pretrained(REPO)(texts["source"][:2], return_tensors="pt")
    assert torch.equal(*(one.eval().generate(**tokens, max_new_tokens=5) for one in (model, trainer.model)))


def test_noise_that_nobody_states_is_not_made_up(client, texts, tokenizer, train):
    plain = texts.remove_columns(["is_noisy", "clean_target"])
    rows = tokenize_pairs(plain, tokenizer)
    needs_mask = r"NoisyTeacher cannot be drawn by a trainer: .* need the column is_noisy .*load_dataset.*teacher="
    with pytest.raises(ValueError, match=needs_mask):
        train(rows, NOISE)
    folder, trainer = train(rows)
    assert trainer.noise is None
    with pytest.raises(ValueError, match="the noise of .*model is unknown: config.json has no 'hf_noise'.*pass record"):
        push_checkpoint(folder, REPO)
    unknown = "the noise of .* is unknown: a trainer of hf_noise trained it on rows as they came, .* audit_sequences"
    with pytest.raises(ValueError, match=unknown):
        load_noise(folder)
    for data in (texts, plain):
        with pytest.raises(ValueError, match="the data set does not say which noise it carries; pass noise="):
            push_dataset(data, DATA, config_name="r1.0")
    assert client.requests == []


def test_pairs_come_back_with_their_teacher_and_are_counted_where_they_say_so(client, texts):
    push_dataset(texts, DATA, config_name="r1.0", noise=NOISE, source="some/pairs")
    push_dataset(texts.remove_columns("is_noisy"), DATA, config_name="unmarked", noise=NOISE, source="some/pairs")
    assert load_noise(DATA, config_name="r1.0") == load_noise(DATA, config_name="unmarked") == NOISE
    marked, unmarked = DatasetCard(client.files(DATA, "dataset")["README.md"].decode()).data["noise"]
    assert marked["realised"] == {"rate": 0.5, "n": 40} and not unmarked.get("realised")
    clean = texts.remove_columns("is_noisy").add_column("is_noisy", [False] * 40)
    with pytest.raises(ValueError, match="0 of 40 units are marked .* rate of 0.5 does not give"):
        push_dataset(clean, DATA, config_name="wrong", noise=NOISE)
