"""Checks that several datasets share."""

from __future__ import annotations

from ..registry import GauntletError


def check_draw(name: str, count: int, seed: int) -> None:
    """Raise unless a number of images is at least 1 and a seed is one that numpy takes."""
    if count < 1:
        raise GauntletError(f"Dataset {name!r}: count must be at least 1, got {count}.")
    if not 0 <= seed < 2**32:
        raise GauntletError(f"Dataset {name!r}: seed must be from 0 to 2**32 - 1, got {seed}.")


def check_shape(name: str, shape: tuple[int, int, int], channels: tuple[int, ...] = (1, 3)) -> None:
    """Raise unless ``shape`` is (C, H, W) with a possible number of channels and no empty side."""
    if shape[0] not in channels or min(shape) < 1:
        raise GauntletError(
            f"Dataset {name!r}: shape must be [C, H, W] with C = {' or '.join(map(str, channels))} and sides of at "
            f"least 1, got {list(shape)}."
        )
