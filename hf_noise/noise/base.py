"""What every noise protocol has in common: a frozen value that can be called, named, stored and hashed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from hf_noise.noise.arrays import as_array
from hf_noise.noise.checks import check_choice, check_seed

__all__ = [
    "Noise",
    "check_redraw",
    "check_seed",
    "noise_from_description",
    "noise_from_dict",
    "noise_of_description",
    "noise_records",
    "realised_rate",
]

_PROTOCOLS: dict[str, type[Noise]] = {}


class Noise:
    """Base of the frozen dataclasses that say which protocol corrupts which data, how much and with which seed.

    A subclass sets `protocol` (its name in records and cards), `version` (raised whenever the same fields would draw
    other noise, so that caches and old checkpoints cannot be confused) and `stream` (the counter stream it owns).
    Defining the subclass is enough for `noise_from_dict` to find it.
    """

    protocol: ClassVar[str]
    version: ClassVar[int] = 1
    stream: ClassVar[int]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "protocol" in cls.__dict__:
            taken = _PROTOCOLS.setdefault(cls.protocol, cls)
            if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"two noises are called {cls.protocol!r}: {taken.__qualname__} and {cls.__qualname__}")

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
        raise ValueError(f"unknown noise protocol {protocol!r}; this version of hf_noise knows: {known}")
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


def noise_of_description(description: str) -> dict[str, Any] | None:
    """What `load_dataset("hf_noise/...")` says of its noise in `dataset.info.description`: JSON in a line of its own.

    Returns:
        `Noise.to_dict()`, with the realised rate `{"rate", "n"}` under "realised" once the data are built; None if
        no line is one of ours. Of data sets with the same noise that were put together, no rate is that of all rows.

    Raises:
        TypeError: the description is no text.
        ValueError: it states several noises, as data sets that were put together do; or a line begins like one of ours
            and is not.
    """
    if description is not None and not isinstance(description, str):
        raise TypeError(f"a description is a text, got {description!r:.80} of type {type(description).__name__}")
    last = (description or "").strip().splitlines()[-1:]
    if last and last[0].startswith('{"noise"'):
        try:
            stated = json.loads(last[0])["noise"]
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"the description's last line states a noise that cannot be read: {last[0]:.80}"
            ) from error
        if not isinstance(stated, dict):
            raise ValueError(
                f"the description's last line states {stated!r:.80} as its noise; it holds Noise.to_dict()"
            )
    stated = [record["noise"] for record in noise_records(description)]
    noises = [{key: value for key, value in noise.items() if key != "realised"} for noise in stated]
    if other := next((noise for noise in noises if noise != noises[-1]), None):
        raise ValueError(
            f"the description states several noises, {other!r:.200} and {noises[-1]!r:.200}: data sets were put "
            "together; use one of them, or say the noise that all rows have"
        )
    if not stated:
        return None
    return stated[-1] if all(noise == stated[-1] for noise in stated) else noises[-1]


def noise_records(description: str) -> list[dict[str, Any]]:
    """All that a description says of noise, one entry for each line of ours: data sets put together have several.

    Returns:
        Dictionaries with "noise" and perhaps "epoch" and "realised" (`{split: {"rate", "n"}}`).

    Raises:
        ValueError: a line begins like one of ours and is broken.
    """
    records = []
    for line in (description or "").splitlines():
        if line.startswith('{"noise"'):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"the description of the data states broken noise ({error}): {line[:80]!r}") from None
            if isinstance(record["noise"], dict):
                records.append(record)
    return records


def noise_from_description(description: str) -> Noise | None:
    """The noise that a data set of `load_dataset("hf_noise/...")` carries, from its `info.description`.

    Returns None for a description that states no noise.

    Raises:
        ValueError: the noise is of a protocol, version or field that this hf_noise does not know, or cannot be read.
    """
    stated = noise_of_description(description)
    if stated is None:
        return None
    return noise_from_dict({key: value for key, value in stated.items() if key != "realised"})


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
