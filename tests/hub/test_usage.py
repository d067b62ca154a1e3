"""Each line of code that a card prints, run as it stands in a new Python process: the same rows, weights and noise."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from diffusers import UNet2DModel
from huggingface_hub import HfApi, ModelCard
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BitImageProcessor, PreTrainedTokenizerFast

from hf_noise.diffusion import EDMHeunScheduler, EDMPipeline
from hf_noise.hub.card import model_card
from hf_noise.hub.push import push_checkpoint, push_dataset
from hf_noise.models.image import image_classifier
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips
from hf_noise.reports.record import RunRecord

# In the new process: what the blocks of code of a card leave behind.
RUN = r"""
import json, re, sys
from pathlib import Path
from huggingface_hub import RepoCard
def run(name, kind="dataset"):
    local = Path(name, "README.md")
    text = local.read_text() if local.exists() else RepoCard.load(name, repo_type=kind).content
    blocks = re.findall(r"^(`{3,})python\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    left = {}
    for _, block in blocks:
        exec(block, left)
    return left
"""


def put(api: HfApi, repo: str, columns: dict, features: dict, folder: Path) -> None:
    """A small data set with a train and a test split on the Hub."""
    api.create_repo(repo, repo_type="dataset")
    for split in ("train", "test"):
        datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(folder / "part.parquet")
        name = f"data/{split}-00000-of-00001.parquet"
        content = (folder / "part.parquet").read_bytes()
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo, repo_type="dataset")


def png(number: int) -> dict:
    stream = io.BytesIO()
    PIL.Image.new("L", (2, 2), number).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def test_the_code_of_data_cards_gives_their_rows(client, fresh_python, noisy_data, noise, tmp_path):
    labels, pictures = np.arange(60) % 10, [png(number) for number in range(60)]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)}
    put(HfApi(), "user/fashion", {"image": pictures, "label": labels}, kinds, tmp_path)
    people = {"image": pictures, "label": labels, "human_worse": (labels + (labels % 3 == 0)) % 10}
    put(HfApi(), "user/people", people, kinds | {"human_worse": datasets.Value("int64")}, tmp_path)
    sentences = [f"Document {i} is a short text about noise, long enough for a row of tokens." for i in range(2000)]
    (tmp_path / "my text.txt").write_text("\n\n".join(sentences))
    push_dataset(noisy_data, "user/rows", config_name="r0.5", noise=noise)
    other = noisy_data["train"].map(lambda row: {"labels": row["clean_labels"][::-1]})
    push_dataset(other, "user/not-of-this-noise", config_name="r0.5", noise=noise)
    text = ["--name", "hf_noise/owt-noisy", "--source", str(tmp_path / "my text.txt"), "--block_size", "32"]
    published = {
        "user/fashion-noisy": ["--name", "hf_noise/mnist-noisy", "--source", "user/fashion", "--protocol", "cyclic",
                               "--ratios", "0.3333333333333333", "--seed", "3"],
        "user/people-noisy": ["--name", "hf_noise/cifar10-noisy", "--protocol", "human:worse",
                              "--source", "user/people"],
        "user/digits-noisy": ["--name", "hf_noise/digits-noisy", "--protocol", "symmetric", "pairs", "--ratios", "1"],
        "user/docs-noisy": ["--ratios", "0.5"],
        "user/text-noisy": [*text, "--ratios", "1", "--seed", "5"],
    }  # fmt: skip
    told = fresh_python(f"""
import json
from hf_noise.studies.publishing import study as recipe
for repo, arguments in json.loads({json.dumps(json.dumps(published))}).items():
    recipe.main([*arguments, "--output", "runs/" + repo[5:], "--push_to_hub", repo])
recipe.main([*{published["user/digits-noisy"]!r}, "--output", "here"])
""")
    assert "pushed" in told
    out = fresh_python(RUN + f"""
from datasets import Image, load_dataset
import numpy as np
def plain(rows):
    for name, feature in rows.features.items():
        if isinstance(feature, Image):
            rows = rows.cast_column(name, Image(decode=False))
    return rows.to_dict()
found = {{}}
for name in {[*published, "here", "user/rows", "user/not-of-this-noise"]!r}:
    left = run(name)
    data, noise = left["data"], left["noise"]
    assert list(left["stream"].take(3)) == list(data.take(3))
    if "rows" in left:
        column = "labels" if "labels" in data.features else "label"
        np.testing.assert_array_equal(left["noisy"], left["rows"][column][:])
        np.testing.assert_array_equal(left["is_noisy"], left["rows"]["is_noisy"][:])
        assert left["is_noisy"].any()
    if "again" in left:
        for split, rows in load_dataset(name, data.info.config_name).items():
            assert plain(rows) == plain(left["again"][split]) and len(rows), (name, split)
        assert plain(data) == plain(left["again"]["train"])
    tokens = left["tokenizer"].decode(data[0]["clean_labels"]) if "tokenizer" in left else ""
    found[name] = [sorted({{"rows", "again", "tokenizer"}} & set(left)), noise.to_dict(), tokens]
print(json.dumps(found))
""")  # fmt: skip
    found = json.loads(out.splitlines()[-1])
    assert {name: printed for name, (printed, _, _) in found.items()} == {
        "user/fashion-noisy": ["again", "rows"], "user/people-noisy": ["again"], "user/digits-noisy": ["again", "rows"],
        "user/docs-noisy": ["again", "rows", "tokenizer"], "user/text-noisy": ["rows", "tokenizer"],
        "here": ["again", "rows"], "user/rows": ["rows"], "user/not-of-this-noise": [],
    }  # fmt: skip
    assert found["user/fashion-noisy"][1]["seed"] == 3 and found["user/rows"][1] == noise.to_dict()
    assert "short text about noise" in found["user/text-noisy"][2]
    cards = {name: client.files(name, "dataset")["README.md"].decode() for name in found if "/" in name}
    assert 'source="user/fashion"' in cards["user/fashion-noisy"] and str(tmp_path) not in "".join(cards.values())
    assert "`my text.txt` is a file or folder of those who made this" in cards["user/text-noisy"]
    assert "hf_noise.load_dataset" not in cards["user/text-noisy"]


def run_record(task: str, noise, **changes) -> RunRecord:
    values = {
        "name": "r1", "task": task, "recipe": "recipes/x.py", "model": {"name": "a network"},
        "data": {"source": "embedded/digits", "classes": 3, "image_size": 8, "channels": 1},
        "noise": noise.to_dict(), "budget": {"steps": 3}, "loss": {"name": "corrected", "source": "known"},
        "settings": {}, "seed": 0, "wall_seconds": 1.0, "metrics": {"accuracy": {"value": 0.75, "n": 64}},
    }  # fmt: skip
    return RunRecord(**values | changes)


@pytest.fixture
def models(tmp_path):
    """One tiny network of each kind that has a card, in its folder."""
    torch.manual_seed(0)
    noise = LabelFlips.cyclic(ratio=1, num_classes=3, seed=4)
    classifier = image_classifier("resnet10-digits", labels=["a", "b", "c"], image_size=8, num_channels=1).eval()
    classifier.config.hf_noise = noise.to_dict()
    of_noise = TimeDependentClassifier(
        num_classes=3, image_size=8, num_channels=1, architecture="cnn-digits", transition=noise.transition.tolist(),
        transition_source="known", hf_noise=noise.to_dict(),
    ).eval()  # fmt: skip
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, num_class_embeds=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    pipeline = EDMPipeline(unet, EDMHeunScheduler(), hf_noise=noise.to_dict())
    found = {"classifier": classifier, "of-noise": of_noise, "pipeline": pipeline}
    for name, model in found.items():
        model.save_pretrained(tmp_path / name)
    return noise, found


def test_the_code_of_model_cards_gives_their_weights_and_noise(
    client, checkpoint, record, noise, models, fresh_python, tmp_path
):
    flips, networks = models
    push_checkpoint(checkpoint, "user/short")
    push_checkpoint(checkpoint, "user/bare", record=record, private=True)  # its record names a tokenizer; it has none
    pieces = {chr(33 + number): number for number in range(90)}
    words = Tokenizer(WordLevel(pieces, unk_token="!"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="!").save_pretrained(checkpoint)
    push_checkpoint(checkpoint, "user/language", record=record)
    BitImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "classifier")
    config = networks["classifier"].config.to_dict()
    push_checkpoint(tmp_path / "classifier", "user/classifier", record=run_record(
        "image_classification", flips, model={"name": "resnet10", "config": {"model_type": config["model_type"]}},
    ))  # fmt: skip
    push_checkpoint(tmp_path / "of-noise", "user/of-noise", record=run_record("noisy_classification", flips))
    push_checkpoint(tmp_path / "pipeline", "user/pipeline", record=run_record("class_conditional_generation", flips))
    local = tmp_path / "elsewhere" / "runs" / "local"  # of a run that was not pushed, seen from where it was started
    shutil.copytree(checkpoint, local)
    (local / "README.md").write_text(str(model_card(record, repo_id="runs/local")))
    out = fresh_python(RUN + r"""
import hashlib
def digest(module):
    state = sorted(module.state_dict().items())
    return {name: hashlib.sha256(t.cpu().numpy().tobytes()).hexdigest() for name, t in state}
found = {}
for name in ("short", "bare", "language", "classifier", "of-noise", "pipeline", "runs/local"):
    left = run(name if "/" in name else "user/" + name, "model")
    network = left.get("model") or left.get("classifier")
    if "pipeline" in left:
        network, images = left["pipeline"].unet, left["images"]
        assert len(images) == 2
    shape = tuple(left["probabilities"].shape) if "probabilities" in left else None
    names = sorted({"model", "tokenizer", "processor", "pipeline", "classifier"} & set(left))
    classes = getattr(getattr(network, "config", None), "id2label", None)
    found[name] = [names, left["noise"].to_dict(), digest(network) if network is not None else {}, shape, classes]
print(json.dumps(found))
""")
    found = json.loads(out.splitlines()[-1])
    assert {name: told[0] for name, told in found.items()} == {
        "short": [], "bare": ["model"], "language": ["model", "tokenizer"], "classifier": ["model", "processor"],
        "of-noise": ["classifier"], "pipeline": ["pipeline"], "runs/local": ["model", "tokenizer"],
    }  # fmt: skip
    for name, (_, stated, *_) in found.items():
        assert stated == (flips if name in ("classifier", "of-noise", "pipeline") else noise).to_dict()
    def digest(state):
        return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in state.items()}

    saved = digest(safetensors.torch.load_file(checkpoint / "model.safetensors"))
    for name in ("bare", "language", "runs/local"):
        assert saved.items() <= found[name][2].items()
    assert found["classifier"][2] == digest(networks["classifier"].state_dict())
    assert found["of-noise"][2] == digest(networks["of-noise"].state_dict()) and found["of-noise"][3] == [1, 3]
    assert found["classifier"][4] == {"0": "a", "1": "b", "2": "c"}
    card = ModelCard(client.files("user/language")["README.md"].decode())
    assert len(card.data.eval_results) == len(record.metrics) + 1  # perplexity is derived
    assert card.data.noise["config"] == noise.to_dict()
    assert found["pipeline"][2] == digest(networks["pipeline"].unet.state_dict())

