"""Over HTTP: pushed here, loaded in a new Python process with an empty cache by the stock clients."""

from __future__ import annotations

import json
import shutil

import pytest
from huggingface_hub import DatasetCard

from hf_noise.hub.load import load_noise
from hf_noise.hub.push import push_dataset
from hf_noise.studies.publishing import run as writing
from hf_noise.studies.publishing import study as recipe


def test_a_pushed_data_set_is_read_without_hf_noise(client, noisy_data, noise, fresh_python):
    push_dataset(noisy_data, "user/noisy", config_name="r0.5", noise=noise)
    push_dataset(noisy_data["train"], "user/noisy", config_name="r1.0", noise=noise)
    out = fresh_python(
        """
import json, sys
from datasets import get_dataset_config_names, load_dataset
data = load_dataset("user/noisy", "r0.5")
default = load_dataset("user/noisy")
stream = load_dataset("user/noisy", "r0.5", split="train", streaming=True)
print(json.dumps([
    {split: rows.to_dict() for split, rows in data.items()}, list(stream), list(default),
    str(data["train"].features), get_dataset_config_names("user/noisy"), "hf_noise" in sys.modules,
]))
""",
        PYTHONPATH="",
    )
    rows, stream, default, features, names, imported = json.loads(out.splitlines()[-1])
    assert rows == {split: part.to_dict() for split, part in noisy_data.items()}
    assert stream == list(noisy_data["train"])
    assert default == ["train", "validation"]  # the first configuration is the default
    assert features == str(noisy_data["train"].features)
    assert names == ["r0.5", "r1.0"] and not imported
    assert load_noise("user/noisy", config_name="r1.0") == noise



def test_a_file_whose_name_begins_like_ours_is_somebody_s_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("embedded_texts.parquet", "embedded"):
        assert not writing.is_local(name)  # may be on the Hub
        (tmp_path / name).write_text("x")
        assert writing.is_local(name)
    (tmp_path / "embedded").unlink()
    (tmp_path / "embedded" / "digits").mkdir(parents=True)
    assert not writing.is_local("embedded/digits") and writing.is_local({"a": "embedded/digits", "b": "embedded"})


def test_the_recipe_writes_configurations_that_load_from_their_folder(client, tmp_path, capsys):
    import datasets
    from transformers import AutoTokenizer

    documents = [
        f"Document {i} is a short text about noise, long enough for a row of tokens." for i in range(2000)
    ]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    arguments = ["--name", "hf_noise/owt-noisy", "--source", str(tmp_path / "text.txt"), "--block_size", "32",
                 "--license", "cc0-1.0", "--seed", "3"]  # fmt: skip
    folder = recipe.main(
        [*arguments, "--ratios", "0", "1", "--output", str(tmp_path / "out"), "--push_to_hub", "user/out"]
    )
    for where in (folder, "user/out"):
        found = load_noise(where, config_name="r1.0")
        assert (found.ratio, found.seed) == (1.0, 3)
    data = datasets.load_dataset(str(folder), "r1.0", split="train", cache_dir=str(tmp_path / "cache"))
    clean = datasets.load_dataset(str(folder), "r0.0", split="train", cache_dir=str(tmp_path / "cache"))
    assert data["clean_labels"] == clean["labels"] and data["labels"] != clean["labels"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    assert "text about noise" in tokenizer.decode(clean[0]["labels"])
    card = DatasetCard.load(folder / "README.md")
    block = card.data["noise"][1]
    units = sum(map(len, data["is_noisy"]))
    assert block["realised"] == {"rate": sum(map(sum, data["is_noisy"])) / units, "n": units}
    assert card.data.license == "cc0-1.0"
    assert str(tmp_path) not in (folder / "README.md").read_text() + (folder / "record.json").read_text()

    # Another set of rates in the same folder stands beside those that are there; what was deleted does not go up.
    for ratios, names in ((["0.5"], ["r0.0", "r1.0", "r0.5"]), (["1"], ["r0.5", "r1.0"])):
        recipe.main([*arguments, "--ratios", *ratios, "--output", str(folder), "--push_to_hub", "user/out"])
        listed = [config["config_name"] for config in DatasetCard.load(folder / "README.md").data["configs"]]
        parts = {name.split("/")[0] for name in client.files("user/out", "dataset") if name.endswith(".parquet")}
        assert listed == names and parts == set(names)
        shutil.rmtree(folder / "r0.0", ignore_errors=True)


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert recipe.main(["--ratios", "0.5", "--output", str(tmp_path / "out"), "--dry_run"]) is None
    assert "e = 0.3333" in capsys.readouterr().out and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        recipe.main(["--ratios", "-0.2", "--output", str(tmp_path / "out")])
    assert "--ratios must be >= 0 and <= 1.09951e+12, got -0.2" in capsys.readouterr().err


def test_clean_rows_alone_are_no_noisy_data_to_publish(capsys):
    with pytest.raises(SystemExit):
        recipe.main(["--name", "hf_noise/packed"])
    assert "clean rows, or documents of noise among them; give --protocol" in capsys.readouterr().err


def test_builders_that_do_not_exist_are_refused(capsys):
    with pytest.raises(SystemExit):
        recipe.main(["--name", "other"])
    # Newer Pythons leave the quotes out.
    message = capsys.readouterr().err.replace("'", "")
    assert "choose from hf_noise/cifar10-noisy" in message and "hf_noise/owt-noisy" in message


def test_labels_of_several_protocols_are_published(client, tmp_path):
    import datasets

    out = tmp_path / "digits"
    arguments = ["--name", "hf_noise/digits-noisy", "--protocol", "symmetric", "cyclic", "--ratios", "0", "1"]
    recipe.main([*arguments, "--output", str(out), "--push_to_hub", "user/digits"])
    assert load_noise("user/digits", config_name="cyclic-r1.0").kind == "cyclic"
    card = DatasetCard.load(out / "README.md")
    assert card.data.license == "cc-by-4.0" and card.data["task_categories"] == ["image-classification"]
    assert [config["config_name"] for config in card.data["configs"]] == ["r0.0", "r1.0", "cyclic-r1.0"]
    rates = [block["realised"]["rate"] for block in card.data["noise"]]
    assert rates[0] == 0 and 0.4 < rates[1] < 0.6 and "the class, NOISY" in card.text
    rows = datasets.load_dataset(str(out), "cyclic-r1.0", split="train", cache_dir=str(tmp_path / "cache"))
    noisy, clean, wrong = rows["label"][:], rows["clean_label"][:], rows["is_noisy"][:]
    assert [(a + b) % 10 for a, b in zip(clean, wrong)] == noisy and rows[0]["image"].size == (8, 8)
    assert sum(wrong) / len(wrong) == rates[2]


def test_the_labels_of_people_take_no_ratio(capsys):
    name = ["--name", "hf_noise/cifar10-noisy", "--protocol", "human:worse"]
    with pytest.raises(SystemExit):
        recipe.main([*name, "--ratios", "0.5"])
    assert "have the rate that they have" in capsys.readouterr().err
    assert recipe.main([*name, "--dry_run"]) is None
    assert "human-worse    e as it is" in capsys.readouterr().out
    assert recipe.main([*name, "cyclic", "pairs", "--ratios", "0", "1", "--dry_run"]) is None
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == ["r0.0", "r1.0", "pairs-r1.0", "human-worse"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--name", "hf_noise/digits-noisy", "--protocol", "symmetrc"],
      "unknown --protocol symmetrc; hf_noise/digits-noisy is of labels: symmetric"),
     (["--protocol", "cyclic"], "unknown --protocol cyclic; hf_noise/docs-noisy is of text: uniform-tokens")],
)
def test_what_cannot_be_published_is_refused_at_once(arguments, message, capsys):
    with pytest.raises(SystemExit):
        recipe.main([*arguments, "--dry_run"])
    assert message in capsys.readouterr().err
