"""The floor: scores that know nothing of the images."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..registry import detector
from .base import Detector
from .outputs import Outputs


@detector("constant", tags=("floor",))
def constant(labels: Tensor) -> Tensor:
    """0 for every image, whose labels have shape (N,) and are not looked at."""
    return torch.zeros(len(labels), device=labels.device)


@detector("random", needs="labels", tags=("floor",), differentiable=False)
class Random(Detector):
    """A uniform draw in [0, 1) per image, of which other images know nothing.

    Args:
        seed: Of the draws, beside the name of the image set.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, outputs: Outputs) -> Tensor:
        """The draws, shape (N,); those of a set always the same, those of another set others."""
        stream = hashlib.sha256(f"{self.seed}/{outputs.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(stream[:7], "little"))
        return torch.rand(len(outputs), generator=generator, dtype=torch.float64).to(outputs.labels.device)
