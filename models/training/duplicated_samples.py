"""Copies added to the training set: augmented once, or plain duplicates as their control (report R2, section VI)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .augment import Augmentation
from .batch import Batch, as_images, probabilities
from .hooks import Hook, TrainingState

_CHUNK = 512


class Copies(Hook):
    """Adds copies of a random share of the training images, made once before the first step.

    Args:
        share: Copies for each training image, such as 0.2.
        augmentations: What is done to the copies; without any they are duplicates.
    """

    def __init__(self, share: float, augmentations: Sequence[Augmentation]) -> None:
        self.share, self.augmentations = share, list(augmentations)

    def start(self, loop: TrainingState) -> None:
        """Draw and make the copies. Only the seed decides them, so that a resumed run has the same."""
        rng = torch.Generator(loop.device).manual_seed(loop.seed + 2)
        count = round(self.share * len(loop.train))
        chosen = (torch.rand(count, generator=rng, device=loop.device) * len(loop.train)).long()
        if not self.augmentations:
            loop.pixels = torch.cat([loop.pixels, loop.pixels[chosen]])
            loop.targets = torch.cat([loop.targets, loop.targets[chosen]])
            return
        classes, parts = len(loop.train.classes), []
        for some in chosen.split(_CHUNK):
            part = Batch(as_images(loop.pixels[some]), loop.targets[some], some)
            for augmentation in self.augmentations:
                part = augmentation(part, rng, classes)
            parts.append(part)
        soft = any(part.targets.is_floating_point() for part in parts)
        targets = [probabilities(part.targets, classes) if soft else part.targets for part in parts]
        first = probabilities(loop.targets, classes) if soft else loop.targets
        loop.pixels = torch.cat([as_images(loop.pixels), *(part.images for part in parts)])
        loop.targets = torch.cat([first, *targets])
