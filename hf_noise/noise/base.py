"""What every noise protocol has in common: a frozen value that can be called, named, stored and hashed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from hf_noise.noise.arrays import as_array
from hf_noise.noise.checks import check_choice, check_epoch, check_seed

__all__ = [
    "Noise",
    "Redraw",
    "Unit",
    "check_redraw",
    "check_seed",
    "known_noises",
    "noise_from_dict",
    "realised_rate",
]

Unit: TypeAlias = Literal["tokens", "documents", "labels", "sequences"]
Redraw: TypeAlias = Literal["epoch", "never"]

_UNITS = ("tokens", "documents", "labels", "sequences")
_PROTOCOLS: dict[str, type[Noise]] = {}


class Noise:
    """Base of the frozen dataclasses that say which protocol corrupts which data, how much and with which seed.

    What a noise is and can do is declared here, and nothing else has to be asked of it. A subclass sets `protocol`,
    `unit`, `stream` if it draws, and what else differs from the defaults below. Defining it is enough for
    `noise_from_dict`, cards and checkpoints to find it, and for the builders if it has `names`. Bases that do the rest:
    `TokenNoise`, `DocumentNoise`, `LabelNoise`.

    Attributes:
        protocol: its name in records and cards.
        version: raised whenever the same fields would draw other noise, so that caches and old checkpoints cannot be
            confused.
        stream: the counter stream it owns.
        unit: what is clean or noisy as a whole: "tokens", the targets of a language model one by one; "documents", rows
            of tokens, as context and as target; "labels", one for each row; "sequences", whole targets of pairs, whose
            sources stay clean.
        redraw: "epoch" for fresh noise in every epoch, "never" if it is drawn once; a field where it can be chosen.
        noisy_columns: the columns that it falls on, each beside its clean copy `clean_<column>` where there was one.
        rate_names: the fields that say how much noise there is, of which one is given.
        names: what builders call it in `protocol=`, each with the fields that the name stands for.
        error_rate, ratio: e, the share of noisy units, and r = e / (1 - e), noisy units per clean one.
    """

    protocol: ClassVar[str]
    version: ClassVar[int] = 1
    stream: ClassVar[int]
    unit: ClassVar[Unit]
    redraw: ClassVar[Redraw] = "never"
    noisy_columns: ClassVar[tuple[str, ...]] = ("labels",)
    rate_names: ClassVar[tuple[str, ...]] = ("ratio", "error_rate")
    names: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    if TYPE_CHECKING:  # fields of some, properties of others; a noise is a dataclass, and called where it is drawn
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

        @property
        def error_rate(self) -> float: ...

        @property
        def ratio(self) -> float: ...

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "protocol" not in cls.__dict__:
            return
        taken = _PROTOCOLS.get(cls.protocol, cls)
        if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"two noises are called {cls.protocol!r}: {taken.__qualname__} and {cls.__qualname__}")
        if getattr(cls, "unit", None) not in _UNITS:
            raise TypeError(f"{cls.__qualname__} must declare its unit, one of {', '.join(_UNITS)}")
        _PROTOCOLS.setdefault(cls.protocol, cls)

    @property
    def variant(self) -> str:
        """Which of several kinds of its protocol it is, in a word; empty where there is one kind."""
        return ""

    @property
    def is_drawn(self) -> bool:
        """Whether `noise(values, sample, epoch) -> (noisy, is_noisy)` corrupts rows that are there.

        Else its rows carry it already, and it is only recorded.
        """
        return True

    @property
    def if_not_drawn(self) -> str:
        """Why it corrupts no rows that are there, and what to do instead, in words; only asked if `is_drawn` is not."""
        return f"{type(self).__name__} is carried by its rows and drawn by nobody"

    @property
    def draws_targets(self) -> bool:
        """Whether it can be drawn on the targets of clean rows alone, as a trainer does."""
        return self.is_drawn and "input_ids" not in self.noisy_columns

    @property
    def is_spread(self) -> bool:
        """Whether any stretch of the rows has its share of the noise, and not only all of them together."""
        return True

    @property
    def error_rates(self) -> np.ndarray | None:
        """Share of noisy units by the clean class, float64 [C]; None if it is `error_rate` for all."""
        return None

    def overall_error_rate(self, prior: Any = None) -> float:
        """Expected share of noisy units; `prior` is p(clean) where it depends on the class."""
        return self.error_rate

    @property
    def mixture_rate(self) -> float | None:
        """w, if p(noisy | clean) = (1 - w) onehot + w / V for every token; None for any other noise."""
        return None

    @property
    def stay_rate(self) -> float:
        """Probability that a unit which is marked as noisy is what it was."""
        return 0.0

    def without_noise(self) -> Noise:
        """The same kind of noise with a rate of 0: what the clean splits of noisy data have."""
        return dataclasses.replace(self, **dict.fromkeys(self.rate_names, 0.0))

    def epoch_drawn(self, epoch: int) -> int:
        """The epoch whose draws `epoch` has: 0 for noise that is drawn once."""
        epoch = check_epoch(epoch)
        return epoch if self.redraw == "epoch" else 0

    def on_device(self, values: Any, sample: Any, epoch: int = 0, *, compiled: bool = False) -> Any:
        """`noise(values, sample, epoch)` for a tensor, on its device; `compiled` fuses it into one pass, if it can."""
        return self(values, sample, epoch)

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to rebuild this noise, as JSON-able values under the keys of its fields."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"protocol": self.protocol, "version": self.version, **fields}

    @property
    def summary(self) -> str:
        """What this noise does, in a few words, for cards and tables."""
        return (type(self).__doc__ or self.protocol).strip().splitlines()[0].rstrip(".")

    def __reduce__(self):
        # Pickles, and with them the fingerprints of `datasets`, depend on the values and the version alone.
        return noise_from_dict, (self.to_dict(),)


def known_noises() -> tuple[type[Noise], ...]:
    """The noises that are defined, in the order of their protocols."""
    return tuple(_PROTOCOLS[name] for name in sorted(_PROTOCOLS))


def noise_from_dict(config: Mapping[str, Any]) -> Noise:
    """Rebuild a noise from `Noise.to_dict()`.

    Raises:
        ValueError: the protocol is unknown, was written by another version of its algorithm, has unknown fields or
            lacks one, or a field's value is out of range.
        TypeError: this is no dictionary, or a field is of another type.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"a noise is stored as a dictionary, see Noise.to_dict(), got {config!r:.80}")
    fields = dict(config)
    protocol, version = fields.pop("protocol", None), fields.pop("version", None)
    if not isinstance(protocol, str) or protocol not in _PROTOCOLS:
        known = ", ".join(sorted(_PROTOCOLS))
        raise ValueError(f"unknown noise protocol {protocol!r}; this version of hf_noise knows: {known}. One of your "
                         "own is known once its module is imported")  # fmt: skip
    cls = _PROTOCOLS[protocol]
    if isinstance(version, bool) or not isinstance(version, int) or version != cls.version:
        raise ValueError(
            f"the noise {protocol!r} was written in version {version!r} and this hf_noise draws version "
            f"{cls.version}; install the hf_noise that wrote it to get the same draws"
        )
    unknown = sorted(map(str, set(fields) - {field.name for field in dataclasses.fields(cls)}))
    if unknown:
        raise ValueError(f"the noise {protocol!r} has no field {', '.join(unknown)}")
    missing = [field.name for field in dataclasses.fields(cls) if _is_required(field) and field.name not in fields]
    if missing:
        raise ValueError(f"the noise {protocol!r} needs the field {', '.join(missing)}; give all that to_dict() wrote")
    return cls(**fields)


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def realised_rate(is_noisy: Any) -> dict[str, float | int]:
    """Share of noisy units in a mask of any shape (NumPy or torch) and their number, `{"rate", "n"}`.

    Raises:
        TypeError: the mask is none: booleans, or integers that are 0 and 1.
        ValueError: the mask is empty.
    """
    mask = as_array("is_noisy", is_noisy)
    if mask.size == 0:
        raise ValueError("the realised rate of an empty mask is undefined; corrupt some data first")
    if mask.dtype != bool and (mask.dtype.kind not in "iu" or mask.min() < 0 or mask.max() > 1):
        raise TypeError(f"is_noisy must be a mask of booleans (or integers 0 and 1), got {mask.dtype}")
    return {"rate": float(mask.mean()), "n": int(mask.size)}


def check_redraw(redraw: Any) -> str:
    """Return `redraw`, or raise: "epoch" draws fresh noise in every epoch, "never" repeats that of epoch 0."""
    return check_choice("redraw", redraw, ("epoch", "never"), '"epoch" or "never"')
