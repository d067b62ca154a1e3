"""Sources on the Hub: a new commit is another source, and text files there are held out whole."""

from __future__ import annotations

import json

from datasets import Dataset
from huggingface_hub import CommitOperationAdd, HfApi

LOAD = """
import datasets, hf_noise, json
def labels():
    return hf_noise.load_dataset("hf_noise/noisy", source="user/labels", column="label", num_classes=3, r=0.0,
                                 split="train")["label"][:]
"""
WORDS = [f"x{a}{b}x" for a in "abc" for b in "abc"]


def test_a_commit_and_whole_files(hub, client, fresh_python, tmp_path):
    api = HfApi()
    api.create_repo("user/labels", repo_type="dataset")
    put = lambda content, name, repo: api.upload_file(  # noqa: E731
        path_or_fileobj=content, path_in_repo=name, repo_id=repo, repo_type="dataset"
    )

    def labels(values):
        Dataset.from_dict({"label": values}).to_parquet(tmp_path / "part.parquet")
        put((tmp_path / "part.parquet").read_bytes(), "data/train-00000-of-00001.parquet", "user/labels")

    api.create_repo("user/texts", repo_type="dataset")
    lines = {word: "\n".join(f"{word} line {i} of this file" for i in range(9)).encode() for word in WORDS}
    files = [CommitOperationAdd(f"{word}.txt", content) for word, content in lines.items()]
    api.create_commit("user/texts", files, commit_message="texts", repo_type="dataset")
    labels([0, 1, 2])
    out = fresh_python(
        LOAD
        + """
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = ["<eos>"] + [f"x{a}{b}x" for a in "abc" for b in "abc"]
backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<eos>"))
backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="<eos>")
stream = hf_noise.load_dataset("hf_noise/packed", source="user/texts", tokenizer=tokenizer, block_size=4,
                               validation_fraction=0.4, streaming=True)
texts = {split: [words[n] for row in rows for n in row["input_ids"]] for split, rows in stream.items()}
print(json.dumps([labels(), texts]))
"""
    )
    rows, texts = json.loads(out.splitlines()[-1])
    train, validation = ({word for word in WORDS if word in texts[split]} for split in ("train", "validation"))
    assert rows == [0, 1, 2]
    assert not train & validation and train | validation == set(WORDS) and train and validation

    labels([1, 2, 0])
    out = fresh_python(
        LOAD
        + """
mended = labels()
import huggingface_hub
from hf_noise.data import hub_revision
huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
hub_revision._asked.cache_clear()
print(json.dumps([mended, labels()]))
"""
    )
    # Without the Hub, what was built of the commit that was seen last.
    assert json.loads(out.splitlines()[-1]) == [[1, 2, 0], [1, 2, 0]]
