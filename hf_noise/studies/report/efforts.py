"""What the runs that are compared were trained on, in multiples of the run without noise: clean data, and compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from hf_noise.studies.report.families import Curve, Seeds, is_equal_compute, rows_of

__all__ = ["Effort", "effort", "explained"]

#: Times of runs that are alike differ by nearly as much on a machine that others use, too.
_CLEARLY = 1.5


@dataclass(frozen=True)
class Effort:
    """Rows trained on at the largest error rate, in multiples of the run without noise.

    Attributes:
        clean: those of the plain loss that were clean.
        plain, cured: all of them, which stand for compute; `cured` is None where no cure was run.
        helper: what the cure trains besides, in words; empty if nothing.
        helped: the rows of that; None where the records do not say.
        longer: times as long that a row took by the clock with the cure as with the plain loss; None if not clearly so.
        has_equal: whether the run without noise that the cure is held against has the compute of the plain loss.
    """

    clean: float
    plain: float
    cured: float | None
    helper: str
    helped: float | None
    longer: float | None
    has_equal: bool

    @property
    def told(self) -> str:
        """Such as `2 ×; cure 2 + 1.5 ×`."""
        if self.cured is None:
            return f"{self.plain:.2g} ×"
        more = "" if not self.helper else f" + {'?' if self.helped is None else f'{self.helped:.2g}'}"
        return f"{self.plain:.2g} ×; cure {self.cured:.2g}{more} ×"


def effort(curve: Curve) -> Effort:
    """What the runs of a curve were trained on at its largest error rate, from their records."""
    clean, equal, plain, cured = curve.at_worst
    base = rows_of(clean)
    helper = next((one.helper for one in cured.values() if one.helper), "")
    helped = [one.helped for one in cured.values() if one.helper and one.helped is not None]
    is_known = bool(helped) and len(helped) == len(cured)
    return Effort(
        clean=mean(one.exposure for one in plain.values()), plain=rows_of(plain) / base,
        cured=rows_of(cured) / base if cured else None, helper=helper, helped=mean(helped) / base if is_known else None,
        longer=_longer(plain, cured), has_equal=bool(equal) or is_equal_compute(plain, clean),
    )  # fmt: skip


def _longer(plain: Seeds, cured: Seeds) -> float | None:
    pairs = [(plain[seed], one) for seed, one in cured.items() if seed in plain and plain[seed].on == one.on]
    each = [(one.seconds / one.rows) / (other.seconds / other.rows) for other, one in pairs if other.seconds]
    return mean(each) if each and min(each) >= _CLEARLY else None


def explained(curves: Sequence[Curve]) -> list[str]:
    """Sentences on what is compared with what: clean data and compute of runs with noise, and what cures train more."""
    if not curves:
        return []
    told = [(one, effort(one)) for one in curves]
    said = _by(told, lambda _, of: f"{of.clean:.2g} × its clean data at {of.plain:.2g} × its compute")
    sentences = [f"At the largest error rate runs had, in multiples of the run without noise, {'; '.join(said)}."]
    if more := _by(told, lambda one, of: f"{one.family.cure} {_besides(of)}" if of.helper else ""):
        sentences.append(f"Cures that train more, so that their share of the gap is not at equal compute: "
                         f"{'; '.join(more)}.")  # fmt: skip
    if longer := _by(told, lambda one, of: f"{one.family.cure} {of.longer:.2g} ×" if of.longer else ""):
        sentences.append(f"Compute counts rows; by the clock of whole runs, with what else they trained themselves, a "
                         f"row took longer with the cure than with the plain loss: {'; '.join(longer)}.")  # fmt: skip
    if lacks := _by(told, lambda _, of: "" if of.has_equal else "No run without noise had the compute of those with"):
        sentences.append(f"{lacks[0]}.")
    return sentences


def _besides(of: Effort) -> str:
    return f"needs {of.helper}" + ("" if of.helped is None else f", {of.helped:.2g} × the rows")


def _by(told: Sequence[tuple[Curve, Effort]], says: Callable[[Curve, Effort], str]) -> list[str]:
    """What is said, once, with the models that it is said of; the empty is not said."""
    found: dict[str, list[str]] = {}
    for one, of in told:
        if text := says(one, of):
            found.setdefault(text, []).append(one.family.name)
    return [f"{text} ({', '.join(dict.fromkeys(names))})" for text, names in found.items()]
