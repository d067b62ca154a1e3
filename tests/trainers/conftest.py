"""A GPT-2 and a BERT of a few thousand weights, rows of random tokens, and trainers that leave nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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
from hf_noise.noise import Masking, UniformTokens
from hf_noise.trainers import (
    CausalLMTrainer,
    ClassifierTrainer,
    EDMTrainer,
    ImageClassifierTrainer,
    MaskedLMTrainer,
    Seq2SeqTrainer,
    TimeClassifierTrainer,
)
from hf_noise.trainers.images import DeviceImages

VOCABULARY = 64
LENGTH = 16
#: So many that hardly any row has none that is masked.
MASKING = Masking(vocab_size=VOCABULARY, mask_token=VOCABULARY, probability=0.5, seed=2)


@pytest.fixture
def tiny_gpt2():
    """`tiny_gpt2(seed=0, **config)`: one layer, width 16, 64 tokens, no dropout."""

    def make(seed: int = 0, **config) -> GPT2LMHeadModel:
        torch.manual_seed(seed)
        shape = {"vocab_size": VOCABULARY, "n_positions": LENGTH, "n_embd": 16, "n_layer": 1, "n_head": 2}
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
        model = GPT2LMHeadModel(GPT2Config(**(shape | off | config)))
        with torch.no_grad():  # larger weights than GPT-2 starts with, so that tokens differ in their NLL
            model.transformer.wte.weight.mul_(20)
        return model

    return make


@pytest.fixture
def tiny_bert():
    """`tiny_bert(seed=0, **config)`: one layer, width 16, 64 tokens and the mask token, no dropout."""

    def make(seed: int = 0, cls=BertForMaskedLM, **config) -> BertForMaskedLM:
        torch.manual_seed(seed)
        shape = {"vocab_size": VOCABULARY + 1, "max_position_embeddings": LENGTH, "hidden_size": 16,
                 "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
                 "pad_token_id": None}  # fmt: skip
        off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = cls(BertConfig(**(shape | off | config)))
        with torch.no_grad():  # larger weights than BERT starts with, so that tokens differ in their NLL
            model.bert.embeddings.word_embeddings.weight.mul_(20)
        return model

    return make


@pytest.fixture
def tiny_seq2seq():
    """`tiny_seq2seq(seed=0, **changes)`: an encoder-decoder of one layer, width 16, 64 tokens, no dropout."""

    def make(seed: int = 0, **changes):
        torch.manual_seed(seed)
        shape = {"pad_token": 0, "eos_token": 1, "layers": 1, "d_model": 16, "heads": 2, "feed_forward": 32}
        model = encoder_decoder(VOCABULARY, **(shape | {"dropout": 0.0, "positions": 32} | changes))
        with torch.no_grad():  # larger weights than it starts with, so that tokens differ in their NLL
            model.model.shared.weight.mul_(20)
        return model

    return make


@pytest.fixture
def pair_rows():
    """`pair_rows(n, noisy=None, seed=0)`: sources of 3 to 20 tokens, targets of 2 to 9, each with its end token, 1.

    `noisy`, bool [n], marks rows whose targets are others than their `clean_labels`.
    """

    def make(n: int, noisy=None, seed: int = 0) -> list[dict]:
        draw = np.random.default_rng(seed)

        def tokens(least: int, most: int) -> list[int]:
            return [*draw.integers(2, VOCABULARY, draw.integers(least, most)).tolist(), 1]

        rows = [{"input_ids": tokens(2, 20), "labels": tokens(1, 9), "sample_id": 5 * i} for i in range(n)]
        for row, flag in zip(rows, [] if noisy is None else noisy, strict=noisy is not None):
            row |= {"clean_labels": row["labels"], "is_noisy": bool(flag)}
            row["labels"] = tokens(1, 9) if flag else row["labels"]
        return rows

    return make


@pytest.fixture
def text_rows():
    """`text_rows(n, classes=4, seed=0, **columns)`: rows of 16 tokens, of which the first tells the label."""

    def make(n: int, classes: int = 4, seed: int = 0, **columns) -> list[dict]:
        draw = np.random.default_rng(seed)
        tokens, labels = draw.integers(8, VOCABULARY, (n, LENGTH)), draw.integers(0, classes, n)
        tokens[:, 0] = labels
        return [
            {"input_ids": tokens[i].tolist(), "labels": int(labels[i]), "sample_id": 1000 + 7 * i}
            | {name: column[i] for name, column in columns.items()} for i in range(n)
        ]  # fmt: skip

    return make


@pytest.fixture
def random_rows():
    """`random_rows(n, lengths=(16,))`: rows of random tokens, their lengths in turn from `lengths`."""

    def make(n: int, lengths=(LENGTH,), seed: int = 0) -> list[dict]:
        draw = np.random.default_rng(seed)
        return [
            {"input_ids": draw.integers(0, VOCABULARY, lengths[i % len(lengths)]), "sample_id": 1000 + 7 * i}
            for i in range(n)
        ]

    return make


@pytest.fixture
def arguments(tmp_path):
    """`arguments(**changes)`: TrainingArguments for the CPU that write nothing and log every step."""

    def make(**changes) -> TrainingArguments:
        usual = {
            "output_dir": str(tmp_path / "run"), "use_cpu": True, "report_to": "none", "disable_tqdm": True,
            "save_strategy": "no", "logging_steps": 1, "per_device_train_batch_size": 4, "max_steps": 2,
            "lr_scheduler_type": "constant", "dataloader_pin_memory": False,
        }  # fmt: skip
        return TrainingArguments(**(usual | changes))

    return make


@pytest.fixture
def make_trainer(tiny_gpt2, arguments):
    """`make_trainer(rows, model=..., noise=..., loss=..., <TrainingArguments>)`."""

    def make(rows=None, *, model=None, eval_rows=None, cls=CausalLMTrainer, **settings):
        own = {k: settings.pop(k) for k in list(settings) if k not in TrainingArguments.__dataclass_fields__}
        return cls(
            model or tiny_gpt2(), arguments(**settings), train_dataset=rows, eval_dataset=eval_rows, **own
        )

    return make


@pytest.fixture
def noise():
    """Half of the targets wrong."""
    return UniformTokens(error_rate=0.5, vocab_size=VOCABULARY, seed=3)


@pytest.fixture
def nll_by_hand():
    """`nll_by_hand(model, tokens, labels=None)`: float64 [L - 1], NLL of each target of one row, without a batch."""

    def compute(model, tokens, labels=None) -> torch.Tensor:
        tokens = torch.as_tensor(tokens)
        labels = tokens if labels is None else torch.as_tensor(labels)
        with torch.no_grad():
            logits = model.eval()(input_ids=tokens[None]).logits[0]
        return F.cross_entropy(logits[:-1].double(), labels[1:], reduction="none")

    return compute


@pytest.fixture
def digit_images():
    """`digit_images(n=32, **columns)`: grey images of 8 x 8 in four classes, as `DeviceImages` in [-1, 1]."""

    def make(n: int = 32, seed: int = 0, **columns) -> DeviceImages:
        draw = np.random.default_rng(seed)
        images = torch.from_numpy(draw.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8))
        own = {"labels": torch.from_numpy(draw.integers(0, 4, n)), "sample_id": torch.arange(n) * 3}
        return DeviceImages(images, own | columns, mean=[0.5], std=[0.5])

    return make


#: Our trainers; a new one belongs here, and is then held to what all of them promise.
TRAINERS = ("causal_lm", "masked_lm", "seq2seq", "classifier", "image_classifier", "time_classifier", "edm")


@pytest.fixture(params=TRAINERS)
def kind(request) -> str:
    """Each of our trainers in turn."""
    return request.param


@pytest.fixture
def any_trainer(tiny_gpt2, tiny_bert, tiny_seq2seq, random_rows, pair_rows, text_rows, digit_images, arguments):
    """`any_trainer(kind, rows=None, model=None, **settings)`: a small trainer of a kind in `TRAINERS`."""

    def make(kind: str, rows=None, model=None, eval_rows=None, **settings):
        torch.manual_seed(0)
        own = {k: settings.pop(k) for k in list(settings) if k not in TrainingArguments.__dataclass_fields__}
        made_rows = {"causal_lm": (lambda: random_rows(32), lambda: random_rows(5)),
                     "seq2seq": (lambda: pair_rows(32), lambda: pair_rows(5, seed=1)),
                     "classifier": (lambda: text_rows(32), lambda: text_rows(13, seed=1))}  # fmt: skip
        made_rows["masked_lm"] = made_rows["causal_lm"]
        of_training, of_evaluation = made_rows.get(kind, (digit_images, lambda: digit_images(13, 1)))
        rows = rows if rows is not None else of_training()
        eval_rows = eval_rows if eval_rows is not None else of_evaluation()
        made, cls = {
            "causal_lm": (lambda: tiny_gpt2(), CausalLMTrainer),
            "masked_lm": (lambda: tiny_bert(), MaskedLMTrainer),
            "seq2seq": (lambda: tiny_seq2seq(), Seq2SeqTrainer),
            "classifier": (lambda: tiny_bert(cls=BertForSequenceClassification, num_labels=4), ClassifierTrainer),
            "image_classifier": (
                lambda: image_classifier("resnet10-digits", labels=4, image_size=8, num_channels=1),
                ImageClassifierTrainer,
            ),
            "time_classifier": (
                lambda: TimeDependentClassifier(num_classes=4, image_size=8, num_channels=1, architecture="cnn-digits"),
                TimeClassifierTrainer,
            ),
            "edm": (lambda: edm_unet("edm-digits", num_classes=4, image_size=8, num_channels=1), EDMTrainer),
        }[kind]
        if kind == "time_classifier":
            own = {"transition": None} | own
        if kind == "masked_lm":
            own = {"masking": MASKING} | own
        args = arguments(**({"per_device_train_batch_size": 8, "optim": "sgd", "learning_rate": 1e-3} | settings))
        return cls(model or made(), args, train_dataset=rows, eval_dataset=eval_rows, **own)

    return make
