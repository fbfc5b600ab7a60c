"""Checks that several datasets share."""

from __future__ import annotations

from ..registry import GauntletError

Shape = tuple[int, int, int]


def check_draw(name: str, count: int, seed: int) -> None:
    """Refuse numbers of images and seeds that cannot be.

    Raises:
        GauntletError: The count is below 1, or the seed is none that numpy takes.
    """
    if count < 1:
        raise GauntletError(f"Dataset {name!r}: count must be at least 1, got {count}.")
    if not 0 <= seed < 2**32:
        raise GauntletError(f"Dataset {name!r}: seed must be from 0 to 2**32 - 1, got {seed}.")


def check_shape(name: str, shape: Shape, channels: tuple[int, ...] = (1, 3)) -> None:
    """Refuse shapes (C, H, W) that no image has.

    Raises:
        GauntletError: A side is empty, or the number of channels is none of ``channels``.
    """
    if shape[0] not in channels or min(shape) < 1:
        raise GauntletError(
            f"Dataset {name!r}: shape must be [C, H, W] with C = {' or '.join(map(str, channels))} and sides of at "
            f"least 1, got {list(shape)}."
        )
