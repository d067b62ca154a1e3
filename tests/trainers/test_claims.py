"""The noise that a run claims is the noise in its rows: what contradicts it is refused before anything is learned."""

from __future__ import annotations

import math

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from tokenizers import Tokenizer, models
from torch.utils.data import ConcatDataset, Subset
from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding, PreTrainedTokenizerFast

import hf_noise
from hf_noise.noise import HumanLabels, LabelFlips, UniformTokens
from hf_noise.trainers.claims import Claims, decide
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.marked import FALSE_ALARMS, Marked, contradicts
from hf_noise.trainers.stated import Stated, stated_noise
from hf_noise.trainers.stored import marked_rows

V, C = 64, 4


def none_of(noise):
    if isinstance(noise, UniformTokens):
        return UniformTokens(ratio=0.0, vocab_size=noise.vocab_size)
    return LabelFlips.symmetric(ratio=0.0, num_classes=noise.num_classes)


def flips(ratio=1.0, **options):
    return LabelFlips.symmetric(ratio=ratio, num_classes=C, **options)


def labelled(noise, n=400, epoch=0):
    """Columns of noisy labels as a data set stores them."""
    clean, sample = np.random.default_rng(0).integers(0, C, n), np.arange(n) * 5
    noisy, is_noisy = noise(clean, sample, epoch)
    return {"label": noisy, "clean_label": clean, "is_noisy": is_noisy, "sample_id": sample}


def described(columns, *noises, epoch=0, split=None, realised=None) -> datasets.Dataset:
    """A data set whose description states these noises, as builders and `corrupt` write it."""
    import json

    lines = [json.dumps({"noise": noise.to_dict(), "epoch": epoch, "realised": realised or {}}) for noise in noises]
    info = datasets.DatasetInfo(description="\n\n".join(["About the data.", *lines]))
    made = datasets.Dataset.from_dict({k: list(v) for k, v in columns.items()}, info=info)
    made._split = None if split is None else datasets.NamedSplit(split)
    return made


def claims(rows, given=None):
    found = Claims(rows, given, stated=stated_noise(rows))
    return found.noise, found.draws_over_clean_columns


@given(rate=st.floats(1e-6, 1 - 1e-6), n=st.integers(1, 3000))
@settings(max_examples=25, deadline=None)
def test_the_bound_has_the_false_alarm_rate_that_it_states(rate, n):
    """Summed over all counts that are called a contradiction, the true rate has at most that probability."""
    counts = np.arange(n + 1)
    looked_at = counts[:: max(1, n // 60)]
    mass = binom.pmf(counts, n, rate)
    edges = looked_at[[contradicts(int(k), n, rate) for k in looked_at]]
    low, high = edges[edges < n * rate], edges[edges > n * rate]
    below = mass[: low.max() + 1].sum() if low.size else 0
    above = mass[high.min() :].sum() if high.size else 0
    assert below + above <= FALSE_ALARMS * (1 + 1e-9)


def test_a_bound_by_hand():
    assert not contradicts(0, 0, 0.5) and contradicts(1, 100, 0.0) and contradicts(99, 100, 1.0)
    assert not contradicts(0, 9, 5e-324) and contradicts(1, 9, 5e-324) and not contradicts(9, 9, 1.0)
    # 2 * 2^-20 < 1e-6 < 2 * 2^-19
    assert contradicts(0, 21, 0.5) and not contradicts(0, 20, 0.5)


NOISES = {
    "symmetric": flips(), "uniform_resample": LabelFlips.uniform_resample(ratio=1.0, num_classes=C),
    "cyclic": LabelFlips.cyclic(ratio=0.5, num_classes=C), "pairs": LabelFlips.pairs({0: 1}, ratio=1.0, num_classes=C),
    "transition": LabelFlips.from_transition(np.full((C, C), 0.1) + 0.6 * np.eye(C)),
}  # fmt: skip


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("epoch", [0, 3])
def test_rows_that_are_what_they_say_are_taken(noise, epoch):
    rows = described(labelled(noise, epoch=epoch), noise, epoch=epoch)
    assert claims(rows) == (noise, False)
    assert claims(labelled_list(noise, epoch))[0] is None  # without a description nothing is claimed


def labelled_list(noise, epoch=0):
    columns = labelled(noise, epoch=epoch)
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def changed(columns, **new):
    return {**columns, **new}


BROKEN = {
    "filtered": (lambda c: {k: v[~c["is_noisy"]] for k, v in c.items()}, "marks 0 of .* where the noise makes 50.00%"),
    "noisy rows alone": (lambda c: {k: v[c["is_noisy"]] for k, v in c.items()}, "100.00%, where the noise makes 50"),
    "corrupted again": (lambda c: changed(c, label=(c["label"] + 1) % C), "calls clean are not what they were"),
    "labels put right": (lambda c: changed(c, label=c["clean_label"]), "is_noisy calls noisy are what they were"),
    "other ids": (lambda c: changed(c, sample_id=c["sample_id"] + 1), "not those that it draws for their ids"),
    "other classes": (lambda c: changed(c, clean_label=c["clean_label"] + 3, label=c["label"] + 3), "not those that"),
}  # fmt: skip


@pytest.mark.parametrize("change", BROKEN)
def test_a_description_that_no_longer_describes_its_rows_is_refused(change):
    alter, message = BROKEN[change]
    rows = described(alter(labelled(flips())), flips())
    with pytest.raises(ValueError, match=f"said to carry LabelFlips .symmetric., e = 0.5, and .*{message}"):
        claims(rows)


def test_what_the_rows_hold_may_be_stated_instead():
    """A user who filtered on purpose says so with noise=, and the description no longer counts."""
    columns = labelled(flips())
    clean = {k: v[~columns["is_noisy"]] for k, v in columns.items()}
    assert claims(described(clean, flips()), flips(0.0)) == (flips(0.0), False)
    with pytest.raises(ValueError, match="is_noisy marks 0 of"):
        claims(described(clean, flips()), flips(0.5))


def test_corrupt_over_a_clean_description_is_moved_once():
    """The description says r = 0, the mask that half are wrong: the noise that was given is that of the rows."""
    rows = described(labelled(flips()), none_of(flips()))
    assert claims(rows, flips()) == (flips(redraw="never"), False)
    with pytest.raises(ValueError, match=r"LabelFlips \(symmetric\), e = 0, and is_noisy marks"):
        claims(rows)
    assert claims(described(labelled(flips(0.0)), none_of(flips())), flips()) == (flips(), True)


def test_a_mask_that_marks_nothing_is_no_noise():
    columns = labelled(flips(0.0))
    assert claims(datasets.Dataset.from_dict(columns)) == (None, False)
    with pytest.raises(ValueError, match="is_noisy marks 0 of 400 units, 0.00%, where the noise makes 50.00% so"):
        claims(datasets.Dataset.from_dict(columns), flips())
    few = {name: column[:10] for name, column in columns.items()}  # too few to tell
    assert claims(datasets.Dataset.from_dict(few), flips(0.2))[0] == flips(0.2)


def test_mixtures_are_refused():
    both = datasets.concatenate_datasets([described(labelled(flips(r)), flips(r)) for r in (0.5, 1.0)])
    with pytest.raises(ValueError, match=r"several noises, .*e = 0.333 and .*e = 0.5: .*train on one of them"):
        claims(both)
    parts = [described(labelled(flips()), flips()).select(range(start, start + 200)) for start in (0, 200)]
    assert claims(datasets.concatenate_datasets(parts)) == (flips(), False)


def test_a_clean_split_has_no_noise():
    columns, realised = labelled(flips(0.0)), {"train": {"rate": 0.5, "n": 400}, "test": {"rate": 0.0, "n": 400}}
    noise, draws = claims(described(columns, flips(), split="test", realised=realised))
    assert (noise.error_rate, draws) == (0.0, False)
    with pytest.raises(ValueError, match="marks 0 of 400"):
        claims(described(columns, flips(), split="train", realised=realised))
    with pytest.raises(ValueError, match="the rows were filtered, put together, taken from another split"):
        claims(described(columns, flips(), split="train+test", realised=realised))


def test_labels_of_people_are_held_against_their_counts():
    clean = np.random.default_rng(0).integers(0, C, 400)
    people = np.where(np.arange(400) % 5 == 0, (clean + 1) % C, clean)
    noise = HumanLabels.from_columns(clean, people, num_classes=C, name="worse")
    columns = {"label": people, "clean_label": clean, "is_noisy": people != clean, "sample_id": np.arange(400)}
    assert claims(described(columns, noise)) == (noise, False)
    with pytest.raises(ValueError, match=r"HumanLabels \(worse\), e = 0.2, and is_noisy marks 80 of 80"):
        claims(described({k: v[::5] for k, v in columns.items()}, noise))


TOKENS = UniformTokens(ratio=1.0, vocab_size=V, seed=2)


def token_rows(noise=TOKENS, n=40, **changes):
    """Ragged rows with noisy targets."""
    rows = []
    for i in range(n):
        clean = np.random.default_rng(i).integers(0, V, 6 + i % 5)
        labels, mask = noise(clean[None], np.array([i]))
        columns = {"labels": labels[0], "clean_labels": clean, "is_noisy": mask[0], "sample_id": i}
        rows.append({"input_ids": clean, **columns})
    return [{**row, **{name: change(row) for name, change in changes.items()}} for row in rows]


def test_tokens_are_held_against_what_is_drawn_for_their_ids():
    stated = Stated(TOKENS, 0, False)
    assert decide(None, stated, marked_rows(token_rows())) == (TOKENS, False)
    # A prompt without targets, as instruction data have.
    masked = token_rows(labels=lambda row: np.where(np.arange(len(row["labels"])) < 3, -100, row["labels"]))
    assert decide(None, stated, marked_rows(masked)) == (TOKENS, False)
    moved = token_rows(sample_id=lambda row: row["sample_id"] + 1)
    with pytest.raises(ValueError, match="not those that it draws"):
        decide(None, stated, marked_rows(moved))
    # A draw may be the token that was there, one time in V; it may not be so always.
    back = token_rows(labels=lambda row: row["clean_labels"])
    with pytest.raises(ValueError, match=r"(\d+) of \1 units that is_noisy calls noisy are what they were"):
        decide(None, stated, marked_rows(back))
    never = UniformTokens(ratio=1.0, vocab_size=V, exclude_original=True)
    assert marked_rows(token_rows()).mismatch(never) is not None
    assert marked_rows(token_rows(never)).mismatch(never) is None


def test_tokens_that_a_noise_never_draws_are_not_its_own():
    rows = token_rows(input_ids=lambda row: row["input_ids"] % 32)
    for row in rows:
        row |= {"clean_labels": row["input_ids"], "labels": np.where(row["is_noisy"], row["labels"], row["input_ids"])}
    assert claims(rows, TOKENS)[0].vocab_size == V
    with pytest.raises(ValueError, match="noisy units are 32 or more, which the noise never draws"):
        claims(rows, UniformTokens(ratio=1.0, vocab_size=32))


def test_padding_before_a_row_moves_no_draw():
    batch = {}
    for name, fill in (("labels", -100), ("clean_labels", -100), ("is_noisy", 0)):
        rows = [np.pad(row[name], (10 - len(row[name]), 0), constant_values=fill) for row in token_rows(n=8)]
        batch[name] = torch.tensor(np.stack(rows))
    marked = Marked.of_batch({**batch, "sample_id": torch.arange(8)})
    assert marked.is_drawn(TOKENS, 0) and not marked.is_drawn(TOKENS, 1)
    assert Marked.of_batch({**batch, "sample_id": torch.arange(7)}).is_drawn(TOKENS, 0) is None


@pytest.fixture
def tokenizer():
    """One token for each of 64 words; the first pads, on the left as tokenizers for generation do."""
    backend = Tokenizer(models.WordLevel({f"w{i}": i for i in range(V)}, unk_token="w1"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w1", pad_token="w0", padding_side="left")


def test_a_collator_that_rewrites_labels_is_refused_at_the_first_batch(make_trainer, tokenizer):
    """transformers' collator for causal models makes labels of the inputs, beside a mask that says otherwise."""
    collator, noise = DataCollatorForLanguageModeling(tokenizer, mlm=False), TOKENS
    clean = np.random.default_rng(0).integers(1, V, (8, 16))
    rows = datasets.Dataset.from_dict({"input_ids": clean.tolist(), "labels": clean.tolist()})
    rows = hf_noise.corrupt(rows, noise)
    trainer = make_trainer(rows, noise=noise, data_collator=collator)
    with pytest.raises(ValueError, match="in the first batch, .*a data collator makes other labels"):
        trainer.train()
    assert trainer.state.global_step == 0
    # The same collator over clean rows does what noise drawn here asks for.
    rows = datasets.Dataset.from_dict({"input_ids": clean.tolist(), "sample_id": range(8)})
    make_trainer(rows, noise=noise, data_collator=collator).train()


def test_a_collator_that_drops_the_mask_is_refused(make_trainer, random_rows, noise):
    rows = token_rows(noise)

    def dropping(rows):
        return {"input_ids": torch.ones(len(rows), 4).long(), "labels": torch.ones(len(rows), 4).long()}

    with pytest.raises(ValueError, match="a column is_noisy that does not reach the trainer"):
        make_trainer(rows, noise=noise, data_collator=dropping).train()


def test_noisy_labels_without_their_mask_are_not_corrupted_again(any_trainer, digit_images):
    noise, columns = flips(), labelled(flips(), 32)
    info = described(columns, noise).info
    bare = digit_images(labels=torch.from_numpy(columns["label"]), sample_id=torch.from_numpy(columns["sample_id"]))
    bare.info = info
    with pytest.raises(ValueError, match="carry LabelFlips .symmetric., e = 0.5 already, and the rows have no is_no"):
        any_trainer("image_classifier", rows=bare).train()


def test_a_stream_is_held_against_its_batches(make_trainer, tiny_gpt2):
    rows = described({k: [row[k] for row in token_rows(n=64)] for k in token_rows(n=1)[0]}, TOKENS)
    stream = rows.to_iterable_dataset()
    stream.info.description = rows.info.description  # as a stream of `load_dataset` has it
    assert make_trainer(stream, max_steps=3, per_device_train_batch_size=16).train().global_step == 3
    other = stream.map(lambda row: {"sample_id": row["sample_id"] + 1})
    assert other.info.description
    with pytest.raises(ValueError, match="in the first batch, their labels are not those that it draws"):
        make_trainer(other, max_steps=3).train()


def test_the_rate_is_looked_at_again_with_each_log_entry(any_trainer):
    """Rows that cannot be read before, noisy in their second half alone."""
    rows = token_rows(n=64)

    class Late(torch.utils.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, i):
            row = rows[i]
            return row if i >= 32 else {**row, "labels": row["clean_labels"], "is_noisy": row["is_noisy"] & False}

    with pytest.raises(ValueError, match=r"(\d+) of \d+ units of the first steps were noisy, .*makes 50.00% so"):
        any_trainer("causal_lm", rows=Late(), noise=TOKENS, max_steps=8, train_sampling_strategy="sequential",
                    per_device_train_batch_size=2).train()  # fmt: skip


@pytest.mark.parametrize("n", [32, 160])
def test_true_rates_raise_no_alarm(any_trainer, digit_images, n):
    """Many log entries, several epochs: the looks share one false alarm in a million."""
    trainer = any_trainer("image_classifier", rows=digit_images(n), noise=flips(0.5), num_train_epochs=2, max_steps=-1)
    trainer.train()
    assert trainer.claims._looks == math.ceil(n / 8)


def test_ids_that_repeat_are_refused_where_they_are_drawn_from(any_trainer, kind, digit_images, random_rows):
    if kind not in ("causal_lm", "masked_lm", "seq2seq", "classifier"):
        rows = digit_images(sample_id=torch.arange(32) // 2)
    else:
        rows = datasets.Dataset.from_dict({"input_ids": [[1, 2, 3 + i] for i in range(8)], "sample_id": [0, 1] * 4})
        rows = rows.add_column("labels", [0] * 8) if kind == "classifier" else rows
        rows = rows.add_column("labels", [[5, 1]] * 8) if kind == "seq2seq" else rows
    noise = TOKENS if kind in ("causal_lm", "masked_lm", "seq2seq") else flips(0.5)
    with pytest.raises(ValueError, match=r"\d+ rows have \d+ different sample ids .rows 0 and \d have 0., and .*"):
        any_trainer(kind, rows=rows, noise=noise)
    if kind in ("causal_lm", "classifier", "image_classifier"):  # nothing is drawn then, but a warning is due
        with pytest.warns(UserWarning, match="different sample ids"):
            any_trainer(kind, rows=rows)


@pytest.mark.parametrize(
    ("kind", "loss"), [("causal_lm", "corrected"), ("image_classifier", "corrected"), ("edm", "tdsm")]
)
def test_a_correction_for_no_noise_has_to_be_asked_for_by_name(any_trainer, kind, loss, digit_images):
    """`hf_noise/packed` and the like say r = 0 of text and labels that nobody has looked at."""
    if kind == "causal_lm":
        clean = UniformTokens(ratio=0.0, vocab_size=V)
        rows = described({"input_ids": [[1, 2, 3]] * 8, "sample_id": range(8)}, clean)
        by_name = {"error_rate": 0.0}
    else:
        clean, rows = flips(0.0), digit_images()
        rows.info = described({"x": [1]}, clean).info
        by_name = {"transition": np.eye(C)}
    with pytest.raises(ValueError, match="the rows say that n(o noise|one) was added to them"):
        any_trainer(kind, rows=rows, loss=loss)
    for options in (by_name, {"noise": clean}):
        any_trainer(kind, rows=rows, loss=loss, **options)


def test_an_error_rate_belongs_to_the_corrected_loss(make_trainer):
    with pytest.raises(ValueError, match='error_rate=0.2 is for loss="corrected", and loss is "nll"'):
        make_trainer(error_rate=0.2)


def test_padding_on_the_left_moves_no_position_and_adds_no_target(make_trainer, tiny_gpt2, nll_by_hand, tokenizer):
    texts = [np.random.default_rng(i).integers(1, V, n).tolist() for i, n in enumerate((5, 9, 12, 12))]
    rows = [{"input_ids": text, "attention_mask": [1] * len(text), "text": "left alone"} for text in texts]
    model = tiny_gpt2()
    expected = torch.cat([nll_by_hand(model, text) for text in texts]).mean().item()

    def pad(rows):
        batch = DataCollatorWithPadding(tokenizer)([{k: v for k, v in row.items() if k != "text"} for row in rows])
        return {**batch, "labels": batch["input_ids"]}

    for options in ({}, {"data_collator": pad}):
        found = make_trainer(eval_rows=rows, model=model, per_device_eval_batch_size=4, **options).evaluate()
        assert (found["eval_nll"], found["eval_tokens"]) == (pytest.approx(expected, rel=1e-6), 34)


def test_device_images_keep_the_split_that_they_are_from(tmp_path):
    digits = hf_noise.load_dataset("hf_noise/digits-noisy", r=1.0, split="test")
    rows = DeviceImages.from_dataset(digits, num_channels=1, mean=[0.5], std=[0.5])
    assert claims(rows)[0].error_rate == 0


def one_class(columns, noisy):
    """Rows whose noisy label is one class, as a filter leaves them."""
    return {name: column[columns["label"] == noisy] for name, column in columns.items()}


def test_which_label_became_which_is_held_against_the_noise():
    """Rates may be right and labels wrong: of another kind of noise, filtered by the noisy label, of another seed."""
    of_pairs = r"units of class \d have the label \d, .*, where the noise makes \d+.\d+% so"
    columns = labelled(flips())
    with pytest.raises(ValueError, match=of_pairs.replace(r"\d+.\d+%", "0.00%")):
        claims(datasets.Dataset.from_dict(columns), LabelFlips.cyclic(ratio=1.0, num_classes=C))
    with pytest.raises(ValueError, match=of_pairs):
        claims(datasets.Dataset.from_dict(labelled(LabelFlips.cyclic(ratio=1.0, num_classes=C))), flips())
    filtered = one_class(labelled(flips(), 4000), 0)
    rate = filtered["is_noisy"].mean()
    with pytest.raises(ValueError, match=r"is_noisy marks|units of class"):
        claims(described(filtered, flips()))
    assert 0.3 < rate < 0.7  # the total says little
    # One class whose right labels are gone, each wrong one of which is rare.
    many = LabelFlips.symmetric(error_rate=0.5, num_classes=100)
    clean, sample = np.arange(20_000) % 100, np.arange(20_000)
    noisy, is_noisy = many(clean, sample)
    columns_of_many = {"label": noisy, "clean_label": clean, "is_noisy": is_noisy, "sample_id": sample}
    left = {name: column[(clean != 7) | is_noisy] for name, column in columns_of_many.items()}
    with pytest.raises(ValueError, match="0 of [0-9]+ units of class 7 have the label 7, 0.00%, where the noise"):
        claims(datasets.Dataset.from_dict(left), many)
    once = flips(redraw="never", seed=1)
    with pytest.raises(ValueError, match="their labels are not those that it draws for their ids"):
        claims(datasets.Dataset.from_dict(columns), once)
    assert claims(datasets.Dataset.from_dict(labelled(once)), once)[0] == once


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_pairs_of_a_true_noise_raise_no_alarm(noise):
    for epoch in range(20):
        assert marked_rows(datasets.Dataset.from_dict(labelled(noise, epoch=epoch))).against(noise, None) is None


def test_rows_put_together_with_themselves_are_no_further_evidence():
    """Three hundred copies of rows whose rates lie where chance has put them."""
    rows = described(labelled(flips(), 60), flips())
    tokens = datasets.Dataset.from_list(token_rows(n=6))
    for once, noise in ((rows, flips()), (tokens, TOKENS)):
        assert marked_rows(once).counts()[0] * 2 != marked_rows(once).counts()[1]
        for again in (datasets.concatenate_datasets([once] * 300), ConcatDataset([once.select(range(6))] * 300)):
            assert marked_rows(again).against(noise, 0) is None


def test_many_classes_take_no_matrix():
    noise = LabelFlips.symmetric(ratio=0.5, num_classes=100_000)
    columns = labelled(noise, 2000)
    assert claims(datasets.Dataset.from_dict(columns), noise)[0].num_classes == 100_000
    assert noise.error_rates.shape == (100_000,) and noise.error_rates[7] == noise.error_rate


def test_what_torch_wraps_is_read_through():
    columns = labelled(flips())
    rows = described(columns, flips())
    lie = described(changed(columns, is_noisy=~columns["is_noisy"]), flips())
    for wrap in (lambda d: Subset(d, range(5, 300)), lambda d: ConcatDataset([Subset(d, range(200)), d])):
        assert claims(wrap(rows)) == (flips(), False)
        with pytest.raises(ValueError, match="units that is_noisy calls"):
            claims(wrap(lie))
    with pytest.raises(ValueError, match="the rows state several noises, LabelFlips .symmetric., e = 0.667 and"):
        claims(ConcatDataset([described(labelled(flips(2.0)), flips(2.0)), rows]))
    with pytest.raises(ValueError, match="the rows state several noises, none and"):
        claims(ConcatDataset([datasets.Dataset.from_dict(columns), rows]))


@pytest.mark.parametrize("noisy_first", [True, False])
def test_rows_without_a_mask_among_others_are_refused(noisy_first):
    masked = datasets.Dataset.from_dict(labelled(flips()))
    bare = datasets.Dataset.from_dict({"label": [0, 1], "sample_id": [9998, 9999]})
    parts = [masked, bare][:: 1 if noisy_first else -1]
    with pytest.raises(ValueError, match="1 of 2 data sets that were put together have no is_noisy"):
        claims(ConcatDataset(parts), flips())
    with pytest.raises(ValueError, match=r"row \d+ has no (clean_label|is_noisy), which others have"):
        claims([row for part in parts for row in part], flips())


def test_tables_in_another_order_and_in_pieces_are_read_row_by_row():
    """The reader takes rows by their place in the table: columns have to stay beside each other."""
    rows = described(labelled(flips(), 4000), flips())
    halves = [rows.select(range(start, start + 2000)) for start in (0, 2000)]
    for data in (rows.shuffle(seed=0), datasets.concatenate_datasets(halves).shuffle(seed=1).select(range(7, 900, 3)),
                 Subset(rows.shuffle(seed=2), [5, -1, 5, 300])):  # fmt: skip
        marked = marked_rows(data)
        assert marked.is_drawn(flips(), 0)
        assert set(marked.sample) == {int(data[i]["sample_id"]) for i in range(len(data))}
    tokens = datasets.Dataset.from_list(token_rows(n=60))
    tokens = datasets.concatenate_datasets([tokens.select(range(30)), tokens.select(range(30, 60))])
    marked = marked_rows(tokens.shuffle(seed=0))
    assert marked.is_drawn(TOKENS, 0) and len(marked.lengths) == 60


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_are_drawn_often_are_no_further_evidence(make_trainer, seed):
    """Eight rows many times in one epoch have the rate of eight rows; one of these seeds is far from the stated one."""
    noise = UniformTokens(error_rate=0.5, vocab_size=V, seed=seed)
    trainer = make_trainer(Subset(plain_rows(8, 1), list(range(8)) * 300), noise=noise)
    for n in (100, 2000, 10_000):
        trainer.claims.check_realised({"rate": 0.56, "n": n})
    with pytest.raises(ValueError, match="of the first steps were noisy"):
        make_trainer(plain_rows(8, 1), noise=noise).claims.check_realised({"rate": 0.56, "n": 10_000})


def plain_rows(n, seed):
    drawn = np.random.default_rng(seed).integers(0, V, (n, 6)).tolist()
    return datasets.Dataset.from_dict({"input_ids": drawn, "sample_id": range(n)})


def test_the_same_row_twice_is_no_second_row_of_its_id(make_trainer):
    """Oversampling, and streams and launchers that begin again; not two data sets that count from 0 both."""
    rows = plain_rows(50, 1)
    for again in (
        Subset(rows, [0, 0, 1, 1] * 4), datasets.concatenate_datasets([rows, rows]), ConcatDataset([rows, rows]),
        [rows[i] for i in (0, 1, 0)], rows.select([0, 1, 2]).to_iterable_dataset().repeat(None),
    ):  # fmt: skip
        make_trainer(again, noise=TOKENS).train()
    for other in (ConcatDataset, datasets.concatenate_datasets):
        with pytest.raises(ValueError, match="100 rows have 50 different sample ids .rows 0 and 50 have 0."):
            make_trainer(other([rows, plain_rows(50, 2)]), noise=TOKENS)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_stream_that_begins_again_is_no_further_evidence(make_trainer, seed):
    """Sixteen rows a hundred times have the rate of sixteen rows, which may lie far from the stated one."""
    noise = UniformTokens(error_rate=0.5, vocab_size=V, seed=seed)
    stream = plain_rows(16, 1).to_iterable_dataset().repeat(None)
    make_trainer(stream, noise=noise, max_steps=200, logging_steps=50).train()


BAD_MASKS = {
    "rows without": (lambda: datasets.concatenate_datasets([datasets.Dataset.from_dict(labelled(flips())),
                     datasets.Dataset.from_dict({"label": [0], "sample_id": [9999]})]), "row 400 has no clean_label"),
    "a list without": (lambda: [*labelled_list(flips()), {"label": 0, "clean_label": 0}], "row 400 has no is_noisy"),
    "None": (lambda: [{**row, "is_noisy": None} for row in labelled_list(flips())], "row 0 has no is_noisy"),
    "a list as a row": (lambda: [*labelled_list(flips()), [1, 2]], "row 400 is .1, 2."),
    "fractions": (lambda: changed(labelled(flips()), is_noisy=np.full(400, 0.3)), "True and False, .* float64 such as"),
    "twos": (lambda: changed(labelled(flips()), is_noisy=np.full(400, 2)), "True and False, .* int64 such as 2"),
    "texts": (lambda: changed(labelled(flips()), is_noisy=np.full(400, "no")), "True and False, .* such as 'no'"),
}  # fmt: skip


@pytest.mark.parametrize("rows", BAD_MASKS)
def test_masks_that_are_none_are_named(rows):
    make, message = BAD_MASKS[rows]
    made = make()
    with pytest.raises((ValueError, TypeError), match=message):
        claims(datasets.Dataset.from_dict(made) if isinstance(made, dict) else made)


def test_labels_of_other_shapes_are_left_to_the_batch():
    for labels in ([[0]] * 400, np.zeros(400)):
        assert marked_rows(datasets.Dataset.from_dict(changed(labelled(flips()), label=labels))) is None


def test_a_data_set_of_ones_own_may_have_attributes_of_any_name(make_trainer):
    class Own(torch.utils.data.Dataset):
        columns, format, info, dataset = ["input_ids"], {"type": "x"}, {"about": "me"}, "mine"

        def __len__(self):
            return 8

        def __getitem__(self, i):
            return {"input_ids": [1, 2, 3, i], "sample_id": i}

    make_trainer(Own(), noise=TOKENS).train()
    Own.columns, Own.column_names = {"labels": "int", "clean_labels": "int", "is_noisy": "bool"}, 5
    make_trainer(Own(), noise=TOKENS).train()


@pytest.mark.parametrize("split", ["test", "test[:50%]", "test[10:20]", "test[:5]+test[9:]"])
def test_parts_of_clean_splits_have_no_noise(split):
    realised = {"train": {"rate": 0.5, "n": 400}, "test": {"rate": 0.0, "n": 400}}
    assert claims(described(labelled(flips(0.0)), flips(), split=split, realised=realised))[0] == none_of(flips())


def test_labels_beside_clean_ones_need_a_mask(any_trainer, digit_images):
    clean = digit_images().columns["labels"]
    rows = digit_images(labels=(clean + 1) % C, clean_labels=clean)
    for noise in (None, flips(0.5)):
        with pytest.raises(ValueError, match="8 of 8 labels are not what clean_labels say, and the rows have no"):
            any_trainer("image_classifier", rows=rows, noise=noise).train()


def test_noisy_contexts_are_refused(make_trainer):
    rows = plain_rows(64, 3)
    noisy = hf_noise.corrupt(rows.add_column("labels", rows["input_ids"][:]), TOKENS)
    noisy = noisy.remove_columns("input_ids").add_column("input_ids", noisy["labels"][:])
    with pytest.raises(ValueError, match="input_ids are not what clean_labels say: the inputs were corrupted"):
        make_trainer(noisy).train()


def test_clean_classes_have_to_be_asked_for_by_name(any_trainer, digit_images):
    """T = I on the word of rows that say r = 0 is no correction, in a classifier of noisy images and behind it."""
    rows = digit_images()
    rows.info = described({"x": [1]}, flips(0.0)).info
    with pytest.raises(ValueError, match="would be no noise at all .T = I.: the rows say"):
        any_trainer("time_classifier", rows=rows, transition="known")
    assert any_trainer("time_classifier", rows=rows, transition=None).model.config.predicts == "noisy"
    asked = any_trainer("time_classifier", rows=rows, transition="known", noise=flips(0.0)).model
    assert asked.config.predicts == "clean"
    with pytest.raises(ValueError, match="would go through no noise at all .T = I."):
        any_trainer("edm", rows=rows, loss="tdsm", classifier=asked)
    any_trainer("edm", rows=rows, loss="tdsm", classifier=asked, noise=flips(0.0))


def test_noise_does_not_depend_on_where_a_collator_pads(make_trainer, tokenizer, tiny_gpt2):
    texts = [list(range(3, 3 + length)) for length in (4, 9, 6, 2)]
    rows = [{"input_ids": text, "sample_id": 7 * i} for i, text in enumerate(texts)]
    stored = hf_noise.corrupt(datasets.Dataset.from_list([{**row, "labels": row["input_ids"]} for row in rows]), TOKENS)

    def pad(side):
        def collate(batch):
            longest, made = max(len(row["input_ids"]) for row in batch), []
            for row in batch:
                fill = [0] * (longest - len(row["input_ids"]))
                one = {"attention_mask": [1] * len(row["input_ids"])}
                for name in {"input_ids", "labels", "clean_labels", "is_noisy"} & row.keys():
                    one[name] = list(row[name])
                one.setdefault("labels", list(row["input_ids"]))
                added = {"attention_mask": 0, "is_noisy": False, "labels": -100, "clean_labels": -100}
                one = {name: [added.get(name, 0)] * len(fill) + value if side == "left" else
                       value + [added.get(name, 0)] * len(fill) for name, value in one.items()}  # fmt: skip
                made.append(one | {"sample_id": row["sample_id"]})
            return {name: torch.tensor([row[name] for row in made]) for name in made[0]}

        return collate

    def train(data, noise, **options):
        trainer = make_trainer(data, noise=noise, model=tiny_gpt2(), max_steps=1, **options)
        trainer.train()
        return trainer.state.log_history[0]["loss"]

    expected = train(rows, TOKENS)
    for side in ("left", "right"):
        assert train(rows, TOKENS, data_collator=pad(side)) == pytest.approx(expected, rel=1e-6)
        assert train(stored, None, data_collator=pad(side)) == pytest.approx(expected, rel=1e-6)


def test_tables_and_splits_by_name_are_no_rows(make_trainer):
    import pandas

    frame = pandas.DataFrame({"input_ids": [[1, 2, 3]], "sample_id": [0]})
    for rows in (frame, datasets.DatasetDict(train=plain_rows(4, 0))):
        with pytest.raises(TypeError, match="train_dataset must be rows: one data set"):
            make_trainer(rows)


def test_columns_that_a_format_hides_are_hidden(make_trainer):
    rows = hf_noise.corrupt(plain_rows(8, 1).add_column("labels", plain_rows(8, 1)["input_ids"][:]), TOKENS)
    hidden = rows.with_format("torch", columns=["input_ids", "labels", "sample_id"])
    with pytest.raises(ValueError, match="carry UniformTokens, e = .* already, and the rows have no is_noisy"):
        make_trainer(hidden).train()
    hidden.info.description = ""
    make_trainer(hidden)  # on the labels as they are
    with pytest.raises(ValueError, match="is_noisy that their format hides, .* would be corrupted again"):
        make_trainer(hidden, noise=TOKENS)
