"""Images on the device and through workers: the same augmentation for a sample wherever and whenever it is drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from torch.utils.data import DataLoader

from hf_noise.trainers.image_classifier import collate_images
from hf_noise.trainers.images import (
    CropFlip,
    DeviceImages,
    WorkerImages,
    channel_statistics,
    decode_images,
    label_columns,
)


def random_images(n, channels=3, size=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8))


def device_images(n=10, augment=None, **columns):
    columns = {"labels": torch.arange(n) % 3, "sample_id": torch.arange(n) * 7, **columns}
    return DeviceImages(random_images(n), columns, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4], augment=augment)


def image_rows(images, labels, **more):
    pictures = [Pillow.fromarray(image.permute(1, 2, 0).numpy().squeeze()) for image in images]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    rows = Dataset.from_dict({"image": pictures, "label": labels}, features=features)
    for name, column in more.items():
        rows = rows.add_column(name, column)
    return rows


def by_hand(image, padding, down, right, mirrored):
    """Torchvision's order: pad, crop, flip."""
    padded = torch.nn.functional.pad(image, [padding] * 4)
    crop = padded[:, down : down + image.shape[1], right : right + image.shape[2]]
    return crop.flip(-1) if mirrored else crop


@given(seed=st.integers(0, 2**31), padding=st.integers(0, 4), flip=st.booleans(), epoch=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_every_result_is_a_crop_of_the_padded_image(seed, padding, flip, epoch):
    images, sample = random_images(6, seed=seed), torch.arange(6) * 11
    found = CropFlip(padding=padding, flip=flip, seed=seed)(images, sample, epoch)
    offsets = range(2 * padding + 1)
    for image, result in zip(images, found):
        assert any(
            torch.equal(result, by_hand(image, padding, down, right, mirrored))
            for down in offsets for right in offsets for mirrored in {False, flip}
        )  # fmt: skip


def test_draws_depend_on_seed_epoch_and_sample_alone():
    images, sample, augment = random_images(40), torch.arange(40), CropFlip(padding=2, seed=1)
    found = augment(images, sample, 3)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment(images[order], sample[order], 3), found[order])
    assert torch.equal(augment(images[5:6], sample[5:6], 3), found[5:6])
    for other in (augment(images, sample, 4), CropFlip(padding=2, seed=2)(images, sample, 3)):
        assert not torch.equal(other, found)


def test_all_offsets_and_mirrors_are_drawn_equally_often():
    """18 cells of 20,000 draws: each within 5 standard errors, which chance breaks once in 10^5 for fixed seeds."""
    n = 20_000
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4) + 1
    found = CropFlip(padding=1, seed=0)(image.expand(n, 1, 4, 4), torch.arange(n), 0).view(n, 16)
    kinds, counts = torch.unique(found, dim=0, return_counts=True)
    assert len(kinds) == 18
    expected, error = n / 18, (n * (1 / 18) * (17 / 18)) ** 0.5
    assert ((counts - expected).abs() < 5 * error).all()


def test_a_batch_is_normalised_and_keeps_its_columns():
    rows = device_images(is_noisy=torch.arange(10) % 2 == 0)
    batch = rows.__getitems__([4, 1])
    image = rows.images[4].double() / 255
    expected = (image - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(batch["pixel_values"][0], expected.float(), rtol=1e-5, atol=1e-5)
    assert batch["labels"].tolist() == [1, 1] and batch["sample_id"].tolist() == [28, 7]
    assert batch["is_noisy"].tolist() == [True, False]
    assert torch.equal(rows[4]["pixel_values"], batch["pixel_values"][0])


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_a_loader_gives_the_same_images_in_any_batch(batch_size):
    rows = device_images(augment=CropFlip(padding=1))
    rows.set_epoch(2)
    batches = list(DataLoader(rows, batch_size=batch_size, collate_fn=collate_images))
    found = torch.cat([batch["pixel_values"] for batch in batches])
    assert torch.equal(found, rows.__getitems__(range(10))["pixel_values"])


def test_decoding_keeps_pixels_labels_and_ids():
    images, labels = random_images(5), [0, 1, 2, 1, 0]
    rows = image_rows(images, labels, clean_label=[0, 1, 2, 2, 0], is_noisy=[False, False, False, True, False])
    found = DeviceImages.from_dataset(rows, num_channels=3, mean=[0.0] * 3, std=[1.0] * 3)
    assert torch.equal(found.images, images)
    assert found.columns["labels"].tolist() == labels and found.columns["clean_labels"].tolist() == [0, 1, 2, 2, 0]
    assert found.columns["is_noisy"].dtype == torch.bool and found.columns["sample_id"].tolist() == [0, 1, 2, 3, 4]


def test_small_images_are_padded_with_zeros_around():
    images = random_images(2, channels=1)
    rows = image_rows(images, [0, 1])
    found = DeviceImages.from_dataset(rows, num_channels=1, pad_to=9, mean=[0.0], std=[1.0]).images
    assert found.shape == (2, 1, 9, 9) and torch.equal(found[:, :, 1:7, 1:7], images)
    assert found.long().sum() == images.long().sum()
    with pytest.raises(ValueError, match=r"pad_to=5, but the images are \[6, 6\] pixels.*resize=True.* or pad_to=6"):
        DeviceImages.from_dataset(rows, num_channels=1, pad_to=5, mean=[0.0], std=[1.0])


def test_images_of_any_size_are_resized_if_asked():
    stripes = np.zeros((64, 128, 1), dtype=np.uint8)
    stripes[:, 32:96:2] = 200  # a fine pattern between black margins
    pictures = [Pillow.fromarray(stripes[:, :, 0]), Pillow.new("RGB", (3, 9), (0, 50, 0)), Pillow.new("L", (8, 8), 7)]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    rows = Dataset.from_dict({"image": pictures, "label": [0, 1, 2]}, features=features)
    options = {"num_channels": 3, "mean": [0.0], "std": [1.0]}
    images = DeviceImages.from_dataset(rows, pad_to=8, resize=True, **options).images
    assert images.shape == (3, 3, 8, 8) and (images[0, :, :, 1:-1].int() - 100).abs().max() <= 3  # averaged, and cut
    assert (images[1, 1] == 50).all() and (images[1, 0] == 0).all() and (images[2] == 7).all()
    with pytest.raises(ValueError, match="image 1 is .*WorkerImages, or pad_to= with resize=True"):
        DeviceImages.from_dataset(rows, pad_to=128, **options)
    for wrong, message in [({"resize": True}, "resize=True needs pad_to="), ({"resize": 1}, "resize must be True or")]:
        with pytest.raises((TypeError, ValueError), match=message):
            DeviceImages.from_dataset(rows, **options, **wrong)


def test_images_of_two_sizes_and_broken_files_are_named():
    rows = image_rows(random_images(2), [0, 1])
    sizes = {"image": [Pillow.new("RGB", (6, 6)), Pillow.new("RGB", (6, 7))]}
    taller = Dataset.from_dict(sizes).cast_column("image", Image())
    with pytest.raises(ValueError, match=r"image 1 is \[7, 6\] pixels, the first one \[6, 6\].*WorkerImages"):
        decode_images(taller, "image", 3)
    file = io.BytesIO()
    rows[0]["image"].save(file, "png")
    broken = Dataset.from_dict({"image": [file.getvalue(), file.getvalue()[:40]]}).cast(Features({"image": Image()}))
    with pytest.raises(ValueError, match="image 1 cannot be read"):
        decode_images(broken, "image", 3)
    with pytest.raises(ValueError, match="num_channels must be 1 or 3, got 2"):
        decode_images(rows, "image", 2)


def test_labels_without_ids_are_numbered():
    rows = Dataset.from_dict({"label": [2, 0]}, features=Features({"label": Value("int32")}))
    found = label_columns(rows)
    assert found["labels"].tolist() == [2, 0] and found["labels"].dtype == torch.int64
    assert found["sample_id"].tolist() == [0, 1] and set(found) == {"labels", "sample_id"}


def test_channel_statistics_of_known_images():
    images = random_images(7)
    mean, std = channel_statistics(images)
    values = images.double().div(255).transpose(0, 1).flatten(1)
    assert mean == pytest.approx(values.mean(1).tolist())
    assert std == pytest.approx(values.std(1, unbiased=False).tolist())


def jitter(image):
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()
    return pixels + torch.rand(())


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_draw_what_the_main_process_draws(workers):
    rows = WorkerImages(image_rows(random_images(6), [0, 1, 2, 0, 1, 2]), jitter, seed=3)
    rows.set_epoch(1)
    expected = torch.stack([rows[i]["pixel_values"] for i in range(6)])
    loader = DataLoader(
        rows, batch_size=4, num_workers=workers, collate_fn=collate_images, persistent_workers=workers > 0
    )
    for epoch, same in ((1, True), (2, False), (1, True)):
        rows.set_epoch(epoch)
        found = torch.cat([batch["pixel_values"] for batch in loader])
        assert torch.equal(found, expected) == same
    assert len({float(value) for value in (expected - expected.floor()).amax((1, 2, 3))}) == 6


def test_workers_leave_the_random_state_alone():
    rows = WorkerImages(image_rows(random_images(1), [0]), jitter)
    torch.manual_seed(5)
    before = torch.rand(2)
    torch.manual_seed(5)
    rows[0]
    assert torch.equal(torch.rand(2), before)


@pytest.mark.parametrize("kind", [np.ulonglong, np.longlong, np.intc, np.uint16])
def test_labels_of_any_integer_of_c_are_taken(kind):
    row = {"pixel_values": [[[0.5]]], "label": kind(3), "sample_id": kind(1)}
    batch = collate_images([row, row])
    assert batch["labels"].tolist() == [3, 3] and batch["sample_id"].tolist() == [1, 1]
