"""Reconstruction error of models that reconstruct."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector


@detector("reconstruction", needs="output:reconstruction_error", tags=("post-hoc", "named-output"))
def reconstruction(error: Tensor) -> Tensor:
    """The model's own ``reconstruction_error``, shape (N,)."""
    return error
