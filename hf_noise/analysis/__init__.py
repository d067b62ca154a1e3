"""What theory and statistics say about noisy training, on plain numbers and arrays.

Each name loads its module when it is first used.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.analysis.advice import advise_batch as advise_batch
    from hf_noise.analysis.noise_scale import gradient_noise_scale as gradient_noise_scale

_WHERE = {
    "advise_batch": "advice",
    "gradient_noise_scale": "noise_scale",
}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
