"""What sources name, and that their shards depend on the files alone."""

from __future__ import annotations

import gzip
import json
import os
import pickle

import PIL.Image
import pytest
from datasets import Dataset, DatasetDict, Value, load_dataset
from huggingface_hub import DatasetCard

from hf_noise.data import sources
from hf_noise.data.reading import check_column, with_features
from hf_noise.data.sources import find_source, find_splits, source_identity


def texts(source, split="train", column="text", batch_size=7):
    found = find_source(source)
    return [
        [text for table in shard.tables(batch_size, [column]) for text in table[column].to_pylist()]
        for shard in found.shards(found.splits()[split])
    ]


def test_small_files_go_together(corpus, documents, monkeypatch):
    parts = [documents[part::3] for part in range(3)]
    assert texts(corpus) == [sum(parts, [])]
    size = sum(os.path.getsize(file) for file in find_source(corpus).files)
    monkeypatch.setattr(sources, "_SHARD_BYTES", size // 2 + 1)
    assert texts(corpus) == [parts[0] + parts[1], parts[2]]
    monkeypatch.setattr(sources, "_SHARD_BYTES", 1)
    assert texts(corpus) == parts


def test_shards_follow_the_size_of_their_own_split(tmp_path, monkeypatch):
    files = {"train-0.txt": "a" * 400, "train-1.txt": "b" * 400, "test-0.txt": "c", "test-1.txt": "d"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sources, "_SHARD_BYTES", 500)
    assert texts(tmp_path) == [["a" * 400], ["b" * 400]]
    assert texts(tmp_path, "test") == [["c", "d"]]


def test_parquet_files_go_together_too(tmp_path, documents):
    for part in range(3):
        Dataset.from_dict({"text": documents[part * 10 : part * 10 + 10]}).to_parquet(tmp_path / f"{part}.parquet")
    assert texts(tmp_path) == [documents[:30]]


def test_parquet_is_cut_at_row_groups(parquet, documents, monkeypatch):
    assert texts(parquet) == [documents]
    monkeypatch.setattr(sources, "_SHARD_BYTES", os.path.getsize(parquet) // 3)
    cut = texts(parquet)
    assert 3 <= len(cut) <= 6 and sum(cut, []) == documents
    monkeypatch.setattr(sources, "_SHARD_BYTES", 1)
    assert [len(part) for part in texts(parquet)] == [50] * 6


def test_shards_pickle(corpus, monkeypatch):
    monkeypatch.setattr(sources, "_SHARD_BYTES", 1)
    found = find_source(corpus)
    shard = found.shards(found.splits()["train"])[1]
    copy = pickle.loads(pickle.dumps(shard))
    assert copy.index == 1
    assert next(copy.tables(5)).equals(next(shard.tables(5)))


@pytest.mark.parametrize("ending", ["txt", "md", "txt.gz"])
def test_text_files_part_documents_at_blank_lines(tmp_path, ending):
    file = tmp_path / f"a.{ending}"
    write = gzip.open if ending.endswith("gz") else open
    with write(file, "wt") as stream:
        stream.write("one\nstill one\n\ntwo\n\nthree\n")
    assert texts(str(file)) == [["one\nstill one", "two", "three\n"]]


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "arrow", "parquet"])
def test_kinds(tmp_path, ending, documents):
    file = tmp_path / f"a.{ending}"
    rows = Dataset.from_dict({"text": documents[:20]})
    if ending == "arrow":
        rows.save_to_disk(tmp_path / "saved")
        file = next((tmp_path / "saved").glob("*.arrow"))
    else:
        getattr(rows, f"to_{ending.removesuffix('l')}")(file)
    assert texts(str(file)) == [documents[:20]]


def test_tsv(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tn\nsome, words\t1\n")
    assert texts(str(tmp_path / "a.tsv")) == [["some, words"]]


def test_folder_with_splits(tmp_path, documents):
    for split, part in {"train": documents[:10], "validation": documents[10:15]}.items():
        Dataset.from_dict({"text": part}).to_parquet(tmp_path / f"{split}-00000.parquet")
    assert texts(tmp_path) == [documents[:10]]
    assert texts(tmp_path, "validation") == [documents[10:15]]


def test_a_published_folder_with_its_card(tmp_path, documents):
    configs = {"small": documents[:3], "large": documents[:9]}
    for config, part in configs.items():
        (tmp_path / config).mkdir()
        Dataset.from_dict({"text": part}).to_parquet(tmp_path / config / "train-00000-of-00001.parquet")
    listed = [{"config_name": name, "data_files": f"{name}/train-*.parquet"} for name in configs]
    DatasetCard(f"---\nconfigs: {json.dumps(listed)}\n---\n# Text").save(tmp_path / "README.md")
    (tmp_path / "record.json").write_text("{}")
    found = {name: find_source(tmp_path, name) for name in configs}
    for name, part in configs.items():
        (shard,) = found[name].shards(found[name].splits()["train"])
        assert [text for table in shard.tables(100) for text in table["text"].to_pylist()] == part
    assert found["small"].identity != found["large"].identity


def columns(found):
    return {split: dataset.column_names for split, (_, dataset) in found.items()}


def test_splits_may_differ_in_their_columns(tmp_path):
    for name, column in {"some-train": "a", "some-test": "b", "some_dev": "c"}.items():
        Dataset.from_dict({"x": [1], column: [2]}).to_parquet(tmp_path / f"{name}.parquet")
    expected = {"train": ["x", "a"], "test": ["x", "b"], "validation": ["x", "c"]}
    by_name = {split: str(tmp_path / f"some{end}.parquet") for split, end in
               {"train": "-train", "test": "-test", "validation": "_dev"}.items()}
    for source in (tmp_path, str(tmp_path / "*.parquet"), by_name):
        found = find_splits(source)
        assert columns(found) == expected
        for split, (part, dataset) in found.items():
            (shard,) = part.shards(dataset)
            assert next(shard.tables(5)).column_names == expected[split]
            assert part.narrowed(dataset, ["x"]).column_names == ["x"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["a", "b"], {"train": 2}),
        (["latest", "strain"], {"train": 2}),  # words inside words
        (["test-a", "test-b"], {"test": 2}),
        (["mnist-test", "mnist-train", "mnist_valid.1"], {"test": 1, "train": 1, "validation": 1}),
        (["Train", "TEST", "extra"], {"train": 2, "test": 1}),
    ],
)
def test_splits_of_a_glob(tmp_path, names, splits):
    for name in names:
        (tmp_path / f"{name}.jsonl").write_text('{"x": 1}\n')
    found = find_splits(str(tmp_path / "*.jsonl"))
    expected = splits if len(splits) > 1 else {"train": 2}  # one kind of name alone is the train split, as for a file
    assert {split: sum(1 for _ in dataset) for split, (_, dataset) in found.items()} == expected


def test_a_source_for_each_split(tmp_path, corpus):
    Dataset.from_dict({"x": [1]}).to_parquet(tmp_path / "some" / "train.parquet")
    Dataset.from_dict({"x": [2]}).to_parquet(tmp_path / "some" / "validation.parquet")
    found = find_splits({"train": str(tmp_path / "some"), "test": str(tmp_path / "some" / "validation.parquet")})
    assert {split: next(iter(dataset))["x"] for split, (_, dataset) in found.items()} == {"train": 1, "test": 2}
    with pytest.raises(ValueError, match="for the split 'test' has the splits train, validation"):
        find_splits({"test": str(tmp_path / "some")})
    both = {"train": corpus, "test": str(tmp_path / "some")}
    assert len({source_identity(source) for source in (both, {"train": corpus}, corpus)}) == 3
    assert source_identity(both) == source_identity(dict(reversed(both.items())))


def test_folder_of_images(tmp_path):
    import PIL.Image

    for folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / folder).mkdir(parents=True)
        PIL.Image.new("L", (2, 2)).save(tmp_path / folder / "1.png")
    found = find_splits(tmp_path)
    assert columns(found) == {"train": ["image", "label"], "test": ["image", "label"]}
    source, dataset = found["train"]
    assert source.is_image_folder and dataset.features["label"].names == ["cat", "dog"]
    assert [len(table) for shard in source.shards(dataset) for table in shard.tables(5)] == [2]
    before = source_identity(tmp_path)
    (tmp_path / "README.md").write_text("About these images.")
    assert source_identity(tmp_path) == before and columns(find_splits(tmp_path)) == columns(found)


def test_folder_of_data_with_an_image(tmp_path):
    import PIL.Image

    Dataset.from_dict({"x": [1]}).to_parquet(tmp_path / "train.parquet")
    PIL.Image.new("L", (2, 2)).save(tmp_path / "logo.png")
    assert columns(find_splits(tmp_path)) == {"train": ["x"]}


def test_folder_of_text(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    (tmp_path / ".hidden.txt").write_text("no")
    assert texts(tmp_path) == [["one", "two"]]


def test_folder_of_notes_in_markdown(tmp_path):
    for name in ("train/a.md", "train/b/c.md", "test/d.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n\ntext")
    assert texts(tmp_path) == [["# train/a.md", "text", "# train/b/c.md", "text"]]
    assert texts(tmp_path, "test") == [["# test/d.md", "text"]]
    assert {split: part.files for split, (part, _) in find_splits(tmp_path).items()} == {
        "train": (str(tmp_path / "train/a.md"), str(tmp_path / "train/b/c.md")),
        "test": (str(tmp_path / "test/d.md"),),
    }
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "some.md").write_text("x")
    assert texts(tmp_path / "e") == [["x"]]


def test_embedded():
    from hf_noise.data.embedded import docs_text

    parts = texts("embedded/docs-text")
    assert len(parts) == 4 and sum(parts, []) == docs_text("train")
    assert texts("embedded/docs-text", "validation") == [docs_text("validation")]


def test_identity_follows_the_content(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one")
    before = find_source(file).identity
    assert find_source(str(file)).identity == before
    file.write_text("one two")
    assert find_source(file).identity != before


@pytest.mark.parametrize("name", ["metadata.csv", "train/metadata.jsonl", "train/0.png", "more.zip", "train/x.ppm"])
def test_identity_of_images_follows_all_that_shapes_the_rows(tmp_path, name):
    import PIL.Image

    (tmp_path / "train").mkdir()
    for number in range(3):
        PIL.Image.new("L", (2, 2)).save(tmp_path / "train" / f"{number}.png")
    seen = {find_source(tmp_path).identity}
    for content in ("file_name,label\n0.png,0\n", "file_name,label\n0.png,1\n"):
        (tmp_path / name).write_text(content)
        os.utime(tmp_path / name, ns=(len(seen), len(seen)))
        seen.add(find_source(tmp_path).identity)
    assert len(seen) == 3
    for about in ("LICENSE.txt", "record.json", ".hidden"):
        (tmp_path / about).write_text("of the pictures")
    assert find_source(tmp_path).identity in seen


def test_labels_of_a_folder_of_images_arrive_when_they_are_mended(tmp_path):
    import PIL.Image

    (tmp_path / "own" / "train").mkdir(parents=True)
    for number in range(4):
        PIL.Image.new("L", (2, 2), number).save(tmp_path / "own" / "train" / f"{number}.png")
    for labels in ([0, 1, 2, 0], [1, 2, 0, 1]):
        lines = "".join(f"{number}.png,{label}\n" for number, label in enumerate(labels))
        (tmp_path / "own" / "train" / "metadata.csv").write_text(f"file_name,label\n{lines}")
        rows = load_dataset("hf_noise/noisy", source=str(tmp_path / "own"), column="label", num_classes=3, r=0.0,
                            split="train", cache_dir=str(tmp_path / "cache"))  # fmt: skip
        assert rows["label"][:] == labels


def test_identity_of_a_folder_follows_what_its_card_says_of_splits_and_types(tmp_path):
    Dataset.from_dict({"x": [1]}).to_parquet(tmp_path / "a.parquet")
    seen = [find_source(tmp_path).identity]
    (tmp_path / "README.md").write_text("# Text about the data")
    assert find_source(tmp_path).identity == seen[0]
    for splits in ("train", "test"):
        configs = json.dumps([{"config_name": "some", "data_files": {splits: "a.parquet"}}])
        for text in ("# Text", "# Another"):
            (tmp_path / "README.md").write_text(f"---\nconfigs: {configs}\n---\n{text}")
        seen.append(find_source(tmp_path).identity)
    (tmp_path / "dataset_infos.json").write_text("{}")
    seen.append(find_source(tmp_path).identity)
    assert len(set(seen)) == 4


def test_identity_does_not_depend_on_the_folder_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    assert find_source("a.txt").identity == find_source(tmp_path / "a.txt").identity


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/file", "no file or folder"), ("missing.parquet", "no file or folder"), ("./missing", "no file"),
        ("a/b/c", "no file or folder"), ("missing-*.parquet", "no file matches"),
    ],
)
def test_missing(source, message):
    with pytest.raises(FileNotFoundError, match=message):
        find_source(source)


def test_a_path_is_looked_for_before_the_hub_is_asked(monkeypatch):
    monkeypatch.setattr(sources, "load_dataset_builder", lambda *_, **__: pytest.fail("asked"))
    for name in ("./missing", "/missing", "../missing", "~/missing", "a/b/c", "missing.csv.gz", "missing/*.txt"):
        for given in (name, {"train": name}):
            with pytest.raises(FileNotFoundError, match=r"searched from"):
                find_splits(given)


@pytest.mark.parametrize("given", ["*.jsonl", ""])
def test_links_that_lead_nowhere_are_named(tmp_path, given):
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="b.jsonl is a link to '.*gone', which is not there"):
        find_source(str(tmp_path / given))
    (tmp_path / "gone").write_text('{"x": 2}\n')
    assert texts(str(tmp_path / given), column="x") == [[1, 2]]


def test_folders_among_files_are_named(tmp_path):
    Dataset.from_dict({"x": [1]}).to_parquet(tmp_path / "a.parquet")
    Dataset.from_dict({"x": [2]}).to_parquet(tmp_path / "b.parquet" / "part-0.parquet")
    with pytest.raises(ValueError, match=r"matches the folder .*b.parquet; name its files too, as with .*b.parquet/\*"):
        find_source(str(tmp_path / "*.parquet"))
    assert texts(str(tmp_path / "**" / "*-0.parquet"), column="x") == [[2]]


def test_an_empty_file_is_seen_before_anything_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_text("")
    for name in ("*.txt", "b.txt", ""):
        with pytest.raises(ValueError, match="b.txt of the source .* is empty: it has no rows"):
            find_source(str(tmp_path / name))
    (tmp_path / "a.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="is empty"):
        check_column(find_source(tmp_path / "a.jsonl").splits()["train"], "text", "a.jsonl", "text_column")


def test_folder_without_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no data files"):
        find_source(tmp_path)


def test_unreadable_kinds(tmp_path):
    (tmp_path / "a.zip").write_text("")
    with pytest.raises(ValueError, match="no known kind"):
        find_source(tmp_path / "a.zip")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match=r"several kinds \(.json, .txt\)"):
        find_source(tmp_path)


def test_embedded_digits():
    found = find_splits("embedded/digits")
    assert {split: len(part.shards(dataset)) for split, (part, dataset) in found.items()} == {"train": 1, "test": 1}


def test_a_folder_called_embedded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded" / "own").mkdir(parents=True)
    (tmp_path / "embedded" / "own" / "a.txt").write_text("one\n\ntwo")
    for name in ("embedded/own", "embedded/own/*.txt", "embedded/own/a.txt"):
        assert texts(name) == [["one", "two"]]
    test_unknown_embedded()


@pytest.mark.parametrize(("place", "is_image"), [("text", False), ("pictures", True)])
def test_linked_folders_are_refused(tmp_path, place, is_image):
    for part in ("own/a", "own/b", "elsewhere"):
        (tmp_path / part).mkdir(parents=True)
        if is_image:
            PIL.Image.new("L", (2, 2)).save(tmp_path / part / "0.png")
        else:
            (tmp_path / part / "0.txt").write_text("a text")
    assert len(find_source(tmp_path / "own").files) == 2
    (tmp_path / "own" / ".hidden").symlink_to(tmp_path / "elsewhere")
    assert len(find_source(tmp_path / "own").files) == 2
    (tmp_path / "own" / "c").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="own/c is a link to the folder .*elsewhere.*put the folder itself"):
        find_source(tmp_path / "own")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert len(find_source(tmp_path / "link").files) == 1  # what the user names may be a link


def test_what_save_to_disk_wrote_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = Dataset.from_dict({"text": ["one", "two"]})
    rows.save_to_disk("rows")
    DatasetDict(train=rows, test=rows).save_to_disk("splits")
    for name, remedy in {"rows": "rows/*.arrow", "splits": "splits/train/*.arrow"}.items():
        with pytest.raises(ValueError, match="save_to_disk.*load_from_disk") as error:
            find_source(name)
        assert f"source='{remedy}'" in str(error.value) and texts(remedy) == [["one", "two"]]


def test_unknown_embedded():
    with pytest.raises(ValueError, match="'embedded/docs-text' and 'embedded/digits'"):
        find_source("embedded/nothing")


def test_no_network():
    with pytest.raises(ConnectionError, match="'nobody/nothing'.*source="):
        find_source("nobody/nothing").splits()


def test_columns(corpus, parquet):
    for source in (corpus, parquet):
        dataset = find_source(source).splits()["train"]
        check_column(dataset, "text", source, "text_column")
        with pytest.raises(ValueError, match="no column 'words'; it has 'text', '.*': choose one with text_column="):
            check_column(dataset, "words", source, "text_column")
    assert with_features(find_source(corpus).splits()["train"], corpus).features["length"] == Value("int64")


def test_rows_beyond_the_first_batch_may_be_null(tmp_path):
    rows = [{"text": "a"}, {"text": None}, {"text": "b"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert texts(tmp_path / "a.jsonl", batch_size=1) == [["a", None, "b"]]
