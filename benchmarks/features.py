"""Features of texts and images, extracted and kept, against a bare loop over the same network.

    python benchmarks/features.py [--quick] [--output benchmarks/results/features.json]

The texts are those of the embedded task, the networks have random weights. See benchmarks/README.md for the bar.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from compare import Report, Spread, arguments, interleave, ratio, start
from PIL import Image
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hf_noise.data.backbones import ImageBackbone, TextBackbone
from hf_noise.data.embedded import embedded_tokenizer
from hf_noise.data.features import SHARD_ROWS, extract_features
from hf_noise.data.passages import docs_topics_files

VOCABULARY, BATCH = 1024, 32
# Of all-MiniLM-L6-v2.
LAYERS, WIDTH, HEADS = 6, 384, 12


def encoder(folder: Path, is_quick: bool) -> TextBackbone:
    """An encoder of MiniLM's shape, in `--quick` one of a layer."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY + 1, hidden_size=WIDTH, num_hidden_layers=1 if is_quick else LAYERS,
        num_attention_heads=HEADS, intermediate_size=4 * WIDTH, max_position_embeddings=256, pad_token_id=VOCABULARY,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer: PreTrainedTokenizerFast = embedded_tokenizer(VOCABULARY)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    return TextBackbone.load(folder, pooling="mean", device="cpu")


def bare_texts(backbone: TextBackbone, texts: list[str]) -> np.ndarray:
    """What everybody writes: texts of a shard by length, padded by the tokenizer, and the mean over tokens."""
    found = np.empty((len(texts), WIDTH), np.float32)
    for start_of in range(0, len(texts), SHARD_ROWS):
        rows = range(start_of, min(start_of + SHARD_ROWS, len(texts)))
        order = sorted(rows, key=lambda row: len(texts[row]), reverse=True)
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            told = backbone.tokenizer(
                [texts[row] for row in batch], padding=True, truncation=True, max_length=backbone.max_length,
                return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                states = backbone.model(
                    input_ids=told["input_ids"], attention_mask=told["attention_mask"]
                ).last_hidden_state
                mask = told["attention_mask"][..., None]
                found[batch] = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return found


def image_network(folder: Path) -> ImageBackbone:
    """timm's resnet18 as a checkpoint of its own, for 64 pixels."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=10)
    folder.mkdir()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    told = {key: model.pretrained_cfg[key] for key in ("input_size", "interpolation", "crop_pct", "mean", "std",
            "pool_size", "first_conv", "classifier")}  # fmt: skip
    config = {"architecture": "resnet18", "num_classes": 10, "num_features": model.num_features,
              "pretrained_cfg": told | {"fixed_input_size": False, "num_classes": 10}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return ImageBackbone.load(folder, image_size=64, device="cpu")


def pictures(n: int) -> list[bytes]:
    """Encoded images of 32 x 32 pixels."""
    draw, found = np.random.default_rng(0), []
    for _ in range(n):
        stream = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def bare_images(backbone: ImageBackbone, contents: list[bytes]) -> np.ndarray:
    """What everybody writes for images: decode, process, run."""
    parts = []
    for first in range(0, len(contents), BATCH):
        images = [Image.open(io.BytesIO(one)).convert("RGB") for one in contents[first : first + BATCH]]
        with torch.inference_mode():
            pixels = backbone.processor(images=images, return_tensors="pt")["pixel_values"]
            parts.append(backbone.model(pixel_values=pixels).pooler_output)
    return torch.cat(parts).numpy()


def compare(report: Report, what: str, backbone: Any, contents: list, bare: Any, rounds: int, folder: Path) -> None:
    """Extraction into an empty cache against the bare loop; and what it takes to find the features again."""
    caches = (folder / f"{what}-{number}" for number in range(10**6))
    kept = folder / f"{what}-kept"

    def extract(cache: Path) -> np.ndarray:
        return extract_features(backbone, contents, batch_size=BATCH, cache=cache, progress=False).features

    apart = float(np.abs(extract(kept) - bare(backbone, contents)).max())
    report.equal(f"features of {what}", apart < 1e-4, f"{apart:.1e}, {len(contents)} rows")
    variants = {
        "bare": lambda: bare(backbone, contents), "extract": lambda: extract(next(caches)),
        "find": lambda: extract(kept),
    }  # fmt: skip
    times = interleave(variants, rounds)
    report.add(f"extraction, {what}", Spread.of(len(contents) / times["extract"]), unit="rows/s")
    report.add(f"extraction / bare loop, {what}", ratio(times["extract"], times["bare"]), at_most=1.05)
    report.add(f"found in the cache / bare loop, {what}", ratio(times["find"], times["bare"]), at_most=0.05)


def main(argv: list[str] | None = None) -> int:
    args = arguments(__doc__).parse_args(argv)
    start(args)
    rounds = args.rounds or (2 if args.quick else 7)
    report = Report("Features of frozen networks", {"batch": BATCH, "shard": SHARD_ROWS, "rounds": rounds})
    import pyarrow.parquet as pq

    texts = pq.read_table(docs_topics_files("test")[0])["text"].to_pylist()
    n = 8 if args.quick else 256
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compare(report, "texts", encoder(folder / "encoder", args.quick), texts[:n], bare_texts, rounds, folder)
        compare(report, "images", image_network(folder / "images"), pictures(n), bare_images, rounds, folder)
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
