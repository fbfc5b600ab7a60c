"""Lossless PNG files, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ..registry import GauntletError

_END = b"IEND\xaeB`\x82"  # the last chunk, which Pillow does not miss


def read_png(path: Path, mode: str) -> np.ndarray:
    """The pixels of a PNG, (H, W) for mode ``L`` and (H, W, 3) for ``RGB``, uint8.

    Raises:
        GauntletError: The file cannot be read, is damaged (its checksums are verified) or has another mode.
    """
    from PIL import Image

    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()  # decoding alone does not look at the checksums
        if _END not in data:
            raise ValueError("it ends too early")
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
    except Exception as error:  # which ones damaged bytes raise is not documented
        problem = "its beginning is not that of a PNG" if isinstance(error, Image.UnidentifiedImageError) else error
        raise GauntletError(f"{path} is damaged or no PNG: {problem}.") from None
    if image.mode != mode:
        raise GauntletError(f"{path} must be a PNG of mode {mode}, got mode {image.mode}.")
    return np.asarray(image)
