"""Pushes to a running Hub: what goes up, what stays at home, and what a broken connection leaves."""

from __future__ import annotations

import errno
import json
import os
import shutil

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard, HfApi, ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError

from hf_noise.hub.errors import explained
from hf_noise.hub.load import load_noise
from hf_noise.hub.push import push_checkpoint, push_data_folder, push_dataset
from hf_noise.noise.describe import describe_noise

REPO = "user/gpt2-tiny"


def test_one_commit_holds_weights_config_card_and_record(client, checkpoint, record):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    info = push_checkpoint(checkpoint, REPO, record=record, license="apache-2.0")
    files = client.files(REPO)
    assert files["model.safetensors"] == before["model.safetensors"]
    assert json.loads(files["config.json"]) == json.loads(before["config.json"])
    assert json.loads(files["record.json"])["name"] == record.name
    card = ModelCard(files["README.md"].decode())
    assert card.data.noise["e"] == pytest.approx(1 / 3) and REPO in card.text
    repo = client.repo(REPO)
    assert info.oid == client.head(REPO) and len(repo.commits) == 2  # the first one made the repository
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


def test_pickles_and_training_state_stay_at_home(client, checkpoint, record, weights):
    (checkpoint / "checkpoint-10").mkdir()
    (checkpoint / "checkpoint-10" / "model.safetensors").write_bytes(weights())
    (checkpoint / ".cache").mkdir()
    (checkpoint / ".cache" / "x.json").write_text("{}")
    (checkpoint / "run.json").write_text("{}")
    (checkpoint / "audit.parquet").write_bytes(b"rows")
    push_checkpoint(checkpoint, REPO, record=record)
    assert set(client.files(REPO)) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "record.json",
    }


def test_a_record_in_the_folder_is_found_and_its_noise_enters_the_config(client, checkpoint, record, noise):
    config = json.loads((checkpoint / "config.json").read_text())
    del config["hf_noise"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    record.write(checkpoint / "record.json")
    push_checkpoint(checkpoint, REPO)
    assert json.loads(client.files(REPO)["config.json"])["hf_noise"] == noise.to_dict()
    assert "hf_noise" not in json.loads((checkpoint / "config.json").read_text())
    assert load_noise(REPO) == noise


def test_without_a_record_the_noise_of_the_config_makes_a_short_card(client, checkpoint, noise):
    push_checkpoint(checkpoint, REPO)
    card = ModelCard(client.files(REPO)["README.md"].decode())
    assert card.data.noise["config"] == noise.to_dict() and "r = 0.5 noisy units per clean one" in card.text
    (checkpoint / "README.md").write_text("---\nlicense: mit\n---\n# By hand\n")
    push_checkpoint(checkpoint, REPO)
    assert "# By hand" in client.files(REPO)["README.md"].decode()


def test_a_second_push_changes_nothing_and_stale_shards_go(client, checkpoint, record):
    api = HfApi()
    api.create_repo(REPO)
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.md"):
        api.upload_file(path_or_fileobj=b"old", path_in_repo=name, repo_id=REPO)
    first = push_checkpoint(checkpoint, REPO, record=record)
    assert not {"model-00001-of-00002.safetensors", "model.safetensors.index.json"} & set(client.files(REPO))
    assert "notes.md" in client.files(REPO)
    assert push_checkpoint(checkpoint, REPO, record=record).oid == first.oid == client.head(REPO)


def test_a_branch_and_a_private_repository(client, checkpoint, record):
    push_checkpoint(checkpoint, REPO, record=record, revision="r0.5/seed-1", private=True)
    assert client.repo(REPO).private
    assert "model.safetensors" in client.files(REPO, revision="r0.5/seed-1")
    assert "model.safetensors" not in client.files(REPO)
    assert load_noise(REPO, revision="r0.5/seed-1").seed == 7


@pytest.mark.parametrize("kind", ["lfs-put", "commit"])
def test_a_push_that_breaks_off_leaves_the_repository_and_can_be_repeated(
    client, checkpoint, record, kind, weights, change_weights
):
    first = push_checkpoint(checkpoint, REPO, record=record)
    old = client.files(REPO)
    change_weights()
    client.fail_next(kind, after_bytes=500)
    with pytest.raises(
        ConnectionError, match=rf"'{REPO}'.*cannot be reached.*its previous commit.*run the same push again"
    ):
        push_checkpoint(checkpoint, REPO, record=record)
    assert (client.head(REPO), client.files(REPO)) == (first.oid, old)
    client.heal()
    push_checkpoint(checkpoint, REPO, record=record)
    assert client.files(REPO)["model.safetensors"] == weights()
    assert len(client.repo(REPO).commits) == 3


def test_a_short_interruption_of_an_upload_is_bridged(client, checkpoint, record, weights):
    client.fail_next("lfs-put", after_bytes=100, times=2)
    push_checkpoint(checkpoint, REPO, record=record)
    assert client.files(REPO)["model.safetensors"] == weights()


def test_somebody_else_s_push_in_between_is_not_overwritten(
    client, checkpoint, record, monkeypatch, weights, change_weights
):
    push_checkpoint(checkpoint, REPO, record=record)
    change_weights()
    commit = HfApi.create_commit

    def late(self, repo_id, *arguments, **named):
        monkeypatch.setattr(HfApi, "create_commit", commit)
        self.upload_file(path_or_fileobj=b"theirs", path_in_repo="theirs.txt", repo_id=repo_id)
        return commit(self, repo_id, *arguments, **named)

    monkeypatch.setattr(HfApi, "create_commit", late)
    with pytest.raises(
        RuntimeError, match=f"'{REPO}'.*nothing was overwritten. Run the same push again"
    ) as raised:
        push_checkpoint(checkpoint, REPO, record=record)
    assert (
        isinstance(raised.value.__cause__, HfHubHTTPError)
        and raised.value.__cause__.response.status_code == 412
    )
    assert client.files(REPO)["model.safetensors"] != weights()
    push_checkpoint(checkpoint, REPO, record=record)
    assert client.files(REPO)["model.safetensors"] == weights() and "theirs.txt" in client.files(
        REPO
    )


def damage_config(folder):
    (folder / "config.json").write_text('{"model_type": "gp')


def cut_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def empty_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")


def index_without_shard(folder):
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def index_with_other_tensors(folder):
    weight_map = {"transformer.absent.weight": "model.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (shutil.rmtree, FileNotFoundError, "is not a folder"),
        (lambda f: (f / "config.json").unlink(), FileNotFoundError, "config.json is missing"),
        (damage_config, ValueError, "config.json is half-written"),
        (lambda f: (f / "config.json").write_text("[]"), ValueError, "holds a list"),
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "model.safetensors is missing"),
        (cut_weights, ValueError, "model.safetensors is half-written"),
        (empty_weights, ValueError, "model.safetensors is half-written"),
        (index_without_shard, FileNotFoundError, "model-00002-of-00002.safetensors, which is missing"),
        (index_with_other_tensors, ValueError, "lacks the tensor 'transformer.absent.weight'"),
    ],
)
def test_a_half_written_checkpoint_is_refused_before_the_hub_is_asked(
    client, checkpoint, record, damage, error, message
):
    damage(checkpoint)
    with pytest.raises(error, match=message):
        push_checkpoint(checkpoint, REPO, record=record)
    assert client.requests == []


def test_unknown_and_contradicting_noise_is_refused(client, checkpoint, record):
    other = record.to_dict() | {"noise": record.noise | {"ratio": 1.0, "error_rate": 0.5}}
    with pytest.raises(ValueError, match="they are of different runs"):
        push_checkpoint(checkpoint, REPO, record=type(record).from_dict(other))
    config = json.loads((checkpoint / "config.json").read_text())
    del config["hf_noise"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match="noise of .* is unknown.*pass record=, or set model.config.hf_noise"
    ):
        push_checkpoint(checkpoint, REPO)
    assert client.requests == []


def test_errors_of_the_hub_name_the_repository_and_the_remedy(client, checkpoint, record, monkeypatch):
    with pytest.raises(PermissionError, match=f"'{REPO}'.*refused the token.*hf auth login"):
        push_checkpoint(checkpoint, REPO, record=record, token="hf_wrong")
    with pytest.raises(PermissionError, match="'other/x'.*HTTP 403"):
        push_checkpoint(checkpoint, "other/x", record=record)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=f"'{REPO}'.*offline"):
        push_checkpoint(checkpoint, REPO, record=record)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    client.stop()
    with pytest.raises(
        ConnectionError, match=f"'{REPO}'.*cannot be reached.*Check the network and HF_ENDPOINT"
    ):
        push_checkpoint(checkpoint, REPO, record=record)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_full_or_protected_disk_is_not_taken_for_the_network(number):
    error = OSError(number, os.strerror(number))
    with pytest.raises(OSError) as caught, explained(REPO, "reading"):
        raise error
    assert caught.value is error
    with pytest.raises(ConnectionError, match="cannot be reached"), explained(REPO, "reading"):
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


def test_no_token_is_told_as_such(client, checkpoint, record, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match="hf auth login"):
        push_checkpoint(checkpoint, REPO, record=record)


def test_configurations_of_a_data_set_are_added_one_by_one(client, noisy_data, noise):
    repo = "user/docs-noisy"
    push_dataset(
        noisy_data, repo, config_name="r0.5", noise=noise, source="embedded/docs-text", license="psf-2.0"
    )
    card = DatasetCard(client.files(repo, "dataset")["README.md"].decode())
    counted = sum(map(sum, noisy_data["train"]["is_noisy"]))
    assert card.data["noise"][0]["realised"] == {"rate": counted / 128, "n": 128}
    assert card.data["noise"][0]["splits"]["validation"] == {"rows": 3, "units": 48, "noisy": False}
    assert card.data.license == "psf-2.0"

    card.text = card.text.replace("## Limits", "A remark by hand.\n\n## Limits")
    HfApi().upload_file(
        path_or_fileobj=str(card).encode(), path_in_repo="README.md", repo_id=repo, repo_type="dataset"
    )
    push_dataset(noisy_data["train"], repo, config_name="r0.5-train", noise=noise.to_dict())
    files = client.files(repo, "dataset")
    assert {name for name in files if name.endswith(".parquet")} == {
        "r0.5/train-00000-of-00001.parquet",
        "r0.5/validation-00000-of-00001.parquet",
        "r0.5-train/train-00000-of-00001.parquet",
    }
    card = DatasetCard(files["README.md"].decode())
    assert "A remark by hand." in card.text and [b["config_name"] for b in card.data["noise"]] == [
        "r0.5",
        "r0.5-train",
    ]

    # Fewer splits under an old name: the file of the split that went must not be read on.
    push_dataset(noisy_data["train"], repo, config_name="r0.5", noise=noise)
    assert "r0.5/validation-00000-of-00001.parquet" not in client.files(repo, "dataset")
    assert load_noise(repo, config_name="r0.5") == noise


def test_a_built_data_set_brings_its_noise_and_realised_rate(client, noisy_data, noise):
    with pytest.raises(ValueError, match="does not say which noise it carries; pass noise="):
        push_dataset(noisy_data, "user/d", config_name="r0.5")
    said = noise.to_dict() | {"realised": {"rate": 0.3125, "n": 64}}
    noisy_data["train"].info.description = "Text.\n\n" + json.dumps({"noise": said, "epoch": 0})
    push_dataset(noisy_data["train"], "user/d", config_name="r0.5")
    card = DatasetCard(client.files("user/d", "dataset")["README.md"].decode())
    counted = sum(map(sum, noisy_data["train"]["is_noisy"]))  # in these rows; it may have been built with others
    assert card.data["noise"][0]["realised"] == {"rate": counted / 128, "n": 128}
    assert load_noise("user/d") == noise


def test_the_epoch_that_was_drawn_is_said_and_draws_the_rows_again(client, noisy_data, noise):
    rows = noisy_data["train"]
    labels, is_noisy = noise(np.array(rows["clean_labels"]), sample=np.arange(8), epoch=2)
    for name, column in (("labels", labels), ("is_noisy", is_noisy)):
        rows = rows.remove_columns(name).add_column(name, column.tolist())
    rows.info.description = describe_noise("", noise, epoch=2)
    push_dataset(rows, "user/d", config_name="r0.5")
    card = DatasetCard(client.files("user/d", "dataset")["README.md"].decode())
    assert "drawn once (epoch 2)" in card.text and "epoch=2)" in card.text and card.data["noise"][0]["epoch"] == 2
    assert load_noise("user/d") == noise
    other = rows.select(range(8))
    other.info.description = describe_noise("", noise, epoch=3)
    with pytest.raises(ValueError, match=r"drawn at several epochs \(2, 3\).*or pass epoch="):
        push_dataset(datasets.DatasetDict(a=rows, b=other), "user/d", config_name="both", noise=noise)
    push_dataset(noisy_data, "user/d", config_name="r0.5-0", noise=noise)
    card = DatasetCard(client.files("user/d", "dataset")["README.md"].decode())
    assert "drawn once (epoch 0 unless the table says another)" in card.text and "| epoch |" in card.text


def test_rows_that_contradict_their_noise_are_not_published(client, noisy_data, noise):
    clean, none = noisy_data["train"].map(lambda row: {"is_noisy": [False] * 16}), {"ratio": 0.0, "error_rate": 0.0}
    with pytest.raises(ValueError, match="'r0.5': 0 of 128 units are marked .* rate of 0.3333 does not give; pass"):
        push_dataset(clean, "user/d", config_name="r0.5", noise=noise)
    with pytest.raises(ValueError, match="does not give"):
        push_dataset(noisy_data, "user/d", config_name="r0.0", noise=noise.to_dict() | none)
    assert client.requests == []
    push_dataset(clean, "user/d", config_name="r0.0", noise=noise.to_dict() | none)
    # Positions without a target are no units.
    some = noisy_data["train"].map(lambda row: {"clean_labels": [-100] * 4 + row["clean_labels"][4:]})
    push_dataset(some, "user/d", config_name="r0.5", noise=noise)
    card = DatasetCard(client.files("user/d", "dataset")["README.md"].decode())
    assert [block["realised"]["n"] for block in card.data["noise"]] == [128, 96]


@pytest.mark.parametrize("head", ["noise: low", "noise: [{config_name: x}]",
                                  "noise: [{config_name: x, protocol: y, config: z, splits: {}}]",
                                  "noise: [{config_name: x, protocol: y, config: {}, splits: {train: 3}}]",
                                  "configs: 3", "noise: [a, {b"])  # fmt: skip
def test_a_foreign_card_on_the_hub_is_named_and_kept(client, noisy_data, noise, head):
    HfApi().create_repo("user/d", repo_type="dataset")
    repo = client.repo("user/d", "dataset")
    written = client.store(f"---\n{head}\n---\n# Mine\n".encode(), is_lfs=False)
    repo.commit("main", {"README.md": written}, "by hand")
    with pytest.raises(ValueError, match="README.md"):
        push_dataset(noisy_data, "user/d", config_name="r0.5", noise=noise)
    assert set(client.files("user/d", "dataset")) == {"README.md"}


@pytest.mark.parametrize("kind", ["lfs-put", "commit"])
def test_a_data_push_that_breaks_off_leaves_the_repository(client, noisy_data, noise, kind):
    repo = "user/docs-noisy"
    push_dataset(noisy_data, repo, config_name="r0.5", noise=noise)
    old = client.files(repo, "dataset")
    client.fail_next(kind, after_bytes=50)
    shorter = noisy_data["train"].select(range(5))
    with pytest.raises(ConnectionError, match="its previous commit"):
        push_dataset(shorter, repo, config_name="r0.5", noise=noise)
    assert client.files(repo, "dataset") == old
    client.heal()
    push_dataset(shorter, repo, config_name="r0.5", noise=noise)
    card = DatasetCard(client.files(repo, "dataset")["README.md"].decode())
    assert card.data["noise"][0]["splits"]["train"]["rows"] == 5


@pytest.mark.parametrize("kind", ["resolve", "download"])
def test_a_card_that_cannot_be_read_is_not_replaced(client, noisy_data, noise, kind):
    repo = "user/docs-noisy"
    push_dataset(noisy_data, repo, config_name="r0.5", noise=noise)
    head = client.head(repo, "dataset")
    client.fail_next(kind, after_bytes=10)
    with pytest.raises(ConnectionError, match=f"'{repo}'.*cannot be reached"):
        push_dataset(noisy_data, repo, config_name="r1.0", noise=noise)
    assert client.head(repo, "dataset") == head


def test_what_is_no_data_set_is_refused(client, noisy_data, noise, tmp_path):
    with pytest.raises(TypeError, match="split 'train' is a IterableDataset; materialise it first"):
        push_dataset(noisy_data["train"].to_iterable_dataset(), "user/x", config_name="r0.5", noise=noise)
    with pytest.raises(ValueError, match="config_name must be letters"):
        push_dataset(noisy_data, "user/x", config_name="../r0.5", noise=noise)
    with pytest.raises(ValueError, match="has no split"):
        push_dataset({}, "user/x", config_name="r0.5", noise=noise)
    with pytest.raises(FileNotFoundError, match="needs a README.md and the Parquet files it lists"):
        push_data_folder(tmp_path, "user/x")
    assert client.requests == [] and "user/x" not in os.listdir(tmp_path)
