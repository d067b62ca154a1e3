"""Frozen networks of transformers and timm as makers of features; and what they read of a row.

A text's feature is the hidden state of the last layer: that of the prompt's last token (Saunshi et al. 2021, which
paper B follows), or the mean over tokens. An image's is what the network pools, in front of its classifier.
"""

from __future__ import annotations

import io
import os
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from hf_noise.data.backbone_files import read_from
from hf_noise.data.features import UnusableContentError, processes_of_run
from hf_noise.noise.checks import check_choice, check_count
from hf_noise.positions import learned_positions

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

__all__ = ["POOLINGS", "ImageBackbone", "TextBackbone", "image_contents", "prompt_fields", "text_contents"]

POOLINGS = ("last", "mean")
DTYPES = ("float32", "bfloat16")
#: Tokens of a text where neither tokenizer nor network says how many it takes.
_USUAL_LENGTH = 512


class TextBackbone:
    """An encoder or a causal language model that turns texts into features; made by `load`.

    Texts are padded on the right and masked, so that a feature is that of its text alone. Those that are too long lose
    their beginning where the last token counts, and their end where the mean does.
    """

    def __init__(self, model: Any, tokenizer: Any, pooling: str, max_length: int, identity: dict[str, Any]):
        self.model, self.tokenizer, self.pooling, self.max_length = model, tokenizer, pooling, max_length
        self.identity = identity
        pad = tokenizer.pad_token_id
        # Masked positions never count, so any token stands for a missing one.
        self._pad = tokenizer.eos_token_id or 0 if pad is None else pad

    @classmethod
    def load(
        cls, name: str | os.PathLike, *, pooling: str = "last", max_length: int | None = None,
        revision: str | None = None, dtype: str = "float32", device: Any = None,
    ) -> TextBackbone:  # fmt: skip
        """A network and its tokenizer, from a folder or the Hub; only safetensors are read, and no code of theirs.

        Args:
            name: folder, or repository on the Hub.
            pooling: "last" takes the last token of the text, "mean" the mean over its tokens.
            max_length: of a text in tokens; by default as many as network and tokenizer take.
            revision: of a repository.
            dtype: "float32" or "bfloat16", in which the network runs; features are float32.
            device: by default that of this process.

        Raises:
            OSError: there is no such network or tokenizer.
            ValueError: weights are missing, or an argument is out of its range.
        """
        from transformers import AutoModel, AutoTokenizer

        check_choice("pooling", pooling, POOLINGS)
        name = _place(name)
        model, identity = _loaded(AutoModel, name, revision, dtype)
        del identity["missing"]  # a pooler, which is not used
        tokenizer = _read("tokenizer", name, AutoTokenizer.from_pretrained, name, revision=revision)
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        most = _longest(model, tokenizer)
        max_length = most if max_length is None else check_count("max_length", max_length, 1, 31)
        if max_length > most:
            raise ValueError(f"max_length must be at most {most}, which {name} takes, got {max_length}")
        side = "left" if pooling == "last" else "right"
        tokenizer.truncation_side = side
        identity |= {"kind": "text", "pooling": pooling, "max_length": max_length, "truncated": side}
        return cls(model.to(_device(device)), tokenizer, pooling, max_length, identity)

    def cost(self, content: str) -> float:
        return len(content)

    def __call__(self, contents: Sequence[str]) -> tuple[Tensor, int]:
        """Features float32 [B, d], and how many texts have as many tokens as are read at most."""
        import torch

        ids = self.tokenizer(list(contents), truncation=True, max_length=self.max_length)["input_ids"]
        lengths = torch.tensor([len(one) for one in ids])
        if not lengths.min():
            empty = int(lengths.argmin())
            raise UnusableContentError(empty, f"the text {contents[empty]!r:.40} has no tokens, and so no feature")
        width = int(lengths.max())
        padded = torch.tensor([one + [self._pad] * (width - len(one)) for one in ids])
        device = self.model.device
        mask = torch.arange(width) < lengths[:, None]  # [B, L]
        with torch.inference_mode():
            told = {"input_ids": padded.to(device), "attention_mask": mask.long().to(device)}
            states = self.model(**told).last_hidden_state.float()  # [B, L, d]
            if self.pooling == "last":
                rows = torch.arange(len(ids), device=device)
                return states[rows, lengths.to(device) - 1], int((lengths == self.max_length).sum())
            weight = mask.to(device)[..., None].float()
            return (states * weight).sum(1) / weight.sum(1), int((lengths == self.max_length).sum())


class ImageBackbone:
    """An image network of timm or transformers that turns pictures into features; made by `load`."""

    def __init__(self, model: Any, processor: Any, is_pooled: bool, identity: dict[str, Any]):
        self.model, self.processor, self._is_pooled, self.identity = model, processor, is_pooled, identity

    @classmethod
    def load(
        cls, name: str | os.PathLike, *, image_size: int | None = None, revision: str | None = None,
        dtype: str = "float32", device: Any = None,
    ) -> ImageBackbone:  # fmt: skip
        """A network and how it wants its pictures, from a folder, the Hub, or by a name of timm's.

        Its features are what it pools over positions (`pooler_output`), or the mean over positions where it has no
        trained pooling.

        Args:
            name: folder (a checkpoint of transformers, or of timm: config.json and model.safetensors), repository on
                the Hub, or a network that timm has weights of, such as "efficientnet_lite0".
            image_size: pixels of a side, of networks of timm; by default what it was trained on.
            revision, dtype, device: as of `TextBackbone.load`.

        Raises as `TextBackbone.load`.
        """
        from transformers import AutoImageProcessor, AutoModel, TimmWrapperConfig

        name = _of_timm(_place(name))
        model, identity = _loaded(AutoModel, name, revision, dtype)
        processor = _read("image processor", name, AutoImageProcessor.from_pretrained, name, revision=revision)
        if image_size is not None:
            size = check_count("image_size", image_size, 1, 14)
            if not isinstance(model.config, TimmWrapperConfig):
                raise ValueError(
                    f"image_size={size} is for networks of timm; {name} takes what its preprocessor_config.json says"
                )
            options = processor.to_dict()
            pretrained = model.config.pretrained_cfg | {"input_size": [3, size, size]}
            processor = type(processor)(pretrained_cfg=pretrained, architecture=options["architecture"])
            identity["image_size"] = size
        is_pooled = not any("pooler" in key for key in identity.pop("missing"))
        identity |= {"kind": "image", "pooling": "its own" if is_pooled else "mean"}
        return cls(model.to(_device(device)), processor, is_pooled, identity)

    def cost(self, content: bytes) -> float:
        return 0.0  # all images become as large

    def __call__(self, contents: Sequence[bytes]) -> tuple[Tensor, int]:
        """Features float32 [B, d]; no image is cut, so 0 beside them."""
        import torch
        from PIL import Image

        pictures = []
        for index, data in enumerate(contents):
            try:
                pictures.append(Image.open(io.BytesIO(data)).convert("RGB"))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                raise UnusableContentError(index, f"the image cannot be read ({error})") from error
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            out = self.model(pixel_values=pixels.to(self.model.device, self.model.dtype))
            pooled = getattr(out, "pooler_output", None) if self._is_pooled else None
            if pooled is not None:
                return pooled.float().flatten(1), 0
            states = out.last_hidden_state.float()  # [B, L, d] of transformers, [B, d, H, W] of convolutions
            return states.mean(1) if states.ndim == 3 else states.flatten(2).mean(2), 0


def _place(name: str | os.PathLike) -> str:
    """A folder with "~" spelt out, or the name of a repository as it is.

    Raises FileNotFoundError: a path where nothing is; TypeError: neither a path nor a text.
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name must be a folder or a repository, got {name!r:.80}")
    place = os.path.expanduser(os.fspath(name))
    if not os.path.isdir(place) and (isinstance(name, os.PathLike) or place.startswith(("/", "."))):
        raise FileNotFoundError(f"there is no folder {place} with a network")
    return place


def _loaded(auto: Any, name: str, revision: str | None, dtype: str) -> tuple[Any, dict[str, Any]]:
    """The network, ready and still, and what identifies it."""
    import torch

    check_choice("dtype", dtype, DTYPES)
    options = {"revision": revision, "dtype": getattr(torch, dtype), "use_safetensors": True}
    model, info = _read("network", name, auto.from_pretrained, name, output_loading_info=True, **options)
    # The pooler of an encoder is not in the checkpoint of its language model, and is then not used.
    lost = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if lost or info["mismatched_keys"]:
        odd = lost or sorted(str(key) for key in info["mismatched_keys"])
        raise ValueError(
            f"{name} lacks {len(odd)} tensors of {type(model).__name__}, such as {odd[0]}; weights drawn at random "
            "would make features of nothing: save or fetch it again"
        )
    model.eval().requires_grad_(False)
    identity = {"class": type(model).__name__, "dtype": dtype, "missing": sorted(info["missing_keys"])}
    return model, identity | read_from(str(name), revision, model.config)


def _read(what: str, name: str | os.PathLike, from_pretrained: Callable[..., Any], *place: Any, **options: Any) -> Any:
    """What transformers reads, or its error with the name of what it could not read."""
    try:
        return from_pretrained(*place, **options)
    except OSError as error:
        raise OSError(f"the {what} of {name} cannot be read: {error}") from error
    except (ImportError, KeyError, SafetensorError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} holds no {what} that transformers can make: {told}") from error


def _longest(model: Any, tokenizer: Any) -> int:
    """Tokens of a text at most."""
    stated = getattr(model.config, "max_position_embeddings", None)
    told = [stated, learned_positions(model, stated), tokenizer.model_max_length]
    told = [one for one in told if isinstance(one, int) and 0 < one < 1 << 24]
    return min(told, default=_USUAL_LENGTH)


def _of_timm(name: str) -> str:
    """The repository of a network of timm that is named as timm does; other names as they are."""
    if "/" in name or os.path.isdir(name):
        return name
    import timm

    if not timm.is_model(name):
        return name
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.hf_hub_id:
        raise ValueError(f"timm has no weights of {name}; give a folder or a repository")
    return known.hf_hub_id


def _device(device: Any) -> Any:
    return processes_of_run().device if device is None else device


def prompt_fields(prompt: str) -> list[str]:
    """The columns that a prompt such as "{premise} Option 1: {choice1}" puts in, in their order.

    Raises:
        ValueError: braces that do not match, anything but the plain name of a column between them, or no column.
        TypeError: no text.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"prompt must be a text with columns in braces, got {prompt!r:.80}")
    try:
        parts = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise ValueError(f"prompt {prompt!r} cannot be read ({error}); a brace of the text is written twice") from None
    fields = [name for _, name, _, _ in parts if name is not None]
    odd = [name for _, name, form, change in parts if name is not None and (not name or form or change)]
    if odd or not fields:
        raise ValueError(f"prompt {prompt!r} must hold names of columns in braces, such as '{{text}} this movie is'")
    return fields


def text_contents(rows: Dataset, prompt: str) -> list[str]:
    """What a text backbone reads of each row: the prompt with the row's columns in it.

    Raises ValueError: a column is not there, holds no plain values or nulls, or a row's text is blank.
    """
    fields = prompt_fields(prompt)
    if lacking := [name for name in fields if name not in rows.column_names]:
        raise ValueError(
            f"prompt names the column {lacking[0]!r}, which the data have not; they have "
            f"{', '.join(map(repr, rows.column_names))}"
        )
    columns = {name: _texts(rows, name) for name in dict.fromkeys(fields)}
    # Not by `format`, which looks for an attribute where a name has a dot.
    parts = [(said, name) for said, name, _, _ in string.Formatter().parse(prompt)]
    texts = []
    for row in range(len(rows)):
        text = "".join(said if name is None else said + columns[name][row] for said, name in parts)
        if not text.strip():
            raise ValueError(f"the text of row {row} is blank, and so has no feature; leave that row out")
        texts.append(text)
    return texts


def _texts(rows: Dataset, name: str) -> list[str]:
    kind, values = rows.features[name], rows[name][:]
    for row, value in enumerate(values):
        if value is None or not isinstance(value, str | int | float | bool):
            raise ValueError(f"column {name!r} holds {value!r:.40} in row {row}, which is no text for a prompt")
    return [kind.int2str(value) for value in values] if hasattr(kind, "int2str") else list(map(str, values))


def image_contents(rows: Dataset, column: str) -> Sequence[bytes]:
    """What an image backbone reads of each row: the bytes of its encoded image.

    Raises ValueError: there is no such column, it holds no images, or a row has none.
    """
    from datasets import Image

    if column not in rows.column_names or not isinstance(rows.features[column], Image):
        there = f"holds {rows.features[column]}" if column in rows.column_names else "is not there"
        raise ValueError(f"the column {column!r} {there}; name the one with images")
    encoded = rows.select_columns([column]).cast_column(column, Image(decode=False))[column][:]
    for row, one in enumerate(encoded):
        if one is None or one["bytes"] is None and one["path"] is None:
            raise ValueError(f"row {row} has no image in column {column!r}; leave that row out")
    return [Path(one["path"]).read_bytes() if one["bytes"] is None else one["bytes"] for one in encoded]
