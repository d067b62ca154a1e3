"""`ClassifierTrainer` on models of text, images and sound: what it takes, draws, counts and hands over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorWithPadding,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from hf_noise.models.image import image_classifier
from hf_noise.noise import LabelFlips, UniformTokens
from hf_noise.objectives.base import Objective
from hf_noise.trainers import ClassifierTrainer
from hf_noise.trainers.classifier_batches import ClassifierBatches
from hf_noise.trainers.classifier_head import ModelHead, find_head

C, V = 4, 64
NOISE = LabelFlips.symmetric(ratio=0.5, num_classes=C, seed=3)
_TEXT = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
         "max_position_embeddings": 24, "num_labels": C, "hidden_dropout_prob": 0.0,
         "attention_probs_dropout_prob": 0.0}  # fmt: skip
_SOUND = {"vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
          "conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_feat_extract_layers": 2,
          "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 12,
          "num_labels": C, "mask_time_prob": 0.0, "layerdrop": 0.0}  # fmt: skip

#: Model -> how to make it, and the width of its features.
MODELS = {
    "bert": (lambda: BertForSequenceClassification(BertConfig(**_TEXT)), 16),
    "roberta": (lambda: RobertaForSequenceClassification(RobertaConfig(**_TEXT)), 16),
    "distilbert": (
        lambda: DistilBertForSequenceClassification(DistilBertConfig(
            vocab_size=V, dim=16, n_layers=1, n_heads=2, hidden_dim=32, num_labels=C, max_position_embeddings=24,
            seq_classif_dropout=0.0, dropout=0.0, attention_dropout=0.0)), 16),
    "deberta": (lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**_TEXT)), 16),
    "gpt2": (
        lambda: GPT2ForSequenceClassification(GPT2Config(
            vocab_size=V, n_embd=16, n_layer=1, n_head=2, n_positions=24, num_labels=C, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)), 16),
    "vit": (
        lambda: ViTForImageClassification(ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=8,
            patch_size=4, num_channels=1, num_labels=C)), 16),
    "resnet": (
        lambda: ResNetForImageClassification(ResNetConfig(
            num_channels=1, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic",
            num_labels=C)), 12),
    "timm": (lambda: image_classifier("test_vit", labels=C, image_size=8, num_channels=1, patch_size=4), 64),
    "small resnet": (lambda: image_classifier("resnet10-digits", labels=C, image_size=8, num_channels=1), 32),
    "wav2vec2": (lambda: Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**_SOUND)), 12),
}  # fmt: skip
TEXTS = ("bert", "roberta", "distilbert", "deberta", "gpt2")


@pytest.fixture
def own(monkeypatch):
    """An objective that keeps the forward pass that it was shown."""
    from hf_noise.objectives import base

    monkeypatch.setattr(base, "_OBJECTIVES", dict(base._OBJECTIVES))

    class Shown(Objective):
        """What was shown."""

        name, unit, needs_forward = "shown", "labels", True
        seen = []

        def __call__(self, logits, labels, forward):
            self.seen.append((logits, labels, forward))
            return F.cross_entropy(logits, labels, reduction="none")

        def to_dict(self):
            return {"unit": self.unit, "name": self.name}

    return Shown()


def model_of(name, seed=0):
    torch.manual_seed(seed)
    return MODELS[name][0]()


def tokenizer():
    words = {"[PAD]": 0, "[UNK]": 1} | {f"w{i}": i for i in range(2, V)}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")))
    made.add_special_tokens({"pad_token": "[PAD]", "unk_token": "[UNK]"})
    return made


def rows_for(name, n=16, **columns):
    """Rows of several lengths of tokens, of pictures, or of sound, whose label the first value tells."""
    draw = np.random.default_rng(1)
    made = []
    for i in range(n):
        label = i % C
        row = {"label": label, "sample_id": 10 + 3 * i, "note": f"row {i}"}
        if name in TEXTS:
            length = 5 + i % 4
            row |= {"input_ids": [3 + label, *draw.integers(8, V, length - 1).tolist()], "attention_mask": [1] * length}
        elif name == "wav2vec2":
            row["input_values"] = (draw.normal(size=160 + 16 * (i % 3)) + label).astype(np.float32).tolist()
        else:
            row["pixel_values"] = (draw.normal(size=(1, 8, 8)) + label).astype(np.float32).tolist()
        made.append(row | {key: column[i] for key, column in columns.items()})
    return Dataset.from_list(made)


def processor_for(name):
    if name in TEXTS:
        return tokenizer()
    return Wav2Vec2FeatureExtractor(sampling_rate=160) if name == "wav2vec2" else None


@pytest.fixture
def build(arguments):
    """`build(name, rows=None, model=None, noise=NOISE, **settings)`: a trainer of one of `MODELS`."""

    def make(name="bert", rows=None, model=None, noise=NOISE, **settings):
        own = {k: settings.pop(k) for k in list(settings) if k not in TrainingArguments.__dataclass_fields__}
        own = {"processing_class": processor_for(name)} | own
        args = arguments(**({"per_device_train_batch_size": 8, "optim": "sgd", "learning_rate": 0.1} | settings))
        data = rows_for(name) if rows is None else rows
        return ClassifierTrainer(
            model or model_of(name), args, noise=noise, **{"train_dataset": data, "eval_dataset": data} | own
        )  # fmt: skip

    return make


@pytest.mark.parametrize("name", MODELS)
def test_the_first_loss_is_that_of_the_noisy_labels_and_features_make_the_logits(build, own, name):
    trainer = build(name, loss=own, max_steps=1, per_device_train_batch_size=16)
    own.seen.clear()
    trainer.train()
    ((logits, labels, forward),) = own.seen
    order = np.argsort(forward.sample_ids.numpy())
    noisy, is_noisy = NOISE(np.arange(16) % C, sample=10 + 3 * np.arange(16), epoch=0)
    assert labels.numpy()[order].tolist() == noisy.tolist() and is_noisy.any()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert trainer.state.log_history[0]["noise_rate"] == pytest.approx(is_noisy.mean())
    width = MODELS[name][1]
    assert forward.features.shape == (16, width) and forward.features.requires_grad
    fresh = ModelHead(model_of(name), C)  # the weights have moved since
    head = fresh.whole if type(fresh.whole) is type(forward.head) else fresh.last
    torch.testing.assert_close(head(forward.features.detach()), logits.detach(), atol=1e-5, rtol=1e-4)
    assert set(forward.inputs) <= {"input_ids", "attention_mask", "pixel_values", "input_values"}
    assert forward.epoch == 0 and not any(module._forward_pre_hooks for module in trainer.model.modules())


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_evaluation_is_exact_over_rows_of_any_batch(build, name):
    trainer = build(name, per_device_eval_batch_size=3)
    found = trainer.evaluate()
    rows, nll, hits = rows_for(name), [], []
    model = model_of(name).eval()
    for row in rows:
        given = {key: torch.tensor([row[key]]) for key in ("input_ids", "pixel_values") if key in row}
        with torch.no_grad():
            logits = model(**given).logits
        nll.append(F.cross_entropy(logits, torch.tensor([row["label"]])).item())
        hits.append(int(logits.argmax()) == row["label"])
    assert found["eval_rows"] == 16 and found["eval_accuracy"] == np.mean(hits)
    assert found["eval_nll"] == found["eval_loss"] == pytest.approx(np.mean(nll), rel=1e-5)
    assert "eval_accuracy_trained_labels" not in found


def test_predictions_are_in_the_order_of_the_rows_where_training_groups_them_by_length(build):
    plain = build(per_device_eval_batch_size=3)
    grouped = build(per_device_eval_batch_size=3, train_sampling_strategy="group_by_length", max_steps=1)
    wanted, found = plain.predict(rows_for("bert")), grouped.predict(rows_for("bert"))
    assert found.label_ids.tolist() == [i % C for i in range(16)]
    np.testing.assert_allclose(found.predictions, wanted.predictions, rtol=1e-5)
    lengths = [len(grouped.train_dataset[int(i)]["input_ids"]) for i in grouped._get_train_sampler()]
    assert lengths[:8] == sorted(lengths[:8], reverse=True), "training does group them"
    assert grouped.args.train_sampling_strategy == "group_by_length"


def noisy_rows(n=16):
    clean = [i % C for i in range(n)]
    noisy = [(label + 1) % C if i % 4 == 0 else label for i, label in enumerate(clean)]
    return rows_for("bert", n, clean_label=clean, is_noisy=[i % 4 == 0 for i in range(n)], label=noisy)


@pytest.mark.parametrize("collator", [None, DataCollatorWithPadding])
def test_rows_that_are_noisy_already_are_counted_and_not_drawn_again(build, collator):
    rows, shapes = noisy_rows(), []

    def own_metrics(prediction):
        shapes.append((prediction.predictions.shape, prediction.label_ids.tolist()))
        return {"mine": 1.0}

    options = {} if collator is None else {"data_collator": collator(tokenizer())}
    trainer = build(rows=rows, noise=None, num_train_epochs=1, max_steps=-1, compute_metrics=own_metrics, **options)
    trainer.train()
    assert trainer.realised_noise() == {"rate": 0.25, "n": 16}
    assert [log["noise_rate"] for log in trainer.state.log_history if "noise_rate" in log]
    found = trainer.evaluate()
    predicted = trainer.predict(rows)
    hits, clean = predicted.predictions.argmax(-1), np.array(rows["clean_label"])
    assert predicted.label_ids.tolist() == clean.tolist() and shapes[0] == ((16, C), clean.tolist())
    wrong = np.array(rows["is_noisy"])
    assert found["eval_accuracy"] == np.mean(hits == clean) and found["eval_mine"] == 1.0
    assert found["eval_accuracy_trained_labels"] == np.mean(hits == np.array(rows["label"]))
    assert found["eval_memorised"] == np.mean((hits == np.array(rows["label"]))[wrong])
    nll = F.cross_entropy(torch.from_numpy(predicted.predictions), torch.tensor(rows["label"][:]))
    assert found["eval_nll_trained_labels"] == pytest.approx(nll.item(), rel=1e-5)


def test_noise_is_drawn_anew_in_each_epoch_and_does_not_depend_on_batches(build):
    drawn = {}
    for size in (4, 8):
        trainer = build(num_train_epochs=2, max_steps=-1, per_device_train_batch_size=size)
        original, seen = trainer.targets, drawn.setdefault(size, {0: {}, 1: {}})

        def targets(inputs, *, draw, original=original, trainer=trainer, seen=seen):
            found = original(inputs, draw=draw)
            seen[trainer.epoch].update(zip(inputs["sample_id"].tolist(), found[0].tolist()))
            return found

        trainer.targets = targets
        trainer.train()
    assert drawn[4] == drawn[8] and drawn[4][0] != drawn[4][1] and len(drawn[4][0]) == 16


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "gpt2"])
def test_an_adapter_trains_and_its_head_is_the_copy_that_learns(build, own, name, tmp_path):
    peft = pytest.importorskip("peft")
    where = {"bert": ["query"], "roberta": ["query"], "distilbert": ["q_lin"], "gpt2": ["c_attn"]}[name]
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=where, fan_in_fan_out=name == "gpt2")
    model = peft.get_peft_model(model_of(name), config)
    own.seen.clear()
    trainer = build(name, model=model, loss=own, save_strategy="steps", save_steps=1)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    trainer.train()
    _, _, forward = own.seen[0]
    assert forward.features.shape[1] == 16 and all(p.requires_grad for p in forward.head.parameters())
    moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert moved and moved == {key for key in moved if "lora" in key or "modules_to_save" in key}
    saved = tmp_path / "run" / "checkpoint-2"
    assert (saved / "adapter_model.safetensors").is_file() and (saved / "hf_noise.json").is_file()
    torch.manual_seed(5)
    again = build(name, model=peft.get_peft_model(model_of(name), config), loss=own, max_steps=3)
    again.train(resume_from_checkpoint=str(saved))
    assert again.state.global_step == 3


def test_a_head_may_be_given_and_is_looked_for_by_name(own, build):
    model = model_of("bert")
    assert find_head(model) is model.classifier and find_head(torch.nn.Linear(2, 2)) is None
    model.mine, model.classifier = model.classifier, torch.nn.Identity()
    model.classifier.forward = model.mine.forward
    with pytest.raises(ValueError, match="no head is found in BertForSequenceClassification .looked for classifier"):
        build(model=model, loss=own)
    with pytest.raises(ValueError, match="Shown looks at what the head is given, which a compiled model does not"):
        build(loss=own, torch_compile=True)
    with pytest.raises(TypeError, match="head must be a torch.nn.Module of the model, got 'mine'"):
        build(model=model, loss=own, head="mine")
    with pytest.raises(ValueError, match="head= is no module of the model .Linear.; give one that is in it"):
        build(loss=own, head=torch.nn.Linear(16, C))
    with pytest.raises(ValueError, match=r"the logits are not what the head .* makes of its input|makes \[8, 16\] of"):
        build(loss=own, model=(other := model_of("bert")), head=other.bert.pooler.dense).train()


class Doubled(BertForSequenceClassification):
    """Whose logits are not what its head makes."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = 2 * output.logits + 1
        return output


def test_a_head_that_does_not_make_the_logits_is_refused(own, build):
    with pytest.raises(ValueError, match="the logits are not what the head Linear makes of its input"):
        build(model=Doubled(BertConfig(**_TEXT)), loss=own).train()


def config_with(**changes):
    return BertForSequenceClassification(BertConfig(**(_TEXT | changes)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": lambda: config_with(num_labels=1)}, ValueError, "num_labels = 1, which is no choice"),
        ({"model": lambda: config_with(problem_type="regression")}, ValueError, "problem_type is 'regression'"),
        ({"model": lambda: config_with(problem_type="multi_label_classification")}, ValueError, "problem_type is"),
        ({"noise": LabelFlips.symmetric(ratio=1.0, num_classes=5)}, ValueError, "the noise has 5 classes, the model 4"),
        ({"noise": UniformTokens(ratio=1.0, vocab_size=V)}, TypeError, "takes noise on labels, got UniformTokens"),
        ({"loss": "corrected", "transition": np.eye(3)}, ValueError, "transition has 3 classes, the model 4"),
        ({"loss": "corrected", "noise": None}, ValueError, "takes T from the noise, and the trainer was given none"),
        ({"transition": np.eye(4)}, ValueError, 'transition= is for loss="corrected"'),
        ({"error_rate": 0.1}, TypeError, "error_rate= is for tokens"),
        ({"loss": "smoothed"}, ValueError, 'loss must be .*"elr".*, got \'smoothed\''),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_made(build, changes, error, message):
    made = {key: value() if key == "model" else value for key, value in changes.items()}
    with pytest.raises(error, match=message):
        build(**made)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bert", lambda rows: rows.remove_columns("input_ids"), "rows need input_ids, .*by a tokenizer: rows ="),
        ("vit", lambda rows: rows.remove_columns("pixel_values"), "rows need pixel_values, .*by an image processor"),
        ("wav2vec2", lambda rows: rows.remove_columns("input_values"), "rows need input_values.*a feature extractor"),
        ("bert", lambda rows: rows.remove_columns("label"), "rows need labels .or label., the number of each row's"),
        ("bert", lambda rows: rows.remove_columns("sample_id"), "drawn from the column `sample_id`"),
        ("vit", lambda rows: [row | {"label": 0.0} for row in rows], "labels must be integers"),
    ],
)  # fmt: skip
def test_rows_that_lack_what_is_needed_are_refused(build, name, change, message):
    with pytest.raises(ValueError, match=message):
        build(name, rows=change(rows_for(name))).train()


def test_labels_outside_the_classes_are_refused_before_training(build):
    rows = rows_for("bert", label=[i % 5 for i in range(16)])
    with pytest.raises(ValueError, match=r"3 of 16 labels are outside \[0, 4\), the first is 4 in row 4"):
        build(rows=rows)
    with pytest.raises(ValueError, match=r"labels are outside \[0, 4\)"):  # of a list, in its batch
        build(rows=list(rows)).train()


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("bert", {"input_ids": [3, V]}, f"input_ids hold {V} .sample_id 5., the model knows the tokens 0 to 63"),
        ("bert", {"input_ids": [3] * 25}, "rows have 25 tokens, the model has positions for 24; cut them: tokenizer"),
        ("roberta", {"input_ids": [3] * 23}, "rows have 23 tokens, the model has positions for 22"),
        ("bert", {"input_ids": [3.5, 1.0]}, r"input_ids must hold integers \[B, L\], got torch.float32 \[1, 2\]"),
        ("bert", {"input_ids": 3}, r"input_ids must hold integers \[B, L\], got torch.int64 \[1\]; take what"),
    ],
)  # fmt: skip
def test_tokens_that_the_model_does_not_know_are_refused(build, name, row, message):
    with pytest.raises(ValueError, match=message):
        build(name, rows=[row | {"label": 0, "sample_id": 5}], processing_class=None).train()


def test_rows_of_several_lengths_need_something_that_pads(build):
    with pytest.raises(ValueError, match="has the shape .*; pad rows of several lengths: give processing_class="):
        build(processing_class=None).train()
    rows = rows_for("bert", sample_id=[f"{i}.txt" for i in range(16)])
    unknown = build(rows=rows, noise=None)  # ids of the data set's own, from which nothing is drawn
    unknown.train()
    logged = set().union(*unknown.state.log_history)
    assert {"accuracy_trained_labels", "nll_targets"} <= logged, "nobody knows how many of these labels are wrong"
    assert "noise_rate" not in logged and not any("clean" in name for name in logged)


def test_a_model_of_one_label_for_each_token_is_refused(build):
    with pytest.raises(ValueError, match=r"the model gives logits \[8, .*, 4\], one label for each row needs \[B, 4\]"):
        build(model=BertForTokenClassification(BertConfig(**_TEXT))).train()


def test_a_collator_is_shown_what_is_used_and_has_to_keep_it(build):
    seen = []

    def collator(rows):
        seen.append(set(rows[0]))
        made = DataCollatorWithPadding(tokenizer())(rows)
        return {name: value for name, value in made.items() if name in ("input_ids", "labels")}

    with pytest.raises(ValueError, match="drawn from the column `sample_id`.*or the data collator drops it"):
        build(data_collator=collator).train()
    assert "note" not in seen[0] and {"sample_id", "label"} < seen[0]
    with pytest.raises(ValueError, match="is_noisy that does not reach the trainer: the data collator drops it"):
        build(rows=noisy_rows(), noise=None, data_collator=collator).train()
    batches = ClassifierBatches(lambda rows: [1], C, ("input_ids",))
    with pytest.raises(TypeError, match="data_collator must give a mapping of columns, got list"):
        batches([{"input_ids": [1], "label": 0}])
    with pytest.raises(TypeError, match="rows must be mappings of columns, such as labels, got int"):
        batches([1])


def test_accumulated_batches_equal_one_large_batch(build):
    losses = []
    for size, steps in ((8, 1), (2, 4)):
        trainer = build(per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=4)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
