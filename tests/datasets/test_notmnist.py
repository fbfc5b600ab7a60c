from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gauntlet.datasets import DataSource, resolve
from gauntlet.registry import GauntletError


@pytest.fixture(params=["notMNIST_small", "notMNIST"])
def folders(request, source: DataSource) -> dict[str, np.ndarray]:
    """Three PNGs of each letter; the pixels by path."""
    rng = np.random.default_rng(0)
    written = {}
    for letter in "ABCDEFGHIJ":
        folder = source.root / request.param / letter
        folder.mkdir(parents=True)
        for name in ("b", "a", "c"):
            pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
            written[str(folder / f"{name}.png")] = pixels
    return written


def test_idx_files_are_read(source, write_mnist):
    images, labels = write_mnist(source, "notMNIST", "t10k", 30)
    dataset = resolve("notmnist", source)
    loaded = dataset.load("test")
    assert dataset.splits == ("test",)
    assert np.array_equal(loaded.pixels[:, 0].numpy(), images)
    assert [loaded.classes[label] for label in loaded.labels] == ["ABCDEFGHIJ"[label] for label in labels]


def test_a_folder_of_pngs_is_read_by_letter_and_name(source, folders):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = resolve("notmnist", source).load("test")
    assert loaded.labels.tolist() == [label for label in range(10) for _ in range(3)]
    assert loaded.conversion == ""
    for pixels, path in zip(loaded.pixels[:, 0].numpy(), sorted(folders), strict=True):
        assert np.array_equal(pixels, folders[path])


def test_unreadable_pngs_are_left_out_and_counted(source, folders):
    paths = sorted(folders)
    for path, content in ((paths[1], b""), (paths[4], b"no picture")):
        Path(path).write_bytes(content)
    Image.new("L", (20, 28)).save(paths[7])
    with pytest.warns(UserWarning, match="3 of 30 PNGs unreadable, left out"):
        loaded = resolve("notmnist", source).load("test")
    assert loaded.indices.tolist() == [index for index in range(30) if index not in (1, 4, 7)]
    assert loaded.labels.tolist() == [index // 3 for index in loaded.indices.tolist()]
    assert loaded.conversion == "3 of 30 PNGs unreadable, left out"


def test_a_folder_without_one_readable_png_is_an_error(source):
    (source.root / "notMNIST_small" / "A").mkdir(parents=True)
    (source.root / "notMNIST_small" / "A" / "x.png").write_bytes(b"")
    with pytest.raises(GauntletError, match=r"None of the 1 PNGs in .*notMNIST_small is a readable 28x28 grey image"):
        resolve("notmnist", source).load("test")


def test_the_fingerprint_of_a_folder_changes_with_one_png(source, folders):
    before = resolve("notmnist", source).fingerprint("test")
    Image.new("L", (28, 28)).save(max(folders))
    assert resolve("notmnist", source).fingerprint("test") != before


def test_idx_files_win_over_folders(source, folders, write_mnist):
    write_mnist(source, "notMNIST", "t10k", 7)
    assert len(resolve("notmnist", source).load("test")) == 7
