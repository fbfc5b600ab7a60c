"""What JARN costs: its step against a plain one.

    pytest -m benchmark_suite -s tests/benchmarks/test_jarn_speed.py

The network of report R1; CPU seconds of the process, both sides in turn on one thread: six steps of 32 images, the
discriminator trained in the first of them (the recipe's own pace is one in twenty).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gauntlet.datasets import ImageSet
from gauntlet.registry import MODELS, RECIPES

pytestmark = pytest.mark.benchmark_suite


def colours(count: int) -> ImageSet:
    pixels = torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 10, tuple("0123456789"), torch.arange(count), "random", "train")


def test_a_step_costs_at_most_three_and_a_half_plain_ones(
    benchmark: Any, one_thread: None, fastest: Callable[..., dict[str, float]]
) -> None:
    data = colours(192)
    net = MODELS.create("cnn-plus")

    def epoch(name: str, **settings: Any) -> None:
        net.to(memory_format=torch.channels_last)
        recipe = RECIPES.create(name, epochs=1, batch_size=32, **settings)
        recipe.train(net, data, data.subset([]), device=torch.device("cpu"), seed=0)

    sides = {"plain": lambda: epoch("standard"), "jarn": lambda: epoch("jarn", start_ratio=0.0)}
    sides["jarn"]()  # warm
    seconds = fastest(sides)
    ratio = seconds["jarn"] / seconds["plain"]
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(sides["plain"], rounds=1)
    print(f"\ncnn-plus, six steps of 32: plain {seconds['plain']:.2f} s, JARN {seconds['jarn']:.2f} s "
          f"({ratio:.2f} x)")  # fmt: skip
    assert ratio <= 3.5
