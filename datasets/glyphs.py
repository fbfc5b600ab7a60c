"""Letters rendered from the fonts that matplotlib brings along."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..registry import NotAvailable, dataset
from .checks import check_draw

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_LETTERS = "ABCDEFGHIJ"
_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSans-Oblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSansMono-Oblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "STIXGeneralItalic",
    "cmb10", "cmmi10", "cmr10", "cmss10", "cmsy10", "cmti10", "cmtt10",
)  # fmt: skip
_SIDE, _FINER = 28, 4  # drawn four times finer and then reduced: antialiased at any angle
_SMALLEST, _LARGEST = 15, 25  # longer side of the upright letter, in pixels
_TILT = 20  # degrees


@dataset(
    "glyphs",
    tags=("grey", "letters", "embedded", "stand-in"),
    splits=("test",),
    classes=tuple(_LETTERS),
    shape=(1, _SIDE, _SIDE),
    versions=("matplotlib", "pillow"),
    stand_in="notMNIST",
)
def glyphs(*, count: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Letters A-J rendered from matplotlib's fonts: a stand-in for notMNIST, not notMNIST itself.

    Random font, size (15 to 25 pixels), rotation (up to 20 degrees) and place; light on dark, antialiased.
    """
    check_draw("glyphs", count, seed)
    labels = np.arange(count) % len(_LETTERS)
    images = [_render(_LETTERS[label], np.random.RandomState([seed, index])) for index, label in enumerate(labels)]
    return np.stack(images), labels


def _render(letter: str, rng: np.random.RandomState) -> np.ndarray:
    from PIL import Image

    drawn = _draw(letter, _FONTS[rng.randint(len(_FONTS))], rng.uniform(_SMALLEST, _LARGEST) * _FINER)
    drawn = drawn.rotate(rng.uniform(-_TILT, _TILT), Image.Resampling.BICUBIC, expand=True)
    drawn = drawn.crop(drawn.getbbox())
    side = _SIDE * _FINER
    drawn.thumbnail((side, side))  # a large letter may stick out at the corners once it is turned
    frame = Image.new("L", (side, side))
    frame.paste(drawn, (rng.randint(side - drawn.width + 1), rng.randint(side - drawn.height + 1)))
    return np.asarray(frame.resize((_SIDE, _SIDE), Image.Resampling.BOX))


def _draw(letter: str, font_name: str, longer_side: float) -> Image:
    """The letter cut to its outline, white on black, its longer side as given (in fine pixels)."""
    from PIL import Image, ImageDraw

    trial = _font(font_name, 100).getbbox(letter)
    font = _font(font_name, max(round(100 * longer_side / max(trial[2] - trial[0], trial[3] - trial[1])), 1))
    left, upper, right, lower = font.getbbox(letter)
    image = Image.new("L", (int(right - left), int(lower - upper)))
    ImageDraw.Draw(image).text((-left, -upper), letter, fill=255, font=font)
    return image


@functools.cache
def _font(name: str, size: int) -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    if not path.exists():
        raise NotAvailable(f"Dataset 'glyphs' needs {path}, which this matplotlib lacks: install it with its fonts.")
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
