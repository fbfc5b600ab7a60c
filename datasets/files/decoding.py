"""One image file to 8-bit pixels, whatever the file is: Pillow decodes, and nothing is changed without a rule."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...registry import GauntletError

if TYPE_CHECKING:
    from PIL import Image

#: Endings of the files that are images; others beside them are left alone.
SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
    )
)
#: Endings of images that Pillow does not read.
UNREAD = frozenset([".heic", ".heif", ".cr2", ".nef", ".arw", ".dng", ".raw", ".svg", ".psd"])

_ORIENTATION = 0x0112
_GREY = ("1", "L", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")


class DamagedImage(GauntletError):
    """A file cannot be decoded."""


@dataclass(frozen=True)
class Decoding:
    """How files become pixels.

    Attributes:
        channels: 1 (grey) or 3 (RGB) of the result.
        background: Colour behind transparent pixels, as CSS names it (``white``, ``#808080``).
        upright: Turn photographs as their EXIF orientation says.
        drops_colour: Whether ``channels`` 1 takes the luma of images in colour; else they are refused.
    """

    channels: int = 3
    background: str = "white"
    upright: bool = True
    drops_colour: bool = True

    def __post_init__(self) -> None:
        from PIL import ImageColor

        try:
            ImageColor.getrgb(self.background)
        except ValueError:
            raise GauntletError(
                f"background must be a colour such as white, black or '#808080', got {self.background!r}."
            ) from None

    def read(self, file: Path | bytes, name: str = "") -> Image.Image:
        """The image of a file, of mode ``L`` or ``RGB``.

        Args:
            file: Its path, or its content.
            name: For messages, where the content is given.

        Raises:
            DamagedImage: The file is absent, truncated, damaged or no image.
        """
        from PIL import Image, ImageOps, UnidentifiedImageError

        name = name or str(file)
        try:
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
                image.load()
                turned = self.upright and image.getexif().get(_ORIENTATION, 1) != 1  # else Pillow makes a copy
                return self.convert(ImageOps.exif_transpose(image) if turned else image, name)
        except UnidentifiedImageError:
            raise DamagedImage(f"{name} is damaged or no image: its beginning is that of no known format.") from None
        except Image.DecompressionBombError as error:
            raise DamagedImage(f"{name} is larger than any photograph: {error}.") from None
        except GauntletError:
            raise
        except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
            text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise DamagedImage(f"{name} is damaged or cannot be read: {text}.") from None

    def convert(self, image: Image.Image, name: str) -> Image.Image:
        """A decoded image in mode ``L`` or ``RGB``.

        Raises:
            GauntletError: It has colour that would be lost, or values outside its range.
        """
        if self.channels == 1 and not self.drops_colour and not is_grey(image):
            raise GauntletError(f"{name} has colours where the files before are grey: write `channels: 3`, or 1.")
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = _eight_bits(image, name)
        if image.has_transparency_data:
            image = _over(image, self.background)
        mode = "L" if self.channels == 1 else "RGB"
        return image if image.mode == mode else image.convert(mode)


def is_grey(image: Image.Image) -> bool:
    """Whether an image that was opened (not decoded yet) holds no colour."""
    if image.mode == "P":
        colours = np.asarray(image.getpalette() or [0, 0, 0]).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in (*_GREY, "LA", "La")


def _over(image: Image.Image, background: str) -> Image.Image:
    """An image with its transparent pixels over a colour."""
    from PIL import Image, ImageColor

    behind = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
    return Image.alpha_composite(behind, image.convert("RGBA"))


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """A grey image of 16 (or, as floats in [0, 1], 32) bits in 256 levels, rounded."""
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (low >= 0 and high <= top):
        wanted = "floats in [0, 1]" if image.mode == "F" else "16-bit values from 0 to 65535"
        raise DamagedImage(f"{name} holds values from {low:g} to {high:g}, expected {wanted}.")
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))


def size_of(file: Path) -> tuple[int, int, int]:
    """(C, H, W) that a file says, turned upright, without decoding it; C is 1 or 3.

    Raises:
        DamagedImage: It is absent or no image.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            return (1 if is_grey(image) else 3, *((width, height) if turned else (height, width)))
    except Exception:  # as above
        raise DamagedImage(f"{file} is damaged or no image.") from None
