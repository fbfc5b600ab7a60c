"""Conversion is compared with Pillow and torchvision, which round to bytes: one grey level is the tolerance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from gauntlet.datasets import ImageSet
from gauntlet.datasets.convert import convert
from gauntlet.registry import GauntletError


def image_set(pixels: torch.Tensor) -> ImageSet:
    return ImageSet(pixels, torch.full((len(pixels),), -1), (), torch.arange(len(pixels)), "noise", "test")


def random_bytes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_the_same_shape_is_the_same_object():
    images = image_set(random_bytes(2, 1, 28, 28))
    assert convert(images, (1, 28, 28)) is images


def test_colour_becomes_the_luma_that_pillow_computes():
    images = image_set(random_bytes(6, 3, 32, 32))
    grey = convert(images, (1, 32, 32)).pixels[:, 0]
    pillow = [np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in images.pixels]
    assert np.abs(grey.numpy().astype(int) - np.stack(pillow).astype(int)).max() <= 1


def test_float_luma_is_that_of_torchvision_to_its_four_digits():
    pixels = torch.rand(4, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = TF.rgb_to_grayscale(pixels)  # its weights are 0.2989, 0.587, 0.114
    torch.testing.assert_close(convert(image_set(pixels), (1, 9, 7)).pixels, expected, atol=2e-4, rtol=0)


def test_grey_becomes_colour_by_repetition():
    images = image_set(random_bytes(3, 1, 5, 5))
    colour = convert(images, (3, 5, 5)).pixels
    assert all(torch.equal(colour[:, channel], images.pixels[:, 0]) for channel in range(3))


@pytest.mark.parametrize(
    ("old", "new"), [((32, 32), (28, 28)), ((28, 28), (32, 32)), ((35, 20), (8, 31)), ((96, 96), (28, 28))]
)
def test_sizes_change_as_in_torchvision_and_pillow(old, new):
    images = image_set(random_bytes(4, 3, *old))
    ours = convert(images, (3, *new)).pixels.int()
    torchvision = TF.resize(images.pixels, list(new), antialias=True).int()
    arrays = [
        np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).resize(new[::-1], Image.Resampling.BILINEAR))
        for image in images.pixels
    ]
    pillow = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).int()
    assert (ours - torchvision).abs().max() <= 1
    assert (ours - pillow).abs().max() <= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_set_keeps_its_type_and_stays_in_range(dtype):
    pixels = random_bytes(3, 3, 16, 16)
    images = image_set(pixels if dtype == torch.uint8 else pixels.float() / 255)
    converted = convert(images, (1, 28, 28))
    assert converted.pixels.dtype == dtype
    assert 0 <= converted.images.min() <= converted.images.max() <= 1


def test_bytes_are_the_rounded_floats():
    pixels = random_bytes(3, 3, 16, 16)
    floats = convert(image_set(pixels.float() / 255), (1, 11, 11)).pixels
    assert torch.equal(convert(image_set(pixels), (1, 11, 11)).pixels, (floats * 255).round().to(torch.uint8))


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_a_plain_image_stays_plain(value):
    images = image_set(torch.full((1, 3, 17, 13), value, dtype=torch.uint8))
    assert convert(images, (1, 28, 28)).pixels.unique().tolist() == [value]


def test_labels_indices_and_order_stay():
    images = image_set(random_bytes(5, 1, 8, 8)).subset([4, 0, 2])
    assert convert(images, (3, 4, 4)).indices.tolist() == [4, 0, 2]


def test_many_images_are_converted_in_parts_to_the_same_result():
    images = image_set(random_bytes(4100, 1, 4, 4))
    last = convert(images.subset([4099]), (1, 3, 3)).pixels[0]
    assert torch.equal(convert(images, (1, 3, 3)).pixels[4099], last)


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        ((3, 32, 32), (1, 28, 28), "3x32x32 -> 1x28x28: luma (ITU-R 601), bilinear"),
        ((1, 28, 28), (3, 28, 28), "1x28x28 -> 3x28x28: grey repeated"),
        ((1, 28, 28), (1, 8, 8), "1x28x28 -> 1x8x8: bilinear"),
    ],
)
def test_what_was_done_is_recorded(old, new, note):
    assert convert(image_set(random_bytes(1, *old)), new).conversion == note


def test_two_conversions_are_both_recorded():
    twice = convert(convert(image_set(random_bytes(1, 1, 8, 8)), (1, 4, 4)), (3, 4, 4))
    assert twice.conversion == "1x8x8 -> 1x4x4: bilinear; 1x4x4 -> 3x4x4: grey repeated"


@pytest.mark.parametrize(("old", "new"), [((2, 8, 8), (1, 8, 8)), ((3, 8, 8), (4, 8, 8))])
def test_other_numbers_of_channels_do_not_convert(old, new):
    with pytest.raises(GauntletError, match=r"'noise' cannot be converted .* only 1 channel \(grey\) and 3"):
        convert(image_set(random_bytes(1, *old)), new)
