"""Sampling from a class-conditional EDM network: one stream of random numbers per image, any EDM scheduler.

The module's path is written into `model_index.json` of every saved pipeline and must not change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, SchedulerMixin, UNet2DModel
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import snapshot_download
from torch import Tensor

from hf_noise.diffusion.pipeline_arguments import (
    as_integers,
    batch_size_of,
    class_embeddings,
    is_list,
    number_of_classes,
)
from hf_noise.diffusion.ranges import check_churn, check_steps

# diffusers loads a component of another package only if its module is imported already.
from hf_noise.diffusion.scheduling_edm_heun import EDMHeunScheduler
from hf_noise.evaluation_mode import evaluation_mode
from hf_noise.models.checks import MANY, as_json, check_int, check_name, check_number, shown
from hf_noise.models.loading import folder_of, load_whole

__all__ = ["EDMPipeline", "image_generators"]

# All that is read of a repository: no pickle and no code is even downloaded.
_FILES = ["model_index.json", "*/*.json", "*/*.safetensors"]
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


class EDMPipeline(DiffusionPipeline):
    """Images from a `UNet2DModel` that was trained under EDM's preconditioning.

        pipeline = EDMPipeline.from_pretrained("user/edm-cifar10")
        pipeline(class_labels=[3, 3, 5], seed=0).images

    Args:
        unet: the raw network F, with an embedding for each class if it has classes, and perhaps one more, the last, for
            images without a class.
        scheduler: `EDMHeunScheduler`, or diffusers' `EDMEulerScheduler` or `EDMDPMSolverMultistepScheduler`.
        num_classes: classes of the data, by default as many as the network has embeddings, less the unconditional one.
            One less than embeddings without an unconditional class: then the last embedding is never asked for.
        has_unconditional: whether the last embedding is that of the unconditional class and was trained, by leaving
            labels out; without it there is no guidance and no image without a class.
        hf_noise: `noise.to_dict()` of the noise the network was trained on; kept in `model_index.json`, where
            `hf_noise.load_noise` finds it.
        hf_noise_objective: `objective.to_dict()` of what it was trained for; kept there too.

    Raises:
        TypeError: hf_noise or hf_noise_objective is no dictionary that JSON can hold, or another argument is of another
            kind.
        ValueError: num_classes and has_unconditional do not fit the network's embeddings, or the network or the
            scheduler is no EDM one.
    """

    model_cpu_offload_seq = "unet"

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        num_classes: int | None = None,
        has_unconditional: bool = False,
        hf_noise: dict | None = None,
        hf_noise_objective: dict | None = None,
    ):
        super().__init__()
        embeddings = class_embeddings(unet)
        if not hasattr(scheduler, "precondition_noise"):
            raise ValueError(f"{type(scheduler).__name__} is no scheduler of EDM; take EDMHeunScheduler, "
                             "EDMEulerScheduler or EDMDPMSolverMultistepScheduler")  # fmt: skip
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(
            num_classes=number_of_classes(embeddings, num_classes, has_unconditional),
            has_unconditional=has_unconditional,
            hf_noise=as_json("hf_noise", hf_noise),
            hf_noise_objective=as_json("hf_noise_objective", hf_noise_objective),
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> EDMPipeline:
        """Load from a folder of `save_pretrained` or from the Hub; safetensors only, and all weights or none.

        diffusers refuses repositories with components of another package, but loads a folder with them; so the
        repository is fetched first. Arguments are those of `DiffusionPipeline.from_pretrained`.

        Raises:
            FileNotFoundError: neither a folder nor a name that a repository can have.
            OSError: there is no pipeline, or a file of it cannot be read.
            ValueError: use_safetensors=False, trust_remote_code=True, or a custom pipeline; tensors of the network are
                missing, unknown or of another shape; or it is no `UNet2DModel`.
        """
        of_others = kwargs.get("custom_pipeline") is not None or kwargs.get("trust_remote_code", False)
        if kwargs.pop("use_safetensors", True) is False or of_others:
            raise ValueError(
                "EDMPipeline loads safetensors and its own code only, without use_safetensors=False, "
                "trust_remote_code=True or custom_pipeline=; pickled weights and a repository's code can do anything"
            )
        folder = folder_of(pretrained_model_name_or_path)
        if folder is None:
            of_hub = {name: kwargs.pop(name) for name in _HUB_ARGUMENTS if name in kwargs}
            folder = snapshot_download(pretrained_model_name_or_path, allow_patterns=_FILES, **of_hub)
        if "unet" not in kwargs:
            _check_stored(Path(folder), cls.load_config(folder), kwargs.get("variant"))
        return super().from_pretrained(folder, use_safetensors=True, **kwargs)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | Sequence[int] | Tensor | None = None,
        batch_size: int | None = None,
        num_inference_steps: int = 18,
        guidance_scale: float = 1.0,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        first_index: int = 0,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
        state_dtype: torch.dtype = torch.float32,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Draw images.

        Image i of the call has its own stream of random numbers, so it is the same in a batch of any size, in any
        order and on any process, up to the rounding of the network.

        Args:
            class_labels: class of each image, in [0, num_classes), or one for all; None for the unconditional class, or
                for a network without classes.
            batch_size: number of images, by default that of the labels or of the seeds, else 1.
            num_inference_steps: N >= 1; Heun's scheduler calls the network 2N - 1 times, the others N times.
            guidance_scale: w in [1, 1e6] of D = D_uncond + w (D_class - D_uncond), classifier-free guidance; 1 is none.
            seed: an int s gives image i the stream (s, first_index + i); a list gives image i the stream (seed[i], 0).
                None: torch's own generator.
            generator: torch's, instead of a seed: one for the batch, or a list of one per image.
            first_index: number of the first image, when many images of one seed are drawn in several calls.
            s_churn, s_tmin, s_tmax, s_noise: see `EDMHeunScheduler.set_timesteps`.
            state_dtype: of the sample between network calls, torch.float32 or torch.float64.
            output_type: "pil", "np" for float32 [B, H, W, C] in [0, 1], or "pt" for a tensor [B, C, H, W] in [0, 1].
            return_dict: False for a tuple.

        Returns:
            An `ImagePipelineOutput` with `images`.

        Raises:
            ValueError: a label, seed or option is out of its range, or lists differ in length.
            TypeError: an argument of another kind, such as a string for a number.
            FloatingPointError: the network returned NaN or infinity.
        """
        check_name("output_type", output_type, ("pil", "np", "pt"))
        if not isinstance(return_dict, bool):
            raise TypeError(f"return_dict must be True or False, got {shown(return_dict)}")
        if not isinstance(state_dtype, torch.dtype) or state_dtype not in (torch.float32, torch.float64):
            raise ValueError(f"state_dtype must be torch.float32 or torch.float64, got {shown(state_dtype)}")
        guidance_scale = check_number("guidance_scale", guidance_scale, "[1, 1e6]", "1 is no guidance")
        steps = check_steps("num_inference_steps", num_inference_steps)
        s_churn, s_tmin, s_tmax, s_noise = check_churn(s_churn, s_tmin, s_tmax, s_noise)
        size = batch_size_of(class_labels, batch_size, seed, generator)
        labels = self._labels(class_labels, size, guidance_scale > 1)
        if seed is not None:
            if generator is not None:
                raise ValueError("pass seed or generator, not both")
            generator = image_generators(seed, size, first_index)

        scheduler, device = self.scheduler, self._execution_device
        has_churn = isinstance(scheduler, EDMHeunScheduler)
        if not has_churn and s_churn:
            raise ValueError(
                f"s_churn={s_churn} needs EDMHeunScheduler; {type(scheduler).__name__} adds its noise after the "
                "network was called, or not at all"
            )
        churn = dict(s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax, s_noise=s_noise) if has_churn else {}
        scheduler.set_timesteps(steps, device=device, **churn)
        scheduler.set_begin_index(0)  # a scheduler that has to search the first timestep waits for the device

        height, width = _pair(self.unet.config.sample_size)
        shape = (size, self.unet.config.in_channels, height, width)
        # Drawn in float32 always, so that a seed means the same image in either state.
        noise = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        sample = noise.to(state_dtype) * scheduler.init_noise_sigma
        labels = labels if labels is None else labels.to(device)

        sample = self._integrated(sample, labels, guidance_scale, generator, has_churn=s_churn > 0)
        self.maybe_free_model_hooks()
        images = _as_images(sample)
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _integrated(
        self, sample: Tensor, labels: Tensor | None, guidance_scale: float, generator: Any, has_churn: bool
    ) -> Tensor:
        """The sample at the end of all timesteps."""
        scheduler, dtype = self.scheduler, sample.dtype
        with evaluation_mode(self.unet):
            for timestep in self.progress_bar(scheduler.timesteps):
                if has_churn:
                    sample = scheduler.add_churn(sample, timestep, generator)
                raw = self._network(scheduler.scale_model_input(sample, timestep), timestep, labels, guidance_scale)
                sample = scheduler.step(raw.to(dtype), timestep, sample, return_dict=False)[0]
        return sample

    def _network(self, scaled: Tensor, timestep: Tensor, labels: Tensor | None, guidance_scale: float) -> Tensor:
        """Raw output F, guided: D is linear in F at one x and sigma, so that guiding F guides D."""
        seen = scaled.to(self.unet.dtype)
        if guidance_scale == 1:
            return self.unet(seen, timestep, labels, return_dict=False)[0]
        pairs = torch.cat([labels, torch.full_like(labels, self.config.num_classes)])
        both = self.unet(torch.cat([seen, seen]), timestep, pairs, return_dict=False)[0]
        raw, raw_uncond = both.to(scaled.dtype).chunk(2)  # their difference is small, and is multiplied
        return raw_uncond + guidance_scale * (raw - raw_uncond)

    def _labels(self, class_labels: int | Sequence[int] | Tensor | None, size: int, is_guided: bool) -> Tensor | None:
        """int64 [size] on the host, None for a network without classes."""
        classes, has_classes = self.config.num_classes, bool(self.unet.config.num_class_embeds)
        if is_guided and (class_labels is None or not self.config.has_unconditional):
            raise ValueError("guidance_scale > 1 needs class_labels and a network trained with an unconditional class")
        if class_labels is None:
            if has_classes and not self.config.has_unconditional:
                raise ValueError(f"the network knows no unconditional class; pass class_labels in [0, {classes - 1}]")
            return torch.full((size,), classes) if has_classes else None
        if not classes:
            raise ValueError(f"the network has no classes, got class_labels={shown(class_labels)}; leave them out")
        labels = as_integers(class_labels)
        outside = labels[(labels < 0) | (labels >= classes)]
        if outside.numel():
            last = "for images without a class" if self.config.has_unconditional else "left out, see num_classes"
            more = f"; the network's last embedding is {last}" if classes < self.unet.config.num_class_embeds else ""
            raise ValueError(f"class_labels must lie in [0, {classes - 1}], got {outside.flatten()[0]}{more}")
        return labels.expand(size).contiguous()


def image_generators(seed: int | Sequence[int], size: int, first_index: int = 0) -> list[torch.Generator]:
    """One generator on the CPU per image, the same whatever device, batch or process draws the image.

    Args:
        seed: an int s >= 0, for the streams (s, first_index + i); or `size` of them, for the streams (seed[i], 0).
        size: number of images, in [1, 131072].
        first_index: number of the first image, >= 0; 0 with a list of seeds.

    Raises:
        ValueError: a number is out of its range, the list has another length, or first_index is given with a list.
        TypeError: a number is none, or no whole one.
    """
    size = check_int("size", size, f"[1, {MANY}]", "draw more images in several calls, with first_index")
    first_index = check_int("first_index", first_index, "[0, inf)")
    if is_list(seed):
        if len(seed) != size:
            raise ValueError(f"seed must be one for all, or one for each of size = {size} images, got {len(seed)}")
        if first_index:
            raise ValueError(f"first_index counts the images of one seed; got {first_index} with a list of seeds")
        is_no_integer = isinstance(seed, np.ndarray) and seed.dtype.kind not in "iu"
        if is_no_integer or (isinstance(seed, Tensor) and seed.layout is not torch.strided):
            raise TypeError(f"seed must be whole numbers, got {shown(seed)}")
        each = seed.tolist() if isinstance(seed, np.ndarray | Tensor) else seed
        streams = [(check_int("each seed", one, "[0, inf)"), 0) for one in each]
    else:
        seed = check_int("seed", seed, "[0, inf)", "or a list of them")
        streams = [(seed, first_index + i) for i in range(size)]
    # Hashed, because the streams (0, 1) and (1, 0), or (0, 1) and (0, 2), must have nothing in common.
    words = (np.random.SeedSequence(stream).generate_state(1, np.uint64)[0] for stream in streams)
    return [torch.Generator().manual_seed(int(word)) for word in words]


def _check_stored(folder: Path, index: Any, variant: str | None) -> None:
    """Refuse a stored pipeline whose network is no UNet2DModel, or whose weights are not all of its own."""
    kind = index.get("unet") if isinstance(index, Mapping) else None
    if kind != ["diffusers", "UNet2DModel"]:
        raise ValueError(
            f"{folder} holds no network that EDMPipeline calls: its unet is {shown(kind)}, not diffusers' UNet2DModel; "
            "load that by its own class and pass unet="
        )
    # diffusers says of a network, not of a pipeline, what it did not find; so it is asked before it loads the pipeline.
    has_variant = variant is not None and any((folder / "unet").glob(f"*.{variant}*.safetensors"))
    load_whole(
        UNet2DModel.from_pretrained, folder / "unet", use_safetensors=True, variant=variant if has_variant else None
    )


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _as_images(sample: Tensor) -> Tensor:
    """Float32 [B, C, H, W] in [0, 1] of a sample in [-1, 1]; FloatingPointError where it is none."""
    images = (sample.float() / 2 + 0.5).clamp(0, 1)  # NaN passes through clamp
    if not torch.isfinite(images).all():
        raise FloatingPointError(
            "the network returned NaN or infinity; its weights are broken, float16 is too narrow for it, or "
            "guidance_scale too large"
        )
    return images
