"""Features extracted once: a frozen network is run over the rows, and what it gives is kept.

backbone = TextBackbone.load("sentence-transformers/all-MiniLM-L6-v2", pooling="mean")
found = extract_features(backbone, text_contents(rows, "{text} this movie is"))
found.features        # float32 [N, d], in the order of the rows

They lie in the cache under a key of all that they depend on: the network's weights (its commit on the Hub, or the
digest of a folder's files), how it is read (prompt, pooling, truncation), and what it reads, by content. So the labels
of the rows may change, and the rows come from another file, and nothing is made again. Rows are kept in shards of fixed
rows, each written whole or not at all and with a checksum: a run that was killed goes on with the next shard, a broken
one is made again. Processes that `accelerate launch` started share the shards.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hf_noise.atomic import replaced_whole, sweep_temporaries, write_atomic
from hf_noise.data.cache import cache_root
from hf_noise.noise.checks import check_count, check_flag

__all__ = [
    "SHARD_ROWS", "Backbone", "Extracted", "UnusableContentError", "extract_features", "fingerprint_of",
    "processes_of_run",
]  # fmt: skip

#: Rows of a shard: what is lost at most by each process when a run is killed.
SHARD_ROWS = 512
# Raised whenever the same rows would give other features.
_VERSION = 1


class UnusableContentError(ValueError):
    """A row that a backbone cannot read; `index` is its place in the batch."""

    def __init__(self, index: int, what: str):
        self.index = index
        super().__init__(what)


class Backbone(Protocol):
    """A frozen network as `extract_features` takes it; see `hf_noise.data.backbones`."""

    #: All that its features depend on, as JSON holds it.
    identity: dict[str, Any]

    def cost(self, content: Any) -> float:
        """Of a row, about: rows of alike cost are put into one batch, as less has to be padded."""

    def __call__(self, contents: Sequence[Any]) -> tuple[Any, int]:
        """Features of some rows, a tensor [B, d] on any device; and how many rows fill the longest input it takes.

        Raises UnusableContentError: a row cannot be read.
        """


@dataclass(frozen=True, eq=False)
class Extracted:
    """Features, and where they are from.

    Attributes:
        features: float32 [N, d], in the order of the rows.
        key: of the cache, 32 hexadecimal digits.
        folder: of the cache, with the shards.
        identity: what the key is made of.
        at_limit: rows that fill the longest input of the network, so that most of them were cut.
        made: rows that this process ran the network on; all others were there.
    """

    features: np.ndarray
    key: str
    folder: Path
    identity: dict[str, Any]
    at_limit: int
    made: int


def fingerprint_of(contents: Sequence[Any]) -> str:
    """A hash of all rows in their order, texts or bytes: equal exactly when all of them are."""
    digest = hashlib.sha256()
    for content in contents:
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        digest.update(f"{'s' if isinstance(content, str) else 'b'}{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:32]


def extract_features(
    backbone: Backbone, contents: Sequence[Any], *, batch_size: int = 32, cache: str | os.PathLike | None = None,
    progress: bool = True,
) -> Extracted:  # fmt: skip
    """The features of all rows, from the cache or made now; of several processes each makes its share.

    Args:
        backbone: such as `TextBackbone.load` and `ImageBackbone.load` give.
        contents: what it reads of each row, at least one: texts, or the bytes of encoded images.
        batch_size: rows at a time in each process; features do not depend on it beyond rounding.
        cache: folder in which the shards are kept; by default that of the package.
        progress: show a bar.

    Raises:
        ValueError: there are no rows, one cannot be read, or features of some hold NaN or inf.
        OSError: a shard of another process is not there: the cache is not shared by all machines.
        TypeError: an argument of another kind.
    """
    batch_size, progress = check_count("batch_size", batch_size, 1, 31), check_flag("progress", progress)
    if not len(contents):
        raise ValueError("there is nothing to extract features of: no rows")
    identity = {"version": _VERSION, "backbone": backbone.identity, "data": fingerprint_of(contents),
                "rows": len(contents)}  # fmt: skip
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    folder = (cache_root() if cache is None else Path(cache).expanduser()) / "features" / key
    state = processes_of_run()
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(folder)
        write_atomic(folder / "features.json", json.dumps(identity, indent=2) + "\n")
    state.wait_for_everyone()
    starts = list(range(0, len(contents), SHARD_ROWS))
    shards = {start: _Shard(folder, key, start, min(start + SHARD_ROWS, len(contents))) for start in starts}
    mine = [shards[start] for start in starts[state.process_index :: state.num_processes]]
    found = {shard.start: shard.read() for shard in mine}
    missing = [shard for shard in mine if found[shard.start] is None]
    with _bar(mine, missing, progress and state.is_local_main_process) as bar:
        for shard in missing:
            found[shard.start] = shard.make(backbone, contents, batch_size, bar)
    state.wait_for_everyone()
    parts = [found[start] if found.get(start) is not None else shards[start].read() for start in starts]
    if None in parts:
        lost = shards[starts[parts.index(None)]].path
        raise OSError(f"{lost} is not there, though another process made it; give all machines one cache, as the "
                      "environment variable HF_NOISE_CACHE says where it is")  # fmt: skip
    features = np.concatenate([part for part, _ in parts]) if len(parts) > 1 else parts[0][0]
    return Extracted(
        features, key, folder, identity, sum(full for _, full in parts), sum(map(len, missing))
    )  # fmt: skip


@dataclass(frozen=True)
class _Shard:
    """The features of rows start .. stop - 1, in a file of the cache."""

    folder: Path
    key: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def path(self) -> Path:
        return self.folder / f"rows-{self.start:09d}-{self.stop:09d}.safetensors"

    def read(self) -> tuple[np.ndarray, int] | None:
        """Its features and how many rows are at the limit; None if it is not there, or not as it was written."""
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="np") as file:
                told, features = file.metadata() or {}, file.get_tensor("features")
        except (SafetensorError, OSError):  # cut off, or something else
            return None
        is_whole = features.dtype == np.float32 and features.ndim == 2 and len(features) == len(self)
        if not is_whole or {**told, **self._told(features)} != told:
            return None
        return features, int(told["at_limit"])

    def make(self, backbone: Backbone, contents: Sequence[Any], batch_size: int, bar: Any) -> tuple[np.ndarray, int]:
        """Run the network on its rows, and write them."""
        import torch
        from safetensors.numpy import save_file

        rows = [contents[row] for row in range(self.start, self.stop)]
        order = sorted(range(len(rows)), key=lambda row: backbone.cost(rows[row]), reverse=True)
        parts, at_limit = [], 0
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            try:
                part, full = backbone([rows[row] for row in batch])
            except UnusableContentError as error:
                raise ValueError(f"row {self.start + batch[error.index]}: {error}; leave that row out") from error
            parts.append(part)
            at_limit += full
            bar.update(len(batch))
        # Copied from the device once a shard.
        sorted_features = torch.cat(parts).float().cpu().numpy()
        features = np.empty_like(sorted_features)
        features[order] = sorted_features
        broken = ~np.isfinite(features).all(axis=1)
        if broken.any():
            raise ValueError(
                f"features of {broken.sum()} of rows {self.start} to {self.stop - 1} hold NaN or inf, the first is row "
                f"{self.start + broken.argmax()}; look at that row and at the network, or run it in float32"
            )
        told = self._told(features) | {"at_limit": str(at_limit)}
        with replaced_whole(self.path) as unfinished:
            save_file({"features": features}, unfinished, metadata=told)
        return features, at_limit

    def _told(self, features: np.ndarray) -> dict[str, str]:
        """What the file says of its features, which they are held against when they are read."""
        checksum = zlib.crc32(np.ascontiguousarray(features).data)
        return {"key": self.key, "rows": f"{self.start}-{self.stop}", "crc32": f"{checksum:08x}"}


def processes_of_run() -> Any:
    """The processes that work together, one of a run that was not launched."""
    import torch
    from accelerate import PartialState

    return PartialState() if torch.cuda.is_available() else PartialState(cpu=True)


def _bar(mine: Sequence[_Shard], missing: Sequence[_Shard], is_shown: bool) -> Any:
    from tqdm import tqdm

    total = sum(map(len, mine))
    return tqdm(
        total=total, initial=total - sum(map(len, missing)), desc="features", unit=" rows", leave=False,
        disable=not is_shown or not missing,
    )  # fmt: skip
