"""How much of a user's own labels is wrong, which rows, and what to do about it.

Each name loads its module when it is first used.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.audit.choose import ChosenEstimate as ChosenEstimate
    from hf_noise.audit.choose import choose_estimate as choose_estimate
    from hf_noise.audit.estimators.noise_estimate import NoiseEstimate as NoiseEstimate
    from hf_noise.audit.lists import default_list as default_list
    from hf_noise.audit.lists import list_at_fdr as list_at_fdr
    from hf_noise.audit.measured import Measured as Measured

_WHERE = {
    "ChosenEstimate": "choose",
    "Measured": "measured",
    "NoiseEstimate": "estimators.noise_estimate",
    "choose_estimate": "choose",
    "default_list": "lists",
    "list_at_fdr": "lists",
}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
