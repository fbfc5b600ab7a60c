"""What every recipe is: a thing with parameters that trains a module and returns its history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...datasets import ImageSet

#: One epoch of a history: epoch, loss, accuracy, val_loss, val_accuracy, lr, seconds.
EpochLog = dict[str, float]
#: Called after every batch with (batches done, batches in all, figures to show).
Progress = Callable[[int, int, dict[str, Any]], None]


class Recipe:
    """Base of all recipes; a subclass takes its settings as keyword parameters and overrides :meth:`train`."""

    def train(
        self,
        module: nn.Module,
        train: ImageSet,
        val: ImageSet,
        *,
        device: torch.device,
        seed: int,
        progress: Progress | None = None,
    ) -> list[EpochLog]:
        """Train ``module`` (on ``device`` already) in place and return one record an epoch.

        The recipe never splits data: ``val`` is for watching, and for choosing an epoch where it does that.

        Raises:
            GauntletError: Training diverged, or the data do not fit the recipe.
        """
        raise NotImplementedError
