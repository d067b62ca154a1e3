"""Rows that do not fit the model are refused by name; rows that a stock Trainer takes are taken."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
    default_data_collator,
)

from hf_noise.data.packing import PackedRows
from hf_noise.noise import UniformTokens
from hf_noise.trainers.collate import collate_rows
from hf_noise.trainers.images import DeviceImages, label_columns
from hf_noise.trainers.scoring import score_tokens


def resnet(classes=4, channels=1, names=None, seed=0):
    torch.manual_seed(seed)
    config = ResNetConfig(num_channels=channels, embedding_size=4, hidden_sizes=[4], depths=[1], num_labels=classes)
    if names is not None:
        config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    return ResNetForImageClassification(config)


PIXELS = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def image_rows(labels=range(8), pixels=PIXELS, **columns):
    extra = [dict(zip(columns, values)) for values in zip(*columns.values())] or [{}] * 8
    return [{"pixel_values": p, "labels": y, **more} for p, y, more in zip(pixels, labels, extra)]


TAKEN = {
    "label": lambda: [{"pixel_values": p, "label": i % 4} for i, p in enumerate(PIXELS)],
    "lists, as a map stores them": lambda: datasets.Dataset.from_dict(
        {"pixel_values": PIXELS.tolist(), "labels": [i % 4 for i in range(8)]}
    ),
    "uint8 labels": lambda: image_rows(np.arange(8, dtype=np.uint8) % 4),
    "columns of any other kind": lambda: image_rows(
        [i % 4 for i in range(8)], caption=["a text"] * 8, missing=[None] * 8, ragged=[[1] * i for i in range(8)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("rows", TAKEN.values(), ids=TAKEN)
def test_rows_of_a_stock_trainer_are_taken(any_trainer, rows):
    trainer = any_trainer("image_classifier", rows=rows(), eval_rows=image_rows([0] * 8), model=resnet(), max_steps=1)
    losses = []
    compute = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: losses.append(compute(*args, **kwargs)) or losses[-1]
    trainer.train()
    expected = torch.nn.functional.cross_entropy(resnet().train()(PIXELS).logits, torch.arange(8) % 4)
    assert losses[0].item() == pytest.approx(expected.item(), rel=1e-4)


REFUSED = {
    "fractions": (lambda: image_rows([float(i) for i in range(8)]), r"labels must be integers \[B\].*float64 \[8\]"),
    "one-hot": (lambda: image_rows(torch.eye(8)), r"labels must be integers \[B\].*float32 \[8, 8\]; .*argmax"),
    "text": (lambda: image_rows(["cat"] * 8), "column 'labels' must hold numbers, got 'cat'; .*class_encode_column"),
    "out of range": (lambda: image_rows([0] * 7 + [4]), r"1 of 8 labels are outside \[0, 4\), the first is 4 in"),
    "no images": (lambda: [{"image": 1, "labels": 0}] * 8, "rows need pixel_values, they have image, labels"),
    "no labels": (lambda: [{"pixel_values": PIXELS[0]}] * 8, "rows need labels, they have pixel_values"),
    "channels": (lambda: image_rows([0] * 8, PIXELS.expand(-1, 3, -1, -1)), "have 3 channels, the model takes 1"),
    "bytes": (lambda: image_rows([0] * 8, (PIXELS * 50).to(torch.uint8)), "pixel_values must be float .* torch.uint8"),
}  # fmt: skip


@pytest.mark.parametrize("rows", REFUSED)
def test_rows_that_do_not_fit_are_refused_by_name(any_trainer, rows):
    make, message = REFUSED[rows]
    with pytest.raises(ValueError, match=message):
        any_trainer("image_classifier", rows=make(), model=resnet()).train()
    with pytest.raises(ValueError, match=message):
        any_trainer("image_classifier", eval_rows=make(), model=resnet()).evaluate()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.9, 1.7, 0.0], r"column 'label' holds double \(0.9 in row 0\)"),
        ([1, None, 2], r"column 'label' holds 1 null\(s\), the first in row 1"),
        (["a", "b", "c"], r"column 'label' holds string \('a' in row 0\).*class_encode_column"),
        ([[1.0, 0.0]] * 3, "column 'label' holds list.*one-hot labels by argmax"),
    ],
)
def test_label_columns_of_other_kinds_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        label_columns(datasets.Dataset.from_dict({"label": labels}))
    with pytest.raises(ValueError, match="there is no column 'label'; the data have 'class'"):
        label_columns(datasets.Dataset.from_dict({"class": labels}))


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "uint64", "int32"])
def test_label_columns_of_any_integer_are_int64(kind):
    data = datasets.Dataset.from_dict({"label": np.array([2, 0, 1], dtype=kind), "is_noisy": [True, False, True]})
    columns = label_columns(data.select([2, 0]))
    assert columns["labels"].dtype == torch.int64 and columns["labels"].tolist() == [1, 2]
    assert columns["is_noisy"].tolist() == [True, True] and columns["sample_id"].tolist() == [0, 1]


def named_images(digit_images, names, n=32) -> DeviceImages:
    rows = digit_images(n)
    rows.info = datasets.DatasetInfo(features=datasets.Features({"label": datasets.ClassLabel(names=names)}))
    return rows


def test_classes_of_model_and_rows_have_one_order(any_trainer, digit_images):
    names, other = ["ant", "bee", "cat", "dog"], ["dog", "bee", "cat", "ant"]
    rows = named_images(digit_images, names)
    wrong = r"calls class 0 'dog', the data 'ant'; use one for these classes in this order"
    with pytest.raises(ValueError, match=f"the model {wrong}"):
        any_trainer("image_classifier", rows=rows, model=resnet(names=other))
    for evaluation in (named_images(digit_images, other), {"a": rows, "b": named_images(digit_images, other)}):
        with pytest.raises(ValueError, match="the training rows calls? class 0 'ant', the data 'dog'"):
            any_trainer("image_classifier", rows=rows, eval_rows=evaluation, model=resnet())
    with pytest.raises(ValueError, match="the model names 3 classes, the data 4"):
        any_trainer("image_classifier", rows=rows, model=resnet(3, names=names[:3]))
    # Numbers are no names: those that transformers makes up, and those of a model made for so many classes.
    for model in (resnet(), resnet(names=list("0123")), resnet(names=names)):
        any_trainer("image_classifier", rows=rows, eval_rows={"a": rows}, model=model)


def tokens(n=4, length=12, high=64):
    drawn = np.random.default_rng(0).integers(1, high, (n, length)).tolist()
    return datasets.Dataset.from_dict({"input_ids": drawn, "sample_id": range(n)})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"input_ids": [[1, 2, 64]]}, "input_ids hold 64 .sample_id 7., the model knows the tokens 0 to 63; use the t"),
        ({"input_ids": [[1, -1, 3]]}, "input_ids hold -1"),
        ({"input_ids": [[1, 2, 3]], "labels": [[1, -100, 64]]}, "labels hold 64 .*0 to 63 and -100 for no target"),
        ({"input_ids": [[1, 2, 3]], "labels": [[1, -100, -1]]}, "labels hold -1"),
        ({"input_ids": [[1.0, 2.0, 3.0]]}, "column 'input_ids' must hold integers, got float64 such as 1.0"),
        ({"input_ids": [[1, 2, 3]], "labels": [[1, 2]]}, r"of the same shape, got \[1, 3\] and \[1, 2\]"),
        ({"input_ids": [list(range(17))]}, "rows have 17 tokens, the model has positions for 16; cut or pack"),
        ({"input_ids": [None]}, "row 0 of the batch: column 'input_ids' holds None"),
        ({"text": ["x"]}, "rows need the column input_ids, they have: text, sample_id"),
    ],
)
def test_tokens_that_do_not_fit_the_model_are_refused(make_trainer, rows, message):
    data = datasets.Dataset.from_dict({**rows, "sample_id": [7]})
    with pytest.raises(ValueError, match=message):
        make_trainer(data).train()
    with pytest.raises(ValueError, match=message):
        make_trainer(eval_rows=data).evaluate()


def test_too_long_a_row_is_named_in_any_batch(make_trainer):
    rows = [{"input_ids": list(range(8))}] * 12 + [{"input_ids": list(range(30))}] * 12
    trainer = make_trainer(rows, train_sampling_strategy="sequential", max_steps=6)
    with pytest.raises(ValueError, match="rows have 30 tokens, the model has positions for 16; cut or pack"):
        trainer.train()
    assert trainer.state.global_step == 2  # the loader reads one batch ahead


def test_a_collator_is_shown_what_remove_unused_columns_has_it(make_trainer):
    """The stock one of transformers breaks on columns of text; one of a user may want them."""
    seen = []

    def collator(rows):
        seen.append(set(rows[0]))
        return collate_rows(rows)

    rows = tokens().add_column("text", ["a", "b", "c", "d"])
    make_trainer(rows, data_collator=collator).train()
    make_trainer(rows, data_collator=collator, remove_unused_columns=False).train()
    assert seen[0] == {"input_ids", "sample_id"} and seen[-1] == {"input_ids", "sample_id", "text"}
    texts = datasets.Dataset.from_dict({"text": ["1 2 3", "4 5 6"] * 2})
    make_trainer(texts, data_collator=lambda rows: collate_rows(
        [{"input_ids": [int(word) for word in row["text"].split()]} for row in rows]
    )).train()  # fmt: skip


def test_ids_that_are_texts_are_left_alone_until_noise_is_drawn_from_them(make_trainer, noise):
    rows = tokens().remove_columns("sample_id").add_column("sample_id", ["a.txt", "b.txt", "c.txt", "d.txt"])
    make_trainer(rows).train()
    with pytest.raises(ValueError, match="needs the column `sample_id`"):
        make_trainer(rows, noise=noise).train()


def test_columns_of_text_are_left_alone(make_trainer):
    rows = tokens().add_column("text", ["a", "b", "c", "d"]).add_column("spans", [[1], [1, 2], [], [3]])
    plain, more = (make_trainer(data) for data in (tokens(), rows))
    for trainer in (plain, more):
        trainer.train()
    assert plain.state.log_history[0]["loss"] == more.state.log_history[0]["loss"]


@pytest.fixture
def mixture():
    """A mixture of experts whose router has a loss of its own, as it minimises it in training."""

    def make(**changes):
        torch.manual_seed(0)
        sizes = dict(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        experts = dict(num_key_value_heads=2, num_local_experts=4, output_router_logits=True, router_aux_loss_coef=1.0)
        return MixtralForCausalLM(MixtralConfig(**(sizes | experts | changes)))

    return make


def test_the_loss_of_a_router_is_added(make_trainer, mixture):
    rows = tokens(8)
    x = torch.tensor(rows["input_ids"][:])
    output = mixture().train()(input_ids=x, labels=x)
    assert output.aux_loss > 1
    settings = dict(learning_rate=0.0, max_steps=1, per_device_train_batch_size=8)
    one = make_trainer(rows, model=mixture(), **settings)
    one.train()
    assert one.state.log_history[0]["loss"] == pytest.approx(output.loss.item(), rel=1e-5)
    # In passes, each has its share; the stock model would count it once for each of them.
    settings |= dict(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    parts = make_trainer(rows, model=mixture(), **settings)
    parts.train()
    shares = [mixture().train()(input_ids=x[i : i + 2], labels=x[i : i + 2]).aux_loss.item() for i in (0, 2, 4, 6)]
    expected = output.loss.item() - output.aux_loss.item() + np.mean(shares)
    assert parts.state.log_history[0]["loss"] == pytest.approx(expected, abs=0.02)  # in another order
    assert one.evaluate(rows)["eval_loss"] < one.state.log_history[0]["loss"] - 1  # of tokens alone
    with pytest.raises(ValueError, match="has a loss of its router.*use fused_loss=False"):
        make_trainer(rows, model=mixture(), fused_loss=True)


def test_a_router_that_gives_no_loss_is_refused(make_trainer, mixture, tiny_gpt2):
    model = tiny_gpt2()
    model.config.output_router_logits = True
    with pytest.raises(ValueError, match="gives no aux_loss with a router_aux_loss_coef"):
        make_trainer(tokens(), model=model).train()
    make_trainer(tokens(), model=mixture(output_router_logits=False), max_steps=1).train()


def test_models_with_parts_for_images_train_on_text_alone(make_trainer):
    """Their vocabulary stands in the text part of their configuration."""
    sizes = dict(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(Gemma3Config(
        text_config=sizes | dict(num_key_value_heads=1, head_dim=8), vision_config=vision | dict(patch_size=14),
        mm_tokens_per_image=4, image_token_index=63,
    ))  # fmt: skip
    rows = tokens(high=60).add_column("token_type_ids", [[0] * 12] * 4)
    noise = UniformTokens(ratio=1.0, vocab_size=60)
    trainer = make_trainer(rows, model=model, noise=noise, loss="corrected", eval_rows=rows)
    trainer.train()
    assert trainer.evaluate()["eval_tokens"] == 44 and model.config.hf_noise["vocab_size"] == 60
    with pytest.raises(ValueError, match="ids up to 99, the model knows 64"):
        make_trainer(rows, model=model, noise=UniformTokens(ratio=1.0, vocab_size=100))


def test_scores_of_padded_rows_are_those_of_rows_alone(tiny_gpt2):
    texts = [np.random.default_rng(i).integers(1, 64, n).tolist() for i, n in enumerate((5, 9, 12))]
    alone = score_tokens(tiny_gpt2(), [{"input_ids": text} for text in texts], batch_size=1)
    for left in (False, True):
        rows = []
        for text in texts:
            pad = [0] * (12 - len(text))
            ids, mask = ((pad + text, pad + [1] * len(text)) if left else (text + pad, [1] * len(text) + pad))
            rows.append({"input_ids": ids, "attention_mask": mask})
        padded = score_tokens(tiny_gpt2(), rows)
        np.testing.assert_allclose(padded.nll, alone.nll, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="input_ids hold 64"):
        score_tokens(tiny_gpt2(), [{"input_ids": [1, 64]}])


def test_what_rows_lack_or_have_wrong_is_said(any_trainer, make_trainer, noise):
    """Channels that come last, images that are no [-1, 1], labels that are missing, rows that are none."""
    with pytest.raises(ValueError, match=r"images have 8 channels, the model takes 1; channels come first: image.perm"):
        any_trainer("image_classifier", image_rows([0] * 8, PIXELS.permute(0, 2, 3, 1)), model=resnet()).train()
    with pytest.raises(ValueError, match="column 'labels' holds None, which is no number; leave such rows out"):
        any_trainer("image_classifier", image_rows([0] * 7 + [None]), model=resnet()).train()
    for kind in ("edm", "time_classifier"):
        rows = image_rows([0] * 8, PIXELS.abs() * 255, sample_id=range(8))
        with pytest.raises(ValueError, match=r"images must lie in \[-1, 1\], those of the first batch do in"):
            any_trainer(kind, rows, eval_rows=rows).train()
        with pytest.raises(ValueError, match=r"images must lie in \[-1, 1\]"):
            any_trainer(kind, eval_rows=rows).evaluate()
    with pytest.raises(ValueError, match="train_dataset has no rows"):
        make_trainer([]).train()
    with pytest.raises(TypeError, match="error_rate= is for tokens; wrong labels are corrected through transition="):
        any_trainer("image_classifier", error_rate=0.1)


def test_a_collator_for_lists_of_rows_is_told_of_columns(make_trainer):
    packed = PackedRows(tokens(8))
    with pytest.raises(TypeError, match=r"the collator \(data_collator=\) fails .* mapping of columns"):
        make_trainer(packed, data_collator=default_data_collator).train()
