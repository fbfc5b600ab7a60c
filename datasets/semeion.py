"""Semeion: handwritten digits of another origin, a covariate shift of MNIST."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np

from ..registry import GauntletError, dataset
from .source import DataSource


def _files(split: str, source: DataSource) -> list[Path]:
    return [source.either("SEMEION/semeion.data", "semeion.data")]


@dataset(
    "semeion",
    reference="Buscema, Terzi 1994, Semeion Handwritten Digit, UCI, doi:10.24432/C5SC8V",
    tags=("grey", "shifted", "file"),
    splits=("test",),
    classes=tuple(string.digits),
    shape=(1, 28, 28),
    files=_files,
    home=" (archive.ics.uci.edu/dataset/178/semeion+handwritten+digit)",
)
def semeion(split: str, source: DataSource) -> tuple[np.ndarray, np.ndarray]:
    """1,593 binary digits from about 80 persons, laid out as MNIST is: 20x20 inside 28x28.

    Raises:
        GauntletError: The file is absent or damaged.
    """
    (path,) = _files(split, source)
    try:
        rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise GauntletError(f"{path} is damaged or not the Semeion file: {error}.") from None
    if rows.shape[1:] != (266,) or not (rows[:, 256:].sum(1) == 1).all() or not np.isin(rows, (0, 1)).all():
        raise GauntletError(f"{path} must have 256 binary pixels and a one-hot digit per line.")
    return _as_mnist(rows[:, :256].reshape(-1, 16, 16)), rows[:, 256:].argmax(1).astype(np.int64)


def _as_mnist(digits: np.ndarray) -> np.ndarray:
    """Binary digits (N, 16, 16), enlarged with bilinear weights to 20x20 in the middle of 28x28, uint8."""
    places = (np.arange(20) + 0.5) * 0.8 - 0.5
    weights = np.clip(1 - np.abs(places[:, None] - np.arange(16)), 0, 1)
    weights /= weights.sum(1, keepdims=True)
    images = np.zeros((len(digits), 28, 28))
    images[:, 4:24, 4:24] = weights @ digits @ weights.T
    return (255 * images).round().astype(np.uint8)
