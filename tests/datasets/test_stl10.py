"""STL-10's binary files, against torchvision's reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gauntlet.datasets import DataSource, resolve
from gauntlet.registry import GauntletError

RNG = np.random.default_rng(0)


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    """30 train, 20 test and 12 unlabelled images in the authors' format, with folds of 5."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for split, count in (("train", 30), ("test", 20), ("unlabeled", 12)):
        RNG.integers(256, size=(count, 3, 96, 96), dtype=np.uint8).tofile(folder / f"{split}_X.bin")
        if split != "unlabeled":
            (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(folder / f"{split}_y.bin")
    names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    (folder / "class_names.txt").write_text("\n".join(names))
    folds = [" ".join(map(str, RNG.permutation(30)[:5])) for _ in range(10)]
    (folder / "fold_indices.txt").write_text("\n".join(folds) + "\n")
    return DataSource(root=tmp_path, cache=tmp_path / "cache")


@pytest.fixture
def torchvisions(source: DataSource, monkeypatch: pytest.MonkeyPatch):
    """torchvision's reader, whose md5 check these small files cannot pass."""
    from torchvision import datasets

    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    return lambda split, folds=None: datasets.STL10(source.root, split=split, folds=folds)


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_labels_and_class_names_are_torchvisions(source, torchvisions, split):
    from gauntlet.datasets.stl10 import stl10

    ours, theirs = stl10(split, source), torchvisions(split)
    assert torch.equal(ours.pixels, torch.from_numpy(theirs.data))
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert list(ours.classes) == theirs.classes


@pytest.mark.parametrize("fold", [0, 9])
def test_a_fold_is_torchvisions_and_keeps_the_official_indices(source, torchvisions, fold):
    from gauntlet.datasets.stl10 import stl10

    ours, theirs = stl10("train", source, fold=fold), torchvisions("train", fold)
    assert torch.equal(ours.pixels, torch.from_numpy(theirs.data))
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert torch.equal(ours.pixels, stl10("train", source).subset(ours.indices).pixels)


def test_unlabelled_images_are_torchvisions_and_have_no_class(source, torchvisions):
    ours = resolve("stl10-unlabelled", source).load("test")
    assert torch.equal(ours.pixels, torch.from_numpy(torchvisions("unlabeled").data))
    assert set(ours.labels.tolist()) == {-1}


def test_a_picture_stands_upright(source):
    """A file written column by column, as the authors' page describes it."""
    picture = np.zeros((3, 96, 96), dtype=np.uint8)
    picture[0, 10, :] = 200  # a horizontal line in red
    picture.transpose(0, 2, 1).tofile(source.root / "stl10_binary" / "test_X.bin")
    np.array([1], dtype=np.uint8).tofile(source.root / "stl10_binary" / "test_y.bin")
    assert torch.equal(resolve("stl10", source).load("test").pixels[0], torch.from_numpy(picture))


def test_absent_files_are_one_sentence_that_names_them(tmp_path):
    missing = resolve("stl10", DataSource(root=tmp_path, cache=tmp_path)).obstacle("train")
    assert missing is not None
    assert "train_X.bin, train_y.bin" in missing
    assert "stl10_binary" in missing
    assert "--download" in missing


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_X.bin", b"12345", "not a whole number of images"),
        ("test_y.bin", bytes([11] * 20), "labels go from 11"),
        ("test_y.bin", bytes([1] * 19), "do not belong together"),
    ],
)
def test_a_damaged_file_is_named(source, name, content, message):
    (source.root / "stl10_binary" / name).write_bytes(content)
    with pytest.raises(GauntletError, match=message):
        resolve("stl10", source).load("test")


def test_a_fold_that_does_not_exist_is_refused(source):
    from gauntlet.datasets.stl10 import stl10

    with pytest.raises(GauntletError, match="folds 0 to 9, got fold 10"):
        stl10("train", source, fold=10)
