"""`logitnorm`: cross entropy of logits of fixed length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...registry import recipe
from .hooks import Hook
from .trainer import Trainer


@dataclass(eq=False)
class NormalisedLogits(Hook):
    """Divides each image's logits by their length and a temperature before the cross entropy."""

    replaces = "criterion"

    temperature: float

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy that the length of the logits cannot lower."""
        length = logits.norm(dim=1, keepdim=True).clamp(min=1e-7)
        return F.cross_entropy(logits / length / self.temperature, targets)


@recipe("logitnorm", reference="Wei, Xie, Cheng et al. 2022, arXiv 2205.09310")
class LogitNorm(Trainer):
    """Cross entropy of normalised logits, which keeps the network from growing over-confident.

    Args:
        temperature: By which the normalised logits are divided.
        **settings: Those of :class:`Trainer`.
    """

    name = "logitnorm"

    def __init__(self, *, temperature: float = 0.04, **settings: Any) -> None:
        super().__init__(**settings)
        self._require(0 < temperature < math.inf, "a positive temperature", temperature)
        self.temperature = temperature

    def own_hooks(self) -> list[Hook]:
        """The criterion."""
        return [NormalisedLogits(self.temperature)]
