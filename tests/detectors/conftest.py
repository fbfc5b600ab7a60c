"""A small trained-like network, its outputs, and a registry that forgets what a test registered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gauntlet.detectors import Head, Outputs
from gauntlet.registry import DETECTORS
from gauntlet.registry.registry import current_plugin


class Net(nn.Module):
    """Two layers with batch-norm and dropout, so that a wrong mode shows; 1x6x6 images, 8 features, 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8))
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)

    def features(self, images: Tensor) -> Tensor:
        return self.body(images).relu()

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.features(images)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    built = Net().double().eval()
    with torch.no_grad():
        images = torch.rand(200, 1, 6, 6, dtype=torch.float64)
        built.fc.bias.sub_(built(images).mean(0))  # so that every class is predicted
    return built


def outputs_of(net: Net, n: int, seed: int) -> Outputs:
    """One pass over ``n`` random images, in batches of 7."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 1, 6, 6, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        features = net.features(images)
        logits = net.fc(features)
    return Outputs(
        labels=torch.arange(n) % 4,
        logits=logits,
        features=features,
        head=Head(net.fc.weight.detach(), net.fc.bias.detach()),
        model=net,
        image_batches=lambda: iter(images.split(7)),
    )


@pytest.fixture
def train(net: Net) -> Outputs:
    return outputs_of(net, 120, 1)


@pytest.fixture
def test(net: Net) -> Outputs:
    return outputs_of(net, 40, 2)


@pytest.fixture
def plugin() -> Iterator[None]:
    """What is registered inside the test is forgotten after it."""
    DETECTORS.discover()
    token = current_plugin.set("test-plugin")
    yield
    current_plugin.reset(token)
    DETECTORS.remove_plugin("test-plugin")
