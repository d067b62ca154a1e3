"""The metrics of classifiers for `evaluate`: made directly, without `evaluate.load`, so no network is asked.

    metric = MarginalKL()
    metric.add_batch(predictions=[3, 1], references=[3, 2])
    metric.compute(num_classes=10)

Everything added, in one process or in `num_process` of them, is measured at once in process 0. Importing this module
imports `evaluate`, and with it transformers and torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import evaluate
import numpy as np
import pyarrow as pa
from datasets import Features, Sequence, Value

from hf_noise.metrics import calibration, classification, marginal

__all__ = ["AccuracyWithInterval", "Calibration", "MarginalKL", "MarginalTV", "PerClassAccuracy", "SuccessorRate"]

_CLASSES = """
    predictions: integers [n], the predicted classes.
    references: integers [n], the true classes.
"""

_LOGITS = """
    predictions: float [n, C], logits.
    references: integers [n], the true classes.
"""


#: What evaluate and Arrow raise at columns that they cannot take; RuntimeError is NotImplementedError's kind.
_NOT_TAKEN = (
    ValueError, TypeError, OverflowError, AttributeError, LookupError, RuntimeError, pa.ArrowException
)  # fmt: skip


class Checked(evaluate.Metric):
    """A metric that says which of its inputs cannot be taken: evaluate and Arrow speak of their own types.

    Without a word evaluate drops the mask of a masked array, and reads booleans and texts of digits as numbers.
    """

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """As `evaluate.Metric.add_batch`. Raises TypeError or ValueError for what is no column of numbers."""
        for name, values in (("predictions", predictions), ("references", references)):
            if unfit := _unfit(values):
                raise TypeError(f"{name} must be numbers, got {unfit}")
        try:
            super().add_batch(predictions=predictions, references=references, **kwargs)
        except _NOT_TAKEN as error:
            raise ValueError(f"predictions or references cannot be taken: {error}") from error

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """As `evaluate.Metric.compute`. Raises ValueError where nothing was given, here or before."""
        if predictions is None and references is None and self.writer is None:
            raise ValueError("predictions are None, and no batch of them was added before")
        return super().compute(predictions=predictions, references=references, **kwargs)


class OfClasses(Checked):
    """A metric of predicted and true class indices; the docstring of a subclass is its description."""

    def _info(self) -> evaluate.MetricInfo:
        # As int64, evaluate would cut 0.9 down to class 0 without a word; float64 keeps it until it is looked at.
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description=_CLASSES,
            features=Features(predictions=Value("float64"), references=Value("float64")),
        )


class AccuracyWithInterval(OfClasses):
    """`hf_noise.metrics.accuracy`: {"accuracy", "low", "high", "n"}."""

    def _compute(
        self, predictions: Any, references: Any, num_classes: int | None = None, confidence: float = 0.95
    ) -> dict[str, Any]:
        return classification.accuracy(
            *class_indices_of(predictions, references), num_classes=num_classes, confidence=confidence
        )


class PerClassAccuracy(OfClasses):
    """`hf_noise.metrics.per_class_accuracy`: lists {"accuracy", "low", "high", "n"} by class, and {"missing"}."""

    def _compute(self, predictions: Any, references: Any, num_classes: int, confidence: float = 0.95) -> dict[str, Any]:
        found = classification.per_class_accuracy(
            *class_indices_of(predictions, references), num_classes=num_classes, confidence=confidence
        )
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}


class SuccessorRate(OfClasses):
    """`hf_noise.metrics.successor_rate`: {"successor_rate", "low", "high", "n"}."""

    def _compute(self, predictions: Any, references: Any, num_classes: int, confidence: float = 0.95) -> dict[str, Any]:
        return classification.successor_rate(
            *class_indices_of(predictions, references), num_classes=num_classes, confidence=confidence
        )


class MarginalKL(OfClasses):
    """`hf_noise.metrics.marginal_kl` against the references: {"marginal_kl", "sampling_kl", "n"}, in nats."""

    def _compute(self, predictions: Any, references: Any, num_classes: int) -> dict[str, Any]:
        shift = marginal.marginal_shift(*class_indices_of(predictions, references), num_classes=num_classes)
        return {name: shift[name] for name in ("marginal_kl", "sampling_kl", "n")}


class MarginalTV(OfClasses):
    """`hf_noise.metrics.marginal_tv` against the references: {"marginal_tv", "sampling_tv", "n"}."""

    def _compute(self, predictions: Any, references: Any, num_classes: int) -> dict[str, Any]:
        shift = marginal.marginal_shift(*class_indices_of(predictions, references), num_classes=num_classes)
        return {name: shift[name] for name in ("marginal_tv", "sampling_tv", "n")}


class Calibration(Checked):
    """`hf_noise.metrics.classifier_calibration`: {"ece", "nll", "brier", "confidence", "accuracy", "n"}.

    evaluate handles about a million logits per second; call the function where there are many more.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description=_LOGITS,
            features=Features(predictions=Sequence(Value("float64")), references=Value("float64")),
        )

    def _compute(self, predictions: Any, references: Any, bins: int = 15) -> dict[str, Any]:
        widths = {len(row) for row in predictions}
        if len(widths) > 1:
            raise ValueError(f"logits must be [n, C], got rows of {min(widths)} and of {max(widths)} classes")
        return calibration.classifier_calibration(predictions, _whole("references", references), bins=bins)


def _unfit(values: Any) -> str | None:
    """What evaluate would misread in a column, if anything: masked arrays, texts, masks, complex numbers."""
    if isinstance(values, Mapping | Set):
        return f"a {type(values).__name__}, which has no order of rows"
    if isinstance(values, np.ma.MaskedArray):
        return "a masked array, whose mask would be lost"
    if isinstance(values, str | bytes) or isinstance(values, np.ndarray) and values.dtype.kind in "US":
        return f"the text {values!r:.40}"
    if isinstance(values, np.ndarray) and values.dtype.kind not in "iufO":
        return f"an array of {values.dtype}"
    if isinstance(values, list | tuple) and not (kinds := set(map(type, values))) <= {int, float}:
        return "booleans" if kinds == {bool} else next(filter(None, map(_unfit, values)), None)
    return None


def class_indices_of(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    return _whole("predictions", predictions), _whole("references", references)


def _whole(name: str, values: Any) -> np.ndarray:
    """What evaluate stored as float64, as int64 [n]."""
    stored = np.asarray(values, dtype=np.float64)
    broken = ~(stored == np.trunc(stored))
    if broken.any():
        first = int(broken.argmax())
        raise ValueError(
            f"{broken.sum()} of {stored.size} {name} are no integers, the first is {stored[first]:g} at index {first}; "
            "take argmax(axis=-1) of logits first"
        )
    return stored.astype(np.int64)
