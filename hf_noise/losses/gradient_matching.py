"""Local Gradient Matching: a head whose gradient does not move when its features do (paper B).

Features t come from a backbone, and t_hat = t + gamma delta with delta ~ N(0, I) are perturbed ones. What is added to
the loss is | G - G_hat |, the distance of its gradients G = mean grad l(t, y) and G_hat = mean grad l(t_hat, y) in
all parameters of the head: the norm of means over the batch, not squared. Neither gradient is detached.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hf_noise.losses.checks import check_flag, check_floats, check_integers, check_real, check_tensor, looked_at
from hf_noise.losses.head_gradients import PENALTIES, LinearForm, Targets, TwoLayerForm, closed_form, penalty_of
from hf_noise.losses.linear_gradient import OneLinearForm

__all__ = ["GradientMatching", "feature_scale", "local_gradient_matching"]

logger = logging.getLogger(__name__)

LOSSES = ("cross_entropy", "squared_error")


class GradientMatching(NamedTuple):
    """Of a batch, each with its gradient.

    Attributes:
        loss: cross_entropy + lam * penalty, [].
        cross_entropy: mean loss on the features as they are, [] in nats (a mean squared error if that was asked for).
        penalty: [], >= 0.
        how: "linear" or "mlp" for the closed forms, "torch.func" for other heads, which are differentiated twice.
    """

    loss: Tensor
    cross_entropy: Tensor
    penalty: Tensor
    how: str


def feature_scale(features: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Mean over the features of their standard deviation over rows [B, ...], []: what `gamma_relative` multiplies.

    With a `sample_weight` float [B], >= 0 and not all 0, a row of weight 2 counts as two rows.
    """
    check_floats("features", features)
    if features.ndim < 2 or not features.numel():
        raise ValueError(f"features must be [B, D], got {list(features.shape)}")
    return _scale(features, _row_weights(sample_weight, features))


def _scale(features: Tensor, shares: Tensor | None) -> Tensor:
    """`feature_scale` by weights [B] of sum 1, or none."""
    rows = features.detach().flatten(1)
    if shares is None:
        return rows.std(0, correction=0).mean()
    return (shares @ (rows - shares @ rows).square()).sqrt().mean()


def local_gradient_matching(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    *,
    gamma: float,
    lam: float = 1.0,
    noise: Tensor | torch.Generator | None = None,
    sample_weight: Tensor | None = None,
    columns: Tensor | None = None,
    loss: str = "cross_entropy",
    penalty: str = "difference",
    gamma_relative: bool = False,
) -> GradientMatching:
    """Loss of a head plus lam times how far its gradient moves when its features are perturbed.

    `nn.Linear` and `nn.Sequential(nn.Linear, nn.ReLU, nn.Linear)`, each with or without biases, have closed forms,
    which are differentiated once. Any other head goes through `torch.func`, twice differentiated, which is said once in
    the log. Parameters that are not trained (`requires_grad`) do not count. Dropout of a head in training mode drops
    the same for both gradients. BatchNorm and InstanceNorm with running statistics are for heads in `eval()` only.

    Args:
        head: from features to logits [B, C]; it is not changed.
        features: float [B, D] (of heads without a closed form [B, ...]), finite.
        labels: integers [B] in [0, C); for a squared error float [B] or [B, C].
        gamma: standard deviation of the perturbation, >= 0; the features' scale matters.
        lam: weight of the penalty, >= 0.
        noise: delta, float of the features' shape; else it is drawn from N(0, I), from this generator, or torch's own.
        sample_weight: float [B], >= 0, of which not all are 0; all means are weighted by it.
        columns: `log_columns(T)`: the cross-entropy is corrected for label noise T, as in `label_nll`, in G too.
        loss: "cross_entropy", or "squared_error", its mean over rows and outputs, for regression.
        penalty: "difference" is | G - G_hat |; the ablations of table 5 are "norm", | G |, and "cosine",
            1 - cos(G, G_hat).
        gamma_relative: gamma counts in `feature_scale(features, sample_weight)`, the mean standard deviation of the
            batch.

    Returns:
        `GradientMatching`: loss, cross_entropy, penalty, how.

    Raises:
        TypeError: an argument is of another type or dtype; the head has no logits [B, C], or is no module.
        ValueError: numbers out of range; counts or shapes that do not agree; nothing of the head is trained; a layer
            that mixes rows; on a CPU, features that are not finite, or a label that is none of the classes.

    Source: paper B, section 5: L = L_ce + lambda | E grad l(t) - E grad l(t + gamma delta) |.

    >>> head = nn.Linear(2, 3)
    >>> out = local_gradient_matching(head, torch.ones(4, 2), torch.tensor([0, 1, 2, 0]), gamma=0.0)
    >>> out.penalty.item(), out.how
    (0.0, 'linear')
    """
    gamma = check_real("gamma", gamma, "[0, inf)", "it is the standard deviation of the noise on features")
    lam = check_real("lam", lam, "[0, inf)", "it is the weight of the penalty")
    _check_choices(loss, penalty)
    trained = _trained(head)
    _check_features(features)
    form = closed_form(head) if len(trained) == len(list(head.parameters())) and features.ndim == 2 else None
    own = next(iter(trained.values())).dtype
    # A closed form is taken with float32's precision at least; other heads take what they were made for.
    wide = own if form is None else torch.promote_types(torch.promote_types(features.dtype, own), torch.float32)
    if gamma > torch.finfo(wide).max:
        raise ValueError(f"gamma must be a number that {wide} holds, got {gamma!r}; features are of about 1")
    features = features.to(wide)
    weights = _row_weights(sample_weight, features)
    strength = gamma * _scale(features, weights) if check_flag("gamma_relative", gamma_relative) else gamma
    noise = _noise_of(noise, features)
    if form is not None:
        _check_width(head if form == "linear" else head[0], features)
        classes = (head if form == "linear" else head[2]).out_features
        targets = _targets(labels, len(features), classes, columns, loss, features)
        mean, moved = _Closed.apply(features, noise, strength, targets, weights, penalty, _has_bias(trained),
                                    *(value.to(features.dtype) for value in trained.values()))  # fmt: skip
    else:
        form = "torch.func"
        _say_once(type(head).__name__)
        _check_layers(head)
        try:
            logits = head(features)
        except RuntimeError as error:
            raise ValueError(f"head cannot take features {list(features.shape)} of {features.dtype} on "
                             f"{features.device}: {error}") from error  # fmt: skip
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(features):
            raise TypeError(f"head must give logits [B, C], got {getattr(logits, 'shape', type(logits).__name__)} of "
                            f"{len(features)} features")  # fmt: skip
        targets = _targets(labels, len(features), logits.shape[1], columns, loss, logits)
        mean, moved = _by_func(head, trained, (features, features + strength * noise), targets, weights, penalty)
    if gamma == 0 and penalty != "norm":
        moved = torch.zeros_like(moved)  # without the root of TINY
    return GradientMatching(mean + lam * moved, mean, moved, form)


class _Closed(torch.autograd.Function):
    """A closed form of one head, as a function that torch differentiates once."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, noise: Tensor, gamma: Any, targets: Targets, shares: Tensor | None,
                kind: str, has_bias: bool, *values: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
        with torch.autocast(features.device.type, enabled=False):
            ctx.form = _form(features, noise, gamma, targets, shares, kind, has_bias, values)
        ctx.save_for_backward(features, *values)  # which tells if they are changed before the backward pass
        return ctx.form.loss.reshape(()), ctx.form.penalty.reshape(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, on_loss: Tensor, on_penalty: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors
        with torch.autocast(on_loss.device.type, enabled=False):
            found, of_features = ctx.form.gradients(on_loss, on_penalty, features=ctx.needs_input_grad[0])
        if not isinstance(ctx.form, OneLinearForm):
            found, of_features = [value[0, 0] for value in found], None if of_features is None else of_features[0]
        return (of_features, *(None,) * 6, *found)


def _form(features: Tensor, noise: Tensor, gamma: Any, targets: Targets, shares: Tensor | None, kind: str,
          has_bias: bool, values: tuple[Tensor, ...]) -> Any:  # fmt: skip
    """The closed form of a head with these weights and biases."""
    is_linear = len(values) == 1 + has_bias
    if is_linear and kind == "difference" and shares is None and isinstance(gamma, float):
        return OneLinearForm(values[0], values[1] if has_bias else None, features, noise, targets, gamma)
    weights = [weight[None, None] for weight in values[:: 1 + has_bias]]
    biases = [bias[None, None] for bias in values[1::2]] if has_bias else []
    shares = None if shares is None else shares[None]
    form = LinearForm if is_linear else TwoLayerForm
    return form(weights, biases, features[None], noise[None], targets, gamma, kind, shares)


def _by_func(head: nn.Module, trained: dict[str, Tensor], halves: tuple[Tensor, Tensor], targets: Targets,
             shares: Tensor | None, kind: str) -> tuple[Tensor, Tensor]:  # fmt: skip
    def mean_loss(values: dict[str, Tensor], given: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.func.functional_call(head, values, (given,))
        rows, _, _ = targets(logits[None], lambda of: of)
        mean = rows[0].mean() if shares is None else (rows[0] * shares).sum()
        return mean, mean

    gradient = torch.func.grad(mean_loss, has_aux=True)
    device = halves[0].device
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=_drawn_on(device)):
        clean, mean = gradient(trained, halves[0])
    noisy, _ = gradient(trained, halves[1])  # from the same state of the generators, so the same dropout
    of = [[by_name[name].flatten() for name in trained] for by_name in (clean, noisy)]
    sums = [[(one * a + other * b).to(torch.promote_types(a.dtype, torch.float32)) for a, b in zip(*of)]
            for one, other in PENALTIES[kind]]  # fmt: skip
    return mean, penalty_of(kind, sums)[0]


def _has_bias(names: Any) -> bool:
    return any(name.endswith("bias") for name in names)


def _drawn_on(device: torch.device) -> str:
    return "cuda" if device.type == "cpu" else device.type


@cache
def _say_once(name: str) -> None:
    logger.warning("local_gradient_matching: no closed form is known of a %s head; its gradients are taken by "
                   "torch.func and differentiated twice, which is slower", name)  # fmt: skip


# ---- checks


def _check_choices(loss: str, penalty: str) -> None:
    for name, value, known in (("loss", loss, LOSSES), ("penalty", penalty, tuple(PENALTIES))):
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r:.80}")


def _trained(head: nn.Module) -> dict[str, Tensor]:
    if not isinstance(head, nn.Module):
        raise TypeError(f"head must be a torch module, such as nn.Linear(D, C), got {type(head).__name__}")
    trained = {name: value for name, value in head.named_parameters() if value.requires_grad}
    if not trained:
        raise ValueError("head has no parameter that is trained (requires_grad), so there is no gradient to match")
    return trained


def _check_features(features: Tensor) -> None:
    check_floats("features", features)
    if features.ndim < 2 or not features.numel():
        raise ValueError(f"features must be [B, D] with rows, got {list(features.shape)}")
    array = looked_at(features)
    if array is not None and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))[0])
        raise ValueError(f"features must be finite, and row {row} holds NaN or infinity; drop such rows")


def _check_width(layer: nn.Linear, features: Tensor) -> None:
    if features.shape[1] != layer.in_features:
        raise ValueError(f"features are {list(features.shape)}, and the head takes {layer.in_features} of each row")
    if layer.weight.device != features.device:
        raise ValueError(f"features are on {features.device}, the head on {layer.weight.device}; move one of them")


def _row_weights(weights: Tensor | None, features: Tensor) -> Tensor | None:
    """[B], of sum 1; None for a plain mean."""
    if weights is None:
        return None
    check_floats("sample_weight", weights)
    if weights.shape != (len(features),) or weights.device != features.device:
        raise ValueError(f"sample_weight must be [{len(features)}] on {features.device}, one of each row, got "
                         f"{list(weights.shape)} on {weights.device}")  # fmt: skip
    array = looked_at(weights)
    if array is not None and not ((array >= 0) & np.isfinite(array)).all() or array is not None and not array.any():
        raise ValueError(f"sample_weight must be finite, >= 0 and not all 0, got values from {array.min()}")
    weights = weights.detach().to(features.dtype)
    return weights / weights.sum()


def _noise_of(noise: Tensor | torch.Generator | None, features: Tensor) -> Tensor:
    if noise is None or isinstance(noise, torch.Generator):
        try:
            return torch.randn(features.shape, generator=noise, dtype=features.dtype, device=features.device)
        except RuntimeError as error:
            raise ValueError(f"noise must be a generator on {features.device}, as features are: {error}") from error
    check_floats("noise", noise)
    if noise.shape != features.shape or noise.device != features.device:
        raise ValueError(f"noise must be {list(features.shape)} on {features.device}, as the features are, got "
                         f"{list(noise.shape)} on {noise.device}")  # fmt: skip
    return noise.detach().to(features.dtype)


def _targets(labels: Tensor, rows: int, classes: int, columns: Tensor | None, loss: str, like: Tensor) -> Targets:
    if loss == "squared_error":
        check_floats("labels", labels)
        if columns is not None:
            raise ValueError('columns are of classes; a loss of "squared_error" has none')
        if labels.shape != (rows, classes) and (labels.shape != (rows,) or classes != 1):
            raise ValueError(f"labels must be [{rows}, {classes}], one number of each output, got {list(labels.shape)}")
        return Targets(labels.detach().reshape(1, rows, classes).to(like), squared=True)
    check_tensor("labels", labels)
    labels = check_integers("labels", labels)
    if labels.shape != (rows,):
        raise ValueError(f"labels must be [{rows}], one of each row of features, got {list(labels.shape)}")
    hot = _one_hot(labels, classes, like)[None]
    if columns is None:
        return Targets(hot)
    check_floats("columns", columns)
    if columns.shape != (classes, classes) or columns.device != labels.device:
        raise ValueError(f"columns must be [{classes}, {classes}] on {labels.device}, got {list(columns.shape)} on "
                         f"{columns.device}; they are log_columns(T) of the classes of the head")  # fmt: skip
    return Targets(hot, columns.detach().to(like.dtype)[labels][None])


def _one_hot(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    hot = like.new_zeros(len(labels), classes)
    try:
        return hot.scatter_(1, labels[:, None], 1.0)
    except RuntimeError:  # a CPU looks at every label anyway
        array = looked_at(labels)
        if array is not None and (wrong := (array < 0) | (array >= classes)).any():
            raise ValueError(f"labels must lie in [0, {classes}), the classes of the head, got {array[wrong][0]}"
                             ) from None  # fmt: skip
        raise


def _check_layers(head: nn.Module) -> None:
    for name, layer in head.named_modules():
        mixes = isinstance(layer, nn.modules.batchnorm._NormBase) and layer.training
        if mixes and (layer.track_running_stats or isinstance(layer, nn.modules.batchnorm._BatchNorm)):
            raise ValueError(f"head has a {type(layer).__name__} in training mode ({name or 'itself'}), whose "
                             "statistics mix the rows and change with each call; use LayerNorm, or head.eval()"
                             )  # fmt: skip


