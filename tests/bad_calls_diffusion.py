"""Calls with odd values over the floors `diffusion` and `models`: what may be called, with what, and what must hold.

A target is a call with arguments that are right, one or two of which are replaced by values of `POOL`. It must end in a
result of which `check` says that it is right, or in an error of our own that names an argument.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EDMEulerScheduler, UNet2DModel

import hf_noise
from hf_noise.diffusion import Denoiser, EDMHeunScheduler, EDMPipeline, scalings
from hf_noise.diffusion.pipeline_edm import image_generators
from hf_noise.models.edm_unet import EDM_UNETS, edm_unet
from hf_noise.models.gpt2 import gpt2
from hf_noise.models.image import image_classifier
from hf_noise.models.noisy_classifier import NoisyClassifier
from hf_noise.models.resnet import small_resnet

OURS = str(Path(hf_noise.__file__).parent)
POOL = [
    None, True, False, 0, 1, 2, 3, 4, 5, 8, 10, 64, -1, -(2**70), 2**31, 2**63, 2**64, 10**100, 10**400,
    0.0, -0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 18.0, 60.0, -0.5, 1e-320, 1e-30, 1e30, 1e308, math.nan, math.inf,
    -math.inf, Fraction(1, 2), Decimal("0.5"), 1j, np.float32(0.5), np.float64("nan"), np.float16(2), np.int64(2),
    np.uint8(3), np.bool_(True), "", "1", "nan", "abc", "3 ", "\u0663", "\u00fcn\u00efc\u00f6d\u00e9", "edm-digits",
    "cuda:99", b"1",
    [], [1], [1, 2], [0.5], [None], ["a", "b"], [[1], [1, 2]], [2**70], [[0.9, 0.1], [0.2, 0.8]], (1, 2), (32, 64),
    (1, 1, 1, 1), (16, 16, 16, 16), (3, 3, 3, 3), {}, {"a": 1}, {1: object()}, set(), {1, 2}, range(3), object(), int,
    len, np.array(2), np.array([0, 1]), np.array([0.5, 1.0]), np.array([]), np.array(["a"]),
    np.array([None, 1], dtype=object), np.ma.masked_array([0, 1], mask=[True, False]), np.eye(2), np.full((2, 2), 0.5),
    torch.tensor(1), torch.tensor(0.5), torch.tensor([0, 1]), torch.tensor([True, False]), torch.tensor([]),
    torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 8, 8).half(),
    torch.full((2, 1, 8, 8), math.nan), torch.zeros(2, 3, 8, 8), torch.zeros(0, 1, 8, 8), torch.zeros(2, 1, 8, 9),
    torch.ones(2), torch.ones(3), torch.ones(2, 1), torch.ones(2, dtype=torch.complex64), torch.ones(2).bfloat16(),
    torch.zeros(2, dtype=torch.int32), torch.device("cpu"), torch.float64, torch.Generator(),
    [torch.Generator(), torch.Generator()],
]  # fmt: skip


# What messages name where several arguments, or what is in one, are to blame.
ALSO_NAMED = (
    "images", "names of classes", "the network", "resnet", "folder", "EDM network", "GPT-2 size", "image classifier",
)  # fmt: skip
# None of them can be the name of a repository, which would be looked for on the Hub.
NO_NAMES = [value for value in POOL if not isinstance(value, str) or value in ("", "3 ", "\u0663")]


@dataclass(frozen=True)
class Target:
    """`call(**good)` works; `check(result, given)` fails for a result that is wrong for what was given."""

    name: str
    call: Callable[..., Any]
    good: dict[str, Any]
    check: Callable[[Any, dict[str, Any]], None] = lambda result, given: None
    errors: tuple[type[Exception], ...] = (ValueError, TypeError)
    odd: list[Any] = field(default_factory=lambda: POOL)


@cache
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, num_class_embeds=4, block_out_channels=(4, 4), layers_per_block=1,
        norm_num_groups=2, attention_head_dim=None, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    ).eval()  # fmt: skip


@cache
def classifier() -> NoisyClassifier:
    return NoisyClassifier(4, 8, 1, "cnn-digits").eval()


def scheduler(**given: Any) -> EDMHeunScheduler:
    made = EDMHeunScheduler(**given)
    made.set_timesteps(5)
    return made


def right_grid(made: EDMHeunScheduler, given: dict[str, Any]) -> None:
    config = made.config
    assert made.sigmas.isfinite().all() and (made.sigmas.diff() < 0).all()
    assert math.isclose(made.sigmas[0], config.sigma_max, rel_tol=1e-3)
    assert math.isclose(made.sigmas[-2], config.sigma_min, rel_tol=1e-3)
    assert {type(value) for name, value in config.items() if name[0] != "_"} <= {int, float, str}


def with_timesteps(**given: Any) -> EDMHeunScheduler:
    made = EDMHeunScheduler()
    made.set_timesteps(**given)
    return made


def right_timesteps(made: EDMHeunScheduler, given: dict[str, Any]) -> None:
    assert made.timesteps.isfinite().all() and len(made.timesteps) == 2 * int(given["num_inference_steps"]) - 1
    raised = np.array(made._sigma_hat) / made.sigmas[:-1].numpy()
    assert (raised >= 1).all() and (raised <= math.sqrt(2) + 1e-9).all()


def stepped(**given: Any) -> Any:
    made = EDMHeunScheduler()
    made.set_timesteps(3)
    made.set_begin_index(0)
    return made.step(**({"timestep": made.timesteps[0]} | given))


def right_step(result: Any, given: dict[str, Any]) -> None:
    if isinstance(result, tuple):
        result = result[0]
    else:
        result = result.prev_sample
    assert result.shape == given["sample"].shape and result.dtype in (torch.float32, torch.float64)


def right_scalings(result: Any, given: dict[str, Any]) -> None:
    """Where sigma is finite, positive and of float32 at least, they are those of float64."""
    sigma, deviation = given["sigma"].double(), float(given.get("sigma_data", 0.5))
    if given["sigma"].element_size() < 4 or given["sigma"].is_meta or not ((sigma > 1e-15) & (sigma < 1e15)).all():
        return
    total = sigma**2 + deviation**2
    expected = deviation**2 / total, sigma * deviation / total.sqrt(), total.rsqrt(), sigma.log() / 4
    for found, right in zip(result, expected, strict=True):
        torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-6)


def denoised(**given: Any) -> torch.Tensor:
    with torch.no_grad():
        return Denoiser(unet(), given.pop("sigma_data", 0.5))(**given)


def right_image(result: torch.Tensor, given: dict[str, Any]) -> None:
    assert result.shape == given["x"].shape and result.dtype == given["x"].dtype


def on_meta(make: Callable[..., Any]) -> Callable[..., Any]:
    """Without memory for its weights."""

    def made(**given: Any) -> Any:
        with torch.device("meta"):
            return make(**given)

    return made


def right_unet(result: UNet2DModel, given: dict[str, Any]) -> None:
    config = result.config
    assert (config.num_class_embeds, config.sample_size) == (given["num_classes"] + 1, given["image_size"])
    assert config.in_channels == config.out_channels == given["num_channels"]
    assert config.dropout == given.get("dropout", 0.0) and given["name"] in EDM_UNETS


def right_classifier(result: NoisyClassifier, given: dict[str, Any]) -> None:
    config = result.config
    assert config.num_classes == given["num_classes"] and config.P_std == float(given.get("P_std", 1.2)) > 0
    assert not isinstance(given.get("transition"), np.ma.MaskedArray)
    if config.transition is not None:
        assert np.allclose(np.sum(config.transition, 1), 1) and len(config.transition) == config.num_classes
    assert config.class_names is None or len(set(config.class_names)) == config.num_classes


def logits(**given: Any) -> torch.Tensor:
    with torch.no_grad():
        return classifier().log_posterior(**given)


def right_logits(result: torch.Tensor, given: dict[str, Any]) -> None:
    assert result.shape == (len(given["noisy_images"]), 4) and result.dtype == torch.float32


def right_labels(result: Any, given: dict[str, Any]) -> None:
    labels = given["labels"]
    names = list(labels) if isinstance(labels, list | tuple) else [str(i) for i in range(int(labels))]
    assert [result.config.id2label[i] for i in range(result.config.num_labels)] == names


def right_gpt2(result: Any, given: dict[str, Any]) -> None:
    config = result.config
    assert (config.vocab_size, config.n_positions) == (given["vocab_size"], given["block_size"])
    assert 0 <= config.eos_token_id < config.vocab_size and 0 <= config.attn_pdrop < 1


def right_generators(result: list[torch.Generator], given: dict[str, Any]) -> None:
    """Each alone is the one of its number."""
    seed, first = given["seed"], int(given.get("first_index", 0))
    assert len(result) == given["size"] and not isinstance(seed, np.ma.MaskedArray)
    for i, one in enumerate(result):
        alone = image_generators(seed[i], 1) if np.ndim(seed) else image_generators(seed, 1, first + i)
        assert one.initial_seed() == alone[0].initial_seed()


def pipeline(**given: Any) -> EDMPipeline:
    made = EDMPipeline(**({"unet": unet(), "scheduler": EDMHeunScheduler()} | given))
    made.set_progress_bar_config(disable=True)
    return made


def right_classes(made: EDMPipeline, given: dict[str, Any]) -> None:
    config = made.config
    assert config.num_classes + config.has_unconditional in (3, 4) and config.num_classes in (3, 4)


def drawn(scheduler: Any = EDMHeunScheduler, **given: Any) -> Any:
    made = pipeline(scheduler=scheduler(), has_unconditional=True)
    return made(**({"num_inference_steps": 2, "output_type": "pt"} | given))


def right_images(result: Any, given: dict[str, Any]) -> None:
    """As many as were asked for, and the same again where nothing is left to chance."""
    images = result[0] if isinstance(result, tuple) else result.images
    count = given.get("batch_size")
    labels = given.get("class_labels")
    assert not isinstance(labels, np.ma.MaskedArray) and not isinstance(given.get("seed"), np.ma.MaskedArray)
    if count is None:
        count = len(labels) if labels is not None and np.ndim(labels) else None
    assert count is None or len(images) == count
    if isinstance(images, torch.Tensor):
        assert images.isfinite().all() and images.min() >= 0 and images.max() <= 1


def euler(**given: Any) -> Any:
    return drawn(EDMEulerScheduler, **given)


IMAGES, SIGMA, LABELS = torch.zeros(2, 1, 8, 8), torch.ones(2), torch.tensor([0, 1])
CALL = {
    "class_labels": [0, 1], "batch_size": 2, "num_inference_steps": 2, "guidance_scale": 1.5, "seed": 0,
    "first_index": 1, "generator": None, "s_churn": 1.0, "s_tmin": 0.0, "s_tmax": 50.0, "s_noise": 1.0,
    "state_dtype": torch.float32, "output_type": "pt", "return_dict": True,
}  # fmt: skip
TARGETS = [
    Target("EDMHeunScheduler", scheduler, {
        "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "sigma_schedule": "karras", "num_train_timesteps": 10,
        "prediction_type": "epsilon", "rho": 7.0, "final_sigmas_type": "zero",
    }, right_grid),
    Target("EDMHeunScheduler.set_timesteps", with_timesteps, {
        "num_inference_steps": 4, "device": None, "s_churn": 1.0, "s_tmin": 0.0, "s_tmax": 50.0, "s_noise": 1.0,
    }, right_timesteps),
    Target("EDMHeunScheduler.set_begin_index", lambda **g: EDMHeunScheduler().set_begin_index(**g), {"begin_index": 2}),
    Target("EDMHeunScheduler.step", stepped, {"model_output": IMAGES, "sample": IMAGES}, right_step),
    Target("EDMHeunScheduler.add_churn", lambda **g: EDMHeunScheduler().add_churn(**g),
           {"sample": IMAGES, "timestep": EDMHeunScheduler().timesteps[0], "generator": None}),
    Target("EDMHeunScheduler.add_noise", lambda **g: EDMHeunScheduler().add_noise(**g),
           {"original_samples": IMAGES, "noise": IMAGES, "timesteps": SIGMA}),
    Target("EDMHeunScheduler.precondition_outputs", lambda **g: EDMHeunScheduler().precondition_outputs(**g),
           {"sample": IMAGES, "model_output": IMAGES, "sigma": 1.0}),
    Target("scalings", scalings, {"sigma": SIGMA, "sigma_data": 0.5}, right_scalings),
    Target("Denoiser", denoised, {"x": IMAGES, "sigma": SIGMA, "class_labels": LABELS, "sigma_data": 0.5}, right_image),
    Target("edm_unet", on_meta(edm_unet), {
        "name": "edm-digits", "num_classes": 3, "image_size": 8, "num_channels": 1, "dropout": 0.1,
    }, right_unet),
    Target("NoisyClassifier", on_meta(NoisyClassifier), {
        "num_classes": 2, "image_size": 8, "num_channels": 1, "architecture": "cnn-digits", "block_out_channels": (16,),
        "layers_per_block": 1, "attention_resolutions": (8,), "augmentation": False, "sigma_data": 0.5, "P_mean": -1.2,
        "P_std": 1.2, "class_names": ["a", "b"], "transition": [[1.0, 0.0], [0.5, 0.5]], "transition_source": "known",
        "hf_noise": None, "predicts": None,
    }, right_classifier),
    Target("NoisyClassifier, encoder", on_meta(NoisyClassifier), {
        "num_classes": 2, "image_size": 8, "num_channels": 1, "architecture": "unet-encoder",
        "block_out_channels": (16,), "layers_per_block": 1, "attention_resolutions": (8,),
    }, right_classifier),
    Target("NoisyClassifier.log_posterior", logits,
           {"noisy_images": IMAGES, "sigma": SIGMA, "temperature": 1.0}, right_logits),
    Target("image_classifier", on_meta(image_classifier),
           {"name": "resnet10-digits", "labels": ["a", "b"], "image_size": 8, "num_channels": 1}, right_labels),
    Target("gpt2", on_meta(gpt2), {
        "size": "nano", "vocab_size": 300, "block_size": 16, "end_of_text": 0, "dropout": 0.0,
    }, right_gpt2),
    Target("small_resnet", on_meta(small_resnet),
           {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "num_channels": 1, "num_classes": 2}),
    Target("image_generators", image_generators, {"seed": 3, "size": 2, "first_index": 1}, right_generators),
    Target("image_generators of a list", image_generators, {"seed": [3, 4], "size": 2, "first_index": 0},
           right_generators),
    Target("EDMPipeline", pipeline, {
        "unet": unet(), "scheduler": EDMHeunScheduler(), "num_classes": 4, "has_unconditional": False, "hf_noise": None,
    }, right_classes),
    Target("EDMPipeline.__call__", drawn, CALL, right_images, (ValueError, TypeError, FloatingPointError)),
    Target("EDMPipeline.__call__, Euler", euler, CALL | {"s_churn": 0.0}, right_images,
           (ValueError, TypeError, FloatingPointError)),
    Target("EDMPipeline.from_pretrained", EDMPipeline.from_pretrained,
           {"pretrained_model_name_or_path": "./not-there"}, errors=(ValueError, TypeError, FileNotFoundError),
           odd=NO_NAMES),
    Target("NoisyClassifier.from_pretrained", NoisyClassifier.from_pretrained,
           {"pretrained_model_name_or_path": "./not-there"}, errors=(ValueError, TypeError, FileNotFoundError),
           odd=NO_NAMES),
]  # fmt: skip


def odd_call(target: Target, draw: np.random.Generator) -> dict[str, Any]:
    """Arguments of a call: the right ones, of which one or two are odd."""
    given = dict(target.good)
    for name in draw.choice(list(given), size=min(len(given), int(draw.integers(1, 3))), replace=False):
        given[name] = target.odd[draw.integers(len(target.odd))]
    return given


def outcome(target: Target, given: dict[str, Any]) -> str:
    """ "result", "refused", or what is wrong with how the call ended."""
    try:
        result = target.call(**given)
    except target.errors as error:
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        if not where.startswith(OURS):
            return f"raw {type(error).__name__} from {where}: {error}"
        if not any(name in str(error) for name in (*given, *ALSO_NAMED)):
            return f"no argument is named: {error}"
        return "refused"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        return f"{type(error).__name__} from {where}: {error}"
    try:
        target.check(result, given)
    except Exception as error:
        return f"wrong result: {type(error).__name__} {error}"
    return "result"
