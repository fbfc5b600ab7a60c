"""Named sets are found where their archives unpack, and say where they belong if they are absent."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gauntlet import GauntletError
from gauntlet.bench.listing import listing
from gauntlet.datasets.files.named import FOLDERS
from gauntlet.registry import DATASETS

WNIDS = ("n01440764", "n02123045", "n03000684")


def test_every_set_that_is_absent_says_where_to_get_it(open_set):
    """And what to put where."""
    for entry in DATASETS.match("tag:photographs"):
        reason = open_set(entry.name, shape=(3, 32, 32)).obstacle("test")
        assert reason.startswith(f"Dataset '{entry.name}' needs "), entry.name
        assert entry.meta["home"].strip(" ()") in reason


def test_folders_are_sets_of_unknown_or_known_classes(open_set, tmp_path, photograph, save):
    """As the record says."""
    for row in FOLDERS:
        for number in range(2):
            save(tmp_path / row.places[0] / str(number) / "x" / f"{number}.png", photograph(number))
        made = open_set(row.name, shape=(3, 8, 8)).load("test")
        unknown = row.options.get("labels") == "none"
        assert made.labels.tolist() == ([-1, -1] if unknown else [0, 1]), row.name


@pytest.mark.parametrize("flat", [False, True])
def test_imagenets_validation_images_lie_flat_or_in_folders(open_set, tmp_path, photograph, save, flat):
    """Three classes of twenty photographs of several sizes, and Kaggle's table where they lie flat."""
    root, table = tmp_path / "imagenet", ["ImageId,PredictionString"]
    for label, wnid in enumerate(WNIDS):
        for number in range(4):
            save(root / "train" / wnid / f"{wnid}_{number}.JPEG", photograph(number, (300 + 20 * number, 260)))
            name = f"ILSVRC2012_val_{label + 3 * number:08d}"
            save(root / "val" / ("" if flat else wnid) / f"{name}.JPEG", photograph(50 + number, (280, 300)))
            table.append(f"{name},{wnid} 1 2 3 4 ")
    if flat:
        with pytest.raises(GauntletError, match=r"put Kaggle's LOC_val_solution\.csv into"):
            open_set("imagenet").load("test")
        (root / "LOC_val_solution.csv").write_text("\n".join(table))
    made = open_set("imagenet")
    assert made.load("test").labels.bincount().tolist() == [4, 4, 4]
    assert made.load("test").shape == (3, 224, 224)
    assert made.classes == WNIDS


def test_tiny_imagenet_reads_its_annotations(open_set, tmp_path, photograph, save):
    """Names, classes and boxes in a table."""
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        for number in range(3):
            save(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", photograph(number, (64, 64)))
        save(root / "val" / "images" / f"val_{label}.JPEG", photograph(label, (64, 64)))
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"val_{label}.JPEG\t{wnid}\t0\t0\t9\t9\n" for label, wnid in enumerate(WNIDS))
    )
    assert open_set("tiny-imagenet").load("test").labels.tolist() == [0, 1, 2]


def test_gtsrb_is_read_in_torchvisions_layout(open_set, tmp_path, photograph, save):
    """Class folders of five digits, and a table with semicolons for the test images."""
    root = tmp_path / "gtsrb"
    for label in (0, 7, 42):
        save(root / "GTSRB" / "Training" / f"{label:05d}" / "00000_00000.ppm", photograph(label, (30 + label, 35)))
        save(root / "GTSRB" / "Final_Test" / "Images" / f"{label:05d}.ppm", photograph(label, (30, 35)))
    rows = [f"{label:05d}.ppm;30;35;1;1;20;20;{label}" for label in (0, 7, 42)]
    (root / "GT-final_test.csv").write_text("\n".join(["Filename;Width;Height;a;b;c;d;ClassId", *rows]))
    made = open_set("gtsrb")
    assert made.load("test").labels.tolist() == [0, 7, 42]
    assert made.load("test").shape == (3, 32, 32)


def test_cifar10_c_is_cut_by_severity(open_set, tmp_path):
    """Ten thousand rows each."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    images = np.lib.format.open_memmap(folder / "fog.npy", mode="w+", dtype=np.uint8, shape=(50_000, 32, 32, 3))
    images[:] = (np.arange(50_000) // 10_000)[:, None, None, None]
    np.save(folder / "labels.npy", np.arange(50_000) % 10)
    made = open_set({"cifar10-c": {"corruption": "fog", "severity": 4}}).load("test")
    assert made.pixels.unique().tolist() == [3]
    assert len(made) == 10_000
    with pytest.raises(GauntletError, match=r"has no frog\.npy; it has fog"):
        open_set({"cifar10-c": {"corruption": "frog"}}).load("test")


def test_the_list_of_datasets_says_what_is_here(tmp_path, monkeypatch):
    """And how to get the rest."""
    monkeypatch.setenv("GAUNTLET_DATA", str(tmp_path))
    (tmp_path / "NINCO" / "NINCO_OOD_classes").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "NINCO" / "NINCO_OOD_classes" / "1.jpg")
    rows = {row["name"]: row for row in json.loads(listing(["datasets"], as_json=True)[0])["dataset"]}
    assert rows["ninco"]["here"] == "yes"
    assert rows["digits"]["here"] == "yes"
    assert rows["image-folder"]["here"] == "your own files"
    assert "github.com/hendrycks/imagenet-r" in rows["imagenet-r"]["here"]
