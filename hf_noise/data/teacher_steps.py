"""The stock trainer with the steps of one process in any number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Trainer

from hf_noise.noise.arrays import IGNORE_INDEX

__all__ = ["TeacherTrainer"]


class TeacherTrainer(Trainer):
    """`transformers.Trainer` for encoder-decoders and `group_by_length`: the steps of one process, without dropout.

    Left as it is, it multiplies the gradient by the processes; it sorts rows by length within what one process gets;
    it averages the means of processes that have unequal numbers of targets; it fills the last step of an epoch with
    rows that were seen already; and on CPUs it lets dropout draw the processes apart, whose order of rows is then no
    longer one.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # These models take keywords and leave the number of items alone.
        self.model_accepts_loss_kwargs = False
        if self.args.world_size > 1:
            self.accelerator.rng_types = ["torch"]  # at the start of an epoch, as the first process has it

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        sampler.batch_size *= self.args.world_size
        return sampler

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if return_outputs or self.args.world_size == 1:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels, rows = inputs["labels"], self._own_rows(len(inputs["labels"]))
        n = (labels[:rows] != IGNORE_INDEX).sum()
        if 0 < rows < len(labels):
            labels = labels.clone()
            labels[rows:] = IGNORE_INDEX
        mean = super().compute_loss(model, {**inputs, "labels": labels}, False, num_items_in_batch)
        # The gradient is averaged over the processes.
        return mean * n * self.args.world_size / self.accelerator.reduce(n, "sum")

    def _own_rows(self, n: int) -> int:
        """How many of a process's n rows no process has had in this epoch; they come first."""
        state = self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder <= 0:
            return n
        return min(max(state.remainder - self.args.process_index * n, 0), n)
