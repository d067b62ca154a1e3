"""What theory and statistics say about noisy training, on plain numbers and arrays.

Each name loads its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_noise.analysis.advice import advise_batch as advise_batch
    from hf_noise.analysis.noise_scale import gradient_noise_scale as gradient_noise_scale

# No name here may be that of a module beside it: importing the module would put it in the name's place.
_WHERE = {
    "advise_batch": "advice",
    "gradient_noise_scale": "noise_scale",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
