"""Synthetic validation outliers: what hyper-parameters are chosen on, so that no real OOD set is spent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import DATASETS, dataset
from .imageset import ImageSet
from .source import DataSource

_SEED = 20_181  # of every draw; part of what these images are


def _files(split: str, source: DataSource, of: str = "digits") -> list[Path]:
    """Those of the dataset that the outliers are made of."""
    listed: Callable[..., list[Path]] | None = DATASETS.get(of).meta.get("files")
    return listed("train", source) if listed is not None else []


@dataset(
    "validation-outliers",
    reference="Hendrycks, Mazeika, Dietterich 2018, arXiv 1812.04606",
    tags=("validation", "synthetic"),
    splits=("test",),
    classes=(),
    files=_files,
)
def validation_outliers(split: str, source: DataSource, *, of: str = "digits") -> ImageSet:
    """Noise, means of pairs, and jigsawed, speckled, pixelated and mirrored validation images of a dataset.

    One seventh each: uniform noise, arithmetic and geometric means of random pairs, images cut into four tiles that
    are shuffled, images with multiplicative noise, at a quarter of their resolution, and mirrored.

    Args:
        of: Name of the dataset whose validation images they are made of.
    """
    from .resolve import resolve

    return make_outliers(resolve(of, source).load("val"))


def make_outliers(images: ImageSet) -> ImageSet:
    """Outliers made of ``images``, as many as there are images, always the same ones."""
    rng = np.random.RandomState(_SEED)
    pixels = images.images.cpu()
    kinds = (_uniform, _arithmetic, _geometric, _jigsaw, _speckle, _pixelate, _mirror)
    made = torch.cat([kind(part, pixels, rng) for kind, part in zip(kinds, pixels.tensor_split(7), strict=True)])
    labels = torch.full((len(made),), -1)
    return ImageSet(made, labels, (), torch.arange(len(made)), "validation-outliers", "test")


def _uniform(part: Tensor, _: Tensor, rng: np.random.RandomState) -> Tensor:
    return torch.from_numpy(rng.rand(*part.shape)).float()


def _arithmetic(part: Tensor, images: Tensor, rng: np.random.RandomState) -> Tensor:
    return (part + _others(part, images, rng)) / 2


def _geometric(part: Tensor, images: Tensor, rng: np.random.RandomState) -> Tensor:
    return (part * _others(part, images, rng)).sqrt()


def _jigsaw(part: Tensor, _: Tensor, rng: np.random.RandomState) -> Tensor:
    """Four tiles change places so that none stays where it was; the middle row and column of odd sizes stay."""
    height, width = part.shape[2:]
    rows = slice(0, height // 2), slice(-(-height // 2), height)
    columns = slice(0, width // 2), slice(-(-width // 2), width)
    places = [(..., row, column) for row in rows for column in columns]
    shift = int(rng.randint(1, 4))
    made = part.clone()
    for position, place in enumerate(places):
        made[place] = part[places[(position + shift) % 4]]
    return made


def _speckle(part: Tensor, _: Tensor, rng: np.random.RandomState) -> Tensor:
    return (part * (1 + torch.from_numpy(rng.randn(*part.shape)).float())).clamp(0, 1)


def _pixelate(part: Tensor, _: Tensor, rng: np.random.RandomState) -> Tensor:
    small = F.adaptive_avg_pool2d(part, (max(1, part.shape[2] // 4), max(1, part.shape[3] // 4)))
    return F.interpolate(small, size=part.shape[2:], mode="nearest")


def _mirror(part: Tensor, _: Tensor, rng: np.random.RandomState) -> Tensor:
    return part.flip(3)


def _others(part: Tensor, images: Tensor, rng: np.random.RandomState) -> Tensor:
    return images[torch.from_numpy(rng.randint(len(images), size=len(part)))]
