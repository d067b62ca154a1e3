"""Documents of noise among the rows: trained on as they are, stated everywhere, and held against what is stated."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import hf_noise
from hf_noise.data.corrupt import corrupt
from hf_noise.data.mixing import ShardText, mixed_rows
from hf_noise.data.packing import PackedRows
from hf_noise.noise import GaussianDocuments, RandomDocuments, UniformTokens
from hf_noise.noise.describe import describe_noise
from hf_noise.trainers.checkpoints import adopt
from hf_noise.trainers.claims import Claims
from hf_noise.trainers.marked import Marked
from hf_noise.trainers.stated import stated_noise
from hf_noise.trainers.stored import marked_rows

V, L = 64, 16
NOISE = RandomDocuments(alpha=0.25, vocab_size=V, exclude=0, seed=3)


def claims(rows, given):
    return Claims(rows, given, stated=stated_noise(rows))


def mixture(noise=NOISE, n_clean=30, described=True, **changes):
    """Rows as the builders write them: text, and then noise whose tokens belong to the row's id."""
    clean = np.random.default_rng(0).integers(1, V, (n_clean, L))
    n = noise.number_of_noise_rows(n_clean)
    sample = np.concatenate([np.arange(n_clean), (1 << 40) + np.arange(n)])
    tokens = np.concatenate([clean, noise.rows(sample[n_clean:], L)])
    mask = np.repeat(np.arange(n_clean + n) >= n_clean, L).reshape(-1, L)
    columns = {"input_ids": tokens, "labels": tokens, "is_noisy": mask, "sample_id": sample, **changes}
    info = datasets.DatasetInfo(description=describe_noise("Text.", noise) if described else "")
    return datasets.Dataset.from_dict({name: column.tolist() for name, column in columns.items()}, info=info)


@pytest.mark.parametrize(
    "noise", [NOISE, GaussianDocuments(alpha=0.25, vocab_size=V, seed=1), RandomDocuments(alpha=0.1, vocab_size=V)],
    ids=repr,
)  # fmt: skip
def test_rows_are_trained_on_as_they_are_and_the_noise_is_stated(make_trainer, tmp_path, noise):
    rows = mixture(noise)
    trainer = make_trainer(rows, num_train_epochs=1, max_steps=-1, save_strategy="epoch")
    seen, targets = [], trainer.targets

    def look(inputs, *, draw):
        labels, is_noisy = targets(inputs, draw=draw)
        seen.extend(zip(inputs["sample_id"].tolist(), labels.tolist(), is_noisy.tolist()))
        return labels, is_noisy

    trainer.targets = look
    trainer.train()
    assert sorted(seen) == sorted(zip(rows["sample_id"], rows["labels"], rows["is_noisy"]))
    n = len(rows)
    assert trainer.realised_noise() == {"rate": pytest.approx(noise.number_of_noise_rows(30) / n), "n": n * (L - 1)}
    trainer.create_model_card()
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert json.loads((checkpoint / "config.json").read_text())["hf_noise"] == noise.to_dict()
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.noise["alpha"] == noise.alpha and f"alpha = {noise.alpha:.4g} of the mixture is noise" in card.text
    for place in (checkpoint, tmp_path / "run" / "README.md", rows):
        assert hf_noise.load_noise(place) == noise


def test_a_noise_that_is_given_is_held_against_the_rows(make_trainer):
    rows = mixture(described=False)
    assert make_trainer(rows, noise=NOISE).noise == NOISE
    # Of a mixture that was made by hand, nothing is known but its share.
    other = RandomDocuments(alpha=0.25, vocab_size=V, seed=99)
    assert make_trainer(rows, noise=other).noise == other
    with pytest.raises(ValueError, match="the rows were built with RandomDocuments.*is given UniformTokens"):
        make_trainer(mixture(), noise=UniformTokens(error_rate=0.25, vocab_size=V))
    with pytest.raises(ValueError, match="the model knows 64 tokens"):
        make_trainer(mixture(RandomDocuments(alpha=0.25, vocab_size=100)))


@pytest.mark.parametrize(("alpha", "fits"), [(0.25, True), (0.28, True), (0.05, False), (0.6, False), (0.0, False)])
def test_the_share_of_rows_is_held_against_alpha(alpha, fits):
    """Of 400 rows 100 are noise; that counts 400 units and not 6,400, by which 0.28 would be refused."""
    rows, stated = mixture(n_clean=300, described=False), RandomDocuments(alpha=alpha, vocab_size=V)
    if fits:
        assert claims(rows, stated).noise == stated
    else:
        with pytest.raises(ValueError, match="is_noisy marks 100 of 400 rows, 25.00%, where the noise makes"):
            claims(rows, stated)


def test_rows_that_contradict_their_description_are_refused():
    rows = mixture()
    mask, tokens, sample = (np.array(rows[name]) for name in ("is_noisy", "input_ids", "sample_id"))
    torn = mask.copy()
    torn[-1, 3] = False
    assert claims(mixture(is_noisy=torn), None).noise == NOISE  # a document may end anywhere in a row
    replaced = RandomDocuments(alpha=0.25, vocab_size=V, placement="replace")
    with pytest.raises(ValueError, match="1 of 40 rows are noisy in part, where a row is replaced as a whole"):
        claims(mixture(is_noisy=torn, described=False), replaced)
    moved = tokens.copy()
    moved[-1, 3] = 1 + moved[-1, 3] % (V - 1)
    with pytest.raises(ValueError, match="their labels are not those that it draws for their ids"):
        claims(mixture(input_ids=moved, labels=moved), None)
    with pytest.raises(ValueError, match="their labels are not those that it draws for their ids"):
        claims(mixture(sample_id=sample[::-1].copy()), None)
    with pytest.raises(ValueError, match="is_noisy marks 0 of 300 rows"):
        claims(mixture(n_clean=300).select(range(300)), None)
    with pytest.raises(ValueError, match="states several noises|is given"):
        claims(rows, GaussianDocuments(alpha=0.25, vocab_size=V))


def test_targets_that_are_not_the_context_beside_them_are_refused(make_trainer):
    """Token noise keeps the context clean; a document is noise on both sides."""
    rows = mixture()
    labels = np.array(rows["labels"])
    tokens = labels.copy()
    tokens[:, 5] = 1
    trainer = make_trainer(mixture(input_ids=tokens, clean_labels=labels))
    with pytest.raises(ValueError, match="labels are not the input_ids beside them, and RandomDocuments"):
        trainer.train()


def test_noise_at_the_end_of_a_stream_raises_no_alarm(make_trainer):
    """The first 300 rows are clean; that says nothing of noise that comes last."""
    stream = mixture(n_clean=300).to_iterable_dataset()
    trainer = make_trainer(stream, noise=NOISE, max_steps=4, per_device_train_batch_size=100)
    trainer.train()
    assert trainer.realised_noise() == {"rate": 0.25, "n": 400 * (L - 1)}


class Made(torch.utils.data.Dataset):
    """Rows that have to be made, so that no mask can be read before training."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def unmarked(noise=NOISE, n_clean=300):
    rows = mixture(noise, n_clean=n_clean, described=False)
    return mixture(noise, n_clean=n_clean, described=False, is_noisy=np.zeros_like(rows["is_noisy"]))


SPREAD = RandomDocuments(alpha=0.25, vocab_size=V, exclude=0, placement="interleave")


@pytest.mark.parametrize(
    ("wrap", "noise", "steps", "size", "n"),
    [
        ("stream", NOISE, 4, 100, 400),  # ends with training
        ("stream", NOISE, 9, 100, 400),  # a whole epoch, and more to come
        ("stream", SPREAD, 10, 20, 200),
        ("again", NOISE, 9, 150, 400),  # its first row is in the midst of the third batch
        ("made", NOISE, 4, 100, 400),
    ],
)
def test_rows_that_are_never_marked_are_refused_at_the_end(make_trainer, wrap, noise, steps, size, n):
    rows = unmarked(noise)
    wraps = {"stream": rows.to_iterable_dataset, "again": lambda: rows.to_iterable_dataset().repeat(None),
             "made": lambda: Made(rows)}  # fmt: skip
    trainer = make_trainer(wraps[wrap](), noise=noise, max_steps=steps, per_device_train_batch_size=size)
    message = f"is_noisy marks 0 of {n} rows of the first epoch, 0.00%, where RandomDocuments.*makes 25.00% so"
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == (steps if wrap == "again" else n // size)


@pytest.mark.parametrize(
    ("alpha", "steps", "is_refused"),
    [(0.25, 9, False), (0.25, 4, False), (0.25, 3, True), (0.6, 9, True), (0.6, 4, False), (0.05, 9, True)],
)
def test_the_share_of_a_stream_is_held_against_alpha_at_its_end(make_trainer, alpha, steps, is_refused):
    """300 rows of text, and then 100 of noise: before the end it has another share, and only none at all is refused."""
    stated = RandomDocuments(alpha=alpha, vocab_size=V, exclude=0, seed=3)
    stream = mixture(n_clean=300, described=False).to_iterable_dataset()
    trainer = make_trainer(stream, noise=stated, max_steps=steps, per_device_train_batch_size=100)
    if is_refused:
        with pytest.raises(ValueError, match=rf"is_noisy marks \d+ of [34]00 rows .*makes {alpha:.2%} so"):
            trainer.train()
    else:
        trainer.train()


@pytest.mark.parametrize("is_known", [True, False])
def test_a_resumed_stream_knows_the_rows_before(make_trainer, tmp_path, is_known):
    """Resumed after the text, a run sees noise alone; a checkpoint from before that was counted raises no alarm."""
    stream = mixture(n_clean=300).to_iterable_dataset()
    settings = {"max_steps": 9, "per_device_train_batch_size": 100, "save_strategy": "steps", "save_steps": 3}
    make_trainer(stream, noise=NOISE, **settings).train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    state = load_file(checkpoint / "hf_noise_state.safetensors")
    assert state["noisy_documents"].tolist() == [0, 300 * L, 300]
    if not is_known:
        del state["noisy_documents"]
        save_file(state, checkpoint / "hf_noise_state.safetensors")
        adopt(checkpoint)
    again = make_trainer(stream, noise=NOISE, **settings)
    again.train(str(checkpoint))
    assert again.state.global_step == 9


def test_rows_that_do_not_say_which_are_noise_are_refused(make_trainer):
    hidden = mixture().with_format(columns=["input_ids", "sample_id"])
    with pytest.raises(ValueError, match="RandomDocuments cannot be drawn by a trainer.*load_dataset.*or hf_noise.cor"):
        make_trainer(PackedRows(hidden)).train()
    clean = mixture().select(range(30)).remove_columns(["is_noisy", "labels"])
    with pytest.raises(ValueError, match="RandomDocuments cannot be drawn by a trainer"):
        make_trainer(clean).train()


@pytest.mark.parametrize("placement", ["append", "interleave"])
@pytest.mark.parametrize("kind", ["packed", "stored", "stream"])
def test_packed_rows_with_added_noise(make_trainer, placement, kind):
    """Clean packed rows, to which `corrupt` adds a fifth of noise: found, marked, counted, and in the checkpoint."""
    noise = RandomDocuments(alpha=0.2, vocab_size=V, placement=placement, seed=3)
    tokens = np.random.default_rng(0).integers(1, V, (64, L), dtype=np.int32)
    packed = datasets.Dataset.from_dict({"input_ids": tokens, "sample_id": np.arange(64)})
    rows = corrupt(packed.to_iterable_dataset() if kind == "stream" else packed, noise, "input_ids")
    rows = PackedRows(rows) if kind == "packed" else rows
    trainer = make_trainer(rows, num_train_epochs=1, max_steps=20, per_device_train_batch_size=4)
    assert trainer.noise == noise
    trainer.train()
    assert trainer.realised_noise() == {"rate": 16 / 80, "n": 80 * (L - 1)}
    logged = [entry for entry in trainer.state.log_history if "nll_corrupted_targets" in entry]
    assert logged and all("noise_rate" in entry for entry in logged)
    if kind == "packed":
        assert hf_noise.trainers.base.noise_of(rows) == noise and "is_noisy" in trainer.claims.columns
        other = RandomDocuments(alpha=0.2, vocab_size=V, placement=placement, seed=4)
        with pytest.raises(ValueError, match="the rows were built with"):
            make_trainer(rows, noise=other)


def straddling(noise, n_clean=1200):
    """Rows as the builders write them, cut anywhere from a stream of text and noise."""
    pieces = [(np.arange(7) + 1, np.array([7]))] * (n_clean // 7)
    blocks = list(mixed_rows([ShardText(0, 0, pieces)], noise, L, 9 << 40 if noise.placement == "append" else None, ""))
    tokens, mask, ids = (np.concatenate([block[i] for block in blocks]) for i in (1, 2, 3))
    columns = {"input_ids": tokens, "is_noisy": mask, "noise_share": mask.mean(1, dtype=np.float32), "sample_id": ids}
    info = datasets.DatasetInfo(description=describe_noise("Text.", noise))
    return datasets.Dataset.from_dict({name: column.tolist() for name, column in columns.items()}, info=info)


@pytest.mark.parametrize("wrap", [PackedRows, Made, lambda rows: rows], ids=["packed", "made", "stored"])
@pytest.mark.parametrize("placement", ["append", "interleave"])
def test_a_run_on_rows_that_straddle(make_trainer, placement, wrap):
    """The logged rate is the share of targets; the rows are held against it, and a mask that is shifted is found."""
    noise = RandomDocuments(alpha=0.21, vocab_size=V, exclude=0, seed=3, placement=placement)
    rows = straddling(noise)
    mask, partly = np.array(rows["is_noisy"]), sum(0 < share < 1 for share in rows["noise_share"])
    assert partly == 1 if placement == "append" else partly > 10
    whole = {"num_train_epochs": 1, "max_steps": -1, "per_device_train_batch_size": len(rows)}
    trainer = make_trainer(wrap(rows), noise=noise, **whole)
    trainer.train()
    (logged,) = (entry["noise_rate"] for entry in trainer.state.log_history if "noise_rate" in entry)
    assert logged == pytest.approx(mask[:, 1:].mean(), abs=1e-6) and logged == pytest.approx(0.21, abs=0.01)
    shifted = rows.remove_columns("is_noisy").add_column("is_noisy", np.roll(mask, 3, axis=1).tolist())
    if wrap is not Made:  # of which no description says anything
        with pytest.raises(ValueError, match="their labels are not those that it draws for their ids"):
            make_trainer(wrap(shifted), **whole).train()
    other = RandomDocuments(alpha=0.8, vocab_size=V, exclude=0, seed=3, placement=placement)
    plain = datasets.Dataset.from_dict(rows.to_dict())
    with pytest.raises(ValueError, match=r"is_noisy marks 20 of 94 rows.*, 21.\d\d%, where .* makes 80.00% so"):
        make_trainer(wrap(plain), noise=other, **whole).train()


def test_the_clean_split_of_a_mixture_has_none(make_trainer):
    rows = mixture().select(range(30))
    record = {"noise": NOISE.to_dict(), "epoch": 0, "realised": {"validation": {"rate": 0.0, "n": 30}}}
    rows.info.description = json.dumps(record)
    rows._split = datasets.NamedSplit("validation")
    trainer = make_trainer(rows)
    assert trainer.noise == RandomDocuments(alpha=0.0, vocab_size=V, exclude=0, seed=3)
    trainer.train()
    with pytest.raises(ValueError, match="cannot be drawn by a trainer"):
        make_trainer(rows, noise=NOISE)
    assert make_trainer(rows, noise=UniformTokens(ratio=1.0, vocab_size=V)).claims.draws_over_clean_columns


def test_a_known_rate_needs_a_uniform_distribution(make_trainer):
    with pytest.raises(ValueError, match='error_rate="known" takes the weight of uniform noise.*RandomDocuments mixes'):
        make_trainer(mixture(), loss="corrected")
    make_trainer(mixture(), loss="corrected", error_rate=0.1).train()


def test_rows_that_documents_replaced_by_corrupt(make_trainer):
    noise = RandomDocuments(alpha=0.5, vocab_size=V, placement="replace")
    tokens = np.random.default_rng(0).integers(0, V, (80, L))
    noisy = corrupt(datasets.Dataset.from_dict({"input_ids": tokens.tolist()}), noise, "input_ids")
    trainer = make_trainer(noisy, num_train_epochs=1, max_steps=-1)
    assert trainer.noise == noise
    trainer.train()
    assert trainer.realised_noise()["rate"] == noise.replaced(np.arange(80)).mean()
    with_labels = noisy.rename_column("clean_input_ids", "clean_labels").add_column("labels", noisy["input_ids"])
    found = marked_rows(with_labels)
    assert found.against(noise, 0) is None
    other = RandomDocuments(alpha=0.5, vocab_size=V, placement="replace", seed=1)
    assert found.against(other, 0) == "their labels are not those that it draws for their ids"


def test_documents_of_one_stretch_have_any_rate():
    rows = marked_rows(mixture(n_clean=300).select(range(300)))
    assert rows.against(NOISE, 0, of_all=False) is None
    between = RandomDocuments(alpha=0.25, vocab_size=V, placement="interleave")  # documents, which may be long
    assert rows.against(between, None, of_all=False) is None
    spread = RandomDocuments(alpha=0.25, vocab_size=V, placement="replace")
    assert "0 of 300 rows" in rows.against(spread, None, of_all=False)


def test_padding_does_not_belong_to_a_document():
    tokens = NOISE.rows(np.array([7, 8]), L)
    labels = np.where(np.arange(L) < 10, tokens, -100)
    batch = {"labels": labels, "input_ids": tokens, "is_noisy": np.ones((2, L), bool), "sample_id": np.array([7, 8])}
    assert Marked.of_batch(batch).against(NOISE, 0, of_all=False) is None
