"""Heads on frozen features."""

import pytest
import torch
from torch import nn

from hf_noise.losses import local_gradient_matching
from hf_noise.models.probe import probe


def test_heads_by_name_have_a_closed_form():
    linear, deep, narrow = probe("linear", 8, 3), probe("mlp", 8, 3), probe("mlp", 8, 3, hidden=2, bias=False)
    assert isinstance(linear, nn.Linear) and deep[0].weight.shape == (8, 8) and narrow[0].weight.shape == (2, 8)
    assert narrow[2].bias is None and deep[2].weight.shape == (3, 8)
    for head, how in ((linear, "linear"), (deep, "mlp"), (narrow, "mlp")):
        assert head(torch.ones(2, 8)).shape == (2, 3)
        assert local_gradient_matching(head, torch.ones(2, 8), torch.tensor([0, 1]), gamma=0.1).how == how


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("conv", 8, 3), ValueError, "name must be one of 'linear', 'mlp', got 'conv'"),
        (("linear", 0, 3), ValueError, "num_features must be a whole number"),
        (("linear", 8, 2.0), TypeError, "num_classes must be a whole number"),
    ],
)
def test_what_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        probe(*arguments)


def test_a_linear_head_has_no_hidden_units():
    with pytest.raises(ValueError, match="hidden must be None for a linear head, got 3"):
        probe("linear", 8, 3, hidden=3)
    with pytest.raises(TypeError, match="bias must be True or False"):
        probe("linear", 8, 3, bias=1)
