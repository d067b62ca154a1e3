"""What a trainer minimises: frozen values, as noises are. Nothing here needs torch before it is called.

Each module is one objective's or a few that belong together; all are found by their files, so that a new one, and the
function in `hf_noise.losses` that it calls, need no line elsewhere.
"""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_noise.objectives.base import Objective, objective_from_dict, objectives

if TYPE_CHECKING:  # a type checker runs no loop: those of the first page, and any other without its type
    from hf_noise.objectives.images import TDSM as TDSM
    from hf_noise.objectives.labels import CorrectedLabels as CorrectedLabels
    from hf_noise.objectives.sequence_mixture import SequenceMixture as SequenceMixture
    from hf_noise.objectives.tokens import NLL as NLL
    from hf_noise.objectives.tokens import Corrected as Corrected

    def __getattr__(name: str) -> Any: ...


for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

_found = {cls.__name__: cls for cls in objectives() if cls.__module__.startswith(f"{__name__}.")}
globals().update(_found)

__all__ = [  # noqa: PLE0604
    "L2SP", "LNSR", "Objective", "SMART", "VolumePlan", "objective_from_dict", "objectives", *sorted(_found),
]  # fmt: skip

from hf_noise.objectives.regulariser_plans import L2SP, LNSR, SMART  # noqa: E402
from hf_noise.objectives.volume_plan import VolumePlan  # noqa: E402
