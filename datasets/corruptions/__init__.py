"""Common corruptions of test images, each at up to five severities; deterministic for each image by its index."""

from __future__ import annotations

from .apply import corrupted, obstacle, severities

__all__ = ["corrupted", "obstacle", "severities"]
