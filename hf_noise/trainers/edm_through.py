"""The transition matrix and the classifier that TDSM goes through, held against the run and against each other."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from hf_noise.losses import LabelTransition, transition_aware_weights
from hf_noise.objectives.images import TDSM
from hf_noise.trainers.labels import SAME_TRANSITION, check_class_names, check_same_noise

__all__ = ["through"]


def through(trainer: Any, loss: TDSM, classifier: Any, was_given: bool) -> tuple[Any, LabelTransition | None]:
    """The classifier, frozen and on the device, and T; (None, None) where T = I, which is plain matching.

    Args:
        trainer: an `EDMTrainer`, whose noise, classes, images and levels they have to fit.
        classifier: `TimeDependentClassifier`, or None.
        was_given: whether the noise was asked for by name, or only found in the description of the rows.

    Raises:
        ValueError: there is no T, or no classifier; they do not fit each other or the run; T has no usable inverse
            where one is needed.
    """
    transition, learned_through = _transition(trainer, loss, classifier, was_given)
    if len(transition) != trainer.num_classes:
        raise ValueError(f"transition has {len(transition)} classes, the network {trainer.num_classes}")
    if _is_identity(transition.matrix):
        return None, None
    if classifier is None:
        raise ValueError('loss="tdsm" needs classifier=, see hf_noise.trainers.TimeClassifierTrainer')
    _check_classifier(trainer, loss, classifier)
    if loss.transition is not None and learned_through is not None:
        apart = float((transition.matrix - torch.tensor(learned_through, dtype=torch.float64)).abs().max())
        if apart > SAME_TRANSITION:
            warnings.warn(f"transition= differs by up to {apart:.3g} from the T that the classifier was trained "
                          "through; the weights take the one that is given", stacklevel=3)  # fmt: skip
    if loss.weights == "inverse":  # refuses a matrix without a usable inverse now, not in the first step
        even = torch.full((1, trainer.num_classes), 1 / trainer.num_classes, device=trainer.args.device)
        transition_aware_weights(even.argmax(-1), transition, noisy_posterior=even)
    layout = torch.channels_last if trainer.channels_last else torch.preserve_format
    classifier = classifier.to(trainer.args.device, memory_format=layout)
    return classifier.eval().requires_grad_(False), transition


def _transition(trainer: Any, loss: TDSM, classifier: Any, was_given: bool) -> tuple[LabelTransition, Any]:
    """T, and what the classifier was trained through, None for none."""
    transition, learned_through = loss.transition, None
    if classifier is not None:
        check_same_noise(classifier.config, trainer.noise)
        learned_through = classifier.config.transition
    if transition is None:
        transition = learned_through
        if transition is None and trainer.noise is not None:
            transition = trainer.noise.transition
        if transition is not None and not was_given and _is_identity(transition):
            raise ValueError(
                'loss="tdsm" would go through no noise at all (T = I): the rows say that none was added to them, '
                "and not how many of their labels are wrong; pass transition= [C, C] with rows clean, a classifier "
                "trained through one, or noise= with a rate of 0 if that is meant"
            )
    if transition is None:
        raise ValueError('loss="tdsm" needs T: pass transition= [C, C] with rows clean, noise=, or a classifier '
                         "that was trained through one")  # fmt: skip
    return LabelTransition(transition, device=trainer.args.device), learned_through


def _check_classifier(trainer: Any, loss: TDSM, classifier: Any) -> None:
    channels, height, width = trainer.image_shape
    classifier.check(
        num_classes=trainer.num_classes, image_size=height if height == width else (height, width),
        num_channels=channels, sigma_data=trainer.sigma_data, P_mean=trainer.P_mean, P_std=trainer.P_std,
    )  # fmt: skip
    check_class_names(classifier.config.class_names, trainer.train_dataset, "the classifier")
    predicts, needed = classifier.predicts, {"bayes": "clean", "inverse": "noisy"}[loss.weights]
    if predicts != needed:
        other = {"bayes": "inverse", "inverse": "bayes"}[loss.weights]
        raise ValueError(
            f'weights="{loss.weights}" takes a classifier of {needed} labels, this one predicts {predicts} ones; '
            f'use weights="{other}", or train it {"through T" if needed == "clean" else "with transition=None"}'
        )


def _is_identity(transition: Any) -> bool:
    matrix = torch.as_tensor(transition, dtype=torch.float64)
    return torch.equal(matrix, torch.eye(len(matrix), dtype=torch.float64))
