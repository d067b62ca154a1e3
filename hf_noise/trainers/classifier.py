"""Any classifier of transformers under label noise: of text, images or sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor, nn
from transformers import EvalPrediction

from hf_noise.losses.labels import label_nll
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.objectives.base import Forward, Objective, objective_named
from hf_noise.objectives.labels import CorrectedLabels
from hf_noise.objectives.volume_plan import VolumePlan
from hf_noise.trainers.arguments import check_given
from hf_noise.trainers.classifier_batches import classifier_batches, input_names
from hf_noise.trainers.classifier_head import ModelHead, find_head
from hf_noise.trainers.collate import text_config
from hf_noise.trainers.finite import check_finite
from hf_noise.trainers.labels import add_penalty
from hf_noise.trainers.meter import LabelMeter
from hf_noise.trainers.model_config import write_config
from hf_noise.trainers.recorded import RecordedTrainer

__all__ = ["ClassifierTrainer"]


class ClassifierTrainer(RecordedTrainer):
    """Train any classifier of transformers on labels of which some are wrong: text, images, sound; LoRA too.

    The model is what `AutoModelForSequenceClassification`, `...ImageClassification` or `...AudioClassification` gives,
    or that inside `peft.get_peft_model`. Rows hold the columns that its forward takes (a tokenizer, an image processor
    or a feature extractor makes them), `labels` or `label`, and `sample_id` for noise that is drawn here, anew in each
    epoch; or the columns of a noisy data set beside them: noisy `label`, `clean_label`, `is_noisy`, or such as `topic`
    and `clean_topic` where `is_noisy` can be of no other pair. Others are left alone. `processing_class=` pads rows of
    several lengths; any collator that keeps these columns may be given, as those of transformers do. Classes of model
    and rows that have names have to agree on them and on their order.

    Logs tell accuracy against the labels that were trained on from accuracy against the clean ones, and how many of the
    wrong labels the model gives back (`memorised`). `evaluate` returns exact accuracy and NLL over all rows, against
    clean labels; of rows that bring both kinds also against those that are trained on (`eval_accuracy_trained_labels`,
    `eval_nll_trained_labels`), and `eval_memorised`. `predict` returns logits, and so does what `compute_metrics` is
    given, beside the clean labels. `DynamicsCallback` records what each pass makes of each row's label.

    Args:
        noise: what the training labels suffer: `LabelFlips`, drawn here unless the rows have `is_noisy`, or
            `HumanLabels`, which are in the rows. Written into the model's config (`hf_noise`). A data set made by
            `load_dataset("hf_noise/...")` brings its own.
        loss: "nll" (cross-entropy), "corrected" for the forward-corrected one (Patrini et al., 2017), or any objective
            on labels, such as `hf_noise.objectives.GCE(q=0.7)`. It is written into the config beside the noise
            (`hf_noise_objective`).
        transition: T for the corrected loss. "known": that of the noise, which is what None means too; "estimated": T
            is learned by volume minimisation (Li et al., 2021) and written into the config (`hf_noise_transition`); or
            a matrix [C, C] float with rows clean.
        volume: how T is estimated.
        head: the module that makes the logits, for an objective that asks for it (`needs_forward`); by default it is
            looked for, see `hf_noise.trainers.classifier_head.ModelHead` for which one, and what its features are.
        **kwargs: as for `transformers.Trainer`; `args.label_smoothing_factor` smooths the labels.

    Raises:
        ValueError: the model is for regression or several labels a row; noise, transition and model disagree on the
            classes; the corrected loss has no T; an objective asks for a head that is not found; and what
            `LabelTrainer` refuses.
    """

    honoured = ("label_smoothing_factor",)
    hands_forward = True

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        noise: LabelFlips | HumanLabels | None = None,
        loss: Literal["nll", "corrected"] | str | Objective = "nll",
        transition: Literal["known", "estimated"] | np.ndarray | Tensor | None = None,
        volume: VolumePlan | None = None,
        head: nn.Module | None = None,
        **kwargs: Any,
    ):
        check_given(model, args, kwargs)
        if "error_rate" in kwargs:
            raise TypeError("error_rate= is for tokens; wrong labels are corrected through transition= [C, C]")
        _check_problem(model)
        loss = _objective(loss, transition, volume)
        self.prepare(loss, args, kwargs)
        self.always_drawn = loss.remembers
        self._takes = input_names(model)  # of the model itself: its wrappers take anything
        self._take_batches(model, args, kwargs)
        super().__init__(model, args, noise=noise, meter=LabelMeter(), **kwargs)
        self.head = self._head(loss, head)
        smoothing = self.args.label_smoothing_factor
        self.minimise(
            loss, num_classes=self.num_classes, was_given=noise is not None, smoothing=smoothing,
            head=None if self.head is None else self.head.whole,
        )  # fmt: skip
        self.objective_claims |= {"label_smoothing": smoothing}

    def _head(self, loss: Objective, given: nn.Module | None) -> ModelHead | None:
        """The head of the model for an objective that may ask for it."""
        if loss.needs_forward and loss.needs_features and self.args.torch_compile:
            raise ValueError(f"{type(loss).__name__} looks at what the head is given, which a compiled model does not "
                             "show; leave torch_compile out")  # fmt: skip
        if given is None and (not loss.needs_forward or not loss.needs_features and find_head(self.model) is None):
            return None
        return ModelHead(self.model, self.num_classes, given)

    def _take_batches(self, model: Any, args: Any, options: dict[str, Any]) -> None:
        """Put the collator of the run among the options of `transformers.Trainer`."""
        removes_unused = args is None or args.remove_unused_columns
        self.shows_all = options.get("data_collator") is not None and not removes_unused
        options["data_collator"] = classifier_batches(model, model.config.num_labels, options, removes_unused)

    @property
    def class_names(self) -> list[str] | None:
        names = getattr(self.model.config, "id2label", None)
        return None if not names else [str(names[i]) for i in sorted(names)]

    def network_inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The columns of a batch that the model's forward takes."""
        return {name: inputs[name] for name in self._takes if name in inputs}

    def logits(self, model: Any, taken: Mapping[str, Tensor]) -> Tensor:
        """Logits float32 [B, C] of what the model's forward takes, by name."""
        logits = model(**taken).logits
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise ValueError(f"the model gives logits {list(logits.shape)}, one label for each row needs [B, "
                             f"{self.num_classes}]; use AutoModelForSequenceClassification or its like")  # fmt: skip
        return logits.float()

    def called(
        self, model: Any, taken: dict[str, Tensor], sample: Tensor | None
    ) -> tuple[Tensor, tuple[Forward, ...]]:
        """Logits float32 [B, C], and the pass behind them for an objective that asks for it: none or one."""
        if not self.loss.needs_forward:
            return self.logits(model, taken), ()
        head = features = None
        if self.loss.needs_features:
            with self.head.captured():
                logits = self.logits(model, taken)
            head, features = self.head.taken(logits, taken, getattr(text_config(self.model), "pad_token_id", None))
        else:
            logits = self.logits(model, taken)
        told = Forward(model=model, inputs=taken, head=head, features=features, sample_ids=sample, epoch=self.epoch)
        return logits, (told,)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, clean, is_noisy = self.targets(inputs, draw=model.training)
        sample = inputs.get("sample_id")
        logits, told = self.called(model, self.network_inputs(inputs), sample)
        losses = self.objective(logits, labels, *told)
        if model.training:
            self.book(losses, logits, labels, clean, is_noisy)
            self.watch(losses, sample)
            self.record(logits, labels, sample)
        total = add_penalty(self.objective, losses.sum(), len(labels))
        loss = self.mean_loss(total, len(labels), num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss

    def book(self, losses: Tensor, logits: Tensor, labels: Tensor, clean: Tensor, is_noisy: Tensor) -> None:
        """Count what a batch was, and what the model made of it."""
        nll = losses.detach() if self.loss.is_nll else label_nll(logits.detach(), labels)
        self.meter.add(nll, logits.detach().argmax(-1), labels, clean, is_noisy)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """(None, logits float32 [B, C], clean labels [B], or [B, 2] beside those that are trained on)."""
        inputs = self._prepare_evaluation(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = self.logits(model, self.network_inputs(inputs))
        labels = inputs["labels"]
        if "clean_labels" in inputs:
            labels = torch.stack([inputs["clean_labels"], labels], -1)
        return None, logits, labels

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        return output._replace(label_ids=_clean(output.label_ids))

    def shown(self, prediction: Any) -> Any:
        return EvalPrediction(predictions=prediction.predictions, label_ids=_clean(prediction.label_ids))

    def exact_metrics(self, prediction: Any) -> dict[str, float]:
        return exact_accuracy(prediction, self.rows_are)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.objective.source == "estimated":
            write_config(self.model, hf_noise_transition=self.objective.transition.tolist())
        super()._save(output_dir, state_dict)


def _objective(loss: str | Objective, transition: Any, volume: VolumePlan | None) -> Objective:
    """What is minimised; `transition=` and `volume=` are short spellings of those of `CorrectedLabels`."""
    if isinstance(loss, str) and loss == CorrectedLabels.name:
        return CorrectedLabels("known" if transition is None else transition, volume)
    objective = objective_named(loss, ClassifierTrainer.unit)
    if transition is not None or volume is not None:
        raise ValueError(f'{"volume" if transition is None else "transition"}= is for loss="corrected"')
    return objective


def _check_problem(model: Any) -> None:
    """Raise ValueError for a model that gives no class of two or more."""
    kind, classes = getattr(model.config, "problem_type", None), getattr(model.config, "num_labels", None)
    if kind not in (None, "single_label_classification"):
        raise ValueError(f"the model's problem_type is {kind!r}; noise on labels is for one label of each row: "
                         'load it with problem_type="single_label_classification", or train it with '
                         "transformers.Trainer")  # fmt: skip
    if not isinstance(classes, int) or classes < 2:
        raise ValueError(f"the model has num_labels = {classes!r}, which is no choice among classes; load it with "
                         "num_labels= their number, at least 2")  # fmt: skip


def _clean(labels: np.ndarray) -> np.ndarray:
    """The clean labels [N] of those that an evaluation gathers, [N] or [N, 2]."""
    return labels[:, 0] if np.ndim(labels) == 2 else labels


def exact_accuracy(prediction: Any, rows_are: str) -> dict[str, float]:
    """Accuracy, NLL in nats and number of rows from logits [N, C] and labels [N], or [N, 2]: clean, and trained on."""
    logits, labels = np.asarray(prediction.predictions, dtype=np.float64), np.asarray(prediction.label_ids)
    log_p, predicted, clean = log_softmax(logits, axis=-1), logits.argmax(-1), _clean(labels)
    nll = -log_p[np.arange(len(clean)), clean]
    check_finite(nll)
    mean = float(nll.mean())
    found = {"loss": mean, "nll": mean, "accuracy": float((predicted == clean).mean()), rows_are: len(clean)}
    if labels.ndim == 1:
        return found
    trained = labels[:, 1]
    as_trained, is_wrong = predicted == trained, trained != clean
    found["accuracy_trained_labels"] = float(as_trained.mean())
    found["nll_trained_labels"] = float(-log_p[np.arange(len(trained)), trained].mean())
    if is_wrong.any():
        found["memorised"] = float(as_trained[is_wrong].mean())
    return found
