"""Networks are in evaluation mode for a while, and each part is in its own mode again afterwards."""

import pytest
from torch import nn

from hf_noise.evaluation_mode import evaluation_mode


@pytest.mark.parametrize("fails", [False, True])
def test_each_part_is_in_its_own_mode_again(fails):
    network = nn.Sequential(nn.Linear(1, 1), nn.Dropout()).train()
    network[1].eval()
    try:
        with evaluation_mode(network, None):
            assert not any(part.training for part in network.modules())
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert [part.training for part in network.modules()] == [True, True, False]
