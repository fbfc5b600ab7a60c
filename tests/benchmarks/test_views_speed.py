"""The views of SimCLR against torchvision's transforms, image by image through a DataLoader.

    pytest -m benchmark_suite -s tests/benchmarks/test_views_speed.py

Both make two views of 2,000 images of 96x96 by the policy `r4`, in turn in the same run. The peer is what SimCLR's
re-implementations do: PIL images, two persistent workers, which are warm before the clock starts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from gauntlet.models.training.batch import as_images
from gauntlet.models.training.view_policy import POLICIES

pytestmark = pytest.mark.benchmark_suite
COUNT, SIDE, BATCH, ROUNDS = 2000, 96, 250, 3


class TwoViews(Dataset):
    """Two views of each picture, as tensors."""

    def __init__(self, pixels: torch.Tensor) -> None:
        from torchvision import transforms as T

        self.pictures = pixels.permute(0, 2, 3, 1).numpy()
        self.view = T.Compose(
            [
                T.RandomResizedCrop(SIDE, (0.08, 1.0)),
                T.RandomHorizontalFlip(),
                T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
                T.RandomGrayscale(0.2),
                T.RandomApply([T.GaussianBlur(9, (0.1, 2.0))], p=0.5),
                T.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture = Image.fromarray(self.pictures[index])
        return self.view(picture), self.view(picture)


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def test_views_are_seven_times_faster_than_a_data_loader(benchmark: Any) -> None:
    pixels = torch.randint(256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8)
    loader = DataLoader(TwoViews(pixels), BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    rng = torch.Generator().manual_seed(0)

    def theirs() -> None:
        for first, second in loader:
            assert first.shape == second.shape

    def ours() -> None:
        for part in torch.randperm(COUNT).split(BATCH):
            images = as_images(pixels[part])
            assert POLICIES["r4"](images, rng).shape == POLICIES["r4"](images, rng).shape

    theirs(), ours()  # workers start, caches fill
    times = [(seconds(theirs), seconds(ours)) for _ in range(ROUNDS)]
    peer, mine = (statistics.median(side) for side in zip(*times, strict=True))
    benchmark.extra_info["ratio"] = peer / mine
    benchmark.pedantic(ours, rounds=1)
    print(f"\ntwo views of {COUNT} images: {mine:.2f} s; DataLoader, 2 workers {peer:.2f} s ({peer / mine:.2f} x)")
    assert peer / mine >= 7
