"""Which model a teacher is, and which folders are refused as one."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from hf_noise.data import teacher_files
from hf_noise.data.embedded import embedded_tokenizer
from hf_noise.data.teacher_files import load_teacher, teacher_of

sys.path.insert(0, str(Path(__file__).parent))
from teachers import save_teacher, tokenizer  # noqa: E402  (tests are no package: the line above makes it importable)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_weights_config_and_tokenizer_are_in_its_hash_and_nothing_else_is(copy):
    before = teacher_of(copy)
    (copy / "optimizer.pt").write_bytes(b"x")
    (copy / "teacher.json").write_text(json.dumps({"steps": 7}))
    assert teacher_of(copy).sha256 == before.sha256 and before.steps is None and teacher_of(copy).steps == 7
    seen = {before.sha256}
    for file in ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors"):
        (copy / file).write_bytes((copy / file).read_bytes() + b" ")
        seen.add(teacher_of(copy).sha256)
    assert len(seen) == 5


def test_a_folder_that_is_not_whole_is_refused(copy):
    (copy / "model.safetensors").rename(copy / "kept")
    with pytest.raises(FileNotFoundError, match=r"is no whole teacher, it lacks model.safetensors: .* cut short"):
        load_teacher(copy)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part-1", "b": "config.json"}}))
    with pytest.raises(FileNotFoundError, match="lacks part-1:"):
        load_teacher(copy)
    (copy / "model.safetensors.index.json").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match="are pickled, and only safetensors are read"):
        load_teacher(copy)
    (copy / "model.safetensors").write_bytes((copy / "kept").read_bytes()[:2000])
    with pytest.raises(OSError, match="cannot be read|cannot be loaded"):
        load_teacher(copy)
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="lacks tokenizer.json"):
        load_teacher(copy)
    with pytest.raises(FileNotFoundError, match="is no existing folder"):
        load_teacher("/nowhere/at/all")


def test_another_vocabulary_or_task_is_refused(copy):
    assert load_teacher(copy, tokenizer=tokenizer(), task="any").identity == teacher_of(copy)
    with pytest.raises(ValueError, match="has another vocabulary than the tokenizer= that is given"):
        load_teacher(copy, tokenizer=embedded_tokenizer(300))
    (copy / "teacher.json").write_text(json.dumps({"task": "en -> de"}))
    with pytest.raises(ValueError, match="was trained for the task 'en -> de', not 'en -> fr'"):
        load_teacher(copy, task="en -> fr")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "gpt2", "is_encoder_decoder": False}))
    with pytest.raises(ValueError, match=r"is a gpt2 \(.*\), which is no encoder-decoder"):
        load_teacher(copy)


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    small = T5Config(vocab_size=100, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5ForConditionalGeneration(small).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has tokens up to 279, and its model 100 rows"):
        load_teacher(tmp_path)


def test_the_identity_is_that_of_the_weights_where_a_repository_moves_on(folder, tmp_path, monkeypatch):
    """It was looked up twice: the hash of one commit, and the weights of the next."""
    commits = iter([folder, save_teacher(tmp_path / "next", seed=1)])
    monkeypatch.setattr(teacher_files, "_fetched", lambda name: next(commits))
    loaded = load_teacher("team/teacher")
    assert loaded.identity.sha256 == teacher_of(folder).sha256
    weights = load_teacher(folder).model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in loaded.model.state_dict().items())
