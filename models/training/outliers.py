"""Outlier exposure and energy-bounded training: images of no class join every batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...datasets import ImageSet
from ...registry import GauntletError, recipe
from .batch import Batch, as_images
from .hooks import Hook, TrainingState
from .trainer import Trainer

#: A broad mixture, since a single narrow source is a known failure: clothes, noises, transformed training images.
MIXTURE = (
    {"fashion-mnist": {}},
    *({name: {"count": 5000, "seed": 1}} for name in ("gaussian-noise", "uniform-noise", "smooth-noise", "blobs")),
    *({name: {"limit": 5000}} for name in ("permuted", "jigsaw", "pair-mean")),
)


@dataclass(eq=False)
class Outliers(Hook):
    """Adds outliers to every batch: a set uniformly at random, then an image of it uniformly at random.

    Args:
        sets: The outlier sets; all count alike, whatever their sizes.
        ratio: Outliers for each image of the batch.
        recipe: Name of the recipe, for messages.
    """

    sets: Sequence[ImageSet]
    ratio: float
    recipe: str

    def start(self, loop: TrainingState) -> None:
        """Check the shapes and put the sets on the device, one after another.

        Raises:
            GauntletError: A set has another shape than the training images, or no images.
        """
        for images in self.sets:
            if images.shape != loop.train.shape:
                raise GauntletError(
                    f"recipe {self.recipe!r}: the outliers {images.name!r} are {_size(images)}, but the training "
                    f"images {loop.train.name!r} are {_size(loop.train)}; give the set "
                    f"`shape: {list(loop.train.shape)}`."
                )
            if not len(images):
                raise GauntletError(f"recipe {self.recipe!r}: the outlier set {images.name!r} has no images.")
        self._pixels = [images.pixels.to(loop.device) for images in self.sets]

    def transform(self, loop: TrainingState, batch: Batch) -> Batch:
        """Draw the outliers of this batch."""
        count = max(1, round(self.ratio * len(batch)))
        which = torch.randint(len(self._pixels), (count,), generator=loop.rng, device=loop.device)
        share = torch.rand(count, generator=loop.rng, device=loop.device, dtype=torch.float64)
        parts = [
            as_images(pixels[(share[which == number] * len(pixels)).long()])
            for number, pixels in enumerate(self._pixels)
        ]
        drawn = torch.cat(parts).to(memory_format=torch.channels_last)
        return replace(batch, outliers=drawn if batch.outliers is None else torch.cat([batch.outliers, drawn]))


def _size(images: ImageSet) -> str:
    return "x".join(map(str, images.shape))


@dataclass(eq=False)
class UniformOnOutliers(Outliers):
    """Cross entropy from the uniform distribution to the softmax of the outliers."""

    coefficient: float

    def penalty(self, inside: Tensor, outside: Tensor) -> Tensor:
        """Zero gradient at a uniform prediction, where its value is log K."""
        return self.coefficient * (outside.logsumexp(1) - outside.mean(1)).mean()


@dataclass(eq=False)
class EnergyMargins(Outliers):
    """Squared hinges that push the energy -logsumexp of images below one margin and of outliers above another."""

    coefficient: float
    inside: float
    outside: float

    def penalty(self, inside: Tensor, outside: Tensor) -> Tensor:
        """Both hinges, each its mean."""
        too_high = (-inside.logsumexp(1) - self.inside).relu().square().mean()
        too_low = (self.outside + outside.logsumexp(1)).relu().square().mean()
        return self.coefficient * (too_high + too_low)


class _WithOutliers(Trainer):
    """A recipe with outliers in every batch."""

    def _keep(self, outliers: Sequence[Any], coefficient: float, ratio: float) -> None:
        self._require(len(outliers) > 0, "at least one outlier set", "an empty list")
        self._require(0 <= coefficient < math.inf, "a coefficient >= 0", coefficient)
        self._require(0 < ratio <= 10, "a ratio above 0 and up to 10", ratio)
        self.outliers, self.coefficient, self.ratio = outliers, coefficient, ratio


@recipe(
    "outlier-exposure",
    datasets="outliers",
    reference="Hendrycks, Mazeika, Dietterich 2018, arXiv 1812.04606",
    profiles={
        "paper": {"optimizer": "sgd", "lr": 0.01, "batch_size": 50, "epochs": 10, "weight_decay": 5e-4},
        "r2": {"epochs": 5, "batch_size": 120, "schedule": "exponential", "outliers": ["fashion-mnist"]},
    },
    warnings={
        "r2": "the only outliers are clothes, too narrow a source: report R2 itself finds letters harder to tell "
        "from digits afterwards"
    },
)
class OutlierExposure(_WithOutliers):
    """Cross entropy, and on outliers cross entropy to the uniform distribution, in one pass.

    Args:
        outliers: Dataset specs; their train splits where they have one.
        coefficient: Weight of the outliers' term.
        ratio: Outliers for each training image.
        **settings: Those of :class:`Trainer`.
    """

    name = "outlier-exposure"

    def __init__(
        self, *, outliers: Sequence[Any] = MIXTURE, coefficient: float = 0.5, ratio: float = 2.0, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._keep(outliers, coefficient, ratio)

    def own_hooks(self) -> list[Hook]:
        """The outliers' term."""
        return [UniformOnOutliers(self.outliers, self.ratio, self.name, self.coefficient)]


@recipe(
    "energy-bounded",
    datasets="outliers",
    reference="Liu, Wang, Owens, Li 2020, arXiv 2010.03759",
    profiles={
        "paper": {
            "optimizer": "sgd",
            "lr": 1e-3,
            "batch_size": 128,
            "epochs": 10,
            "weight_decay": 5e-4,
            "inside": -23.0,
            "outside": -5.0,
        }
    },
    warnings={"paper": "it is meant to fine-tune a trained network for CIFAR-10; here it starts from random weights"},
)
class EnergyBounded(_WithOutliers):
    """Cross entropy, and squared hinges on the energies of training images and outliers.

    Args:
        outliers: Dataset specs; their train splits where they have one.
        coefficient: Weight of the hinges.
        ratio: Outliers for each training image.
        inside: Energy that training images should stay below.
        outside: Energy that outliers should stay above.
        **settings: Those of :class:`Trainer`.
    """

    name = "energy-bounded"

    def __init__(
        self,
        *,
        outliers: Sequence[Any] = MIXTURE,
        coefficient: float = 0.1,
        ratio: float = 2.0,
        inside: float = -9.0,
        outside: float = -3.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._keep(outliers, coefficient, ratio)
        self._require(inside < outside, "inside < outside", f"inside={inside}, outside={outside}")
        self.inside, self.outside = inside, outside

    def own_hooks(self) -> list[Hook]:
        """The hinges."""
        return [EnergyMargins(self.outliers, self.ratio, self.name, self.coefficient, self.inside, self.outside)]
