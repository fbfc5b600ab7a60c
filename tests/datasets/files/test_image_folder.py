"""A folder of somebody's photographs is a data set as it lies there."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest
import torch
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from gauntlet import GauntletError
from gauntlet.datasets.files import image_files

SMALL = {"resize": 16, "centre_crop": 16}


def folder(path, **more):
    """The spec of a folder."""
    return {"image-folder": {"path": str(path), **more}}


def test_order_labels_and_pixels_are_those_of_torchvision(open_set, photos):
    """ImageFolder with the same transform, bit for bit."""
    ours = open_set(folder(photos, transform=SMALL)).load("test")
    theirs = ImageFolder(str(photos), T.Compose([T.Resize(16), T.CenterCrop(16), T.PILToTensor()]))
    assert list(ours.classes) == theirs.classes
    assert ours.labels.tolist() == theirs.targets
    assert torch.equal(ours.pixels, torch.stack([image for image, _ in theirs]))


def test_nested_folders_belong_to_the_first_or_are_classes_of_their_own(open_set, tmp_path, photograph, save):
    """The first is what torchvision does."""
    for number, name in enumerate(("animals/cats/a b.png", "animals/dogs/1.png", "things/cups/1.png")):
        save(tmp_path / "x" / name, photograph(number))
    assert open_set(folder(tmp_path / "x")).classes == ("animals", "things")
    deep = open_set(folder(tmp_path / "x", labels="path"))
    assert deep.classes == ("animals/cats", "animals/dogs", "things/cups")
    assert open_set(folder(tmp_path / "x", labels="none")).load("test").labels.tolist() == [-1, -1, -1]


def test_a_flat_folder_has_no_labels(open_set, tmp_path, photograph, save):
    """As an OOD set; files that are no images are left alone, names may be in any script."""
    for number, name in enumerate(("été 1.jpg", "日本.png", "two  blanks.PNG")):
        save(tmp_path / "x" / name, photograph(number))
    save(tmp_path / "x" / "._hidden.jpg", photograph(1))
    (tmp_path / "x" / "Thumbs.db").write_bytes(b"x")
    made = open_set(folder(tmp_path / "x")).load("test")
    assert made.labels.tolist() == [-1] * 3
    assert made.classes == ()


def test_folders_of_splits_are_splits(open_set, by_split):
    """With the classes of train in all of them."""
    made = open_set(folder(by_split({"train": 4, "val": 2, "test": 3})))
    assert made.declared_splits == ("train", "val", "test")
    assert {split: len(made.load(split)) for split in made.splits} == {"train": 12, "val": 6, "test": 9}
    assert made.classes == ("ant", "bee", "cow")


def test_without_a_test_folder_val_is_the_test_split(open_set, by_split):
    """As ImageNet has it: validation images are cut from train, and rows say so."""
    made = open_set(folder(by_split({"Train": 10, "validation": 2})))
    assert len(made.load("test")) == 6
    assert len(made.load("train")) + len(made.load("val")) == 30
    assert made.describe()["test"] == "the folder validation"


def test_a_class_called_train_is_a_class(open_set, tmp_path, photograph, save):
    """Folders are splits only where there are no others."""
    for number, name in enumerate(("bus", "car", "train")):
        save(tmp_path / "x" / name / "1.png", photograph(number))
    made = open_set(folder(tmp_path / "x"))
    assert made.classes == ("bus", "car", "train")
    assert made.declared_splits == ("test",)


def test_shares_split_every_class_by_the_names_of_its_files(open_set, tmp_path, photograph, save):
    """A file that comes later moves hardly any other."""
    for number in range(40):
        save(tmp_path / "x" / "ab"[number % 2] / f"{number}.png", photograph(number, (6, 6)))
    spec = folder(tmp_path / "x", splits={"test": 0.2, "val": 0.1})
    made = open_set(spec)
    assert {split: len(made.load(split)) for split in made.splits} == {"train": 28, "val": 4, "test": 8}
    assert made.load("test").labels.bincount().tolist() == [4, 4]
    save(tmp_path / "x" / "a" / "new.png", photograph(99, (6, 6)))
    before = {image.numpy().tobytes() for image in made.load("test").pixels}
    after = {image.numpy().tobytes() for image in open_set(spec).load("test").pixels}
    assert len(before & after) >= 7


def test_splits_may_be_stated(open_set, tmp_path, photograph, save):
    """Where folders have other names."""
    for number, name in enumerate(("learn/a", "learn/b", "exam/a", "exam/b", "rest/c")):
        save(tmp_path / "x" / name / "1.png", photograph(number))
    made = open_set(folder(tmp_path / "x", splits={"train": "learn", "test": "exam"}))
    assert made.classes == ("a", "b")
    assert len(made.load("test")) == 2


def test_images_of_one_size_stay_as_they_are(open_set, by_split):
    """And grey ones grey."""
    assert open_set(folder(by_split({"test": 2}))).shape == (3, 10, 12)


def test_grey_files_make_a_grey_set(open_set, tmp_path, photograph, save):
    """One channel, unless three are asked for; a single one in colour is not made grey in silence."""
    for number in range(3):
        save(tmp_path / "x" / f"{number}.png", photograph(number)[:, :, 0])
    assert open_set(folder(tmp_path / "x")).shape == (1, 30, 40)
    assert open_set(folder(tmp_path / "x", channels=3)).load("test").shape == (3, 30, 40)


def test_images_of_many_sizes_become_photographs_of_224(open_set, photos):
    """The usual preprocessing, and rows say it."""
    made = open_set(folder(photos)).load("test")
    assert made.shape == (3, 224, 224)
    assert "centre crop 224x224" in made.conversion


def test_as_ood_data_they_come_in_the_shape_of_the_others(open_set, photos):
    """Grey 28x28 to a model of digits."""
    made = open_set(folder(photos), shape=(1, 28, 28)).load("test")
    assert made.shape == (1, 28, 28)
    assert "cover 28x28" in made.conversion


def test_a_path_is_a_data_set(open_set, photos):
    """Under the name of its folder."""
    assert open_set(str(photos)).label == "photos"
    assert open_set(f"{photos}/").classes == ("cats", "dogs")
    assert open_set({"name": str(photos), "label": "mine", "transform": SMALL}).shape == (3, 16, 16)


def test_a_path_below_the_data_root_is_found(open_set, photos):
    """From wherever the command runs."""
    assert open_set({"image-folder": {"path": "photos"}}).classes == ("cats", "dogs")


# -- damaged files --------------------------------------------------------------------------------------------


def test_damaged_files_are_counted_and_named(open_set, photos):
    """All of them at once, before anything is computed."""
    for name in ("cats/0.jpg", "cats/1.png", "dogs/3.webp", "dogs/5.jpeg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:90])
    with pytest.raises(GauntletError, match=r"4 of 12 files are damaged.*cats/0\.jpg.*cats/1\.png.*damaged: skip"):
        open_set(folder(photos)).load("test")


def test_damaged_files_are_left_out_where_that_is_stated(open_set, photos):
    """The others keep their numbers, and rows say how many are missing."""
    (photos / "cats" / "1.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 of 12 files are damaged and left out"):
        made = open_set(folder(photos, damaged="skip", transform=SMALL)).load("test")
    assert made.indices.tolist() == [0, *range(2, 12)]
    assert made.conversion.endswith("1 damaged of 12 files left out")


def test_streamed_or_not_damaged_files_are_the_same(open_set, photos, monkeypatch):
    """Also where images stay in their files."""
    (photos / "cats" / "1.png").write_bytes(b"")
    spec = folder(photos, damaged="skip", transform=SMALL)
    with pytest.warns(UserWarning, match="left out"):
        whole = open_set(spec).load("test")
    monkeypatch.setattr(image_files, "STREAM_ABOVE", 0)
    with pytest.warns(UserWarning, match="left out"):
        streamed = open_set(spec).load("test")
    assert streamed.streams
    assert not whole.streams
    assert torch.equal(streamed.images, whole.images)
    assert torch.equal(streamed.indices, whole.indices)


# -- fingerprints ---------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_names_and_contents_not_of_the_place_or_time(open_set, photos, tmp_path):
    """A copy elsewhere, written later, is the same set."""
    before = open_set(folder(photos, transform=SMALL)).fingerprint("test")
    shutil.copytree(photos, tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").rglob("*.*"):
        os.utime(path, (1, 1))
    assert open_set(folder(tmp_path / "elsewhere", transform=SMALL)).fingerprint("test") == before


@pytest.mark.parametrize("change", ["content", "name", "added", "removed", "transform", "background"])
def test_the_fingerprint_notices_every_change(open_set, photos, photograph, save, change):
    """Whatever decides an image or a label."""
    spec = folder(photos, transform=SMALL)
    before = open_set(spec).fingerprint("test")
    file = photos / "cats" / "1.png"
    match change:
        case "content":
            save(file, photograph(77, (30, 40)))
        case "name":
            file.rename(photos / "cats" / "7.png")
        case "added":
            save(photos / "cats" / "9.png", photograph(9))
        case "removed":
            file.unlink()
        case "transform":
            spec = folder(photos, transform={"resize": 17, "centre_crop": 16})
        case "background":
            spec = folder(photos, transform=SMALL, background="black")
    assert open_set(spec).fingerprint("test") != before


def test_a_file_is_hashed_again_only_if_it_changed(open_set, photos, source, monkeypatch):
    """The time decides whether to look again, nothing else."""
    old = time.time() - 100
    for path in photos.rglob("*.*"):
        os.utime(path, (old, old))
    before = open_set(folder(photos, transform=SMALL)).fingerprint("test")
    read = []
    from gauntlet.datasets.files import hashes

    real = hashes._hash
    monkeypatch.setattr(hashes, "_hash", lambda path: read.append(path.name) or real(path))
    os.utime(photos / "cats" / "1.png", (old + 1, old + 1))
    assert open_set(folder(photos, transform=SMALL)).fingerprint("test") == before
    assert read == ["1.png"]


# -- what cannot be right -------------------------------------------------------------------------------------


def test_an_empty_folder_is_a_sentence(open_set, tmp_path):
    """Also one that holds images of a kind that cannot be read."""
    (tmp_path / "x").mkdir()
    with pytest.raises(GauntletError, match="holds no images"):
        open_set(folder(tmp_path / "x")).load("test")
    (tmp_path / "x" / "IMG_1.HEIC").write_bytes(b"x")
    with pytest.raises(GauntletError, match=r"1 files \.heic, which cannot be read: save them as JPEG"):
        open_set(folder(tmp_path / "x")).load("test")


def test_a_class_in_val_that_train_lacks_is_named(open_set, by_split, photograph, save):
    """Else labels would mean different classes."""
    root = by_split({"train": 2, "val": 2})
    save(root / "val" / "bat" / "1.png", photograph(1, (12, 10)))
    with pytest.raises(GauntletError, match=r"val has the classes bat \(1 in all\), which train lacks"):
        _ = open_set(folder(root)).classes


def test_a_later_image_of_another_size_is_named(open_set, tmp_path, photograph, save, monkeypatch):
    """Where a glance at some files promised one size."""
    for number in range(6):
        save(tmp_path / "x" / f"{number}.png", photograph(number, (12, 10) if number != 1 else (9, 10)))
    monkeypatch.setattr(image_files, "_SAMPLE", 2)
    with pytest.raises(GauntletError, match=r"1\.png is 10x9 where the images before are 10x12.*transform"):
        open_set(folder(tmp_path / "x")).load("test")


def test_links_out_of_the_folder_are_followed_only_if_stated(open_set, photos, tmp_path, photograph, save):
    """What is not there any more when the folder is copied."""
    save(tmp_path / "pool" / "1.png", photograph(3))
    (photos / "cats" / "link.png").symlink_to(tmp_path / "pool" / "1.png")
    with pytest.raises(GauntletError, match=r"1 links lead out of .*follow_links: true"):
        open_set(folder(photos)).load("test")
    assert len(open_set(folder(photos, transform=SMALL, follow_links=True)).load("test")) == 13


def test_links_that_loop_end(open_set, photos):
    """A folder inside itself."""
    (photos / "cats" / "again").symlink_to(photos, target_is_directory=True)
    assert len(open_set(folder(photos, transform=SMALL)).load("test")) == 12


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"path": "nowhere"}, "There is no file or folder 'nowhere'"),
        ({"transform": {"resize": 16}}, "different sizes, also after the transform"),
        ({"splits": {"test": 1.2}}, "between 0 and 1"),
        ({"splits": {"tset": 0.2}}, "splits must give"),
        ({"splits": {"train": "learn"}}, "no folder 'learn'"),
        ({"classes": ["cats"]}, "a folder 'dogs', which is none of `classes`"),
        ({"damaged": "ignore"}, "must be one of error, skip"),
        ({"shape": [2, 8, 8]}, "C = 1 or 3"),
    ],
)
def test_what_cannot_be_right_is_a_sentence(open_set, photos, more, sentence):
    """Before an image is decoded."""
    with pytest.raises(GauntletError, match=sentence):
        open_set(folder(more.pop("path", photos), **more)).load("test")


def test_numbers_of_images_do_not_depend_on_how_they_are_read(open_set, photos, monkeypatch):
    """Subsets, masks and batches of a streamed set are those of one in memory."""
    spec = folder(photos, transform=SMALL)
    whole = open_set(spec).load("test")
    monkeypatch.setattr(image_files, "STREAM_ABOVE", 0)
    streamed = open_set(spec).load("test")
    mask = torch.arange(12) % 3 == 0
    for some in (mask, torch.tensor([7, 2]), [3]):
        assert torch.equal(streamed.subset(some).images, whole.subset(some).images)
    for ours, theirs in zip(streamed.batches(5), whole.batches(5), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert np.array_equal(open_set(spec, shape=(1, 16, 16)).load("test").shape, (1, 16, 16))
