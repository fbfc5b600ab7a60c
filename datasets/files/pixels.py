"""Arrays of images as people save them, brought into (N, C, H, W): layout, range and transparency found and said."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch

from ...registry import GauntletError

Layout = Literal["NCHW", "NHWC", "NHW"]

_CHANNELS = (1, 3, 4)
_CHUNK = 4096


def read_pixels(
    array: Any, where: str, *, layout: Layout | None = None, scale: float | None = None
) -> tuple[torch.Tensor, str]:
    """Images (N, C, H, W), uint8 or float32 in [0, 1], and what was done to them in words.

    Args:
        array: (N, H, W), (N, H, W, C) or (N, C, H, W): 8 bits, 16 bits, floats in [0, 1], or wider integers from 0 to
            255.
        where: For messages.
        layout: Order of the axes; by default found where only one makes sense.
        scale: What the values are divided by: 255, 65535, ...; needed where the type does not say it.

    Raises:
        GauntletError: Layout or range are not clear, or the values are not images.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "buif" or array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise GauntletError(
            f"{where}: images must be numbers of shape (N, H, W), (N, H, W, C) or (N, C, H, W), got {array.dtype} of "
            f"shape {array.shape}."
        )
    found = layout or _layout(array.shape, where)
    if len(found) != array.ndim:
        raise GauntletError(f"{where}: the layout {found} does not fit images of shape {array.shape}.")
    notes = [] if layout or found != "NHWC" else ["channels last, turned"]
    values, note = _levels(array, scale, where)
    values = values[:, None] if found == "NHW" else values.transpose(0, 3, 1, 2) if found == "NHWC" else values
    if values.shape[1] not in _CHANNELS:
        raise GauntletError(
            f"{where}: {array.shape} read as {found} has {values.shape[1]} channels; say `layout:` NHWC, NCHW or NHW."
        )
    if values.shape[1] == 4:
        values, alpha = _over_white(values)
        notes.append(alpha)
    return _tensor(values), "; ".join(filter(None, (*notes, note)))


def _layout(shape: tuple[int, ...], where: str) -> Layout:
    if len(shape) == 3:
        return "NHW"
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first == last:
        raise GauntletError(
            f"{where}: images of shape {shape} may be (N, C, H, W) or (N, H, W, C): say `layout: NCHW` or `layout: "
            "NHWC`."
        )
    return "NCHW" if first else "NHWC"


def _levels(array: np.ndarray, scale: float | None, where: str) -> tuple[np.ndarray, str]:
    """The values as uint8, or as float32 in [0, 1]."""
    kind, bits = array.dtype.kind, array.dtype.itemsize * 8
    if array.dtype == np.uint8 and scale in (None, 255):
        return array, ""  # not looked at: it may be larger than memory
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if kind == "b":
        return array.astype(np.uint8) * 255, "two levels"
    if scale is not None:
        if not scale > 0 or not (low >= 0 and high <= scale):
            raise GauntletError(f"{where}: scale {scale:g} does not fit values from {low:g} to {high:g}.")
        return (array / np.float32(scale)).astype(np.float32), f"divided by {scale:g}"
    if kind == "f":
        if low >= 0 and high <= 1:
            return array.astype(np.float32), ""
        hint = "255" if 1 < high <= 255 and low >= 0 else "their largest possible value"
        raise GauntletError(
            f"{where}: float images must lie in [0, 1], got values from {low:g} to {high:g}: say `scale: {hint}`"
            f"{'' if low >= 0 else ', after undoing their normalisation'}."
        )
    if not 0 <= low <= high <= 65535 or (high > 255 and bits == 8):
        raise GauntletError(f"{where}: integer images must lie from 0 to 255 or 65535, got {low:g} to {high:g}.")
    if high <= 255 and bits != 16:
        return array.astype(np.uint8), ""
    if bits != 16 or high <= 255:
        raise GauntletError(
            f"{where}: {bits}-bit values from {low:g} to {high:g} may span 0 to 255 or 0 to 65535: say `scale: 255` or "
            "`scale: 65535`."
        )
    return (array / np.float32(65535)).astype(np.float32), "divided by 65535"


def _over_white(values: np.ndarray) -> tuple[np.ndarray, str]:
    """(N, 3, H, W) of images with an alpha channel, over white."""
    top = 255 if values.dtype == np.uint8 else 1
    alpha = values[:, 3:].astype(np.float32) / top
    mixed = values[:, :3] * alpha + top * (1 - alpha)
    return (mixed.round().astype(np.uint8) if top == 255 else mixed.astype(np.float32)), "transparent over white"


def _tensor(values: np.ndarray) -> torch.Tensor:
    """Without a copy where that is possible: a mapped file stays one."""
    if values.dtype.byteorder == ">" or any(step < 0 for step in values.strides):
        values = values.astype(values.dtype.newbyteorder("="))
    if not values.flags.writeable:  # a mapped file, or memory that is another's: nobody here writes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(values)
    return torch.from_numpy(values)
