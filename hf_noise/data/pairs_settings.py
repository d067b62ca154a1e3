"""The settings of pairs of which a teacher wrote some targets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from hf_noise.data.builder import NoisyDataConfig
from hf_noise.data.held_rows import HeldRows, check_share
from hf_noise.data.settings import check_flags
from hf_noise.data.source_names import SourceLike
from hf_noise.data.sources import source_identity
from hf_noise.data.tokenization import check_tokenizer, tokenizer_identity
from hf_noise.noise.base import Unit
from hf_noise.noise.checks import check_count, check_seed
from hf_noise.noise.teacher import Decoding

__all__ = ["NoisyPairsConfig"]

# Of `train_teacher`, besides those that are settings here.
_TRAINING = ("model", "batch_size", "learning_rate", "seed")
_OF_TEACHER = ("teacher", "teacher_steps", "teacher_settings", "tokenizer", "vocab_size", "decoding", "exact",
               "with_nll", "max_source_tokens", "max_target_tokens", "truncate", "seed")  # fmt: skip


@dataclass
class NoisyPairsConfig(NoisyDataConfig):
    """Settings of pairs of texts, source -> target, whose targets a teacher wrote at rate e = r / (1 + r).

    Args:
        columns: names of the source and of the target; "translation.en" is a field of a column.
        teacher: the model that writes, a folder or a repository on the Hub: any T5, BART, Marian or other
            encoder-decoder of transformers, in safetensors. With r = 0 none is needed.
        teacher_steps: or train one on the clean train split for so many steps, once; paper A's example is 5,000.
        teacher_settings: of this training, see `train_teacher`: model (settings of `encoder_decoder`), batch_size,
            learning_rate, seed.
        tokenizer: of the teacher that is trained, or that the given one has to have; a folder, a name or an object. By
            default a byte-level BPE of `vocab_size` tokens is trained on the pairs.
        vocab_size: of that tokenizer; by default 32,000, or as many as the pairs yield.
        decoding: "greedy" (spec 2.5), "sample", "beam", a `Decoding`, or its fields.
        exact: exactly round(e N) of the N rows are replaced; else each on its own with probability e.
        with_nll: add `teacher_nll`, where there is noise.
        max_source_tokens, max_target_tokens: the longest that the teacher is given, end token included, in its tokens;
            by default what it has positions for.
        truncate: cut what is longer for the teacher, and log the share; the rows keep the whole texts.
        max_pairs: of the train split at most so many are taken, chosen by `subset_seed`.
        test_fraction, validation_fraction: the share of the train split that becomes this split, if the source has
            none.
        tokens_per_batch: of the teacher at work; what it writes does not depend on it.
    """

    UNITS: ClassVar[str] = "targets"
    NOISE_UNITS: ClassVar[tuple[Unit, ...]] = ("sequences",)
    DEFAULT_PROTOCOL: ClassVar[str | None] = "noisy-teacher"
    SETTINGS: ClassVar[Mapping[str, str]] = {
        **NoisyDataConfig.SETTINGS, "teacher": "teacher", "num_rows": "exact", "cut": "exact",
    }  # fmt: skip

    #: Configuration of the default source, where that has several.
    OWN_CONFIG: ClassVar[str | None] = None

    source: SourceLike | Mapping[str, SourceLike] | None = None
    columns: Sequence[str] = ("source", "target")
    teacher: str | Path | None = None
    teacher_steps: int | None = None
    teacher_settings: Mapping[str, Any] | None = None
    tokenizer: Any = None
    vocab_size: int | None = None
    decoding: Any = "greedy"
    exact: bool = True
    with_nll: bool = False
    max_source_tokens: int | None = None
    max_target_tokens: int | None = None
    truncate: bool = False
    max_pairs: int | None = None
    subset_seed: int = 0
    test_fraction: float | None = None
    validation_fraction: float | None = None
    tokens_per_batch: int = 16_384

    @property
    def task(self) -> str | None:
        """What the teacher has to be of, in words; None where that is not known."""
        return None

    @property
    def held(self) -> HeldRows:
        """What is held out of the train split."""
        return HeldRows(self.validation_fraction or 0.0, self.test_fraction or 0.0)

    @property
    def wants_nll(self) -> bool:
        """Whether the rows say how likely the teacher finds their targets."""
        return self.with_nll and self.ratio != 0

    @property
    def found_decoding(self) -> Decoding:
        """How the teacher's output is chosen."""
        given = self.decoding
        if isinstance(given, Decoding):
            return given
        if not isinstance(given, str | Mapping):
            raise TypeError(f'decoding must be "greedy", "sample", "beam" or fields of Decoding, got {given!r:.80}')
        known = set(Decoding.__dataclass_fields__)
        if isinstance(given, Mapping) and (unknown := [name for name in given if name not in known]):
            raise TypeError(f"decoding has no field {', '.join(map(repr, unknown))}; it has {', '.join(sorted(known))}")
        return Decoding(**({"method": given} if isinstance(given, str) else given))

    def check(self) -> None:
        if self.OWN_CONFIG is not None and self.source == type(self).source and self.source_config is None:
            self.source_config = self.OWN_CONFIG
        super().check()
        if self.source is None:
            raise ValueError("say which pairs: source= (a file, a folder or a data set on the Hub)")
        if self.epoch:
            raise ValueError(f"epoch={self.epoch} means nothing for targets that a teacher writes once; leave it out")
        self.columns = _two_names(self.columns)
        check_flags(self, "exact", "with_nll", "truncate")
        self.decoding = self.found_decoding
        for name, bits in (("max_source_tokens", 31), ("max_target_tokens", 31), ("max_pairs", 28),
                           ("teacher_steps", 40), ("vocab_size", 21), ("tokens_per_batch", 40)):  # fmt: skip
            if (value := getattr(self, name)) is not None:
                setattr(self, name, check_count(name, value, 1, bits))
        self.subset_seed = check_seed(self.subset_seed)
        for name in ("test_fraction", "validation_fraction"):
            setattr(self, name, check_share(name, getattr(self, name)))
        self.held  # noqa: B018 - both shares together
        self._check_teacher()
        longest, most = self.decoding.max_new_tokens, self.max_target_tokens
        if self.wants_nll and not self.truncate and most is not None and longest > most:
            raise ValueError(f"max_target_tokens={most} is less than the max_new_tokens={longest} that the teacher may "
                             "write (decoding=), so that with_nll= has targets that are too long; raise the one, lower "
                             "the other, or say truncate=True")  # fmt: skip

    def _check_teacher(self) -> None:
        if not isinstance(self.teacher, str | Path | None) or self.teacher == "":
            raise TypeError(f"teacher must be a folder or the name of a repository, got {self.teacher!r:.80}")
        if self.teacher is not None and self.teacher_steps is not None:
            raise ValueError("give teacher= (a model that is there) or teacher_steps= (train one), not both")
        if self.ratio and self.teacher is None and self.teacher_steps is None:
            raise ValueError(
                f"r={self.ratio:g} needs a teacher that writes the noisy targets: teacher= (a folder or a repository "
                "on the Hub), or teacher_steps= to train one on these pairs"
            )
        given = self.teacher_settings
        if given is not None:
            if not isinstance(given, Mapping) or not isinstance(given.get("model", {}), Mapping):
                raise TypeError(f"teacher_settings must be settings by name, its model those of encoder_decoder(), got "
                                f"{given!r:.80}")  # fmt: skip
            if unknown := [name for name in given if name not in _TRAINING]:
                raise TypeError(f"teacher_settings has no setting {', '.join(map(repr, unknown))}; it takes "
                                f"{', '.join(_TRAINING)}")  # fmt: skip
            if self.teacher_steps is None:
                raise ValueError("teacher_settings= are those of a teacher that is trained; give teacher_steps=")
        if not isinstance(self.tokenizer, str | Path | None):
            check_tokenizer(self.tokenizer)

    def training(self) -> dict[str, Any]:
        """What `train_teacher` is told besides the pairs and the tokenizer."""
        limits = {name: getattr(self, name) for name in ("max_source_tokens", "max_target_tokens", "truncate")}
        return {"steps": self.teacher_steps, "task": self.task, **limits, **(self.teacher_settings or {})}

    def found_tokenizer(self) -> Any:
        """The tokenizer that was given, itself."""
        from hf_noise.data.tokenization import find_tokenizer

        return find_tokenizer(self.tokenizer)

    def identity(self) -> dict[str, Any]:
        from hf_noise.data.teacher_files import teacher_of

        changed = super().identity()
        for without_effect in ("tokens_per_batch", *(_OF_TEACHER if not self.ratio else ())):
            changed.pop(without_effect, None)
        for share in ("test_fraction", "validation_fraction"):
            if not getattr(self, share):
                changed.pop(share, None)
        if "columns" in changed:
            changed["columns"] = "->".join(self.columns)
        if self.source is not None:
            changed["source"] = source_identity(self.source, self.source_config)
        if self.OWN_CONFIG is not None:  # which the source says
            changed.pop("source_config", None)
        if not self.ratio:
            return changed
        changed["decoding"] = json.dumps(asdict(self.found_decoding), sort_keys=True)
        if self.teacher is not None:
            changed["teacher"] = teacher_of(self.teacher).sha256
        if self.tokenizer is not None:
            changed["tokenizer"] = tokenizer_identity(self.found_tokenizer())
        if self.teacher_settings is not None:
            changed["teacher_settings"] = json.dumps(self.teacher_settings, sort_keys=True, default=str)
        return changed


def _two_names(columns: Any) -> tuple[str, str]:
    named = tuple(columns) if isinstance(columns, list | tuple) else ()
    if len(named) != 2 or not all(isinstance(name, str) and name for name in named):
        raise TypeError(f'columns must be the names of source and target, as ("source", "target"), got {columns!r:.80}')
    if named[0] == named[1]:
        raise ValueError(f"columns names {named[0]!r} as source and as target; give two columns")
    return named
