"""EDM's second-order sampler (Karras et al. 2022, algorithms 1 and 2) as a diffusers scheduler.

diffusers has EDM with Euler's and with DPM-Solver's steps, and Heun's steps for other models. This is the missing one,
with the interface of `EDMEulerScheduler`; the network's raw output goes into `step`. N steps take 2N - 1 network calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from hf_noise.diffusion.preconditioning import SIGMA_DATA, scalings
from hf_noise.diffusion.ranges import check_churn, check_sigma, check_steps
from hf_noise.models.checks import check_floats, check_int, check_name, check_number, shown

__all__ = ["EDMHeunScheduler", "EDMHeunSchedulerOutput"]

Generators = torch.Generator | list[torch.Generator] | None


@dataclass
class EDMHeunSchedulerOutput(BaseOutput):
    """What a network call led to.

    Args:
        prev_sample: input of the next call, float [B, C, H, W].
        pred_original_sample: the clean image as estimated by this call, float [B, C, H, W].
    """

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class EDMHeunScheduler(SchedulerMixin, ConfigMixin):
    """Heun's method on the probability flow dx/dsigma = (x - D(x; sigma)) / sigma, with EDM's grid of sigma.

    One pass through `timesteps`, which hold one entry per network call:

        scheduler.set_timesteps(18)
        x = scheduler.init_noise_sigma * noise
        for t in scheduler.timesteps:
            x = scheduler.add_churn(x, t, generator)       # nothing without churn, and may then be left out
            raw = unet(scheduler.scale_model_input(x, t), t, class_labels).sample
            x = scheduler.step(raw, t, x).prev_sample

    The grid and all that follows from it lie on the host, so that no step waits for the device. The sample stays in
    float32 (or float64, if it began so) whatever the network's precision.

    Args:
        sigma_min, sigma_max, rho: of the grid sigma_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) -
            sigma_max^(1/rho)))^rho, i = 0 ... N - 1, then sigma_N = 0 (equation 5).
        sigma_data: standard deviation of the data, as in training.
        sigma_schedule: "karras", the grid above; named as in `EDMEulerScheduler`.
        num_train_timesteps: length of the grid before `set_timesteps`; training draws any sigma.
        prediction_type: "epsilon", or "v_prediction" for a network of the opposite sign.
        final_sigmas_type: "zero": the last step ends without noise.

    Raises:
        ValueError: not 0 < sigma_min < sigma_max, a rho at which float64 cannot hold the grid (below some tenths, or
            above 1e12, for the usual sigmas), or a value that is not listed here.
        TypeError: what should be a number or a name is none.
    """

    _compatibles: list = []
    order = 2

    @register_to_config
    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = SIGMA_DATA,
        sigma_schedule: str = "karras",
        num_train_timesteps: int = 1000,
        prediction_type: str = "epsilon",
        rho: float = 7.0,
        final_sigmas_type: str = "zero",
    ):
        given = {"sigma_min": sigma_min, "sigma_max": sigma_max, "sigma_data": sigma_data}
        given = {name: check_sigma(name, value) for name, value in given.items()}
        if not given["sigma_min"] < given["sigma_max"]:
            raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        given["rho"] = check_number("rho", rho, "(0, inf)", "EDM takes 7")
        given["num_train_timesteps"] = check_steps("num_train_timesteps", num_train_timesteps)
        check_name("sigma_schedule", sigma_schedule, ("karras",))
        check_name("prediction_type", prediction_type, ("epsilon", "v_prediction"))
        check_name("final_sigmas_type", final_sigmas_type, ("zero",))
        self.register_to_config(**given)  # plain numbers, which a JSON file can hold
        self.set_timesteps(num_train_timesteps)
        self.num_inference_steps = None

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first sample: sigma_max, which the first network call is told."""
        return self.config.sigma_max

    @property
    def step_index(self) -> int | None:
        """Number of the coming network call, 0 ... 2N - 2; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The network call to begin with, if `set_begin_index` said it."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Say which network call is the first. Without it, the first timestep is searched, which waits for the device.

        Raises:
            ValueError: there is no such call, or it is the second one of a step.
            TypeError: it is no whole number.
        """
        hint = "it must be even, for odd calls are the second of their step"
        begin_index = check_int("begin_index", begin_index, f"[0, {len(self.timesteps) - 1}]", hint)
        if begin_index % 2:
            raise ValueError(f"begin_index must be even, got {begin_index}; odd calls are the second of their step")
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int,
        device: str | torch.device | None = None,
        *,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
    ) -> None:
        """Set up the grid; to be called before each pass.

        Args:
            num_inference_steps: N, a whole number in [1, 1000000]; the pass takes 2N - 1 network calls.
            device: of `timesteps`.
            s_churn: noise to add over all steps, >= 0; 0 is the deterministic sampler of algorithm 1. A step raises
                sigma by the factor 1 + gamma, gamma = min(s_churn / N, sqrt(2) - 1).
            s_tmin, s_tmax: only where s_tmin <= sigma <= s_tmax.
            s_noise: standard deviation of the added noise, in [0, 1e6], in units of what the rise of sigma asks for.

        Raises:
            ValueError: a value is out of its range.
            TypeError: what should be a number is none.
        """
        steps = check_steps("num_inference_steps", num_inference_steps)
        s_churn, s_tmin, s_tmax, s_noise = check_churn(s_churn, s_tmin, s_tmax, s_noise)
        sigmas = self._grid(steps)
        is_churned = (s_tmin <= sigmas) & (sigmas <= s_tmax)
        raised = sigmas * (1 + is_churned * min(s_churn / steps, math.sqrt(2) - 1))

        self.num_inference_steps = steps
        self._s_noise = s_noise
        self._sigma_hat: list[float] = raised.tolist()  # of the first call of each step, sigma_i (1 + gamma_i)
        self._sigmas: list[float] = [*sigmas.tolist(), 0.0]
        # float64, and on the host as in all schedulers of diffusers: an element multiplies a sample on any device.
        self.sigmas = torch.tensor(self._sigmas, dtype=torch.float64)
        calls = [sigma for pair in zip(self._sigma_hat, self._sigmas[1:]) for sigma in pair][:-1]
        self._call_sigmas = torch.tensor(calls, dtype=torch.float64)
        self.timesteps = _placed(self.precondition_noise(self._call_sigmas).to(torch.float32), device)
        self._step_index = self._begin_index = None
        self._is_churned = False
        self._sample: Tensor | None = None
        self._derivative: Tensor | None = None

    def _grid(self, steps: int) -> np.ndarray:
        """sigma_0 ... sigma_(N-1), float64."""
        config = self.config
        with np.errstate(all="ignore"):  # what overflows does not reach its ends
            ends = np.array([config.sigma_max, config.sigma_min]) ** (1 / config.rho)
            sigmas = (ends[0] + np.linspace(0, 1, steps) * (ends[1] - ends[0])) ** config.rho
        reached, stated = (sigmas[0], sigmas[-1]), (config.sigma_max, config.sigma_min if steps > 1 else sigmas[0])
        if not (np.allclose(reached, stated, rtol=1e-3, atol=0) and (np.diff(sigmas) < 0).all()):
            raise ValueError(
                f"rho = {config.rho} gives no grid of {steps} steps from {config.sigma_max} down to "
                f"{config.sigma_min}, because float64 cannot hold its powers; EDM takes 7"
            )
        return sigmas

    def precondition_inputs(self, sample: Tensor, sigma: float | Tensor) -> Tensor:
        """c_in x, what the network sees."""
        check_floats("sample", sample, "[B, C, H, W]")
        return sample * self._scalings(_one(sigma))[2]

    def precondition_noise(self, sigma: float | Tensor) -> Tensor:
        """c_noise = ln(sigma) / 4, the timestep."""
        return self._scalings(sigma)[3]

    def precondition_outputs(self, sample: Tensor, model_output: Tensor, sigma: float | Tensor) -> Tensor:
        """The estimate of the clean image, c_skip x + c_out F."""
        _check_same(sample, model_output, "sample", "model_output")
        c_skip, c_out, _, _ = self._scalings(_one(sigma))
        if self.config.prediction_type == "v_prediction":
            c_out = -c_out
        return c_skip * sample + c_out * model_output

    def add_churn(self, sample: Tensor, timestep: float | Tensor, generator: Generators = None) -> Tensor:
        """Raise the noise of the sample from sigma_i to sigma_i (1 + gamma_i), before the network sees it.

        `EDMEulerScheduler` adds this noise after the network was called at another sigma, which is not algorithm 2.

        Args:
            sample: float [B, C, H, W].
            timestep: the coming entry of `timesteps`.
            generator: one for the batch, or a list of one per image.

        Returns:
            The sample to hand to `scale_model_input` and `step`; the very same tensor where nothing is to be added.
        """
        check_floats("sample", sample, "[B, C, H, W]")
        index = self._index(timestep)
        sigma, sigma_hat = self._sigmas[index // 2], self._sigma_hat[index // 2]
        if index % 2 or sigma_hat == sigma or self._is_churned:
            return sample
        self._is_churned = True
        # In float32 always, so that a seed means the same image whatever the state's precision.
        noise = randn_tensor(tuple(sample.shape), generator=generator, device=sample.device, dtype=torch.float32)
        return sample + self._s_noise * math.sqrt(sigma_hat**2 - sigma**2) * noise.to(sample.dtype)

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor) -> Tensor:
        """c_in x for the coming network call."""
        return self.precondition_inputs(sample, self._call_sigmas[self._index(timestep)])

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        return_dict: bool = True,
    ) -> EDMHeunSchedulerOutput | tuple[Tensor, Tensor]:
        """Go on by one network call: odd calls end in Euler's point, even ones correct it.

        Args:
            model_output: raw output F of the network, float [B, C, H, W].
            timestep: the entry of `timesteps` that the network was called with.
            sample: the sample before `scale_model_input`, float32 or float64 [B, C, H, W].
            return_dict: False for a tuple.

        Raises:
            ValueError: an integer timestep, a schedule that has ended, churn without `add_churn`, or an output whose
                shape is not the sample's.
            TypeError: sample and output are no tensors of floating-point numbers.
        """
        _check_same(sample, model_output, "sample", "model_output")
        index = self._index(timestep)
        sigma_hat, following = self._sigma_hat[index // 2], self._sigmas[index // 2 + 1]
        if sample.dtype not in (torch.float32, torch.float64):
            sample = sample.float()
        denoised = self.precondition_outputs(sample, model_output.to(sample.dtype), self._call_sigmas[index])
        if index % 2 == 0:
            if sigma_hat != self._sigmas[index // 2] and not self._is_churned:
                raise ValueError(
                    "the schedule has churn: call add_churn(sample, timestep, generator) before scale_model_input and "
                    "use what it returns in step too"
                )
            derivative = (sample - denoised) / sigma_hat
            previous = sample + (following - sigma_hat) * derivative
            self._sample, self._derivative = sample, derivative
        else:
            derivative = (sample - denoised) / following
            previous = self._sample + (following - sigma_hat) / 2 * (self._derivative + derivative)
            self._sample = self._derivative = None
        self._is_churned = False
        self._step_index = index + 1
        if self._step_index == len(self._call_sigmas):
            self._sample = self._derivative = None
        if not return_dict:
            return previous, denoised
        return EDMHeunSchedulerOutput(prev_sample=previous, pred_original_sample=denoised)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x0 + sigma n at the sigma of each timestep, float [B, C, H, W]; any timestep ln(sigma) / 4 will do."""
        _check_same(original_samples, noise, "original_samples", "noise")
        check_floats("timesteps", timesteps, "ln(sigma) / 4 of each image")
        if timesteps.shape not in {original_samples.shape[:1], (1,), ()}:
            raise ValueError(f"timesteps must be one for each of {len(original_samples)} images, or one for all, got "
                             f"the shape {list(timesteps.shape)}")  # fmt: skip
        sigma = (4 * timesteps.to(original_samples)).exp()
        return original_samples + sigma.reshape(-1, *[1] * (original_samples.ndim - 1)) * noise

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def _scalings(self, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if not isinstance(sigma, Tensor):
            check_number("sigma", sigma, "[1e-18, 1e18]", "it is a noise level")
        return scalings(torch.as_tensor(sigma, dtype=torch.float64), self.config.sigma_data)

    def _index(self, timestep: float | Tensor) -> int:
        """Number of the coming network call; finds it for the first one."""
        is_whole = isinstance(timestep, Integral) or (isinstance(timestep, Tensor) and not timestep.is_floating_point())
        if is_whole:
            raise ValueError(f"timestep must be an entry of scheduler.timesteps, got the integer {timestep}")
        if not isinstance(timestep, Real) and not (isinstance(timestep, Tensor) and timestep.numel() == 1):
            raise TypeError(f"timestep must be an entry of scheduler.timesteps, got {shown(timestep)}")
        timestep = timestep if isinstance(timestep, Tensor) else float(timestep)
        if self._step_index is None:
            if self._begin_index is None:
                found = (self.timesteps == timestep).nonzero().flatten().tolist()
                # A sigma inside the grid ends one step and begins the next: the even call is the beginning.
                found = [index for index in found if index % 2 == 0]
                if not found:
                    raise ValueError(f"timestep {float(timestep)} begins no step of this schedule")
                self._step_index = found[0]
            else:
                self._step_index = self._begin_index
        if self._step_index >= len(self._call_sigmas):
            raise ValueError("this schedule has come to its end; call set_timesteps before the next pass")
        return self._step_index


def _check_same(sample: Any, other: Any, name: str, name_of_other: str) -> None:
    for what, value in ((name, sample), (name_of_other, other)):
        check_floats(what, value, "[B, C, H, W]")
    if sample.shape != other.shape:
        raise ValueError(f"{name_of_other} must have the shape of {name}, {list(sample.shape)}, got "
                         f"{list(other.shape)}")  # fmt: skip


def _one(sigma: float | Tensor) -> float | Tensor:
    if isinstance(sigma, Tensor) and sigma.ndim:
        raise ValueError(f"sigma must be one noise level for all images, got the shape {list(sigma.shape)}")
    return sigma


def _placed(tensor: Tensor, device: Any) -> Tensor:
    try:
        return tensor if device is None else tensor.to(torch.device(device))
    except (AssertionError, OverflowError, RuntimeError, TypeError, ValueError) as error:  # all of them torch raises
        raise ValueError(f"device must be one that torch finds here, got {shown(device)}: {error}") from error
