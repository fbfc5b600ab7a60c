"""Models of which the right answer to an attack is known, and the digits that they are attacked on."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class KnownModel:
    """A model, images that it gets right, and their labels."""

    model: nn.Module
    images: Tensor
    labels: Tensor


class Constant(nn.Module):
    """Predicts class 3 whatever it sees; its gradient exists and is zero.

    Not class 0, which is the argmax of NaN and would hide an attack that returns NaN.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10)."""
        nothing = images.flatten(1).sum(dim=1, keepdim=True) * torch.zeros(10, device=images.device)
        return nothing + nn.functional.one_hot(torch.tensor(3, device=images.device), 10)


class Masked(nn.Module):
    """A model behind a rounding of its input to 32 grey levels: as easy to fool, but its gradient is zero."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of the inner model."""
        return self.inner((images * 31).round() / 31)


class Randomised(nn.Module):
    """A model whose logits are noisy, so that a prediction near a boundary differs from pass to pass."""

    def __init__(self, inner: nn.Module, spread: float = 0.5) -> None:
        super().__init__()
        self.inner, self.spread = inner, spread

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of the inner model plus Gaussian noise."""
        logits = self.inner(images)
        return logits + self.spread * torch.randn_like(logits)


@functools.cache
def linear(count: int = 24) -> KnownModel:
    """Ten linear classes on grey 8 x 8 images of which no pixel is near 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(10, 64, generator=generator))
        layer.bias.copy_(-layer.weight.sum(dim=1) / 2)
        images = 0.5 + 0.1 * torch.randn(count, 1, 8, 8, generator=generator).clamp(-2, 2)
        model = nn.Sequential(nn.Flatten(), layer).eval()
        return KnownModel(model, images, model(images).argmax(dim=1))


@functools.cache
def trained(count: int = 24) -> KnownModel:
    """A small convolutional network, trained for a second on scikit-learn's digits, and test digits it gets right."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(data.target)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
        )
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(8):
            for batch in torch.randperm(1200).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimiser.step()
    images, labels = images[1200:], labels[1200:]
    with torch.no_grad():
        right = model.eval()(images).argmax(dim=1) == labels
    return KnownModel(model, images[right][:count], labels[right][:count])


def exact_distances(known: KnownModel, norm: str) -> Tensor:
    """Smallest perturbation (N,) that changes the prediction of a linear model; a lower bound where pixels clip.

    Without clipping it is the least of gap_k / ||w_k - w_y||_q over the other classes k, with q dual to the norm. In
    L0 (pixels) it is exact: the largest gains of single pixels are spent first.
    """
    layer = known.model[1]  # type: ignore[index]
    flat, labels = known.images.flatten(1), known.labels
    with torch.no_grad():
        logits = known.model(known.images)
        gaps = logits.gather(1, labels[:, None]) - logits
        ways = layer.weight[None] - layer.weight[labels][:, None]
        if norm == "l0":
            gains = torch.maximum(ways * (1 - flat)[:, None], -ways * flat[:, None])
            total = gains.sort(dim=2, descending=True).values.cumsum(dim=2)
            needed = (total <= gaps[:, :, None]).sum(dim=2) + 1.0
        else:
            needed = gaps / torch.linalg.vector_norm(ways, ord=_DUAL[norm], dim=2)
        return needed.scatter(1, labels[:, None], torch.inf).amin(dim=1)


_DUAL = {"linf": 1, "l2": 2, "l1": float("inf")}
