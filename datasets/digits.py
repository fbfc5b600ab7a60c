"""The handwritten digits inside scikit-learn, in MNIST's frame."""

from __future__ import annotations

import string

import numpy as np
import torch
import torch.nn.functional as F

from ..registry import dataset
from .imageset import ImageSet
from .splitting import stratified

_TEST, _VAL = 540, 180


@dataset(
    "digits",
    reference="Alpaydin, Kaynak 1998, UCI: optical recognition of handwritten digits (test part)",
    tags=("grey", "embedded"),
    splits=("train", "val", "test"),
    classes=tuple(string.digits),
    shape=(1, 28, 28),
    versions=("scikit-learn",),
)
def digits(split: str) -> ImageSet:
    """The 1,797 real handwritten digits of scikit-learn, 8x8 enlarged to 20x20 in a 28x28 frame as in MNIST.

    Fixed stratified splits: 1,077 train, 180 val, 540 test images.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    positions = _positions(labels)[split]
    small = torch.from_numpy(bunch.images[positions.numpy()].astype(np.float32))[:, None] / 16
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False).clamp(0, 1)
    pixels = F.pad((large * 255).round().to(torch.uint8), (4, 4, 4, 4))
    return ImageSet(pixels, labels[positions], tuple(string.digits), positions, "digits", split)


def _positions(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    in_test = stratified(labels, _TEST)
    rest = torch.nonzero(~in_test).flatten()
    in_val = stratified(labels[rest], _VAL)
    return {"train": rest[~in_val], "val": rest[in_val], "test": torch.nonzero(in_test).flatten()}
