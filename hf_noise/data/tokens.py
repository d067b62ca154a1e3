"""What the builders of noisy tokens share: noise on targets or whole documents of it, by name, and its columns."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import Features, List, Value

from hf_noise.data.added import MASK, SHARE
from hf_noise.data.builder import NoisyDataBuilder, NoisyDataConfig
from hf_noise.data.settings import check_flags
from hf_noise.data.tokenization import check_tokenizer
from hf_noise.noise import Noise, rates
from hf_noise.noise.base import Unit
from hf_noise.noise.checks import check_choice
from hf_noise.noise.mixture import PLACEMENTS
from hf_noise.noise.protocols import check_fields, find_protocol, named_noise, protocol_names

__all__ = ["NoisyTokensBuilder", "NoisyTokensConfig", "token_lists"]

_UNITS: tuple[Unit, ...] = ("tokens", "documents")
_DEFAULT = "uniform-tokens"

# What the noise does to the text, in words: by whether it is added, and by whether its share is that of documents.
_DESCRIBED = {
    (False, False): """Targets (`labels`) of the train split are
replaced by uniform draws from the vocabulary at rate e = r / (1 + r); contexts (`input_ids`) stay clean (paper A,
algorithm 2).""",
    (True, True): """Documents of random tokens are mixed into
the train split, noise as context and as target; alpha is their share of its tokens (paper B).""",
    (False, True): """Rows of the train split are replaced
by random tokens, noise as context and as target, each with probability alpha (after paper B).""",
}


@dataclass
class NoisyTokensConfig(NoisyDataConfig):
    """Settings of noisy tokens, or of tokens among which whole rows are noise.

    Args:
        protocol: "uniform-tokens" (paper A, the default) or another noise on targets; or noise documents (paper B):
            "random-documents", "boosted-documents", "low-documents", "gaussian-documents".
        alpha: for documents, which take no `r`: the share of noise in the mixture, in [0, 1).
        exclude_original: replacements always differ from the original token.
        tokenizer: "embedded", "embedded:4096", a folder, a model on the Hub, or a tokenizer object.
    """

    UNITS: ClassVar[str] = "tokens"
    NOISE_UNITS: ClassVar[tuple[Unit, ...]] = _UNITS
    SETTINGS: ClassVar[Mapping[str, str]] = {
        **NoisyDataConfig.SETTINGS, "alpha": "alpha", "vocab_size": "tokenizer", "exclude_original": "exclude_original",
    }  # fmt: skip
    DEFAULT_PROTOCOL: ClassVar[str | None] = _DEFAULT

    exclude_original: bool = False
    tokenizer: Any = None
    alpha: float | None = None

    @property
    def noise_class(self) -> type[Noise]:
        """The noise that `protocol` names."""
        return find_protocol(self.protocol or _DEFAULT, _UNITS)[1]

    @property
    def takes_alpha(self) -> bool:
        """Whether the amount of noise is a share of the mixture."""
        return "alpha" in self.noise_class.rate_names

    @property
    def adds_rows(self) -> bool:
        """Whether the noise stands in rows of its own."""
        return self.noise_class.unit == "documents" and not self._replaces_rows

    @property
    def spreads_noise(self) -> bool:
        """Whether documents of noise stand between those of text, in each shard its own share."""
        return self.adds_rows and (self.protocol_kwargs or {}).get("placement") == "interleave"

    @property
    def _replaces_rows(self) -> bool:
        return (self.protocol_kwargs or {}).get("placement") == "replace"

    @property
    def described(self) -> str:
        """What the noise does to the rows, in words."""
        return _DESCRIBED[self.adds_rows, self.takes_alpha]

    @property
    def ratio(self) -> float | None:
        return rates.ratio(rates.check_alpha(self.alpha)) if self.takes_alpha else super().ratio

    def check_rate(self) -> None:
        if not self.takes_alpha:
            if self.alpha is not None:
                raise ValueError(
                    f"alpha={self.alpha!r} is the share of noise documents, protocol=\"random-documents\"; give r= or "
                    f"error_rate= for {self.protocol or _DEFAULT}"
                )
            return super().check_rate()
        if self.r is not None or self.error_rate is not None:
            given = f"r={self.r!r}" if self.r is not None else f"error_rate={self.error_rate!r}"
            by_name = f" (the configuration {self.name!r} brings it)" if self.name != "default" else ""
            raise ValueError(
                f"protocol={self.protocol!r} takes alpha=, the share of noise in the mixture; leave out "
                f"{given}{by_name}"
            )
        if self.alpha is None:
            raise ValueError(f"say how much noise: protocol={self.protocol!r} takes alpha=0.05, a share of the mixture")
        self.alpha = rates.check_alpha(self.alpha)
        return None

    def check(self) -> None:
        super().check()
        check_flags(self, "exclude_original")
        if self.exclude_original and (self.protocol is None or self.protocol in protocol_names(*_UNITS)):
            check_fields(self.protocol or _DEFAULT, _UNITS, ["exclude_original"])
        if self.takes_alpha and "placement" in (self.protocol_kwargs or {}):
            check_choice("placement", self.protocol_kwargs["placement"], PLACEMENTS)
        if not isinstance(self.tokenizer, str | Path | None):
            check_tokenizer(self.tokenizer)

    def identity(self) -> dict[str, Any]:
        changed = super().identity()
        if self.protocol == _DEFAULT:
            changed.pop("protocol", None)  # in whichever way the default is spelt
        if self.takes_alpha:
            changed.pop("r", None)  # which alpha says
        return changed

    def token_noise(self, vocab_size: int, end_of_text: int | None = None) -> Noise:
        """The noise that these settings mean for a vocabulary of this size.

        Documents of noise leave the end-of-text token out, where it is known; else the last one, as in paper B.
        """
        settings: dict[str, Any] = {"vocab_size": vocab_size, "seed": self.seed}
        if self.takes_alpha:
            settings["alpha"] = self.alpha
        else:
            settings |= {"ratio": self.r, "error_rate": self.error_rate}
        if self.noise_class.unit == "documents" and end_of_text is not None:
            settings["exclude"] = end_of_text
        if self.exclude_original:
            settings["exclude_original"] = True
        settings |= self.protocol_kwargs or {}
        return named_noise(self.protocol or _DEFAULT, _UNITS, **settings)


class NoisyTokensBuilder(NoisyDataBuilder):
    """Base of the builders of noisy tokens; a subclass gives `vocab_size()`."""

    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens that noise is drawn from."""

    def end_of_text(self) -> int | None:
        """The token that closes a document, which no document of noise holds; None if it is not known."""
        return None

    @property
    def noise(self) -> Noise:
        return self.config.token_noise(self.vocab_size(), self.end_of_text())

    def no_noise(self) -> Noise:
        return self.noise.without_noise()

    def row_features(self, length: int) -> Features:
        """The columns of rows of so many tokens: `input_ids`, `labels`, the clean copies of what the noise replaces,
        `is_noisy`, with documents of noise `noise_share`, the share of them in the row, and `sample_id`."""
        tokens, mask = List(Value("int32"), length=length), List(Value("bool"), length=length)
        names = [*self.token_columns, *self._clean_columns]
        share = {SHARE: Value("float32")} if self.config.adds_rows else {}
        return Features({**dict.fromkeys(names, tokens), MASK: mask, **share, "sample_id": Value("int64")})

    @property
    def token_columns(self) -> tuple[str, ...]:
        """The columns of tokens that a model is given."""
        return "input_ids", "labels"

    @property
    def _clean_columns(self) -> list[str]:
        falls_on = () if self.config.adds_rows else self.config.noise_class.noisy_columns
        return [f"clean_{name}" for name in falls_on if name in self.token_columns]

    def columns(self, block: np.ndarray, ids: np.ndarray, split: str) -> dict[str, pa.Array]:
        """The columns of some rows of text: int32 [n, L] and their sample ids, int64 [n]."""
        noise = self.noise_of(split)
        noisy, is_noisy = noise(block, sample=ids, epoch=self.config.epoch)
        inputs = noisy if "input_ids" in noise.noisy_columns else block
        columns = self._rows_with(inputs, noisy, ids, is_noisy)
        clean = columns["input_ids"] if inputs is block else token_lists(block)
        return columns | dict.fromkeys(self._clean_columns, clean)

    def mixed_columns(self, block: np.ndarray, is_noisy: np.ndarray, ids: np.ndarray) -> dict[str, pa.Array]:
        """The columns of some rows with their noise: int32 [n, L], bool [n, L], and their sample ids, int64 [n]."""
        share = pa.array(is_noisy.mean(axis=1, dtype=np.float64).astype(np.float32))
        return self._rows_with(block, block, ids, is_noisy) | {SHARE: share}

    def _rows_with(
        self, inputs: np.ndarray, labels: np.ndarray, ids: np.ndarray, is_noisy: np.ndarray
    ) -> dict[str, pa.Array]:
        made = {"input_ids": token_lists(inputs)}
        if "labels" in self.token_columns:
            made["labels"] = made["input_ids"] if labels is inputs else token_lists(labels)
        return made | {MASK: token_lists(is_noisy), "sample_id": pa.array(ids)}


def token_lists(rows: np.ndarray) -> pa.FixedSizeListArray:
    """Rows [n, L] as an Arrow column of lists of fixed length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
