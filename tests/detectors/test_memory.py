"""DICE, GMM and KNN at ImageNet's width and classes: their scratch memory stays under a bound, however many rows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gauntlet.detectors import Head, Outputs, build_detector, check_scores
from gauntlet.registry import DETECTORS

pytestmark = pytest.mark.slow

WIDTH, CLASSES, QUERIES = 2048, 1000, 500
#: Bytes beyond what a detector must keep: one copy of the training features for KNN, nothing for the others.
SCRATCH = 1.5 * 2**30
ROWS = {"dice": 100_000, "gmm": 25_600, "knn": 100_000}
OWN_CLASSES = {"gmm": 20}  # of 1,280 images each, as ImageNet's; classes come one after the other


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(work: Callable[[], Any]) -> int:
    """How many bytes the process grew at most while ``work`` ran."""
    before, highest, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return highest[0] - before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("name", sorted(ROWS))
def test_scratch_memory_is_bounded(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, classes = ROWS[name], OWN_CLASSES.get(name, CLASSES)
    features = torch.rand(rows, WIDTH, generator=generator)
    head = Head(torch.randn(CLASSES, WIDTH, generator=generator), torch.zeros(CLASSES))
    train = Outputs(torch.arange(rows) % classes, torch.zeros(rows, 1), features, head=head)
    queries = torch.rand(3 * QUERIES, WIDTH, generator=generator)
    built = build_detector(DETECTORS.get(name))
    times: list[float] = []

    def score(n: int) -> None:
        started = time.perf_counter()
        check_scores(built.score(Outputs(torch.zeros(n), torch.zeros(n, 1), queries[:n])), n, name)
        times.append(time.perf_counter() - started)

    def everything() -> None:
        built.fit(train, None, head)
        score(QUERIES)

    grown = growth(everything) - (features.numel() * 4 if name == "knn" else 0)
    score(3 * QUERIES)
    each = max(times[1] - times[0], 0.0) / (2 * QUERIES)  # the rest of the time is the same for any number of queries
    scale = {"dice": 1.0, "gmm": CLASSES / classes, "knn": 1_280_000 / rows}[name]
    whole = scale * (times[0] + each * (50_000 - QUERIES))
    print(
        f"\n{name}, {rows} x {WIDTH}: {QUERIES} scores {times[0]:.1f} s, scratch {grown / 2**30:.2f} GiB; "
        f"50,000 scores at 1.28 million rows and 1,000 classes: about {whole / 60:.0f} min"
    )
    assert grown < SCRATCH
