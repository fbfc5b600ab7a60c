"""Synthetic validation outliers: what hyper-parameters are chosen on, so that no real OOD set is spent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..registry import DATASETS, dataset
from .image_transforms import Change, jigsaw, mirrored, pair_geometric_mean, pair_mean, pixelated, speckled
from .imageset import ImageSet
from .source import DataSource

_SEED = 20_181  # of every draw; part of what these images are


def _files(split: str, source: DataSource, of: str = "digits") -> list[Path]:
    """Those of the dataset that the outliers are made of."""
    entry = DATASETS.get(of)
    listed: Callable[..., list[Path]] | tuple[str, ...] = entry.meta.get("files", ())
    return listed("train", source) if callable(listed) else entry.files


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

    One seventh each: uniform noise, and what the datasets ``pair-mean``, ``pair-geometric-mean``, ``jigsaw``,
    ``speckled``, ``pixelated`` and ``mirrored`` make of an image.

    Args:
        of: Name of the dataset whose validation images they are made of.
    """
    from .resolve import resolve

    return make_outliers(resolve(of, source).load("val"))


def make_outliers(images: ImageSet) -> ImageSet:
    """Outliers made of ``images``, as many as there are images, always the same ones."""
    rng = np.random.RandomState(_SEED)
    pixels = images.images.cpu().numpy().astype(np.float64)
    kinds: tuple[Change, ...] = (
        _uniform, pair_mean, pair_geometric_mean, jigsaw, speckled, pixelated, mirrored,
    )  # fmt: skip
    places = np.array_split(np.arange(len(pixels)), len(kinds))
    made = np.concatenate([kind(pixels, rng)[place] for kind, place in zip(kinds, places, strict=True)])
    labels = torch.full((len(made),), -1)
    return ImageSet(torch.from_numpy(made).float(), labels, (), torch.arange(len(made)), "validation-outliers", "test")


def _uniform(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    return rng.rand(*images.shape)
