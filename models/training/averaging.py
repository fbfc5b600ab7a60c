"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .hooks import Hook, TrainingState


class WeightAverage(Hook):
    """Averages the trainable weights; the model is judged and kept with the average.

    The factor at update n is min(decay, (1 + n) / (10 + n)) (An et al. 2020, arXiv 2008.10400).

    Args:
        decay: Largest factor, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._count = 0
        self._average: dict[str, Tensor] = {}

    def start(self, loop: TrainingState) -> None:
        """Begin with the weights as they are."""
        if not self._average:
            self._average = {name: value.detach().clone() for name, value in _trainable(loop).items()}
        else:
            self._average = {name: self._average[name].to(value) for name, value in _trainable(loop).items()}

    @torch.no_grad()
    def after_step(self, loop: TrainingState) -> None:
        """Move the average towards the weights."""
        factor = min(self.decay, (1 + self._count) / (10 + self._count))
        self._count += 1
        weights = _trainable(loop)
        torch._foreach_lerp_([self._average[name] for name in weights], list(weights.values()), 1 - factor)

    @contextmanager
    def evaluating(self, loop: TrainingState) -> Iterator[None]:
        """The average in the place of the weights."""
        weights = _trainable(loop)
        kept = {name: value.detach().clone() for name, value in weights.items()}
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(self._average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in weights.items():
                    value.copy_(kept[name])

    def state(self) -> dict[str, Tensor]:
        """The average and the number of updates."""
        return {**self._average, "count": torch.tensor(self._count)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take them up."""
        self._count = int(state["count"])
        self._average = {name: value for name, value in state.items() if name != "count"}


def _trainable(loop: TrainingState) -> dict[str, Tensor]:
    return {name: value for name, value in loop.module.named_parameters() if value.requires_grad}
