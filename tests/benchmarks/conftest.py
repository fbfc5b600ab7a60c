"""What the speed comparisons of attacks share: trained networks, and a clock that neighbours cannot move."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gauntlet.registry import MODELS

IMAGES = 512
ROUNDS = 3

Target = tuple[nn.Module, Tensor, Tensor]
Images = tuple[Tensor, Tensor, Tensor, Tensor]


def mnist(root: Path) -> Images:
    from gauntlet.datasets.idx import read_images, read_labels

    def read(prefix: str, count: int) -> tuple[Tensor, Tensor]:
        folder = root / "MNIST" / "raw"
        pixels, labels = (next(folder.glob(f"{prefix}-{kind}*")) for kind in ("images", "labels"))
        images = torch.from_numpy(read_images(pixels)[:count]).unsqueeze(1) / 255
        return images, torch.from_numpy(read_labels(labels)[:count]).long()

    return *read("train", 12000), *read("t10k", 700)


def upscaled_digits() -> Images:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    images = nn.functional.interpolate(images, size=28, mode="bilinear").clamp(0, 1)
    labels = torch.tensor(data.target)
    return images[:700], labels[:700], images[700:], labels[700:]


@pytest.fixture(scope="session")
def data() -> Images:
    """Training and test images and labels: MNIST, or scikit-learn's digits where GAUNTLET_DATA is not set."""
    root = os.environ.get("GAUNTLET_DATA")
    return mnist(Path(root)) if root else upscaled_digits()


def trained(data: Images, model: nn.Module, budget: float = 0.0, epochs: int | None = None) -> Target:
    """The model after brief training (with a step of random start and that budget, if any), and what it gets right."""
    images, labels, test_images, test_labels = data
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs or max(36000 // len(images), 3)):
        for batch in torch.randperm(len(images)).split(64):
            x, y = images[batch], labels[batch]
            if budget:
                x = _one_step(model, x, y, budget)
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        right = model(test_images).argmax(dim=1) == test_labels
    assert right.float().mean() > 0.9
    return model, test_images[right][:IMAGES], test_labels[right][:IMAGES]


def _one_step(model: nn.Module, x: Tensor, y: Tensor, budget: float) -> Tensor:
    start = (x + budget * (2 * torch.rand_like(x) - 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(start), y), start)
    return (x + (start + 1.25 * budget * gradient.sign() - x).clamp(-budget, budget)).clamp(0, 1).detach()


@pytest.fixture(scope="session")
def target(data: Images) -> Target:
    """cnn-small after plain training, and 512 test images that it gets right."""
    torch.manual_seed(0)
    return trained(data, MODELS.create("cnn-small"))


@pytest.fixture(scope="session")
def robust(data: Images) -> Target:
    """cnn-small after adversarial training at Linf 0.1, and 512 test images that it gets right."""
    torch.manual_seed(0)
    return trained(data, MODELS.create("cnn-small"), budget=0.1)


@pytest.fixture
def one_thread():
    """Everything on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fastest() -> Callable[..., dict[str, float]]:
    """Times sides, called in turn: CPU seconds of the process, the least of several rounds."""

    def clock(sides: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, run in sides.items():
                start = time.process_time()
                run()
                times[name].append(time.process_time() - start)
        return {name: min(taken) for name, taken in times.items()}

    return clock
