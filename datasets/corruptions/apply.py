"""A corruption applied to a set of images, some at a time, on the device that they are on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...registry import Entry, GauntletError, Obstacle
from ..imageset import ImageSet, as_float
from ..per_image_rng import PerImageRNG
from ..process_state import global_state
from ..streamed import StreamedPixels
from .strength import SEVERITIES

#: Values of the images that are corrupted together, so that they stay in the cache.
_CHUNK = 2**18


def severities(entry: Entry) -> tuple[int, ...]:
    """The severities that a corruption has, ascending."""
    return tuple(sorted(entry.meta.get("severities", SEVERITIES)))


def obstacle(entry: Entry, shape: tuple[int, int, int]) -> Obstacle:
    """Why a corruption cannot be applied to images of a ``shape`` (C, H, W); empty if it can."""
    wanted, channels = entry.meta.get("shape"), entry.meta.get("channels")
    if wanted is not None and tuple(wanted) != tuple(shape):
        return f"it is made for {'x'.join(map(str, wanted))} images, not {'x'.join(map(str, shape))} ones"
    if channels is not None and channels != shape[0]:
        return f"it needs images of {channels} channels, not {shape[0]}"
    return ""


def corrupted(
    images: ImageSet, entry: Entry, severity: int, parameters: Mapping[str, Any] | None = None, *, exact: bool = False
) -> ImageSet:
    """The images after a corruption, in 256 levels as files store them, or ``exact``ly, in float32.

    An image's draws depend on nothing but the dataset, its index and the corruption: not on severity, batch or device.

    Raises:
        GauntletError: The corruption does not have this severity, does not fit the images, or returned others than
            finite ones of the same shape.
    """
    if severity not in severities(entry):
        known = ", ".join(map(str, severities(entry)))
        raise GauntletError(f"Corruption {entry.name!r} has no severity {severity}, only {known}.")
    if reason := obstacle(entry, images.shape):
        raise GauntletError(f"Corruption {entry.name!r} cannot be applied to {images.name!r}: {reason}.")
    stream = f"{images.name}/{images.split} {entry.name}"

    def change(pixels: Tensor, own: Tensor) -> Tensor:
        made = _changed(entry, as_float(pixels), severity, PerImageRNG(stream, own), parameters or {})
        return made if exact else _levels(made)

    if isinstance(images.pixels, StreamedPixels):  # each batch when it is looked at
        return replace(images, pixels=images.pixels.changed(change, dtype=torch.float32 if exact else torch.uint8))
    size = max(_CHUNK // max(images.pixels[:1].numel(), 1), 1)
    parts = [change(*part) for part in zip(images.pixels.split(size), images.indices.split(size), strict=True)]
    return replace(images, pixels=torch.cat(parts).contiguous()) if parts else images


@torch.no_grad()
def _changed(entry: Entry, images: Tensor, severity: int, draws: PerImageRNG, parameters: Mapping[str, Any]) -> Tensor:
    given = {"images": images if entry.is_ours else images.clone(), "severity": severity, "draws": draws}
    with global_state():
        changed = entry.factory(*(given[need] for need in entry.needs), **parameters)
    if not isinstance(changed, Tensor) or changed.shape != images.shape:
        got = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
        raise GauntletError(f"Corruption {entry.name!r} must return images of shape {tuple(images.shape)}, got {got}.")
    if not bool(changed.isfinite().all()):
        raise GauntletError(f"Corruption {entry.name!r} returned pixels that are not finite.")
    return changed


def _levels(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round().byte()
