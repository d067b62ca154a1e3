"""What a trainer minimises: an objective, bound to the run, with what it learns beside the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from transformers import TrainerCallback

from hf_noise.objectives.base import Objective, RunContext
from hf_noise.trainers.base import NoiseTrainer
from hf_noise.trainers.model_config import drop_config, write_config
from hf_noise.trainers.parts import parts_of
from hf_noise.trainers.stored import ids_behind
from hf_noise.trainers.tied import with_aliases

__all__ = ["ObjectiveTrainer", "refuse_scheduler", "search_no_unused"]


class ObjectiveTrainer(NoiseTrainer):
    """`NoiseTrainer` that minimises an objective; a subclass says on which unit, and hands it over by `minimise`.

    Attributes:
        loss: the frozen value, as it travels: into the model's config (`hf_noise_objective`), checkpoints and records.
        objective: what is called, of this run: it knows the rate or matrix of the noise, or learns it.
    """

    #: What its objectives are of: "tokens", "labels" or "images".
    unit: ClassVar[str]
    #: Whether parameters of an objective are learned beside the model.
    can_learn: ClassVar[bool] = True
    #: Whether objectives are shown the forward pass (`Objective.needs_forward`).
    hands_forward: ClassVar[bool] = False
    loss: Objective
    objective: Any

    @staticmethod
    def prepare(loss: Objective, args: Any, options: Mapping[str, Any]) -> None:
        """To be called before `transformers.Trainer` is made: what an objective that learns asks of its arguments."""
        if loss.learns is not None:  # it is used outside the model's forward
            search_no_unused(args)
            refuse_scheduler(options, loss.learns)

    def minimise(
        self, loss: Objective, *, num_classes: int, was_given: bool, smoothing: float = 0.0, head: Any = None
    ) -> None:
        """Take up an objective, for a model of these tokens or classes; `was_given` says whether the noise was.

        Args:
            head: the module of the model that makes the logits, where it is known.

        Raises:
            ValueError: it does not fit the noise or the classes, or learns where nothing can be learned, under sharded
                weights, or under a name by which checkpoints would not keep it (`Bound.module_name`).
        """
        if smoothing and not loss.smooths:
            raise ValueError(f"{type(loss).__name__} has no smoothed form; leave label_smoothing_factor 0")
        if loss.needs_forward and not self.hands_forward:
            raise ValueError(f"{type(loss).__name__} looks at the forward pass behind the logits, which "
                             f"{type(self).__name__} does not hand over; ClassifierTrainer does")  # fmt: skip
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if loss.learns is not None and is_sharded:
            raise ValueError(f"{loss.learns} is for DDP or one device, not for sharded weights")
        context = RunContext(
            noise=self.noise, was_given=was_given, num_classes=num_classes, device=self.args.device,
            smoothing=smoothing, can_learn=self.can_learn, model=self.model, head=head, unit=self.unit,
            sample_ids=None if loss.remembers is None else known_ids(type(loss).__name__, self.train_dataset),
        )  # fmt: skip
        self.loss, self.objective, self.objective_claims = loss, loss.bound(context), loss.claims()
        if self.learned is not None:
            name = self.objective.module_name
            if is_sharded:
                raise ValueError(f"{type(loss).__name__} counts losses beside the model and is for DDP or one device, "
                                 "not for sharded weights")  # fmt: skip
            self._check_learned(name)
            # Also by `model.save_pretrained` while it is trained: a stock model would not know the key.
            ignored = getattr(self.model, "_keys_to_ignore_on_save", None) or ()
            self.model._keys_to_ignore_on_save = {*ignored, *(f"{name}.{key}" for key in self.learned.state_dict())}
        self.write_objective(loss)
        self.add_callback(_Steps(self))

    def _check_learned(self, name: str) -> None:
        """Refuse what an objective learns if it would be lost, before the model is touched."""
        what = f"{type(self.loss).__name__} learns parameters of its own"
        if not self.can_learn:
            raise ValueError(f"{what}, and {type(self).__name__} fits none beside its model; state what is learned")
        if not name.startswith(self.own_prefix) or not name.isidentifier():
            raise ValueError(f"{what} as module_name={name!r}, which checkpoints would not keep; give it a name that "
                             f"begins with {self.own_prefix!r}, such as {self.own_prefix + 'rate'!r}")  # fmt: skip
        if hasattr(self.model, name) and name not in dict(self.model.named_children()):
            raise ValueError(f"{what} as module_name={name!r}, which the model has already; give it another name")

    def write_objective(self, loss: Objective) -> None:
        """State the objective in what will be saved: by default in the model's config."""
        write_config(self.model, hf_noise_objective=loss.to_dict())
        drop_config(self.model, "hf_noise_transition")  # that an earlier run learned; one that learns it writes its own

    @property
    def learned(self) -> nn.Module | None:
        """What is learned beside the model, None for nothing."""
        return self.objective.module

    @property
    def num_weights(self) -> int:
        """Numbers that are held in training: those of the model, and those that are learned beside it."""
        with self._beside():
            return sum(p.numel() for p in self.model.parameters())

    @property
    def num_saved(self) -> int:
        """Numbers that a checkpoint holds beside the optimiser's: with an adapter of peft, of the model those that are
        learned; of what stands beside it all that is kept, such as an early copy of the whole model."""
        is_adapter, frozen = hasattr(self.model, "peft_config"), self._frozen()
        with self._alone():
            kept = [p for p in self.model.parameters() if p.requires_grad or not is_adapter]
        if self.learned is not None:
            kept += [p for name, p in self.learned.named_parameters() if name not in frozen]
        return sum(p.numel() for p in kept)

    def loss_record(self) -> dict[str, Any]:
        """The entry `loss` of a record: name, what the run made of it, and the objective as it was asked for."""
        return {"name": self.loss.name, **self.objective.facts(), "objective": self.loss.to_dict()}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.objective.logged())
        super().log(logs, start_time)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        with self._beside():
            names = super().get_decay_parameter_names(model)
        if self.learned is None or self.objective.learning_rate is None:
            return names
        return [name for name in names if not name.startswith(self.objective.module_name)]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        with self._beside():
            optimizer = super().create_optimizer(*args, **kwargs)
        own = [] if self.learned is None else [p for p in self.learned.parameters() if p.requires_grad]
        if own and self.objective.learning_rate is not None:
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if all(p is not one for one in own)]
            learning_rate = self.objective.learning_rate * self.args.learning_rate
            optimizer.add_param_group({"params": own, "lr": learning_rate, "weight_decay": 0.0})
        elif own:  # in the groups of the model, unless the optimizer was made before
            there = {id(p) for group in optimizer.param_groups for p in group["params"]}
            if missing := [p for p in own if p.requires_grad and id(p) not in there]:
                optimizer.add_param_group({"params": missing})
        return optimizer

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        with self._beside():
            return super().train(resume_from_checkpoint, **kwargs)

    train.__doc__ = NoiseTrainer.train.__doc__

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """The model with what is learned beside it as a part, where optimizer, DDP and checkpoints look for it.

        No longer than that: who has the model next, a second trainer or peft, would train, copy or save it too.
        """
        name = None if self.learned is None else self.objective.module_name
        if name is None or self.model._modules.get(name) is self.learned:
            yield
            return
        self.model.add_module(name, self.learned)
        try:
            yield
        finally:
            self.model._modules.pop(name, None)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The model without what is learned beside it, while it is written or read: peft takes all it finds inside."""
        name = None if self.learned is None else self.objective.module_name
        own = self.model._modules.pop(name, None)
        try:
            yield
        finally:
            if own is not None:
                self.model.add_module(name, own)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if state_dict is None:
            with self._beside():
                state_dict = self.model.state_dict()
        frozen = {f"{self.objective.module_name}.{name}" for name in self._frozen()}
        with self._alone():
            super()._save(output_dir, {name: value for name, value in state_dict.items() if name not in frozen})

    def _frozen(self) -> set[str]:
        """What is part of the module beside the model and is never learned, such as weights behind an adapter."""
        return set() if self.learned is None or self.objective.keeps_frozen else {
            name for name, p in self.learned.named_parameters() if not p.requires_grad
        }  # fmt: skip

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with self._alone():
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        with self._alone():
            super()._load_best_model()

    def _load_own(self, folder: str, state: dict[str, Tensor]) -> None:
        if self.learned is not None:
            name, frozen = f"{self.objective.module_name}.", self._frozen()
            as_it_is = {k: v for k, v in self.learned.state_dict().items() if k in frozen}
            own = {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
            self.learned.load_state_dict(with_aliases(as_it_is | own, self.learned))


class _Steps(TrainerCallback):
    """Tells the objective where each optimiser step begins and ends."""

    def __init__(self, trainer: ObjectiveTrainer):
        self.trainer = trainer

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.objective.before_step(state.global_step / max(1, state.max_steps))

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.objective.after_step(self.trainer.accelerator)


def known_ids(who: str, rows: Any) -> np.ndarray | None:
    """Sample ids of training rows, of which `who` remembers something; None if they are not known before training.

    Raises ValueError: there is a column of them that holds no integers.
    """
    ids = ids_behind(rows)
    for data, _ in [] if rows is None or ids is not None else parts_of(rows):
        held = None
        if isinstance(getattr(data, "features", None), Mapping):
            held = data.features.get("sample_id")
        elif isinstance(data, list | tuple):
            odd = (row["sample_id"] for row in data if isinstance(row, Mapping) and "sample_id" in row)
            held = next((type(one).__name__ for one in odd if not isinstance(one, int | np.integer)), None)
        if held is not None:
            raise ValueError(f"{who} remembers training rows by the column sample_id, which has to be of integers, one "
                             f"in each row, and holds {held}; number the rows: rows.remove_columns('sample_id')"
                             ".add_column('sample_id', range(len(rows)))")  # fmt: skip
    return ids


def search_no_unused(args: Any) -> None:
    """Tell DDP, unless `args` do, that every parameter has a gradient; its search would see a model's forward alone."""
    if args is not None and args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = False


def refuse_scheduler(options: Mapping[str, Any], what: str) -> None:
    """Raise ValueError if a scheduler is given where parameters join the optimiser after it counted the groups."""
    given = options.get("optimizers") or (None, None)
    if given[1] is not None:
        raise ValueError(f"{what} adds a parameter to the optimizer, which a scheduler made before does not know: pass "
                         "optimizers=(optimizer, None) and choose the schedule by lr_scheduler_type")  # fmt: skip
