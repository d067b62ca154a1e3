"""How much of a user's own labels is wrong, which rows, and what to do about it.

Each name loads its module when it is first used.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.audit.measured import Measured as Measured
    from hf_noise.audit.powered import Verified as Verified
    from hf_noise.audit.powered import combine_verified as combine_verified
    from hf_noise.audit.recalibrate import longest_list as longest_list
    from hf_noise.audit.recalibrate import recalibrated as recalibrated
    from hf_noise.audit.sampling import Sample as Sample
    from hf_noise.audit.sampling import draw_sample as draw_sample
    from hf_noise.audit.sheet import read_sheet as read_sheet
    from hf_noise.audit.sheet import write_sheet as write_sheet

_WHERE = {
    "Measured": "measured",
    "Sample": "sampling",
    "Verified": "powered",
    "combine_verified": "powered",
    "draw_sample": "sampling",
    "longest_list": "recalibrate",
    "read_sheet": "sheet",
    "recalibrated": "recalibrate",
    "write_sheet": "sheet",
}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
