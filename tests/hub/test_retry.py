"""A Hub that is too busy, or whose answers get lost: what is asked again, how long is waited, and what is said."""

from __future__ import annotations

import pytest
from huggingface_hub import DatasetCard

from hf_noise.hub.push import push_checkpoint, push_dataset

REPO = "user/gpt2-tiny"


@pytest.mark.parametrize("status", [None, 502, 504])
def test_a_commit_whose_answer_was_lost_is_not_made_twice(client, checkpoint, record, status, weights):
    """The connection breaks off, or a gateway gives up, after the Hub stored the commit."""
    if status is None:
        client.fail_next("commit-answer", times=1)
    else:
        client.refuse_next("commit-answer", status)
    info = push_checkpoint(checkpoint, REPO, record=record)
    assert info.oid == client.head(REPO) and len(client.repo(REPO).commits) == 2
    assert client.files(REPO)["model.safetensors"] == weights()
    assert client.asked("commit") == 1


def test_a_lost_answer_and_somebody_else_s_commit_are_told_apart(
    client, checkpoint, record, monkeypatch, weights, change_weights
):
    """The gateway gave up, and what the repository holds now is not ours."""
    push_checkpoint(checkpoint, REPO, record=record)
    change_weights()
    commit = type(client).commit

    def theirs(self, repo, rev, lines):
        monkeypatch.setattr(type(client), "commit", commit)
        return commit(self, repo, rev, [{"key": "header", "value": {"summary": "theirs"}}])

    monkeypatch.setattr(type(client), "commit", theirs)
    client.refuse_next("commit-answer", 504)
    with pytest.raises(RuntimeError, match="changed while this push was under way; nothing was overwritten"):
        push_checkpoint(checkpoint, REPO, record=record)
    assert client.files(REPO)["model.safetensors"] != weights() and client.asked("commit") == 2


@pytest.mark.parametrize(
    "step",
    ["create", "branch", "info", "tree", "validate-yaml", "preupload", "lfs-batch", "lfs-put", "lfs-verify", "commit"],
)
def test_what_the_hub_is_too_busy_for_is_asked_again(client, checkpoint, record, step, waits, weights):
    for status in (429, 500, 503):
        client.refuse_next(step, status)
    push_checkpoint(checkpoint, REPO, record=record, revision="r1")
    assert client.files(REPO, revision="r1")["model.safetensors"] == weights()
    assert len(client.repo(REPO).commits) == 2
    growing = [wait for wait in waits if wait >= 1]
    assert growing == [1, 2, 4]


def test_the_hub_says_how_long_to_wait(client, checkpoint, record, waits):
    client.refuse_next("commit", 429, headers={"Retry-After": "20"})
    client.refuse_next("create", 429, headers={"RateLimit": '"api";r=0;t=33', "Retry-After": "5"})
    push_checkpoint(checkpoint, REPO, record=record)
    assert [wait for wait in waits if wait >= 1] == [34, 21]
    client.refuse_next("info", 503, headers={"Retry-After": "86400"})
    with pytest.raises(RuntimeError, match="HTTP 503"):  # nobody waits for a day
        push_checkpoint(checkpoint, REPO, record=record)


def test_a_hub_that_stays_busy_is_given_up(client, checkpoint, record, waits, change_weights):
    first = push_checkpoint(checkpoint, REPO, record=record)
    change_weights()
    client.requests.clear()
    client.refuse_next("commit", 503, times=100, message="maintenance")
    with pytest.raises(RuntimeError, match="503, and still so after several tries: maintenance.*same push again"):
        push_checkpoint(checkpoint, REPO, record=record)
    assert client.head(REPO) == first.oid and client.asked("commit") == 6
    client.heal()
    client.refuse_next("create", 429, times=100)
    with pytest.raises(RuntimeError, match="too many requests.*HTTP 429.*wait first"):
        push_checkpoint(checkpoint, REPO, record=record)


@pytest.mark.parametrize("step", ["info", "resolve", "preupload", "commit"])
def test_a_busy_hub_gets_a_data_set_as_well(client, noisy_data, noise, step):
    push_dataset(noisy_data, "user/d", config_name="r0.5", noise=noise)
    client.refuse_next(step, 500, times=2)
    push_dataset(noisy_data, "user/d", config_name="r1.0", noise=noise)
    card = DatasetCard(client.files("user/d", "dataset")["README.md"].decode())
    assert [block["config_name"] for block in card.data["noise"]] == ["r0.5", "r1.0"]


@pytest.mark.parametrize("step", ["lfs-put", "commit", "preupload"])
def test_too_large_names_the_files_and_is_not_to_be_repeated(client, checkpoint, record, step):
    client.refuse_next(step, 413, message="payload too large")
    with pytest.raises(RuntimeError, match="too large .*payload too large.*model.safetensors .*bytes") as raised:
        push_checkpoint(checkpoint, REPO, record=record)
    assert "smaller shards" in str(raised.value) and "again" not in str(raised.value)
    assert ("uploading 'model.safetensors'" in str(raised.value)) == (step == "lfs-put")


@pytest.mark.parametrize("status", [400, 409, 422])
def test_what_the_hub_refuses_is_to_be_mended(client, checkpoint, record, status, waits):
    client.refuse_next("commit", status, message="a file name is reserved")
    with pytest.raises(RuntimeError, match=f"refused .*HTTP {status}.: a file name is reserved.*mend what") as raised:
        push_checkpoint(checkpoint, REPO, record=record)
    assert "same push again" not in str(raised.value) and client.asked("commit") == 1
    assert not [wait for wait in waits if wait >= 1]
