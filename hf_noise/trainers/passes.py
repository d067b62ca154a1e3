"""What each forward and backward pass is a part of: its share of the step's mean, and who may look at its gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils.data import RandomSampler
from transformers import TrainerCallback

from hf_noise.trainers.finite import FiniteTrainer

__all__ = ["PassCallback", "PassTrainer"]

_WATCHED = "watched"


class PassCallback(TrainerCallback):
    """A callback that our trainers show each pass of training, and whose state their checkpoints keep.

    A subclass overrides what it needs: by default nothing is looked at, logged or kept.
    """

    def attach(self, trainer: Any) -> None:
        """A run of this trainer begins; a state is taken up after it. Raise ValueError if it cannot be watched."""

    def before_pass(self, trainer: Any, model: Any, inputs: Mapping[str, Any]) -> None:
        """Before each pass of training, with its batch."""

    def after_pass(self, trainer: Any, model: Any) -> None:
        """After each pass: its gradient has been added to those of the step."""

    def after_step(self, trainer: Any, norm: Any) -> None:
        """When all gradients of a step are there; `norm` is that before clipping. Called on all processes."""

    def logged(self) -> dict[str, float]:
        """What there is to log beside the loss since the last call."""
        return {}

    def kept(self) -> dict[str, Tensor]:
        """What a checkpoint is to keep, the same on all processes."""
        return {}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from what a checkpoint kept; empty where it knows nothing of this callback."""


class PassTrainer(FiniteTrainer):
    """`FiniteTrainer` whose losses are shares of a mean over the step, and that shows its passes to callbacks.

    A subclass has a `meter`, and gives its loss by `mean_loss`.

    With `dataloader_drop_last`, what does not fill a step is left out of an epoch, where `Trainer` leaves out what does
    not fill a pass, and makes the last step of the epoch of the passes that are left.
    """

    meter: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._last_pass: tuple[Tensor | int, Tensor | int | None] = (1, None)

    @property
    def watching(self) -> dict[str, PassCallback]:
        """The callbacks that are shown passes, by a name that is the same in a resumed run."""
        found: dict[str, PassCallback] = {}
        for one in self.callback_handler.callbacks:
            if isinstance(one, PassCallback):
                kind = type(one).__name__
                found[f"{_WATCHED}.{kind}.{sum(name.split('.')[1] == kind for name in found)}"] = one
        return found

    def kept_of_watching(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of these callbacks."""
        return {f"{name}.{key}": value.contiguous() for name, one in self.watching.items()
                for key, value in one.kept().items()}  # fmt: skip

    def take_up_watching(self, state: Mapping[str, Tensor]) -> None:
        """Give these callbacks what a checkpoint kept of them."""
        for name, one in self.watching.items():
            one.take_up({key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")})

    def mean_loss(self, total: Tensor, units: Tensor | int, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Sum of losses over units of this micro-batch -> its share of the mean over the units of the whole batch.

        `units` is their number, or a mask of them.
        """
        self._last_pass = units, num_items_in_batch
        if num_items_in_batch is None:
            return total / _number(units)
        return total / num_items_in_batch * self._shared()

    def _shared(self) -> int:
        # DDP averages gradients, while the divisor already counts the units of all processes.
        return self.accelerator.num_processes if self.args.average_tokens_across_devices else 1

    def share_of_pass(self) -> Tensor | float:
        """By what the last pass multiplied the mean over its own units."""
        units, of_step = self._last_pass
        if of_step is None:
            return 1 / self.current_gradient_accumulation_steps
        return _number(units) * self._shared() / of_step

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Within it a pass is none of training: what it books and shows to `watch` is forgotten."""
        recent, seen, last = self.meter.recent, list(self._seen), self._last_pass
        try:
            yield
        finally:
            self.meter.recent, self._seen, self._last_pass = recent, seen, last

    def train(self, *args: Any, **kwargs: Any) -> Any:
        for one in self.watching.values():
            one.attach(self)
        return super().train(*args, **kwargs)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        watching = self.watching.values()
        for one in watching:
            one.before_pass(self, model, inputs)
        loss = super().training_step(model, inputs, *args, **kwargs)
        for one in watching:
            one.after_pass(self, model)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        for one in self.watching.values():
            one.after_step(self, norm)
        return norm

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if self.args.dataloader_drop_last and type(sampler) is RandomSampler and not sampler.replacement:
            step = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
            if (whole := len(sampler) // step * step) and whole < len(sampler):
                # The same order, which ends before.
                return RandomSampler(sampler.data_source, num_samples=whole, generator=sampler.generator)
        return sampler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            for one in self.watching.values():
                logs.update(one.logged())
        super().log(logs, start_time)


def _number(units: Tensor | int) -> Tensor | int:
    return units.sum() if isinstance(units, Tensor) else units
