"""Into which folders a data set is written, and what becomes of the configurations that are there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from datasets import load_dataset

from hf_noise import load_noise
from hf_noise.studies.publishing import study as publish_dataset

WORDS = " ".join(f"Sentence {number} of a short text about noise." for number in range(4))


@pytest.fixture
def publish(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "other"):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"{name} {number} {WORDS}" for number in range(300)))

    def publish(*arguments, source="one.txt", seed="3"):
        fixed = ["--name", "hf_noise/owt-noisy", "--block_size", "32", "--tokenizer", "embedded:300"]
        return publish_dataset.main([*fixed, "--source", source, "--seed", seed, "--output", "out", *arguments])

    return publish


def listed():
    return [config["config_name"] for config in json.loads(Path("out/record.json").read_text())["configs"]]


@pytest.mark.parametrize("extra", [[], ["--dry_run"]])
@pytest.mark.parametrize(
    ("there", "named"),
    [
        ({"README.md": "mine", "record.json": "{}"}, "README.md, record.json, and no data set of this recipe.*schema"),
        ({"a/0.png": "", "b/0.png": ""}, "a, b, and no data set of this recipe; choose a new folder"),
        ({"run.json": '{"learning_rate": 1}', "model.safetensors": ""}, "model.safetensors, run.json, and no data set"),
    ],
)
def test_the_folder_of_somebody_else_is_refused_before_anything_is_built(publish, tmp_path, there, named, extra):
    for name, text in there.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    with pytest.raises(FileExistsError, match=f"--output out holds {named}"):
        publish("--ratios", "0.5", *extra)
    files = {str(file.relative_to(tmp_path / "out")): file.read_text() for file in (tmp_path / "out").rglob("*.*")}
    assert files == there
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileExistsError, match="--output out is a file"):
        publish("--ratios", "0.5", *extra)


def test_configurations_of_earlier_starts_stay(publish, tmp_path):
    publish("--ratios", "0", "0.5")
    before = json.loads((tmp_path / "out" / "record.json").read_text())["configs"]
    publish("--ratios", "1", "0.5")
    assert listed() == ["r0.0", "r1.0", "r0.5"]
    after = json.loads((tmp_path / "out" / "record.json").read_text())["configs"]
    assert after[0] == before[0] and after[2] == before[1]
    rows = [load_dataset("./out", name, split="train", cache_dir="cache") for name in listed()]
    assert rows[0]["clean_labels"][:] == rows[1]["clean_labels"][:] and rows[0]["labels"][:] != rows[1]["labels"][:]
    for changed, told in (({"source": "other.txt"}, "another source"), ({"seed": "4"}, "another seed")):
        with pytest.raises(FileExistsError, match=f"--output out holds data with {told}; choose another folder"):
            publish("--ratios", "1", **changed)
    with pytest.raises(FileExistsError, match="another vocab_size, block_size"):
        publish("--ratios", "1", "--tokenizer", "embedded:301", "--block_size", "16")
    with pytest.raises(FileExistsError, match="holds hf_noise/owt-noisy, not hf_noise/docs-noisy"):
        publish("--name", "hf_noise/docs-noisy")
    os.utime("one.txt", (1, 1))  # the file was written again
    with pytest.raises(FileExistsError, match=r"other settings \(source\)"):
        publish("--ratios", "1")
    assert listed() == ["r0.0", "r1.0", "r0.5"]


def test_a_start_that_was_stopped_goes_on_and_what_was_deleted_is_not_listed(publish, tmp_path):
    publish("--ratios", "0", "0.5")
    (tmp_path / "out" / "record.json").unlink()
    publish("--ratios", "0.5")
    shutil.rmtree(tmp_path / "out" / "r0.5")
    (tmp_path / "out" / "run.json").unlink()  # as before this was written
    publish("--ratios", "1")
    assert listed() == ["r1.0"]


def test_one_name_is_not_of_two_protocols(tmp_path, capsys):
    digits = ["--name", "hf_noise/digits-noisy", "--output", str(tmp_path / "out"), "--ratios", "0", "1"]
    publish_dataset.main(digits)
    with pytest.raises(FileExistsError, match="'r1.0' of the protocol symmetric, not cyclic; name both, as with "
                                              "--protocol symmetric cyclic"):  # fmt: skip
        publish_dataset.main([*digits, "--protocol", "cyclic"])
    publish_dataset.main([*digits, "--protocol", "symmetric", "cyclic"])
    names = [config["config_name"] for config in json.loads((tmp_path / "out" / "record.json").read_text())["configs"]]
    assert names == ["r0.0", "r1.0", "cyclic-r1.0"]


def test_labels_of_a_table_of_one_s_own(tmp_path, monkeypatch):
    """Words in a CSV, with a column of their own: the classes, held-out rows and rates are those of `load_dataset`."""
    monkeypatch.chdir(tmp_path)
    words = ["owl", "cat", "dog"]
    Path("mine.csv").write_text("finding,note\n" + "".join(f"{words[i % 3]},note {i}\n" for i in range(90)))
    own = ["--name", "hf_noise/noisy", "--source", "mine.csv", "--column", "finding", "--ratios", "0", "1"]
    publish_dataset.main([*own, "--test_fraction", "0.3", "--output", "out"])
    record = json.loads(Path("out/record.json").read_text())
    assert record["data"]["classes"] == 3 and record["data"]["task_categories"] == ["text-classification"]
    noisy, clean = (load_dataset("parquet", data_dir=f"out/{name}") for name in ("r1.0", "r0.0"))
    assert noisy["train"].features["finding"].names == ["cat", "dog", "owl"]
    assert set(noisy["train"]["note"]).isdisjoint(noisy["test"]["note"])
    assert len(noisy["train"]) + len(noisy["test"]) == 90 and not any(noisy["test"]["is_noisy"])
    assert noisy["train"]["clean_finding"] == clean["train"]["clean_finding"]
    with pytest.raises(FileExistsError, match="other settings"):
        publish_dataset.main([*own, "--test_fraction", "0.5", "--output", "out"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "hf_noise/noisy"], "--name hf_noise/noisy needs --source"),
        (["--name", "hf_noise/docs-noisy", "--column", "x"], "--column x: hf_noise/docs-noisy is of text"),
        (["--name", "hf_noise/digits-noisy", "--documents", "line"], "--documents line: hf_noise/digits-noisy is of"),
        (["--name", "hf_noise/digits-noisy", "--resize"], "--image_size and --resize go together"),
        (["--protocol", "cyclic"], "unknown --protocol cyclic; hf_noise/docs-noisy is of text: uniform-tokens"),
        (["--protocol", "uniform-tokens", "random-documents"], "have different columns; write them to two folders"),
        (["--protocol", "random-documents", "--ratios", "0.5"], "--ratios: the share of random-documents is --alpha"),
        (["--alpha", "0.5"], "--alpha is for documents of noise: --protocol "),
        (["--placement", "append"], "--placement is for documents of noise"),
        (["--protocol", "random-documents", "--alpha", "1"], "--alpha"),
        (["--name", "hf_noise/packed"], "hf_noise/packed has clean rows, or documents of noise among them; give --pro"),
        (["--name", "hf_noise/digits-noisy", "--protocol", "random-documents"], "is of labels: symmetric"),
    ],
)
def test_what_is_of_other_data_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        publish_dataset.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["hf_noise/owt-noisy", "hf_noise/packed"])
def test_documents_of_noise_are_published_to_the_end(publish, tmp_path, name):
    """The folder loads back as plain Parquet and as its noise; the card says alpha, columns and entropy."""
    asked = ["--name", name, "--protocol", "random-documents", "gaussian_documents", "--alpha", "0", "0.2"]
    folder = publish(*asked, "--placement", "interleave", "--documents", "paragraph")
    assert listed() == ["alpha0.0", "alpha0.2", "gaussian-documents-alpha0.2"]
    card = (folder / "README.md").read_text()
    noise = load_noise(folder, config_name="alpha0.2")
    assert noise.alpha == 0.2 and noise.placement == "interleave" and noise.seed == 3
    assert f"| random_documents | 0.2 | {noise.entropy:.4f} | 0.2000 of " in card and "`noise_share`" in card
    gaussian = load_noise(folder, config_name="gaussian-documents-alpha0.2")
    assert f"| gaussian_documents | 0.2 | {gaussian.entropy:.4f} | 0.2000 of " in card
    rows = load_dataset(str(folder), "alpha0.2", split="train", cache_dir=str(tmp_path / "cache"))
    assert sum(map(sum, rows["is_noisy"])) == pytest.approx(0.2 * 32 * len(rows), abs=0.5)
    assert ("labels" in rows.column_names) == (name == "hf_noise/owt-noisy")
    assert sum(0 < share < 1 for share in rows["noise_share"]) > 0
    if name == "hf_noise/owt-noisy":
        with pytest.raises(FileExistsError, match="holds documents with the columns .*, and noise on tokens"):
            publish("--ratios", "0.5", "--documents", "paragraph")
