"""Lossless PNG files, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..registry import GauntletError


def read_png(path: Path, mode: str) -> np.ndarray:
    """The pixels of a PNG, (H, W) for mode ``L`` and (H, W, 3) for ``RGB``, uint8.

    Raises:
        GauntletError: The file cannot be read, is damaged (its checksums are verified) or has another mode.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()  # decoding alone does not look at the checksums
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode != mode:
                raise GauntletError(f"{path} must be a PNG of mode {mode}, got mode {image.mode}.")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise GauntletError(f"{path} is damaged or no PNG: {error}.") from None
