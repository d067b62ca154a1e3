"""The masked language model: exact sums over masked tokens, masks by id and epoch, noise on targets and documents."""

from __future__ import annotations

import dataclasses
import json
import logging

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertLMHeadModel,
    DataCollatorForLanguageModeling,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from hf_noise.noise import Masking, RandomDocuments, UniformTokens
from hf_noise.objectives import Corrected, DocumentMixture, SequenceMixture
from hf_noise.objectives.base import objectives
from hf_noise.trainers import MaskedLMTrainer

VOCABULARY, LENGTH, IGNORED = 64, 16, -100
RAGGED = (16, 3, 9, 2, 12)
#: As in BERT, so that of short rows some have no masked token.
BERTS = Masking(vocab_size=VOCABULARY, mask_token=VOCABULARY, seed=2)
MANY = dataclasses.replace(BERTS, probability=0.5)
SGD = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0}


@pytest.fixture
def masked(make_trainer, tiny_bert):
    """`masked(rows, **settings)`: a `MaskedLMTrainer` of a tiny BERT."""

    def make(rows=None, **settings):
        return make_trainer(rows, cls=MaskedLMTrainer, **({"model": tiny_bert(), "masking": MANY} | settings))

    return make


def by_hand(model, rows, masking, epoch=0, evaluation=False, noise=None):
    """float64 [n] of all masked tokens of the rows, one row after the other: NLL of clean and of corrupted ones."""
    clean, corrupted = [], []
    for row in rows:
        tokens, sample = np.asarray(row["input_ids"])[None], np.array([row["sample_id"]])
        labels, is_noisy = (tokens, np.zeros(tokens.shape, bool)) if noise is None else noise(tokens, sample, epoch)
        inputs, targets = masking(tokens, sample, epoch, targets=labels, evaluation=evaluation)
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.from_numpy(inputs)).logits[0].double()
        nll = F.cross_entropy(logits, torch.from_numpy(targets[0]), reduction="none", ignore_index=IGNORED)
        for found, mark in ((clean, ~is_noisy), (corrupted, is_noisy)):
            found.append(nll[torch.from_numpy(mark[0] & (targets[0] != IGNORED))])
    return torch.cat(clean), torch.cat(corrupted)


def tokenizer(**special) -> PreTrainedTokenizerFast:
    """300 words, and special tokens after them."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({str(i): i for i in range(300)}, unk_token="0")), **special
    )


def logged(trainer, *names) -> list:
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [tuple(entry.get(name) for name in names) if len(names) > 1 else entry[names[0]] for entry in entries]


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


# ---- evaluation


def test_evaluation_is_the_exact_mean_over_masked_tokens(masked, random_rows, tiny_bert):
    rows = random_rows(31, RAGGED)
    nll, _ = by_hand(tiny_bert(), rows, BERTS, evaluation=True)
    for size in (1, 4, 16):
        for masking in (BERTS, dataclasses.replace(BERTS, seed=9)):
            found = masked(eval_rows=rows, masking=masking, per_device_eval_batch_size=size).evaluate()
            assert found["eval_tokens"] == len(nll) < 60
            assert found["eval_nll"] == found["eval_loss"] == pytest.approx(nll.mean().item(), rel=1e-6)


def test_every_evaluation_of_a_run_masks_the_same(masked, random_rows):
    rows = random_rows(12, RAGGED)
    trainer = masked(rows, eval_rows=rows, learning_rate=0.0, eval_strategy="steps", eval_steps=1, max_steps=5,
                     max_grad_norm=0.0)  # fmt: skip
    trainer.train()
    found = [entry["eval_nll"] for entry in trainer.state.log_history if "eval_nll" in entry]
    assert trainer.epoch == 1 and len(found) == 5 and len(set(found)) == 1


def test_padding_is_never_masked_or_predicted(masked, random_rows, tiny_bert):
    """Also by a collator that pads on the left, and in rows that hold padding of their own."""
    rows = random_rows(6, (16, 5, 9))
    nll, _ = by_hand(tiny_bert(), rows, MANY, evaluation=True)

    def on_the_left(given):
        length = max(len(row["input_ids"]) for row in given)
        padded = [np.pad(row["input_ids"], (length - len(row["input_ids"]), 0)) for row in given]
        mask = [np.arange(length) >= length - len(row["input_ids"]) for row in given]
        tokens, mask = (torch.from_numpy(np.stack(one)).long() for one in (padded, mask))
        return {"input_ids": tokens, "attention_mask": mask, "labels": tokens.masked_fill(mask == 0, IGNORED),
                "sample_id": torch.tensor([row["sample_id"] for row in given])}  # fmt: skip

    for options in ({}, {"data_collator": on_the_left}):
        found = masked(eval_rows=rows, **options).evaluate()
        assert (found["eval_tokens"], found["eval_nll"]) == (len(nll), pytest.approx(nll.mean().item(), rel=1e-6))


def test_an_evaluation_without_a_masked_token_is_refused(masked, random_rows):
    rare = dataclasses.replace(BERTS, probability=1e-6)
    with pytest.raises(ValueError, match="no token of the evaluation data was masked: 3 rows are too few .* 1e-06"):
        masked(eval_rows=random_rows(3), masking=rare).evaluate()


# ---- training


def test_the_loss_is_the_mean_over_masked_tokens_of_the_epoch(masked, random_rows, tiny_bert):
    rows = random_rows(4)
    trainer = masked(rows, masking=BERTS, learning_rate=0.0, max_steps=3)
    means = [by_hand(tiny_bert(), rows, BERTS, epoch)[0].mean().item() for epoch in range(3)]
    assert len({round(mean, 4) for mean in means}) == 3
    assert logged(trainer, "loss") == pytest.approx(means, rel=1e-6)


def test_accumulated_batches_equal_one_large_batch(masked, random_rows):
    """Rows of which several have no masked token, alone in a batch too; SGD, so that weights show gradients."""
    rows = random_rows(8, RAGGED)
    settings = {"max_steps": 4, "masking": BERTS, "noise": UniformTokens(ratio=1.0, vocab_size=VOCABULARY), **SGD}
    large = masked(rows, per_device_train_batch_size=8, **settings)
    names = ("loss", "nll_clean_targets", "nll_corrupted_targets", "noise_rate")
    figures = logged(large, *names)
    for size, steps in ((2, 4), (1, 8)):
        small = masked(rows, per_device_train_batch_size=size, gradient_accumulation_steps=steps, **settings)
        for ours, theirs in zip(logged(small, *names), figures, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
        torch.testing.assert_close(weights(small), weights(large), rtol=0, atol=1e-6)


def test_a_step_without_a_masked_token_learns_nothing(masked, random_rows):
    rare = dataclasses.replace(BERTS, probability=1e-6)
    for options in ({}, {"sparse_head": False}, {"loss": "corrected", "error_rate": 0.2}):
        trainer = masked(random_rows(4), masking=rare, max_steps=3, **options, **SGD)
        before = weights(trainer)
        assert logged(trainer, "loss") == [0.0] * 3
        assert torch.equal(weights(trainer), before)


def test_rows_with_nothing_to_mask_are_refused(masked):
    rows = [{"input_ids": [1, 2], "labels": [IGNORED] * 2, "sample_id": i} for i in range(4)]
    with pytest.raises(ValueError, match="the first batch has no token to mask"):
        masked(rows).train()


# ---- the head


def tiny(kind):
    torch.manual_seed(0)
    size = {"vocab_size": VOCABULARY + 1, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "pad_token_id": None, "max_position_embeddings": LENGTH + 2}  # fmt: skip
    if kind is DistilBertForMaskedLM:
        return kind(DistilBertConfig(
            vocab_size=VOCABULARY + 1, dim=16, hidden_dim=32, n_layers=1, n_heads=2, pad_token_id=None
        ))  # fmt: skip
    if kind is RobertaForMaskedLM:
        return kind(RobertaConfig(**size | {"pad_token_id": 1}))
    if kind is AlbertForMaskedLM:
        return kind(AlbertConfig(**size, embedding_size=8))
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    return kind(ModernBertConfig(**size | {"pad_token_id": 0}, **tokens))


@pytest.mark.parametrize(
    "kind", [None, DistilBertForMaskedLM, RobertaForMaskedLM, AlbertForMaskedLM, ModernBertForMaskedLM]
)
def test_the_head_at_masked_positions_is_the_whole_one(masked, random_rows, tiny_bert, kind):
    def make():
        return tiny_bert() if kind is None else tiny(kind).eval()

    rows, found = random_rows(8, (12, 9)), []
    for sparse in (None, False):
        trainer = masked(rows, model=make(), eval_rows=rows, sparse_head=sparse, max_steps=2, seed=3, **SGD)
        assert (trainer.sparse_head is None) == (sparse is False)
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        found.append((logged(trainer, "loss"), weights(trainer), trainer.evaluate()["eval_nll"]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5) and found[0][2] == pytest.approx(found[1][2], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=1e-5)
    # Called as ever, the model still gives all of its logits.
    assert trainer.model(input_ids=torch.zeros(2, 4, dtype=torch.long)).logits.shape == (2, 4, 65)


def test_a_model_whose_head_stands_alone_is_computed_whole(masked, random_rows, tiny_bert, caplog):
    model = tiny_bert()
    forward = model.forward

    def centred(*args, **kwargs):  # a token's logits depend on those of its neighbours
        output = forward(*args, **kwargs)
        output.logits = output.logits - output.logits.mean(1, keepdim=True)
        return output

    model.forward = centred
    hooks = len(model.get_output_embeddings()._forward_pre_hooks)
    with caplog.at_level(logging.INFO, logger="hf_noise"):
        assert masked(random_rows(4), model=model).sparse_head is None
    assert "depend on the other positions' logits" in caplog.text
    assert len(model.get_output_embeddings()._forward_pre_hooks) == hooks
    with pytest.raises(ValueError, match="sparse_head=True is not for BertForMaskedLM here: its logits depend"):
        masked(random_rows(4), model=model, sparse_head=True)
    trainer = masked(random_rows(4), sparse_head=True)
    trainer.model.forward = lambda **kwargs: tiny_bert()(**kwargs)  # another model than the one that was tried
    with pytest.raises(RuntimeError, match="other than when it was tried: use sparse_head=False"):
        trainer.train()


# ---- noise


def test_token_noise_falls_on_masked_targets_alone(masked, random_rows, tiny_bert, noise):
    rows = random_rows(4)
    trainer = masked(rows, noise=noise, learning_rate=0.0, max_steps=2)
    for epoch, found in enumerate(logged(trainer, "nll_clean_targets", "nll_corrupted_targets", "noise_rate", "loss")):
        clean, corrupted = by_hand(tiny_bert(), rows, MANY, epoch, noise=noise)
        both, n = torch.cat([clean, corrupted]), len(clean) + len(corrupted)
        expected = (clean.mean(), corrupted.mean(), len(corrupted) / n, both.mean())
        assert found == pytest.approx([float(one) for one in expected], rel=1e-6)
    read = trainer.masked(next(iter(trainer.get_train_dataloader())), evaluation=False)
    clean = read["unmasked_input_ids"]
    assert bool(((read["input_ids"] == clean) | (read["labels"] != IGNORED)).all())


def test_noise_that_rows_bring_is_that_which_is_drawn(masked, random_rows, noise):
    static = dataclasses.replace(noise, redraw="never")
    rows = random_rows(8)
    stored = [
        row | dict(zip(("labels", "is_noisy"), static(row["input_ids"], row["sample_id"])))
        | {"clean_labels": row["input_ids"]} for row in rows
    ]  # fmt: skip
    names = ("loss", "nll_clean_targets", "nll_corrupted_targets", "noise_rate")
    drawn, brought = (masked(one, noise=static, max_steps=4, **SGD) for one in (rows, stored))
    assert logged(drawn, *names) == logged(brought, *names)
    assert torch.equal(weights(drawn), weights(brought))
    assert drawn.realised_noise() == brought.realised_noise()


def test_documents_of_noise_are_noise_as_context_and_as_target(masked, random_rows, tiny_bert):
    noise = RandomDocuments(alpha=0.5, vocab_size=VOCABULARY, exclude=None)
    rows = random_rows(4) + [
        {"input_ids": tokens, "sample_id": 4 + i} for i, tokens in enumerate(noise.rows(np.arange(4), LENGTH))
    ]
    mixed = [row | {"is_noisy": np.full(LENGTH, i > 3), "labels": row["input_ids"]} for i, row in enumerate(rows)]
    trainer = masked(mixed, noise=noise, learning_rate=0.0, max_steps=1, per_device_train_batch_size=8)
    (found,) = logged(trainer, "nll_clean_targets", "nll_corrupted_targets")
    of_noise = by_hand(tiny_bert(), rows[4:], MANY)[0], by_hand(tiny_bert(), rows[:4], MANY)[0]
    assert found == pytest.approx([one.mean().item() for one in of_noise[::-1]], rel=1e-6)
    assert trainer.model.config.hf_noise == noise.to_dict()


def test_objectives_work_as_on_any_tokens(masked, random_rows, tiny_bert, noise):
    rows = random_rows(4)
    (loss,) = logged(masked(rows, noise=noise, loss=Corrected(), learning_rate=0.0, max_steps=1), "loss")
    nll = torch.cat(by_hand(tiny_bert(), rows, MANY, noise=noise))
    expected = -torch.log(0.5 * torch.exp(-nll) + 0.5 / VOCABULARY).mean().item()
    assert loss == pytest.approx(expected, rel=1e-6)
    learned = masked(rows, noise=noise, loss="corrected", error_rate="learned", max_steps=2)
    assert [len(entry) for entry in logged(learned, "loss", "learned_error_rate")] == [2, 2]
    assert learned.loss_record()["source"] == "learned"


def test_a_mixture_that_takes_nothing_to_be_read_is_refused_where_something_is(masked, random_rows, noise):
    with pytest.raises(ValueError, match="mask_share=0.8; give masking= one with mask_share=1"):
        masked(random_rows(4), noise=noise, masking=BERTS, loss=DocumentMixture(0.1, "unigram"))


@pytest.mark.parametrize("objective", objectives("tokens"), ids=lambda cls: cls.name)
def test_every_objective_on_tokens_is_minimised_over_masked_tokens(masked, random_rows, noise, objective):
    """Of accumulated batches what one large batch gives, where an objective looks at each target on its own."""
    found, rows = [], random_rows(8, RAGGED)
    apart = {DocumentMixture: (0.1, "unigram"), SequenceMixture: (0.1, "unigram")}  # else of noise on documents or rows
    loss = objective(*apart.get(objective, ()))
    masking = dataclasses.replace(BERTS, mask_share=1.0, random_share=0.0) if objective is DocumentMixture else BERTS
    for size in (8, 2):
        trainer = masked(rows, noise=noise, masking=masking, loss=loss, per_device_train_batch_size=size,
                         gradient_accumulation_steps=8 // size, max_steps=3, **SGD)  # fmt: skip
        found.append((logged(trainer, "loss"), weights(trainer)))
        assert (trainer.sparse_head is None) == objective.needs_logits
        assert trainer.loss_record()["objective"] == loss.to_dict()
    assert np.isfinite(found[0][0]).all() and min(found[0][0]) > 0
    # These look at the batch, or at what came before.
    if objective.name not in ("truncated", "error-norm", "sequence-mixture"):
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
        torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=1e-6)


# ---- what travels


def test_the_masking_travels(masked, random_rows, tmp_path, noise):
    trainer = masked(random_rows(4), noise=noise, output_dir=str(tmp_path / "run"))
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(model_name="x")
    trainer.create_model_card(model_name="x")
    assert json.loads((tmp_path / "run/config.json").read_text())["hf_noise_masking"] == MANY.to_dict()
    assert trainer.loss_record()["masking"] == MANY.to_dict() and trainer.loss_record()["name"] == "nll"
    card = ModelCard.load(tmp_path / "run/README.md")
    assert card.data.masking == MANY.to_dict() and card.text.count("## Masking\n\n0.5 of the tokens are masked") == 1
    assert "## Noise in the training data" in card.text

    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "run")
    rows = random_rows(9)
    again = masked(eval_rows=rows, model=model, masking=None)
    assert again.masking == MANY
    assert again.evaluate()["eval_nll"] == pytest.approx(trainer.evaluate(rows)["eval_nll"], rel=1e-6)
    other = masked(eval_rows=rows, model=model, masking=BERTS)
    assert other.masking == BERTS and model.config.hf_noise_masking == BERTS.to_dict()


def test_a_resumed_run_is_bit_identical_and_masks_as_it_began(masked, random_rows, tmp_path, noise):
    settings = {"noise": noise, "save_strategy": "steps", "save_steps": 1, "masking": BERTS, "max_steps": 7,
                "logging_steps": 3, "learning_rate": 0.01, "gradient_accumulation_steps": 2}  # fmt: skip
    rows = random_rows(20)
    whole = masked(rows, output_dir=str(tmp_path / "whole"), **settings)
    whole.train()
    for step in (1, 4):
        again = masked(rows, output_dir=str(tmp_path / f"from-{step}"), **settings)
        again.train(resume_from_checkpoint=str(tmp_path / f"whole/checkpoint-{step}"))
        assert torch.equal(weights(again), weights(whole))
        assert again.realised_noise() == whole.realised_noise()
    for changes in ({"seed": 3}, {"probability": 0.2}, {"special_tokens": (1,)}):
        other = masked(rows, output_dir=str(tmp_path / "other"),
                       **settings | {"masking": dataclasses.replace(BERTS, **changes)})  # fmt: skip
        with pytest.raises(ValueError, match="checkpoint-4 was trained with masking = .*, this run has .*Go on as it"):
            other.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-4"))


def test_batches_of_a_stream_are_masked_too(masked, random_rows, tiny_bert):
    rows = [{"input_ids": row["input_ids"].tolist(), "sample_id": row["sample_id"]} for row in random_rows(8)]
    trainer = masked(datasets.Dataset.from_list(rows).to_iterable_dataset(), learning_rate=0.0, max_steps=2)
    means = [by_hand(tiny_bert(), rows[i : i + 4], MANY)[0].mean().item() for i in (0, 4)]
    assert logged(trainer, "loss") == pytest.approx(means, rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("sparse", [None, False])
def test_a_gpu_trains_on_the_same_masks(masked, random_rows, noise, sparse):
    rows, names, found = random_rows(24, RAGGED), ("loss", "nll_clean_targets", "noise_rate"), []
    for use_cpu in (True, False):
        trainer = masked(rows, eval_rows=rows, use_cpu=use_cpu, noise=noise, sparse_head=sparse, max_steps=4,
                         gradient_accumulation_steps=2, **SGD)  # fmt: skip
        found.append((logged(trainer, *names), trainer.evaluate(), trainer.realised_noise()))
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert found[0][1]["eval_nll"] == pytest.approx(found[1][1]["eval_nll"], rel=1e-4)
    assert found[0][1]["eval_tokens"] == found[1][1]["eval_tokens"] and found[0][2] == found[1][2]


# ---- what is refused


def test_a_tokenizer_gives_the_mask_token(masked, random_rows, tiny_bert):
    with pytest.raises(ValueError, match="has no mask token; give mask_token="):
        masked(random_rows(4), masking=None, processing_class=tokenizer())
    with pytest.raises(ValueError, match="masking is None, and neither the model's config states one nor"):
        masked(random_rows(4), masking=None)
    with pytest.raises(TypeError, match="masking must be a hf_noise.noise.Masking, got 0.15"):
        masked(random_rows(4), masking=0.15)
    named = tokenizer(mask_token="<mask>")
    trainer = masked(random_rows(4), masking=None, processing_class=named, model=tiny_bert(vocab_size=301))
    assert trainer.masking == Masking.of_tokenizer(named) and trainer.masking.mask_token == 300
    with pytest.raises(ValueError, match=r"the mask token 300 and ids up to 300, the model knows 65 tokens; make it "):
        masked(random_rows(4), masking=None, processing_class=named)


def test_models_that_see_only_what_stands_before_are_refused(masked, random_rows, tiny_gpt2, tiny_bert):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": VOCABULARY + 1}
    for model in (tiny_gpt2(vocab_size=65), BertLMHeadModel(BertConfig(**size)), tiny_bert(is_decoder=True)):
        with pytest.raises(ValueError, match=f"{type(model).__name__} is a causal language model, which sees nothing"):
            masked(random_rows(4), model=model)


def without(rows, name):
    return [{key: value for key, value in row.items() if key != name} for row in rows]


def test_rows_that_masks_cannot_be_drawn_for_are_refused(masked, random_rows):
    bare = without(random_rows(4), "sample_id")
    for run in (masked(bare).train, masked(eval_rows=bare).evaluate):
        with pytest.raises(ValueError, match="masks need the column `sample_id`, .* rows have input_ids, labels; see"):
            run()
    twice = [row | {"sample_id": i % 2} for i, row in enumerate(random_rows(4))]
    with pytest.raises(ValueError, match="4 rows have 2 different sample ids .* masked positions belong to an id"):
        masked(datasets.Dataset.from_list(twice))


def test_rows_that_were_masked_before_are_refused(masked, random_rows):
    named = tokenizer(mask_token="<mask>", pad_token="0")
    with pytest.raises(ValueError, match=r"DataCollatorForLanguageModeling\(mlm=True\) masks tokens.*mlm=False"):
        masked(random_rows(4), data_collator=DataCollatorForLanguageModeling(named))
    own = [row | {"labels": row["input_ids"], "input_ids": np.where(np.arange(LENGTH) == 3, 63, row["input_ids"])}
           for row in random_rows(4, seed=1)]  # fmt: skip
    for run in (masked(own).train, masked(eval_rows=own).evaluate):
        with pytest.raises(ValueError, match="4 of 64 labels are not the input_ids .* This trainer masks"):
            run()


def test_a_collator_that_leaves_text_alone_is_taken(masked, random_rows, tiny_bert):
    named = tokenizer(mask_token="<mask>", pad_token="<pad>")
    rows = [row | {"input_ids": row["input_ids"].tolist()} for row in random_rows(6, (16, 5))]
    model = tiny_bert(vocab_size=302)
    collator, masking = DataCollatorForLanguageModeling(named, mlm=False), Masking.of_tokenizer(named, probability=0.5)
    found = masked(eval_rows=rows, model=model, data_collator=collator, masking=masking).evaluate()
    nll, _ = by_hand(model, rows, masking, evaluation=True)
    assert (found["eval_tokens"], found["eval_nll"]) == (len(nll), pytest.approx(nll.mean().item(), rel=1e-5))
