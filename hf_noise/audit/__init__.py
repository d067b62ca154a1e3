"""How much of a user's own labels is wrong, which rows, and what to do about it.

Each name loads its module when it is first used.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.audit.measured import Measured as Measured

_WHERE = {"Measured": "measured"}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
