"""What a temperature may be."""

from __future__ import annotations

import math

from ..registry import GauntletError


def check_temperature(temperature: float, name: str) -> float:
    """Return ``temperature``.

    Raises:
        GauntletError: It is not above 0 and finite.
    """
    if not 0 < temperature < math.inf:
        raise GauntletError(f"Detector {name!r} needs a finite temperature above 0, got {temperature:g}.")
    return temperature
