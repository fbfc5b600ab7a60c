"""Covariate-shifted sets: Semeion, and sets of image files in a zip."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gauntlet import GauntletError
from gauntlet.datasets import DataSource, resolve
from gauntlet.registry import NotAvailable

RNG = np.random.default_rng(0)


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    """Reads from the folder that the test writes to."""
    return DataSource(root=tmp_path, cache=tmp_path / "cache")


def write_semeion(root: Path, digits: np.ndarray, labels: list[int]) -> None:
    (root / "SEMEION").mkdir(exist_ok=True)
    rows = np.concatenate([digits.reshape(len(digits), 256), np.eye(10)[labels]], axis=1)
    np.savetxt(root / "SEMEION" / "semeion.data", rows, fmt="%.4f")


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


class TestSemeion:
    def test_digits_stand_enlarged_in_the_middle(self, tmp_path, source):
        digits = np.zeros((2, 16, 16))
        digits[0] = 1
        digits[1, :8] = 1
        write_semeion(tmp_path, digits, [3, 9])
        images = resolve("semeion", source).load("test")
        assert images.labels.tolist() == [3, 9]
        assert images.shape == (1, 28, 28)
        whole, half = images.pixels[:, 0].numpy()
        assert (whole[4:24, 4:24] == 255).all()
        assert whole.sum() == 255 * 400
        assert (half[4:13, 4:24] == 255).all()
        assert (half[15:] == 0).all()

    def test_another_file_is_one_sentence(self, tmp_path, source):
        (tmp_path / "SEMEION").mkdir()
        (tmp_path / "SEMEION" / "semeion.data").write_text("1 2 3\n", encoding="utf-8")
        with pytest.raises(GauntletError, match="must have 256 binary pixels and a one-hot digit per line"):
            resolve("semeion", source).load("test")

    def test_an_absent_file_is_named_with_its_home(self, source):
        with pytest.raises(NotAvailable, match="semeion"):
            resolve("semeion", source).load("test")


class TestZips:
    def test_mnist_m_is_read_in_the_order_of_its_labels(self, tmp_path, source):
        pixels = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
        (tmp_path / "MNIST-M").mkdir()
        with zipfile.ZipFile(tmp_path / "MNIST-M" / "test_first2000.zip", "w") as archive:
            archive.writestr("labels.txt", "00000002.png 7\n00000000.png 2\n00000001.png 1\n")
            for number in range(3):
                archive.writestr(f"images/{number:08d}.png", encoded(pixels[number], "PNG"))
        images = resolve("mnist-m", source).load("test")
        assert images.labels.tolist() == [7, 2, 1]
        assert np.array_equal(images.pixels.numpy(), pixels[[2, 0, 1]].transpose(0, 3, 1, 2))

    def test_cifar10_jpeg_has_its_classes_in_the_file_names(self, tmp_path, source):
        flat = np.full((32, 32, 3), 100, dtype=np.uint8)
        (tmp_path / "CIFAR10").mkdir()
        with zipfile.ZipFile(tmp_path / "CIFAR10" / "test_jpeg.zip", "w") as archive:
            for name in ("00001_ship.jpg", "00000_cat.jpg"):
                archive.writestr(name, encoded(flat, "JPEG"))
        images = resolve("cifar10-jpeg", source).load("test")
        assert [images.classes[label] for label in images.labels] == ["cat", "ship"]
        assert np.abs(images.pixels.numpy().astype(int) - 100).max() <= 2

    def test_what_is_no_zip_is_one_sentence(self, tmp_path, source):
        (tmp_path / "CIFAR10").mkdir()
        (tmp_path / "CIFAR10" / "test_jpeg.zip").write_bytes(b"nothing")
        with pytest.raises(GauntletError, match="is damaged or no zip"):
            resolve("cifar10-jpeg", source).load("test")


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "count"), [("semeion", 1593), ("mnist-m", 2000), ("cifar10-jpeg", 10_000)])
def test_the_real_files(name, count, real):
    images = resolve(name, real).load("test")
    assert len(images) == count
    assert set(images.labels.tolist()) == set(range(10))
