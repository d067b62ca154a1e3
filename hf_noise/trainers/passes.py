"""What each forward and backward pass is a part of: its share of the step's mean, and who may look at its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hf_noise.trainers.finite import FiniteTrainer
from hf_noise.trainers.noise_scale import NoiseScaleCallback

__all__ = ["PassTrainer"]


class PassTrainer(FiniteTrainer):
    """`FiniteTrainer` whose losses are shares of a mean over the step, and that shows its passes to callbacks.

    A subclass has a `meter`, and gives its loss by `mean_loss`.
    """

    meter: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._noise_scales: list[NoiseScaleCallback] = []
        self._last_pass: tuple[Tensor | int, Tensor | int | None] = (1, None)

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
        self._noise_scales = [one for one in self.callback_handler.callbacks if isinstance(one, NoiseScaleCallback)]
        for one in self._noise_scales:
            one.attach(self)
        return super().train(*args, **kwargs)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        for one in self._noise_scales:
            one.before_pass(self, model, inputs)
        loss = super().training_step(model, inputs, *args, **kwargs)
        for one in self._noise_scales:
            one.after_pass(self, model)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        for one in self._noise_scales:
            one.after_step(self, norm)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            for one in self._noise_scales:
                logs.update(one.logged())
        super().log(logs, start_time)


def _number(units: Tensor | int) -> Tensor | int:
    return units.sum() if isinstance(units, Tensor) else units
