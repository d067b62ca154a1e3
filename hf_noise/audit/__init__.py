"""How much of a user's own labels is wrong, which rows, and what to do about it.

Each name loads its module when it is first used.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.audit.dynamics import TrainingDynamics as TrainingDynamics
    from hf_noise.audit.dynamics import area_under_margin as area_under_margin
    from hf_noise.audit.dynamics import aum_score as aum_score
    from hf_noise.audit.dynamics import forgetting_events as forgetting_events
    from hf_noise.audit.dynamics import forgetting_score as forgetting_score
    from hf_noise.audit.dynamics import mean_loss as mean_loss
    from hf_noise.audit.dynamics import read_dynamics as read_dynamics
    from hf_noise.audit.dynamics import small_loss_score as small_loss_score
    from hf_noise.audit.measured import Measured as Measured

_WHERE = {
    "Measured": "measured",
    "TrainingDynamics": "dynamics",
    "area_under_margin": "dynamics",
    "aum_score": "dynamics",
    "forgetting_events": "dynamics",
    "forgetting_score": "dynamics",
    "mean_loss": "dynamics",
    "read_dynamics": "dynamics",
    "small_loss_score": "dynamics",
}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
