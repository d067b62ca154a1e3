"""EDM's augmentation: what each number of a description does, how often, and that draws depend on the image alone."""

import math

import pytest
import torch

from hf_noise.trainers.edm_augment import EDMAugment

SAMPLE = torch.arange(4000)


def image(size=16):
    """A soft spot of height 1 at (-1.5, -4.5), in pixels to the right and down from the middle."""
    at = torch.arange(size) - (size - 1) / 2
    return torch.exp(-((at[None, :] + 1.5) ** 2 + (at[:, None] + 4.5) ** 2) / 4.5)[None, None]


def brightness(pixels, right, down):
    """Of the pixels around a place, interpolated."""
    at = torch.tensor([[[[right, down]]]]) / (pixels.shape[-1] / 2)
    return torch.nn.functional.grid_sample(pixels, at, align_corners=False).item()


def moved(pixels, **numbers):
    """The image after the transformation with these numbers of the description, and angles."""
    names = ["across", "down", "scale", "cos", "sin", "stretch_cos", "stretch_sin", "right", "below"]
    angle, axis = (torch.tensor([numbers.pop(name, 0.0)]) for name in ("angle", "axis"))
    described = torch.tensor([[numbers.get(name, 0.0) for name in names]])
    grid = EDMAugment()._sources(described, angle, axis)
    grid = torch.nn.functional.affine_grid(grid, list(pixels.shape), align_corners=False)
    return torch.nn.functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def test_nothing_done_is_the_image_itself():
    pixels = torch.rand(5, 3, 8, 8) * 2 - 1
    still = EDMAugment(probability=0.0, flip=False)
    result, described = still(pixels, torch.arange(5), 0)
    torch.testing.assert_close(result, pixels, rtol=0, atol=1e-5)
    assert described.shape == (5, 9) and not described.any()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"across": 1.0}, (1.5, -4.5)), ({"down": 1.0}, (-1.5, 4.5)),
        ({"angle": math.pi / 2}, (4.5, -1.5)),  # clockwise, as the y axis points down
        ({"right": 1.0}, (0.5, -4.5)), ({"below": 2.0}, (-1.5, -0.5)),  # an eighth of 16 pixels each
        ({"scale": -5.0}, (-0.75, -2.25)), ({"stretch_cos": 5.0}, (-3.0, -2.25)),
    ],
)  # fmt: skip
def test_where_a_spot_goes(numbers, expected):
    result = moved(image(), **numbers)
    assert brightness(result, *expected) > 0.65  # linear interpolation takes some off where it shrinks
    assert brightness(result, -1.5, -4.5) < 0.7 or numbers == {"right": 1.0}


def test_shares_and_spreads():
    """Five standard deviations: a false alarm in 10^5 for all of these."""
    described, angle, _ = EDMAugment(probability=0.3, seed=2).draw(SAMPLE, 0)
    n = len(SAMPLE)

    def near(share, expected):
        return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)

    assert near(described[:, 0].mean(), 0.5) and near(described[:, 1].mean(), 0.15)
    for column in (2, 4, 5, 7):
        assert near((described[:, column] != 0).float().mean(), 0.3)
    assert ((described[:, 7] != 0) == (described[:, 8] != 0)).all()
    torch.testing.assert_close(described[:, 3], angle.cos() - 1)
    for column in (2, 7, 8):
        drawn = described[:, column][described[:, column] != 0]
        assert abs(drawn.mean()) < 5 / math.sqrt(len(drawn)) and abs(drawn.std() - 1) < 5 / math.sqrt(2 * len(drawn))
    assert not EDMAugment(flip=False).draw(SAMPLE, 0)[0][:, :2].any()


def test_half_of_the_stretches_turn_as_in_edm():
    """Five standard deviations: a false alarm in 10^6 for each share. Nothing else changes, nor those that turn."""
    always, half = (EDMAugment(probability=1.0, turned=turned).draw(SAMPLE, 0) for turned in (1.0, 0.5))
    same = half[2] == always[2]
    rows, columns = half[2] == 0, half[2] == torch.tensor(math.pi / 2)
    assert (same ^ rows ^ columns).all()
    for which, share in ((same, 0.5), (rows, 0.25), (columns, 0.25)):
        assert abs(which.float().mean() - share) < 5 * math.sqrt(share * (1 - share) / len(SAMPLE))
    kept = [0, 1, 2, 3, 4, 7, 8]
    assert torch.equal(always[0][:, kept], half[0][:, kept]) and torch.equal(always[1], half[1])
    torch.testing.assert_close(always[0][:, 5:7].norm(dim=1), half[0][:, 5:7].norm(dim=1))
    assert torch.equal(always[0][same], half[0][same])


def test_draws_depend_on_seed_epoch_and_sample_alone():
    augment = EDMAugment(probability=0.9, seed=1)
    pixels = torch.rand(6, 1, 8, 8)
    result, described = augment(pixels, SAMPLE[:6], 3)
    order = torch.tensor([4, 0, 5])
    again, told = augment(pixels[order], SAMPLE[order], 3)
    assert torch.equal(result[order], again) and torch.equal(described[order], told)
    assert not torch.equal(described, augment.draw(SAMPLE[:6], 4)[0])
    assert not torch.equal(described, EDMAugment(probability=0.9, seed=2).draw(SAMPLE[:6], 3)[0])


@pytest.mark.parametrize(
    ("epoch", "sample", "columns"), [(37, 36770, [5, 6]), (215, 16256, [2]), (223, 40260, [7])]
)
def test_the_largest_draw_is_finite(epoch, sample, columns):
    """u = 1 - 2^-24, the largest there is, in these samples' stretch, scale and shift: erfinv(1) is infinite."""
    sample = torch.tensor([sample])
    described, _, _ = EDMAugment(probability=1.0).draw(sample, epoch)
    assert described[0, columns].norm().item() == pytest.approx(5.42, abs=0.001)
    moved, described = EDMAugment()(torch.rand(1, 1, 8, 8), sample, epoch)
    assert torch.isfinite(moved).all() and torch.isfinite(described).all()


def test_refusals():
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\], got 1.5"):
        EDMAugment(probability=1.5)
    for name, value in (("shift", -1), ("scale", float("inf")), ("stretch", float("nan"))):
        with pytest.raises(ValueError, match=f"{name} must be finite and >= 0, got {value}"):
            EDMAugment(**{name: value})
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=rf"seed must lie in \[0, 2\^63\), got {seed}"):
            EDMAugment(seed=seed)
    with pytest.raises(TypeError, match="flip must be True or False, got 1"):
        EDMAugment(flip=1)
    with pytest.raises(ValueError, match="2 images need as many sample ids, got 1"):
        EDMAugment()(torch.zeros(2, 1, 8, 8), SAMPLE[:1], 0)
    with pytest.raises(ValueError, match=r"equal sides, got \[8, 6\]"):
        EDMAugment()(torch.zeros(1, 1, 8, 6), SAMPLE[:1], 0)
