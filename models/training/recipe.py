"""What every recipe is: a thing with parameters that trains a module and returns its history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...datasets import ImageSet
from ...registry import Component

#: One epoch of a history: epoch, loss, accuracy, val_loss, val_accuracy, lr, seconds.
EpochLog = dict[str, float]
#: Called after every batch with (batches done, batches in all, figures to show).
Progress = Callable[[int, int, dict[str, Any]], None]


class Recipe(Component):
    """Base of all recipes; a subclass takes its settings as keyword parameters and overrides :meth:`train`.

    Facts that ``@recipe`` may be told: ``datasets="outliers"`` names the parameter that holds dataset specs in a suite
    and :class:`ImageSet` s here; ``profiles`` maps names to parameters; ``warnings`` says of a profile what is known
    against it.
    """

    def train(
        self,
        module: nn.Module,
        train: ImageSet,
        val: ImageSet,
        *,
        device: torch.device,
        seed: int,
        progress: Progress | None = None,
        test: ImageSet | None = None,
        resume: Path | None = None,
    ) -> list[EpochLog]:
        """Train ``module`` (on ``device`` already) in place and return one record an epoch.

        The recipe never splits data: ``val`` is for watching, and for choosing an epoch where it does that. ``test``
        is drawn in the curves and decides nothing. ``resume`` is a file for the last finished epoch: where it exists,
        an interrupted training goes on from it; it is gone at the end.

        Raises:
            GauntletError: Training diverged, or the data do not fit the recipe.
        """
        raise NotImplementedError
