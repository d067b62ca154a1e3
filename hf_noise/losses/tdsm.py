"""Transition-aware denoising score matching: clean conditional denoisers from noisy labels.

If a label is noisy whatever the image (Y~ is independent of x0 given Y), the denoiser of the images that carry the
noisy label j is a convex combination of the clean ones, E[x0 | x, Y~ = j] = sum_i w[j, i] E[x0 | x, Y = i] with
w[j, i] = p(Y = i | x, Y~ = j). So TDSM fits the combination, and each D(x, sigma, i) becomes the clean denoiser (Na et
al., "Label-noise robust diffusion models", ICLR 2024). T[i, j] = p(noisy = j | clean = i) has clean rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_noise.losses.checks import (
    check_count,
    check_device,
    check_flag,
    check_floats,
    check_integers,
    check_real,
    looked_at,
    on_host,
)
from hf_noise.losses.dsm import SIGMA_DATA, check_told, denoised_by, noisy_images, per_image, weighted_error
from hf_noise.losses.labels import ROW_SUM_TOLERANCE, log_columns
from hf_noise.losses.lookup import entries, rows

__all__ = ["LabelTransition", "tdsm_loss", "transition_aware_weights"]

# A network's posterior is off by about a percent; an inverse that magnifies this by more says nothing.
MAX_CONDITION = 100.0

# By how much rounding, in float16 perhaps, may lift a probability above 1.
_ABOVE_ONE = 2e-3

# Pixels in one pass without gradient. On a CPU larger activations leave its caches (16 images of 32 x 32: in benchmarks
# 1.4 times slower per image at 128); on a GPU this keeps a large one busy and fits a small one (2048 images).
_PIXELS_ON_CPU, _PIXELS_ON_GPU = 2**14, 2**21


class LabelTransition:
    """A transition matrix, checked once, with the tables that the weights look up in every step.

    Args:
        transition: T, real numbers [C, C] (array, tensor or nested lists), C >= 2, T[i, j] = p(noisy = j | clean = i),
            rows sum to 1.
        prior: p(clean) [C], uniform by default. The weights depend on it only where a posterior has underflown:
            elsewhere it cancels.
        device: of the tables.

    Raises:
        ValueError: T is not square, of fewer than 2 classes, or has a negative entry; the prior has other classes or a
            negative entry; a row, or the prior, misses the sum 1 by more than 1e-6; the device cannot be used.
        TypeError: T or the prior holds no real numbers.
    """

    def __init__(self, transition: Any, prior: Any = None, *, device: torch.device | str = "cpu") -> None:
        # On the host in float64: the checks must not make a GPU wait, and an inverse magnifies rounding.
        self.matrix = on_host("transition", transition)
        columns = log_columns(self.matrix)
        self.prior = self._check_prior(prior)
        joint = self.prior * self.matrix.T
        marginal = joint.sum(1, keepdim=True)
        # S[j, i] = p(clean = i | noisy = j). A label that T makes impossible says nothing of the class.
        reverse = torch.where(marginal > 0, joint / marginal, self.prior)
        self.device = check_device("device", device)  # with its number
        self.log_columns, self.reverse = self._place(columns), self._place(reverse)

    def __len__(self) -> int:
        """Number of classes C."""
        return len(self.matrix)

    def to(self, device: torch.device) -> LabelTransition:
        """The same on another device; itself if it is there already."""
        return self if self.device == device else LabelTransition(self.matrix, self.prior, device=device)

    @cached_property
    def condition_number(self) -> float:
        """Largest over smallest singular value of T, how much its inverse magnifies errors; inf if it has none."""
        largest, *_, smallest = torch.linalg.svdvals(self.matrix).tolist()
        return largest / smallest if smallest > largest * len(self) * torch.finfo(torch.float64).eps else math.inf

    @cached_property
    def factors(self) -> tuple[Tensor, Tensor]:
        """LU factors and pivots of T."""
        factors, pivots = torch.linalg.lu_factor(self.matrix)
        return self._place(factors), pivots.to(self.device)

    def _check_prior(self, prior: Any) -> Tensor:
        if prior is None:
            return torch.full((len(self),), 1 / len(self), dtype=torch.float64)
        p = on_host("prior", prior)
        if p.shape != (len(self),):
            raise ValueError(
                f"the prior has one probability for each of {len(self)} classes, got shape {list(p.shape)}"
            )
        if not ((p >= 0).all() and abs(p.sum() - 1) <= ROW_SUM_TOLERANCE):
            raise ValueError(f"the prior must be >= 0 and sum to 1, got {p.tolist()}; divide counts by their sum")
        return p

    def _place(self, table: Tensor) -> Tensor:
        return table.to(self.device, _exact(self.device))


def _exact(device: torch.device) -> torch.dtype:
    """float64 wherever there is any: [B, C] numbers cost nothing beside a network."""
    return torch.float32 if device.type == "mps" else torch.float64


def transition_aware_weights(
    noisy_labels: Tensor,
    transition: LabelTransition | Any,
    *,
    clean_posterior: Tensor | None = None,
    noisy_posterior: Tensor | None = None,
    prior: Any = None,
    logits: bool = False,
    temperature: float = 1.0,
    clamp: bool = True,
    renormalise: bool = True,
    max_condition: float = MAX_CONDITION,
) -> Tensor:
    """w[b, i] = p(clean = i | noisy label of b, noisy image of b), from a classifier of noisy images.

    Give one of the two posteriors. From p(clean | x), which a classifier trained through T (forward correction) gives,
    Bayes' rule needs no inverse: w[b, i] = T[i, j] p[b, i] / sum_k T[k, j] p[b, k]. From q(noisy | x), which a plainly
    trained classifier gives, the paper first solves p T = q. Then a q that is no mixture of T's rows yields weights
    outside [0, 1]; they are clamped and divided by their sum.

    Where the label is impossible to the last bit (0 / 0), the weights are those of the label alone, p(clean | noisy
    label), where the paper's code has zeros; a NaN in the posterior stays one.

    Args:
        noisy_labels: int64 [B], the observed labels, in [0, C).
        transition: T [C, C] (array, tensor or nested lists), clean rows, or a `LabelTransition`. A bare matrix is
            checked at every call, so a training loop makes a LabelTransition on its device first; then a GPU never
            waits.
        clean_posterior: float [B, C], p(clean = i | x).
        noisy_posterior: float [B, C], p(noisy = j | x).
        prior: p(clean) [C], uniform by default, only for where the posterior has underflown.
        logits: the posterior is given as logits or log-probabilities, of any normalisation. Nothing underflows then.
        temperature: finite and > 0; logits are divided by it.
        clamp: cut weights of the inverse form to [0, 1].
        renormalise: divide weights of the inverse form by their sum.
        max_condition: largest condition number of T that the inverse form accepts, in [1, inf].

    Returns:
        [B, C] of the posterior's dtype (float32 for a shorter one), without gradient; rows sum to 1 and lie in [0, 1]
        unless it was asked otherwise. Computed in float64.

    Raises:
        TypeError: labels are no integers, the posterior is not floating-point, or an option is of another type.
        ValueError: not exactly one posterior; shapes do not agree; T or the prior is none; T is singular or badly
            conditioned in the inverse form; an option is out of its range; or, on a CPU, a label is outside [0, C) or a
            posterior outside [0, 1].

    Source: Na et al. 2024 (the inverse form; the other one is the same if q = p T).
    """
    if (clean_posterior is None) == (noisy_posterior is None):
        raise ValueError("give one of clean_posterior, p(clean class | x), and noisy_posterior, p(noisy label | x)")
    given = noisy_posterior if clean_posterior is None else clean_posterior
    if not isinstance(transition, LabelTransition):
        transition = LabelTransition(transition, prior)
    elif prior is not None:
        raise ValueError("a LabelTransition holds its prior; give it there")
    check_floats("the posterior", given)
    noisy_labels = check_integers("noisy_labels", noisy_labels)
    if noisy_labels.ndim != 1:
        raise ValueError(f"noisy_labels must be [B], got {list(noisy_labels.shape)}")
    if given.shape != (len(noisy_labels), len(transition)):
        raise ValueError(
            f"{len(noisy_labels)} labels and a transition matrix of {len(transition)} classes need a posterior "
            f"{[len(noisy_labels), len(transition)]}, got {list(given.shape)}; is the classifier one of other classes?"
        )
    temperature = check_real("temperature", temperature, "(0, inf)", "1 leaves the posterior as it is")
    max_condition = check_real("max_condition", max_condition, "[1, inf]")
    logits, clamp = check_flag("logits", logits), check_flag("clamp", clamp)
    renormalise = check_flag("renormalise", renormalise)
    array = None if logits else looked_at(given)
    if array is not None and array.size:  # a NaN in it stays one
        low, high = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)
        if low < 0 or high > 1 + _ABOVE_ONE:
            raise ValueError(
                f"the posterior must lie in [0, 1], got {low if low < 0 else high}; pass logits=True for logits and "
                "log-probabilities"
            )
    transition = transition.to(given.device)
    posterior = given.detach().to(_exact(given.device))
    if clean_posterior is not None:
        log_p = (posterior if logits else posterior.log()) / temperature
        weights = _by_bayes(noisy_labels, transition, log_p)
    else:
        if logits or temperature != 1:
            posterior = torch.softmax((posterior if logits else posterior.log()) / temperature, -1)
        weights = _by_inverse(noisy_labels, transition, posterior, clamp, renormalise, max_condition)
    return weights.to(torch.promote_types(given.dtype, torch.float32))


def _by_bayes(labels: Tensor, transition: LabelTransition, log_p: Tensor) -> Tensor:
    joint = log_p + rows("noisy_labels", transition.log_columns, labels)  # [B, C]
    evidence = joint.logsumexp(-1, keepdim=True)
    return torch.where(evidence == -math.inf, transition.reverse.index_select(0, labels), (joint - evidence).exp())


def _by_inverse(
    labels: Tensor, transition: LabelTransition, q: Tensor, clamp: bool, renormalise: bool, max_condition: float
) -> Tensor:
    condition = transition.condition_number
    if not condition <= max_condition:
        raise ValueError(
            f"the transition matrix has the condition number {condition:.3g}, so that its inverse would magnify errors "
            f"of the noisy posterior as much (allowed: {max_condition:g}); train the classifier through the matrix "
            "(forward correction) and give clean_posterior=, which needs no inverse"
        )
    # The paper solves S u = q / p(noisy) and takes S[j, i] u[i] p(noisy = j) / q[j]. With u = p / p(clean) that is
    # p T = q and T[i, j] p[i] / q[j]: both marginals, and so the prior, cancel.
    p = torch.linalg.lu_solve(*transition.factors, q, left=False)
    evidence = entries("noisy_labels", q, labels)[:, None]
    weights = rows("noisy_labels", transition.log_columns, labels).exp() * p / evidence
    if clamp:
        weights = weights.clamp(0, 1)
    total = weights.sum(-1, keepdim=True)
    if renormalise:
        weights = weights / total
    # Rounding of q[j] this small, magnified, is all that is left of p.
    lost = (evidence <= condition * torch.finfo(q.dtype).eps) | (total == 0)
    return torch.where(lost, transition.reverse.index_select(0, labels), weights)


def tdsm_loss(
    denoiser: Callable[..., Tensor],
    images: Tensor,
    sigma: Tensor,
    noise: Tensor,
    noisy_labels: Tensor,
    weights: Tensor,
    *,
    tau: float = 0.01,
    renormalise: bool = False,
    grad_classes: Literal["observed", "all"] = "observed",
    chunk: int | None = None,
    sigma_data: float = SIGMA_DATA,
    **conditioning: Tensor | None,
) -> Tensor:
    """Transition-aware score matching of each image: lambda(sigma) times the mean of (sum_i w_i D(x, sigma, i) - x0)^2.

    With the default, D at the observed label has a gradient, and D at all other classes of weight > tau does not: these
    (image, class) pairs go through the denoiser in chunks, whatever their class. The stationary point is the same as
    with all gradients, the clean denoisers, as long as T is diagonally dominant. In training mode dropout draws anew
    in every pass.

    With one-hot weights on the observed labels (T = I) this is `dsm_loss`, bit for bit. On a GPU it waits once for the
    number of pairs, whatever the number of classes.

    Args:
        denoiser: D(x, sigma, class_labels, **conditioning).
        images: float [B, ...], x0, in [-1, 1].
        sigma: float [B], > 0.
        noise: float, standard normal, of the shape of `images`.
        noisy_labels: int64 [B], in [0, C]. C is the unconditional class (label dropout): such images are matched
            plainly, whatever their weights. Draw them after the weights were computed from the true noisy label.
        weights: [B, C] from `transition_aware_weights`.
        tau: in [0, 1); classes of weight <= tau are left out. The observed label never is.
        renormalise: divide the weights that are left by their sum; by default they miss 1 by what was left out.
        grad_classes: "observed", or "all" for the textbook objective, which holds the activations of every pair.
        chunk: most pairs in one pass; by default 16 images of 32 x 32 on a CPU, 2048 on a GPU, more or less of them by
            their size.
        sigma_data: standard deviation of the images, > 0.
        conditioning: what else the denoiser is told, each of leading dimension B (or None), the same for all classes
            of an image.

    Returns:
        float [B]; its mean over a batch is the loss.

    Raises:
        TypeError: labels are no integers, other tensors not floating-point, or an option is of another type.
        ValueError: shapes do not agree, that of what the denoiser returns too; an option is out of its range; or, on a
            CPU, a label is outside [0, C] or a sigma is <= 0.

    Source: Na et al. 2024 (the objective, and the gradient through the observed label that its experiments use).
    """
    x = noisy_images(images, sigma, noise)
    check_floats("weights", weights)
    if not isinstance(noisy_labels, Tensor):
        raise TypeError(f"noisy_labels must be a tensor of integers, got {type(noisy_labels).__name__}")
    fits = weights.ndim == 2 and weights.shape[1] and len(weights) == len(images)
    if not fits or noisy_labels.shape != images.shape[:1]:
        raise ValueError(
            f"{len(images)} images need as many noisy_labels and weights [{len(images)}, C], got noisy_labels "
            f"{list(noisy_labels.shape)} and weights {list(weights.shape)}"
        )
    noisy_labels = check_integers("noisy_labels", noisy_labels)
    check_told(denoiser, conditioning, len(images))
    tau = check_real("tau", tau, "[0, 1)", "classes of weight <= tau are left out")
    renormalise = check_flag("renormalise", renormalise)
    if not isinstance(grad_classes, str) or grad_classes not in ("observed", "all"):
        raise ValueError(f"grad_classes must be 'observed' or 'all', got {grad_classes!r}")
    chunk = _default_chunk(x) if chunk is None else check_count("chunk", chunk)
    own, others = _split(weights.detach().to(x.dtype), noisy_labels, tau, renormalise)
    pairs = others.nonzero()  # [M, 2] of image and class: the one thing the host has to wait for

    # First the pass with a gradient: an autocast around all of this may keep the weights it casts first.
    mixture = per_image(own, x) * denoised_by(denoiser, x, sigma, noisy_labels, conditioning)
    if len(pairs):
        # The rest has a buffer of its own, so that no chunk is part of the graph unless it has to be.
        rest = torch.zeros_like(x)
        with torch.set_grad_enabled(grad_classes == "all" and torch.is_grad_enabled()):
            # Parts of equal size: the last one would cost more per image if it were a small remainder.
            for part in pairs.tensor_split(-(-len(pairs) // chunk)):
                image, label = part.unbind(1)
                told = {name: value if value is None else value[image] for name, value in conditioning.items()}
                denoised = denoised_by(denoiser, x[image], sigma[image], label, told)
                rest = rest.index_add(0, image, (per_image(others[image, label], x) * denoised).to(rest.dtype))
        mixture = mixture + rest
    return weighted_error(mixture, images, sigma, sigma_data)


def _split(weights: Tensor, labels: Tensor, tau: float, renormalise: bool) -> tuple[Tensor, Tensor]:
    """Weight of the observed label [B], and of all other classes that are to be evaluated [B, C + 1], elsewhere 0."""
    unconditional = labels == weights.shape[1]
    # With a column for the unconditional class, a label beyond it fails in `gather` instead of meaning another class.
    weights = F.pad(weights.masked_fill(unconditional[:, None], 0), (0, 1))
    weights[:, -1] = unconditional
    observed = labels[:, None]
    own, others = entries("noisy_labels", weights, labels)[:, None], weights.scatter(1, observed, 0)
    others = others.where(others > tau, 0)
    if renormalise:
        total = own + others.sum(1, keepdim=True)
        total = torch.where(total == 0, torch.finfo(weights.dtype).tiny, total)
        own, others = own / total, others / total
    return own.squeeze(1), others


def _default_chunk(x: Tensor) -> int:
    pixels = _PIXELS_ON_CPU if x.device.type == "cpu" else _PIXELS_ON_GPU
    return max(1, pixels // math.prod(x.shape[2:]))
