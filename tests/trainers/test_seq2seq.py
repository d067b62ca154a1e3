"""Encoder-decoders on pairs: exact sums, the shift, batches by tokens, whole rows of noise, generation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from datasets import Dataset
from safetensors.torch import load_file

from hf_noise import load_noise
from hf_noise.noise import NoisyTeacher, UniformTokens
from hf_noise.noise.teacher import Teacher
from hf_noise.objectives import SequenceMixture
from hf_noise.trainers import Seq2SeqTrainer

V, LAYERS = 64, {"encoder_layers": 1, "decoder_layers": 1}
SHAPE = {"vocab_size": V, "d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
         "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 32, "dropout": 0.0,
         "attention_dropout": 0.0, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
         "decoder_start_token_id": 0} | LAYERS  # fmt: skip
BERT = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip


def encoder_and_decoder():
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.BertConfig(**BERT | {"vocab_size": V + 6}),
        transformers.BertConfig(**BERT, is_decoder=True, add_cross_attention=True),
    )
    config.pad_token_id, config.decoder_start_token_id = 0, 2
    return transformers.EncoderDecoderModel(config)


def named(name: str):
    config, model = {
        "bart": ("BartConfig", "BartForConditionalGeneration"), "marian": ("MarianConfig", "MarianMTModel"),
        "m2m100": ("M2M100Config", "M2M100ForConditionalGeneration"),
        "mbart": ("MBartConfig", "MBartForConditionalGeneration"),
    }[name]  # fmt: skip
    return getattr(transformers, model)(getattr(transformers, config)(**SHAPE))


def t5():
    return transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=V, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0,
    ))  # fmt: skip


MODELS = {name: lambda name=name: named(name) for name in ("bart", "marian", "m2m100", "mbart")}
MODELS |= {"t5": t5, "encoder-decoder": encoder_and_decoder}


def stock_nll(model, rows, column="labels") -> tuple[float, int]:
    """Of targets one by one, by the model's own shift and loss: the sum, and their number."""
    total, n = 0.0, 0
    model.eval()
    with torch.no_grad():
        for row in rows:
            labels = torch.tensor([row[column]])
            total += float(model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss) * labels.numel()
            n += labels.numel()
    return total, n


@pytest.mark.parametrize("name", MODELS)
def test_any_model_has_the_nll_that_it_states_itself(name, pair_rows, arguments):
    torch.manual_seed(0)
    model, rows = MODELS[name](), pair_rows(7, seed=1)
    trainer = Seq2SeqTrainer(
        model, arguments(max_steps=2, per_device_eval_batch_size=3), train_dataset=pair_rows(12), eval_dataset=rows,
        tokens_per_batch=90,
    )  # fmt: skip
    trainer.train()
    total, n = stock_nll(model, rows)
    found = trainer.evaluate()
    assert found["eval_tokens"] == n and found["eval_nll"] == pytest.approx(total / n, rel=1e-5)


def gradient(trainer_class, model, args, rows, **options) -> torch.Tensor:
    """That of the first step, over all weights."""
    seen = []

    class Looks(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            seen.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))

    trainer = trainer_class(model, args, train_dataset=rows, callbacks=[Looks()], **options)
    trainer.train()
    return seen[0].clone()


@pytest.mark.parametrize("name", ["m2m100", "t5"])
def test_accumulation_changes_no_gradient_as_it_does_in_the_stock_trainer(name, pair_rows, arguments):
    """transformers#47688: these models ignore the number of targets, and four passes multiply the gradient by four."""
    rows = pair_rows(8)

    def first(trainer_class, rows_a_pass: int, **options):
        torch.manual_seed(0)
        args = arguments(
            max_steps=1, per_device_train_batch_size=rows_a_pass, gradient_accumulation_steps=8 // rows_a_pass,
            max_grad_norm=0.0, remove_unused_columns=trainer_class is not Seq2SeqTrainer,
        )  # fmt: skip
        return gradient(trainer_class, MODELS[name](), args, rows, **options)

    torch.testing.assert_close(first(Seq2SeqTrainer, 2), first(Seq2SeqTrainer, 8), rtol=1e-4, atol=1e-6)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()), pad_token="<pad>"
    )
    stock = {"data_collator": transformers.DataCollatorForSeq2Seq(tokenizer)}
    many, one = (first(transformers.Trainer, rows_a_pass, **stock) for rows_a_pass in (2, 8))
    assert many.norm() / one.norm() > 2, "the stock trainer's gradient is right now: say so in the docstring"


def test_the_decoder_reads_noisy_labels_moved_on(tiny_seq2seq, pair_rows, arguments):
    seen = []
    model = tiny_seq2seq()
    trainer = Seq2SeqTrainer(model, arguments(max_steps=1), train_dataset=pair_rows(4, noisy=[1, 0, 1, 0]))
    original = model.forward

    def forward(**inputs):
        seen.append(inputs)
        return original(**inputs)

    model.forward = forward
    trainer.train()
    assert set(seen[0]) == {"input_ids", "attention_mask", "decoder_input_ids", "use_cache"}
    expected = {(1, *row["labels"][:-1]) for row in trainer.train_dataset}
    read = {tuple(row[: len(row) if 0 not in row else row.index(0)]) for row in seen[0]["decoder_input_ids"].tolist()}
    assert {row[: len(one)] for row in read for one in expected if row[: len(one)] == one} == expected


def test_evaluation_is_on_clean_targets(tiny_seq2seq, pair_rows, arguments):
    rows = pair_rows(9, noisy=np.arange(9) % 2)
    trainer = Seq2SeqTrainer(tiny_seq2seq(), arguments(), train_dataset=rows, eval_dataset=rows)
    total, n = stock_nll(trainer.model, rows, "clean_labels")
    assert trainer.evaluate()["eval_nll"] == pytest.approx(total / n, rel=1e-5)


def batches_of(trainer, epoch: int = 0) -> list[list[int]]:
    loader = trainer.get_train_dataloader()
    trainer.draw_epoch(epoch)
    return [batch["sample_id"].tolist() for batch in loader]


def test_batches_are_the_same_for_any_number_of_workers(tiny_seq2seq, pair_rows, arguments):
    rows = Dataset.from_list(pair_rows(60))

    def made(**settings):
        return Seq2SeqTrainer(tiny_seq2seq(), arguments(**settings), train_dataset=rows, tokens_per_batch=120)

    expected = batches_of(made(), 1)
    assert batches_of(made(dataloader_num_workers=2, per_device_train_batch_size=1), 1) == expected
    assert batches_of(made(data_seed=7), 1) != expected
    assert sorted(row for batch in expected for row in batch) == [5 * i for i in range(60)]


def test_a_resumed_run_has_the_same_batches_and_ends_the_same(tiny_seq2seq, pair_rows, arguments):
    """Stopped in its second pass, with dropout and noise that is drawn for each epoch."""
    noise = UniformTokens(error_rate=0.3, vocab_size=V, seed=3)
    rows = pair_rows(24)

    def run(resume=None, **settings):
        torch.manual_seed(0)
        trainer = Seq2SeqTrainer(
            tiny_seq2seq(dropout=0.3), arguments(max_steps=12, save_strategy="steps", save_steps=8, **settings),
            noise=noise, train_dataset=rows, tokens_per_batch=140,
        )  # fmt: skip
        seen = []
        step = trainer.training_step
        trainer.training_step = lambda model, inputs, *a, **k: (
            seen.append(inputs["sample_id"].tolist()), step(model, inputs, *a, **k)
        )[1]  # fmt: skip
        trainer.train(resume)
        return trainer, seen

    whole, seen = run()
    assert 12 > len(whole._budget) > 3
    assert whole.pairs_per_step == pytest.approx(24 / len(whole._budget))
    again, later = run(str(Path(whole.args.output_dir, "checkpoint-8")))
    assert later == seen[8:]
    for ours, one in zip(again.model.parameters(), whole.model.parameters()):
        assert torch.equal(ours, one)
    assert again.padding() == whole.padding() and again.realised_noise() == whole.realised_noise()
    with pytest.raises(ValueError, match="tokens_per_batch = 140, this run has 200"):
        trainer = Seq2SeqTrainer(
            tiny_seq2seq(), arguments(max_steps=12), noise=noise, train_dataset=rows, tokens_per_batch=200
        )
        trainer.train(str(Path(whole.args.output_dir, "checkpoint-8")))


@pytest.mark.parametrize("wrapped", [False, True], ids=["whole", "lora"])
def test_what_a_checkpoint_holds_is_counted_with_the_early_copy(tiny_seq2seq, pair_rows, arguments, wrapped):
    """Behind an adapter the copy is of the whole model, and goes into every checkpoint as it is."""
    model = tiny_seq2seq()
    if wrapped:
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj"]))
    loss = SequenceMixture("learned", other="learned")
    trainer = Seq2SeqTrainer(
        model, arguments(max_steps=1, save_strategy="steps", save_steps=1), loss=loss, train_dataset=pair_rows(8)
    )
    trainer.train()
    folder = Path(trainer.args.output_dir, "checkpoint-1")
    saved = sum(value.numel() for file in folder.glob("*.safetensors") for name, value in load_file(file).items()
                if "." in name and ".scores." not in name and not name.endswith("was_taken"))  # fmt: skip
    weights = sum(p.numel() for p in model.parameters())
    assert trainer.num_saved == saved > (weights if wrapped else 2 * weights - 1)


def test_padding_is_reported(tiny_seq2seq, pair_rows, arguments):
    trainer = Seq2SeqTrainer(
        tiny_seq2seq(), arguments(max_steps=-1, num_train_epochs=1), train_dataset=pair_rows(40), tokens_per_batch=100
    )
    trainer.train()
    found = trainer.padding()
    assert found["share"] == pytest.approx(trainer._budget.padding_share()) and found["n"] > 0
    shares = [entry["padding_share"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(shares) == len(trainer._budget) and min(shares) <= found["share"] <= max(shares)


def teacher(**changes) -> NoisyTeacher:
    made = {"error_rate": 0.5, "teacher": Teacher(name="t", sha256="0" * 64, steps=5), "seed": 1}
    return NoisyTeacher(**(made | changes))


def marked(pair_rows, noise, n=40):
    return pair_rows(n, noisy=noise.is_noisy(5 * np.arange(n)))


def test_whole_rows_of_noise_are_counted_stated_and_recorded(tiny_seq2seq, pair_rows, arguments):
    noise = teacher().exactly(5 * np.arange(40))
    rows = marked(pair_rows, noise)
    trainer = Seq2SeqTrainer(
        tiny_seq2seq(), arguments(max_steps=-1, num_train_epochs=2), noise=noise, train_dataset=rows,
        tokens_per_batch=150,
    )  # fmt: skip
    trainer.train()
    assert trainer.realised_noise() == {"rate": 0.5, "n": 40}, "of pairs, not of what two epochs saw"
    assert trainer.meter.realised() == {"rate": 0.5, "n": 80}
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert any("nll_corrupted_targets" in entry for entry in logged)
    trainer.save_model()
    trainer.create_model_card()
    folder = trainer.args.output_dir
    assert load_noise(folder) == noise
    assert transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).config.hf_noise["protocol"] == "noisy_teacher"
    assert "noisy_teacher" in Path(folder, "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows, i: {**rows[i], "is_noisy": rows[i]["is_noisy"] != (i == 0)}, "is_noisy calls|is_noisy of 1 of"),
        (lambda rows, i: {**rows[i], "sample_id": 5 * ((i + 1) % 40)}, r"is_noisy of \d+ of 40 rows is not what the"),
        (lambda rows, i: {**rows[i], "labels": [9, 9, 9, 1]}, "units that is_noisy calls clean are not what they were"),
        (lambda rows, i: {k: v for k, v in rows[i].items() if k != "is_noisy"}, "is_noisy"),
    ],
    ids=["a flag", "other ids", "other targets", "no mask"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["list", "table", "stream"])
def test_rows_that_contradict_their_noise_are_refused(tiny_seq2seq, pair_rows, arguments, change, message, kind):
    """When the trainer is made; of a stream, at its first batch."""
    noise = teacher().exactly(5 * np.arange(40))
    rows = marked(pair_rows, noise)
    rows = [change(rows, i) for i in range(40)]
    if kind != "list":
        rows = Dataset.from_list(rows)
    if kind == "stream":
        rows = rows.to_iterable_dataset()
    with pytest.raises(ValueError, match=message if kind != "stream" else "is_noisy"):
        Seq2SeqTrainer(
            tiny_seq2seq(), arguments(max_steps=1, per_device_train_batch_size=40), noise=noise, train_dataset=rows
        ).train()


def test_rates_are_exact_where_the_noise_says_so(tiny_seq2seq, pair_rows, arguments):
    """Without ids nothing tells which rows; how many is told by N."""
    noise = teacher().exactly(5 * np.arange(40))
    for n_noisy, is_right in ((20, True), (19, False)):
        rows = without(pair_rows(40, noisy=np.arange(40) < n_noisy), "sample_id")
        if is_right:
            Seq2SeqTrainer(tiny_seq2seq(), arguments(), noise=noise, train_dataset=rows)
            continue
        with pytest.raises(ValueError, match="marks 19 of 40 rows, where the noise marks 20 of so many exactly"):
            Seq2SeqTrainer(tiny_seq2seq(), arguments(), noise=noise, train_dataset=rows)


def test_a_teacher_may_write_what_was_there(tiny_seq2seq, pair_rows, arguments):
    noise = teacher()
    rows = [{**row, "labels": row["clean_labels"]} for row in marked(pair_rows, noise)]
    Seq2SeqTrainer(tiny_seq2seq(), arguments(max_steps=1), noise=noise, train_dataset=rows).train()


def test_masks_of_tokens_and_of_rows_belong_to_their_noise(tiny_seq2seq, pair_rows, arguments):
    tokens = UniformTokens(error_rate=0.5, vocab_size=V, seed=1)
    rows = marked(pair_rows, teacher())
    with pytest.raises(ValueError, match="is_noisy marks whole rows, and the noise falls on tokens"):
        Seq2SeqTrainer(tiny_seq2seq(), arguments(), noise=tokens, train_dataset=rows)
    made = []
    for row in pair_rows(40):
        labels, mask = tokens(np.array([row["labels"]]), np.array([row["sample_id"]]))
        made.append({**row, "clean_labels": row["labels"], "labels": labels[0].tolist(), "is_noisy": mask[0].tolist()})
    args = arguments(max_steps=-1, num_train_epochs=1)
    trainer = Seq2SeqTrainer(tiny_seq2seq(), args, noise=tokens, train_dataset=made)
    trainer.train()
    n = sum(len(row["labels"]) for row in made)
    assert trainer.realised_noise() == {"rate": pytest.approx(sum(map(sum, (r["is_noisy"] for r in made))) / n), "n": n}
    with pytest.raises(ValueError, match="is_noisy marks tokens, and the noise falls on whole rows"):
        Seq2SeqTrainer(tiny_seq2seq(), arguments(max_steps=1), noise=teacher(), train_dataset=made).train()


def test_noise_on_tokens_is_drawn_for_targets_alone(tiny_seq2seq, pair_rows, arguments):
    noise = UniformTokens(error_rate=0.5, vocab_size=V, seed=1)
    rows, drawn = pair_rows(20), {}
    trainer = Seq2SeqTrainer(
        tiny_seq2seq(), arguments(max_steps=-1, num_train_epochs=1), noise=noise, loss="corrected", train_dataset=rows,
        tokens_per_batch=100,
    )  # fmt: skip
    original = trainer.token_nll

    def token_nll(model, inputs, targets):
        drawn.update({int(i): row[row != -100].tolist() for i, row in zip(inputs["sample_id"], targets)})
        return original(model, inputs, targets)

    trainer.token_nll = token_nll
    trainer.train()
    for row in rows:
        expected, _ = noise(np.array([row["labels"]]), np.array([row["sample_id"]]))
        assert drawn[row["sample_id"]] == expected[0].tolist()
    assert 0.3 < trainer.realised_noise()["rate"] < 0.7


def without(rows, name):
    return [{key: value for key, value in row.items() if key != name} for row in rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{**rows[0], "labels": []}, *rows[1:]], "the target of sample_id 0 is empty"),
        (lambda rows: [{**rows[0], "labels": [-100, 5, 1]}, *rows[1:]], "the target of sample_id 0 begins with -100"),
        (lambda rows: [{**rows[0], "input_ids": []}, *rows[1:]], "the source of sample_id 0 is empty"),
        (lambda rows: [{**rows[0], "input_ids": [2] * 33}, *rows[1:]], "source of sample_id 0 has 33 tokens, .* 32"),
        (lambda rows: [{**rows[0], "labels": [2] * 33}, *rows[1:]], "the target of sample_id 0 has 33 tokens"),
        (lambda rows: [{**rows[0], "labels": [V, 1]}, *rows[1:]], rf"target .* of sample_id 0 holds the token {V}"),
        (lambda rows: [{**rows[0], "input_ids": [-1, 1]}, *rows[1:]], r"source .* of sample_id 0 holds the token -1"),
        (lambda rows: without(rows, "labels"), "pairs need the column labels, row 0 of the batch has: input"),
        (lambda rows: without(rows, "sample_id"), "dynamic noise needs the column `sample_id`"),
    ],
    ids=["empty target", "padding before it", "empty source", "long source", "long target", "unknown target",
         "unknown source", "no targets", "no ids"],
)  # fmt: skip
def test_rows_that_no_model_can_take_are_named(tiny_seq2seq, pair_rows, arguments, change, message):
    noise = UniformTokens(error_rate=0.5, vocab_size=V, seed=1)
    args = arguments(max_steps=1, per_device_train_batch_size=8)
    with pytest.raises(ValueError, match=message):
        Seq2SeqTrainer(tiny_seq2seq(), args, noise=noise, train_dataset=change(pair_rows(8))).train()


@pytest.mark.parametrize(
    ("clean", "message"),
    [
        ([], "the clean target of sample_id 5 is empty: each ends with the end token"),
        ([-100, 5, 1], "the clean target of sample_id 5 begins with -100"),
        ([2] * 33, "the clean target of sample_id 5 has 33 tokens, the model has positions for 32"),
        ([V, 1], rf"clean target \(clean_labels\) of sample_id 5 holds the token {V}, .* -100 for no target"),
    ],
)  # fmt: skip
def test_clean_targets_that_an_evaluation_would_take_are_checked_as_well(
    tiny_seq2seq, pair_rows, arguments, clean, message
):
    """An unknown one was an IndexError, and an empty one no target at all, which nobody missed."""
    rows = [{**row, "clean_labels": clean if row["sample_id"] == 5 else row["labels"]} for row in pair_rows(8)]
    with pytest.raises(ValueError, match=message):
        Seq2SeqTrainer(tiny_seq2seq(), arguments(), train_dataset=pair_rows(8), eval_dataset=rows).evaluate()


def no_start(model):
    model.config.decoder_start_token_id = None
    return model


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (lambda m, g: no_start(m), {}, ValueError, "no config.decoder_start_token_id, the token with which"),
        (lambda m, g: g, {}, ValueError, "GPT2LMHeadModel is no encoder-decoder"),
        (lambda m, g: m, {"tokens_per_batch": 1}, ValueError, "tokens_per_batch must be at least 2"),
        (lambda m, g: m, {"tokens_per_batch": 64.0}, TypeError, "tokens_per_batch must be an integer"),
        (lambda m, g: m, {"noise": UniformTokens(ratio=1.0, vocab_size=V + 1)}, ValueError, "model knows 64"),
    ],
)  # fmt: skip
def test_what_trains_on_no_pairs_is_refused(
    tiny_seq2seq, tiny_gpt2, pair_rows, arguments, make, options, error, message
):
    with pytest.raises(error, match=message):
        Seq2SeqTrainer(make(tiny_seq2seq(), tiny_gpt2()), arguments(), train_dataset=pair_rows(4), **options)


def test_a_budget_needs_lengths_and_makes_the_batches_itself(tiny_seq2seq, pair_rows, arguments):
    stream = Dataset.from_list(pair_rows(4)).to_iterable_dataset()
    with pytest.raises(ValueError, match="tokens_per_batch=64 sorts all rows by length, and these are a stream"):
        Seq2SeqTrainer(tiny_seq2seq(), arguments(), train_dataset=stream, tokens_per_batch=64)
    with pytest.raises(ValueError, match="train_sampling_strategy='group_by_length' others; leave one out"):
        args = arguments(train_sampling_strategy="group_by_length")
        Seq2SeqTrainer(tiny_seq2seq(), args, train_dataset=pair_rows(4), tokens_per_batch=64)
    with pytest.raises(ValueError, match=r"have more tokens than tokens_per_batch=9, the most row \d+ .sample_id \d+."):
        Seq2SeqTrainer(tiny_seq2seq(), arguments(), train_dataset=pair_rows(4), tokens_per_batch=9).train()


def test_columns_of_an_objective_reach_it(tiny_seq2seq, pair_rows, arguments):
    from hf_noise.trainers.seq2seq_batches import collate_pairs

    rows = [{**row, "teacher_nll": 1.5 * i} for i, row in enumerate(pair_rows(3))]
    batch = collate_pairs(rows, columns=("teacher_nll",))
    assert batch["teacher_nll"].tolist() == [0.0, 1.5, 3.0] and batch["teacher_nll"].dtype == torch.float32
    assert "teacher_nll" not in collate_pairs(rows)
    with pytest.raises(ValueError, match="row 1 of the batch: column 'teacher_nll' holds None, not one number"):
        collate_pairs([rows[0], {**rows[1], "teacher_nll": None}], columns=("teacher_nll",))


def test_it_writes_what_the_model_writes_row_by_row(tiny_seq2seq, pair_rows, arguments):
    model, rows = tiny_seq2seq(), pair_rows(7)
    trainer = Seq2SeqTrainer(model, arguments(per_device_eval_batch_size=3), train_dataset=rows, eval_dataset=rows)
    written = trainer.generate(max_new_tokens=6)
    for row, found in zip(rows, written, strict=True):
        alone = model.eval().generate(torch.tensor([row["input_ids"]]), max_new_tokens=6)[0, 1:].tolist()
        assert found == alone[: alone.index(1) + 1 if 1 in alone else None]
    stated = model.generation_config  # as bart-large-cnn has: they are no part of what was trained
    stated.min_length, stated.num_beams, stated.no_repeat_ngram_size, stated.length_penalty = 6, 4, 1, 2.0
    assert trainer.generate(max_new_tokens=6) == written and model.generation_config is stated
    with pytest.raises(ValueError, match="texts take the tokenizer; give processing_class="):
        trainer.predictions_and_references()


def test_padding_and_what_is_behind_the_end_is_cut():
    from hf_noise.trainers.seq2seq_generation import without_padding

    tokens = torch.tensor([[5, 1, 0, 0], [5, 6, 0, 0], [0, 5, 6, 1], [1, 5, 1, 0]])
    assert without_padding(tokens, [1], 0) == [[5, 1], [5, 6], [0, 5, 6, 1], [1]]
