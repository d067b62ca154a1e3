"""What trainers under noise share: the noise in the config, its epoch, exact counts, checkpoints that hold them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput, has_length

from hf_noise.noise import Noise
from hf_noise.noise.base import Unit
from hf_noise.trainers.arguments import check_arguments, check_given
from hf_noise.trainers.card import state_noise, state_noise_of_adapter
from hf_noise.trainers.claims import Claims
from hf_noise.trainers.manifest import STATE_FILE
from hf_noise.trainers.meter import Meter
from hf_noise.trainers.model_config import keep_earlier_noise, write_config
from hf_noise.trainers.passes import PassTrainer
from hf_noise.trainers.resuming import check_best, check_same_claims, claims_of, saving, taking_up
from hf_noise.trainers.stated import stated_noise
from hf_noise.trainers.tied import without_aliases

__all__ = ["NoiseTrainer", "STATE_FILE", "noise_of"]


class NoiseTrainer(PassTrainer):
    """`transformers.Trainer` on data whose noise is known; a subclass says what the noise falls on and gives the loss.

    A subclass sets `noise_units`, gives its `meter`, whose sums stay exact over processes and resumes, and draws noise
    for `self.epoch`. Parameters of its own that do not belong to the published model have names that begin with
    `own_prefix`.

    What a run claims is held against what it sees: arguments when the trainer is made, stored rows too, and the first
    batch before anything is learned from it. Rows that have a mask are read: it has to agree with the labels beside it,
    its rate with the stated noise (by a bound with a false alarm in a million), the labels with what the noise draws
    for their ids, if the description of a data set states it. The realised rate is looked at again with every log entry
    of the first epoch. Of rows that have to be made (a transform, a stream, a data set of your own) the first batch is
    looked at, and the rate; not each mask after it. Documents of noise may come last: their share is looked at when the
    first epoch ends, or training if that is earlier.

    `compute_metrics` adds to `eval_loss` and the other exact figures, which are always there; a subclass says what
    predictions it is given. A loss, gradient or weight that is not finite stops the run, see `FiniteTrainer`.

    Differs from `Trainer` in its arguments: `remove_unused_columns` rules what a collator of your own is shown (the
    columns that are used, and the model's; ours leaves others alone), and `logging_nan_inf_filter` is off; see
    `hf_noise.trainers.arguments` for what is refused.

    Raises:
        TypeError: the noise falls on other units than those of this trainer.
        ValueError: the rows contradict the noise that they or `noise=` state, or their ids repeat and are to be drawn
            from; an argument of `Trainer` cannot be honoured.
        RuntimeError: several GPUs without a launcher.
        FloatingPointError: see `FiniteTrainer`.
    """

    #: The units of noise that its rows may carry; it draws what `Noise.draws_targets` says can be drawn.
    noise_units: ClassVar[tuple[Unit, ...]] = ()
    #: What to do with a noise on other units, for the error message.
    other_noise: ClassVar[str] = ""
    own_prefix: ClassVar[str] = "hf_noise_"
    #: Arguments of transformers that this trainer honours, of those that others refuse.
    honoured: ClassVar[tuple[str, ...]] = ()
    #: What is drawn from sample ids whether or not there is noise, in words.
    always_drawn: ClassVar[str | None] = None

    def __init__(self, model: Any, args: Any, *, noise: Noise | None, meter: Meter, **kwargs: Any):
        check_given(model, args, kwargs)
        check_arguments(type(self).__name__, args, kwargs, self.honoured)
        own_metrics = kwargs.pop("compute_metrics", None)
        super().__init__(model, args, **kwargs)
        self.label_smoother = None  # of transformers; a trainer that smooths labels does it in its own loss
        if self.args.n_gpu > 1:
            raise RuntimeError(f"{self.args.n_gpu} GPUs and one process: start with `accelerate launch`, not `python`")
        stated = stated_noise(self.train_dataset)
        for one in (noise, None if stated is None else stated.noise):
            if one is not None and not (isinstance(one, Noise) and one.unit in self.noise_units):
                units = " or ".join(self.noise_units)
                raise TypeError(f"this trainer takes noise on {units}, got {type(one).__name__}; {self.other_noise}")
        #: What a resumed run has to have in common with its checkpoint, beside the noise; a subclass adds to it.
        self.objective_claims: dict[str, Any] = {}
        self.claims = Claims(self.train_dataset, noise, self.always_drawn, stated=stated)
        self.noise = self.claims.noise
        if self.noise is not None:
            self.check_noise(self.noise)
            self.write_noise(self.noise)
        self.compute_metrics = self._measured(own_metrics)
        self.meter = meter
        self.epoch = 0
        self._is_checked = {"train": False, "eval": False}
        self._has_mask = False
        self._checkpoint_state: dict[str, Tensor] | None = None
        self.add_callback(_EpochOfNoise(self))

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        return dataset  # sample ids are needed, which no forward takes

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        return data_collator

    def has_noise(self, rows: Mapping[str, Any]) -> bool:
        """Whether a batch brings noisy targets, and so none are to be drawn."""
        return "is_noisy" in rows and not self.claims.draws_over_clean_columns

    def check_noise(self, noise: Noise) -> None:
        """Raise ValueError if this noise and the model do not fit together."""

    def check_fit(self, inputs: Mapping[str, Any]) -> None:
        """Raise ValueError if the rows of a batch and the model do not fit together."""

    def as_collated(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """A training batch as its rows have it, which checks look at; a subclass may have changed what is read."""
        return inputs

    def exact_metrics(self, prediction: Any) -> dict[str, float]:
        """Loss and other figures of an evaluation, from what `prediction_step` gives."""
        raise NotImplementedError

    def shown(self, prediction: Any) -> Any:
        """What `compute_metrics` is given of an evaluation: by default all of it."""
        return prediction

    def write_noise(self, noise: Noise) -> None:
        """State the noise in what will be saved: by default in the model's config."""
        keep_earlier_noise(self.model, noise)
        write_config(self.model, hf_noise=noise.to_dict())

    def _measured(self, own: Callable[[Any], Mapping[str, float]] | None) -> Callable[[Any], dict[str, float]]:
        def compute_metrics(prediction: Any) -> dict[str, float]:
            exact = self.exact_metrics(prediction)
            if own is None:
                return exact
            theirs = own(self.shown(prediction))
            if not isinstance(theirs, Mapping):
                raise TypeError(f"compute_metrics must return figures by name, got {theirs!r:.80}")
            for name, value in theirs.items():
                known = exact.get(str(name).removeprefix("eval_"))  # transformers puts it before all
                agrees = isinstance(value, Real) and known is not None and math.isclose(value, known, rel_tol=1e-5)
                if known is not None and not agrees:
                    raise ValueError(f"compute_metrics returns {name} = {value!r:.50}, which is {known:.6g} here, "
                                     "exact over all rows; give it another name")  # fmt: skip
            return {**theirs, **exact}

        return compute_metrics

    def training_step(self, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        rows = self.as_collated(inputs)
        if not self._is_checked["train"]:
            self._is_checked["train"] = True
            self._has_mask = "is_noisy" in rows
            self.check_fit(rows)
            self.claims.check_batch(rows)
        if self.epoch == 0:
            self.claims.count(rows)
        if self.claims.is_stream:
            self.claims.watch(inputs.get("sample_id"))
        return super().training_step(model, inputs, *args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._is_checked["eval"] = False
        return super().evaluation_loop(*args, **kwargs)

    def _prepare_evaluation(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """A batch on the device, the first one after a look at whether it fits the model."""
        if not self._is_checked["eval"]:
            self._is_checked["eval"] = True
            self.check_fit(inputs)
        return self._prepare_inputs(inputs)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """As `Trainer.train`, in an output folder that no other process uses, and from whole checkpoints only.

        A run that was stopped after its last step makes no step more.

        Args:
            resume_from_checkpoint: the folder of a checkpoint, which is refused if a file of it is missing or changed;
                True for the newest whole one of `output_dir`; "auto" for the same, or the start if there is none
                (`./auto` is a folder). Broken ones that are passed over are named and renamed.

        Raises:
            BlockingIOError: the output folder is in use by another process.
            ValueError: there are no rows to train on.
            FileNotFoundError, ValueError: there is no whole checkpoint, it is not of hf_noise, or was trained under
                another noise or for another objective; with the remedy.
        """
        if self.train_dataset is None:
            raise ValueError("train_dataset is None; give the rows to train on when the trainer is made")
        if has_length(self.train_dataset) and not len(self.train_dataset):
            raise ValueError("train_dataset has no rows; look at what selected or filtered them")
        with taking_up(self, resume_from_checkpoint) as folder:
            if folder and self.args.max_steps > 0:
                state = TrainerState.load_from_json(os.path.join(folder, TRAINER_STATE_NAME))
                if state.global_step >= self.args.max_steps:
                    self._load_from_checkpoint(folder)
                    self.state = state
                    self.draw_epoch(max(0, math.ceil(state.epoch or 0) - 1))
                    if self.args.load_best_model_at_end and state.best_model_checkpoint is not None:
                        self._load_best_model()
                    return TrainOutput(state.global_step, 0.0, {})
            return super().train(folder, **kwargs)

    def draw_epoch(self, epoch: int) -> None:
        """Draw the noise of this epoch from now on, and the augmentation of rows that have one."""
        self.epoch = epoch
        if hasattr(self.train_dataset, "set_epoch"):
            self.train_dataset.set_epoch(epoch)

    def get_eval_dataloader(self, *args, **kwargs):
        with self._every_row():
            return super().get_eval_dataloader(*args, **kwargs)

    def get_test_dataloader(self, *args, **kwargs):
        with self._every_row():
            return super().get_test_dataloader(*args, **kwargs)

    @contextmanager
    def _every_row(self) -> Iterator[None]:
        """Every row counts in evaluation, in its place: what batches leave out, or put together, is for training."""
        asked = self.args.dataloader_drop_last, self.args.train_sampling_strategy
        self.args.dataloader_drop_last, self.args.train_sampling_strategy = False, "random"
        try:
            yield
        finally:
            self.args.dataloader_drop_last, self.args.train_sampling_strategy = asked

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            seen = self.meter.pop(self.accelerator)
            is_known = self.noise is not None or self._has_mask
            logs.update(seen if is_known else self.meter.of_unknown_rows(seen))
            # Later, static noise comes again, and what comes again is no further evidence.
            if self.epoch == 0 and self.meter.total is not None:
                self.claims.check_realised(self.meter.realised())
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
        self._checkpoint_state = self.meter.state(self.accelerator) | self.kept_of_watching()
        if self.claims.documents is not None:
            self._checkpoint_state |= self.claims.documents.state(self.accelerator)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        try:
            with saving(self, folder):
                super()._save_checkpoint(model, trial)
        finally:
            self._checkpoint_state = None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        # safetensors takes no other layout of memory, such as channels_last.
        state_dict = self.model.state_dict() if state_dict is None else state_dict
        state_dict = {name: value.contiguous() for name, value in state_dict.items()}
        own = without_aliases({k: v for k, v in state_dict.items() if k.startswith(self.own_prefix)})
        super()._save(output_dir, {k: v for k, v in state_dict.items() if not k.startswith(self.own_prefix)})
        state_noise_of_adapter(output_dir or self.args.output_dir, self.noise, self.model)
        if self._checkpoint_state is not None and self.args.should_save:
            file = os.path.join(output_dir or self.args.output_dir, STATE_FILE)
            save_file(own | self._checkpoint_state, file, metadata=claims_of(self))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        check_same_claims(self, resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        state = load_file(os.path.join(resume_from_checkpoint, STATE_FILE))
        self.meter.load(state, self.accelerator)
        self.take_up_watching(state)
        if self.claims.documents is not None:
            self.claims.documents.load(state, self.accelerator)
        self._load_own(resume_from_checkpoint, state)

    def _load_best_model(self) -> None:
        check_best(self)
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


def noise_of(rows: Any) -> Noise | None:
    """The noise that a built data set carries in its description; rows may stand behind a wrapper as PackedRows."""
    return None if (stated := stated_noise(rows)) is None else stated.noise


class _EpochOfNoise(TrainerCallback):
    """Tells the trainer which epoch's noise to draw; counts passes, as a stream has no length to divide by."""

    def __init__(self, trainer: NoiseTrainer):
        self.trainer = trainer
        self.started = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = False
        self.trainer._is_checked["train"] = False

    def on_epoch_begin(self, args, state, control, **kwargs):
        resumed = not self.started and state.global_step > 0
        if resumed and state.epoch >= 1 and not has_length(self.trainer.train_dataset):
            raise RuntimeError(
                f"a stream of unknown length is resumed in its first pass only, and the checkpoint stands in pass "
                f"{math.floor(state.epoch) + 1}; train on more rows, or on a data set that is stored"
            )
        self.trainer.draw_epoch(self.trainer.epoch + 1 if self.started else math.floor(state.epoch or 0))
        self.started = True

    def on_epoch_end(self, args, state, control, **kwargs):
        if not control.should_training_stop and state.global_step < state.max_steps:
            self._look_at_documents(is_whole=True)

    def on_train_end(self, args, state, control, **kwargs):
        # Where a stream ends cannot be told from a run that stops before.
        self._look_at_documents(is_whole=not self.trainer.claims.is_stream and state.epoch >= 1)

    def _look_at_documents(self, is_whole: bool) -> None:
        trainer = self.trainer
        if trainer.epoch == 0 and trainer.claims.documents is not None:
            trainer.claims.documents.check(trainer.accelerator, is_whole=is_whole)
