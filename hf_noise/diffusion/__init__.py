"""Diffusion models under EDM's noise: preconditioning, the Heun sampler and the pipeline.

Each name loads its module when it is first used: the scheduler and the pipeline import diffusers.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.diffusion.pipeline_edm import EDMPipeline as EDMPipeline
    from hf_noise.diffusion.preconditioning import SIGMA_DATA as SIGMA_DATA
    from hf_noise.diffusion.preconditioning import Denoiser as Denoiser
    from hf_noise.diffusion.preconditioning import scalings as scalings
    from hf_noise.diffusion.scheduling_edm_heun import EDMHeunScheduler as EDMHeunScheduler

_WHERE = {
    "Denoiser": "preconditioning",
    "EDMHeunScheduler": "scheduling_edm_heun",
    "EDMPipeline": "pipeline_edm",
    "SIGMA_DATA": "preconditioning",
    "scalings": "preconditioning",
}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
