"""The idx sets, against files that the tests write and torchvision's own classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import datasets as torchvision_datasets

from gauntlet.datasets import DataSource, resolve
from gauntlet.datasets.mnist import TABLE
from gauntlet.registry import GauntletError

NAMES = [row.name for row in TABLE]


def test_the_table_has_the_sets_of_torchvision():
    emnist = [f"emnist-{split}" for split in ("letters", "digits", "mnist", "balanced", "bymerge", "byclass")]
    assert ["mnist", "fashion-mnist", "kmnist", *emnist] == NAMES


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_torchvision_reads_the_same_from_unpacked_files(name, split, source, write_mnist):
    row = next(row for row in TABLE if row.name == name)
    for prefix, count in (("train", 30), ("t10k", 20)):
        write_mnist(source, row.folder, prefix, count, suffix="")
    theirs = getattr(torchvision_datasets, row.folder)(source.root, train=split == "train", download=False)
    parts = [resolve(name, source).load(part) for part in (("train", "val") if split == "train" else ("test",))]
    order = torch.cat([part.indices for part in parts])
    assert torch.equal(torch.cat([part.pixels for part in parts])[:, 0], theirs.data[order])
    assert torch.equal(torch.cat([part.labels for part in parts]), theirs.targets[order])


def test_emnist_letters_are_set_upright_and_counted_from_a(source, write_mnist):
    images, _ = write_mnist(source, "EMNIST", "emnist-letters-test", 52, labels=np.arange(52) % 26 + 1, suffix="")
    dataset = resolve("emnist-letters", source)
    loaded = dataset.load("test")
    assert dataset.splits == ("test",)
    assert dataset.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    assert [loaded.classes[label] for label in loaded.labels[:3]] == ["a", "b", "c"]
    assert np.array_equal(loaded.pixels[:, 0].numpy(), images.transpose(0, 2, 1))
    theirs = torchvision_datasets.EMNIST(source.root, split="letters", train=False)
    assert [theirs.classes[label] for label in theirs.targets] == [loaded.classes[label] for label in loaded.labels]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_compressed_and_unpacked_files_give_the_same(suffix, source, write_mnist):
    images, labels = write_mnist(source, "MNIST", "t10k", 12, suffix=suffix)
    loaded = resolve("mnist", source).load("test")
    assert np.array_equal(loaded.pixels[:, 0].numpy(), images)
    assert loaded.labels.tolist() == labels.tolist()


def test_a_read_only_root_is_enough_and_stays_as_it_is(source, write_mnist):
    write_mnist(source, "MNIST", "t10k", 12)
    before = sorted(source.root.rglob("*"))
    for path in [*before, source.root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        dataset = resolve("mnist", DataSource(source.root, source.root / "cache"))
        dataset.fingerprint("test")
        assert len(dataset.load("test")) == 12
    finally:
        for path in [source.root, *before]:
            path.chmod(0o755)


def test_images_and_labels_of_different_number_are_both_named(source, write_mnist, write_idx):
    write_mnist(source, "MNIST", "t10k", 12)
    write_idx(source.root / "MNIST/raw/t10k-labels-idx1-ubyte.gz", np.zeros(11))
    with pytest.raises(
        GauntletError, match=r"t10k-images-idx3-ubyte.gz has 12 images but .*t10k-labels-idx1-ubyte.gz has 11"
    ):
        resolve("mnist", source).load("test")


def test_a_label_beyond_the_classes_is_an_error(source, write_mnist):
    write_mnist(source, "MNIST", "t10k", 3, labels=[0, 10, 1])
    with pytest.raises(GauntletError, match=r"'mnist' \(test\): labels must be .* below 10"):
        resolve("mnist", source).load("test")


def test_a_truncated_file_is_named_and_nothing_is_loaded(source, write_mnist):
    write_mnist(source, "MNIST", "t10k", 12)
    path = source.root / "MNIST/raw/t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GauntletError, match=r"t10k-images-idx3-ubyte\.gz is damaged: its gzip compression is broken"):
        resolve("mnist", source).load("test")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_torchvision_is_asked_to_download_the_split(row, source, monkeypatch):
    asked = {}
    monkeypatch.setattr(torchvision_datasets, row.folder, lambda root, **how: asked.update(how, root=root))
    row.download("test", source)
    assert asked == {"root": source.root, "train": False, "download": True, **dict(row.options)}
