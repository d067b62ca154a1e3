from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import datasets
import pytest
from huggingface_hub import HfApi

from hf_noise.hub import data_folder
from hf_noise.hub.card import model_card
from hf_noise.hub.data_folder import write_config
from hf_noise.hub.load import load_noise
from hf_noise.hub.push import push_checkpoint, push_data_folder
from hf_noise.noise.block import noise_block
from hf_noise.noise.describe import describe_noise


def test_every_local_form_gives_the_same_noise(checkpoint, record, noise, tmp_path):
    assert (
        load_noise(checkpoint)
        == load_noise(str(checkpoint))
        == load_noise(checkpoint / "config.json")
        == noise
    )
    model_card(record).save(tmp_path / "card" / "README.md")
    assert load_noise(tmp_path / "card") == load_noise(tmp_path / "card" / "README.md") == noise
    record.write(tmp_path / "run" / "record.json")
    assert load_noise(tmp_path / "run") == load_noise(tmp_path / "run" / "record.json") == noise


def test_the_checkpoint_s_config_comes_before_its_card(checkpoint, record, noise):
    other = record.to_dict() | {"noise": record.noise | {"ratio": 1.0, "error_rate": 0.5}}
    (checkpoint / "README.md").write_text(str(model_card(type(record).from_dict(other))))
    assert load_noise(checkpoint) == noise
    config = json.loads((checkpoint / "config.json").read_text())
    del config["hf_noise"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert load_noise(checkpoint).ratio == 1.0


def test_a_data_set_with_several_configurations_asks_which(noise, tmp_path, write_data):
    folder = write_data(tmp_path / "data")
    for where in (folder, folder / "README.md", folder / "record.json"):
        assert load_noise(where, config_name="r1.0") == noise
        with pytest.raises(ValueError, match="has the configurations r0.5, r1.0 and which one is not said"):
            load_noise(where)
        with pytest.raises(ValueError, match=r"none of them is 'r2.0'; pass config_name="):
            load_noise(where, config_name="r2.0")
    assert load_noise(write_data(tmp_path / "one", names=("r0.5",))) == noise


def test_a_data_set_saved_to_disk_keeps_what_its_builder_said(noisy_data, noise, tmp_path):
    for split in noisy_data.values():
        split.info.description = "Text.\n\n" + json.dumps(
            {"noise": noise.to_dict() | {"realised": {"rate": 0.3, "n": 9}}}
        )
    noisy_data.save_to_disk(tmp_path / "all")
    noisy_data["train"].save_to_disk(tmp_path / "one")
    assert load_noise(tmp_path / "all") == load_noise(tmp_path / "one") == noise
    with pytest.raises(ValueError, match="states one noise and has no configuration 'r9'"):
        load_noise(tmp_path / "all", config_name="r9")


def test_every_split_that_was_saved_is_asked(noisy_data, noise, tmp_path):
    def saved(place, **noises):
        splits = {split: noisy_data["train"].select(range(3)) for split in noises}
        for split, stated in noises.items():
            splits[split].info.description = describe_noise("", stated, epoch=1) if stated else ""
        datasets.DatasetDict(splits).save_to_disk(tmp_path / place)
        return tmp_path / place

    assert load_noise(saved("one", test=noise)) == load_noise(saved("two", train=None, test=noise)) == noise
    folder = saved("three", a=noise, b=dataclasses.replace(noise, seed=99))
    with pytest.raises(ValueError, match="three: the splits state different noise .*'a': .*'b': .*seed=99"):
        load_noise(folder)
    (folder / "dataset_dict.json").write_text('{"splits": "a"}')
    with pytest.raises(ValueError, match="dataset_dict.json lists 'a' as its splits"):
        load_noise(folder)


def test_what_a_name_of_a_configuration_cannot_mean(checkpoint, noise, tmp_path):
    with pytest.raises(ValueError, match="config.json states one noise and has no configuration 'r9'; leave"):
        load_noise(checkpoint, config_name="r9")
    block = {"config_name": "a", **noise_block(noise)}
    other = {"config_name": "a", **noise_block(dataclasses.replace(noise, seed=99))}
    card = tmp_path / "README.md"
    for blocks, message in (
        ([block, other], "several configurations 'a' with different noise"),
        ([block | {"r": 9.0}], "the block states r = 9.0, and its config"),
        ([block | {"protocol": "label_flips"}], "the block states protocol = 'label_flips'"),
    ):
        card.write_text(f"---\nnoise: {json.dumps(blocks)}\n---\n")
        with pytest.raises(ValueError, match=f"README.md.*{message}"):
            load_noise(card, config_name="a")
    card.write_text(f"---\nnoise: {json.dumps([block, block | {'r': round(block['r'], 4)}])}\n---\n")
    assert load_noise(card, config_name="a") == noise


def test_a_configuration_written_again_leaves_no_rows_of_before(noisy_data, tmp_path, monkeypatch):
    monkeypatch.setattr(data_folder, "_SHARD_BYTES", noisy_data["train"].data.nbytes // 3 + 1)
    assert len(write_config(noisy_data, tmp_path, "r0.5")) == 5
    write_config(noisy_data, tmp_path, "r1.0")
    monkeypatch.undo()
    del noisy_data["validation"]
    write_config(noisy_data, tmp_path, "r0.5")
    assert [file.name for file in (tmp_path / "r0.5").iterdir()] == ["train-00000-of-00001.parquet"]
    assert len(list((tmp_path / "r1.0").iterdir())) == 5


def test_what_has_no_noise_says_what_was_looked_at(tmp_path):
    with pytest.raises(
        ValueError, match=r"found no hf_noise.json, config.json, .*dataset_info.json\); record it with model.config"
    ):
        load_noise(tmp_path)
    (tmp_path / "README.md").write_text("# Mine\n")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"looked at: config.json, README.md\)"):
        load_noise(tmp_path)
    (tmp_path / "config.json").write_text('{"hf_noise": {"protocol": "unheard_of", "version": 1}}')
    with pytest.raises(ValueError, match="unknown noise protocol 'unheard_of'"):
        load_noise(tmp_path)


def test_a_half_written_checkpoint_is_named(checkpoint):
    (checkpoint / "config.json").write_text('{"hf_noise": {"pro')
    with pytest.raises(ValueError, match="config.json is half-written"):
        load_noise(checkpoint)
    (checkpoint / "config.json").unlink()
    with pytest.raises(ValueError, match="half-written checkpoint: there are weights but no config.json"):
        load_noise(checkpoint)


@pytest.mark.parametrize("name", ["runs/r0.5/absent", "./absent", "/absent/folder", "a b", "../x", "x" * 300])
def test_what_is_neither_path_nor_repository(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no existing path, and no repository"):
        load_noise(name)
    with pytest.raises(ValueError, match="repo_type must be"):
        load_noise(name, repo_type="space")
    with pytest.raises(FileNotFoundError, match="a repository is named by a string"):
        load_noise(Path(name))  # which loses a leading "./", and is never asked of the Hub


def test_models_and_data_sets_on_the_hub(client, checkpoint, record, noise, tmp_path, write_data):
    push_checkpoint(checkpoint, "user/model", record=record)
    push_data_folder(write_data(tmp_path / "data"), "user/data")
    shutil.rmtree(checkpoint)
    client.requests.clear()
    assert load_noise("user/model") == noise
    assert {path.split("/")[-1] for method, path, _ in client.requests if method == "GET"} <= {"config.json"}
    assert load_noise("user/data", config_name="r0.5") == noise
    assert load_noise("user/data", config_name="r0.5", repo_type="dataset") == noise
    with pytest.raises(ValueError, match="'?user/data'? has the configurations r0.5, r1.0"):
        load_noise("user/data")
    with pytest.raises(FileNotFoundError, match="no model repository on the Hub"):
        load_noise("user/data", repo_type="model")
    with pytest.raises(
        FileNotFoundError, match="'user/absent' is no existing path and no model or data set on the Hub"
    ):
        load_noise("user/absent")
    with pytest.raises(FileNotFoundError, match="no such revision"):
        load_noise("user/model", revision="absent")


def test_a_model_without_noise_does_not_hide_a_data_set_of_the_same_name(client, noise, tmp_path, write_data):
    api = HfApi()
    api.create_repo("user/both")
    api.upload_file(
        path_or_fileobj=b'{"model_type": "gpt2"}', path_in_repo="config.json", repo_id="user/both"
    )
    with pytest.raises(
        ValueError, match=r"'user/both' states no noise \(looked at config.json of the model\)"
    ):
        load_noise("user/both")
    push_data_folder(write_data(tmp_path / "data", names=("r0.5",)), "user/both")
    assert load_noise("user/both") == noise


def test_no_network_is_no_missing_noise(client, checkpoint, record):
    client.stop()
    for name in ("user/model", "nothere"):  # which may be the name of a folder, written wrongly
        with pytest.raises(ConnectionError, match=f"'{name}'.*cannot be reached.*no file or folder '{name}' here"):
            load_noise(name)
