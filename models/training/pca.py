"""`pca`: principal components of the training images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...datasets import ImageSet
from ...registry import GauntletError, recipe
from .batch import as_images
from .recipe import EpochLog, Recipe


@recipe("pca", needs=("embedding",), reference="Pearson 1901")
class PrincipalComponents(Recipe):
    """Sets mean and axes of the model `pca` to those of the training images; nothing is random, and nothing iterates.

    Args:
        limit: At most so many images, the first ones.
    """

    def __init__(self, *, limit: int = 20_000) -> None:
        self.limit = limit

    def train(
        self, module: nn.Module, train: ImageSet, val: ImageSet, *, device: torch.device, **how: Any
    ) -> list[EpochLog]:
        """See :meth:`Recipe.train`. The history is one record with the share of the variance that is kept.

        Raises:
            GauntletError: The model is not `pca`, or has more components than the data allow.
        """
        axes: Any = getattr(module, "axes", None)
        if not isinstance(axes, torch.Tensor):
            raise GauntletError(f"recipe 'pca' finds the axes of the model 'pca', got {type(module).__name__}.")
        pixels = torch.flatten(as_images(train.pixels[: self.limit].to(device)), 1).double()
        if len(pixels) < len(axes):
            raise GauntletError(
                f"Dataset {train.name!r} has {len(pixels)} training images, fewer than the {len(axes)} components of "
                "the model 'pca'; set its components lower."
            )
        mean = pixels.mean(0)
        variances, vectors = torch.linalg.eigh((pixels - mean).T @ (pixels - mean))
        kept = vectors.flip(1)[:, : len(axes)].T
        # The sign of an axis is free: its largest entry is made positive.
        signs = kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
        module.mean.copy_(mean)  # type: ignore[operator]
        axes.copy_(kept * signs)
        return [{"epoch": 1, "variance_kept": float(variances[-len(axes) :].sum() / variances.sum())}]
