"""Sources in temporary folders, files in their native formats, and datasets that exist for one test only."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gauntlet.datasets import DataSource
from gauntlet.registry import DATASETS
from gauntlet.registry.registry import current_plugin


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    (tmp_path / "root").mkdir()
    return DataSource(tmp_path / "root", tmp_path / "cache")


@pytest.fixture(scope="session")
def real() -> DataSource:
    if "GAUNTLET_DATA" not in os.environ:
        pytest.skip("GAUNTLET_DATA is not set")
    return DataSource(Path(os.environ["GAUNTLET_DATA"]), Path("/nonexistent/cache"))


@pytest.fixture
def temporary_registration() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    DATASETS.discover()
    token = current_plugin.set("of a test")
    yield
    current_plugin.reset(token)
    DATASETS.remove_plugin("of a test")


@pytest.fixture
def write_idx() -> Callable[[Path, np.ndarray], None]:
    """Write a uint8 array as an idx file, after the format's description; compressed if the name ends in .gz."""

    def write(path: Path, array: np.ndarray) -> None:
        header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape)
        content = header + array.astype(np.uint8).tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    return write


@pytest.fixture
def write_mnist(write_idx: Callable) -> Callable:
    """Write images and labels of a split under ``folder/raw`` and return them."""

    def write(source: DataSource, folder: str, prefix: str, count: int, *, suffix: str = ".gz", labels=None):
        rng = np.random.default_rng(len(folder) + len(prefix))
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count) % 10 if labels is None else np.asarray(labels)
        raw = source.root / folder / "raw"
        write_idx(raw / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
        return images, labels

    return write
