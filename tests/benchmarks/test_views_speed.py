"""The views of SimCLR against torchvision's transforms, image by image through a DataLoader.

    pytest -m benchmark_suite -s tests/benchmarks/test_views_speed.py

Both make two views of 2,000 images, in turn in the same run, by the policies `cifar` (32x32) and `r4` (96x96). The peer
is what re-implementations of SimCLR do: PIL images, two persistent workers, which are warm before the clock starts.
What is compared is processor time, of this process and of the workers together, which neighbours on the machine hardly
move. PIL resamples and blurs fast: the gain is that of batches, largest for small images.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from gauntlet.models.training.batch import as_images
from gauntlet.models.training.view_policy import POLICIES

pytestmark = [
    pytest.mark.benchmark_suite,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the processor time of workers as Linux tells it"),
]
COUNT, BATCH, ROUNDS = 2000, 250, 5


class TwoViews(Dataset):
    """Two views of each picture, as tensors."""

    def __init__(self, pixels: torch.Tensor, low: float, strength: float, blur: bool) -> None:
        from torchvision import transforms as T

        self.pictures = pixels.permute(0, 2, 3, 1).numpy()
        amounts = [0.8 * strength] * 3 + [0.2 * strength]
        steps = [
            T.RandomResizedCrop(pixels.shape[-1], (low, 1.0)),
            T.RandomHorizontalFlip(),
            T.RandomApply([T.ColorJitter(*amounts)], p=0.8),
            T.RandomGrayscale(0.2),
        ]
        steps += [T.RandomApply([T.GaussianBlur(9, (0.1, 2.0))], p=0.5)] if blur else []
        self.view = T.Compose([*steps, T.ToTensor()])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture = Image.fromarray(self.pictures[index])
        return self.view(picture), self.view(picture)


def processor_time() -> float:
    """Seconds that this process and its living children have computed so far."""
    clocks = [(~child.pid << 3) | 2 for child in multiprocessing.active_children()]  # see clock_getcpuclockid(3)
    return time.process_time() + sum(time.clock_gettime(clock) for clock in clocks)


def seconds(run: Callable[[], Any]) -> float:
    started = processor_time()
    run()
    return processor_time() - started


@pytest.mark.parametrize(
    ("side", "policy", "peers", "least"), [(32, "cifar", (0.2, 0.5, False), 7.0), (96, "r4", (0.08, 1.0, True), 2.5)]
)
def test_views_in_batches_are_faster_than_image_by_image(
    benchmark: Any, side: int, policy: str, peers: Any, least: float
) -> None:
    pixels = torch.randint(256, (COUNT, 3, side, side), dtype=torch.uint8)
    loader = DataLoader(TwoViews(pixels, *peers), BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    rng = torch.Generator().manual_seed(0)

    def theirs() -> None:
        for first, second in loader:
            assert first.shape == second.shape

    def ours() -> None:
        for part in torch.randperm(COUNT).split(BATCH):
            images = as_images(pixels[part])
            assert POLICIES[policy](images, rng).shape == POLICIES[policy](images, rng).shape

    theirs(), ours()  # workers start, caches fill
    times = [(seconds(theirs), seconds(ours)) for _ in range(ROUNDS)]
    peer, mine = (statistics.median(times_of) for times_of in zip(*times, strict=True))
    benchmark.extra_info["ratio"] = peer / mine
    benchmark.pedantic(ours, rounds=1)
    print(f"\n{side}x{side}, two views of {COUNT}: {mine:.2f} s; DataLoader {peer:.2f} s ({peer / mine:.2f} x)")
    assert peer / mine >= least
