"""The TDSM step against a loop over classes, the sampler against its network calls, the trainer against the network.

    python benchmarks/diffusion.py [--only tdsm] [--device cuda] [--quick] [--output benchmarks/results/diffusion.json]

All variants use the same network and the same random numbers, in turns. See benchmarks/README.md for the bars.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from compare import Report, Spread, arguments, clock, interleave, ratio, start
from diffusers import UNet2DModel
from observe import syncs_per_step
from steps import by_trainer
from torch import Tensor, nn
from transformers import TrainingArguments

from hf_noise.diffusion import Denoiser, EDMHeunScheduler, EDMPipeline
from hf_noise.diffusion.preconditioning import scalings
from hf_noise.losses import LabelTransition, dsm_loss, edm_weight, tdsm_loss, transition_aware_weights
from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips
from hf_noise.trainers import EDMTrainer
from hf_noise.trainers.images import DeviceImages

CHANNELS = 3
ERROR_RATE, TAU = 0.4, 0.01
P_MEAN, P_STD = -1.2, 1.2


@dataclass(frozen=True)
class Setting:
    """Size and number of the images of a batch, batches of a turn, rounds, networks, steps of sampler and trainer."""

    size: int = 32
    batch: int = 16
    batches: int = 2
    rounds: int = 5
    unet: str = "edm-small"
    classifier: str = "resnet18"
    sampler_steps: int = 18
    trainer_steps: int = 9


FULL = Setting()
QUICK = replace(
    FULL, size=8, batch=4, batches=1, rounds=2, unet="edm-digits", classifier="cnn-digits", sampler_steps=4,
    trainer_steps=3,
)  # fmt: skip


@dataclass(frozen=True)
class Regime:
    """How sure the classifier is, the number of classes, and the bars of the step against the loop."""

    name: str
    classes: int
    on_cpu: float
    on_gpu: float


REGIMES = (
    Regime("typical", 10, on_cpu=1.00, on_gpu=0.65),
    Regime("untrained", 10, on_cpu=1.00, on_gpu=0.65),
    Regime("typical", 100, on_cpu=0.85, on_gpu=0.25),
)


@dataclass(frozen=True)
class Batch:
    """What one step is made of; `logits` are those of the classifier in the regime."""

    images: Tensor
    sigma: Tensor
    noise: Tensor
    labels: Tensor
    logits: Tensor


def make_unet(setting: Setting, classes: int, device: str) -> UNet2DModel:
    """The network, always with the same weights, and an output that depends on the class as if it had learned."""
    torch.manual_seed(0)
    unet = edm_unet(setting.unet, num_classes=classes, image_size=setting.size, num_channels=CHANNELS)
    unet.conv_out.reset_parameters()
    return unet.to(device)


def make_batches(regime: Regime, n: int, setting: Setting, device: str) -> list[Batch]:
    """Random images with 40 % symmetric label noise.

    A typical classifier of noisy images: the logit of the clean class stands 8 / (1 + 2 sigma) above the others, and
    all have a standard normal number added. An untrained one is uniform.
    """
    generator = torch.Generator().manual_seed(0)
    flips = LabelFlips.symmetric(error_rate=ERROR_RATE, num_classes=regime.classes)
    batches, batch = [], setting.batch
    for number in range(n):
        images, noise = torch.randn(2, batch, CHANNELS, setting.size, setting.size, generator=generator)
        sigma = torch.exp(P_STD * torch.randn(batch, generator=generator) + P_MEAN)
        clean = torch.randint(regime.classes, (batch,), generator=generator)
        labels = flips(clean, sample=torch.arange(batch) + number * batch)[0]
        logits = torch.zeros(batch, regime.classes)
        if regime.name == "typical":
            logits = torch.randn(logits.shape, generator=generator)
            logits[torch.arange(batch), clean] += 8 / (1 + sigma / 0.5)
        batches.append(Batch(*(t.to(device) for t in (images.clamp(-2, 2) / 2, sigma, noise, labels, logits))))
    return batches


def class_by_class(denoiser: nn.Module, batch: Batch, transition: Tensor) -> Tensor:
    """TDSM as it is usually written: weights by Bayes' rule, then one class after the other."""
    joint = transition.T[batch.labels] * batch.logits.softmax(-1)
    weights = joint / joint.sum(1, keepdim=True)
    x = batch.images + batch.sigma.view(-1, 1, 1, 1) * batch.noise
    own = weights.gather(1, batch.labels[:, None])
    mixture = own.view(-1, 1, 1, 1) * denoiser(x, batch.sigma, batch.labels)
    rest = torch.zeros_like(x)
    with torch.no_grad():
        for label in range(weights.shape[1]):
            affected = (weights[:, label] > TAU) & (batch.labels != label)
            if affected.any():
                labels = torch.full_like(batch.labels[affected], label)
                denoised = denoiser(x[affected], batch.sigma[affected], labels)
                rest[affected] += weights[affected, label].view(-1, 1, 1, 1) * denoised
    return edm_weight(batch.sigma) * (mixture + rest - batch.images).square().mean((1, 2, 3))


def in_one_batch(denoiser: nn.Module, batch: Batch, transition: LabelTransition) -> Tensor:
    """TDSM as hf_noise computes it."""
    weights = transition_aware_weights(batch.labels, transition, clean_posterior=batch.logits, logits=True)
    return tdsm_loss(denoiser, batch.images, batch.sigma, batch.noise, batch.labels, weights, tau=TAU)


def plain(denoiser: nn.Module, batch: Batch) -> Tensor:
    return dsm_loss(denoiser, batch.images, batch.sigma, batch.noise, batch.labels)


class Step:
    """One training step: the classifier's forward if there is one, the loss, its gradient, Adam."""

    def __init__(self, unet: UNet2DModel, loss: Callable[[nn.Module, Batch], Tensor], classifier: nn.Module | None):
        self.denoiser, self.loss, self.classifier = Denoiser(unet), loss, classifier
        self.optimizer = torch.optim.Adam(unet.parameters(), lr=1e-4)

    def __call__(self, batch: Batch) -> None:
        if self.classifier is not None:
            # Run for its cost: the logits are those of the regime.
            with torch.no_grad():
                self.classifier(batch.images + batch.sigma.view(-1, 1, 1, 1) * batch.noise, batch.sigma)
        self.loss(self.denoiser, batch).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def seconds(variant: Callable[[], None], device: str) -> float:
    """One turn; on a GPU until its last kernel has ended."""
    if device == "cpu":
        started = clock()
        variant()
        return clock() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    variant()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def measure_tdsm(report: Report, regime: Regime, setting: Setting, device: str) -> None:
    """One step by each way, with equal results."""
    what = f"{regime.classes} classes, {regime.name}"
    flips = LabelFlips.symmetric(error_rate=ERROR_RATE, num_classes=regime.classes)
    checked = LabelTransition(flips.transition, device=device)
    matrix = torch.from_numpy(flips.transition).float().to(device)
    n = 1 if regime.name == "untrained" else setting.batches  # there every step has the same work
    batches = make_batches(regime, n, setting, device)
    classifier = TimeDependentClassifier(regime.classes, setting.size, CHANNELS, setting.classifier).eval().to(device)
    losses = {
        "plain": plain,
        "loop": lambda denoiser, batch: class_by_class(denoiser, batch, matrix),
        "ours": lambda denoiser, batch: in_one_batch(denoiser, batch, checked),
    }
    calls = _check_equal(report, what, losses, batches, make_unet(setting, regime.classes, device), device)
    report.add(f"network calls per step, {what}, loop", calls["loop"] / len(batches), unit="")
    report.add(f"network calls per step, {what}, TDSM", calls["ours"] / len(batches), unit="")

    steps = {
        name: Step(make_unet(setting, regime.classes, device), loss, None if name == "plain" else classifier)
        for name, loss in losses.items()
    }
    pairs = [_candidates(batch, checked) for batch in batches]
    report.add(f"other classes of weight > {TAU}, {what}", sum(map(_rows, pairs)) / len(batches), unit="per step")
    chunk = _best_chunk(steps["plain"].denoiser, batches, pairs, setting, device)
    report.add(f"best chunk, {what}", float(chunk), unit="images")

    def floor() -> None:
        for batch, pair in zip(batches, pairs):
            with torch.no_grad():
                classifier(batch.images, batch.sigma)
            _forward(steps["plain"].denoiser, batch, pair, chunk)
            steps["plain"](batch)

    def turn(step: Step) -> Callable[[], None]:
        return lambda: [step(batch) for batch in batches] and None

    variants = {**{name: turn(step) for name, step in steps.items()}, "floor": floor}
    times = interleave(variants, setting.rounds, timer=lambda variant: seconds(variant, device))
    on_cpu = device == "cpu"
    report.add(f"plain step, {what}", Spread.of(times["plain"] / len(batches) * 1e3), unit="ms")
    report.add(f"TDSM step / plain step, {what}", ratio(times["ours"], times["plain"]))
    report.add(
        f"TDSM step / loop over classes, {what}", ratio(times["ours"], times["loop"]),
        at_most=regime.on_cpu if on_cpu else regime.on_gpu,
    )  # fmt: skip
    report.add(f"TDSM step / its floor, {what}", ratio(times["ours"], times["floor"]), at_most=1.10 if on_cpu else 1.15)


def _check_equal(
    report: Report, what: str, losses: dict[str, Callable], batches: list[Batch], unet: UNet2DModel, device: str
) -> dict[str, int]:
    """Hold loss and gradient of TDSM to those of the loop; returns how often each called the network."""
    denoiser, calls, results = Denoiser(unet), {}, {}
    for name, loss in losses.items():
        count = []
        hook = unet.register_forward_pre_hook(lambda *_: count.append(1))  # noqa: B023
        values = torch.cat([loss(denoiser, batch) for batch in batches])
        hook.remove()
        gradient = torch.autograd.grad(values.mean(), [p for p in unet.parameters() if p.requires_grad])
        results[name] = values.detach(), torch.cat([g.flatten() for g in gradient])
        calls[name] = len(count)
    (ours, our_gradient), (loop, its_gradient) = results["ours"], results["loop"]
    tolerances = (1e-5, 3e-6) if device == "cpu" else (1e-4, 1e-4)
    apart = float((ours - loop).abs().max() / loop.max())
    report.equal(f"loss of TDSM and of the loop, {what}", apart < tolerances[0], f"{apart:.1e}")
    apart = float((our_gradient - its_gradient).norm() / its_gradient.norm())
    report.equal(f"gradient of TDSM and of the loop, {what}", apart < tolerances[1], f"{apart:.1e}")
    return calls


def _candidates(batch: Batch, transition: LabelTransition) -> tuple[Tensor, Tensor]:
    """(image, class) of all that TDSM has to evaluate besides the observed labels."""
    weights = transition_aware_weights(batch.labels, transition, clean_posterior=batch.logits, logits=True)
    image, label = (weights > TAU).scatter(1, batch.labels[:, None], False).nonzero().unbind(1)
    return image, label


def _rows(pair: tuple[Tensor, Tensor]) -> int:
    return len(pair[0])


@torch.no_grad()
def _forward(denoiser: nn.Module, batch: Batch, pair: tuple[Tensor, Tensor], chunk: int) -> None:
    image, label = pair
    parts = max(1, -(-len(image) // chunk))
    for rows, labels in zip(image.tensor_split(parts), label.tensor_split(parts)):
        denoiser(batch.images[rows], batch.sigma[rows], labels)


def _best_chunk(
    denoiser: nn.Module, batches: list[Batch], pairs: list[tuple[Tensor, Tensor]], setting: Setting, device: str
) -> int:
    """The chunk at which the candidates alone are fastest."""

    def variant(chunk: int) -> Callable[[], None]:
        return lambda: [_forward(denoiser, *both, chunk) for both in zip(batches, pairs)] and None

    chunks = [setting.batch // 2, setting.batch, 2 * setting.batch, setting.batch * max(map(_rows, pairs))]
    times = interleave({str(c): variant(c) for c in chunks}, 3, timer=lambda variant: seconds(variant, device))
    return min(chunks, key=lambda chunk: Spread.of(times[str(chunk)]).median)


def host_syncs(report: Report, device: str) -> None:
    """Host synchronisations that the TDSM step adds to the plain one; they do not depend on the network's size."""
    for classes in (10, 100):
        regime = Regime("typical", classes, 0, 0)
        flips = LabelFlips.symmetric(error_rate=ERROR_RATE, num_classes=classes)
        checked = LabelTransition(flips.transition, device=device)
        matrix = torch.from_numpy(flips.transition).float().to(device)
        batch = make_batches(regime, 1, QUICK, device)[0]
        classifier = TimeDependentClassifier(classes, QUICK.size, CHANNELS, QUICK.classifier).eval().to(device)

        def count(loss: Callable, classifier: nn.Module | None) -> float:
            step = Step(make_unet(QUICK, classes, device), loss, classifier)  # noqa: B023
            return syncs_per_step(lambda n: [step(batch) for _ in range(n)], steps=1)  # noqa: B023

        none = count(plain, None)
        ours = count(lambda denoiser, batch: in_one_batch(denoiser, batch, checked), classifier)  # noqa: B023
        loop = count(lambda denoiser, batch: class_by_class(denoiser, batch, matrix), classifier)  # noqa: B023
        report.add(f"host syncs, loop - plain step, {classes} classes", loop - none, unit="per step")
        report.add(f"host syncs, TDSM - plain step, {classes} classes", ours - none, at_most=4.0, unit="per step")


def measure_sampler(report: Report, setting: Setting, device: str) -> None:
    """The pipeline against the network calls it makes, float32 and under bf16 autocast."""
    unet = make_unet(setting, 10, device).eval()
    pipeline = EDMPipeline(unet, EDMHeunScheduler())
    pipeline.set_progress_bar_config(disable=True)
    labels = torch.arange(setting.batch) % 10
    calls: list[tuple] = []
    hook = unet.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))

    def sample(**options) -> Tensor:
        return pipeline(
            labels, num_inference_steps=setting.sampler_steps, seed=0, output_type="pt", return_dict=False, **options
        )[0]

    images = sample()
    hook.remove()
    expected = 2 * setting.sampler_steps - 1
    report.equal("network calls of the sampler", len(calls) == expected, f"{len(calls)} of {expected}")
    apart = float((images - sample(state_dtype=torch.float64)).abs().max())
    report.equal("images of a float32 and a float64 state", apart < 1e-5, f"{apart:.1e}")

    @torch.no_grad()
    def network_alone() -> None:
        for inputs in calls:
            unet(*inputs, return_dict=False)

    def with_bf16() -> None:
        with torch.autocast(device, torch.bfloat16):
            sample()

    variants = {"network": network_alone, "sampler": sample}
    if has_bf16 := device != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        variants["bf16"] = with_bf16
    times = interleave(variants, setting.rounds, timer=lambda variant: seconds(variant, device))
    report.add("sampler", Spread.of(setting.batch / times["sampler"]), unit="image/s")
    report.add(
        f"sampler / its {expected} network calls", ratio(times["sampler"], times["network"]),
        at_most=1.02 if device == "cpu" else 1.03,
    )  # fmt: skip
    if has_bf16:
        report.add(
            "sampler under bf16 autocast / float32", ratio(times["bf16"], times["sampler"]),
            at_most=0.72 if device == "cpu" else 0.6,
        )  # fmt: skip


def measure_trainer(report: Report, setting: Setting) -> None:
    """A step of the DSM trainer, all of it, against the network's forward and backward alone."""
    generator = torch.Generator().manual_seed(0)
    n = setting.batch * setting.trainer_steps
    images = torch.randint(256, (n, CHANNELS, setting.size, setting.size), generator=generator, dtype=torch.uint8)
    columns = {"labels": torch.randint(10, (n,), generator=generator), "sample_id": torch.arange(n)}
    rows = DeviceImages(images, columns, mean=[0.5] * CHANNELS, std=[0.5] * CHANNELS)
    noise = LabelFlips.symmetric(error_rate=ERROR_RATE, num_classes=10)
    batch = make_batches(REGIMES[0], 1, setting, "cpu")[0]
    _, _, c_in, c_noise = scalings(batch.sigma)
    seen = c_in.view(-1, 1, 1, 1) * (batch.images + batch.sigma.view(-1, 1, 1, 1) * batch.noise)

    def bare() -> tuple[float, UNet2DModel]:
        unet, ends = make_unet(setting, 10, "cpu"), []
        for _ in range(setting.trainer_steps):
            unet.zero_grad(set_to_none=True)
            unet(seen, c_noise, batch.labels, return_dict=False)[0].square().mean().backward()
            ends.append(clock())
        return float(np.median(np.diff(ends))), unet

    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=setting.batch, max_steps=setting.trainer_steps,
            save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, logging_steps=10**9, seed=0,
            dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = by_trainer(
            lambda **more: EDMTrainer(make_unet(setting, 10, "cpu"), args, train_dataset=rows, noise=noise, **more)
        )
        times = interleave({"bare": bare, "trainer": trainer}, setting.rounds, timer=lambda variant: variant()[0])
    report.add("step of the DSM trainer", Spread.of(times["trainer"] * 1e3), unit="ms")
    report.add(
        "DSM trainer / forward and backward of its network", ratio(times["trainer"], times["bare"]), at_most=1.03
    )


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=("tdsm", "sampler", "trainer"), help="measure this alone")
    parser.add_argument("--classes", type=int, choices=(10, 100), help="of the TDSM step; by default both")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args(argv)
    if args.device == "cuda":
        args.threads = max(2, args.threads)  # the clock of one thread is the CPU's time, and a GPU's work is not in it
        torch.backends.cudnn.allow_tf32 = False
    start(args)
    gc.freeze()  # to look through what the imports made, at every turn, would take a quarter of a second
    setting = QUICK if args.quick else FULL
    setting = replace(setting, rounds=args.rounds or setting.rounds)
    settings = {**vars(setting), "error_rate": ERROR_RATE, "tau": TAU, "device": args.device, "only": args.only}
    report = Report(f"Diffusion, {args.device}", settings)
    if args.only in (None, "tdsm"):
        host_syncs(report, args.device)
        for regime in REGIMES:
            if args.classes in (None, regime.classes):
                measure_tdsm(report, regime, setting, args.device)
    if args.only in (None, "sampler"):
        measure_sampler(report, setting, args.device)
    if args.only in (None, "trainer") and args.device == "cpu":  # the time of a step on a GPU has no end to take
        measure_trainer(report, setting)
    gc.unfreeze()
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
