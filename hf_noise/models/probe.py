"""Heads that are put on frozen features: linear, or two layers with a ReLU between them (paper B)."""

from __future__ import annotations

from torch import nn

from hf_noise.models.checks import MANY, check_int, check_name

__all__ = ["probe"]


def probe(
    name: str, num_features: int, num_classes: int, *, hidden: int | None = None, bias: bool = True
) -> nn.Linear | nn.Sequential:
    """A head by name, of the form whose Local Gradient Matching is known in closed form.

    Args:
        name: "linear", or "mlp" for `nn.Sequential(nn.Linear, nn.ReLU, nn.Linear)`.
        num_features: D of the features [B, D].
        num_classes: C of the logits [B, C].
        hidden: units between the two layers of an "mlp"; by default D, as in paper B.
        bias: whether layers have biases.

    Raises:
        ValueError: a number outside its range, an unknown name, hidden units of a linear head.
        TypeError: an argument is of another type.

    >>> probe("mlp", 8, 3)[0]
    Linear(in_features=8, out_features=8, bias=True)
    """
    check_name("name", name, ("linear", "mlp"))
    num_features = check_int("num_features", num_features, f"[1, {MANY}]")
    num_classes = check_int("num_classes", num_classes, f"[1, {MANY}]")
    if not isinstance(bias, bool):
        raise TypeError(f"bias must be True or False, got {bias!r:.80}")
    if name == "linear":
        if hidden is not None:
            raise ValueError(f'hidden must be None for a linear head, got {hidden!r:.80}; "mlp" has hidden units')
        return nn.Linear(num_features, num_classes, bias=bias)
    hidden = num_features if hidden is None else check_int("hidden", hidden, f"[1, {MANY}]")
    return nn.Sequential(
        nn.Linear(num_features, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, num_classes, bias=bias)
    )
