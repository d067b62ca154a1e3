"""A head on features with Local Gradient Matching, as scikit-learn knows classifiers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from hf_noise.losses.checks import check_flag, check_real

__all__ = ["LGMClassifier"]

_FLOATS = [np.float64, np.float32]


class LGMClassifier(ClassifierMixin, BaseEstimator):
    """Softmax classifier on features, linear or with one hidden layer, whose gradient is held still under noise.

    The loss is cross-entropy plus lam times | G - G_hat |, the distance of the head's gradients on the features and on
    features + gamma * noise (paper B). It is minimised by AdamW in mini-batches. Given `random_state`, a fit is the
    same every time; perturbations belong to the values of a row, so the order of rows matters through mini-batches
    alone, and where all rows fit into one batch, a weight of 2 and a row given twice are the same.

    Args:
        head: "linear", or "mlp" for two layers with a ReLU between them.
        hidden: units between the two layers; None for as many as features.
        gamma: standard deviation of the perturbations, >= 0. It is absolute: scale the features, or set gamma_relative.
        lam: weight of the penalty, >= 0; 0 is plain cross-entropy.
        gamma_relative: gamma counts in the mean standard deviation of the features over the training rows, by their
            weights.
        learning_rate: of AdamW, > 0.
        weight_decay: of AdamW, >= 0.
        batch_size: rows of a step; all rows in one where there are fewer.
        epochs: at most so many passes over the rows.
        schedule: "constant", or "cosine" for a learning rate that falls to 0.
        early_stopping: whether to hold out a share of the rows (stratified), stop after `patience` epochs without a
            lower loss on them, and keep the best epoch's weights.
        validation_fraction: the share that is held out, in (0, 1).
        patience: epochs.
        transition: T [C, C] with rows clean, in the order of `classes_`: p(given label | true label). The classifier
            then learns, and predicts, the true ones (forward correction).
        random_state: seeds first weights, mini-batches, perturbations and what is held out.
        device: torch's, where it is fitted.
        verbose: whether to show a bar of epochs.

    Attributes:
        classes_: labels [C], sorted.
        n_features_in_: D.
        coefs_: weights of the layers, each [in, out].
        intercepts_: their biases.
        n_iter_: epochs that were run.
        best_epoch_: from 0, whose weights were kept; the last without early stopping.
        loss_curve_: mean training loss of each epoch, without the penalty.
        penalty_curve_: mean penalty of each epoch before lam, NaN where there is none.
        validation_loss_, validation_scores_: NLL and accuracy on the rows held out; None without early stopping.

    Raises:
        ValueError, TypeError: in `fit`, for settings out of their ranges, features that are not finite, one class only,
            T of other classes, weights below 0.

    >>> LGMClassifier(epochs=50, random_state=0).fit([[-1.0], [-2.0], [1.0], [2.0]], list("aabb")).predict([[3.0]])
    array(['b'], dtype='<U1')
    """

    def __init__(
        self,
        head: Literal["linear", "mlp"] = "linear",
        *,
        hidden: int | None = None,
        gamma: float = 0.01,
        lam: float = 0.15,
        gamma_relative: bool = False,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
        batch_size: int = 64,
        epochs: int = 100,
        schedule: Literal["constant", "cosine"] = "constant",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        transition: Any = None,
        random_state: Any = None,
        device: Any = "cpu",
        verbose: bool = False,
    ):
        self.head = head
        self.hidden = hidden
        self.gamma = gamma
        self.lam = lam
        self.gamma_relative = gamma_relative
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.schedule = schedule
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.transition = transition
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LGMClassifier:
        """Fit to features [N, D] and labels [N], numbers or texts; weights [N] >= 0 count by their ratios."""
        from hf_noise.trainers.heads import HeadPlan, HeadSetting, fit_heads

        X, y = validate_data(self, X, y, dtype=_FLOATS, order="C")
        check_classification_targets(y)
        random = check_random_state(self.random_state)
        seed = int(random.randint(np.iinfo(np.int32).max))
        stops = check_flag("early_stopping", self.early_stopping)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            counts = sample_weight > 0
            if not counts.any():  # which older versions of scikit-learn do not say
                raise ValueError("sample_weight must hold at least one non-zero number: no row counts")
            X, y, sample_weight = X[counts], y[counts], sample_weight[counts]
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]!r}), so there is nothing to tell apart; "
                             "give rows of two classes at least")  # fmt: skip
        setting = HeadSetting(learning_rate=self.learning_rate, weight_decay=self.weight_decay, gamma=self.gamma,
                              lam=self.lam, batch_size=self.batch_size, seed=seed)  # fmt: skip
        plan = HeadPlan(head=self.head, hidden=self.hidden, epochs=self.epochs, schedule=self.schedule,
                        patience=self.patience if stops else None, gamma_relative=self.gamma_relative,
                        transition=self.transition)  # fmt: skip
        rows, held = self._split(labels, random) if stops else (np.arange(len(labels)), None)
        validation = None if held is None else (X[held], labels[held], *_taken(sample_weight, held))
        fitted = fit_heads(
            X[rows], labels[rows], [setting], plan, validation=validation, num_classes=len(self.classes_),
            sample_weight=None if sample_weight is None else sample_weight[rows], sample_ids=_row_ids(X[rows]),
            device=self.device, progress=check_flag("verbose", self.verbose),
        )  # fmt: skip
        self._take(fitted, stops)
        return self

    def _split(self, labels: np.ndarray, random: Any) -> tuple[np.ndarray, np.ndarray]:
        share = check_real("validation_fraction", self.validation_fraction, "(0, 1)", "the share that is held out")
        held = max(round(share * len(labels)), len(self.classes_))  # one of each class at least
        if np.bincount(labels).min() < 2 or len(labels) - held < len(self.classes_):
            raise ValueError(f"early_stopping holds out rows of each of the {len(self.classes_)} classes, and "
                             f"{len(labels)} rows are too few, or a class has one; set early_stopping=False"
                             )  # fmt: skip
        return train_test_split(np.arange(len(labels)), test_size=held, stratify=labels, random_state=random)

    def _take(self, fitted: Any, stops: bool) -> None:
        weights = {name: values[0].cpu().numpy() for name, values in fitted.parameters.items()}
        if not all(np.isfinite(values).all() for values in weights.values()):
            raise ValueError(f"the fit diverged at learning_rate={self.learning_rate!r}, gamma={self.gamma!r}, "
                             f"lam={self.lam!r}; lower the learning_rate, or scale the features")  # fmt: skip
        layers = ("",) if self.head == "linear" else ("0.", "2.")
        self.coefs_ = [np.ascontiguousarray(weights[f"{layer}weight"].T) for layer in layers]
        self.intercepts_ = [weights[f"{layer}bias"] for layer in layers]
        self.n_iter_, self.best_epoch_ = int(fitted.epochs_run[0]), int(fitted.best_epoch[0])
        self.loss_curve_ = fitted.train_loss[0, : self.n_iter_].tolist()
        self.penalty_curve_ = fitted.train_penalty[0, : self.n_iter_].tolist()
        self.validation_loss_ = fitted.validation_nll[0, : self.n_iter_].tolist() if stops else None
        self.validation_scores_ = fitted.validation_accuracy[0, : self.n_iter_].tolist() if stops else None

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        out = validate_data(self, X, dtype=_FLOATS, reset=False)
        for number, (weight, bias) in enumerate(zip(self.coefs_, self.intercepts_)):
            out = (out if number == 0 else np.maximum(out, 0)) @ weight + bias
        return out.astype(np.float64)

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits float64 [N, C]; of two classes the second's minus the first's, [N]."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities float64 [N, C] of `classes_`, of the true labels where a `transition` was given."""
        logits = self._logits(X)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row, [N]."""
        at = self._logits(X).argmax(1)  # first, so that what is not fitted is told
        return self.classes_[at]

    def torch_head(self) -> Any:
        """The head as a torch module, from features [N, D] to logits [N, C]."""
        import torch

        from hf_noise.models.probe import probe

        check_is_fitted(self)
        weights = [torch.from_numpy(np.ascontiguousarray(weight.T)) for weight in self.coefs_]
        biases = [torch.from_numpy(bias.copy()) for bias in self.intercepts_]
        hidden = None if self.head == "linear" else len(weights[0])
        made = probe(self.head, self.n_features_in_, len(self.classes_), hidden=hidden).to(weights[0].dtype)
        layers = ("",) if self.head == "linear" else ("0.", "2.")
        made.load_state_dict({f"{layer}{kind}": value for layer, *both in zip(layers, weights, biases)
                              for kind, value in zip(("weight", "bias"), both)})  # fmt: skip
        return made


def _taken(values: np.ndarray | None, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    return () if values is None else (values[rows],)


def _row_ids(X: np.ndarray) -> np.ndarray:
    """A number of each row that depends on its values alone, int64 [N]: rows that are alike are perturbed alike."""
    bits = (X.astype(np.float64) + 0.0).view(np.uint64)  # + 0.0 makes one zero of both
    odd = np.random.default_rng(0).integers(0, 1 << 63, X.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    with np.errstate(over="ignore"):
        mixed = (bits ^ (bits >> np.uint64(32))) * odd
        return (mixed ^ (mixed >> np.uint64(29))).sum(1).view(np.int64)
