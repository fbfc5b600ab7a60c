"""Every kind of file that people have becomes the 8-bit pixels that it shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader

from gauntlet import GauntletError
from gauntlet.datasets.files.decoding import DamagedImage, Decoding, size_of

RGB = Decoding()
GREY = Decoding(channels=1)


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp", "tif", "ppm", "gif"])
def test_files_without_peculiarities_are_what_torchvisions_loader_reads(tmp_path, photograph, save, ending):
    """Pixels are equal bit for bit, in colour and in grey."""
    path = save(tmp_path / f"a.{ending}", photograph(1))
    assert np.array_equal(RGB.read(path), default_loader(str(path)))
    grey = save(tmp_path / f"b.{ending}", Image.fromarray(photograph(2)).convert("L"))
    assert np.array_equal(RGB.read(grey), default_loader(str(grey)))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_jpegs_in_other_colour_spaces_are_what_torchvisions_loader_reads(tmp_path, photograph, save, mode):
    """As some of ImageNet's files are."""
    path = save(tmp_path / "a.jpg", Image.fromarray(photograph(1)).convert(mode))
    assert np.array_equal(RGB.read(path), default_loader(str(path)))


def test_sixteen_bits_keep_their_whole_range(tmp_path):
    """The upper half of the values is not cut off, which is what a plain conversion does."""
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(GREY.read(tmp_path / "a.png"), np.round(values / 257).astype(np.uint8))


def test_one_bit_is_black_and_white(tmp_path):
    """Not 0 and 1 of 255."""
    bits = np.eye(8, dtype=bool)
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(GREY.read(tmp_path / "a.png"), bits * np.uint8(255))


@pytest.mark.parametrize(("background", "behind"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_transparent_pixels_show_the_background_that_is_stated(tmp_path, background, behind):
    """In files with an alpha channel and in palettes with a transparent colour."""
    pixels = np.full((4, 4, 4), 200, np.uint8)
    pixels[:2, :, 3], pixels[2:, :, 3] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    palette = Image.fromarray(np.repeat([[0] * 4, [1] * 4], 2, axis=0).astype(np.uint8), mode="P")
    palette.putpalette([9, 9, 9, 200, 200, 200])
    palette.save(tmp_path / "palette.png", transparency=0)
    for name in ("rgba.png", "palette.png"):
        found = np.asarray(Decoding(background=background).read(tmp_path / name))
        assert (found[:2] == behind).all()
        assert (found[2:] == 200).all()


def test_a_palette_shows_its_colours(tmp_path, photograph, save):
    """Not the numbers of the colours."""
    image = Image.fromarray(photograph(3)).quantize(16)
    assert np.array_equal(RGB.read(save(tmp_path / "a.png", image)), image.convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_upright(tmp_path, photograph, orientation):
    """A camera's orientation is undone, as viewers do; `upright: false` keeps the pixels as they lie."""
    turns = {
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
        8: lambda x: np.rot90(x),
    }
    pixels, exif = photograph(4), Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, exif=exif)
    assert np.array_equal(RGB.read(path), turns.get(orientation, lambda x: x)(pixels))
    assert np.array_equal(Decoding(upright=False).read(path), pixels)
    assert size_of(path)[1:] == np.asarray(RGB.read(path)).shape[:2]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "gif", "tif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_damaged(tmp_path, photograph, save, ending, share):
    """Half an image is never taken for a whole one."""
    path = save(tmp_path / f"a.{ending}", np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DamagedImage, match=r"a\.\w+ is damaged"):
        RGB.read(path)


def test_a_file_that_is_no_image_is_named(tmp_path):
    """A page of the server in place of the image, say."""
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    with pytest.raises(DamagedImage, match=r"a\.jpg is damaged or no image"):
        RGB.read(tmp_path / "a.jpg")
    with pytest.raises(DamagedImage, match="is damaged"):
        RGB.read(tmp_path / "absent.jpg")


def test_values_beyond_sixteen_bits_are_refused(tmp_path):
    """What they would mean as a picture is unknown."""
    Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DamagedImage, match="from 0 to 70000, expected 16-bit"):
        GREY.read(tmp_path / "a.tif")


def test_a_background_that_is_no_colour_is_refused():
    """Before any file is read."""
    with pytest.raises(GauntletError, match="must be a colour"):
        Decoding(background="whitish")


def test_content_may_come_without_a_file(tmp_path: Path, photograph, save):
    """As from an archive."""
    path = save(tmp_path / "a.png", photograph(5))
    assert np.array_equal(RGB.read(path.read_bytes(), "a"), RGB.read(path))
