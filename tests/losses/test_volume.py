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


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("diagonal", [0.48, 0.51, 0.99])
def test_the_diagonal_starts_where_it_is_told(classes, diagonal):
    if diagonal * classes <= 1:
        with pytest.raises(ValueError, match=r"initial_diagonal must lie in \(1/C, 1\) = \(0.5, 1\) .* got 0.48"):
            VolumeMinimisation(classes, initial_diagonal=diagonal)
        return
    transition = VolumeMinimisation(classes, initial_diagonal=diagonal).transition
    assert transition.diagonal().tolist() == pytest.approx([diagonal] * classes, abs=2e-6)


def test_the_authors_of_volume_minimisation_start_100_classes_at_the_diagonal_of_10():
    for start in ({"initial": -4.5}, {"initial_diagonal": 0.4791}):
        assert VolumeMinimisation(100, **start).transition[0, 0].item() == pytest.approx(0.479, abs=5e-4)


@pytest.mark.parametrize("errors", [0.5, 0.1, 1e-2, 1e-3, 1e-5])
def test_the_volume_is_too_large_by_what_its_docstring_says(errors):
    """T = [[1 - a, a], [a, 1 - a]] has the singular values 1 and 1 - 2a."""
    volume = VolumeMinimisation(2, initial_diagonal=0.5 + errors / 2)
    singular = np.linalg.svd(volume.transition.detach().double().numpy(), compute_uv=False)
    excess = volume.log_volume().item() - np.log(singular).sum()
    assert excess == pytest.approx(np.log1p((1e-4 / singular) ** 2).sum() / 2, abs=1e-6)
    assert excess <= 2 * 1e-8 / (2 * singular.min() ** 2) + 1e-6


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1,), ValueError, "num_classes must be >= 2, got 1"), ((2.0,), TypeError, "num_classes must be an integer"),
        ((2, float("nan")), ValueError, "initial must lie in"), ((2, "1"), TypeError, "initial must be a real number"),
    ],
)  # fmt: skip
def test_bad_settings(arguments, error, message):
    with pytest.raises(error, match=message):
        VolumeMinimisation(*arguments)
    with pytest.raises(ValueError, match="both say where T starts"):
        VolumeMinimisation(2, -2.0, initial_diagonal=0.8)
