from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gauntlet.datasets.png import read_png
from gauntlet.datasets.png_sheets import Sheet, find_sheets, labels_file, read_sheets
from gauntlet.registry import GauntletError

SHAPE = (3, 4, 5)


def write_sheet(path: Path, count: int, seed: int = 0) -> np.ndarray:
    """Random images, (N, H, W, 3), saved one per row."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(images.reshape(count, 20, 3)).save(path)
    return images


@pytest.fixture
def first(tmp_path: Path) -> tuple[list[Sheet], Path]:
    """A sheet of six test images with labels."""
    write_sheet(tmp_path / "pets_test_first6.png", 6)
    np.save(tmp_path / "test_labels.npy", np.array([3, 1, 4, 1, 5, 9], dtype=np.uint8))
    sheets = find_sheets(tmp_path, "test", train_size=50)
    return sheets, labels_file(tmp_path, sheets)


def test_numbered_sheets_go_on_from_train_to_test(tmp_path):
    for number in (0, 2, 10, 3, 4):
        write_sheet(tmp_path / "sheets" / f"pets_batch_{number}.png", 1)
    train = find_sheets(tmp_path, "train", train_size=3000)
    test = find_sheets(tmp_path, "test", train_size=3000)
    assert [(sheet.start, sheet.count) for sheet in train] == [(0, 1000), (2000, 1000)]
    assert [sheet.start for sheet in test] == [0, 1000, 7000]


def test_the_first_images_of_a_split_say_so_in_their_name(tmp_path):
    write_sheet(tmp_path / "svhn_train_first7.png", 7)
    (sheet,) = find_sheets(tmp_path, "train", train_size=100)
    assert (sheet.start, sheet.count) == (0, 7)
    assert find_sheets(tmp_path, "test", train_size=100) == []


def test_other_files_are_no_sheets(tmp_path):
    write_sheet(tmp_path / "sheets" / "overview.png", 1)
    write_sheet(tmp_path / "pets_extra_first3.png", 3)
    assert find_sheets(tmp_path, "train", train_size=9) == []
    assert find_sheets(tmp_path / "none", "train", train_size=9) == []


def test_each_row_is_an_image_in_raster_order(tmp_path):
    images = write_sheet(tmp_path / "a_test_first6.png", 6)
    np.save(tmp_path / "test_first6_labels.npy", np.arange(6, dtype=np.uint8))
    sheets = find_sheets(tmp_path, "test", train_size=50)
    pixels, labels, indices = read_sheets(sheets, labels_file(tmp_path, sheets), SHAPE)
    assert np.array_equal(pixels.transpose(0, 2, 3, 1), images)
    assert labels.tolist() == indices.tolist() == list(range(6))


def test_labels_belong_to_official_indices(tmp_path):
    sheets = [Sheet(tmp_path / "a.png", "train", 2, 2), Sheet(tmp_path / "b.png", "train", 5, 1)]
    for sheet in sheets:
        write_sheet(sheet.path, sheet.count)
    np.save(tmp_path / "train_labels.npy", np.array([255, 255, 7, 8, 255, 9], dtype=np.uint8))
    _, labels, indices = read_sheets(sheets, tmp_path / "train_labels.npy", SHAPE)
    assert (labels.tolist(), indices.tolist()) == ([7, 8, 9], [2, 3, 5])


@pytest.mark.parametrize("name", ["test_labels.npy", "test_fine_labels.npy", "test_first6_labels.npy"])
def test_three_names_of_the_labels_are_known(tmp_path, name):
    (tmp_path / name).touch()
    assert labels_file(tmp_path, [Sheet(tmp_path / "x", "test", 0, 6)]).name == name


def test_absent_labels_are_asked_for_under_the_first_name(tmp_path):
    assert labels_file(tmp_path, [Sheet(tmp_path / "x", "test", 0, 6)]).name == "test_labels.npy"


def test_a_png_cut_off_anywhere_is_named(first):
    (sheet,), labels = first
    whole = sheet.path.read_bytes()
    for length in range(len(whole)):
        sheet.path.write_bytes(whole[:length])
        with pytest.raises(GauntletError, match=r"pets_test_first6\.png is damaged or no PNG"):
            read_sheets([sheet], labels, SHAPE)


def test_a_changed_byte_in_the_pixels_is_noticed(first):
    (sheet,), labels = first
    whole = bytearray(sheet.path.read_bytes())
    begin = whole.index(b"IDAT") + 4
    for position in range(begin, len(whole) - 16):
        whole[position] ^= 0x10
        sheet.path.write_bytes(whole)
        whole[position] ^= 0x10
        with pytest.raises(GauntletError, match=r"pets_test_first6\.png is damaged"):
            read_sheets([sheet], labels, SHAPE)


def test_a_grey_png_or_a_jpeg_in_place_of_a_sheet_is_named(first):
    (sheet,), labels = first
    Image.new("L", (20, 6)).save(sheet.path)
    with pytest.raises(GauntletError, match="must be a PNG of mode RGB, got mode L"):
        read_sheets([sheet], labels, SHAPE)
    Image.new("RGB", (20, 6)).save(sheet.path, format="JPEG")
    with pytest.raises(GauntletError, match="damaged or no PNG"):
        read_sheets([sheet], labels, SHAPE)


def test_a_sheet_of_another_size_is_named(first):
    (sheet,), labels = first
    write_sheet(sheet.path, 5)
    with pytest.raises(GauntletError, match=r"must be 20 pixels wide and 6 high .* got 20 and 5"):
        read_sheets([sheet], labels, SHAPE)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.arange(5, dtype=np.uint8), "has 5 labels, but the sheets hold image 5"),
        (np.zeros((6, 1), dtype=np.uint8), "must hold one-dimensional uint8 labels"),
        (np.zeros(6), "must hold one-dimensional uint8 labels"),
    ],
)
def test_labels_that_do_not_fit_are_named(first, labels, problem):
    sheets, path = first
    np.save(path, labels)
    with pytest.raises(GauntletError, match=rf"test_labels\.npy {problem}"):
        read_sheets(sheets, path, SHAPE)


def test_an_image_whose_label_says_absent_is_skipped(first):
    sheets, path = first
    np.save(path, np.array([0, 1, 255, 0, 1, 2], dtype=np.uint8))
    pixels, labels, indices = read_sheets(sheets, path, SHAPE)
    assert (labels.tolist(), indices.tolist()) == ([0, 1, 0, 1, 2], [0, 1, 3, 4, 5])
    assert np.array_equal(pixels, read_sheets(sheets, _saved(path, np.arange(6)), SHAPE)[0][[0, 1, 3, 4, 5]])


def _saved(path: Path, labels: np.ndarray) -> Path:
    np.save(path, labels.astype(np.uint8))
    return path


@pytest.mark.parametrize("second", ["pets_test_first4.png", "pets_test_first9.png", "sheets/pets_batch_1.png"])
def test_a_sheet_of_images_that_another_holds_is_refused(first, second):
    (sheet,), _ = first
    write_sheet(sheet.path.parent / second, 4)
    with pytest.raises(GauntletError, match=r"holds images of the test split that .* holds too \(from 0 on\)"):
        find_sheets(sheet.path.parent, "test", train_size=1000)


def test_a_truncated_npy_is_named(first):
    sheets, path = first
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(GauntletError, match=r"test_labels\.npy is damaged or no npy file"):
            read_sheets(sheets, path, SHAPE)


def test_pickled_labels_are_refused(first):
    sheets, path = first
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(GauntletError, match="damaged or no npy file"):
        read_sheets(sheets, path, SHAPE)


def test_a_grey_png_is_height_by_width(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    assert np.array_equal(read_png(tmp_path / "grey.png", "L"), pixels)
