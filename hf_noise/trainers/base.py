"""What trainers under noise share: the noise in the config, its epoch, exact counts, checkpoints that hold them."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput, get_last_checkpoint, has_length

from hf_noise.noise import Noise, noise_from_description
from hf_noise.trainers.card import state_noise, state_noise_of_adapter
from hf_noise.trainers.meter import Meter

__all__ = ["NoiseTrainer", "STATE_FILE", "noise_of", "search_no_unused", "write_config"]

STATE_FILE = "hf_noise_state.safetensors"


class NoiseTrainer(Trainer):
    """`transformers.Trainer` on data whose noise is known; a subclass says what the noise falls on and what is lost.

    A subclass sets `noise_kinds`, gives its `meter`, whose sums stay exact over processes and resumes, and draws noise
    for `self.epoch`. Parameters of its own that do not belong to the published model have names that begin with
    `own_prefix`.

    Differs from `Trainer` in its arguments: `remove_unused_columns` is off (sample ids are needed).

    Raises:
        TypeError: the noise is of a kind that this trainer does not draw.
        ValueError: the rows were built with other noise, or `model_init` is given.
        RuntimeError: several GPUs without a launcher.
    """

    noise_kinds: ClassVar[tuple[type[Noise], ...]] = ()
    #: What to do with a noise of another kind, for the error message.
    other_noise: ClassVar[str] = ""
    own_prefix: ClassVar[str] = "hf_noise_"

    def __init__(self, model: Any, args: Any, *, noise: Noise | None, meter: Meter, **kwargs: Any):
        if kwargs.get("model_init") is not None:
            raise ValueError("model_init makes a second model when training starts, which knows no noise; pass model=")
        super().__init__(model, args, **kwargs)
        self.args.remove_unused_columns = False
        if self.args.n_gpu > 1:
            raise RuntimeError(f"{self.args.n_gpu} GPUs and one process: start with `accelerate launch`, not `python`")
        in_rows = noise_of(self.train_dataset)
        # Data that were built without noise have the columns of noise all the same.
        self.draws_over_clean_columns = noise is not None and in_rows is not None and in_rows.error_rate == 0
        noise = _agreed_noise(noise, in_rows)
        if noise is not None:
            if not isinstance(noise, self.noise_kinds):
                kinds = " or ".join(kind.__name__ for kind in self.noise_kinds)
                raise TypeError(f"this trainer takes {kinds}, got {type(noise).__name__}; {self.other_noise}")
            self.check_noise(noise)
            self.write_noise(noise)
        self.noise = noise
        self.meter = meter
        self.epoch = 0
        self._checkpoint_state: dict[str, Tensor] | None = None
        self.add_callback(_EpochOfNoise(self))

    def has_noise(self, rows: Mapping[str, Any]) -> bool:
        """Whether a batch brings noisy targets, and so none are to be drawn."""
        return "is_noisy" in rows and not self.draws_over_clean_columns

    def check_noise(self, noise: Noise) -> None:
        """Raise ValueError if this noise and the model do not fit together."""

    def write_noise(self, noise: Noise) -> None:
        """State the noise in what will be saved: by default in the model's config."""
        write_config(self.model, hf_noise=noise.to_dict())

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """As `Trainer.train`; but a run that was stopped after its last step makes no step more."""
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder and self.args.max_steps > 0:
            state = TrainerState.load_from_json(os.path.join(folder, TRAINER_STATE_NAME))
            if state.global_step >= self.args.max_steps:
                self._load_from_checkpoint(folder)
                self.state = state
                self.draw_epoch(max(0, math.ceil(state.epoch or 0) - 1))
                return TrainOutput(state.global_step, 0.0, {})
        return super().train(resume_from_checkpoint, **kwargs)

    def draw_epoch(self, epoch: int) -> None:
        """Draw the noise of this epoch from now on, and the augmentation of rows that have one."""
        self.epoch = epoch
        if hasattr(self.train_dataset, "set_epoch"):
            self.train_dataset.set_epoch(epoch)

    def mean_loss(self, total: Tensor, units: Tensor | int, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Sum of losses over units of this micro-batch -> its share of the mean over the units of the whole batch."""
        if num_items_in_batch is None:
            return total / units
        # DDP averages gradients, while the divisor already counts the units of all processes.
        shared = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return total / num_items_in_batch * shared

    def get_eval_dataloader(self, *args, **kwargs):
        with self._every_row():
            return super().get_eval_dataloader(*args, **kwargs)

    def get_test_dataloader(self, *args, **kwargs):
        with self._every_row():
            return super().get_test_dataloader(*args, **kwargs)

    @contextmanager
    def _every_row(self) -> Iterator[None]:
        """Every row counts in evaluation; `dataloader_drop_last` is there for equal training batches."""
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = drop_last

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.meter.pop(self.accelerator))
        super().log(logs, start_time)

    def realised_noise(self) -> dict[str, float | int]:
        """Share of corrupted targets in all training steps and their number, `{"rate", "n"}` (a collective call)."""
        self.meter.pop(self.accelerator)
        return self.meter.realised()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        super().create_model_card(*args, **kwargs)
        if self.noise is not None and self.is_world_process_zero():
            state_noise(Path(self.args.output_dir, "README.md"), self.noise)

    def _save_checkpoint(self, model, trial):
        # A collective call, so it cannot stand in `_save`, which some versions call on the main process alone.
        self._checkpoint_state = self.meter.state(self.accelerator)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # what a full disk makes the three writers raise
            shutil.rmtree(folder, ignore_errors=True)
            message = f"{folder} could not be written ({error}) and was removed; earlier checkpoints stay"
            raise OSError(message) from error
        finally:
            self._checkpoint_state = None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        # safetensors takes no other layout of memory, such as channels_last.
        state_dict = self.model.state_dict() if state_dict is None else state_dict
        state_dict = {name: value.contiguous() for name, value in state_dict.items()}
        own = {k: v.detach().cpu() for k, v in state_dict.items() if k.startswith(self.own_prefix)}
        super()._save(output_dir, {k: v for k, v in state_dict.items() if k not in own})
        state_noise_of_adapter(output_dir or self.args.output_dir, self.noise)
        if self._checkpoint_state is not None and self.args.should_save:
            save_file(own | self._checkpoint_state, os.path.join(output_dir or self.args.output_dir, STATE_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        state = load_file(os.path.join(resume_from_checkpoint, STATE_FILE))
        self.meter.load(state, self.accelerator)
        self._load_own(resume_from_checkpoint, state)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        folder = self.state.best_model_checkpoint
        # The meter stays: it counts what was trained on, however good it was.
        self._load_own(folder, load_file(os.path.join(folder, STATE_FILE)))

    def _load_own(self, folder: str, state: dict[str, Tensor]) -> None:
        """Take up what the file of the weights does not hold, from a checkpoint's folder and its state."""

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # Parameters of one's own are in the checkpoint's state, which is read right after.
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if not key.startswith(self.own_prefix)]
        super()._issue_warnings_after_load(load_result)


def search_no_unused(args: Any) -> None:
    """Tell DDP, unless `args` do, that every parameter has a gradient; its search would see a model's forward alone."""
    if args is not None and args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = False


def write_config(model: Any, **values: Any) -> None:
    """Set values in the config of a model of transformers or diffusers, which checkpoints take along."""
    if hasattr(model, "register_to_config"):
        model.register_to_config(**values)
    else:
        for name, value in values.items():
            setattr(model.config, name, value)


def noise_of(rows: Any) -> Noise | None:
    """The noise that a built data set carries in its description; rows may stand behind a wrapper as PackedRows."""
    info = getattr(getattr(rows, "dataset", rows), "info", None)
    return noise_from_description(info.description) if info is not None and info.description else None


def _agreed_noise(given: Noise | None, in_data: Noise | None) -> Noise | None:
    """The noise to record: that of the rows, unless they are clean or do not tell; then the given one."""
    if given is None or in_data is None or in_data.error_rate == 0:
        return in_data if given is None else given
    settings = [{**noise.to_dict(), "redraw": None, "ratio": None} for noise in (given, in_data)]
    if settings[0] != settings[1]:
        raise ValueError(f"the rows were built with {in_data}, and the trainer is given {given}; leave noise= out")
    return in_data


class _EpochOfNoise(TrainerCallback):
    """Tells the trainer which epoch's noise to draw; counts passes, as a stream has no length to divide by."""

    def __init__(self, trainer: NoiseTrainer):
        self.trainer = trainer
        self.started = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = False

    def on_epoch_begin(self, args, state, control, **kwargs):
        resumed = not self.started and state.global_step > 0
        if resumed and state.epoch >= 1 and not has_length(self.trainer.train_dataset):
            raise RuntimeError(
                f"a stream of unknown length is resumed in its first pass only, and the checkpoint stands in pass "
                f"{math.floor(state.epoch) + 1}; train on more rows, or on a data set that is stored"
            )
        self.trainer.draw_epoch(self.trainer.epoch + 1 if self.started else math.floor(state.epoch or 0))
        self.started = True
