"""Corruptions in batches against scikit-image, scipy, numpy and PIL, image by image.

    pytest -m benchmark_suite -s tests/benchmarks/test_corruptions_speed.py

Severity 5 of CIFAR-10-C on 500 images of 32x32 in colour, one thread; the peers do what the benchmark's own scripts do
with these libraries. Those of motion blur and snow (ImageMagick) and frost (photographs) have none here.
"""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from gauntlet.datasets import ImageSet
from gauntlet.datasets.corruptions import corrupted
from gauntlet.registry import CORRUPTIONS

pytestmark = [pytest.mark.benchmark_suite, pytest.mark.usefixtures("one_thread")]
COUNT, SIDE = 500, 32


def gaussian_noise(x):
    return x + np.random.normal(size=x.shape, scale=0.10)


def shot_noise(x):
    return np.random.poisson(x * 50) / 50


def impulse_noise(x):
    from skimage.util import random_noise

    return random_noise(x, mode="s&p", amount=0.07)


def defocus_blur(x):
    line = np.arange(-8, 9)
    disk = (line[:, None] ** 2 + line**2 <= 1.5**2).astype(float)
    kernel = ndimage.gaussian_filter(disk / disk.sum(), 0.1)[6:11, 6:11]
    return np.stack([ndimage.correlate(x[..., c], kernel, mode="mirror") for c in range(3)], axis=2)


def glass_blur(x):
    from skimage.filters import gaussian

    x = gaussian(x, 0.4, channel_axis=2)
    for _ in range(2):
        for row in range(SIDE - 1, 1, -1):
            for column in range(SIDE - 1, 1, -1):
                right, down = np.random.randint(-1, 1, size=2)
                here, there = (row, column), (row + down, column + right)
                kept = x[here].copy()
                x[here] = x[there]
                x[there] = kept
    return gaussian(x, 0.4, channel_axis=2)


def zoom_blur(x):
    factors = np.arange(1, 1.26, 0.01)
    total = x.copy()
    for factor in factors:
        part = math.ceil(SIDE / factor)
        first = (SIDE - part) // 2
        enlarged = ndimage.zoom(x[first : first + part, first : first + part], (factor, factor, 1), order=1)
        cut = (len(enlarged) - SIDE) // 2
        total += enlarged[cut : cut + SIDE, cut : cut + SIDE]
    return total / (len(factors) + 1)


def brightness(x):
    from skimage.color import hsv2rgb, rgb2hsv

    hsv = rgb2hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.3, 0, 1)
    return hsv2rgb(hsv)


def contrast(x):
    means = x.mean(axis=(0, 1), keepdims=True)
    return (x - means) * 0.15 + means


def elastic_transform(x):
    from skimage.transform import AffineTransform, warp

    before = np.array([[26, 26], [26, 6], [6, 6]], float)
    after = before + np.random.uniform(-0.03 * SIDE, 0.03 * SIDE, (3, 2))
    bent = warp(x, AffineTransform.from_estimate(after, before), mode="reflect")
    right, down = (
        0.1 * SIDE * ndimage.gaussian_filter(np.random.uniform(-1, 1, (SIDE, SIDE)), 0.03 * SIDE, truncate=3)
        for _ in range(2)
    )
    rows, columns = np.mgrid[:SIDE, :SIDE]
    places = [rows + down, columns + right]
    return np.stack([ndimage.map_coordinates(bent[..., c], places, order=1, mode="reflect") for c in range(3)], axis=2)


def pixelate(x):
    small = Image.fromarray(np.uint8(x * 255)).resize((20, 20), Image.Resampling.BOX)
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255


def jpeg_compression(x):
    file = io.BytesIO()
    Image.fromarray(np.uint8(x * 255)).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file)) / 255


PEERS = [
    *(gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, zoom_blur, brightness, contrast),
    *(elastic_transform, pixelate, jpeg_compression),
]


def test_batches_are_faster_than_image_by_image(fastest, benchmark) -> None:
    pixels = torch.randint(256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet(pixels, torch.zeros(COUNT).long(), ("a",), torch.arange(COUNT), "random", "test")
    one_by_one = list(images.images.permute(0, 2, 3, 1).double().numpy())
    total = {"ours": 0.0, "theirs": 0.0}
    for peer in PEERS:
        entry = CORRUPTIONS.get(peer.__name__.replace("_", "-"))
        sides = {
            "ours": lambda entry=entry: corrupted(images, entry, 5),
            "theirs": lambda peer=peer: [np.uint8(np.clip(peer(image), 0, 1) * 255) for image in one_by_one],
        }
        times = fastest(sides, rounds=2)
        total = {name: total[name] + seconds for name, seconds in times.items()}
        print(f"\n{entry.name}: {1e6 * times['ours'] / COUNT:.0f} us an image, {times['theirs'] / times['ours']:.1f} x")
    ratio = total["theirs"] / total["ours"]
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(lambda: corrupted(images, CORRUPTIONS.get("fog"), 5), rounds=1)
    print(f"\n{len(PEERS)} corruptions of {COUNT} images: {total['ours']:.2f} s, {ratio:.1f} times faster")
    assert ratio >= 8
