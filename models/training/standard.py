"""`standard`: supervised training with cross entropy; `logitnorm`: with that of logits of fixed length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...registry import recipe
from .hooks import Hook
from .trainer import Trainer

#: Report R2 trains one to five epochs and gives no more; the rest is what An et al. use.
R2 = {"epochs": 5, "batch_size": 120, "schedule": "exponential"}
#: Report R1, configuration of the pre-training.
R1 = {"epochs": 200, "batch_size": 128, "lr": 1e-3}


@recipe(
    "standard",
    reference="Loshchilov & Hutter 2016, arXiv 1608.03983 (cosine); Kingma & Ba 2014, arXiv 1412.6980",
    profiles={
        "r1": R1,
        "r1-plus": {**R1, "epochs": 50},
        "r2": R2,
        "r4": {"epochs": 20, "batch_size": 128},
        "an-et-al": {
            "epochs": 150,
            "batch_size": 120,
            "schedule": "exponential",
            "decay": 0.98,
            "ema": 0.999,
            "augment": [{"rotation": {"degrees": 20.0}}, {"translation": {"share": 0.2}}],
        },
    },
)
class Standard(Trainer):
    """Cross entropy with Adam or SGD and a cosine schedule, watched on the validation split."""


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
