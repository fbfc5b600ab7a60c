"""Augmentations of contrastive learning: whole batches on the device, each image with draws of its own.

For given parameters each is what torchvision's function of the same kind computes on a float tensor; the tests compare.
On a CPU the time goes into passes over memory. So the colours of an image lie apart (C, N, H, W), where each is a
contiguous plane, they are changed in place, and masks, which are slow there, are avoided.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ...datasets.corruptions.shift import warp
from ...registry import GauntletError, augmentation
from .augment import uniform

_REFERENCE = "Chen, Kornblith, Norouzi, Hinton 2020, arXiv 2002.05709"
_GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, as torchvision rounds it
_ATTEMPTS = 10


def sometimes(images: Tensor, rng: Generator, p: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images (N, C, H, W), a random share ``p`` of them changed.

    ``change`` gets a copy of the chosen ones, (C, M, H, W), which it may overwrite.
    """
    planes = images.transpose(0, 1).contiguous()
    chosen = (uniform(len(images), rng) < p).nonzero()[:, 0]
    changed = change(planes.index_select(1, chosen)) if len(chosen) else planes[:, :0]
    return planes.index_copy(1, chosen, changed).transpose(0, 1)


# -- geometry -------------------------------------------------------------------------------------------------


@augmentation("resized-crop", reference=_REFERENCE)
def resized_crop(
    images: Tensor, rng: Generator, *, low: float = 0.08, high: float = 1.0, ratio: float = 4 / 3, flip: float = 0.0
) -> Tensor:
    """Take a random part (share ``low`` to ``high`` of the area, sides up to ``ratio`` apart) at the old size.

    With probability ``flip`` it is mirrored left to right as well, which costs nothing here.
    """
    count, _, height, width = images.shape
    boxes = crop_boxes(count, height, width, rng, low, high, ratio)
    return resample(images, *boxes, mirrored=uniform(count, rng) < flip if flip else None)


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


def resample(
    images: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor, *, mirrored: Tensor | None = None
) -> Tensor:
    """Each image's own box at the old size, bilinear: one matrix from either side. Nothing shrinks, so none aliases.

    Images for which ``mirrored`` (N,) holds are read from right to left.
    """
    rows, columns = _places(images.shape[2], top, tall), _places(images.shape[3], left, wide)
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    return from_both_sides(_between(rows), images, _between(columns))


def from_both_sides(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """rows (N, H, H) @ image @ columns (N, W, W) transposed, for every channel of images (N, C, H, W).

    All channels of an image share the product with its columns; that with its rows writes each to its own plane.
    """
    count, channels, height, width = images.shape
    wide = torch.bmm(images.reshape(count, channels * height, width), columns.transpose(1, 2))
    planes = images.new_empty(channels, count, height, width)
    for plane, part in zip(planes, wide.view(count, channels, height, width).unbind(1), strict=True):
        torch.bmm(rows, part, out=plane)
    return planes.transpose(0, 1)


def _places(side: int, start: Tensor, length: Tensor) -> Tensor:
    """Where (N, side) an image is read that shows ``length`` pixels from ``start`` on, never outside of those."""
    middles = torch.arange(side, device=start.device) + 0.5
    first, last = (start + 0.5).floor() + 0.5, (start + length - 0.5).ceil() - 0.5
    return torch.clamp(start[:, None] + (length / side)[:, None] * middles, first[:, None], last[:, None])


def _between(places: Tensor) -> Tensor:
    """Matrices (N, side, side): row i holds the weights of the two pixels that place i lies between."""
    side = places.shape[1]
    # Whole tables subtract faster than rows.
    middles = torch.arange(side, device=places.device).add(0.5).repeat(side, 1)
    return places[:, :, None].repeat(1, 1, side).sub_(middles).abs_().neg_().add_(1).clamp_(min=0)


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
    return warp(images, (across, zero, zero), (zero, down, zero))


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
    """With probability ``p``: change brightness, contrast, saturation and hue, in random order.

    The factors of the first three are uniform in [max(0, 1 - s), 1 + s], the hue's shift in [-hue, hue] (of a full
    turn), drawn for each image; the order is drawn once for all that come together. Of grey images only brightness
    and contrast can change.

    Raises:
        GauntletError: A strength is out of its range.
    """
    if hue > 0.5 or min(brightness, contrast, saturation, hue) < 0:
        raise GauntletError(f"colour-jitter needs strengths >= 0 and a hue of at most 0.5, got a hue of {hue}.")
    operations: list[Callable[[Tensor, Tensor], Tensor]] = [adjust_brightness_, adjust_contrast_]
    ranges = [(max(0.0, 1 - s), 1 + s) for s in (brightness, contrast)]
    if images.shape[1] == 3:
        operations += [adjust_saturation_, adjust_hue_]
        ranges += [(max(0.0, 1 - saturation), 1 + saturation), (-hue, hue)]

    def change(planes: Tensor) -> Tensor:
        factors = [uniform(planes.shape[1], rng, *bounds).view(-1, 1, 1) for bounds in ranges]
        for place in uniform(len(operations), rng).argsort().tolist():
            operations[place](planes, factors[place])
        return planes

    return sometimes(images, rng, p, change)


def adjust_brightness_(planes: Tensor, factors: Tensor) -> Tensor:
    """In place: images (C, N, H, W) times factors (N, 1, 1)."""
    return planes.mul_(factors).clamp_(0, 1)


def adjust_contrast_(planes: Tensor, factors: Tensor) -> Tensor:
    """In place: away from (or towards) the mean grey of each image."""
    mean = grey(planes.mean((2, 3), keepdim=True))
    return planes.mul_(factors).add_(mean * (1 - factors)).clamp_(0, 1)


def adjust_saturation_(planes: Tensor, factors: Tensor) -> Tensor:
    """In place: away from (or towards) the grey of each pixel."""
    shades = grey(planes) * (1 - factors)
    return planes.mul_(factors).add_(shades).clamp_(0, 1)


def adjust_hue_(planes: Tensor, shifts: Tensor) -> Tensor:
    """In place: turn the hue of each pixel by a part of a full circle, value and saturation unchanged.

    With c the larger and d the smaller of green and blue, the hue in sixths of the circle is (min(red, c) - d) / spread
    as long as red is largest, 2 less that otherwise; negative where blue exceeds green.
    """
    red, green, blue = planes
    larger, smaller = torch.maximum(green, blue), torch.minimum(green, blue)
    high, low = torch.maximum(red, larger), torch.minimum(red, smaller)
    spread = high - low
    turn = torch.minimum(red, larger).sub_(smaller).div_(spread.clamp(min=1e-12))
    turn.sub_((high - red).sign_(), alpha=2).abs_().copysign_(green - blue)
    turn = torch.add(shifts + 1, turn, alpha=1 / 6).frac_()
    # Round the circle a channel is at its largest for a third, at its smallest for a third, and on ramps between.
    floor, roof = low - spread, torch.add(low, spread, alpha=2)
    for plane, start, middle, slope in ((red, floor, 1 / 2, 6), (green, roof, 1 / 3, -6), (blue, roof, 2 / 3, -6)):
        torch.addcmul(start, spread, (turn - middle).abs_(), value=slope, out=plane)
        torch.clamp(plane, low, high, out=plane)
    return planes


def grey(planes: Tensor) -> Tensor:
    """Luma (N, H, W) of images (C, N, H, W); grey images are their own."""
    if len(planes) != 3:
        return planes[0]
    red, green, blue = planes
    return (_GREY[0] * red).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


@augmentation("greyscale", reference=_REFERENCE)
def greyscale(images: Tensor, rng: Generator, *, p: float = 0.2) -> Tensor:
    """Take the colour away with probability ``p``."""
    return sometimes(images, rng, p, lambda planes: grey(planes).expand_as(planes))


# -- sharpness ------------------------------------------------------------------------------------------------


@augmentation("blur", reference=_REFERENCE)
def blur(
    images: Tensor, rng: Generator, *, share: float = 0.1, low: float = 0.1, high: float = 2.0, p: float = 0.5
) -> Tensor:
    """With probability ``p``: Gaussian blur, sigma uniform in [low, high], kernel about ``share`` of the side."""
    side = min(images.shape[2:])
    radius = max(1, round((share * side - 1) / 2))

    def change(planes: Tensor) -> Tensor:
        sigma = uniform(planes.shape[1], rng, low, high)
        return gaussian_blur(planes.transpose(0, 1), sigma, radius).transpose(0, 1)

    return sometimes(images, rng, p, change)


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
