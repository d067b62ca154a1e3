"""What every objective has in common: a frozen value with a name, a sentence for cards and a dictionary."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from hf_noise.noise import Noise
from hf_noise.noise.checks import check_real

__all__ = [
    "Bound", "Forward", "Objective", "RunContext", "condensed", "objective_from_dict", "objective_named",
    "objective_of_record", "objectives", "real_in",
]  # fmt: skip

#: Task of a record -> what its losses are of.
_UNITS = {
    "causal_lm": "tokens", "masked_lm": "tokens", "seq2seq": "tokens", "image_classification": "labels",
    "text_classification": "labels", "audio_classification": "labels", "noisy_classification": "labels",
    "class_conditional_generation": "images",
}  # fmt: skip

_MOST_ROWS = 100  # that a claim states as they are

_OBJECTIVES: dict[tuple[str, str], type[Objective]] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a trainer tells an objective of its run.

    Attributes:
        noise: of the run, None if nothing is known of it.
        was_given: whether the noise was asked for by name, or only found in the description of the rows.
        num_classes: tokens V or classes C of the model.
        device: of the model.
        smoothing: of labels, in [0, 1).
        can_learn: whether the trainer can fit parameters of the objective beside the model.
        model: that is trained, as it starts; None where there is no one network, as for arrays.
        sample_ids: of the training rows, int64 [N] NumPy; None if they are not known before training.
        head: the module of `model` that makes the logits, None if the trainer knows of none.
        unit: what its losses are of, for an objective that serves several; "" for the objective's first.
    """

    noise: Noise | None = None
    was_given: bool = True
    num_classes: int = 0
    device: Any = "cpu"
    smoothing: float = 0.0
    can_learn: bool = True
    model: Any = None
    sample_ids: Any = None
    head: Any = None
    unit: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forward:
    """What a trainer tells an objective of the forward pass behind its logits (`Objective.needs_forward`).

    Attributes:
        model: that was called, in its wrappers.
        inputs: what it was called with, by name; for objectives on tokens, all columns of the batch.
        head: the module that made the logits from the features; None if the trainer knows of none.
        features: what the head was given, float [B, D], with their gradient; None without a head.
        sample_ids: int64 [B], None if the rows have none.
        epoch: of the noise, from 0.
        nll_under: of losses on tokens, a network like the model -> the NLL [B, L] of the same targets under it.
    """

    model: Any = None
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    head: Any = None
    features: Any = None
    sample_ids: Any = None
    epoch: int = 0
    nll_under: Callable[[Any], Any] | None = None


class Bound:
    """What is called in a run, with what an objective knows of it.

    Attributes:
        source: of the rate or matrix that it corrects by: "none" where it corrects by none.
        module: a torch module with parameters of its own that are learned beside the model, or with buffers that a
            resumed run needs; None for none. It is saved in checkpoints, is in training mode when the model is, and
            learns `learning_rate` times as fast as the model, without weight decay; None for as the model learns,
            with its decay.
        keeps_frozen: checkpoints hold weights of the module that are not learned, too; else they are taken to be those
            of the model, as behind an adapter.
        module_name: what it is saved under; it has to begin with "hf_noise_", by which trainers tell it from the
            weights of the model.
    """

    source: str = "none"
    module: Any = None
    keeps_frozen: bool = False
    module_name: str = ""
    learning_rate: float | None = 1.0

    def before_step(self, progress: float) -> None:
        """Called before each optimiser step with the share of the run's steps that are done, in [0, 1)."""

    def after_step(self, accelerator: Any) -> None:
        """Called after each optimiser step, by all processes, with the `accelerate.Accelerator` that spans them."""

    def facts(self) -> dict[str, Any]:
        """What came of it in the run, for the record."""
        return {"source": self.source}

    def logged(self) -> dict[str, float]:
        """What is logged beside the loss."""
        return {}


class Objective(Bound):
    """Base of the frozen dataclasses that say what a trainer minimises.

    A subclass sets `name` (in records, and what `loss=` is called by) and `unit`, and is called with what its unit has.
    It needs no torch until then. Defining it is enough for `loss="<name>"` and `objective_from_dict` to find it.

    unit "tokens": float [B, L], the NLL of each target -> what is minimised, [B, L]; with `needs_targets`, of (NLL,
        targets [B, L], -100 for none); with `needs_logits`, of (NLL, logits [B, L, V], targets); with `needs_forward`,
        of the same and a `Forward`, whose inputs are all columns of the batch. What is said of positions without a
        target does not count.
    unit "labels": logits float [B, C], labels int64 [B] -> [B]; with `needs_forward`, of (logits, labels, `Forward`).
        What is added for a batch as a whole is added to each of its rows, so that their mean holds it once.
    unit "images": see `hf_noise.objectives.images`.

    Attributes:
        units: all units that it serves, where there are several; `unit` is the first, which its dictionary states, and
            `bound` is told which one is meant (`RunContext.unit`).
        needs_features: of `needs_forward`: it asks for the head and its features too, so that a model without a head
            that is known is refused.
        needs_columns: columns of the rows that it reads beside those of every run, in `Forward.inputs`; rows without
            them are refused.
        remembers: what it keeps of each row by its sample id, in words, so that rows may not share one; None for
            nothing.
        is_nll: what it gives is a negative log-likelihood of the label, and may be logged as one.
        smooths: labels may be smoothed (`label_smoothing_factor`).
        tuned: the field of its own that a study tries, and three settings of it for noise up to e = 0.5; None for none.
    """

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    name: ClassVar[str]
    unit: ClassVar[str]
    units: ClassVar[tuple[str, ...]] = ()
    needs_logits: ClassVar[bool] = False
    needs_targets: ClassVar[bool] = False
    needs_forward: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True
    needs_columns: ClassVar[tuple[str, ...]] = ()
    remembers: ClassVar[str | None] = None
    is_nll: ClassVar[bool] = False
    smooths: ClassVar[bool] = False
    tuned: ClassVar[tuple[str, tuple[float, float, float]] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for unit in _units_of(cls) if "name" in cls.__dict__ else ():
            taken = _OBJECTIVES.setdefault((unit, cls.name), cls)
            if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"two objectives on {unit} are called {cls.name!r}: {taken.__qualname__} and "
                                f"{cls.__qualname__}")  # fmt: skip

    @property
    def sentence(self) -> str:
        """What it is, for a card: the first line of the class's docstring."""
        first = (type(self).__doc__ or self.name).strip().splitlines()[0]
        return first[:1].lower() + first[1:]

    @property
    def learns(self) -> str | None:
        """How it was asked for parameters that are learned beside the model, such as 'error_rate="learned"'."""
        return None

    def bound(self, run: RunContext) -> Bound:
        """What is called in a run; itself, unless it depends on the noise or learns.

        Raises:
            ValueError: it needs what this run has not.
        """
        return self

    def claims(self) -> dict[str, Any]:
        """What a resumed run has to have in common with its checkpoint, see `condensed`."""
        return {"loss": self.name, "objective": condensed(self.to_dict())}

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        """The sentence for the card of a run.

        Args:
            facts: a record's `loss`, its texts fit for Markdown.
            error_rate: of the noise, None if there is no such number.
        """
        return self.sentence

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to make it again, as JSON-able values under the keys of its fields."""
        fields = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"unit": self.unit, "name": self.name, **fields}


def _units_of(objective: Any) -> tuple[str, ...]:
    return objective.units or (objective.unit,)


def real_in(name: str, value: Any, allowed: str) -> float:
    """A field as a float; TypeError for no number, ValueError outside an interval such as "[0, 1)"."""
    number = check_real(name, value)
    low, high = map(float, allowed[1:-1].split(","))
    inside = low < number < high or number == low and allowed[0] == "[" or number == high and allowed[-1] == "]"
    if not inside:
        raise ValueError(f"{name} must lie in {allowed}, got {value!r}")
    return number


def condensed(objective: Mapping[str, Any]) -> dict[str, Any]:
    """`Objective.to_dict()` as a claim: of a matrix of more than 100 rows a digest, as headers hold claims."""
    return {name: _digest(value) if isinstance(value, list) and len(value) > _MOST_ROWS else value
            for name, value in objective.items()}  # fmt: skip


def _digest(rows: list[Any]) -> str:
    return f"{len(rows)} rows, sha256 {hashlib.sha256(json.dumps(rows).encode()).hexdigest()}"


def objectives(unit: str | None = None) -> tuple[type[Objective], ...]:
    """All objectives that are known, or those on one unit."""
    return tuple(dict.fromkeys(cls for (of, _), cls in _OBJECTIVES.items() if unit in (None, of)))


def objective_named(loss: Any, unit: str) -> Objective:
    """The objective that a trainer's `loss=` means: one already, or that of this name with its defaults.

    Raises:
        ValueError: an unknown name; it lists those that are known.
        TypeError: an objective on another unit, its class, or one with a field that has no default.
    """
    if isinstance(loss, Objective):
        if not hasattr(loss, "unit"):
            raise TypeError(f"loss must be an objective on {unit}, and {type(loss).__name__} states neither unit nor "
                            f"name; known: {', '.join(cls.__name__ for cls in objectives(unit))}")  # fmt: skip
        if unit not in _units_of(loss):
            raise TypeError(f"loss must be an objective on {unit}, {type(loss).__name__} is one on {loss.unit}; "
                            f"known: {', '.join(cls.__name__ for cls in objectives(unit))}")  # fmt: skip
        return loss
    if isinstance(loss, type) and issubclass(loss, Objective):
        raise TypeError(f"loss must be an objective, got the class {loss.__name__}; call it: {loss.__name__}()")
    if not isinstance(loss, str) or (unit, loss) not in _OBJECTIVES:
        *others, last = (f'"{cls.name}"' for cls in objectives(unit))
        raise ValueError(f"loss must be {', '.join(others)} or {last}, got {loss!r:.80}")
    return _made(_OBJECTIVES[unit, loss], {})


def objective_from_dict(config: Mapping[str, Any]) -> Objective:
    """Make an objective again from `Objective.to_dict()`.

    Raises:
        ValueError: it is unknown, has unknown fields or lacks one, or a value is out of range.
        TypeError: this is no dictionary, or a field is of another type.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"an objective is stored as a dictionary, see Objective.to_dict(), got {config!r:.80}")
    fields = dict(config)
    unit, name = fields.pop("unit", None), fields.pop("name", None)
    if not (isinstance(unit, str) and isinstance(name, str)) or (unit, name) not in _OBJECTIVES:
        known = ", ".join(sorted(f"{name} ({unit})" for unit, name in _OBJECTIVES))
        raise ValueError(f"unknown objective {name!r:.80} on {unit!r:.80}; this version of hf_noise knows: {known}")
    return _made(_OBJECTIVES[unit, name], fields)


def objective_of_record(task: str, loss: Mapping[str, Any]) -> Objective | None:
    """The objective of a record, which may be older than objectives and give a name alone; None if it is unknown here.

    Raises:
        ValueError, TypeError: the record states an objective of a known name that cannot be made.
    """
    stated = loss.get("objective")
    if stated is not None:
        found = isinstance(stated, Mapping) and _OBJECTIVES.get((str(stated.get("unit")), str(stated.get("name"))))
        return objective_from_dict(stated) if found or not isinstance(stated, Mapping) else None
    found = _OBJECTIVES.get((_UNITS.get(task, ""), str(loss.get("name"))))
    return None if found is None or _required(found) else found()


def _made(cls: type[Objective], fields: Mapping[str, Any]) -> Objective:
    known = [field.name for field in dataclasses.fields(cls)]
    if unknown := sorted(map(str, set(fields) - set(known))):
        raise ValueError(f"the objective {cls.name!r} has no field {', '.join(unknown)}")
    if missing := [name for name in _required(cls) if name not in fields]:
        raise TypeError(f"the objective {cls.name!r} needs {', '.join(missing)}: {cls.__name__}({missing[0]}=...)")
    return cls(**fields)


def _required(cls: type[Objective]) -> list[str]:
    none = dataclasses.MISSING
    return [field.name for field in dataclasses.fields(cls) if field.default is none and field.default_factory is none]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
