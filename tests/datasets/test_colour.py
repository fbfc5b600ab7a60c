"""CIFAR and SVHN from small files in torchvision's formats (with their md5 made known to it) and from sheets."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.datasets as torchvision_datasets
from PIL import Image
from scipy.io import savemat

from gauntlet.datasets import DataSource, resolve
from gauntlet.registry import DATASETS, GauntletError

RNG = np.random.default_rng(0)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar10(source: DataSource, monkeypatch) -> np.ndarray:
    """Five train batches and a test batch of 4 images each; returns their pixels (24, 3, 32, 32)."""
    folder = source.root / "cifar-10-batches-py"
    folder.mkdir()
    pixels = RNG.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
    known = []
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        batch = {"data": pixels[4 * number : 4 * number + 4].reshape(4, -1), "labels": [number] * 4}
        (folder / name).write_bytes(pickle.dumps(batch))
        known.append([name, md5(folder / name)])
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(DATASETS.get("cifar10").meta["classes"])}))
    cifar = torchvision_datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", known[:5])
    monkeypatch.setattr(cifar, "test_list", known[5:])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": md5(folder / "batches.meta")})
    return pixels


@pytest.fixture
def sheets(source: DataSource) -> DataSource:
    """CIFAR-10 sheets 0, 40 and 50, with labels."""
    folder = source.root / "CIFAR10"
    (folder / "sheets").mkdir(parents=True)
    for number in (0, 40, 50):
        pixels = RNG.integers(0, 256, (1000, 1024, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "sheets" / f"cifar10_batch_{number}.png", compress_level=0)
    labels = np.full(50_000, 255, dtype=np.uint8)
    labels[:1000] = np.arange(1000) % 10
    labels[40_000:41_000] = np.arange(1000) % 7
    np.save(folder / "train_labels.npy", labels)
    np.save(folder / "test_labels.npy", (np.arange(10_000) % 10).astype(np.uint8))
    return source


def test_torchvisions_pickles_are_read_by_torchvision(source, cifar10):
    dataset = resolve("cifar10", source)
    train, val, test = (dataset.load(split) for split in ("train", "val", "test"))
    order = torch.cat([train.indices, val.indices])
    assert np.array_equal(torch.cat([train.pixels, val.pixels]).numpy(), cifar10[:20][order.numpy()])
    assert torch.cat([train.labels, val.labels]).tolist() == (order // 4).tolist()
    assert np.array_equal(test.pixels.numpy(), cifar10[20:])
    assert test.labels.tolist() == [5] * 4


def test_a_pickle_that_is_not_the_official_file_is_never_opened(source, cifar10, monkeypatch):
    path = source.root / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"x")
    monkeypatch.setattr("pickle.load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(
        GauntletError, match=r"file of dataset 'cifar10' is damaged: the md5 .* do not fit .*data_batch_3"
    ):
        resolve("cifar10", source).load("train")


def test_half_of_torchvisions_files_are_missing_the_other_half(source, cifar10):
    (source.root / "cifar-10-batches-py" / "test_batch").unlink()
    assert "needs test_batch in" in str(resolve("cifar10", source).obstacle("train"))


def test_svhn_is_read_from_its_mat_file(source, monkeypatch):
    folder = source.root / "SVHN"
    folder.mkdir()
    pixels = RNG.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    savemat(folder / "test_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [2], [9], [10]], dtype=np.uint8)})
    known = {"test": ["", "test_32x32.mat", md5(folder / "test_32x32.mat")]}
    monkeypatch.setattr(torchvision_datasets.SVHN, "split_list", {**torchvision_datasets.SVHN.split_list, **known})
    dataset = resolve("svhn", source)
    assert dataset.splits == ("test",)
    assert np.array_equal(dataset.load("test").pixels.numpy(), pixels.transpose(3, 2, 0, 1))
    assert dataset.load("test").labels.tolist() == [0, 1, 2, 9, 0]


def test_sheets_that_are_here_make_the_official_splits(sheets):
    dataset = resolve("cifar10", sheets)
    train, val, test = (dataset.load(split) for split in ("train", "val", "test"))
    assert [len(train), len(val), len(test)] == [1800, 200, 1000]
    indices = torch.cat([train.indices, val.indices]).sort().values
    assert indices.tolist() == [*range(1000), *range(40_000, 41_000)]
    assert test.indices.tolist() == list(range(1000))


def test_a_held_out_test_set_is_the_last_fifth_of_train_which_train_then_lacks(sheets):
    dataset = resolve({"cifar10": {"test": "held-out"}}, sheets)
    assert dataset.load("test").indices.tolist() == list(range(40_000, 41_000))
    assert dataset.load("test").labels.tolist() == [index % 7 for index in range(1000)]
    indices = torch.cat([dataset.load(split).indices for split in ("train", "val")])
    assert indices.max() == 999


@pytest.fixture
def first_of_svhn(source: DataSource) -> DataSource:
    """A sheet with the first 23 train images of SVHN, all of them inside the held-out part of the whole split."""
    folder = source.root / "SVHN"
    folder.mkdir()
    Image.fromarray(RNG.integers(0, 256, (23, 1024, 3), dtype=np.uint8)).save(folder / "svhn_train_first23.png")
    np.save(folder / "train_first23_labels.npy", (np.arange(23) % 10).astype(np.uint8))
    return source


def test_a_sheet_that_reaches_no_further_than_the_held_out_part_gives_its_last_fifth(first_of_svhn):
    dataset = resolve({"svhn": {"test": "held-out"}}, first_of_svhn)
    assert dataset.splits == ("train", "val", "test")
    assert dataset.load("test").indices.tolist() == [19, 20, 21, 22]
    assert dataset.load("test").labels.tolist() == [9, 0, 1, 2]
    rest = torch.cat([dataset.load(split).indices for split in ("train", "val")])
    assert rest.sort().values.tolist() == list(range(19))


def test_result_rows_say_where_the_held_out_part_is_not_the_official_one(first_of_svhn, sheets):
    partial = resolve({"svhn": {"test": "held-out"}}, first_of_svhn)
    assert partial.describe()["held_out"] == "the last 4 of the 23 train images that are here"
    assert "held_out" not in resolve("svhn", first_of_svhn).describe()
    assert "held_out" not in resolve({"cifar10": {"test": "held-out"}}, sheets).describe()


def test_the_mat_files_of_svhn_are_held_out_by_official_index(source, monkeypatch):
    """As many images as the held-out part has and five more: only those five are for training."""
    labels = (torch.arange(10_005) % 10).numpy()
    made = SimpleNamespace(data=np.zeros((10_005, 3, 32, 32), dtype=np.uint8), labels=labels)
    monkeypatch.setattr(torchvision_datasets, "SVHN", lambda *_, **__: made)
    (source.root / "SVHN").mkdir()
    (source.root / "SVHN" / "train_32x32.mat").touch()
    dataset = resolve({"svhn": {"test": "held-out"}}, source)
    assert dataset.load("test").indices.tolist() == list(range(10_000))
    rest = torch.cat([dataset.load(split).indices for split in ("train", "val")])
    assert rest.sort().values.tolist() == list(range(10_000, 10_005))
    assert "held_out" not in dataset.describe()


def test_held_out_goes_by_official_index_in_torchvisions_files_too(source, cifar10):
    dataset = resolve({"cifar10": {"test": "held-out"}}, source)
    assert len(dataset.load("train")) + len(dataset.load("val")) == 20
    with pytest.raises(GauntletError, match="test split has no images"):
        dataset.load("test")  # these small files end long before image 40,000


def test_the_choice_of_test_set_changes_the_fingerprints(sheets):
    official, held_out = resolve("cifar10", sheets), resolve({"cifar10": {"test": "held-out"}}, sheets)
    assert all(official.fingerprint(split) != held_out.fingerprint(split) for split in ("train", "val", "test"))


def test_one_more_sheet_changes_the_fingerprint_of_its_split_only(sheets):
    before = {split: resolve("cifar10", sheets).fingerprint(split) for split in ("train", "test")}
    folder = sheets.root / "CIFAR10" / "sheets"
    (folder / "cifar10_batch_1.png").write_bytes((folder / "cifar10_batch_0.png").read_bytes())
    after = {split: resolve("cifar10", sheets).fingerprint(split) for split in ("train", "test")}
    assert before["train"] != after["train"]
    assert before["test"] == after["test"]


def test_sheets_without_labels_ask_for_the_labels(sheets):
    (sheets.root / "CIFAR10" / "test_labels.npy").unlink()
    sentence = str(resolve("cifar10", sheets).obstacle("test"))
    assert f"needs test_labels.npy in {sheets.root / 'CIFAR10'}" in sentence


@pytest.mark.parametrize(
    ("name", "split", "files"),
    [
        (
            "cifar10",
            "test",
            "data_batch_1, data_batch_2, data_batch_3, data_batch_4, data_batch_5, test_batch, batches.meta",
        ),
        ("cifar100", "train", "train, test, meta"),
        ("svhn", "test", "test_32x32.mat"),
    ],
)
def test_without_any_file_those_of_torchvision_are_asked_for(source, name, split, files):
    assert f"needs {files} in {source.root}" in str(resolve(name, source).obstacle(split))


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "SVHN"])
def test_the_files_asked_for_are_those_that_torchvision_checks(source, name):
    theirs = getattr(torchvision_datasets, name)
    if name == "SVHN":
        expected = {"train_32x32.mat", "test_32x32.mat"}
        assert {files[1] for split, files in theirs.split_list.items() if split != "extra"} == expected
        listed = {
            path.name for split in ("train", "test") for path in DATASETS.get("svhn").meta["files"](split, source)
        }
    else:
        expected = {file for file, _ in [*theirs.train_list, *theirs.test_list]} | {theirs.meta["filename"]}
        paths = DATASETS.get(name.lower()).meta["files"]("train", source)
        assert {path.parent.name for path in paths} == {theirs.base_folder}
        listed = {path.name for path in paths}
    assert listed == expected


def test_another_choice_of_test_set_is_an_error(source):
    with pytest.raises(
        GauntletError, match=r"must be one of official, held-out, got 'heldout'; did you mean 'held-out'\?"
    ):
        resolve({"cifar10": {"test": "heldout"}}, source)
