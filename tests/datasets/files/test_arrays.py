"""Sets in one file of arrays: layout, range and labels as people save them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from gauntlet import GauntletError
from gauntlet.datasets.files.labels import read_labels
from gauntlet.datasets.files.pixels import read_pixels

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)


def test_names_with_splits_make_splits(open_set, tmp_path):
    """As MedMNIST's files have them: labels (N, 1), channels last."""
    parts = {split: RNG.integers(0, 256, (n, 28, 28, 3), dtype=np.uint8) for split, n in (("train", 8), ("val", 3))}
    parts["test"] = COLOUR.repeat(4, 1)[:, :28].repeat(4, 2)[:, :, :28]
    arrays = {f"{split}_images": images for split, images in parts.items()}
    arrays |= {f"{split}_labels": np.arange(len(images))[:, None] % 2 for split, images in parts.items()}
    np.savez(tmp_path / "bloodmnist.npz", **arrays)
    made = open_set(str(tmp_path / "bloodmnist.npz"))
    assert made.declared_splits == ("train", "val", "test")
    assert torch.equal(made.load("test").pixels, torch.from_numpy(parts["test"].transpose(0, 3, 1, 2)))
    assert made.load("val").labels.tolist() == [0, 1, 0]
    assert made.load("test").conversion == "channels last, turned"


@pytest.mark.parametrize("names", [("x_test", "y_test"), ("images", "labels"), ("data", "targets"), ("arr_0", "arr_1")])
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_the_usual_names_are_found(open_set, tmp_path, names, kind):
    """In both kinds of file."""
    arrays = dict(zip(names, (COLOUR, np.arange(6) % 3), strict=True))
    path = tmp_path / f"a.{kind}"
    np.savez(path, **arrays) if kind == "npz" else save_file(arrays, path)
    made = open_set(str(path)).load("test")
    assert torch.equal(made.pixels, torch.from_numpy(COLOUR.transpose(0, 3, 1, 2)))
    assert made.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_npy_files_are_mapped_and_cut_by_rows(open_set, tmp_path):
    """As CIFAR-10-C keeps five severities one after the other."""
    np.save(tmp_path / "fog.npy", COLOUR)
    np.save(tmp_path / "labels.npy", np.arange(6))
    spec = {"path": "fog.npy", "labels": "labels.npy", "rows": [2, 4]}
    made = open_set({"npy": spec}).load("test")
    assert torch.equal(made.pixels, torch.from_numpy(COLOUR[2:4].transpose(0, 3, 1, 2)))
    assert made.labels.tolist() == [2, 3]
    other = open_set({"npy": {**spec, "rows": [0, 2]}})
    assert open_set({"npy": spec}).fingerprint("test") != other.fingerprint("test")


def test_python_objects_are_never_unpickled(open_set, tmp_path):
    """They are refused by name."""
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "a.npz", images=np.array([{"a": 1}], dtype=object))
    for path in ("a.npy", "a.npz"):
        with pytest.raises(GauntletError, match=rf"{path} holds Python objects, which are not read"):
            open_set(str(tmp_path / path)).load("test")


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors"])
def test_a_damaged_file_is_named(open_set, tmp_path, kind):
    """Whatever the library says of it."""
    (tmp_path / f"a.{kind}").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(GauntletError, match=rf"a\.{kind} is damaged"):
        open_set(str(tmp_path / f"a.{kind}")).load("test")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
@pytest.mark.parametrize(
    ("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.float64, 1), (np.int64, 255)]
)
def test_layout_and_range_are_found(layout, dtype, top):
    """The same picture in every type."""
    picture = RNG.integers(0, 256, (4, 3, 8, 9)) / 255
    picture = picture[:, :1] if layout == "NHW" else picture
    picture[0, 0, 0, 0] = 1
    array = picture * top if dtype in (np.float32, np.float64) else np.round(picture * top)
    shaped = {"NCHW": array, "NHWC": array.transpose(0, 2, 3, 1), "NHW": array[:, 0]}[layout].astype(dtype)
    found, _ = read_pixels(shaped, "test")
    as_float = found.float() / 255 if found.dtype == torch.uint8 else found
    assert torch.allclose(as_float, torch.from_numpy(picture).float(), atol=1e-6 if top != 65535 else 1e-4)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((4, 3, 8, 3), np.uint8), "may be .N, C, H, W. or .N, H, W, C.: say `layout"),
        (np.zeros((4, 5, 8, 7), np.uint8), "may be"),
        (np.full((4, 8, 8), 200, np.uint16), "16-bit values from 200 to 200 may span 0 to 255 or 0 to 65535"),
        (np.full((4, 8, 8), 300, np.int32), "may span"),
        (np.full((4, 8, 8), 200.0), "say `scale: 255`"),
        (np.full((4, 8, 8), -1.5), "undoing their normalisation"),
        (np.full((4, 8, 8), np.nan), "must lie in"),
        (np.zeros((4, 8)), "images must be numbers of shape"),
        (np.array(["a"]), "images must be numbers"),
    ],
)
def test_what_is_not_clear_is_asked(array, sentence):
    """Rather than guessed."""
    with pytest.raises(GauntletError, match=sentence):
        read_pixels(array, "test")


def test_what_was_asked_may_be_stated():
    """Then it holds."""
    found, _ = read_pixels(np.zeros((4, 3, 8, 3), np.uint8), "test", layout="NHWC")
    assert found.shape == (4, 3, 3, 8)
    found, note = read_pixels(np.full((4, 8, 8), 200, np.uint16), "test", scale=255)
    assert found.unique().item() == pytest.approx(200 / 255)
    assert note == "divided by 255"


@pytest.mark.parametrize(
    ("values", "expected", "classes"),
    [
        ([0, 2, -1], [0, 2, -1], ("0", "1", "2")),
        ([0.0, 2.0, np.nan], [0, 2, -1], ("0", "1", "2")),
        ([[1], [0], [1]], [1, 0, 1], ("0", "1")),
        ([[0, 1], [1, 0], [0, 0]], [1, 0, -1], ("0", "1")),
        (["b", "a", ""], [1, 0, -1], ("a", "b")),
        (["10", "2", "-1"], [10, 2, -1], tuple(map(str, range(11)))),
        ([b"b", b"a", b"b"], [1, 0, 1], ("a", "b")),
        ([True, False, True], [1, 0, 1], ("0", "1")),
    ],
)
def test_labels_as_people_write_them(values, expected, classes):
    """Integers, whole floats, columns, one-hot rows, names and numbers in text."""
    labels, names = read_labels(values, None, "test")
    assert labels.tolist() == expected
    assert names == classes


@pytest.mark.parametrize(
    ("values", "classes", "sentence"),
    [
        ([0, 3], ["a", "b"], "from 0 to 1, the 2 classes, got 0 to 3"),
        ([-2, 0], None, "got -2 to 0"),
        ([0.5, 1], None, "whole numbers, got 0.5"),
        ([[0.3, 0.7]], None, "one-hot"),
        ([[1, 1]], None, "one-hot"),
        (["cat", "dgo"], ["cat", "dog"], "'dgo' is none of the classes; did you mean 'dog'"),
    ],
)
def test_labels_that_cannot_be_right(values, classes, sentence):
    """One sentence each."""
    with pytest.raises(GauntletError, match=sentence):
        read_labels(values, classes, "test")


def test_labels_of_another_length_are_refused(open_set, tmp_path):
    """Both numbers are said."""
    np.savez(tmp_path / "a.npz", images=COLOUR, labels=np.arange(5))
    with pytest.raises(GauntletError, match="6 images and 5 labels"):
        open_set(str(tmp_path / "a.npz")).load("test")


def test_transparent_arrays_lie_over_white():
    """And it is said."""
    array = np.zeros((1, 2, 2, 4), np.uint8)
    array[0, 0, 0, 3] = 255
    found, note = read_pixels(array, "test")
    assert found[0, :, 0, 0].tolist() == [0, 0, 0]
    assert found[0, :, 1, 1].tolist() == [255, 255, 255]
    assert "over white" in note
