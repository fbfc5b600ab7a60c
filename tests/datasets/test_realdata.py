"""Counts, shapes and means of the real sets, as published or as their source describes them."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from torchvision.datasets import mnist as torchvision_mnist

from gauntlet.datasets import DataSource, resolve
from gauntlet.datasets.files.openood import _verify, known_lists
from gauntlet.datasets.png_sheets import find_sheets, labels_file, read_sheets

pytestmark = pytest.mark.realdata

MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def counts(dataset, split: str) -> list[int]:
    return torch.bincount(dataset.load(split).labels, minlength=len(dataset.classes)).tolist()


def test_mnist(real):
    dataset = resolve("mnist", real)
    assert dataset.splits == ("train", "val", "test")
    assert counts(dataset, "test") == MNIST_TEST
    train, val = dataset.load("train"), dataset.load("val")
    assert (len(train), len(val), train.shape) == (54_000, 6_000, (1, 28, 28))
    assert counts(dataset, "train")[0] + counts(dataset, "val")[0] == 5923
    pixels = torch.cat([train.pixels, val.pixels]).double() / 255
    assert pixels.mean() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std() == pytest.approx(0.3081, abs=5e-5)


def test_mnist_without_zeros_as_report_r3_has_it(real):
    dataset = resolve({"mnist": {"hold_out": [0]}}, real)
    assert len(dataset.load("train")) + len(dataset.load("val")) == 54_077
    assert len(dataset.load("test")) == 9_020
    assert len(resolve({"mnist": {"only": [0]}}, real).load("test")) == 980


@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist(real, split):
    dataset = resolve("fashion-mnist", real)
    wanted = {"train": [5400] * 10, "test": [1000] * 10}
    assert counts(dataset, split) == wanted[split]


def test_fashion_mnist_has_the_published_mean(real):
    dataset = resolve("fashion-mnist", real)
    pixels = torch.cat([dataset.load("train").pixels, dataset.load("val").pixels]).double() / 255
    assert pixels.mean() == pytest.approx(0.2860, abs=5e-5)
    assert pixels.std() == pytest.approx(0.3530, abs=5e-5)


def test_emnist_letters(real):
    dataset = resolve("emnist-letters", real)
    assert dataset.splits == ("test",)
    assert "emnist-letters-train-images-idx3-ubyte.gz" in str(dataset.obstacle("train"))
    assert counts(dataset, "test") == [800] * 26


def test_emnist_letters_stand_upright(real):
    """The letter i is higher than it is wide, and t has more ink in its upper half than l."""
    images = resolve({"emnist-letters": {"only": ["i"]}}, real).load("test").images[:, 0]
    high = (images > 0.3).any(dim=2).sum(dim=1).float().mean()
    wide = (images > 0.3).any(dim=1).sum(dim=1).float().mean()
    assert high > 1.2 * wide


def test_notmnist(real):
    dataset = resolve("notmnist", real)
    assert dataset.splits == ("test",)
    assert counts(dataset, "test") == [1000] * 10
    images = dataset.load("test").images
    assert images.mean() == pytest.approx(0.42, abs=0.01)
    assert len(dataset.load("test").pixels.flatten(1).unique(dim=0)) == 9804


def test_torchvision_reads_the_same_pixels(real, tmp_path):
    for name, folder in (("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("notmnist", "notMNIST")):
        packed = real.root / folder / "raw" / "t10k-images-idx3-ubyte.gz"
        unpacked = tmp_path / folder
        unpacked.write_bytes(gzip.decompress(packed.read_bytes()))
        theirs = torchvision_mnist.read_image_file(str(unpacked))
        assert torch.equal(resolve(name, real).load("test").pixels[:, 0], theirs)


def test_torchvisions_mnist_class_reads_the_same_from_unpacked_files(real, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (real.root / "MNIST" / "raw").glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    unpacked = DataSource(tmp_path, tmp_path / "cache")
    for split in ("train", "test"):
        theirs = torchvision_mnist.MNIST(tmp_path, train=split == "train", download=False)
        for source in (real, unpacked):
            ours = resolve("mnist", source).load(split)
            assert torch.equal(ours.pixels[:, 0], theirs.data[ours.indices])
            assert torch.equal(ours.labels, theirs.targets[ours.indices])


def test_cifar10_sheets(real):
    dataset = resolve("cifar10", real)
    assert (dataset.splits, dataset.shape) == (("train", "val", "test"), (3, 32, 32))
    train, val, test = (dataset.load(split) for split in dataset.splits)
    indices = torch.cat([train.indices, val.indices]).sort().values
    assert indices.tolist() == [*range(20_000), *range(40_000, 50_000)]
    assert test.indices.tolist() == list(range(10_000))
    assert counts(dataset, "test") == [1000] * 10
    assert [test.classes[label] for label in test.labels[:4]] == ["cat", "ship", "ship", "airplane"]
    means = torch.cat([train.pixels, val.pixels]).float().mean(dim=(0, 2, 3)) / 255
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]), atol=0.002, rtol=0)


def test_cifar10_without_the_twenty_images_that_are_lossy(real, tmp_path):
    folder = tmp_path / "CIFAR10"
    folder.mkdir()
    (folder / "sheets").symlink_to(real.root / "CIFAR10" / "sheets")
    (folder / "test_labels.npy").symlink_to(real.root / "CIFAR10" / "test_labels_exact.npy")
    test = resolve("cifar10", DataSource(tmp_path, tmp_path / "cache")).load("test")
    lossy = np.load(real.root / "CIFAR10" / "test_lossy_indices.npy", allow_pickle=False)
    assert test.indices.tolist() == np.setdiff1d(np.arange(10_000), lossy).tolist()
    assert int(test.labels.max()) == 9


def test_cifar10_with_its_last_batch_held_out(real):
    dataset = resolve({"cifar10": {"test": "held-out"}}, real)
    assert [len(dataset.load(split)) for split in dataset.splits] == [18_000, 2_000, 10_000]
    assert counts(dataset, "test") == [1014, 1014, 952, 1016, 997, 1025, 980, 977, 1003, 1022]  # data_batch_5


def test_cifar100_sheet(real):
    dataset = resolve("cifar100", real)
    names = json.loads((real.root / "CIFAR100" / "label_names.json").read_text())
    assert dataset.classes == tuple(names["fine"])
    assert dataset.splits == ("test",)
    assert len(dataset.load("test")) == 10_000
    assert counts(dataset, "test") == [100] * 100
    coarse = np.load(real.root / "CIFAR100" / "test_coarse_labels.npy", allow_pickle=False)
    flowers = [names["fine"].index(name) for name in ("orchid", "poppy", "rose", "sunflower", "tulip")]
    fine = dataset.load("test").labels.numpy()
    assert np.array_equal(np.isin(fine, flowers), coarse == names["coarse"].index("flowers"))


def test_svhn_sheet(real):
    dataset = resolve("svhn", real)
    assert dataset.splits == ("train", "val", "test")
    assert len(dataset.load("train")) + len(dataset.load("val")) == 1083
    assert counts(dataset, "test") == [684, 1968, 1590, 1104, 964, 909, 773, 767, 621, 620]
    parts = resolve({"svhn": {"test": "held-out"}}, real)
    assert [len(parts.load(split)) for split in parts.splits] == [780, 87, 216]


@pytest.mark.parametrize(
    ("split", "published"),
    [
        ("train", [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]),
        ("test", [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]),
    ],
)
def test_usps_lies_in_grey_sheets(real, split, published):
    sheets = find_sheets(real.root / "USPS", split, train_size=7291)
    pixels, labels, _ = read_sheets(sheets, labels_file(real.root / "USPS", sheets), (1, 16, 16))
    assert pixels.shape == (sum(published), 1, 16, 16)
    assert np.bincount(labels).tolist() == published


def test_colour_sets_become_mnist_shaped(real):
    images = resolve({"cifar10": {"limit": 100}}, real, shape=(1, 28, 28)).load("test")
    assert images.shape == (1, 28, 28)
    assert images.conversion == "3x32x32 -> 1x28x28: luma (ITU-R 601), bilinear"


def test_without_a_cache_folder_fingerprints_are_still_the_same(real):
    assert resolve("mnist", real).fingerprint("test") == resolve("mnist", real).fingerprint("test")


def test_usps(real):
    dataset = resolve("usps", real)
    assert counts(dataset, "test") == [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]
    whole = torch.tensor(counts(dataset, "train")) + torch.tensor(counts(dataset, "val"))
    assert whole.tolist() == [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]


def test_the_published_lists_have_the_hashes_that_are_shipped(real, tmp_path):
    with tarfile.open(real.root / "OpenOOD" / "imglists.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for name, (digest, lines) in known_lists().items():
        _verify(tmp_path / "imglists" / name, digest, lines)
    assert len(known_lists()) == 72


def test_photographs_of_tiny_imagenet_are_a_folder(real, tmp_path):
    with zipfile.ZipFile(real.root / "TinyImageNet" / "val_first2500.zip") as archive:
        archive.extractall(tmp_path)
    images = resolve({"image-folder": {"path": str(tmp_path), "labels": "none"}}, real).load("test")
    assert (len(images), images.shape) == (2500, (3, 64, 64))


def test_traffic_signs_are_a_list(real, tmp_path):
    with zipfile.ZipFile(real.root / "GTSRB" / "final_test_35x35_sample1500.zip") as archive:
        archive.extractall(tmp_path)
    spec = {"path": str(tmp_path / "labels.txt"), "root": str(tmp_path / "images"), "transform": "small-32"}
    images = resolve({"image-list": spec}, real).load("test")
    assert (len(images), images.shape, len(images.classes)) == (1500, (3, 32, 32), 43)
