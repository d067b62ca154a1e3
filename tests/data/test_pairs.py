"""Pairs of any source, of which a teacher wrote some targets."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, load_dataset

import hf_noise
from hf_noise.data import teacher_parts, teacher_targets
from hf_noise.data.builders.cnn_dailymail_noisy import CnnDailymailNoisyConfig
from hf_noise.data.builders.wmt14_noisy import Wmt14NoisyConfig
from hf_noise.data.teacher_files import load_teacher, teacher_of
from hf_noise.data.teacher_targets import teacher_nll, written_rows
from hf_noise.noise import Decoding, NoisyTeacher, noise_from_description
from hf_noise.noise.describe import noise_records

sys.path.insert(0, str(Path(__file__).parent))
from teachers import NETWORK, pairs, save_teacher  # noqa: E402  (tests are no package: the line above makes it importable)

NAME, COLUMNS = "hf_noise/noisy", ("source", "target")
DECODING = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def source():
    return DatasetDict({"train": pairs(31), "validation": pairs(5, seed=1)})


@pytest.fixture(scope="module")
def noisy(source, teacher, tmp_path_factory):
    return load(source, r=1, teacher=teacher, with_nll=True, cache_dir=str(tmp_path_factory.mktemp("cache")))


def load(source, **settings):
    return load_dataset(NAME, **{"source": source, "columns": COLUMNS, "decoding": DECODING, **settings})


def test_half_of_the_targets_are_the_teachers_and_all_else_is_as_it_was(source, teacher, noisy):
    train = noisy["train"]
    assert train.column_names == ["source", "target", "clean_target", "is_noisy", "sample_id", "teacher_nll"]
    assert train["source"][:] == source["train"]["source"][:]
    assert train["clean_target"][:] == source["train"]["target"][:]
    mask = np.array(train["is_noisy"])
    assert mask.sum() == round(31 / 2) and train["sample_id"][:] == list(range(31))
    loaded = load_teacher(teacher, decoding=Decoding(**DECODING))
    written = written_rows(source["train"], loaded)
    expected = [new if one else old for new, old, one in zip(written["target"], train["clean_target"], mask)]
    assert train["target"][:] == expected
    # Of the tokens that it chose, which are others than the text's.
    chosen = [ids if one else None for ids, one in zip(written["target_ids"], mask)]
    drawn, read = teacher_nll(train.add_column("target_ids", chosen), loaded), teacher_nll(train, loaded)
    np.testing.assert_array_equal(np.float32(train["teacher_nll"]), drawn)
    assert (drawn != read)[mask].any() and (drawn == read)[~mask].all()
    clean = noisy["validation"]
    assert clean["target"][:] == clean["clean_target"][:] and not any(clean["is_noisy"])
    assert np.isfinite(clean["teacher_nll"]).all()


def test_the_noise_comes_back_from_the_rows(teacher, noisy):
    noise = noise_from_description(noisy["train"].info.description)
    assert isinstance(noise, NoisyTeacher) and noise.num_rows == 31 and noise.num_noisy == 16
    assert noise.teacher == teacher_of(teacher, Decoding(**DECODING))
    assert noise.is_noisy(np.array(noisy["train"]["sample_id"])).tolist() == noisy["train"]["is_noisy"][:]


def test_what_the_teacher_left_unfinished_is_told_and_fits_where_it_may_write_as_long(source, teacher, tmp_path):
    """An output at max_new_tokens had an end token too many."""
    settings = {"with_nll": True, "max_target_tokens": 40, "decoding": {**DECODING, "max_new_tokens": 40}}
    rows = load(source, r=1, teacher=teacher, cache_dir=str(tmp_path), **settings)["train"]
    loaded = load_teacher(teacher, decoding=Decoding(**settings["decoding"]))
    ids = written_rows(source["train"], loaded)["target_ids"]
    share = np.mean([row[-1] != loaded.tokenizer.eos_token_id for row in ids])
    assert share > 0 and max(map(len, ids)) == 40
    (told,) = noise_records(rows.info.description)
    assert told["unfinished_outputs"] == {"train": round(share, 6)}


def test_streams_and_other_rates_have_the_same_targets(source, teacher, noisy, tmp_path):
    stream = load(source, r=1, teacher=teacher, with_nll=True, streaming=True, split="train")
    assert list(stream) == noisy["train"].to_list()
    less = load(source, error_rate=0.2, teacher=teacher, cache_dir=str(tmp_path))["train"]
    assert sum(less["is_noisy"]) == 6 and "teacher_nll" not in less.column_names
    for row, other in zip(less, noisy["train"], strict=True):
        assert row["target"] == other["target"] if row["is_noisy"] else row["target"] == row["clean_target"]
    alone = load(source, error_rate=0.2, exact=False, teacher=teacher, cache_dir=str(tmp_path))["train"]
    expected = NoisyTeacher(error_rate=0.2, teacher=teacher_of(teacher)).is_noisy(np.arange(31))
    assert expected.tolist() == alone["is_noisy"][:]


def test_columns_in_columns_own_ids_and_a_subset(tmp_path):
    rows = [{"translation": {"en": f"word {i}", "de": f"wort {i}"}, "sample_id": 3 * i + 1} for i in range(20)]
    told = {"r": 0, "columns": ("translation.en", "translation.de"), "cache_dir": str(tmp_path)}
    found = load({"train": Dataset.from_list(rows)}, **told)["train"]
    texts = {"source": "word 4", "target": "wort 4", "clean_target": "wort 4"}
    assert found[4] == {**texts, "is_noisy": False, "sample_id": 13}
    some = load({"train": Dataset.from_list(rows)}, **told, max_pairs=8)["train"]["source"][:]
    other = load({"train": Dataset.from_list(rows)}, **told, max_pairs=8, subset_seed=1)["train"]["source"][:]
    assert len(some) == len(other) == 8 and some != other and some == [w for w in found["source"] if w in some]
    parts = load({"train": Dataset.from_list(rows)}, **told, test_fraction=0.4)
    assert sorted(parts["train"]["source"][:] + parts["test"]["source"][:]) == sorted(found["source"])


def test_a_teacher_is_trained_where_its_steps_are_given(source, tmp_path):
    settings = {"teacher_steps": 2, "vocab_size": 270, "cache_dir": str(tmp_path), "r": 0.5,
                "teacher_settings": {"model": NETWORK, "batch_size": 4}}  # fmt: skip
    rows = load(source, **settings)["train"]
    assert sum(rows["is_noisy"]) == 10
    assert noise_from_description(rows.info.description).teacher.steps == 2


ONE_OF_TWO = """
import sys
import hf_noise
from datasets import Dataset
rows = Dataset.from_dict({"source": ["one two", "three four"] * 8, "target": ["two", "four"] * 8})
hf_noise.load_dataset("hf_noise/noisy", source=rows, columns=("source", "target"), r=0.5, teacher_steps=2,
                      vocab_size=270, cache_dir=sys.argv[1])
"""


def test_a_teacher_is_trained_by_one_process_alone(tmp_path):
    """In a process of its own: what accelerate has seen of others stays in the one that it runs in."""
    environment = {**os.environ, "WORLD_SIZE": "2", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", ONE_OF_TWO, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode, done.stdout
    assert "teacher_steps= trains a teacher while the data are built, which one process does alone" in done.stderr


def _build_beside(rank, source, teacher, cache, log):
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    teacher_parts.ROWS_PER_PART, original, made = 2, teacher_targets.generate, []

    def slow(*given):
        time.sleep(0.1)
        made.extend(given[2].tolist())
        return original(*given)

    teacher_targets.generate = slow
    rows = load(source, r=1, teacher=teacher, decoding={"max_new_tokens": 7}, cache_dir=str(cache))["train"]
    log.write_text(json.dumps([rows["target"][:], made]))


def test_processes_that_build_the_same_pairs_write_them_together(source, teacher, tmp_path):
    """`datasets` lets one of them build, and all others waited for hours while it wrote alone."""
    context, logs = multiprocessing.get_context("fork"), [tmp_path / "0", tmp_path / "1"]
    given = [(rank, source, teacher, tmp_path / "cache", log) for rank, log in enumerate(logs)]
    workers = [context.Process(target=_build_beside, args=one) for one in given]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    (one, made), (other, made_there) = (json.loads(log.read_text()) for log in logs)
    assert one == other and sorted(made + made_there) == list(range(31)), "no row is written twice"


def test_docs_pairs_have_the_same_rows_in_both_contexts(tmp_path):
    rich, sparse = (
        hf_noise.load_dataset("hf_noise/docs-pairs-noisy", r=0, context=context, split="test", cache_dir=str(tmp_path))
        for context in ("rich", "sparse")
    )
    assert rich["target"][:] == sparse["target"][:] and rich["sample_id"][:] == sparse["sample_id"][:]
    assert all(len(name.split()) == 1 for name in sparse["source"]) and rich["source"][:] != sparse["source"][:]


def test_the_papers_numbers():
    wmt, cnn = Wmt14NoisyConfig(r=0), CnnDailymailNoisyConfig(r=0)
    for config in (wmt, cnn):
        config.check()
    assert (wmt.max_pairs, wmt.max_source_tokens, wmt.max_target_tokens) == (287_113, 256, 256)
    assert (cnn.max_pairs, cnn.max_source_tokens, cnn.max_target_tokens) == (None, 2048, 256)
    assert (wmt.source_config, cnn.source_config) == ("de-en", "3.0.0")
    assert wmt.found_decoding == Decoding(method="greedy", max_new_tokens=256)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"r": 1}, ValueError, r"r=1 needs a teacher .*: teacher= .*, or teacher_steps= to train one"),
        ({"teacher": "x", "teacher_steps": 1}, ValueError, "give teacher= .* or teacher_steps= .*, not both"),
        ({"teacher": "/nowhere", "r": 1}, FileNotFoundError, "'/nowhere' is no existing folder"),
        ({"columns": ("a", "a")}, ValueError, "columns names 'a' as source and as target"),
        ({"columns": "source"}, TypeError, "columns must be the names of source and target"),
        ({"columns": ("source", "summary")}, ValueError, "has no column 'summary'; it has 'source', 'target'"),
        ({"columns": ("source.en", "target")}, ValueError, "column 'source' of the source .* has no fields"),
        ({"decoding": "nucleus"}, ValueError, "method must be one of greedy, sample, beam"),
        ({"decoding": {"beams": 2}}, TypeError, "decoding has no field 'beams'"),
        ({"teacher_settings": {"stepz": 1}}, TypeError, "teacher_settings has no setting 'stepz'"),
        ({"teacher_settings": {"seed": 1}}, ValueError, "give teacher_steps="),
        ({"r": 1, "teacher": "x", "with_nll": True, "max_target_tokens": 9, "decoding": {"max_new_tokens": 10}},
         ValueError, "max_target_tokens=9 is less than the max_new_tokens=10"),
        ({"epoch": 1}, ValueError, "epoch=1 means nothing"), ({"exact": 1}, TypeError, "exact must be True or False"),
        ({"column": "target"}, TypeError, "hf_noise/noisy has no setting 'column'"),
        ({"source": None}, ValueError, "say which pairs: source="),
        ({"protocol": "symmetric"}, ValueError, "protocol must be one of noisy-teacher"),
        ({"source": {"train": Dataset.from_dict({"source": ["a", " ", None], "target": ["b", "c", "d"]})}}, ValueError,
         r"2 of 3 rows of the train split .* have an empty source \(column 'source', rows 1, 2\)"),
        ({"source": {"train": Dataset.from_dict({"source": ["a"], "target": [3]})}}, ValueError, "holds int64, not"),
    ],
)  # fmt: skip
def test_bad_settings_and_rows_are_refused(source, tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        load(**{"source": source, "r": 0, "cache_dir": str(tmp_path), **settings})


@pytest.mark.parametrize(("ids", "named"), [(None, "row 17"), ([100 + i for i in range(30)], "sample_id 117")])
def test_empty_rows_are_named_as_their_owner_finds_them(tmp_path, ids, named):
    """By their number in the source or their own id, not by that which they have once others are held out."""
    rows = {"source": [f"word {i}" for i in range(30)], "target": ["" if i == 17 else "wort" for i in range(30)]}
    rows |= {} if ids is None else {"sample_id": ids}
    with pytest.raises(ValueError, match=rf"1 of \d+ rows of the \w+ split .*column 'target', {named}\)"):
        load({"train": Dataset.from_dict(rows)}, r=0, test_fraction=0.5, cache_dir=str(tmp_path))


def test_a_mask_of_ones_own_is_not_passed_over_in_silence(tmp_path, caplog):
    rows = {"source": ["a", "b"], "target": ["c", "d"], "is_noisy": [True, False]}
    found = load({"train": Dataset.from_dict(rows)}, r=0, cache_dir=str(tmp_path))["train"]
    assert not any(found["is_noisy"]) and "'is_noisy' of" in caplog.text and "tokenize_pairs()" in caplog.text


def test_a_task_of_another_context_is_refused(teacher, tmp_path):
    import shutil

    other = Path(shutil.copytree(teacher, tmp_path / "teacher"))
    (other / "teacher.json").write_text(json.dumps({"task": "embedded/docs-pairs, name -> target"}))
    with pytest.raises(ValueError, match="was trained for the task 'embedded/docs-pairs, name -> target', not"):
        hf_noise.load_dataset("hf_noise/docs-pairs-noisy", r=1, teacher=str(other), cache_dir=str(tmp_path))
