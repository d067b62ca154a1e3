"""The running gradient noise scale of any run, from gradients that are there, or now and then a part of a batch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import Trainer

from hf_noise.analysis.noise_scale import NoiseScale, gradient_noise_scale
from hf_noise.evaluation_mode import training_mode
from hf_noise.noise.checks import check_count
from hf_noise.trainers.passes import PassCallback

__all__ = ["NoiseScaleCallback", "left_as_it_was"]

#: Steps between measurements: a norm more is cheap beside two passes, half a pass more (a whole one of several
#: processes) is at most 1 / 64 of a step.
_OF_PASSES, _OF_PARTS = 8, 64
#: Of transformers, those that do not put rows together by their length.
_INDEPENDENT = ("random", "sequential")


class NoiseScaleCallback(PassCallback):
    """Logs `noise_scale`, B_simple = tr(Sigma) / |G|^2 in rows, of a run of any trainer of `hf_noise.trainers`.

    Give it as `callbacks=[NoiseScaleCallback()]`. The small batch is one pass of one process, averaged over processes;
    the big one is the step. Where passes are accumulated, the gradient after the first is looked at before the second
    adds to it. Where each process makes one pass a step, its gradient goes into the sum of all as it is made: there the
    pass is made once more in every 64th step, without the others. Where the whole step is one pass, that is made of the
    first half of its rows. What the extra pass changes is put back (random numbers, running statistics, what was
    counted), so that a run with the callback makes the same weights as one without.

    It is the gradient of the loss that is minimised, on labels as they are trained on, noisy ones too: before clipping,
    with the scale of float16 taken out, of all weights that are learned. Both norms are of means over the units of the
    loss; of rows of several lengths, batches are counted in rows all the same, which is then nearly right. For tokens,
    multiply by those in a row. Rows have to be drawn independently of each other: `train_sampling_strategy="random"`,
    or "sequential" where they were shuffled before.

    With batch normalisation half of a batch is put through another function than the whole, and the difference is no
    noise. There several passes of the same number of rows are compared with each other; what is measured is then the
    noise of networks that are normalised over so many rows.

    Logs have `noise_scale_low` and `noise_scale_high` beside it, where there are such ends, and what is infinite is
    left out; all are of the last `window` measurements. Checkpoints keep the measurements, and a resumed run goes on.

    Args:
        every: steps between measurements, >= 1; None for 8 where passes are accumulated, 64 where one is repeated, so
            that it costs at most 2 % of a step.
        window: measurements that the logged figures are made of, >= 2.

    Raises:
        TypeError, ValueError: a number is of another type or out of range. When training begins, RuntimeError: this is
            no trainer of ours; ValueError: weights are sharded or of fewer than 32 bits, the batch is one row, passes
            are summed over processes one by one, rows come together by their length, half of a pass would be normalised
            otherwise than the whole, or a pass cannot be repeated as the objective keeps what it sees.

    Source: McCandlish et al. (2018), appendix A.1, see `hf_noise.analysis.gradient_noise_scale`.
    """

    def __init__(self, every: int | None = None, window: int = 64):
        self.every = None if every is None else check_count("every", every, 1, 40)
        self.window = check_count("window", window, 2, 40)
        self._taken: list[Tensor | tuple[float, float, float, float]] = []
        self._begin(None, 0)

    def _begin(self, trainer: Trainer | None, every: int) -> None:
        self._trainer, self._every, self._logged = trainer, every, 0
        self._is_due, self._passes, self._rows, self._is_even = False, 0, 0, True
        self._small: tuple[Tensor, int] | None = None
        self._is_normalised = False

    @property
    def measurements(self) -> list[tuple[float, float, float, float]]:
        """Of each measurement of the run, finite ones: squared norms at the small and the big batch, rows of each."""
        return [one for one in self._numbers() if all(map(math.isfinite, one))]

    def _numbers(self) -> list[tuple[float, float, float, float]]:
        self._taken = [tuple(one.tolist()) if isinstance(one, Tensor) else one for one in self._taken]
        return self._taken

    def noise_scale(self, window: int | None = None) -> NoiseScale | None:
        """The noise scale of the last measurements, of all for None; None where there is none yet.

        Raises TypeError or ValueError: the window is no integer >= 1.
        """
        found = self.measurements
        found = found if window is None else found[-check_count("window", window, 1, 40) :]
        if not found:
            return None
        small, big, b_small, b_big = zip(*found)
        return gradient_noise_scale(small, big, small_batch=b_small, big_batch=b_big)

    # ---- what a trainer of ours calls

    def attach(self, trainer: Any) -> None:
        """Begin a run of this trainer; raises ValueError, see the class."""
        args, accelerator = trainer.args, trainer.accelerator
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ValueError("NoiseScaleCallback needs whole gradients, and weights are sharded; use DDP or one device")
        narrow = {p.dtype for p in trainer.model.parameters() if p.requires_grad and torch.finfo(p.dtype).bits < 32}
        if narrow:
            raise ValueError(f"NoiseScaleCallback takes the difference of norms, and weights are {narrow.pop()}, whose "
                             "rounding it would measure; hold them in float32, and let bf16=True autocast")  # fmt: skip
        if accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False):
            raise ValueError("NoiseScaleCallback needs the gradient of one pass of one process, and sync_each_batch "
                             "sums each over all processes; leave it out")  # fmt: skip
        accumulates = args.gradient_accumulation_steps > 1
        if not accumulates and (why := _why_not_twice(trainer)) is not None:
            raise ValueError(f"NoiseScaleCallback would make a pass twice, and {why}; use "
                             "gradient_accumulation_steps=2 and half the batch, whose passes it looks at")  # fmt: skip
        if not accumulates and args.world_size == 1 and args.per_device_train_batch_size == 1:
            raise ValueError("NoiseScaleCallback compares two sizes of batches, and each step has one row; use "
                             "gradient_accumulation_steps >= 2")  # fmt: skip
        if (why := _why_dependent(trainer)) is not None:
            raise ValueError(f"NoiseScaleCallback takes the rows of a step for independent, and {why}")
        norms = _batch_norms(trainer.model)
        if args.world_size > 1 and any(isinstance(one, nn.SyncBatchNorm) for one in trainer.model.modules()):
            raise ValueError("NoiseScaleCallback compares passes of single processes, and SyncBatchNorm makes each a "
                             "part of those of all; use plain batch normalisation")  # fmt: skip
        if norms and not accumulates and args.world_size == 1:
            raise ValueError(f"NoiseScaleCallback would compare a batch with half of it, which {norms[0]} normalises "
                             "otherwise, so that it is another function; use gradient_accumulation_steps >= 2, whose "
                             "passes are of the same number of rows")  # fmt: skip
        self._taken = []
        self._begin(trainer, self.every or (_OF_PASSES if accumulates else _OF_PARTS))
        self._is_normalised = bool(norms)

    def before_pass(self, trainer: Any, model: Any, inputs: Mapping[str, Any]) -> None:
        """Before each pass of training: make a part of it alone where there is no other."""
        if not self._is_due:
            return
        rows = rows_of(inputs)
        self._is_even &= rows * self._passes == self._rows
        self._rows += rows
        if self._passes or not trainer.accelerator.sync_gradients or trainer.args.gradient_accumulation_steps > 1:
            return
        part = rows if trainer.accelerator.num_processes > 1 else rows // 2
        if part:
            self._small = self._alone(trainer, model, {name: _first(one, rows, part) for name, one in inputs.items()},
                                      part)  # fmt: skip

    def after_pass(self, trainer: Any, model: Any) -> None:
        """After each pass: look at the gradient of the first, where others follow."""
        if self._is_due and not self._passes and not trainer.accelerator.sync_gradients:
            self._small = _norm(trainer, model) / trainer.share_of_pass(), self._rows
        self._passes += 1

    def after_step(self, trainer: Any, norm: Any) -> None:
        """When all gradients of a step are there; `norm` is that before clipping (a collective call)."""
        if not self._is_due:
            return
        accelerator = trainer.accelerator
        small = self._small if self._is_even or not self._is_normalised else None
        device, world = accelerator.device, accelerator.num_processes
        dtype = torch.float32 if device.type == "mps" else torch.float64
        # A process that measured nothing, in a short last batch, has no 1 / rows: that measurement is left out. So is
        # one of passes that were normalised over unequal numbers of rows.
        ours = [math.nan, math.nan] if small is None else [small[0].to(dtype) ** 2, 1 / small[1]]
        sums = torch.stack([torch.as_tensor(one, dtype=dtype, device=device) for one in (*ours, self._rows)])
        square, inverse, rows = accelerator.reduce(sums, reduction="sum").unbind()
        big = torch.as_tensor(norm, dtype=dtype, device=device) ** 2
        apart = torch.where(rows > world / inverse, rows, math.nan)
        self._taken.append(torch.stack([square / world, big, world / inverse, apart]))
        self._is_due = False

    def kept(self) -> dict[str, Tensor]:
        """All measurements, float64 [n, 4]."""
        return {"taken": torch.tensor(self._numbers(), dtype=torch.float64).view(-1, 4)}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from the measurements that a checkpoint kept."""
        self._taken = [tuple(one) for one in kept["taken"].tolist()] if "taken" in kept else []
        self._logged = len(self._taken)

    def logged(self) -> dict[str, float]:
        """What there is to log since the last call."""
        if self._logged == len(self._taken) or (found := self.noise_scale(self.window)) is None:
            return {}
        self._logged = len(self._taken)
        named = {"noise_scale": found.value, "noise_scale_low": found.low, "noise_scale_high": found.high}
        return {name: value for name, value in named.items() if math.isfinite(value)}

    def _alone(self, trainer: Any, model: Any, part: dict[str, Any], rows: int) -> tuple[Tensor, int]:
        """Norm of the mean gradient of a part of the batch, from a pass that leaves nothing behind."""
        with left_as_it_was(trainer, model), trainer.accelerator.no_sync(model):
            Trainer.training_step(trainer, model, part, None)
            return _norm(trainer, model), rows

    # ---- what transformers calls

    def on_train_begin(self, args, state, control, **kwargs):
        if self._trainer is None:
            raise RuntimeError("NoiseScaleCallback is for the trainers of hf_noise.trainers, which show it each pass; "
                               "the stock Trainer does not")  # fmt: skip

    def on_step_begin(self, args, state, control, **kwargs):
        self._is_due, self._passes, self._rows, self._small = state.global_step % self._every == 0, 0, 0, None
        self._is_even = True

    def on_train_end(self, args, state, control, **kwargs):
        self._trainer = None


def rows_of(inputs: Mapping[str, Any]) -> int:
    """Rows of a batch: those of its first tensor that has any."""
    return next(len(one) for one in inputs.values() if isinstance(one, Tensor) and one.ndim)


def _first(one: Any, rows: int, part: int) -> Any:
    """The first rows of a column; what is no column stays."""
    return one[:part] if isinstance(one, Tensor) and one.ndim and len(one) == rows else one


def _norm(trainer: Any, model: Any) -> Tensor:
    """Norm of the gradients as they stand, without the scale of float16."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    scaler = trainer.accelerator.scaler
    return norm if scaler is None else norm / scaler.get_scale()


def _why_not_twice(trainer: Any) -> str | None:
    """Why a pass cannot be made twice, None where it can."""
    loss, module = getattr(trainer, "loss", None), getattr(trainer, "learned", None)
    keeps = loss is not None and (loss.remembers is not None or loss.needs_forward)
    if keeps or module is not None and next(module.buffers(), None) is not None:
        return f"{type(loss).__name__} keeps what it saw of each"
    return None


def _why_dependent(trainer: Any) -> str | None:
    """Why the rows of a step are not drawn independently of each other, with the remedy; None where they are."""
    strategy = getattr(trainer.args, "train_sampling_strategy", "random")
    if strategy not in _INDEPENDENT:
        return f"train_sampling_strategy={strategy!r} puts those of one length together; use 'random'"
    if getattr(trainer, "tokens_per_batch", None) is not None:
        return (f"tokens_per_batch={trainer.tokens_per_batch} puts those of one length together; use "
                "per_device_train_batch_size")  # fmt: skip
    return None


def _batch_norms(model: Any) -> list[str]:
    """Names of the modules that normalise over the batch when the model is trained."""
    with training_mode(model):
        return [name for name, one in model.named_modules() if isinstance(one, _BatchNorm) and one.training]


@contextlib.contextmanager
def left_as_it_was(trainer: Any, model: Any) -> Iterator[None]:
    """Puts back what a pass of training changes: random numbers, buffers, gradients, what is logged or watched."""
    device = trainer.accelerator.device
    devices = [device] if device.type not in ("cpu", "mps") else []
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    kind = device.type if devices else "cuda"
    with torch.random.fork_rng(devices=devices, device_type=kind), trainer.uncounted():
        yield
    with torch.no_grad():
        for buffer, before in kept:
            buffer.copy_(before)
    for parameter in model.parameters():
        parameter.grad = None
