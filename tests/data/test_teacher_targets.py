"""What a teacher writes: the same whatever batches, kills and processes; and how likely it finds a target."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

from hf_noise.data import teacher_parts, teacher_targets
from hf_noise.data.teacher_files import load_teacher, teacher_of
from hf_noise.data.teacher_targets import teacher_nll, write_targets, written_rows
from hf_noise.noise import Decoding

sys.path.insert(0, str(Path(__file__).parent))
from teachers import pairs, save_teacher  # noqa: E402  (tests are no package: the line above makes it importable)

DECODINGS = [
    Decoding(max_new_tokens=8), Decoding(method="sample", max_new_tokens=8, temperature=2.0),
    Decoding(method="beam", num_beams=2, max_new_tokens=8),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(teacher_parts, "ROWS_PER_PART", 8)


@pytest.mark.parametrize("decoding", DECODINGS, ids=lambda one: one.method)
def test_targets_do_not_depend_on_the_batches_or_the_order(folder, tmp_path, decoding):
    teacher, rows = load_teacher(folder, decoding=decoding), pairs()
    rows = rows.add_column("sample_id", np.arange(100, 140))
    one = write_targets(rows, teacher, cache=tmp_path / "a", tokens_per_batch=1)
    assert write_targets(rows, teacher, cache=tmp_path / "b", tokens_per_batch=400) == one
    backwards = rows.select(range(39, -1, -1))
    assert write_targets(backwards, teacher, cache=tmp_path / "c") == one[::-1]
    assert len(set(one)) > 10 or decoding.method != "sample"
    if decoding.method == "sample":
        assert write_targets(rows, teacher, cache=tmp_path / "d", seed=1) != one


def test_greedy_targets_are_those_of_generate(folder, tmp_path):
    teacher, rows = load_teacher(folder, decoding=DECODINGS[0]), pairs(6)
    written = write_targets(rows, teacher, cache=tmp_path)
    for source, target in zip(rows["source"], written, strict=True):
        inputs = teacher.tokenizer(source, return_tensors="pt")
        with torch.no_grad():
            tokens = teacher.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        assert teacher.tokenizer.decode(tokens[0], skip_special_tokens=True) == target


def test_settings_that_a_model_brings_along_change_nothing(folder, tmp_path):
    teacher = load_teacher(folder, decoding=DECODINGS[0])
    expected = write_targets(pairs(), teacher, cache=tmp_path / "a")
    teacher.model.generation_config.update(num_beams=3, no_repeat_ngram_size=1, min_length=7, do_sample=True)
    assert write_targets(pairs(), teacher, cache=tmp_path / "b") == expected
    assert teacher.model.generation_config.num_beams == 3


def test_what_is_there_is_not_written_again(folder, tmp_path, monkeypatch):
    """Five parts, of which the run dies in the third; the next one makes three."""
    teacher, rows, made = load_teacher(folder, decoding=DECODINGS[0]), pairs(), []
    expected = write_targets(rows, teacher, cache=tmp_path / "whole")
    original = teacher_targets.generate

    def dying(loaded, sources, sample, seed=0):
        made.extend(sample.tolist())
        if len(made) > 20:
            raise KeyboardInterrupt
        return original(loaded, sources, sample, seed)

    monkeypatch.setattr(teacher_targets, "generate", dying)
    with pytest.raises(KeyboardInterrupt):
        write_targets(rows, teacher, cache=tmp_path / "cut")
    assert len(list((tmp_path / "cut").glob("part-*.parquet"))) == 2
    made.clear()
    monkeypatch.setattr(teacher_targets, "generate", lambda *a: made.extend(a[2].tolist()) or original(*a))
    assert write_targets(rows, teacher, cache=tmp_path / "cut") == expected
    assert len(made) == 24 and len(set(made)) == 24
    made.clear()
    assert write_targets(rows, teacher, cache=tmp_path / "cut") == expected and not made


def _count_parts(folder, cache, rank, log):
    teacher_parts.ROWS_PER_PART = 2
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    original, made = teacher_targets.generate, []
    teacher_targets.generate = lambda *a: made.extend(a[2].tolist()) or original(*a)
    written = write_targets(pairs(), load_teacher(folder, decoding=DECODINGS[0]), cache=cache)
    Path(log).write_text(json.dumps([written, made]))


def test_processes_share_the_parts_and_one_that_is_killed_is_stood_in_for(folder, tmp_path):
    context = multiprocessing.get_context("fork")
    cache = tmp_path / "cache"
    lost = context.Process(target=_count_parts, args=(folder, cache, 0, tmp_path / "0"))
    lost.start()
    while not list(cache.glob("part-*.parquet")):
        time.sleep(0.005)
    os.kill(lost.pid, signal.SIGKILL)
    lost.join()
    there = {row for part in cache.glob("part-*.parquet") for row in pq.read_table(part)["row"].to_pylist()}
    given = [(folder, cache, rank, tmp_path / str(rank)) for rank in (0, 1)]
    workers = [context.Process(target=_count_parts, args=one) for one in given]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    (one, made), (other, made_there) = (json.loads((tmp_path / str(rank)).read_text()) for rank in (0, 1))
    expected = write_targets(pairs(), load_teacher(folder, decoding=DECODINGS[0]), cache=tmp_path / "alone")
    assert one == other == expected
    assert sorted([*made, *made_there, *there]) == list(range(40))  # nobody did what was there, or what the other did


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_nll_is_that_of_the_whole_row(folder, tmp_path, temperature):
    decoding = DECODINGS[0] if temperature == 1 else Decoding(method="sample", temperature=temperature)
    teacher, rows = load_teacher(folder, decoding=decoding), pairs(12)
    found = teacher_nll(rows, teacher, cache=tmp_path / "a", tokens_per_batch=100)
    assert found.dtype == np.float32 and found.shape == (12,)
    np.testing.assert_allclose(teacher_nll(rows, teacher, cache=tmp_path / "b", tokens_per_batch=1), found, rtol=1e-5)
    for row in (0, 7):
        inputs = teacher.tokenizer(rows[row]["source"], return_tensors="pt")
        labels = teacher.tokenizer(rows[row]["target"], return_tensors="pt").input_ids
        with torch.no_grad():
            logits = teacher.model(**inputs, labels=labels).logits / temperature
        expected = torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum")
        assert found[row] == pytest.approx(float(expected), rel=1e-5)


def test_a_cache_that_another_teacher_wrote_is_refused(folder, tmp_path):
    teacher, rows = load_teacher(folder, decoding=DECODINGS[0]), pairs(8)
    write_targets(rows, teacher, cache=tmp_path / "cache")
    other = load_teacher(save_teacher(tmp_path / "other", seed=1), decoding=DECODINGS[0])
    with pytest.raises(ValueError, match=r"holds what another teacher wrote, .* \(sha256 '"):
        write_targets(rows, other, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"another teacher wrote, .* \(decoding"):
        write_targets(rows, load_teacher(folder, decoding=DECODINGS[2]), cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="the same teacher wrote for other rows or settings"):
        write_targets(pairs(9), teacher, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="the same teacher wrote for other rows or settings"):
        teacher_nll(rows, teacher, cache=tmp_path / "cache")
    (part,) = (tmp_path / "cache").glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(ValueError, match="part-000000.parquet cannot be read .* remove it"):
        write_targets(rows, teacher, cache=tmp_path / "cache")
    (tmp_path / "cache" / "teacher.json").unlink()
    with pytest.raises(ValueError, match="no teacher.json says who wrote them"):
        write_targets(rows, teacher, cache=tmp_path / "cache")


def test_a_cache_is_named_by_the_tokens_and_the_numbers_that_a_teacher_reads(folder, tmp_path):
    """A limit that cuts nothing changes nothing, one that does does; and half the bits of the weights write others."""
    teacher, rows = load_teacher(folder, decoding=DECODINGS[0]), pairs(8)
    write_targets(rows, teacher, cache=tmp_path / "a")
    write_targets(rows, teacher, cache=tmp_path / "a", max_source_tokens=63, truncate=True)
    with pytest.raises(ValueError, match=r"other rows or settings \(sources\)"):
        write_targets(rows, teacher, cache=tmp_path / "a", max_source_tokens=4, truncate=True)
    teacher_nll(rows, teacher, cache=tmp_path / "b")
    teacher_nll(rows, teacher, cache=tmp_path / "b", max_target_tokens=63, truncate=True)
    teacher.model.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"other rows or settings \(dtype\)"):
        write_targets(rows, teacher, cache=tmp_path / "a")


def test_a_teacher_that_was_moved_is_the_same(folder, tmp_path):
    moved = save_teacher(tmp_path / "moved")
    assert teacher_of(moved) == teacher_of(folder) and teacher_of(moved).name != teacher_of(folder).name
    rows = pairs(8)
    one = write_targets(rows, load_teacher(folder, decoding=DECODINGS[0]), cache=tmp_path / "cache")
    assert write_targets(rows, load_teacher(moved, decoding=DECODINGS[0]), cache=tmp_path / "cache") == one


def test_sources_over_the_limit_are_cut_only_when_told(folder, tmp_path, caplog):
    teacher, rows = load_teacher(folder, decoding=DECODINGS[0]), pairs(20)
    with pytest.raises(ValueError, match="of 20 rows .* have a source of more than 4 tokens, .* truncate=True"):
        write_targets(rows, teacher, cache=tmp_path / "a", max_source_tokens=4)
    assert len(write_targets(rows, teacher, cache=tmp_path / "b", max_source_tokens=4, truncate=True)) == 20
    assert "have a source of more than 4 tokens and were cut there" in caplog.text
    long = Dataset.from_dict({"source": ["noise " * 100]})
    with pytest.raises(ValueError, match="1 of 1 rows .* have a source of more than 64 tokens"):
        write_targets(long, teacher, cache=tmp_path / "c")


@pytest.mark.parametrize(
    ("rows", "settings", "error", "message"),
    [
        ({"source": ["a", " "]}, {}, ValueError, "1 of 2 rows have an empty source, the first is sample_id 1"),
        ({"source": ["a", None]}, {}, TypeError, "column source of dataset must hold texts, 1 of 2 are none"),
        ({"text": ["a"]}, {}, ValueError, "dataset has no column source, it has text"),
        ({"source": []}, {}, ValueError, "dataset has no rows"),
        ({"source": ["a"]}, {"tokens_per_batch": 0}, ValueError, "tokens_per_batch must lie in"),
        ({"source": ["a"]}, {"truncate": 1}, TypeError, "truncate must be True or False"),
        ({"source": ["a"]}, {"max_source_tokens": 1.5}, TypeError, "max_source_tokens must be an integer"),
        ({"source": ["a"]}, {"seed": -1}, ValueError, "seed must lie in"),
    ],
)
def test_bad_rows_and_settings_are_refused(folder, tmp_path, rows, settings, error, message):
    with pytest.raises(error, match=message):
        write_targets(Dataset.from_dict(rows), load_teacher(folder, decoding=DECODINGS[0]), cache=tmp_path, **settings)


def test_more_output_than_positions_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="max_new_tokens=256 is more than the 64 positions"):
        write_targets(pairs(2), folder, cache=tmp_path)


def _path_nll(teacher, source, ids):
    """By hand: one token after another, at the temperature of the teacher, which begins with its start token."""
    inputs = teacher.tokenizer(source, return_tensors="pt")
    read, nll = [teacher.model.config.decoder_start_token_id], 0.0
    for token in ids:
        with torch.no_grad():
            logits = teacher.model(**inputs, decoder_input_ids=torch.tensor([read])).logits[0, -1]
        nll -= float((logits / teacher.identity.decoding.temperature).log_softmax(-1)[token])
        read.append(token)
    return nll


def test_the_tokens_that_a_teacher_chose_are_kept_and_their_nll_is_that_of_the_draw(folder, tmp_path):
    """Of a sample over bytes the text has other tokens, and one that was cut an end token that nobody drew."""
    teacher, rows = load_teacher(folder, decoding=DECODINGS[1]), pairs(12)
    written, end = written_rows(rows, teacher, cache=tmp_path / "a"), teacher.tokenizer.eos_token_id
    assert written["target"][:] == write_targets(rows, teacher, cache=tmp_path / "a")
    for text, ids in zip(written["target"], written["target_ids"], strict=True):
        assert teacher.tokenizer.decode(ids, skip_special_tokens=True) == text
        assert end not in ids[:-1] and (ids[-1] == end or len(ids) == 8)
    cut = sum(ids[-1] != end for ids in written["target_ids"])
    again = teacher.tokenizer(written["target"][:]).input_ids
    assert cut and sum(one != other for one, other in zip(again, written["target_ids"])) >= cut
    chosen = rows.remove_columns("target").add_column("target", written["target"][:])
    chosen = chosen.add_column("target_ids", written["target_ids"][:])
    found = teacher_nll(chosen, teacher, cache=tmp_path / "nll", tokens_per_batch=100)
    expected = [_path_nll(teacher, *one) for one in zip(rows["source"], written["target_ids"], strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # The text's tokens are others, and a cache of the one is none of the other.
    with pytest.raises(ValueError, match=r"other rows or settings \(targets\)"):
        teacher_nll(chosen.remove_columns("target_ids"), teacher, cache=tmp_path / "nll")


def test_parts_that_keep_no_tokens_are_refused_by_name(folder, tmp_path):
    teacher, rows = load_teacher(folder, decoding=DECODINGS[0]), pairs(8)
    write_targets(rows, teacher, cache=tmp_path)
    told = json.loads((tmp_path / "teacher.json").read_text())
    (tmp_path / "teacher.json").write_text(json.dumps({**told, "version": 1}))
    with pytest.raises(ValueError, match=r"other rows or settings \(version\)"):
        write_targets(rows, teacher, cache=tmp_path)


def test_tokens_stay_in_arrow_until_they_are_in_a_batch():
    """As Python integers those of CNN/DailyMail were 9 GB."""
    chunks = pa.chunked_array([[[7, 8], [9]], [[1, 2, 3]]], pa.list_(pa.int32()))
    rows = teacher_targets._Rows.of(chunks)
    assert rows.values.dtype == np.int32 and rows.lengths.tolist() == [2, 1, 3]
    assert rows.padded(np.array([2, 1])).tolist() == [[1, 2, 3], [9, -100, -100]]
    whole = pa.chunked_array([chunks.chunk(0)])
    assert np.shares_memory(teacher_targets._Rows.of(whole).values, whole.chunk(0).values.to_numpy())
