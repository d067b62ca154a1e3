"""The machine-readable `noise:` block of a card, and the same noise in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_noise.noise.base import Noise, noise_from_dict
from hf_noise.noise.checks import check_integer, check_real

#: What a record says of labels that are wrong as they come, by nobody knows how much. It is no noise that `as_noise`
#: could give.
UNKNOWN_NOISE = {"protocol": "unknown"}

# What a run adds to `Noise.to_dict()`; the rest rebuilds the noise.
_MEASURED = ("realised",)


def is_unknown(noise: Any) -> bool:
    """Whether a record or block states labels as they come, of which nobody knows how many are wrong."""
    return isinstance(noise, Mapping) and noise.get("protocol") == UNKNOWN_NOISE["protocol"]


def as_noise(noise: Noise | Mapping[str, Any]) -> Noise:
    """The noise itself, from a noise or from `to_dict()` with or without the realised rate.

    Raises ValueError for a protocol, version or field that this version of hf_noise does not know, TypeError for what
    is neither a noise nor a dictionary.
    """
    if isinstance(noise, Noise):
        return noise
    if not isinstance(noise, Mapping):
        raise TypeError(f"noise must be a noise or the dictionary that its to_dict() gives, got {noise!r:.80}")
    if is_unknown(noise):
        raise ValueError("its noise is unknown: labels were taken as they come, and nobody knows how many are wrong")
    return noise_from_dict({key: value for key, value in noise.items() if key not in _MEASURED})


def noise_block(noise: Noise | Mapping[str, Any]) -> dict[str, Any]:
    """What a card states: protocol, `r`, `e`, `alpha`, seed, realised rate with n, and the full `config`.

    `config` is `noise.to_dict()`, from which `hf_noise.load_noise` rebuilds the noise; the keys above it are
    for readers and for searches on the Hub. A rate that the protocol does not have is left out.
    """
    if is_unknown(noise):
        return UNKNOWN_NOISE | {"config": UNKNOWN_NOISE}
    config = as_noise(noise).to_dict()
    readable = {"protocol": config["protocol"], "r": config.get("ratio"), "e": config.get("error_rate")}
    readable |= {"alpha": config.get("alpha"), "seed": config.get("seed")}
    if isinstance(noise, Mapping):
        readable["realised"] = _realised(noise.get("realised"))
    return {key: value for key, value in readable.items() if value is not None} | {"config": config}


def _realised(realised: Any) -> dict[str, Any] | None:
    """The realised rate {"rate", "n"} as plain numbers, or an error unless it is one, or None."""
    if realised is None:
        return None
    if not isinstance(realised, Mapping) or not {"rate", "n"} <= set(realised):
        raise ValueError(f'realised must be {{"rate": share, "n": units}}, got {realised!r:.80}')
    rate, n = check_real("realised rate", realised["rate"]), check_integer("n of the realised rate", realised["n"])
    if not 0 <= rate <= 1 or n < 1:
        raise ValueError(f"the realised rate must lie in [0, 1] and be of n >= 1 units, got {realised!r:.80}")
    return {**realised, "rate": rate, "n": n}


def noise_sentence(block: Mapping[str, Any]) -> str:
    """The noise of a block in words; what the protocol does is said by its class."""
    if not isinstance(block, Mapping) or "config" not in block:
        raise ValueError(f"a block of noise is what noise_block() gives, with a config, got {block!r:.80}")
    if is_unknown(block["config"]):
        return "Nobody knows how many of the labels are wrong: they are as they come, and none was changed."
    for name in ("alpha", "e", "r"):
        if name in block:
            check_real(name, block[name])
    rate = block.get("alpha", block.get("e"))
    if rate == 0:
        return "No noise was added: this is the clean reference of its family."
    noise, rates = as_noise(block["config"]), []
    if "alpha" in block:
        rates.append(f"alpha = {block['alpha']:.4g} of the mixture is noise")
    if "r" in block:
        rates.append(f"r = {block['r']:.4g} noisy units per clean one")
    if "e" in block:
        overall = noise.overall_error_rate()
        differs = abs(overall - block["e"]) > 1e-6
        rates.append(f"e = {block['e']:.4g}" + (f", which makes {overall:.4g} wrong" if differs else " of all units"))
    sentence = f"{noise.summary}: {', '.join(rates)}."
    realised = _realised(block.get("realised"))
    if realised:
        units = "pairs" if noise.unit == "sequences" else "units"
        sentence += f" Counted in the data: {realised['rate']:.4f} of {realised['n']:,} {units}."
    return sentence
