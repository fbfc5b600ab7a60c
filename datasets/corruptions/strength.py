"""How strong a corruption is: one of five severities, in the table of small or of large images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from ...registry import GauntletError

#: Height from which images count as large.
LARGE = 65

SEVERITIES = (1, 2, 3, 4, 5)

T = TypeVar("T")


def strength(severity: int, images: Tensor, scale: str, small: Sequence[T], large: Sequence[T]) -> T:
    """The entry of a severity in the table of CIFAR-10-C (``small``) or ImageNet-C (``large``).

    Args:
        severity: From 1 to 5.
        images: Their height decides where ``scale`` is ``auto``: up to 64 pixels are small.
        scale: ``auto``, ``small`` or ``large``.
        small: Five entries for small images.
        large: Five entries for large ones.

    Raises:
        GauntletError: There is no such scale.
    """
    return (large if is_large(images, scale) else small)[severity - 1]


def is_large(images: Tensor, scale: str) -> bool:
    """Whether the table of large images applies.

    Raises:
        GauntletError: There is no such scale.
    """
    if scale not in ("auto", "small", "large"):
        raise GauntletError(f"The scale of a corruption is auto, small or large, got {scale!r}.")
    return scale == "large" or (scale == "auto" and images.shape[2] >= LARGE)
