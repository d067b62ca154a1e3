"""Diffusion models under EDM's noise: preconditioning, the Heun sampler and the pipeline.

Each name loads its module when it is first used: the scheduler and the pipeline import diffusers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_noise.diffusion.pipeline_edm import EDMPipeline as EDMPipeline
    from hf_noise.diffusion.preconditioning import SIGMA_DATA as SIGMA_DATA
    from hf_noise.diffusion.preconditioning import Denoiser as Denoiser
    from hf_noise.diffusion.preconditioning import scalings as scalings
    from hf_noise.diffusion.scheduling_edm_heun import EDMHeunScheduler as EDMHeunScheduler

# No name here may be that of a module beside it: importing the module would put it in the function's place.
_WHERE = {
    "Denoiser": "preconditioning",
    "EDMHeunScheduler": "scheduling_edm_heun",
    "EDMPipeline": "pipeline_edm",
    "SIGMA_DATA": "preconditioning",
    "scalings": "preconditioning",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
