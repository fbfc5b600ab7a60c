"""Images to train on, small networks, and where checkpoints go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from gauntlet.datasets import ImageSet
from gauntlet.models import CheckpointStore


def image_set(pixels: torch.Tensor, labels: torch.Tensor, split: str = "train", classes: int = 10) -> ImageSet:
    names = tuple(map(str, range(classes)))
    return ImageSet(pixels, labels.long(), names, torch.arange(len(labels)), "eights", split)


@pytest.fixture(scope="session")
def eights() -> Callable[..., ImageSet]:
    """scikit-learn's digits, 1x8x8, straight from the library: `train` 1,000, `val` 200, `test` 597."""
    data = load_digits()
    pixels = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    parts = {"train": slice(0, 1000), "val": slice(1000, 1200), "test": slice(1200, None)}

    def get(split: str, count: int | None = None) -> ImageSet:
        part = parts[split]
        return image_set(pixels[part][:count], labels[part][:count], split)

    return get


def small_net(seed: int = 0, *, norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """A linear classifier of 8x8 images behind one hidden layer."""
    torch.manual_seed(seed)
    middle: list[nn.Module] = [nn.BatchNorm1d(32)] if norm else []
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 10))


@pytest.fixture
def make_net() -> Callable[..., nn.Sequential]:
    return small_net


@pytest.fixture
def make_set() -> Callable[..., ImageSet]:
    return image_set


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "cache" / "models")
