"""What a push takes from a folder: what is on the list, without links that leave it, and through the filter."""

from __future__ import annotations

import json
import os
import pkgutil
import re
from pathlib import Path

import pytest
import safetensors.numpy
import transformers
import transformers.models

from hf_noise.hub.contents import TOKENIZER, WEIGHTS
from hf_noise.hub.filters import filtered
from hf_noise.hub.push import push_checkpoint, push_data_folder
from hf_noise.hub.reading import card_metadata
from hf_noise.reports.secrets import REMOVED

REPO = "user/gpt2-tiny"
HF = "hf_" + "aB3" * 11
PLAIN = {".gitattributes", "README.md", "config.json", "generation_config.json", "model.safetensors"}


def change_config(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_what_arrives_of_a_folder_full_of_secrets(client, checkpoint, tmp_path, caplog):
    """Keys, an env file, links and a token in config.json: the show of what is published."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_rsa").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    change_config(
        checkpoint, hub_token=HF, _name_or_path=str(home / "models" / "gpt2"), api_key="k", eos_token="<|end|>",
        note=f"uploaded with {HF} from https://me:pw@host/x", task_specific_params={"wandb": {"key": "abc"}},
    )  # fmt: skip
    for name in ("id_rsa", "secrets.env", ".env", "notes.txt", "train.py", "Config.json", "vocab.txt.bak", "model.zip"):
        (checkpoint / name).write_text("private")
    (checkpoint / "my-key.pem").symlink_to(home / ".ssh" / "id_rsa")
    (checkpoint / "ssh").symlink_to(home / ".ssh")
    (checkpoint / "merges.txt").write_text("#version: 0.2\na b\n")
    (checkpoint / "vocab.json").symlink_to("generation_config.json")  # within the folder
    (checkpoint / "tokenizer_config.json").write_text(
        json.dumps({"auth_token": "x", "boa_token": "<boa>", "name_or_path": str(home), "model_max_length": 10**30})
    )
    (checkpoint / "README.md").write_text(
        f"---\nlicense: mit\nbase_model: {home}/gpt2\n---\n# Mine\n\n`HF_TOKEN=abc python {home}/train.py`\n"
        "![a](img/a.png) <img src='./b.JPG'> ![out](../c.png) ![web](https://host/d.png)\n"
    )
    (checkpoint / "img").mkdir()
    for name, begins in (("img/a.png", b"\x89PNG"), ("b.JPG", b"\xff\xd8\xff"), ("not-shown.png", b"\x89PNG")):
        (checkpoint / name).write_bytes(begins)
    (tmp_path / "c.png").write_bytes(b"private")
    push_checkpoint(checkpoint, REPO)

    files = client.files(REPO)
    assert set(files) == PLAIN | {"merges.txt", "vocab.json", "tokenizer_config.json", "img/a.png", "b.JPG"}
    for name, content in files.items():
        text = content.decode(errors="replace")
        assert HF not in text and str(tmp_path) not in text and "PRIVATE" not in text and "me:pw" not in text, name
    config = json.loads(files["config.json"])
    assert not {"hub_token", "api_key"} & set(config) and config["task_specific_params"] == {"wandb": {}}
    assert config["note"] == "uploaded with <removed> from https://host/x" and config["_name_or_path"] == "gpt2"
    assert config["eos_token"] == "<|end|>" and config["vocab_size"] == 128
    assert json.loads(files["tokenizer_config.json"]) == {
        "boa_token": "<boa>", "name_or_path": home.name, "model_max_length": 10**30,
    }  # fmt: skip
    card = files["README.md"].decode()
    assert "base_model: gpt2" in card and "HF_TOKEN=<removed>" in card and "# Mine" in card
    told = caplog.text
    for name in ("id_rsa", "secrets.env", "my-key.pem", "ssh/", "train.py", "Config.json", "not-shown.png"):
        assert name in told
    assert "config.json: the published copy is without hub_token, " in told and HF not in told


def link_out(folder, private):
    (folder / "vocab.txt").symlink_to(private)


def link_of_weights(folder, private):
    (folder / "model.safetensors").replace(private.parent / "model.safetensors")
    (folder / "model.safetensors").symlink_to(private.parent / "model.safetensors")


def link_of_config(folder, private):
    (folder / "config.json").replace(private.parent / "config.json")
    (folder / "config.json").symlink_to(private.parent / "config.json")


def link_of_folder(folder, private):
    (folder / "tokenizer").symlink_to(private.parent)
    (private.parent / "vocab.json").write_text("{}")


def link_chain(folder, private):
    (folder / "a.txt").symlink_to(private)
    (folder / "merges.txt").symlink_to("a.txt")


def link_shown(folder, private):
    (folder / "README.md").write_text("![x](plot.png)")
    (folder / "plot.png").symlink_to(private)


@pytest.mark.parametrize("lay", [link_out, link_of_weights, link_of_config, link_of_folder, link_chain, link_shown])
def test_a_link_that_leaves_the_folder_is_refused_by_name(client, checkpoint, tmp_path, lay):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "id_rsa").write_text("private")
    lay(checkpoint, tmp_path / "private" / "id_rsa")
    with pytest.raises(ValueError, match="' in .* is a link to .*private.* outside of the folder.*copy the file there"):
        push_checkpoint(checkpoint, REPO)
    assert client.requests == []


def test_circles_dead_links_and_pipes(client, checkpoint):
    (checkpoint / "vocab.txt").symlink_to("merges.txt")
    (checkpoint / "merges.txt").symlink_to("vocab.txt")
    with pytest.raises(ValueError, match="'merges.txt' in .* is a link that leads nowhere"):
        push_checkpoint(checkpoint, REPO)
    (checkpoint / "vocab.txt").unlink()
    with pytest.raises(ValueError, match="'merges.txt' in .* is a link that leads nowhere"):
        push_checkpoint(checkpoint, REPO)
    (checkpoint / "merges.txt").unlink()
    os.mkfifo(checkpoint / "merges.txt")
    with pytest.raises(ValueError, match="'merges.txt' in .* is no plain file"):
        push_checkpoint(checkpoint, REPO)
    (checkpoint / "merges.txt").unlink()
    (checkpoint / "tokenizer").symlink_to(".")  # a circle of folders, which holds no end of names
    (checkpoint / "loop").symlink_to("loop")
    assert client.requests == []
    push_checkpoint(checkpoint, REPO)
    assert set(client.files(REPO)) == PLAIN


def test_a_linked_folder_and_a_snapshot_of_the_cache_are_folders_like_others(client, checkpoint, tmp_path):
    (tmp_path / "latest").symlink_to(checkpoint)
    push_checkpoint(tmp_path / "latest", REPO)
    assert set(client.files(REPO)) == PLAIN
    cached = tmp_path / "hub" / "models--user--x"
    snapshot = cached / "snapshots" / "0123abcd"
    (cached / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, name in enumerate(("config.json", "model.safetensors")):
        (cached / "blobs" / str(number)).write_bytes((checkpoint / name).read_bytes())
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    push_checkpoint(snapshot, "user/copy")
    assert set(client.files("user/copy")) == PLAIN - {"generation_config.json"}
    (snapshot / "vocab.txt").symlink_to(tmp_path / "latest" / "config.json")
    with pytest.raises(ValueError, match="'vocab.txt' in .* outside of the folder"):
        push_checkpoint(snapshot, "user/copy")


def test_a_data_folder_sends_what_its_card_lists(client, write_data, tmp_path, caplog):
    folder = write_data(tmp_path / "data", names=("r0.5",))
    (folder / "r0.5" / "train-notes.txt").write_text("x")
    (folder / "r0.5" / ".token").write_text(HF)
    (folder / "old").mkdir()
    (folder / "old" / "train-0.parquet").write_bytes(b"x")
    (folder / "secret.parquet").write_bytes(b"x")
    (folder / "tokenizer").mkdir()
    for name in ("vocab.json", "id_rsa", "tokenizer_config.json"):
        (folder / "tokenizer" / name).write_text("{}")
    push_data_folder(folder, "user/d")
    assert set(client.files("user/d", "dataset")) == {
        ".gitattributes", "README.md", "record.json", "r0.5/train-00000-of-00001.parquet",
        "r0.5/validation-00000-of-00001.parquet", "tokenizer/vocab.json", "tokenizer/tokenizer_config.json",
    }  # fmt: skip
    for name in ("r0.5/train-notes.txt", "old/", "secret.parquet", "tokenizer/id_rsa"):
        assert name in caplog.text
    (folder / "r0.5" / "train-00000-of-00001.parquet").rename(tmp_path / "away.parquet")
    (folder / "r0.5" / "train-00000-of-00001.parquet").symlink_to(tmp_path / "away.parquet")
    with pytest.raises(ValueError, match="outside of the folder"):
        push_data_folder(folder, "user/d")


#: `configs` of a card, and which of the Parquet files below go up.
LISTED = {
    "[{config_name: r0.5, data_files: [{split: train, path: r0.5/train-*}]}]": {"r0.5/train-0"},
    "[{config_name: a, data_files: [{split: train, path: [r0.5/train-0.parquet, dd/x.parquet]}]}]":
        {"r0.5/train-0", "dd/x"},
    "[{config_name: a, data_dir: dd}]": {"dd/x", "dd/deeper/y"},
    "[{config_name: a, data_dir: dd, data_files: '*.parquet'}]": {"dd/x"},
    "[{config_name: a, data_files: ./dd/x.parquet}]": {"dd/x"},
    "[{config_name: a, data_files: ['*', '.cache/y.parquet']}]": {"top"},
    "[{config_name: a, data_files: '**'}]": {"top", "r0.5/train-0", "r0.5/secret", "dd/x", "dd/deeper/y"},
    "[{config_name: r0.5, data_files: ../*}]": set(),
    "[]": set(),
}  # fmt: skip


@pytest.mark.parametrize("configs", LISTED)
def test_the_parquet_that_goes_up_is_what_the_card_lists(client, tmp_path, configs):
    (tmp_path / "README.md").write_text(f"---\nconfigs: {configs}\n---\n# x\n")
    for name in ("top", "r0.5/train-0", "r0.5/secret", "dd/x", "dd/deeper/y", ".cache/y", "__old/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.parquet").write_bytes(b"PAR1")
    if not LISTED[configs]:
        with pytest.raises(FileNotFoundError, match="needs a README.md and the Parquet files it lists"):
            push_data_folder(tmp_path, "user/d")
        return
    push_data_folder(tmp_path, "user/d")
    found = {name for name in client.files("user/d", "dataset") if name.endswith(".parquet")}
    assert found == {f"{name}.parquet" for name in LISTED[configs]}


@pytest.mark.parametrize(
    "configs",
    ["text", "[a]", "3", "[{config_name: a}]", "[{config_name: a, data_files: [{split: train, path: 5}]}]",
     "[{config_name: a, data_files: {train: a.parquet}}]", "[{config_name: a, data_dir: 5}]",
     "[{config_name: a, data_files: a/**b}]", "[{config_name: a, data_files: [[[a]]]}]"],
)  # fmt: skip
def test_a_card_whose_configurations_are_none_is_named(client, tmp_path, configs):
    (tmp_path / "README.md").write_text(f"---\nconfigs: {configs}\n---\n# x\n")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="README.md in .* lists the configuration .* mend `configs` there"):
        push_data_folder(tmp_path, "user/d")
    assert client.requests == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("vocab.json", json.dumps({HF: 5})), ("tokenizer.json", json.dumps({"model": {"vocab": {f"x{HF}": 1}}})),
     ("chat_template.jinja", f"{{# {HF} #}}"), ("tokenizer.model", f"\x01{HF}\x02"),
     ("tokenizer_config.json", json.dumps({"chat_template": f"use {HF}"})),
     ("special_tokens_map.json", json.dumps({"x_token": HF}))],
)  # fmt: skip
def test_a_token_in_what_a_model_reads_is_refused(client, checkpoint, name, content):
    (checkpoint / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} holds what looks like an access token .hf_aB3a.*nothing was pushed"):
        push_checkpoint(checkpoint, REPO)
    assert client.requests == []


def test_vocabularies_and_templates_are_never_altered(tmp_path):
    """Pieces that look like names of secrets, beginnings of tokens, paths and addresses."""
    pieces = ["hf_token", "hf_internaltestingmodels", "api_key=x1", "/home/me/x", "https://a:b@c", "password", "sk-"]
    vocabulary = {"model": {"vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": pieces}, "token": "x"}
    for name, text in {
        "tokenizer.json": json.dumps(vocabulary), "merges.txt": "\n".join(pieces),
        "chat_template.jinja": "{{ key='a1' }}", "added_tokens.json": json.dumps({"auth": 3, "/home/a/b": 4}),
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
        assert filtered(name, tmp_path / name) == tmp_path / name
    settings = {"chat_template": "token='a1'", "eos_token": {"content": "/home/me/x"}, "x_token": "/a/b/c",
                "added_tokens_decoder": {"1": {"content": "password=a1"}},
                "extra_special_tokens": {"api_key": "<k>"}}  # fmt: skip
    classes = {"id2label": {"0": "/home/me", "1": "key=a1"}, "split_token": "<split>", "hidden_key": "state"}
    for name, content in {"tokenizer_config.json": settings, "config.json": classes}.items():
        (tmp_path / name).write_text(json.dumps(content))
        assert filtered(name, tmp_path / name) == tmp_path / name


@pytest.mark.parametrize("secret", ["s3cr3tVALUE99", "fish"])
@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json", "tokenizer.json", "vocab.json"])
def test_text_under_the_name_of_a_credential_is_refused_in_what_a_model_reads(tmp_path, name, secret):
    path = tmp_path / name
    for content in (f'{{"hub_token": "{secret}"}}', f'{{"a": [{{"hub_token": "{secret}", "hub_token": 3}}]}}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"{name} has the key 'hub_token', .* save it again without that key"):
            filtered(name, path)
    path.write_text('{"user_token": "<|user|>", "hub_token": 3, "password": 4, "eos_token": "</s>", "token": "x"}')
    assert filtered(name, path) == path
    path.write_text("{")
    with pytest.raises(ValueError, match=f"{name} is half-written or not JSON"):
        filtered(name, path)


def test_metadata_of_weights(tmp_path):
    for name in ("model.safetensors", "model.backup.safetensors"):
        for metadata in ({"hub_token": "fish"}, {"args": '{"hub_token": "fish"}'}):
            safetensors.numpy.save_file({}, tmp_path / name, metadata=metadata)
            with pytest.raises(ValueError, match=f"{name} has .* key '{next(iter(metadata))}'"):
                filtered(name, tmp_path / name)
        safetensors.numpy.save_file({}, tmp_path / name, metadata={"format": "pt", "max_tokens": "5", "key": "x"})
        assert filtered(name, tmp_path / name) == tmp_path / name


def test_a_picture_and_parquet_are_looked_into(tmp_path):
    for name, begins in (("p.png", b"\x89PNG"), ("p.JPG", b"\xff\xd8\xff"), ("a/p.gif", b"GIF89a"),
                         ("p.webp", b"RIFF1234WEBP"), ("x.parquet", b"PAR1")):  # fmt: skip
        path = tmp_path / Path(name).name
        path.write_bytes(begins + b"more")
        assert filtered(name, path) == path
        path.write_text("swordfish")
        with pytest.raises(ValueError, match=f"{name} begins with b'swordfish', not as its name says"):
            filtered(name, path)


#: Metadata of a card, and what is published of it.
HEADS = {
    "password: correct horse # mine\nlicense: mit": {"password": REMOVED, "license": "mit"},
    "a: {b: {password: x y, c: 1}}": {"a": {"b": {"password": REMOVED, "c": 1}}},
    "api_key: |\n  hunter2\n\n  more\n\nlicense: mit": {"api_key": REMOVED, "license": "mit"},
    "passwords:\n- a b\n- c d\nlicense: mit": {"passwords": REMOVED, "license": "mit"},
    "auth:\n  user: a b\n  pass: c d\nx: [{smtp_pass: 'a b'}]": {"auth": REMOVED, "x": [{"smtp_pass": REMOVED}]},
    "? hub_token\n: 'a\n  b'": {"hub_token": REMOVED},
    "'hub_token': \"a\\nb\"": {"hub_token": REMOVED},
    "hub_token: null\ntags: [token, key]\nkey_dim: a b\neos_token: a b": None,
    "x: &a {license: mit}\ny: *a": None,
}


@pytest.mark.parametrize("head", HEADS)
def test_metadata_of_a_card_are_filtered_by_their_keys(tmp_path, head):
    path = tmp_path / "README.md"
    for end in ("\n", "\r\n"):
        path.write_bytes(f"---\n{head}\n---\n\n# Mine\n".replace("\n", end).encode())
        published = filtered("README.md", path)
        if HEADS[head] is None:
            assert published == path
        else:
            assert published.decode().endswith(f"{end}---{end}{end}# Mine{end}")
            path.write_bytes(published)
            assert card_metadata(path) == HEADS[head]


def test_a_credential_that_others_point_to_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("---\npassword: &a fish and chips\nother: *a\n---\n")
    with pytest.raises(ValueError, match="the metadata of README.md hold a credential that cannot be taken out"):
        filtered("README.md", tmp_path / "README.md")


def test_arguments_and_pairs_in_a_configuration(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"argv": ["x.py", "--hub_token", "fish", "--lr", 1], "env": [
        {"name": "HF_TOKEN", "value": "fish"}, {"name": "seed", "value": "fish"}]}))
    assert json.loads(filtered("config.json", path)) == {"argv": ["x.py", "--lr", 1], "env": [
        {"name": "HF_TOKEN"}, {"name": "seed", "value": "fish"}]}


def test_default_configurations_of_transformers_stay_as_they_are(tmp_path):
    """A sample of them; `CONFIG_MAPPING` has hundreds."""
    path = tmp_path / "config.json"
    for kind in ("gpt2", "bert", "llama", "t5", "vit", "whisper", "clip", "qwen2_vl", "reformer"):
        path.write_text(transformers.CONFIG_MAPPING[kind]().to_json_string(use_diff=False))
        assert filtered("config.json", path) == path, kind


def test_json_that_hides_or_breaks_is_no_way_around(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"hub_token": "swordfish", "a": 1, "hub_token": null}')  # readers see the second alone
    assert b"swordfish" not in filtered("config.json", path)
    path.write_text('{"some_token": "aB3aB3aB3aB3", "a": 1}')
    assert json.loads(filtered("config.json", path)) == {"a": 1}
    path.write_text('{"hub_token": "swordfish"')
    with pytest.raises(ValueError, match="config.json is half-written or not JSON"):
        filtered("config.json", path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="config.json is half-written or not JSON"):
        filtered("config.json", path)
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="README.md is no text in UTF-8"):
        filtered("README.md", tmp_path / "README.md")
    safetensors.numpy.save_file({}, tmp_path / "model.safetensors", metadata={"by": HF})
    with pytest.raises(ValueError, match="model.safetensors holds what looks like an access token"):
        filtered("model.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "model.fp16.safetensors").write_bytes(b"\xff" * 9)
    with pytest.raises(ValueError, match="model.fp16.safetensors is half-written"):
        filtered("model.fp16.safetensors", tmp_path / "model.fp16.safetensors")


def test_an_index_names_files_of_its_folder_only(client, checkpoint):
    for name in ("../other/model-00001-of-00002.safetensors", "/etc/passwd", 3):
        (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ValueError, match="which is no file of weights beside it"):
            push_checkpoint(checkpoint, REPO)
    tensors = safetensors.numpy.load_file(checkpoint / "model.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    (checkpoint / "model-00001-of-00001.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="holds both model.safetensors and the shards"):
        push_checkpoint(checkpoint, REPO)


def test_the_list_has_every_file_of_a_tokenizer_that_transformers_names():
    names = set()
    for module in pkgutil.iter_modules(transformers.models.__path__):
        for file in Path(transformers.models.__path__[0], module.name).glob("tokenization_*.py"):
            names |= set(re.findall(r'"[a-z_]+_file": "([^"]+)"', file.read_text()))
    assert {"vocab.json", "spiece.model", "tokenizer.json"} <= names
    # Of models whose vocabulary is a pickle or a tensor.
    assert {name for name in names - set(TOKENIZER) if not name.endswith((".bin", ".pkl", ".pt"))} == set()


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [("model.safetensors", True), ("model-00001-of-00002.safetensors", True), ("model.fp16.safetensors", True),
     ("model.fp16-00001-of-00002.safetensors", True), ("model.safetensors.index.json", True),
     ("diffusion_pytorch_model.safetensors.index.fp16.json", True), ("adapter_model.safetensors", True),
     ("model_backup.safetensors", False), ("model copy.safetensors", False), ("hf_noise_state.safetensors", False),
     ("model.safetensors.tmp", False), ("MODEL.safetensors", False), ("optimizer.safetensors", False)],
)  # fmt: skip
def test_names_of_weights(name, is_ours):
    assert bool(WEIGHTS.fullmatch(name)) == is_ours
