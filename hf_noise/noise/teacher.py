"""Targets that a model wrote: whole target sequences of pairs replaced by the output of a teacher (paper A, K.3)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from hf_noise.noise import counter, draws, rates
from hf_noise.noise.arrays import integers
from hf_noise.noise.base import Noise, Unit
from hf_noise.noise.checks import check_choice, check_count, check_integer, check_real, check_seed

__all__ = ["Decoding", "NoisyTeacher", "Teacher"]

_METHODS = ("greedy", "sample", "beam")
_HEX = frozenset("0123456789abcdef")
#: A row's word has this many bits, so that every cut is an integer that int64 holds.
_WORD_BITS = 62
_SHIFT = np.uint64(64 - _WORD_BITS)
# Their words are held at once, 8 bytes each.
_ROW_BITS = 28


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a teacher's output is chosen.

    Args:
        method: "greedy" (spec 2.5), "sample" from its distribution, or "beam".
        temperature: of "sample", > 0; 1 for the others.
        num_beams: of "beam", >= 2, by default 4; 1 for the others.
        max_new_tokens: an output is cut after so many tokens, its end token among them; in [1, 2^16].
    """

    method: Literal["greedy", "sample", "beam"] = "greedy"
    temperature: float = 1.0
    num_beams: int | None = None
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        method = check_choice("method", self.method, _METHODS)
        temperature = check_real("temperature", self.temperature)
        if not 0 < temperature < math.inf or (method != "sample" and temperature != 1):
            raise ValueError(f'temperature must be > 0, and 1 unless method="sample", got {self.temperature!r}')
        beams = self.num_beams if self.num_beams is not None else 4 if method == "beam" else 1
        beams = check_count("num_beams", beams, 1, 10)
        if (beams > 1) != (method == "beam"):
            raise ValueError(f'num_beams must be >= 2 for method="beam" and 1 for others, got {beams} ({method})')
        length = check_count("max_new_tokens", self.max_new_tokens, 1, 16)
        for name, value in (("method", method), ("temperature", temperature), ("num_beams", beams),
                            ("max_new_tokens", length)):  # fmt: skip
            object.__setattr__(self, name, value)

    @property
    def summary(self) -> str:
        """In a few words, such as "greedy, at most 256 tokens"."""
        how = {"sample": f"sampled at temperature {self.temperature:g}", "beam": f"{self.num_beams} beams"}
        return f"{how.get(self.method, 'greedy')}, at most {self.max_new_tokens} tokens"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Which model wrote the targets, and how.

    Args:
        name: folder, or repository on the Hub, that it was loaded from; it does not count when two are compared.
        sha256: 64 hexadecimal digits over its weights, config and tokenizer.
        steps: it was trained for, None if that is not known.
        decoding: how its output was chosen, a `Decoding` or its fields.
    """

    name: str = field(compare=False)
    sha256: str
    steps: int | None = None
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name must be that of a folder or a repository, got {self.name!r}")
        if not isinstance(self.sha256, str) or len(self.sha256) != 64 or not set(self.sha256) <= _HEX:
            raise ValueError(f"sha256 must be 64 hexadecimal digits, got {self.sha256!r:.80}")
        if self.steps is not None:
            object.__setattr__(self, "steps", check_count("steps", self.steps, 1, 53))
        object.__setattr__(self, "decoding", _made("decoding", self.decoding, Decoding))

    @property
    def summary(self) -> str:
        """In a few words, such as "a teacher of 500 steps (0f3a5b7c), greedy, at most 256 tokens"."""
        steps = f" of {self.steps} steps" if self.steps is not None else ""
        return f"a teacher{steps} ({self.sha256[:8]}), {self.decoding.summary}"


def _made(name: str, value: Any, cls: type) -> Any:
    """`value` as this class: as it is, or from the mapping of its fields that `to_dict` wrote."""
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a {cls.__name__} or its fields, got {value!r:.80}")
    known = [one.name for one in dataclasses.fields(cls)]
    if unknown := [key for key in value if key not in known]:
        raise ValueError(f"{name} has no field {', '.join(map(repr, unknown))}; it has {', '.join(known)}")
    needed = [one.name for one in dataclasses.fields(cls) if one.default is one.default_factory is dataclasses.MISSING]
    if missing := [key for key in needed if key not in value]:
        raise ValueError(f"{name} needs the field {', '.join(missing)}")
    return cls(**value)


@dataclass(frozen=True, kw_only=True)
class NoisyTeacher(Noise):
    """Replace whole target sequences, at rate e = r / (1 + r), by what a teacher wrote for their sources.

    Paper A, appendix K.3. Sources stay clean; the noise is built once. Which rows are replaced is a pure function of
    (seed, sample id): order, batches and processes change nothing. What stands in them is the teacher's output, which
    has to be there (`replaced`); so the rows carry it, and no trainer draws it.

    Args:
        ratio: r >= 0, teacher's targets per clean one. Give this or `error_rate`.
        error_rate: e in [0, 1), the share of rows that are replaced.
        teacher: which model wrote the targets, a `Teacher` or its fields; None only where e = 0.
        num_rows: N, of which exactly round(e N) are replaced (ties to even), those with the smallest words; None:
            each row on its own with probability e. Sample ids are 0 .. N - 1 then; for others, `exactly(sample)`.
        seed: integer in [0, 2^63).
        cut: a row is replaced if its word of 62 bits is below it; follows from the others, unless ids are not
            0 .. N - 1, see `exactly`.

    Raises:
        ValueError: a value is out of range, neither or both of `ratio` and `error_rate` are given, or there is noise
            and no teacher.
        TypeError: a value is of another type.

    Example:
        >>> teacher = Teacher(name="runs/teacher", sha256="0" * 64, steps=500)
        >>> noise = NoisyTeacher(ratio=1.0, teacher=teacher, num_rows=1000)
        >>> int(noise.is_noisy(np.arange(1000)).sum()), noise.teacher.decoding.method
        (500, 'greedy')
    """

    protocol: ClassVar[str] = "noisy_teacher"
    stream: ClassVar[int] = 5
    unit: ClassVar[Unit] = "sequences"
    noisy_columns: ClassVar[tuple[str, ...]] = ("target",)
    names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"noisy-teacher": {}}
    is_drawn: ClassVar[bool] = False

    ratio: float = field(default=None, compare=False)  # type: ignore[assignment]
    error_rate: float = None  # type: ignore[assignment]
    teacher: Teacher | None = None
    num_rows: int | None = None
    seed: int = 0
    cut: int | None = None

    def __post_init__(self) -> None:
        r, e = rates.resolve(self.ratio, self.error_rate)
        object.__setattr__(self, "ratio", r)
        object.__setattr__(self, "error_rate", e)
        object.__setattr__(self, "seed", check_seed(self.seed))
        draws.threshold(e)  # raises for a rate too small to draw
        if self.teacher is not None:
            object.__setattr__(self, "teacher", _made("teacher", self.teacher, Teacher))
        elif e:
            raise ValueError(f"teacher= has to say who wrote the noisy targets at e = {e:.3g}; e = 0 needs none")
        if self.num_rows is not None:
            object.__setattr__(self, "num_rows", check_count("num_rows", self.num_rows, 1, _ROW_BITS))
        cut = self._own_cut() if self.cut is None else check_integer("cut", self.cut)
        if not 0 <= cut <= 1 << _WORD_BITS or (e == 0 and cut):
            raise ValueError(f"cut must lie in [0, 2^{_WORD_BITS}], and be 0 for e = 0, got {self.cut!r}")
        object.__setattr__(self, "cut", cut)

    def _own_cut(self) -> int:
        if self.num_rows is None or self.error_rate == 0:
            return draws.threshold(self.error_rate) << (_WORD_BITS - 32)
        return self._cut_of(np.arange(self.num_rows))

    def _words(self, sample: np.ndarray) -> np.ndarray:
        """One word of 62 bits for each sample id, as int64."""
        key = counter.stream_key(self.seed, self.stream, 0)
        return (counter.words_at(key, sample.astype(np.int64, copy=False)) >> _SHIFT).view(np.int64)

    def _cut_of(self, sample: np.ndarray) -> int:
        """The cut below which just round(e N) of these ids are."""
        count = round(self.error_rate * len(sample))
        return int(np.partition(self._words(sample), count - 1)[count - 1]) + 1 if count else 0

    def exactly(self, sample: Any) -> NoisyTeacher:
        """The same noise where exactly round(e N) of rows with these ids are replaced.

        Args:
            sample: integers [N], each id once.
        """
        sample = _ids(sample)
        if not 0 < sample.size == np.unique(sample).size:
            raise ValueError(f"sample must hold ids of rows, each once, got {sample.size}, or some that come again")
        cut = self._cut_of(sample) if self.error_rate else 0
        return dataclasses.replace(self, num_rows=sample.size, cut=cut)

    @property
    def num_noisy(self) -> int | None:
        """How many of the N rows are replaced; None if each is on its own."""
        return None if self.num_rows is None else round(self.error_rate * self.num_rows)

    def without_noise(self) -> NoisyTeacher:
        return dataclasses.replace(self, ratio=0.0, error_rate=0.0, cut=None)

    @property
    def summary(self) -> str:
        if self.teacher is None:
            return "Targets that a teacher wrote in place of clean ones"
        return f"Whole target sequences replaced by those of {self.teacher.summary}"

    @property
    def if_not_drawn(self) -> str:
        return (
            "the targets of a teacher are written by it, not drawn; build pairs with them, "
            'load_dataset("hf_noise/noisy", source=..., columns=("source", "target"), teacher=...)'
        )

    def to_dict(self) -> dict[str, Any]:
        teacher = None if self.teacher is None else dataclasses.asdict(self.teacher)
        return super().to_dict() | {"teacher": teacher}

    def is_noisy(self, sample: Any) -> np.ndarray:
        """Which rows carry the teacher's target.

        Args:
            sample: integers [N], stable ids of the rows.

        Returns:
            bool [N].

        Raises:
            ValueError: there are `num_rows` different ids and not round(e N) of them are chosen: it was made for
                others, see `exactly`.
            TypeError: these are no integers.
        """
        sample = _ids(sample)
        found = self._words(sample) < self.cut
        if sample.size == self.num_rows and found.sum() != self.num_noisy and np.unique(sample).size == sample.size:
            raise ValueError(
                f"{found.sum()} of {sample.size} rows would be replaced, where exactly {self.num_noisy} are to be: the "
                "noise is for rows with other ids, by default 0 .. N - 1; use noise.exactly(sample)"
            )
        return found

    def replaced(self, targets: Sequence[Any], written: Sequence[Any], sample: Any) -> tuple[list[Any], np.ndarray]:
        """Targets with the teacher's in place of some.

        Args:
            targets: the clean ones [N], texts or lists of tokens.
            written: what the teacher wrote [N]; None where nothing is needed, in rows that stay clean.
            sample: integers [N], stable ids of the rows.

        Returns:
            `(noisy, is_noisy)`: a list [N] and bool [N].

        Raises:
            ValueError: the three have different lengths, or a row to be replaced has nothing written.
            TypeError: the ids are no integers, or targets no list of them.
        """
        is_noisy = self.is_noisy(sample)
        for name, value in (("targets", targets), ("written", written)):
            is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
            if not is_list and not (isinstance(value, np.ndarray) and value.ndim):
                raise TypeError(f"{name} must be a list with a text or tokens for each row, got {value!r:.80}")
        if not len(targets) == len(written) == len(is_noisy):
            raise ValueError(
                f"there are {len(targets)} targets, {len(written)} written ones and {len(is_noisy)} sample ids; each "
                "row needs all three"
            )
        noisy = [new if one else old for old, new, one in zip(targets, written, is_noisy.tolist(), strict=True)]
        if missing := [row for row in np.flatnonzero(is_noisy).tolist() if noisy[row] is None]:
            raise ValueError(f"{len(missing)} rows to be replaced have nothing written, the first is row {missing[0]}")
        return noisy, is_noisy


def _ids(sample: Any) -> np.ndarray:
    ids = integers("sample", sample)
    if ids.ndim != 1:
        raise ValueError(f"sample must hold one id a row, [N], got shape {list(ids.shape)}")
    return ids
