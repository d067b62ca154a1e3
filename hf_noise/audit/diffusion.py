"""Image labels audited by a classifier of diffusion: p(given label | image) at small noise levels.

The time-dependent classifier of paper C is told an image x_t = x_0 + sigma n and its level sigma, and says
q_j = p(given = j | x_t). At small sigma x_t is the image but for a little noise, so that q is what `audit_labels` asks
for, and p(true = i | x_t, given = j), the weights of TDSM, tend to the true class of the image. New noise in each epoch
slows a network down in learning wrong labels by heart, and does not keep it from it. So the rows that it judges must
not be those that it was trained on, here as anywhere: in-sample the ranks may still look good, while the rate is that
of a network which explains nearly all labels, and falls as training goes on.
"""

from __future__ import annotations

import os
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.audit.out_of_fold import split_rows
from hf_noise.noise.arrays import as_array, integers
from hf_noise.noise.checks import check_count, check_real, check_seed

if TYPE_CHECKING:
    from torch import Tensor

    from hf_noise.models.time_classifier import TimeDependentClassifier

__all__ = ["cross_fitted_posterior", "fit_time_classifier", "time_posterior"]

#: Levels of a posterior: on them the classifier is trained, and the image is hardly blurred.
SIGMAS = (0.1, 0.2, 0.4)
_STREAM = 180  # of the counter
#: Standard deviations of ln sigma beyond which a classifier saw next to nothing in training.
_TRAINED_WITHIN = 3.0
_BATCH = 1024
#: Images of up to so many pixels on a side are for the smallest network.
_SMALL = 12


def time_posterior(
    classifier: TimeDependentClassifier | str | os.PathLike,
    images: Any,
    *,
    trained_on: Any,
    sigmas: Sequence[float] = SIGMAS,
    draws: int = 4,
    sample_ids: Any = None,
    seed: int = 0,
) -> np.ndarray:
    """p(given label = j | image) by a time-dependent classifier: the mean over noise levels and draws of the noise.

    q_j = mean over sigma and n of p(given = j | x_0 + sigma n, sigma). A classifier that was trained through T says
    p(true = i | x_t), of which q = p T is made; one that was trained on right labels has none, and its q is of these.

    Args:
        classifier: a `TimeDependentClassifier`, or the folder or Hub id of one. It is left as it was.
        images: uint8 [N, channels, H, W] as the classifier takes them, in [0, 255], not augmented.
        trained_on: sample ids of the rows that it was trained on, integers [M]; () if it saw none of these images.
            Where it saw some of them, a warning says that their probabilities are no audit's: use
            `cross_fitted_posterior`.
        sigmas: noise levels, > 0, each within three standard deviations of what it was trained on; small ones, at which
            the image is still what it was.
        draws: of the noise at each level, in [1, 2^10]; they are the same for all levels.
        sample_ids: of the rows, integers [N] in [0, 2^63); by default 0 .. N - 1. The noise of a row is a pure function
            of the seed and its id, so that it does not depend on the other rows.
        seed: of the noise, in [0, 2^63).

    Returns:
        float64 [N, C], rows sum to 1, for `audit_labels(..., probabilities=)`.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: images do not fit the classifier, a level is none that it was trained on, ids are not one per row,
            or a number is out of its range; and what `TimeDependentClassifier.from_pretrained` refuses.

    Source: Na et al., "Label-noise robust diffusion models", ICLR 2024 (paper C): the time-dependent noisy-label
    classifier and the weights w[j, i] = p(true = i | x_t, given = j).
    """
    import torch

    from hf_noise.evaluation_mode import evaluation_mode

    pixels = _pixels(images)
    ids = _ids("sample_ids", sample_ids, len(pixels))
    seen = np.isin(ids, _ids("trained_on", trained_on))
    model = _read(classifier)
    levels, draws, seed = _levels(sigmas, model.config), check_count("draws", draws, 1, 10), check_seed(seed)
    model.check(num_channels=pixels.shape[1], image_size=pixels.shape[2])
    if seen.any():
        warnings.warn(
            f"the classifier was trained on {seen.sum()} of the {len(seen)} rows that it judges: it has fitted their "
            "labels, wrong ones too, so that an audit reads far too few of them as wrong; use cross_fitted_posterior, "
            "in which each row is judged by a classifier that has not seen it", stacklevel=2,
        )  # fmt: skip
    with evaluation_mode(model), torch.no_grad():
        parts = [_mean_posterior(model, pixels[at : at + _BATCH], ids[at : at + _BATCH], levels, draws, seed)
                 for at in range(0, len(pixels), _BATCH)]  # fmt: skip
    found = np.concatenate(parts)
    if model.predicts == "clean" and model.config.transition is not None:
        found = found @ np.asarray(model.config.transition, dtype=np.float64)
    return found / found.sum(axis=1, keepdims=True)


def cross_fitted_posterior(
    images: Any,
    labels: Any,
    *,
    fit: Callable[[np.ndarray], TimeDependentClassifier | str | os.PathLike] | None = None,
    folds: int = 5,
    sigmas: Sequence[float] = SIGMAS,
    draws: int = 4,
    seed: int = 0,
) -> np.ndarray:
    """p(given label = j | image) of each row by time-dependent classifiers that were trained without it.

    Rows are dealt out to folds by class, copies of an image into one fold, as a copy would give its label away.

    Args:
        images: uint8 [N, channels, H, W] in [0, 255].
        labels: given labels, integers [N] in [0, C), each class in at least `folds` rows.
        fit: row numbers int64 [M] -> a classifier (or its folder) that was trained on these rows ALONE, which nothing
            here can check; by default `fit_time_classifier` with its defaults. Large images need networks of their own:
            `lambda rows: fit_time_classifier(images[rows], labels[rows], sample_ids=rows, architecture="resnet18")`.
        folds: in [2, 64].
        sigmas, draws: as for `time_posterior`.
        seed: of the folds, the training by default and the noise, in [0, 2^63).

    Returns:
        float64 [N, C], rows sum to 1, for `audit_labels(..., probabilities=)`.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: as `time_posterior`; images and labels are not one each, a class has fewer rows than there are
            folds, or copies leave too few of them; or `fit` returns a classifier of other classes.
    """
    pixels, seed, folds = _pixels(images), check_seed(seed), check_count("folds", folds, 2, 6)
    given = _labels(labels, len(pixels))
    if fit is not None and not callable(fit):
        raise TypeError(f"fit must be a function of row numbers that returns a classifier, got {fit!r:.80}")
    classes = int(given.max()) + 1
    found = np.zeros((len(given), classes))
    for fitted, judged in split_rows(pixels.numpy(), given, folds, seed):
        if fit is None:
            model = fit_time_classifier(pixels[fitted], given[fitted], sample_ids=fitted, seed=seed)
        else:
            model = fit(fitted)
        p = time_posterior(model, pixels[judged], trained_on=fitted, sigmas=sigmas, draws=draws, sample_ids=judged,
                           seed=seed)  # fmt: skip
        if p.shape[1] != classes:
            raise ValueError(f"fit returned a classifier of {p.shape[1]} classes, and labels have {classes}")
        found[judged] = p
    return found


def fit_time_classifier(
    images: Any,
    labels: Any,
    *,
    epochs: int = 30,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    architecture: str | None = None,
    sample_ids: Any = None,
    seed: int = 0,
    **network: Any,
) -> TimeDependentClassifier:
    """Train a time-dependent classifier on labels as they are, for an audit of other rows.

    It is `TimeClassifierTrainer` without a transition, with AdamW and a cosine; for anything else use the trainer.

    Args:
        images: uint8 [N, channels, size, size] in [0, 255].
        labels: given labels, integers [N] in [0, C), each class at least once; C >= 2.
        epochs: in [1, 2^20].
        batch_size: of images, in [1, 2^20].
        learning_rate: peak, finite and > 0.
        architecture: of `hf_noise.models.time_classifier.ARCHITECTURES`; by default "cnn-digits" for images of up to 12
            pixels and "cnn-mnist" for larger ones, which take seconds to minutes of a CPU for a few thousand rows.
        sample_ids: of the rows, integers [N] in [0, 2^63), of which the noise is a function; by default 0 .. N - 1.
        seed: of weights, order and noise, in [0, 2^32).
        **network: further settings of `TimeDependentClassifier`, such as P_mean.

    Returns:
        The classifier, in evaluation mode, on the device where it was trained. Global generators are left as they were.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: images are not square or do not fit the network, images and labels are not one each, or a number is
            out of its range.
    """
    import torch
    from transformers import PrinterCallback, TrainingArguments

    from hf_noise.models.time_classifier import TimeDependentClassifier
    from hf_noise.trainers import TimeClassifierTrainer
    from hf_noise.trainers.images import DeviceImages

    pixels = _pixels(images)
    given, ids = _labels(labels, len(pixels)), _ids("sample_ids", sample_ids, len(pixels))
    rate = check_real("learning_rate", learning_rate)
    if not 0 < rate < float("inf"):
        raise ValueError(f"learning_rate must be finite and > 0, got {learning_rate!r}")
    channels, size = pixels.shape[1:3]
    architecture = ("cnn-digits" if size <= _SMALL else "cnn-mnist") if architecture is None else architecture
    columns = {"labels": torch.from_numpy(given), "sample_id": torch.from_numpy(ids)}
    rows = DeviceImages(pixels, columns, mean=[0.5], std=[0.5])
    with _own_draws(), tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder, num_train_epochs=check_count("epochs", epochs, 1, 20), learning_rate=rate,
            per_device_train_batch_size=check_count("batch_size", batch_size, 1, 20), warmup_steps=0.05,
            lr_scheduler_type="cosine", max_grad_norm=0.0, seed=check_seed(seed) % 2**32, save_strategy="no",
            logging_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        torch.manual_seed(args.seed)
        model = TimeDependentClassifier(int(given.max()) + 1, size, channels, architecture, **network)
        trainer = TimeClassifierTrainer(model, args, transition=None, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model.eval()


def _mean_posterior(
    model: TimeDependentClassifier, pixels: Tensor, ids: np.ndarray, levels: Sequence[float], draws: int, seed: int
) -> np.ndarray:
    """Mean of the posteriors at these levels, float64 [n, C]."""
    import torch

    from hf_noise.noise.normals_torch import normals

    device = model.device
    clean, sample = pixels.to(device).float() / 127.5 - 1, torch.from_numpy(ids).to(device)
    total = torch.zeros(len(pixels), model.config.num_classes, dtype=torch.float64)
    for draw in range(draws):
        noise = normals(seed, _STREAM, draw, sample, clean[0].numel()).view(clean.shape)
        for level in levels:
            sigma = torch.full((len(clean),), level, device=device)
            total += model.log_posterior(clean + level * noise, sigma).cpu().double().softmax(-1)
    return (total / (draws * len(levels))).numpy()


def _read(classifier: Any) -> TimeDependentClassifier:
    from hf_noise.models.time_classifier import TimeDependentClassifier

    if isinstance(classifier, str | os.PathLike):
        return TimeDependentClassifier.from_pretrained(classifier)
    if not isinstance(classifier, TimeDependentClassifier):
        raise TypeError(f"classifier must be a TimeDependentClassifier or its folder, got {classifier!r:.80}")
    return classifier


def _pixels(images: Any) -> Tensor:
    """uint8 [N, channels, H, W] on the CPU, N >= 1."""
    import torch

    array = as_array("images", images)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise TypeError(f"images must be uint8 [N, channels, H, W] in [0, 255], got {array.dtype} {list(array.shape)}; "
                        "hf_noise.trainers.images.decode_images makes them of a data set")  # fmt: skip
    if not array.size or array.shape[2] != array.shape[3]:
        raise ValueError(f"images must be one or more squares, [N, channels, size, size], got {list(array.shape)}")
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(labels: Any, rows: int) -> np.ndarray:
    given = integers("labels", labels)
    if given.shape != (rows,):
        raise ValueError(f"labels must be one per image, [{rows}], got shape {list(given.shape)}")
    counts = np.bincount(given) if given.min() >= 0 and given.max() < rows else np.zeros(1, dtype=int)
    if len(counts) < 2 or not counts.all():
        raise ValueError("labels must lie in [0, C) with C >= 2 and hold every class, got values in "
                         f"[{given.min()}, {given.max()}]; number the classes that there are")  # fmt: skip
    return given.astype(np.int64)


def _ids(name: str, values: Any, rows: int | None = None) -> np.ndarray:
    """int64 [n]; one for each of `rows` where these are given."""
    if values is None and rows is not None:
        return np.arange(rows)
    ids = np.zeros(0, dtype=np.int64) if isinstance(values, list | tuple) and not values else integers(name, values)
    if ids.ndim != 1 or rows is not None and len(ids) != rows:
        wanted = "[M]; () if it saw none" if rows is None else f"[{rows}], one per image"
        raise ValueError(f"{name} must be integers {wanted}, got shape {list(ids.shape)}")
    if ids.size and (ids.min() < 0 or ids.max() >= 1 << 63):
        raise ValueError(f"{name} must lie in [0, 2^63), got {ids.min()} to {ids.max()}")
    return ids.astype(np.int64)


def _levels(sigmas: Any, config: Any) -> list[float]:
    is_list = isinstance(sigmas, Sequence) and not isinstance(sigmas, str)
    if not is_list and not (isinstance(sigmas, np.ndarray) and sigmas.ndim == 1) or not len(sigmas):
        raise TypeError(f"sigmas must be a sequence of noise levels, got {sigmas!r:.80}")
    low, high = (float(np.exp(config.P_mean + side * _TRAINED_WITHIN * config.P_std)) for side in (-1, 1))
    levels = [check_real("each of sigmas", sigma) for sigma in sigmas]
    for level in levels:
        if not low <= level <= high:
            raise ValueError(f"sigmas must lie where the classifier was trained, in [{low:.3g}, {high:.3g}], got "
                             f"{level!r}")  # fmt: skip
    return levels


@contextmanager
def _own_draws() -> Iterator[None]:
    """What is drawn within leaves the global generators as they were."""
    import torch

    plain, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(of_numpy)
