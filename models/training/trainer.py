"""The settings that all recipes share, and the checks of data and model before a training starts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...datasets import ImageSet
from ...registry import GauntletError
from ..layers import eval_mode
from .augment import Augment, Augmentation, read_augmentations
from .averaging import WeightAverage
from .batch import as_images
from .duplicated_samples import Copies
from .hooks import Hook, LoopSettings
from .loop import Loop
from .optim import Optimisation
from .recipe import EpochLog, Progress, Recipe
from .resume import EpochFile


class Trainer(Recipe):
    """A recipe made of hooks for the one training loop. Subclasses say which, in :meth:`own_hooks`.

    Args:
        epochs: Passes over the training split.
        optimizer: ``adam`` or ``sgd`` (Nesterov).
        lr: Peak learning rate; None: 1e-3 for Adam, 0.01 for SGD.
        momentum: For SGD.
        weight_decay: L2 penalty (decoupled for Adam).
        batch_size: Images a step.
        schedule: ``cosine`` falls to zero over the whole run, step by step; ``exponential`` by ``decay`` an epoch;
            ``constant`` does not.
        decay: Factor on the learning rate after every epoch of an exponential schedule.
        warmup: Epochs (or a part of one) in which the learning rate rises to its peak.
        keep: ``last`` epoch, or the ``best`` one by validation loss.
        patience: Stop once the validation loss has not improved for so many epochs.
        steps: Stop after so many batches, whatever ``epochs`` says.
        ema: Largest factor of the moving average of the weights, which then is what is kept; None: no average.
        augment: Augmentations (``gauntlet list augmentations``) of every batch, in order.
        copies: Share of the training set to add to it: augmented once by ``copy_augment``, else plain duplicates.
        copy_augment: Augmentations of the added copies.
        precision: ``float32``, ``bfloat16`` or ``auto``: the latter on a GPU, the former elsewhere.
    """

    #: The recipe's name, for messages.
    name = "standard"
    #: Whether every training image must have a class.
    labelled = True

    def __init__(
        self,
        *,
        epochs: int = 10,
        optimizer: Literal["adam", "sgd"] = "adam",
        lr: float | None = None,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        batch_size: int = 128,
        schedule: Literal["cosine", "exponential", "constant"] = "cosine",
        decay: float = 0.98,
        warmup: float = 0.0,
        keep: Literal["last", "best"] = "last",
        patience: int | None = None,
        steps: int | None = None,
        ema: float | None = None,
        augment: Sequence[Any] = (),
        copies: float = 0.0,
        copy_augment: Sequence[Any] = (),
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        self._require(
            epochs >= 1 and batch_size >= 2,
            "epochs >= 1 and batch_size >= 2",
            f"epochs={epochs}, batch_size={batch_size}",
        )
        self._require(lr is None or 0 < lr < math.inf, "a positive lr", lr)
        self._require(
            0 <= momentum < 1 and 0 <= weight_decay < math.inf,
            "a momentum in [0, 1) and a weight_decay >= 0",
            f"momentum={momentum}, weight_decay={weight_decay}",
        )
        self._require(0 < decay <= 1, "a decay in (0, 1]", decay)
        self._require(0 <= warmup < epochs, f"a warmup from 0 to below its {epochs} epochs", warmup)
        self._require(steps is None or steps >= 1, "steps >= 1", steps)
        self._require(patience is None or patience >= 1, "patience >= 1", patience)
        self._require(ema is None or 0 < ema < 1, "an ema in (0, 1)", ema)
        self._require(0 <= copies <= 10, "copies from 0 to 10 (a share of the training set)", copies)
        self.epochs = epochs
        self._settings = LoopSettings(epochs, batch_size, keep, patience, steps, precision)
        peak = lr if lr is not None else {"adam": 1e-3, "sgd": 1e-2}[optimizer]
        self._optimisation = Optimisation(optimizer, peak, momentum, weight_decay, schedule, decay, warmup)
        self._augmentations: list[Augmentation] = read_augmentations(augment)
        self._copies, self._copy_augmentations = copies, read_augmentations(copy_augment)
        self._ema = ema
        self._partners: tuple[Trainer, ...] = ()

    def _require(self, holds: bool, wanted: str, got: Any) -> None:
        if not holds:
            raise GauntletError(f"recipe {self.name!r} needs {wanted}, got {got}.")

    def join(self, partners: Sequence[Recipe]) -> None:
        """Train with the ideas of other recipes too; length, optimiser and batches stay this one's.

        Raises:
            GauntletError: One of them is not made of hooks, or two replace the same thing.
        """
        for partner in partners:
            if not isinstance(partner, Trainer):
                raise GauntletError(f"A {type(partner).__name__} has its own loop: it cannot join {self.name!r}.")
        self._partners = tuple(partner for partner in partners if isinstance(partner, Trainer))
        replaced = [hook.replaces for hook in self.hooks() if hook.replaces]
        if len(replaced) > len(set(replaced)):
            names = " and ".join(recipe.name for recipe in (self, *self._partners))
            raise GauntletError(f"The recipes {names} each replace the {replaced[0]}: only one of them can.")

    def own_hooks(self) -> list[Hook]:
        """What this recipe does beyond plain training."""
        return []

    def hooks(self) -> list[Hook]:
        """All hooks: copies and augmentation first, averaging last."""
        hooks: list[Hook] = []
        if self._copies:
            hooks.append(Copies(self._copies, self._copy_augmentations))
        if self._augmentations:
            hooks.append(Augment(self._augmentations))
        for recipe in (self, *self._partners):
            hooks += recipe.own_hooks()
        return [*hooks, WeightAverage(self._ema)] if self._ema is not None else hooks

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
        """See :meth:`Recipe.train`."""
        self._check_data(train, val)
        self._check_model(module, train, device)
        watched = {"val": val} if test is None else {"val": val, "test": test}
        file = None if resume is None else EpochFile(resume)
        loop = Loop(
            module, train, watched, self._settings, self._optimisation, self.hooks(),
            device=device, seed=seed, progress=progress, resume=file,
        )  # fmt: skip
        history = loop.run()
        if file is not None:
            file.remove()
        return history

    def _check_data(self, train: ImageSet, val: ImageSet) -> None:
        if len(train) < 2:
            raise GauntletError(
                f"Dataset {train.name!r} has {len(train)} training images; training needs at least two."
            )
        if self.labelled:
            self._check_labels(train)
        if len(train) < self._settings.batch_size:
            raise GauntletError(
                f"Dataset {train.name!r} has {len(train)} training images, fewer than one batch of "
                f"{self._settings.batch_size}; set the recipe's batch_size to {len(train)} or less."
            )
        if len(val) == 0 and (self._settings.keep == "best" or self._settings.patience is not None):
            what = "keep: best" if self._settings.keep == "best" else "patience"
            raise GauntletError(
                f"Dataset {val.name!r} has no validation images; recipe {self.name!r} needs some for `{what}`."
            )

    def _check_labels(self, train: ImageSet) -> None:
        if int(train.labels.min()) < 0:
            raise GauntletError(f"Dataset {train.name!r} has training images of unknown class; training needs labels.")
        absent = [name for name, count in zip(train.classes, _counts(train), strict=True) if not count]
        if absent:  # it will not be predicted; where it is to be left out of the figures too, the suite says so
            warnings.warn(
                f"Dataset {train.name!r} has no training image of the class {absent[0]!r}; take more images, or "
                f"`hold_out: [{absent[0]}]`.",
                stacklevel=2,
            )

    def _check_model(self, module: nn.Module, train: ImageSet, device: torch.device) -> None:
        with torch.no_grad(), eval_mode(module):
            found: Any = module(as_images(train.pixels[:2].to(device)))
        if not isinstance(found, Tensor) or found.ndim != 2:
            kind = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise GauntletError(
                f"recipe {self.name!r} trains classifiers: it needs a model that gives logits (N, classes), and "
                f"{type(module).__name__} gives {kind}."
            )


def _counts(images: ImageSet) -> list[int]:
    return torch.bincount(images.labels.cpu(), minlength=len(images.classes)).tolist()
