"""An objective of a classifier with regularisers of fine-tuning beside it: L2-SP, SMART, LNSR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hf_noise.noise.checks import check_seed
from hf_noise.objectives.base import Objective, RunContext, objective_from_dict
from hf_noise.objectives.regulariser_plans import L2SP, LNSR, SMART

if TYPE_CHECKING:
    from hf_noise.objectives.regularisers.run import RegularisedRun

__all__ = ["Regularised"]

_PLANS = {"l2_sp": L2SP, "smart": SMART, "lnsr": LNSR}
_SAID = {
    "l2_sp": "L2-SP (alpha = {alpha:.4g}, beta = {beta:.4g})",
    "smart": "SMART (weight {weight:.4g}, epsilon = {epsilon:.4g}, {steps} step(s))",
    "lnsr": "LNSR (weight {weight:.4g}, noise of {sigma:.4g} on layer {layer})",
}


@dataclass(frozen=True)
class Regularised(Objective):
    """An objective on labels with regularisers of fine-tuning beside it.

    What each adds to a row's loss, times its weight: see `hf_noise.losses.l2_sp`, `smart` and `lnsr`. They are added
    while the model is in training mode. `Regularised(CorrectedLabels(), smart=SMART(weight=3))` corrects and smooths.

    Args:
        base: any other objective on labels: `CrossEntropy()`, `CorrectedLabels(...)`, `GCE`, `ELR`, `LGM(...)`.
        l2_sp: a plan, or a dictionary of its fields; None for none.
        smart: likewise. The model needs input embeddings, and rows a column `input_ids` and a `sample_id`.
        lnsr: likewise. The model needs a stack of layers, and rows a `sample_id`.
        seed: of what is drawn, from it, the row's `sample_id` and the epoch.

    Raises:
        ValueError: there is no regulariser at all, a field is outside its range; in a run, what the class of the model
            lacks, and see each regulariser.
        TypeError: `base` is no objective on labels, or is regularised itself; a plan is none.

    Source: Li et al., ICML 2018 (L2-SP); Jiang et al., ACL 2020 (SMART); Hua et al., NAACL 2021 (LNSR).
    """

    base: Objective
    l2_sp: L2SP | None = None
    smart: SMART | None = None
    lnsr: LNSR | None = None
    seed: int = 0

    name = "regularised"
    unit = "labels"
    needs_forward = True

    def __post_init__(self) -> None:
        base = objective_from_dict(self.base) if isinstance(self.base, Mapping) else self.base
        if not isinstance(base, Objective) or self.unit not in (base.units or (getattr(base, "unit", None),)):
            got = f"one on {base.unit}" if isinstance(base, Objective) and hasattr(base, "unit") else repr(base)[:80]
            raise TypeError(f"base must be an objective on labels, such as CrossEntropy(), got {got}")
        if isinstance(base, Regularised):
            raise TypeError("base is regularised already; give one Regularised all of l2_sp, smart and lnsr")
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "seed", check_seed(self.seed))
        for name, kind in _PLANS.items():
            object.__setattr__(self, name, _plan(name, kind, getattr(self, name)))
        if not self.plans:
            raise ValueError("Regularised has no regulariser; give l2_sp=L2SP(), smart=SMART() or lnsr=LNSR(), or use "
                             f"{type(base).__name__} as it is")  # fmt: skip

    @property
    def plans(self) -> dict[str, L2SP | SMART | LNSR]:
        """The regularisers that there are, by name."""
        return {name: getattr(self, name) for name in _PLANS if getattr(self, name) is not None}

    @property
    def smooths(self) -> bool:  # type: ignore[override]
        return self.base.smooths

    @property
    def needs_features(self) -> bool:  # type: ignore[override]
        return self.base.needs_forward and self.base.needs_features

    @property
    def remembers(self) -> str | None:  # type: ignore[override]
        return self.base.remembers

    @property
    def learns(self) -> str | None:
        return self.base.learns

    @property
    def sentence(self) -> str:
        return self._beside(self.base.sentence)

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        return self._beside(self.base.told(facts, task, error_rate))

    def _beside(self, sentence: str) -> str:
        said = [_SAID[name].format(**asdict(plan)) for name, plan in self.plans.items()]
        return f"{sentence.rstrip('.')}; regularised by {' and '.join(said)}."

    def to_dict(self) -> dict[str, Any]:
        plans = {name: None if getattr(self, name) is None else asdict(getattr(self, name)) for name in _PLANS}
        return {"unit": self.unit, "name": self.name, "base": self.base.to_dict(), **plans, "seed": self.seed}

    def claims(self) -> dict[str, Any]:
        """As for every objective, with those of the base, which may condense a large T."""
        return {"loss": self.name, "objective": self.to_dict() | {"base": self.base.claims()["objective"]}}

    def bound(self, run: RunContext) -> RegularisedRun:
        from hf_noise.objectives.regularisers.run import RegularisedRun

        return RegularisedRun(self, run)


def _plan(name: str, kind: type, value: Any) -> Any:
    if isinstance(value, Mapping):
        if unknown := [key for key in value if key not in kind.__dataclass_fields__]:
            raise ValueError(f"{name} has no field {unknown[0]!r:.80}; see {kind.__name__}")
        value = kind(**value)
    if not isinstance(value, kind | None):
        raise TypeError(f"{name} must be {kind.__name__}(...), a dictionary of its fields or None, got {value!r:.80}")
    return value
