"""Volume minimisation: where it starts, what it computes, and that it finds a matrix it was not told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_noise.losses import VolumeMinimisation, transition_nll


@pytest.mark.parametrize(("classes", "diagonal"), [(3, 0.807), (10, 0.482), (100, 0.078)])
def test_it_starts_where_the_paper_does(classes, diagonal):
    transition = VolumeMinimisation(classes).transition
    assert transition.diagonal().tolist() == pytest.approx([diagonal] * classes, abs=5e-4)
    torch.testing.assert_close(transition.sum(-1), torch.ones(classes))


@pytest.mark.parametrize("seed", range(3))
def test_the_diagonal_is_the_largest_of_its_row_and_the_loss_is_the_corrected_one(seed):
    draw = torch.Generator().manual_seed(seed)
    volume = VolumeMinimisation(4)
    volume.A.data = 3 * torch.randn(4, 4, generator=draw)
    transition = volume.transition
    assert (transition.argmax(-1) == torch.arange(4)).all()
    logits, labels = torch.randn(20, 4, generator=draw), torch.randint(4, (20,), generator=draw)
    torch.testing.assert_close(volume(logits, labels), transition_nll(logits, labels, transition.detach()))
    expected = np.linalg.slogdet(transition.detach().double().numpy())[1]
    assert volume.log_volume().item() == pytest.approx(expected, rel=1e-4)


def test_neither_an_impossible_label_nor_a_singular_matrix_breaks_it():
    volume = VolumeMinimisation(2)
    volume.A.data.fill_(40.0)  # sigmoid is 1: all entries are 0.5, det T = 0
    loss = volume(torch.tensor([[1e4, -1e4]]), torch.tensor([1])).sum() + volume.log_volume()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(volume.A.grad).all()
    volume.A.data.fill_(-200.0)  # sigmoid is 0: the identity, by which the label cannot be
    assert volume(torch.tensor([[1e4, -1e4]]), torch.tensor([1])).item() == pytest.approx(-np.log(1e-12), rel=1e-3)


def test_a_smaller_volume_is_a_smaller_loss():
    """By one step down the gradient of log |det T| alone, rows move away from the identity."""
    volume = VolumeMinimisation(5)
    before = volume.transition.diagonal().min().item()
    volume.log_volume().backward()
    volume.A.data -= volume.A.grad
    assert volume.transition.diagonal().max().item() < before


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="num_classes must be >= 2, got 1"):
        VolumeMinimisation(1)
