"""Size and colour by rule.

Colour to grey is the luma of ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B), grey to colour repeats the channel, sizes
change by bilinear interpolation with antialiasing. A set keeps its type: uint8 pixels are computed in float32 and
rounded once, at the end, as Pillow does.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import GauntletError
from .imageset import ImageSet, as_float
from .streamed import StreamedPixels

_LUMA = (0.299, 0.587, 0.114)
_CHUNK = 4096


def convert(images: ImageSet, shape: tuple[int, int, int]) -> ImageSet:
    """Give the images another shape (C, H, W), with the steps written into ``conversion``.

    Raises:
        GauntletError: The numbers of channels are not 1 or 3 and differ.
    """
    if images.shape == shape:
        return images
    note = conversion(images.shape, shape, images.name)
    words = "; ".join(filter(None, (images.conversion, note)))
    if isinstance(images.pixels, StreamedPixels):
        changed = images.pixels.changed(lambda batch, _: _convert(batch, shape), image=shape)
        return replace(images, pixels=changed, conversion=words)
    parts = [_convert(part, shape) for part in images.pixels.split(_CHUNK)]
    pixels = torch.cat(parts) if parts else images.pixels.new_empty((0, *shape))
    return replace(images, pixels=pixels, conversion=words)


def conversion(old: tuple[int, int, int], new: tuple[int, int, int], name: str) -> str:
    """The steps from one shape to another in words; empty where there are none.

    >>> conversion((3, 32, 32), (1, 28, 28), "cifar10")
    '3x32x32 -> 1x28x28: luma (ITU-R 601), bilinear'

    Raises:
        GauntletError: There is no rule for these numbers of channels.
    """
    return "" if old == new else f"{size(old)} -> {size(new)}: {', '.join(_steps(old, new, name))}"


def size(shape: tuple[int, int, int]) -> str:
    """A shape as people write it: ``3x32x32``."""
    return "x".join(map(str, shape))


def _steps(old: tuple[int, int, int], new: tuple[int, int, int], name: str) -> list[str]:
    colour = {(3, 1): ["luma (ITU-R 601)"], (1, 3): ["grey repeated"]}.get((old[0], new[0]))
    if colour is None and old[0] != new[0]:
        raise GauntletError(
            f"Dataset {name!r} cannot be converted from {size(old)} to {size(new)}: only 1 channel (grey) and 3 "
            "channels (RGB) convert into one another."
        )
    return [*(colour or []), *(["bilinear"] if old[1:] != new[1:] else [])]


def _convert(pixels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    x = as_float(pixels)
    if x.shape[1] == 3 and shape[0] == 1:
        x = torch.einsum("nchw,c->nhw", x, x.new_tensor(_LUMA))[:, None]
    if x.shape[2:] != shape[1:]:
        x = F.interpolate(x, size=shape[1:], mode="bilinear", antialias=True, align_corners=False)
    x = x.clamp(0, 1).expand(-1, shape[0], -1, -1)
    return (x * 255).round().to(torch.uint8) if pixels.dtype == torch.uint8 else x.contiguous()
