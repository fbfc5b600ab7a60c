"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ...registry import GauntletError


@dataclass(frozen=True)
class Optimisation:
    """How weights are updated; the fields are the parameters of :class:`~.trainer.Trainer`, and Adam's betas."""

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    decay: float = 0.98
    warmup: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, module: nn.Module, others: Sequence[nn.Parameter] = ()) -> torch.optim.Optimizer:
        """The optimiser of a module's trainable parameters and of ``others``.

        Raises:
            GauntletError: The model has no parameters.
        """
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not parameters:
            raise GauntletError("The model has no parameters to train; give it `recipe: none`.")
        parameters += others
        if self.optimizer == "adam":
            return torch.optim.AdamW(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, nesterov=self.momentum > 0, weight_decay=self.weight_decay
        )

    def lr_at(self, step: int, total: int, per_epoch: int) -> float:
        """Learning rate of update ``step`` (from 0) of ``total``."""
        if step < self.warmup * per_epoch:
            return self.lr * (step + 1) / max(1, math.ceil(self.warmup * per_epoch))
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * step / total))
        return self.lr * self.decay ** (step // per_epoch) if self.schedule == "exponential" else self.lr
