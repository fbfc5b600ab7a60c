"""A small trained network, and models of which the right answer is known."""

from __future__ import annotations

import os

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


class Constant(nn.Module):
    """Predicts class 3 whatever it sees; its gradient exists and is zero."""

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1).sum(dim=1, keepdim=True) * torch.zeros(10, device=images.device)
        return logits + torch.nn.functional.one_hot(torch.tensor(3, device=images.device), 10)


class NotANumber(nn.Module):
    """Predicts class 3, and NaN as soon as a pixel differs from 0.5; a NaN's argmax is class 0."""

    def forward(self, images: Tensor) -> Tensor:
        # The square root's gradient at 0 is infinite, and infinity times 0 is NaN.
        offset = (images - 0.5).flatten(1).abs().sum(dim=1, keepdim=True)
        return Constant()(images) + (-offset).sqrt() * 0


def small_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(data.target)


@pytest.fixture(scope="session")
def trained(digits: tuple[Tensor, Tensor]) -> nn.Module:
    images, labels = digits[0][:1200], digits[1][:1200]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = small_net()
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(6):
            for batch in torch.randperm(len(images)).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimiser.step()
    return model.eval()


@pytest.fixture(scope="session")
def correct(trained: nn.Module, digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """300 held-out images that the trained network gets right."""
    images, labels = digits[0][1200:], digits[1][1200:]
    with torch.no_grad():
        right = trained(images).argmax(dim=1) == labels
    return images[right][:300], labels[right][:300]


@pytest.fixture(scope="session")
def linear() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear model of ten classes, 40 images near grey (no pixel reaches 0 or 1), and its predictions."""
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(10, 64, generator=generator))
        layer.bias.copy_(-layer.weight.sum(dim=1) / 2)
    model = nn.Sequential(nn.Flatten(), layer).eval()
    images = 0.5 + 0.1 * torch.randn(40, 1, 8, 8, generator=generator).clamp(-2, 2)
    with torch.no_grad():
        return model, images, model(images).argmax(dim=1)


@pytest.fixture
def constant() -> nn.Module:
    return Constant()


@pytest.fixture
def not_a_number() -> nn.Module:
    return NotANumber()
