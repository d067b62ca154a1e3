"""The model that writes noisy targets: which one it is, and loading it, whole, from safetensors, no foreign code."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_noise.data.backbone_files import digest_of_files
from hf_noise.data.tokenization import check_tokenizer, tokenizer_identity
from hf_noise.noise.teacher import Decoding, Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TOLD", "LoadedTeacher", "load_teacher", "teacher_folder", "teacher_of"]

#: What `train_teacher` writes beside a teacher, last: its steps, its task, and what it was made of.
TOLD = "teacher.json"

_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"
# All that its output depends on.
_FILES = ("*.safetensors", _INDEX, "config.json", "generation_config.json", "tokenizer*.json",
          "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.spm", "*.model")  # fmt: skip
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher in memory.

    Attributes:
        model: an encoder-decoder, in evaluation mode.
        tokenizer: its own.
        identity: what the noise remembers of it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: Teacher

    def move_to(self, device: Any = None) -> None:
        """Move the model, by default to the GPU of this process, if there is one; ValueError if torch cannot use it."""
        import torch

        if device is None:
            local = int(os.environ.get("LOCAL_RANK", 0))
            device = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
        if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
            raise TypeError(f"device must be one of torch's, such as 'cpu', got {device!r:.80}")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ValueError, OverflowError) as error:
            raise ValueError(f"device must be one that torch can use here, got {device!r:.80}: {error}") from error
        self.model.to(device).eval()


def teacher_folder(name: str | os.PathLike) -> Path:
    """The folder with a teacher's files, fetched where `name` is a repository on the Hub.

    Raises:
        FileNotFoundError: there is none, or it is no whole one: it lacks config, weights or tokenizer.
        ValueError: its weights are pickled.
        ConnectionError: it is on the Hub, which cannot be reached.
        TypeError: this is neither a path nor a name.
    """
    from hf_noise.models.loading import folder_of

    place = folder_of(name)
    if place is None:
        place = _fetched(str(name))
    folder = Path(place)
    weights = _missing_weights(folder)
    missing = [*([] if (folder / "config.json").is_file() else ["config.json"]), *weights]
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")):
        missing.append("tokenizer.json")
    if weights and any((folder / file).is_file() for file in _PICKLES):
        raise ValueError(f"the weights of the teacher {str(name)!r} are pickled, and only safetensors are read; "
                         "load and save it once with save_pretrained()")  # fmt: skip
    if missing:
        raise FileNotFoundError(
            f"{str(name)!r} is no whole teacher, it lacks {', '.join(missing)}: its training or copy was cut short, or "
            "it is another folder; give teacher= a folder that save_pretrained() wrote, model and tokenizer"
        )
    return folder


def _fetched(name: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return snapshot_download(name, allow_patterns=[*_FILES, TOLD])
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConnectionError(
            f"teacher={name!r} is no local folder, and could not be read from the Hub ({type(error).__name__}: "
            f"{error}); without a network, give the folder of one, or teacher_steps= to train one"
        ) from error


def _missing_weights(folder: Path) -> list[str]:
    if (folder / _WEIGHTS).is_file():
        return []
    if not (folder / _INDEX).is_file():
        return [_WEIGHTS]
    try:
        named = set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError):
        return [f"a readable {_INDEX}"]
    return sorted(file for file in named if not (folder / file).is_file())


def teacher_of(name: str | os.PathLike, decoding: Decoding | None = None) -> Teacher:
    """What the noise remembers of a teacher, without loading it; see `teacher_folder` for the errors."""
    return _identity(name, teacher_folder(name), decoding)


def _identity(name: str | os.PathLike, folder: Path, decoding: Decoding | None) -> Teacher:
    return Teacher(
        name=os.fspath(name), sha256=digest_of_files(folder, _FILES), steps=_steps(folder),
        decoding=Decoding() if decoding is None else decoding,
    )  # fmt: skip


def told_of(folder: Path, file: str = TOLD) -> dict[str, Any]:
    """What a file of JSON beside a teacher says of it; nothing if there is none, or it cannot be read."""
    try:
        told = json.loads((folder / file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _steps(folder: Path) -> int | None:
    steps = told_of(folder).get("steps", told_of(folder, "trainer_state.json").get("global_step"))
    return steps if isinstance(steps, int) and not isinstance(steps, bool) and steps > 0 else None


def load_teacher(
    name: str | os.PathLike,
    *,
    decoding: Decoding | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: str | None = None,
) -> LoadedTeacher:
    """A teacher and its tokenizer, checked to be one: an encoder-decoder with a row for each token.

    Args:
        name: folder, or repository on the Hub; any T5, BART, Marian, M2M100 or other that transformers knows.
        decoding: how its output will be chosen, greedy by default.
        tokenizer: that it has to have, where rows of tokens are compared; None for any.
        task: that it has to be of, in the words of `train_teacher`; where either says nothing, any.

    Raises:
        ValueError: it is no encoder-decoder, of another task or tokenizer, or has more tokens than its model rows.
        FileNotFoundError, ConnectionError, OSError: it is not there, not whole, or cannot be read.
    """
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    from hf_noise.models.loading import load_whole
    from hf_noise.models.seq2seq import check_encoder_decoder

    if task is not None and not isinstance(task, str):
        raise TypeError(f"task must be a name, got {task!r:.80}")
    folder = teacher_folder(name)  # once: of a repository that moves on, a second look would be of other weights
    identity = _identity(name, folder, decoding)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        own = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of files that are cut: those of JSON, tokenizers and sentencepiece
        raise OSError(f"the teacher {str(name)!r} cannot be loaded ({type(error).__name__}: {error}); fetch or train "
                      "it again") from error  # fmt: skip
    check_encoder_decoder(config, f"the teacher {str(name)!r}")
    other = told_of(folder).get("task")
    if task is not None and other not in (None, task):
        raise ValueError(f"the teacher {str(name)!r} was trained for the task {other!r}, not {task!r}; give one of it")
    if tokenizer is not None:
        check_tokenizer(tokenizer)
        if tokenizer_identity(tokenizer) != tokenizer_identity(own):
            raise ValueError(
                f"the teacher {str(name)!r} has another vocabulary than the tokenizer= that is given ({len(own)} and "
                f"{len(tokenizer)} tokens), so that the same numbers are other words; leave tokenizer= out, or give "
                "its own"
            )
    model = load_whole(
        AutoModelForSeq2SeqLM.from_pretrained, folder, use_safetensors=True, trust_remote_code=False
    ).eval()
    largest, rows = max(own.get_vocab().values()), model.get_input_embeddings().num_embeddings
    if largest >= rows:
        raise ValueError(f"the tokenizer of the teacher {str(name)!r} has tokens up to {largest}, and its model {rows} "
                         "rows; they are not of one model")  # fmt: skip
    if model.config.decoder_start_token_id is None:
        raise ValueError(f"the config of the teacher {str(name)!r} has no decoder_start_token_id, with which its "
                         "output begins")  # fmt: skip
    return LoadedTeacher(model, own, identity)
