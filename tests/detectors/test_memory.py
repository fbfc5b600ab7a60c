"""DICE, GMM and KNN at ImageNet's size: their own memory stays under a bound, and the time of 50,000 scores is told.

1,280,000 training features of 2,048 dimensions in 1,000 classes are random numbers in a memory-mapped file (10.5 GB),
as cached outputs are; what a process maps from a file is not counted. GMM, which takes class after class, is shown the
first 50 classes; a class costs the same as any other.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gauntlet.detectors import Head, Outputs, build_detector, check_scores
from gauntlet.registry import DETECTORS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc"),
]

ROWS, WIDTH, CLASSES, QUERIES = int(os.environ.get("GAUNTLET_ROWS", "1280000")), 2048, 1000, 500
CLASSES_OF_GMM = 50
BOUND = 2**30  # bytes that a detector may take for itself


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Iterator[Tensor]:
    path = tmp_path_factory.mktemp("features") / "features.bin"
    generator = torch.Generator().manual_seed(0)
    with path.open("wb") as file:
        for _ in range(ROWS // 10_000):
            torch.rand(10_000, WIDTH, generator=generator).numpy().tofile(file)
    yield torch.from_file(str(path), shared=False, size=ROWS // 10_000 * 10_000 * WIDTH).view(-1, WIDTH)
    path.unlink()


def own_memory() -> int:
    """Bytes of this process that are in memory and in no file."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def growth(work: Callable[[], Any]) -> int:
    """How many bytes the process grew at most while ``work`` ran."""
    before, highest, done = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return highest[0] - before


@pytest.mark.parametrize("name", ["dice", "knn", "gmm"])
def test_a_detectors_own_memory_is_bounded(name: str, features: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    per_class = len(features) // CLASSES
    if name == "gmm":
        features = features[: CLASSES_OF_GMM * per_class]
    head = Head(torch.randn(CLASSES, WIDTH, generator=generator), torch.zeros(CLASSES))
    labels = torch.arange(len(features)) // per_class
    train = Outputs(labels, torch.zeros(len(features), 1), features, head=head)
    queries = torch.rand(2 * QUERIES, WIDTH, generator=generator)
    built = build_detector(DETECTORS.get(name))
    times: list[float] = []

    def timed(work: Callable[[], Any]) -> None:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)

    def score(n: int) -> None:
        check_scores(built.score(Outputs(torch.zeros(n), torch.zeros(n, 1), queries[:n])), n, name)

    def everything() -> None:
        timed(lambda: built.fit(train, None, head))
        timed(lambda: score(QUERIES))

    grown = growth(everything)
    timed(lambda: score(2 * QUERIES))
    each = max(times[2] - times[1], 0.0) / QUERIES  # the rest is the same for any number of queries
    scale = CLASSES / CLASSES_OF_GMM if name == "gmm" else 1_280_000 / len(features)
    whole = scale * (times[0] + times[1] + each * (50_000 - QUERIES))
    print(
        f"\n{name}, {len(features)} x {WIDTH}: fit {times[0]:.1f} s, {QUERIES} scores {times[1]:.1f} s, "
        f"own memory {grown / 2**30:.2f} GiB; fit and 50,000 scores at full size: about {whole / 60:.0f} min"
    )
    assert grown < BOUND
