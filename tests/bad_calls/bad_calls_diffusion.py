"""Bad calls to the sampler, its pipeline and the preconditioning."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, flag, ints, number, same, text, whole
from bad_values import pick
from diffusers import DDPMScheduler, EDMEulerScheduler, UNet2DModel

from hf_noise.diffusion import Denoiser, EDMHeunScheduler, EDMPipeline, scalings
from hf_noise.diffusion.pipeline_edm import image_generators

CLASSES, SIZE = 3, 8
WHERE = {"device": ("device",)}


@cache
def unet(embeddings: int | None = CLASSES + 1) -> UNet2DModel:
    torch.manual_seed(0)
    made = UNet2DModel(
        sample_size=SIZE, in_channels=1, out_channels=1, num_class_embeds=embeddings, block_out_channels=(4, 4),
        layers_per_block=1, norm_num_groups=2, attention_head_dim=None, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    return made.eval()


def images(draw: np.random.Generator, n: int = 2) -> torch.Tensor:
    return torch.from_numpy(draw.normal(size=(n, 1, SIZE, SIZE))).float()


def tensor_of(values: Any, *shape: int, dtypes: tuple[torch.dtype, ...] = ()) -> torch.Tensor:
    """A dense floating-point tensor of this shape."""
    confirm(isinstance(values, torch.Tensor) and values.layout is torch.strided, "no dense tensor")
    confirm(values.is_floating_point() and tuple(values.shape) == shape, f"{values.dtype} {list(values.shape)}")
    confirm(not dtypes or values.dtype in dtypes, f"{values.dtype}")
    return values.detach().double()


# ---- scheduler


def grid(low: float, high: float, rho: float, steps: int) -> np.ndarray:
    """EDM's noise levels without the last one, 0."""
    with np.errstate(all="ignore"):
        begin, end = np.float64(high) ** (1 / rho), np.float64(low) ** (1 / rho)
        return np.array([(begin + i / max(1, steps - 1) * (end - begin)) ** rho for i in range(steps)])


def scheduled(**given: Any) -> dict[str, Any]:
    made = EDMHeunScheduler(**given)
    before = len(made.timesteps)
    made.set_timesteps(5)
    return {"sigmas": made.sigmas.tolist(), "timesteps": made.timesteps.double().tolist(), "before": before,
            "init": made.init_noise_sigma, "out": float(made.precondition_outputs(torch.ones(1), torch.ones(1), 1.0)),
            "length": len(made)}  # fmt: skip


def make_scheduler(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "sigma_min": 0.002, "sigma_max": pick(draw, 80.0, 40), "sigma_data": pick(draw, 0.5, 1),
        "rho": pick(draw, 7, 5.0), "sigma_schedule": "karras", "num_train_timesteps": pick(draw, 10, 1000),
        "final_sigmas_type": "zero", "prediction_type": pick(draw, "epsilon", "v_prediction"),
    }  # fmt: skip


def check_scheduler(given: dict[str, Any], result: dict[str, Any]) -> None:
    low, high, data, rho = (number(given[name]) for name in ("sigma_min", "sigma_max", "sigma_data", "rho"))
    confirm(0 < low < high < math.inf and 0 < data < math.inf and 0 < rho < math.inf, "a number outside")
    text(given["sigma_schedule"], "karras"), text(given["final_sigmas_type"], "zero")
    sign = {"epsilon": 1, "v_prediction": -1}[text(given["prediction_type"])]
    length = steps_of(given["num_train_timesteps"])
    sigmas = grid(low, high, rho, 5)
    confirm(np.isfinite(sigmas).all() and abs(sigmas[-1] / low - 1) < 1e-2 and (np.diff(sigmas) < 0).all(), "grid")
    close(result["sigmas"], [*sigmas, 0], 1e-9)
    close(np.array(result["sigmas"][:-1]) / sigmas, np.ones(5), 1e-6)
    calls = [sigma for i, sigma in enumerate(sigmas) for sigma in ([sigma] if i == 0 else [sigma, sigma])]
    close(result["timesteps"], np.log(calls) / 4, 1e-5)
    close([result["init"]], [high], 1e-12)
    variance = 1 + data**2
    close([result["out"]], [data**2 / variance + sign * data / math.sqrt(variance)], 1e-5)
    same([result["length"], result["before"]], [length, 2 * length - 1])


def steps_of(value: Any) -> int:
    if isinstance(value, float | np.floating):
        confirm(float(value).is_integer(), "no whole number")
        value = int(value)
    return whole(value, 1, 10**6)


def set_up(**given: Any) -> dict[str, Any]:
    made = EDMHeunScheduler()
    made.set_timesteps(**given)
    return {"raised": made._sigma_hat, "timesteps": made.timesteps, "noise": made._s_noise}


def make_steps(draw: np.random.Generator) -> dict[str, Any]:
    churned = {"s_churn": 10.0, "s_tmin": 0.05, "s_tmax": 50, "s_noise": 1.003}
    return {"num_inference_steps": pick(draw, 1, 4, 18.0), "device": pick(draw, None, "cpu", torch.device("cpu")),
            **pick(draw, churned, {"s_churn": 0, "s_tmin": 0, "s_tmax": math.inf, "s_noise": 1})}  # fmt: skip


def check_steps(given: dict[str, Any], result: dict[str, Any]) -> None:
    steps = steps_of(given["num_inference_steps"])
    confirm(given["device"] is None or torch.device(given["device"]).type == "cpu", "device")
    churn, low, high, noise = (number(given[name]) for name in ("s_churn", "s_tmin", "s_tmax", "s_noise"))
    confirm(churn >= 0 and 0 <= low <= high and low < math.inf and 0 <= noise <= 1e6, "churn")
    same(result["noise"], noise)
    if steps > 1000:
        return
    sigmas = grid(0.002, 80.0, 7.0, steps)
    gamma = np.where((low <= sigmas) & (sigmas <= high), min(churn / steps, math.sqrt(2) - 1), 0)
    close(np.array(result["raised"]) / sigmas / (1 + gamma), np.ones(steps), 1e-6)
    calls = [s for i in range(steps) for s in (result["raised"][i], *sigmas[i + 1 : i + 2])]
    close(result["timesteps"].double(), np.log(calls) / 4, 1e-5)


def stepped(model_output: Any, sample: Any) -> torch.Tensor:
    made = EDMHeunScheduler()
    made.set_timesteps(4)
    made.set_begin_index(0)
    return made.step(model_output, made.timesteps[0], sample).prev_sample


def check_step(given: dict[str, Any], result: torch.Tensor) -> None:
    """Euler's step of the probability flow from 80 to the second noise level."""
    confirm(isinstance(given["sample"], torch.Tensor), "no tensor")
    sample = tensor_of(given["sample"], *given["sample"].shape)
    raw = tensor_of(given["model_output"], *sample.shape)
    confirm(result.dtype in (torch.float32, torch.float64) and result.shape == sample.shape, "kind of the result")
    if given["sample"].element_size() < 4 or given["model_output"].element_size() < 4:
        return
    variance = 80**2 + 0.25
    denoised = 0.25 / variance * sample + 40 / math.sqrt(variance) * raw
    expected = sample + (grid(0.002, 80.0, 7.0, 4)[1] / 80 - 1) * (sample - denoised)
    if expected.abs().max() < 1e6 if expected.numel() else False:
        close(result.double(), expected.numpy(), 1e-4)


def check_noisy(given: dict[str, Any], result: torch.Tensor) -> None:
    confirm(isinstance(given["original_samples"], torch.Tensor), "no tensor")
    clean = tensor_of(given["original_samples"], *given["original_samples"].shape)
    result = result.detach()
    noise, times = tensor_of(given["noise"], *clean.shape), given["timesteps"]
    confirm(isinstance(times, torch.Tensor) and times.is_floating_point(), "timesteps")
    confirm(times.shape in ((), (1,), clean.shape[:1]), "shape")
    expected = clean + (4 * times.detach().double()).exp().reshape(-1, *[1] * (clean.ndim - 1)) * noise
    if given["original_samples"].element_size() >= 4 and torch.isfinite(expected).all() and expected.abs().max() < 1e6:
        close(result.double(), expected.numpy(), 1e-4)


# ---- preconditioning


def check_scalings(given: dict[str, Any], result: Any) -> None:
    sigma, data = given["sigma"], number(given["sigma_data"])
    confirm(isinstance(sigma, torch.Tensor) and 0 < data < math.inf, "arguments")
    values = tensor_of(sigma, *sigma.shape)
    confirm(all(found.shape == sigma.shape and found.dtype == sigma.dtype for found in result), "kind of the result")
    if sigma.element_size() < 4 or not ((values > 1e-4) & (values < 1e4)).all() or not 1e-4 < data < 1e4:
        return
    variance = values**2 + data**2
    right = data**2 / variance, values * data / variance.sqrt(), variance.rsqrt(), values.log() / 4
    for found, expected in zip(result, right, strict=True):
        close(found.double(), expected.numpy(), 1e-4)


def denoised(sigma_data: Any, **given: Any) -> torch.Tensor:
    with torch.no_grad():
        return Denoiser(unet(), sigma_data)(**given)


def make_denoiser(draw: np.random.Generator) -> dict[str, Any]:
    return {"x": pick(draw, images(draw), images(draw).double()), "sigma": torch.tensor([0.1, 2.0]),
            "class_labels": torch.tensor([0, CLASSES]), "sigma_data": pick(draw, 0.5, 1)}  # fmt: skip


def check_denoiser(given: dict[str, Any], result: torch.Tensor) -> None:
    x, sigma, data = given["x"], given["sigma"], number(given["sigma_data"])
    confirm(isinstance(x, torch.Tensor) and x.ndim == 4 and x.shape[1] == 1, "images")
    clean = tensor_of(x, *x.shape, dtypes=(torch.float32, torch.float64))
    levels = tensor_of(sigma, len(x))
    labels = ints(given["class_labels"], 1)
    confirm(isinstance(given["class_labels"], torch.Tensor) and len(labels) == len(x), "labels")
    confirm(all(0 <= label <= CLASSES for label in labels) and 0 < data < math.inf, "a value outside")
    confirm(result.shape == x.shape and result.dtype == x.dtype, "kind of the result")
    if (
        not ((levels > 1e-3) & (levels < 1e3)).all()
        or not 1e-3 < data < 1e3
        or (clean.numel() and clean.abs().max() > 1e3)
    ):
        return
    for i in range(min(2, len(x))):
        variance = float(levels[i]) ** 2 + data**2
        with torch.no_grad():
            raw = unet()(clean[i : i + 1].float() / math.sqrt(variance), levels[i].log().float() / 4,
                         torch.tensor([int(labels[i])])).sample.double()  # fmt: skip
        right = data**2 / variance * clean[i : i + 1] + float(levels[i]) * data / math.sqrt(variance) * raw
        if torch.isfinite(right).all():
            close(result[i : i + 1].double(), right.numpy(), 1e-2 if sigma.element_size() < 4 else 1e-3)


# ---- pipeline


def seeds_of(given: dict[str, Any], size: int) -> list[tuple[int, int]]:
    """(seed, number) of each image."""
    first = whole(given["first_index"], 0)
    if isinstance(given["seed"], int | np.integer):
        return [(whole(given["seed"], 0), first + i) for i in range(size)]
    seeds = [whole(seed, 0) for seed in ints(given["seed"], 1)]
    confirm(len(seeds) == size and not first, "number of seeds")
    return [(seed, 0) for seed in seeds]


def check_generators(given: dict[str, Any], result: list[int]) -> None:
    streams = seeds_of(given, whole(given["size"], 1, 2**17))
    words = [int(np.random.SeedSequence(stream).generate_state(1, np.uint64)[0]) for stream in streams[:50]]
    confirm(result[:50] == words and len(result) == len(streams), "seeds")


def make_generators(draw: np.random.Generator) -> dict[str, Any]:
    return pick(
        draw,
        {"seed": 3, "size": 2, "first_index": pick(draw, 0, 5)},
        {"seed": pick(draw, [3, 4], np.array([3, 4]), torch.tensor([3, 4])), "size": 2, "first_index": 0},
    )


def made_of(**given: Any) -> dict[str, Any]:
    config = EDMPipeline(**given).config
    return {name: config[name] for name in ("num_classes", "has_unconditional", "hf_noise")}


def make_pipeline(draw: np.random.Generator) -> dict[str, Any]:
    has_unconditional = pick(draw, False, True)
    return {
        "unet": unet(), "scheduler": pick(draw, EDMHeunScheduler(), EDMEulerScheduler()),
        "num_classes": pick(draw, None, CLASSES), "has_unconditional": has_unconditional,
        "hf_noise": pick(draw, None, {"protocol": "label_flips"}),
    }  # fmt: skip


def check_pipeline(given: dict[str, Any], result: dict[str, Any]) -> None:
    confirm(isinstance(given["unet"], UNet2DModel), "network")
    confirm(isinstance(given["scheduler"], EDMHeunScheduler | EDMEulerScheduler), "scheduler")
    embeddings = given["unet"].config.num_class_embeds or 0
    confirm(isinstance(given["has_unconditional"], bool), "no bool")
    said = given["has_unconditional"]
    classes = embeddings - said if given["num_classes"] is None else whole(given["num_classes"], 0)
    confirm(classes == embeddings - 1 if said else classes in (embeddings, max(0, embeddings - 1)), "classes")
    confirm(given["hf_noise"] is None or isinstance(given["hf_noise"], dict), "noise")
    confirm(result == {"num_classes": classes, "has_unconditional": said, "hf_noise": given["hf_noise"]}, "config")


def drawn(**given: Any) -> np.ndarray:
    made = EDMPipeline(unet(), EDMHeunScheduler(), has_unconditional=True)
    made.set_progress_bar_config(disable=True)
    result = made(**given)
    found = result[0] if isinstance(result, tuple) else result.images
    return np.stack([np.asarray(image, dtype=np.float64) for image in found])


def make_call(draw: np.random.Generator) -> dict[str, Any]:
    said = pick(
        draw, {"class_labels": pick(draw, [0, 2], np.array([2, 1]), torch.tensor([1, 1])), "batch_size": None},
        {"class_labels": 1, "batch_size": 2}, {"class_labels": None, "batch_size": 2},
    )  # fmt: skip
    return said | {
        "num_inference_steps": pick(draw, 1, 2), "seed": pick(draw, 0, [5, 6]), "first_index": 0, "generator": None,
        "guidance_scale": 1 if said["class_labels"] is None else pick(draw, 1, 2.5), "s_churn": pick(draw, 0, 1.0),
        "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0, "state_dtype": pick(draw, torch.float32, torch.float64),
        "output_type": pick(draw, "np", "pt", "pil"), "return_dict": pick(draw, True, False),
    }  # fmt: skip


def check_call(given: dict[str, Any], result: np.ndarray) -> None:
    """Each image is the one that is drawn alone for its class and stream."""
    labels = None if given["class_labels"] is None else ints(given["class_labels"])
    counts = {len(labels)} if labels is not None and labels.ndim else set()
    counts |= set() if given["batch_size"] is None else {whole(given["batch_size"], 1, 2**17)}
    counts |= {len(given["seed"])} if np.ndim(given["seed"]) else set()
    confirm(len(counts) < 2 and len(result) == next(iter(counts), 1), f"{counts} images")
    confirm(labels is None or (labels.ndim < 2 and all(0 <= label < CLASSES for label in labels.reshape(-1))), "label")
    scale, steps = number(given["guidance_scale"]), steps_of(given["num_inference_steps"])
    confirm(1 <= scale <= 1e6 and (labels is not None or scale == 1), "guidance")
    churn, low, high, noise = (number(given[name]) for name in ("s_churn", "s_tmin", "s_tmax", "s_noise"))
    confirm(churn >= 0 and 0 <= low <= high and 0 <= noise <= 1e6, "churn")
    confirm(given["state_dtype"] in (torch.float32, torch.float64), "state")
    kind = text(given["output_type"], "np", "pt", "pil")
    flag(given["return_dict"])
    confirm(given["generator"] is None, "generator")
    confirm(np.isfinite(result).all() and result.min() >= 0 and result.max() <= (255 if kind == "pil" else 1), "range")
    if given["seed"] is None or steps > 20:
        return
    streams = seeds_of(given, len(result))
    for i, stream in list(enumerate(streams))[:2]:
        alone = drawn(
            class_labels=None if labels is None else int(np.broadcast_to(labels, len(result))[i]), seed=stream[0],
            first_index=stream[1], num_inference_steps=steps, guidance_scale=scale, s_churn=churn, s_tmin=low,
            s_tmax=high, s_noise=noise, output_type=kind, state_dtype=given["state_dtype"],
        )[0]  # fmt: skip
        apart = np.abs(alone - result[i]).max()
        confirm(
            apart <= (1 if kind == "pil" else 1e-3) and (kind != "pil" or (alone == result[i]).mean() > 0.9), "image"
        )


ERRORS = {"class_labels": ("images",), "batch_size": ("images",), "seed": ("images",)}
TARGETS = [
    Target("diffusion.EDMHeunScheduler", scheduled, make_scheduler, check_scheduler, weight=2,
           extra={"rho": (lambda: math.inf, lambda: 1e13, lambda: 0.01)}),
    Target("diffusion.EDMHeunScheduler.set_timesteps", set_up, make_steps, check_steps),
    Target("diffusion.EDMHeunScheduler.step", stepped,
           lambda draw: {"model_output": images(draw), "sample": images(draw)}, check_step,
           words={"model_output": ("sample",)}),
    Target("diffusion.EDMHeunScheduler.add_noise", lambda **given: EDMHeunScheduler().add_noise(**given),
           lambda draw: {"original_samples": images(draw), "noise": images(draw),
                         "timesteps": torch.tensor([-1.0, 0.5])},
           check_noisy, words={"original_samples": ("images", "shape")}),
    Target("diffusion.scalings", scalings,
           lambda draw: {"sigma": torch.tensor([0.1, 1.0, 50.0]), "sigma_data": pick(draw, 0.5, 1)}, check_scalings),
    Target("diffusion.Denoiser", denoised, make_denoiser, check_denoiser, weight=2),
    Target("diffusion.image_generators", lambda **given: [one.initial_seed() for one in image_generators(**given)],
           make_generators, check_generators),
    Target("diffusion.EDMPipeline", made_of, make_pipeline, check_pipeline,
           words={"unet": ("network", "UNet2DModel"), "scheduler": ("scheduler of EDM",)},
           extra={"unet": (lambda: unet(None), lambda: unet(10)), "scheduler": (DDPMScheduler,)}),
    Target("diffusion.EDMPipeline.__call__", drawn, make_call, check_call, words=ERRORS, weight=3),
]  # fmt: skip
