"""Augmentations of contrastive learning: whole batches on the device, each image with draws of its own.

For given parameters each is what torchvision's function of the same kind computes on a float tensor; the tests compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import torch
from torch import Generator, Tensor

from ...registry import GauntletError, augmentation
from .augment import warp

_REFERENCE = "Chen, Kornblith, Norouzi, Hinton 2020, arXiv 2002.05709"
_GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, as torchvision rounds it
_ATTEMPTS = 10


def uniform(count: int, rng: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draws (count,) from [low, high) on the generator's device."""
    return low + (high - low) * torch.rand(count, generator=rng, device=rng.device)


def sometimes(images: Tensor, rng: Generator, p: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images, a random share ``p`` of them changed; ``change`` sees those only."""
    if p >= 1:
        return change(images)
    chosen = (uniform(len(images), rng) < p).nonzero()[:, 0]
    return images.index_copy(0, chosen, change(images[chosen])) if len(chosen) else images


# -- geometry -------------------------------------------------------------------------------------------------


@augmentation("resized-crop", reference=_REFERENCE)
def resized_crop(
    images: Tensor, rng: Generator, *, low: float = 0.08, high: float = 1.0, ratio: float = 4 / 3
) -> Tensor:
    """Take a random part (share ``low`` to ``high`` of the area, sides up to ``ratio`` apart) at the old size."""
    count, _, height, width = images.shape
    return resample(images, *crop_boxes(count, height, width, rng, low, high, ratio))


def crop_boxes(
    count: int, height: int, width: int, rng: Generator, low: float, high: float, ratio: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width (count,) of random parts, by the procedure of torchvision's RandomResizedCrop.

    Area and log aspect ratio are uniform; the first of ten draws that fits inside counts, else the whole image does
    (torchvision's central crop, where the image's own aspect ratio is within bounds).
    """
    area = height * width * uniform(count * _ATTEMPTS, rng, low, high).view(count, _ATTEMPTS)
    aspect = uniform(count * _ATTEMPTS, rng, -math.log(ratio), math.log(ratio)).view(count, _ATTEMPTS).exp()
    tall, wide = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)
    some = fits.any(1)
    tall = torch.where(some, tall.gather(1, first)[:, 0], float(height))
    wide = torch.where(some, wide.gather(1, first)[:, 0], float(width))
    top = (uniform(count, rng) * (height - tall + 1)).floor()
    left = (uniform(count, rng) * (width - wide + 1)).floor()
    return top, left, tall, wide


def resample(images: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """Each image's own box at the old size, bilinear: one matrix from either side. Nothing shrinks, so none aliases."""
    return from_both_sides(_resampling(images.shape[2], top, tall), images, _resampling(images.shape[3], left, wide))


def from_both_sides(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """rows (N, H, H) @ image @ columns (N, W, W) transposed, for every channel of images (N, C, H, W).

    All channels of an image share one product a side: they stand below one another for the first, beside one another
    for the second.
    """
    count, channels, height, width = images.shape
    wide = torch.bmm(images.reshape(count, channels * height, width), columns.transpose(1, 2))
    tall = wide.view(count, channels, height, width).transpose(1, 2).reshape(count, height, channels * width)
    return torch.bmm(rows, tall).view(count, height, channels, width).transpose(1, 2)


def _resampling(side: int, start: Tensor, length: Tensor) -> Tensor:
    """Matrices (N, side, side) that read ``length`` pixels from ``start`` on and write ``side`` of them.

    Row i holds the weights of the old pixels in new pixel i: a triangle around its place, cut off at the box and made
    to sum to one.
    """
    old = torch.arange(side, device=start.device) + 0.5
    centre = start[:, None, None] + (length / side)[:, None, None] * old[None, :, None]
    weights = (1 - (old[None, None, :] - centre).abs()).clamp(min=0)
    inside = (old[None, :] > start[:, None]) & (old[None, :] < (start + length)[:, None])
    weights = weights * inside[:, None, :]
    return weights / weights.sum(2, keepdim=True)


@augmentation("enlarge")
def enlarge(images: Tensor, rng: Generator, *, factor: float = 4 / 3) -> Tensor:
    """Interpolate each image to ``factor`` times its size and take a random window of the old size."""
    count, _, height, width = images.shape
    tall, wide = (torch.full((count,), side / factor, device=rng.device) for side in (height, width))
    top = uniform(count, rng) * (height - tall)
    left = uniform(count, rng) * (width - wide)
    return resample(images, top, left, tall, wide)


@augmentation("stretch")
def stretch(images: Tensor, rng: Generator, *, factor: float = 1.5) -> Tensor:
    """Stretch or shrink rows and columns apart from one another, by up to ``factor``; black outside."""
    across, down = (uniform(len(images), rng, -math.log(factor), math.log(factor)).exp() for _ in range(2))
    zero = torch.zeros_like(across)
    rows = [torch.stack([across, zero, zero], 1), torch.stack([zero, down, zero], 1)]
    return warp(images, torch.stack(rows, 1))


# -- colour ---------------------------------------------------------------------------------------------------


@augmentation("colour-jitter", reference=_REFERENCE)
def colour_jitter(
    images: Tensor,
    rng: Generator,
    *,
    brightness: float = 0.8,
    contrast: float = 0.8,
    saturation: float = 0.8,
    hue: float = 0.2,
    p: float = 0.8,
) -> Tensor:
    """With probability ``p``: change brightness, contrast, saturation and hue, in an order drawn for each image.

    The factors of the first three are uniform in [max(0, 1 - s), 1 + s], the hue's shift in [-hue, hue] (of a full
    turn). Of grey images only brightness and contrast can change.
    """
    if hue > 0.5 or min(brightness, contrast, saturation, hue) < 0:
        raise GauntletError(f"colour-jitter needs strengths >= 0 and a hue of at most 0.5, got a hue of {hue}.")
    operations: list[Callable[[Tensor, Tensor], Tensor]] = [adjust_brightness, adjust_contrast]
    ranges = [(max(0.0, 1 - s), 1 + s) for s in (brightness, contrast)]
    if images.shape[1] == 3:
        operations += [adjust_saturation, adjust_hue]
        ranges += [(max(0.0, 1 - saturation), 1 + saturation), (-hue, hue)]

    def change(chosen: Tensor) -> Tensor:
        factors = [uniform(len(chosen), rng, *bounds) for bounds in ranges]
        orders = list(permutations(range(len(operations))))
        which = (uniform(len(chosen), rng) * len(orders)).long()
        changed = torch.empty_like(chosen)
        # Images that share an order go together: each is read and written as often as torchvision would.
        for number in which.unique().tolist():
            group = (which == number).nonzero()[:, 0]
            part = chosen[group]
            for operation in orders[number]:
                part = operations[operation](part, factors[operation][group].view(-1, 1, 1, 1))
            changed[group] = part
        return changed

    return sometimes(images, rng, p, change)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Images (N, C, H, W) times factors (N, 1, 1, 1)."""
    return (images * factors).clamp_(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Away from (or towards) the mean grey of each image."""
    mean = grey(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, factors).clamp_(0, 1)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Away from (or towards) the grey of each pixel."""
    return torch.lerp(grey(images).expand_as(images), images, factors.expand_as(images)).clamp_(0, 1)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue of each pixel by a part of a full circle, value and saturation unchanged."""
    red, green, blue = images.unbind(1)
    high = images.amax(1)
    spread = high - images.amin(1)
    safe = torch.where(spread > 0, spread, 1.0)
    # The place on the circle in sixths: which channel is largest, and how the other two differ.
    place = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    place = torch.remainder(place + 6 * shifts[:, 0], 6)
    # How much of the spread each channel has at that place of the circle: flat tops and bottoms, ramps between.
    shares = ((place - 3).abs_() - 1, 2 - (place - 2).abs_(), 2 - (place - 4).abs_())
    low = high - spread
    return torch.stack([torch.addcmul(low, spread, share.clamp_(0, 1)) for share in shares], 1)


def grey(images: Tensor) -> Tensor:
    """Luma (N, 1, H, W); grey images are their own."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(1)
    return (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue)[:, None]


@augmentation("greyscale", reference=_REFERENCE)
def greyscale(images: Tensor, rng: Generator, *, p: float = 0.2) -> Tensor:
    """Take the colour away with probability ``p``."""
    return sometimes(images, rng, p, lambda chosen: grey(chosen).expand_as(chosen))


# -- sharpness ------------------------------------------------------------------------------------------------


@augmentation("blur", reference=_REFERENCE)
def blur(
    images: Tensor, rng: Generator, *, share: float = 0.1, low: float = 0.1, high: float = 2.0, p: float = 0.5
) -> Tensor:
    """With probability ``p``: Gaussian blur, sigma uniform in [low, high], kernel about ``share`` of the side."""
    side = min(images.shape[2:])
    radius = max(1, round((share * side - 1) / 2))
    return sometimes(images, rng, p, lambda chosen: gaussian_blur(chosen, uniform(len(chosen), rng, low, high), radius))


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Each image with its own sigma (N,) and 2 * radius + 1 taps a side; borders are mirrored."""
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    taps = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    taps = taps / taps.sum(1, keepdim=True)
    rows, columns = (_blurring(side, taps, offsets) for side in images.shape[2:])
    return from_both_sides(rows, images, columns)


def _blurring(side: int, taps: Tensor, offsets: Tensor) -> Tensor:
    """Matrices (N, side, side) that convolve with taps (N, T) at offsets (T,), mirrored at the border."""
    if int(offsets[-1]) >= side:
        raise GauntletError(f"A blur of {len(offsets)} pixels is wider than images of side {side}; lower its share.")
    places = torch.arange(side, device=taps.device)[:, None] + offsets
    places = (side - 1 - (side - 1 - places.abs()).abs()).expand(len(taps), -1, -1)
    matrices = taps.new_zeros(len(taps), side, side)
    return matrices.scatter_add_(2, places, taps[:, None, :].expand(-1, side, -1))
